/* Lists of buffers: see sg.h. */
#include <string.h>

#include "vmm/virtio/sg.h"

enum sg_copy { SG_READ, SG_WRITE, SG_ZERO };

static size_t sg_copy(const struct iovec *iov, unsigned n, u64 offset, u8 *data, size_t len,
		       enum sg_copy how)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		u8 *at = (u8 *)iov[i].iov_base + offset;
		size_t piece;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		piece = MIN(iov[i].iov_len - offset, len - done);
		if (how == SG_READ)
			memcpy(data + done, at, piece);
		else if (how == SG_WRITE)
			memcpy(at, data + done, piece);
		else
			memset(at, 0, piece);
		done += piece;
		offset = 0;
	}
	return done;
}

size_t sg_read(const struct iovec *iov, unsigned n, u64 offset, void *data, size_t len)
{
	return sg_copy(iov, n, offset, data, len, SG_READ);
}

size_t sg_write(const struct iovec *iov, unsigned n, u64 offset, const void *data, size_t len)
{
	return sg_copy(iov, n, offset, (u8 *)data, len, SG_WRITE);
}

size_t sg_zero(const struct iovec *iov, unsigned n, u64 offset, size_t len)
{
	return sg_copy(iov, n, offset, NULL, len, SG_ZERO);
}

unsigned sg_slice(const struct iovec *iov, unsigned n, u64 offset, u64 len, struct iovec *part)
{
	unsigned parts = 0;

	for (unsigned i = 0; i < n && len; i++) {
		u64 piece;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		piece = MIN(iov[i].iov_len - offset, len);
		part[parts++] = (struct iovec){(u8 *)iov[i].iov_base + offset, piece};
		len -= piece;
		offset = 0;
	}
	return parts;
}

u64 sg_bytes(const struct iovec *iov, unsigned n)
{
	u64 bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += iov[i].iov_len;
	return bytes;
}
