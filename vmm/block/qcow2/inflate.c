/*
 * Compressed clusters (qcow2: Compressed Clusters Descriptor). The output is one cluster whatever the
 * input says, so there is nothing to be gained by a bomb. The last cluster is kept: reads of a few
 * kilobytes after each other are the rule.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "lib/log.h"
#include "vmm/block/iov.h"
#include "vmm/block/qcow2/qcow2.h"

enum { COMPRESSION_ZLIB, COMPRESSION_ZSTD };

/* A raw deflate stream with a window of 4 KiB; what follows it in its last sector is not its own. */
static int inflate_zlib(u8 *out, u64 out_bytes, u8 *in, u64 in_bytes)
{
	z_stream z = { .next_in = in, .avail_in = in_bytes, .next_out = out, .avail_out = out_bytes };
	int ret;

	if (inflateInit2(&z, -12) != Z_OK)
		return -ENOMEM;
	ret = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int inflate_zstd(u8 *out, u64 out_bytes, const u8 *in, u64 in_bytes)
{
	ZSTD_inBuffer from = { in, in_bytes, 0 };
	ZSTD_outBuffer to = { out, out_bytes, 0 };
	ZSTD_DStream *z = ZSTD_createDStream();
	size_t ret = 1;

	if (!z)
		return -ENOMEM;
	while (to.pos < to.size && !ZSTD_isError(ret)) {
		size_t was = from.pos + to.pos;

		ret = ZSTD_decompressStream(z, &to, &from);
		if (from.pos + to.pos == was)
			break;		/* the input has ended */
	}
	ZSTD_freeDStream(z);
	return to.pos == to.size && !ZSTD_isError(ret) ? 0 : -EIO;
}

/* Under the inflate lock. */
static int inflate_load(struct qcow2 *q, u64 entry)
{
	u64 offset, bytes;
	u8 *in;
	int ret;

	if (q->inflated && q->inflated_entry == entry)
		return 0;
	compressed_range(q, entry, &offset, &bytes);
	in = malloc(bytes);
	if (!q->inflated)
		q->inflated = malloc(q->cluster_size);
	q->inflated_entry = 0;
	ret = in && q->inflated ? proto_read(q->layer.file, in, bytes, offset) : -ENOMEM;
	if (!ret && q->compression == COMPRESSION_ZSTD)
		ret = inflate_zstd(q->inflated, q->cluster_size, in, bytes);
	else if (!ret)
		ret = inflate_zlib(q->inflated, q->cluster_size, in, bytes);
	if (!ret)
		q->inflated_entry = entry;
	free(in);
	return ret;
}

int cluster_inflate(struct qcow2 *q, u64 entry, const struct iovec *iov, unsigned iovs, u64 skip,
	u64 from, u64 bytes)
{
	int ret;

	pthread_mutex_lock(&q->inflate_lock);
	ret = inflate_load(q, entry);
	if (!ret)
		iov_from_buffer(iov, iovs, skip, q->inflated + from, bytes);
	pthread_mutex_unlock(&q->inflate_lock);
	return ret;
}
