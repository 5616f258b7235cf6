/* Copies between a list of buffers in guest memory and memory of ours. Offsets are in bytes from the
 * list's beginning. What a guest's buffer holds may change between two reads: copy, then look. */
#ifndef QUMRA_VMM_VIRTIO_SG_H
#define QUMRA_VMM_VIRTIO_SG_H

#include <sys/uio.h>

#include "lib/types.h"

/* Both return how much there was, at most len. */
size_t sg_read(const struct iovec *iov, unsigned n, u64 offset, void *data, size_t len);
size_t sg_write(const struct iovec *iov, unsigned n, u64 offset, const void *data, size_t len);
size_t sg_zero(const struct iovec *iov, unsigned n, u64 offset, size_t len);
/*
 * The part [offset, offset + len) as a list of its own; returns its entries. part has room for n.
 * Less than len when the list is shorter.
 */
unsigned sg_slice(const struct iovec *iov, unsigned n, u64 offset, u64 len, struct iovec *part);
u64 sg_bytes(const struct iovec *iov, unsigned n);

#endif
