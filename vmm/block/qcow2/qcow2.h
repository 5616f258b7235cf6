/*
 * The qcow2 format, versions 2 and 3 (docs/interop/qcow2.txt of QEMU, cited as "qcow2: section").
 *
 * Tables are cached in slices (table.h) and written back by qcow2_commit() in an order that keeps the
 * file valid at every moment, whatever of it a crash leaves undone:
 *
 *   refcounts up -> refcount table -> (data and these are durable) -> L2 -> L1 -> (durable) -> refcounts down
 *
 * So a cluster is counted before anything refers to it, and given back only when nothing does any
 * more; a crash leaks clusters at most. What a commit has yet to give back is in the list `pending`.
 * With lazy refcounts the first two steps are left out.
 *
 * The dirty bit is set before the first count changes and cleared by a close: who opens the image after
 * a crash, be it QEMU, counts anew, and what was leaked is free again. QEMU itself sets it with lazy
 * refcounts only; of other images it leaves leaks to qemu-img check -r leaks. Images that have no such
 * bit (version 2), an external data file, too many clusters to count, or that no lock keeps from others
 * (NBD) keep their leaks here, too. It also outlives a close that knows of a leak.
 *
 * Locking: `lock` guards all metadata. It is not held while data of the guest is moved: block.c keeps
 * writes that allocate apart by cluster, and a cluster being filled is counted but not yet linked.
 */
#ifndef QUMRA_VMM_BLOCK_QCOW2_QCOW2_H
#define QUMRA_VMM_BLOCK_QCOW2_QCOW2_H

#include <endian.h>
#include <pthread.h>

#include "vmm/block/layer.h"
#include "vmm/block/qcow2/set.h"
#include "vmm/block/qcow2/table.h"

#define QCOW2_MAGIC 0x514649fb

/* qcow2: Header. All big-endian. */
struct qcow2_header {
	u32 magic, version;
	u64 backing_file_offset;
	u32 backing_file_size, cluster_bits;
	u64 size;
	u32 crypt_method, l1_size;
	u64 l1_table_offset, refcount_table_offset;
	u32 refcount_table_clusters, nb_snapshots;
	u64 snapshots_offset;
	/* Version 3. */
	u64 incompatible_features, compatible_features, autoclear_features;
	u32 refcount_order, header_length;
	u8 compression_type, padding[7];
};
_Static_assert(sizeof(struct qcow2_header) == 112, "qcow2: Header");
_Static_assert(offsetof(struct qcow2_header, incompatible_features) == 72, "qcow2: Header");
_Static_assert(offsetof(struct qcow2_header, compression_type) == 104, "qcow2: Header");

#define QCOW2_V2_HEADER 72
#define QCOW2_V3_HEADER 104

#define INCOMPATIBLE_DIRTY	 BIT(0)
#define INCOMPATIBLE_CORRUPT	 BIT(1)
#define INCOMPATIBLE_DATA_FILE	 BIT(2)
#define INCOMPATIBLE_COMPRESSION BIT(3)
#define INCOMPATIBLE_EXTENDED_L2 BIT(4)
#define COMPATIBLE_LAZY		 BIT(0)
#define AUTOCLEAR_RAW_DATA	 BIT(1)

/* qcow2: Cluster mapping. */
#define ENTRY_OFFSET	 MASK(55, 9)
#define ENTRY_COPIED	 BIT(63)
#define ENTRY_COMPRESSED BIT(62)
#define ENTRY_ZERO	 BIT(0)
#define REFTABLE_OFFSET	 MASK(63, 9)

/* The limits of QEMU; what is beyond them is refused. */
#define L1_BYTES_MAX	   (32U << 20)
#define REFTABLE_BYTES_MAX (8U << 20)
#define SNAPSHOTS_MAX	   65536
#define NAME_MAX_BYTES	   1023

struct qcow2_free {
	u64 cluster;	/* its number in the file */
	u32 count;
};

/* Of a table that is in memory as a whole: entries [first, end) are newer than the file's. */
struct dirty_entries {
	u32 first, end;
};

static inline bool entries_dirty(const struct dirty_entries *d)
{
	return d->first < d->end;
}

struct qcow2 {
	struct layer layer;
	struct proto *data;		/* guest clusters: layer.file, or the external data file */
	pthread_mutex_t lock;

	u32 version, cluster_bits, refcount_order, header_length;
	u64 cluster_size, slice_size;
	u64 incompatible, compatible, autoclear;	/* as on disk now */
	u8 compression;
	bool readonly, external_data, lazy, pass_discards;
	bool marks;			/* sets the dirty bit */
	bool leaked;			/* some cluster is counted for nothing, for sure or perhaps */
	bool corrupt;			/* found so: nothing is allocated any more */

	u64 l1_offset, reftable_offset, snapshots_offset;
	u32 l1_size, reftable_size, snapshots;	/* entries */
	u64 *l1, *reftable;		/* in the host's order */
	struct dirty_entries l1_dirty, reftable_dirty;

	struct table_cache l2_cache, refcount_cache;
	struct cluster_set metadata;	/* clusters that no guest data may be in */
	u64 free_hint;			/* no cluster below it is free */
	struct qcow2_free *pending;
	size_t pending_count, pending_room;

	pthread_mutex_t inflate_lock;	/* guards the last compressed cluster */
	u64 inflated_entry;
	u8 *inflated;

	char backing_name[NAME_MAX_BYTES + 1], backing_format[32], data_name[NAME_MAX_BYTES + 1];
};

enum cluster_kind { CLUSTER_NONE, CLUSTER_NORMAL, CLUSTER_ZERO, CLUSTER_COMPRESSED };

/* An L2 entry, taken apart. */
struct qcow2_cluster {
	enum cluster_kind kind;
	u64 entry;
	u64 host;	/* NORMAL; ZERO: or 0 */
	bool copied;	/* nobody else refers to host */
};

static inline struct qcow2 *qcow2_of(struct layer *layer)
{
	return container_of(layer, struct qcow2, layer);
}

static inline u64 cluster_offset(const struct qcow2 *q, u64 offset)
{
	return offset & (q->cluster_size - 1);
}

/* Entries of the L1 table for a disk of this size. */
static inline u64 l1_entries(const struct qcow2 *q, u64 size)
{
	u64 covers = q->cluster_size * (q->cluster_size / 8);

	return size / covers + !!(size % covers);
}

/* --- header.c --- */

int header_load(struct qcow2 *q, struct error *err);
/* Sets and clears incompatible features on disk, durably. */
int header_set_incompatible(struct qcow2 *q, u64 set, u64 clear);
int header_clear_autoclear(struct qcow2 *q);
int header_set_reftable(struct qcow2 *q, u64 offset, u32 clusters);
int header_set_l1(struct qcow2 *q, u64 offset, u32 entries);
int header_set_size(struct qcow2 *q, u64 size);
/* L1 and refcount table into memory; the set of metadata. */
int header_load_tables(struct qcow2 *q, struct error *err);

/* --- snapshot.c --- */

/* Takes the snapshot's L1 table and size in place of the active ones. */
int snapshot_find(struct qcow2 *q, const char *name, struct error *err);
/* Calls fn for each snapshot's L1 table; also tells where the table of snapshots ends. */
int snapshot_each(struct qcow2 *q, int (*fn)(struct qcow2 *q, u64 l1_offset, u32 l1_size, void *arg),
	void *arg, u64 *end);

/* --- refcount.c; under the lock --- */

/* The dirty bit, before what a crash could leave as a leak. */
int qcow2_mark(struct qcow2 *q);
int refcount_get(struct qcow2 *q, u64 cluster, u64 *count);
int refcount_set(struct qcow2 *q, u64 cluster, u64 count);
/* Up to `wanted` clusters in a row, counted once each; *offset is where. Returns how many, or -errno. */
s64 clusters_alloc(struct qcow2 *q, u64 wanted, u64 *offset);
/* The same, all of them; as many as a refcount block counts are never in a row: -EFBIG. */
int clusters_alloc_row(struct qcow2 *q, u64 wanted, u64 *offset);
/* A table has a new place: what may lie there, and what is given back. Clusters of the file. */
void table_moved(struct qcow2 *q, u64 first, u64 count, u64 old, u64 old_count);
/* Gives back what nothing on disk refers to. */
int clusters_unref(struct qcow2 *q, u64 cluster, u64 count);
/* Gives back with the next commit. */
void clusters_free_later(struct qcow2 *q, u64 offset, u64 bytes);
/* Makes sure that a refcount block counts this cluster; that block may be the cluster itself. */
int refblock_need(struct qcow2 *q, u64 cluster);
bool refblock_there(const struct qcow2 *q, u64 cluster);
u64 refblock_covers(const struct qcow2 *q);	/* clusters */

/* --- map.c; under the lock --- */

int qcow2_corrupt(struct qcow2 *q, const char *what, u64 offset);
struct qcow2_cluster cluster_decode(const struct qcow2 *q, u64 entry);
/*
 * The slice of the L2 table for a guest offset, with the index in it. *slice is NULL where there is no
 * table. Without `block`, -EAGAIN where it would have to be read.
 */
int l2_find(struct qcow2 *q, u64 offset, bool block, struct table_slice **slice, u32 *index);
/* Makes a table of our own where there is none, or where others share it. */
int l2_find_to_write(struct qcow2 *q, u64 offset, struct table_slice **slice, u32 *index);
u32 l2_slice_entries(const struct qcow2 *q);
u64 l2_entry(const struct table_slice *slice, u32 index);
void l2_set(struct qcow2 *q, struct table_slice *slice, u32 index, u64 entry);
/* Checks an entry that was read; -EIO with a line if it cannot be. */
int cluster_check(struct qcow2 *q, const struct qcow2_cluster *c, u64 offset);
/* Gives back, with the next commit, what an entry referred to. */
void cluster_free_later(struct qcow2 *q, u64 entry);
void compressed_range(const struct qcow2 *q, u64 entry, u64 *offset, u64 *bytes);

/* --- commit.c --- */

/* Under the lock, as all of these. An entry has changed. */
void entries_mark(struct dirty_entries *d, u32 index);
/* Entries [first, end) of a table at this offset, to the file. */
int entries_write(struct qcow2 *q, const u64 *table, u64 offset, u32 first, u32 end);
/* Under the lock. What has been changed so far, to the file, in order. */
int qcow2_commit(struct qcow2 *q, bool with_refcounts);
int qcow2_flush(struct layer *layer);

/* --- inflate.c --- */

/* [from, from + bytes) of a compressed cluster, into iov after `skip` bytes. */
int cluster_inflate(struct qcow2 *q, u64 entry, const struct iovec *iov, unsigned iovs, u64 skip,
	u64 from, u64 bytes);

/* --- read.c, write.c, discard.c --- */

int qcow2_map(struct layer *layer, bool write, u64 offset, u64 bytes, struct layer_extent *extent);
int qcow2_readv(struct layer *layer, const struct iovec *iov, unsigned iovs, u64 offset);
int qcow2_writev(struct layer *layer, const struct iovec *iov, unsigned iovs, u64 offset, bool fua);
int qcow2_discard(struct layer *layer, u64 offset, u64 bytes);
int qcow2_zero(struct layer *layer, u64 offset, u64 bytes, bool unmap);

/* --- repair.c --- */

/* Counts all references anew. */
int qcow2_rebuild_refcounts(struct qcow2 *q, struct error *err);
/* Whether the dirty bit is to be set: all can be counted anew, whatever is written to a disk so large. */
bool qcow2_marks(const struct qcow2 *q, u64 size);

/* --- open.c --- */

/* backing: NULL takes the one that the header names. */
int qcow2_open(struct layer **out, struct proto *file, const struct layer_options *o,
	struct layer *backing, struct error *err);

/* A cache of L2 tables for the disk's size, in place of the one there is, of which nothing is dirty. */
int qcow2_size_l2_cache(struct qcow2 *q);

/* --- resize.c --- */

int qcow2_resize(struct layer *layer, u64 size, struct error *err);

/* --- create.c --- */

struct qcow2_new {
	u64 size;
	const char *backing_name, *backing_format;	/* or NULL */
	bool lazy_refcounts;
};

/* Version 3, clusters of 64 KiB, refcounts of 16 bits, into an empty file. */
int qcow2_create(struct proto *file, const struct qcow2_new *n, struct error *err);

#endif
