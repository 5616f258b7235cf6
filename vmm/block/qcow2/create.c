/* New, empty qcow2 images. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/qcow2/qcow2.h"

#define NEW_BITS    16
#define NEW_CLUSTER BIT(NEW_BITS)
/* The file's clusters: header, refcount table, its one block, then the L1 table. */
#define AT_REFTABLE NEW_CLUSTER
#define AT_REFBLOCK (2 * NEW_CLUSTER)
#define AT_L1	    (3 * NEW_CLUSTER)

#define EXTENSION_BACKING_FORMAT 0xe2792aca

static void put_header(u8 *cluster, const struct qcow2_new *n, u32 l1_size)
{
	struct qcow2_header h = {
		.magic = htobe32(QCOW2_MAGIC),
		.version = htobe32(3),
		.cluster_bits = htobe32(NEW_BITS),
		.size = htobe64(n->size),
		.l1_size = htobe32(l1_size),
		.l1_table_offset = htobe64(AT_L1),
		.refcount_table_offset = htobe64(AT_REFTABLE),
		.refcount_table_clusters = htobe32(1),
		.compatible_features = htobe64(n->lazy_refcounts ? COMPATIBLE_LAZY : 0),
		.refcount_order = htobe32(4),
		.header_length = htobe32(sizeof(h)),
	};
	u32 extension[2] = { htobe32(EXTENSION_BACKING_FORMAT), 0 };
	u64 at = sizeof(h);

	if (n->backing_format) {
		extension[1] = htobe32(strlen(n->backing_format));
		memcpy(cluster + at, extension, sizeof(extension));
		memcpy(cluster + at + 8, n->backing_format, strlen(n->backing_format));
		at += 8 + ALIGN_UP(strlen(n->backing_format), 8);
	}
	at += 8;	/* the end of the extensions */
	if (n->backing_name) {
		h.backing_file_offset = htobe64(at);
		h.backing_file_size = htobe32(strlen(n->backing_name));
		memcpy(cluster + at, n->backing_name, strlen(n->backing_name));
	}
	memcpy(cluster, &h, sizeof(h));
}

int qcow2_create(struct proto *file, const struct qcow2_new *n, struct error *err)
{
	u64 l2_covers = NEW_CLUSTER * NEW_CLUSTER / 8;
	u64 l1_size = n->size / l2_covers + !!(n->size % l2_covers);
	u64 l1_clusters = (l1_size * 8 + NEW_CLUSTER - 1) / NEW_CLUSTER;
	u64 clusters = 3 + MAX(l1_clusters, 1ULL);
	u8 *image;
	int ret;

	if (l1_size * 8 > L1_BYTES_MAX)
		return error_usage(err, "%s: a qcow2 image cannot be so large", file->name);
	if (n->backing_name && strlen(n->backing_name) > NAME_MAX_BYTES)
		return error_usage(err, "%s: the name of its backing file is too long", file->name);
	image = calloc(clusters, NEW_CLUSTER);
	if (!image)
		return error_set(err, ENOMEM, "out of memory");
	put_header(image, n, l1_size);
	*(u64 *)(image + AT_REFTABLE) = htobe64(AT_REFBLOCK);
	for (u64 i = 0; i < clusters; i++)
		((u16 *)(image + AT_REFBLOCK))[i] = htobe16(1);
	ret = proto_write(file, image, clusters * NEW_CLUSTER, 0);
	if (!ret)
		ret = file->ops->flush(file);
	free(image);
	return ret < 0 ? error_set(err, -ret, "cannot write %s: %s", file->name, strerror(-ret)) : 0;
}
