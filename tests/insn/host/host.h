/*
 * The host comparison: random user-mode instruction sequences run on the host CPU and in a vCPU of
 * ours, at the same linear addresses, from the same state; every register, flag and byte of memory
 * must then agree.
 *
 * Layout of the test's low memory (linear = guest physical), reachable by 32-bit code too. The
 * guest's system tables lie in it but no sequence has their addresses.
 */
#ifndef QUMRA_TESTS_INSN_HOST_H
#define QUMRA_TESTS_INSN_HOST_H

#include <signal.h>
#include <stdio.h>

#include "hypervisor/x86/fpu.h"
#include "hypervisor/insn/opcode.h"

#define AREA_BASE	0x10000000UL
#define AREA_SIZE	0x100000UL
#define AREA_CODE	(AREA_BASE + 0x40000)	/* the sequence, user, read-only for the guest */
#define CODE_SIZE	0x4000UL
#define AREA_CONST	(AREA_BASE + 0x50000)	/* data that no sequence writes */
#define CONST_SIZE	0x1000UL
#define AREA_MASKS	(AREA_CONST + 2048)	/* 64-bit masks */
#define CONST_MASKS	256
#define AREA_DATA	(AREA_BASE + 0x60000)	/* scratch; unmapped pages before and after */
#define DATA_SIZE	0x4000UL

#define SEL_CODE32	0x23			/* as Linux has them */
#define SEL_DATA	0x2b
#define SEL_CODE64	0x33

struct state {
	u64 r[16];		/* by R_RAX ... */
	u64 rip, rflags;
	u64 cr2;
	u32 vector, error;	/* what ended the sequence */
	u16 cs;
	struct xsave_image x;
	u64 k[8];		/* AVX-512: masks, upper halves, the upper sixteen */
	u8 zmmh[16][32];
	u8 zmm16[16][64];
};

/* Flags that a sequence changes. (Not ID: it would stay set in the test's own process.) */
#define FLAGS_COMPARED	(RFLAGS_ARITH | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC)

/* ---- xstate.c: vector state ---------------------------------------------------------------- */
extern u64 xstate_components;	/* that are compared: XCR0 of the guests */
void xstate_setup(void);
/* The vector registers to and from an XSAVE image; put leaves the legacy region and its header's rest. */
void xstate_put(void *area, const struct state *s);
void xstate_get(const void *area, struct state *s);
/* n: of the lower registers that count. */
bool xstate_equal(const struct state *a, const struct state *b, unsigned int n);
void xstate_differences(const struct state *a, const struct state *b, unsigned int n,
	void (*show)(void *arg, const char *name, unsigned int k, const u8 *a, const u8 *b,
		unsigned int bytes), void *arg);

/* ---- native.c: the host side --------------------------------------------------------------- */
int native_setup(void);
/* Runs from *s (CS tells 32 or 64 bits) until a fault or INT3; *s is then the state. */
void native_go(struct state *s);
/* A timer (ITIMER_REAL) is running: two ticks end what does not end by itself with this vector. */
#define VECTOR_LATE	255
void native_tick(int sig, siginfo_t *info, void *ctx);

/* ---- guest.c: the vCPU --------------------------------------------------------------------- */
int guest_setup(void);
int guest_go(struct state *s);

/* ---- gen.c: sequences ---------------------------------------------------------------------- */
#define SEQ_MAX		1500
struct sequence {
	u64 start;		/* address */
	unsigned int bits;	/* 32 or 64 */
	unsigned int n;
	struct {
		u64 addr;
		u32 row;	/* that it was made for, or ROW_PREP, ROW_SKIPPED */
	} insn[SEQ_MAX];
	u64 end;		/* of the INT3 */
};
#define ROW_PREP	(~0u)	/* preparation of the next instruction, or its aftermath */
#define ROW_SKIPPED	(~1u)	/* as well, but a sequence cannot be cut short before it */

struct random {
	u64 s;
};
u64 rnd(struct random *r);
static inline u32 rnd_below(struct random *r, u32 n)
{
	return (u32)((rnd(r) >> 32) * n >> 32);
}
static inline bool rnd_chance(struct random *r, u32 percent)
{
	return rnd_below(r, 100) < percent;
}

void gen_setup(void);
/* Rows that this run should cover, and the choice among them. */
unsigned int gen_rows(void);
u32 gen_row_at(unsigned int k);
void gen_drop_row(u32 row);	/* this CPU does not have it */
/* Writes a sequence of about n instructions into the code area. only: a row to use, or ROW_PREP for
 * all. */
void gen_sequence(
	struct sequence *q, struct random *r, unsigned int bits, unsigned int n, u32 only);
void gen_state(struct state *s, struct random *r, const struct sequence *q);
void gen_memory(struct random *r);

#endif
