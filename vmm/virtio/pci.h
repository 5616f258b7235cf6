/* The PCI transport (virtio 1.2, 4.1), modern: no port of older drivers. */
#ifndef QUMRA_VMM_VIRTIO_PCI_H
#define QUMRA_VMM_VIRTIO_PCI_H

#include "vmm/kvm/kvm.h"
#include "vmm/pci/pci.h"
#include "vmm/virtio/virtio.h"

struct virtio_pci {
	struct virtio_device *dev;
	struct pci_device pci;
	const struct kvm *kvm;	/* NULL in tests: kicks come as writes */
	struct loop *loop;	/* the machine's: the pin needs its lock */
	u64 notify;		/* where ioeventfds are, or PCI_UNMAPPED */
	int intx_fd, intx_watch;
	u32 device_features_sel, driver_features_sel, queue_sel;
	u32 isr;		/* atomic */
	u16 vector[VIRTIO_QUEUES_MAX + 1];	/* the last one: the configuration's */
	int fd[VIRTIO_QUEUES_MAX + 1];		/* eventfds of these, or -1; under the device's lock */
};

/*
 * Makes the function; the caller attaches it. The device's I/O thread does not run yet. loop: the
 * machine's.
 */
int virtio_pci_init(struct virtio_pci *p, struct virtio_device *dev, const struct kvm *kvm,
		    struct loop *loop, struct error *err);
/* The I/O thread has ended. */
void virtio_pci_destroy(struct virtio_pci *p);

extern const struct device_ops virtio_pci_device_ops;
extern const struct io_ops virtio_pci_io_ops;	/* of its BAR */

/* In the BAR; a page each. */
#define VIRTIO_PCI_BAR		4
#define VIRTIO_PCI_BAR_SIZE	0x4000
#define VIRTIO_PCI_COMMON	0x0000
#define VIRTIO_PCI_ISR_AT	0x1000
#define VIRTIO_PCI_DEVICE	0x2000
#define VIRTIO_PCI_NOTIFY	0x3000

#endif
