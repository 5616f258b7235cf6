/*
 * Virtqueues, split and packed (virtio 1.2, 2.6 to 2.8), as the device sees them.
 *
 * A queue lies in guest memory and its driver may be hostile: every index, length and address is read
 * once and checked. What cannot be is told by -EPROTO, once; from then on the queue is broken, gives
 * nothing, and its device needs a reset. Memory of the host is reached only through
 * guest_memory_at().
 *
 * A queue is used under its device's lock.
 */
#ifndef QUMRA_VMM_VIRTIO_VIRTQ_H
#define QUMRA_VMM_VIRTIO_VIRTQ_H

#include <sys/uio.h>

#include "lib/types.h"
#include "vmm/memory/guest_memory.h"

#define VIRTQ_SIZE_MAX	256	/* descriptors in a queue, and buffers in a chain */

#define VIRTQ_F_INDIRECT	1	/* VIRTIO_F_RING_INDIRECT_DESC was negotiated */
#define VIRTQ_F_EVENT_IDX	2	/* VIRTIO_F_RING_EVENT_IDX */
#define VIRTQ_F_PACKED		4	/* VIRTIO_F_RING_PACKED */

/* What the transport tells, and what a saved state holds. Addresses are the guest's. */
struct virtq_config {
	u64 desc, driver, device;
	u16 size;
};

/* Where the device is in it. */
struct virtq_position {
	u16 avail, used;		/* split: free-running; packed: slots */
	u8 avail_wrap, used_wrap;	/* packed: the wrap counters */
};

struct virtq {
	const struct guest_memory *mem;
	struct virtq_config config;
	u8 flags;
	bool ready, broken;
	struct virtq_position at;
	u16 in_flight;		/* slots taken and not given back */
	u16 moved;		/* slots used since the last interrupt was decided about */
	bool always;		/* the next decision is: interrupt */
	u8 *desc, *driver, *device;	/* config's, in host memory */
};

/* A buffer of the driver: first what the device reads (out), then what it writes (in). */
struct virtq_chain {
	u16 id;			/* what the driver knows it by */
	u16 slots;		/* that it takes in the ring */
	u16 outs, ins;
	u64 out_bytes, in_bytes;
	struct iovec iov[VIRTQ_SIZE_MAX];	/* outs, then ins */
};

struct virtq_used {
	u16 id, slots;
	u32 len;		/* bytes written, from the first on */
};

/* Does size suit a queue of this kind? (2.7: split ones are powers of two.) */
bool virtq_size_valid(u16 size, u8 flags);
/* From the beginning. -EINVAL: the size or an address cannot be. */
int virtq_start(struct virtq *q, const struct guest_memory *mem, const struct virtq_config *config,
		u8 flags);
void virtq_stop(struct virtq *q);
/* Goes on from a saved position; the queue was started and nothing is in flight. -EINVAL. */
int virtq_seek(struct virtq *q, const struct virtq_position *at);
/* A position that such a queue can have? */
bool virtq_position_valid(const struct virtq_config *config, u8 flags,
			  const struct virtq_position *at);

/* 1: *chain is the next buffer. 0: there is none. -EPROTO: the queue is broken. */
int virtq_pop(struct virtq *q, struct virtq_chain *chain);
/* Puts the buffer that was popped last back as if it had not been; nothing came after it. */
void virtq_unpop(struct virtq *q, const struct virtq_chain *chain);
/* Gives n buffers back, which the driver sees all at once. True: it wants an interrupt. */
bool virtq_push(struct virtq *q, const struct virtq_used *used, unsigned n);

/* The driver need not kick: the device looks by itself. */
void virtq_kicks_off(struct virtq *q);
/* It must again. True: something came meanwhile, look once more. */
bool virtq_kicks_on(struct virtq *q);

/* For the two layouts. */
struct virtq_desc {		/* 2.7.5 */
	u64 addr;
	u32 len;
	u16 flags, next;
};

struct virtq_packed_desc {	/* 2.8.13 */
	u64 addr;
	u32 len;
	u16 id, flags;
};

_Static_assert(sizeof(struct virtq_desc) == 16, "virtio 1.2 2.7.5");
_Static_assert(sizeof(struct virtq_packed_desc) == 16, "virtio 1.2 2.8.13");

#define VIRTQ_DESC_F_NEXT	1
#define VIRTQ_DESC_F_WRITE	2
#define VIRTQ_DESC_F_INDIRECT	4
#define VIRTQ_DESC_F_AVAIL	BIT(7)	/* packed */
#define VIRTQ_DESC_F_USED	BIT(15)

/* Adds a buffer in guest memory to the chain; false: it is malformed. */
bool virtq_chain_add(const struct virtq *q, struct virtq_chain *chain, u64 addr, u32 len, bool in);
/* Copies the indirect table at addr: returns its descriptors' number; 0: it is malformed. */
unsigned virtq_indirect(const struct virtq *q, u64 addr, u32 len, void *table);

int virtq_split_pop(struct virtq *q, struct virtq_chain *chain);
void virtq_split_push(struct virtq *q, const struct virtq_used *used, unsigned n);
bool virtq_split_wants_interrupt(const struct virtq *q);
void virtq_split_kicks(struct virtq *q, bool on);
bool virtq_split_pending(const struct virtq *q);

int virtq_packed_pop(struct virtq *q, struct virtq_chain *chain);
void virtq_packed_unpop(struct virtq *q, u16 slots);
void virtq_packed_push(struct virtq *q, const struct virtq_used *used, unsigned n);
bool virtq_packed_wants_interrupt(const struct virtq *q);
void virtq_packed_kicks(struct virtq *q, bool on);
bool virtq_packed_pending(const struct virtq *q);

#endif
