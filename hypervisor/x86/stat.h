/*
 * A vCPU's counters, each once: X(name, unit). The vCPU's thread adds to them, any other may read.
 * KVM_GET_STATS_FD serves them under these names (api/stats.c) and `qumra run --stats` prints them.
 *
 * Units: COUNT, NS and BYTES since the vCPU was made; NOW_BYTES is a present size.
 */
#ifndef QUMRA_HYPERVISOR_X86_STAT_H
#define QUMRA_HYPERVISOR_X86_STAT_H

#include "lib/types.h"

#define VCPU_STATS(X)								\
	/* all engines */							\
	X(runs, COUNT)		/* entries into the engine */			\
	X(exits, COUNT)		/* returns of KVM_RUN to user space: all, then */\
	X(io_exits, COUNT)	/* by reason. KVM's io_exits and halt_exits */	\
	X(mmio_exits, COUNT)	/* count what it serves itself, too: here */	\
	X(halt_exits, COUNT)	/* pio and halts */				\
	X(irq_window_exits, COUNT)						\
	X(debug_exits, COUNT)							\
	X(signal_exits, COUNT)	/* EINTR */					\
	X(other_exits, COUNT)							\
	X(mmio, COUNT)								\
	X(pio, COUNT)								\
	X(halts, COUNT)								\
	X(halt_attempted_poll, COUNT)	/* looked before it slept */		\
	X(halt_successful_poll, COUNT)	/* and need not sleep */		\
	X(events, COUNT)	/* interrupts and exceptions delivered */	\
	X(tlb_fills, COUNT)							\
	X(invalidations, COUNT)	/* code dropped because its page was written */	\
	/* the interpreter */							\
	X(insns, COUNT)		/* instructions, one at a time or in blocks */	\
	X(blocks, COUNT)	/* decoded */					\
	X(decodes, COUNT)							\
	X(code_flushes, COUNT)							\
	/* the translator */							\
	X(fragments, COUNT)	/* translated */				\
	X(fragment_insns, COUNT)/* guest instructions in them */		\
	X(code_bytes, NOW_BYTES)/* of the code cache in use */			\
	X(evictions, COUNT)	/* fragments that made room for others */	\
	X(dispatches, COUNT)	/* fragments entered from the engine's loop */	\
	X(links, COUNT)		/* direct branches joined to their target */	\
	X(cell_fills, COUNT)	/* branches to other pages, by link cell */	\
	X(jump_fills, COUNT)	/* indirect branches, by jump table */		\
	X(tlb_misses, COUNT)	/* accesses that left a fragment: all, then */	\
	X(slow_mmio, COUNT)	/* those to what is no memory, */		\
	X(slow_code, COUNT)	/* to pages that hold code, */			\
	X(slow_cross, COUNT)	/* across two pages */				\
	X(helper_insns, COUNT)	/* instructions run by a handler of insn/ */	\
	X(interp_insns, COUNT)	/* instructions run by the interpreter's loop */\
	X(engine_ns, NS)	/* in guest code and in what serves it */	\
	X(helper_ns, NS)	/* of this, in handlers and translation */	\
	X(translate_ns, NS)	/* of this, in translation */

/* Of a VM. NOW_COUNT: as things are. */
#define VM_STATS(X)								\
	X(vcpus, NOW_COUNT)							\
	X(slots, NOW_COUNT)	/* memory slots in use */			\
	X(slot_changes, COUNT)							\
	X(dirty_logs, COUNT)	/* taken, cleared, and resets of rings */	\
	X(stops, COUNT)		/* all vCPUs were stopped together */

struct vcpu_stat {
#define VCPU_STAT_FIELD(name, unit)	u64 name;
	VCPU_STATS(VCPU_STAT_FIELD)
#undef VCPU_STAT_FIELD
};

struct vm_stat {
#define VM_STAT_FIELD(name, unit)	u64 name;
	VM_STATS(VM_STAT_FIELD)
#undef VM_STAT_FIELD
};

/* What descriptors of KVM_GET_STATS_FD read (api/stats.c). data is NULL until there is one. */
struct stats_head;
struct stats_file {
	struct stats_head *head;
	u64 *data;		/* the values, in head's file */
	size_t size;
	int file;
};

#endif
