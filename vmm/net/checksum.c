/* The Internet checksum (RFC 1071) for frames whose guest leaves it to the device: see net.h. */
#include <string.h>

#include "vmm/net/net.h"

/* An odd last byte counts as a high one. */
u16 net_sum(const u8 *data, size_t len)
{
	u64 sum = 0;
	size_t i;

	for (i = 0; i + 4 <= len; i += 4) {
		u32 word;

		memcpy(&word, data + i, 4);
		sum += word;
	}
	for (; i + 1 < len; i += 2)
		sum += data[i] | data[i + 1] << 8;
	if (i < len)
		sum += data[i];
	while (sum >> 16)
		sum = (sum & 0xFFFF) + (sum >> 16);
	return sum;
}

/* The field holds the pseudo-header's sum, so what is summed up includes it. */
bool net_checksum_fill(const struct virtio_net_hdr_v1 *h, u8 *frame, size_t len)
{
	size_t start = h->csum_start, at = start + h->csum_offset;
	u16 sum;

	if (!(h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return true;
	if (start >= len || at + 2 > len)
		return false;
	sum = ~net_sum(frame + start, len - start);
	if (!sum)
		sum = 0xFFFF;	/* UDP's 0 would mean: none (RFC 768) */
	memcpy(frame + at, &sum, 2);
	return true;
}
