/* fw_cfg's "bootorder": a line for each device, as SeaBIOS and OVMF parse it. See boot_order.h. */
#include <stdio.h>

#include "vmm/firmware/boot_order.h"
#include "vmm/pci/pci.h"

/* PCI below the configuration ports at 0xCF8: the name that both know the root bus by. */
#define ROOT_BUS "/pci@i0cf8"

/* Behind those of the same rank. */
static struct boot_entry_path *entry_insert(struct boot_order *o, unsigned rank)
{
	unsigned at = o->n++;

	for (; at && o->entry[at - 1].rank > rank; at--)
		o->entry[at] = o->entry[at - 1];
	o->entry[at].rank = rank;
	return &o->entry[at];
}

void boot_order_add(struct boot_order *o, unsigned rank, const char *kind, u8 devfn, const char *below)
{
	struct boot_entry_path *e;
	char function[8] = "";

	if (o->n == BOOT_ORDER_MAX)
		return;
	e = entry_insert(o, rank);
	if (PCI_FUNCTION(devfn))
		snprintf(function, sizeof(function), ",%x", PCI_FUNCTION(devfn));
	snprintf(e->path, sizeof(e->path), "%s/%s@%x%s/%s", ROOT_BUS, kind, PCI_SLOT(devfn), function,
		below);
}

size_t boot_order_text(const struct boot_order *o, const char *first, char text[BOOT_TEXT_MAX])
{
	size_t len = 0;

	text[0] = '\0';
	if (first)
		len = snprintf(text, BOOT_TEXT_MAX, "%s", first);
	for (unsigned i = 0; i < o->n && len < BOOT_TEXT_MAX; i++)
		len += snprintf(text + len, BOOT_TEXT_MAX - len, "%s%s", len ? "\n" : "",
			o->entry[i].path);
	return len && len < BOOT_TEXT_MAX ? len + 1 : 0;
}
