/*
 * Writing. What has clusters of its own is written in place. Else clusters are taken and counted, all
 * of them is written (what the guest does not write is copied from where it was), and only then they
 * are linked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/iov.h"
#include "vmm/block/qcow2/qcow2.h"

struct piece {
	u64 offset, bytes;	/* of the guest */
	u64 host;		/* of the first cluster */
	u64 clusters;
	bool in_place;
	bool taken;		/* clusters are new, not yet linked */
	bool fresh;		/* behind the file's end: read as zeroes */
};

static u64 clusters_between(const struct qcow2 *q, u64 offset, u64 bytes)
{
	return ((offset + bytes - 1) >> q->cluster_bits) - (offset >> q->cluster_bits) + 1;
}

static int piece_check(struct qcow2 *q, const struct piece *p)
{
	if (!q->external_data && set_has_any(&q->metadata, p->host >> q->cluster_bits, p->clusters))
		return qcow2_corrupt(q, "a guest's cluster is a table as well", p->host);
	return 0;
}

static void piece_limit(const struct qcow2 *q, struct piece *p, u64 clusters)
{
	p->clusters = clusters;
	p->bytes = MIN(p->bytes, clusters * q->cluster_size - cluster_offset(q, p->offset));
}

static int piece_in_place(struct qcow2 *q, struct piece *p, const struct table_slice *slice,
	u32 index, u64 most)
{
	u64 n = 1;

	for (; n < most; n++) {
		struct qcow2_cluster c = cluster_decode(q, l2_entry(slice, index + n));

		if (c.kind != CLUSTER_NORMAL || !c.copied || c.host != p->host + n * q->cluster_size)
			break;
	}
	p->in_place = true;
	piece_limit(q, p, n);
	return piece_check(q, p);
}

static int piece_take(struct qcow2 *q, struct piece *p, const struct table_slice *slice, u32 index,
	u64 most)
{
	s64 size = q->layer.file->ops->size(q->layer.file), got;
	u64 n = 1;

	for (; n < most; n++) {
		struct qcow2_cluster c = cluster_decode(q, l2_entry(slice, index + n));

		if ((c.kind == CLUSTER_NORMAL && c.copied) || (c.kind == CLUSTER_ZERO && c.host))
			break;
	}
	if (q->external_data) {
		p->host = ALIGN_DOWN(p->offset, q->cluster_size);
		piece_limit(q, p, n);
		return 0;
	}
	got = clusters_alloc(q, n, &p->host);
	if (got < 0)
		return got;
	p->taken = true;
	p->fresh = size >= 0 && p->host >= (u64)size;
	piece_limit(q, p, got);
	return 0;
}

/* Under the lock: where the next piece goes. */
static int piece_plan(struct qcow2 *q, struct piece *p)
{
	struct table_slice *slice;
	struct qcow2_cluster c;
	u64 most;
	u32 index;
	int ret = l2_find(q, p->offset, true, &slice, &index);

	if (ret < 0)
		return ret;
	c = slice ? cluster_decode(q, l2_entry(slice, index)) : (struct qcow2_cluster){ 0 };
	most = MIN(clusters_between(q, p->offset, p->bytes), l2_slice_entries(q) - index);
	p->host = c.host;
	ret = cluster_check(q, &c, p->offset);
	if (!ret && c.kind == CLUSTER_NORMAL && c.copied)
		return piece_in_place(q, p, slice, index, most);
	if (!ret)
		ret = l2_find_to_write(q, p->offset, &slice, &index);
	if (ret < 0)
		return ret;
	if (c.kind == CLUSTER_ZERO && c.host && c.copied && !q->external_data) {
		/* It has a cluster already, with anything in it. */
		piece_limit(q, p, 1);
		return piece_check(q, p);
	}
	return piece_take(q, p, slice, index, most);
}

/* Room for what the guest does not write, before and behind, and what was there. */
static int piece_copy_edges(struct qcow2 *q, const struct piece *p, u8 *edges, u64 head, u64 tail)
{
	struct iovec iov = { edges, head };
	int ret = head ? qcow2_readv(&q->layer, &iov, 1, p->offset - head) : 0;

	if (ret || !tail)
		return ret;
	iov = (struct iovec){ edges + head, tail };
	/* The last cluster may reach beyond the disk's end. */
	return layer_read(&q->layer, &iov, 1, p->offset + p->bytes);
}

static bool all_zeroes(const u8 *buf, u64 bytes)
{
	return !bytes || (!buf[0] && !memcmp(buf, buf + 1, bytes - 1));
}

static int piece_fill(struct qcow2 *q, const struct piece *p, const struct iovec *iov, unsigned iovs,
	u64 skip)
{
	u64 head = cluster_offset(q, p->offset);
	u64 tail = p->clusters * q->cluster_size - head - p->bytes;
	u8 *edges = malloc(head + tail ?: 1);
	struct iovec *all = malloc((iovs + 2) * sizeof(*all));
	u64 at = p->host;
	unsigned n = 0;
	int ret = edges && all ? piece_copy_edges(q, p, edges, head, tail) : -ENOMEM;

	if (!ret) {
		if (p->fresh && all_zeroes(edges, head))
			at += head;
		else if (head)
			all[n++] = (struct iovec){ edges, head };
		n += iov_cut(all + n, iov, iovs, skip, p->bytes);
		if (tail && !(p->fresh && all_zeroes(edges + head, tail)))
			all[n++] = (struct iovec){ edges + head, tail };
		ret = q->data->ops->writev(q->data, all, n, at, false);
	}
	free(edges);
	free(all);
	return ret;
}

/* Under the lock. */
static int piece_link(struct qcow2 *q, const struct piece *p)
{
	struct table_slice *slice;
	u32 index;
	int ret = l2_find_to_write(q, p->offset, &slice, &index);

	if (ret < 0)
		return ret;
	for (u64 i = 0; i < p->clusters; i++) {
		u64 old = l2_entry(slice, index + i);

		l2_set(q, slice, index + i, (p->host + i * q->cluster_size) | ENTRY_COPIED);
		if (p->taken)
			cluster_free_later(q, old);
	}
	return 0;
}

static int piece_write(struct qcow2 *q, struct piece *p, const struct iovec *iov, unsigned iovs,
	u64 skip)
{
	struct iovec *part;
	int ret;

	if (p->in_place) {
		part = malloc(iovs * sizeof(*part));
		ret = part ? q->data->ops->writev(q->data, part,
				     iov_cut(part, iov, iovs, skip, p->bytes),
				     p->host + cluster_offset(q, p->offset), false) : -ENOMEM;
		free(part);
		return ret;
	}
	ret = piece_fill(q, p, iov, iovs, skip);
	pthread_mutex_lock(&q->lock);
	if (!ret)
		ret = piece_link(q, p);
	if (ret < 0 && p->taken)
		clusters_unref(q, p->host >> q->cluster_bits, p->clusters);
	pthread_mutex_unlock(&q->lock);
	return ret;
}

int qcow2_writev(struct layer *layer, const struct iovec *iov, unsigned iovs, u64 offset, bool fua)
{
	struct qcow2 *q = qcow2_of(layer);
	u64 total = iov_bytes(iov, iovs);
	int ret = 0;

	for (u64 done = 0; !ret && done < total;) {
		struct piece p = { .offset = offset + done, .bytes = total - done };

		pthread_mutex_lock(&q->lock);
		ret = piece_plan(q, &p);
		pthread_mutex_unlock(&q->lock);
		if (!ret)
			ret = piece_write(q, &p, iov, iovs, done);
		done += p.bytes;
	}
	return ret || !fua ? ret : qcow2_flush(layer);
}
