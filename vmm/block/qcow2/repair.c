/*
 * Counting all references anew, for an image that was not closed. The references are right there (see
 * qcow2.h); the counts have leaks, or with lazy refcounts are what they were at some earlier time.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/qcow2/qcow2.h"

/* 4 TiB of clusters of 64 KiB. */
#define CLUSTERS_MAX BIT(26)
/* A cluster may be taken and not yet written; but nothing is so far behind the file's end. */
#define BEHIND_END   (64ULL << 20)

struct tally {
	u32 *count;
	u64 clusters;		/* room */
	u64 end;		/* behind the last one that is referred to */
	u64 limit;		/* no reference may reach so far, in bytes */
	const char *from;	/* the table that is looked at, */
	u64 table;		/* where it is, */
	u64 to;			/* and what it refers to */
};

static void tally_from(struct tally *t, const char *from, u64 table)
{
	t->from = from;
	t->table = t->to = table;
}

static int tally_grow(struct tally *t, u64 clusters)
{
	u64 room = MAX(clusters, t->clusters + t->clusters / 2);
	u32 *more;

	if (clusters > CLUSTERS_MAX)
		return -EFBIG;
	more = realloc(t->count, room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	memset(more + t->clusters, 0, (room - t->clusters) * sizeof(*more));
	t->count = more;
	t->clusters = room;
	return 0;
}

static int tally_add(struct qcow2 *q, struct tally *t, u64 offset, u64 bytes)
{
	u64 first = offset >> q->cluster_bits, end;
	int ret = 0;

	if (!bytes)
		return 0;
	t->to = offset;
	if (offset + bytes > t->limit)
		return -EINVAL;
	end = ((offset + bytes - 1) >> q->cluster_bits) + 1;
	if (end > t->clusters)
		ret = tally_grow(t, end);
	for (u64 i = first; i < end && !ret; i++)
		t->count[i]++;
	t->end = MAX(t->end, end);
	return ret;
}

static int tally_l2(struct qcow2 *q, struct tally *t, u64 offset)
{
	u64 *table = malloc(q->cluster_size), bytes;
	int ret = table ? proto_read(q->layer.file, table, q->cluster_size, offset) : -ENOMEM;

	tally_from(t, "L2 table", offset);
	for (u64 i = 0; i < q->cluster_size / 8 && !ret; i++) {
		struct qcow2_cluster c = cluster_decode(q, be64toh(table[i]));

		if (c.kind == CLUSTER_COMPRESSED) {
			compressed_range(q, c.entry, &c.host, &bytes);
			ret = tally_add(q, t, c.host, bytes);
		} else if (cluster_offset(q, c.host)) {
			t->to = c.host;
			ret = -EINVAL;
		} else if (c.host && !q->external_data) {
			ret = tally_add(q, t, c.host, q->cluster_size);
		}
	}
	free(table);
	return ret;
}

static int tally_tables(struct qcow2 *q, struct tally *t, u64 l1_offset, const u64 *l1, u32 l1_size)
{
	int ret = 0;

	for (u32 i = 0; i < l1_size && !ret; i++) {
		u64 offset = l1[i] & ENTRY_OFFSET;

		if (!offset)
			continue;
		tally_from(t, "L1 table", l1_offset);
		t->to = offset;
		if (cluster_offset(q, offset))
			return -EINVAL;
		ret = tally_add(q, t, offset, q->cluster_size);
		if (!ret)
			ret = tally_l2(q, t, offset);
	}
	return ret;
}

static int tally_snapshot(struct qcow2 *q, u64 l1_offset, u32 l1_size, void *arg)
{
	u64 *l1 = malloc(l1_size * 8ULL ?: 8);
	int ret = l1 ? proto_read(q->layer.file, l1, l1_size * 8ULL, l1_offset) : -ENOMEM;

	for (u32 i = 0; i < l1_size && !ret; i++)
		l1[i] = be64toh(l1[i]);
	tally_from(arg, "table of snapshots", q->snapshots_offset);
	if (!ret)
		ret = tally_add(q, arg, l1_offset, l1_size * 8ULL);
	if (!ret)
		ret = tally_tables(q, arg, l1_offset, l1, l1_size);
	if (!ret)
		tally_from(arg, "table of snapshots", q->snapshots_offset);
	free(l1);
	return ret;
}

static int tally_reftable(struct qcow2 *q, struct tally *t)
{
	int ret = 0;

	tally_from(t, "refcount table", q->reftable_offset);
	for (u32 i = 0; i < q->reftable_size && !ret; i++)
		if (q->reftable[i] & REFTABLE_OFFSET)
			ret = tally_add(q, t, q->reftable[i] & REFTABLE_OFFSET, q->cluster_size);
	return ret;
}

static int tally_snapshots(struct qcow2 *q, struct tally *t)
{
	u64 end = q->snapshots_offset;
	int ret;

	if (!q->snapshots)
		return 0;
	tally_from(t, "header", 0);
	t->to = q->snapshots_offset;
	ret = snapshot_each(q, tally_snapshot, t, &end);
	return ret ?: tally_add(q, t, q->snapshots_offset, end - q->snapshots_offset);
}

static int tally_all(struct qcow2 *q, struct tally *t)
{
	int ret;

	tally_from(t, "header", 0);
	ret = tally_add(q, t, 0, 1);
	if (!ret)
		ret = tally_add(q, t, q->l1_offset, q->l1_size * 8ULL);
	if (!ret)
		ret = tally_add(q, t, q->reftable_offset, q->reftable_size * 8ULL);
	if (!ret)
		ret = tally_reftable(q, t);
	if (!ret)
		ret = tally_tables(q, t, q->l1_offset, q->l1, q->l1_size);
	return ret ?: tally_snapshots(q, t);
}

/* A block that is missing goes where its own range has a free cluster. */
static int tally_block(struct qcow2 *q, struct tally *t, u64 cluster)
{
	u64 covers = refblock_covers(q), first = ALIGN_DOWN(cluster, covers);
	int ret;

	/* A longer table would be one more thing to count; writers lengthen it before they refer there. */
	if (cluster / covers >= q->reftable_size) {
		tally_from(t, "refcount table (too short)", q->reftable_offset);
		t->to = cluster << q->cluster_bits;
		return -EINVAL;
	}
	for (u64 i = first; i < first + covers; i++) {
		if (i < t->end && t->count[i])
			continue;
		ret = refblock_need(q, i);
		return ret ?: tally_add(q, t, i << q->cluster_bits, 1);
	}
	return -ENOSPC;
}

/* What one block counts, or would. */
static int tally_store_block(struct qcow2 *q, struct tally *t, u64 first)
{
	u64 count;
	int ret = 0;

	for (u64 i = first; i < first + refblock_covers(q) && !ret; i++) {
		bool missing = !refblock_there(q, i);

		if (missing && (i >= t->end || !t->count[i]))
			continue;
		if (missing)
			ret = tally_block(q, t, i);
		if (!ret)
			ret = refcount_get(q, i, &count);
		if (!ret && count != (i < t->end ? t->count[i] : 0))
			ret = refcount_set(q, i, i < t->end ? t->count[i] : 0);
	}
	return ret;
}

/* With what is counted behind the file's end: it is lost when the file grows. */
static int tally_store(struct qcow2 *q, struct tally *t)
{
	u64 covers = refblock_covers(q), end = MAX(t->end, t->limit >> q->cluster_bits);
	int ret = 0;

	for (u64 i = 0; i < end && !ret; i += covers)
		if (i < t->end || refblock_there(q, i))
			ret = tally_store_block(q, t, i);
	return ret;
}

/* Each cluster of the disk may come to what there is, and each snapshot has tables for all of them. */
static bool can_rebuild(const struct qcow2 *q, u64 size)
{
	s64 there = q->layer.file->ops->size(q->layer.file);
	u64 most = CLUSTERS_MAX / 2 / (1ULL + q->snapshots);

	return there >= 0 && (there + size) >> q->cluster_bits < most;
}

/* Without a lock the next one could not count anew: see qcow2_make_writable(). */
bool qcow2_marks(const struct qcow2 *q, u64 size)
{
	if (q->version < 3 || q->external_data)
		return false;
	return q->lazy || (q->layer.file->alone && can_rebuild(q, size));
}

static int rebuild_refuse(const struct qcow2 *q, const struct tally *t, int ret, struct error *err)
{
	const char *name = q->layer.file->name;

	if (ret != -EINVAL)
		return error_set(err, -ret, "%s: its clusters cannot be counted (%s); try qemu-img check "
			"-r all", name, strerror(-ret));
	return error_set(err, EINVAL, "%s: its clusters cannot be counted: %s at %#" PRIx64 " refers to %#"
		PRIx64 "; it can be read (readonly) or repaired (qemu-img check -r all)", name, t->from,
		t->table, t->to);
}

int qcow2_rebuild_refcounts(struct qcow2 *q, struct error *err)
{
	s64 size = q->layer.file->ops->size(q->layer.file);
	struct tally t = { .limit = MAX(size, 0) + BEHIND_END };
	int ret = tally_all(q, &t);

	if (!ret)
		ret = tally_store(q, &t);
	if (!ret)
		ret = table_write(&q->refcount_cache, q->layer.file);
	if (!ret)
		ret = qcow2_commit(q, true);
	if (!ret)
		ret = q->layer.file->ops->flush(q->layer.file);
	if (!ret)
		ret = header_set_incompatible(q, 0, INCOMPATIBLE_DIRTY);
	free(t.count);
	return ret < 0 ? rebuild_refuse(q, &t, ret, err) : 0;
}
