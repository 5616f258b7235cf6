/*
 * Instructions on opmask registers, VEX-encoded, by VEX.W in each cell of VEX maps 1 and 3. SDM 2
 * instruction pages (KADD to KXOR).
 */
#include "hypervisor/insn/opcode_table.h"

#define CELL(cell, w)		[(cell) * 2 + (w)]
/* One for each width of the mask. fb, fw: what bytes and words need. Last the operands. */
#define WIDTHS(cell, name, fb, fw, a, ...)							\
	CELL(cell, 0)[P66] = { name "b", __VA_ARGS__, NAT(fb, a) },					\
	CELL(cell, 0)[NP] = { name "w", __VA_ARGS__, NAT(fw, a) },					\
	CELL(cell, 1)[P66] = { name "d", __VA_ARGS__, NAT(AVX512BW, a) },				\
	CELL(cell, 1)[NP] = { name "q", __VA_ARGS__, NAT(AVX512BW, a) }
#define THREE(cell, name)	WIDTHS(cell, name, AVX512DQ, AVX512F, L1, OPS(KG, KB, KR))
/* Flags of the two operands. */
#define TEST_FLAGS	FL(0, OSZAPC, 0)
#define TESTS(cell, name, fw)									\
	CELL(cell, 0)[P66] = { name "b", OPS(KG, KR), NATG(AVX512DQ, L0 | RO), TEST_FLAGS },	\
	CELL(cell, 0)[NP] = { name "w", OPS(KG, KR), NATG(fw, L0 | RO), TEST_FLAGS },		\
	CELL(cell, 1)[P66] = { name "d", OPS(KG, KR), NATG(AVX512BW, L0 | RO), TEST_FLAGS },	\
	CELL(cell, 1)[NP] = { name "q", OPS(KG, KR), NATG(AVX512BW, L0 | RO), TEST_FLAGS }
#define SHIFTS(cell, n0, f0, n1, f1)								\
	CELL(cell, 0)[P66] = { n0, OPS(KG, KR, Ib), NAT(f0, L0) },				\
	CELL(cell, 1)[P66] = { n1, OPS(KG, KR, Ib), NAT(f1, L0) }

const struct opcode opcodes_mask[NR_OPCODE_MASKS * 2][NR_OPC_PFX] = {
	THREE(K_AND, "kand"),
	THREE(K_ANDN, "kandn"),
	THREE(K_OR, "kor"),
	THREE(K_XNOR, "kxnor"),
	THREE(K_XOR, "kxor"),
	WIDTHS(K_ADD, "kadd", AVX512DQ, AVX512DQ, L1, OPS(KG, KB, KR)),
	WIDTHS(K_NOT, "knot", AVX512DQ, AVX512F, L0, OPS(KG, KR)),
	CELL(K_UNPCK, 0)[P66] = { "kunpckbw", OPS(KG, KB, KR), NAT(AVX512F, L1) },
	CELL(K_UNPCK, 0)[NP] = { "kunpckwd", OPS(KG, KB, KR), NAT(AVX512BW, L1) },
	CELL(K_UNPCK, 1)[NP] = { "kunpckdq", OPS(KG, KB, KR), NAT(AVX512BW, L1) },
	CELL(K_LOAD, 0)[P66] = { "kmovb", OPS(KG, KEb), NAT(AVX512DQ, L0) },
	CELL(K_LOAD, 0)[NP] = { "kmovw", OPS(KG, KEw), NAT(AVX512F, L0) },
	CELL(K_LOAD, 1)[P66] = { "kmovd", OPS(KG, KEd), NAT(AVX512BW, L0) },
	CELL(K_LOAD, 1)[NP] = { "kmovq", OPS(KG, KEq), NAT(AVX512BW, L0) },
	CELL(K_STORE, 0)[P66] = { "kmovb", OPS(Mb, KG), NAT(AVX512DQ, L0) },
	CELL(K_STORE, 0)[NP] = { "kmovw", OPS(Mw, KG), NAT(AVX512F, L0) },
	CELL(K_STORE, 1)[P66] = { "kmovd", OPS(Md, KG), NAT(AVX512BW, L0) },
	CELL(K_STORE, 1)[NP] = { "kmovq", OPS(Mq, KG), NAT(AVX512BW, L0) },
	CELL(K_FROM_GPR, 0)[P66] = { "kmovb", OPS(KG, Rd), NATG(AVX512DQ, L0) },
	CELL(K_FROM_GPR, 0)[NP] = { "kmovw", OPS(KG, Rd), NATG(AVX512F, L0) },
	CELL(K_FROM_GPR, 0)[PF2] = { "kmovd", OPS(KG, Rd), NATG(AVX512BW, L0) },
	CELL(K_FROM_GPR, 1)[PF2] = { "kmovq", OPS(KG, Ry), NATG(AVX512BW, L0) },
	CELL(K_TO_GPR, 0)[P66] = { "kmovb", OPS(Gd, KR), NATG(AVX512DQ, L0) },
	CELL(K_TO_GPR, 0)[NP] = { "kmovw", OPS(Gd, KR), NATG(AVX512F, L0) },
	CELL(K_TO_GPR, 0)[PF2] = { "kmovd", OPS(Gd, KR), NATG(AVX512BW, L0) },
	CELL(K_TO_GPR, 1)[PF2] = { "kmovq", OPS(Gy, KR), NATG(AVX512BW, L0) },
	TESTS(K_ORTEST, "kortest", AVX512F),
	TESTS(K_TEST, "ktest", AVX512DQ),
	SHIFTS(K_SHR_BW, "kshiftrb", AVX512DQ, "kshiftrw", AVX512F),
	SHIFTS(K_SHR_DQ, "kshiftrd", AVX512BW, "kshiftrq", AVX512BW),
	SHIFTS(K_SHL_BW, "kshiftlb", AVX512DQ, "kshiftlw", AVX512F),
	SHIFTS(K_SHL_DQ, "kshiftld", AVX512BW, "kshiftlq", AVX512BW),
};
