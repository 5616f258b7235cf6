/*
 * From linear addresses to fragments, in each address space: the page that executes, the jump table
 * of indirect branches, and the cells of direct branches that leave their page.
 *
 * Both tables only ever hold addresses inside the code cache, written here. They say "in this
 * space, now"; whatever changes a translation of a page that was entered (page_entered()) empties
 * them for that space. A cell's owner runs at one linear address in a space: where a page is
 * entered at a second address, the space's tables are emptied first (exec_alias()). That may be the
 * page which a branch leads to: its cell then stays empty, as nobody knows where its owner will run.
 */
#include "hypervisor/dbt/dbt.h"
#include "hypervisor/insn/code.h"
#include "hypervisor/x86/mmu.h"

#include <linux/errno.h>

#define PAGE_MASK	(~0xfffULL)

/* ---- tables ---- */

/*
 * A branch's target may be any number, so a free entry holds one that belongs to another entry: as
 * zeroed memory does, but for entry 0: address 0 is in that one, address 1 is not.
 */
_Static_assert(JUMP_FACTOR >> (32 - JUMP_BITS), "jump_index(1)");
static void jump_clear(struct space *s, u32 n)
{
	struct jump_entry *e = &s->jump[n >> JUMP_BITS][n & (JUMP_ENTRIES - 1)];

	e->la = !(n & (JUMP_ENTRIES - 1));
}

static void jumps_clear_all(struct space *s)
{
	for (u32 n = 0; n < NR_JUMP_MODES << JUMP_BITS; n++)
		if (s->jump[n >> JUMP_BITS][n & (JUMP_ENTRIES - 1)].host)
			jump_clear(s, n);
}

static void tables_clear_all(struct dbt *d, struct dspace *ds, struct space *s)
{
	u32 k;

	if (ds->overflow) {
		memcpy(s->cell, d->cell_stub, d->n_cells * sizeof(u64));
		jumps_clear_all(s);
	}
	for (k = 0; k < ds->n_cells && !ds->overflow; k++)
		s->cell[ds->cells[k] & ~USED_GLOBAL] = d->cell_stub[ds->cells[k] & ~USED_GLOBAL];
	for (k = 0; k < ds->n_jumps && !ds->overflow; k++)
		jump_clear(s, ds->jumps[k] & ~USED_GLOBAL);
	if (ds->n_jumps)
		memset(ds->listed, 0, sizeof(ds->listed));
	ds->n_cells = ds->n_jumps = 0;
	ds->overflow = false;
}

/* what: as listed. */
static void jump_unlist(struct dspace *ds, struct space *s, u32 what)
{
	u32 n = what & ~USED_GLOBAL;

	ds->listed[!!(what & USED_GLOBAL)][n / 64] &= ~BIT(n % 64);
	jump_clear(s, n);
}

/* But for those of global pages. The lists' order stays. */
static void tables_clear_local(struct dbt *d, struct dspace *ds, struct space *s)
{
	u32 k, n = 0;

	for (k = 0; k < ds->n_cells; k++) {
		if (ds->cells[k] & USED_GLOBAL)
			ds->cells[n++] = ds->cells[k];
		else
			s->cell[ds->cells[k]] = d->cell_stub[ds->cells[k]];
	}
	ds->n_cells = n;
	for (k = n = 0; k < ds->n_jumps; k++) {
		if (ds->jumps[k] & USED_GLOBAL)
			ds->jumps[n++] = ds->jumps[k];
		else
			jump_unlist(ds, s, ds->jumps[k]);
	}
	ds->n_jumps = n;
}

static bool leads_into(const struct dbt *d, u64 host, u32 from, u32 to)
{
	return host - code_rx(d, from) < to - from;
}

/* A free cell's stub is the number of the next one. */
static bool cell_free(const struct dbt *d, u32 cell)
{
	return d->cell_stub[cell] < NR_CELLS;
}

/* What leads into [from, to) of the code area, and cells whose branch is gone. */
static void tables_clear_range(struct dbt *d, struct dspace *ds, struct space *s, u32 from, u32 to)
{
	u32 k, n = 0;

	for (k = 0; k < ds->n_cells; k++) {
		u32 cell = ds->cells[k] & ~USED_GLOBAL;

		if (cell_free(d, cell))
			continue;
		if (leads_into(d, s->cell[cell], from, to))
			s->cell[cell] = d->cell_stub[cell];
		else
			ds->cells[n++] = ds->cells[k];
	}
	ds->n_cells = n;
	for (k = n = 0; k < ds->n_jumps; k++) {
		u32 i = ds->jumps[k] & ~USED_GLOBAL;
		const struct jump_entry *e = &s->jump[i >> JUMP_BITS][i & (JUMP_ENTRIES - 1)];

		if (leads_into(d, e->host, from, to))
			jump_unlist(ds, s, ds->jumps[k]);
		else
			ds->jumps[n++] = ds->jumps[k];
	}
	ds->n_jumps = n;
}

void space_drop_range(struct vcpu *v, struct space *s, u32 from, u32 to)
{
	struct dbt *d = dbt_of(v);
	struct dspace *ds = &d->space[space_index(v, s)];

	if (!ds->ready)
		return;
	if (ds->overflow)
		tables_clear_all(d, ds, s);
	else
		tables_clear_range(d, ds, s, from, to);
}

void space_ready(struct vcpu *v, struct space *s)
{
	struct dbt *d = dbt_of(v);
	struct dspace *ds = &d->space[space_index(v, s)];

	if (ds->ready)
		return;
	memcpy(s->cell, d->cell_stub, d->n_cells * sizeof(u64));
	for (unsigned int m = 0; m < NR_JUMP_MODES; m++)
		jump_clear(s, m << JUMP_BITS);
	jumps_clear_all(s);
	ds->n_cells = ds->n_jumps = 0;
	ds->overflow = false;
	ds->ready = true;
	s->code_used = true;
}

static void space_drop_some(struct vcpu *v, struct space *s, bool global)
{
	struct dbt *d = dbt_of(v);
	struct dspace *ds = &d->space[space_index(v, s)];

	v->hot.ret_void = true;
	global |= ds->overflow;
	if (ds->ready && global)
		tables_clear_all(d, ds, s);
	else if (ds->ready)
		tables_clear_local(d, ds, s);
	memset(ds->filter[0], 0, sizeof(ds->filter[0]));
	ds->epoch[0]++;
	if (!global)
		return;
	if (ds->halves)
		memset(ds->filter[1], 0, sizeof(ds->filter[1]));
	ds->halves = 0;
	ds->epoch[1]++;
	ds->entered = false;
}

void space_drop_code(struct vcpu *v, struct space *s)
{
	space_drop_some(v, s, true);
}

void space_drop_all(struct vcpu *v)
{
	for (unsigned int k = 0; k < NR_SPACES; k++)
		space_drop_code(v, vcpu_space(v, k));
}

void spaces_look(struct vcpu *v)
{
	for (unsigned int k = 0; k < NR_SPACES; k++)
		if (dbt_of(v)->space[k].entered)
			space_drop_code(v, vcpu_space(v, k));
}

void dbt_space_drop(struct vcpu *v, struct space *s, bool global)
{
	if (v->engine_state)
		space_drop_some(v, s, global);
}

static bool filter_has(const u64 *filter, u64 la)
{
	return filter[la >> 18 & 63] & BIT(la >> 12 & 63);
}

/*
 * Programs' addresses, which INVLPG is mostly about, never meet the kernel's pages in the filter: those
 * outlive what befalls programs.
 */
void dbt_space_drop_page(struct vcpu *v, struct space *s, u64 la)
{
	const struct dspace *ds;
	bool global;

	if (!v->engine_state)
		return;
	ds = &dbt_of(v)->space[space_index(v, s)];
	global = ds->halves >> (la >> 63) & 1 && filter_has(ds->filter[1], la);
	if (global || filter_has(ds->filter[0], la))
		space_drop_some(v, s, global);
}

static void used_add(struct dspace *ds, u32 *list, u32 *n, u32 what)
{
	ds->entered = true;
	if (*n == USED_MAX)
		ds->overflow = true;
	else
		list[(*n)++] = what;
}

static bool exec_valid(const struct vcpu *v, const struct dspace *ds, const struct exec_entry *e,
	u64 la)
{
	return e->tag == ((la & PAGE_MASK) | (v->cpl == 3)) && e->epoch == ds->epoch[e->global];
}

static struct exec_entry *exec_entry(struct dspace *ds, u64 la)
{
	return &ds->exec[la >> 12 & (EXEC_ENTRIES - 1)];
}

/* Is this known to be a global page? */
static u32 used_global(const struct vcpu *v, struct dspace *ds, u64 la)
{
	const struct exec_entry *e = exec_entry(ds, la);

	return exec_valid(v, ds, e, la) && e->global ? USED_GLOBAL : 0;
}

/* Is it known where page p runs in space k? No longer when the space's tables have been emptied. */
static bool exec_known(const struct dspace *ds, const struct fpage *p, unsigned int k)
{
	return p->where[k].epoch == ds->epoch[p->where[k].la & 1];
}

/* v->r[R_RIP] is where the branch leads. */
bool space_set_cell(struct vcpu *v, u32 exit, u32 to)
{
	struct dbt *d = dbt_of(v);
	unsigned int k = space_index(v, v->space);
	struct dspace *ds = &d->space[k];
	const struct exit *x = &d->exit[exit];
	const struct fpage *p = &d->page[x->page];
	u64 la = v->r[R_RIP], from = (la - ((u64)(s64)x->pages << 12)) & v->rip_mask;
	u32 global;

	if (!exec_known(ds, p, k) || (p->where[k].la ^ from) & PAGE_MASK)
		return false;
	global = x->pages ? used_global(v, ds, la) & used_global(v, ds, from) : 0;
	v->space->cell[x->site] = code_rx(d, to);
	used_add(ds, ds->cells, &ds->n_cells, x->site | global);
	v->stat.cell_fills++;
	return true;
}

/* Once in each way: two targets may take turns in an entry. */
static void jump_list(struct dspace *ds, u32 n, u32 global)
{
	u64 *listed = &ds->listed[!!global][n / 64];

	if (*listed & BIT(n % 64))
		return;
	*listed |= BIT(n % 64);
	used_add(ds, ds->jumps, &ds->n_jumps, n | global);
}

void space_set_jump(struct vcpu *v, u64 la, u32 frag)
{
	struct dbt *d = dbt_of(v);
	struct dspace *ds = &d->space[space_index(v, v->space)];
	unsigned int n = jump_index(la);
	struct jump_entry *e = &v->space->jump[d->cur_mode][n];

	e->la = la;
	e->host = code_rx(d, fragment_saved(&d->frag[frag]));
	jump_list(ds, d->cur_mode << JUMP_BITS | n, used_global(v, ds, la));
	v->stat.jump_fills++;
}

u64 space_jump(struct vcpu *v, u64 la)
{
	const struct jump_entry *e = &v->space->jump[dbt_of(v)->cur_mode][jump_index(la)];

	return e->la == la ? e->host : 0;
}

/* ---- pages ---- */

/* Page n runs at la in this space: at no other address, or what says so goes. */
static void exec_alias(struct vcpu *v, struct dspace *ds, u32 n, u64 la, bool global)
{
	struct fpage *p = &dbt_of(v)->page[n];
	unsigned int k = space_index(v, v->space);
	u64 was = p->where[k].la;

	if (exec_known(ds, p, k) && (was & PAGE_MASK) != la)
		space_drop_code(v, v->space);
	p->where[k].la = la | global;
	p->where[k].epoch = ds->epoch[global];
}

/* Raises the fault of a fetch. NONE: no memory slot is there, the interpreter says what then. */
static u32 exec_fill(struct vcpu *v, struct dspace *ds, u64 la, struct exec_entry *e)
{
	bool global;
	u64 gpa = mmu_fetch_page(v, la, &global);
	const struct memslot *s = memslot_find(v->vm, gpa);
	u32 n;

	if (!s)
		return NONE;
	code_check_page(v, s, gpa);
	n = page_get(v, gpa, memslot_code(s, gpa));
	exec_alias(v, ds, n, la & PAGE_MASK, global);
	ds->entered = true;
	ds->filter[global][la >> 18 & 63] |= BIT(la >> 12 & 63);
	if (global)
		ds->halves |= 1u << (la >> 63);
	*e = (struct exec_entry){ .tag = (la & PAGE_MASK) | (v->cpl == 3),
		.epoch = ds->epoch[global], .page = n, .global = global };
	return n;
}

u32 exec_page(struct vcpu *v, u64 la)
{
	struct dbt *d = dbt_of(v);
	struct dspace *ds = &d->space[space_index(v, v->space)];
	struct exec_entry *e = exec_entry(ds, la);
	struct fpage *p = &d->page[e->page];

	if (likely(exec_valid(v, ds, e, la))) {
		if (unlikely(p->gen != load_acquire(&p->code->gen)))
			page_get(v, p->gpa, p->code);
		exec_alias(v, ds, e->page, la & PAGE_MASK, e->global);
		return e->page;
	}
	return exec_fill(v, ds, la, e);
}
