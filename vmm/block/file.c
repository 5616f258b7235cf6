/*
 * Images in files and on block devices. With O_DIRECT what is not aligned goes through a bounce
 * buffer; a write of part of a block reads the block first, so the caller keeps requests of one block
 * apart (block.c does, by the alignment that is reported here).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "vmm/block/iov.h"
#include "vmm/block/lock.h"
#include "vmm/block/proto.h"

#define BOUNCE_BYTES (1U << 20)
#define ZERO_BYTES   (1U << 16)

struct file {
	struct proto proto;
	int fd;
	bool device;		/* a block device */
	bool no_flush;
	/* What the host turned out not to do; any thread sets them, once. */
	bool no_punch, no_zero_range;
	bool no_nowait;		/* the host cannot read just what its page cache has */
	unsigned flushes;	/* under way, in any thread */
	u64 away_until;		/* monotonic ns: the host makes who writes wait, so others do it */
	u64 doubt_until;	/* monotonic ns: it may be about to */
	bool lost;		/* a flush failed: the page cache may have dropped what was written */
};

static struct file *file_of(struct proto *p)
{
	return container_of(p, struct file, proto);
}

/* One system call's worth: bytes done, 0 at the end, or -errno. */
static ssize_t file_once(struct file *f, const struct iovec *iov, unsigned iovs, u64 offset,
	bool write, bool fua)
{
	ssize_t n;

	iovs = MIN(iovs, (unsigned)IOV_MAX);
	do
		n = write ? pwritev2(f->fd, iov, iovs, offset, fua ? RWF_DSYNC : 0) :
			    preadv(f->fd, iov, iovs, offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* What is left of a transfer that came out short after `done` bytes. */
static int file_rest(struct file *f, const struct iovec *iov, unsigned iovs, u64 offset, bool write,
	bool fua, u64 done)
{
	u64 total = iov_bytes(iov, iovs);
	struct iovec *rest = malloc(iovs * sizeof(*rest));
	int ret = rest ? 0 : -ENOMEM;

	while (!ret && done < total) {
		unsigned n = iov_cut(rest, iov, iovs, done, total - done);
		/* A read that ends inside a block of O_DIRECT has met the file's end. */
		bool end = !write && done % f->proto.align;
		ssize_t got = end ? 0 : file_once(f, rest, n, offset + done, write, fua);

		if (got < 0) {
			ret = got;
		} else if (got) {
			done += got;
		} else if (write) {
			ret = -EIO;
		} else {
			iov_zero(iov, iovs, done, total - done);
			done = total;
		}
	}
	free(rest);
	return ret;
}

/* Buffers, offset and length are as O_DIRECT wants them, or it is not used. */
static int file_all(struct file *f, const struct iovec *iov, unsigned iovs, u64 offset, bool write,
	bool fua)
{
	ssize_t n = file_once(f, iov, iovs, offset, write, fua);

	if (n < 0)
		return n;
	return file_rest(f, iov, iovs, offset, write, fua, n);
}

static bool file_is_aligned(const struct file *f, const struct iovec *iov, unsigned iovs, u64 offset,
	u64 bytes)
{
	u32 align = f->proto.align;

	return align == 1 || (!((offset | bytes) & (align - 1)) && iov_aligned(iov, iovs, align));
}

/* One piece of a misaligned transfer; [start, start + length) is the aligned range around it. */
static int bounce_piece(struct file *f, void *buf, const struct iovec *iov, unsigned iovs, u64 skip,
	u64 offset, u64 bytes, bool write, bool fua)
{
	u64 align = f->proto.align;
	u64 start = ALIGN_DOWN(offset, align), length = ALIGN_UP(offset + bytes, align) - start;
	struct iovec whole = { buf, length };
	int ret = 0;

	if (!write || length != bytes)
		ret = file_all(f, &whole, 1, start, false, false);
	if (ret < 0)
		return ret;
	if (!write) {
		iov_from_buffer(iov, iovs, skip, (u8 *)buf + (offset - start), bytes);
		return 0;
	}
	iov_to_buffer((u8 *)buf + (offset - start), iov, iovs, skip, bytes);
	return file_all(f, &whole, 1, start, true, fua);
}

static int file_bounce(struct file *f, const struct iovec *iov, unsigned iovs, u64 offset,
	bool write, bool fua)
{
	u64 total = iov_bytes(iov, iovs);
	void *buf;
	int ret = 0;

	if (posix_memalign(&buf, MAX(f->proto.align, 4096U), BOUNCE_BYTES + 2 * f->proto.align))
		return -ENOMEM;
	for (u64 done = 0, n; !ret && done < total; done += n) {
		n = MIN(total - done, BOUNCE_BYTES);
		ret = bounce_piece(f, buf, iov, iovs, done, offset + done, n, write, fua);
	}
	free(buf);
	return ret;
}

static int file_transfer(struct file *f, const struct iovec *iov, unsigned iovs, u64 offset,
	bool write, bool fua)
{
	u64 bytes = iov_bytes(iov, iovs);

	fua = write && (fua || f->proto.write_through) && !f->no_flush;
	if (offset > INT64_MAX || bytes > INT64_MAX - offset)
		return -EFBIG;
	if (file_is_aligned(f, iov, iovs, offset, bytes))
		return file_all(f, iov, iovs, offset, write, fua);
	return file_bounce(f, iov, iovs, offset, write, fua);
}

static int file_readv(struct proto *p, const struct iovec *iov, unsigned iovs, u64 offset)
{
	return file_transfer(file_of(p), iov, iovs, offset, false, false);
}

static int file_writev(struct proto *p, const struct iovec *iov, unsigned iovs, u64 offset, bool fua)
{
	return file_transfer(file_of(p), iov, iovs, offset, true, fua);
}

/*
 * Between guest memory and the page cache a transfer is a copy, done sooner here than a ring or a thread
 * is told of it. A read takes what the cache has. A write may wait for the host's own writing back: not
 * beside a flush, not where a page is to be read first, and for a while not after one that slept long.
 * One that took long may also have lost its CPU to others: it is the reason to look at the next ones.
 */
#define HERE_MAX (1U << 20)
#define LONG_NS	 2000000
#define AWAY_NS	 200000000	/* the longest that Linux holds up a writer at a time */
#define DOUBT_NS 1000000000

/* How often the thread gave its CPU away by itself. */
static long thread_sleeps(void)
{
	struct rusage u;

	return getrusage(RUSAGE_THREAD, &u) ? 0 : u.ru_nvcsw;
}

static bool write_here(struct file *f, const struct iovec *iov, unsigned iovs, u64 offset, u64 bytes)
{
	u64 start, end;
	bool doubt;
	long sleeps;
	ssize_t n;

	if (READ_ONCE(f->flushes) || (offset | bytes) & 4095)
		return false;
	start = clock_monotonic_ns();
	if (start < f->away_until)
		return false;
	doubt = start < f->doubt_until;
	sleeps = doubt ? thread_sleeps() : 0;
	n = pwritev(f->fd, iov, iovs, offset);
	end = clock_monotonic_ns();
	if (end - start > LONG_NS) {
		if (doubt && thread_sleeps() != sleeps)
			f->away_until = end + AWAY_NS;
		f->doubt_until = end + AWAY_NS + DOUBT_NS;
	}
	return n == (ssize_t)bytes;
}

static bool file_here(struct file *f, bool write, const struct iovec *iov, unsigned iovs, u64 offset,
	u64 bytes, bool fua)
{
	ssize_t n;

	if (f->proto.align != 1 || f->device || bytes > HERE_MAX || fua)
		return false;
	if (write)
		return write_here(f, iov, iovs, offset, bytes);
	if (f->no_nowait)
		return false;
	n = preadv2(f->fd, iov, iovs, offset, RWF_NOWAIT);
	f->no_nowait = n < 0 && errno == EOPNOTSUPP;
	return n == (ssize_t)bytes;
}

static bool file_start(struct proto *p, struct aio *aio, struct aio_task *task, bool write,
	const struct iovec *iov, unsigned iovs, u64 offset, u64 bytes, bool fua)
{
	struct file *f = file_of(p);

	if (iovs > IOV_MAX || !file_is_aligned(f, iov, iovs, offset, bytes))
		return false;
	fua = write && (fua || p->write_through) && !f->no_flush;
	task->expect = bytes;
	if (file_here(f, write, iov, iovs, offset, bytes, fua)) {
		aio_finish_here(aio, task, 0);
		return true;
	}
	aio_transfer(aio, task, f->fd, write, iov, iovs, offset, fua ? RWF_DSYNC : 0);
	return true;
}

static int file_flush(struct proto *p)
{
	struct file *f = file_of(p);
	int ret;

	if (f->no_flush || p->readonly)
		return 0;
	if (READ_ONCE(f->lost))
		return -EIO;
	__atomic_fetch_add(&f->flushes, 1, __ATOMIC_RELAXED);
	ret = fdatasync(f->fd);
	__atomic_fetch_sub(&f->flushes, 1, __ATOMIC_RELAXED);
	if (!ret)
		return 0;
	/* The next one might succeed and mean nothing: fsync(2). */
	WRITE_ONCE(f->lost, true);
	return -errno;
}

static int file_zero_by_writing(struct file *f, u64 offset, u64 bytes)
{
	u8 *zeroes;
	int ret = 0;

	if (posix_memalign((void **)&zeroes, 4096, ZERO_BYTES))
		return -ENOMEM;
	memset(zeroes, 0, ZERO_BYTES);
	while (!ret && bytes) {
		/* The first piece ends on a boundary, so that the others need no bounce buffer. */
		u64 n = MIN(bytes, ZERO_BYTES - offset % ZERO_BYTES);
		struct iovec iov = { zeroes, n };

		ret = file_transfer(f, &iov, 1, offset, true, false);
		offset += n;
		bytes -= n;
	}
	free(zeroes);
	return ret;
}

static bool not_supported(int error)
{
	return error == -EOPNOTSUPP || error == -ENOSYS || error == -ENOTTY || error == -EINVAL ||
	       error == -ENODEV;
}

static int file_fallocate(struct file *f, int mode, u64 offset, u64 bytes)
{
	int ret;

	do
		ret = fallocate(f->fd, mode, offset, bytes);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

static int file_punch(struct file *f, u64 offset, u64 bytes)
{
	int ret;

	if (READ_ONCE(f->no_punch))
		return -EOPNOTSUPP;
	ret = file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
	if (not_supported(ret))
		WRITE_ONCE(f->no_punch, true);
	return ret;
}

static int file_zero_range(struct file *f, u64 offset, u64 bytes)
{
	int ret;

	if (READ_ONCE(f->no_zero_range))
		return -EOPNOTSUPP;
	ret = file_fallocate(f, FALLOC_FL_ZERO_RANGE | (f->device ? FALLOC_FL_KEEP_SIZE : 0), offset,
		bytes);
	if (not_supported(ret))
		WRITE_ONCE(f->no_zero_range, true);
	return ret;
}

/* A hole behind the end does not make the file longer, so only what lies before it is punched. */
static int file_zero(struct proto *p, u64 offset, u64 bytes, bool unmap)
{
	struct file *f = file_of(p);
	int ret = -EOPNOTSUPP;

	if (unmap && offset + bytes <= (u64)MAX(p->ops->size(p), 0))
		ret = file_punch(f, offset, bytes);
	if (ret < 0)
		ret = file_zero_range(f, offset, bytes);
	if (ret < 0 && ret != -ENOSPC && ret != -EIO)
		ret = file_zero_by_writing(f, offset, bytes);
	return ret;
}

static int file_discard(struct proto *p, u64 offset, u64 bytes)
{
	struct file *f = file_of(p);
	u64 range[2] = { offset, bytes };
	int ret;

	if (f->device)
		ret = ioctl(f->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	else
		ret = file_punch(f, offset, bytes);
	return not_supported(ret) ? 0 : ret;
}

static s64 file_size(struct proto *p)
{
	struct file *f = file_of(p);
	struct stat st;
	u64 size;

	if (f->device)
		return ioctl(f->fd, BLKGETSIZE64, &size) < 0 ? -errno : (s64)size;
	return fstat(f->fd, &st) < 0 ? -errno : st.st_size;
}

static int file_resize(struct proto *p, u64 size)
{
	struct file *f = file_of(p);

	if (f->device)
		return -EOPNOTSUPP;
	return ftruncate(f->fd, size) < 0 ? -errno : 0;
}

static void file_close(struct proto *p)
{
	struct file *f = file_of(p);

	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

static const struct proto_ops file_ops = {
	.readv = file_readv,
	.writev = file_writev,
	.flush = file_flush,
	.zero = file_zero,
	.discard = file_discard,
	.size = file_size,
	.resize = file_resize,
	.start = file_start,
	.close = file_close,
};

/* What O_DIRECT wants aligned: the smallest power of two that a read of the beginning accepts. */
static u32 file_probe_align(struct file *f)
{
	int sector = 0;
	u32 align;
	void *buf;

	if (f->device && !ioctl(f->fd, BLKSSZGET, &sector) && sector >= 512)
		return sector;
	if (posix_memalign(&buf, 8192, 8192))
		return 4096;
	for (align = 512; align < 4096; align *= 2)
		if (pread(f->fd, (u8 *)buf + align, align, align) >= 0 &&
			file_size(&f->proto) >= 2 * (s64)align)
			break;
	free(buf);
	return align;
}

static int file_check_chain(const struct file *f, const char *path, const struct proto_chain *c,
	struct error *err)
{
	for (; c; c = c->above)
		if (c->proto->is_file && c->proto->dev == f->proto.dev && c->proto->ino == f->proto.ino)
			return error_usage(err, "%s is its own backing file, by way of %s", path,
				c->proto->name);
	return 0;
}

static int file_check_kind(struct file *f, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return error_set(err, errno, "cannot look at %s: %s", path, strerror(errno));
	f->device = S_ISBLK(st.st_mode);
	if (!f->device && !S_ISREG(st.st_mode))
		return error_usage(err, "%s is neither a file nor a block device", path);
	f->proto.is_file = true;
	f->proto.dev = f->device ? st.st_rdev : st.st_dev;
	f->proto.ino = f->device ? 0 : st.st_ino;
	return 0;
}

/* O_NONBLOCK: a FIFO is refused, not waited for. It says nothing for files and block devices. */
static int file_open_fd(struct file *f, const char *path, const struct proto_options *o,
	struct error *err)
{
	int flags = O_CLOEXEC | O_NONBLOCK | (o->readonly ? O_RDONLY : O_RDWR);
	int ret;

	f->fd = open(path, flags | (o->direct ? O_DIRECT : 0));
	ret = f->fd < 0 ? errno : 0;
	if (ret == EINVAL && o->direct)
		return error_set(err, ret, "cannot open %s: its file system has no O_DIRECT "
			"(cache=none, cache=directsync)", path);
	if (ret)
		return error_set(err, ret, "cannot open %s: %s", path, strerror(ret));
	return 0;
}

static struct file *file_new(const char *path, const struct proto_options *o)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->proto.ops = &file_ops;
	f->proto.align = 1;
	f->proto.readonly = o->readonly;
	f->proto.write_through = o->write_through;
	f->no_flush = o->no_flush;
	f->fd = -1;
	f->proto.name = strdup(path);
	if (f->proto.name)
		return f;
	free(f);
	return NULL;
}

int file_open(struct proto **out, const char *path, const struct proto_options *o,
	struct error *err)
{
	struct file *f = file_new(path, o);
	int ret;

	if (!f)
		return error_set(err, ENOMEM, "out of memory");
	ret = file_open_fd(f, path, o, err);
	if (!ret)
		ret = file_check_kind(f, path, err);
	if (!ret)
		ret = file_check_chain(f, path, o->above, err);
	if (!ret && !o->no_lock)
		ret = lock_take(f->fd, path, o->readonly, o->share_write, !o->no_wait, err);
	if (ret < 0) {
		proto_close(&f->proto);
		return ret;
	}
	f->proto.alone = ret && !o->readonly && !o->share_write;
	if (o->direct)
		f->proto.align = file_probe_align(f);
	*out = &f->proto;
	return 0;
}

int file_open_temporary(struct proto **out, struct error *err)
{
	const char *dir = getenv("TMPDIR");
	struct proto_options o = { .no_flush = true };
	struct file *f;

	/* As QEMU: /var/tmp, for /tmp may be small. */
	dir = dir && *dir ? dir : "/var/tmp";
	f = file_new("temporary overlay", &o);
	if (!f)
		return error_set(err, ENOMEM, "out of memory");
	f->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (f->fd < 0) {
		error_set(err, errno, "cannot make a temporary file in %s: %s", dir, strerror(errno));
		proto_close(&f->proto);
		return -EIO;
	}
	*out = &f->proto;
	return 0;
}
