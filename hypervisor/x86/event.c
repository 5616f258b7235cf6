/*
 * Events: exceptions, interrupts, NMI and software interrupts through the real-mode vector table,
 * the IDT of 16 and 32 bits, and the 64-bit IDT; double and triple faults. SDM 3A chapter 6,
 * 20.3.3; SDM 2A INT n.
 *
 * event_deliver() tries v->event. Everything up to the commit at the end of each deliver_*() can
 * fault without having changed a register; the fault then joins with the event in delivery by the
 * table of SDM 3A 6-5 and the loop goes round.
 */
#include "hypervisor/insn/insn.h"
#include "hypervisor/x86/segment.h"

#define ERROR_EXT	1u	/* the fault's origin is outside the program */
#define ERROR_IDT	2u	/* the index is that of an IDT gate */

/* ---- what the event is ---- */

static bool event_is_soft(const struct event *e)
{
	return e->type == EV_SOFTINT || e->type == EV_SOFTEXC;
}

static bool event_is_debug(const struct event *e)
{
	return e->vector == VEC_DB &&
		(e->type == EV_FAULT || e->type == EV_TRAP || e->type == EV_ICEBP);
}

/* The instruction that caused it is over: return to the next one. */
static u64 event_return_rip(const struct vcpu *v, const struct event *e)
{
	bool after = event_is_soft(e) || e->type == EV_ICEBP;

	return after ? (v->r[R_RIP] + e->insn_len) & v->rip_mask : v->r[R_RIP];
}

/*
 * RF is set so that a code breakpoint does not hit again when the instruction restarts. SDM 3B
 * 17.3.1.1
 */
static u64 event_rflags(const struct vcpu *v, const struct event *e)
{
	bool restarts = e->type == EV_FAULT && e->vector != VEC_DB && e->vector != VEC_DF;

	return restarts ? v->rflags | RFLAGS_RF : v->rflags;
}

/* CR2 and DR6 are written when delivery begins, whatever comes of it. */
static void event_commit_payload(struct vcpu *v, struct event *e)
{
	if (e->settled)
		return;
	if (e->vector == VEC_PF && e->type == EV_FAULT)
		v->cr2 = e->payload;
	if (event_is_debug(e) && e->payload)
		debug_commit(v, e->payload);
}

/* RIP, flags and all else that a delivered event leaves. */
static void event_commit(struct vcpu *v, const struct segment *cs, u64 rip, u64 clear)
{
	v->rflags &= ~(clear | RFLAGS_TF | RFLAGS_RF | RFLAGS_VM);
	far_commit(v, cs, rip);
}

/* ---- real mode ---- */

static void deliver_real(struct vcpu *v, const struct event *e)
{
	u32 off = e->vector * 4u;
	u64 sp = v->r[R_RSP];
	u32 target;

	if (off + 3 > v->idt.limit)
		raise_gp(v, e->vector * 8u + ERROR_IDT);
	target = (u32)sys_read(v, v->idt.base + off, 4);
	stack_write(v, sp - 2, 2, v->rflags);
	stack_write(v, sp - 4, 2, v->seg[SEG_CS].sel);
	stack_write(v, sp - 6, 2, event_return_rip(v, e));
	stack_set(v, sp - 6);
	v->rflags &= ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
	segment_set_real(v, SEG_CS, (u16)(target >> 16));
	v->r[R_RIP] = target & 0xffff;
	vcpu_update_mode(v);
}

/* ---- gates ---- */

struct idt_gate {
	u64 low, high;
	unsigned int type;
	u32 error;	/* names this gate */
};

static void gate_read(struct vcpu *v, struct idt_gate *g, const struct event *e)
{
	unsigned int size = vcpu_long_mode(v) ? 16 : 8;
	u32 off = e->vector * size;

	g->error = e->vector * 8u + ERROR_IDT;
	if (off + size - 1 > v->idt.limit)
		raise_gp(v, g->error);
	g->low = sys_read(v, v->idt.base + off, 8);
	g->high = size == 16 ? sys_read(v, v->idt.base + off + 8, 8) : 0;
	g->type = desc_system(g->low) ? desc_type(g->low) : 0;
}

static bool gate_type_valid(const struct vcpu *v, unsigned int type)
{
	if (vcpu_long_mode(v))
		return type == SYS_INT32 || type == SYS_TRAP32;
	return type == SYS_TASK || type == SYS_INT16 || type == SYS_TRAP16 || type == SYS_INT32 ||
		type == SYS_TRAP32;
}

static void gate_check(struct vcpu *v, const struct idt_gate *g, const struct event *e)
{
	if (!gate_type_valid(v, g->type))
		raise_gp(v, g->error);
	if (event_is_soft(e) && desc_dpl(g->low) < v->cpl)
		raise_gp(v, g->error);
	if (!desc_present(g->low))
		vcpu_raise(v, VEC_NP, g->error);
}

/* The handler's code segment; its level is the new CPL. */
static unsigned int gate_read_code(struct vcpu *v, struct segment *cs, const struct idt_gate *g)
{
	u16 sel = gate_selector(g->low);
	unsigned int cpl;
	u64 desc;

	if (sel_null(sel))
		raise_gp(v, 0);
	desc = descriptor_read(v, sel, VEC_GP);
	if (!desc_code(desc) || desc_dpl(desc) > v->cpl)
		raise_gp(v, SEL_ERROR(sel));
	if (vcpu_long_mode(v) && (desc_attr(desc) & (SEG_L | SEG_DB)) != SEG_L)
		raise_gp(v, SEL_ERROR(sel));
	cpl = desc_conforming(desc) ? v->cpl : desc_dpl(desc);
	if (vcpu_v86(v) && cpl != 0)
		raise_gp(v, SEL_ERROR(sel));
	far_read_code(v, cs, sel, desc, cpl);
	return cpl;
}

static u64 gate_clears(const struct idt_gate *g)
{
	bool interrupt = g->type == SYS_INT16 || g->type == SYS_INT32;

	return RFLAGS_NT | (interrupt ? RFLAGS_IF : 0);
}

static void push_v86_segments(struct vcpu *v, struct new_stack *st, unsigned int size)
{
	static const u8 order[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(order); n++)
		stack_push(v, st, size, v->seg[order[n]].sel);
}

static void drop_v86_segments(struct vcpu *v)
{
	segment_set_null(&v->seg[SEG_ES], 0);
	segment_set_null(&v->seg[SEG_DS], 0);
	segment_set_null(&v->seg[SEG_FS], 0);
	segment_set_null(&v->seg[SEG_GS], 0);
}

static void push_frame(struct vcpu *v, struct new_stack *st, unsigned int size,
	const struct event *e)
{
	stack_push(v, st, size, event_rflags(v, e));
	stack_push(v, st, size, v->seg[SEG_CS].sel);
	stack_push(v, st, size, event_return_rip(v, e));
	if (e->has_error)
		stack_push(v, st, size, e->error);
}

/* ---- 16- and 32-bit protected mode, virtual-8086 mode ---- */

static void deliver_task(struct vcpu *v, const struct event *e, u64 gate)
{
	task_switch(v, gate_selector(gate), TASK_GATE, e->has_error, e->error,
		event_return_rip(v, e));
}

static void deliver_protected(struct vcpu *v, const struct event *e)
{
	bool v86 = vcpu_v86(v);
	struct idt_gate g;
	struct new_stack st;
	struct segment cs;
	unsigned int cpl, size;
	u64 rip;
	bool inner;

	gate_read(v, &g, e);
	gate_check(v, &g, e);
	if (g.type == SYS_TASK) {
		deliver_task(v, e, g.low);
		return;
	}
	cpl = gate_read_code(v, &cs, &g);
	inner = cpl < v->cpl;
	size = g.type & SYS_32 ? 4 : 2;
	rip = size == 4 ? gate_offset(g.low) : gate_offset(g.low) & 0xffff;
	if (inner) {
		stack_new_inner(v, &st, cpl);
		if (v86)
			push_v86_segments(v, &st, size);
		stack_push(v, &st, size, v->seg[SEG_SS].sel);
		stack_push(v, &st, size, v->r[R_RSP]);
	} else {
		stack_new_current(v, &st);
	}
	push_frame(v, &st, size, e);
	far_check_rip(v, &cs, rip);
	stack_commit(v, &st, inner);
	if (v86)
		drop_v86_segments(v);
	event_commit(v, &cs, rip, gate_clears(&g));
}

/* ---- long mode ---- */

#define GATE_IST(low)	((unsigned int)((low) >> 32) & 7)

static void deliver_long(struct vcpu *v, const struct event *e)
{
	struct idt_gate g;
	struct new_stack st;
	struct segment cs;
	unsigned int cpl;
	u64 rip, sp = v->r[R_RSP];
	bool inner;

	gate_read(v, &g, e);
	gate_check(v, &g, e);
	cpl = gate_read_code(v, &cs, &g);
	inner = cpl < v->cpl;
	rip = gate_offset(g.low) | g.high << 32;
	far_check_rip(v, &cs, rip);
	if (GATE_IST(g.low))
		stack_new_ist(v, &st, GATE_IST(g.low), cpl);
	else if (inner)
		stack_new_inner(v, &st, cpl);
	else
		stack_new_current(v, &st);
	st.sp &= ~15ULL;	/* SDM 3A 6.14.2 */
	stack_push(v, &st, 8, v->seg[SEG_SS].sel);
	stack_push(v, &st, 8, sp);
	push_frame(v, &st, 8, e);
	stack_commit(v, &st, inner);
	event_commit(v, &cs, rip, gate_clears(&g));
}

/* ---- one attempt ---- */

static void deliver_one(struct vcpu *v)
{
	struct event e = v->delivering;

	event_commit_payload(v, &e);
	if (vcpu_real(v))
		deliver_real(v, &e);
	else if (vcpu_long_mode(v))
		deliver_long(v, &e);
	else
		deliver_protected(v, &e);
}

/* ---- nested faults. SDM 3A table 6-5 ---- */

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum fault_class fault_class(const struct event *e)
{
	if (e->type != EV_FAULT)
		return BENIGN;
	switch (e->vector) {
	case VEC_DE: case VEC_TS: case VEC_NP: case VEC_SS: case VEC_GP:
		return CONTRIBUTORY;
	case VEC_PF:
		return PAGE_FAULT;
	case VEC_DF:
		return DOUBLE_FAULT;
	default:
		return BENIGN;
	}
}

/* Error codes that hold a selector say that the fault came while an event was delivered. */
static void mark_external(struct event *second, const struct event *first)
{
	if (event_is_soft(first) || !second->has_error)
		return;
	if (second->vector >= VEC_TS && second->vector <= VEC_GP)
		second->error |= ERROR_EXT;
}

/* v->event is the second fault, *first what was being delivered. False: triple fault. */
static bool event_combine(struct vcpu *v, const struct event *first)
{
	enum fault_class a = fault_class(first), b = fault_class(&v->event);

	if (b == BENIGN || a == BENIGN || (a == CONTRIBUTORY && b == PAGE_FAULT)) {
		mark_external(&v->event, first);
		return true;
	}
	if (a == DOUBLE_FAULT)
		return false;
	v->event = (struct event) { .type = EV_FAULT, .vector = VEC_DF, .has_error = true };
	return true;
}

static void event_delivered(struct vcpu *v, const struct event *e)
{
	bool stepped = v->irq_shadow || v->mov_ss_shadow;

	if (e->type == EV_NMI)
		v->nmi_blocked = true;
	v->irq_shadow = false;
	v->mov_ss_shadow = false;
	v->halted = false;
	v->delivering.type = EV_NONE;
	io_log_clear(v);
	v->stat.events++;
	if (stepped)
		vcpu_update_mode(v);
}

static void pending_db_clear(struct vcpu *v)
{
	v->pending_db.type = EV_NONE;
	v->pending_db.payload = 0;
}

/*
 * What MOV SS held back becomes part of a #DB that comes now: two would share a stack. INT1 alone
 * leaves DR6.
 */
static void event_merge_pending(struct vcpu *v)
{
	struct event *e = &v->event;

	if (!event_is_debug(e) || v->pending_db.type == EV_NONE)
		return;
	e->payload |= v->pending_db.payload;
	e->settled = false;
	pending_db_clear(v);
}

/*
 * Benign exceptions can follow each other for ever, such as #AC from a handler that runs at CPL 3
 * on a crooked stack; a real processor hangs in its microcode. Here the guest hangs, and nobody
 * else.
 */
#define ROUNDS_MAX 8

static bool event_must_pause(const struct vcpu *v)
{
	return v->kick || v->run->immediate_exit;
}

enum unwind event_deliver(struct vcpu *v)
{
	unsigned int rounds;

	/*
	 * A breakpoint that the faulting instruction met is lost; one that waits behind MOV SS is
	 * not.
	 */
	if (!v->mov_ss_shadow)
		pending_db_clear(v);
	event_merge_pending(v);
	for (rounds = 0; v->event.type != EV_NONE; rounds++) {
		struct event e = v->event;
		enum unwind why;

		if (rounds > ROUNDS_MAX && event_must_pause(v))
			return UNWIND_EVENT;
		v->delivering = e;
		v->event.type = EV_NONE;
		why = vcpu_guarded(v, deliver_one);
		if (why == UNWIND_NONE) {
			event_delivered(v, &e);
			/* A task gate may have led to a task with the T bit. */
			v->event = v->pending_db;
			pending_db_clear(v);
		} else if (why == UNWIND_EVENT) {
			if (!event_combine(v, &e))
				return UNWIND_SHUTDOWN;
		} else {
			e.settled = true;
			e.injected = true;
			v->event = e;
			if (why != UNWIND_RESTART)
				return why;
		}
	}
	return UNWIND_NONE;
}

/* ---- where events come from ---- */

void event_soft(struct vcpu *v, enum event_type type, u8 vector, u8 insn_len)
{
	bool v86_trapped = vcpu_v86(v) && (v->rflags & RFLAGS_IOPL) != RFLAGS_IOPL;

	/*
	 * INT n is sensitive to IOPL in virtual-8086 mode; INT3, INTO, INT1 are not. SDM 3A 20.2.7
	 */
	if (type == EV_SOFTINT && v86_trapped)
		raise_gp(v, 0);
	if (type == EV_SOFTEXC && vector == VEC_BP)
		debug_breakpoint_insn(v);
	v->event = (struct event) { .type = (u8)type, .vector = vector, .insn_len = insn_len };
	vcpu_unwind(v, UNWIND_EVENT);
}

/*
 * Exceptions of user space are hardware's, but #BP and #OF: those are INT3 and INTO at RIP, of one
 * byte each. Linux Documentation/virt/kvm/api.rst KVM_SET_GUEST_DEBUG, KVM_SET_VCPU_EVENTS
 */
void event_queue(struct vcpu *v, enum event_type type, u8 vector, bool has_error, u32 error)
{
	bool soft = type == EV_FAULT && vector_is_soft(vector);

	v->event = (struct event) {
		.type = (u8)(soft ? EV_SOFTEXC : type),
		.vector = vector,
		.has_error = has_error,
		.insn_len = soft ? 1 : 0,
		.error = error,
		.settled = true,
		.injected = type != EV_FAULT && type != EV_TRAP,
	};
}

/*
 * An NMI that comes while one is served is latched, more than that one are lost (SDM 3A 6.7.1). Two that come
 * before the first is served are served both, as if the first had been taken at once.
 */
void event_nmi(struct vcpu *v, u32 n)
{
	u32 limit = v->nmi_blocked || v->event.type == EV_NMI ? 1 : 2;

	v->nmi_pending = (u8)MIN(v->nmi_pending + n, limit);
}

/* Interrupts need no help: the engine itself watches IF while v->irq_wanted. */
void event_unmasked(struct vcpu *v)
{
	if ((v->nmi_pending && !v->nmi_blocked) || (v->irq_wanted && v->rflags & RFLAGS_IF))
		vcpu_request(v, REQ_EVENT);
}
