/*
 * Host bridge of the Q35 (Intel 3 Series Express Chipset Family data sheet, chapter 5): PCIEXBAR
 * places ECAM, PAM0 to PAM6 say for each part of 0xC0000 to 0xFFFFF whether reads and writes reach
 * DRAM. System management RAM is closed and locked from the start: nothing here makes an SMI.
 */
#include "vmm/pci/mch.h"

#define SMRAM		0x9D
#define SMRAM_LOCKED	0x12	/* D_LCK, and the base segment that is always 010 */
#define PAM_WRITABLE	0x33
#define BAR_ENABLE	BIT(0)
#define BAR_LENGTH(v)	((v) >> 1 & 3)	/* 256, 128, 64 MiB */
#define BAR_WRITABLE	0xFFC000007ULL	/* 35:26, of which the length hides some */

static void mch_update_ecam(struct mch *mch)
{
	const u8 *c = mch->pci.config;
	u64 bar = pci_get_u32(c, MCH_PCIEXBAR) | (u64)pci_get_u32(c, MCH_PCIEXBAR + 4) << 32;
	u64 size = ECAM_SIZE >> BAR_LENGTH(bar);

	if (!(bar & BAR_ENABLE) || BAR_LENGTH(bar) == 3)
		pci_set_ecam(mch->host, PCI_UNMAPPED, 0);
	else
		pci_set_ecam(mch->host, bar & MASK(35, 26) & ~(size - 1), size);
}

static bool overlaps(unsigned offset, unsigned size, unsigned at, unsigned len)
{
	return offset < at + len && at < offset + size;
}

static void mch_config_written(struct pci_device *d, unsigned offset, unsigned size)
{
	struct mch *mch = d->self;

	if (overlaps(offset, size, MCH_PCIEXBAR, 8))
		mch_update_ecam(mch);
	if (overlaps(offset, size, MCH_PAM, MCH_PAMS) && mch->set_pam)
		mch->set_pam(mch->arg, d->config + MCH_PAM);
}

static const struct pci_ops mch_ops = { .config_written = mch_config_written };

void mch_init(struct mch *mch, struct pci_host *host,
	      void (*set_pam)(void *arg, const u8 pam[MCH_PAMS]), void *arg)
{
	/* The subsystem by which firmware and guests tell a virtual machine. */
	static const struct pci_id id = {
		.vendor = 0x8086, .device = 0x29C0, .subsystem_vendor = 0x1AF4,
		.subsystem = 0x1100, .class = 0x060000,
	};
	struct pci_device *d = &mch->pci;

	*mch = (struct mch){ .host = host, .set_pam = set_pam, .arg = arg };
	pci_init(d, &mch_ops, mch, &id);
	pci_put_u32(d->writable, MCH_PCIEXBAR, (u32)BAR_WRITABLE);
	pci_put_u32(d->writable, MCH_PCIEXBAR + 4, BAR_WRITABLE >> 32);
	d->writable[MCH_PAM] = PAM_WRITABLE & 0x30;
	for (unsigned i = 1; i < MCH_PAMS; i++)
		d->writable[MCH_PAM + i] = PAM_WRITABLE;
	d->config[SMRAM] = SMRAM_LOCKED;
}
