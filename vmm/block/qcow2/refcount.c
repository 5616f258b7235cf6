/*
 * Reference counts of host clusters, and taking free ones (qcow2: Host cluster management).
 *
 * A refcount block is made when the search for free clusters meets a range that has none: the first
 * cluster of the range that is looked at becomes the block, and counts itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/qcow2/qcow2.h"

#define CLUSTERS_MAX(q) (BIT(56) >> (q)->cluster_bits)

static u32 refblock_bits(const struct qcow2 *q)
{
	return q->cluster_bits + 3 - q->refcount_order;
}

static u64 refcount_max(const struct qcow2 *q)
{
	return q->refcount_order == 6 ? UINT64_MAX : BIT(1 << q->refcount_order) - 1;
}

/* Counts of less than a byte begin at its least significant bit (qcow2: Refcount blocks). */
static u64 count_load(const struct qcow2 *q, const u8 *slice, u64 index)
{
	u32 bits = 1 << q->refcount_order, per_byte;

	switch (q->refcount_order) {
	case 3: return slice[index];
	case 4: return be16toh(((const u16 *)slice)[index]);
	case 5: return be32toh(((const u32 *)slice)[index]);
	case 6: return be64toh(((const u64 *)slice)[index]);
	}
	per_byte = 8 / bits;
	return slice[index / per_byte] >> index % per_byte * bits & (BIT(bits) - 1);
}

static void count_store(const struct qcow2 *q, u8 *slice, u64 index, u64 count)
{
	u32 bits = 1 << q->refcount_order, per_byte, shift;

	switch (q->refcount_order) {
	case 3: slice[index] = count; return;
	case 4: ((u16 *)slice)[index] = htobe16(count); return;
	case 5: ((u32 *)slice)[index] = htobe32(count); return;
	case 6: ((u64 *)slice)[index] = htobe64(count); return;
	}
	per_byte = 8 / bits;
	shift = index % per_byte * bits;
	slice[index / per_byte] &= ~((BIT(bits) - 1) << shift);
	slice[index / per_byte] |= count << shift;
}

/* Counts may be written at any time: up is always safe, down comes only after all else. */
static int refcount_slice(struct qcow2 *q, u64 offset, struct table_slice **slice)
{
	int ret = table_get(&q->refcount_cache, q->layer.file, offset, slice);

	if (ret == -EBUSY) {
		ret = table_write(&q->refcount_cache, q->layer.file);
		if (!ret)
			ret = table_get(&q->refcount_cache, q->layer.file, offset, slice);
	}
	return ret == -ERANGE ? qcow2_corrupt(q, "a refcount block lies behind the end", offset) : ret;
}

/* The slice that counts a cluster, NULL for none, and where in it. */
static int refcount_find(struct qcow2 *q, u64 cluster, struct table_slice **slice, u64 *index)
{
	u64 table_index = cluster >> refblock_bits(q), block, bit;

	*slice = NULL;
	if (table_index >= q->reftable_size)
		return 0;
	block = q->reftable[table_index] & REFTABLE_OFFSET;
	if (!block)
		return 0;
	if (cluster_offset(q, block))
		return qcow2_corrupt(q, "a refcount block is misaligned", block);
	bit = (cluster & (BIT(refblock_bits(q)) - 1)) << q->refcount_order;
	*index = (bit & (8 * q->slice_size - 1)) >> q->refcount_order;
	return refcount_slice(q, block + ALIGN_DOWN(bit / 8, q->slice_size), slice);
}

int refcount_get(struct qcow2 *q, u64 cluster, u64 *count)
{
	struct table_slice *slice;
	u64 index;
	int ret = refcount_find(q, cluster, &slice, &index);

	*count = ret < 0 || !slice ? 0 : count_load(q, slice->data, index);
	return ret;
}

int qcow2_mark(struct qcow2 *q)
{
	if (!q->marks || q->incompatible & INCOMPATIBLE_DIRTY)
		return 0;
	return header_set_incompatible(q, INCOMPATIBLE_DIRTY, 0);
}

int refcount_set(struct qcow2 *q, u64 cluster, u64 count)
{
	struct table_slice *slice;
	u64 index;
	int ret = refcount_find(q, cluster, &slice, &index);

	if (ret < 0)
		return ret;
	if (!slice)
		return count ? -EIO : 0;
	if (count > refcount_max(q))
		return -EOVERFLOW;
	ret = qcow2_mark(q);
	if (ret < 0)
		return ret;
	count_store(q, slice->data, index, count);
	table_dirty(&q->refcount_cache, slice);
	if (!count)
		q->free_hint = MIN(q->free_hint, cluster);
	return 0;
}

static int write_zeroes(struct qcow2 *q, u64 offset, u64 bytes)
{
	void *zeroes = calloc(1, bytes);
	int ret = zeroes ? proto_write(q->layer.file, zeroes, bytes, offset) : -ENOMEM;

	free(zeroes);
	return ret;
}

static void reftable_set(struct qcow2 *q, u32 index, u64 offset)
{
	q->reftable[index] = offset;
	entries_mark(&q->reftable_dirty, index);
}

/* A larger table, with the blocks that count it, in a range that nothing counted so far. */
struct reftable_plan {
	u64 first;		/* the range's first cluster */
	u64 blocks, clusters;	/* of new refcount blocks, then of the table */
	u32 old_size, size;	/* entries */
	u64 *table;
};

static int reftable_plan(struct qcow2 *q, u64 table_index, struct reftable_plan *p)
{
	u64 per_cluster = q->cluster_size / 8, per_block = BIT(refblock_bits(q));
	u64 entries = table_index + 1 + table_index / 2;

	p->old_size = q->reftable_size;
	p->first = (u64)q->reftable_size << refblock_bits(q);
	p->blocks = 1;
	/* More blocks need more entries, and more of both more blocks. */
	for (int i = 0; i < 8; i++) {
		entries = MAX(entries, p->old_size + p->blocks);
		p->clusters = (entries + per_cluster - 1) / per_cluster;
		p->blocks = (p->blocks + p->clusters + per_block - 1) / per_block;
	}
	if (p->clusters * q->cluster_size > REFTABLE_BYTES_MAX ||
	    p->first + p->blocks + p->clusters > CLUSTERS_MAX(q))
		return -EFBIG;
	p->size = p->clusters * per_cluster;
	if (set_has_any(&q->metadata, p->first, p->blocks + p->clusters))
		return qcow2_corrupt(q, "tables lie where nothing counts", p->first << q->cluster_bits);
	p->table = calloc(p->size, sizeof(*p->table));
	if (!p->table)
		return -ENOMEM;
	memcpy(p->table, q->reftable, p->old_size * sizeof(*p->table));
	for (u64 i = 0; i < p->blocks; i++)
		p->table[p->old_size + i] = (p->first + i) << q->cluster_bits;
	return 0;
}

static int reftable_write_new(struct qcow2 *q, const struct reftable_plan *p)
{
	u8 *blocks = calloc(p->blocks, q->cluster_size);
	u64 offset = p->first << q->cluster_bits;
	int ret;

	if (!blocks)
		return -ENOMEM;
	/* The blocks are in a row, so they are one long array of counts. */
	for (u64 i = 0; i < p->blocks + p->clusters; i++)
		count_store(q, blocks, i, 1);
	ret = table_write(&q->refcount_cache, q->layer.file);
	if (!ret)
		ret = proto_write(q->layer.file, blocks, p->blocks * q->cluster_size, offset);
	if (!ret)
		ret = entries_write(q, p->table, offset + p->blocks * q->cluster_size, 0, p->size);
	if (!ret)
		ret = q->layer.file->ops->flush(q->layer.file);
	if (!ret)
		ret = header_set_reftable(q, offset + p->blocks * q->cluster_size, p->clusters);
	free(blocks);
	return ret;
}

static void metadata_add(struct qcow2 *q, u64 first, u64 count)
{
	/* Short of memory it protects less: it guards against images that are corrupt already. */
	for (u64 i = 0; i < count; i++)
		if (set_add(&q->metadata, first + i) < 0)
			break;
}

void table_moved(struct qcow2 *q, u64 first, u64 count, u64 old, u64 old_count)
{
	metadata_add(q, first, count);
	for (u64 i = 0; i < old_count; i++)
		set_remove(&q->metadata, old + i);
	if (old_count)
		clusters_free_later(q, old << q->cluster_bits, old_count << q->cluster_bits);
}

static int reftable_grow(struct qcow2 *q, u64 table_index)
{
	u64 old = q->reftable_offset >> q->cluster_bits;
	u64 old_clusters = ((u64)q->reftable_size * 8 + q->cluster_size - 1) >> q->cluster_bits;
	struct reftable_plan p = { 0 };
	int ret = reftable_plan(q, table_index, &p);

	if (!ret)
		ret = reftable_write_new(q, &p);
	if (ret < 0) {
		q->leaked |= !!p.table;		/* the file may have it */
		free(p.table);
		return ret;
	}
	table_forget(&q->refcount_cache, p.first << q->cluster_bits, p.blocks * q->cluster_size);
	free(q->reftable);
	q->reftable = p.table;
	q->reftable_size = p.size;
	q->reftable_offset = (p.first + p.blocks) << q->cluster_bits;
	q->reftable_dirty = (struct dirty_entries){ 0 };
	table_moved(q, p.first, p.blocks + p.clusters, old, old_clusters);
	return 0;
}

u64 refblock_covers(const struct qcow2 *q)
{
	return BIT(refblock_bits(q));
}

bool refblock_there(const struct qcow2 *q, u64 cluster)
{
	u64 table_index = cluster >> refblock_bits(q);

	return table_index < q->reftable_size && q->reftable[table_index] & REFTABLE_OFFSET;
}

int refblock_need(struct qcow2 *q, u64 cluster)
{
	u64 table_index = cluster >> refblock_bits(q);
	int ret;

	if (refblock_there(q, cluster))
		return 0;
	if (cluster >= CLUSTERS_MAX(q))
		return -EFBIG;
	ret = qcow2_mark(q);
	if (ret < 0)
		return ret;
	if (table_index >= q->reftable_size) {
		ret = reftable_grow(q, table_index);
		/* The new blocks may be the one that was wanted. */
		return ret ?: refblock_need(q, cluster);
	}
	if (set_has(&q->metadata, cluster))
		return qcow2_corrupt(q, "a table is not counted", cluster << q->cluster_bits);
	ret = write_zeroes(q, cluster << q->cluster_bits, q->cluster_size);
	if (ret < 0)
		return ret;
	table_forget(&q->refcount_cache, cluster << q->cluster_bits, q->cluster_size);
	reftable_set(q, table_index, cluster << q->cluster_bits);
	ret = refcount_set(q, cluster, 1);
	if (ret < 0)
		q->reftable[table_index] = 0;
	else
		metadata_add(q, cluster, 1);
	return ret;
}

/* 1: free. Makes the block that counts the cluster, which may take the cluster itself. */
static int cluster_is_free(struct qcow2 *q, u64 cluster)
{
	u64 count;
	int ret = refblock_need(q, cluster);

	if (!ret)
		ret = refcount_get(q, cluster, &count);
	if (ret < 0 || count)
		return MIN(ret, 0);
	if (set_has(&q->metadata, cluster))
		return qcow2_corrupt(q, "a table is counted as free", cluster << q->cluster_bits);
	return 1;
}

/* Each is counted once, or none is. */
static int clusters_count(struct qcow2 *q, u64 first, u64 n)
{
	for (u64 i = 0; i < n; i++) {
		int ret = refcount_set(q, first + i, 1);

		if (ret < 0) {
			clusters_unref(q, first, i);
			return ret;
		}
	}
	return 0;
}

s64 clusters_alloc(struct qcow2 *q, u64 wanted, u64 *offset)
{
	u64 first, n;
	int ret = 0;

	if (q->corrupt)
		return -EIO;
	for (first = q->free_hint; !ret; first++) {
		ret = cluster_is_free(q, first);
		if (ret < 0)
			return ret;
		if (ret)
			break;
	}
	for (n = 1; n < wanted; n++) {
		ret = cluster_is_free(q, first + n);
		if (ret <= 0)
			break;
	}
	ret = clusters_count(q, first, n);
	if (ret < 0)
		return ret;
	q->free_hint = first + n;
	*offset = first << q->cluster_bits;
	return n;
}

/* Behind the file's end each range that a block counts is free but for its first cluster, the block. */
int clusters_alloc_row(struct qcow2 *q, u64 wanted, u64 *offset)
{
	u64 next = q->free_hint, n = 0;

	if (q->corrupt)
		return -EIO;
	if (wanted >= refblock_covers(q))
		return -EFBIG;
	while (n < wanted) {
		int ret = cluster_is_free(q, next++);

		if (ret < 0)
			return ret;
		n = ret ? n + 1 : 0;
	}
	*offset = (next - wanted) << q->cluster_bits;
	return clusters_count(q, next - wanted, wanted);
}

int clusters_unref(struct qcow2 *q, u64 cluster, u64 count)
{
	int first = 0;

	for (u64 i = 0; i < count; i++) {
		u64 refs;
		int ret = refcount_get(q, cluster + i, &refs);

		if (!ret && !refs)
			ret = qcow2_corrupt(q, "more references than counted",
				(cluster + i) << q->cluster_bits);
		/* While it still counts: nobody else may have it yet. */
		if (!ret && refs == 1 && q->pass_discards)
			q->layer.file->ops->discard(q->layer.file, (cluster + i) << q->cluster_bits,
				q->cluster_size);
		if (!ret)
			ret = refcount_set(q, cluster + i, refs - 1);
		first = first ?: ret;
	}
	if (first < 0)
		q->leaked = true;
	return first;
}

void clusters_free_later(struct qcow2 *q, u64 offset, u64 bytes)
{
	u64 first = offset >> q->cluster_bits, last = (offset + bytes - 1) >> q->cluster_bits;
	struct qcow2_free *f = q->pending_count ? &q->pending[q->pending_count - 1] : NULL;

	if (f && f->cluster + f->count == first && f->count < UINT32_MAX / 2) {
		f->count += last - first + 1;
		return;
	}
	if (q->pending_count == q->pending_room) {
		size_t room = q->pending_room ? 2 * q->pending_room : 64;
		struct qcow2_free *more = realloc(q->pending, room * sizeof(*more));

		if (!more) {
			q->leaked = true;	/* that harms nobody */
			return;
		}
		q->pending = more;
		q->pending_room = room;
	}
	q->pending[q->pending_count++] = (struct qcow2_free){ first, last - first + 1 };
}
