/* A set of cluster numbers. */
#ifndef QUMRA_VMM_BLOCK_QCOW2_SET_H
#define QUMRA_VMM_BLOCK_QCOW2_SET_H

#include "lib/types.h"

struct cluster_set {
	u64 *slot;		/* the number plus one; 0: free */
	size_t room, count;	/* room is a power of two */
};

/* 1: it was there already; -ENOMEM. */
int set_add(struct cluster_set *set, u64 number);
void set_remove(struct cluster_set *set, u64 number);
bool set_has(const struct cluster_set *set, u64 number);
bool set_has_any(const struct cluster_set *set, u64 first, u64 count);
void set_free(struct cluster_set *set);

#endif
