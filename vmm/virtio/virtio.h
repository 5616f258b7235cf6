/*
 * A virtio device between its transport and what it is (virtio 1.2, chapters 2 and 3): status,
 * features, queues, configuration. A transport (MMIO, PCI) calls the functions that say "for
 * transports"; a kind of device (blk, net …) fills in virtio_device_ops.
 *
 * Each device belongs to an I/O thread; all here is under that thread's lock. A driver's kick is an
 * eventfd that the thread watches, an interrupt one that the hypervisor does, so a request passes
 * without an exit to a CPU's thread.
 */
#ifndef QUMRA_VMM_VIRTIO_VIRTIO_H
#define QUMRA_VMM_VIRTIO_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#include "vmm/loop/io_thread.h"
#include "vmm/migration/state.h"
#include "vmm/virtio/virtq.h"

#define VIRTIO_QUEUES_MAX	20
#define VIRTIO_CONFIG		(-1)	/* in the place of a queue: the configuration changed */

/* What every device offers; those of its own kind come from its ops. */
#define VIRTIO_FEATURES                                                              \
	(BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |           \
	 BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED))

struct virtio_device;

/* All may be NULL. */
struct virtio_device_ops {
	const char *name;
	u32 id;
	/* The driver is there, queues may be used. */
	void (*start)(struct virtio_device *d);
	/* Brings back or forgets all buffers, waits for what still uses them. Then queues are gone. */
	void (*stop)(struct virtio_device *d);
	/* The driver has put something into a queue, or may have. */
	void (*kick)(struct virtio_device *d, unsigned queue);
	/* Until resume nothing is taken from a queue; what is in flight is waited for. */
	void (*pause)(struct virtio_device *d);
	void (*resume)(struct virtio_device *d);
	/* Within config_size. */
	void (*config_read)(struct virtio_device *d, u32 offset, void *data, u32 len);
	void (*config_write)(struct virtio_device *d, u32 offset, const void *data, u32 len);
	/* Could a driver accept these (a subset of what is offered)? */
	bool (*features_valid)(struct virtio_device *d, u64 features);
	/* What call_fd of the transport says of this queue may have changed. */
	void (*rewired)(struct virtio_device *d, unsigned queue);
};

/* Tells the driver: queue or VIRTIO_CONFIG. */
struct virtio_transport {
	void (*interrupt)(void *transport, int queue);
	void (*reset)(void *transport);	/* the driver reset the device */
	/* An eventfd that is this queue's interrupt, or -1: interrupt() must be called. May be NULL. */
	int (*call_fd)(void *transport, unsigned queue);
	void *transport;
};

struct virtio_queue {
	struct virtq vq;
	struct virtq_config config;	/* as the driver says */
	u16 size_max;
	struct virtio_device *dev;
	int kick_fd, watch;
};

struct virtio_device {
	const struct virtio_device_ops *ops;
	const struct guest_memory *mem;
	struct io_thread *io;
	struct virtio_transport transport;
	u64 offered, features;
	u32 config_size, config_generation;
	u8 status;
	bool paused;
	unsigned queues;
	struct virtio_queue queue[VIRTIO_QUEUES_MAX];
};

/* queues, each of at most size_max descriptors; config_size bytes of configuration. */
int virtio_init(struct virtio_device *d, const struct virtio_device_ops *ops, u64 features,
		unsigned queues, u16 size_max, u32 config_size, const struct guest_memory *mem,
		struct io_thread *io, struct error *err);
void virtio_destroy(struct virtio_device *d);

extern const struct device_ops virtio_device_ops;	/* self: a struct virtio_device */

/* ---- for transports -------------------------------------------------------------------------- */

void virtio_lock(struct virtio_device *d);
void virtio_unlock(struct virtio_device *d);
void virtio_set_features(struct virtio_device *d, u64 features);
void virtio_set_status(struct virtio_device *d, u8 status);
/* The queue's config is filled in. */
void virtio_queue_enable(struct virtio_device *d, unsigned queue);
/* A kick that did not come by its eventfd. Needs no lock. */
void virtio_queue_kick(struct virtio_device *d, unsigned queue);
/* Bytes beyond the configuration read as 0 and swallow writes. */
void virtio_config_read(struct virtio_device *d, u32 offset, void *data, u32 len);
void virtio_config_write(struct virtio_device *d, u32 offset, const void *data, u32 len);

/* ---- for kinds of devices -------------------------------------------------------------------- */

static inline bool virtio_has(const struct virtio_device *d, unsigned feature)
{
	return d->features & BIT(feature);
}

/* May queues be used? */
bool virtio_running(const struct virtio_device *d);
/* The driver broke the rules: nothing goes on until it resets the device. */
void virtio_fail(struct virtio_device *d);
void virtio_config_changed(struct virtio_device *d);
/* As virtq_pop(), but a broken queue fails the device and is as an empty one. */
bool virtio_pop(struct virtio_device *d, unsigned queue, struct virtq_chain *chain);
/* As virtio_pop(); when there is nothing the driver is asked to kick. For queues of empty buffers. */
bool virtio_pop_or_wait(struct virtio_device *d, unsigned queue, struct virtq_chain *chain);
/* Gives buffers back, and interrupts if the driver wants it. */
void virtio_push(struct virtio_device *d, unsigned queue, const struct virtq_used *used, unsigned n);
void virtio_done(struct virtio_device *d, unsigned queue, const struct virtq_chain *chain, u32 len);
/*
 * Pops and gives to fn what there is, with kicks off meanwhile. fn returns false to have the buffer
 * put back and stop, with kicks off: the device comes again by itself. When much comes it lets others
 * of its thread go first.
 */
void virtio_queue_run(struct virtio_device *d, unsigned queue,
		      bool (*fn)(struct virtio_device *d, unsigned queue, struct virtq_chain *chain));

#endif
