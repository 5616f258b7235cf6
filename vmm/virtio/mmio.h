/* The memory-mapped transport (virtio 1.2, 4.2), version 2. */
#ifndef QUMRA_VMM_VIRTIO_MMIO_H
#define QUMRA_VMM_VIRTIO_MMIO_H

#include "vmm/kvm/kvm.h"
#include "vmm/machine/io_map.h"
#include "vmm/virtio/virtio.h"

/* Where windows lie: one for each device, behind the IOAPIC, where PCI puts nothing. */
#define VIRTIO_MMIO_BASE	0xFEC10000ULL
#define VIRTIO_MMIO_STRIDE	0x1000	/* a page each */
#define VIRTIO_MMIO_SIZE	0x200
#define VIRTIO_MMIO_MAX		16

/* The GSI of the device in a window. Lines of the ISA bus that nobody has; several devices share one. */
unsigned virtio_mmio_gsi(unsigned index);

struct virtio_mmio {
	struct virtio_device *dev;
	const struct kvm *kvm;	/* NULL in tests: irq_fd is there all the same */
	u64 base;
	unsigned gsi;
	int irq_fd;
	u32 device_features_sel, driver_features_sel, queue_sel;
	u32 interrupt_status;	/* atomic: read and acknowledged without the device's lock */
};

/*
 * Puts dev into window index of map, with its kicks and its interrupt wired through the hypervisor.
 * The device is there; its I/O thread does not run yet.
 */
int virtio_mmio_init(struct virtio_mmio *m, struct virtio_device *dev, unsigned index,
		     const struct kvm *kvm, struct io_map *map, struct error *err);
void virtio_mmio_destroy(struct virtio_mmio *m);

extern const struct io_ops virtio_mmio_io_ops;
extern const struct device_ops virtio_mmio_device_ops;

/* What Linux's virtio_mmio.device= says of window index; as snprintf(). */
int virtio_mmio_cmdline(unsigned index, char *buf, size_t size);
/*
 * Tells ACPI of the first n windows, by a table of their own (mmio_acpi.c). The other tables are in
 * guest memory. 0 or -ENOMEM.
 */
int virtio_mmio_write_acpi(const struct guest_memory *mem, unsigned n);

#endif
