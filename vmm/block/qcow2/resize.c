/*
 * Making the disk larger: a longer L1 table, zeroes where something would come to light, then the size in
 * the header. Each step is durable before the next, and the file is sound behind each.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/qcow2/qcow2.h"

/* The new table to the file, which is counted there before. */
static int l1_write_new(struct qcow2 *q, const u64 *table, u64 offset, u32 entries)
{
	int ret = qcow2_commit(q, true);

	if (!ret)
		ret = entries_write(q, table, offset, 0, entries);
	return ret ?: q->layer.file->ops->flush(q->layer.file);
}

static void l1_take(struct qcow2 *q, u64 *table, u64 offset, u32 size, u64 clusters)
{
	u64 old = ((u64)q->l1_size * 8 + q->cluster_size - 1) >> q->cluster_bits;

	table_moved(q, offset >> q->cluster_bits, clusters, q->l1_offset >> q->cluster_bits, old);
	free(q->l1);
	q->l1 = table;
	q->l1_offset = offset;
	q->l1_size = size;
}

/* Under the lock. */
static int l1_grow(struct qcow2 *q, u32 size)
{
	u64 clusters = ((u64)size * 8 + q->cluster_size - 1) >> q->cluster_bits;
	u64 entries = clusters * q->cluster_size / 8, offset;
	u64 *table = calloc(entries, sizeof(*table));
	int ret = table ? clusters_alloc_row(q, clusters, &offset) : -ENOMEM;

	if (ret < 0) {
		free(table);
		return ret;
	}
	memcpy(table, q->l1, q->l1_size * sizeof(*table));
	ret = l1_write_new(q, table, offset, entries);
	if (ret < 0)
		clusters_unref(q, offset >> q->cluster_bits, clusters);
	else
		ret = header_set_l1(q, offset, size);
	if (ret < 0) {
		q->leaked = true;	/* the header may tell of it, so it cannot be given back */
		free(table);
	} else {
		l1_take(q, table, offset, size, clusters);
	}
	return ret;
}

/*
 * The rest of the last cluster has what it has, and a backing image that is longer than the disk was
 * would show through. Behind that a snapshot that was gone back to may have left its machine's state.
 */
static int zero_new(struct qcow2 *q, u64 old)
{
	u64 size = q->layer.size, end = MIN(size, ALIGN_UP(old, q->cluster_size));
	int ret = 0;

	if (q->layer.backing)
		end = MAX(end, MIN(size, q->layer.backing->size));
	if (end > old)
		ret = qcow2_zero(&q->layer, old, end - old, true);
	end = ALIGN_UP(MAX(end, old), q->cluster_size);
	return ret || end >= size ? ret : qcow2_discard(&q->layer, end, size - end);
}

static int resize_check(const struct qcow2 *q, u64 size, struct error *err)
{
	const char *name = q->layer.file->name;

	if (l1_entries(q, size) * 8 > L1_BYTES_MAX)
		return error_usage(err, "%s: with its clusters a disk of %" PRIu64 " bytes is too large",
			name, size);
	if (q->external_data)
		return error_usage(err, "%s: its data are in another file, so its size is fixed", name);
	/* qcow2: Snapshots: only version 3 says of each how large the disk was. */
	if (q->snapshots && q->version < 3)
		return error_usage(err, "%s: version 2 of qcow2 and internal snapshots: its size is fixed",
			name);
	return 0;
}

/* Under the lock. A disk that nobody could count anew is not to say that it must be. */
static int unmark_if_too_large(struct qcow2 *q, u64 size)
{
	int ret;

	if (!q->marks || qcow2_marks(q, size))
		return 0;
	/* Twice, as a close does it: what the first gives back is for the second. */
	ret = qcow2_commit(q, true);
	if (!ret)
		ret = qcow2_commit(q, true);
	if (!ret)
		ret = q->layer.file->ops->flush(q->layer.file);
	if (!ret && q->incompatible & INCOMPATIBLE_DIRTY)
		ret = header_set_incompatible(q, 0, INCOMPATIBLE_DIRTY);
	if (!ret)
		q->marks = false;
	return ret;
}

int qcow2_resize(struct layer *layer, u64 size, struct error *err)
{
	struct qcow2 *q = qcow2_of(layer);
	u64 old = layer->size;
	int ret = resize_check(q, size, err);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&q->lock);
	ret = q->corrupt ? -EIO : qcow2_commit(q, true);
	if (!ret)
		ret = unmark_if_too_large(q, size);
	if (!ret && l1_entries(q, size) > q->l1_size)
		ret = l1_grow(q, l1_entries(q, size));
	pthread_mutex_unlock(&q->lock);
	if (!ret) {
		layer->size = size;
		ret = zero_new(q, old);
	}
	if (!ret)
		ret = qcow2_flush(layer);
	if (!ret)
		ret = header_set_size(q, size);
	if (ret < 0) {
		layer->size = old;
		return error_set(err, -ret, "cannot make %s larger: %s", layer->file->name, strerror(-ret));
	}
	qcow2_size_l2_cache(q);		/* without memory for it the old one does */
	return 0;
}
