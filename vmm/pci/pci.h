/*
 * PCI functions as the code of a device sees them (PCI Local Bus 3.0, PCI Express Base 4.0 chapter
 * 7). The core owns configuration space, BARs, MSI-X table and interrupt pin; a device says at the
 * start what it has and is called back:
 *
 *	struct thing { struct pci_device pci; ... };
 *
 *	pci_init(&t->pci, &thing_pci_ops, t, &(struct pci_id){ .vendor = ..., .class = 0x020000 });
 *	pci_add_bar(&t->pci, 0, PCI_BAR_MEM64_PREFETCH, 0x4000, &thing_bar_ops, t);
 *	cap = pci_add_vendor_capability(&t->pci, &data, sizeof(data));
 *	pci_add_msix(&t->pci, 1, vectors);
 *	ret = pci_attach(bus, PCI_DEVFN(slot, 0), &t->pci);	(or pc_add_pci() of machine/pc.h)
 *
 * Everything is called under the machine's lock but for writes to an eventfd of pci_msix_eventfd().
 * The core saves and loads configuration space, MSI-X and the pin's level itself, before the
 * device's own state (pci_function_ops); a device's state table has only what is its own.
 */
#ifndef QUMRA_VMM_PCI_PCI_H
#define QUMRA_VMM_PCI_PCI_H

#include <pthread.h>

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/machine/io_map.h"
#include "vmm/migration/state.h"

#define PCI_CONFIG_SIZE		256	/* what follows in a PCIe function's 4 KiB reads as zero */
#define PCI_BARS		6
#define PCI_SLOTS		32
#define PCI_ROM			PCI_BARS	/* the expansion ROM, as a BAR number */
#define PCI_MSIX_VECTORS_MAX	256
#define PCI_UNMAPPED		(~0ULL)

#define PCI_DEVFN(slot, function)	((slot) << 3 | (function))
#define PCI_SLOT(devfn)			((devfn) >> 3)
#define PCI_FUNCTION(devfn)		((devfn) & 7)

/* Configuration registers (PCI 3.0, 6.1). */
enum {
	PCI_VENDOR = 0x00, PCI_DEVICE = 0x02, PCI_COMMAND = 0x04, PCI_STATUS = 0x06,
	PCI_REVISION = 0x08, PCI_CLASS = 0x09, PCI_CACHE_LINE = 0x0C, PCI_LATENCY = 0x0D,
	PCI_HEADER_TYPE = 0x0E, PCI_BAR0 = 0x10, PCI_SUBSYSTEM_VENDOR = 0x2C,
	PCI_SUBSYSTEM = 0x2E, PCI_ROM_BAR = 0x30, PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3C, PCI_INTERRUPT_PIN = 0x3D,
};

#define PCI_COMMAND_IO		BIT(0)
#define PCI_COMMAND_MEMORY	BIT(1)
#define PCI_COMMAND_MASTER	BIT(2)
#define PCI_COMMAND_PARITY	BIT(6)
#define PCI_COMMAND_SERR	BIT(8)
#define PCI_COMMAND_INTX_OFF	BIT(10)
#define PCI_STATUS_INTX		BIT(3)
#define PCI_STATUS_CAPABILITIES	BIT(4)
#define PCI_HEADER_BRIDGE	0x01
#define PCI_HEADER_MULTI	0x80

enum { PCI_CAP_PM = 0x01, PCI_CAP_VENDOR = 0x09, PCI_CAP_EXPRESS = 0x10, PCI_CAP_MSIX = 0x11 };

enum pci_bar_kind { PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_MEM64_PREFETCH };

struct pci_device;
struct pci_bus;
struct pci_host;

struct pci_id {
	u16 vendor, device, subsystem_vendor, subsystem;
	u32 class;	/* 24 bits: class, subclass, programming interface */
	u8 revision;
};

/* All may be NULL. d->self is the device. */
struct pci_ops {
	/* Before the guest reads from offset: bring d->config up to date (virtio's cfg window). */
	void (*config_read)(struct pci_device *d, unsigned offset, unsigned size);
	/* After the guest wrote: d->config has the new value. Also after reset and load, for all of it. */
	void (*config_written)(struct pci_device *d, unsigned offset, unsigned size);
	/* The guest moved the BAR; base is PCI_UNMAPPED while it is not decoded. For ioeventfds. */
	void (*bar_moved)(struct pci_device *d, unsigned bar, u64 base);
	/* The bus was reset (by a bridge), not the machine. */
	void (*reset)(struct pci_device *d);
};

struct pci_bar {
	struct pci_device *dev;
	u8 index;
	enum pci_bar_kind kind;
	u64 size;	/* a power of two, at least 4 (I/O) or 16; 0: none */
	const struct io_ops *ops;
	void *arg;
	u64 base;	/* where it is decoded now, or PCI_UNMAPPED */
};

/* PCI 3.0, 6.8.2. */
struct pci_msix_vector {
	u64 address;
	u32 data, control;
	bool pending;
	int fd;		/* eventfd, or -1 */
	int route;	/* what joins fd to the interrupt controllers now, or -1 */
	/* While fd is joined: the message, for pci_msix_signal(). Under the device's msix_lock. */
	struct { bool on; u64 address; u32 data; } wired;
};

struct pci_device {
	const struct pci_ops *ops;
	void *self;
	struct pci_bus *bus;	/* NULL before pci_attach() */
	u8 devfn;

	u8 config[PCI_CONFIG_SIZE];
	u8 writable[PCI_CONFIG_SIZE];	/* bits that the guest may write */
	u8 clearable[PCI_CONFIG_SIZE];	/* bits that it clears by writing ones */
	u8 status[PCI_CONFIG_SIZE];	/* bits that the device changes by itself */
	u8 initial[PCI_CONFIG_SIZE];	/* config at reset; set by pci_attach() */
	u8 next_capability, last_capability;

	struct pci_bar bar[PCI_BARS + 1];
	u8 msix;		/* its capability's offset, or 0 */
	u8 msix_bar;
	u32 msix_table, msix_pba;	/* offsets in the BAR */
	unsigned vectors;
	struct pci_msix_vector *vector;
	pthread_mutex_t msix_lock;	/* the vectors' wired; the innermost lock */

	bool intx, intx_wired;		/* what the device wants; what the line has */
	struct pci_bus *secondary;	/* of a bridge */
};

/* ---- at the start ---------------------------------------------------------------------------- */

/* A type 0 function without BARs or capabilities. */
void pci_init(struct pci_device *d, const struct pci_ops *ops, void *self, const struct pci_id *id);
/* The interrupt pin: 0 none, 1 to 4 for INTA to INTD. */
void pci_set_pin(struct pci_device *d, unsigned pin);
/* A 64-bit BAR takes the next register, too. size is a power of two; ops as in machine/io_map.h. */
void pci_add_bar(struct pci_device *d, unsigned bar, enum pci_bar_kind kind, u64 size,
		 const struct io_ops *ops, void *arg);
/* An option ROM; data (size bytes) must stay. */
struct pci_rom { const u8 *data; u64 size; };
void pci_set_rom(struct pci_device *d, const struct pci_rom *rom);
/*
 * rom.c: one from a file, allocated, whose images become those of vendor and device. -errno, and what it
 * is about.
 */
int pci_rom_open(struct pci_rom *rom, const char *path, u16 vendor, u16 device, struct error *err);
void pci_rom_close(struct pci_rom *rom);
/* The same to images in memory; whatever else they are, nothing outside of them is touched. */
void pci_rom_adopt(u8 *data, u64 size, u16 vendor, u16 device);
/*
 * size bytes from id on, zero and read-only but for the header. Returns the offset. Capabilities lie in
 * the order of adding, from 0x40 on.
 */
unsigned pci_add_capability(struct pci_device *d, u8 id, unsigned size);
/* data begins behind id and next: with the length byte, which the core writes. size: with these. */
unsigned pci_add_vendor_capability(struct pci_device *d, const void *capability, unsigned size);
unsigned pci_add_pm(struct pci_device *d);
/* PCIe 4.0, 7.5.3.2: device/port types. */
enum { PCI_EXPRESS_ENDPOINT = 0, PCI_EXPRESS_ROOT_PORT = 4, PCI_EXPRESS_INTEGRATED = 9 };
unsigned pci_add_express(struct pci_device *d, unsigned type);
/*
 * MSI-X with its table and pending bits in a memory BAR of the core's own; 0 or -ENOMEM. The BAR
 * is pci_msix_bar_size(vectors) long.
 */
int pci_add_msix(struct pci_device *d, unsigned bar, unsigned vectors);
u64 pci_msix_bar_size(unsigned vectors);
/* -EBUSY when the place is taken. config is now what a reset goes back to. */
int pci_attach(struct pci_bus *bus, u8 devfn, struct pci_device *d);
/* Takes it off the bus: BARs and interrupts go. The device's memory may be freed afterwards. */
void pci_detach(struct pci_device *d);

/* ---- configuration space --------------------------------------------------------------------- */

static inline u16 pci_get_u16(const u8 *config, unsigned at)
{
	return config[at] | config[at + 1] << 8;
}

static inline u32 pci_get_u32(const u8 *config, unsigned at)
{
	return pci_get_u16(config, at) | (u32)pci_get_u16(config, at + 2) << 16;
}

/* For d->config, d->writable and d->clearable alike. */
static inline void pci_put_u16(u8 *config, unsigned at, u16 value)
{
	config[at] = value;
	config[at + 1] = value >> 8;
}

static inline void pci_put_u32(u8 *config, unsigned at, u32 value)
{
	pci_put_u16(config, at, value);
	pci_put_u16(config, at + 2, value >> 16);
}

/* May it read and write guest memory? */
static inline bool pci_is_master(const struct pci_device *d)
{
	return d->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

/* What a guest does, by whatever mechanism. size 1, 2 or 4; offset is a multiple of it. */
u32 pci_config_read(struct pci_device *d, unsigned offset, unsigned size);
void pci_config_write(struct pci_device *d, unsigned offset, u32 value, unsigned size);

/* ---- interrupts ------------------------------------------------------------------------------ */

/* The level that the device wants on its pin. */
void pci_set_intx(struct pci_device *d, bool level);
/* With MSI-X on, a device uses it in place of its pin. */
bool pci_msix_enabled(const struct pci_device *d);
/* Is a message held back by a mask? */
bool pci_msix_pending(const struct pci_device *d, unsigned vector);
/* One message, now or when the guest unmasks the vector. Vectors that are not there are ignored. */
void pci_msix_notify(struct pci_device *d, unsigned vector);
/*
 * An eventfd, the core's, whose writes are messages of the vector, from any thread and without the
 * lock; or -errno. Made at the first call, and the same until pci_detach().
 */
int pci_msix_eventfd(struct pci_device *d, unsigned vector);
/*
 * As a write to that eventfd, which was asked for: any thread, no lock needed. While nothing is masked
 * it sends the message itself, which spares the hypervisor's thread behind the eventfd a turn.
 */
void pci_msix_signal(struct pci_device *d, unsigned vector);

/* ---- the five verbs, of the core's part ------------------------------------------------------ */

/* self is the struct pci_device. Load and reset go before the device's own. */
extern const struct device_ops pci_function_ops;

#endif
