/*
 * Descriptors, selectors, gates and TSSs: what segment.c, far.c, gate.c, task.c and event.c share.
 * SDM 3A 3.4, 3.5, 6.11, 8.2. Functions may unwind unless they say otherwise.
 */
#ifndef QUMRA_HYPERVISOR_X86_SEGMENT_H
#define QUMRA_HYPERVISOR_X86_SEGMENT_H

#include "hypervisor/x86/mem.h"
#include "hypervisor/x86/system.h"

#define SEL_RPL		3u
#define SEL_TI		4u
#define SEL_ERROR(sel)	((u32)(sel) & 0xfffcu)	/* as an error code. SDM 3A 6.13 */

/* Types of system descriptors. SDM 3A table 3-2; 4, 5, 6 and 7 do not exist in long mode. */
enum {
	SYS_TSS16 = 1, SYS_LDT = 2, SYS_TSS16_BUSY = 3, SYS_CALL16 = 4, SYS_TASK = 5, SYS_INT16 = 6,
	SYS_TRAP16 = 7,
	SYS_TSS32 = 9, SYS_TSS32_BUSY = 11, SYS_CALL32 = 12, SYS_INT32 = 14, SYS_TRAP32 = 15,
};
#define SYS_BUSY	2u
#define SYS_32		8u

#define ATTR_S_DATA	(SEG_P | SEG_S | SEG_TYPE_RW | SEG_TYPE_A)

/* Attributes of a raw descriptor, as in struct segment. */
static inline u32 desc_attr(u64 desc) { return (u32)(desc >> 40) & 0xf0ff; }
static inline u32 desc_type(u64 desc) { return (u32)(desc >> 40) & SEG_TYPE; }
static inline unsigned int desc_dpl(u64 desc) { return (unsigned int)(desc >> 45) & 3; }
static inline bool desc_system(u64 desc) { return !(desc & BIT(44)); }
static inline bool desc_present(u64 desc) { return desc & BIT(47); }
static inline bool desc_code(u64 desc) { return !desc_system(desc) && desc & BIT(43); }
static inline bool desc_conforming(u64 desc) { return desc & BIT(42); }
static inline bool desc_writable_data(u64 desc)
{
	return !desc_system(desc) && !(desc & BIT(43)) && desc & BIT(41);
}

/* Fields of a gate; offset's upper half lies in the second 8 bytes in long mode. */
static inline u16 gate_selector(u64 gate) { return (u16)(gate >> 16); }
static inline u32 gate_offset(u64 gate)
{
	return (u32)(gate & 0xffff) | (u32)(gate >> 32 & 0xffff0000);
}

static inline bool sel_null(u16 sel) { return !(sel & ~SEL_RPL); }
static inline unsigned int sel_rpl(u16 sel) { return sel & SEL_RPL; }

static inline bool linear_canonical(const struct vcpu *v, u64 la)
{
	unsigned int shift = v->cr4 & CR4_LA57 ? 7 : 16;

	return (u64)((s64)(la << shift) >> shift) == la;
}

/* ---- segment.c ---- */

/* For LAR, LSL, VERR, VERW: false where sel is null or outside its table. */
bool descriptor_peek(struct vcpu *v, u16 sel, u64 *desc);
/* The upper 8 bytes of a 16-byte descriptor of long mode; type bits there must be zero. */
u64 descriptor_read_high(struct vcpu *v, u16 sel, u8 vector);
/* Linear address of sel's descriptor, of size bytes, all within the table. */
u64 descriptor_addr(struct vcpu *v, u16 sel, unsigned int size, u8 vector);
/* Sets the accessed bit in the table and in *desc. */
void descriptor_accessed(struct vcpu *v, u16 sel, u64 *desc);
/* Sets or clears a TSS descriptor's busy bit in the GDT. */
void descriptor_busy(struct vcpu *v, u16 sel, bool busy);
/* A data segment (not SS) for the given CPL; invalid: the vector of failed checks (#GP or #TS). */
void segment_read_data(struct vcpu *v, struct segment *seg, u16 sel, unsigned int cpl, u8 invalid);
/* A stack segment for the given CPL; sel is not null. */
void segment_read_stack(struct vcpu *v, struct segment *seg, u16 sel, unsigned int cpl, u8 invalid);
void segment_read_ldt(struct vcpu *v, struct segment *seg, u16 sel, u8 invalid, u8 absent);
void segment_set_null(struct segment *seg, u16 sel);	/* No unwinding. */
/* What an outer level may not keep: unusable, but for 64-bit code its base is what it was. */
void segment_drop(struct segment *seg);
void segment_set_v86(struct segment *seg, u16 sel);	/* No unwinding. */
void segment_load_ldt(struct vcpu *v, u16 sel);		/* LLDT */
void segment_load_tr(struct vcpu *v, u16 sel);		/* LTR */

/* ---- gate.c: stacks of inner levels, and the last step of each transfer ---- */

/* A stack that is not loaded yet. */
struct new_stack {
	struct segment ss;
	u64 sp;
	u64 mask;
	unsigned int cpl;
	bool flat;	/* 64-bit: no segmentation */
	bool user;	/* written with the present, user, privilege */
};
void stack_new_inner(struct vcpu *v, struct new_stack *st, unsigned int cpl);	/* from the TSS */
void stack_new_ist(struct vcpu *v, struct new_stack *st, unsigned int ist, unsigned int cpl);
void stack_new_current(struct vcpu *v, struct new_stack *st);			/* No unwinding. */
void stack_push(struct vcpu *v, struct new_stack *st, unsigned int size, u64 val);
/* SS and RSP become st's. No unwinding; vcpu_update_mode is due. */
void stack_commit(struct vcpu *v, const struct new_stack *st, bool load_ss);

/* Is rip a possible target in this code segment? #GP(0) if not. */
void far_check_rip(struct vcpu *v, const struct segment *cs, u64 rip);
/*
 * Reads a code descriptor and fills in cs, with RPL cpl. Privilege was checked. L and D both: #GP.
 */
void far_read_code(struct vcpu *v, struct segment *cs, u16 sel, u64 desc, unsigned int cpl);
/* CS and RIP, and all that depends on them. No unwinding. */
void far_commit(struct vcpu *v, const struct segment *cs, u64 rip);
/* JMP or CALL to a call gate, a task gate, or a TSS. */
void gate_enter(struct vcpu *v, u16 sel, u64 desc, bool call, u64 next);
/* Does this code segment run in 64-bit mode? */
static inline bool segment_is_64bit(const struct vcpu *v, const struct segment *cs)
{
	return vcpu_long_mode(v) && cs->attr & SEG_L;
}

/* ---- debug.c ---- */

/* #DB as a trap with these DR6 bits: the present instruction is over, RIP is where to go on. */
__noreturn_ void debug_raise_trap(struct vcpu *v, u64 payload);
/* Delivers the #DB trap that a task switch or instruction left in pending_db, if any. */
void debug_take_pending(struct vcpu *v);
/* DR6 and DR7 as a #DB's delivery leaves them. No unwinding. */
void debug_commit(struct vcpu *v, u64 payload);
/* With KVM_GUESTDBG_USE_SW_BP: INT3 leaves to the debugger; else nothing. */
void debug_breakpoint_insn(struct vcpu *v);

#endif
