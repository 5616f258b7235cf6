/*
 * PCI configuration mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2), ports 0xCF8 to 0xCFF: an address
 * register, and behind it a bus with a host bridge and nothing else yet.
 */
#include "vmm/hw/pci_config.h"

#define CONFIG_ENABLE	BIT(31)
#define CONFIG_DEVFN	MASK(23, 8)	/* bus, device, function */
#define CONFIG_REG	MASK(7, 2)

/* The host bridge's header: a type 0 function of class 06 00 that decodes nothing. */
static const u8 bridge_header[64] = {
	[0x00] = 0x36, 0x1B,	/* vendor: Red Hat, who keep the numbers for virtual machines */
	[0x02] = 0x08, 0x00,	/* device: generic host bridge; no chipset's quirks apply */
	[0x0A] = 0x00, 0x06,	/* class: host bridge */
};

static u32 config_read(const struct pci_config *p)
{
	unsigned reg = p->address & CONFIG_REG;

	if (!(p->address & CONFIG_ENABLE) || p->address & CONFIG_DEVFN)
		return ~0U;
	if (reg >= sizeof(bridge_header))
		return 0;
	return bridge_header[reg] | bridge_header[reg + 1] << 8 | bridge_header[reg + 2] << 16 |
	       (u32)bridge_header[reg + 3] << 24;
}

static u64 pci_read(void *dev, u64 offset, unsigned size)
{
	const struct pci_config *p = dev;

	if (offset >= 4)
		return config_read(p) >> (offset - 4) * 8;
	return offset == 0 && size == 4 ? p->address : ~0U;
}

/* The address register takes only whole words: 0xCF9 is another device's. */
static void pci_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct pci_config *p = dev;

	if (offset == 0 && size == 4)
		p->address = value & ~3ULL;
}

const struct io_ops pci_config_io_ops = { .read = pci_read, .write = pci_write, .width = 4 };

static void pci_config_reset(void *dev)
{
	((struct pci_config *)dev)->address = 0;
}

static void pci_config_nop(void *dev)
{
	(void)dev;
}

static const struct state_field pci_config_fields[] = {
	STATE_FIELD(struct pci_config_state, address, 1),
};

static const struct state_table pci_config_table =
	STATE_TABLE("pci-config", struct pci_config_state, 1, pci_config_fields);

static void pci_config_save(void *dev, void *state)
{
	((struct pci_config_state *)state)->address = ((struct pci_config *)dev)->address;
}

static int pci_config_load(void *dev, const void *state)
{
	((struct pci_config *)dev)->address =
		((const struct pci_config_state *)state)->address & ~3U;
	return 0;
}

const struct device_ops pci_config_device_ops = {
	.table = &pci_config_table, .reset = pci_config_reset, .pause = pci_config_nop,
	.resume = pci_config_nop, .save = pci_config_save, .load = pci_config_load,
};

void pci_config_init(struct pci_config *p)
{
	*p = (struct pci_config){ 0 };
}
