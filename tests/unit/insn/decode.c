/*
 * What no other decoder can tell: results for incomplete and overlong strings, handlers and flags
 * of struct insn, RIP-relative operands at the edge of 32 bits, modes that have no VEX, and that
 * each row's encoding leads back to it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/opcode.h"

#define DECODE(code, i, ...) \
	decode_bytes(code, i, (const u8[]){__VA_ARGS__}, sizeof((u8[]){__VA_ARGS__}))

static enum decode_result decode_bytes(
	unsigned int code, struct insn *i, const u8 *bytes, unsigned int n)
{
	return insn_decode(bytes, n, code, i);
}

static void test_incomplete(void **state)
{
	static const u8 longest[16] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		0x66, 0x66, 0x66, 0x66, 0x90, 0xcc};
	static const u8 over[16] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		0x66, 0x66, 0x66, 0x66, 0x66, 0x90};
	struct insn i;

	assert_int_equal(insn_decode(longest, 0, 8, &i), DECODE_MORE);
	assert_int_equal(insn_decode(longest, 14, 8, &i), DECODE_MORE);
	assert_int_equal(insn_decode(longest, 15, 8, &i), DECODE_OK);
	assert_int_equal(i.len, 15);
	assert_int_equal(insn_decode(over, 14, 8, &i), DECODE_MORE);
	assert_int_equal(insn_decode(over, 15, 8, &i), DECODE_LONG);
	assert_int_equal(insn_decode(over, 16, 8, &i), DECODE_LONG);
	/* MOV RAX, imm64 behind six prefixes: 16 bytes, though 15 of them are there. */
	assert_int_equal(
		DECODE(8, &i, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7),
		DECODE_LONG);
}

static void test_undefined_length(void **state)
{
	struct insn i;

	assert_int_equal(DECODE(8, &i, 0xf0, 0x01, 0xc0), DECODE_UD); /* LOCK ADD EAX, EAX */
	assert_int_equal(i.len, 3);
	assert_int_equal(DECODE(8, &i, 0x27), DECODE_UD); /* DAA */
	assert_ptr_equal(i.exec, exec_ud);
	assert_int_equal(DECODE(4, &i, 0x27), DECODE_OK);
}

static void test_handlers(void **state)
{
	struct insn i;

	assert_int_equal(DECODE(8, &i, 0x48, 0x01, 0x18), DECODE_OK); /* ADD [RAX], RBX */
	assert_ptr_equal(i.exec, x_add_EG.fn[7]);
	assert_int_equal(i.flags, I_MEM | I_REX | I_W | I_MODRM);
	assert_int_equal(DECODE(8, &i, 0x00, 0xdc), DECODE_OK); /* ADD AH, BL */
	assert_ptr_equal(i.exec, x_add_EG.fn[0]);
	assert_int_equal(i.rm, 1);
	assert_int_equal(i.reg, R_RBX * 8);
	assert_int_equal(DECODE(2, &i, 0x7d, 0xfe), DECODE_OK); /* JNL */
	assert_ptr_equal(i.exec, exec_jcc[13]);
	assert_true(i.flags & I_BRANCH);
	assert_int_equal((s64)i.imm, -2);
	assert_int_equal(DECODE(8, &i, 0xf3, 0xa4), DECODE_OK); /* REP MOVSB */
	assert_ptr_equal(i.exec, x_movs.fn[4]);
	assert_int_equal(i.flags & (I_REP | I_REPNE), I_REP);
	assert_int_equal(DECODE(8, &i, 0x0f, 0x58, 0xc1), DECODE_OK); /* ADDPS */
	assert_ptr_equal(i.exec, exec_native);
	assert_true(i.flags & I_NATIVE);
	assert_int_equal(DECODE(8, &i, 0xfb), DECODE_OK); /* STI */
	assert_true(i.flags & I_END);
}

static void test_nop_and_xchg(void **state)
{
	struct insn i;

	assert_int_equal(DECODE(8, &i, 0x90), DECODE_OK);
	assert_ptr_equal(i.exec, exec_nop);
	assert_int_equal(DECODE(8, &i, 0xf3, 0x90), DECODE_OK);
	assert_ptr_equal(i.exec, exec_pause);
	assert_int_equal(DECODE(8, &i, 0x48, 0x90), DECODE_OK); /* REX.W changes nothing */
	assert_ptr_equal(i.exec, exec_nop);
	assert_int_equal(DECODE(8, &i, 0x41, 0x90), DECODE_OK); /* XCHG R8D, EAX */
	assert_ptr_equal(i.exec, x_xchg_EG.fn[2]);
	assert_int_equal(i.rm, R_R8 * 8);
}

/* AMD's rule for near branches, and CR8 by way of LOCK. */
static void test_vendor(void **state)
{
	struct insn i;

	assert_int_equal(DECODE(8, &i, 0x66, 0xe9, 0x34, 0x12), DECODE_OK);
	assert_int_equal(i.opsize, 2);
	assert_int_equal(i.imm, 0x1234);
	assert_int_equal(DECODE(4, &i, 0xf0, 0x0f, 0x22, 0xc0), DECODE_OK);
	assert_int_equal(i.reg, 8);
	assert_int_equal(DECODE(4, &i, 0xf0, 0x0f, 0x22, 0xd8), DECODE_UD); /* LOCK MOV CR3 */
}

static void test_rip_relative(void **state)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	struct insn i;

	assert_non_null(v);
	v->r[R_RIP] = 0x1000;
	assert_int_equal(DECODE(8, &i, 0x8b, 0x05, 0x10, 0, 0, 0), DECODE_OK);
	assert_int_equal(insn_ea(v, &i), 0x1016);
	assert_int_equal(DECODE(8, &i, 0x67, 0x8b, 0x05, 0x00, 0xe0, 0xff, 0xff), DECODE_OK);
	assert_int_equal(insn_ea(v, &i), 0xfffff007); /* EIP-relative wraps at 32 bits */
	/*
	 * The largest displacement does not hold the length as well: LEA shows the address all
	 * the same.
	 */
	assert_int_equal(DECODE(8, &i, 0x48, 0x8d, 0x05, 0xff, 0xff, 0xff, 0x7f), DECODE_OK);
	i.exec(v, &i);
	assert_int_equal(v->r[R_RAX], 0x1000 + 7 + 0x7fffffffULL);
	assert_int_equal(DECODE(8, &i, 0x48, 0x8d, 0x05, 0xf8, 0xff, 0xff, 0x7f), DECODE_OK);
	assert_int_equal(insn_ea(v, &i), 0x1000 + 7 + 0x7ffffff8ULL);
	free(v);
}

/*
 * In 32-bit code VEX.W does not widen general registers, and bit 7 of a register in imm8 means
 * nothing.
 */
static void test_vex_legacy(void **state)
{
	struct insn i;

	assert_int_equal(DECODE(4, &i, 0xc4, 0xe1, 0xf9, 0x6e, 0xc0), DECODE_OK); /* VMOVD, W1 */
	assert_false(i.flags & I_W);
	assert_int_equal(i.opsize, 4);
	assert_int_equal(
		DECODE(4, &i, 0xc4, 0xe3, 0x79, 0x4a, 0xc1, 0xf0), DECODE_OK); /* VBLENDVPS */
	assert_int_equal(i.imm, 0x70);
	assert_int_equal(DECODE(4, &i, 0xc4, 0x00), DECODE_OK); /* LES */
	assert_ptr_equal(i.exec, exec_les);
	assert_int_equal(DECODE(4, &i, 0x62, 0x00), DECODE_OK); /* BOUND */
}

/* Registers to 31, the mask, disp8 in units of the operand. SDM 2A 2.7 */
static void test_evex(void **state)
{
	struct insn i;

	/* vaddps zmm31{k5}{z}, zmm16, [rax + 64] */
	assert_int_equal(DECODE(8, &i, 0x62, 0x61, 0x7c, 0xc5, 0x58, 0x78, 0x01), DECODE_OK);
	assert_int_equal(i.reg, 31);
	assert_int_equal(i.vvvv, 16);
	assert_int_equal(i.evex, EVEX_Z | 2 << EVEX_LL_SHIFT | 5);
	assert_int_equal(i.disp, 64);
	assert_int_equal(opcode_mem_size(opcode_row(i.row), &i), 64);
	/* vaddps zmm31, zmm16, [rax + 4]{1to16} */
	assert_int_equal(DECODE(8, &i, 0x62, 0x61, 0x7c, 0x50, 0x58, 0x78, 0x01), DECODE_OK);
	assert_int_equal(i.disp, 4);
	/* vpexpandb xmm0{k1}, [rax - 1] */
	assert_int_equal(DECODE(8, &i, 0x62, 0xf2, 0x7d, 0x09, 0x62, 0x40, 0xff), DECODE_OK);
	assert_int_equal(i.disp, -1);
	assert_int_equal(opcode_mem_size(opcode_row(i.row), &i), 16);
	/* vpgatherdd zmm1{k1}, [rax + zmm31 * 4 + 4] */
	assert_int_equal(DECODE(8, &i, 0x62, 0xb2, 0x7d, 0x41, 0x90, 0x4c, 0xb8, 0x01), DECODE_OK);
	assert_int_equal(i.index, 31);
	assert_int_equal(i.disp, 4);
	/* vaddps zmm1, zmm2, zmm3, {rz-sae}: 512 bits whatever L'L is */
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x6c, 0x78, 0x58, 0xcb), DECODE_OK);
	assert_int_equal(insn_vector_bytes(&i), 64);
}

/* What SDM 2A 2.7.11 and the instructions' pages forbid. */
static void test_evex_undefined(void **state)
{
	struct insn i;

	assert_int_equal(DECODE(8, &i, 0x62, 0x00, 0, 0, 0, 0), DECODE_UD);	/* map 0 */
	assert_int_equal(DECODE(8, &i, 0x62, 0xf9, 0x6c, 0x48, 0x58, 0xcb), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x68, 0x48, 0x58, 0xcb), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x6c, 0x48, 0x58, 0xcb), DECODE_OK);
	assert_int_equal(DECODE(8, &i, 0x66, 0x62, 0xf1, 0x6c, 0x48, 0x58, 0xcb), DECODE_UD);
	assert_int_equal(DECODE(4, &i, 0x62, 0xf1, 0x6c, 0x40, 0x58, 0xcb), DECODE_UD);	/* V' */
	/* zeroing without a mask, of memory, of a mask */
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x6c, 0xc8, 0x58, 0xcb), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x7c, 0xc9, 0x11, 0x08), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x6c, 0xc9, 0xc2, 0xcb, 0), DECODE_UD);
	/* L'L = 3, W, vvvv, broadcast of bytes, gather without a mask and into its index */
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x6c, 0x68, 0x58, 0xcb), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0xec, 0x48, 0x58, 0xcb), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x6c, 0x48, 0x10, 0xcb), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf1, 0x6d, 0x58, 0xfc, 0x08), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf2, 0x7d, 0x48, 0x90, 0x0c, 0x10), DECODE_UD);
	assert_int_equal(DECODE(8, &i, 0x62, 0xf2, 0x7d, 0x49, 0x90, 0x0c, 0x08), DECODE_UD);
	/* a mask register with R' */
	assert_int_equal(DECODE(8, &i, 0x62, 0xe1, 0x6c, 0x48, 0xc2, 0xcb, 0), DECODE_UD);
}

static u8 *encode_evex(const struct opcode_where *w, const struct opcode *row, bool vvvv, u8 *p)
{
	u8 ll = !(row->evex & EV_NO512) ? 2 : !(row->evex & EV_NO256);

	*p++ = 0x62;
	*p++ = (u8)(0xf0 | (w->map - MAP_EVEX1 + 1));
	*p++ = (u8)(w->w << 7 | (vvvv ? 0x50 : 0x78) | 4 | w->pfx);
	*p++ = (u8)(ll << EVEX_LL_SHIFT | 8 | (row->evex & EV_NOK ? 0 : 1));
	return p;
}

/* The bytes that opcode_where() describes decode to the row: extension bits, prefix, map. */
static unsigned int encode(const struct opcode_where *w, const struct opcode *row, u8 *p)
{
	static const u8 mandatory[] = {0, 0x66, 0xf3, 0xf2};
	u8 *start = p, w1 = row->attr & ATTR_W1 || w->w == 1 ? 0x80 : 0, l = row->attr & ATTR_L1 ? 4 : 0;
	bool vvvv = false;

	for (unsigned int k = 0; k < 4; k++)
		vvvv |= row->op[k] && operand_info[row->op[k]].place == PL_VVVV;
	if (w->map >= MAP_EVEX1) {
		p = encode_evex(w, row, vvvv, p);
	} else if (w->map >= MAP_VEX1) {
		*p++ = 0xc4;
		*p++ = (u8)(0xe0 | (w->map - MAP_VEX1 + 1));
		*p++ = (u8)(w1 | (vvvv ? 0x50 : 0x78) | l | w->pfx);
	} else {
		if (w->pfx)
			*p++ = mandatory[w->pfx];
		if (w->map != MAP_1)
			*p++ = 0x0f;
		if (w->map > MAP_0F)
			*p++ = w->map == MAP_0F38 ? 0x38 : 0x3a;
	}
	*p++ = w->opcode;
	/* ModRM: registers 2 and 0, or memory with a SIB byte whose index is 3. */
	*p++ = (u8)((w->mod == 0 ? 0 : 0xc0) | (w->ext >= 0 ? w->ext : 2) << 3 |
		    (w->rm >= 0	     ? w->rm
			    : w->mod ? 0
				     : 4));
	*p++ = 0x18;
	return (unsigned int)(p - start);
}

/*
 * Rows that need REX as well (NOP's exchange, CMPXCHG16B), or VEX.L without saying so (VZEROALL).
 */
static bool needs_more(const char *name)
{
	return !strcmp(name, "cmpxchg16b") || !strcmp(name, "vzeroall") || !strcmp(name, "xchg");
}

static void test_rows(void **state)
{
	unsigned int rows = 0;

	for (unsigned int n = 0; n < opcode_rows(); n++) {
		const struct opcode *row = opcode_row(n);
		struct opcode_where w;
		u8 bytes[64] = {0};
		struct insn i;
		bool found;

		if (!row)
			continue;
		rows++;
		assert_true(opcode_where(n, &w));
		encode(&w, row, bytes);
		found = insn_decode(bytes, sizeof(bytes), 8, &i) == DECODE_OK && i.row == n;
		found = found ||
			(insn_decode(bytes, sizeof(bytes), 4, &i) == DECODE_OK && i.row == n);
		if (!found && !needs_more(row->name))
			fail_msg("%s: map %u opcode %02x does not lead to row %#x", row->name,
				w.map, w.opcode, n);
	}
	assert_true(rows > 1500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_incomplete),
		cmocka_unit_test(test_undefined_length),
		cmocka_unit_test(test_handlers),
		cmocka_unit_test(test_nop_and_xchg),
		cmocka_unit_test(test_vendor),
		cmocka_unit_test(test_rip_relative),
		cmocka_unit_test(test_vex_legacy),
		cmocka_unit_test(test_evex),
		cmocka_unit_test(test_evex_undefined),
		cmocka_unit_test(test_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
