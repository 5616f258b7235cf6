/* The network device's control queue (virtio 1.2, 5.1.6.5): receive filter, queue pairs, offloads. */
#include <string.h>

#include "vmm/virtio/net.h"
#include "vmm/virtio/sg.h"

void net_control_reset(struct virtio_net *net)
{
	net->control = (struct net_control){ .pairs = 1 };
	memcpy(net->control.mac, net->mac, 6);
}

static bool mac_listed(const u8 list[][6], unsigned n, const u8 *mac)
{
	for (unsigned i = 0; i < n; i++)
		if (memcmp(list[i], mac, 6) == 0)
			return true;
	return false;
}

bool net_control_accepts(const struct virtio_net *net, const u8 *dst)
{
	static const u8 broadcast[6] = { 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF };
	const struct net_control *c = &net->control;

	/* A driver without the filter gets everything (5.1.6.5.1). */
	if (c->promisc || !virtio_has(&net->dev, VIRTIO_NET_F_CTRL_RX))
		return true;
	if (memcmp(dst, broadcast, 6) == 0)
		return !c->nobcast;
	if (dst[0] & 1)
		return !c->nomulti && (c->allmulti || c->multicast_all ||
			mac_listed(c->multicast, c->multicasts, dst));
	return !c->nouni && (c->alluni || c->unicast_all || memcmp(dst, c->mac, 6) == 0 ||
		mac_listed(c->unicast, c->unicasts, dst));
}

/* ---- commands: each returns whether it was well-formed --------------------------------------- */

struct command {
	const struct virtq_chain *chain;
	u64 at;		/* of its data */
};

static bool command_read(struct command *cmd, void *data, size_t len)
{
	bool whole = sg_read(cmd->chain->iov, cmd->chain->outs, cmd->at, data, len) == len;

	cmd->at += len;
	return whole;
}

static bool command_rx(struct virtio_net *net, u8 which, struct command *cmd)
{
	struct net_control *c = &net->control;
	u8 *const flag[] = {
		[VIRTIO_NET_CTRL_RX_PROMISC] = &c->promisc,
		[VIRTIO_NET_CTRL_RX_ALLMULTI] = &c->allmulti,
		[VIRTIO_NET_CTRL_RX_ALLUNI] = &c->alluni,
		[VIRTIO_NET_CTRL_RX_NOMULTI] = &c->nomulti,
		[VIRTIO_NET_CTRL_RX_NOUNI] = &c->nouni,
		[VIRTIO_NET_CTRL_RX_NOBCAST] = &c->nobcast,
	};
	u8 on;

	if (which >= ARRAY_SIZE(flag) || !command_read(cmd, &on, 1))
		return false;
	*flag[which] = !!on;
	return true;
}

/* A list of addresses; one that is too long for us lets all of its kind through. */
static bool command_macs(struct command *cmd, u8 list[][6], u16 *n, u8 *all)
{
	u64 left;
	u32 count;

	if (!command_read(cmd, &count, sizeof(count)))
		return false;
	left = cmd->chain->out_bytes - cmd->at;
	if (count > left / 6)
		return false;
	*all = count > NET_MACS_MAX;
	*n = *all ? 0 : count;
	if (!*all)
		return command_read(cmd, list, 6 * count);
	cmd->at += 6ULL * count;
	return true;
}

static bool command_mac(struct virtio_net *net, u8 which, struct command *cmd)
{
	struct net_control *c = &net->control;
	u8 mac[6];

	if (which == VIRTIO_NET_CTRL_MAC_TABLE_SET)
		return command_macs(cmd, c->unicast, &c->unicasts, &c->unicast_all) &&
		       command_macs(cmd, c->multicast, &c->multicasts, &c->multicast_all);
	if (which != VIRTIO_NET_CTRL_MAC_ADDR_SET || !command_read(cmd, mac, sizeof(mac)))
		return false;
	memcpy(c->mac, mac, sizeof(mac));
	return true;
}

static bool command_pairs(struct virtio_net *net, u8 which, struct command *cmd)
{
	u16 pairs;

	if (which != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !virtio_has(&net->dev, VIRTIO_NET_F_MQ) ||
	    !command_read(cmd, &pairs, sizeof(pairs)) || !pairs || pairs > net->pairs)
		return false;
	net->control.pairs = pairs;
	return true;
}

static bool command_offloads(struct virtio_net *net, u8 which, struct command *cmd)
{
	u64 offloads;

	if (which != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
	    !virtio_has(&net->dev, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    !command_read(cmd, &offloads, sizeof(offloads)) || offloads & ~net->dev.features)
		return false;
	net->control.offloads = offloads;
	net->control.offloads_set = 1;
	net_apply_offloads(net, offloads);
	return true;
}

static bool command_run(struct virtio_net *net, const struct virtio_net_ctrl_hdr *h,
			struct command *cmd)
{
	switch (h->class) {
	case VIRTIO_NET_CTRL_RX:
		return command_rx(net, h->cmd, cmd);
	case VIRTIO_NET_CTRL_MAC:
		return command_mac(net, h->cmd, cmd);
	case VIRTIO_NET_CTRL_MQ:
		return command_pairs(net, h->cmd, cmd);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return command_offloads(net, h->cmd, cmd);
	default:
		return false;
	}
}

bool net_control_take(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_net *net = container_of(d, struct virtio_net, dev);
	struct command cmd = { .chain = c };
	struct virtio_net_ctrl_hdr h;
	u8 ack = VIRTIO_NET_ERR;

	if (command_read(&cmd, &h, sizeof(h)) && command_run(net, &h, &cmd))
		ack = VIRTIO_NET_OK;
	virtio_done(d, queue, c, sg_write(c->iov + c->outs, c->ins, 0, &ack, 1));
	return true;
}
