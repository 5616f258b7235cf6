/* Vectors of buffers: cutting and copying. */
#ifndef QUMRA_VMM_BLOCK_IOV_H
#define QUMRA_VMM_BLOCK_IOV_H

#include <sys/uio.h>

#include "lib/types.h"

u64 iov_bytes(const struct iovec *iov, unsigned iovs);
/* The bytes [skip, skip + bytes) as a vector; dst has room for iovs. Returns its length. */
unsigned iov_cut(struct iovec *dst, const struct iovec *iov, unsigned iovs, u64 skip, u64 bytes);
void iov_to_buffer(void *buf, const struct iovec *iov, unsigned iovs, u64 skip, u64 bytes);
void iov_from_buffer(const struct iovec *iov, unsigned iovs, u64 skip, const void *buf, u64 bytes);
void iov_zero(const struct iovec *iov, unsigned iovs, u64 skip, u64 bytes);
/* Whether each base and length is a multiple of align. */
bool iov_aligned(const struct iovec *iov, unsigned iovs, u64 align);

#endif
