/*
 * Machine checks: the registers of banks that report what user space injects. SDM 3B 15.3; Linux
 * Documentation/virt/kvm/api.rst 4.104 to 4.106.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/msr.h"
#include "hypervisor/x86/msr_row.h"
#include "hypervisor/x86/system.h"

#include <linux/errno.h>

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

/* IA32_MCi_CTL2: the interrupt's enable bit, and a count of corrected errors to reach. */
#define CTL2_CMCI_EN	BIT(30)
#define CTL2_DEFINED	(CTL2_CMCI_EN | MASK(14, 0))

int mce_get_ctl2(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = v->msr.mc_ctl2[n];
	return n < (v->msr.mcg_cap & MCG_BANKS) ? 0 : -EINVAL;
}

int mce_set_ctl2(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (n >= (v->msr.mcg_cap & MCG_BANKS) || val & ~CTL2_DEFINED)
		return -EINVAL;
	if (val && !(v->msr.mcg_cap & MCG_CMCI_P))
		return -EINVAL;
	v->msr.mc_ctl2[n] = val;
	return 0;
}

/* ---- injection ------------------------------------------------------------------------------- */

#define MCG_STATUS_MCIP	BIT(2)	/* one is being handled */
#define MCI_VAL		BIT(63)
#define MCI_OVER	BIT(62)
#define MCI_UC		BIT(61)
#define MCI_PCC		BIT(57)
#define MCI_S		BIT(56)
#define MCI_AR		BIT(55)
#define MCG_CAP_OTHER	0xff0000ULL	/* the number of extended registers: kept, without meaning */

_Static_assert(sizeof(struct kvm_x86_mce) == 64, "ABI");

int mce_setup(struct vcpu *v, u64 cap)
{
	u32 n, banks = cap & MCG_BANKS;

	if (!banks || banks > MCE_MAX_BANKS || cap & ~(MCE_SUPPORTED | MCG_BANKS | MCG_CAP_OTHER))
		return -EINVAL;
	v->msr.mcg_cap = cap;
	if (cap & MCG_CTL_P)
		v->msr.mcg_ctl = ~0ULL;
	for (n = 0; n < banks; n++) {
		v->msr.mc_bank[n][MC_CTL] = ~0ULL;
		v->msr.mc_ctl2[n] = 0;
	}
	lapic_cmci_set(v, cap & MCG_CMCI_P);
	return 0;
}

static void bank_fill(u64 *bank, const struct kvm_x86_mce *m, u64 status)
{
	bank[MC_STATUS] = status;
	bank[MC_ADDR] = m->addr;
	bank[MC_MISC] = m->misc;
}

/* What was on its way and has happened already comes after the machine check. */
static void event_put_back(struct vcpu *v)
{
	if (v->event.type == EV_NMI)
		v->nmi_pending++;
	if (v->event.type == EV_EXTINT) {
		v->extint_pending = true;
		v->extint_vector = v->event.vector;
	}
}

static void inject_uncorrected(struct vcpu *v, u64 *bank, const struct kvm_x86_mce *m)
{
	u64 over = bank[MC_STATUS] & MCI_VAL ? MCI_OVER : 0;

	if (v->msr.mcg_status & MCG_STATUS_MCIP || !(v->cr4 & CR4_MCE)) {
		vcpu_request(v, REQ_TRIPLE_FAULT);
		return;
	}
	bank_fill(bank, m, m->status | over);
	v->msr.mcg_status = m->mcg_status;
	event_put_back(v);
	event_queue(v, EV_FAULT, VEC_MC, false, 0);
	vcpu_request(v, REQ_EVENT);
}

/* Uncorrected, and no action is required: noted, and said by the corrected errors' interrupt. */
static bool mce_ucna(const struct kvm_x86_mce *m)
{
	return !m->mcg_status && !(m->status & (MCI_PCC | MCI_S | MCI_AR)) && m->status & MCI_UC;
}

int mce_inject(struct vcpu *v, const struct kvm_x86_mce *m)
{
	bool uc = m->status & MCI_UC;
	u64 *bank;

	if (m->bank >= (v->msr.mcg_cap & MCG_BANKS) || !(m->status & MCI_VAL))
		return -EINVAL;
	bank = v->msr.mc_bank[m->bank];
	if (mce_ucna(m)) {
		bank_fill(bank, m, m->status);
		v->msr.mcg_status = m->mcg_status;
		if (v->msr.mc_ctl2[m->bank] & CTL2_CMCI_EN)
			lapic_cmci(v);
		return 0;
	}
	/* Reporting of uncorrected errors is off unless all bits are on. */
	if (uc && ((v->msr.mcg_cap & MCG_CTL_P && v->msr.mcg_ctl != ~0ULL) || bank[MC_CTL] != ~0ULL))
		return 0;
	if (uc)
		inject_uncorrected(v, bank, m);
	else if (!(bank[MC_STATUS] & MCI_VAL) || !(bank[MC_STATUS] & MCI_UC))
		bank_fill(bank, m, m->status | (bank[MC_STATUS] & MCI_VAL ? MCI_OVER : 0));
	else
		bank[MC_STATUS] |= MCI_OVER;
	return 0;
}
