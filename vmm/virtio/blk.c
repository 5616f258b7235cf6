/*
 * The block device (virtio 1.2, 5.2). A request is a header that the device reads, data either way,
 * and a status byte that it writes last. Everything about a request is checked here before the block
 * layer sees it; what a driver must not send is answered by a status, and what has no room for one
 * fails the device.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/blk.h"
#include "vmm/virtio/sg.h"

#define BLK_QUEUE_SIZE	256
#define SECTOR		512
/* Header and status take a descriptor each. */
#define BLK_SEG_MAX	(BLK_QUEUE_SIZE - 2)
/* Of one discard or write-zeroes request; it takes no memory, so only time limits it. */
#define BLK_RANGE_MAX	((1u << 30) / SECTOR)

struct blk_request {
	struct virtio_blk *blk;
	struct block_request io;
	unsigned queue;
	u8 *status;
	u32 written;		/* bytes, when it went well; the status is not counted */
	struct blk_request *next;
	struct virtq_chain chain;
};

_Static_assert(sizeof(struct virtio_blk_outhdr) == 16, "virtio 1.2 5.2.6");
_Static_assert(sizeof(struct virtio_blk_discard_write_zeroes) == 16, "virtio 1.2 5.2.6");

static struct virtio_blk *to_blk(struct virtio_device *d)
{
	return container_of(d, struct virtio_blk, dev);
}

/* ---- requests -------------------------------------------------------------------------------- */

static struct blk_request *request_get(struct virtio_blk *blk)
{
	struct blk_request *r = blk->free;

	if (r)
		blk->free = r->next;
	else
		r = malloc(sizeof(*r));
	if (r)
		r->blk = blk;
	return r;
}

static void request_put(struct blk_request *r)
{
	r->next = r->blk->free;
	r->blk->free = r;
}

static void request_finish(struct blk_request *r, u8 status)
{
	*r->status = status;
	virtio_done(&r->blk->dev, r->queue, &r->chain,
		1 + (status == VIRTIO_BLK_S_OK ? r->written : 0));
	request_put(r);
}

static void request_done(struct block_request *io, int result)
{
	struct blk_request *r = container_of(io, struct blk_request, io);

	r->blk->in_flight--;
	request_finish(r, result == 0 ? VIRTIO_BLK_S_OK :
		result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
}

static void request_submit(struct blk_request *r)
{
	r->io.done = request_done;
	r->blk->in_flight++;
	block_submit(r->blk->block, &r->io);
}

static u32 block_size(const struct virtio_blk *blk)
{
	return MAX(blk->info.align, SECTOR);
}

/* Do these bytes lie on the disk, in whole blocks? */
static bool range_valid(const struct virtio_blk *blk, u64 sector, u64 bytes)
{
	u64 size = blk->info.size, offset = sector * SECTOR;

	return sector <= size / SECTOR && bytes <= size - offset &&
	       !((offset | bytes) & (block_size(blk) - 1));
}

static u8 request_data(struct blk_request *r, const struct virtio_blk_outhdr *h, bool write)
{
	struct virtq_chain *c = &r->chain;
	struct block_request *io = &r->io;

	if (write) {
		io->iov = c->iov;
		io->iovs = sg_slice(c->iov, c->outs, sizeof(*h), c->out_bytes, c->iov);
		io->bytes = c->out_bytes - sizeof(*h);
	} else {
		io->iov = c->iov + c->outs;
		io->iovs = sg_slice(io->iov, c->ins, 0, c->in_bytes - 1, c->iov + c->outs);
		io->bytes = c->in_bytes - 1;
		r->written = io->bytes;
	}
	if (!range_valid(r->blk, h->sector, io->bytes) || (write && r->blk->info.readonly))
		return VIRTIO_BLK_S_IOERR;
	io->op = write ? BLOCK_WRITE : BLOCK_READ;
	io->offset = h->sector * SECTOR;
	/* 5.2.6.2: a driver that cannot flush gets a disk without a cache. */
	io->fua = write && !virtio_has(&r->blk->dev, VIRTIO_BLK_F_FLUSH);
	return VIRTIO_BLK_S_OK;
}

static u8 request_range(struct blk_request *r, u32 type)
{
	const struct virtq_chain *c = &r->chain;
	bool zeroes = type == VIRTIO_BLK_T_WRITE_ZEROES;
	struct virtio_blk_discard_write_zeroes s;

	if (!virtio_has(&r->blk->dev, zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD))
		return VIRTIO_BLK_S_UNSUPP;
	if (c->out_bytes != sizeof(struct virtio_blk_outhdr) + sizeof(s) || r->blk->info.readonly)
		return VIRTIO_BLK_S_IOERR;
	sg_read(c->iov, c->outs, sizeof(struct virtio_blk_outhdr), &s, sizeof(s));
	if (s.flags & ~(zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0))
		return VIRTIO_BLK_S_UNSUPP;
	if (s.num_sectors > BLK_RANGE_MAX ||
	    !range_valid(r->blk, s.sector, (u64)s.num_sectors * SECTOR))
		return VIRTIO_BLK_S_IOERR;
	r->io.op = zeroes ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD;
	r->io.offset = s.sector * SECTOR;
	r->io.bytes = (u64)s.num_sectors * SECTOR;
	r->io.unmap = s.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	r->io.fua = zeroes && !virtio_has(&r->blk->dev, VIRTIO_BLK_F_FLUSH);
	return VIRTIO_BLK_S_OK;
}

static void request_id(struct blk_request *r)
{
	const struct virtq_chain *c = &r->chain;
	u32 n = MIN(c->in_bytes - 1, (u64)BLK_SERIAL_SIZE);

	r->written = sg_write(c->iov + c->outs, c->ins, 0, r->blk->serial, n);
	request_finish(r, VIRTIO_BLK_S_OK);
}

static void request_start(struct blk_request *r)
{
	struct virtio_blk_outhdr h;
	u8 status = VIRTIO_BLK_S_OK;

	sg_read(r->chain.iov, r->chain.outs, 0, &h, sizeof(h));
	switch (h.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		status = request_data(r, &h, h.type == VIRTIO_BLK_T_OUT);
		break;
	case VIRTIO_BLK_T_FLUSH:
		r->io.op = BLOCK_FLUSH;
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		status = request_range(r, h.type);
		break;
	case VIRTIO_BLK_T_GET_ID:
		request_id(r);
		return;
	default:
		status = VIRTIO_BLK_S_UNSUPP;
	}
	if (status != VIRTIO_BLK_S_OK)
		request_finish(r, status);
	else if (!r->io.bytes && r->io.op != BLOCK_FLUSH)
		request_finish(r, VIRTIO_BLK_S_OK);
	else
		request_submit(r);
}

static bool blk_take(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_blk *blk = to_blk(d);
	const struct iovec *last = &c->iov[c->outs + c->ins - 1];
	struct blk_request *r;

	if (c->out_bytes < sizeof(struct virtio_blk_outhdr) || !c->ins) {
		virtio_fail(d);
		return true;
	}
	r = request_get(blk);
	if (!r)		/* one that is in flight will bring us back */
		return false;
	r->queue = queue;
	r->written = 0;
	r->io = (struct block_request){ 0 };
	r->status = (u8 *)last->iov_base + last->iov_len - 1;
	memcpy(&r->chain, c, offsetof(struct virtq_chain, iov));
	memcpy(r->chain.iov, c->iov, (c->outs + c->ins) * sizeof(c->iov[0]));
	request_start(r);
	block_plugged_turn(blk->block);
	return true;
}

static void blk_kick(struct virtio_device *d, unsigned queue)
{
	struct virtio_blk *blk = to_blk(d);

	block_plug(blk->block);
	virtio_queue_run(d, queue, blk_take);
	block_unplug(blk->block);
}

static void blk_drain(struct virtio_device *d)
{
	struct virtio_blk *blk = to_blk(d);

	if (blk->in_flight)
		block_drain(blk->block);
}

/* ---- configuration --------------------------------------------------------------------------- */

static void blk_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	struct virtio_blk *blk = to_blk(d);
	u32 align = block_size(blk);
	const struct virtio_blk_config c = {
		.capacity = blk->info.size / SECTOR,
		.seg_max = BLK_SEG_MAX,
		.blk_size = align,
		.physical_block_exp = blk->info.physical > align ?
			__builtin_ctz(blk->info.physical / align) : 0,
		.min_io_size = MAX(blk->info.physical, align) / align,
		.num_queues = d->queues,
		.max_discard_sectors = BLK_RANGE_MAX,
		.max_discard_seg = 1,
		.discard_sector_alignment = align / SECTOR,
		.max_write_zeroes_sectors = BLK_RANGE_MAX,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = 1,
	};

	memcpy(data, (const u8 *)&c + offset, len);
}

void virtio_blk_resized(struct virtio_blk *blk)
{
	block_get_info(blk->block, &blk->info);
	virtio_config_changed(&blk->dev);
}

static const struct virtio_device_ops blk_ops = {
	.name = "virtio-blk", .id = VIRTIO_ID_BLOCK, .kick = blk_kick, .stop = blk_drain,
	.pause = blk_drain, .config_read = blk_config_read,
};

/* ---- life ------------------------------------------------------------------------------------ */

static u64 blk_features(const struct block_info *info, unsigned queues)
{
	u64 features = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
		       BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH);

	if (queues > 1)
		features |= BIT(VIRTIO_BLK_F_MQ);
	if (info->readonly)
		return features | BIT(VIRTIO_BLK_F_RO);
	if (info->discard)
		features |= BIT(VIRTIO_BLK_F_DISCARD);
	if (info->write_zeroes)
		features |= BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	return features;
}

int virtio_blk_init(struct virtio_blk *blk, struct block *block, const struct blk_options *o,
		    const struct guest_memory *mem, struct io_thread *io, struct error *err)
{
	int ret;

	*blk = (struct virtio_blk){ .block = block };
	block_get_info(block, &blk->info);
	if (o->serial)
		memcpy(blk->serial, o->serial, strnlen(o->serial, BLK_SERIAL_SIZE));
	ret = virtio_init(&blk->dev, &blk_ops, blk_features(&blk->info, o->queues), o->queues,
		BLK_QUEUE_SIZE, sizeof(struct virtio_blk_config), mem, io, err);
	if (ret < 0)
		virtio_blk_destroy(blk);
	return ret;
}

void virtio_blk_destroy(struct virtio_blk *blk)
{
	struct blk_request *r;

	virtio_destroy(&blk->dev);
	block_close(blk->block);
	blk->block = NULL;
	while ((r = blk->free)) {
		blk->free = r->next;
		free(r);
	}
}
