/*
 * The host side of the hostile guests: a process that embeds the hypervisor through its API,
 * surrounds everything near guest memory with canaries, and looks after each KVM_RUN whether the
 * thread is what it was. docs/threat-model.md says what is promised.
 */
#ifndef QUMRA_TESTS_HOSTILE_HOSTILE_H
#define QUMRA_TESTS_HOSTILE_HOSTILE_H

#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include <linux/kvm.h>

#include "lib/types.h"

struct options {
	u64 seed;
	unsigned int seconds;
	bool closed;		/* canaries are inaccessible rather than filled */
	bool endless;		/* the guest is to run until the time is over */
	bool repeat;		/* one machine of the fuzzer, not one after the other */
	bool wait;		/* a failure waits instead of ending the process */
};
extern struct options options;

/* Says what is broken and with which seed, and ends the process with status 1. */
__noreturn_ void fail(const char *fmt, ...) __printf_(1, 2);
/* The failure's context: printed by fail(). */
extern __thread u64 current_seed;

/* ---- random -------------------------------------------------------------------------------- */

struct random { u64 s; };
u64 rnd(struct random *r);
static inline u32 below(struct random *r, u32 n)
{
	return (u32)((rnd(r) >> 32) * n >> 32);
}
static inline bool chance(struct random *r, u32 percent)
{
	return below(r, 100) < percent;
}

/* ---- canary.c ------------------------------------------------------------------------------ */

/*
 * Where guest RAM lies in the host: canaries fill what is around it, what a truncation to 32 bits
 * or a carry too many makes of it, and the addresses that a guest itself uses, so that a guest
 * address taken for one of the host's meets a canary as well.
 */
#define RAM_HOST	0x200040000000UL
#define RAM_MAX		(64UL << 20)
#define RAM_AT		(RAM_HOST + (16UL << 20))
#define ROM_AT		(RAM_HOST + (1UL << 20))
#define SPARE_AT	(RAM_HOST + (2UL << 20))	/* two, 2 MiB apart */
#define CANARY_SIZE	(256UL << 10)
#define LOW_FIRST	0x10000UL
#define LOW_END		(64UL << 20)
#define HIGH_GUEST	0x8000000000UL		/* TEST_VA of the guests' library */

void canary_setup(void);
/* Memory for the guest in the midst of canaries (sizes: multiples of CANARY_SIZE), and back. */
void *canary_replace(u64 at, size_t size);
void canary_restore(u64 at, size_t size);
void canary_check(void);	/* fails if one has changed */
/* Fails if host memory's canary pattern is found in the guest's memory. */
void canary_search(const void *ram, size_t size);
bool canary_value(u64 val);
/* An address that an attacker would like to reach: the hypervisor's own memory, by its maps. */
u64 host_address(struct random *r);
void host_addresses_read(void);
void maps_check(void);		/* fails if a mapping is writable and executable */

/* ---- enter.c ------------------------------------------------------------------------------- */

/*
 * KVM_RUN, and the checks of the thread's state after it: registers that a call keeps, control
 * words, flags, segment bases, signal mask and stack. Returns what KVM_RUN returned.
 */
typedef long enter_fn(int fd, unsigned long request, unsigned long arg);
long enter_checked(int vcpu, enter_fn *fn);

/* ---- machine.c ----------------------------------------------------------------------------- */

#define RUN_SIZE	12288
#define VCPUS_MAX	4
#define ROM_GPA		0xf0000000UL
#define ROM_SIZE	CANARY_SIZE
#define SPARE_GPA	0x10000000UL		/* the slot that comes and goes */
#define SPARE_SIZE	0x100000UL
enum { SLOT_RAM, SLOT_ROM, SLOT_SPARE };

struct hvcpu {
	struct machine *m;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool started;
	volatile sig_atomic_t inside, ticks;	/* ticks since KVM_RUN was entered */
	u64 cpu_ns;		/* of the thread, at the entry */
};

struct machine {
	int sys, vm;
	u8 *ram;
	size_t ram_size;
	u8 *rom, *spare[2];
	struct hvcpu cpu[VCPUS_MAX];
	unsigned int n_cpus;
	pthread_mutex_t lock;
	volatile int status;		/* of the guest's end, or -1 */
	volatile bool churn, dma;	/* what the host's threads do meanwhile */
	volatile u64 dma_gpa, dma_size;
	pthread_t churn_thread, dma_thread;
	bool churning, dmaing;
	u64 dma_seed;		/* of what the device writes in this round */
};

long kvm_call(int fd, unsigned long request, void *arg);
long kvm_must(long r, const char *what);
void machine_new(struct machine *m, size_t ram_size, unsigned int cpus, bool irqchip);
void machine_free(struct machine *m);
void slot_set(struct machine *m, unsigned int slot, u64 gpa, u64 size, void *host, u32 flags);
/* A thread, while m->churn: deletes the spare slot and makes it again with the other memory. */
void *slot_churn(void *arg);
/* A signal every period: it asks each vCPU inside KVM_RUN to come out, and counts. */
void ticks_start(unsigned int us);
/* One KVM_RUN with the tick's watch over it. 0, -EINTR; anything else fails. */
long cpu_run(struct hvcpu *c);
u64 now_ms(void);

/* ---- guest.c, fuzz.c ----------------------------------------------------------------------- */

/* Runs the test guest in this ELF file to its end. Returns the exit status it asked for. */
int guest_run(const char *path, unsigned int cpus);
/* Does each check find what it is there for? selftest.c */
int selftest_run(void);
/* Random code in every mode for options.seconds, on this many vCPUs of one machine. */
int fuzz_run(unsigned int cpus);

#endif
