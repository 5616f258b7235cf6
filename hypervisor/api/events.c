/*
 * Events through the API: what is on its way into the guest, the multiprocessor state, injection,
 * and the debugger's settings. Linux Documentation/virt/kvm/api.rst 4.16, 4.31, 4.32, 4.38, 4.39,
 * 4.87.
 */
#include "hypervisor/api/api.h"
#include "hypervisor/core/halt.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/segment.h"
#include "hypervisor/x86/smm.h"

/* ---- KVM_GET_VCPU_EVENTS ------------------------------------------------------------------ */

/* CR2 for #PF, the new bits of DR6 for #DB. */
static bool event_has_payload(const struct event *ev)
{
	return !ev->settled && (ev->vector == VEC_DB || (ev->vector == VEC_PF && ev->type == EV_FAULT));
}

/* As if delivery had begun. */
static void payload_deliver(struct vcpu *v, struct event *ev)
{
	if (ev->vector == VEC_PF)
		v->cr2 = ev->payload;
	else if (ev->payload)
		debug_commit(v, ev->payload);
	ev->settled = true;
}

/*
 * An exception on its way. With KVM_CAP_EXCEPTION_PAYLOAD user space carries what it will leave in
 * CR2 or DR6; without, that is given as already written, so that it survives the trip.
 */
static void exception_get(struct vcpu *v, struct kvm_vcpu_events *e)
{
	struct event *ev = &v->event;
	bool payload = event_has_payload(ev);

	if (payload && !v->vm->exception_payload)
		payload_deliver(v, ev);
	e->exception.injected = !v->vm->exception_payload || ev->injected;
	e->exception.pending = !ev->injected;
	e->exception.nr = ev->vector;
	e->exception.has_error_code = ev->has_error;
	e->exception.error_code = ev->error;
	if (payload && v->vm->exception_payload) {
		e->exception_has_payload = 1;
		e->exception_payload = ev->payload;
	}
}

/*
 * Software interrupts and exceptions are not told of, as the structure has no place for the length of
 * their instruction. RIP is still there, so they come again.
 */
static void event_get(struct vcpu *v, struct kvm_vcpu_events *e)
{
	switch (v->event.type) {
	case EV_EXTINT:
		e->interrupt.injected = 1;
		e->interrupt.nr = v->event.vector;
		break;
	case EV_NMI:
		e->nmi.injected = 1;
		break;
	case EV_FAULT:
	case EV_TRAP:
		exception_get(v, e);
		break;
	}
}

void events_get(struct vcpu *v, struct kvm_vcpu_events *e)
{
	lapic_accept_nmi(v);
	memset(e, 0, sizeof(*e));
	event_get(v, e);
	if (v->extint_pending && !e->interrupt.injected) {
		e->interrupt.injected = 1;
		e->interrupt.nr = v->extint_vector;
	}
	if (v->mov_ss_shadow)
		e->interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	else if (v->irq_shadow)
		e->interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	e->nmi.pending = v->nmi_pending != 0;
	e->nmi.masked = v->nmi_blocked;
	e->smi.smm = v->smm;
	e->smi.pending = v->smi_pending;
	e->smi.smm_inside_nmi = v->smm_inside_nmi;
	e->smi.latched_init = lapic_init_latched(v);
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		   KVM_VCPUEVENT_VALID_SMM;
	if (v->vm->exception_payload)
		e->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (v->vm->triple_fault_event) {
		e->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
		e->triple_fault.pending = !!(READ_ONCE(v->requests) & BIT(REQ_TRIPLE_FAULT));
	}
}

/* ---- KVM_SET_VCPU_EVENTS ------------------------------------------------------------------ */

#define EVENT_FLAGS (KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | \
		     KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM | \
		     KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT)

/* One that is pending counts only with VALID_PAYLOAD. */
static bool exception_given(const struct kvm_vcpu_events *e)
{
	bool pending = e->flags & KVM_VCPUEVENT_VALID_PAYLOAD && e->exception.pending;

	return pending || e->exception.injected;
}

static bool events_valid(const struct vcpu *v, const struct kvm_vcpu_events *e)
{
	if (e->flags & ~(u32)EVENT_FLAGS)
		return false;
	if ((e->flags & KVM_VCPUEVENT_VALID_PAYLOAD && !v->vm->exception_payload) ||
	    (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT && !v->vm->triple_fault_event))
		return false;
	/* INIT waits while in SMM, so nobody is there after one. */
	if ((e->flags & KVM_VCPUEVENT_VALID_SMM) && (e->smi.smm || e->smi.pending) &&
	    v->mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return false;
	return !exception_given(e) || (e->exception.nr <= 31 && e->exception.nr != VEC_NMI);
}

static void event_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	bool pending = e->flags & KVM_VCPUEVENT_VALID_PAYLOAD && e->exception.pending;

	/* Accesses of a delivery that had begun went with it. */
	if (v->event.type != EV_NONE && v->event.injected)
		memset(&v->io, 0, sizeof(v->io));
	v->event.type = EV_NONE;
	v->extint_pending = false;
	if (exception_given(e)) {
		event_queue(v, EV_FAULT, e->exception.nr, e->exception.has_error_code,
			e->exception.error_code);
		v->event.injected = !pending;
		if (pending) {
			v->event.settled = !e->exception_has_payload;
			v->event.payload = e->exception_payload;
		}
	} else if (e->nmi.injected) {
		event_queue(v, EV_NMI, VEC_NMI, false, 0);
	} else if (e->interrupt.injected && e->interrupt.soft) {
		event_queue(v, EV_SOFTINT, e->interrupt.nr, false, 0);
	}
	if (e->interrupt.injected && !e->interrupt.soft) {
		v->extint_pending = true;
		v->extint_vector = e->interrupt.nr;
	}
}

/* One that comes with an exception waits for it. It has not been served, whatever blocks others. */
static void nmi_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	bool waits = e->nmi.injected && v->event.type != EV_NMI;

	v->nmi_blocked = e->nmi.masked && !waits;
	if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
		v->nmi_pending = 0;
		event_nmi(v, e->nmi.pending);
	}
	if (waits)
		event_nmi(v, 1);
}

static void smm_events_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	if (v->smm != !!e->smi.smm)
		smm_set(v, e->smi.smm);
	v->smi_pending = e->smi.pending;
	if (v->smm)
		v->smm_inside_nmi = e->smi.smm_inside_nmi;
	lapic_latch_init(v, e->smi.latched_init);
}

int events_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	if (!events_valid(v, e))
		return -EINVAL;
	/* An NMI sent before is what is overwritten, not one that comes after. */
	lapic_accept_nmi(v);
	event_set(v, e);
	if (e->flags & KVM_VCPUEVENT_VALID_SHADOW) {
		v->mov_ss_shadow = e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
		v->irq_shadow = e->interrupt.shadow != 0;
	}
	nmi_set(v, e);
	if (e->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR)
		v->sipi_vector = e->sipi_vector;
	if (e->flags & KVM_VCPUEVENT_VALID_SMM)
		smm_events_set(v, e);
	if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT && e->triple_fault.pending)
		vcpu_request(v, REQ_TRIPLE_FAULT);
	else if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		__atomic_fetch_and(&v->requests, ~(u32)BIT(REQ_TRIPLE_FAULT), __ATOMIC_SEQ_CST);
	vcpu_update_mode(v);
	vcpu_request(v, REQ_EVENT);
	return 0;
}

/* ---- multiprocessor state ----------------------------------------------------------------- */

long vcpu_get_mp_state(struct call *c)
{
	struct kvm_mp_state *s = c->data;

	/* INIT or SIPI that came meanwhile are part of it. */
	if (c->v->lapic)
		lapic_accept_events(c->v);
	s->mp_state = c->v->mp_state;
	/* It has been kicked (KVM_HC_KICK_CPU), but not run yet. */
	if (mp_state_halted(s->mp_state) && pv_unhalted(&c->v->pv))
		s->mp_state = KVM_MP_STATE_RUNNABLE;
	return 0;
}

long vcpu_set_mp_state(struct call *c)
{
	const struct kvm_mp_state *s = c->data;
	struct vcpu *v = c->v;

	switch (s->mp_state) {
	case KVM_MP_STATE_RUNNABLE:
		break;
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_SIPI_RECEIVED:
		if (v->smm || v->smi_pending)
			return -EINVAL;
		/* fall through */
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_HALTED:
	case KVM_MP_STATE_AP_RESET_HOLD:
		/* Only the local APIC's messages and interrupts lead out of these. */
		if (!v->lapic)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}
	v->mp_state = s->mp_state;
	if (s->mp_state == KVM_MP_STATE_SIPI_RECEIVED) {
		v->mp_state = KVM_MP_STATE_INIT_RECEIVED;
		lapic_start(v, (u8)v->sipi_vector);
	}
	v->halted = v->mp_state == KVM_MP_STATE_HALTED;
	vcpu_request(v, REQ_EVENT);
	return 0;
}

/* ---- injection ---------------------------------------------------------------------------- */

/* With local APICs here only a PIC in user space has something to say. */
static long vcpu_user_pic(struct vcpu *v, u8 vector)
{
	if (!v->vm->split_irqchip)
		return -ENXIO;
	if (v->user_pic_pending)
		return -EEXIST;
	v->user_pic_vector = vector;
	v->user_pic_pending = true;
	vcpu_request(v, REQ_EVENT);
	return 0;
}

long vcpu_interrupt(struct call *c)
{
	const struct kvm_interrupt *irq = c->data;

	if (irq->irq > 255)
		return -EINVAL;
	if (c->vm->irqchip)
		return vcpu_user_pic(c->v, (u8)irq->irq);
	c->v->extint_vector = irq->irq;
	c->v->extint_pending = true;
	vcpu_request(c->v, REQ_EVENT);
	return 0;
}

long vcpu_nmi(struct call *c)
{
	event_nmi(c->v, 1);
	vcpu_request(c->v, REQ_EVENT);
	return 0;
}

long vcpu_smi(struct call *c)
{
	c->v->smi_pending = true;
	vcpu_request(c->v, REQ_EVENT);
	return 0;
}

/* ---- debugging ---------------------------------------------------------------------------- */

#define GUESTDBG_INJECT (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)

long vcpu_set_guest_debug(struct call *c)
{
	const struct kvm_guest_debug *d = c->data;
	struct vcpu *v = c->v;

	if (d->control & GUESTDBG_INJECT) {
		if (v->event.type != EV_NONE)
			return -EBUSY;
		event_queue(v, EV_FAULT, d->control & KVM_GUESTDBG_INJECT_DB ? VEC_DB : VEC_BP,
			false, 0);
	}
	v->guest_debug = d->control & KVM_GUESTDBG_ENABLE ? d->control & ~(u32)GUESTDBG_INJECT : 0;
	if (v->guest_debug & KVM_GUESTDBG_USE_HW_BP)
		memcpy(v->guest_debug_dr, d->arch.debugreg, sizeof(v->guest_debug_dr));
	vcpu_update_mode(v);
	/* A page that is watched now must leave the fast path. */
	mmu_flush_all(v);
	return 0;
}
