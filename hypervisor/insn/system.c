/*
 * Control of the processor: control and debug registers, interrupt flag, HLT, MSRs, time stamp,
 * CPUID, ports, TLB and cache control. SDM 2, APM 3. Virtual-8086 mode extensions (CR4.VME, PVI) are
 * not offered.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/insn/exec.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/msr.h"
#include "hypervisor/x86/segment.h"

static void require_cpl0(struct vcpu *v)
{
	if (v->cpl != 0)
		raise_gp(v, 0);
}

/* MOV CR and MOV DR always move whole registers of the mode. */
static unsigned int register_size(const struct vcpu *v)
{
	return vcpu_64bit(v) ? 8 : 4;
}

/* ---- control and debug registers ---- */

static void cr_number_check(struct vcpu *v, unsigned int nr)
{
	if (nr != 0 && nr != 2 && nr != 3 && nr != 4 && nr != 8)
		raise_ud(v);
	require_cpl0(v);
}

void exec_mov_from_cr(struct vcpu *v, const struct insn *i)
{
	cr_number_check(v, i->reg);
	gpr_set(v, i->rm, register_size(v), cr_read(v, i->reg));
}

void exec_mov_to_cr(struct vcpu *v, const struct insn *i)
{
	cr_number_check(v, i->reg);
	cr_write(v, i->reg, gpr_get(v, i->rm, register_size(v)));
}

void exec_mov_from_dr(struct vcpu *v, const struct insn *i)
{
	gpr_set(v, i->rm, register_size(v), dr_read(v, i->reg));
}

void exec_mov_to_dr(struct vcpu *v, const struct insn *i)
{
	dr_write(v, i->reg, gpr_get(v, i->rm, register_size(v)));
}

void exec_clts(struct vcpu *v, const struct insn *i)
{
	require_cpl0(v);
	v->cr0 &= ~CR0_TS;
	vcpu_update_mode(v);
}

/* PE can be set, not cleared. SDM 2A LMSW */
void exec_lmsw(struct vcpu *v, const struct insn *i)
{
	const u64 bits = CR0_MP | CR0_EM | CR0_TS;
	u64 val;

	require_cpl0(v);
	val = i->flags & I_MEM ? insn_load(v, i, 2) : gpr_get(v, i->rm, 2);
	cr_write(v, 0, (v->cr0 & ~bits) | (val & (bits | CR0_PE)));
}

/* ---- interrupt flag, HLT ---- */

static void require_iopl(struct vcpu *v)
{
	if (v->cpl > (v->rflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT)
		raise_gp(v, 0);
}

void exec_cli(struct vcpu *v, const struct insn *i)
{
	require_iopl(v);
	v->rflags &= ~RFLAGS_IF;
}

/* No interrupt before the next instruction is over, if they were off until now. SDM 2B STI */
void exec_sti(struct vcpu *v, const struct insn *i)
{
	require_iopl(v);
	if (v->rflags & RFLAGS_IF)
		return;
	v->rflags |= RFLAGS_IF;
	v->irq_shadow = true;
	vcpu_update_mode(v);
}

void exec_hlt(struct vcpu *v, const struct insn *i)
{
	require_cpl0(v);
	v->halted = true;
}

/* ---- SMAP's flag ---- */

static void set_ac(struct vcpu *v, bool on)
{
	if (v->cpl != 0)
		raise_ud(v);
	v->rflags = on ? v->rflags | RFLAGS_AC : v->rflags & ~RFLAGS_AC;
	vcpu_update_mode(v);
}

void exec_clac(struct vcpu *v, const struct insn *i)
{
	set_ac(v, false);
}

void exec_stac(struct vcpu *v, const struct insn *i)
{
	set_ac(v, true);
}

/* ---- ports ---- */

static void port_in(struct vcpu *v, u16 port, unsigned int size)
{
	io_check(v, port, size);
	gpr_set(v, R_RAX * 8, size, pio_read(v, port, size));
	if (unlikely(v->step))
		debug_io_access(v, port, size);
}

static void port_out(struct vcpu *v, u16 port, unsigned int size)
{
	io_check(v, port, size);
	pio_write(v, port, size, (u32)gpr_get(v, R_RAX * 8, size));
	if (unlikely(v->step))
		debug_io_access(v, port, size);
}

void exec_in(struct vcpu *v, const struct insn *i)
{
	port_in(v, (u8)i->imm, i->opsize);
}

void exec_in_dx(struct vcpu *v, const struct insn *i)
{
	port_in(v, (u16)v->r[R_RDX], i->opsize);
}

void exec_out(struct vcpu *v, const struct insn *i)
{
	port_out(v, (u8)i->imm, i->opsize);
}

void exec_out_dx(struct vcpu *v, const struct insn *i)
{
	port_out(v, (u16)v->r[R_RDX], i->opsize);
}

/* ---- MSRs, time stamp, CPUID ---- */

static void set_edx_eax(struct vcpu *v, u64 val)
{
	v->r[R_RAX] = (u32)val;
	v->r[R_RDX] = val >> 32;
}

static u64 get_edx_eax(const struct vcpu *v)
{
	return (u32)v->r[R_RAX] | v->r[R_RDX] << 32;
}

void exec_rdmsr(struct vcpu *v, const struct insn *i)
{
	require_cpl0(v);
	set_edx_eax(v, msr_guest_read(v, (u32)v->r[R_RCX]));
}

void exec_wrmsr(struct vcpu *v, const struct insn *i)
{
	bool counted = v->insns_counted;

	require_cpl0(v);
	msr_guest_write(v, (u32)v->r[R_RCX], get_edx_eax(v));
	/* The first to be counted is the one that starts the counter, as under KVM. */
	v->pmu.insns += v->insns_counted && !counted;
	vcpu_update_mode(v);
}

static void tsc_check(struct vcpu *v)
{
	if (v->cr4 & CR4_TSD && v->cpl != 0)
		raise_gp(v, 0);
}

void exec_rdtsc(struct vcpu *v, const struct insn *i)
{
	tsc_check(v);
	set_edx_eax(v, tsc_read(v));
}

void exec_rdtscp(struct vcpu *v, const struct insn *i)
{
	tsc_check(v);
	__asm__ volatile("lfence" ::: "memory");	/* it waits for what came before */
	set_edx_eax(v, tsc_read(v));
	v->r[R_RCX] = (u32)v->msr.tsc_aux;
}

void exec_rdpid(struct vcpu *v, const struct insn *i)
{
	gpr_set(v, i->rm, register_size(v), (u32)v->msr.tsc_aux);
}

void exec_rdpmc(struct vcpu *v, const struct insn *i)
{
	u64 val;

	if (v->cpl != 0 && !(v->cr4 & CR4_PCE))
		raise_gp(v, 0);
	if (!pmu_read(v, (u32)v->r[R_RCX], &val))
		raise_gp(v, 0);
	set_edx_eax(v, val);
}

/*
 * A serializing instruction of a kernel, after which it may run what DMA has brought. SDM 3A 8.1.3, 8.3
 * Not IRET, nor a program's CPUID: those come by the thousand, and nobody's DMA is behind them.
 */
static void code_serialize(struct vcpu *v)
{
	if (v->cpl == 0)
		mmu_flush_all(v);
}

void exec_cpuid(struct vcpu *v, const struct insn *i)
{
	u32 out[4];

	if (unlikely(v->msr.misc_features & MISC_CPUID_FAULT) && v->cpl != 0)
		raise_gp(v, 0);
	code_serialize(v);
	cpuid_read(v, (u32)v->r[R_RAX], (u32)v->r[R_RCX], out);
	v->r[R_RAX] = out[0];
	v->r[R_RBX] = out[1];
	v->r[R_RCX] = out[2];
	v->r[R_RDX] = out[3];
}

/* ---- FS and GS base ---- */

void exec_swapgs(struct vcpu *v, const struct insn *i)
{
	u64 old = v->seg[SEG_GS].base;

	require_cpl0(v);
	segment_set_base(v, SEG_GS, v->msr.kernel_gs_base);
	v->msr.kernel_gs_base = old;
}

static void base_check(struct vcpu *v)
{
	if (!(v->cr4 & CR4_FSGSBASE))
		raise_ud(v);
}

static void base_write(struct vcpu *v, const struct insn *i, enum segreg s)
{
	u64 val = gpr_get(v, i->rm, i->opsize);

	base_check(v);
	if (!linear_canonical(v, val))
		raise_gp(v, 0);
	segment_set_base(v, s, val);
}

void exec_rdfsbase(struct vcpu *v, const struct insn *i)
{
	base_check(v);
	gpr_set(v, i->rm, i->opsize, v->seg[SEG_FS].base);
}

void exec_rdgsbase(struct vcpu *v, const struct insn *i)
{
	base_check(v);
	gpr_set(v, i->rm, i->opsize, v->seg[SEG_GS].base);
}

void exec_wrfsbase(struct vcpu *v, const struct insn *i)
{
	base_write(v, i, SEG_FS);
}

void exec_wrgsbase(struct vcpu *v, const struct insn *i)
{
	base_write(v, i, SEG_GS);
}

/* ---- XCR0 ---- */

static void xcr_check(struct vcpu *v)
{
	if (!(v->cr4 & CR4_OSXSAVE))
		raise_ud(v);
}

/*
 * XCR 1 is XINUSE; a component may be said to be in use when it holds its initial state. SDM 1 13.6
 */
void exec_xgetbv(struct vcpu *v, const struct insn *i)
{
	u32 nr = (u32)v->r[R_RCX];

	xcr_check(v);
	if (nr > 1 || (nr == 1 && !vcpu_has(v, F_XGETBV1)))
		raise_gp(v, 0);
	set_edx_eax(v, nr ? v->xcr0 & fpu_in_use(v) : v->xcr0);
}

void exec_xsetbv(struct vcpu *v, const struct insn *i)
{
	u64 val = get_edx_eax(v);

	xcr_check(v);
	require_cpl0(v);
	if ((u32)v->r[R_RCX] != 0 || !xcr0_valid(v, val))
		raise_gp(v, 0);
	fpu_put(v);	/* AVX-512's state is loaded only where XCR0 has it */
	v->xcr0 = val;
	cpuid_update(v);
	vcpu_update_mode(v);
}

/* ---- TLB and caches ---- */

/* A non-canonical address is no error. SDM 2A INVLPG */
void exec_invlpg(struct vcpu *v, const struct insn *i)
{
	u64 la = v->ebase[i->seg] + insn_ea(v, i);

	require_cpl0(v);
	if (!vcpu_64bit(v))
		la = (u32)la;
	mmu_flush_page(v, la);
}

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL_GLOBAL, INVPCID_ALL };

void exec_invpcid(struct vcpu *v, const struct insn *i)
{
	u64 type = gpr_get(v, i->reg, register_size(v));
	u64 ea = insn_ea(v, i), pcid, la;

	require_cpl0(v);
	pcid = mem_read(v, i->seg, ea, 8);
	la = mem_read(v, i->seg, mem_wrap(v, ea + 8), 8);
	if (type > INVPCID_ALL || pcid & ~CR3_PCID)
		raise_gp(v, 0);
	if (type <= INVPCID_CONTEXT && pcid && !(v->cr4 & CR4_PCIDE))
		raise_gp(v, 0);
	if (type == INVPCID_ADDRESS && !linear_canonical(v, la))
		raise_gp(v, 0);
	mmu_invpcid(v, (unsigned int)type, pcid, la);
}

/* Memory is coherent with every cache that the guest could have. */
void exec_invd(struct vcpu *v, const struct insn *i)
{
	require_cpl0(v);
	code_serialize(v);
}

void exec_wbinvd(struct vcpu *v, const struct insn *i)
{
	require_cpl0(v);
	code_serialize(v);
}

void exec_clflush(struct vcpu *v, const struct insn *i)
{
	mem_probe(v, i->seg, insn_ea(v, i), 1, MEM_READ);
}

#define CACHE_LINE 64

void exec_clzero(struct vcpu *v, const struct insn *i)
{
	u64 ea = v->r[R_RAX], n;

	if (i->asize != 8)
		ea = i->asize == 4 ? (u32)ea : (u16)ea;
	ea &= ~(u64)(CACHE_LINE - 1);
	mem_probe(v, i->seg, ea, CACHE_LINE, MEM_WRITE);
	for (n = 0; n < CACHE_LINE; n += 8)
		mem_write(v, i->seg, ea + n, 8, 0);
}

/* ---- MONITOR, MWAIT: nothing is waited for, as KVM does it; a guest then polls. ---- */

/*
 * Guests that are not told of them may use them too, unless user space has disabled that quirk. A
 * processor's own checks come first.
 */
static void mwait_check(struct vcpu *v)
{
	if (v->vm->disabled_quirks & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS && !vcpu_has(v, F_MONITOR))
		raise_ud(v);
}

void exec_monitor(struct vcpu *v, const struct insn *i)
{
	u64 ea = v->r[R_RAX];

	if (v->cpl != 0)
		raise_ud(v);
	if ((u32)v->r[R_RCX] != 0)
		raise_gp(v, 0);
	if (i->asize != 8)
		ea = i->asize == 4 ? (u32)ea : (u16)ea;
	mem_probe(v, i->seg, ea, 1, MEM_READ);
	mwait_check(v);
}

#define MWAIT_IRQ_BREAK	BIT(0)	/* ECX: interrupts end it with IF clear, too */

void exec_mwait(struct vcpu *v, const struct insn *i)
{
	if (v->cpl != 0)
		raise_ud(v);
	if ((u32)v->r[R_RCX] & ~MWAIT_IRQ_BREAK)
		raise_gp(v, 0);
	mwait_check(v);
	/* It may end for any reason; whoever waits in a loop of them lets others run. */
	exec_pause(v, i);
}
