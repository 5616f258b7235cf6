/*
 * Random programs: instructions of tests/insn/host/gen.c with control flow between them, which
 * ends: loops have counters in memory that no instruction of gen.c writes.
 */
#ifndef QUMRA_TESTS_INSN_SEQUENCES_FLOW_H
#define QUMRA_TESTS_INSN_SEQUENCES_FLOW_H

#include "tests/insn/host/gen.h"
#include "tests/insn/sequences/layout.h"

/* Rows of items that are part of control flow: */
#define ROW_FLOW	(~2u)	/* may be left out alone */
#define ROW_FIXED	(~3u)	/* not without the rest of its construct */

struct flow {
	struct gen g;
	u32 next_slot;		/* free bytes of AT_CONTROL */
	u64 function[3];	/* entries, or 0 */
	unsigned int n_functions, depth;
	unsigned int left;	/* units that may still be made */
	const struct flow_theme *theme;
	u64 alias;		/* added to addresses of code that is written */
	void (*extra)(struct flow *f);	/* another element, taken with this chance; or NULL */
	u8 extra_chance;
};

/* What kind of program: chances by row group, and in percent for the rest. */
struct flow_theme {
	u8 integer;		/* of units: rows of the integer set, else any row */
	u8 control;		/* of elements: control flow */
	u8 smc;			/* of elements: code that changes code */
	u8 walk;		/* of control flow but ordinary loops: loops over memory */
};

void flow_setup(void);		/* after gen_setup() and gen_drop_row() */
void flow_init(struct flow *f, struct sequence *q, struct random *r, unsigned int bits);
/* Functions for later calls, jumped over. */
void flow_functions(struct flow *f);
/* About n elements. */
void flow_body(struct flow *f, unsigned int n);
bool flow_full(const struct flow *f);
void flow_unit(struct flow *f);

/* ---- encodings ------------------------------------------------------------------------------- */

/* An instruction with a memory operand at an absolute address; op: opcode bytes, lowest first. */
void flow_abs(struct flow *f, u32 op, unsigned int n, unsigned int ext, u64 addr, u32 row);
/* mov dword [addr], val */
void flow_store(struct flow *f, u64 addr, u32 val, u32 row);
/* mov r32, imm32 */
void flow_mov(struct flow *f, unsigned int reg, u32 val, u32 row);
void flow_bytes(struct flow *f, u64 bytes, unsigned int n, u32 row);
/* A 32-bit displacement or address to be filled in when its target is known. */
void flow_patch_rel(struct flow *f, u8 *end_of_insn);
void flow_patch_abs(struct flow *f, u8 *end_of_imm);
u64 flow_slot(struct flow *f, unsigned int bytes);
static inline u64 flow_here(const struct flow *f)
{
	return (u64)f->g.p;
}

#endif
