/*
 * Hostile code: mostly valid instructions made from the opcode table, whose operands are addresses
 * and values that an attacker would choose; instructions with implicit operands; wild jumps; stack
 * games; and now and then plain random bytes.
 */
#include <string.h>

#include "hypervisor/insn/opcode.h"
#include "tests/hostile/gen.h"

static u32 rows[8192];
static unsigned int n_rows;

void gen_setup(void)
{
	for (u32 k = 0; k < opcode_rows() && n_rows < ARRAY_SIZE(rows); k++)
		if (opcode_row(k))
			rows[n_rows++] = k;
}

/* ---- values -------------------------------------------------------------------------------- */

static u64 edge(struct random *r)
{
	static const s16 near[] = { 0, -1, -2, -3, -4, -7, -8, -9, -15, -16, -17, -31, -32, -33,
		-64, 1, 2, 4, 8, 16 };

	return (u64)(s64)near[below(r, ARRAY_SIZE(near))];
}

u64 hostile_value(struct random *r, const struct places *p)
{
	static const u64 borders[] = { 0, 1ULL << 31, 1ULL << 32, 1ULL << 47, ~0xfffULL,
		0xffff800000000000, 1ULL << 63, 0xfee00000, ROM_GPA, SPARE_GPA, RAM_AT, 0xffffffff,
		0xfff, 0x100000 };

	switch (below(r, 10)) {
	case 0:
		return host_address(r);
	case 1:
		return borders[below(r, ARRAY_SIZE(borders))] + edge(r);
	case 2:
		return rnd(r);
	case 3:
		return below(r, 256);
	case 4:
		/* The same TLB entry as a page that is there; the same low half. */
		return p->page[below(r, p->n)] + ((u64)below(r, 64) << (chance(r, 50) ? 24 : 32)) +
			below(r, 4096);
	case 5:
		return p->code + below(r, p->code_size);
	case 6:
		return p->page[below(r, p->n)] + edge(r);
	default:
		return p->page[below(r, p->n)] + (below(r, 4096) & ~(u64)(chance(r, 50) ? 15 : 0));
	}
}

/* ---- bytes --------------------------------------------------------------------------------- */

static void put8(struct code *c, u64 b)
{
	if (c->len < c->size)
		c->p[c->len++] = (u8)b;
}

static void put(struct code *c, u64 val, unsigned int n)
{
	for (; n--; val >>= 8)
		put8(c, val);
}

#define PUT(c, ...) put_bytes((c), (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))
static void put_bytes(struct code *c, const u8 *p, unsigned int n)
{
	while (n--)
		put8(c, *p++);
}

static void put_disp(struct code *c, unsigned int n)
{
	static const u32 disps[] = { 0, 1, 0xfff, 0x1000, 0x7fffffff, 0x80000000, 0xffffffff,
		0xfffff000, 0x10000 };
	struct random *r = c->r;

	put(c, chance(r, 40) ? disps[below(r, ARRAY_SIZE(disps))] : chance(r, 50) ? below(r, 64) :
		(u32)hostile_value(r, c->places), n);
}

static void put_prefixes(struct code *c)
{
	static const u8 segs[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x64, 0x65 };
	struct random *r = c->r;

	if (chance(r, 12))
		put8(c, segs[below(r, sizeof(segs))]);
	if (chance(r, 8))
		put8(c, 0x66);
	if (chance(r, 8))
		put8(c, 0x67);
	if (chance(r, 4))
		put8(c, chance(r, 50) ? 0xf2 : 0xf3);
	if (chance(r, 4))
		put8(c, 0xf0);
}

static void put_modrm16(struct code *c, unsigned int mod, unsigned int reg, unsigned int rm)
{
	put8(c, mod << 6 | reg << 3 | rm);
	if (mod == 1)
		put_disp(c, 1);
	else if (mod == 2 || (mod == 0 && rm == 6))
		put_disp(c, 2);
}

static void put_modrm(struct code *c, const struct opcode_where *w)
{
	struct random *r = c->r;
	unsigned int mod = w->mod == 3 ? 3 : w->mod == 0 || chance(r, 75) ? below(r, 3) : 3;
	unsigned int reg = w->ext >= 0 ? (u8)w->ext : below(r, 8);
	unsigned int rm = w->rm >= 0 ? (u8)w->rm : below(r, 8), sib;

	if (mod == 3) {
		put8(c, 0xc0 | reg << 3 | rm);
		return;
	}
	if (c->bits == 16) {
		put_modrm16(c, mod, reg, rm);
		return;
	}
	put8(c, mod << 6 | reg << 3 | rm);
	sib = (u8)rnd(r);
	if (rm == 4)
		put8(c, sib);
	if (mod == 1)
		put_disp(c, 1);
	else if (mod == 2 || (mod == 0 && (rm == 5 || (rm == 4 && (sib & 7) == 5))))
		put_disp(c, 4);
}

static bool has_modrm(const struct opcode *row, const struct opcode_where *w)
{
	for (unsigned int k = 0; k < 4; k++) {
		u8 place = operand_info[row->op[k]].place;

		if (row->op[k] && place >= PL_REG && place <= PL_VSIB)
			return true;
	}
	return w->ext >= 0 || w->rm >= 0;
}

static void put_rel(struct code *c, unsigned int n)
{
	struct random *r = c->r;

	if (n == 1)
		put8(c, below(r, 100) - 50);
	else
		put(c, chance(r, 92) ? below(r, c->places->code_size) - c->places->code_size / 2 :
			rnd(r), n);
}

static unsigned int imm_bytes(const struct code *c, u8 size)
{
	switch (size) {
	case SZ_B: return 1;
	case SZ_W: return 2;
	case SZ_V: case SZ_Z: return c->bits == 16 ? 2 : 4;
	default: return 0;
	}
}

static void put_immediates(struct code *c, const struct opcode *row)
{
	for (unsigned int k = 0; k < 4; k++) {
		const struct operand_info *o = &operand_info[row->op[k]];

		if (o->place == PL_IMM || o->place == PL_IMMU)
			put(c, chance(c->r, 50) ? hostile_value(c->r, c->places) : rnd(c->r),
				imm_bytes(c, o->size));
		else if (o->place == PL_IMM2 || o->place == PL_IS4)
			put8(c, rnd(c->r));
		else if (o->place == PL_REL)
			put_rel(c, o->size == SZ_B ? 1 : c->bits == 16 ? 2 : 4);
		else if (o->place == PL_FAR)
			put(c, hostile_value(c->r, c->places), c->bits == 16 ? 2 : 4);
		else if (o->place == PL_MOFFS)
			put(c, hostile_value(c->r, c->places), c->bits / 8);
		if (o->place == PL_FAR)
			put(c, below(c->r, 16) * 8 + below(c->r, 4), 2);
	}
}

static bool has_place(const struct opcode *row, enum operand_place place)
{
	for (unsigned int k = 0; k < 4; k++)
		if (row->op[k] && operand_info[row->op[k]].place == place)
			return true;
	return false;
}

static const u8 pp[] = { [OPC_NP] = 0, [OPC_66] = 1, [OPC_F3] = 2, [OPC_F2] = 3 };

static void put_vex(struct code *c, const struct opcode_where *w, const struct opcode *row)
{
	struct random *r = c->r;
	unsigned int wbit = w->w >= 0 ? (u8)w->w : row->attr & ATTR_W1 ? 1 : row->attr & ATTR_W0 ? 0 : below(r, 2);
	unsigned int l = row->attr & ATTR_L1 ? 1 : row->attr & ATTR_L0 ? 0 : below(r, 2);
	unsigned int high = c->bits == 64 ? below(r, 8) : 7, vvvv = chance(r, 40) ? 15 :
		below(r, 16);

	if (has_place(row, PL_VVVV))
		vvvv = below(r, 16);
	put8(c, 0xc4);
	put8(c, high << 5 | (w->map - MAP_VEX1 + 1u));
	put8(c, wbit << 7 | vvvv << 3 | l << 2 | pp[w->pfx]);
}

/* Any mask, length, broadcast; mostly where they may be. */
static void put_evex(struct code *c, const struct opcode_where *w, const struct opcode *row)
{
	struct random *r = c->r;
	unsigned int high = c->bits == 64 ? below(r, 16) : 13 | below(r, 4);
	unsigned int k = row->evex & EV_NOK || chance(r, 40) ? 0 : below(r, 8);
	unsigned int b = row->evex & (EV_BCAST | EV_RC | EV_SAE) && chance(r, 40);
	unsigned int vvvv = has_place(row, PL_VVVV) ? below(r, 32) : 31;

	if (c->bits != 64)
		vvvv |= 16;
	if (row->evex & EV_KREQ)
		k = 1 + below(r, 7);
	put8(c, 0x62);
	put8(c, high << 4 | (w->map - MAP_EVEX1 + 1u));
	put8(c, (u8)w->w << 7 | (vvvv & 15) << 3 | 4 | pp[w->pfx]);
	put8(c, (k && chance(r, 40)) << 7 | below(r, 3) << 5 | b << 4 | vvvv >> 4 << 3 | k);
}

static void put_legacy(struct code *c, const struct opcode_where *w)
{
	static const u8 prefix[] = { [OPC_66] = 0x66, [OPC_F3] = 0xf3, [OPC_F2] = 0xf2 };

	if (w->pfx != OPC_NP)
		put8(c, prefix[w->pfx]);
	if (c->bits == 64 && chance(c->r, 60))
		put8(c, 0x40 | below(c->r, 16));
	if (w->map != MAP_1)
		put8(c, 0x0f);
	if (w->map == MAP_0F38)
		put8(c, 0x38);
	if (w->map == MAP_0F3A)
		put8(c, 0x3a);
}

static void put_row(struct code *c)
{
	u32 index = rows[below(c->r, n_rows)];
	const struct opcode *row = opcode_row(index);
	struct opcode_where w;

	if (!opcode_where(index, &w))
		return;
	/* Those that end the run at once are rare enough without being drawn. */
	if (!strcmp(row->name, "hlt") && chance(c->r, 95))
		return;
	put_prefixes(c);
	if (w.map >= MAP_EVEX1)
		put_evex(c, &w, row);
	else if (w.map >= MAP_VEX1)
		put_vex(c, &w, row);
	else
		put_legacy(c, &w);
	put8(c, w.opcode);
	if (has_modrm(row, &w))
		put_modrm(c, &w);
	put_immediates(c, row);
}

/* ---- what the table does not say ----------------------------------------------------------- */

/*
 * Instructions with implicit memory operands or an effect on the thread that runs them; on some
 * hosts they exist though no row knows them, so a translator that copied the unknown would run
 * them.
 */
static const u8 dangerous[][12] = {
	/* length, bytes */
	{ 3, 0x0f, 0x01, 0xfc },			/* clzero */
	{ 4, 0x66, 0x0f, 0xf7, 0xc1 },			/* maskmovdqu %xmm1, %xmm0 */
	{ 5, 0x67, 0x66, 0x0f, 0xf7, 0xc1 },
	{ 3, 0x0f, 0xf7, 0xc1 },			/* maskmovq */
	{ 4, 0x65, 0x0f, 0xf7, 0xc1 },
	{ 4, 0xc5, 0xf9, 0xf7, 0xc1 },			/* vmaskmovdqu */
	{ 5, 0x66, 0x0f, 0x38, 0xf8, 0x03 },		/* movdir64b */
	{ 5, 0xf2, 0x0f, 0x38, 0xf8, 0x03 },		/* enqcmd */
	{ 5, 0xf3, 0x0f, 0x38, 0xf8, 0x03 },		/* enqcmds */
	{ 4, 0x0f, 0x38, 0xf9, 0x03 },			/* movdiri */
	{ 4, 0x0f, 0x38, 0xf6, 0x03 },			/* wrss */
	{ 5, 0x66, 0x0f, 0x38, 0xf5, 0x03 },		/* wruss */
	{ 4, 0xf3, 0x0f, 0xae, 0xe8 },			/* incssp */
	{ 4, 0xf3, 0x0f, 0x01, 0x28 },			/* rstorssp */
	{ 4, 0xf3, 0x0f, 0x1e, 0xc8 },			/* rdssp */
	{ 4, 0xf3, 0x0f, 0xae, 0xd8 },			/* wrgsbase */
	{ 4, 0xf3, 0x0f, 0xae, 0xd0 },			/* wrfsbase */
	{ 4, 0xf3, 0x0f, 0xae, 0xc8 },			/* rdgsbase */
	{ 4, 0xf3, 0x0f, 0xae, 0xf0 },			/* umonitor */
	{ 4, 0xf2, 0x0f, 0xae, 0xf0 },			/* umwait */
	{ 4, 0x66, 0x0f, 0xae, 0xf0 },			/* tpause */
	{ 4, 0xf3, 0x0f, 0xae, 0x20 },			/* ptwrite */
	{ 3, 0x0f, 0x01, 0xef },			/* wrpkru */
	{ 3, 0x0f, 0x01, 0xee },			/* rdpkru */
	{ 3, 0x0f, 0x01, 0xd0 },			/* xgetbv */
	{ 3, 0x0f, 0x01, 0xd1 },			/* xsetbv */
	{ 3, 0x0f, 0x01, 0xd5 },			/* xend */
	{ 3, 0x0f, 0x01, 0xd6 },			/* xtest */
	{ 6, 0xc7, 0xf8, 0x10, 0, 0, 0 },		/* xbegin */
	{ 3, 0xc6, 0xf8, 0x01 },			/* xabort */
	{ 3, 0x0f, 0x01, 0xd7 },			/* enclu */
	{ 3, 0x0f, 0x01, 0xcf },			/* encls */
	{ 3, 0x0f, 0x01, 0xc1 },			/* vmcall */
	{ 3, 0x0f, 0x01, 0xd9 },			/* vmmcall */
	{ 3, 0x0f, 0x01, 0xfa },			/* monitorx */
	{ 3, 0x0f, 0x01, 0xfb },			/* mwaitx */
	{ 3, 0x0f, 0x01, 0xfd },			/* rdpru */
	{ 3, 0x0f, 0x01, 0xfe },			/* invlpgb */
	{ 4, 0xf3, 0x0f, 0x01, 0xff },			/* psmash */
	{ 2, 0x0f, 0x05 },				/* syscall */
	{ 2, 0x0f, 0x34 },				/* sysenter */
	{ 2, 0xcd, 0x80 },				/* int $0x80 */
	{ 1, 0xcc }, { 1, 0xf1 }, { 1, 0xce },		/* int3, int1, into */
	{ 2, 0x0f, 0xa2 },				/* cpuid */
	{ 2, 0x0f, 0x31 }, { 3, 0x0f, 0x01, 0xf9 },	/* rdtsc, rdtscp */
	{ 2, 0x0f, 0x33 },				/* rdpmc */
	{ 2, 0x8e, 0xe8 }, { 2, 0x8e, 0xe0 },		/* mov %eax, %gs; %fs */
	{ 2, 0x8e, 0xd0 }, { 2, 0x8e, 0xd8 },		/* ... %ss; %ds */
	{ 2, 0x8c, 0xe8 },				/* mov %gs, %eax */
	{ 3, 0x0f, 0x02, 0xc0 }, { 3, 0x0f, 0x03, 0xc0 }, /* lar, lsl */
	{ 3, 0x0f, 0x00, 0xc8 }, { 3, 0x0f, 0x00, 0xc0 }, /* str, sldt */
	{ 3, 0x0f, 0x01, 0xe0 }, { 3, 0x0f, 0x01, 0x03 }, /* smsw, sgdt */
	{ 3, 0x0f, 0x00, 0xe3 }, { 3, 0x0f, 0x00, 0xeb }, /* verr, verw */
	{ 1, 0xd7 }, { 2, 0x65, 0xd7 },			/* xlat */
	{ 3, 0xf3, 0x48, 0xa4 }, { 3, 0xf3, 0x48, 0xab }, /* rep movsb, stosq */
	{ 2, 0xf3, 0xa6 }, { 2, 0xf2, 0xae },
	{ 4, 0x67, 0xf3, 0x65, 0xa4 }, { 3, 0xf3, 0x64, 0xa5 },
	{ 3, 0x0f, 0x18, 0x03 }, { 3, 0x0f, 0x0d, 0x0b }, /* prefetch */
	{ 3, 0x0f, 0xae, 0x3b }, { 4, 0x66, 0x0f, 0xae, 0x3b }, /* clflush, clflushopt */
	{ 4, 0x65, 0x0f, 0x1f, 0x03 }, { 3, 0x0f, 0x1c, 0x03 }, /* nop with gs; cldemote */
	{ 3, 0x0f, 0xae, 0x23 }, { 3, 0x0f, 0xae, 0x2b }, /* xsave, xrstor */
	{ 3, 0x0f, 0xc7, 0x23 }, { 3, 0x0f, 0xae, 0x03 }, /* xsavec, fxsave */
	{ 3, 0x0f, 0xae, 0x0b }, { 3, 0x0f, 0xae, 0x13 }, /* fxrstor, ldmxcsr */
	{ 3, 0x65, 0x8b, 0x00 }, { 3, 0x65, 0x89, 0x00 }, /* mov %gs:(%rax) */
	{ 4, 0x65, 0x48, 0x89, 0x20 }, { 5, 0x64, 0x48, 0x8b, 0x04, 0x24 },
	{ 1, 0xfd }, { 1, 0xfc }, { 1, 0x9d }, { 1, 0x9c }, /* std, cld, popf, pushf */
	{ 3, 0x0f, 0x01, 0xcb }, { 3, 0x0f, 0x01, 0xca }, /* stac, clac */
	{ 2, 0xd9, 0x2b }, { 2, 0xdd, 0x23 }, { 2, 0xdf, 0x3b }, /* fldcw, frstor, fistp */
	{ 2, 0x0f, 0x77 }, { 2, 0xdb, 0xe3 },		/* emms, fninit */
	{ 5, 0xc8, 0xff, 0xff, 0x1f, 0xc9 },		/* enter $0xffff, $31; leave */
	{ 6, 0x62, 0xf1, 0x7c, 0x48, 0x11, 0x03 },	/* vmovups %zmm0, (%rbx) */
	{ 5, 0x8f, 0xe9, 0x78, 0x12, 0xc0 },		/* llwpcb */
	{ 4, 0xc5, 0xf8, 0xae, 0x13 },			/* vldmxcsr */
	{ 2, 0xe6, 0x80 }, { 2, 0xe4, 0x80 }, { 1, 0xec }, { 2, 0xf3, 0x6c },
	{ 3, 0x0f, 0xc7, 0xf8 }, { 4, 0xf3, 0x0f, 0xc7, 0xf8 }, /* rdseed, rdpid */
	{ 4, 0x0f, 0x01, 0x3b, 0x90 }, { 5, 0x66, 0x0f, 0x38, 0x82, 0x03 }, /* invlpg, invpcid */
	{ 3, 0x0f, 0x20, 0xd8 }, { 3, 0x0f, 0x22, 0xd8 }, /* mov %cr3 */
};

static void put_dangerous(struct code *c)
{
	const u8 *d = dangerous[below(c->r, ARRAY_SIZE(dangerous))];

	put_bytes(c, d + 1, d[0]);
}

/* mov $val, %reg, of 32 bits */
static void put_load32(struct code *c, unsigned int reg, u32 val)
{
	if (c->bits == 16)
		put8(c, 0x66);
	put8(c, 0xb8 | reg);
	put(c, val, 4);
}

/* A register where there may be one, or a leaf of CPUID, and all that is written there is hostile. */
static void put_msr(struct code *c)
{
	static const struct { u32 first, n; } ranges[] = {
		{ 0, 0x2000 }, { 0x10, 0x40 }, { 0x180, 0x100 }, { 0x480, 32 }, { 0x600, 0x200 },
		{ 0x800, 0x40 }, { 0x40000000, 0x200 }, { 0x4b564d00, 16 }, { 0xc0000080, 8 },
		{ 0xc0000100, 8 }, { 0xc0010000, 0x200 },
	};
	struct random *r = c->r;
	u32 k = below(r, ARRAY_SIZE(ranges)), index = ranges[k].first + below(r, ranges[k].n);

	if (chance(r, 15)) {
		put_load32(c, 0, index & 0xc000003f);
		put_load32(c, 1, below(r, 64));
		PUT(c, 0x0f, 0xa2);
		return;
	}
	put_load32(c, 1, index);
	if (chance(r, 40)) {
		PUT(c, 0x0f, 0x32);
		return;
	}
	put_load32(c, 0, (u32)hostile_value(r, c->places));
	put_load32(c, 2, chance(r, 60) ? 0 : (u32)hostile_value(r, c->places));
	PUT(c, 0x0f, 0x30);
}

/* mov $val, %reg */
static void put_load(struct code *c)
{
	unsigned int reg = below(c->r, c->bits == 64 ? 16 : 8);
	u64 val = hostile_value(c->r, c->places);

	if (c->bits == 64) {
		PUT(c, 0x48 | reg >> 3, 0xb8 | (reg & 7));
		put(c, val, 8);
	} else {
		put8(c, 0xb8 | reg);
		put(c, val, c->bits / 8);
	}
}

/* Gathers read where a vector says, scatters write there. */
static void put_gather(struct code *c)
{
	if (chance(c->r, 50)) {
		PUT(c, 0x62, c->bits == 64 ? 2 | below(c->r, 16) << 4 : 0xf2,
			0x7d | below(c->r, 2) << 7, (c->bits == 64 ? below(c->r, 2) : 1) << 3 |
			below(c->r, 3) << 5 | (1 + below(c->r, 7)),
			(chance(c->r, 50) ? 0x90 : 0xa0) | below(c->r, 4),
			0x04 | below(c->r, 8) << 3, (u8)rnd(c->r));
		put(c, 0, 4);
		return;
	}
	PUT(c, 0xc4, c->bits == 64 ? 0xa2 | below(c->r, 8) << 5 : 0xe2,
		0x69 | below(c->r, 2) << 7 | below(c->r, 2) << 2, 0x90 | below(c->r, 4));
	PUT(c, 0x04 | below(c->r, 8) << 3, (u8)rnd(c->r));
	put(c, 0, 4);
}

/* Games with the stack pointer, and what follows it. */
static void put_stack(struct code *c)
{
	static const u8 uses[] = { 0x50, 0x53, 0x58, 0x5c, 0x54, 0x9c, 0x9d, 0xc9, 0xc3, 0x6a };
	struct random *r = c->r;

	switch (below(r, 6)) {
	case 0:		/* mov $val, %rsp */
		if (c->bits == 64)
			PUT(c, 0x48, 0xbc);
		else
			put8(c, 0xbc);
		put(c, hostile_value(r, c->places), c->bits / 8);
		break;
	case 1:		/* xchg %rax, %rsp */
		if (c->bits == 64)
			put8(c, 0x48);
		put8(c, 0x94);
		break;
	case 2:		/* lea disp8(%rsp), %rsp */
		if (c->bits == 64)
			put8(c, 0x48);
		PUT(c, 0x8d, 0x64, 0x24, (u8)rnd(r));
		break;
	case 3:		/* and $-16 .., or $0xfff, %rsp */
		if (c->bits == 64)
			put8(c, 0x48);
		PUT(c, 0x83, chance(r, 50) ? 0xe4 : 0xcc, (u8)rnd(r));
		break;
	case 4:		/* 16-bit pushes make it odd */
		PUT(c, 0x66, chance(r, 50) ? 0x50 : 0x5b);
		break;
	}
	for (unsigned int k = below(r, 4); k--;)
		put8(c, uses[below(r, sizeof(uses))]);
}

/* jmp, call, ret to wherever a register or memory says. */
static void put_jump(struct code *c)
{
	struct random *r = c->r;

	if (chance(r, 50))
		put_load(c);
	if (c->bits == 64 && chance(r, 30))
		put8(c, 0x41);
	if (chance(r, 20)) {
		put8(c, chance(r, 50) ? 0xc3 : 0xcb);
		return;
	}
	PUT(c, 0xff, (chance(r, 70) ? 0xc0 : 0) | (chance(r, 50) ? 0x10 : 0x20) | below(r, 4));
}

/* mov $val, %reg, val in or near a page that is there, most often near its end. */
static void put_near(struct code *c, unsigned int reg)
{
	struct random *r = c->r;
	const struct places *p = c->places;
	u64 page = p->n_edges && chance(r, 60) ? p->edge[below(r, p->n_edges)] :
		p->page[below(r, p->n)];
	u64 val = page + (chance(r, 60) ? 0x1000 - below(r, 64) : below(r, 0x1000));

	if (c->bits == 64)
		PUT(c, 0x48 | reg >> 3, 0xb8 | (reg & 7));
	else
		put8(c, 0xb8 | reg);
	put(c, val, c->bits / 8);
}

/* op reg, disp(%base) or back; with a register for the base that needs no SIB. */
static void put_access(struct code *c, unsigned int base)
{
	static const u8 ops[] = { 0x8b, 0x89, 0x03, 0x01, 0x3b, 0x87, 0x8a, 0x88, 0x63, 0x31, 0x85 };
	struct random *r = c->r;
	s32 disp = (s32)below(r, 256) - 128;

	if (chance(r, 10))
		disp = (s32)below(r, 0x3000) - 0x1800;
	if (chance(r, 20))
		PUT(c, 0x0f, chance(r, 50) ? 0x10 : 0x11);	/* movups */
	else if (chance(r, 15))
		put8(c, chance(r, 50) ? 0xdd : 0xd9);		/* x87, /0 to /7 by the register */
	else {
		if (c->bits == 64 && chance(r, 70))
			put8(c, 0x48);
		put8(c, ops[below(r, sizeof(ops))]);
	}
	if (chance(r, 20))
		PUT(c, 0x84 | below(r, 8) << 3, (below(r, 256) & 0xf8) | base);	/* with an index */
	else
		put8(c, 0x80 | below(r, 8) << 3 | base);
	put(c, (u32)disp, 4);
}

/* What may change the base: in ways that are easy to overlook, too. */
static void put_change(struct code *c, unsigned int base)
{
	struct random *r = c->r;
	unsigned int other = below(r, 8);
	bool wide = c->bits == 64;

	if (wide && chance(r, 80))
		put8(c, 0x48);
	switch (below(r, 16)) {
	case 0: PUT(c, 0x83, 0xc0 | base, (u8)rnd(r)); break;			/* add */
	case 1: PUT(c, 0x83, 0xe8 | base, (u8)rnd(r)); break;			/* sub */
	case 2: PUT(c, 0x8d, 0x40 | base << 3 | base, (u8)rnd(r)); break;	/* lea */
	case 3: PUT(c, 0x87, 0xc0 | base << 3 | other); break;			/* xchg */
	case 4: PUT(c, 0x0f, 0xc1, 0xc0 | base << 3 | other); break;		/* xadd */
	case 5: PUT(c, 0x0f, 0xb1, 0xc0 | other << 3 | base); break;		/* cmpxchg */
	case 6: PUT(c, 0x66, 0x0f, 0x3a, 0x63, 0xc1, 0x08); break;		/* pcmpistri: rcx */
	case 7: PUT(c, 0x66, 0x0f, 0x3a, 0x61, 0xc1, 0x08); break;		/* pcmpestri */
	case 8: PUT(c, 0xc4, 0xe2, 0xfb, 0xf6, 0xc0 | base << 3 | other); break; /* mulx */
	case 9: put8(c, 0x99); break;						/* cqo: rdx */
	case 10: PUT(c, 0xf7, 0xe0 | other); break;				/* mul */
	case 11: PUT(c, 0x58 | base, 0x50 | base); break;			/* pop, push */
	case 12: PUT(c, 0xb0 | base, (u8)rnd(r)); break;			/* a byte of it */
	case 13: PUT(c, 0x0f, 0xc8 | base); break;				/* bswap */
	case 14: PUT(c, 0x66, 0xb8 | base, (u8)rnd(r), (u8)rnd(r)); break;	/* 16 bits */
	case 15: PUT(c, 0x0f, 0x40 | below(r, 16), 0xc0 | base << 3 | other); break; /* cmov */
	}
}

/* The same address, or one near it, in another register. */
static unsigned int put_copy(struct code *c, unsigned int base)
{
	static const u8 bases[] = { 0, 1, 2, 3, 5, 6, 7 };
	unsigned int to = bases[below(c->r, sizeof(bases))];

	if (c->bits == 64 && chance(c->r, 90))
		put8(c, 0x48);
	if (chance(c->r, 50))
		PUT(c, 0x89, 0xc0 | base << 3 | to);
	else
		PUT(c, 0x8d, 0x40 | to << 3 | base, (u8)rnd(c->r));
	return to;
}

static void put_accesses(struct code *c, unsigned int base)
{
	for (unsigned int n = 3 + below(c->r, 8); n--;) {
		put_access(c, base);
		if (chance(c->r, 25))
			put_change(c, base);
		if (chance(c->r, 10))
			base = put_copy(c, base);
	}
}

/* Accesses by one register, which a translator may check together; and again in a loop. */
static void put_cluster(struct code *c)
{
	static const u8 bases[] = { 0, 1, 2, 3, 6, 7 };
	unsigned int base = bases[below(c->r, sizeof(bases))], start;

	if (c->bits == 16)
		return;
	put_near(c, base);
	if (chance(c->r, 60)) {
		put_accesses(c, base);
		return;
	}
	PUT(c, 0xbd);				/* mov $n, %ebp */
	put(c, below(c->r, 60), 4);
	start = c->len;
	put_accesses(c, base);
	PUT(c, 0x83, 0xed, 1);			/* sub $1, %ebp */
	PUT(c, 0x0f, 0x85);			/* jnz */
	put(c, start - (c->len + 4), 4);
}

/* MOVS, STOS and the others between two pages, bit strings with any number. */
static void put_string(struct code *c)
{
	static const u8 ops[] = { 0xa4, 0xa5, 0xaa, 0xab, 0xa4, 0xa5, 0xaa, 0xab, 0xa6, 0xa7, 0xac, 0xae };
	struct random *r = c->r;
	unsigned int reg = below(r, 8);

	if (c->bits == 16)
		return;
	if (chance(r, 30)) {
		put_near(c, 3);
		put_load(c);
		if (c->bits == 64 && chance(r, 60))
			put8(c, 0x48);
		PUT(c, 0x0f, 0xa3 | below(r, 4) << 3, 0x03 | reg << 3);	/* bt .. btc (%rbx) */
		return;
	}
	put_near(c, 6);
	put_near(c, 7);
	PUT(c, 0xb9);
	put(c, chance(r, 70) ? below(r, 70) : chance(r, 70) ? below(r, 9000) : rnd(r), 4);
	if (chance(r, 15))
		put8(c, 0xfd);
	if (chance(r, 70))
		put8(c, 0xf3);
	if (c->bits == 64 && chance(r, 50))
		put8(c, 0x48);
	put8(c, ops[below(r, sizeof(ops))]);
	put8(c, 0xfc);
}

static void put_noise(struct code *c)
{
	for (unsigned int n = 1 + below(c->r, 6); n--;)
		put8(c, rnd(c->r));
}

void gen_code(struct code *c)
{
	while (c->len < c->size) {
		u32 what = below(c->r, 100);

		if (what < 44)
			put_row(c);
		else if (what < 53)
			put_cluster(c);
		else if (what < 59)
			put_string(c);
		else if (what < 70)
			put_load(c);
		else if (what < 80)
			put_dangerous(c);
		else if (what < 87)
			put_stack(c);
		else if (what < 92)
			put_jump(c);
		else if (what < 94)
			put_gather(c);
		else if (what < 96)
			put_msr(c);
		else
			put_noise(c);
	}
}
