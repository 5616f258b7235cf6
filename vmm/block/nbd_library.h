/*
 * libnbd, loaded when the first image on a server is opened: it brings a dozen libraries, which would
 * cost each start milliseconds and 6 MiB.
 */
#ifndef QUMRA_VMM_BLOCK_NBD_LIBRARY_H
#define QUMRA_VMM_BLOCK_NBD_LIBRARY_H

#include <libnbd.h>

#include "lib/error.h"

#define NBD_FUNCTIONS(X) \
	X(create) X(close) X(get_error) X(get_errno) X(set_export_name) X(connect_unix) \
	X(connect_tcp) X(set_uri_allow_local_file) X(connect_uri) X(get_size) X(is_read_only) \
	X(can_flush) X(can_fua) X(can_trim) X(can_zero) X(get_block_size) X(aio_pread) \
	X(aio_pwrite) X(aio_flush) X(aio_trim) X(aio_zero) X(aio_get_direction) X(aio_is_closed) \
	X(aio_is_dead) X(aio_get_fd) X(aio_notify_read) X(aio_notify_write) X(shutdown)

struct nbd_library {
	void *handle;		/* dlopen()'s */
#define NBD_MEMBER(name) __typeof__(&nbd_##name) name;
	NBD_FUNCTIONS(NBD_MEMBER)
#undef NBD_MEMBER
};

/* name: of the image, for the error. */
int nbd_library_open(struct nbd_library *lib, const char *name, struct error *err);
void nbd_library_close(struct nbd_library *lib);

#endif
