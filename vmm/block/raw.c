/*
 * The raw format: the disk is the file. A file whose length is no multiple of 512 is seen with zeroes
 * up to the next one.
 *
 * If nobody said that the image is raw, a guest must not be able to make it look like another format:
 * that would be opened at the next start, with a backing file of the guest's choice. So the first
 * sector then takes no such contents.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/layer.h"
#include "vmm/block/iov.h"

#define SECTOR 512

struct raw {
	struct layer layer;
	bool probed;
};

static struct raw *raw_of(struct layer *img)
{
	return container_of(img, struct raw, layer);
}

static int raw_map(struct layer *img, bool write, u64 offset, u64 bytes,
	struct layer_extent *extent)
{
	if (write && raw_of(img)->probed && offset < SECTOR)
		return -EAGAIN;
	*extent = (struct layer_extent){ img->file, offset, bytes };
	return 0;
}

static int raw_readv(struct layer *img, const struct iovec *iov, unsigned iovs, u64 offset)
{
	return img->file->ops->readv(img->file, iov, iovs, offset);
}

/* -EPERM if the write makes the first sector that of another format. */
static int raw_check_write(struct layer *img, const struct iovec *iov, unsigned iovs, u64 offset)
{
	u8 sector[SECTOR];
	int ret;

	if (!raw_of(img)->probed || offset >= SECTOR)
		return 0;
	ret = proto_read(img->file, sector, SECTOR, 0);
	if (ret < 0)
		return ret;
	iov_to_buffer(sector + offset, iov, iovs, 0, MIN(iov_bytes(iov, iovs), SECTOR - offset));
	return strcmp(format_probe(sector, SECTOR), "raw") ? -EPERM : 0;
}

static int raw_writev(struct layer *img, const struct iovec *iov, unsigned iovs, u64 offset,
	bool fua)
{
	int ret = raw_check_write(img, iov, iovs, offset);

	return ret ?: img->file->ops->writev(img->file, iov, iovs, offset, fua);
}

static int raw_flush(struct layer *img)
{
	return img->file->ops->flush(img->file);
}

static int raw_discard(struct layer *img, u64 offset, u64 bytes)
{
	return img->file->ops->discard(img->file, offset, bytes);
}

static int raw_zero(struct layer *img, u64 offset, u64 bytes, bool unmap)
{
	return img->file->ops->zero(img->file, offset, bytes, unmap);
}

static s64 raw_measure(struct layer *img)
{
	s64 size = img->file->ops->size(img->file);

	return size < 0 ? size : (s64)ALIGN_UP((u64)size, SECTOR);
}

static int raw_resize(struct layer *img, u64 size, struct error *err)
{
	int ret = img->file->ops->resize ? img->file->ops->resize(img->file, size) : -EOPNOTSUPP;

	if (ret < 0)
		return error_set(err, -ret, "cannot make %s larger: %s", img->file->name, strerror(-ret));
	img->size = size;
	return 0;
}

static int raw_close(struct layer *img)
{
	int ret = img->readonly ? 0 : raw_flush(img);

	free(raw_of(img));
	return ret;
}

static const struct layer_ops raw_ops = {
	.name = "raw",
	.map = raw_map,
	.readv = raw_readv,
	.writev = raw_writev,
	.flush = raw_flush,
	.discard = raw_discard,
	.zero = raw_zero,
	.measure = raw_measure,
	.resize = raw_resize,
	.close = raw_close,
};

int raw_open(struct layer **out, struct proto *file, bool probed, struct error *err)
{
	s64 size = file->ops->size(file);
	struct raw *raw;

	if (size < 0)
		return error_set(err, -size, "cannot tell the size of %s: %s", file->name,
			strerror(-size));
	raw = calloc(1, sizeof(*raw));
	if (!raw)
		return error_set(err, ENOMEM, "out of memory");
	raw->probed = probed;
	raw->layer = (struct layer){
		.ops = &raw_ops,
		.file = file,
		.size = ALIGN_UP((u64)size, SECTOR),
		.granularity = MAX(file->align, SECTOR),
		.readonly = file->readonly,
		.plain = true,
	};
	*out = &raw->layer;
	return 0;
}
