/* The VM generation ID: a number in guest memory that is another one in each copy of a machine. */
#ifndef QUMRA_VMM_HW_VMGENID_H
#define QUMRA_VMM_HW_VMGENID_H

#include "vmm/machine/options.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/migration/state.h"

#define VMGENID_PAGE_SIZE	4096
#define VMGENID_OFFSET		40	/* in its page, behind what firmware takes for a table's header */

struct vmgenid {
	const struct guest_memory *mem;
	void (*notify)(void *arg);	/* the board's way to ACPI's Notify (VGEN, 0x80) */
	void *arg;
	bool fixed;			/* the number was given, so a copy has it as well */
	u8 guid[VMGENID_SIZE];
	u64 address;			/* of the page in guest memory, as firmware writes it; 0: none yet */
	u8 page[VMGENID_PAGE_SIZE];	/* as firmware copies it there */
	bool changed;			/* by a load; the guest learns of it when it goes on */
};

struct vmgenid_state {
	u64 address;
	u8 guid[VMGENID_SIZE];
	u8 changed;
};

extern const struct device_ops vmgenid_device_ops;

/* -errno where there is no randomness. */
int vmgenid_init(struct vmgenid *v, const struct vmgenid_options *o, const struct guest_memory *mem,
		 void (*notify)(void *arg), void *arg);
/* Without firmware: the page lies there. */
void vmgenid_place(struct vmgenid *v, u64 address);

#endif
