/*
 * Fuzz target of the decoder: whatever the bytes, it stays inside them, and what it says holds
 * together. The first byte chooses the code size. Built with libFuzzer where there is clang, else
 * behind main.c.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/insn/opcode.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define CHECK(c)                          \
	do {                              \
		if (!(c))                 \
			__builtin_trap(); \
	} while (0)

static bool insn_same(const struct insn *a, const struct insn *b)
{
	return a->exec == b->exec && a->imm == b->imm && a->imm2 == b->imm2 && a->disp == b->disp &&
	       a->len == b->len && a->reg == b->reg && a->rm == b->rm && a->vvvv == b->vvvv &&
	       a->base == b->base && a->index == b->index && a->scale == b->scale &&
	       a->seg == b->seg && a->opsize == b->opsize && a->asize == b->asize &&
	       a->row == b->row && a->flags == b->flags;
}

static bool has_vector_index(const struct insn *i)
{
	const struct opcode *row = opcode_row(i->row);

	for (unsigned int k = 0; k < ARRAY_SIZE(row->op); k++)
		if (row->op[k] && operand_info[row->op[k]].place == PL_VSIB)
			return i->flags & I_EVEX;
	return false;
}

/* Register operands stay inside v->r or their register file. */
static void check_registers(const struct insn *i)
{
	CHECK(i->base < R_TEMP && i->scale <= 3 && i->seg <= SEG_GS);
	CHECK(i->index < (has_vector_index(i) ? 32 : R_RIP));
	CHECK(i->reg < 16 * 8 && i->rm < 16 * 8 && i->vvvv < 16 * 8);
	CHECK(i->opsize == 1 || i->opsize == 2 || i->opsize == 4 || i->opsize == 8);
	CHECK(i->asize == 2 || i->asize == 4 || i->asize == 8);
}

static void check_row(const struct insn *i)
{
	const struct opcode *row = opcode_row(i->row);

	CHECK(row && i->exec);
	CHECK(!!(i->flags & I_BRANCH) == !!(row->attr & ATTR_BRANCH));
	CHECK(!(i->flags & I_LOCK) || i->flags & I_MEM || row->op[0] == OP_Cd ||
		row->op[1] == OP_Cd);
	CHECK(opcode_mem_size(row, i) <= 512 && opcode_feature(row, i) < NR_CPU_FEATURES);
	CHECK(!opcode_aligned(row, i) || opcode_mem_size(row, i) >= 16);
	CHECK(opcode_mem_access(row) <= (OPC_MEM_READ | OPC_MEM_WRITE));
}

/* Decodes from a block of exactly avail bytes, so that a sanitizer sees each byte too many. */
static enum decode_result decode_exact(
	const u8 *data, unsigned int avail, unsigned int code, struct insn *out)
{
	u8 *copy = malloc(avail ? avail : 1);
	enum decode_result r;

	CHECK(copy);
	memcpy(copy, data, avail);
	r = insn_decode(copy, avail, code, out);
	free(copy);
	return r;
}

/* A result does not depend on the bytes behind, and all shorter strings are incomplete. */
static void check_truncated(
	const u8 *data, unsigned int code, const struct insn *whole, enum decode_result r)
{
	struct insn i;

	CHECK(decode_exact(data, whole->len, code, &i) == r);
	CHECK(r != DECODE_OK || insn_same(&i, whole));
	for (unsigned int n = 0; n < whole->len; n++)
		CHECK(decode_exact(data, n, code, &i) == DECODE_MORE);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static const u8 codes[] = {2, 4, 8};
	unsigned int code, avail;
	enum decode_result r;
	struct insn i;

	if (!size)
		return 0;
	code = codes[data[0] % 3];
	data++;
	avail = (unsigned int)MIN(size - 1, (size_t)64);
	r = decode_exact(data, avail, code, &i);
	switch (r) {
	case DECODE_OK:
		CHECK(i.len && i.len <= 15 && i.len <= avail);
		check_registers(&i);
		check_row(&i);
		check_truncated(data, code, &i, r);
		break;
	case DECODE_UD:
		CHECK(i.len && i.len <= 15 && i.len <= avail && i.exec);
		check_truncated(data, code, &i, r);
		break;
	case DECODE_MORE: CHECK(avail < 15); break;
	case DECODE_LONG: CHECK(avail >= 15); break;
	default: CHECK(false);
	}
	return 0;
}
