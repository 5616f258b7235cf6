/* From guest offsets to host clusters: L1 and L2 tables (qcow2: Cluster mapping). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "vmm/block/qcow2/qcow2.h"

/*
 * The file cannot be what it says. The request fails, and from now on nothing is allocated or given
 * back: counts and tables cannot be trusted. What is in place already is read and written on.
 */
int qcow2_corrupt(struct qcow2 *q, const char *what, u64 offset)
{
	if (!q->corrupt) {
		q->corrupt = true;
		log_line("%s: the image is corrupt: %s (at offset %#" PRIx64 "); see qemu-img check",
			q->layer.file->name, what, offset);
		if (!q->readonly && q->version >= 3)
			header_set_incompatible(q, INCOMPATIBLE_CORRUPT, 0);
	}
	return -EIO;
}

struct qcow2_cluster cluster_decode(const struct qcow2 *q, u64 entry)
{
	struct qcow2_cluster c = { .entry = entry };

	if (entry & ENTRY_COMPRESSED) {
		c.kind = CLUSTER_COMPRESSED;
		return c;
	}
	c.host = entry & ENTRY_OFFSET;
	c.copied = entry & ENTRY_COPIED;
	if (entry & ENTRY_ZERO)
		c.kind = CLUSTER_ZERO;
	else if (c.host || (q->external_data && c.copied))
		c.kind = CLUSTER_NORMAL;
	return c;
}

int cluster_check(struct qcow2 *q, const struct qcow2_cluster *c, u64 offset)
{
	if (c->kind == CLUSTER_ZERO && q->version < 3)
		return qcow2_corrupt(q, "a zero cluster in version 2", offset);
	if (cluster_offset(q, c->host))
		return qcow2_corrupt(q, "a cluster is misaligned", c->host);
	if (c->kind == CLUSTER_COMPRESSED && q->external_data)
		return qcow2_corrupt(q, "a compressed cluster beside a data file", offset);
	if (q->external_data && c->kind == CLUSTER_NORMAL &&
	    c->host != ALIGN_DOWN(offset, q->cluster_size))
		return qcow2_corrupt(q, "a cluster is not where the data file has it", c->host);
	return 0;
}

static u32 l2_bits(const struct qcow2 *q)
{
	return q->cluster_bits - 3;
}

static u64 l1_index(const struct qcow2 *q, u64 offset)
{
	return offset >> (q->cluster_bits + l2_bits(q));
}

u32 l2_slice_entries(const struct qcow2 *q)
{
	return q->slice_size / 8;
}

u64 l2_entry(const struct table_slice *slice, u32 index)
{
	return be64toh(((const u64 *)slice->data)[index]);
}

/* Where in the file the slice for a guest offset is, and the index in it. */
static u64 slice_offset(const struct qcow2 *q, u64 table, u64 offset, u32 *index)
{
	u64 byte = (offset >> q->cluster_bits & (BIT(l2_bits(q)) - 1)) * 8;

	*index = (byte & (q->slice_size - 1)) / 8;
	return table + ALIGN_DOWN(byte, q->slice_size);
}

/* A slice of an L2 table; makes room by a commit if need be. */
static int l2_slice(struct qcow2 *q, u64 at, struct table_slice **slice)
{
	int ret = table_get(&q->l2_cache, q->layer.file, at, slice);

	if (ret == -EBUSY) {
		ret = qcow2_commit(q, false);
		if (!ret)
			ret = table_get(&q->l2_cache, q->layer.file, at, slice);
	}
	return ret == -ERANGE ? qcow2_corrupt(q, "an L2 table lies behind the end", at) : ret;
}

int l2_find(struct qcow2 *q, u64 offset, bool block, struct table_slice **slice, u32 *index)
{
	u64 table = q->l1[l1_index(q, offset)] & ENTRY_OFFSET, at;

	*slice = NULL;
	at = slice_offset(q, table, offset, index);
	if (!table)
		return 0;
	if (!block) {
		*slice = table_peek(&q->l2_cache, at);
		return *slice ? 0 : -EAGAIN;
	}
	if (cluster_offset(q, table))
		return qcow2_corrupt(q, "an L2 table is misaligned", table);
	return l2_slice(q, at, slice);
}

static void l1_set(struct qcow2 *q, u32 index, u64 entry)
{
	q->l1[index] = entry;
	entries_mark(&q->l1_dirty, index);
}

/* The old table's contents, or none, into a cluster of the file. */
static int l2_copy(struct qcow2 *q, u64 from, u64 to)
{
	u8 *buf = calloc(1, q->cluster_size);
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	if (from)
		ret = proto_read(q->layer.file, buf, q->cluster_size, from);
	if (!ret)
		ret = proto_write(q->layer.file, buf, q->cluster_size, to);
	free(buf);
	return ret;
}

/* A table that only the active L1 table refers to. */
static int l2_own(struct qcow2 *q, u32 index)
{
	u64 old = q->l1[index] & ENTRY_OFFSET, new;
	s64 got;
	int ret;

	if (q->l1[index] & ENTRY_COPIED && old)
		return 0;
	if (cluster_offset(q, old))
		return qcow2_corrupt(q, "an L2 table is misaligned", old);
	got = clusters_alloc(q, 1, &new);
	if (got < 0)
		return got;
	ret = l2_copy(q, old, new);
	if (ret < 0) {
		clusters_unref(q, new >> q->cluster_bits, 1);
		return ret;
	}
	table_forget(&q->l2_cache, new, q->cluster_size);
	set_add(&q->metadata, new >> q->cluster_bits);
	l1_set(q, index, new | ENTRY_COPIED);
	if (old) {
		set_remove(&q->metadata, old >> q->cluster_bits);
		clusters_free_later(q, old, q->cluster_size);
	}
	return 0;
}

int l2_find_to_write(struct qcow2 *q, u64 offset, struct table_slice **slice, u32 *index)
{
	int ret = q->corrupt ? -EIO : l2_own(q, l1_index(q, offset));

	return ret ?: l2_find(q, offset, true, slice, index);
}

void l2_set(struct qcow2 *q, struct table_slice *slice, u32 index, u64 entry)
{
	((u64 *)slice->data)[index] = htobe64(entry);
	table_dirty(&q->l2_cache, slice);
}

/* qcow2: Compressed Clusters Descriptor. */
void compressed_range(const struct qcow2 *q, u64 entry, u64 *offset, u64 *bytes)
{
	u32 x = 62 - (q->cluster_bits - 8);
	u64 sectors = ((entry & (BIT(62) - 1)) >> x) + 1;

	*offset = entry & (BIT(x) - 1);
	*bytes = sectors * 512 - (*offset & 511);
}

void cluster_free_later(struct qcow2 *q, u64 entry)
{
	struct qcow2_cluster c = cluster_decode(q, entry);
	u64 offset, bytes;

	if (q->external_data)
		return;
	if (c.kind == CLUSTER_COMPRESSED) {
		compressed_range(q, entry, &offset, &bytes);
		clusters_free_later(q, offset, bytes);
	} else if (c.host) {
		clusters_free_later(q, c.host, q->cluster_size);
	}
}
