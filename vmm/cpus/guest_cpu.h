/*
 * A virtual CPU's thread in the VMM: runs KVM_RUN, serves its exits, parks when told.
 *
 * All CPUs of a VM share one cpu_control, guarded by the machine's lock. Whoever wants the CPUs to
 * stand still calls cpu_control_pause() and then waits until all are parked.
 */
#ifndef QUMRA_VMM_CPUS_GUEST_CPU_H
#define QUMRA_VMM_CPUS_GUEST_CPU_H

#include <pthread.h>

#include "vmm/cpus/topology.h"
#include "vmm/firmware/boot.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/request.h"

/* Exit reasons counted by KVM's number; more are counted in the last. */
#define CPU_EXITS_MAX 40

struct guest_cpu;

/* Why a CPU cannot go on. */
enum cpu_fault {
	CPU_FAULT_TRIPLE,	/* the guest's fault */
	CPU_FAULT_HYPERVISOR,	/* ours */
};

struct cpu_events {
	struct machine_events machine;
	/* text: one line without newline. The CPU parks and never runs again without a reset. */
	void (*fault)(void *arg, enum cpu_fault fault, const char *text);
	void *arg;
};

struct cpu_control {
	pthread_mutex_t *lock;
	pthread_cond_t changed;
	bool pause, stop;
	unsigned parked;
	unsigned resets_due;	/* CPUs with needs_reset */
};

struct cpu_state;	/* a saved state: registers of every kind */

struct guest_cpu {
	const struct kvm *kvm;
	unsigned index;		/* 0 is the boot CPU */
	const struct cpu_topology *topology;
	int fd;
	struct kvm_run *run;
	struct cpu_control *control;
	struct cpu_events events;
	const struct io_map *pio, *mmio;
	struct cpu_state *power_on;
	struct boot_entry boot;
	u32 attention;		/* look at what follows and at the control: atomic */
	bool needs_reset, nmi_due;	/* under the lock */
	bool faulted;
	bool started;
	pthread_t thread;
	int thread_id;		/* as the kernel numbers it; 0: it has not begun */
	u64 first_run_ns;	/* monotonic; 0: not yet */
	u64 cpu_ns;		/* processor time of its thread; when that has ended */
	u64 exits[CPU_EXITS_MAX];
};

/* Once, before any CPU thread: the signal that kicks a CPU out of KVM_RUN. */
int guest_cpu_signals_init(struct error *err);

int guest_cpu_create(struct guest_cpu *cpu, struct error *err);	/* kvm ... mmio filled in */
/* The state for the first instruction. The CPU does not run, or this is its thread. */
int guest_cpu_reset(struct guest_cpu *cpu, struct error *err);
int guest_cpu_start(struct guest_cpu *cpu, struct error *err);
/* Its thread has ended or never ran. */
void guest_cpu_destroy(struct guest_cpu *cpu);
void guest_cpu_kick(struct guest_cpu *cpu);
/* Under the lock: a non-maskable interrupt, soon. */
void guest_cpu_nmi(struct guest_cpu *cpu);
/* Name of an exit reason, such as "io". */
const char *guest_cpu_exit_name(unsigned reason);
/* A register dump on one line. */
void guest_cpu_describe(const struct guest_cpu *cpu, char *buf, size_t size);

/* All under the lock. */
void cpu_control_init(struct cpu_control *c, pthread_mutex_t *lock);
void cpu_control_pause(struct cpu_control *c, struct guest_cpu *cpus, unsigned n);
void cpu_control_wait_parked(struct cpu_control *c, unsigned n);
/* All are parked: each takes the state for its first instruction before any goes on. */
void cpu_control_reset(struct cpu_control *c, struct guest_cpu *cpus, unsigned n);
void cpu_control_resume(struct cpu_control *c);
void cpu_control_stop(struct cpu_control *c, struct guest_cpu *cpus, unsigned n);

#endif
