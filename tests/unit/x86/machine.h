/* A vCPU with guest memory and nothing else, for tests of hypervisor/x86. */
#ifndef QUMRA_TESTS_UNIT_X86_MACHINE_H
#define QUMRA_TESTS_UNIT_X86_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

#define RAM_SIZE	(8u << 20)
#define ROM_BASE	(16ULL << 20)	/* a read-only slot */
#define ROM_SIZE	(64u << 10)
#define NO_SLOT		(64ULL << 20)	/* no memory from here on */

struct machine {
	struct vm vm;
	struct vcpu *v;
	u8 *ram, *rom;
	u64 dirty[RAM_SIZE / 4096 / 64];
};

struct machine *machine_create(void);
void machine_destroy(struct machine *m);
/* Power-up state with all the features that the host supports. */
void machine_reset(struct machine *m);
/* Flat 32-bit segments, protected mode, CPL as given. */
void machine_protected(struct machine *m, unsigned int cpl);
/* The same in 64-bit mode, paging with the PML4 at root. */
void machine_long(struct machine *m, unsigned int cpl, u64 root);
void machine_feature(struct machine *m, enum cpu_feature f, bool on);

static inline u64 *ram64(struct machine *m, u64 gpa) { return (u64 *)(m->ram + gpa); }
static inline u32 *ram32(struct machine *m, u64 gpa) { return (u32 *)(m->ram + gpa); }

/* Runs the access and says how it ended; the fault, if any, is in v->event. */
enum unwind try_read(struct machine *m, unsigned int seg, u64 off, unsigned int size, u64 *val);
enum unwind try_write(struct machine *m, unsigned int seg, u64 off, unsigned int size, u64 val);
enum unwind try_sys_read(struct machine *m, u64 la, unsigned int size, u64 *val);
enum unwind try_cr_write(struct machine *m, unsigned int nr, u64 val);

#endif
