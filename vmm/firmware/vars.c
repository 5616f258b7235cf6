/*
 * The file of UEFI's variables: what firmware's flash memory holds. The firmware writes fault-tolerantly
 * (PI 1.7 volume 3, "Fault Tolerant Write"), so the file may be cut off in the midst of a change as
 * flash memory may; but it is never there with less than its size.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"
#include "vmm/firmware/firmware.h"

#define VARS_MODE 0600
#define OPEN_TRIES 10	/* others may make, or put in its place, the same file meanwhile */

static int vars_write(int fd, const u8 *data, u64 size, u64 offset)
{
	while (size) {
		ssize_t n = pwrite(fd, data, size, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		data += n;
		offset += n;
		size -= n;
	}
	return 0;
}

static int vars_read(const struct firmware *fw, const char *path, struct error *err)
{
	u64 at = 0;

	while (at < fw->vars_size) {
		ssize_t n = pread(fw->vars_fd, fw->vars + at, fw->vars_size - at, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_set(err, n ? errno : EIO, "%s: cannot read", path);
		at += n;
	}
	return 0;
}

/* ---- a new file ------------------------------------------------------------------------------ */

/* fresh: there must be none of that name. Not all file systems can promise that. */
static int vars_rename(const char *from, const char *to, bool fresh)
{
	int ret = fresh ? renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) : -1;

	if (ret < 0 && (!fresh || errno == EINVAL || errno == ENOSYS))
		ret = rename(from, to);
	return ret < 0 ? -errno : 0;
}

/*
 * The distribution's variables under the name path, whole or not at all: who is killed meanwhile finds
 * no short file at the next start. -EEXIST: somebody else was faster.
 */
static int vars_make(const struct firmware *fw, const char *path, bool fresh, mode_t mode)
{
	char temp[PATH_MAX];
	int fd, ret;

	if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >= (int)sizeof(temp))
		return -ENAMETOOLONG;
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = vars_write(fd, fw->vars, fw->vars_size, 0);
	if (ret == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		ret = -errno;
	if (ret == 0)
		ret = vars_rename(temp, path, fresh);
	if (ret < 0)
		unlink(temp);
	close(fd);
	return ret;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* An empty file is made whole in its place, and opened anew. 1: again. */
static int vars_replace(struct firmware *fw, const char *path, mode_t mode, struct error *err)
{
	char *real = realpath(path, NULL);
	int ret = real ? vars_make(fw, real, false, mode) : -errno;

	free(real);
	if (ret < 0)
		return error_set(err, -ret, "%s: %s", path, strerror(-ret));
	close(fw->vars_fd);
	fw->vars_fd = -1;
	return 1;
}

/* A file that is there must be of the same shape. 1: it is no longer the one of that name. */
static int vars_take(struct firmware *fw, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fw->vars_fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "%s: is not a regular file", path);
	if (flock(fw->vars_fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(err, errno, "%s: is in use by another machine", path);
	/* Was it replaced before we had the lock? */
	if (fstat(fw->vars_fd, &st) == 0 && st.st_nlink == 0) {
		close(fw->vars_fd);
		fw->vars_fd = -1;
		return 1;
	}
	if (st.st_size == 0)
		return vars_replace(fw, path, st.st_mode & 0777, err);
	if ((u64)st.st_size != fw->vars_size)
		return error_set(err, EINVAL,
			"%s: has %llu bytes; this firmware's variables have %llu", path,
			(unsigned long long)st.st_size, (unsigned long long)fw->vars_size);
	return vars_read(fw, path, err);
}

static int vars_open_once(struct firmware *fw, const char *path, struct error *err)
{
	int ret;

	fw->vars_fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (fw->vars_fd >= 0)
		return vars_take(fw, path, err);
	ret = -errno;
	if (ret == -ENOENT)
		ret = vars_make(fw, path, true, VARS_MODE);
	if (ret == 0 || ret == -EEXIST)
		return 1;
	return error_set(err, -ret, "%s: %s", path, strerror(-ret));
}

int vars_open(struct firmware *fw, const char *path, struct error *err)
{
	int ret = path != NULL;

	for (int i = 0; i < OPEN_TRIES && ret > 0; i++)
		ret = vars_open_once(fw, path, err);
	if (ret > 0)
		return error_set(err, EBUSY, "%s: can neither be opened nor made", path);
	fw->vars_path = path;
	return ret;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Once for each time that it begins, and at the end, when it is too late. */
static void vars_complain(struct firmware *fw, int error, bool last)
{
	if (last)
		log_line("%s: what UEFI's variables were set to is lost: %s", fw->vars_path,
			strerror(-error));
	else if (!fw->vars_unwritten)
		log_line("%s: UEFI's variables cannot be written: %s; it is tried again with the next "
			"change and at the end", fw->vars_path, strerror(-error));
	fw->vars_unwritten = true;
}

void vars_flush(struct firmware *fw, bool last)
{
	struct pflash *f = &fw->flash;
	int ret;

	if (f->dirty_end <= f->dirty_start)
		return;
	ret = fw->vars_fd < 0 ? 0 : vars_write(fw->vars_fd, fw->vars + f->dirty_start,
		f->dirty_end - f->dirty_start, f->dirty_start);
	if (ret < 0) {
		vars_complain(fw, ret, last);
		return;
	}
	if (fw->vars_unwritten)
		log_line("%s: UEFI's variables are written now", fw->vars_path);
	fw->vars_unwritten = false;
	f->dirty_start = f->dirty_end = 0;
}
