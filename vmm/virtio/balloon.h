/*
 * virtio memory balloon (virtio 1.2, 5.5): takes pages from the guest and gives them back to the host,
 * hears of those that the guest does not use, and of the guest's own memory statistics.
 */
#ifndef QUMRA_VMM_VIRTIO_BALLOON_H
#define QUMRA_VMM_VIRTIO_BALLOON_H

#include "vmm/virtio/options.h"
#include "vmm/virtio/virtio.h"

#define BALLOON_STATS	10	/* tags that there are (5.5.6.3.1) */
#define BALLOON_UNKNOWN	(~0ULL)	/* the value of one that the guest does not tell */

struct virtio_balloon {
	struct virtio_device dev;
	u32 target, actual;	/* pages of 4 KiB; actual is the driver's word */
	u32 most;		/* actual ever was; a figure, not saved */
	u32 poison;		/* what free pages are to be filled with */
	u64 stat[BALLOON_STATS];	/* the last that the driver told */
	u64 reported;		/* bytes given back because the guest does not use them */
	u64 interval;		/* ns */
	struct timer timer;
};

int virtio_balloon_init(struct virtio_balloon *b, const struct balloon_options *o,
			const struct guest_memory *mem, struct io_thread *io, struct error *err);
void virtio_balloon_destroy(struct virtio_balloon *b);
/* Asks the driver to bring the balloon to this many bytes. Under the device's lock. */
void virtio_balloon_set(struct virtio_balloon *b, u64 bytes);
/* The name of a statistic, by its tag. */
const char *virtio_balloon_stat_name(unsigned tag);

extern const struct device_ops virtio_balloon_device_ops;	/* self: a struct virtio_balloon */

#endif
