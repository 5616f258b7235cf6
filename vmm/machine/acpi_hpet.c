/* ACPI's HPET description table (IA-PC HPET Specification 1.0a, 3.2.4). */
#include <errno.h>

#include "vmm/hw/hpet.h"
#include "vmm/machine/acpi_tables.h"

struct acpi_hpet {
	struct acpi_header h;
	u32 id;
	struct acpi_address address;
	u8 number;
	u16 min_tick;
	u8 protection;
} PACKED;
_Static_assert(sizeof(struct acpi_hpet) == 56, "HPET 1.0a table 3");

int acpi_write_hpet(struct acpi_tables *t)
{
	struct acpi_hpet *h = table_alloc(t, sizeof(*h), 16);

	if (!h)
		return -ENOMEM;
	h->id = HPET_ID;
	h->address.address = HPET_BASE;	/* of space 0, memory */
	h->min_tick = HPET_MIN_TICK;
	table_finish(t, &h->h, "HPET", 1, sizeof(*h));
	table_list(t, h);
	return 0;
}
