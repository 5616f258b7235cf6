/*
 * An address space of devices (I/O ports, or memory-mapped I/O): sorted ranges, none overlapping.
 * What nobody claims reads as all ones and swallows writes, as an ISA bus does.
 */
#ifndef QUMRA_VMM_MACHINE_IO_MAP_H
#define QUMRA_VMM_MACHINE_IO_MAP_H

#include "lib/types.h"

/* offset is relative to the range; size is 1, 2, 4 or 8 and at most the range's width. */
struct io_ops {
	u64 (*read)(void *dev, u64 offset, unsigned size);
	void (*write)(void *dev, u64 offset, u64 value, unsigned size);
	u8 width; /* widest access the device takes; wider ones arrive in pieces, lowest first */
};

struct io_range {
	u64 base, size;
	const struct io_ops *ops;
	void *dev;
	const char *name;
};

#define IO_RANGES_MAX 256

struct io_map {
	unsigned count;
	struct io_range range[IO_RANGES_MAX];	/* ascending */
};

/* -EEXIST when it overlaps a range, -ENOSPC when the map is full, -EINVAL when it is empty or
 * wraps. */
int io_map_add(struct io_map *map, const struct io_range *range);
/* The range that begins at base goes; -ENOENT when none does. */
int io_map_remove(struct io_map *map, u64 base);
const struct io_range *io_map_find(const struct io_map *map, u64 addr);

/* Little-endian data of size bytes (1 to 8) to or from addr, under the machine's lock. */
void io_map_read(const struct io_map *map, u64 addr, void *data, unsigned size);
void io_map_write(const struct io_map *map, u64 addr, const void *data, unsigned size);

#endif
