/*
 * Sites: host code that may fault on the host, by an exception that is the guest's own (vector, x87,
 * DIV) or because user space took away the memory behind a slot. A site says which guest instruction
 * it is and where its registers and flags are, so that a fault leaves the state before it, as #PF
 * would. There is one for each access of guest memory, so they are kept small: a stream of bytes for
 * each fragment, 2 to 3 a site, that is read only when there is a fault: 550 KB for a kernel's boot.
 *
 * A site is two numbers, 7 bits a byte, the lowest first, bit 7: more follow:
 *	guest offset less that of the site before << KIND_BITS | enum site_kind
 *	host offset less that of the site before
 * With SITE_LOST the length and the bytes of the instruction that set the flags follow. SITE_MARK has
 * in place of the offset what it marks and no second number: it concerns what comes behind it.
 */
#include "hypervisor/dbt/translate.h"

/* Where the flags are. */
enum site_kind {
	SITE_HOST,	/* in RFLAGS */
	SITE_SAVED,	/* in hot.flags */
	SITE_AX,	/* in RAX */
	SITE_LOST,	/* to be had again from this instruction, ... */
	SITE_LOST_AGAIN,/* ... from that of the last SITE_LOST */
	SITE_MARK,
};
#define KIND_BITS	3

enum site_mark {
	MARK_END,	/* of the fragment's sites */
	MARK_REWIND,	/* guest offsets go on from the fragment's beginning */
	MARK_HOMES,	/* homes_word() follows: for all sites from here on */
	MARK_SHADOW,	/* the next one is behind an STI that set IF */
	MARK_STOS,	/* in the next one RDI has the addend added ... */
	MARK_MOVS,	/* ... and RSI hot.slot[0], too */
};

/* ---- making ---- */

static void put_number(struct dbt *d, u32 x)
{
	u32 *at = &d->slab[d->cur].sites.at;

	for (; x >> 7; x >>= 7)
		d->site[(*at)++] = (u8)(x | 0x80);
	d->site[(*at)++] = (u8)x;
}

static void put_mark(struct dbt *d, enum site_mark mark)
{
	put_number(d, (u32)mark << KIND_BITS | SITE_MARK);
}

void sites_begin(struct trans *t)
{
	t->d->sites_of[t->frag] = t->d->slab[t->d->cur].sites.at;
	t->site_host = t->e.at;
	t->site_off = t->f->off;
	t->site_homes = 0;
	t->site_setter = NO_SETTER;
}

void sites_end(struct trans *t)
{
	put_mark(t->d, MARK_END);
}

static void put_setter(struct trans *t)
{
	struct dbt *d = t->d;
	u32 *at = &d->slab[d->cur].sites.at;
	u8 len = t->insn[t->setter].len;

	t->site_setter = t->setter;
	d->site[(*at)++] = len;
	memcpy(d->site + *at, insn_bytes(t, t->setter), len);
	*at += len;
}

static enum site_kind kind_now(const struct trans *t)
{
	if (t->fl == FL_HOST)
		return SITE_HOST;
	if (t->fl == FL_LOST)
		return t->setter == t->site_setter ? SITE_LOST_AGAIN : SITE_LOST;
	return t->e.ax_flags ? SITE_AX : SITE_SAVED;
}

static void put_marks(struct trans *t)
{
	u32 homes = homes_word(t);

	if (unlikely(homes != t->site_homes)) {
		put_mark(t->d, MARK_HOMES);
		put_number(t->d, homes);
		t->site_homes = homes;
	}
	if (unlikely(t->off[t->k] < t->site_off)) {
		put_mark(t->d, MARK_REWIND);
		t->site_off = t->f->off;
	}
	if (unlikely(t->shadow >> t->k & 1))
		put_mark(t->d, MARK_SHADOW);
}

static void put_site(struct trans *t, u32 host)
{
	enum site_kind kind = kind_now(t);

	put_marks(t);
	put_number(t->d, (u32)(t->off[t->k] - t->site_off) << KIND_BITS | kind);
	put_number(t->d, host - t->site_host);
	t->site_off = t->off[t->k];
	t->site_host = host;
	if (kind == SITE_LOST)
		put_setter(t);
}

void site_now(struct trans *t)
{
	emit_flags_store(&t->e);
	put_site(t, t->e.at);
}

void site_access(struct trans *t)
{
	put_site(t, t->e.last);
}

void site_string(struct trans *t, bool movs)
{
	put_mark(t->d, movs ? MARK_MOVS : MARK_STOS);
	put_site(t, t->e.at);
}

/* ---- finding ---- */

struct reader {
	const u8 *p;
	u32 host, off, homes;
	bool shadow, stos, movs;
	const u8 *setter;
};

static u32 get_number(struct reader *r)
{
	u32 x = 0;
	u8 b;

	for (unsigned int shift = 0;; shift += 7) {
		b = *r->p++;
		x |= (u32)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return x;
	}
}

static void read_mark(struct reader *r, u32 mark, u32 first_off)
{
	switch (mark) {
	case MARK_REWIND: r->off = first_off; break;
	case MARK_HOMES: r->homes = get_number(r); break;
	case MARK_SHADOW: r->shadow = true; break;
	default:
		r->stos = true;
		r->movs = mark == MARK_MOVS;
		break;
	}
}

/* The next site's kind; SITE_MARK: there is none. */
static enum site_kind read_site(struct reader *r, u32 first_off)
{
	u32 word;

	r->shadow = r->stos = r->movs = false;
	for (;;) {
		word = get_number(r);
		if ((word & ((1u << KIND_BITS) - 1)) != SITE_MARK)
			break;
		if (word >> KIND_BITS == MARK_END)
			return SITE_MARK;
		read_mark(r, word >> KIND_BITS, first_off);
	}
	r->off += word >> KIND_BITS;
	r->host += get_number(r);
	word &= (1u << KIND_BITS) - 1;
	if (word == SITE_LOST) {
		r->setter = r->p;
		r->p += 1 + r->p[0];
	}
	return (enum site_kind)word;
}

bool site_find(const struct dbt *d, u32 frag, u32 host, struct site *s)
{
	const struct fragment *f = &d->frag[frag];
	struct reader r = { .p = d->site + d->sites_of[frag], .host = f->start, .off = f->off };
	enum site_kind kind;

	do {
		kind = read_site(&r, f->off);
		if (kind == SITE_MARK || r.host > host)
			return false;
	} while (r.host != host);
	s->off = (u16)r.off;
	s->homes = r.homes;
	s->shadow = r.shadow;
	s->stos = r.stos;
	s->movs = r.movs;
	s->saved = kind == SITE_SAVED;
	s->ax = kind == SITE_AX;
	s->setter = kind == SITE_LOST || kind == SITE_LOST_AGAIN ? r.setter + 1 : NULL;
	return true;
}
