/* The life of a virtual CPU. It lives as long as its VM: closing its descriptor only ends user
 * space's access. */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/hyperv.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/msr.h"
#include "hypervisor/x86/system.h"

#define VCPU_SIZE ALIGN_UP(sizeof(struct vcpu), 4096UL)

static bool vcpu_id_taken(const struct vm *vm, u32 id)
{
	u32 i;

	for (i = 0; i < vm->nr_vcpus; i++)
		if (vm->vcpus[i]->id == id)
			return true;
	return false;
}

static void signal_poll_tick(void *arg)
{
	struct vcpu *v = arg;

	vcpu_request(v, REQ_EXIT);
	os_timer_arm(&v->signal_poll, os_clock_ns() + SIGNAL_POLL_NS);
}

static void vcpu_init(struct vcpu *v, struct vm *vm, u32 id, struct kvm_run *run)
{
	v->vm = vm;
	v->id = id;
	v->index = vm->nr_vcpus;
	v->run = run;
	v->engine = vm->engine;
	v->mp_state = vm->irqchip && id != vm->bsp_id ? KVM_MP_STATE_UNINITIALIZED
						      : KVM_MP_STATE_RUNNABLE;
	dirty_ring_init(v);
	if (tsc_set_khz(v, READ_ONCE(vm->tsc_khz)))
		tsc_set_khz(v, 0);
	os_mutex_init(&v->mutex);
	os_event_init(&v->wake);
	os_timer_init(&v->signal_poll, signal_poll_tick, v);
	pmu_init(v);
}

/* The spaces, each of which begins with the vCPU's own first page. */
static int spaces_create(struct vcpu *v)
{
	unsigned int n;
	int ret = 0;

	v->spaces = os_pages_alloc(SPACES_SIZE);
	if (!v->spaces)
		return -ENOMEM;
	for (n = 0; n < NR_SPACES && !ret; n++)
		ret = os_pages_alias(v, sizeof(v->space->hot), vcpu_space(v, n)->hot);
	return ret;
}

int vcpu_create(struct vm *vm, u32 id, struct kvm_run *run, struct vcpu **out)
{
	struct vcpu *v;
	int ret;

	if (id >= MAX_VCPU_IDS || vm->nr_vcpus == MAX_VCPUS)
		return -EINVAL;
	if (vcpu_id_taken(vm, id))
		return -EEXIST;
	v = os_pages_alloc_shared(VCPU_SIZE);
	if (!v)
		return -ENOMEM;
	vcpu_init(v, vm, id, run);
	ret = spaces_create(v);
	if (!ret)
		ret = fpu_create(v);
	if (!ret && vm->irqchip)
		ret = lapic_create(v);
	if (ret)
		goto out;
	mmu_init(v);
	vcpu_memory_catch(v);
	cpuid_set(v, v->cpuid, 0);
	ret = v->engine->vcpu_create(v);
	if (ret)
		goto out;
	vcpu_reset(v, false);
	*out = v;
	return 0;
out:
	v->run = NULL;
	vcpu_destroy(v);
	return ret;
}

void vcpu_stats_publish(const struct vcpu *v)
{
	u64 *data = load_acquire(&v->stats.data);

	if (unlikely(data))
		memcpy(data, &v->stat, sizeof(v->stat));
}

void vcpu_publish(struct vcpu *v)
{
	struct vm *vm = v->vm;

	vm->stat.vcpus++;
	vm->vcpus[v->index] = v;
	store_release(&vm->nr_vcpus, v->index + 1);
	vm_stats_publish(vm);
}

/* Takes a vCPU that creation left half done, too. */
void vcpu_destroy(struct vcpu *v)
{
	os_timer_destroy(&v->signal_poll);
	pmu_destroy(v);
	hv_vcpu_destroy(v);
	pv_destroy(v);
	stats_free(&v->stats);
	if (v->engine_state || v->code)
		v->engine->vcpu_destroy(v);
	if (v->lapic)
		lapic_destroy(v);
	if (v->fpu)
		fpu_destroy(v);
	if (v->run)
		os_fd_unmap(v->run, vcpu_mmap_bytes(v->vm));
	os_mutex_destroy(&v->mutex);
	os_pages_free(v->spaces, SPACES_SIZE);
	os_pages_free(v, VCPU_SIZE);
}
