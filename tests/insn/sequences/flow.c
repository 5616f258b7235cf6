/* Random programs with control flow (flow.h). */
#include <string.h>

#include "hypervisor/insn/exec.h"
#include "tests/insn/sequences/flow.h"

/* ---- rows ------------------------------------------------------------------------------------ */

static u32 integer_rows[2048];
static unsigned int n_integer;

static bool row_is_integer(const struct opcode *row)
{
	return !(row->attr & ATTR_NATIVE) && row->run != exec_x87 && row->run != exec_xsave &&
	       row->run != exec_xsavec && row->run != exec_xsaveopt && row->run != exec_xrstor &&
	       row->run != exec_fxsave && row->run != exec_fxrstor && row->run != exec_ud &&
	       row->run != exec_int3;
}

void flow_setup(void)
{
	for (unsigned int k = 0; k < gen_rows(); k++)
		if (row_is_integer(opcode_row(gen_row_at(k))) && n_integer < ARRAY_SIZE(integer_rows))
			integer_rows[n_integer++] = gen_row_at(k);
}

/* ---- encodings ------------------------------------------------------------------------------- */

void flow_bytes(struct flow *f, u64 bytes, unsigned int n, u32 row)
{
	u8 b[8];

	memcpy(b, &bytes, 8);
	gen_item(&f->g, b, n, row);
}

static unsigned int abs_bytes(const struct flow *f, u8 *b, u32 op, unsigned int n,
	unsigned int ext, u64 addr)
{
	u32 a = (u32)addr;
	unsigned int len = n;

	memcpy(b, &op, n);
	b[len++] = (u8)((f->g.bits == 64 ? 4 : 5) | (ext & 7) << 3);
	if (f->g.bits == 64)
		b[len++] = 0x25;
	memcpy(b + len, &a, 4);
	return len + 4;
}

void flow_abs(struct flow *f, u32 op, unsigned int n, unsigned int ext, u64 addr, u32 row)
{
	u8 b[16];

	gen_item(&f->g, b, abs_bytes(f, b, op, n, ext, addr), row);
}

void flow_store(struct flow *f, u64 addr, u32 val, u32 row)
{
	u8 b[16];
	unsigned int n = abs_bytes(f, b, 0xc7, 1, 0, addr);

	memcpy(b + n, &val, 4);
	gen_item(&f->g, b, n + 4, row);
}

void flow_mov(struct flow *f, unsigned int reg, u32 val, u32 row)
{
	u8 b[6] = { 0x41 };
	unsigned int n = reg >= 8;

	b[n] = (u8)(0xb8 | (reg & 7));
	memcpy(b + n + 1, &val, 4);
	gen_item(&f->g, b, n + 5, row);
}

void flow_patch_rel(struct flow *f, u8 *end)
{
	u32 rel = (u32)(f->g.p - end);

	memcpy(end - 4, &rel, 4);
	gen_forget(&f->g);
}

void flow_patch_abs(struct flow *f, u8 *end)
{
	u32 at = (u32)flow_here(f);

	memcpy(end - 4, &at, 4);
	gen_forget(&f->g);
}

/* A short one: where the target is too far it jumps to the next instruction. */
static void patch_short(struct flow *f, u8 *end)
{
	s64 rel = f->g.p - end;

	end[-1] = rel < 128 ? (u8)rel : 0;
	gen_forget(&f->g);
}

u64 flow_slot(struct flow *f, unsigned int bytes)
{
	u32 at = f->next_slot;

	f->next_slot += bytes;
	return AT_CONTROL + at;
}

static u32 below(struct flow *f, u32 n)
{
	return rnd_below(f->g.r, n);
}

static unsigned int any_reg(struct flow *f)
{
	unsigned int k;

	do
		k = below(f, f->g.bits == 64 ? 16 : 8);
	while (k == R_RSP);
	return k;
}

bool flow_full(const struct flow *f)
{
	const struct sequence *q = f->g.q;

	return !f->left || q->n + 6 * UNIT_ITEMS > SEQ_MAX ||
	       flow_here(f) + 6 * UNIT_BYTES > AREA_CODE + CODE_SIZE || f->next_slot > 4096 - 128;
}

/* ---- elements -------------------------------------------------------------------------------- */

void flow_unit(struct flow *f)
{
	bool integer = rnd_chance(f->g.r, f->theme->integer);
	u32 row = integer ? integer_rows[below(f, n_integer)]
			  : gen_row_at(below(f, gen_rows()));

	if (f->left)
		f->left--;
	gen_unit(&f->g, row);
}

static void some_units(struct flow *f, unsigned int max)
{
	for (unsigned int n = below(f, max + 1); n && !flow_full(f); n--)
		flow_unit(f);
}

/* Jcc over a few units; now and then with an alternative. */
static void element_if(struct flow *f)
{
	u8 cc = (u8)below(f, 16), *branch, *over;

	if (rnd_chance(f->g.r, 40)) {
		flow_bytes(f, 0x70 | cc, 2, ROW_FLOW);
		branch = f->g.p;
		some_units(f, 1);
		patch_short(f, branch);
		return;
	}
	flow_bytes(f, 0x0f | (0x80u | cc) << 8, 6, ROW_FLOW);
	branch = f->g.p;
	flow_body(f, 1 + below(f, 2));
	if (rnd_chance(f->g.r, 50)) {
		flow_patch_rel(f, branch);
		return;
	}
	flow_bytes(f, 0xe9, 5, ROW_FLOW);
	over = f->g.p;
	flow_patch_rel(f, branch);
	flow_body(f, 1);
	flow_patch_rel(f, over);
}

static void branch_back(struct flow *f, u8 short_op, u8 long_op, u64 to)
{
	s64 rel = (s64)(to - flow_here(f)) - 2;

	if (rel >= -128 && rnd_chance(f->g.r, 70)) {
		flow_bytes(f, short_op | (u64)(u8)rel << 8, 2, ROW_FIXED);
		return;
	}
	if (long_op != 0xe9)
		flow_bytes(f, 0x0f | (u64)long_op << 8 | (u64)(u32)(rel - 4) << 16, 6, ROW_FIXED);
	else
		flow_bytes(f, 0xe9 | (u64)(u32)(rel - 3) << 8, 5, ROW_FIXED);
}

/* dec or sub dword [slot]; jnz. Or through ECX, so that flags stay as they are: JECXZ, JMP. */
static void loop_end(struct flow *f, u64 slot, u64 to)
{
	u8 *out;

	switch (below(f, 4)) {
	case 0:
		flow_abs(f, 0x8b, 1, R_RCX, slot, ROW_FIXED);
		flow_bytes(f, 0xff498d, 3, ROW_FIXED);		/* lea ecx, [rcx - 1] */
		flow_abs(f, 0x89, 1, R_RCX, slot, ROW_FIXED);
		flow_bytes(f, 0xe3, 2, ROW_FIXED);
		out = f->g.p;
		branch_back(f, 0xeb, 0xe9, to);
		out[-1] = (u8)(f->g.p - out);
		break;
	case 1:
		flow_abs(f, 0xff, 1, 1, slot, ROW_FIXED);
		flow_bytes(f, 0x0074, 2, ROW_FIXED);
		out = f->g.p;
		branch_back(f, 0xeb, 0xe9, to);
		out[-1] = (u8)(f->g.p - out);
		break;
	default:
		flow_abs(f, 0xff, 1, 1, slot, ROW_FIXED);
		branch_back(f, 0x75, 0x85, to);
		break;
	}
	gen_forget(&f->g);
}

static void element_loop(struct flow *f)
{
	u64 slot = flow_slot(f, 4), top;

	flow_store(f, slot, 1 + below(f, f->depth > 1 ? 3 : 8), ROW_FIXED);
	top = flow_here(f);
	gen_forget(&f->g);
	flow_body(f, 1 + below(f, 3));
	loop_end(f, slot, top);
}

/* ---- loops that walk over memory ------------------------------------------------------------- */

/* [base + index * 2^scale + disp] with an opcode of n bytes behind mandatory prefix pfx. */
struct walk_insn {
	u8 pfx, op[2], n;
	bool wide;		/* REX.W in 64-bit mode */
};

static void walk_access(struct flow *f, const struct walk_insn *w, unsigned int reg,
	unsigned int base, unsigned int index, unsigned int scale, s32 disp)
{
	u8 b[16];
	unsigned int n = 0;

	if (w->pfx)
		b[n++] = w->pfx;
	if (f->g.bits == 64)
		b[n++] = (u8)(0x40 | (w->wide ? 8 : 0) | (reg >> 3) << 2 | (index >> 3) << 1 |
			base >> 3);
	memcpy(b + n, w->op, w->n);
	n += w->n;
	b[n++] = (u8)(0x84 | (reg & 7) << 3);
	b[n++] = (u8)(scale << 6 | (index & 7) << 3 | (base & 7));
	memcpy(b + n, &disp, 4);
	gen_item(&f->g, b, n + 4, ROW_FLOW);
}

static void walk_any(struct flow *f, const unsigned int *pointer)
{
	static const struct walk_insn kinds[] = {
		{ 0, { 0x8b }, 1, true }, { 0, { 0x8b }, 1, true }, { 0, { 0x89 }, 1, true },
		{ 0, { 0x89 }, 1, false }, { 0, { 0x03 }, 1, true }, { 0, { 0x01 }, 1, true },
		{ 0, { 0x3b }, 1, false }, { 0, { 0x88 }, 1, false }, { 0, { 0x0f, 0xb6 }, 2, false },
		{ 0, { 0x0f, 0x10 }, 2, false }, { 0, { 0x0f, 0x11 }, 2, false },
		{ 0xf3, { 0x0f, 0x6f }, 2, false }, { 0xf3, { 0x0f, 0x7f }, 2, false },
		{ 0x66, { 0x89 }, 1, false }, { 0, { 0x11 }, 1, true },
		{ 0x66, { 0x0f, 0x6f }, 2, false }, { 0, { 0x13 }, 1, true },
	};
	unsigned int reg = any_reg(f);

	/* Now and then a pointer is overwritten. */
	if (!rnd_chance(f->g.r, 5))
		while (reg == pointer[0] || reg == pointer[1] || reg == pointer[2])
			reg = any_reg(f);
	walk_access(f, &kinds[below(f, ARRAY_SIZE(kinds))], reg, pointer[below(f, 2)],
		rnd_chance(f->g.r, 30) ? pointer[2] : R_RSP, below(f, 4), (s32)below(f, 80) - 40);
}

/* add, sub, lea, inc, or add of the third register */
static void walk_step(struct flow *f, unsigned int reg, unsigned int by)
{
	u64 rex = f->g.bits == 64 ? 0x48u | reg >> 3 : 0;
	unsigned int skip = rex ? 0 : 8, n = rex ? 1 : 0;
	u64 imm = (u64)(u8)below(f, 256) << 16 | (u64)(rnd_chance(f->g.r, 20) ? 1 : 0) << 24;

	switch (below(f, 4)) {
	case 0:
		flow_bytes(f, (rex | (0x81 | (0xc0u | (reg & 7)) << 8 | imm) << 8) >> skip, n + 6, ROW_FLOW);
		break;
	case 1:
		flow_bytes(f, (rex | (0x81 | (0xe8u | (reg & 7)) << 8 | imm) << 8) >> skip, n + 6, ROW_FLOW);
		break;
	case 2:
		flow_bytes(f, (rex | (0xff | (0xc0u | (reg & 7)) << 8) << 8) >> skip, n + 2, ROW_FLOW);
		break;
	default:
		rex |= rex ? (u64)(by >> 3) << 2 : 0;
		flow_bytes(f, (rex | (0x01 | (0xc0u | (by & 7) << 3 | (reg & 7)) << 8) << 8) >> skip, n + 2,
			ROW_FLOW);
		break;
	}
}

/* cmp, test, add, sub, and, xor of two registers, or of one and a byte */
static void walk_setter(struct flow *f, unsigned int dst, unsigned int src)
{
	static const u8 ops[] = { 0x39, 0x3b, 0x85, 0x01, 0x29, 0x2b, 0x21, 0x31, 0x38 };
	bool wide = f->g.bits == 64;
	u8 op = ops[below(f, ARRAY_SIZE(ops))], ext = below(f, 2) ? 7 : (u8)below(f, 8);
	u64 rex = wide ? 0x40u | (below(f, 2) ? 8 : 0) | (src >> 3) << 2 | dst >> 3 : 0;
	u64 bytes = op | (0xc0u | (src & 7) << 3 | (dst & 7)) << 8;
	unsigned int n = 2;

	if (rnd_chance(f->g.r, 30) && ext != 2 && ext != 3) {	/* not ADC, SBB */
		rex &= ~4ULL;
		bytes = 0x83 | (0xc0u | ext << 3 | (dst & 7)) << 8 | below(f, 256) << 16;
		n = 3;
	}
	flow_bytes(f, wide ? rex | bytes << 8 : bytes, n + wide, ROW_FIXED);
}

/* The counter ends the loop, or, seldom, what was just compared: reg with any other. */
static void walk_end(struct flow *f, u64 slot, u64 to, unsigned int reg)
{
	u8 *out, cc = rnd_chance(f->g.r, 70) ? 5 : (u8)below(f, 16);

	flow_abs(f, 0xff, 1, 1, slot, ROW_FIXED);
	flow_bytes(f, 0x840f, 6, ROW_FIXED);		/* jz out */
	out = f->g.p;
	walk_setter(f, reg, any_reg(f));
	if (rnd_chance(f->g.r, 20))
		flow_mov(f, reg, below(f, 100), ROW_FLOW);
	branch_back(f, 0x70 | cc, 0x80 | cc, to);
	flow_patch_rel(f, out);
	gen_forget(&f->g);
}

static unsigned int no_pointer(struct flow *f, const unsigned int *pointer)
{
	unsigned int reg;

	do
		reg = any_reg(f);
	while (reg == pointer[0] || reg == pointer[1] || reg == pointer[2]);
	return reg;
}

/* Flags that live across accesses: adc, adcx or adox of two registers, mulx of three. */
static void walk_carry(struct flow *f, const unsigned int *pointer)
{
	unsigned int reg = no_pointer(f, pointer), rm = no_pointer(f, pointer);
	unsigned int third = no_pointer(f, pointer);
	u64 modrm = 0xc0u | (reg & 7) << 3 | (rm & 7), rex = 0x48u | (reg >> 3) << 2 | rm >> 3;
	u64 pp = below(f, 2) ? 0x66 : 0xf3;

	switch (f->g.bits == 64 ? below(f, 3) : 3) {
	case 0:
		flow_bytes(f, pp | rex << 8 | 0xf6380fULL << 16 | modrm << 40, 6, ROW_FLOW);
		break;
	case 1:
		flow_bytes(f, 0xc4 | (0x42ULL | (u64)!(reg >> 3) << 7 | (u64)!(rm >> 3) << 5) << 8 |
			(0x83ULL | (~third & 15) << 3) << 16 | 0xf6ULL << 24 | modrm << 32, 5, ROW_FLOW);
		break;
	case 2:
		flow_bytes(f, rex | 0x11 << 8 | modrm << 16, 3, ROW_FLOW);
		break;
	default:
		flow_bytes(f, 0x11 | modrm << 8, 2, ROW_FLOW);
		break;
	}
}

static u32 walk_start(struct flow *f)
{
	static const u64 edges[] = { AREA_DATA + 0x1000, AREA_DATA + DATA_SIZE, AREA_DATA, AT_RO,
		AT_RO + 4096, AT_LAZY };
	u64 at = edges[rnd_chance(f->g.r, 70) ? 0 : below(f, ARRAY_SIZE(edges))];

	return (u32)(at + below(f, 4096) - 2048);
}

/* Divides by a register that counts down: at zero it faults, in some later turn. */
static void walk_divide(struct flow *f, unsigned int reg)
{
	u64 rex = f->g.bits == 64 ? 0x40u | reg >> 3 : 0;
	unsigned int skip = rex ? 0 : 8, n = rex ? 1 : 0;

	flow_mov(f, R_RDX, 0, ROW_FLOW);
	flow_bytes(f, (rex | (0xf7 | (0xf0u | (reg & 7)) << 8) << 8) >> skip, n + 2, ROW_FLOW);
	flow_bytes(f, 0xd285, 2, ROW_SKIPPED);	/* test edx, edx: DIV leaves no flags to speak of */
	flow_bytes(f, (rex | (0xff | (0xc8u | (reg & 7)) << 8) << 8) >> skip, n + 2, ROW_FLOW);
}

/*
 * A short loop that jumps back to its first instruction, with registers that step over pages: what
 * an engine keeps from one turn to the next must hold.
 */
static void element_walk(struct flow *f)
{
	u64 slot = flow_slot(f, 4), top;
	unsigned int pointer[3], compared = any_reg(f);
	bool carry = rnd_chance(f->g.r, 25), divide = rnd_chance(f->g.r, 8);

	for (unsigned int k = 0; k < 3; k++)
		pointer[k] = any_reg(f);
	flow_mov(f, pointer[0], walk_start(f), ROW_FIXED);
	flow_mov(f, pointer[1], walk_start(f), ROW_FIXED);
	flow_mov(f, pointer[2], below(f, 200), ROW_FIXED);
	flow_store(f, slot, 1 + below(f, 40), ROW_FIXED);
	if (divide)
		flow_mov(f, compared, 1 + below(f, 20), ROW_FLOW);
	top = flow_here(f);
	gen_forget(&f->g);
	if (rnd_chance(f->g.r, 20))
		flow_bytes(f, 0xc0440f | (u64)below(f, 16) << 8, 3, ROW_FLOW);	/* cmovcc eax, eax */
	if (!divide && rnd_chance(f->g.r, 30))
		flow_mov(f, compared, below(f, 100), ROW_FLOW);
	for (unsigned int n = 1 + below(f, rnd_chance(f->g.r, 10) ? 12 : 5); n; n--) {
		walk_any(f, pointer);
		if (carry)
			walk_carry(f, pointer);
		if (divide && n == 1)
			walk_divide(f, compared);
		if (rnd_chance(f->g.r, 40))
			walk_step(f, pointer[below(f, 3)], pointer[2]);
	}
	walk_step(f, pointer[below(f, 2)], pointer[2]);
	if (rnd_chance(f->g.r, 50))
		walk_end(f, slot, top, compared);
	else
		loop_end(f, slot, top);
}

static void flow_mov64(struct flow *f, unsigned int reg, u64 val)
{
	u8 b[10] = { (u8)(0x48 | reg >> 3), (u8)(0xb8 | (reg & 7)) };

	memcpy(b + 2, &val, 8);
	gen_item(&f->g, b, sizeof(b), ROW_FLOW);
}

/* The same with an index that comes around, as a signed number or shifted; 64-bit code. */
static void element_far(struct flow *f)
{
	static const struct walk_insn load = { 0, { 0x8b }, 1, true }, store = { 0, { 0x89 }, 1, true };
	static const u64 far[] = { 1ULL << 63, 1ULL << 62, 3ULL << 62, 1ULL << 61, 1ULL << 60, 0 };
	unsigned int base = any_reg(f), index = any_reg(f), scale = below(f, 4);
	u64 slot = flow_slot(f, 4), at = far[below(f, ARRAY_SIZE(far))] + below(f, 8) - 4, top;
	unsigned int step = (below(f, 2) ? 0xc0u : 0xe8u) | (index & 7);

	flow_mov64(f, index, at);
	flow_mov64(f, base, AREA_DATA + 0xff8 - 8 * below(f, 8) - (at << scale));
	flow_store(f, slot, 1 + below(f, 40), ROW_FIXED);
	top = flow_here(f);
	gen_forget(&f->g);
	walk_access(f, below(f, 2) ? &load : &store, any_reg(f), base, index, scale, 0);
	if (below(f, 2))
		flow_bytes(f, 0x48u | index >> 3 | 0xff00 | (u64)(step & ~0x20u) << 16, 3, ROW_FLOW);
	else
		flow_bytes(f, 0x48u | index >> 3 | 0x8300 | (u64)step << 16 | (u64)below(f, 128) << 24,
			4, ROW_FLOW);
	loop_end(f, slot, top);
}

/* One register as base and index of each access, which stays or steps. */
static void element_twice(struct flow *f)
{
	static const struct walk_insn kinds[] = {
		{ 0, { 0x8b }, 1, true }, { 0, { 0x89 }, 1, true }, { 0, { 0x01 }, 1, true },
		{ 0, { 0x88 }, 1, false },
	};
	unsigned int reg = any_reg(f), other, scale = below(f, 4);
	u64 slot = flow_slot(f, 4), top;

	flow_mov(f, reg, ((u32)AREA_DATA + 0x1000 + below(f, 0x1000)) / (1 + (1u << scale)), ROW_FIXED);
	flow_store(f, slot, 1 + below(f, 20), ROW_FIXED);
	top = flow_here(f);
	gen_forget(&f->g);
	for (unsigned int n = 2 + below(f, 3); n; n--) {
		while ((other = any_reg(f)) == reg)
			;
		walk_access(f, &kinds[below(f, ARRAY_SIZE(kinds))], other, reg, reg, scale,
			(s32)below(f, 80) - 40);
	}
	if (rnd_chance(f->g.r, 30))
		walk_step(f, reg, reg);
	loop_end(f, slot, top);
}

static u32 stack_top(struct flow *f)
{
	return (u32)AREA_DATA + 0x1000 + below(f, 0x200) * 8 + (rnd_chance(f->g.r, 3) ? 3 : 0);
}

/* call rel32, call reg, call [slot] */
static void emit_call(struct flow *f, u64 to)
{
	unsigned int reg = any_reg(f);
	u64 slot;

	switch (below(f, 3)) {
	case 0:
		flow_bytes(f, 0xe8 | (u64)(u32)(to - flow_here(f) - 5) << 8, 5, ROW_FLOW);
		break;
	case 1:
		flow_mov(f, reg, (u32)to, ROW_FIXED);
		if (reg >= 8)
			flow_bytes(f, 0x41 | 0xffu << 8 | (0xd0u | (reg & 7)) << 16, 3, ROW_FLOW);
		else
			flow_bytes(f, 0xff | (0xd0u | reg) << 8, 2, ROW_FLOW);
		break;
	default:
		slot = flow_slot(f, 8);
		memcpy((void *)slot, &to, f->g.bits / 8);
		flow_abs(f, 0xff, 1, 2, slot, ROW_FLOW);
		break;
	}
	gen_forget(&f->g);
}

static void element_call(struct flow *f)
{
	if (!f->n_functions)
		return;
	flow_mov(f, R_RSP, stack_top(f), ROW_FIXED);
	emit_call(f, f->function[below(f, f->n_functions)]);
}

/* The stack pointer as at the entry, then RET, RET n, or by hand. */
static void function_end(struct flow *f, u64 slot)
{
	flow_abs(f, 0x8b, 1, R_RSP, slot, ROW_FIXED);
	switch (below(f, 4)) {
	case 0:
		flow_bytes(f, 0xc2 | (u64)(below(f, 8) * 8) << 8, 3, ROW_FIXED);
		break;
	case 1:
		flow_bytes(f, 0xe1ff59, 3, ROW_FIXED);		/* pop rcx; jmp rcx */
		break;
	default:
		flow_bytes(f, 0xc3, 1, ROW_FIXED);
		break;
	}
}

void flow_functions(struct flow *f)
{
	unsigned int n = below(f, 3);
	u8 *over;

	if (!n)
		return;
	flow_bytes(f, 0xe9, 5, ROW_FIXED);
	over = f->g.p;
	f->depth++;
	for (unsigned int k = 0; k < n && !flow_full(f); k++) {
		u64 slot = flow_slot(f, 8), at;

		gen_forget(&f->g);
		at = flow_here(f);
		flow_abs(f, 0x89, 1, R_RSP, slot, ROW_FIXED);
		flow_body(f, 1 + below(f, 3));
		function_end(f, slot);
		/* Known to those that come later only: no recursion. */
		f->function[f->n_functions++] = at;
	}
	f->depth--;
	flow_patch_rel(f, over);
}

/* push label; ret: no call was before. */
static void element_push_ret(struct flow *f)
{
	u8 *at;

	flow_mov(f, R_RSP, stack_top(f), ROW_FIXED);
	flow_bytes(f, 0x68, 5, ROW_FIXED);
	at = f->g.p;
	flow_bytes(f, 0xc3, 1, ROW_FIXED);
	some_units(f, 1);
	flow_patch_abs(f, at);
}

/* call over; pop: the return never happens. */
static void element_call_pop(struct flow *f)
{
	u8 *at;

	flow_mov(f, R_RSP, stack_top(f), ROW_FIXED);
	flow_bytes(f, 0xe8, 5, ROW_FIXED);
	at = f->g.p;
	some_units(f, 1);
	flow_patch_rel(f, at);
	flow_bytes(f, 0x58 | any_reg(f) % 8, 1, ROW_FIXED);
}

static void element_jump_reg(struct flow *f)
{
	unsigned int reg = any_reg(f);
	u8 *at;

	flow_mov(f, reg, 0, ROW_FIXED);
	at = f->g.p;
	if (reg >= 8)
		flow_bytes(f, 0x41 | 0xffu << 8 | (0xe0u | (reg & 7)) << 16, 3, ROW_FIXED);
	else
		flow_bytes(f, 0xff | (0xe0u | reg) << 8, 2, ROW_FIXED);
	some_units(f, 1);
	flow_patch_abs(f, at);
}

/* and reg, 3; jmp [table + reg * size]: a switch with four cases. */
static void element_switch(struct flow *f)
{
	unsigned int size = f->g.bits / 8, reg = any_reg(f) % 8;
	u64 table = flow_slot(f, 4 * size);
	u8 *end[4];

	if (reg == R_RSP)
		reg = R_RDX;
	flow_bytes(f, 0x83 | (0xe0u | reg) << 8 | 3u << 16, 3, ROW_FIXED);
	flow_bytes(f, 0x24ff | (u64)(((size == 8 ? 3u : 2u) << 6) | reg << 3 | 5) << 16 |
		(u64)(u32)table << 24, 7, ROW_FIXED);
	for (unsigned int k = 0; k < 4; k++) {
		u64 at = flow_here(f);

		memcpy((void *)(table + k * size), &at, size);
		gen_forget(&f->g);
		some_units(f, 1);
		flow_bytes(f, 0xe9, 5, ROW_FIXED);
		end[k] = f->g.p;
	}
	for (unsigned int k = 0; k < 4; k++)
		flow_patch_rel(f, end[k]);
}

/* ---- code that changes code ------------------------------------------------------------------ */

/* A store of n bytes to a place that comes later; returns where the address goes. */
static u8 *emit_store_later(struct flow *f, unsigned int n, u32 val)
{
	u8 b[16];
	unsigned int len = n == 1 ? abs_bytes(f, b, 0xc6, 1, 0, 0) : abs_bytes(f, b, 0xc7, 1, 0, 0);
	unsigned int addr_end = len;

	memcpy(b + len, &val, n);
	gen_item(&f->g, b, len + n, ROW_FIXED);
	return f->g.p - (len + n) + addr_end;
}

static void put_addr(struct flow *f, u8 *end, const u8 *target)
{
	u32 at = (u32)((u64)target + (rnd_chance(f->g.r, 50) ? f->alias : 0));

	memcpy(end - 4, &at, 4);
}

/* The next instructions' immediate, or what one does (ADD, OR, ..., CMP by an immediate). */
static void element_smc(struct flow *f)
{
	unsigned int reg = any_reg(f) % 8, other = below(f, 8);
	bool imm = rnd_chance(f->g.r, 50);
	u8 *at = imm ? emit_store_later(f, 4, (u32)rnd(f->g.r))
		     : emit_store_later(f, 1, 0xc0 | other << 3 | reg);

	some_units(f, 2);
	if (imm) {
		flow_mov(f, reg, (u32)rnd(f->g.r), ROW_FIXED);
		put_addr(f, at, f->g.p - 4);
	} else {
		flow_bytes(f, 0x83 | (0xc0u | reg) << 8 | (u64)below(f, 128) << 16, 3, ROW_FIXED);
		put_addr(f, at, f->g.p - 2);
	}
	f->g.known[reg] = 0;
}

/* A loop that changes its own instruction in each turn: inc byte [imm]; add reg, imm. */
static void element_smc_loop(struct flow *f)
{
	u64 slot = flow_slot(f, 4), top;
	unsigned int reg = any_reg(f) % 8;
	u8 b[8], *at;

	flow_store(f, slot, 2 + below(f, 4), ROW_FIXED);
	top = flow_here(f);
	gen_forget(&f->g);
	some_units(f, 1);
	gen_item(&f->g, b, abs_bytes(f, b, 0xfe, 1, 0, 0), ROW_FIXED);
	at = f->g.p;
	some_units(f, 1);
	flow_bytes(f, 0x83 | (0xc0u | reg) << 8 | (u64)below(f, 128) << 16, 3, ROW_FIXED);
	put_addr(f, at, f->g.p - 1);
	loop_end(f, slot, top);
}

/* ---- programs -------------------------------------------------------------------------------- */

static void element_on_memory(struct flow *f)
{
	if (f->g.bits == 64 && rnd_chance(f->g.r, 15))
		element_far(f);
	else if (rnd_chance(f->g.r, 10))
		element_twice(f);
	else
		element_walk(f);
}

static void element(struct flow *f)
{
	static void (*const flat[])(struct flow *f) = {
		element_if, element_if, element_if, element_call, element_call, element_push_ret,
		element_call_pop, element_jump_reg, element_switch,
	};

	if (f->extra && rnd_chance(f->g.r, f->extra_chance)) {
		f->extra(f);
	} else if (rnd_chance(f->g.r, f->theme->smc)) {
		if (f->depth < 3 && rnd_chance(f->g.r, 40))
			element_smc_loop(f);
		else
			element_smc(f);
	} else if (rnd_chance(f->g.r, f->theme->control)) {
		if (f->depth < 3 && rnd_chance(f->g.r, 35))
			element_loop(f);
		else if (rnd_chance(f->g.r, f->theme->walk))
			element_on_memory(f);
		else
			flat[below(f, ARRAY_SIZE(flat))](f);
	} else {
		flow_unit(f);
	}
}

void flow_body(struct flow *f, unsigned int n)
{
	f->depth++;
	for (; n && !flow_full(f); n--)
		element(f);
	f->depth--;
}

static const struct flow_theme themes[] = {
	{ .integer = 100, .control = 25, .smc = 0, .walk = 10 },
	{ .integer = 95, .control = 40, .smc = 2, .walk = 40 },
	{ .integer = 90, .control = 25, .smc = 12, .walk = 10 },
	{ .integer = 50, .control = 15, .smc = 1, .walk = 20 },
	{ .integer = 10, .control = 10, .smc = 0 },
};

void flow_init(struct flow *f, struct sequence *q, struct random *r, unsigned int bits)
{
	memset(f, 0, sizeof(*f));
	f->g.r = r;
	f->g.q = q;
	f->g.bits = bits;
	f->g.reuse = true;
	f->theme = &themes[below(f, ARRAY_SIZE(themes))];
	f->left = 1 + below(f, 40);
}
