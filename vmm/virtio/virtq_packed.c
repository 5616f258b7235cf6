/*
 * Packed virtqueues (virtio 1.2, 2.8): one ring of descriptors, which driver and device take turns to
 * write. A wrap counter on each side tells this turn's descriptors from the last one's.
 *
 *   driver area, device area: what the one wants to be told of by the other (2.8.14)
 *     desc u16: slot in bits 0 to 14, wrap counter in bit 15; flags u16: always, never, at desc
 */
#include <errno.h>

#include "vmm/virtio/virtq.h"

#define EVENT_ENABLE	0	/* 2.8.14 */
#define EVENT_DISABLE	1
#define EVENT_DESC	2

static struct virtq_packed_desc *slot(const struct virtq *q, unsigned n)
{
	return (struct virtq_packed_desc *)q->desc + n;
}

static struct virtq_packed_desc desc_read(const struct virtq_packed_desc *d)
{
	return (struct virtq_packed_desc){
		.addr = READ_ONCE(d->addr), .len = READ_ONCE(d->len),
		.id = READ_ONCE(d->id), .flags = READ_ONCE(d->flags),
	};
}

/* 2.8.1: available when AVAIL is this turn's and USED is not. */
static bool is_available(u16 flags, bool wrap)
{
	return !!(flags & VIRTQ_DESC_F_AVAIL) == wrap && !!(flags & VIRTQ_DESC_F_USED) != wrap;
}

static void advance(const struct virtq *q, u16 *at, u8 *wrap, unsigned slots)
{
	unsigned next = *at + slots;

	if (next >= q->config.size) {
		next -= q->config.size;
		*wrap ^= 1;
	}
	*at = next;
}

bool virtq_packed_pending(const struct virtq *q)
{
	return is_available(load_acquire(&slot(q, q->at.avail)->flags), q->at.avail_wrap);
}

/* 2.8.7: all of its descriptors, in order; NEXT means nothing. */
static bool indirect_walk(const struct virtq *q, const struct virtq_packed_desc *ind,
			  struct virtq_chain *chain)
{
	struct virtq_packed_desc table[VIRTQ_SIZE_MAX];
	unsigned n = virtq_indirect(q, ind->addr, ind->len, table);

	for (unsigned i = 0; i < n; i++) {
		const struct virtq_packed_desc *d = &table[i];

		if (d->flags & VIRTQ_DESC_F_INDIRECT ||
		    !virtq_chain_add(q, chain, d->addr, d->len, d->flags & VIRTQ_DESC_F_WRITE))
			return false;
	}
	return n;
}

/* Takes one descriptor; *last: the chain ends with it. */
static bool chain_take(const struct virtq *q, const struct virtq_packed_desc *d,
		       struct virtq_chain *chain, bool *last)
{
	*last = !(d->flags & VIRTQ_DESC_F_NEXT);
	if (!(d->flags & VIRTQ_DESC_F_INDIRECT))
		return virtq_chain_add(q, chain, d->addr, d->len, d->flags & VIRTQ_DESC_F_WRITE);
	/* 2.8.8: an indirect one stands alone. */
	return *last && !chain->slots && indirect_walk(q, d, chain);
}

int virtq_packed_pop(struct virtq *q, struct virtq_chain *chain)
{
	u16 at = q->at.avail;
	u8 wrap = q->at.avail_wrap;
	struct virtq_packed_desc d;
	bool last = false;

	if (!virtq_packed_pending(q))
		return 0;
	/* The first is made available last, so the rest of the chain is there (2.8.21.1). */
	for (chain->slots = 0; !last; chain->slots++) {
		if (q->in_flight + chain->slots >= q->config.size)
			return -EPROTO;
		d = desc_read(slot(q, at));
		if (!chain_take(q, &d, chain, &last))
			return -EPROTO;
		advance(q, &at, &wrap, 1);
	}
	chain->id = d.id;
	q->at.avail = at;
	q->at.avail_wrap = wrap;
	return 1;
}

void virtq_packed_unpop(struct virtq *q, u16 slots)
{
	int at = q->at.avail - slots;

	if (at < 0) {
		at += q->config.size;
		q->at.avail_wrap ^= 1;
	}
	q->at.avail = at;
}

static u16 used_write(const struct virtq *q, u16 at, bool wrap, const struct virtq_used *used)
{
	struct virtq_packed_desc *d = slot(q, at);

	WRITE_ONCE(d->id, used->id);
	WRITE_ONCE(d->len, used->len);
	return (wrap ? VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED : 0) |
	       (used->len ? VIRTQ_DESC_F_WRITE : 0);
}

/* The first one's flags come last: the driver stops at it until all are there. */
void virtq_packed_push(struct virtq *q, const struct virtq_used *used, unsigned n)
{
	u16 first = q->at.used, flags = used_write(q, first, q->at.used_wrap, &used[0]);

	advance(q, &q->at.used, &q->at.used_wrap, used[0].slots);
	q->moved += used[0].slots;
	for (unsigned i = 1; i < n; i++) {
		u16 f = used_write(q, q->at.used, q->at.used_wrap, &used[i]);

		store_release(&slot(q, q->at.used)->flags, f);
		advance(q, &q->at.used, &q->at.used_wrap, used[i].slots);
		q->moved += used[i].slots;
	}
	store_release(&slot(q, first)->flags, flags);
}

bool virtq_packed_wants_interrupt(const struct virtq *q)
{
	u16 flags = READ_ONCE(((const u16 *)q->driver)[1]);
	int event, used = q->at.used;
	u16 desc;

	if (flags != EVENT_DESC || !(q->flags & VIRTQ_F_EVENT_IDX))
		return flags != EVENT_DISABLE;
	desc = READ_ONCE(((const u16 *)q->driver)[0]);
	event = desc & 0x7FFF;
	/* Slots of the last turn lie below this turn's. */
	if (desc >> 15 != q->at.used_wrap)
		event -= q->config.size;
	return event < used && event >= used - (int)q->moved;
}

void virtq_packed_kicks(struct virtq *q, bool on)
{
	u16 *event = (u16 *)q->device;

	if (!on) {
		store_release(&event[1], EVENT_DISABLE);
	} else if (q->flags & VIRTQ_F_EVENT_IDX) {
		WRITE_ONCE(event[0], q->at.avail | q->at.avail_wrap << 15);
		store_release(&event[1], EVENT_DESC);
	} else {
		store_release(&event[1], EVENT_ENABLE);
	}
}
