/*
 * RDMSR, WRMSR and the KVM ioctls for MSRs: the walk over msr_table.c, and the registers that are
 * more than a stored value.
 */
#include "hypervisor/x86/msr.h"
#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/hyperv.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/msr_row.h"
#include "hypervisor/x86/segment.h"

#include <linux/errno.h>

#define MICROCODE_AMD	0x01000065ULL
#define MICROCODE_INTEL	(1ULL << 32)	/* the revision is in the upper half. SDM 3A 9.11.7 */
#define MSR_X2APIC	0x800
#define MSR_PLATFORM_INFO 0xce

#define EFER_AUTOIBRS	BIT(21)

/* ---- time ---- */

int msr_get_tsc(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = tsc_read(v);
	return 0;
}

void tsc_changed(struct vcpu *v)
{
	fpu_put(v);
	if (v->msr.kvm_system_time & 1)
		vcpu_request(v, REQ_CLOCK_UPDATE);
	hv_clock_changed(v->vm);
	if (v->lapic && lapic_get_tsc_deadline(v))
		lapic_set_tsc_deadline(v, lapic_get_tsc_deadline(v));
}

/* Another vCPU of the same rate, whose clock this one should share. */
static const struct vcpu *tsc_reference(const struct vcpu *v)
{
	u32 i, n = load_acquire(&v->vm->nr_vcpus);

	for (i = 0; i < n; i++)
		if (v->vm->vcpus[i] != v && v->vm->vcpus[i]->tsc_ratio == v->tsc_ratio)
			return v->vm->vcpus[i];
	return NULL;
}

/*
 * User space writes all vCPUs' TSCs one after another and means the same moment, so a value within
 * a second of another vCPU's clock takes that clock over, and zero ("reset") leaves it running: as
 * KVM does, since otherwise they would drift apart by the time between the writes.
 */
static bool tsc_within_second(const struct vcpu *v, u64 a, u64 b)
{
	u64 second = (u64)vcpu_tsc_khz(v) * 1000;

	return a - b + second < 2 * second;
}

static u64 tsc_host_offset(struct vcpu *v, u64 val)
{
	const struct vcpu *other = tsc_reference(v);
	u64 now = tsc_scale(v, tsc_host());
	u64 offset = other ? READ_ONCE(other->tsc_offset) : v->tsc_offset;

	if (!val || (other && tsc_within_second(v, now + offset, val)))
		return offset;
	return val - now;
}

/* The first vCPU's clock begins at zero, the others share it. */
static u64 tsc_reset_offset(const struct vcpu *v)
{
	const struct vcpu *other = tsc_reference(v);

	return other ? READ_ONCE(other->tsc_offset) : -tsc_scale(v, tsc_host());
}

int msr_set_tsc(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	u64 delta;

	if (host) {
		fpu_put(v);
		WRITE_ONCE(v->tsc_offset, tsc_host_offset(v, val));
	} else {
		delta = val - tsc_read(v);
		v->msr.tsc_adjust += delta;	/* SDM 3B 17.17.3 */
		WRITE_ONCE(v->tsc_offset, v->tsc_offset + delta);
	}
	tsc_changed(v);
	return 0;
}

int msr_set_tsc_adjust(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!host) {
		WRITE_ONCE(v->tsc_offset, v->tsc_offset + val - v->msr.tsc_adjust);
		tsc_changed(v);
	}
	v->msr.tsc_adjust = val;
	return 0;
}

/* ---- the local APIC ---- */

int msr_get_apic_base(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = lapic_get_base(v);
	return 0;
}

int msr_set_apic_base(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	u64 old = lapic_get_base(v);
	int r = lapic_set_base(v, val, host);

	if (!r && val != old)
		mmu_flush_all(v);	/* the page that is the APIC */
	return r;
}

int msr_get_deadline(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = v->lapic ? lapic_get_tsc_deadline(v) : 0;
	return 0;
}

int msr_set_deadline(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (v->lapic)
		lapic_set_tsc_deadline(v, val);
	return 0;
}

int msr_get_x2apic(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	return v->lapic ? lapic_msr_read(v, MSR_X2APIC + n, val) : -EINVAL;
}

int msr_set_x2apic(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	return v->lapic ? lapic_msr_write(v, MSR_X2APIC + n, val) : -EINVAL;
}

/* ---- modes and addresses ---- */

int msr_get_efer(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = v->efer;
	return 0;
}

static u64 efer_allowed(const struct vcpu *v)
{
	u64 mask = EFER_LMA;

	if (vcpu_has(v, F_SYSCALL))
		mask |= EFER_SCE;
	if (vcpu_has(v, F_LM))
		mask |= EFER_LME;
	if (vcpu_has(v, F_NX))
		mask |= EFER_NX;
	if (vcpu_has(v, F_AUTOIBRS))
		mask |= EFER_AUTOIBRS;
	return mask;
}

/* LMA follows CR0.PG and cannot be written; LME cannot change while paging. SDM 3A 2.2.1 */
int msr_set_efer(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	u64 old = v->efer;

	if (val & ~efer_allowed(v))
		return -EINVAL;
	if (!host && v->cr0 & CR0_PG && (val ^ old) & EFER_LME)
		return -EINVAL;
	v->efer = (val & ~EFER_LMA) | (old & EFER_LMA);
	if ((v->efer ^ old) & EFER_NX)
		mmu_flush_all(v);
	vcpu_update_mode(v);
	return 0;
}

int msr_set_address(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!linear_canonical(v, val))
		return -EINVAL;
	*msr_field(v, row, n) = val;
	return 0;
}

static int segment_base_set(struct vcpu *v, enum segreg s, u64 val)
{
	if (!linear_canonical(v, val))
		return -EINVAL;
	segment_set_base(v, s, val);
	return 0;
}

int msr_get_fs_base(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = v->seg[SEG_FS].base;
	return 0;
}

int msr_set_fs_base(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	return segment_base_set(v, SEG_FS, val);
}

int msr_get_gs_base(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = v->seg[SEG_GS].base;
	return 0;
}

int msr_set_gs_base(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	return segment_base_set(v, SEG_GS, val);
}

int msr_get_xss(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = v->xss;
	return 0;
}

/* No supervisor state component exists here. */
int msr_set_xss(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	return val ? -EINVAL : 0;
}

/*
 * The guest changes neither of what says what is missing, and whether there are counters is not its
 * decision. As KVM has it, all else is stored.
 */
int msr_set_misc_enable(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	u64 old = v->msr.misc_enable, kept = MISC_ENABLE_PERFMON;
	bool quirk = !(v->vm->disabled_quirks & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT);

	if (!host && (old ^ val) & (MISC_NO_BTS | MISC_NO_PEBS))
		return -EINVAL;
	if (!host)
		val = (val & ~kept) | (old & kept);
	if (!quirk && (old ^ val) & MISC_ENABLE_MWAIT && !vcpu_has(v, F_SSE3))
		return -EINVAL;
	v->msr.misc_enable = val;
	if (!quirk && (old ^ val) & MISC_ENABLE_MWAIT)
		cpuid_update(v);
	return 0;
}

/* User space only. */
int msr_set_platform_info(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!(val & PLATFORM_CPUID_FAULT) && v->msr.misc_features & MISC_CPUID_FAULT)
		return -EINVAL;
	v->msr.platform_info = val;
	return 0;
}

int msr_set_misc_features(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (val & ~MISC_CPUID_FAULT)
		return -EINVAL;
	if (val && !(v->msr.platform_info & PLATFORM_CPUID_FAULT))
		return -EINVAL;
	v->msr.misc_features = val;
	return 0;
}

int msr_get_microcode(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = v->msr.bios_sign_id;
	if (!*val)
		*val = vcpu_amd(v) ? MICROCODE_AMD : MICROCODE_INTEL;
	return 0;
}

/* ---- the table's use ---- */

static const struct msr_row *row_find(u32 index)
{
	unsigned int lo = 0, hi = nr_msr_rows, mid;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (msr_rows[mid].first + msr_rows[mid].count <= index)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < nr_msr_rows && msr_rows[lo].first <= index ? &msr_rows[lo] : NULL;
}

static bool row_accessible(const struct vcpu *v, const struct msr_row *row, u32 index, bool host)
{
	if (host)
		return true;
	if (row->flags & MSR_PV)
		return pv_msr_accessible(v, index);
	if (row->flags & MSR_HYPERV)
		return hv_msr_accessible(v, index);
	if (row->flags & MSR_PMU)
		return pmu_msr_accessible(v, row, index);
	if (row->first == MSR_PLATFORM_INFO && v->vm->platform_info_denied)
		return false;
	if (row->first == MSR_MC_CTL2 && !(v->msr.mcg_cap & MCG_CMCI_P))
		return false;
	return !(row->flags & MSR_HOST_ONLY) &&
		(row->feature == F_NONE || vcpu_has(v, row->feature));
}

int msr_read(struct vcpu *v, u32 index, u64 *val, bool host)
{
	const struct msr_row *row = row_find(index);
	u32 n;

	if (!row)
		return -ENOENT;
	if (!row_accessible(v, row, index, host))
		return -EINVAL;
	n = index - row->first;
	if (row->get)
		return row->get(v, row, n, val);
	*val = row->field ? *msr_field(v, row, n) : row->reset;
	return 0;
}

/* What no row's own code decides. User space may give constants back as it read them. */
static int row_write(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!row->field)
		return row->flags & MSR_IGNORE || (host && val == row->reset) ? 0 : -EINVAL;
	if (val & ~row->writable)
		return -EINVAL;
	*msr_field(v, row, n) = val;
	return 0;
}

int msr_write(struct vcpu *v, u32 index, u64 val, bool host)
{
	const struct msr_row *row = row_find(index);
	u32 n;

	if (!row)
		return -ENOENT;
	if (!row_accessible(v, row, index, host))
		return -EINVAL;
	if (!host && row->flags & MSR_READONLY)
		return -EINVAL;
	if (!host && row->flags & MSR_IGNORE)
		return 0;
	n = index - row->first;
	return row->set ? row->set(v, row, n, val, host) : row_write(v, row, n, val, host);
}

void msr_reset(struct vcpu *v, bool init)
{
	const struct msr_row *row;
	u32 n;

	pv_reset(v);
	if (init)
		return;
	WRITE_ONCE(v->tsc_offset, tsc_reset_offset(v));
	memset(v->msr.mtrr_base, 0, sizeof(v->msr.mtrr_base));
	memset(v->msr.mtrr_mask, 0, sizeof(v->msr.mtrr_mask));
	memset(v->msr.mc_bank, 0, sizeof(v->msr.mc_bank));
	for (row = msr_rows; row < msr_rows + nr_msr_rows; row++)
		for (n = 0; row->field && n < row->count; n++)
			*msr_field(v, row, n) = row->reset;
}

/* ---- lists for user space ---- */

static unsigned int rows_list(u16 flag, u32 *out, unsigned int max)
{
	const struct msr_row *row;
	unsigned int count = 0;
	u32 n;

	for (row = msr_rows; row < msr_rows + nr_msr_rows; row++) {
		if (!(row->flags & flag))
			continue;
		for (n = 0; n < row->count; n++, count++)
			if (count < max)
				out[count] = row->first + n;
	}
	return count;
}

unsigned int msr_list(u32 *out, unsigned int n)
{
	return rows_list(MSR_SAVE, out, n);
}

unsigned int msr_feature_list(u32 *out, unsigned int n)
{
	return rows_list(MSR_FEATURE, out, n);
}

int msr_feature_read(u32 index, u64 *val)
{
	const struct msr_row *row = row_find(index);

	if (!row || !(row->flags & MSR_FEATURE))
		return -EINVAL;
	*val = row->reset;
	return 0;
}
