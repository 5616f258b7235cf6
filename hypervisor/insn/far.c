/*
 * Instructions that go to another segment or privilege level: far JMP, CALL, RET, IRET, INT, and
 * the fast system calls. SDM 2, APM 3. The work of the former is in x86/far.c and x86/event.c.
 *
 * SYSCALL and its kin exist in different modes on AMD and Intel; the guest's vendor decides.
 */
#include <linux/errno.h>

#include "hypervisor/insn/exec.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/segment.h"
#include "hypervisor/x86/smm.h"

static u64 next_rip(const struct vcpu *v, const struct insn *i)
{
	return (v->r[R_RIP] + i->len) & v->rip_mask;
}

/* ---- far JMP, CALL, RET, IRET ---- */

void exec_jmp_far_ptr(struct vcpu *v, const struct insn *i)
{
	far_jump(v, i->imm2, i->imm, i->opsize, next_rip(v, i));
}

void exec_call_far_ptr(struct vcpu *v, const struct insn *i)
{
	far_call(v, i->imm2, i->imm, i->opsize, next_rip(v, i));
}

/*
 * AMD has no 16:64 pointers: REX.W is ignored. APM 3 CALL (Far); LFS, LGS and LSS do as CALL does. What has
 * its pointer in a device, though, KVM runs on its emulator, which knows them whatever the vendor; and that
 * is what guests of KVM see.
 */
static unsigned int pointer_size(struct vcpu *v, const struct insn *i, u64 ea)
{
	if (i->opsize == 8 && vcpu_amd(v) && !mem_is_io(v, i->seg, ea))
		return 4;
	return i->opsize;
}

struct far_pointer far_pointer_load(struct vcpu *v, const struct insn *i)
{
	u64 ea = insn_ea(v, i);
	struct far_pointer p = { .opsize = pointer_size(v, i, ea) };

	p.off = mem_read(v, i->seg, ea, p.opsize);
	ea += p.opsize;
	if (i->asize != 8)
		ea = i->asize == 4 ? (u32)ea : (u16)ea;
	p.sel = (u16)mem_read(v, i->seg, ea, 2);
	return p;
}

void exec_jmp_far_mem(struct vcpu *v, const struct insn *i)
{
	struct far_pointer p = far_pointer_load(v, i);

	far_jump(v, p.sel, p.off, p.opsize, next_rip(v, i));
}

void exec_call_far_mem(struct vcpu *v, const struct insn *i)
{
	struct far_pointer p = far_pointer_load(v, i);

	far_call(v, p.sel, p.off, p.opsize, next_rip(v, i));
}

void exec_ret_far(struct vcpu *v, const struct insn *i)
{
	far_return(v, i->opsize, (u16)i->imm);
}

void exec_iret(struct vcpu *v, const struct insn *i)
{
	far_iret(v, i->opsize, next_rip(v, i));
}

/* ---- software interrupts ---- */

void exec_int(struct vcpu *v, const struct insn *i)
{
	event_soft(v, EV_SOFTINT, (u8)i->imm, i->len);
}

void exec_int3(struct vcpu *v, const struct insn *i)
{
	event_soft(v, EV_SOFTEXC, VEC_BP, i->len);
}

void exec_into(struct vcpu *v, const struct insn *i)
{
	if (v->rflags & RFLAGS_OF)
		event_soft(v, EV_SOFTEXC, VEC_OF, i->len);
	v->r[R_RIP] = next_rip(v, i);
}

void exec_int1(struct vcpu *v, const struct insn *i)
{
	event_soft(v, EV_ICEBP, VEC_DB, i->len);
}

/* ---- fast system calls ---- */

#define CODE_ATTR	(SEG_P | SEG_S | SEG_G | SEG_TYPE_CODE | SEG_TYPE_RW | SEG_TYPE_A)
#define DATA_ATTR	(SEG_P | SEG_S | SEG_G | SEG_DB | SEG_TYPE_RW | SEG_TYPE_A)

static void set_flat(struct segment *s, u16 sel, u32 attr, unsigned int cpl)
{
	*s = (struct segment) {
		.limit = 0xffffffff,
		.attr = attr | cpl << SEG_DPL_SHIFT,
		.sel = (u16)((sel & ~SEL_RPL) | cpl),
	};
}

/* CS, SS and RIP of a fast transfer: all flat. */
static void fast_enter(struct vcpu *v, u16 cs, u16 ss, bool wide, unsigned int cpl, u64 rip)
{
	struct segment code;

	set_flat(&code, cs, CODE_ATTR | (wide ? SEG_L : SEG_DB), cpl);
	set_flat(&v->seg[SEG_SS], ss, DATA_ATTR, cpl);
	far_commit(v, &code, wide ? rip : (u32)rip);
}

/* Intel: 64-bit mode only. AMD: any protected mode. */
static void syscall_check(struct vcpu *v)
{
	if (!(v->efer & EFER_SCE) || !vcpu_protected(v) || vcpu_v86(v))
		raise_ud(v);
	if (!vcpu_64bit(v) && !vcpu_amd(v))
		raise_ud(v);
}

void exec_syscall(struct vcpu *v, const struct insn *i)
{
	u64 next = next_rip(v, i);
	u16 cs = (u16)(v->msr.star >> 32) & 0xfffc;
	bool wide = vcpu_long_mode(v);
	u64 rip = wide ? vcpu_64bit(v) ? v->msr.lstar : v->msr.cstar : (u32)v->msr.star;

	syscall_check(v);
	if (wide) {
		v->r[R_RCX] = next;
		v->r[R_R11] = v->rflags & ~RFLAGS_RF;
		v->rflags = (v->rflags & ~(v->msr.sfmask | RFLAGS_RF)) | RFLAGS_FIXED;
	} else {
		v->r[R_RCX] = (u32)next;
		v->rflags &= ~(RFLAGS_IF | RFLAGS_RF | RFLAGS_VM);
	}
	/*
	 * Whether to trap after it is asked of the new TF, so that a masked TF never traps in the
	 * kernel.
	 */
	v->step_tf = v->rflags & RFLAGS_TF;
	fast_enter(v, cs, (u16)(cs + 8), wide, 0, rip);
}

#define SYSRET_FLAGS	0x3c7fd7ULL

void exec_sysret(struct vcpu *v, const struct insn *i)
{
	u16 star = (u16)(v->msr.star >> 48);
	bool wide = i->opsize == 8, was_if = v->rflags & RFLAGS_IF;
	u64 rip = wide ? v->r[R_RCX] : (u32)v->r[R_RCX];

	syscall_check(v);
	if (v->cpl != 0)
		raise_gp(v, 0);
	/* Intel checks here; AMD lets the fetch at the other privilege level fault. */
	if (wide && !vcpu_amd(v) && !linear_canonical(v, rip))
		raise_gp(v, 0);
	if (vcpu_long_mode(v))
		v->rflags = (v->r[R_R11] & SYSRET_FLAGS) | RFLAGS_FIXED;
	else
		v->rflags |= RFLAGS_IF;
	fast_enter(v, (u16)(wide ? star + 16 : star), (u16)(star + 8), wide, 3, rip);
	if (!was_if)
		event_unmasked(v);
	v->step_tf = false;
	if (v->rflags & RFLAGS_TF)
		debug_raise_trap(v, DR6_BS);
}

/* AMD has them in legacy mode only. APM 3 SYSENTER */
static void sysenter_check(struct vcpu *v)
{
	if (vcpu_long_mode(v) && vcpu_amd(v))
		raise_ud(v);
	if (vcpu_real(v) || sel_null((u16)v->msr.sysenter_cs))
		raise_gp(v, 0);
}

void exec_sysenter(struct vcpu *v, const struct insn *i)
{
	u16 cs = (u16)v->msr.sysenter_cs & 0xfffc;
	bool wide = vcpu_long_mode(v);

	sysenter_check(v);
	v->rflags &= ~(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
	v->r[R_RSP] = wide ? v->msr.sysenter_esp : (u32)v->msr.sysenter_esp;
	fast_enter(v, cs, (u16)(cs + 8), wide, 0, v->msr.sysenter_eip);
}

void exec_sysexit(struct vcpu *v, const struct insn *i)
{
	u16 cs = (u16)v->msr.sysenter_cs;
	bool wide = i->opsize == 8;

	sysenter_check(v);
	if (v->cpl != 0)
		raise_gp(v, 0);
	if (wide && !(linear_canonical(v, v->r[R_RCX]) && linear_canonical(v, v->r[R_RDX])))
		raise_gp(v, 0);
	cs = (u16)(cs + (wide ? 32 : 16));
	v->r[R_RSP] = wide ? v->r[R_RCX] : (u32)v->r[R_RCX];
	fast_enter(v, cs, (u16)(cs + 8), wide, 3, v->r[R_RDX]);
}

/* The state that comes back is another world's: everything begins anew there. SDM 2B RSM */
void exec_rsm(struct vcpu *v, const struct insn *i)
{
	int ret;

	if (!v->smm)
		raise_ud(v);
	fpu_put(v);
	ret = smm_leave(v);
	if (ret == -EFAULT)
		emulation_failed(v);
	vcpu_unwind(v, ret ? UNWIND_SHUTDOWN : UNWIND_RESTART);
}
