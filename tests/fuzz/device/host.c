/* What devices stand on, for the fuzzer: an image in memory whose requests complete when they are waited
 * for, a network that swallows and repeats. Strict about what it is asked for. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/block.h"
#include "vmm/block/iov.h"
#include "vmm/net/net.h"

#define IMAGE_SIZE (256 * 2048)

struct block {
	u8 data[IMAGE_SIZE];
	struct block_request *first, **last;
	unsigned plugs;
};

int block_open(struct block **out, const struct block_options *opts, struct loop *loop,
	struct error *err)
{
	(void)opts;
	(void)loop;
	(void)err;
	*out = calloc(1, sizeof(**out));
	(*out)->last = &(*out)->first;
	return 0;
}

void block_get_info(struct block *b, struct block_info *info)
{
	(void)b;
	*info = (struct block_info){ .size = IMAGE_SIZE, .align = 1, .physical = 4096, .discard = true,
				     .write_zeroes = true, .write_cache = true };
}

void block_submit(struct block *b, struct block_request *req)
{
	if (req->op != BLOCK_FLUSH)
		assert(req->offset <= IMAGE_SIZE && req->bytes <= IMAGE_SIZE - req->offset && req->bytes);
	if (req->op == BLOCK_READ || req->op == BLOCK_WRITE)
		assert(iov_bytes(req->iov, req->iovs) == req->bytes);
	req->next = NULL;
	*b->last = req;
	b->last = &req->next;
}

void block_plug(struct block *b)
{
	b->plugs++;
}

void block_unplug(struct block *b)
{
	assert(b->plugs);
	b->plugs--;
}

static void request_do(struct block *b, struct block_request *req)
{
	u64 at = req->offset;

	for (unsigned i = 0; i < req->iovs; i++) {
		if (req->op == BLOCK_READ)
			memcpy(req->iov[i].iov_base, b->data + at, req->iov[i].iov_len);
		else if (req->op == BLOCK_WRITE)
			memcpy(b->data + at, req->iov[i].iov_base, req->iov[i].iov_len);
		at += req->iov[i].iov_len;
	}
	/* Some fail, by their place. */
	req->done(req, req->op != BLOCK_FLUSH && req->offset / 512 % 61 == 60 ? -5 : 0);
}

static void first_do(struct block *b)
{
	struct block_request *req = b->first;

	b->first = req->next;
	if (!b->first)
		b->last = &b->first;
	request_do(b, req);
}

/* Of what may be done here one at most: others are left for later, beside new ones. */
void block_plugged_turn(struct block *b)
{
	assert(b->plugs);
	if (b->first && b->first->bytes > 1024)
		first_do(b);
}

void block_drain(struct block *b)
{
	while (b->first)
		first_do(b);
}

int block_close(struct block *b)
{
	if (b)
		block_drain(b);
	free(b);
	return 0;
}

/* ---- a network ------------------------------------------------------------------------------- */

static bool net_send(struct net_backend *b, const struct virtio_net_hdr_v1 *h, const struct iovec *iov,
		     unsigned n, size_t len)
{
	u8 frame[2048];
	size_t at = 0;

	assert(iov_bytes(iov, n) == len);
	for (unsigned i = 0; i < n && at < sizeof(frame); i++) {
		size_t piece = MIN(iov[i].iov_len, sizeof(frame) - at);

		memcpy(frame + at, iov[i].iov_base, piece);
		at += piece;
	}
	b->front.receive(b->front.arg, h, frame, at);
	return true;
}

static void net_destroy(struct net_backend *b)
{
	free(b);
}

static const struct net_backend_ops net_ops = { .send = net_send, .destroy = net_destroy };

int net_user_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		  const struct net_front *front, struct error *err)
{
	(void)o;
	(void)err;
	*out = malloc(sizeof(**out));
	**out = (struct net_backend){ .ops = &net_ops, .front = *front, .loop = loop, .takes = 7, .brings = 7 };
	return 0;
}

int net_tap_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		 const struct net_front *front, struct error *err)
{
	return net_user_open(out, o, loop, front, err);
}

int net_socket_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		    const struct net_front *front, struct error *err)
{
	return net_user_open(out, o, loop, front, err);
}

int net_passt_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		    const struct net_front *front, struct error *err)
{
	return net_user_open(out, o, loop, front, err);
}
