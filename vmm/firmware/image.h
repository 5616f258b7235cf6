/* Bytes to load: a file, or an array. Reads are checked against its size. */
#ifndef QUMRA_VMM_FIRMWARE_IMAGE_H
#define QUMRA_VMM_FIRMWARE_IMAGE_H

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/memory/guest_memory.h"

struct image {
	const char *name;	/* for messages */
	u64 size;
	int fd;			/* -1: data */
	const u8 *data;
};

/* Opens a regular, non-empty file. */
int image_open(struct image *image, const char *path, struct error *err);
void image_close(struct image *image);
void image_from_bytes(struct image *image, const char *name, const void *data, u64 size);

/* All of [offset, offset + len) or an error: what is the part that is read. */
int image_read(const struct image *image, u64 offset, void *dst, u64 len, const char *what,
	       struct error *err);

/*
 * The same into guest memory. It is copied: mapping the file there would be faster, but whoever
 * cuts the file short later would take the pages away from the running guest, private copies
 * included.
 */
int image_load(const struct image *image, u64 offset, const struct guest_memory *mem, u64 gpa,
	u64 len, const char *what, struct error *err);

#endif
