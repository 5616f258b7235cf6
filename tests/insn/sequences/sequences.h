/*
 * Random programs run by every engine there is, and by the host CPU where they are user code; all
 * must agree in each register, flag and byte.
 */
#ifndef QUMRA_TESTS_INSN_SEQUENCES_SEQUENCES_H
#define QUMRA_TESTS_INSN_SEQUENCES_SEQUENCES_H

#include "tests/insn/sequences/flow.h"
#include "tests/insn/sequences/machine.h"

#define MAX_MACHINES 3
extern struct machine machines[MAX_MACHINES];
extern unsigned int n_machines;

struct totals {
	u64 insns, programs, late, flaky, retries, ends[256], exits[64], events[256];
};
extern struct totals totals;
extern bool verbose;

/* ---- user.c: user-mode programs, the host CPU included --------------------------------------- */
int user_setup(void);
/* True when all agree; else the difference was printed, made as small as it gets. */
bool user_compare(u64 seed);
void user_show(u64 seed);	/* the program's listing */

/* ---- system.c: programs that may do everything, engines only --------------------------------- */
bool system_compare(u64 seed);
void system_show(u64 seed);

/* ---- report.c: what differs, and the way to it ------------------------------------------------ */
/* Names of the two sides; mask: flags that count. */
struct sides {
	const char *a, *b;
	u64 flags;
};
/* What is printed between the two comes back as a text, to be freed. */
void report_begin(void);
char *report_end(void);

bool state_equal(const struct state *a, const struct state *b, u64 flags);
void state_show_difference(const struct state *a, const struct state *b, const struct sides *s);
void state_show(const char *what, const struct state *s);
bool memory_same(const void *a, const void *b, size_t n);
void memory_show_difference(const void *a, const void *b, size_t n, u64 addr,
	const struct sides *s);
/* code: the bytes of the code area (it may have changed since). Items of NOPs only are left out. */
void sequence_show(const struct sequence *q, const u8 *code);

/*
 * Makes the sequence smaller, item by item, while fails() stays true. code: the code area's bytes,
 * which fails() runs.
 */
void sequence_minimize(const struct sequence *q, u8 *code, bool (*fails)(void));

#endif
