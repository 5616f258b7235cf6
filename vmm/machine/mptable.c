/* The MultiProcessor Specification's table (version 1.4, chapter 4), for kernels without ACPI. */
#include <errno.h>
#include <string.h>

#include "vmm/machine/acpi.h"
#include "vmm/machine/pc.h"

#define PACKED __attribute__((packed))

struct mp_floating {
	char signature[4];
	u32 table;
	u8 length, revision, checksum, features[5];
} PACKED;

struct mp_header {
	char signature[4];
	u16 length;
	u8 revision, checksum;
	char oem[8], product[12];
	u32 oem_table;
	u16 oem_size, entries;
	u32 lapic;
	u16 extended_length;
	u8 extended_checksum, reserved;
} PACKED;

struct mp_cpu {
	u8 type, apic_id, apic_version, flags;
	u32 signature, features;
	u64 reserved;
} PACKED;

struct mp_bus {
	u8 type, id;
	char name[6];
} PACKED;

struct mp_ioapic {
	u8 type, id, version, flags;
	u32 address;
} PACKED;

struct mp_interrupt {
	u8 type, kind;
	u16 flags;
	u8 bus, irq, apic, pin;
} PACKED;

_Static_assert(sizeof(struct mp_floating) == 16 && sizeof(struct mp_header) == 44 &&
		       sizeof(struct mp_cpu) == 20 && sizeof(struct mp_bus) == 8 &&
		       sizeof(struct mp_ioapic) == 8 && sizeof(struct mp_interrupt) == 8,
	"MP 1.4 chapter 4");

enum { MP_CPU, MP_BUS, MP_IOAPIC, MP_IO_INT, MP_LOCAL_INT };
enum { INT_VECTORED, INT_NMI, INT_SMI, INT_EXTINT };

#define CPU_ENABLED	BIT(0)
#define CPU_BOOT	BIT(1)
#define CPU_FEATURES	0x201	/* on-chip FPU and APIC */
#define APIC_VERSION	0x14
#define IOAPIC_VERSION	0x11
#define LEVEL_HIGH	0x000D
#define ALL_APICS	0xFF

struct mp_writer {
	struct mp_header *h;
	u8 *at;
};

static void mp_add(struct mp_writer *w, const void *entry, size_t size)
{
	w->at = mempcpy(w->at, entry, size);
	w->h->entries++;
}

static void mp_add_cpu(struct mp_writer *w, u8 apic_id, bool boot)
{
	const struct mp_cpu e = {
		.type = MP_CPU,
		.apic_id = apic_id,
		.apic_version = APIC_VERSION,
		.flags = CPU_ENABLED | (boot ? CPU_BOOT : 0),
		.signature = 0x600,
		.features = CPU_FEATURES,
	};

	mp_add(w, &e, sizeof(e));
}

static void mp_add_interrupts(struct mp_writer *w)
{
	for (unsigned irq = 0; irq < 16; irq++) {
		struct mp_interrupt e = { .type = MP_IO_INT, .irq = irq, .pin = irq ? irq : 2 };

		if (irq == 2)
			continue;	/* the cascade */
		if (irq == IRQ_SCI)
			e.flags = LEVEL_HIGH;
		mp_add(w, &e, sizeof(e));
	}
	mp_add(w, &(struct mp_interrupt){.type = MP_LOCAL_INT, .kind = INT_EXTINT},
		sizeof(struct mp_interrupt));
	mp_add(w,
		&(struct mp_interrupt){
			.type = MP_LOCAL_INT, .kind = INT_NMI, .apic = ALL_APICS, .pin = 1},
		sizeof(struct mp_interrupt));
}

int mp_write_table(const struct guest_memory *mem, const struct cpu_topology *cpus)
{
	struct mp_floating *f = guest_memory_at(mem, MP_AREA, MP_AREA_SIZE);
	struct mp_writer w;

	if (!f)
		return -ENOMEM;
	w.h = (struct mp_header *)(f + 1);
	w.at = (u8 *)(w.h + 1);
	*w.h = (struct mp_header){ .signature = "PCMP", .revision = 4, .lapic = APIC_DEFAULT_BASE };
	memcpy(w.h->oem, "QUMRA   ", 8);
	memcpy(w.h->product, "PC          ", 12);
	for (unsigned i = 0; i < topology_cpus(cpus); i++)
		mp_add_cpu(&w, topology_apic_id(cpus, i), i == 0);
	mp_add(&w, &(struct mp_bus){ MP_BUS, 0, "ISA   " }, sizeof(struct mp_bus));
	mp_add(&w, &(struct mp_ioapic){ MP_IOAPIC, 0, IOAPIC_VERSION, 1, IOAPIC_DEFAULT_BASE },
	       sizeof(struct mp_ioapic));
	mp_add_interrupts(&w);
	w.h->length = w.at - (u8 *)w.h;
	w.h->checksum = firmware_checksum(w.h, w.h->length);
	*f = (struct mp_floating){
		.signature = "_MP_", .table = MP_AREA + sizeof(*f), .length = 1, .revision = 4};
	f->checksum = firmware_checksum(f, sizeof(*f));
	return 0;
}
