/* What split and packed virtqueues have in common (virtio 1.2, 2.6): see virtq.h. */
#include <errno.h>
#include <string.h>

#include "vmm/virtio/virtq.h"

static bool is_packed(const struct virtq *q)
{
	return q->flags & VIRTQ_F_PACKED;
}

bool virtq_size_valid(u16 size, u8 flags)
{
	if (!size || size > VIRTQ_SIZE_MAX)
		return false;
	return flags & VIRTQ_F_PACKED || !(size & (size - 1));
}

/* One of the three areas; align is a power of two (2.7, 2.8.10). */
static u8 *virtq_area(const struct guest_memory *mem, u64 addr, u64 size, u64 align)
{
	return addr & (align - 1) ? NULL : guest_memory_at(mem, addr, size);
}

static int virtq_map(struct virtq *q)
{
	const struct virtq_config *c = &q->config;

	q->desc = virtq_area(q->mem, c->desc, 16ULL * c->size, 16);
	if (is_packed(q)) {
		q->driver = virtq_area(q->mem, c->driver, 4, 4);
		q->device = virtq_area(q->mem, c->device, 4, 4);
	} else {
		q->driver = virtq_area(q->mem, c->driver, 6 + 2ULL * c->size, 2);
		q->device = virtq_area(q->mem, c->device, 6 + 8ULL * c->size, 4);
	}
	return q->desc && q->driver && q->device ? 0 : -EINVAL;
}

int virtq_start(struct virtq *q, const struct guest_memory *mem, const struct virtq_config *config,
		u8 flags)
{
	*q = (struct virtq){ .mem = mem, .config = *config, .flags = flags, .always = true };
	q->at.avail_wrap = q->at.used_wrap = 1;
	if (!virtq_size_valid(config->size, flags) || virtq_map(q) < 0) {
		virtq_stop(q);
		return -EINVAL;
	}
	q->ready = true;
	return 0;
}

void virtq_stop(struct virtq *q)
{
	*q = (struct virtq){ .mem = q->mem };
}

bool virtq_position_valid(const struct virtq_config *config, u8 flags,
			  const struct virtq_position *at)
{
	if (!(flags & VIRTQ_F_PACKED))
		return at->avail == at->used;
	return at->avail < config->size && at->avail == at->used && at->avail_wrap <= 1 &&
	       at->avail_wrap == at->used_wrap;
}

int virtq_seek(struct virtq *q, const struct virtq_position *at)
{
	if (!virtq_position_valid(&q->config, q->flags, at))
		return -EINVAL;
	q->at = *at;
	q->always = true;
	return 0;
}

bool virtq_chain_add(const struct virtq *q, struct virtq_chain *chain, u64 addr, u32 len, bool in)
{
	unsigned n = chain->outs + chain->ins;
	u64 *bytes = in ? &chain->in_bytes : &chain->out_bytes;
	void *host;

	/* 2.6.5: all that the device reads comes before all that it writes. */
	if (n == VIRTQ_SIZE_MAX || (!in && chain->ins))
		return false;
	if (!len)
		return true;
	host = guest_memory_at(q->mem, addr, len);
	if (!host || *bytes + len > UINT32_MAX)
		return false;
	chain->iov[n] = (struct iovec){ .iov_base = host, .iov_len = len };
	*bytes += len;
	if (in)
		chain->ins++;
	else
		chain->outs++;
	return true;
}

unsigned virtq_indirect(const struct virtq *q, u64 addr, u32 len, void *table)
{
	const void *from = guest_memory_at(q->mem, addr, len);

	if (!(q->flags & VIRTQ_F_INDIRECT) || len % 16 || len / 16 > VIRTQ_SIZE_MAX || !from)
		return 0;
	memcpy(table, from, len);
	return len / 16;
}

int virtq_pop(struct virtq *q, struct virtq_chain *chain)
{
	int ret;

	if (!q->ready || q->broken)
		return 0;
	chain->outs = chain->ins = 0;
	chain->out_bytes = chain->in_bytes = 0;
	ret = is_packed(q) ? virtq_packed_pop(q, chain) : virtq_split_pop(q, chain);
	if (ret < 0)
		q->broken = true;
	else if (ret)
		q->in_flight += chain->slots;
	return ret;
}

void virtq_unpop(struct virtq *q, const struct virtq_chain *chain)
{
	q->in_flight -= chain->slots;
	if (is_packed(q))
		virtq_packed_unpop(q, chain->slots);
	else
		q->at.avail--;
}

bool virtq_push(struct virtq *q, const struct virtq_used *used, unsigned n)
{
	bool wanted;

	if (!q->ready || q->broken || !n)
		return false;
	for (unsigned i = 0; i < n; i++)
		q->in_flight -= used[i].slots;
	if (is_packed(q))
		virtq_packed_push(q, used, n);
	else
		virtq_split_push(q, used, n);
	/* What was used must be seen before the driver's wish is read (2.7.7.2, 2.8.21.3.1). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	wanted = q->always ||
		 (is_packed(q) ? virtq_packed_wants_interrupt(q) : virtq_split_wants_interrupt(q));
	q->always = false;
	q->moved = 0;
	return wanted;
}

void virtq_kicks_off(struct virtq *q)
{
	if (!q->ready || q->broken)
		return;
	if (is_packed(q))
		virtq_packed_kicks(q, false);
	else
		virtq_split_kicks(q, false);
}

bool virtq_kicks_on(struct virtq *q)
{
	if (!q->ready || q->broken)
		return false;
	if (is_packed(q))
		virtq_packed_kicks(q, true);
	else
		virtq_split_kicks(q, true);
	/* The wish must be seen before we look: else both sides sleep. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return is_packed(q) ? virtq_packed_pending(q) : virtq_split_pending(q);
}
