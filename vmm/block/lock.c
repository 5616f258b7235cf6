/*
 * Image locking by QEMU's convention (QEMU's docs/system/qemu-block-drivers, "Disk image file
 * locking"; the bytes were observed in /proc/locks). Byte 100 + n is read-locked by whoever uses
 * permission n, byte 200 + n by whoever lets nobody else use it. The locks themselves never conflict:
 * after taking them a program asks who else holds the opposite ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "vmm/block/lock.h"

#define LOCK_USED	100
#define LOCK_NOT_SHARED 200

enum permission {
	PERM_READ,		/* of data that is consistent */
	PERM_WRITE,
	PERM_WRITE_UNCHANGED,	/* of what is there already */
	PERM_RESIZE,
	PERMS
};

static bool has(u32 set, enum permission p)
{
	return set & BIT(p);
}

static int lock_byte(int fd, int command, int type, off_t byte)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	if (fcntl(fd, command, &fl) < 0)
		return -errno;
	return fl.l_type != F_UNLCK;	/* of F_OFD_GETLK */
}

static int lock_all(int fd, u32 used, u32 shared)
{
	int ret = 0;

	for (enum permission p = 0; p < PERMS && ret >= 0; p++) {
		if (has(used, p))
			ret = lock_byte(fd, F_OFD_SETLK, F_RDLCK, LOCK_USED + p);
		if (ret >= 0 && !has(shared, p))
			ret = lock_byte(fd, F_OFD_SETLK, F_RDLCK, LOCK_NOT_SHARED + p);
	}
	return MIN(ret, 0);
}

/* 1: somebody else does what we cannot have, or cannot have what we do. */
static int lock_conflict(int fd, u32 used, u32 shared)
{
	int ret = 0;

	for (enum permission p = 0; p < PERMS && !ret; p++) {
		if (has(used, p))
			ret = lock_byte(fd, F_OFD_GETLK, F_WRLCK, LOCK_NOT_SHARED + p);
		if (!ret && !has(shared, p))
			ret = lock_byte(fd, F_OFD_GETLK, F_WRLCK, LOCK_USED + p);
	}
	return ret;
}

/*
 * The kernel lets go of what a killed process had in an io_uring a moment after the process is gone.
 * Whoever starts a machine again at once need not hear of that.
 */
#define LOCK_TRIES	 100
#define LOCK_INTERVAL_US 10000

static int lock_conflict_lasting(int fd, u32 used, u32 shared)
{
	int ret = lock_conflict(fd, used, shared);

	for (int i = 0; i < LOCK_TRIES && ret > 0; i++) {
		usleep(LOCK_INTERVAL_US);
		ret = lock_conflict(fd, used, shared);
	}
	return ret;
}

int lock_take(int fd, const char *path, bool readonly, bool share_write, bool wait, struct error *err)
{
	u32 used = BIT(PERM_READ), shared = BIT(PERM_READ) | BIT(PERM_WRITE_UNCHANGED);
	int ret;

	if (!readonly)
		used |= BIT(PERM_WRITE) | BIT(PERM_RESIZE);
	if (share_write)
		shared |= BIT(PERM_WRITE) | BIT(PERM_RESIZE);
	ret = lock_all(fd, used, shared);
	if (!ret)
		ret = wait ? lock_conflict_lasting(fd, used, shared) : lock_conflict(fd, used, shared);
	if (ret > 0 || ret == -EAGAIN || ret == -EACCES)
		return error_set(err, EBUSY, "%s is in use by another program%s", path,
			readonly ? ", which writes it" : "");
	/* A file system without locks, as QEMU has it, is no reason to refuse. */
	if (ret == -EINVAL || ret == -ENOLCK || ret == -EOPNOTSUPP || ret == -ENOSYS)
		return 0;
	return ret < 0 ? error_set(err, -ret, "cannot lock %s: %s", path, strerror(-ret)) : 1;
}
