/* MSRs through the API: lists of indexes, and arrays of struct kvm_msr_entry.
 * api.rst 4.3, 4.18, 4.19 */
#include "hypervisor/api/api.h"
#include "hypervisor/x86/msr.h"

#define MAX_MSRS	512	/* in one list */
#define MAX_ENTRIES	256	/* in one KVM_GET_MSRS or KVM_SET_MSRS, as in KVM */

static long msr_index_list(struct call *c, unsigned int (*fill)(u32 *out, unsigned int n))
{
	struct kvm_msr_list *head = c->data;
	u32 room = head->nmsrs, *index = os_alloc(MAX_MSRS * sizeof(u32));
	long ret = -ENOMEM;

	if (!index)
		return ret;
	/* The count goes out even when the list does not fit. */
	head->nmsrs = fill(index, MAX_MSRS);
	ret = os_user_write(c->arg, head, sizeof(*head));
	if (!ret && room < head->nmsrs)
		ret = -E2BIG;
	if (!ret)
		ret = os_user_write(c->arg + sizeof(*head), index, head->nmsrs * sizeof(u32));
	os_free(index);
	return ret;
}

long sys_get_msr_index_list(struct call *c)
{
	return msr_index_list(c, msr_list);
}

long sys_get_msr_feature_index_list(struct call *c)
{
	return msr_index_list(c, msr_feature_list);
}

static int access_feature(struct vcpu *v, struct kvm_msr_entry *e)
{
	u64 val = 0;
	int ret = msr_feature_read(e->index, &val);

	e->data = val;
	return ret;
}

static int access_read(struct vcpu *v, struct kvm_msr_entry *e)
{
	u64 val = 0;
	int ret = msr_read(v, e->index, &val, true);

	e->data = val;
	return ret;
}

static int access_write(struct vcpu *v, struct kvm_msr_entry *e)
{
	return msr_write(v, e->index, e->data, true);
}

long sys_get_mce_cap(struct call *c)
{
	*(u64 *)c->data = MCE_SUPPORTED;
	return 0;
}

long vcpu_setup_mce(struct call *c)
{
	return mce_setup(c->v, *(const u64 *)c->data);
}

long vcpu_set_mce(struct call *c)
{
	return mce_inject(c->v, c->data);
}

long vm_set_msr_filter(struct call *c)
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = msr_filter_set(c->vm, c->data);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

/* Stops at the first that fails, and returns how many did not. */
static long msr_each(struct vcpu *v, struct kvm_msr_entry *e, u32 n,
	int (*access)(struct vcpu *v, struct kvm_msr_entry *e))
{
	u32 i;

	for (i = 0; i < n; i++)
		if (access(v, &e[i]))
			break;
	return i;
}

/* The whole list is read before anything is done, and written back as a whole. */
static long msr_io(struct call *c, int (*access)(struct vcpu *v, struct kvm_msr_entry *e), bool out)
{
	const struct kvm_msrs *head = c->data;
	size_t size = head->nmsrs * sizeof(struct kvm_msr_entry);
	u64 at = c->arg + sizeof(*head);
	struct kvm_msr_entry *e;
	long ret;

	if (head->nmsrs >= MAX_ENTRIES)
		return -E2BIG;
	if (!head->nmsrs)
		return 0;
	e = os_alloc(size);
	if (!e)
		return -ENOMEM;
	ret = os_user_read(e, at, size);
	if (!ret)
		ret = msr_each(c->v, e, head->nmsrs, access);
	if (ret >= 0 && out && os_user_write(at, e, size))
		ret = -EFAULT;
	os_free(e);
	return ret;
}

long sys_get_msrs(struct call *c)
{
	return msr_io(c, access_feature, true);
}

long vcpu_get_msrs(struct call *c)
{
	return msr_io(c, access_read, true);
}

long vcpu_set_msrs(struct call *c)
{
	return msr_io(c, access_write, false);
}
