/*
 * Processor modes and control registers: what v's architectural state implies for the engine, and
 * the rules for writing CR0, CR3, CR4 and CR8. SDM 3A 2.5, 4.1, 9.8.5, 9.9.
 *
 * CPL is SS.DPL (SDM 3C 24.4.1 says the same of a VM's state): CS.RPL means nothing between setting
 * CR0.PE and the far jump after it. Whoever loads a null SS in 64-bit mode sets its DPL to CPL.
 */
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

#include <linux/errno.h>

/* ---- what the engine needs derived ---- */

static u8 mode_cpl(const struct vcpu *v)
{
	if (vcpu_real(v))
		return 0;
	return vcpu_v86(v) ? 3 : SEG_DPL(v->seg[SEG_SS].attr);
}

static u8 segment_width(const struct vcpu *v, enum segreg s)
{
	if (vcpu_long_mode(v) && v->seg[SEG_CS].attr & SEG_L)
		return 8;
	return v->seg[s].attr & SEG_DB && !vcpu_v86(v) ? 4 : 2;
}

static u64 width_mask(unsigned int bytes)
{
	return bytes == 8 ? ~0ULL : bytes == 4 ? 0xffffffffULL : 0xffff;
}

/* Base plus any 32-bit offset is fine for reads and writes alike. */
static bool segment_flat(const struct vcpu *v, const struct segment *s)
{
	const u32 type = SEG_TYPE_CODE | SEG_TYPE_EC | SEG_TYPE_RW;

	return !(s->attr & SEG_UNUSABLE) && s->limit == 0xffffffff &&
		(s->attr & type) == SEG_TYPE_RW;
}

/*
 * In compatibility mode the sum of base and offset is cut to 32 bits, while the TLB may know pages
 * above: only a base of 0 needs no look.
 */
static bool segment_direct(const struct vcpu *v, const struct segment *s)
{
	return segment_flat(v, s) && (!s->base || !vcpu_long_mode(v));
}

static void update_segments(struct vcpu *v)
{
	bool wide = v->code_bytes == 8;
	unsigned int s;

	for (s = SEG_ES; s <= SEG_GS; s++) {
		v->ebase[s] = wide && s < SEG_FS ? 0 : v->seg[s].base;
		v->hit_base[s] = wide || segment_direct(v, &v->seg[s]) ? v->ebase[s] : HIT_NEVER;
	}
}

static u8 mode_mmu_index(const struct vcpu *v)
{
	if (v->cpl == 3)
		return MMU_USER;
	return v->cr4 & CR4_SMAP && !(v->rflags & RFLAGS_AC) ? MMU_KERNEL_SMAP : MMU_KERNEL;
}

/* SDM 3A 2.5 (EM, MP, TS), 13.1; SDM 2A 2.4, 2.8 (VEX, EVEX: not in real and V86 mode) */
static u32 mode_fp_trap(const struct vcpu *v)
{
	const u64 avx = XCR0_SSE | XCR0_AVX, avx512 = avx | XCR0_AVX512;
	u32 trap = 0;

	if (v->cr0 & (CR0_EM | CR0_TS))
		trap |= FP_X87 | FP_MMX | FP_SSE;
	if (!(v->cr4 & CR4_OSFXSR))
		trap |= FP_SSE;
	if (v->cr0 & CR0_TS || !(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & avx) != avx || vcpu_real(v) ||
		vcpu_v86(v))
		trap |= FP_AVX;
	if (trap & FP_AVX || (v->xcr0 & avx512) != avx512)
		trap |= FP_AVX512;
	return trap;
}

static bool mode_step(const struct vcpu *v)
{
	return v->rflags & (RFLAGS_TF | RFLAGS_RF) || v->irq_shadow || v->mov_ss_shadow ||
		v->pending_db.type != EV_NONE || debug_armed(v);
}

void vcpu_update_mode(struct vcpu *v)
{
	u8 old_cpl = v->cpl;

	v->cpl = mode_cpl(v);
	v->code_bytes = segment_width(v, SEG_CS);
	v->stack_bytes = segment_width(v, SEG_SS);
	v->stack_mask = width_mask(v->stack_bytes);
	v->rip_mask = width_mask(v->code_bytes);
	update_segments(v);
	v->mmu_idx = mode_mmu_index(v);
	space_update_mode(v);
	v->fp_trap = mode_fp_trap(v);
	v->step = mode_step(v);
	if (unlikely(v->pmu.active))
		pmu_mode_changed(v, old_cpl);
}

/* ---- CR4's bits and the CPUID features that allow them. SDM 3A 2.5 ---- */

static const struct cr4_bit {
	u64 bit;
	enum cpu_feature feature;
} cr4_bits[] = {
	{ CR4_VME | CR4_PVI, F_VME },
	{ CR4_TSD, F_TSC },
	{ CR4_DE, F_DE },
	{ CR4_PSE, F_PSE },
	{ CR4_PAE, F_PAE },
	{ CR4_MCE, F_MCE },
	{ CR4_PGE, F_PGE },
	{ CR4_PCE, F_NONE },
	{ CR4_OSFXSR, F_FXSR },
	{ CR4_OSXMMEXCPT, F_SSE },
	{ CR4_UMIP, F_UMIP },
	{ CR4_FSGSBASE, F_FSGSBASE },
	{ CR4_PCIDE, F_PCID },
	{ CR4_OSXSAVE, F_XSAVE },
	{ CR4_SMEP, F_SMEP },
	{ CR4_SMAP, F_SMAP },
};

/* Those whose change drops all translations. SDM 3A 4.10.4.1 */
#define CR4_FLUSH	(CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)
/* Those that reload PAE's directory pointers. SDM 3A 4.4.1 */
#define CR4_PDPTE	(CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)
#define CR0_PDPTE	(CR0_CD | CR0_NW | CR0_PG)
#define CR0_FLUSH	(CR0_PG | CR0_WP | CR0_PE)
#define CR0_DEFINED	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | \
			 CR0_NW | CR0_CD | CR0_PG)

static u64 cr4_allowed(const struct vcpu *v)
{
	u64 mask = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cr4_bits); i++)
		if (cr4_bits[i].feature == F_NONE || vcpu_has(v, cr4_bits[i].feature))
			mask |= cr4_bits[i].bit;
	return mask;
}

static bool cr0_valid(u64 cr0)
{
	return !(cr0 >> 32) && !(cr0 & CR0_PG && !(cr0 & CR0_PE)) &&
		!(cr0 & CR0_NW && !(cr0 & CR0_CD));
}

static bool pae_paging(const struct vcpu *v)
{
	return v->cr0 & CR0_PG && v->cr4 & CR4_PAE && !vcpu_long_mode(v);
}

int cr_check(const struct vcpu *v, u64 cr0, u64 cr4, u64 efer)
{
	bool paging = cr0 & CR0_PG;

	if (!cr0_valid(cr0) || cr4 & ~cr4_allowed(v))
		return -EINVAL;
	if (efer & EFER_LMA && !(efer & EFER_LME && paging && cr4 & CR4_PAE))
		return -EINVAL;
	if (efer & EFER_LME && paging && !(efer & EFER_LMA))
		return -EINVAL;
	if (cr4 & CR4_PCIDE && !(efer & EFER_LMA))
		return -EINVAL;
	return 0;
}

/* ---- CR0 ---- */

/* Entering and leaving long mode: EFER.LMA follows PG. SDM 3A 9.8.5. False: #GP. */
static bool cr0_switch_paging(struct vcpu *v, u64 val)
{
	bool cs_long = v->seg[SEG_CS].attr & SEG_L;

	if (!((val ^ v->cr0) & CR0_PG))
		return true;
	if (!(val & CR0_PG)) {
		if (v->cr4 & CR4_PCIDE || vcpu_64bit(v))
			return false;
		v->efer &= ~EFER_LMA;
		return true;
	}
	if (!(v->efer & EFER_LME))
		return true;
	if (!(v->cr4 & CR4_PAE) || cs_long)
		return false;
	v->efer |= EFER_LMA;
	return true;
}

static void cr0_write(struct vcpu *v, u64 val)
{
	u64 old = v->cr0;

	val = (val & ~MASK(31, 0)) | (val & CR0_DEFINED) | CR0_ET;
	if (!cr0_valid(val) || !cr0_switch_paging(v, val))
		raise_gp(v, 0);
	v->cr0 = val;
	if (pae_paging(v) && (old ^ val) & CR0_PDPTE && !mmu_load_pdptes(v)) {
		v->cr0 = old;
		raise_gp(v, 0);
	}
	if ((old ^ val) & CR0_FLUSH)
		mmu_flush_all(v);
	vcpu_update_mode(v);
}

/* ---- CR3 ---- */

static void cr3_write(struct vcpu *v, u64 val)
{
	bool keep = false;
	u64 old = v->cr3;

	if (vcpu_long_mode(v)) {
		if (v->cr4 & CR4_PCIDE) {
			keep = val & CR3_NOFLUSH;
			val &= ~CR3_NOFLUSH;
		}
		if (val & (v->mmu.maxphyaddr_mask | MASK(63, 52)))
			raise_gp(v, 0);
	} else {
		val = (u32)val;
	}
	v->cr3 = val;
	if (pae_paging(v) && !mmu_load_pdptes(v)) {
		v->cr3 = old;
		raise_gp(v, 0);
	}
	mmu_set_cr3(v, keep);
}

/* ---- CR4 ---- */

static bool cr4_valid(const struct vcpu *v, u64 val)
{
	if (val & ~cr4_allowed(v))
		return false;
	if (vcpu_long_mode(v) && !(val & CR4_PAE))
		return false;
	/* SDM 3A 4.10.1 */
	if (val & ~v->cr4 & CR4_PCIDE && (!vcpu_long_mode(v) || v->cr3 & CR3_PCID))
		return false;
	return true;
}

static void cr4_write(struct vcpu *v, u64 val)
{
	u64 old = v->cr4;

	if (!cr4_valid(v, val))
		raise_gp(v, 0);
	v->cr4 = val;
	if (pae_paging(v) && (old ^ val) & CR4_PDPTE && !mmu_load_pdptes(v)) {
		v->cr4 = old;
		raise_gp(v, 0);
	}
	if ((old ^ val) & CR4_FLUSH)
		mmu_flush_all(v);
	if ((old ^ val) & CR4_OSXSAVE)
		cpuid_update(v);
	vcpu_update_mode(v);
}

/* ---- CR8: the task priority, in the local APIC when there is one ---- */

static void cr8_write(struct vcpu *v, u64 val)
{
	if (val > 15)
		raise_gp(v, 0);
	if (v->lapic) {
		lapic_set_cr8(v, val);
		return;
	}
	/* User space's local APIC may have an interrupt that waited for this. */
	if (val < v->cr8)
		vcpu_request(v, REQ_SET_TPR);
	v->cr8 = val;
}

void cr_write(struct vcpu *v, unsigned int nr, u64 val)
{
	switch (nr) {
	case 0: cr0_write(v, val); break;
	case 2: v->cr2 = val; break;
	case 3: cr3_write(v, val); break;
	case 4: cr4_write(v, val); break;
	case 8: cr8_write(v, val); break;
	default: raise_ud(v);
	}
}

u64 cr_read(struct vcpu *v, unsigned int nr)
{
	switch (nr) {
	case 0: return v->cr0;
	case 2: return v->cr2;
	case 3: return v->cr3;
	case 4: return v->cr4;
	case 8: return v->lapic ? lapic_get_cr8(v) : v->cr8;
	default: raise_ud(v);
	}
}
