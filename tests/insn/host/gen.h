/*
 * One random instruction at a time, with what must precede it: the inside of gen.c, for programs
 * that put control flow between the instructions (tests/insn/sequences).
 */
#ifndef QUMRA_TESTS_INSN_HOST_GEN_H
#define QUMRA_TESTS_INSN_HOST_GEN_H

#include "tests/insn/host/host.h"

#define MAX_PREP	16

struct prep {
	u8 bytes[12];
	u8 len;
	s8 target;	/* offset of a 32-bit address of the next instruction, or -1 */
};

struct gen {
	struct random *r;
	struct sequence *q;
	u8 *p;				/* write pointer: address and place are the same */
	unsigned int bits;
	/*
	 * Chooses where a memory operand goes, where it is set; 0 leaves it to gen.c. The
	 * instruction decides about the alignment later.
	 */
	u64 (*place)(struct gen *g);
	/* Registers that hold a known address (when nothing else is in between), or 0. */
	u32 known[16];
	bool reuse;			/* make use of them */
	u32 seg_base[2];		/* FS, GS: used where it is not zero */

	u32 row_index;
	const struct opcode *row;
	struct opcode_where at;
	struct insn insn;		/* as decoded from buf */
	u8 buf[16];
	unsigned int len;
	int rip_disp;			/* offset in buf of a RIP-relative displacement, or -1 */
	u64 ea;				/* of the memory operand */
	u8 segment;			/* prefix for an FS or GS operand, or 0 */
	bool addr16;			/* 16-bit addressing */
	/* EVEX, chosen before all else: the last byte (V' is put in later), what disp8 counts in */
	u8 evex;
	u8 disp_unit;			/* 1 for all others */
	u16 busy;			/* registers with a prepared value */
	struct prep prep[MAX_PREP];
	unsigned int n_prep;
	u8 filler;			/* bytes that a branch jumps over */
};

/* Room in a sequence's list, and bytes, that one unit may take. */
#define UNIT_ITEMS (MAX_PREP + 8)
#define UNIT_BYTES 512

/* Writes an instruction of the row with all that it needs; false: no encoding was found. */
bool gen_unit(struct gen *g, u32 row);
/* Writes bytes as one item of the sequence. */
void gen_item(struct gen *g, const void *bytes, unsigned int n, u32 row);
/* Data segments as the mode needs them. */
void gen_prologue(struct gen *g);
/* After a label nothing is known of the registers. */
void gen_forget(struct gen *g);

#endif
