/* The life of a virtual machine: creation, references, stopping its vCPUs, death by internal
 * error. */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/msr.h"
#include "hypervisor/x86/system.h"
#include "hypervisor/x86/hyperv.h"
#include "lib/poll_time.h"

int vm_create(struct vm **out)
{
	struct vm *vm = os_alloc(sizeof(*vm));
	const char *name = os_getenv("QUMRA_ENGINE");

	if (!vm)
		return -ENOMEM;
	vm->slots = os_alloc(sizeof(*vm->slots));
	vm->engine = engine_by_name(name ? name : "dbt");
	if (!vm->slots || !vm->engine || hv_vm_create(vm)) {
		int ret = vm->engine ? -ENOMEM : -ENOENT;

		if (!vm->engine)
			os_log(OS_LOG_ERROR, "QUMRA_ENGINE names no CPU engine: %s", name);
		os_free(vm->slots);
		os_free(vm);
		return ret;
	}
	os_mutex_init(&vm->lock);
	os_mutex_init(&vm->stop_lock);
	os_mutex_init(&vm->code_lock);
	if (coalesced_init(vm)) {
		os_free(vm->slots);
		os_free(vm);
		return -ENOMEM;
	}
	os_mutex_init(&vm->dirty_lock);
	vm_watch_init(vm);
	/* One CPU: whoever ends a HLT could not run while the vCPU looks. */
	vm->halt_poll_ns = os_cpus() > 1 ? POLL_TIME_MAX_NS : 0;
	vm->refs = 1;
	vm->fd = -1;
	/* kvmclock starts at zero with the VM. */
	vm->clock_offset = -(s64)os_clock_ns();
	*out = vm;
	return 0;
}

static void vm_destroy(struct vm *vm)
{
	u32 i;

	/* First what reaches vCPUs: the watch, and the chips (the PIT's alarm). */
	os_timer_destroy(&vm->watch);
	if (vm->irqchip)
		irqchip_destroy(vm);
	ioeventfds_free(vm);
	coalesced_free(vm);
	for (i = 0; i < vm->nr_vcpus; i++)
		vcpu_destroy(vm->vcpus[i]);
	hv_vm_destroy(vm);
	memslots_free(vm);
	stats_free(&vm->stats);
	msr_filter_free(vm->msr_filter);
	os_free(vm->pmu_filter);
	os_mutex_destroy(&vm->dirty_lock);
	os_mutex_destroy(&vm->code_lock);
	os_mutex_destroy(&vm->stop_lock);
	os_mutex_destroy(&vm->lock);
	os_free(vm);
}

void vm_get(struct vm *vm)
{
	__atomic_fetch_add(&vm->refs, 1, __ATOMIC_RELAXED);
}

void vm_put(struct vm *vm)
{
	if (__atomic_sub_fetch(&vm->refs, 1, __ATOMIC_ACQ_REL) == 0)
		vm_destroy(vm);
}

void vm_user_wrote(struct vm *vm)
{
	store_release(&vm->user_wrote, tsc_host());
}

void vm_request_all(struct vm *vm, int req)
{
	u32 i, n = load_acquire(&vm->nr_vcpus);

	for (i = 0; i < n; i++)
		vcpu_request(vm->vcpus[i], req);
}

void vm_stats_publish(const struct vm *vm)
{
	u64 *data = load_acquire(&vm->stats.data);

	if (unlikely(data))
		memcpy(data, &vm->stat, sizeof(vm->stat));
}

/* ---- stopping -------------------------------------------------------------------------------- */

/* Takes stop_lock. A vCPU thread has left before. */
static void world_stop(struct vm *vm)
{
	u32 i, n;

	os_mutex_lock(&vm->stop_lock);
	__atomic_store_n(&vm->stopped, 1, __ATOMIC_SEQ_CST);
	vm->stat.stops++;
	/* One that is published from now on sees that it may not enter. */
	n = load_acquire(&vm->nr_vcpus);
	for (i = 0; i < n; i++)
		vcpu_request_lazy(vm->vcpus[i], REQ_PAUSE);
	for (i = 0; i < n; i++)
		while (__atomic_load_n(&vm->vcpus[i]->in_guest, __ATOMIC_SEQ_CST))
			os_yield();
}

static void world_start(struct vm *vm)
{
	u32 i, n = load_acquire(&vm->nr_vcpus);

	vm_stats_publish(vm);
	__atomic_store_n(&vm->stopped, 0, __ATOMIC_SEQ_CST);
	os_mutex_unlock(&vm->stop_lock);
	for (i = 0; i < n; i++)
		os_event_signal(&vm->vcpus[i]->wake);
}

void vm_stop_vcpus(struct vm *vm)
{
	if (!vm->stop_depth++)
		world_stop(vm);
}

void vm_start_vcpus(struct vm *vm)
{
	if (!--vm->stop_depth)
		world_start(vm);
}

void vcpu_exclusive_begin(struct vcpu *v)
{
	vcpu_leave(v);
	world_stop(v->vm);
	v->exclusive = true;
	if (READ_ONCE(v->requests) & (BIT(REQ_TLB_FLUSH) | BIT(REQ_CODE_FLUSH)))
		vcpu_unwind(v, UNWIND_RESTART);
	code_protect_serve(v);
}

void vcpu_exclusive_end(struct vcpu *v)
{
	v->exclusive = false;
	world_start(v->vm);
	vcpu_enter(v);
	/* The watch ends where it sees no vCPU run guest code, and none did meanwhile. */
	vm_watch(v->vm);
	/* What was asked of us while we were out is served before anything else is run. */
	v->boundary = true;
	if (__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST))
		v->kick = 1;
}

/* ---- death ----------------------------------------------------------------------------------- */


void vm_kill(struct vm *vm, const char *why)
{
	if (__atomic_exchange_n(&vm->dead, 1, __ATOMIC_SEQ_CST))
		return;
	os_log(OS_LOG_ERROR, "internal error, the virtual machine stops: %s", why);
	vm_request_all(vm, REQ_VM_DEAD);
}
