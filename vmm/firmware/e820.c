/* The guest's memory map: see e820.h and guest_memory.h. */
#include "vmm/firmware/e820.h"
#include "vmm/machine/acpi.h"
#include "vmm/pci/mch.h"

static void e820_add(struct e820 *map, u64 start, u64 end, u32 type)
{
	if (end <= start)
		return;
	map->entry[map->count].addr = start;
	map->entry[map->count].size = end - start;
	map->entry[map->count].type = type;
	map->count++;
}

void e820_build(struct e820 *map, const struct guest_memory *mem)
{
	u64 high = guest_memory_high_size(mem);

	map->count = 0;
	e820_add(map, 0, E820_EBDA, E820_USABLE);
	e820_add(map, E820_EBDA, GUEST_VGA_START, E820_FIRMWARE);
	e820_add(map, ACPI_AREA, MP_AREA + MP_AREA_SIZE, E820_FIRMWARE);
	e820_add(map, MP_AREA + MP_AREA_SIZE, guest_memory_low_end(mem), E820_USABLE);
	e820_add(map, ECAM_BASE, ECAM_BASE + ECAM_SIZE, E820_FIRMWARE);
	e820_add(map, E820_KVM_PAGES, E820_KVM_PAGES + E820_KVM_PAGES_SIZE, E820_FIRMWARE);
	e820_add(map, GUEST_HOLE_END, GUEST_HOLE_END + high, E820_USABLE);
}
