/* What all boards share: see machine.h. */
#include <errno.h>
#include <string.h>

#include "vmm/machine/acpi_tables.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/microvm.h"
#include "vmm/machine/pc.h"

int devices_add(struct device_list *l, const struct device_ops *ops, void *self)
{
	if (l->count == DEVICES_MAX)
		return -ENOSPC;
	l->device[l->count++] = (struct device){ .ops = ops, .self = self };
	return 0;
}

int machine_next_slot(u32 taken)
{
	for (int slot = 1; slot < PCI_SLOT_LAST; slot++)
		if (!(taken & BIT(slot)))
			return slot;
	return -ENOSPC;
}

u32 machine_fixed_slots(const struct machine_options *o)
{
	if (o->kind == MACHINE_MICROVM)
		return BIT(0);
	return BIT(0) | BIT(PC_SLOT_LPC) |
	       (u32)(((1ULL << o->root_ports) - 1) << PC_SLOT_PORTS);
}

static int free_slot(const struct pci_bus *bus)
{
	u32 taken = 0;
	int slot;

	for (unsigned i = 0; i < PCI_SLOTS; i++)
		taken |= bus->device[PCI_DEVFN(i, 0)] ? BIT(i) : 0;
	slot = machine_next_slot(taken);
	return slot < 0 ? slot : PCI_DEVFN(slot, 0);
}

int devices_add_pci(struct device_list *l, struct pci_bus *bus, int devfn, struct pci_device *d,
		    const struct device_ops *ops, void *self)
{
	int ret;

	if (devfn == PCI_SLOT_ANY)
		devfn = free_slot(bus);
	if (devfn < 0 || l->count + 2 > DEVICES_MAX)
		return -ENOSPC;
	ret = pci_attach(bus, devfn, d);
	if (ret < 0)
		return ret;
	devices_add(l, &pci_function_ops, d);
	if (ops)
		devices_add(l, ops, self);
	return devfn;
}

void devices_reset(struct device_list *l)
{
	for (unsigned i = 0; i < l->count; i++)
		l->device[i].ops->reset(l->device[i].self);
}

void devices_pause(struct device_list *l)
{
	for (unsigned i = 0; i < l->count; i++)
		l->device[i].ops->pause(l->device[i].self);
}

void devices_resume(struct device_list *l)
{
	for (unsigned i = 0; i < l->count; i++)
		l->device[i].ops->resume(l->device[i].self);
}

/*
 * What firmware has at the reset vector, for kernels that go there in real mode to reboot: Linux does
 * on hardware-reduced ACPI without UEFI. mov dx, port; mov al, value; out dx, al; hlt; jmp to the hlt.
 */
static int write_reset_vector(const struct guest_memory *mem, const struct acpi_board *board)
{
	const u8 code[] = {
		0xBA, board->reset_port & 0xFF, board->reset_port >> 8, 0xB0, board->reset_value,
		0xEE, 0xF4, 0xEB, 0xFD,
	};
	u8 *at = guest_memory_at(mem, RESET_VECTOR, sizeof(code));

	if (!at)
		return -ENOMEM;
	memcpy(at, code, sizeof(code));
	return 0;
}

int machine_write_tables(const struct machine_options *o, const struct guest_memory *mem,
			 const struct cpu_topology *cpus, struct error *err)
{
	struct acpi_config config;
	int ret;

	if (o->kind == MACHINE_MICROVM)
		microvm_acpi_config(&config, o, mem, cpus);
	else
		pc_acpi_config(&config, NULL, o, mem, cpus);
	config.vmgenid_page = VMGENID_PAGE;
	ret = acpi_write_tables(mem, &config);
	if (ret == 0)
		ret = mp_write_table(mem, cpus);
	if (ret == 0)
		ret = write_reset_vector(mem, config.board);
	if (ret < 0)
		return error_set(err, -ret, "cannot write the firmware tables: %s", strerror(-ret));
	return 0;
}
