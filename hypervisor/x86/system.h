/*
 * The system side of the processor, as instruction handlers and the run loop call it: segments, far
 * transfers, events, control registers. Everything here may unwind (x86/vcpu.h) unless it says
 * otherwise.
 */
#ifndef QUMRA_HYPERVISOR_X86_SYSTEM_H
#define QUMRA_HYPERVISOR_X86_SYSTEM_H

#include "hypervisor/x86/vcpu.h"

/* ---- mode.c ---------------------------------------------------------------------------------- */

/* power-up (false) or INIT. SDM 3A table 10-1. No unwinding. */
void vcpu_reset(struct vcpu *v, bool init);

/* Writes with all checks (#GP) and effects (flushes, mode). */
void cr_write(struct vcpu *v, unsigned int nr, u64 val);
u64 cr_read(struct vcpu *v, unsigned int nr);
/* For KVM_SET_SREGS and the like: -EINVAL where the combination is impossible. No unwinding. */
int cr_check(const struct vcpu *v, u64 cr0, u64 cr4, u64 efer);
void dr_write(struct vcpu *v, unsigned int nr, u64 val);
u64 dr_read(struct vcpu *v, unsigned int nr);

/* ---- vendor.c -------------------------------------------------------------------------------- */

/* Where AMD's and Intel's processors differ, the guest's CPUID vendor decides. No unwinding. */
bool vcpu_amd(const struct vcpu *v);

/* ---- segment.c ------------------------------------------------------------------------------- */

/* MOV/POP/LxS to a data segment register or SS, real and V86 mode too. */
void segment_load(struct vcpu *v, enum segreg s, u16 sel);
void segment_set_real(struct vcpu *v, enum segreg s, u16 sel);	/* base = sel << 4. No unwinding. */
/* Reads the descriptor at sel (8 bytes); outside the table: vector, the selector as its error. */
u64 descriptor_read(struct vcpu *v, u16 sel, u8 vector);
/* Descriptor bytes to cached form. No unwinding. */
void segment_unpack(struct segment *seg, u16 sel, u64 desc);

/* ---- far.c: JMP, CALL, RET, IRET between segments, gates and tasks --------------------------- */
/* All set RIP. opsize 2, 4, 8; next: RIP of the following instruction. */
void far_jump(struct vcpu *v, u16 sel, u64 off, unsigned int opsize, u64 next);
void far_call(struct vcpu *v, u16 sel, u64 off, unsigned int opsize, u64 next);
void far_return(struct vcpu *v, unsigned int opsize, u16 pop_bytes);
void far_iret(struct vcpu *v, unsigned int opsize, u64 next);

/* ---- task.c ---------------------------------------------------------------------------------- */
enum task_reason { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_GATE };
void task_switch(struct vcpu *v, u16 tss_sel, enum task_reason why, bool has_error, u32 error,
	u64 next);

/* ---- event.c --------------------------------------------------------------------------------- */

/* INT n, INT3, INTO, INT1: unwinds with the event. */
__noreturn_ void event_soft(struct vcpu *v, enum event_type type, u8 vector, u8 insn_len);

/*
 * Delivers v->event through the IDT, with nested faults, double fault and triple fault resolved.
 * Not itself unwinding. Returns UNWIND_NONE (delivered, v->event.type is EV_NONE), UNWIND_SHUTDOWN,
 * UNWIND_EXIT when user space must act first (call again on re-entry), UNWIND_EVENT where faults follow
 * each other and somebody wants the vCPU: v->event stays, for a later call.
 */
enum unwind event_deliver(struct vcpu *v);

/* Queues an event from outside the instruction stream; exceptions are pending. No unwinding. */
void event_queue(struct vcpu *v, enum event_type type, u8 vector, bool has_error, u32 error);
/* INT3 and INTO come again with their instruction, and only that knows its length. */
static inline bool vector_is_soft(u8 vector)
{
	return vector == VEC_BP || vector == VEC_OF;
}
/* n NMIs have come. */
void event_nmi(struct vcpu *v, u32 n);

/*
 * Calls fn(v) and catches its unwinding. Returns UNWIND_NONE when fn returned. Nests: the outer
 * buffer is restored.
 */
enum unwind vcpu_guarded(struct vcpu *v, void (*fn)(struct vcpu *v));
/* User space took guest memory away: unwinds, and KVM_RUN returns -EFAULT. */
__noreturn_ void vcpu_memory_lost(struct vcpu *v);
/* Once, when a vCPU is made: such faults inside vcpu_guarded() do the same. */
void vcpu_memory_catch(struct vcpu *v);

/* Interrupts or NMIs may have become possible (IF set, NMI unblocked, shadow over): looks whether one waits
 * and requests its delivery. No unwinding. */
void event_unmasked(struct vcpu *v);

/* ---- debug.c --------------------------------------------------------------------------------- */

/* Code breakpoint at this RIP (called in step mode before the instruction): raises #DB or exits. */
void debug_before_insn(struct vcpu *v);
/* After an instruction in step mode: TF, data and I/O breakpoints, guest debug. */
void debug_after_insn(struct vcpu *v);
/* A data or I/O access in step mode. Records v->pending_db. No unwinding. */
void debug_data_access(struct vcpu *v, u64 la, unsigned int size, bool write);
void debug_io_access(struct vcpu *v, u16 port, unsigned int size);
/* Is any breakpoint armed (the guest's, or the debugger's)? Part of v->step. No unwinding. */
bool debug_armed(const struct vcpu *v);
/* Is a data breakpoint armed on this page? Then its TLB entry is slow. No unwinding. */
bool debug_watches_page(const struct vcpu *v, u64 la);

/* ---- io.c: accesses that user space or an in-kernel device serves ---------------------------- */

/* By port. Permission (io_check) is the handler's business. size 1, 2, 4. */
u32 pio_read(struct vcpu *v, u16 port, unsigned int size);
void pio_write(struct vcpu *v, u16 port, unsigned int size, u32 val);
/* n elements at buf, IO_BATCH bytes at most: returns how many of them were moved, at least one. */
u32 pio_read_batch(struct vcpu *v, u16 port, unsigned int size, u32 n, void *buf);
u32 pio_write_batch(struct vcpu *v, u16 port, unsigned int size, u32 n, void *buf);
/* On re-entry: how many such elements user space has served; 0: this instruction begins. */
u32 pio_batch_known(const struct vcpu *v, u16 port, unsigned int size, bool write);
void io_check(struct vcpu *v, u16 port, unsigned int size);	/* IOPL and TSS bitmap: #GP(0) */
/* By guest physical address outside all memory slots. size up to 8. */
void mmio_read(struct vcpu *v, u64 gpa, void *buf, unsigned int size);
void mmio_write(struct vcpu *v, u64 gpa, const void *buf, unsigned int size);
/*
 * RDMSR and WRMSR by user space. Has it answered this one? Then *val is what it read; #GP if that is
 * its answer. Otherwise io_msr_exit() asks it; reason: KVM_MSR_EXIT_REASON_*.
 */
bool io_msr_answered(struct vcpu *v, u32 index, bool write, u64 *val);
__noreturn_ void io_msr_exit(struct vcpu *v, u32 index, bool write, u64 val, u32 reason);
/* The hypercall of that name: what the guest's RAX is to be. May unwind to ask user space. */
s64 io_map_gpa_range(struct vcpu *v, bool wide);
/*
 * KVM_EXIT_INTERNAL_ERROR: this instruction cannot be run, through no fault of the guest's. Its
 * bytes go with it, as far as they can be read.
 */
__noreturn_ void emulation_failed(struct vcpu *v);
/* On KVM_RUN after an exit for I/O: takes the answer from v->run into v->io. No unwinding. */
void io_complete(struct vcpu *v);

/* ---- tsc.c, kvmclock.c ----------------------------------------------------------------------- */

u64 tsc_read(struct vcpu *v);				/* the guest's TSC now. No unwinding. */
u64 tsc_to_ns(struct vcpu *v, u64 ticks);
u64 tsc_host(void);
/* Of rates other than the host's. No unwinding. */
#define TSC_KHZ_MAX	0x7fffffffu	/* not inclusive */
u64 tsc_scale(const struct vcpu *v, u64 host);
u32 vcpu_tsc_khz(const struct vcpu *v);			/* the rate that the guest sees */
int tsc_set_khz(struct vcpu *v, u32 khz);		/* 0: the host's. 0 or -EINVAL */
void tsc_changed(struct vcpu *v);			/* what was computed from it is stale */
/* Host monotonic time in ns of a guest TSC value. No unwinding. */
u64 tsc_deadline_ns(struct vcpu *v, u64 guest_tsc);
void kvmclock_update(struct vcpu *v);			/* REQ_CLOCK_UPDATE */
/*
 * The clock as a function of this vCPU's TSC: ns = base + (((tsc - stamp) << shift) * mul >> 32). True
 * if it is the same for all vCPUs.
 */
struct kvmclock_params { u64 stamp, base; u32 mul; s8 shift; };
bool kvmclock_params(const struct vcpu *v, struct kvmclock_params *p);
/* What the guests' clock pages say now, in ns. Any thread: KVM_GET_CLOCK, KVM_SET_CLOCK. */
u64 kvmclock_now(struct vm *vm);
/* MSR_KVM_WALL_CLOCK(_NEW) was written: fills in struct pvclock_wall_clock at gpa. No unwinding. */
void kvmclock_write_wall(struct vcpu *v, u64 gpa);

#endif
