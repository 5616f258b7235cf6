/* What guest RAM is made of: anonymous memory of the process, a memfd, a file, huge pages. */
#ifndef QUMRA_VMM_MEMORY_BACKING_H
#define QUMRA_VMM_MEMORY_BACKING_H

#include "lib/error.h"
#include "lib/types.h"

struct memory_backing {
	const char *file;	/* NULL: none */
	u64 huge;		/* size of huge pages; 0: whatever the kernel gives */
	bool share;		/* other processes may map it: vhost-user's, or those that open the file */
	bool prealloc;		/* all of it before the start */
};

/* Does it go together, for so much memory? A usage error says what does not. NULL: the default. */
int memory_backing_check(const struct memory_backing *b, u64 size, struct error *err);
/*
 * Maps size bytes at an address that is aligned to 2 MiB and to huge pages, inside of a mapping that the
 * caller unmaps: *map of *map_size bytes. *fd is what is mapped from its offset 0 on, the caller's to
 * close, or -1.
 */
int memory_backing_map(const struct memory_backing *b, u64 size, void **map, u64 *map_size, u8 **start,
		       int *fd, struct error *err);

#endif
