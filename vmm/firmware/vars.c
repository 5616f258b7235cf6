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

static const struct stat new_file = { .st_mode = VARS_MODE };

/* There must be none of that name, which only a link promises; vfat, and some others, have none. */
static int vars_name_new(const char *temp, const char *path)
{
	if (link(temp, path) == 0) {
		unlink(temp);
		return 0;
	}
	if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	return rename(temp, path) < 0 ? -errno : 0;
}

/* The new name, too, is there after the host's crash. Not every folder may be read. */
static void folder_sync(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, slash + 1 - path) : strdup(".");
	int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(folder);
}

/* As the old file was; if that may not be, the old file is to stay. */
static int vars_set_owner(int fd, const struct stat *old)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (old != &new_file && (st.st_uid != old->st_uid || st.st_gid != old->st_gid) &&
	    fchown(fd, old->st_uid, old->st_gid) < 0)
		return -errno;
	return fchmod(fd, old->st_mode & 0777) < 0 ? -errno : 0;
}

/*
 * The distribution's variables under the name path, whole or not at all: who is killed meanwhile finds
 * no short file at the next start. old: what is replaced, or &new_file; then -EEXIST: somebody else was
 * faster.
 */
static int vars_make(const struct firmware *fw, const char *path, const struct stat *old)
{
	char temp[PATH_MAX];
	int fd, ret;

	if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >= (int)sizeof(temp))
		return -ENAMETOOLONG;
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = vars_write(fd, fw->vars, fw->vars_size, 0);
	if (ret == 0)
		ret = vars_set_owner(fd, old);
	if (ret == 0 && fsync(fd) < 0)
		ret = -errno;
	if (ret == 0 && old == &new_file)
		ret = vars_name_new(temp, path);
	else if (ret == 0 && rename(temp, path) < 0)
		ret = -errno;
	if (ret < 0)
		unlink(temp);
	else
		folder_sync(path);
	close(fd);
	return ret;
}

/* Of a link to no file only open() follows the whole way; its empty file is then one that is there. */
static int vars_make_new(const struct firmware *fw, const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
		return vars_make(fw, path, &new_file);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, VARS_MODE);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* The folder is somebody else's, or the file is a mount of its own: no other can take its place. */
static bool must_stay(int error)
{
	return error == EACCES || error == EPERM || error == EROFS || error == EBUSY ||
		error == EXDEV || error == ENAMETOOLONG;
}

/* Who is killed here leaves a short file. Who fails leaves an empty one, as it was. */
static int vars_fill(struct firmware *fw)
{
	int ret = vars_write(fw->vars_fd, fw->vars, fw->vars_size, 0);

	if (ret == 0 && fsync(fw->vars_fd) < 0)
		ret = -errno;
	if (ret < 0 && ftruncate(fw->vars_fd, 0) < 0)
		log_line("%s", strerror(errno));
	return ret;
}

/* An empty file is made whole in its place, and opened anew: 1. Or, where none may be made, filled. */
static int vars_replace(struct firmware *fw, const char *path, const struct stat *old,
	struct error *err)
{
	char *real = realpath(path, NULL);
	int ret = real ? vars_make(fw, real, old) : -errno;
	bool fill = ret < 0 && must_stay(-ret);

	free(real);
	if (fill)
		ret = vars_fill(fw);
	if (ret < 0)
		return error_set(err, -ret, "%s: %s", path, strerror(-ret));
	if (fill)
		return 0;
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
		return vars_replace(fw, path, &st, err);
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
		ret = vars_make_new(fw, path);
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

/* A machine that has ended survives the host's crash; each change is not worth the wait. */
static void vars_sync(struct firmware *fw, bool last)
{
	if (last && fw->vars_fd >= 0 && fw->vars_path && fdatasync(fw->vars_fd) < 0)
		vars_complain(fw, -errno, last);
}

void vars_flush(struct firmware *fw, bool last)
{
	struct pflash *f = &fw->flash;
	int ret;

	if (f->dirty_end <= f->dirty_start) {
		vars_sync(fw, last);
		return;
	}
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
	vars_sync(fw, last);
}
