/*
 * A guest's IPv4 fragments, put together (RFC 791, 3.2) before libslirp sees them: version 4.7 of it, as
 * Debian 12 has it, takes a last fragment that is alone for the whole datagram and writes over memory of
 * its own. Only fragments in order are taken, as everybody sends them who has no path that mixes them up; any
 * other one ends its datagram. A few datagrams at a time, the oldest gives way.
 */
#include <endian.h>
#include <string.h>

#include "vmm/net/fragments.h"

#define ETH		14
#define ETH_IPV4	0x0800
#define IP_MIN		20
#define IP_MAX		65535
#define MORE		0x2000
#define OFFSET		0x1FFF

struct ipv4 {
	u8 version_length, tos;
	u16 total, id, offset;
	u8 ttl, protocol;
	u16 sum;
	u8 source[4], target[4];
};
_Static_assert(sizeof(struct ipv4) == IP_MIN, "RFC 791 3.1");

/* A frame that is of some length and is IPv4's. */
static bool frame_header(const u8 *frame, size_t len, struct ipv4 *ip)
{
	u16 type;

	if (len < ETH + IP_MIN)
		return false;
	memcpy(&type, frame + 12, 2);
	memcpy(ip, frame + ETH, sizeof(*ip));
	return be16toh(type) == ETH_IPV4;
}

static size_t header_length(const struct ipv4 *ip)
{
	return 4 * (ip->version_length & 15);
}

static bool fragment_valid(const u8 *frame, size_t len, const struct ipv4 *ip)
{
	size_t head = header_length(ip), total = be16toh(ip->total), bytes = total - head;

	if (ip->version_length >> 4 != 4 || head < IP_MIN || total <= head || ETH + total > len ||
	    net_sum(frame + ETH, head) != 0xFFFF)
		return false;
	return !(be16toh(ip->offset) & MORE) || bytes % 8 == 0;
}

static bool same_datagram(const u8 *frame, const struct ipv4 *ip)
{
	struct ipv4 first;

	memcpy(&first, frame + ETH, sizeof(first));
	return first.id == ip->id && first.protocol == ip->protocol &&
	       !memcmp(first.source, ip->source, sizeof(ip->source) + sizeof(ip->target));
}

static struct net_datagram *datagram_find(struct net_fragments *f, const struct ipv4 *ip)
{
	for (unsigned i = 0; i < NET_DATAGRAMS; i++)
		if (f->datagram[i].have && same_datagram(f->datagram[i].frame, ip))
			return &f->datagram[i];
	return NULL;
}

static void datagram_begin(struct net_fragments *f, struct net_datagram *d, const u8 *frame, size_t bytes)
{
	if (!d)
		d = &f->datagram[f->next++ % NET_DATAGRAMS];
	memcpy(d->frame, frame, bytes);
	d->have = bytes;
}

/* All of it is there. */
static size_t datagram_end(struct net_datagram *d, u8 *frame)
{
	size_t len = d->have, head;
	struct ipv4 ip;

	memcpy(&ip, d->frame + ETH, sizeof(ip));
	head = header_length(&ip);
	ip.total = htobe16(len - ETH);
	ip.offset = ip.sum = 0;
	memcpy(frame, d->frame, len);
	memcpy(frame + ETH, &ip, sizeof(ip));
	ip.sum = ~net_sum(frame + ETH, head);
	memcpy(frame + ETH, &ip, sizeof(ip));
	d->have = 0;
	return len;
}

size_t net_reassemble(struct net_fragments *f, u8 *frame, size_t len)
{
	struct net_datagram *d;
	struct ipv4 ip, first;
	size_t head, bytes, offset;

	if (!frame_header(frame, len, &ip) || !(be16toh(ip.offset) & (MORE | OFFSET)))
		return len;
	if (!fragment_valid(frame, len, &ip))
		return 0;
	d = datagram_find(f, &ip);
	offset = 8 * (be16toh(ip.offset) & OFFSET);
	if (!offset) {
		datagram_begin(f, d, frame, ETH + be16toh(ip.total));
		return 0;
	}
	if (!d)
		return 0;
	memcpy(&first, d->frame + ETH, sizeof(first));
	head = header_length(&ip);
	bytes = be16toh(ip.total) - head;
	if (offset != d->have - ETH - header_length(&first) || d->have + bytes > ETH + IP_MAX) {
		d->have = 0;
		return 0;
	}
	memcpy(d->frame + d->have, frame + ETH + head, bytes);
	d->have += bytes;
	return be16toh(ip.offset) & MORE ? 0 : datagram_end(d, frame);
}
