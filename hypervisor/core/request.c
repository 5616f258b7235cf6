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

/* ---- immediate_exit --------------------------------------------------------------------------- */

#define WATCH_NS	1000000ULL
#define STEAL_TICKS	4	/* how long a guest may run without being told of stolen time */

/* True if some vCPU runs guest code; kicks those that are to come out. */
static bool watch_look(struct vm *vm)
{
	u32 i, n = load_acquire(&vm->nr_vcpus);
	bool any = false, turn = !(++vm->watch_ticks % STEAL_TICKS);

	for (i = 0; i < n; i++) {
		struct vcpu *v = vm->vcpus[i];

		if (!__atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST))
			continue;
		any = true;
		vcpu_stats_publish(v);
		if (READ_ONCE(v->run->immediate_exit) || (turn && READ_ONCE(v->pv.watch)))
			vcpu_kick(v);
	}
	return any;
}

static void watch_tick(void *arg)
{
	struct vm *vm = arg;

	if (!watch_look(vm)) {
		__atomic_store_n(&vm->watching, 0, __ATOMIC_SEQ_CST);
		/* One that entered meanwhile found that it was watched. */
		if (!watch_look(vm) || __atomic_exchange_n(&vm->watching, 1, __ATOMIC_SEQ_CST))
			return;
	}
	os_timer_arm(&vm->watch, os_clock_ns() + WATCH_NS);
}

void vm_watch_init(struct vm *vm)
{
	os_timer_init(&vm->watch, watch_tick, vm);
}

void vm_watch_start(struct vm *vm)
{
	if (!__atomic_exchange_n(&vm->watching, 1, __ATOMIC_SEQ_CST))
		os_timer_arm(&vm->watch, os_clock_ns() + WATCH_NS);
}

/* ---- in and out ------------------------------------------------------------------------------- */

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
