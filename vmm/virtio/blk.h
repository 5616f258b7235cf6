/* virtio block device (virtio 1.2, 5.2) over an image of the block layer. */
#ifndef QUMRA_VMM_VIRTIO_BLK_H
#define QUMRA_VMM_VIRTIO_BLK_H

#include "vmm/block/block.h"
#include "vmm/virtio/virtio.h"

#define BLK_QUEUES_MAX	16
#define BLK_SERIAL_SIZE	20	/* 5.2.6.1 */

struct blk_request;

struct virtio_blk {
	struct virtio_device dev;
	struct block *block;		/* ours to close */
	struct block_info info;
	char serial[BLK_SERIAL_SIZE];	/* not terminated when full */
	unsigned in_flight;
	struct blk_request *free;	/* requests made so far that nobody uses */
};

struct blk_options {
	unsigned queues;	/* 1 to BLK_QUEUES_MAX */
	const char *serial;	/* NULL: none */
};

/* The image was opened on io's loop; it is closed by virtio_blk_destroy(), and when this fails. */
int virtio_blk_init(struct virtio_blk *blk, struct block *block, const struct blk_options *o,
		    const struct guest_memory *mem, struct io_thread *io, struct error *err);
/* The I/O thread has ended. */
void virtio_blk_destroy(struct virtio_blk *blk);
/* The image has another size now: tells the driver. Under the device's lock. */
void virtio_blk_resized(struct virtio_blk *blk);

#endif
