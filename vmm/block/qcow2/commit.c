/* Writing changed tables back, in the order that qcow2.h explains. */
#include <errno.h>
#include <stdlib.h>

#include "vmm/block/qcow2/qcow2.h"

static int file_barrier(struct qcow2 *q)
{
	int ret = q->layer.file->ops->flush(q->layer.file);

	if (!ret && q->external_data)
		ret = q->data->ops->flush(q->data);
	return ret;
}

void entries_mark(struct dirty_entries *d, u32 index)
{
	if (!entries_dirty(d))
		*d = (struct dirty_entries){ index, index + 1 };
	d->first = MIN(d->first, index);
	d->end = MAX(d->end, index + 1);
}

int entries_write(struct qcow2 *q, const u64 *table, u64 offset, u32 first, u32 end)
{
	u64 *buf = malloc((end - first) * sizeof(*buf));
	int ret;

	if (!buf)
		return -ENOMEM;
	for (u32 i = first; i < end; i++)
		buf[i - first] = htobe64(table[i]);
	ret = proto_write(q->layer.file, buf, (end - first) * sizeof(*buf),
		offset + first * sizeof(*buf));
	free(buf);
	return ret;
}

static int commit_entries(struct qcow2 *q, const u64 *table, u64 offset, struct dirty_entries *d)
{
	int ret;

	if (!entries_dirty(d))
		return 0;
	ret = file_barrier(q);
	if (!ret)
		ret = entries_write(q, table, offset, d->first, d->end);
	if (!ret)
		*d = (struct dirty_entries){ 0 };
	return ret;
}

/* Before anything may refer to what is counted only in memory. */
static int commit_refcounts(struct qcow2 *q, bool now)
{
	int ret;

	/* A new block is told of at once, so that counting anew finds a place for each count. */
	if (q->lazy && !now && !entries_dirty(&q->reftable_dirty))
		return 0;
	ret = table_write(&q->refcount_cache, q->layer.file);
	return ret ?: commit_entries(q, q->reftable, q->reftable_offset, &q->reftable_dirty);
}

/* What nothing refers to any more, durably. */
static int commit_pending(struct qcow2 *q)
{
	int ret, first = 0;

	if (!q->pending_count)
		return 0;
	ret = file_barrier(q);
	if (ret < 0)
		return ret;
	while (q->pending_count) {
		struct qcow2_free f = q->pending[--q->pending_count];

		ret = clusters_unref(q, f.cluster, f.count);
		first = first ?: ret;
	}
	/* Not given back is leaked; what was to be made durable is. */
	return first == -EIO ? 0 : first;
}

int qcow2_commit(struct qcow2 *q, bool with_refcounts)
{
	bool references = q->l2_cache.dirty || entries_dirty(&q->l1_dirty);
	int ret;

	if (q->readonly)
		return 0;
	ret = q->pending_count ? qcow2_mark(q) : 0;
	if (!ret)
		ret = commit_refcounts(q, with_refcounts);
	if (!ret && references)
		ret = file_barrier(q);
	if (!ret)
		ret = table_write(&q->l2_cache, q->layer.file);
	if (!ret)
		ret = commit_entries(q, q->l1, q->l1_offset, &q->l1_dirty);
	if (!ret)
		ret = commit_pending(q);
	return ret;
}

int qcow2_flush(struct layer *layer)
{
	struct qcow2 *q = qcow2_of(layer);
	int ret;

	if (q->readonly)
		return 0;
	pthread_mutex_lock(&q->lock);
	ret = qcow2_commit(q, false);
	pthread_mutex_unlock(&q->lock);
	return ret ?: file_barrier(q);
}
