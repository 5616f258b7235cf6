/*
 * Disk images: the seam between the block layer and the devices that use it (virtio-blk, SCSI …).
 *
 * A struct block is an open image with its chain of backing files. All calls for one image come
 * from its loop's thread or under its loop's lock. A request is asynchronous: block_submit() takes
 * it, done() is called later from the loop, or from block_plugged_turn() or block_unplug() if it did
 * not have to wait, never from inside block_submit(). Requests complete in any order. A flush makes
 * durable what was done() before the flush was submitted.
 *
 * Errors are -errno: -EIO, -ENOSPC, -EPERM (the image is read-only) … The image stays usable.
 */
#ifndef QUMRA_VMM_BLOCK_BLOCK_H
#define QUMRA_VMM_BLOCK_BLOCK_H

#include <sys/uio.h>

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/block/aio.h"
#include "vmm/block/throttle.h"

struct block;
struct loop;

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,
	BLOCK_DISCARD,		/* a hint: the contents are undefined after it */
	BLOCK_WRITE_ZEROES,
};

struct block_request {
	enum block_op op;
	bool fua;			/* writes, write zeroes: durable when done */
	bool unmap;			/* write zeroes: may deallocate */
	u64 offset, bytes;		/* multiples of block_info.align; within the size */
	const struct iovec *iov;	/* reads and writes; valid until done */
	unsigned iovs;
	/* 0 or -errno. The request is the caller's again; it may submit it anew from here. */
	void (*done)(struct block_request *req, int result);

	/* Private to the block layer. */
	struct block *block;
	struct block_request *next, **link;
	struct aio_task task;
	u64 first, last;		/* bytes that it excludes others from, inclusive */
	bool exclusive;
};

struct block_info {
	u64 size;			/* bytes, a multiple of 512 */
	u32 align;			/* of offset and bytes of each request */
	u32 physical;			/* requests of this alignment are the fastest; 512 or more */
	bool readonly;
	bool discard, write_zeroes;	/* worth offering to the guest; both always succeed */
	bool write_cache;		/* false: each write is durable when done */
};

/* Zeroed is the default of each; strings need only live during block_open(). */
struct block_options {
	const char *file;		/* a path, or an nbd: URI */
	const char *format;		/* raw, qcow2; NULL: probed */
	const char *internal_snapshot;	/* qcow2: its id or name; read-only */
	bool readonly;
	bool snapshot;			/* writes go to a temporary overlay, lost at the end */
	bool no_lock;			/* do not take, nor look at, the image's lock */
	bool no_wait;			/* refuse what would take long: NBD, a lock that another one has */
	bool share;			/* others may write the image as well */
	bool ignore_discard;		/* discards do nothing; write zeroes never deallocates */
	const char *cache;		/* writeback, writethrough, none, directsync, unsafe */
	const char *aio;		/* io_uring, threads; NULL: io_uring where there is one */
	struct block_throttle throttle;
};

/* loop may be NULL: then requests complete in block_unplug() and block_drain() only. */
int block_open(struct block **out, const struct block_options *opts, struct loop *loop,
	struct error *err);
void block_get_info(struct block *b, struct block_info *info);
void block_submit(struct block *b, struct block_request *req);
/*
 * Between the two, submitted requests may be held back, to reach the kernel together. The last unplug
 * calls done() of those that are done by then.
 */
void block_plug(struct block *b);
void block_unplug(struct block *b);
/*
 * Between two submissions of one plug, where done() may be called: it is, once so much was submitted that
 * who waits for the first should not wait for the last.
 */
void block_plugged_turn(struct block *b);
/*
 * Looks whether somebody has changed the size of a raw image's file or device meanwhile. Drains. True:
 * it has another size now, which block_get_info() tells.
 */
bool block_measure(struct block *b);
/*
 * Makes the disk larger: a raw image's file, or what a qcow2 image says of itself. What is new reads as
 * zeroes. Drains, and blocks. Sizes are multiples of 512; a smaller one is refused, the same is no error.
 */
int block_resize(struct block *b, u64 size, struct error *err);
/* Until nothing is in flight; calls done() meanwhile. Throttling does not delay it. */
void block_drain(struct block *b);
/* Drains, flushes and closes; NULL is allowed. Returns the flush's result. */
int block_close(struct block *b);

#endif
