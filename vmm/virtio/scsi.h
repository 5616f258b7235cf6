/* virtio SCSI host (virtio 1.2, 5.6): one controller, each unit is LUN 0 of a target of its own. */
#ifndef QUMRA_VMM_VIRTIO_SCSI_H
#define QUMRA_VMM_VIRTIO_SCSI_H

#include "vmm/scsi/scsi.h"
#include "vmm/virtio/virtio.h"

#define SCSI_UNITS_MAX	12
#define SCSI_QUEUES_MAX	4	/* of requests */

struct scsi_request;

struct virtio_scsi {
	struct virtio_device dev;
	unsigned units;
	struct scsi_unit unit[SCSI_UNITS_MAX];
	u32 sense_size, cdb_size;	/* as the driver says in the configuration */
	bool events_missed;
	u32 resized;		/* units, by bit, of which the driver is still to be told */
	struct scsi_request *free;	/* requests made so far that nobody uses */
};

/* queues: 1 to SCSI_QUEUES_MAX. Units are added before the I/O thread starts. */
int virtio_scsi_init(struct virtio_scsi *s, unsigned queues, const struct guest_memory *mem,
		     struct io_thread *io, struct error *err);
/* The image was opened on io's loop; it is the controller's from here on. */
void virtio_scsi_add(struct virtio_scsi *s, enum scsi_kind kind, struct block *block,
		     const char *serial);
/* The I/O thread has ended. */
void virtio_scsi_destroy(struct virtio_scsi *s);
/* The unit's image has another size now: tells the driver. Under the device's lock. */
void virtio_scsi_resized(struct virtio_scsi *s, unsigned unit);

extern const struct device_ops virtio_scsi_device_ops;	/* self: a struct virtio_scsi */

#endif
