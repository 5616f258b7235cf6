/* Opening and closing qcow2 images. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "vmm/block/qcow2/qcow2.h"

/* L2 slices: all of the disk's, but no more than 32 MiB (of 256 GiB with clusters of 64 KiB). */
#define L2_SLICES_MIN	 16
#define L2_CACHE_MAX	 (32U << 20)
#define REFCOUNT_SLICES	 512

/* What is known to be leaked is found by the next open, if that may count anew. */
static bool qcow2_stays_dirty(const struct qcow2 *q)
{
	return q->corrupt || (q->leaked && q->layer.file->alone);
}

static int qcow2_close(struct layer *layer)
{
	struct qcow2 *q = qcow2_of(layer);
	int ret = 0;

	if (!q->readonly) {
		/* What the last step gives back is for another turn. */
		ret = qcow2_commit(q, true);
		if (!ret)
			ret = qcow2_commit(q, true);
		if (!ret)
			ret = qcow2_flush(layer);
		if (!ret && q->incompatible & INCOMPATIBLE_DIRTY && !qcow2_stays_dirty(q))
			ret = header_set_incompatible(q, 0, INCOMPATIBLE_DIRTY);
	}
	if (q->external_data)
		proto_close(q->data);
	table_cache_free(&q->l2_cache);
	table_cache_free(&q->refcount_cache);
	set_free(&q->metadata);
	pthread_mutex_destroy(&q->lock);
	pthread_mutex_destroy(&q->inflate_lock);
	free(q->inflated);
	free(q->pending);
	free(q->reftable);
	free(q->l1);
	free(q);
	return ret;
}

static const struct layer_ops qcow2_ops = {
	.name = "qcow2",
	.map = qcow2_map,
	.readv = qcow2_readv,
	.writev = qcow2_writev,
	.flush = qcow2_flush,
	.discard = qcow2_discard,
	.zero = qcow2_zero,
	.resize = qcow2_resize,
	.close = qcow2_close,
};

int qcow2_size_l2_cache(struct qcow2 *q)
{
	u64 most = L2_CACHE_MAX / q->slice_size;
	u64 wanted = (q->layer.size >> q->cluster_bits) / (q->slice_size / 8) + L2_SLICES_MIN;
	struct table_cache cache;
	int ret = table_cache_init(&cache, q->slice_size, MIN(wanted, most));

	if (ret < 0) {
		table_cache_free(&cache);
		return ret;
	}
	table_cache_free(&q->l2_cache);
	q->l2_cache = cache;
	return 0;
}

static int qcow2_init_caches(struct qcow2 *q, struct error *err)
{
	if (qcow2_size_l2_cache(q) < 0 ||
	    table_cache_init(&q->refcount_cache, q->slice_size, q->readonly ? 1 : REFCOUNT_SLICES) < 0)
		return error_set(err, ENOMEM, "out of memory");
	return 0;
}

static int qcow2_open_data(struct qcow2 *q, const struct layer_options *o, struct error *err)
{
	struct proto *data;
	char *path;
	int ret;

	if (!q->data_name[0])
		return error_usage(err, "%s: it does not name its data file", q->layer.file->name);
	ret = layer_beside(&path, q->layer.file, q->data_name, err);
	if (ret < 0)
		return ret;
	ret = layer_open_file(&data, path, q->layer.file, o, err);
	free(path);
	if (ret < 0)
		return ret;
	q->data = data;
	q->external_data = true;
	return 0;
}

static int qcow2_open_backing(struct qcow2 *q, const struct layer_options *o, struct error *err)
{
	struct layer_options below = *o;

	if (!q->backing_name[0])
		return 0;
	below.format = q->backing_format[0] ? q->backing_format : NULL;
	below.internal_snapshot = NULL;
	return layer_open_backing(&q->layer.backing, q->layer.file, q->backing_name, &below, err);
}

static int qcow2_check_align(struct qcow2 *q, struct error *err)
{
	if (q->layer.file->align <= q->cluster_size && q->data->align <= q->cluster_size)
		return 0;
	return error_usage(err, "%s: its clusters are too small for cache=none and cache=directsync here",
		q->layer.file->name);
}

/*
 * Before the first change. The dirty bit, without a lock, may be that of another program which writes
 * the image now: to count anew would take from it what it has counted and does not refer to yet. What an
 * auto-clear feature has in the file is not counted at all, so its bit goes first.
 */
static int qcow2_make_writable(struct qcow2 *q, struct error *err)
{
	bool dirty = q->incompatible & INCOMPATIBLE_DIRTY;
	int ret;

	if (dirty && !q->layer.file->alone)
		return error_set(err, EBUSY, "%s: it was not closed, or another program writes it, which no "
			"lock tells here; if none does, qemu-img check -r all repairs it",
			q->layer.file->name);
	ret = header_clear_autoclear(q);
	if (ret < 0)
		return error_set(err, -ret, "cannot write %s: %s", q->layer.file->name, strerror(-ret));
	if (!dirty)
		return 0;
	log_line("%s: it was not closed properly; counting its clusters anew", q->layer.file->name);
	return qcow2_rebuild_refcounts(q, err);
}

static int qcow2_load(struct qcow2 *q, const struct layer_options *o, struct layer *backing,
	struct error *err)
{
	int ret = header_load(q, err);

	if (!ret && o->internal_snapshot)
		ret = snapshot_find(q, o->internal_snapshot, err);
	if (!ret)
		ret = header_load_tables(q, err);
	if (!ret)
		ret = qcow2_init_caches(q, err);
	if (!ret && q->incompatible & INCOMPATIBLE_DATA_FILE)
		ret = qcow2_open_data(q, o, err);
	if (!ret)
		ret = qcow2_check_align(q, err);
	if (!ret && !backing)
		ret = qcow2_open_backing(q, o, err);
	q->layer.granularity = q->cluster_size;
	q->lazy = q->version >= 3 && q->compatible & COMPATIBLE_LAZY && !q->external_data;
	if (ret < 0 || q->readonly)
		return ret;
	q->marks = qcow2_marks(q, q->layer.size);
	return qcow2_make_writable(q, err);
}

int qcow2_open(struct layer **out, struct proto *file, const struct layer_options *o,
	struct layer *backing, struct error *err)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	int ret;

	if (!q)
		return error_set(err, ENOMEM, "out of memory");
	q->layer.ops = &qcow2_ops;
	q->layer.file = q->data = file;
	q->layer.readonly = q->readonly = file->readonly || o->internal_snapshot;
	q->pass_discards = !o->ignore_discard;
	pthread_mutex_init(&q->lock, NULL);
	pthread_mutex_init(&q->inflate_lock, NULL);
	ret = qcow2_load(q, o, backing, err);
	if (ret < 0) {
		q->readonly = true;	/* nothing of it is to be written */
		layer_close(q->layer.backing);
		qcow2_close(&q->layer);
		return ret;
	}
	if (backing)
		q->layer.backing = backing;
	*out = &q->layer;
	return 0;
}
