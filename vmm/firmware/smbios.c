/*
 * SMBIOS 2.8 tables (DMTF DSP0134): system, enclosure, processors, memory, boot status. Type 0 is
 * the firmware's own.
 */
#include <string.h>

#include "vmm/firmware/smbios.h"
#include "vmm/machine/acpi.h"

#define NO_HANDLE	0xFFFE
#define UNKNOWN		2

/* size: with the header, which is filled in. Strings follow, none: NULL. Returns the handle. */
static u16 smbios_add(struct smbios *s, u8 type, void *structure, u8 size, const char *const *strings)
{
	u8 *head = structure, *at = s->table + s->used;
	u32 need = size + 2;

	for (const char *const *p = strings; p && *p; p++)
		need += strlen(*p) + 1;
	if (need > SMBIOS_SIZE - s->used)
		return NO_HANDLE;
	head[0] = type;
	head[1] = size;
	memcpy(head + 2, &s->handle, 2);
	at = mempcpy(at, structure, size);
	for (const char *const *p = strings; p && *p; p++)
		at = mempcpy(at, *p, strlen(*p) + 1);
	if (!strings)
		*at++ = 0;
	*at++ = 0;
	s->anchor.max_size = MAX(s->anchor.max_size, (u16)need);
	s->used = at - s->table;
	s->anchor.count++;
	return s->handle++;
}

static void smbios_add_system(struct smbios *s)
{
	static const char *const system[] = { "Qumra", "Standard PC", "1.0", NULL };
	static const char *const chassis[] = { "Qumra", NULL };
	/* Manufacturer, product, version, serial, UUID, wake-up (power switch), SKU, family. */
	u8 type1[27] = { [4] = 1, 2, 3, 0, [24] = 6 };
	/* Manufacturer, type (other), version, serial, tag, states (safe, safe, safe, none). */
	u8 type3[22] = { [4] = 1, 1, [9] = 3, 3, 3, 3 };

	smbios_add(s, 1, type1, sizeof(type1), system);
	smbios_add(s, 3, type3, sizeof(type3), chassis);
}

struct smbios_processor {
	u8 head[4];
	u8 socket, type, family, manufacturer;
	u64 id;
	u8 version, voltage;
	u16 clock, max_speed, speed;
	u8 status, upgrade;
	u16 cache[3];
	u8 serial, tag, part, cores, enabled, threads;
	u16 characteristics, family2;
} __attribute__((packed));
_Static_assert(sizeof(struct smbios_processor) == 42, "SMBIOS 2.6, 7.5");

static void smbios_add_processors(struct smbios *s, const struct cpu_topology *cpus)
{
	static const char *const strings[] = { "CPU", "Qumra", NULL };
	struct smbios_processor p = {
		.socket = 1, .type = 3, .family = 1, .manufacturer = 2,
		.status = 0x41, .upgrade = 1,	/* populated and enabled */
		.cache = { 0xFFFF, 0xFFFF, 0xFFFF },
		.cores = cpus->cores, .enabled = cpus->cores, .threads = cpus->cores * cpus->threads,
		.characteristics = UNKNOWN, .family2 = 1,
	};

	for (unsigned i = 0; i < cpus->sockets; i++)
		smbios_add(s, 4, &p, sizeof(p), strings);
}

struct smbios_array {
	u8 head[4];
	u8 location, use, correction;
	u32 capacity;
	u16 error, devices;
	u64 extended;
} __attribute__((packed));
struct smbios_memory {
	u8 head[4];
	u16 array, error, total_width, data_width, size;
	u8 form, set, locator, bank, type;
	u16 detail, speed;
	u8 manufacturer, serial, tag, part, attributes;
	u32 extended_size;
	u16 clock, voltage[3];
} __attribute__((packed));
struct smbios_mapped {
	u8 head[4];
	u32 start, end;
	u16 array;
	u8 width;
	u64 extended_start, extended_end;
} __attribute__((packed));
_Static_assert(sizeof(struct smbios_array) == 23 && sizeof(struct smbios_memory) == 40 &&
		       sizeof(struct smbios_mapped) == 31, "SMBIOS 2.8, 7.17 to 7.20");

static void smbios_add_mapped(struct smbios *s, u16 array, u64 start, u64 size)
{
	struct smbios_mapped m = { .array = array, .width = 1 };

	if (!size)
		return;
	m.start = m.end = ~0U;
	m.extended_start = start;
	m.extended_end = start + size - 1;
	smbios_add(s, 19, &m, sizeof(m), NULL);
}

static void smbios_add_memory(struct smbios *s, const struct guest_memory *mem)
{
	static const char *const strings[] = { "DIMM 0", NULL };
	struct smbios_array array = {
		.location = 1, .use = 3, .correction = 3, .capacity = 0x80000000, .error = NO_HANDLE,
		.devices = 1, .extended = mem->size,
	};
	u16 handle = smbios_add(s, 16, &array, sizeof(array), NULL);
	struct smbios_memory m = {
		.array = handle, .error = NO_HANDLE, .total_width = 0xFFFF, .data_width = 0xFFFF,
		.size = 0x7FFF, .form = 9, .locator = 1, .type = 7, .detail = BIT(1),
		.extended_size = mem->size >> 20,
	};

	smbios_add(s, 17, &m, sizeof(m), strings);
	smbios_add_mapped(s, handle, 0, guest_memory_low_end(mem));
	smbios_add_mapped(s, handle, GUEST_HOLE_END, guest_memory_high_size(mem));
}

static void smbios_finish(struct smbios *s)
{
	struct smbios_anchor *a = &s->anchor;

	memcpy(a->anchor, "_SM_", 4);
	memcpy(a->dmi, "_DMI_", 5);
	a->length = sizeof(*a);
	a->major = 2;
	a->minor = 8;
	a->bcd = 0x28;
	a->table_length = s->used;
	a->dmi_checksum = firmware_checksum(a->dmi, sizeof(*a) - offsetof(struct smbios_anchor, dmi));
	a->checksum = firmware_checksum(a, sizeof(*a));
}

void smbios_build(struct smbios *s, const struct guest_memory *mem, const struct cpu_topology *cpus)
{
	u8 boot[11] = { 0 }, end[4] = { 0 };

	memset(s, 0, sizeof(*s));
	s->handle = 0x100;	/* firmware takes the first for its own */
	smbios_add_system(s);
	smbios_add_processors(s, cpus);
	smbios_add_memory(s, mem);
	smbios_add(s, 32, boot, sizeof(boot), NULL);
	smbios_add(s, 127, end, sizeof(end), NULL);
	smbios_finish(s);
}
