/* Reading, and telling where a range is without reading. */
#include <errno.h>
#include <stdlib.h>

#include "vmm/block/iov.h"
#include "vmm/block/qcow2/qcow2.h"

/* Clusters of one kind in a row; the host's ones are in a row, too. */
struct run {
	struct qcow2_cluster first;
	u64 bytes;		/* from the offset asked for */
	bool copied;		/* all of them */
};

static bool run_goes_on(const struct run *run, const struct qcow2_cluster *c, u64 distance)
{
	if (c->kind != run->first.kind || c->kind == CLUSTER_COMPRESSED)
		return false;
	return c->kind != CLUSTER_NORMAL || c->host == run->first.host + distance;
}

static int run_in_slice(struct qcow2 *q, const struct table_slice *slice, u32 index, u64 offset,
	u64 bytes, struct run *run)
{
	u64 start = ALIGN_DOWN(offset, q->cluster_size);
	u64 n = 1;
	int ret;

	run->first = cluster_decode(q, l2_entry(slice, index));
	run->copied = run->first.copied;
	ret = cluster_check(q, &run->first, offset);
	while (!ret && index + n < l2_slice_entries(q) && start + n * q->cluster_size < offset + bytes) {
		struct qcow2_cluster c = cluster_decode(q, l2_entry(slice, index + n));

		if (!run_goes_on(run, &c, n * q->cluster_size))
			break;
		run->copied &= c.copied;
		n++;
	}
	run->bytes = MIN(start + n * q->cluster_size - offset, bytes);
	return ret;
}

static int run_find(struct qcow2 *q, u64 offset, u64 bytes, bool block, struct run *run)
{
	u64 table_bytes = q->cluster_size * (q->cluster_size / 8);
	struct table_slice *slice;
	u32 index;
	int ret = l2_find(q, offset, block, &slice, &index);

	if (ret < 0)
		return ret;
	if (slice)
		return run_in_slice(q, slice, index, offset, bytes, run);
	run->first = (struct qcow2_cluster){ .kind = CLUSTER_NONE };
	run->bytes = MIN(bytes, table_bytes - (offset & (table_bytes - 1)));
	return 0;
}

static int map_backing(struct qcow2 *q, u64 offset, u64 bytes, struct layer_extent *extent)
{
	struct layer *backing = q->layer.backing;

	*extent = (struct layer_extent){ .proto = NULL, .bytes = bytes };
	if (!backing || offset >= backing->size)
		return 0;
	return backing->ops->map(backing, false, offset, MIN(bytes, backing->size - offset), extent);
}

static int map_run(struct qcow2 *q, bool write, u64 offset, const struct run *run,
	struct layer_extent *extent)
{
	u64 host = run->first.host + cluster_offset(q, offset);

	*extent = (struct layer_extent){ .proto = NULL, .bytes = run->bytes };
	if (run->first.kind == CLUSTER_ZERO && !write)
		return 0;
	if (run->first.kind != CLUSTER_NORMAL)
		return -EAGAIN;
	if (write && (!run->copied || (!q->external_data &&
		set_has_any(&q->metadata, host >> q->cluster_bits,
			((host + run->bytes - 1) >> q->cluster_bits) - (host >> q->cluster_bits) + 1))))
		return -EAGAIN;
	extent->proto = q->data;
	extent->offset = host;
	return 0;
}

int qcow2_map(struct layer *layer, bool write, u64 offset, u64 bytes, struct layer_extent *extent)
{
	struct qcow2 *q = qcow2_of(layer);
	struct run run;
	int ret;

	/* Whoever has the lock may be waiting for a disk. */
	if (pthread_mutex_trylock(&q->lock))
		return -EAGAIN;
	ret = run_find(q, offset, bytes, false, &run);
	if (!ret && (run.first.kind != CLUSTER_NONE || write))
		ret = map_run(q, write, offset, &run, extent);
	pthread_mutex_unlock(&q->lock);
	if (!ret && run.first.kind == CLUSTER_NONE && !write)
		ret = map_backing(q, offset, run.bytes, extent);
	return ret < 0 ? -EAGAIN : 0;
}

static int read_run(struct qcow2 *q, const struct run *run, const struct iovec *iov, unsigned iovs,
	u64 skip, u64 offset, struct iovec *part)
{
	unsigned n = iov_cut(part, iov, iovs, skip, run->bytes);
	u64 inside = cluster_offset(q, offset);

	switch (run->first.kind) {
	case CLUSTER_NORMAL: return q->data->ops->readv(q->data, part, n, run->first.host + inside);
	case CLUSTER_COMPRESSED:
		return cluster_inflate(q, run->first.entry, iov, iovs, skip, inside, run->bytes);
	case CLUSTER_NONE:
		if (q->layer.backing)
			return layer_read(q->layer.backing, part, n, offset);
		break;
	case CLUSTER_ZERO: break;
	}
	iov_zero(part, n, 0, run->bytes);
	return 0;
}

int qcow2_readv(struct layer *layer, const struct iovec *iov, unsigned iovs, u64 offset)
{
	struct qcow2 *q = qcow2_of(layer);
	struct iovec *part = malloc(iovs * sizeof(*part));
	u64 total = iov_bytes(iov, iovs);
	struct run run;
	int ret = part ? 0 : -ENOMEM;

	for (u64 done = 0; !ret && done < total; done += run.bytes) {
		pthread_mutex_lock(&q->lock);
		ret = run_find(q, offset + done, total - done, true, &run);
		pthread_mutex_unlock(&q->lock);
		if (!ret)
			ret = read_run(q, &run, iov, iovs, done, offset + done, part);
	}
	free(part);
	return ret;
}
