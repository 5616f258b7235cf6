/*
 * Where the bytes of an image are: a file, a block device, an NBD server. A struct proto is such a
 * place, opened. Its operations block and may be called by any thread at once; start() alone does not
 * block and is called as aio.h says.
 */
#ifndef QUMRA_VMM_BLOCK_PROTO_H
#define QUMRA_VMM_BLOCK_PROTO_H

#include <sys/uio.h>

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/block/aio.h"

struct proto;

struct proto_ops {
	/* All of it; what is behind the end reads as zeroes. iovs may be any number. */
	int (*readv)(struct proto *p, const struct iovec *iov, unsigned iovs, u64 offset);
	/* A file grows as needed. */
	int (*writev)(struct proto *p, const struct iovec *iov, unsigned iovs, u64 offset, bool fua);
	int (*flush)(struct proto *p);
	int (*zero)(struct proto *p, u64 offset, u64 bytes, bool unmap);
	int (*discard)(struct proto *p, u64 offset, u64 bytes);
	s64 (*size)(struct proto *p);
	int (*resize)(struct proto *p, u64 size);	/* makes it longer; NULL: it has a fixed size */
	/* Starts a read or write whose blocking form is task->work(); false: it cannot. */
	bool (*start)(struct proto *p, struct aio *aio, struct aio_task *task, bool write,
		const struct iovec *iov, unsigned iovs, u64 offset, u64 bytes, bool fua);
	void (*close)(struct proto *p);
};

struct proto {
	const struct proto_ops *ops;
	char *name;
	u32 align;		/* what is not so aligned goes through a bounce buffer; 1: nothing does */
	bool readonly;
	bool write_through;	/* each write is durable by itself */
	bool alone;		/* a lock is held: nobody else writes it */
	bool is_file;		/* dev and ino tell which */
	u64 dev, ino;
};

/* The files of the layers above. */
struct proto_chain {
	const struct proto *proto;
	const struct proto_chain *above;
};

struct proto_options {
	bool readonly;
	bool no_lock;
	bool no_wait;		/* a machine runs meanwhile: no other host, and no waiting for a lock */
	bool share_write;	/* others may write it meanwhile */
	bool direct;		/* around the page cache */
	bool write_through;
	bool no_flush;
	const struct proto_chain *above;	/* none of these is to be opened once more */
};

/* By the name: nbd: URIs and others. A refused name leaves one line in err. */
int proto_open(struct proto **out, const char *name, const struct proto_options *o,
	struct error *err);
int file_open(struct proto **out, const char *path, const struct proto_options *o,
	struct error *err);
int nbd_open(struct proto **out, const char *name, const struct proto_options *o,
	struct error *err);
/* A new, empty, unlinked file in the directory for temporary files. */
int file_open_temporary(struct proto **out, struct error *err);
void proto_close(struct proto *p);

/* Whether the name is a protocol's, not a path's. */
bool proto_has_scheme(const char *name);

/* One buffer. */
int proto_read(struct proto *p, void *buf, u64 bytes, u64 offset);
int proto_write(struct proto *p, const void *buf, u64 bytes, u64 offset);

#endif
