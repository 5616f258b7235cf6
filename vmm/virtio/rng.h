/* virtio entropy device (virtio 1.2, 5.4): the host's random bytes. */
#ifndef QUMRA_VMM_VIRTIO_RNG_H
#define QUMRA_VMM_VIRTIO_RNG_H

#include "vmm/virtio/virtio.h"

struct virtio_rng {
	struct virtio_device dev;
};

int virtio_rng_init(struct virtio_rng *rng, const struct guest_memory *mem, struct io_thread *io,
		    struct error *err);

#endif
