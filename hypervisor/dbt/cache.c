/*
 * The code cache: fragments, the pages they come from, the links between them, and who goes when
 * room is needed.
 *
 * Every pool is cut into NR_SLABS slabs, filled one after the other. When the next one to fill is
 * not empty, its fragments, the oldest, are evicted: that is an eighth of the cache, and the only
 * work beside it is to take back links into it. So there is no moment when everything has to be
 * translated again.
 */
#include "hypervisor/dbt/dbt.h"

#include <linux/errno.h>

#include "lib/search.h"

#define TRAMP_ROOM	(8u << 10)
/*
 * For each KiB of code. Measured after a compiler's run: 2.5 fragments, 8 exits, 17 units; of sites
 * 34 bytes after a kernel's boot.
 */
#define FRAGS_PER_KIB	6
#define CROSSES_PER_KIB	1
#define EXITS_PER_KIB	12
#define REC_UNITS_PER_KIB	80
#define SITE_BYTES_PER_KIB	256

/* ---- pools ---- */

static void *pool_alloc(size_t n, size_t size, size_t *bytes)
{
	*bytes = ALIGN_UP(n * size, (size_t)4096);
	return os_pages_alloc(*bytes);
}

static void part_set(struct pool_part *p, u32 first, u32 n, unsigned int slab)
{
	p->start = p->at = first + n * slab;
	p->end = p->start + n;
}

static void slabs_set(struct dbt *d, u32 code_bytes)
{
	u32 kib = code_bytes / 1024;

	for (unsigned int k = 0; k < NR_SLABS; k++) {
		struct slab *s = &d->slab[k];

		part_set(&s->code, TRAMP_ROOM, code_bytes, k);
		part_set(&s->frags, 1, kib * FRAGS_PER_KIB, k);
		part_set(&s->crosses, 1, kib * CROSSES_PER_KIB, k);
		part_set(&s->exits, 1, kib * EXITS_PER_KIB, k);
		part_set(&s->recs, 1, kib * REC_UNITS_PER_KIB, k);
		part_set(&s->sites, 1, kib * SITE_BYTES_PER_KIB, k);
	}
	d->cur = 0;
}

static int pools_create(struct dbt *d, u32 code_bytes)
{
	size_t kib = (size_t)code_bytes / 1024 * NR_SLABS;

	d->frag = pool_alloc(kib * FRAGS_PER_KIB + 1, sizeof(*d->frag), &d->frag_bytes);
	d->cross = pool_alloc(kib * CROSSES_PER_KIB + 1, sizeof(*d->cross), &d->cross_bytes);
	d->exit = pool_alloc(kib * EXITS_PER_KIB + 1, sizeof(*d->exit), &d->exit_bytes);
	d->rec = pool_alloc(kib * REC_UNITS_PER_KIB + 1 + DECODE_ROOM, REC_UNIT, &d->rec_bytes);
	/* The decoder may read behind an instruction there, too. */
	d->site = pool_alloc(kib * SITE_BYTES_PER_KIB + 1 + DECODE_ROOM, 1, &d->site_bytes);
	d->sites_of = pool_alloc(kib * FRAGS_PER_KIB + 1, sizeof(*d->sites_of), &d->sites_of_bytes);
	d->page = pool_alloc(MAX_PAGES, sizeof(*d->page), &d->page_bytes);
	d->form = pool_alloc(opcode_rows(), sizeof(*d->form), &d->form_bytes);
	if (!d->frag || !d->cross || !d->exit || !d->rec || !d->site || !d->sites_of || !d->page ||
		!d->form)
		return -ENOMEM;
	return 0;
}

static void pool_free(void *p, size_t bytes)
{
	if (p)
		os_pages_free(p, bytes);
}

void cache_destroy(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);

	if (!d)
		return;
	pool_free(d->frag, d->frag_bytes);
	pool_free(d->cross, d->cross_bytes);
	pool_free(d->exit, d->exit_bytes);
	pool_free(d->rec, d->rec_bytes);
	pool_free(d->site, d->site_bytes);
	pool_free(d->sites_of, d->sites_of_bytes);
	pool_free(d->page, d->page_bytes);
	pool_free(d->form, d->form_bytes);
	if (d->rw)
		os_code_free(d->rw, (void *)d->rx, d->size);
	os_pages_free(d, ALIGN_UP(sizeof(*d), 4096));
	v->engine_state = NULL;
}

static int area_create(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	const struct os_code_fault fault = { .rip = &v->hot.fault_rip,
		.vector = &v->hot.fault_vector };
	void *rw, *rx;
	int ret = os_code_alloc(d->size, &rw, &rx, &fault);

	if (ret)
		return ret;
	d->rw = rw;
	d->rx = (u64)rx;
	return 0;
}

int cache_create(struct vcpu *v, u32 size)
{
	struct dbt *d = os_pages_alloc(ALIGN_UP(sizeof(*d), 4096));
	u32 code_bytes = ALIGN_DOWN(size / NR_SLABS, 4096u);
	int ret;

	if (!d)
		return -ENOMEM;
	v->engine_state = d;
	d->size = ALIGN_UP(code_bytes * NR_SLABS + TRAMP_ROOM, 4096u);
	ret = area_create(v);
	if (!ret)
		ret = pools_create(d, code_bytes);
	if (ret) {
		cache_destroy(v);
		return ret;
	}
	cpuid_host_features(d->host_features);
	d->kernel_returns = cpuid_host_returns_safe();
	slabs_set(d, code_bytes);
	trampolines_emit(v);
	os_code_name(code_rx(d, 0), TRAMP_ROOM, "dbt trampolines");
	for (unsigned int k = 0; k < NR_SPACES; k++)
		d->space[k].epoch[0] = d->space[k].epoch[1] = 1;
	d->ret_mode = NR_MODES;
	cache_flush(v);
	return 0;
}

u32 cache_frag(struct dbt *d)
{
	return d->slab[d->cur].frags.at++;
}

u32 cache_cross(struct dbt *d)
{
	return d->slab[d->cur].crosses.at++;
}

u32 cache_exit(struct dbt *d)
{
	return d->slab[d->cur].exits.at++;
}

u32 cache_rec(struct dbt *d, unsigned int len)
{
	struct pool_part *p = &d->slab[d->cur].recs;
	u32 n = p->at;

	p->at += ALIGN_UP((u32)offsetof(struct rec, code) + len, REC_UNIT) / REC_UNIT;
	return n;
}

/* ---- cells ---- */

u32 cache_cell(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	u32 cell = d->cell_free;

	if (cell)
		d->cell_free = (u32)d->cell_stub[cell];
	else if (d->n_cells < NR_CELLS)
		cell = d->n_cells++;
	return cell;
}

void cache_cell_set(struct vcpu *v, u32 cell, u64 stub)
{
	struct dbt *d = dbt_of(v);

	d->cell_stub[cell] = stub;
	for (unsigned int k = 0; k < NR_SPACES; k++)
		if (d->space[k].ready)
			vcpu_space(v, k)->cell[cell] = stub;
}

static void cell_release(struct dbt *d, u32 cell)
{
	d->cell_stub[cell] = d->cell_free;
	d->cell_free = cell;
}

/* ---- fragments by page, offset, mode ---- */

static u32 *hash_bucket(struct dbt *d, u32 page, unsigned int off, unsigned int mode)
{
	u32 h = (page << 12 | off) * 0x9e3779b1u ^ mode * 0x85ebca6bu;

	return &d->hash[h >> (32 - __builtin_ctz(HASH_SIZE))];
}

u32 fragment_find(struct dbt *d, u32 page, unsigned int off, unsigned int mode)
{
	u32 f = *hash_bucket(d, page, off, mode);

	for (; f; f = d->frag[f].hash_next)
		if (d->frag[f].page == page && d->frag[f].off == off && d->frag[f].mode == mode)
			return f;
	return NONE;
}

u32 fragment_find_next(struct dbt *d, u32 frag)
{
	const struct fragment *k = &d->frag[frag];
	u32 f = k->hash_next;

	for (; f; f = d->frag[f].hash_next)
		if (d->frag[f].page == k->page && d->frag[f].off == k->off &&
			d->frag[f].mode == k->mode)
			return f;
	return NONE;
}

void fragment_publish(struct dbt *d, u32 frag)
{
	struct fragment *f = &d->frag[frag];
	u32 *bucket = hash_bucket(d, f->page, f->off, f->mode);

	f->hash_next = *bucket;
	*bucket = frag;
	f->page_next = d->page[f->page].frags;
	d->page[f->page].frags = frag;
	if (f->cross) {
		struct cross *c = &d->cross[f->cross];

		c->next = d->page[c->page2].crossing;
		d->page[c->page2].crossing = frag;
	}
	f->state = FRAG_LIVE;
}

/* The lists that a fragment is in. */
enum list { LIST_HASH, LIST_PAGE, LIST_CROSSING };

static u32 *list_next(struct dbt *d, u32 frag, enum list list)
{
	struct fragment *f = &d->frag[frag];

	switch (list) {
	case LIST_HASH: return &f->hash_next;
	case LIST_PAGE: return &f->page_next;
	default: return &d->cross[f->cross].next;
	}
}

static void list_remove(struct dbt *d, u32 *link, u32 frag, enum list list)
{
	while (*link && *link != frag)
		link = list_next(d, *link, list);
	if (*link)
		*link = *list_next(d, frag, list);
}

static const struct slab *slab_at(const struct dbt *d, u32 host)
{
	for (unsigned int k = 0; k < NR_SLABS; k++)
		if (host >= d->slab[k].code.start && host < d->slab[k].code.at)
			return &d->slab[k];
	return NULL;
}

u32 fragment_at(struct dbt *d, u32 host)
{
	const struct slab *s = slab_at(d, host);
	const struct fragment *f;
	u32 n;

	if (!s)
		return NONE;
	f = &d->frag[s->frags.start];
	n = COUNT_UPTO(s->frags.at - s->frags.start, i, f[i].start, host);
	return n ? s->frags.start + n - 1 : NONE;
}

/* ---- links ---- */

void fragment_link(struct dbt *d, u32 exit, u32 frag)
{
	struct exit *x = &d->exit[exit];
	struct fragment *f = &d->frag[frag];

	x->target = frag;
	x->next_in = f->incoming;
	f->incoming = exit;
	emit_patch(d->rw, x->site, fragment_entry(f, x->fl));
}

static void fragment_unlink_incoming(struct dbt *d, struct fragment *f)
{
	u32 exit, next;

	for (exit = f->incoming; exit; exit = next) {
		struct exit *x = &d->exit[exit];

		next = x->next_in;
		emit_patch(d->rw, x->site, x->stub);
		x->target = NONE;
		x->next_in = NONE;
	}
	f->incoming = NONE;
}

static void exit_unlink(struct dbt *d, u32 exit)
{
	struct exit *x = &d->exit[exit];
	u32 *link = &d->frag[x->target].incoming;

	while (*link && *link != exit)
		link = &d->exit[*link].next_in;
	if (*link)
		*link = x->next_in;
	x->target = NONE;
}

/* A dead fragment's branches are not to be patched any more: its entries lie over them. */
static void fragment_unlink_exits(struct dbt *d, struct fragment *f)
{
	for (u32 k = f->exits; k < f->exits + f->n_exits; k++) {
		d->exit[k].dead = true;
		if (d->exit[k].kind == EXIT_DIRECT && d->exit[k].target)
			exit_unlink(d, k);
	}
}

/* ---- death ---- */

static void entry_kill(struct dbt *d, u32 entry, u32 trampoline)
{
	d->rw[entry] = 0xe8;	/* call */
	emit_patch(d->rw, entry + 1, trampoline);
}

/* Nothing finds it any more, and whoever still jumps to it leaves at once. */
static void fragment_kill(struct dbt *d, u32 frag)
{
	struct fragment *f = &d->frag[frag];

	list_remove(d, hash_bucket(d, f->page, f->off, f->mode), frag, LIST_HASH);
	list_remove(d, &d->page[f->page].frags, frag, LIST_PAGE);
	if (f->cross)
		list_remove(d, &d->page[d->cross[f->cross].page2].crossing, frag, LIST_CROSSING);
	fragment_unlink_incoming(d, f);
	fragment_unlink_exits(d, f);
	entry_kill(d, fragment_saved(f), d->tramp.dead_saved);
	entry_kill(d, fragment_host(f), d->tramp.dead_host);
	f->state = FRAG_DEAD;
}

void page_kill(struct vcpu *v, u32 page)
{
	struct dbt *d = dbt_of(v);
	struct fpage *p = &d->page[page];

	if (p->frags || p->crossing) {
		d->stale = true;
		v->hot.ret_void = true;
	}
	while (p->frags)
		fragment_kill(d, p->frags);
	while (p->crossing)
		fragment_kill(d, p->crossing);
}

/* ---- pages ---- */

static u32 *page_bucket(struct dbt *d, u64 gpa)
{
	return &d->page_hash[((gpa >> 12) * 0x9e3779b1u >> 7) & (PAGE_HASH - 1)];
}

u32 page_find(struct dbt *d, u64 gpa)
{
	u32 p = *page_bucket(d, gpa);

	while (p && d->page[p].gpa != gpa)
		p = d->page[p].next;
	return p;
}

/* The page's record, its fragments those of the present content. */
u32 page_get(struct vcpu *v, u64 gpa, struct code_page *code)
{
	struct dbt *d = dbt_of(v);
	u32 n = page_find(d, gpa);
	u32 gen = code_page_gen(v, code);

	if (!n) {
		if (d->n_pages == MAX_PAGES)
			cache_flush(v);
		n = d->n_pages++;
		memset(&d->page[n], 0, sizeof(d->page[n]));
		d->page[n].gpa = gpa;
		d->page[n].next = *page_bucket(d, gpa);
		*page_bucket(d, gpa) = n;
	} else if (d->page[n].gen != gen || d->page[n].code != code) {
		page_kill(v, n);
	}
	d->page[n].code = code;
	d->page[n].gen = gen;
	return n;
}

/* ---- eviction ---- */

static void decoded_forget(struct dbt *d)
{
	for (u32 k = 0; k < DECODED; k++)
		d->decoded[k].rec = NONE;
}

/* Takes what is not live any more out of a list. */
static void list_sweep(struct dbt *d, u32 *link, enum list list)
{
	while (*link) {
		u32 *after = list_next(d, *link, list);

		if (d->frag[*link].state == FRAG_LIVE)
			link = after;
		else
			*link = *after;
	}
}

static void page_sweep(struct dbt *d, u32 n, u32 sweep)
{
	struct fpage *p = &d->page[n];

	if (p->sweep == sweep)
		return;
	p->sweep = sweep;
	list_sweep(d, &p->frags, LIST_PAGE);
	list_sweep(d, &p->crossing, LIST_CROSSING);
}

/* The lists that had fragments of s, a page's once. */
static void lists_sweep(struct dbt *d, const struct slab *s)
{
	u32 sweep = ++d->sweeps, k;

	for (k = s->frags.start; k < s->frags.at; k++) {
		const struct fragment *f = &d->frag[k];

		list_sweep(d, hash_bucket(d, f->page, f->off, f->mode), LIST_HASH);
		page_sweep(d, f->page, sweep);
		if (f->cross)
			page_sweep(d, d->cross[f->cross].page2, sweep);
	}
}

/*
 * Lists are swept at the end: taking fragments out one by one took 4 % of a compiler's run. Nothing
 * jumps to them any more: direct links are taken back here, tables emptied by the caller.
 */
static void slab_evict(struct vcpu *v, struct slab *s)
{
	struct dbt *d = dbt_of(v);
	u32 k;

	v->hot.ret_void = true;
	for (k = s->frags.start; k < s->frags.at; k++) {
		fragment_unlink_incoming(d, &d->frag[k]);
		d->frag[k].state = FRAG_FREE;
	}
	for (k = s->exits.start; k < s->exits.at; k++) {
		if (d->exit[k].kind == EXIT_CELL && d->exit[k].site)
			cell_release(d, d->exit[k].site);
		else if (d->exit[k].kind == EXIT_DIRECT && d->exit[k].target)
			exit_unlink(d, k);
	}
	lists_sweep(d, s);
	v->stat.code_bytes -= s->code.at - s->code.start;
	s->code.at = s->code.start;
	s->frags.at = s->frags.start;
	s->crosses.at = s->crosses.start;
	s->exits.at = s->exits.start;
	s->recs.at = s->recs.start;
	s->sites.at = s->sites.start;
}

static bool part_has(const struct pool_part *p, u32 n)
{
	return p->end - p->at >= n;
}

#define MAX_PER_FRAGMENT	160	/* exits, records */
#define REC_UNITS_MAX		6

static bool slab_has_room(const struct dbt *d, const struct slab *s)
{
	return part_has(&s->code, FRAGMENT_ROOM) && part_has(&s->frags, 1) &&
		part_has(&s->crosses, 1) && part_has(&s->exits, MAX_PER_FRAGMENT) &&
		part_has(&s->recs, MAX_PER_FRAGMENT * REC_UNITS_MAX) &&
		part_has(&s->sites, SITES_ROOM) &&
		(d->cell_free || d->n_cells + MAX_PER_FRAGMENT < NR_CELLS);
}

static void slab_next(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	struct slab *s;

	/* Links were written all over it. */
	os_code_settle(d->rw, d->size);
	d->cur = (d->cur + 1) % NR_SLABS;
	s = &d->slab[d->cur];
	d->prepared = s->code.start;
	if (s->frags.at == s->frags.start)
		return;
	slab_evict(v, s);
	decoded_forget(d);
	d->era++;
	for (unsigned int k = 0; k < NR_SPACES; k++)
		space_drop_range(v, vcpu_space(v, k), s->code.start, s->code.end);
	v->stat.evictions++;
}

/* Bytes of code to come. A fault for each page cost 2 us, and 5 when it was written first. */
#define PREPARE		(128u << 10)

static void code_prepare(struct dbt *d, const struct slab *s)
{
	u32 n = MIN(s->code.end - d->prepared, PREPARE);

	os_code_prepare(d->rw + d->prepared, n);
	d->prepared += n;
}

void cache_reserve(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	const struct slab *s;

	if (unlikely(!slab_has_room(d, &d->slab[d->cur])))
		slab_next(v);
	s = &d->slab[d->cur];
	if (unlikely(s->code.at + FRAGMENT_ROOM > d->prepared && d->prepared < s->code.end))
		code_prepare(d, s);
}

void cache_flush(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);

	for (unsigned int k = 0; k < NR_SLABS; k++)
		slab_evict(v, &d->slab[k]);
	decoded_forget(d);
	if (d->era) {		/* else they are as they were made: untouched */
		memset(d->hash, 0, sizeof(d->hash));
		memset(d->page_hash, 0, sizeof(d->page_hash));
	}
	d->cur = 0;
	d->prepared = d->slab[0].code.start;
	d->n_pages = 1;
	d->cell_free = NONE;
	d->n_cells = 1;
	d->stale = true;
	d->era++;
	space_drop_all(v);
	for (unsigned int k = 0; k < NR_SPACES; k++)
		d->space[k].ready = false;
	/* The one that is in GS is entered again without another look. */
	if (d->gs)
		space_ready(v, d->gs);
}
