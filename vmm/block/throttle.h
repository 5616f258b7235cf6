/*
 * Limits on the rate of requests: leaky buckets, one for each of bytes and operations, reading,
 * writing and both together. A bucket fills with each request and leaks at the average rate; while
 * it is over its burst size requests wait, in order.
 */
#ifndef QUMRA_VMM_BLOCK_THROTTLE_H
#define QUMRA_VMM_BLOCK_THROTTLE_H

#include "lib/types.h"

struct throttle_limit {
	u64 average;		/* a second; 0: unlimited */
	u64 burst;		/* a second, for as long as burst_seconds; 0: a tenth of a second's worth */
	u32 burst_seconds;	/* 0: 1 */
};

enum throttle_bucket {
	THROTTLE_BPS, THROTTLE_BPS_READ, THROTTLE_BPS_WRITE,
	THROTTLE_IOPS, THROTTLE_IOPS_READ, THROTTLE_IOPS_WRITE,
	THROTTLE_BUCKETS
};

struct block_throttle {
	struct throttle_limit limit[THROTTLE_BUCKETS];
};

struct throttle {
	struct block_throttle config;
	double level[THROTTLE_BUCKETS];
	double burst_level[THROTTLE_BUCKETS];	/* holds a burst to its own rate */
	u64 time;		/* CLOCK_MONOTONIC ns of the levels */
};

bool throttle_wanted(const struct block_throttle *config);
void throttle_init(struct throttle *t, const struct block_throttle *config, u64 now);
/* Nanoseconds until a request of this kind may start; 0: it may now. */
u64 throttle_wait(struct throttle *t, bool write, u64 now);
void throttle_account(struct throttle *t, bool write, u64 bytes);

#endif
