/*
 * Split virtqueues (virtio 1.2, 2.7). The descriptor table is the driver's; so is the available ring,
 * in the driver area; the used ring, in the device area, is ours.
 *
 *   driver area: flags u16, idx u16, ring u16[size], used_event u16
 *   device area: flags u16, idx u16, ring {id u32, len u32}[size], avail_event u16
 */
#include <errno.h>
#include <string.h>

#include "vmm/virtio/virtq.h"

#define AVAIL_F_NO_INTERRUPT	1	/* 2.7.6 */
#define USED_F_NO_NOTIFY	1	/* 2.7.8 */

static u16 *driver_word(const struct virtq *q, unsigned n)
{
	return (u16 *)q->driver + n;
}

static u16 *avail_event(const struct virtq *q)
{
	return (u16 *)(q->device + 4 + 8 * q->config.size);
}

/* One read of each field, whatever the driver does meanwhile. */
static struct virtq_desc desc_read(const struct virtq_desc *d)
{
	return (struct virtq_desc){
		.addr = READ_ONCE(d->addr), .len = READ_ONCE(d->len),
		.flags = READ_ONCE(d->flags), .next = READ_ONCE(d->next),
	};
}

bool virtq_split_pending(const struct virtq *q)
{
	return load_acquire(driver_word(q, 1)) != q->at.avail;
}

/*
 * Follows a chain in table (of n) from first. A chain is not longer than its table, so a loop ends
 * as one that is. *indirect: the descriptor of an indirect table that it ended with, if any.
 */
static bool chain_walk(const struct virtq *q, const struct virtq_desc *table, unsigned n,
		       unsigned first, struct virtq_chain *chain, struct virtq_desc *indirect)
{
	unsigned at = first;

	for (unsigned steps = 0; steps < n && at < n; steps++) {
		struct virtq_desc d = desc_read(&table[at]);

		if (d.flags & VIRTQ_DESC_F_INDIRECT) {
			/* 2.7.5.3.1: never together with NEXT, nor inside another table. */
			if (!indirect || d.flags & VIRTQ_DESC_F_NEXT)
				return false;
			*indirect = d;
			return true;
		}
		if (!virtq_chain_add(q, chain, d.addr, d.len, d.flags & VIRTQ_DESC_F_WRITE))
			return false;
		if (!(d.flags & VIRTQ_DESC_F_NEXT))
			return true;
		at = d.next;
	}
	return false;
}

int virtq_split_pop(struct virtq *q, struct virtq_chain *chain)
{
	u16 size = q->config.size, ready = load_acquire(driver_word(q, 1)) - q->at.avail;
	struct virtq_desc indirect = { 0 }, table[VIRTQ_SIZE_MAX];
	unsigned n;

	if (!ready)
		return 0;
	/* More than the ring holds: the index has gone back or run away. */
	if (ready > size || q->in_flight >= size)
		return -EPROTO;
	chain->id = READ_ONCE(*driver_word(q, 2 + q->at.avail % size));
	chain->slots = 1;
	if (!chain_walk(q, (const void *)q->desc, size, chain->id, chain, &indirect))
		return -EPROTO;
	if (indirect.flags) {
		n = virtq_indirect(q, indirect.addr, indirect.len, table);
		if (!n || !chain_walk(q, table, n, 0, chain, NULL))
			return -EPROTO;
	}
	q->at.avail++;
	return 1;
}

void virtq_split_push(struct virtq *q, const struct virtq_used *used, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		u32 entry[2] = { used[i].id, used[i].len };

		memcpy(q->device + 4 + 8 * ((u16)(q->at.used + i) % q->config.size), entry,
			sizeof(entry));
	}
	q->at.used += n;
	q->moved += n;
	store_release((u16 *)q->device + 1, q->at.used);
}

bool virtq_split_wants_interrupt(const struct virtq *q)
{
	u16 event;

	if (!(q->flags & VIRTQ_F_EVENT_IDX))
		return !(READ_ONCE(*driver_word(q, 0)) & AVAIL_F_NO_INTERRUPT);
	/* 2.7.7.1: when the entry with index used_event is among those just used. */
	event = READ_ONCE(*driver_word(q, 2 + q->config.size));
	return (u16)(q->at.used - 1 - event) < q->moved;
}

void virtq_split_kicks(struct virtq *q, bool on)
{
	if (!(q->flags & VIRTQ_F_EVENT_IDX))
		WRITE_ONCE(*(u16 *)q->device, on ? 0 : USED_F_NO_NOTIFY);
	else if (on)
		WRITE_ONCE(*avail_event(q), q->at.avail);
	/* With event indexes an old avail_event is what keeps the driver quiet. */
}
