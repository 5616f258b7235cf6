/*
 * The guest's RDMSR and WRMSR as user space may have them: a filter that keeps registers from the
 * guest (KVM_X86_SET_MSR_FILTER), and accesses that fail given to user space instead of #GP
 * (KVM_CAP_X86_USER_SPACE_MSR). Linux Documentation/virt/kvm/api.rst 4.97, 7.21.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/x86/msr.h"
#include "hypervisor/x86/system.h"

#define RANGE_FLAGS	(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)
#define X2APIC_FIRST	0x800u
#define X2APIC_LAST	0x8ffu

struct msr_filter {
	bool allow;		/* what no range says */
	u32 n;
	struct msr_range {
		u32 flags, first, count;
		u64 *allowed;	/* a bit each */
	} range[KVM_MSR_FILTER_MAX_RANGES];
};

_Static_assert(sizeof(struct kvm_msr_filter_range) == 24, "ABI");
_Static_assert(sizeof(struct kvm_msr_filter) == 8 + 24 * KVM_MSR_FILTER_MAX_RANGES, "ABI");

/* ---- the filter ------------------------------------------------------------------------------ */

void msr_filter_free(struct msr_filter *f)
{
	u32 n;

	for (n = 0; f && n < f->n; n++)
		os_free(f->range[n].allowed);
	os_free(f);
}

static int range_add(struct msr_filter *f, const struct kvm_msr_filter_range *r)
{
	struct msr_range *to = &f->range[f->n];
	u64 size = ALIGN_UP((u64)r->nmsrs, 64ULL) / 8;
	int ret;

	if (!r->nmsrs)
		return 0;
	if (!r->flags || r->flags & ~(u32)RANGE_FLAGS || size > KVM_MSR_FILTER_MAX_BITMAP_SIZE)
		return -EINVAL;
	to->allowed = os_alloc(size);
	if (!to->allowed)
		return -ENOMEM;
	ret = os_user_read(to->allowed, (u64)r->bitmap, size);
	if (ret) {
		os_free(to->allowed);
		return ret;
	}
	to->flags = r->flags;
	to->first = r->base;
	to->count = r->nmsrs;
	f->n++;
	return 0;
}

static bool filter_valid(const struct kvm_msr_filter *in)
{
	bool empty = true;
	u32 n;

	for (n = 0; n < KVM_MSR_FILTER_MAX_RANGES; n++)
		empty = empty && !in->ranges[n].nmsrs;
	if (in->flags & ~(u32)KVM_MSR_FILTER_DEFAULT_DENY)
		return false;
	return !(empty && in->flags & KVM_MSR_FILTER_DEFAULT_DENY);
}

int msr_filter_set(struct vm *vm, const struct kvm_msr_filter *in)
{
	struct msr_filter *f, *old;
	int ret = 0;
	u32 n;

	if (!filter_valid(in))
		return -EINVAL;
	f = os_alloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->allow = !(in->flags & KVM_MSR_FILTER_DEFAULT_DENY);
	for (n = 0; n < KVM_MSR_FILTER_MAX_RANGES && !ret; n++)
		ret = range_add(f, &in->ranges[n]);
	if (ret) {
		msr_filter_free(f);
		return ret;
	}
	vm_stop_vcpus(vm);
	old = vm->msr_filter;
	vm->msr_filter = f;
	vm_start_vcpus(vm);
	msr_filter_free(old);
	return 0;
}

/* The first range that holds the register for this kind of access decides. */
static bool filter_allows(const struct msr_filter *f, u32 index, u32 kind)
{
	u32 n;

	if (likely(!f) || (index >= X2APIC_FIRST && index <= X2APIC_LAST))
		return true;
	for (n = 0; n < f->n; n++) {
		const struct msr_range *r = &f->range[n];
		u32 at = index - r->first;

		if (index >= r->first && at < r->count && r->flags & kind)
			return r->allowed[at / 64] & BIT(at % 64);
	}
	return f->allow;
}

/* ---- the guest's accesses -------------------------------------------------------------------- */

static u32 exit_reason(int err)
{
	switch (err) {
	case -EPERM:
		return KVM_MSR_EXIT_REASON_FILTER;
	case -ENOENT:
		return KVM_MSR_EXIT_REASON_UNKNOWN;
	default:
		return KVM_MSR_EXIT_REASON_INVAL;
	}
}

static void access_failed(struct vcpu *v, u32 index, bool write, u64 val, int err)
{
	u32 reason = exit_reason(err);

	if (v->vm->user_msr_mask & reason)
		io_msr_exit(v, index, write, val, reason);
	raise_gp(v, 0);
}

u64 msr_guest_read(struct vcpu *v, u32 index)
{
	u64 val = 0;
	int ret;

	if (unlikely(io_msr_answered(v, index, false, &val)))
		return val;
	ret = filter_allows(v->vm->msr_filter, index, KVM_MSR_FILTER_READ) ?
		msr_read(v, index, &val, false) : -EPERM;
	if (unlikely(ret))
		access_failed(v, index, false, 0, ret);
	return val;
}

void msr_guest_write(struct vcpu *v, u32 index, u64 val)
{
	int ret;

	if (unlikely(io_msr_answered(v, index, true, &val)))
		return;
	ret = filter_allows(v->vm->msr_filter, index, KVM_MSR_FILTER_WRITE) ?
		msr_write(v, index, val, false) : -EPERM;
	if (unlikely(ret))
		access_failed(v, index, true, val, ret);
}
