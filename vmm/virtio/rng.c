/* The entropy device: each buffer of the driver is filled by getrandom(2). See rng.h. */
#include <sys/random.h>

#include "vmm/virtio/sg.h"
#include "vmm/virtio/rng.h"

#define RNG_QUEUE_SIZE 8
/* No buffer gets more: getrandom() takes 3 ms a megabyte, under the thread's lock. */
#define RNG_BYTES_MAX 65536

static bool rng_fill(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct iovec *in = c->iov + c->outs;
	u32 done = 0;

	for (unsigned i = 0; i < c->ins && done < RNG_BYTES_MAX; i++) {
		ssize_t n = getrandom(in[i].iov_base, MIN(in[i].iov_len, RNG_BYTES_MAX - done), 0);

		if (n <= 0)
			break;
		done += n;
		if ((size_t)n < in[i].iov_len)
			break;
	}
	virtio_done(d, queue, c, done);
	return true;
}

static void rng_kick(struct virtio_device *d, unsigned queue)
{
	virtio_queue_run(d, queue, rng_fill);
}

static const struct virtio_device_ops rng_ops = {
	.name = "virtio-rng", .id = VIRTIO_ID_RNG, .kick = rng_kick,
};

int virtio_rng_init(struct virtio_rng *rng, const struct guest_memory *mem, struct io_thread *io,
		    struct error *err)
{
	return virtio_init(&rng->dev, &rng_ops, 0, 1, RNG_QUEUE_SIZE, 0, mem, io, err);
}
