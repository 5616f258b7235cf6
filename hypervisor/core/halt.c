/*
 * A vCPU that waits: for what ends HLT, or, before it was started, for INIT and SIPI. Out of a HLT
 * that did not take long the last time it looks for a while before it sleeps (lib/poll_time.h; Linux
 * Documentation/virt/kvm/halt-polling.rst), unless its guest does that itself
 * (MSR_KVM_POLL_CONTROL). KVM ends that as soon as another task wants the CPU, which is not to be
 * seen from here: hence a quarter of its limit.
 */
#include <linux/errno.h>

#include "hypervisor/core/halt.h"
#include "hypervisor/irqchip/irqchip.h"
#include "lib/poll_time.h"

/* True: there is something to look at. */
static bool halt_poll(struct vcpu *v)
{
	bool found;

	if (!v->halt_poll_ns)
		return false;
	v->stat.halt_attempted_poll++;
	found = os_event_poll(&v->wake, v->halt_poll_ns, &v->run->immediate_exit);
	v->stat.halt_successful_poll += found;
	return found;
}

static int halt_sleep(struct vcpu *v)
{
	u64 start, limit = READ_ONCE(v->vm->halt_poll_ns);
	int ret = 0;

	/* A signal that is there already is an old one and tells nothing of this wait. */
	if (os_event_poll(&v->wake, 0, &v->run->immediate_exit))
		return 0;
	start = os_clock_ns();
	v->halt_poll_ns = v->msr.kvm_poll_control & 1 ? MIN(v->halt_poll_ns, limit) : 0;
	if (!halt_poll(v))
		ret = os_event_wait(&v->wake, OS_FOREVER, &v->run->immediate_exit);
	v->halt_poll_ns = poll_time_next(v->halt_poll_ns, os_clock_ns() - start, limit);
	return ret;
}

bool vcpu_born(struct vcpu *v)
{
	if (v->lapic)
		lapic_accept_events(v);
	return v->mp_state != KVM_MP_STATE_UNINITIALIZED;
}

int vcpu_wait(struct vcpu *v)
{
	bool halted = mp_state_halted(v->mp_state);
	int ret;

	if (halted && vcpu_event_waits(v)) {
		v->mp_state = KVM_MP_STATE_RUNNABLE;
		v->halted = false;
		pv_take_unhalted(v);
		return 1;
	}
	vcpu_leave(v);
	ret = halted ? halt_sleep(v) :
		       os_event_wait(&v->wake, OS_FOREVER, &v->run->immediate_exit);
	vcpu_enter(v);
	if (ret != -EINTR)
		return 1;
	v->run->exit_reason = KVM_EXIT_INTR;
	return ret;
}

int vcpu_halt(struct vcpu *v)
{
	v->stat.halts++;
	if (!v->vm->irqchip && !(v->vm->disabled_exits & KVM_X86_DISABLE_EXITS_HLT)) {
		v->halted = false;
		v->run->exit_reason = KVM_EXIT_HLT;
		return 0;
	}
	v->mp_state = KVM_MP_STATE_HALTED;
	return 1;
}
