/* Reading of kernels and initrds: see image.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/firmware/image.h"

static int image_check(const struct image *image, struct error *err)
{
	struct stat st;

	if (fstat(image->fd, &st) < 0)
		return error_set(err, errno, "%s: %s", image->name, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return error_set(err, EISDIR, "%s: is a directory", image->name);
	if (!S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "%s: is not a regular file", image->name);
	if (st.st_size == 0)
		return error_set(err, EINVAL, "%s: is empty", image->name);
	return 0;
}

int image_open(struct image *image, const char *path, struct error *err)
{
	struct stat st;
	int ret;

	*image = (struct image){ .name = path };
	/* O_NONBLOCK: not to wait for the other end of a FIFO before refusing it. */
	image->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (image->fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	ret = image_check(image, err);
	if (ret < 0) {
		image_close(image);
		return ret;
	}
	image->size = fstat(image->fd, &st) == 0 ? st.st_size : 0;
	return 0;
}

void image_close(struct image *image)
{
	if (image->fd >= 0)
		close(image->fd);
	image->fd = -1;
}

void image_from_bytes(struct image *image, const char *name, const void *data, u64 size)
{
	*image = (struct image){ .name = name, .size = size, .fd = -1, .data = data };
}

static int image_read_fd(const struct image *image, u64 offset, u8 *dst, u64 len, struct error *err)
{
	while (len) {
		ssize_t n = pread(image->fd, dst, MIN(len, 1u << 30), offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(
				err, errno, "%s: cannot read: %s", image->name, strerror(errno));
		if (n == 0)
			return error_set(
				err, EIO, "%s: became shorter while it was read", image->name);
		dst += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static int image_check_range(
	const struct image *image, u64 offset, u64 len, const char *what, struct error *err)
{
	if (offset <= image->size && len <= image->size - offset)
		return 0;
	return error_set(err, EINVAL, "%s: is truncated: the %s would end at byte %llu of %llu",
		image->name, what, (unsigned long long)(offset + len),
		(unsigned long long)image->size);
}

int image_read(const struct image *image, u64 offset, void *dst, u64 len, const char *what,
	       struct error *err)
{
	int ret = image_check_range(image, offset, len, what, err);

	if (ret < 0)
		return ret;
	if (image->fd >= 0)
		return image_read_fd(image, offset, dst, len, err);
	memcpy(dst, image->data + offset, len);
	return 0;
}

int image_load(const struct image *image, u64 offset, const struct guest_memory *mem, u64 gpa,
	u64 len, const char *what, struct error *err)
{
	void *dst = guest_memory_at(mem, gpa, len);

	if (!dst)
		return error_set(
			err, ENOMEM, "%s: the %s does not fit into memory", image->name, what);
	return image_read(image, offset, dst, len, what, err);
}
