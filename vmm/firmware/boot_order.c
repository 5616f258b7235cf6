/* fw_cfg's "bootorder": a line for each device, as SeaBIOS and OVMF parse it. See boot_order.h. */
#include <stdio.h>

#include "vmm/firmware/boot_order.h"
#include "vmm/pci/bus.h"

/* PCI below the configuration ports at 0xCF8: the name that both know the root bus by. */
#define ROOT_BUS "/pci@i0cf8"
#define FUNCTION_NAME_MAX 24	/* of one function */

/* Behind those of the same rank. */
static struct boot_entry_path *entry_insert(struct boot_order *o, unsigned rank)
{
	unsigned at = o->n++;

	for (; at && o->entry[at - 1].rank > rank; at--)
		o->entry[at] = o->entry[at - 1];
	o->entry[at].rank = rank;
	return &o->entry[at];
}

/* "kind@slot", and ",function" unless that is 0. */
static void function_name(char name[FUNCTION_NAME_MAX], const char *kind, const struct pci_device *d)
{
	int len = snprintf(name, FUNCTION_NAME_MAX, "%s@%x", kind, PCI_SLOT(d->devfn));

	if (PCI_FUNCTION(d->devfn))
		snprintf(name + len, FUNCTION_NAME_MAX - len, ",%x", PCI_FUNCTION(d->devfn));
}

void boot_order_add(struct boot_order *o, unsigned rank, const char *kind, const struct pci_device *d,
		    const char *below)
{
	const struct pci_device *bridge = d->bus->bridge;
	char port[FUNCTION_NAME_MAX] = "", name[FUNCTION_NAME_MAX];
	struct boot_entry_path *e;

	if (o->n == BOOT_ORDER_MAX)
		return;
	e = entry_insert(o, rank);
	if (bridge)
		function_name(port, "pci-bridge", bridge);
	function_name(name, kind, d);
	snprintf(e->path, sizeof(e->path), "%s%s%s/%s/%s", ROOT_BUS, *port ? "/" : "", port, name, below);
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
