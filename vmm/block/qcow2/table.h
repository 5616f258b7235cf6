/*
 * A cache of slices of tables (L2 tables, refcount blocks) of an image file, in the file's byte order.
 * A pointer to a slice is good until the next call that may read one into the same cache.
 */
#ifndef QUMRA_VMM_BLOCK_QCOW2_TABLE_H
#define QUMRA_VMM_BLOCK_QCOW2_TABLE_H

#include "lib/types.h"

struct proto;

struct table_slice {
	u64 offset;		/* in the file; 0: free */
	u8 *data;		/* NULL until first used */
	struct table_slice *next;	/* of the same hash */
	bool dirty, used;	/* used: since the clock's hand last passed */
};

struct table_cache {
	struct table_slice *slices, **buckets;
	u32 count, bucket_mask, hand, dirty;
	u64 slice_size;
};

int table_cache_init(struct table_cache *c, u64 slice_size, u32 count);
void table_cache_free(struct table_cache *c);
/* NULL: not there. */
struct table_slice *table_peek(struct table_cache *c, u64 offset);
/*
 * Reads it if need be. -EBUSY: room must be made first, but every slice in reach is dirty: write them.
 * Bytes behind the file's end are zeroes, but a slice that lies wholly behind it is -ERANGE.
 */
int table_get(struct table_cache *c, struct proto *file, u64 offset,
	struct table_slice **slice);
void table_dirty(struct table_cache *c, struct table_slice *s);
/* Writes dirty slices; what failed stays dirty. */
int table_write(struct table_cache *c, struct proto *file);
/* Forgets what is cached of a range of the file, written or not. */
void table_forget(struct table_cache *c, u64 offset, u64 bytes);

#endif
