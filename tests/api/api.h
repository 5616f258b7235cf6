/*
 * Tests of the KVM API by its effects. They run on our hypervisor, and on the host's /dev/kvm as
 * the oracle for what they expect: `api-test host`. A KVM_* call returns -errno here, whichever it
 * is.
 */
#ifndef QUMRA_TESTS_API_API_H
#define QUMRA_TESTS_API_API_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/kvm.h>

#include "lib/types.h"

struct api {
	const char *name;
	int (*open)(void);
	long (*ioctl)(int fd, unsigned long request, unsigned long arg);
	int (*mmap)(int fd, unsigned long size, void **addr);
	int (*close)(int fd);
};
extern const struct api *api;	/* the one under test */
bool api_is_host(void);
/* What a KVM without hardware virtualization is known to do differently from every other KVM. */
void skip_on_emulated_host(const char *difference);

#define RUN_SIZE 12288

static inline long call(int fd, unsigned long request, const void *arg)
{
	return api->ioctl(fd, request, (unsigned long)arg);
}

static inline long call_num(int fd, unsigned long request, unsigned long arg)
{
	return api->ioctl(fd, request, arg);
}

/* A VM with one memory slot at 0 and one vCPU in real mode; made by machine_new(), freed by
 * machine_free(). */
#define RAM_SIZE	0x20000
#define CODE_AT		0x1000
struct machine {
	int sys, vm, vcpu;
	struct kvm_run *run;
	u8 *ram;
};
enum { PLAIN, WITH_IRQCHIP, SPLIT_IRQCHIP };
void machine_new(struct machine *m, int irqchip);
void machine_new_split(struct machine *m, u64 pins);
void machine_free(struct machine *m);
/* Code at CODE_AT, all segments 0, RIP there, RSP 0x8000, interrupts off. */
void machine_code(struct machine *m, const void *code, size_t size);
#define CODE(m, ...) do { \
	static const u8 code_[] = { __VA_ARGS__ }; \
	machine_code(m, code_, sizeof(code_)); \
} while (0)
int vcpu_new(int vm, int id, struct kvm_run **run);
void real_mode(int vcpu, u64 rip);
void paged_mode(struct machine *m);	/* 64 bits, the first 2 MiB mapped as they are: io_memory.c */
void flat_mode(int vcpu);	/* 32 bits, base 0, 4 GiB: what the translator translates */

struct kvm_regs get_regs(int vcpu);
void set_regs(int vcpu, const struct kvm_regs *r);
struct kvm_sregs get_sregs(int vcpu);

void enable_cap(int fd, u32 cap, u64 arg);
u64 get_msr(int vcpu, u32 index);
long set_msr(int vcpu, u32 index, u64 val);	/* 1: done */
/* Skips the test where the hypervisor has no such capability. */
void require_cap(struct machine *m, u32 cap);

/* The counter of this name, from a descriptor of KVM_GET_STATS_FD. */
u64 stat_of(int fd, const char *name);

/* KVM_RUN that must end with this exit. */
#define run_until(m, reason) do { \
	assert_int_equal(call_num((m)->vcpu, KVM_RUN, 0), 0); \
	assert_int_equal((m)->run->exit_reason, reason); \
} while (0)
void run_to_halt(struct machine *m);
/* The byte(s) of a KVM_EXIT_IO. */
static inline void *io_data(struct kvm_run *run)
{
	return (char *)run + run->io.data_offset;
}

int test_system(void);
int test_memory(void);
int test_regs(void);
int test_run(void);
int test_events(void);
int test_chips(void);
int test_threads(void);
int test_irqfd(void);
int test_ioeventfd(void);
int test_split(void);
int test_coalesced(void);
int test_vapic(void);
int test_smm(void);
int test_user_msrs(void);
int test_ring(void);
int test_tsc(void);
int test_pv(void);
int test_hyperv(void);
int test_features(void);
int test_pointers(void);
int test_gone(void);
int test_io_memory(void);
int test_mwait(void);
int test_halt_poll(void);
int test_user_writes(void);
int test_pmu(void);
int test_pmu_intel(void);
int test_cmci(void);
int test_cr8(void);
int test_old_pit(void);
int test_cpuid_fault(void);
int test_xstate(void);

#endif
