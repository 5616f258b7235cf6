/*
 * The translator as a CPU engine: its loop from fragment to fragment, and when the interpreter runs
 * instead (16-bit code, step mode, alignment checks, counted instructions, code segments with a
 * base or a limit, and
 * instructions that lie in two pages).
 */
#include "hypervisor/dbt/dbt.h"

#include "hypervisor/insn/code.h"
#include "hypervisor/insn/interp.h"
#include "hypervisor/insn/native.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/segment.h"
#include "hypervisor/x86/system.h"

/*
 * Bytes of code for each vCPU. A kernel's boot to a shell fills 15 MiB, with a compiler's run 60.
 * What is kept of it beside takes a third as much; both are committed as they are used.
 */
#define CACHE_SIZE	(40u << 20)

/* ---- modes ---- */

static bool segments_flat(const struct vcpu *v)
{
	return !v->hit_base[SEG_ES] && !v->hit_base[SEG_SS] && !v->hit_base[SEG_DS];
}

/* Never 0. */
u32 mode_key(const struct vcpu *v)
{
	return 1u | (u32)v->code_bytes << 1 | (u32)v->mmu_idx << 5 | v->fp_trap << 8 |
		(v->code_bytes == 8 || segments_flat(v) ? 1u << 16 : 0) |
		(v->stack_bytes == v->code_bytes ? 1u << 17 : 0) | (u32)v->insns_counted << 18;
}

static void mode_fill(struct mode *m, const struct vcpu *v, u32 key)
{
	*m = (struct mode){ .key = key, .code_bytes = v->code_bytes, .idx = v->mmu_idx,
		.fp_trap = (u8)v->fp_trap, .flat = key >> 16 & 1, .stack_wide = key >> 17 & 1 };
}

/* Calls of one mode only lie on the host's stack; a mode whose calls are not there leaves them. */
static void returns_choose(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);

	if (!mode_returns(d, &d->mode[d->cur_mode]) || d->ret_mode == d->cur_mode)
		return;
	d->ret_mode = d->cur_mode;
	v->hot.ret_base = code_rx(d, d->tramp.ret_base[d->cur_mode]);
	v->hot.ret_void = true;
}

/* With all that is of some mode. At no other time: whoever looks for code has chosen its mode. */
static void modes_forget(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);

	cache_flush(v);
	memset(d->mode, 0, sizeof(d->mode));
	d->ret_mode = NR_MODES;
}

static void mode_choose(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	u32 key = mode_key(v);
	unsigned int k;

	if (likely(d->mode_key == key))
		return;
	for (k = 0; k < NR_MODES && d->mode[k].key && d->mode[k].key != key; k++)
		;
	if (k == NR_MODES) {
		modes_forget(v);
		k = 0;
	}
	if (!d->mode[k].key)
		mode_fill(&d->mode[k], v, key);
	d->cur_mode = k;
	d->mode_key = key;
	returns_choose(v);
}

/* ---- running ---- */

static bool translatable(const struct vcpu *v)
{
	if (unlikely(v->step || v->tlb_never || v->insns_counted))
		return false;
	if (likely(v->code_bytes == 8))
		return true;
	return v->code_bytes == 4 && !v->ebase[SEG_CS] && v->seg[SEG_CS].limit == 0xffffffff;
}

static void gs_choose(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);

	if (unlikely(d->gs != v->space)) {
		space_ready(v, v->space);
		os_gs_set((u64)v->space);
		d->gs = v->space;
		v->hot.ret_void = true;
	}
}

static u32 enter(struct vcpu *v, u32 host)
{
	struct dbt *d = dbt_of(v);
	u32 (*run)(u64 target) = (u32 (*)(u64))code_rx(d, d->tramp.enter);

	gs_choose(v);
	fpu_get(v);
	v->stat.dispatches++;
	v->hot.ret_void = false;	/* nothing is on the stack yet */
	return run(code_rx(d, host));
}

static u32 page_translate(struct vcpu *v, u32 page, unsigned int off, bool twin)
{
	u64 gpa = dbt_of(v)->page[page].gpa;
	const struct memslot *s = memslot_find(v->vm, gpa);
	u32 frag;
	u64 start, took;

	cache_reserve(v);
	start = tsc_host();
	frag = translate(v, page, off, memslot_host(s, gpa), s, twin);
	took = tsc_to_ns(v, tsc_host() - start);
	v->stat.helper_ns += took;
	v->stat.translate_ns += took;
	if (unlikely(os_code_named()) && frag)
		fragment_name(v, frag, (v->r[R_RIP] & ~0xfffULL) + off);
	return frag;
}

/* Bytes of a page, watched from now on. */
static void page_bytes(struct vcpu *v, u32 page, unsigned int off, unsigned int n, u8 *out)
{
	u64 gpa = dbt_of(v)->page[page].gpa;
	const struct memslot *s = memslot_find(v->vm, gpa);

	code_cover(v, s, gpa, off, n);
	memcpy(out, (u8 *)memslot_host(s, gpa) + off, n);
}

/*
 * An instruction in two pages, the first of a fragment of its own. The second page is asked for
 * only where decoding needs it: its fetch may fault.
 */
static u32 crossing_get(struct vcpu *v, u64 rip, u32 page, u32 frag)
{
	struct dbt *d = dbt_of(v);
	unsigned int off = rip & 0xfff, n = 0x1000 - off;
	u64 next = (rip & ~0xfffULL) + 0x1000;
	u32 era = d->era, page2;
	struct insn i;
	u8 code[15];

	if (n >= sizeof(code) || (v->code_bytes == 4 && next >> 32) || !linear_canonical(v, next))
		return NONE;
	page_bytes(v, page, off, n, code);
	if (insn_decode(code, n, v->code_bytes, &i) != DECODE_MORE)
		return NONE;
	page2 = exec_page(v, next);
	if (!page2 || era != d->era)
		return NONE;
	for (; frag; frag = fragment_find_next(d, frag))
		if (d->cross[d->frag[frag].cross].page2 == page2)
			return frag;
	cache_reserve(v);
	page_bytes(v, page2, 0, (unsigned int)sizeof(code) - n, code + n);
	return translate_crossing(v, page, page2, off, code);
}

/* The fragment at RIP; NONE: the interpreter has to run the instruction there. */
static u32 fragment_get(struct vcpu *v, u64 rip, bool twin)
{
	struct dbt *d = dbt_of(v);
	unsigned int off = rip & 0xfff;
	u32 page = exec_page(v, rip), frag;

	if (unlikely(!page))
		return NONE;
	frag = fragment_find(d, page, off, d->cur_mode | (twin ? TWIN : 0));
	if (likely(frag && !d->frag[frag].cross))
		return frag;
	if (!frag)
		frag = page_translate(v, page, off, twin);
	if (!frag || d->frag[frag].cross)
		frag = crossing_get(v, rip, page, frag);
	if (frag && d->frag[frag].cross) {
		const struct cross *c = &d->cross[d->frag[frag].cross];

		if (!space_set_cell(v, c->own, c->body))
			return NONE;
	}
	return frag;
}

static void link_exit(struct vcpu *v, u32 exit, u32 frag)
{
	struct dbt *d = dbt_of(v);
	const struct exit *x = &d->exit[exit];

	if (x->dead)
		return;
	if (x->kind == EXIT_DIRECT) {
		fragment_link(d, exit, frag);
		v->stat.links++;
	} else if (x->site && exit != d->cross[d->frag[frag].cross].own) {
		space_set_cell(v, exit, fragment_entry(&d->frag[frag], x->fl));
	}
}

/* One stay in translated code, or one piece of work for the interpreter. link: where it came from. */
static void dispatch(struct vcpu *v, u32 *link)
{
	struct dbt *d = dbt_of(v);
	u64 rip = v->r[R_RIP];
	u32 era = d->era, exit = *link, frag, why;

	*link = NONE;
	mode_choose(v);
	frag = fragment_get(v, rip, exit & 1 && d->exit[exit >> 1].twin);
	if (unlikely(!frag)) {
		interp_insn(v);
		return;
	}
	if (exit && (exit & 1) && era == d->era)
		link_exit(v, exit >> 1, frag);
	else if (exit && era == d->era)
		space_set_jump(v, rip, frag);
	v->hot.page = rip & ~0xfffULL;
	flags_out(v);
	why = enter(v, fragment_saved(&d->frag[frag]));
	fpu_done(v);
	if ((why & ((1u << LEAVE_BITS) - 1)) == LEAVE_LINK)
		*link = why >> LEAVE_BITS << 1 | 1;
	else if (why == LEAVE_DONE)
		*link = 2;
	dbt_leave(v, why);
}

u64 dbt_go(struct vcpu *v, u32 rec)
{
	u64 host;

	fpu_done(v);
	x87_pointers(v);
	flags_in(v);
	dbt_last(v, rec);
	if (unlikely(!interp_go_on(v) || !translatable(v)))
		return 0;
	mode_choose(v);
	gs_choose(v);
	host = space_jump(v, v->r[R_RIP]);
	if (unlikely(!host))
		return 0;
	v->hot.page = v->r[R_RIP] & ~0xfffULL;
	flags_out(v);
	fpu_get(v);
	return host;
}

static void dbt_loop(struct vcpu *v)
{
	u32 link = NONE;

	do {
		if (likely(translatable(v))) {
			dispatch(v, &link);
		} else {
			interp_once(v);
			link = NONE;
		}
	} while (interp_go_on(v));
}

/* At least one instruction runs, whatever v->kick says, and before it is looked at. */
static bool first_alone(const struct vcpu *v)
{
	return v->kick || v->run->immediate_exit || v->io.done || v->io.waiting;
}

static void run_start(struct vcpu *v)
{
	if (first_alone(v))
		interp_insn(v);
}

static enum unwind dbt_run(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	u64 start = tsc_host();
	enum unwind why;

	v->stat.runs++;
	d->host_gs = os_gs_get();
	d->gs = NULL;
	d->over = false;
	why = vcpu_guarded(v, run_start);
	for (;;) {
		v->boundary = false;
		if (why != UNWIND_EXIT)
			io_log_clear(v);
		/* A fault goes in at once, as the run loop would have it. */
		if (why == UNWIND_EVENT && !v->kick && !v->run->immediate_exit)
			why = event_deliver(v);
		if (why == UNWIND_RESTART && v->step && !d->over)
			why = vcpu_guarded(v, interp_restart_in_step);
		if ((why != UNWIND_RESTART && why != UNWIND_NONE) || !interp_go_on(v))
			break;
		d->over = false;
		why = vcpu_guarded(v, dbt_loop);
	}
	fpu_put(v);
	if (d->gs)
		os_gs_set(d->host_gs);
	v->stat.interp_insns = v->stat.insns;
	v->stat.engine_ns += tsc_to_ns(v, tsc_host() - start);
	return why;
}

/* ---- the engine ---- */

#define CACHE_MIN	(512u << 10)	/* a part of it holds the largest fragment twice */
#define CACHE_MAX	(1u << 30)

/* QUMRA_CODE_CACHE: bytes for each vCPU. */
static u32 cache_size(void)
{
	const char *s = os_getenv("QUMRA_CODE_CACHE");
	u64 n = 0;

	if (!s)
		return CACHE_SIZE;
	for (; *s >= '0' && *s <= '9' && n <= CACHE_MAX; s++)
		n = n * 10 + (u64)(*s - '0');
	if (*s || n < CACHE_MIN || n > CACHE_MAX)
		return CACHE_SIZE;
	return (u32)n;
}

static int dbt_create(struct vcpu *v)
{
	int ret = code_create(v);

	v->hot.x87_data = X87_NO_DATA;
	if (!ret)
		ret = native_create(v);
	if (!ret)
		ret = cache_create(v, cache_size());
	return ret;
}

static void dbt_destroy(struct vcpu *v)
{
	cache_destroy(v);
	native_destroy(v);
	code_destroy(v);
}

static void dbt_flush_code(struct vcpu *v)
{
	code_flush(v);
	cache_flush(v);
}

static void dbt_code_stale(struct vcpu *v, u64 gpa)
{
	struct dbt *d = dbt_of(v);
	u32 page = d ? page_find(d, gpa) : NONE;

	if (!page)
		return;
	page_kill(v, page);
	v->stat.invalidations++;
}

static void dbt_code_check(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	u32 n;

	for (n = 1; n < d->n_pages; n++) {
		if (d->page[n].gen == load_acquire(&d->page[n].code->gen))
			continue;
		page_kill(v, n);
		v->stat.invalidations++;
	}
}

static void dbt_code_look(struct vcpu *v)
{
	code_flush_lookup(v);
	spaces_look(v);
}

const struct cpu_engine_ops dbt_engine = {
	.name = "dbt",
	.vcpu_create = dbt_create,
	.vcpu_destroy = dbt_destroy,
	.run = dbt_run,
	.flush_code = dbt_flush_code,
	.space_drop = dbt_space_drop,
	.space_drop_page = dbt_space_drop_page,
	.code_stale = dbt_code_stale,
	.code_look = dbt_code_look,
	.code_check = dbt_code_check,
};
