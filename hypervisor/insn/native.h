/*
 * Instructions that run on the host's own vector and x87 units.
 *
 * native_prepare() encodes the instruction again with its memory operand at [rdi] and its
 * general-purpose registers in r8 to r10 (loaded from and stored to v->r, whose address is in rsi),
 * followed by "xor eax, eax; ret". Such a stub is a function of the C calling convention; a host
 * fault in it makes it return 1 + vector (os_code_alloc in os/os.h). Equal stubs are shared.
 *
 *	addps xmm3, [rbx + 8]	->	addps xmm3, [rdi]; xor eax, eax; ret
 *	cvtsi2sd xmm1, rcx	->	mov r8, [rsi + 8]; cvtsi2sd xmm1, r8; mov [rsi + 8], r8; ...
 */
#ifndef QUMRA_HYPERVISOR_INSN_NATIVE_H
#define QUMRA_HYPERVISOR_INSN_NATIVE_H

#include "hypervisor/insn/insn.h"
#include "hypervisor/x86/fpu.h"

struct native_stub {
	u64 (*run)(void *mem, u64 *r);	/* 0, or 1 + vector of a host fault */
	u32 off;	/* of its code in the area */
	u8 code_len;
	u8 size;	/* of the memory operand in bytes */
	u8 access;	/* OPC_MEM_* */
	u8 trap;	/* FP_*: state it needs */
};

int native_create(struct vcpu *v);	/* v->native; 0 or -errno */
void native_destroy(struct vcpu *v);

/*
 * For an instruction with I_NATIVE, before it is first executed: sets insn->aux. -ENOSPC when the
 * area is full: forget all prepared instructions (they refer to stubs), call native_reset, and
 * prepare again.
 */
int native_prepare(struct vcpu *v, struct insn *i);
void native_reset(struct vcpu *v);

const struct native_stub *native_stub(const struct vcpu *v, const struct insn *i);

/* The rest is for evex.c, simd.c, x87.c and xsave.c. */

static inline u64 address_mask(const struct insn *i)
{
	return i->asize == 8 ? ~0ULL : i->asize == 4 ? 0xffffffffULL : 0xffffULL;
}

/* One element of a memory operand, 1 to 8 bytes, never checked for alignment. */
u64 element_read(struct vcpu *v, const struct insn *i, u64 ea, unsigned int size);
void element_write(struct vcpu *v, const struct insn *i, u64 ea, unsigned int size, u64 val);

/* An EVEX instruction whose mask says which elements of memory are accessed; where that is not plain. */
bool evex_selects(const struct insn *i);
void evex_bounced(struct vcpu *v, const struct insn *i, const struct native_stub *s);

/* #UD or #NM by CR0, CR4 and XCR0 when one of the families (FP_*) may not run. SDM 3A 2.5 */
void fp_gate_slow(struct vcpu *v, u32 families);
static __always_inline_ void fp_gate(struct vcpu *v, u32 families)
{
	if (unlikely(v->fp_trap & families))
		fp_gate_slow(v, families);
}

/* A stub ended with this vector: raises what the guest sees. */
__noreturn_ void native_fault(struct vcpu *v, u64 vector);
/* A waiting instruction met a pending unmasked x87 exception: #MF, or IRQ 13. SDM 1 8.7 */
__noreturn_ void x87_error(struct vcpu *v);
/* Raises it if there is one: before a page fault of the instruction's operand, as the CPU does. */
void x87_wait(struct vcpu *v);
/* FSW.TOP := top; the image is in stack order, so its registers are renumbered. */
void x87_set_top(struct fxsave_image *fx, unsigned int top);
/* Does it leave FOP, FIP and FDP as they are? */
bool x87_is_control(u8 modrm, u8 escape);
/* FNCLEX and FNINIT end a pending error. */
bool x87_clears_error(u8 modrm, u8 escape);
/* The cause is gone: IRQ 13 falls. */
void x87_error_cleared(struct vcpu *v);

#endif
