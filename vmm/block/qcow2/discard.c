/* Discard and write zeroes: whole clusters by their entries, the edges by writing. */
#include <errno.h>
#include <stdlib.h>

#include "vmm/block/qcow2/qcow2.h"

/* So many freed clusters are given back without waiting for a flush. */
#define PENDING_MANY 4096
#define ZERO_BYTES   (256U << 10)

/* What an entry becomes; the same where nothing is to be done. */
typedef u64 entry_change(const struct qcow2 *q, struct qcow2_cluster c, bool unmap);

static u64 entry_discarded(const struct qcow2 *q, struct qcow2_cluster c, bool unmap)
{
	bool covers = q->layer.backing;		/* something would come to light */

	(void)unmap;
	if (c.kind == CLUSTER_NONE || (c.kind == CLUSTER_ZERO && !c.host))
		return c.entry;
	if (!covers)
		return 0;
	return q->version >= 3 ? ENTRY_ZERO : c.entry;
}

/* Version 3; without unmap a cluster is kept for what is written next. */
static u64 entry_zeroed(const struct qcow2 *q, struct qcow2_cluster c, bool unmap)
{
	if (c.kind == CLUSTER_NONE && !q->layer.backing)
		return c.entry;
	if (!unmap && c.host && c.copied)
		return c.host | ENTRY_COPIED | ENTRY_ZERO;
	return ENTRY_ZERO;
}

static int change_slice(struct qcow2 *q, u64 offset, u64 clusters, struct table_slice *slice, u32 index,
	entry_change *change, bool unmap)
{
	for (u64 i = 0; i < clusters; i++) {
		u64 old = l2_entry(slice, index + i), new;
		struct qcow2_cluster c = cluster_decode(q, old);
		int ret = cluster_check(q, &c, offset + i * q->cluster_size);

		if (ret < 0)
			return ret;
		new = change(q, c, unmap);
		if (new == old)
			continue;
		l2_set(q, slice, index + i, new);
		if (!(new & ENTRY_OFFSET))
			cluster_free_later(q, old);
	}
	return q->pending_count < PENDING_MANY ? 0 : qcow2_commit(q, false);
}

/* Under the lock; at most what is in one slice. Returns how many clusters, or -errno. */
static s64 change_some(struct qcow2 *q, u64 offset, u64 clusters, entry_change *change, bool unmap)
{
	u64 table = q->cluster_size / 8;
	struct table_slice *slice;
	u32 index;
	int ret = l2_find(q, offset, true, &slice, &index);

	if (ret < 0)
		return ret;
	/* No table: nothing to give back, and zeroes unless there is a backing image. */
	if (!slice && (change == entry_discarded || !q->layer.backing))
		return MIN(clusters, table - (offset >> q->cluster_bits & (table - 1)));
	ret = l2_find_to_write(q, offset, &slice, &index);
	if (ret < 0)
		return ret;
	clusters = MIN(clusters, l2_slice_entries(q) - index);
	ret = change_slice(q, offset, clusters, slice, index, change, unmap);
	return ret ?: (s64)clusters;
}

static int change_range(struct qcow2 *q, u64 offset, u64 end, entry_change *change, bool unmap)
{
	while (offset < end) {
		s64 n;

		pthread_mutex_lock(&q->lock);
		n = change_some(q, offset, (end - offset + q->cluster_size - 1) >> q->cluster_bits, change,
			unmap);
		pthread_mutex_unlock(&q->lock);
		if (n < 0)
			return n;
		offset += n * q->cluster_size;
	}
	return 0;
}

/* The whole clusters in a range; the disk's last one may be short. */
static void whole_clusters(const struct qcow2 *q, u64 *offset, u64 *end)
{
	*offset = ALIGN_UP(*offset, q->cluster_size);
	if (*end < q->layer.size)
		*end = ALIGN_DOWN(*end, q->cluster_size);
	*end = MAX(*offset, *end);
}

int qcow2_discard(struct layer *layer, u64 offset, u64 bytes)
{
	struct qcow2 *q = qcow2_of(layer);
	u64 end = offset + bytes;

	if (q->external_data)
		return 0;
	whole_clusters(q, &offset, &end);
	return change_range(q, offset, end, entry_discarded, true);
}

static int zero_by_writing(struct qcow2 *q, u64 offset, u64 end)
{
	u8 *zeroes;
	int ret = 0;

	if (offset >= end)
		return 0;
	if (posix_memalign((void **)&zeroes, 4096, ZERO_BYTES))
		return -ENOMEM;
	for (u64 i = 0; i < ZERO_BYTES; i++)
		zeroes[i] = 0;
	while (!ret && offset < end) {
		u64 n = MIN(end - offset, ZERO_BYTES - (offset & (ZERO_BYTES - 1)));
		struct iovec iov = { zeroes, n };

		ret = qcow2_writev(&q->layer, &iov, 1, offset, false);
		offset += n;
	}
	free(zeroes);
	return ret;
}

/* The cluster reads as zeroes already; false also where that cannot be told. */
static bool reads_zero(struct qcow2 *q, u64 offset)
{
	struct table_slice *slice;
	u32 index;
	bool zero = false;

	pthread_mutex_lock(&q->lock);
	if (!l2_find(q, offset, true, &slice, &index)) {
		struct qcow2_cluster c = { .kind = CLUSTER_NONE };

		if (slice)
			c = cluster_decode(q, l2_entry(slice, index));
		zero = c.kind == CLUSTER_ZERO || (c.kind == CLUSTER_NONE && !q->layer.backing);
	}
	pthread_mutex_unlock(&q->lock);
	return zero;
}

static int zero_edge(struct qcow2 *q, u64 offset, u64 end)
{
	return offset >= end || reads_zero(q, offset) ? 0 : zero_by_writing(q, offset, end);
}

int qcow2_zero(struct layer *layer, u64 offset, u64 bytes, bool unmap)
{
	struct qcow2 *q = qcow2_of(layer);
	u64 end = offset + bytes, first = offset, last = end;
	bool by_entry = q->version >= 3 || !q->layer.backing;
	int ret;

	whole_clusters(q, &first, &last);
	if (first >= last && first > end)	/* inside one cluster */
		return zero_edge(q, offset, end);
	if (q->external_data || !by_entry || (q->version < 3 && !unmap))
		return zero_by_writing(q, offset, end);
	ret = zero_edge(q, offset, MIN(first, end));
	if (!ret)
		ret = change_range(q, first, last, q->version >= 3 ? entry_zeroed : entry_discarded, unmap);
	return ret ?: zero_edge(q, last, end);
}
