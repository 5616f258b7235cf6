/* Hyper-V's interfaces: life of their state, requests and exits to user space (hyperv.h). */
#include "hypervisor/x86/hyperv.h"

#include <linux/errno.h>

#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/system.h"

/* ---- life --------------------------------------------------------------------------------------- */

int hv_vm_create(struct vm *vm)
{
	vm->hv = os_alloc(sizeof(*vm->hv));
	if (!vm->hv)
		return -ENOMEM;
	os_mutex_init(&vm->hv->lock);
	return 0;
}

static void connection_free(struct hv_connection *c)
{
	os_eventfd_put(c->event);
	os_free(c);
}

void hv_vm_destroy(struct vm *vm)
{
	struct hv_vm *hv = vm->hv;

	if (!hv)
		return;
	while (hv->connections) {
		struct hv_connection *c = hv->connections;

		hv->connections = c->next;
		connection_free(c);
	}
	os_mutex_destroy(&hv->lock);
	os_free(hv);
}

int hv_vcpu_need(struct vcpu *v)
{
	struct hv_vcpu *hv;

	if (v->hv)
		return 0;
	hv = os_alloc(sizeof(*hv));
	if (!hv)
		return -ENOMEM;
	hv->vp_index = v->index;
	hv_synic_init(hv);
	hv_stimer_init(v, hv);
	store_release(&v->hv, hv);
	return 0;
}

void hv_vcpu_destroy(struct vcpu *v)
{
	if (!v->hv)
		return;
	hv_stimer_destroy(v->hv);
	os_free(v->hv);
	v->hv = NULL;
}

struct vcpu *hv_vcpu_by_index(const struct vm *vm, u32 vp_index)
{
	u32 n = load_acquire(&vm->nr_vcpus);

	for (u32 i = 0; i < n; i++)
		if (hv_index(vm->vcpus[i]) == vp_index)
			return vm->vcpus[i];
	return NULL;
}

/* ---- what user space configures ----------------------------------------------------------------- */

int hv_cpuid_changed(struct vcpu *v)
{
	u32 out[4];
	struct hv_cpuid *c;

	cpuid_read(v, HV_LEAF_INTERFACE, 0, out);
	if (!v->hv && out[0] != HV_INTERFACE)
		return 0;
	if (hv_vcpu_need(v))
		return -ENOMEM;
	c = &v->hv->cpuid;
	memset(c, 0, sizeof(*c));
	v->hv->enabled = out[0] == HV_INTERFACE;
	if (!v->hv->enabled)
		return 0;
	cpuid_read(v, HV_LEAF_FEATURES, 0, out);
	c->features_eax = out[0];
	c->features_ebx = out[1];
	c->features_edx = out[3];
	cpuid_read(v, HV_LEAF_ADVICE, 0, out);
	c->advice_eax = out[0];
	c->advice_ebx = out[1];
	cpuid_read(v, HV_LEAF_DBG_PLATFORM, 0, out);
	c->syndbg_eax = out[0];
	return 0;
}

int hv_enable_synic(struct vcpu *v, bool keep_pages)
{
	int ret = hv_vcpu_need(v);

	if (ret)
		return ret;
	v->hv->keep_pages = keep_pages;
	v->hv->control = 1;
	WRITE_ONCE(v->hv->synic, true);
	return 0;
}

int hv_enable_enforce(struct vcpu *v, bool on)
{
	int ret = on ? hv_vcpu_need(v) : 0;

	if (!ret && v->hv)
		v->hv->enforce = on;
	return ret;
}

/* ---- events of connections ---------------------------------------------------------------------- */

#define CONNECTION_ID	0xffffffu

static struct hv_connection **connection_find(struct hv_vm *hv, u32 id)
{
	struct hv_connection **p = &hv->connections;

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	return p;
}

static int connection_add(struct hv_vm *hv, struct hv_connection *new)
{
	struct hv_connection **p;
	int ret = -EEXIST;

	os_mutex_lock(&hv->lock);
	p = connection_find(hv, new->id);
	if (!*p) {
		*p = new;
		ret = 0;
	}
	os_mutex_unlock(&hv->lock);
	return ret;
}

static int eventfd_assign(struct hv_vm *hv, u32 id, int fd)
{
	struct hv_connection *c = os_alloc(sizeof(*c));
	int ret;

	if (!c)
		return -ENOMEM;
	c->id = id;
	ret = os_eventfd_get(fd, &c->event);
	if (ret) {
		os_free(c);
		return ret;
	}
	ret = connection_add(hv, c);
	if (ret)
		connection_free(c);
	return ret;
}

static int eventfd_deassign(struct hv_vm *hv, u32 id)
{
	struct hv_connection **p, *c;

	os_mutex_lock(&hv->lock);
	p = connection_find(hv, id);
	c = *p;
	if (c)
		*p = c->next;
	os_mutex_unlock(&hv->lock);
	if (!c)
		return -ENOENT;
	connection_free(c);
	return 0;
}

int hv_eventfd(struct vm *vm, const struct kvm_hyperv_eventfd *arg)
{
	if (arg->flags & ~KVM_HYPERV_EVENTFD_DEASSIGN || arg->conn_id & ~CONNECTION_ID)
		return -EINVAL;
	if (arg->flags)
		return eventfd_deassign(vm->hv, arg->conn_id);
	return eventfd_assign(vm->hv, arg->conn_id, arg->fd);
}

/* ---- requests ----------------------------------------------------------------------------------- */

void hv_request(struct vcpu *v, u32 what)
{
	__atomic_fetch_or(&v->hv->todo, what, __ATOMIC_ACQ_REL);
	vcpu_request(v, REQ_HYPERV);
}

void hv_request_now(struct vcpu *v, u32 what)
{
	hv_request(v, what);
	v->boundary = true;
}

static int exit_system_event(struct vcpu *v, u32 type)
{
	v->run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	v->run->system_event.type = type;
	v->run->system_event.ndata = 0;
	return 0;
}

static int exit_hyperv(struct vcpu *v)
{
	v->run->exit_reason = KVM_EXIT_HYPERV;
	v->run->hyperv = v->hv->exit;
	return 0;
}

static bool todo_take(struct hv_vcpu *hv, u32 what)
{
	return __atomic_fetch_and(&hv->todo, ~what, __ATOMIC_ACQ_REL) & what;
}

static int serve_one(struct vcpu *v)
{
	struct hv_vcpu *hv = v->hv;

	if (todo_take(hv, HV_DO_CRASH))
		return exit_system_event(v, KVM_SYSTEM_EVENT_CRASH);
	if (todo_take(hv, HV_DO_RESET))
		return exit_system_event(v, KVM_SYSTEM_EVENT_RESET);
	if (todo_take(hv, HV_DO_EXIT))
		return exit_hyperv(v);
	if (todo_take(hv, HV_DO_STIMER))
		hv_stimers_run(v);
	return 1;
}

/* One exit a time; what else waits comes with the next. */
int hv_serve(struct vcpu *v)
{
	int ret = serve_one(v);

	if (!ret && __atomic_load_n(&v->hv->todo, __ATOMIC_ACQUIRE))
		vcpu_request(v, REQ_HYPERV);
	return ret;
}

/* ---- answers ------------------------------------------------------------------------------------ */

/* Past the instruction that user space served, as if it had just been executed. */
static void call_finish(struct vcpu *v)
{
	hv_call_result(v, v->run->hyperv.u.hcall.result);
	v->r[R_RIP] = (v->r[R_RIP] + v->hv->call_len) & v->rip_mask;
	v->hv->call_len = 0;
	v->irq_shadow = v->mov_ss_shadow = false;
	vcpu_update_mode(v);
	if (v->rflags & RFLAGS_TF) {
		event_queue(v, EV_TRAP, VEC_DB, false, 0);
		v->event.settled = false;
		v->event.payload = DR6_BS;
	}
}

void hv_complete(struct vcpu *v)
{
	if (v->hv->call_len)
		call_finish(v);
	if (v->hv->syndbg_status) {
		v->hv->syndbg_status = false;
		v->vm->hv->syndbg.status = v->run->hyperv.u.syndbg.status;
	}
}
