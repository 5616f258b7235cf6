/*
 * A layer: a format (raw, qcow2) over a protocol (proto.h), perhaps with a backing layer. What the
 * guest sees as one disk is the top one of a chain.
 *
 * The operations block and are called from any thread at once, but never for overlapping ranges (of
 * the image's granularity) if one of them writes; block.c sees to that. map() alone does not block.
 */
#ifndef QUMRA_VMM_BLOCK_LAYER_H
#define QUMRA_VMM_BLOCK_LAYER_H

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/block/proto.h"

struct layer;

/* Where a range of the image is: in a protocol, or it reads as zeroes. */
struct layer_extent {
	struct proto *proto;	/* NULL: zeroes */
	u64 offset, bytes;
};

struct layer_ops {
	const char *name;
	/*
	 * The extent at offset, at most bytes long. For writes it may be written in place and nothing
	 * else is to be done. -EAGAIN: not known without blocking; use readv or writev.
	 */
	int (*map)(struct layer *img, bool write, u64 offset, u64 bytes, struct layer_extent *extent);
	int (*readv)(struct layer *img, const struct iovec *iov, unsigned iovs, u64 offset);
	int (*writev)(struct layer *img, const struct iovec *iov, unsigned iovs, u64 offset, bool fua);
	int (*flush)(struct layer *img);
	int (*discard)(struct layer *img, u64 offset, u64 bytes);
	int (*zero)(struct layer *img, u64 offset, u64 bytes, bool unmap);
	/* The size as the file has it now, or -errno. NULL: it is what the image itself says. */
	s64 (*measure)(struct layer *img);
	/* Makes it larger; nothing is under way. On failure the size is what it was. */
	int (*resize)(struct layer *img, u64 size, struct error *err);
	/* Leaves file and backing to the caller. Returns what its flush gave. */
	int (*close)(struct layer *img);
};

struct layer {
	const struct layer_ops *ops;
	struct proto *file;
	struct layer *backing;	/* opened read-only; may be shorter; NULL: zeroes */
	u64 size;		/* a multiple of 512 */
	u64 granularity;	/* a power of two */
	bool readonly;
	bool plain;		/* the protocol's durability is the image's: no metadata */
};

struct layer_options {
	struct proto_options proto;
	const char *format;	/* NULL: probed */
	const char *internal_snapshot;
	bool ignore_discard;
};

#define LAYERS_MAX 64

/* Opens the whole chain. */
int layer_open(struct layer **out, const char *name, const struct layer_options *o,
	struct error *err);
/* Puts a temporary overlay on *img, which is then its backing image; all writes go there. */
int layer_add_overlay(struct layer **img, struct error *err);
/* The whole chain. */
int layer_close(struct layer *img);

/* Names that a program may give: "raw", "qcow2". */
bool format_exists(const char *format);

/*
 * The format that the first bytes of an image speak of; "raw" when of none. Formats that are known
 * but not supported are named too: such an image must not be taken for raw.
 */
#define PROBE_BYTES 2048
const char *format_probe(const u8 *buf, u64 bytes);

/* The formats. On success the image owns file; probed: nobody said that it is raw. */
int raw_open(struct layer **out, struct proto *file, bool probed, struct error *err);

/* For formats. The path of a file that one names; relative names are beside it. To be freed. */
int layer_beside(char **path, const struct proto *above, const char *name, struct error *err);
/* Opens a file of a layer's, or its backing layer, with a look that it is none of those above. */
int layer_open_file(struct proto **out, const char *path, const struct proto *above,
	const struct layer_options *o, struct error *err);
int layer_open_backing(struct layer **out, const struct proto *above, const char *name,
	const struct layer_options *o, struct error *err);

/* The range at offset with what lies behind the image's end as zeroes. */
int layer_read(struct layer *img, const struct iovec *iov, unsigned iovs, u64 offset);

#endif
