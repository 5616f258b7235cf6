/*
 * A fragment's host code beside the guest code that it was made from, for the developer: one
 * paragraph a fragment, docs/profiling.md.
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/disasm.h"

#define LINE	160u
#define BUFFER	8192u

struct text {
	char buf[BUFFER];
	u32 n;
};

static void text_flush(struct text *x)
{
	os_dump(x->buf, x->n);
	x->n = 0;
}

static void text_put(struct text *x, const char *s)
{
	while (*s)
		x->buf[x->n++] = *s++;
}

static void text_hex(struct text *x, u64 value, unsigned int digits)
{
	x->n += hex_put(x->buf + x->n, value, digits);
}

static void text_insn(struct text *x, const struct insn *i, u64 rip)
{
	char line[LINE];

	insn_format(line, sizeof(line), i, rip);
	text_put(x, line);
	text_put(x, "\n");
	if (x->n > BUFFER - 2 * LINE)
		text_flush(x);
}

static void put_host(struct text *x, const struct dbt *d, u32 from, u32 to)
{
	struct insn i;

	while (from < to) {
		text_put(x, "\t");
		text_hex(x, code_rx(d, from), 12);
		text_put(x, "  ");
		if (insn_decode(d->rw + from, to - from, 8, &i) != DECODE_OK) {
			text_put(x, "?\n");
			return;
		}
		text_insn(x, &i, code_rx(d, from));
		from += i.len;
	}
}

static void put_head(struct text *x, const struct trans *t, u64 page)
{
	text_put(x, t->v->cpl == 3 ? "\nguest user " : "\nguest kernel ");
	text_hex(x, page + t->f->off, t->mode->code_bytes * 2u);
	text_put(x, ", physical ");
	text_hex(x, t->d->page[t->f->page].gpa + t->f->off, 12);
	text_put(x, t->twin ? ", twin\n" : "\n");
}

void fragment_dump(const struct trans *t)
{
	u64 page = t->v->r[R_RIP] & ~0xfffULL;
	struct text x;
	u32 at = t->body;

	x.n = 0;	/* an initializer would call libc's memset, which uses vector registers */
	if (t->again) {
		text_put(&x, "again, for the loop\n");
	} else {
		put_head(&x, t, page);
		put_host(&x, t->d, t->f->start, at);
	}
	for (unsigned int k = 0; k < t->n && at < t->line_end; k++) {
		text_hex(&x, page + t->off[k], t->mode->code_bytes * 2u);
		text_put(&x, "  ");
		text_insn(&x, &t->insn[k], page + t->off[k]);
		put_host(&x, t->d, at, t->end_of[k]);
		at = t->end_of[k];
	}
	put_host(&x, t->d, at, t->line_end);
	text_put(&x, "out of line\n");
	put_host(&x, t->d, t->line_end, t->e.at);
	text_flush(&x);
}
