/* Vectors of buffers: see iov.h. */
#include <string.h>

#include "vmm/block/iov.h"

u64 iov_bytes(const struct iovec *iov, unsigned iovs)
{
	u64 sum = 0;

	for (unsigned i = 0; i < iovs; i++)
		sum += iov[i].iov_len;
	return sum;
}

unsigned iov_cut(struct iovec *dst, const struct iovec *iov, unsigned iovs, u64 skip, u64 bytes)
{
	unsigned n = 0;

	for (unsigned i = 0; i < iovs && bytes; i++) {
		u64 len = iov[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		dst[n].iov_base = (u8 *)iov[i].iov_base + skip;
		dst[n].iov_len = MIN(len - skip, bytes);
		bytes -= dst[n++].iov_len;
		skip = 0;
	}
	return n;
}

/* The pieces of [skip, skip + left), one after the other. */
struct iov_walk {
	const struct iovec *iov;
	unsigned iovs;
	u64 skip, left;
};

static bool walk_next(struct iov_walk *w, u8 **p, u64 *len)
{
	while (w->iovs && w->skip >= w->iov->iov_len) {
		w->skip -= w->iov->iov_len;
		w->iov++;
		w->iovs--;
	}
	if (!w->iovs || !w->left)
		return false;
	*p = (u8 *)w->iov->iov_base + w->skip;
	*len = MIN(w->iov->iov_len - w->skip, w->left);
	w->skip += *len;
	w->left -= *len;
	return true;
}

void iov_to_buffer(void *buf, const struct iovec *iov, unsigned iovs, u64 skip, u64 bytes)
{
	struct iov_walk w = { iov, iovs, skip, bytes };
	u8 *to = buf, *p;

	for (u64 len; walk_next(&w, &p, &len); to += len)
		memcpy(to, p, len);
}

void iov_from_buffer(const struct iovec *iov, unsigned iovs, u64 skip, const void *buf, u64 bytes)
{
	struct iov_walk w = { iov, iovs, skip, bytes };
	const u8 *from = buf;
	u8 *p;

	for (u64 len; walk_next(&w, &p, &len); from += len)
		memcpy(p, from, len);
}

void iov_zero(const struct iovec *iov, unsigned iovs, u64 skip, u64 bytes)
{
	struct iov_walk w = { iov, iovs, skip, bytes };
	u8 *p;

	for (u64 len; walk_next(&w, &p, &len);)
		memset(p, 0, len);
}

bool iov_aligned(const struct iovec *iov, unsigned iovs, u64 align)
{
	for (unsigned i = 0; i < iovs; i++)
		if (((uintptr_t)iov[i].iov_base | iov[i].iov_len) & (align - 1))
			return false;
	return true;
}
