/*
 * Messages between APICs: who is meant, and what acceptance does. SDM 3A 11.6 (ICR,
 * destinations), 11.5 (local sources), 11.8 (acceptance). Runs on any thread: of the receiver only
 * atomic words are changed, then it is told by a request.
 */
#include "hypervisor/irqchip/lapic.h"

#include "hypervisor/irqchip/chips.h"
#include "hypervisor/x86/system.h"

/* ---- destinations ---------------------------------------------------------------------------- */

#define XAPIC_BROADCAST		0xffu
#define X2APIC_BROADCAST	0xffffffffu

/* SDM 3A 11.6.2.1. IDs over 255 always name x2APICs, in either mode (KVM's hotplug rule). */
static bool match_physical(const struct lapic *l, u32 dest)
{
	if (lapic_x2apic(l) || dest > 0xff)
		return dest == l->vcpu->id;
	return dest == READ_ONCE(l->reg[LR_ID]) >> 24;
}

/* SDM 3A 11.6.2.2 (flat and cluster model), 11.12.10.2 (x2APIC) */
static bool match_logical(const struct lapic *l, u32 dest)
{
	u32 ldr = READ_ONCE(l->reg[LR_LDR]);

	if (lapic_x2apic(l))
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	ldr >>= 24;
	if (READ_ONCE(l->reg[LR_DFR]) >> 28 == 0xf)
		return ldr & dest;
	return ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
}

static bool match_dest(const struct lapic *l, const struct apic_msg *m)
{
	bool x2 = lapic_x2apic(l);

	if (m->dest == X2APIC_BROADCAST)
		return true;
	/* A chip or MSI has eight bits: its broadcast reaches x2APICs too, unless user space has
	 * remapped what it sends. api.rst 7.7 */
	if (m->dest == XAPIC_BROADCAST && (!x2 || (!m->ipi && !READ_ONCE(l->vcpu->vm->x2apic_exact))))
		return true;
	return m->logical ? match_logical(l, m->dest) : match_physical(l, m->dest);
}

static bool match(const struct lapic *l, const struct lapic *source, const struct apic_msg *m)
{
	if (!lapic_hw_enabled(l))
		return false;
	switch (m->shorthand) {
	case APIC_TO_SELF:
		return l == source;
	case APIC_TO_ALL:
		return true;
	case APIC_TO_OTHERS:
		return l != source;
	default:
		return match_dest(l, m);
	}
}

bool lapic_is_dest(const struct lapic *l, const struct apic_msg *m)
{
	return match(l, NULL, m);
}

/* ---- acceptance ------------------------------------------------------------------------------ */

static void post_event(struct lapic *l, u32 event)
{
	__atomic_fetch_or(&l->events, event, __ATOMIC_ACQ_REL);
	vcpu_request(l->vcpu, REQ_EVENT);
}

/* Two that come before the CPU looks are two: one to be served at once, one to be latched meanwhile. */
static void post_nmi(struct lapic *l)
{
	u32 old = __atomic_fetch_or(&l->events, LAPIC_EV_NMI, __ATOMIC_ACQ_REL);

	if (old & LAPIC_EV_NMI)
		__atomic_fetch_or(&l->events, LAPIC_EV_NMI2, __ATOMIC_ACQ_REL);
	vcpu_request(l->vcpu, REQ_EVENT);
}

/* SDM 3A 11.5.3: the error entry fires when a bit appears. */
void lapic_error(struct lapic *l, u32 bits)
{
	u32 old = __atomic_fetch_or(&l->errors, bits, __ATOMIC_ACQ_REL);
	u32 lvt = READ_ONCE(l->reg[LR_LVT_ERROR]);

	/* An illegal vector in this very entry ends here. */
	if (bits & ~old && (lvt & LVT_VECTOR) >= 16)
		lapic_local(l, LR_LVT_ERROR);
}

bool lapic_accept_vector(struct lapic *l, u8 vector, bool level)
{
	if (!lapic_sw_enabled(l))
		return false;
	if (vector < 16) {
		lapic_error(l, ESR_RECV_ILLEGAL);
		return false;
	}
	if (level)
		lapic_test_set(l, LR_TMR, vector);
	else
		lapic_test_clear(l, LR_TMR, vector);
	/* A bit that was set before has had its request. */
	if (!lapic_test_set(l, LR_IRR, vector))
		vcpu_request(l->vcpu, REQ_EVENT);
	return true;
}

static bool accept_message(struct lapic *l, const struct apic_msg *m)
{
	switch (m->mode) {
	case APIC_LOWEST:
		__atomic_fetch_add(&l->arbitration, 1, __ATOMIC_RELAXED);
		return lapic_accept_vector(l, m->vector, m->level);
	case APIC_FIXED:
		return lapic_accept_vector(l, m->vector, m->level);
	case APIC_NMI:
		post_nmi(l);
		return true;
	case APIC_INIT:
		/* "INIT level de-assert" only sets arbitration IDs. SDM 3A 11.6.1 */
		if (!m->level || m->assert)
			post_event(l, LAPIC_EV_INIT);
		return true;
	case APIC_SIPI:
		WRITE_ONCE(l->sipi_vector, m->vector);
		post_event(l, LAPIC_EV_SIPI);
		return true;
	case APIC_SMI:
		post_event(l, LAPIC_EV_SMI);
		return true;
	default: /* ExtINT: by wire only, lapic_takes_extint(). */
		return false;
	}
}

/* ---- delivery -------------------------------------------------------------------------------- */

static struct lapic *lapic_of(const struct vm *vm, u32 i)
{
	struct vcpu *v = vm->vcpus[i];

	return v ? v->lapic : NULL;
}

/* Who has taken least so far: round robin, which SDM 3A 11.6.2.4 leaves to us. */
static struct lapic *lowest_of(
	const struct vm *vm, const struct lapic *source, const struct apic_msg *m)
{
	struct lapic *best = NULL;
	u32 n = load_acquire(&vm->nr_vcpus);

	for (u32 i = 0; i < n; i++) {
		struct lapic *l = lapic_of(vm, i);

		if (!l || !lapic_sw_enabled(l) || !match(l, source, m))
			continue;
		if (!best || (s32)(READ_ONCE(l->arbitration) - READ_ONCE(best->arbitration)) < 0)
			best = l;
	}
	return best;
}

static int deliver_lowest(struct vm *vm, struct lapic *source, const struct apic_msg *m)
{
	struct apic_msg one = *m;
	struct lapic *l = lowest_of(vm, source, m);

	if (!l)
		return -1;
	one.mode = APIC_LOWEST;
	return accept_message(l, &one);
}

int lapic_deliver(struct vm *vm, struct lapic *source, const struct apic_msg *m)
{
	u32 n = load_acquire(&vm->nr_vcpus);
	int taken = -1;

	if (m->mode == APIC_LOWEST || (m->lowest && m->mode == APIC_FIXED))
		return deliver_lowest(vm, source, m);
	for (u32 i = 0; i < n; i++) {
		struct lapic *l = lapic_of(vm, i);

		if (l && match(l, source, m))
			taken = (taken < 0 ? 0 : taken) + accept_message(l, m);
	}
	return taken;
}

int lapic_deliver_set(struct vm *vm, const u64 set[2], u32 bits, u32 first, const struct apic_msg *m)
{
	u32 n = load_acquire(&vm->nr_vcpus);
	int taken = 0;

	for (u32 i = 0; i < n; i++) {
		struct lapic *l = lapic_of(vm, i);
		u32 at;

		if (!l || !lapic_hw_enabled(l) || lapic_physical_id(l) < first)
			continue;
		at = lapic_physical_id(l) - first;
		if (at < 2 * bits && set[at / bits] >> at % bits & 1)
			taken += accept_message(l, m);
	}
	return taken;
}

/* What SDM 3A table 11-3 calls invalid is dropped; but NMI and SMI to oneself work on real parts. */
static bool ipi_valid(const struct apic_msg *m)
{
	switch (m->mode) {
	case APIC_FIXED:
	case APIC_NMI:
	case APIC_SMI:
		return true;
	case APIC_LOWEST:
	case APIC_INIT:
	case APIC_SIPI:
		return m->shorthand == APIC_TO_DEST || m->shorthand == APIC_TO_OTHERS;
	default:
		return false;
	}
}

void lapic_send_ipi(struct lapic *l, u32 icr, u32 dest)
{
	struct apic_msg m = {
		.dest = dest,
		.vector = (u8)icr,
		.mode = icr >> 8 & 7,
		.logical = icr & BIT(11),
		.assert = icr & BIT(14),
		.shorthand = icr >> 18 & 3,
		.ipi = true,
	};
	bool by_vector = m.mode == APIC_FIXED || m.mode == APIC_LOWEST;

	if (by_vector && m.vector < 16) {
		lapic_error(l, ESR_SEND_ILLEGAL);
		return;
	}
	/* SDM 3A 11.6.1: the trigger mode counts for INIT only. */
	m.level = m.mode == APIC_INIT && icr & BIT(15);
	if (ipi_valid(&m))
		lapic_deliver(l->vcpu->vm, l, &m);
}

/* ---- local sources --------------------------------------------------------------------------- */

void lapic_local(struct lapic *l, unsigned int lvt)
{
	u32 entry = READ_ONCE(l->reg[lvt]);
	bool fixed = lvt == LR_LVT_TIMER || lvt == LR_LVT_ERROR;	/* no mode field */

	if (!lapic_hw_enabled(l) || entry & LVT_MASKED)
		return;
	switch (fixed ? APIC_FIXED : entry >> LVT_MODE_SHIFT & 7) {
	case APIC_FIXED:
		lapic_accept_vector(l, entry & LVT_VECTOR, false);
		break;
	case APIC_NMI:
		post_nmi(l);
		break;
	case APIC_SMI:
		post_event(l, LAPIC_EV_SMI);
		break;
	case APIC_EXTINT:
		vcpu_request(l->vcpu, REQ_EVENT);
		break;
	default:
		break;
	}
}

/* With the APIC disabled, LINT0 is the INTR pin. SDM 3A 11.4.3 */
bool lapic_takes_extint(const struct lapic *l)
{
	u32 lint0 = READ_ONCE(l->reg[LR_LVT_LINT0]);

	if (!lapic_hw_enabled(l))
		return true;
	return !(lint0 & LVT_MASKED) && (lint0 >> LVT_MODE_SHIFT & 7) == APIC_EXTINT;
}

void lapic_pic_raised(struct vm *vm)
{
	u32 n = load_acquire(&vm->nr_vcpus);

	for (u32 i = 0; i < n; i++) {
		struct lapic *l = lapic_of(vm, i);

		if (l && !lapic_hw_enabled(l))
			vcpu_request(l->vcpu, REQ_EVENT);
		else if (l)
			lapic_local(l, LR_LVT_LINT0);
	}
}

void lapic_watchdog_nmi(struct vm *vm)
{
	u32 n = load_acquire(&vm->nr_vcpus);

	for (u32 i = 0; i < n; i++) {
		struct lapic *l = lapic_of(vm, i);

		if (l && (READ_ONCE(l->reg[LR_LVT_LINT0]) & LVT_MODE) == APIC_NMI << LVT_MODE_SHIFT)
			lapic_local(l, LR_LVT_LINT0);
	}
}

/* ---- NMI, INIT and SIPI for the run loop ----------------------------------------------------- */

static void accept_init(struct vcpu *v)
{
	vcpu_reset(v, true);
	v->halted = false;
	v->mp_state = v->id == v->vm->bsp_id ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
}

/* SDM 3A 9.4.4.1: starts at vector << 12; one that waits for nothing ignores it. */
static void accept_sipi(struct vcpu *v)
{
	if (v->mp_state != KVM_MP_STATE_INIT_RECEIVED)
		return;
	v->sipi_vector = READ_ONCE(v->lapic->sipi_vector);
	segment_set_real(v, SEG_CS, (u16)(v->sipi_vector << 8));
	v->r[R_RIP] = 0;
	v->mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu_update_mode(v);
}

/* Takes these, if they have come. */
static u32 events_take(struct vcpu *v, u32 which)
{
	u32 events;

	if (!v->lapic || !(READ_ONCE(v->lapic->events) & which))
		return 0;
	events = __atomic_fetch_and(&v->lapic->events, ~which, __ATOMIC_ACQ_REL) & which;
	event_nmi(v, !!(events & LAPIC_EV_NMI) + !!(events & LAPIC_EV_NMI2));
	if (events & LAPIC_EV_SMI)
		v->smi_pending = true;
	return events;
}

void lapic_accept_nmi(struct vcpu *v)
{
	events_take(v, LAPIC_EV_NMI | LAPIC_EV_NMI2 | LAPIC_EV_SMI);
}

/* INIT waits while the CPU is in SMM, SIPI is lost. SDM 3C 31.3.1 */
void lapic_accept_events(struct vcpu *v)
{
	u32 events = events_take(v, v->smm ? ~(u32)LAPIC_EV_INIT : ~0u);

	if (events & LAPIC_EV_INIT)
		accept_init(v);
	if (events & LAPIC_EV_SIPI)
		accept_sipi(v);
}

bool lapic_init_latched(const struct vcpu *v)
{
	return v->lapic && READ_ONCE(v->lapic->events) & LAPIC_EV_INIT;
}

void lapic_latch_init(struct vcpu *v, bool latched)
{
	if (v->lapic && latched)
		post_event(v->lapic, LAPIC_EV_INIT);
	else if (v->lapic)
		__atomic_fetch_and(&v->lapic->events, ~(u32)LAPIC_EV_INIT, __ATOMIC_ACQ_REL);
}

void lapic_start(struct vcpu *v, u8 vector)
{
	WRITE_ONCE(v->lapic->sipi_vector, vector);
	post_event(v->lapic, LAPIC_EV_SIPI);
}
