/*
 * Between translated code and the interpreter's handlers: calls for single instructions, ways out,
 * and host faults.
 *
 * Translated code comes here with flags in hot.flags, other registers in v->r, and RIP known from
 * the record.
 */
#include "hypervisor/dbt/dbt.h"

#include "hypervisor/insn/code.h"
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"
#include "hypervisor/insn/interp.h"
#include "hypervisor/insn/native.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/segment.h"
#include "hypervisor/x86/system.h"

void flags_in(struct vcpu *v)
{
	v->rflags = (v->rflags & ~RFLAGS_ARITH) | flags_from_ax(v->hot.flags);
}

/* As LAHF and SETO would. */
void flags_out(struct vcpu *v)
{
	u32 f = (u32)v->rflags;

	v->hot.flags = (f & 0xd5) << 8 | (f >> 11 & 1);
}

/* ---- the handler of one instruction ---- */

/* Stubs of vector instructions may be dropped at any time: looked up for each use. */
static void stub_prepare(struct vcpu *v, struct insn *i)
{
	if (native_prepare(v, i) == 0)
		return;
	code_flush(v);
	if (native_prepare(v, i)) {
		fpu_put(v);
		vm_kill(v->vm, "no room for a single native stub");
		vcpu_unwind(v, UNWIND_EXIT);
	}
}

/* The shadow of an STI in translated code, for an instruction that may leave for user space. */
static void shadow_begin(struct vcpu *v)
{
	v->irq_shadow = v->step = true;
	v->step_tf = false;
}

static void shadow_end(struct vcpu *v)
{
	v->irq_shadow = false;
	vcpu_update_mode(v);
}

static void insn_exec(struct vcpu *v, const struct insn *decoded)
{
	struct insn i;

	if (likely(!(decoded->flags & I_NATIVE))) {
		decoded->exec(v, decoded);
		return;
	}
	i = *decoded;
	stub_prepare(v, &i);
	i.exec(v, &i);
}

const struct insn *rec_insn(struct dbt *d, u32 rec)
{
	struct decoded *e = &d->decoded[rec % DECODED];
	const struct rec *r = rec_at(d, rec);

	if (likely(e->rec == rec))
		return &e->insn;
	/* The pool goes on for as long as the decoder may read. */
	if (insn_decode(r->code, DECODE_ROOM, d->mode[r->mode].code_bytes, &e->insn) != DECODE_OK ||
		e->insn.len != r->len)
		os_panic("a record that cannot be decoded");
	e->rec = rec;
	return &e->insn;
}

static void rec_exec(struct vcpu *v, const struct rec *r, const struct insn *i)
{
	bool shadow = r->shadow;

	v->r[R_RIP] = (v->hot.page + r->off) & v->rip_mask;
	if (unlikely(shadow))
		shadow_begin(v);
	insn_exec(v, i);
	if (unlikely(shadow))
		shadow_end(v);
}

/*
 * Are the fragments that called, here and on the stack, still what they were? key: of their mode. A
 * POPF whose operand was not a hit may have set AC: nothing translated checks alignment (tlb_never).
 */
static bool must_leave(const struct vcpu *v, const struct dbt *d, u32 key)
{
	return d->stale || v->hot.ret_void || v->step || v->tlb_never || mode_key(v) != key;
}

/* Before the instruction: does its operand lie in two pages? */
static bool crosses(struct vcpu *v, const struct insn *i)
{
	u64 la;

	if (!(i->flags & I_MEM))
		return false;
	la = v->ebase[i->seg] + insn_ea(v, i);
	return !mem_in_page(la, MAX(opcode_mem_size(opcode_row(i->row), i), 1u));
}

/* What kept an access from the fast path: its pages, or as its handler shows. */
static void slow_count(struct vcpu *v, bool cross, u64 fills, u64 mmio)
{
	v->stat.tlb_misses++;
	if (v->stat.mmio != mmio)
		v->stat.slow_mmio++;
	else if (cross)
		v->stat.slow_cross++;
	else if (v->stat.tlb_fills == fills)
		v->stat.slow_code++;
}

static bool slow_exec(struct vcpu *v, u32 rec)
{
	struct dbt *d = dbt_of(v);
	const struct rec *r = rec_at(d, rec);
	const struct insn *i = rec_insn(d, rec);
	u32 key = d->mode[r->mode].key;
	u8 len = r->len;
	u64 fills = v->stat.tlb_fills, mmio = v->stat.mmio;
	bool kicked = false, cross;

	flags_in(v);
	d->stale = false;
	v->r[R_RIP] = (v->hot.page + r->off) & v->rip_mask;
	cross = r->back && crosses(v, i);
	rec_exec(v, r, i);
	if (r->back)
		slow_count(v, cross, fills, mmio);
	else
		v->stat.helper_insns++;
	if (unlikely(v->boundary)) {
		/* Memory slots may be others now (vcpu_exclusive_end): first the requests. */
		kicked = v->kick;
		interp_end_boundary(v);
	}
	flags_out(v);
	if (likely(!kicked && !must_leave(v, d, key)))
		return false;
	v->r[R_RIP] = (v->r[R_RIP] + len) & v->rip_mask;
	return true;
}

/* One call in CALLS_TIMED is measured, for all: reading the clock costs as much as a short handler. */
#define CALLS_TIMED	64

static bool slow_timed(struct vcpu *v, u32 rec)
{
	u64 start = tsc_host();
	bool leave = slow_exec(v, rec);

	v->stat.helper_ns += tsc_to_ns(v, tsc_host() - start) * CALLS_TIMED;
	return leave;
}

/*
 * Nothing of the vector state may stay live while instrumented code runs (fpu_done()); the
 * trampoline has saved no vector registers.
 */
u64 dbt_slow(struct vcpu *v, u32 rec)
{
	struct dbt *d = dbt_of(v);
	bool leave;

	fpu_done(v);
	x87_pointers(v);
	leave = ++d->calls % CALLS_TIMED ? slow_exec(v, rec) : slow_timed(v, rec);
	if (leave) {
		d->over = true;
		vcpu_unwind(v, UNWIND_RESTART);
	}
	fpu_get(v);
	return code_rx(d, rec_at(d, rec)->back);
}

/* ---- ways out ---- */

void dbt_last(struct vcpu *v, u32 rec)
{
	struct dbt *d = dbt_of(v);
	const struct rec *r = rec_at(d, rec);
	const struct insn *i = rec_insn(d, rec);
	u8 len = r->len;
	bool branch = i->flags & I_BRANCH;

	rec_exec(v, r, i);
	v->stat.helper_insns++;
	if (!branch)
		v->r[R_RIP] = (v->r[R_RIP] + len) & v->rip_mask;
	if (v->boundary)
		interp_end_boundary(v);
}

u64 dbt_go_ret(struct vcpu *v, u32 rec)
{
	struct dbt *d = dbt_of(v);
	const struct insn *i = rec_insn(d, rec);
	u64 rsp = v->r[R_RSP] - i->opsize - (u16)i->imm;

	v->r[R_RSP] = d->mode[rec_at(d, rec)->mode].code_bytes == 8 ? rsp : (u32)rsp;
	return dbt_go(v, rec);
}

/* STOS and MOVS work on the host's addresses. Before homes_restore(). */
static void string_undo(struct vcpu *v, const struct site *s)
{
	if (s->stos)
		v->r[R_RDI] -= v->hot.fault_r11;
	if (s->movs)
		v->r[R_RSI] -= v->hot.slot[0];
}

static void site_flags(struct vcpu *v, const struct site *s, unsigned int code_bytes)
{
	struct insn setter;

	if (s->setter) {
		/* It was decoded before; the pool goes on for as long as the decoder may read. */
		if (insn_decode(s->setter, DECODE_ROOM, code_bytes, &setter) != DECODE_OK)
			os_panic("a site that cannot be decoded");
		flags_from_recipe(v, &setter);
		flags_out(v);
	} else if (s->ax) {
		v->hot.flags = v->hot.fault_ax;
	} else if (!s->saved) {
		v->hot.flags = (u32)v->hot.arg;
	}
}

/* At none of the instructions that may: nobody knows where the state is. */
__noreturn_ static void leave_unknown(struct vcpu *v)
{
	fpu_put(v);
	vm_kill(v->vm, "a host fault at no access of guest memory");
	vcpu_memory_lost(v);
}

/*
 * The host CPU refused an instruction: by a fault that is the guest's own, at that place, or for its
 * operand in memory.
 */
static void leave_fault(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	u32 host = (u32)(v->hot.fault_rip - d->rx);
	u32 frag = fragment_at(d, host);
	struct site s;

	if (!frag || !site_find(d, frag, host, &s))
		leave_unknown(v);
	string_undo(v, &s);
	homes_restore(v, s.homes);
	v->r[R_RIP] = (v->hot.page + s.off) & v->rip_mask;
	site_flags(v, &s, d->mode[d->frag[frag].mode & (TWIN - 1)].code_bytes);
	flags_in(v);
	/* User space took the memory behind a slot away: KVM_RUN is -EFAULT, before this instruction. */
	if (v->hot.fault_vector == VEC_PF && s.shadow)
		shadow_begin(v);
	native_fault(v, v->hot.fault_vector);
}

static void leave_link(struct vcpu *v, u32 exit)
{
	const struct exit *x = &dbt_of(v)->exit[exit];

	v->r[R_RIP] = (v->hot.page + x->off) & v->rip_mask;
	if (x->pages && unlikely(!linear_canonical(v, v->r[R_RIP])) && v->code_bytes == 8) {
		/* The branch itself faults. */
		v->r[R_RIP] = v->hot.page - ((u64)(s64)x->pages << 12) + x->from;
		interp_insn(v);
	}
}

static void leave_dead(struct vcpu *v, u32 host)
{
	struct dbt *d = dbt_of(v);
	u32 frag = fragment_at(d, host - 5);

	if (!frag)
		os_panic("a dead fragment without a number");
	v->r[R_RIP] = (v->hot.page + d->frag[frag].off) & v->rip_mask;
	space_drop_range(v, v->space, d->frag[frag].start, d->frag[frag].start + d->frag[frag].size);
}

/* Brings v to the state after translated code was left. May unwind. */
void dbt_leave(struct vcpu *v, u32 why)
{
	u32 n = why >> LEAVE_BITS;

	if (why == LEAVE_DONE)
		return;
	x87_pointers(v);
	if ((why & ((1u << LEAVE_BITS) - 1)) == LEAVE_FAULT)
		leave_fault(v);
	flags_in(v);
	switch (why & ((1u << LEAVE_BITS) - 1)) {
	case LEAVE_LINK: leave_link(v, n); break;
	case LEAVE_POLL: v->r[R_RIP] = (v->hot.page + n) & v->rip_mask; break;
	default: leave_dead(v, n); break;
	}
}
