/* Packet capture (draft-ietf-opsawg-pcap): a file header, then a record for each frame. See net.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/net/net.h"
#include "vmm/virtio/virtq.h"

#define PCAP_MAGIC_NS	0xA1B23C4D
#define PCAP_ETHERNET	1

struct pcap_file {
	u32 magic;
	u16 major, minor;
	u32 zone, accuracy, snaplen, network;
};

struct pcap_record {
	u32 seconds, nanoseconds, captured, length;
};

_Static_assert(sizeof(struct pcap_file) == 24 && sizeof(struct pcap_record) == 16, "pcap");

int net_pcap_open(struct net_pcap *p, const char *file, struct error *err)
{
	const struct pcap_file head = { .magic = PCAP_MAGIC_NS, .major = 2, .minor = 4,
					.snaplen = NET_FRAME_MAX, .network = PCAP_ETHERNET };

	p->fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (p->fd < 0)
		return error_set(err, errno, "--net: pcap: %s: %s", file, strerror(errno));
	if (write(p->fd, &head, sizeof(head)) != sizeof(head))
		return error_set(err, EIO, "--net: pcap: %s: cannot write", file);
	return 0;
}

/* One write for each frame, so that a file is whole whenever it is looked at. A full disk ends it. */
void net_pcap_frame(struct net_pcap *p, const struct iovec *iov, unsigned n, size_t len)
{
	struct iovec all[VIRTQ_SIZE_MAX + 1];
	struct pcap_record r = { .captured = len, .length = len };
	struct timespec ts;

	if (p->fd < 0 || n > VIRTQ_SIZE_MAX)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	r.seconds = ts.tv_sec;
	r.nanoseconds = ts.tv_nsec;
	all[0] = (struct iovec){ &r, sizeof(r) };
	memcpy(all + 1, iov, n * sizeof(*iov));
	if (writev(p->fd, all, n + 1) != (ssize_t)(sizeof(r) + len))
		net_pcap_close(p);
}

void net_pcap_close(struct net_pcap *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}
