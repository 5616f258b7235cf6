/*
 * Memory type range registers and the page attribute table: kept and checked as the processor does,
 * without any effect, since all guest memory is write-back on the host. SDM 3A 11.11, 11.12.
 */
#include "hypervisor/x86/msr_row.h"

#include <linux/errno.h>

/* UC, WC, WT, WP, WB; the PAT has UC- as well. SDM 3A tables 11-8, 11-10 */
#define TYPES_MTRR	(BIT(0) | BIT(1) | BIT(4) | BIT(5) | BIT(6))
#define TYPES_PAT	(TYPES_MTRR | BIT(7))

#define DEF_TYPE_DEFINED (0xff | BIT(10) | BIT(11))
#define MASK_VALID	BIT(11)

static bool types_valid(u64 val, unsigned int n, u64 allowed)
{
	for (; n; n--, val >>= 8)
		if ((val & 0xff) > 7 || !(allowed & BIT(val & 0xff)))
			return false;
	return true;
}

int pat_set(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!types_valid(val, 8, TYPES_PAT))
		return -EINVAL;
	v->msr.pat = val;
	return 0;
}

int mtrr_set_fixed(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!types_valid(val, 8, TYPES_MTRR))
		return -EINVAL;
	*msr_field(v, row, n) = val;
	return 0;
}

int mtrr_set_default(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (val & ~DEF_TYPE_DEFINED || !types_valid(val, 1, TYPES_MTRR))
		return -EINVAL;
	v->msr.mtrr_def_type = val;
	return 0;
}

/* Base and mask alternate. */
int mtrr_get_variable(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = n & 1 ? v->msr.mtrr_mask[n / 2] : v->msr.mtrr_base[n / 2];
	return 0;
}

int mtrr_set_variable(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	u64 reserved = v->mmu.maxphyaddr_mask | MASK(63, 52);

	if (n & 1) {
		if (val & (reserved | (MASK(11, 0) & ~MASK_VALID)))
			return -EINVAL;
		v->msr.mtrr_mask[n / 2] = val;
		return 0;
	}
	if (val & (reserved | MASK(11, 8)) || !types_valid(val, 1, TYPES_MTRR))
		return -EINVAL;
	v->msr.mtrr_base[n / 2] = val;
	return 0;
}
