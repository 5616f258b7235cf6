/*
 * Requests: the only way into a vCPU from other threads. A bit says what, kick gets the vCPU out of
 * guest code, wake out of a HLT sleep.
 *
 * The order matters: bit, then kick, then wake. The run loop clears kick before it looks at the
 * bits, so a bit that it did not see comes with a kick that it did not clear.
 */
#include "hypervisor/core/vm.h"

void vcpu_kick(struct vcpu *v)
{
	__atomic_store_n(&v->kick, 1, __ATOMIC_SEQ_CST);
	os_event_signal(&v->wake);
}

void vcpu_request(struct vcpu *v, int req)
{
	__atomic_fetch_or(&v->requests, BIT(req), __ATOMIC_SEQ_CST);
	vcpu_kick(v);
}

void vcpu_request_lazy(struct vcpu *v, int req)
{
	__atomic_fetch_or(&v->requests, BIT(req), __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST))
		vcpu_kick(v);
}

void vcpu_enter(struct vcpu *v)
{
	for (;;) {
		__atomic_store_n(&v->in_guest, 1, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&v->vm->stopped, __ATOMIC_SEQ_CST))
			return;
		__atomic_store_n(&v->in_guest, 0, __ATOMIC_SEQ_CST);
		os_event_wait(&v->wake, OS_FOREVER, NULL);
	}
}

void vcpu_leave(struct vcpu *v)
{
	__atomic_store_n(&v->in_guest, 0, __ATOMIC_SEQ_CST);
}
