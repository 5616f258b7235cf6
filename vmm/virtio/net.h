/* virtio network device (virtio 1.2, 5.1) on a backend of vmm/net/. */
#ifndef QUMRA_VMM_VIRTIO_NET_H
#define QUMRA_VMM_VIRTIO_NET_H

#include "vmm/net/net.h"
#include "vmm/virtio/virtio.h"

#define NET_PAIRS_MAX	4
#define NET_MACS_MAX	32	/* in the filter's tables together */
#define NET_FLOWS	256

/* What the driver asked for by control commands: zero after a reset, but for pairs. */
struct net_control {
	u8 promisc, allmulti, alluni, nomulti, nouni, nobcast;
	u8 unicast_all, multicast_all;	/* the driver's list was too long for us */
	u16 pairs;			/* in use */
	u16 unicasts, multicasts;
	u8 mac[6];
	u8 unicast[NET_MACS_MAX][6], multicast[NET_MACS_MAX][6];
	u64 offloads;			/* that the driver set; meaningless before it did */
	u8 offloads_set;
};

struct virtio_net {
	struct virtio_device dev;
	struct net_backend *backend;
	struct net_pcap pcap;
	u8 mac[6];			/* at reset */
	u16 pairs;
	struct net_control control;
	u8 flow[NET_FLOWS];		/* the pair that last sent in a flow (5.1.6.5.6.1) */
	bool link_down;
};

/* The backend is opened from o on io's loop. It must not move afterwards. */
int virtio_net_init(struct virtio_net *net, const struct nic_options *o, unsigned pairs,
		    const struct guest_memory *mem, struct io_thread *io, struct error *err);
void virtio_net_destroy(struct virtio_net *net);
/* The cable. Under the device's lock. */
void virtio_net_set_link(struct virtio_net *net, bool up);

extern const struct device_ops virtio_net_device_ops;	/* what is its own, beside the device's */

/* net_control.c */
void net_control_reset(struct virtio_net *net);
bool net_control_take(struct virtio_device *d, unsigned queue, struct virtq_chain *c);
/* Is a frame to this address for the guest? */
bool net_control_accepts(const struct virtio_net *net, const u8 *dst);
/* What of backend->brings the driver's features allow. */
void net_apply_offloads(struct virtio_net *net, u64 features);

#endif
