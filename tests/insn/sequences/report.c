/* What differs, the listing of a program, and making it smaller (sequences.h). */
#include <string.h>

#include "tests/insn/sequences/sequences.h"

static const char *const reg_name[16] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
};

/* ---- kept for later --------------------------------------------------------------------------- */

static FILE *screen;
static char *kept;
static size_t kept_size;

void report_begin(void)
{
	screen = stdout;
	stdout = open_memstream(&kept, &kept_size);
}

char *report_end(void)
{
	fclose(stdout);
	stdout = screen;
	return kept;
}

/* ---- states ---------------------------------------------------------------------------------- */

/* What is compared of a state, as words with names. */
struct word {
	const char *name;
	u64 val;
};

static void add(struct word *w, unsigned int *n, const char *name, u64 val)
{
	w[*n].name = name;
	w[(*n)++].val = val;
}

/* The x87 pointers are there to be seen only while an error is pending (AMD). */
static unsigned int state_words(const struct state *s, u64 flags, struct word *w)
{
	const struct fxsave_image *fx = &s->x.fx;
	bool compat = s->cs == SEL_CODE32 || s->cs == KSEL_CODE32;
	unsigned int n = 0;

	for (unsigned int k = 0; k < (compat ? 8 : 16); k++)
		add(w, &n, reg_name[k], compat ? (u32)s->r[k] : s->r[k]);
	add(w, &n, "rip", s->rip);
	add(w, &n, "rflags", s->rflags & flags);
	add(w, &n, "cs", s->cs);
	add(w, &n, "vector", s->vector);
	add(w, &n, "error", s->vector == VEC_MF || s->vector == VEC_XM ? 0 : s->error);
	add(w, &n, "cr2", s->cr2);
	add(w, &n, "fcw", fx->fcw);
	add(w, &n, "fsw", fx->fsw);
	add(w, &n, "ftw", fx->ftw);
	add(w, &n, "mxcsr", fx->mxcsr);
	if (fx->fsw & FSW_ES) {
		add(w, &n, "fip", fx->fip);
		add(w, &n, "fdp", fx->fdp);
		add(w, &n, "fop", fx->fop);
	}
	return n;
}

static unsigned int vectors_compared(const struct state *s)
{
	return s->cs == SEL_CODE32 || s->cs == KSEL_CODE32 ? 8 : 16;
}

bool state_equal(const struct state *a, const struct state *b, u64 flags)
{
	struct word wa[40], wb[40];
	unsigned int n = state_words(a, flags, wa), v = vectors_compared(a);

	if (n != state_words(b, flags, wb))
		return false;
	for (unsigned int k = 0; k < n; k++)
		if (wa[k].val != wb[k].val)
			return false;
	return !memcmp(a->x.fx.st, b->x.fx.st, sizeof(a->x.fx.st)) &&
	       xstate_equal(a, b, v);
}

static void hex(void *arg, const char *name, unsigned int k, const u8 *a, const u8 *b,
	unsigned int bytes)
{
	const struct sides *s = arg;

	if (!memcmp(a, b, bytes))
		return;
	printf("  %s%u\n    %-6s ", name, k, s->a);
	for (unsigned int j = bytes; j--;)
		printf("%02x", a[j]);
	printf("\n    %-6s ", s->b);
	for (unsigned int j = bytes; j--;)
		printf("%02x", b[j]);
	printf("\n");
}

void state_show_difference(const struct state *a, const struct state *b, const struct sides *s)
{
	struct word wa[40], wb[40];
	unsigned int n = state_words(a, s->flags, wa), m = state_words(b, s->flags, wb);

	for (unsigned int k = 0; k < n && k < m; k++)
		if (wa[k].val != wb[k].val)
			printf("  %-7s %s %016llx %s %016llx\n", wa[k].name, s->a,
				(unsigned long long)wa[k].val, s->b,
				(unsigned long long)wb[k].val);
	for (unsigned int k = 0; k < 8; k++)
		hex((void *)s, "st", k, a->x.fx.st[k], b->x.fx.st[k], 16);
	xstate_differences(a, b, vectors_compared(a), hex, (void *)s);
}

void state_show(const char *what, const struct state *s)
{
	printf("  %s:", what);
	for (unsigned int j = 0; j < 16; j++)
		printf("%s%s %llx", j % 4 ? " " : "\n    ", reg_name[j],
			(unsigned long long)s->r[j]);
	printf("\n    rip %llx cs %x rflags %llx mxcsr %x fcw %x fsw %x ftw %x\n",
		(unsigned long long)s->rip, s->cs, (unsigned long long)s->rflags, s->x.fx.mxcsr,
		s->x.fx.fcw, s->x.fx.fsw, s->x.fx.ftw);
}

/* ---- memory ---------------------------------------------------------------------------------- */

bool memory_same(const void *a, const void *b, size_t n)
{
	return !memcmp(a, b, n);
}

void memory_show_difference(const void *a, const void *b, size_t n, u64 addr,
	const struct sides *s)
{
	const u8 *p = a, *q = b;
	unsigned int shown = 0;

	for (size_t k = 0; k < n; k += 8) {
		u64 x, y;

		memcpy(&x, p + k, 8);
		memcpy(&y, q + k, 8);
		if (x == y)
			continue;
		if (++shown > 12) {
			printf("  and more memory\n");
			return;
		}
		printf("  [%llx] %s %016llx %s %016llx\n", (unsigned long long)addr + k, s->a,
			(unsigned long long)x, s->b, (unsigned long long)y);
	}
}

/* ---- programs -------------------------------------------------------------------------------- */

static u64 item_end(const struct sequence *q, unsigned int k)
{
	return k + 1 < q->n ? q->insn[k + 1].addr : q->end;
}

static bool item_is_gone(const struct sequence *q, unsigned int k, const u8 *code)
{
	for (u64 a = q->insn[k].addr; a < item_end(q, k); a++)
		if (code[a - AREA_CODE] != 0x90)
			return false;
	return true;
}

static const char *item_name(u32 row)
{
	switch (row) {
	case ROW_PREP: return "(preparation)";
	case ROW_SKIPPED: return "(aftermath)";
	case ROW_FLOW: case ROW_FIXED: return "(flow)";
	default: return opcode_row(row)->name;
	}
}

void sequence_show(const struct sequence *q, const u8 *code)
{
	printf("  %u-bit, from %llx to the INT3 at %llx:\n", q->bits, (unsigned long long)q->start,
		(unsigned long long)q->end);
	for (unsigned int k = 0; k < q->n; k++) {
		if (item_is_gone(q, k, code))
			continue;
		printf("  %llx: ", (unsigned long long)q->insn[k].addr);
		for (u64 a = q->insn[k].addr; a < item_end(q, k); a++)
			printf("%02x ", code[a - AREA_CODE]);
		printf(" %s\n", item_name(q->insn[k].row));
	}
}

/* ---- smaller --------------------------------------------------------------------------------- */

/* What settles the flags goes only after that which made it necessary. */
static bool item_may_go(const struct sequence *q, unsigned int k, const u8 *code)
{
	if (q->insn[k].row != ROW_SKIPPED)
		return true;
	while (k && q->insn[k].row == ROW_SKIPPED)
		k--;
	return item_is_gone(q, k, code);
}

/* Without items first to first + n - 1, does it still fail? Else they come back. */
static bool try_without(const struct sequence *q, u8 *code, unsigned int first, unsigned int n,
	bool (*fails)(void))
{
	u8 before[CODE_SIZE];
	bool any = false;

	memcpy(before, code, CODE_SIZE);
	for (unsigned int k = first; k < first + n && k < q->n; k++) {
		if (item_is_gone(q, k, code) || !item_may_go(q, k, code))
			continue;
		memset(code + (q->insn[k].addr - AREA_CODE), 0x90,
			item_end(q, k) - q->insn[k].addr);
		any = true;
	}
	if (!any)
		return false;
	if (fails())
		return true;
	memcpy(code, before, CODE_SIZE);
	return false;
}

void sequence_minimize(const struct sequence *q, u8 *code, bool (*fails)(void))
{
	bool again = true;

	for (unsigned int n = 64; n; n /= 2)
		for (unsigned int k = 0; k < q->n; k += n)
			try_without(q, code, k, n, fails);
	for (unsigned int round = 0; again && round < 4; round++) {
		again = false;
		for (unsigned int k = q->n; k--;)
			again |= try_without(q, code, k, 1, fails);
	}
}
