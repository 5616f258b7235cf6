/*
 * A virtual CPU: the architectural state, what is derived from it for speed, and what ties it to
 * its VM. Only the vCPU's own thread touches it, but for the fields in "cross-thread" at the end.
 *
 * After any change of a control register, EFER, RFLAGS.{VM,AC,TF}, CS, SS, or another segment, the
 * derived part is stale: vcpu_update_mode() (x86/mode.c) renews all of it from the architectural
 * part.
 */
#ifndef QUMRA_HYPERVISOR_X86_VCPU_H
#define QUMRA_HYPERVISOR_X86_VCPU_H

#include <linux/kvm.h>

#include "hypervisor/os/os.h"
#include "hypervisor/x86/pmu.h"
#include "hypervisor/x86/pv.h"
#include "hypervisor/x86/regs.h"
#include "hypervisor/x86/space.h"
#include "hypervisor/x86/stat.h"

struct vm;
struct lapic;
struct code_cache;
struct native;

/* v->r[]: the 16 GPRs by their encoding, then two that make effective addresses uniform. */
enum {
	R_RAX, R_RCX, R_RDX, R_RBX, R_RSP, R_RBP, R_RSI, R_RDI,
	R_R8, R_R9, R_R10, R_R11, R_R12, R_R13, R_R14, R_R15,
	R_ZERO,		/* reads as zero: no base or no index */
	R_RIP,		/* address of the instruction being executed */
	R_TEMP,		/* a base computed during one instruction (insn/decode.c) */
	NR_REGS,
};

enum segreg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, NR_SEGS };

/* attr: bits 23:8 of a descriptor's second dword shifted right by 8, plus SEG_UNUSABLE. */
struct segment {
	u64 base;
	u32 limit;	/* in bytes, granularity applied */
	u32 attr;
	u16 sel;
};

struct dtable {
	u64 base;
	u16 limit;
};

/* An event on its way to the guest's IDT. */
enum event_type {
	EV_NONE,
	EV_EXTINT,	/* external interrupt */
	EV_NMI,
	/* hardware exception; its RIP is that of the instruction, RF set in the image */
	EV_FAULT,
	EV_TRAP,	/* hardware exception reported after the instruction (#DB traps) */
	EV_SOFTINT,	/* INT n */
	EV_SOFTEXC,	/* INT3, INTO */
	EV_ICEBP,	/* INT1 */
};

struct event {
	u8 type;	/* enum event_type */
	u8 vector;
	bool has_error;
	u8 insn_len;	/* soft events: RIP pushed is R_RIP + insn_len */
	bool settled;	/* by user space or a chip: no payload, CR2 and DR6 stay */
	/* Delivery has begun, or came about without an instruction: what KVM calls injected. Others
	 * are pending, and come again if the instruction at RIP does. */
	bool injected;
	u32 error;
	u64 payload;	/* CR2 for #PF, DR6 bits for #DB */
};

/* Why an engine handler unwound to the engine's loop (v->unwind_reason). */
enum unwind {
	UNWIND_NONE,
	UNWIND_EVENT,	/* v->event is to be delivered */
	/* user space must act: v->run is filled in; the instruction runs again on re-entry */
	UNWIND_EXIT,
	UNWIND_RESTART,	/* run on from the present state: the instruction is over or begins again */
	UNWIND_SHUTDOWN,/* triple fault */
};

/*
 * The instruction's accesses that user space serves. On its first run an instruction that needs one
 * unwinds with UNWIND_EXIT; on re-entry it is executed again from its start, and the accesses
 * already served take their results from here in order. Cleared when an instruction retires.
 */
#define IO_FRAGMENTS 64	/* a vector of bytes with each second one masked: 32; with #AC: 64 */
struct io_fragment {
	u64 addr;	/* guest physical, or port */
	u8 len;
	bool write, pio;
	bool msr, failed;	/* RDMSR, WRMSR: addr is the register; user space says #GP */
	bool hypercall;		/* addr is its number */
	u8 data[8];
};
struct io_log {
	u32 done;	/* fragments served */
	u32 next;	/* the next one to replay */
	bool waiting;	/* fragment [done] is with user space */
	struct io_fragment frag[IO_FRAGMENTS];
};

/* A repeated INS or OUTS moves several elements by one exit: those of fragment [done] or the last one. */
#define IO_BATCH 1024	/* bytes, as in KVM */
struct io_batch {
	u32 count;
	u8 data[IO_BATCH];
};

/* With any 32-bit offset, an address that no tag holds. */
#define HIT_NEVER	BIT(62)

/* v->fp_trap: families of instructions that must not simply run (TS, EM, OSFXSR, XCR0 ...). */
#define FP_X87	1
#define FP_MMX	2
#define FP_SSE	4
#define FP_AVX	8
#define FP_AVX512 16

/*
 * Requests, v->requests: set by anyone with vcpu_request(), served by the run loop between guest
 * code.
 */
enum {
	REQ_EVENT,		/* look at interrupts, NMI, SMI again */
	REQ_TLB_FLUSH,		/* drop all translations */
	REQ_CODE_FLUSH,		/* drop decoded code */
	REQ_TLB_PROTECT_CODE,	/* v->protect: drop write translations, a page now holds code */
	REQ_CODE_STALE,		/* another vCPU wrote over code that this one has used */
	REQ_CLOCK_UPDATE,	/* rewrite the paravirtual clock page */
	REQ_TRIPLE_FAULT,
	REQ_APIC_TIMER,		/* the local APIC timer fired */
	REQ_EXIT,		/* user space wants the vCPU out (immediate_exit, reset) */
	REQ_VM_DEAD,		/* the VM was stopped by an internal error */
	REQ_PAUSE,		/* stop the world: another thread changes the slots */
	REQ_PMU,		/* look at the performance counters */
	REQ_IOAPIC_EOI,		/* user space's IOAPIC is to hear of an EOI */
	REQ_TPR_ACCESS,		/* KVM_TPR_ACCESS_REPORTING: the guest has used its APIC's TPR */
	REQ_HYPERV,		/* x86/hyperv.h: v->hv->todo says what */
	REQ_SET_TPR,		/* the guest has lowered CR8, and the local APIC is user space's */
	REQ_BUS_LOCK,		/* KVM_CAP_X86_BUS_LOCK_EXIT: the guest has used a bus lock */
};

/* The ratio of guest to host TSC ticks is a fixed-point number. */
#define TSC_RATIO_SHIFT	48
#define TSC_RATIO_ONE	BIT(TSC_RATIO_SHIFT)

/* Guest registers that translated code keeps in memory, but for some loops: dbt/home.c. */
#define HOME_BORROWERS	3

struct vcpu {
	/*
	 * ---- hot: the first page, which each space has once more at its start -----------------
	 * Translated code reaches these by GS (dbt/), other code by v.
	 */
	u64 r[NR_REGS];
	u64 rflags;		/* complete and architectural, bit 1 set */
	struct space *space;	/* the present address space */
	u64 tlb_ctx;		/* bits 11:3 address space, 2:1 enum mmu_index, 0 clear */
	u32 tlb_tags;		/* byte offset in a TLB entry of the tags for v->mmu_idx */
	/* zero, or TLB_NEVER while each access must be checked (#AC): ORed to what is compared */
	u32 tlb_never;
	/* what mem_hit() compares: space->tlb + tlb_tags; no valid tags while tlb_never is set */
	u8 *tlb_hit;
	/* ebase, or HIT_NEVER while each access through the segment must be checked */
	u64 hit_base[6];
	u64 ebase[6];		/* base to add by segment: zero for ES CS SS DS in 64-bit mode */
	u32 fp_trap;		/* FP_* that raise #UD or #NM */
	volatile u32 kick;	/* non-zero: leave guest code at the next boundary (cross-thread) */
	u8 cpl;
	u8 code_bytes;		/* 2, 4 or 8: decoding mode from CS.D, CS.L, EFER.LMA */
	u8 stack_bytes;		/* 2, 4 or 8: width of the stack pointer */
	u8 mmu_idx;		/* enum mmu_index of ordinary data accesses */
	/* one instruction at a time: TF, RF, shadows, breakpoints, guest debug */
	bool step;
	bool boundary;		/* the present instruction did I/O or wrote into decoded code:
				 * the interpreter leaves its block after it */
	/* an interrupt waits for IF or the end of a shadow: come back when it can */
	bool irq_wanted;
	/* the guest's vector state is in the host's registers (x86/fpu.h) */
	bool fpu_live;
	bool insns_counted;	/* x86/pmu.h */
	u64 stack_mask;		/* of RSP by stack_bytes */
	u64 rip_mask;		/* of RIP by code_bytes */
	struct dbt_hot {	/* the translator's own (dbt/dbt.h) */
		u64 page;	/* linear address of the page that runs */
		/*
		 * The stack's page in the present space and mode, where it is plain writable
		 * memory: the last hit. TLB_INVALID: unknown.
		 */
		u64 stack_tag, stack_addend;
		u32 flags;	/* arithmetic flags as LAHF and SETO leave them in AX */
		u32 exit;	/* why and where translated code was left */
		u64 host_rsp;	/* the stack to go back to; there lies ret_base */
		/*
		 * Return addresses of the guest's calls are on the host's stack beneath
		 * (dbt/dbt.h): how far down, what a return finds that has no call there, and
		 * whether all of them are void.
		 */
		u64 ret_limit, ret_base;
		u32 ret_void;
		u64 arg;
		u64 slot[16], slot_page[16];
		u64 away[HOME_BORROWERS];	/* of lenders of registers: dbt/home.c */
		u64 fault_rip, fault_vector;	/* of a host fault, by os/native.c */
		u64 fault_r11;			/* the host's registers there */
		u32 fault_ax;
		/*
		 * The last x87 instruction, where v->fpu does not have it yet (dbt/x87.c): opcode
		 * and place, the operand's segment and address; 0 and X87_NO_DATA: none.
		 */
		u32 x87_last, x87_seg;
		u64 x87_page, x87_data;
	} hot;
	u8 hot_end[0];

	/* ---- architectural ------------------------------------------------------------------- */
	struct segment seg[NR_SEGS];
	struct dtable gdt, idt;
	u64 cr0, cr2, cr3, cr4, cr8, efer, xcr0, xss;
	u64 pdpte[4];		/* PAE: loaded with CR3 */
	u64 dr[4], dr6, dr7;
	u64 tsc_offset;		/* guest TSC = host TSC * tsc_ratio / TSC_RATIO_ONE + tsc_offset */
	u64 tsc_ratio;
	u32 tsc_khz;		/* as user space set it */
	struct msr_state {	/* the rest by x86/msr.c's table */
		u64 star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
		u64 sysenter_cs, sysenter_esp, sysenter_eip;
		u64 pat, misc_enable, debugctl, tsc_adjust, apic_base, tsc_deadline, bios_sign_id;
		u64 mtrr_def_type, mtrr_fix[11], mtrr_base[8], mtrr_mask[8];
		u64 mcg_status, mcg_ctl, mc_bank[32][4];
		u64 spec_ctrl, arch_capabilities;
		u64 hwcr, syscfg, vm_hsave_pa, de_cfg, nb_cfg;
		u64 mcg_cap;	/* KVM_X86_SETUP_MCE */
		u64 feat_ctl, platform_info, power_ctl;
		u64 kvm_system_time, kvm_wall_clock, kvm_steal_time;
		u64 kvm_async_pf_en, kvm_pv_eoi, kvm_poll_control;
		u64 kvm_async_pf_int;
		u64 smbase, smi_count;
		u64 perf_capabilities;
		u64 mc_ctl2[32];	/* by bank */
		u64 misc_features;
	} msr;
	struct fpu *fpu;	/* x86/fpu.h */
	struct pmu pmu;

	/* ---- events -------------------------------------------------------------------------- */
	struct event event;	/* with UNWIND_EVENT: to be delivered; type EV_NONE otherwise */
	struct event delivering;/* being delivered: a fault now is contributory */
	struct event pending_db;/* #DB trap to take after the present instruction */
	u8 nmi_pending;		/* how many: up to 2, event_nmi() */
	bool nmi_blocked;
	/* STI or MOV SS: no interrupt after the next instruction boundary */
	bool irq_shadow;
	bool mov_ss_shadow;	/* MOV SS, POP SS: debug traps wait as well */
	/* step mode: RFLAGS.TF was set when the present instruction began */
	bool step_tf;
	/* step mode: the present instruction loaded RF, so it stays (IRET, task switch) */
	bool rf_keep;
	bool halted;		/* mirrors mp_state HALTED */
	u32 mp_state;		/* KVM_MP_STATE_* */
	u32 sipi_vector;
	u8 extint_vector;	/* from KVM_INTERRUPT, without an in-kernel irqchip */
	bool extint_pending;
	/* from KVM_INTERRUPT with a split irqchip: the PIC of user space, through LINT0 */
	bool user_pic_pending;
	u8 user_pic_vector;
	bool smm, smi_pending;
	bool smm_inside_nmi;	/* NMIs were blocked when the SMI came */
	u64 mem_space;		/* ORed to guest physical addresses: core/vm.h */
	void *unwind[5];	/* __builtin_setjmp buffer of the engine's loop */
	u32 unwind_reason;	/* enum unwind */
	struct os_fault_catch memory_catch;	/* x86/unwind.c */
	void *guard_arg;	/* for vcpu_guarded()'s function, where it takes one */
	/* Looks at code that user space may have written (core/run.c): */
	u64 look_paid;		/* host TSC up to which their budget is spent, */
	u64 look_fills;		/* what was filled when it was last charged, */
	u64 look_fills_left;	/* what may still be charged for the last look, */
	u64 look_mark;		/* and what was filled at that look */
	u64 user_wrote_seen;	/* the vm->user_wrote that code was looked at for */
	u64 entered_page[4];	/* where code was entered since all that leads to code was dropped; */
	u32 entered_pages;	/* how many, one more than there is room for: too many (core/code_page.h) */
	bool look_again;	/* these are to be looked at before the guest goes on */
	bool memory_lost;	/* why the engine comes back with UNWIND_EXIT: KVM_RUN is -EFAULT */
	bool ran;		/* it has executed an instruction: its CPUID stays */
	bool code_locked;	/* vm->code_lock is ours (core/code_page.c) */
	struct io_log io;
	struct io_batch io_batch;
	u32 guest_debug;	/* KVM_SET_GUEST_DEBUG: KVM_GUESTDBG_* */
	u64 guest_debug_dr[8];	/* with KVM_GUESTDBG_USE_HW_BP: instead of the guest's own */

	/* ---- paging -------------------------------------------------------------------------- */
	struct mmu_state {
		u16 asid_next;
		u16 spaces_ready;		/* the first so many spaces have been used */
		u16 space_next;			/* whose turn it is to be reused */
		u64 maxphyaddr_mask;		/* reserved physical address bits, set */
	} mmu;

	/* ---- CPUID --------------------------------------------------------------------------- */
	struct kvm_cpuid_entry2 cpuid[128];
	u32 cpuid_n;
	u8 maxphyaddr, maxlinaddr;
	u64 guest_features[4];	/* bitmap of enum cpu_feature (x86/cpuid.h) that this guest has */

	/* ---- paravirtual interfaces ---------------------------------------------------------- */
	struct pv_state pv;	/* KVM's: x86/pv.h */
	struct hv_vcpu *hv;	/* Hyper-V's: x86/hyperv.h. NULL until it is needed; any thread */

	/* ---- ties ---------------------------------------------------------------------------- */
	struct vm *vm;
	void *spaces;		/* SPACES_SIZE bytes: vcpu_space() */
	u32 id;			/* as given to KVM_CREATE_VCPU: the APIC id */
	u32 index;
	int fd;
	struct kvm_run *run;	/* shared with user space */
	struct lapic *lapic;	/* NULL without an in-kernel irqchip */
	struct code_cache *code;/* insn/code.c */
	struct native *native;	/* insn/native.c */
	const struct cpu_engine_ops *engine;
	void *engine_state;
	struct os_mutex mutex;	/* one ioctl at a time */
	u64 signal_mask;	/* KVM_SET_SIGNAL_MASK: signals that do not end KVM_RUN */
	bool signal_mask_set;
	struct os_timer signal_poll;	/* looks for the others while KVM_RUN lasts */

	/* ---- cross-thread -------------------------------------------------------------------- */
	u32 requests;		/* REQ_* bits, atomic */
	u32 in_guest;		/* the vCPU thread runs guest code or holds slot pointers, atomic */
	struct vcpu_protect {	/* REQ_TLB_PROTECT_CODE, core/code_page.c; all atomic */
		u64 page;	/* which, with flags */
		u32 asked, done;	/* numbers of the last request and of the last served */
	} protect;
	u32 pauses;		/* PAUSE instructions executed, its thread only */
	bool exclusive;		/* this vCPU has stopped all others; its thread only */
	struct dirty_ring {	/* core/dirty_ring.c; size 0: there are none */
		struct kvm_dirty_gfn *gfn;
		u32 size, dirty, reset;
	} dirty_ring;
	struct os_event wake;	/* ends a HLT sleep */
	u64 halt_poll_ns;	/* the next HLT's: core/halt.c */
	struct vcpu_stat stat;	/* x86/stat.h */
	struct stats_file stats;
};

_Static_assert(offsetof(struct vcpu, hot_end) <= 4096, "the hot page");
/* NR_SPACES of SPACE_SIZE, and a TLB that stays empty. */
#define TLB_SIZE_BYTES	(TLB_ENTRIES * sizeof(struct tlb_entry))
#define SPACES_SIZE	(NR_SPACES * SPACE_SIZE + TLB_SIZE_BYTES)
static inline struct space *vcpu_space(const struct vcpu *v, unsigned int n)
{
	return (struct space *)((u8 *)v->spaces + n * SPACE_SIZE);
}

/*
 * Handler unwinding. All three leave the present handler at once and never return to it, so a
 * handler makes every access that can fault before it changes state.
 */
__noreturn_ void vcpu_unwind(struct vcpu *v, enum unwind why);
/* A hardware fault; error is pushed for the vectors that have one. */
__noreturn_ void vcpu_raise(struct vcpu *v, u8 vector, u32 error);
__noreturn_ void vcpu_raise_pf(struct vcpu *v, u64 linear, u32 error);
#define raise_ud(v)		vcpu_raise((v), VEC_UD, 0)
#define raise_gp(v, err)	vcpu_raise((v), VEC_GP, (err))

/*
 * x86/mode.c: recomputes everything derived (cpl, widths, bases, checks, tlb_*, fp_trap, step).
 */
void vcpu_update_mode(struct vcpu *v);

static inline bool vcpu_long_mode(const struct vcpu *v) { return v->efer & EFER_LMA; }
static inline bool vcpu_64bit(const struct vcpu *v) { return v->code_bytes == 8; }
static inline bool vcpu_protected(const struct vcpu *v) { return v->cr0 & CR0_PE; }
static inline bool vcpu_v86(const struct vcpu *v) { return v->rflags & RFLAGS_VM; }
static inline bool vcpu_align_checked(const struct vcpu *v)
{
	return unlikely(v->rflags & RFLAGS_AC) && v->cpl == 3 && v->cr0 & CR0_AM;
}
static inline bool vcpu_real(const struct vcpu *v) { return !vcpu_protected(v); }

/* A new base for FS or GS (WRMSR, WRFSBASE, SWAPGS); the rest of the segment stays. */
static inline void segment_set_base(struct vcpu *v, enum segreg s, u64 base)
{
	v->seg[s].base = base;
	v->ebase[s] = base;
	if (v->hit_base[s] != HIT_NEVER)
		v->hit_base[s] = vcpu_64bit(v) ? base : HIT_NEVER;
}

/* core/request.c. Any thread. */
void vcpu_request(struct vcpu *v, int req);	/* sets the bit and kicks */
/* For what only matters once it runs guest code again: does not end a sleep. */
void vcpu_request_lazy(struct vcpu *v, int req);
void vcpu_kick(struct vcpu *v);			/* out of guest code or HLT, soon */

#endif
