/*
 * The driver's side of a virtqueue, written from the specification (virtio 1.2, 2.7 and 2.8) and apart
 * from the device's: allocates descriptors, makes buffers available, takes used ones back. Its memory
 * is one region of guest RAM that a test owns.
 */
#ifndef QUMRA_TESTS_DEVICE_VIRTIO_DRIVER_H
#define QUMRA_TESTS_DEVICE_VIRTIO_DRIVER_H

#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/virtq.h"

#define RAM_BASE 0x100000ULL
#define RAM_SIZE 0x400000ULL

/* One buffer's piece, in guest memory. */
struct piece {
	u64 addr;
	u32 len;
	bool in;
};

struct driver_queue {
	u8 *ram;
	u64 desc, driver, device;
	u16 size;
	bool packed, event_idx;
	u16 free[VIRTQ_SIZE_MAX];	/* split: descriptors; packed: buffer ids */
	u16 frees;
	u16 chain_len[VIRTQ_SIZE_MAX];	/* by id */
	u16 avail, used;
	bool avail_wrap, used_wrap;
	u16 room;			/* packed: slots free */
	u16 kicked;			/* slots made available since the last kick decision */
};

struct guest_ram {
	u8 *bytes;
	struct guest_memory mem;
	u64 top;	/* of what is allocated */
};

static inline void ram_init(struct guest_ram *r)
{
	r->bytes = calloc(1, RAM_SIZE);
	r->mem = (struct guest_memory){ .size = RAM_SIZE, .count = 1 };
	r->mem.region[0] = (struct guest_region){ RAM_BASE, RAM_SIZE, r->bytes };
	r->top = RAM_BASE;
}

static inline u64 ram_alloc(struct guest_ram *r, u64 size)
{
	u64 at = r->top;

	r->top += ALIGN_UP(size, 64);
	if (r->top > RAM_BASE + RAM_SIZE)
		abort();
	return at;
}

static inline void *at(u8 *ram, u64 gpa)
{
	return ram + (gpa - RAM_BASE);
}

static inline void driver_init(struct driver_queue *q, struct guest_ram *r, u16 size, bool packed,
			       bool event_idx)
{
	*q = (struct driver_queue){ .ram = r->bytes, .size = size, .packed = packed,
				    .event_idx = event_idx, .avail_wrap = true, .used_wrap = true,
				    .room = size, .frees = size };
	q->desc = ram_alloc(r, 16 * size);
	q->driver = ram_alloc(r, 6 + 2 * size);
	q->device = ram_alloc(r, 6 + 8 * size);
	memset(at(q->ram, q->desc), 0, 16 * size);
	memset(at(q->ram, q->driver), 0, 6 + 2 * size);
	memset(at(q->ram, q->device), 0, 6 + 8 * size);
	for (u16 i = 0; i < size; i++)
		q->free[i] = size - 1 - i;
}

static inline struct virtq_config driver_config(const struct driver_queue *q)
{
	return (struct virtq_config){ q->desc, q->driver, q->device, q->size };
}

static inline void put16(struct driver_queue *q, u64 gpa, u16 v)
{
	__atomic_store_n((u16 *)at(q->ram, gpa), v, __ATOMIC_RELEASE);
}

static inline u16 get16(struct driver_queue *q, u64 gpa)
{
	return __atomic_load_n((u16 *)at(q->ram, gpa), __ATOMIC_ACQUIRE);
}

static inline void put_desc(struct driver_queue *q, u64 table, unsigned i, u64 addr, u32 len, u16 a,
			    u16 b)
{
	u8 *d = at(q->ram, table + 16 * i);

	memcpy(d, &addr, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &a, 2);
	memcpy(d + 14, &b, 2);
}

static inline int split_submit(struct driver_queue *q, const struct piece *p, unsigned n, u64 table)
{
	u16 head, id;

	if (q->frees < (table ? 1 : n))
		return -1;
	if (table) {
		for (unsigned i = 0; i < n; i++)
			put_desc(q, table, i, p[i].addr, p[i].len,
				(p[i].in ? 2 : 0) | (i + 1 < n ? 1 : 0), i + 1);
		head = q->free[--q->frees];
		put_desc(q, q->desc, head, table, 16 * n, 4, 0);
		q->chain_len[head] = 1;
	} else {
		head = q->free[q->frees - 1];
		for (unsigned i = 0; i < n; i++) {
			id = q->free[q->frees - 1 - i];
			put_desc(q, q->desc, id, p[i].addr, p[i].len,
				(p[i].in ? 2 : 0) | (i + 1 < n ? 1 : 0),
				i + 1 < n ? q->free[q->frees - 2 - i] : 0);
		}
		q->frees -= n;
		q->chain_len[head] = n;
	}
	put16(q, q->driver + 4 + 2 * (q->avail % q->size), head);
	q->avail++;
	q->kicked++;
	put16(q, q->driver + 2, q->avail);
	return head;
}

static inline u16 packed_flags(bool wrap)
{
	return wrap ? 1 << 7 : 1 << 15;
}

static inline int packed_submit(struct driver_queue *q, const struct piece *p, unsigned n, u64 table)
{
	unsigned slots = table ? 1 : n, first = q->avail;
	u16 id, first_flags = 0;

	if (!q->frees || q->room < slots)
		return -1;
	id = q->free[--q->frees];
	for (unsigned i = 0; table && i < n; i++)
		put_desc(q, table, i, p[i].addr, p[i].len, 0, p[i].in ? 2 : 0);
	for (unsigned i = 0; i < slots; i++) {
		u16 flags = packed_flags(q->avail_wrap) | (i + 1 < slots ? 1 : 0);

		flags |= table ? 4 : p[i].in ? 2 : 0;
		put_desc(q, q->desc, q->avail, table ? table : p[i].addr,
			table ? 16 * n : p[i].len, id,
			i ? flags : get16(q, q->desc + 16 * q->avail + 14));
		if (!i)
			first_flags = flags;
		if (++q->avail == q->size) {
			q->avail = 0;
			q->avail_wrap = !q->avail_wrap;
		}
	}
	q->chain_len[id] = slots;
	q->room -= slots;
	q->kicked += slots;
	put16(q, q->desc + 16 * first + 14, first_flags);
	return id;
}

/* Makes a buffer available; table: where its indirect table is to be, or 0. Returns its id, or -1. */
static inline int driver_submit(struct driver_queue *q, const struct piece *p, unsigned n, u64 table)
{
	return q->packed ? packed_submit(q, p, n, table) : split_submit(q, p, n, table);
}

/* Does the device want to be told of what was made available since the last time? */
static inline bool driver_needs_kick(struct driver_queue *q)
{
	unsigned moved = q->kicked;
	u16 event, flags;
	int slot;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->kicked = 0;
	if (!q->packed) {
		if (!q->event_idx)
			return !(get16(q, q->device) & 1);
		event = get16(q, q->device + 4 + 8 * q->size);
		return (u16)(q->avail - event - 1) < moved;
	}
	flags = get16(q, q->device + 2);
	if (flags != 2)
		return flags != 1;
	event = get16(q, q->device);
	slot = (event & 0x7FFF) - (event >> 15 != q->avail_wrap ? q->size : 0);
	return slot < q->avail && slot >= (int)q->avail - (int)moved;
}

static inline bool split_take(struct driver_queue *q, u16 *id, u32 *len)
{
	u32 entry[2];
	u16 d, n;

	if (get16(q, q->device + 2) == q->used)
		return false;
	memcpy(entry, at(q->ram, q->device + 4 + 8 * (q->used % q->size)), 8);
	q->used++;
	if (entry[0] >= q->size)
		abort();
	*id = d = entry[0];
	*len = entry[1];
	n = q->chain_len[d];
	if (!n)
		abort();	/* not one of ours */
	q->chain_len[d] = 0;
	while (n--) {
		q->free[q->frees++] = d;
		d = get16(q, q->desc + 16 * d + 14);
	}
	return true;
}

static inline bool packed_take(struct driver_queue *q, u16 *id, u32 *len)
{
	u16 flags = get16(q, q->desc + 16 * q->used + 14);
	u8 *d = at(q->ram, q->desc + 16 * q->used);

	if (!!(flags & 1 << 7) != q->used_wrap || !!(flags & 1 << 15) != q->used_wrap)
		return false;
	memcpy(len, d + 8, 4);
	memcpy(id, d + 12, 2);
	if (*id >= q->size || !q->chain_len[*id])
		abort();
	q->used += q->chain_len[*id];
	q->room += q->chain_len[*id];
	q->chain_len[*id] = 0;
	if (q->used >= q->size) {
		q->used -= q->size;
		q->used_wrap = !q->used_wrap;
	}
	q->free[q->frees++] = *id;
	return true;
}

/* A used buffer, if there is one. */
static inline bool driver_take(struct driver_queue *q, u16 *id, u32 *len)
{
	return q->packed ? packed_take(q, id, len) : split_take(q, id, len);
}

/* Asks for an interrupt when the next buffer is used (or never). */
static inline void driver_interrupts(struct driver_queue *q, bool on)
{
	if (!q->packed && !q->event_idx)
		put16(q, q->driver, !on);
	else if (!q->packed)
		put16(q, q->driver + 4 + 2 * q->size, on ? q->used : q->used - 1);
	else if (on && q->event_idx) {
		put16(q, q->driver, q->used | q->used_wrap << 15);
		put16(q, q->driver + 2, 2);
	} else
		put16(q, q->driver + 2, on ? 0 : 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
