/* Machine check registers: banks that report what user space injects, if anything. SDM 3B 15.3 */
#include "hypervisor/x86/msr_row.h"

#include <linux/errno.h>

#define MCG_CTL_P	BIT(8)
#define MCG_BANKS	0xffu
#define HWCR_STATUS_WR	BIT(18)	/* AMD: MCi_STATUS may be written. APM 2 9.3.2 */

enum { MC_CTL, MC_STATUS, MC_ADDR, MC_MISC };

static u64 *mce_bank(struct vcpu *v, u32 n)
{
	if (n / 4 >= (v->msr.mcg_cap & MCG_BANKS))
		return NULL;
	return &v->msr.mc_bank[n / 4][n % 4];
}

int mce_get_bank(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	const u64 *reg = mce_bank(v, n);

	if (!reg)
		return -EINVAL;
	*val = *reg;
	return 0;
}

/*
 * CTL takes all ones or all zeros; Linux clears bit 10 (AMD erratum) or bit 0 (Intel) of it, as
 * KVM allows. STATUS takes only zero from a guest.
 */
int mce_set_bank(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	u64 *reg = mce_bank(v, n);

	if (!reg)
		return -EINVAL;
	if (n % 4 == MC_CTL && val && (val | BIT(10) | BIT(0)) != ~0ULL)
		return -EINVAL;
	if (n % 4 == MC_STATUS && val && !host && !(v->msr.hwcr & HWCR_STATUS_WR))
		return -EINVAL;
	*reg = val;
	return 0;
}

int mce_set_ctl(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if ((!host && !(v->msr.mcg_cap & MCG_CTL_P)) || (val && val != ~0ULL))
		return -EINVAL;
	v->msr.mcg_ctl = val;
	return 0;
}
