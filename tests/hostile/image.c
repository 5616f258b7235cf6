/*
 * What a fuzzed machine's memory holds: descriptor tables, handlers that go on one byte later, page
 * tables with everything that an attacker can put there, and the hostile code.
 */
#include <string.h>

#include "hypervisor/x86/regs.h"
#include "tests/hostile/image.h"

#define TABLES_END	0x1f000u

static const u8 mode_bits[NR_MODES] = {
	[REAL] = 16, [PROT16] = 16, [PROT32] = 32, [PAGED32] = 32, [PAE] = 32, [LONG64] = 64,
	[COMPAT] = 32, [V86] = 16,
};

bool mode_wide(enum mode m)
{
	return m == LONG64 || m == COMPAT;
}

static void put64(struct image *i, u64 gpa, u64 val)
{
	memcpy(i->ram + gpa, &val, 8);
}

static u64 get64(const struct image *i, u64 gpa)
{
	u64 val;

	memcpy(&val, i->ram + gpa, 8);
	return val;
}

/* ---- tables -------------------------------------------------------------------------------- */

static u64 random_descriptor(struct random *r)
{
	static const u8 types[] = { 0x93, 0xf3, 0x9b, 0xfb, 0x97, 0xf7, 0x91, 0x99, 0x9f, 0x13 };
	u64 base = chance(r, 50) ? 0 : chance(r, 50) ? below(r, IMAGE_RAM) : (u32)rnd(r);
	u64 limit = chance(r, 50) ? 0xfffff : below(r, 0x100000);

	return (limit & 0xffff) | (base & 0xffffff) << 16 | (u64)types[below(r, sizeof(types))]
		<< 40 | (limit >> 16) << 48 | (u64)(below(r, 4) * 4) << 52 | (base >> 24) << 56;
}

static void fill_gdt(struct image *i)
{
	bool wide = mode_wide(i->mode);
	unsigned int k;

	for (k = 1; k < GDT_ENTRIES; k++)
		put64(i, GDT_AT + k * 8, random_descriptor(i->r));
	put64(i, GDT_AT, 0);
	put64(i, GDT_AT + 8, wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
	put64(i, GDT_AT + 16, 0x00cf93000000ffff);
	put64(i, GDT_AT + 24, i->mode == LONG64 ? 0x00affb000000ffff : 0x00cffb000000ffff);
	put64(i, GDT_AT + 32, 0x00cff3000000ffff);
}

static void gate(struct image *i, unsigned int n, u64 target)
{
	u64 low = (target & 0xffff) | 8ull << 16 | (n == 3 || n == 0x80 ? 0xeeull : 0x8eull) << 40 |
		(target >> 16 & 0xffff) << 48;

	if (!mode_wide(i->mode)) {
		put64(i, IDT_AT + n * 8, low);
		return;
	}
	put64(i, IDT_AT + n * 16, low);
	put64(i, IDT_AT + n * 16 + 8, target >> 32);
}

static bool vector_has_error(unsigned int n)
{
	return n == 8 || (n >= 10 && n <= 14) || n == 17;
}

/* Go on one byte later; with a hop into the code itself for some, and a halt for others. */
static void fill_handlers(struct image *i)
{
	static const u8 wide[] = { 0x48, 0x83, 0xc4, 0x08, 0x48, 0x83, 0x04, 0x24, 0x01, 0x48,
		0xcf };
	static const u8 narrow[] = { 0x83, 0xc4, 0x04, 0x83, 0x04, 0x24, 0x01, 0xcf };
	static const u8 real[] = { 0x89, 0xe5, 0xff, 0x46, 0x00, 0xcf };
	u8 *p = i->ram + STUBS_AT;
	unsigned int n;

	memset(p, 0xf4, 0x1000);
	memcpy(p, wide, sizeof(wide));
	memcpy(p + 0x20, narrow, sizeof(narrow));
	memcpy(p + 0x40, real, sizeof(real));
	for (n = 0; n < 256; n++) {
		u64 go_on = mode_wide(i->mode) ? STUBS_AT + (vector_has_error(n) ? 0 : 4) :
			STUBS_AT + 0x20 + (vector_has_error(n) ? 0 : 3);

		if (chance(i->r, 6))
			go_on = STUBS_AT + 0x80;
		else if (chance(i->r, 4))
			go_on = CODE_AT + below(i->r, CODE_SIZE);
		gate(i, n, go_on);
		if (i->mode == REAL) {
			u32 vector = STUBS_AT + 0x40;

			memcpy(i->ram + n * 4, &vector, 4);
		}
	}
}

static void fill_tss(struct image *i)
{
	u64 stack = chance(i->r, 85) ? STACK_TOP : hostile_value(i->r, &i->places);
	u8 *t = i->ram + TSS_AT;
	u16 ss = 0x10;

	memset(t, 0, 0x1000);
	if (mode_wide(i->mode)) {
		memcpy(t + 4, &stack, 8);
		for (unsigned int k = 0; k < 7; k++)
			memcpy(t + 36 + k * 8, &stack, 8);
	} else {
		memcpy(t + 4, &stack, 4);
		memcpy(t + 8, &ss, 2);
	}
	t[102] = 104;
}

/* ---- pages --------------------------------------------------------------------------------- */

static u64 table_new(struct image *i)
{
	u64 t = i->table_next;

	if (t + 0x1000 > TABLES_END)
		return 0;
	i->table_next += 0x1000;
	memset(i->ram + t, 0, 0x1000);
	return t;
}

static void map_wide(struct image *i, u64 la, u64 entry)
{
	u64 table = TABLES_AT, at;
	int level;

	for (level = 4; level > 1; level--) {
		at = table + (la >> (3 + 9 * level) & 511) * 8;
		if (!(get64(i, at) & 1)) {
			u64 t = table_new(i);

			if (!t)
				return;
			put64(i, at, t | 7);
		}
		if (get64(i, at) & 0x80)
			return;
		table = get64(i, at) & 0xffffffffff000;
	}
	put64(i, table + (la >> 12 & 511) * 8, entry);
}

static void map_pae(struct image *i, u64 la, u64 entry)
{
	u64 at = TABLES_AT + (la >> 30 & 3) * 8, table, t;

	if (!(get64(i, at) & 1)) {
		t = table_new(i);
		if (!t)
			return;
		put64(i, at, t | 1);
	}
	table = get64(i, at) & ~0xfffULL;
	at = table + (la >> 21 & 511) * 8;
	if (!(get64(i, at) & 1)) {
		t = table_new(i);
		if (!t)
			return;
		put64(i, at, t | 7);
	}
	put64(i, (get64(i, at) & ~0xfffULL) + (la >> 12 & 511) * 8, entry);
}

static void map_32(struct image *i, u64 la, u64 entry)
{
	u64 at = TABLES_AT + (la >> 22 & 1023) * 4, t;
	u32 e;

	memcpy(&e, i->ram + at, 4);
	if (!(e & 1)) {
		t = table_new(i);
		if (!t)
			return;
		e = (u32)t | 7;
		memcpy(i->ram + at, &e, 4);
	}
	at = (e & ~0xfffu) + (la >> 12 & 1023) * 4;
	e = (u32)entry;
	memcpy(i->ram + at, &e, 4);
}

/* The last pages of slots: what goes over their ends is a canary. */
static const u64 last[] = { IMAGE_RAM - 4096, SPARE_GPA + SPARE_SIZE - 4096,
	ROM_GPA + ROM_SIZE - 4096 };

static void note_edge(struct places *p, u64 la, u64 entry)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(last); k++)
		if ((entry & 0xffffffffff000) == last[k] && p->n_edges < ARRAY_SIZE(p->edge))
			p->edge[p->n_edges++] = la & ~0xfffULL;
}

static void map(struct image *i, u64 la, u64 entry)
{
	if (mode_wide(i->mode))
		map_wide(i, la, entry);
	else if (i->mode == PAE)
		map_pae(i, (u32)la, entry);
	else
		map_32(i, (u32)la, entry);
	if (i->places.n < ARRAY_SIZE(i->places.page) && (entry & 1) && la >= CODE_AT)
		i->places.page[i->places.n++] = la & ~0xfffULL;
	if (entry & 1)
		note_edge(&i->places, la, entry);
}

static u64 random_frame(struct image *i)
{
	struct random *r = i->r;

	if (chance(r, 40))
		return last[below(r, ARRAY_SIZE(last))];
	switch (below(r, 8)) {
	case 0:
		return ROM_GPA + below(r, ROM_SIZE / 4096) * 4096;
	case 1:
		return SPARE_GPA + below(r, SPARE_SIZE / 4096) * 4096;
	case 2:
		return chance(r, 50) ? 0xd0000000 : 0xfee00000;
	case 3:
		return CODE_AT + below(r, CODE_SIZE / 4096) * 4096;
	default:
		return DATA_AT + below(r, DATA_SIZE / 4096) * 4096;
	}
}

/* Linear pages with a point: borders, equal modulo the TLB or 2^32, the host's own addresses. */
static u64 random_page(struct image *i)
{
	static const u64 borders[] = { 0, ~0xfffULL, 0x7fffffff000, 0x7ffffffff000,
		0xffff800000000000, 0xfffff000, 0x100000000, 0x7ffff000, 0x80000000, RAM_AT,
		RAM_AT - 4096, ROM_AT };
	struct random *r = i->r;

	switch (below(r, 4)) {
	case 0:
		return borders[below(r, ARRAY_SIZE(borders))];
	case 1:
		return host_address(r) & ~0xfffULL;
	case 2:
		return (DATA_AT + below(r, 16) * 4096) + ((u64)(1 + below(r, 8)) << (chance(r, 50) ?
			24 : 32));
	default:
		return (DATA_AT + DATA_SIZE + below(r, 64) * 4096);
	}
}

static void fill_pages(struct image *i)
{
	u64 a, first = mode_wide(i->mode) || i->mode == PAE ? 0x8000 : 0x8000;
	unsigned int k;

	i->table_next = first + 0x1000;
	memset(i->ram + first, 0, 0x1000);
	for (a = 0; a < CODE_AT; a += 4096)
		map(i, a, a | 3);
	for (; a < CODE_AT + CODE_SIZE; a += 4096)
		map(i, a, a | (chance(i->r, 85) ? 7 : 5));
	for (; a < DATA_AT + DATA_SIZE; a += 4096)
		map(i, a, a | (chance(i->r, 85) ? 7 : below(i->r, 8)));
	for (k = 0; k < 24; k++)
		map(i, random_page(i), random_frame(i) | (chance(i->r, 80) ? 7 : below(i->r, 8)) |
			(mode_wide(i->mode) && chance(i->r, 10) ? 1ULL << 63 : 0) |
			(chance(i->r, 10) ? 0x100 : 0));
}

void image_make(struct image *i)
{
	struct code c = { .p = i->ram + CODE_AT, .size = CODE_SIZE, .bits = mode_bits[i->mode],
		.r = i->r, .places = &i->places };

	i->places.n = i->places.n_edges = 0;
	i->places.code = i->mode == REAL || i->mode == V86 ? 0 : CODE_AT;
	i->places.code_size = CODE_SIZE;
	i->places.page[i->places.n++] = DATA_AT;
	fill_pages(i);
	fill_gdt(i);
	fill_tss(i);
	fill_handlers(i);
	gen_code(&c);
}

/* ---- the vCPU's state ---------------------------------------------------------------------- */

static struct kvm_segment flat(u16 sel, u8 type, u8 dpl, bool db, bool l)
{
	return (struct kvm_segment) { .limit = 0xffffffff, .selector = sel, .type = type,
		.present = 1, .dpl = dpl, .db = db, .s = 1, .l = l, .g = 1 };
}

/* 32-bit data segments with a base, a limit, or that grow down. SDM 3A 5.3 */
static void odd_segment(struct image *i, struct kvm_segment *s)
{
	static const u32 limits[] = { 0, 0xfff, 0xffff, 0x40fff, 0xfffffffe, 0x7fffffff };
	struct random *r = i->r;

	if (chance(r, 40))
		s->limit = limits[below(r, ARRAY_SIZE(limits))];
	s->g = (s->limit & 0xfff) == 0xfff;
	if (chance(r, 40))
		s->base = (u32)(chance(r, 50) ? below(r, IMAGE_RAM) : hostile_value(r, &i->places));
	if (chance(r, 15))
		s->type = 7;
}

static void set_segments(struct image *i, struct kvm_sregs *s, u8 cpl)
{
	struct kvm_segment *data[] = { &s->ds, &s->es, &s->ss, &s->fs, &s->gs };
	bool real = i->mode == REAL || i->mode == V86;
	unsigned int k;

	for (k = 0; k < ARRAY_SIZE(data); k++) {
		*data[k] = flat((u16)((cpl ? 0x20 : 0x10) | cpl), 3, cpl, i->mode != PROT16, false);
		if (real)
			*data[k] = (struct kvm_segment) { .limit = 0xffff, .type = 3, .present = 1,
				.s = 1, .dpl = cpl, .base = DATA_AT, .selector = DATA_AT >> 4 };
		else if (i->mode != LONG64 && (k > 2 || chance(i->r, 25)))
			odd_segment(i, data[k]);
		else if (i->mode == LONG64 && k > 2)
			data[k]->base = hostile_value(i->r, &i->places);
	}
	s->cs = flat((u16)((cpl ? 0x18 : 8) | cpl), 11, cpl, i->mode != PROT16 && i->mode != LONG64,
		i->mode == LONG64);
	if (real)
		s->cs = (struct kvm_segment) { .limit = 0xffff, .type = i->mode == REAL ? 11 : 3,
			.present = 1, .s = 1, .dpl = cpl, .base = CODE_AT, .selector = CODE_AT >> 4 };
}

/* KVM_SET_SREGS wants canonical bases of FS and GS. */
static u64 canonical(u64 a)
{
	return (u64)((s64)(a << 16) >> 16);
}

void image_sregs(struct image *i, struct kvm_sregs *s)
{
	struct random *r = i->r;
	u8 cpl = i->mode == REAL ? 0 : i->mode == V86 || chance(r, 50) ? 3 : 0;
	bool wide = mode_wide(i->mode);

	set_segments(i, s, cpl);
	s->fs.base = canonical(s->fs.base);
	s->gs.base = canonical(s->gs.base);
	s->tr = (struct kvm_segment) { .base = TSS_AT, .limit = 0xfff, .selector = 0x38,
		.type = 11, .present = 1 };
	s->ldt = (struct kvm_segment) { .base = GDT_AT, .limit = 0xff, .selector = 0x30, .type = 2,
		.present = 1 };
	s->gdt.base = GDT_AT;
	s->gdt.limit = GDT_ENTRIES * 8 - 1;
	s->idt.base = i->mode == REAL ? 0 : IDT_AT;
	s->idt.limit = wide ? 0xfff : i->mode == REAL ? 0x3ff : 0x7ff;
	s->cr0 = CR0_ET | CR0_NE | CR0_MP | (i->mode == REAL ? 0 : CR0_PE) |
		(i->mode >= PAGED32 ? CR0_PG : 0) | (chance(r, 70) ? CR0_WP : 0) |
		(chance(r, 25) ? CR0_AM : 0) | (chance(r, 3) ? CR0_TS : 0);
	s->cr3 = TABLES_AT;
	s->cr4 = CR4_PSE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE |
		(i->mode == PAE || wide ? CR4_PAE : 0) | (chance(r, 50) ? CR4_FSGSBASE : 0) |
		(chance(r, 15) ? CR4_SMAP : 0) | (chance(r, 10) ? CR4_SMEP : 0) |
		(wide && chance(r, 30) ? CR4_PCIDE : 0) | (chance(r, 10) ? CR4_UMIP : 0);
	s->efer = EFER_SCE | EFER_NX | (wide ? EFER_LME | EFER_LMA : 0);
}

void image_regs(struct image *i, struct kvm_regs *k)
{
	struct random *r = i->r;
	bool real = i->mode == REAL || i->mode == V86;
	u64 *regs = (u64 *)k;
	unsigned int n;

	for (n = 0; n < 16; n++)
		regs[n] = hostile_value(r, &i->places);
	k->rsp = real ? rnd(r) & 0xffff : chance(r, 80) ?
		i->places.page[below(r, i->places.n)] + below(r, 4096) : k->rsp;
	k->rip = (real ? 0 : CODE_AT) + below(r, CODE_SIZE);
	if (chance(r, 3))
		k->rip = hostile_value(r, &i->places);
	k->rflags = 2 | (rnd(r) & (RFLAGS_ARITH | RFLAGS_IOPL));
	if (chance(r, 40))
		k->rflags |= rnd(r) & (RFLAGS_DF | RFLAGS_AC | RFLAGS_NT | RFLAGS_ID | RFLAGS_RF);
	if (chance(r, 4))
		k->rflags |= RFLAGS_TF;
	if (i->mode == V86)
		k->rflags |= RFLAGS_VM;
}

/* Everything unmasked, full registers, odd rounding. */
void image_fpu(struct image *i, struct kvm_fpu *f)
{
	struct random *r = i->r;
	u8 *p = (u8 *)f->xmm;
	size_t n;

	memset(f, 0, sizeof(*f));
	for (n = 0; n < sizeof(f->xmm); n++)
		p[n] = (u8)rnd(r);
	for (n = 0; n < sizeof(f->fpr); n++)
		((u8 *)f->fpr)[n] = (u8)rnd(r);
	f->ftwx = (u8)rnd(r);
	f->fcw = chance(r, 50) ? 0x37f : rnd(r) & 0xf7f;
	f->fsw = chance(r, 70) ? 0 : (u16)rnd(r);
	f->mxcsr = chance(r, 50) ? 0x1f80 : rnd(r) & 0xffff;
}
