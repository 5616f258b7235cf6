/* A protocol whose file is in memory; it can keep a record of what is done to it. */
#ifndef QUMRA_TESTS_BLOCK_MEMORY_H
#define QUMRA_TESTS_BLOCK_MEMORY_H

#include "vmm/block/proto.h"

struct memory_event {
	u64 offset, bytes;
	u8 *data;		/* NULL: a flush */
};

struct memory {
	struct proto proto;
	u8 *data;
	u64 size, most;		/* a write behind `most` finds the disk full */
	u64 broken;		/* a write to this offset, unless 0, fails, once */
	bool record;
	struct memory_event *events;
	size_t events_count;
};

/* data is copied. Closing it leaves all to memory_free(). */
struct memory *memory_new(const void *data, u64 size, u64 most);
void memory_free(struct memory *m);

#endif
