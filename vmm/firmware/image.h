/* Bytes to load: a file, or an array. Reads are checked against its size. */
#ifndef QUMRA_VMM_FIRMWARE_IMAGE_H
#define QUMRA_VMM_FIRMWARE_IMAGE_H

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/memory/guest_memory.h"

#define IMAGE_MAPS_MAX 16

struct image {
	const char *name;	/* for messages */
	u64 size;
	int fd;			/* -1: data */
	const u8 *data;
	unsigned mapped;	/* parts of the file that are mapped into guest memory */
	struct { u8 *host; u64 size; } map[IMAGE_MAPS_MAX];
};

/* Opens a regular, non-empty file. */
int image_open(struct image *image, const char *path, struct error *err);
void image_close(struct image *image);
void image_from_bytes(struct image *image, const char *name, const void *data, u64 size);

/* All of [offset, offset + len) or an error: what is the part that is read. */
int image_read(struct image *image, u64 offset, void *dst, u64 len, const char *what,
	       struct error *err);

/*
 * The same into guest memory. Whole pages of a file are mapped there privately, not copied: copying a
 * kernel of 14 MiB was measured to take 10 to 20 ms, mapping it less than 1. image_settle() makes
 * the copies later, beside the running guest, so that the file can then change as it likes.
 */
int image_load(struct image *image, u64 offset, const struct guest_memory *mem, u64 gpa, u64 len,
	       const char *what, struct error *err);
/* While the guest runs. */
void image_settle(struct image *image);

#endif
