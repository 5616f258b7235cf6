/*
 * What a network device is plugged into. A backend takes frames from the device and brings it frames,
 * on the device's I/O thread and under its lock. Frames carry virtio's header (virtio 1.2, 5.1.6) in
 * front, for checksums and segmentation that are left to the other side.
 */
#ifndef QUMRA_VMM_NET_NET_H
#define QUMRA_VMM_NET_NET_H

#include <linux/virtio_net.h>
#include <sys/uio.h>

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/loop/loop.h"
#include "vmm/virtio/options.h"

#define NET_FRAME_MAX	(65535 + 18)	/* an Ethernet header with a VLAN tag, and IP at its largest */
#define NET_HEADER_SIZE	sizeof(struct virtio_net_hdr_v1)
_Static_assert(NET_HEADER_SIZE == 12, "virtio 1.2 5.1.6");

struct net_backend;

/* The device. */
struct net_front {
	/* A frame for the guest; false: there is no room, keep it until resume. */
	bool (*receive)(void *arg, const struct virtio_net_hdr_v1 *h, const u8 *frame, size_t len);
	/* send() has room again. */
	void (*drained)(void *arg);
	void *arg;
};

struct net_backend_ops {
	/* A frame of the guest, without the header. False: no room, drained() will be called. */
	bool (*send)(struct net_backend *b, const struct virtio_net_hdr_v1 *h,
		     const struct iovec *iov, unsigned n, size_t len);
	void (*flush)(struct net_backend *b);	/* a burst of send() is over; may be NULL */
	void (*resume)(struct net_backend *b);	/* the guest has room again; may be NULL */
	/* What the guest can take from now on: bits of NET_CAN_*. May be NULL. */
	void (*set_guest_offloads)(struct net_backend *b, u32 can);
	void (*destroy)(struct net_backend *b);
};

enum {
	NET_CAN_CSUM = 1,	/* frames without checksum */
	NET_CAN_TSO4 = 2,	/* TCP segments larger than the MTU */
	NET_CAN_TSO6 = 4,
};

/* Of virtio's features (5.1.3), what the guest can take: bits of NET_CAN_*. */
static inline u32 net_offloads_of(u64 features)
{
	return (features & BIT(VIRTIO_NET_F_GUEST_CSUM) ? NET_CAN_CSUM : 0) |
	       (features & BIT(VIRTIO_NET_F_GUEST_TSO4) ? NET_CAN_TSO4 : 0) |
	       (features & BIT(VIRTIO_NET_F_GUEST_TSO6) ? NET_CAN_TSO6 : 0);
}

struct net_backend {
	const struct net_backend_ops *ops;
	struct net_front front;
	struct loop *loop;
	u32 takes;	/* what send() can: NET_CAN_* */
	u32 brings;	/* what it may bring a guest that can */
};

int net_user_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		  const struct net_front *front, struct error *err);
int net_tap_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		 const struct net_front *front, struct error *err);
/* A descriptor of the interface, of frames behind virtio's header, or an error. */
int net_tap_attach(const char *name, struct error *err);
/* What may come from it: bits of NET_CAN_*. */
void net_tap_set_offloads(int fd, u32 can);
int net_socket_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		    const struct net_front *front, struct error *err);
/* passt at the other end, started for this. */
int net_passt_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		   const struct net_front *front, struct error *err);
/* As net_socket_open() over a connected socket, which is its own from here on, as is c, who serves it. */
struct child;
int net_socket_adopt(struct net_backend **out, int fd, const struct child *c, struct loop *loop,
		     const struct net_front *front, struct error *err);

/*
 * Fills in the checksum that h asks for (5.1.6.2), in frame of len bytes. False: h does not fit the
 * frame. A frame of several segments becomes one large one.
 */
bool net_checksum_fill(const struct virtio_net_hdr_v1 *h, u8 *frame, size_t len);

/* The one's complement sum of big-endian words, itself in that order (RFC 1071). */
u16 net_sum(const u8 *data, size_t len);

/* Capture in the format of libpcap, every frame as the wire would see it. */
struct net_pcap {
	int fd;		/* -1: none */
};
int net_pcap_open(struct net_pcap *p, const char *file, struct error *err);
void net_pcap_frame(struct net_pcap *p, const struct iovec *iov, unsigned n, size_t len);
void net_pcap_close(struct net_pcap *p);

#endif
