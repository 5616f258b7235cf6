/*
 * The interpreter: the CPU engine that runs everything. It executes blocks of decoded instructions
 * (insn/code.h), and looks up from the inside of a block only between blocks.
 *
 * Two speeds. Normally a block runs as a straight loop over its handlers. In step mode (v->step:
 * single-step, breakpoints, interrupt shadows, RF) one instruction is fetched, executed and
 * followed by the debug checks.
 *
 * What ends a stay in the loop: a fault or exit (unwinds), a kick, HLT, or an interrupt that has
 * been waiting for this moment (v->irq_wanted).
 */
#include "hypervisor/insn/code.h"
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/interp.h"
#include "hypervisor/insn/native.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/system.h"

__cold_ void interp_end_boundary(struct vcpu *v)
{
	v->boundary = false;
	io_log_clear(v);
}

/* An instruction has retired. */
static void insn_count(struct vcpu *v, const struct insn *i)
{
	v->pmu.insns++;
	v->pmu.branches += !!(i->flags & I_BRANCH);
	if (unlikely(v->pmu.insns >= v->pmu.insns_left))
		pmu_settle(v);
}

/* As block_run(), for performance counters: exact where an instruction faults, too. */
static __cold_ void block_count(struct vcpu *v, const struct block *b)
{
	for (const struct insn *i = b->insn; i < b->insn + b->n; i++) {
		i->exec(v, i);
		if (!(i->flags & I_BRANCH))
			v->r[R_RIP] = (v->r[R_RIP] + i->len) & v->rip_mask;
		insn_count(v, i);
		if (unlikely(v->boundary)) {
			interp_end_boundary(v);
			return;
		}
	}
}

static __always_inline_ void block_run(struct vcpu *v, const struct block *b)
{
	const struct insn *i = b->insn;
	const struct insn *last = i + b->n - 1;
	u64 rip = v->r[R_RIP];	/* here: adding in memory costs a store-to-load latency each time */

	for (; i < last; i++) {
		i->exec(v, i);
		rip += i->len;
		v->r[R_RIP] = rip;
		if (unlikely(v->boundary)) {
			interp_end_boundary(v);
			return;
		}
	}
	i->exec(v, i);
	if (!(i->flags & I_BRANCH))
		v->r[R_RIP] = (v->r[R_RIP] + i->len) & v->rip_mask;
	if (unlikely(v->boundary))
		interp_end_boundary(v);
}

/* One instruction outside the cache. */
static void insn_run(struct vcpu *v, const struct insn *i)
{
	bool counted = v->insns_counted;

	i->exec(v, i);
	if (!(i->flags & I_BRANCH))
		v->r[R_RIP] = (v->r[R_RIP] + i->len) & v->rip_mask;
	if (unlikely(counted))
		insn_count(v, i);
	if (v->boundary)
		interp_end_boundary(v);
	v->stat.insns++;
}

/* Interrupt shadows end with the instruction after the one that set them. SDM 2B STI, MOV */
static void insn_step(struct vcpu *v)
{
	bool irq_shadow = v->irq_shadow;
	bool mov_ss_shadow = v->mov_ss_shadow;
	struct insn i;

	debug_before_insn(v);
	code_fetch(v, &i);
	insn_run(v, &i);
	if (irq_shadow)
		v->irq_shadow = false;
	if (mov_ss_shadow)
		v->mov_ss_shadow = false;
	vcpu_update_mode(v);
	debug_after_insn(v);
}

static __always_inline_ bool must_leave(const struct vcpu *v)
{
	return v->kick || v->run->immediate_exit;
}

/*
 * Would an interrupt that waits be taken now? The run loop decides in full; this only must not miss
 * it.
 */
static __always_inline_ bool irq_window(const struct vcpu *v)
{
	return v->irq_wanted && (v->rflags & RFLAGS_IF) && !v->irq_shadow && !v->mov_ss_shadow;
}

/* Looks up only after an instruction: what waits for its end (core/run.c) must see it happen. */
static __always_inline_ bool go_on(const struct vcpu *v)
{
	return !must_leave(v) && !v->halted && !irq_window(v);
}

static __always_inline_ void run_once(struct vcpu *v)
{
	const struct lookup_entry *e;
	const struct block *b;
	struct insn i;
	u64 la;

	if (unlikely(v->step)) {
		insn_step(v);
		return;
	}
	la = code_linear(v);
	e = code_lookup_entry(v, la);
	b = e->block;
	if (unlikely(e->la != la || e->ctx != code_context(v) ||
		     b->gen != load_acquire(&b->page->gen)))
		b = code_find(v);
	if (likely(b)) {
		v->stat.insns += b->n;
		if (unlikely(v->insns_counted))
			block_count(v, b);
		else
			block_run(v, b);
		return;
	}
	code_fetch(v, &i);
	insn_run(v, &i);
}

static void interp_loop(struct vcpu *v)
{
	do
		run_once(v);
	while (go_on(v));
}

void interp_once(struct vcpu *v)
{
	run_once(v);
}

void interp_insn(struct vcpu *v)
{
	struct insn i;

	if (v->step) {
		insn_step(v);
		return;
	}
	code_fetch(v, &i);
	insn_run(v, &i);
}

bool interp_go_on(const struct vcpu *v)
{
	return go_on(v);
}

/*
 * A repeated string instruction stopped between two elements. For single-step that is an
 * instruction boundary; the rest of the time it just goes on.
 */
void interp_restart_in_step(struct vcpu *v)
{
	v->rf_keep = true;	/* the instruction goes on, and RF is about all of it */
	debug_after_insn(v);
}

static enum unwind interp_run(struct vcpu *v)
{
	enum unwind why = UNWIND_NONE;

	v->stat.runs++;
	do {
		why = vcpu_guarded(v, interp_loop);
		v->boundary = false;
		if (why != UNWIND_EXIT)
			io_log_clear(v);
		if (why == UNWIND_RESTART && v->step)
			why = vcpu_guarded(v, interp_restart_in_step);
	} while ((why == UNWIND_RESTART || why == UNWIND_NONE) && go_on(v));
	fpu_put(v);
	return why;
}

static int interp_create(struct vcpu *v)
{
	int r = code_create(v);

	if (r)
		return r;
	r = native_create(v);
	if (r)
		code_destroy(v);
	return r;
}

static void interp_destroy(struct vcpu *v)
{
	native_destroy(v);
	code_destroy(v);
}

const struct cpu_engine_ops interp_engine = {
	.name = "interp",
	.vcpu_create = interp_create,
	.vcpu_destroy = interp_destroy,
	.run = interp_run,
	.flush_code = code_flush,
	.code_look = code_flush_lookup,
};
