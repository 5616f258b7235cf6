/*
 * Debug registers, breakpoints, single-step, and KVM_SET_GUEST_DEBUG. SDM 3B chapter 17.
 *
 * While anything here is active the engine runs in step mode (v->step): debug_before_insn() and
 * debug_after_insn() frame each instruction. Accesses report to debug_data_access() and
 * debug_io_access(), which collect DR6 bits in v->pending_db; the trap comes after the instruction.
 */
#include "hypervisor/insn/insn.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/segment.h"

#define NR_BREAKPOINTS 4

/* DR7's fields of breakpoint n. SDM 3B 17.2.4 */
enum bp_kind { BP_EXEC, BP_WRITE, BP_IO, BP_ACCESS };

static bool dr7_enabled(u64 dr7, unsigned int n) { return dr7 >> (2 * n) & 3; }
static enum bp_kind dr7_kind(u64 dr7, unsigned int n) { return dr7 >> (16 + 4 * n) & 3; }
static unsigned int dr7_size(u64 dr7, unsigned int n)
{
	static const u8 size[] = { 1, 2, 8, 4 };

	return size[dr7 >> (18 + 4 * n) & 3];
}

/* The debugger's breakpoints take the place of the guest's. */
static const u64 *debug_addresses(const struct vcpu *v)
{
	return v->guest_debug & KVM_GUESTDBG_USE_HW_BP ? v->guest_debug_dr : v->dr;
}

static u64 debug_control(const struct vcpu *v)
{
	return v->guest_debug & KVM_GUESTDBG_USE_HW_BP ? v->guest_debug_dr[7] : v->dr7;
}

bool debug_armed(const struct vcpu *v)
{
	return debug_control(v) & DR7_ENABLED || v->guest_debug & KVM_GUESTDBG_SINGLESTEP;
}

/* DR6 bits of the enabled breakpoints of the kinds in the mask that lie in [addr, addr + size). */
static u64 debug_match(const struct vcpu *v, u64 addr, u64 size, unsigned int kinds)
{
	const u64 *dr = debug_addresses(v);
	u64 dr7 = debug_control(v), hits = 0;
	unsigned int n;

	for (n = 0; n < NR_BREAKPOINTS; n++) {
		u64 len = dr7_size(dr7, n);
		u64 first = dr[n] & ~(len - 1);

		if (!dr7_enabled(dr7, n) || !(BIT(dr7_kind(dr7, n)) & kinds))
			continue;
		if (addr < first + len && first < addr + size)
			hits |= BIT(n);
	}
	return hits;
}

bool debug_watches_page(const struct vcpu *v, u64 la)
{
	if (!(debug_control(v) & DR7_ENABLED))
		return false;
	return debug_match(v, ALIGN_DOWN(la, 4096), 4096, BIT(BP_WRITE) | BIT(BP_ACCESS));
}

static void debug_record(struct vcpu *v, u64 hits)
{
	if (!hits)
		return;
	v->pending_db.type = EV_TRAP;
	v->pending_db.vector = VEC_DB;
	v->pending_db.payload |= hits;
}

void debug_data_access(struct vcpu *v, u64 la, unsigned int size, bool write)
{
	debug_record(v, debug_match(v, la, size, BIT(BP_ACCESS) | (write ? BIT(BP_WRITE) : 0)));
}

void debug_io_access(struct vcpu *v, u16 port, unsigned int size)
{
	if (v->cr4 & CR4_DE)
		debug_record(v, debug_match(v, port, size, BIT(BP_IO)));
}

/* ---- reporting ---- */

/* To user space, with RIP where the guest goes on. */
static __noreturn_ void debug_exit(struct vcpu *v, u8 vector, u64 dr6)
{
	struct kvm_debug_exit_arch *arch = &v->run->debug.arch;

	v->run->exit_reason = KVM_EXIT_DEBUG;
	arch->exception = vector;
	arch->pc = v->ebase[SEG_CS] + v->r[R_RIP];
	arch->dr6 = dr6 | DR6_FIXED;
	arch->dr7 = debug_control(v);
	io_log_clear(v);
	vcpu_update_mode(v);
	vcpu_unwind(v, UNWIND_EXIT);
}

static __noreturn_ void debug_raise(struct vcpu *v, enum event_type type, u64 payload)
{
	v->event = (struct event) { .type = (u8)type, .vector = VEC_DB, .payload = payload };
	vcpu_unwind(v, UNWIND_EVENT);
}

void debug_raise_trap(struct vcpu *v, u64 payload)
{
	v->pending_db.type = EV_NONE;
	v->pending_db.payload = 0;
	v->halted = false;
	io_log_clear(v);
	if (v->guest_debug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP))
		debug_exit(v, VEC_DB, payload);
	debug_raise(v, EV_TRAP, payload);
}

void debug_take_pending(struct vcpu *v)
{
	if (v->pending_db.type != EV_NONE)
		debug_raise_trap(v, v->pending_db.payload);
}

void debug_breakpoint_insn(struct vcpu *v)
{
	if (v->guest_debug & KVM_GUESTDBG_USE_SW_BP)
		debug_exit(v, VEC_BP, 0);
}

/* B0 to B3 say what this exception is, BD BS BT stay until the guest clears them. SDM 3B 17.2.3 */
void debug_commit(struct vcpu *v, u64 payload)
{
	v->dr6 = (v->dr6 & ~MASK(3, 0)) | payload | DR6_FIXED;
	v->dr7 &= ~DR7_GD;
}

/* ---- around each instruction in step mode ---- */

void debug_before_insn(struct vcpu *v)
{
	u64 hits;

	v->rf_keep = false;
	v->step_tf = v->rflags & RFLAGS_TF;
	if (v->rflags & RFLAGS_RF || !(debug_control(v) & DR7_ENABLED))
		return;
	/* Intel holds code breakpoints back behind MOV SS, AMD does not. */
	if (v->mov_ss_shadow && !vcpu_amd(v))
		return;
	hits = debug_match(v, v->ebase[SEG_CS] + v->r[R_RIP], 1, BIT(BP_EXEC));
	if (!hits)
		return;
	if (v->guest_debug & KVM_GUESTDBG_USE_HW_BP)
		debug_exit(v, VEC_DB, hits);
	debug_raise(v, EV_FAULT, hits);
}

void debug_after_insn(struct vcpu *v)
{
	u64 payload = v->pending_db.type != EV_NONE ? v->pending_db.payload : 0;

	if (v->rflags & RFLAGS_RF && !v->rf_keep) {
		v->rflags &= ~RFLAGS_RF;
		vcpu_update_mode(v);
	}
	/* After MOV SS, breakpoints wait for one more instruction and single-step is skipped. */
	if (v->mov_ss_shadow)
		return;
	if (v->step_tf || v->guest_debug & KVM_GUESTDBG_SINGLESTEP)
		payload |= DR6_BS;
	if (payload)
		debug_raise_trap(v, payload);
}

/* ---- MOV DR ---- */

/* General detect: of the guest's DR7, or of the debugger's in its place. */
static __noreturn_ void debug_access(struct vcpu *v)
{
	if (v->guest_debug & KVM_GUESTDBG_USE_HW_BP)
		debug_exit(v, VEC_DB, DR6_BD);
	debug_raise(v, EV_FAULT, DR6_BD);
}

/* DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE says that they are nothing. */
static unsigned int dr_check(struct vcpu *v, unsigned int nr)
{
	if (nr > 7 || ((nr == 4 || nr == 5) && v->cr4 & CR4_DE))
		raise_ud(v);
	if (v->cpl != 0)
		raise_gp(v, 0);
	if (debug_control(v) & DR7_GD)
		debug_access(v);
	return nr == 4 || nr == 5 ? nr + 2 : nr;
}

#define DR6_WRITABLE	(MASK(3, 0) | DR6_BD | DR6_BS | DR6_BT)
#define DR7_WRITABLE	0xffff23ffULL

void dr_write(struct vcpu *v, unsigned int nr, u64 val)
{
	nr = dr_check(v, nr);
	if (nr >= 6 && val >> 32)
		raise_gp(v, 0);
	if (nr == 6)
		v->dr6 = (val & DR6_WRITABLE) | DR6_FIXED;
	else if (nr == 7)
		v->dr7 = (val & DR7_WRITABLE) | DR7_FIXED;
	else
		v->dr[nr & 3] = val;
	/* Pages come to be watched, or no longer are. */
	if (nr != 6)
		mmu_flush_all(v);
	vcpu_update_mode(v);
}

u64 dr_read(struct vcpu *v, unsigned int nr)
{
	nr = dr_check(v, nr);
	if (nr == 6)
		return v->dr6;
	return nr == 7 ? v->dr7 : v->dr[nr & 3];
}
