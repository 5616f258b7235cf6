/*
 * System programs: pieces of code in several modes and at both privilege levels, with the
 * instructions that only a kernel has, changes of page tables, debug registers, I/O.
 */
#ifndef QUMRA_TESTS_INSN_SEQUENCES_PRIVILEGED_H
#define QUMRA_TESTS_INSN_SEQUENCES_PRIVILEGED_H

#include "tests/insn/sequences/flow.h"

enum mode { KERNEL64, KERNEL32, USER64, USER32, NR_MODES };
struct mode_info {
	u16 cs, ss;
	u8 bits;
};
extern const struct mode_info mode_info[NR_MODES];

/* Writes the program into the code area; returns the mode that it begins in. */
enum mode privileged_make(struct sequence *q, struct random *r);

#endif
