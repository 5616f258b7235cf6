/* virtio 9P transport (virtio 1.2, 5.16.1; Linux's linux/virtio_9p.h): a folder of the host. */
#ifndef QUMRA_VMM_VIRTIO_P9_H
#define QUMRA_VMM_VIRTIO_P9_H

#include "vmm/share/p9.h"
#include "vmm/virtio/options.h"
#include "vmm/virtio/virtio.h"

struct virtio_p9 {
	struct virtio_device dev;
	struct p9 *server;
	u8 *answer;		/* P9_MSIZE_MAX bytes */
	char tag[SHARE_TAG_MAX + 1];
};

int virtio_p9_init(struct virtio_p9 *p, const struct share_options *o,
		   const struct guest_memory *mem, struct io_thread *io, struct error *err);
void virtio_p9_destroy(struct virtio_p9 *p);

extern const struct device_ops virtio_p9_device_ops;	/* self: a struct virtio_p9 */

#endif
