/*
 * vhost-net-back SOCKET: a back end of vhost-user as a process of its own. To one front end it is a
 * network whose only station answers ARP and pings at 10.9.1.1. Says READY when it listens, and at
 * the front end's end how many frames it had and how many of them it answered.
 */
#include <arpa/inet.h>
#include <linux/virtio_net.h>

#include "tests/device/vhost_back.h"

#define HEAD		sizeof(struct virtio_net_hdr_v1)
#define ARP_SIZE	42	/* with Ethernet's header */
#define IP_SIZE		34

static const u8 station[6] = { 0x52, 0x54, 0, 0x0A, 0x0B, 0x11 }, here[4] = { 10, 9, 1, 1 };
static unsigned long frames, answers;

/* RFC 826: who asked becomes who is told. */
static bool answer_arp(u8 *f, size_t n)
{
	if (n < ARP_SIZE || f[21] != 1 || memcmp(f + 38, here, 4) != 0)
		return false;
	f[21] = 2;
	memcpy(f + 32, f + 22, 10);
	memcpy(f + 22, station, 6);
	memcpy(f + 28, here, 4);
	return true;
}

/* RFC 792. Behind the first fragment there is no header; the sum is the whole datagram's. */
static bool answer_ping(u8 *f, size_t n)
{
	u16 part, sum;

	if (n < IP_SIZE + 8 || f[14] != 0x45 || f[23] != 1 || memcmp(f + 30, here, 4) != 0)
		return false;
	memcpy(&part, f + 20, 2);
	memcpy(f + 30, f + 26, 4);
	memcpy(f + 26, here, 4);
	if (ntohs(part) & 0x1FFF)
		return true;
	if (f[IP_SIZE] != 8)
		return false;
	f[IP_SIZE] = 0;
	memcpy(&sum, f + IP_SIZE + 2, 2);
	sum = ntohs(sum);
	sum = htons(sum + 0x800 + (sum >= 0xF800));	/* one's complement (RFC 1071) */
	memcpy(f + IP_SIZE + 2, &sum, 2);
	return true;
}

static size_t answer(u8 *packet, size_t n)
{
	const struct virtio_net_hdr_v1 plain = { .num_buffers = 1 };
	u8 *f = packet + HEAD;
	bool arp, ip;

	frames++;
	if (n < HEAD + 14)
		return 0;
	arp = f[12] == 0x08 && f[13] == 0x06;
	ip = f[12] == 0x08 && f[13] == 0x00;
	if (!(arp && answer_arp(f, n - HEAD)) && !(ip && answer_ping(f, n - HEAD)))
		return 0;
	memcpy(packet, &plain, HEAD);
	memcpy(f, f + 6, 6);
	memcpy(f + 6, station, 6);
	answers++;
	return n;
}

int main(int argc, char **argv)
{
	static struct vu_back back = {
		.features = BIT(28) | BIT(29) | BIT(30) | BIT(32) | BIT(34) | BIT(VIRTIO_NET_F_MRG_RXBUF),
		.answer = answer,
	};

	if (argc != 2 || strlen(argv[1]) >= sizeof(back.path))
		return 2;
	strcpy(back.path, argv[1]);
	vu_begin(&back);
	puts("READY");
	fflush(stdout);
	pthread_join(back.thread, NULL);
	printf("%lu %lu\n", frames, answers);
	return 0;
}
