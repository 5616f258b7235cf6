/* The decoder against Zydis: one comparison, what is drawn at random, what is known to differ. */
#ifndef QUMRA_TESTS_INSN_DECODE_H
#define QUMRA_TESTS_INSN_DECODE_H

#include <Zydis/Zydis.h>

#include "hypervisor/insn/opcode.h"

#define STRING_SIZE	64	/* bytes drawn for each instruction: more than any needs */

struct comparison {
	u8 bytes[STRING_SIZE];
	unsigned int code;	/* 2, 4, 8 */
	enum decode_result result;
	struct insn insn;
	const struct opcode *row;
	bool zydis_ok;
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand zo[ZYDIS_MAX_OPERAND_COUNT];
	char diff[160];		/* what differs */
};

/* xorshift64*, so that a seed means the same on every machine. */
static inline u64 random_next(u64 *state)
{
	u64 x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dULL;
}

void generate(u64 *rng, unsigned int code, u8 *bytes);

/* Decodes c->bytes in both; true if they agree, else c->diff says what differs. */
bool compare(struct comparison *c);

/* The same for a string that both decode: flags, memory access, privilege of the row. */
bool compare_attributes(struct comparison *c);

/* Index of the known disagreement that explains c, or -1. */
int known_match(const struct comparison *c);
unsigned int known_count(void);
const char *known_reason(unsigned int n);

#endif
