/* Searching arrays that ascend. */
#ifndef QUMRA_LIB_SEARCH_H
#define QUMRA_LIB_SEARCH_H

#include "lib/types.h"

/*
 * How many of n elements have a key at or below want; key is an expression of the index i, and ascends
 * with it. The last of them is the element that something at want belongs to.
 */
#define COUNT_UPTO(n, i, key, want) ({ \
	u32 low_ = 0, high_ = (n); \
	while (low_ < high_) { \
		u32 i = low_ + (high_ - low_) / 2; \
		if ((key) <= (want)) \
			low_ = i + 1; \
		else \
			high_ = i; \
	} \
	low_; })

#endif
