/* Several CPUs: the others are started by INIT and SIPI, then wait halted for functions to run. */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "chips.h"

#define SMP_MAX		8
#define VEC_SMP_WAKE	0xf0
#define ICR_INIT	0x500
#define ICR_STARTUP	0x600
#define ICR_NMI		0x400
#define ICR_OTHERS	(3u << 18)
#define ICR_ALL		(2u << 18)

typedef void (*smp_fn)(u32 cpu, ulong arg);

/* Starts the CPUs with APIC ids 1 to n - 1; returns how many run, this one counted. */
u32 smp_start(u32 n);
/* The same for one, by a single SIPI after INIT. False: it did not come up within a second. */
bool smp_start_one(u32 cpu);
/* This CPU's APIC id. */
u32 smp_self(void);
/* One CPU runs fn(cpu, arg); returns at once. */
void smp_call(u32 cpu, smp_fn fn, ulong arg);
/* Until it is done. Interrupts may be on or off. */
void smp_wait(u32 cpu);
/* CPUs 0 to n - 1 run it at one time, this one too. */
void smp_all(u32 n, smp_fn fn, ulong arg);
/* All n CPUs meet. */
void smp_meet(u32 n);
void smp_ipi(u32 cpu, u32 icr);

#define LOAD(x)		__atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, v)	__atomic_store_n(&(x), (v), __ATOMIC_RELEASE)

#endif
