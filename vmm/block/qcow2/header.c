/* The header, its extensions, and the two top tables: read, checked, changed in place. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/qcow2/qcow2.h"

#define CLUSTER_BITS_MIN 9
#define CLUSTER_BITS_MAX 21

/* qcow2: Header extensions. */
#define EXTENSION_END		 0
#define EXTENSION_BACKING_FORMAT 0xe2792aca
#define EXTENSION_DATA_FILE	 0x44415441

struct extension {
	u32 type, length;
};

static int header_refuse(const struct qcow2 *q, struct error *err, const char *why)
{
	return error_set(err, EINVAL, "%s: %s", q->layer.file->name, why);
}

static int header_check_features(struct qcow2 *q, const struct qcow2_header *h, struct error *err)
{
	u64 known = INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT | INCOMPATIBLE_DATA_FILE |
		    INCOMPATIBLE_COMPRESSION;
	u64 unknown = q->incompatible & ~known;

	if (be32toh(h->crypt_method) == 1)
		return header_refuse(q, err, "AES-encrypted qcow2 images are not supported");
	if (h->crypt_method)
		return header_refuse(q, err, "LUKS-encrypted qcow2 images are not supported");
	if (q->incompatible & INCOMPATIBLE_EXTENDED_L2)
		return header_refuse(q, err, "qcow2 images with subclusters (extended_l2) are not supported");
	if (unknown)
		return error_set(err, ENOTSUP, "%s: it needs unknown qcow2 features %#" PRIx64,
			q->layer.file->name, unknown);
	if (q->incompatible & INCOMPATIBLE_CORRUPT && !q->readonly)
		return header_refuse(q, err,
			"the image is marked corrupt: it can be read (readonly) or repaired "
			"(qemu-img check -r all)");
	if (q->compression > 1 || !q->compression != !(q->incompatible & INCOMPATIBLE_COMPRESSION))
		return header_refuse(q, err, "its compression type is unknown");
	return 0;
}

static int header_check_numbers(struct qcow2 *q, const struct qcow2_header *h, struct error *err)
{
	u64 size = be64toh(h->size);

	if (size > INT64_MAX - 511)
		return header_refuse(q, err, "the qcow2 header has an impossible disk size");
	if (q->refcount_order > 6)
		return header_refuse(q, err, "the qcow2 header has an impossible width of refcounts");
	if ((u64)q->l1_size * 8 > L1_BYTES_MAX)
		return header_refuse(q, err, "its L1 table is too large");
	if (q->l1_size < l1_entries(q, size))
		return header_refuse(q, err, "its L1 table is too small for the disk");
	if (be32toh(h->refcount_table_clusters) > REFTABLE_BYTES_MAX >> q->cluster_bits)
		return header_refuse(q, err, "its refcount table is too large");
	if (!h->refcount_table_clusters && !q->readonly)
		return header_refuse(q, err, "it has no refcount table");
	if (q->snapshots > SNAPSHOTS_MAX)
		return header_refuse(q, err, "it has too many internal snapshots");
	if (cluster_offset(q, q->l1_offset | q->reftable_offset | q->snapshots_offset))
		return header_refuse(q, err, "a table that the qcow2 header names is misaligned");
	q->layer.size = ALIGN_UP(size, 512);
	return 0;
}

static int header_decode(struct qcow2 *q, const struct qcow2_header *h, struct error *err)
{
	q->version = be32toh(h->version);
	q->cluster_bits = be32toh(h->cluster_bits);
	if (be32toh(h->magic) != QCOW2_MAGIC)
		return header_refuse(q, err, "it is not a qcow2 image");
	if (q->version != 2 && q->version != 3)
		return error_set(err, ENOTSUP, "%s: version %u of qcow2 is not supported",
			q->layer.file->name, q->version);
	if (q->cluster_bits < CLUSTER_BITS_MIN || q->cluster_bits > CLUSTER_BITS_MAX)
		return header_refuse(q, err, "its cluster size is not one from 512 bytes to 2 MiB");
	q->cluster_size = BIT(q->cluster_bits);
	q->slice_size = MIN(q->cluster_size, 4096ULL);
	q->header_length = QCOW2_V2_HEADER;
	q->refcount_order = 4;
	if (q->version >= 3) {
		q->header_length = be32toh(h->header_length);
		q->refcount_order = be32toh(h->refcount_order);
		q->incompatible = be64toh(h->incompatible_features);
		q->compatible = be64toh(h->compatible_features);
		q->autoclear = be64toh(h->autoclear_features);
		if (q->header_length > QCOW2_V3_HEADER)
			q->compression = h->compression_type;
	}
	if (q->version >= 3 && (q->header_length < QCOW2_V3_HEADER || q->header_length > q->cluster_size))
		return header_refuse(q, err, "its qcow2 header has an impossible length");
	q->l1_size = be32toh(h->l1_size);
	q->l1_offset = be64toh(h->l1_table_offset);
	q->reftable_offset = be64toh(h->refcount_table_offset);
	q->reftable_size = 0;
	q->snapshots = be32toh(h->nb_snapshots);
	q->snapshots_offset = be64toh(h->snapshots_offset);
	return 0;
}

static int extension_text(struct qcow2 *q, char *to, size_t room, const u8 *data, u32 length,
	struct error *err)
{
	if (length >= room)
		return header_refuse(q, err, "a name in its qcow2 header is too long");
	memcpy(to, data, length);
	to[length] = 0;
	return 0;
}

/* The area from the header to the backing file's name, or the cluster's end. */
static int header_extensions(struct qcow2 *q, const u8 *cluster, u64 end, struct error *err)
{
	u64 at = q->header_length;
	int ret = 0;

	while (!ret && at + sizeof(struct extension) <= end) {
		struct extension e;

		memcpy(&e, cluster + at, sizeof(e));
		e.type = be32toh(e.type);
		e.length = be32toh(e.length);
		at += sizeof(e);
		if (e.type == EXTENSION_END)
			return 0;
		if (e.length > end - at)
			return header_refuse(q, err, "an extension of its qcow2 header is too long");
		if (e.type == EXTENSION_BACKING_FORMAT)
			ret = extension_text(q, q->backing_format, sizeof(q->backing_format), cluster + at,
				e.length, err);
		else if (e.type == EXTENSION_DATA_FILE)
			ret = extension_text(q, q->data_name, sizeof(q->data_name), cluster + at, e.length,
				err);
		at += ALIGN_UP((u64)e.length, 8);
	}
	return ret;
}

static int header_names(struct qcow2 *q, const struct qcow2_header *h, const u8 *cluster,
	struct error *err)
{
	u64 offset = be64toh(h->backing_file_offset);
	u32 length = be32toh(h->backing_file_size);

	if (!offset)
		return header_extensions(q, cluster, q->cluster_size, err);
	if (length > NAME_MAX_BYTES || offset > q->cluster_size || length > q->cluster_size - offset ||
	    offset < q->header_length)
		return header_refuse(q, err, "the name of its backing file is out of bounds");
	memcpy(q->backing_name, cluster + offset, length);
	return header_extensions(q, cluster, offset, err);
}

int header_load(struct qcow2 *q, struct error *err)
{
	struct proto *file = q->layer.file;
	struct qcow2_header h;
	u8 *cluster = NULL;
	int ret = proto_read(file, &h, sizeof(h), 0);

	if (ret < 0)
		return error_set(err, -ret, "cannot read %s: %s", file->name, strerror(-ret));
	ret = header_decode(q, &h, err);
	if (!ret)
		ret = header_check_features(q, &h, err);
	if (!ret)
		ret = header_check_numbers(q, &h, err);
	if (ret < 0)
		return ret;
	q->reftable_size = (u64)be32toh(h.refcount_table_clusters) * q->cluster_size / 8;
	cluster = malloc(q->cluster_size);
	ret = cluster ? proto_read(file, cluster, q->cluster_size, 0) : -ENOMEM;
	if (ret < 0)
		error_set(err, -ret, "cannot read %s: %s", file->name, strerror(-ret));
	else
		ret = header_names(q, &h, cluster, err);
	free(cluster);
	return ret;
}

/* --- changes --- */

static int header_write(struct qcow2 *q, const void *field, u64 bytes, u64 offset)
{
	int ret = proto_write(q->layer.file, field, bytes, offset);

	return ret ?: q->layer.file->ops->flush(q->layer.file);
}

int header_set_incompatible(struct qcow2 *q, u64 set, u64 clear)
{
	u64 now = (q->incompatible & ~clear) | set, raw = htobe64(now);
	int ret = header_write(q, &raw, sizeof(raw),
		offsetof(struct qcow2_header, incompatible_features));

	if (!ret)
		q->incompatible = now;
	return ret;
}

/* qcow2: Header: who does not know an auto-clear feature clears its bit before writing. */
int header_clear_autoclear(struct qcow2 *q)
{
	u64 keep = q->external_data ? q->autoclear & AUTOCLEAR_RAW_DATA : 0, raw = htobe64(keep);
	int ret;

	if (keep == q->autoclear)
		return 0;
	ret = header_write(q, &raw, sizeof(raw), offsetof(struct qcow2_header, autoclear_features));
	if (!ret)
		q->autoclear = keep;
	return ret;
}

/* One write inside one sector: the old table or the new one. */
int header_set_reftable(struct qcow2 *q, u64 offset, u32 clusters)
{
	struct {
		u64 offset;
		u32 clusters;
	} __attribute__((packed)) field = { htobe64(offset), htobe32(clusters) };

	return header_write(q, &field, sizeof(field),
		offsetof(struct qcow2_header, refcount_table_offset));
}

/* One write, too. */
int header_set_l1(struct qcow2 *q, u64 offset, u32 entries)
{
	struct {
		u32 entries;
		u64 offset;
	} __attribute__((packed)) field = { htobe32(entries), htobe64(offset) };

	return header_write(q, &field, sizeof(field), offsetof(struct qcow2_header, l1_size));
}

int header_set_size(struct qcow2 *q, u64 size)
{
	u64 raw = htobe64(size);

	return header_write(q, &raw, sizeof(raw), offsetof(struct qcow2_header, size));
}

/* --- tables --- */

static int table_load(struct qcow2 *q, u64 **out, u64 offset, u64 entries, const char *what,
	struct error *err)
{
	s64 size = q->layer.file->ops->size(q->layer.file);
	u64 *table = malloc(entries * 8 ?: 8);
	int ret;

	*out = table;
	if (!table)
		return error_set(err, ENOMEM, "out of memory");
	if (size < 0 || offset > (u64)size || entries * 8 > (u64)size - offset)
		return error_set(err, EINVAL, "%s: %s lies behind the file's end", q->layer.file->name, what);
	ret = proto_read(q->layer.file, table, entries * 8, offset);
	if (ret < 0)
		return error_set(err, -ret, "%s: cannot read %s: %s", q->layer.file->name, what,
			strerror(-ret));
	for (u64 i = 0; i < entries; i++)
		table[i] = be64toh(table[i]);
	return 0;
}

static int protect(struct qcow2 *q, u64 offset, u64 bytes, struct error *err)
{
	u64 end = offset + ALIGN_UP(bytes, q->cluster_size);

	for (; offset < end; offset += q->cluster_size) {
		int ret = set_add(&q->metadata, offset >> q->cluster_bits);

		if (ret > 0)
			return error_set(err, EINVAL,
				"%s: its tables overlap at %#" PRIx64 ": the image is corrupt",
				q->layer.file->name, offset);
		if (ret < 0)
			return error_set(err, ENOMEM, "out of memory");
	}
	return 0;
}

static int protect_each(struct qcow2 *q, const u64 *table, u32 entries, u64 mask, struct error *err)
{
	int ret = 0;

	/* A misaligned one is found when it is used. */
	for (u32 i = 0; i < entries && !ret; i++)
		if (table[i] & mask && !cluster_offset(q, table[i] & mask))
			ret = protect(q, table[i] & mask, 1, err);
	return ret;
}

static int protect_tables(struct qcow2 *q, struct error *err)
{
	u64 end = q->snapshots_offset;
	int ret = protect(q, 0, 1, err);

	if (!ret && q->l1_size)
		ret = protect(q, q->l1_offset, (u64)q->l1_size * 8, err);
	if (!ret)
		ret = protect(q, q->reftable_offset, (u64)q->reftable_size * 8, err);
	if (!ret && q->snapshots && snapshot_each(q, NULL, NULL, &end) < 0)
		ret = header_refuse(q, err, "its table of snapshots is corrupt");
	if (!ret)
		ret = protect(q, q->snapshots_offset, end - q->snapshots_offset, err);
	if (!ret)
		ret = protect_each(q, q->reftable, q->reftable_size, REFTABLE_OFFSET, err);
	if (!ret)
		ret = protect_each(q, q->l1, q->l1_size, ENTRY_OFFSET, err);
	return ret;
}

int header_load_tables(struct qcow2 *q, struct error *err)
{
	int ret = table_load(q, &q->l1, q->l1_offset, q->l1_size, "the L1 table", err);

	if (ret < 0 || q->readonly)
		return ret;
	ret = table_load(q, &q->reftable, q->reftable_offset, q->reftable_size, "the refcount table", err);
	return ret ?: protect_tables(q, err);
}
