/*
 * Descriptors and names of files: /dev/kvm is there for everyone who looks, and the numbers of our
 * descriptors are followed through dup(2), fcntl(2) and close(2). The descriptors are real ones
 * (memfds), so FD_CLOEXEC, /proc/self/fd, poll(2) (always ready, like KVM's), epoll (EPERM, like
 * KVM's) and the mapping of a vCPU's need nothing of ours.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "hypervisor/preload/preload.h"

/* ---- names ----------------------------------------------------------------------------------- */

static bool same_path(const char *path, const char *want)
{
	while (*want) {
		if (*path++ != *want)
			return false;
		while (*want == '/' && *path == '/')
			path++;
		want++;
	}
	return !*path;
}

/* Not inlined: callers are declared to get no NULL, and some do. */
static __attribute__((noinline)) bool is_kvm(const char *path)
{
	return path && path[0] == '/' && same_path(path, "/dev/kvm");
}

static __attribute__((noinline)) bool is_kvm_at(int dir, const char *path)
{
	char link[32], target[8];

	if (!path || path[0] == '/' || dir < 0)
		return is_kvm(path);
	if (strcmp(path, "kvm"))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	return readlink(link, target, sizeof(target)) == 4 && !memcmp(target, "/dev", 4);
}

/* ---- open ------------------------------------------------------------------------------------ */

static int open_kvm(int flags)
{
	int fd;

	if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
		return (int)answer(-EEXIST);
	if (flags & O_DIRECTORY)
		return (int)answer(-ENOTDIR);
	process_attach();
	call_begin(CALL_SHORT);
	fd = qkvm_open();
	if (fd >= 0 && !(flags & O_CLOEXEC))
		NEXT(fcntl)(fd, F_SETFD, 0);
	trace_line("fds", "open /dev/kvm = %d", fd);
	call_end();
	return (int)answer(fd);
}

/* A number that came from the kernel: if we thought it ours, it was closed behind our back. */
static int fresh(int fd)
{
	if (fd >= 0 && qkvm_owns(fd) && process_owns())
		qkvm_forget(fd);
	return fd;
}

#define GET_MODE(mode, flags) do { \
	if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
		va_list ap_; \
		va_start(ap_, flags); \
		mode = va_arg(ap_, int); \
		va_end(ap_); \
	} \
} while (0)

#define OPEN(name) \
	EXPORT int name(const char *path, int flags, ...) \
	{ \
		int mode = 0; \
		GET_MODE(mode, flags); \
		if (!(flags & O_PATH) && is_kvm(path)) \
			return open_kvm(flags); \
		return fresh(NEXT(name)(path, flags, mode)); \
	}
#define OPENAT(name) \
	EXPORT int name(int dir, const char *path, int flags, ...) \
	{ \
		int mode = 0; \
		GET_MODE(mode, flags); \
		if (!(flags & O_PATH) && is_kvm_at(dir, path)) \
			return open_kvm(flags); \
		return fresh(NEXT(name)(dir, path, flags, mode)); \
	}
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* What fortified programs call without a mode. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);

#define OPEN_2(name) \
	EXPORT int name(const char *path, int flags) \
	{ \
		return is_kvm(path) ? open_kvm(flags) : fresh(NEXT(name)(path, flags)); \
	}
#define OPENAT_2(name) \
	EXPORT int name(int dir, const char *path, int flags) \
	{ \
		return is_kvm_at(dir, path) ? open_kvm(flags) \
					    : fresh(NEXT(name)(dir, path, flags)); \
	}
OPEN_2(__open_2)
OPEN_2(__open64_2)
OPENAT_2(__openat_2)
OPENAT_2(__openat64_2)

/* ---- close ----------------------------------------------------------------------------------- */

EXPORT int close(int fd)
{
	int ret;

	if (!qkvm_owns(fd) || !process_owns())
		return NEXT(close)(fd);
	call_begin(CALL_SHORT);
	stats_close(fd);
	ret = qkvm_close(fd);
	trace_line("fds", "close %d", fd);
	call_end();
	return (int)answer(ret);
}

/* The number goes to another file, or goes, by a call that follows. */
static void forget(int fd)
{
	call_begin(CALL_SHORT);
	stats_close(fd);
	qkvm_forget(fd);
	call_end();
}

static void forget_range(u32 first, u32 last)
{
	if (!process_attached() || !process_owns())
		return;
	for (u32 fd = first; fd <= last && fd < NR_FDS; fd++)
		if (qkvm_owns((int)fd))
			forget((int)fd);
}

EXPORT int close_range(unsigned int first, unsigned int last, int flags)
{
	if (!(flags & CLOSE_RANGE_CLOEXEC))
		forget_range(first, last);
	return NEXT(close_range)(first, last, flags);
}

EXPORT void closefrom(int first)
{
	forget_range((u32)MAX(first, 0), ~0u);
	NEXT(closefrom)(first);
}

/* ---- dup ------------------------------------------------------------------------------------- */

static int duplicated(int fd, int copy)
{
	fresh(copy);
	if (copy < 0 || copy == fd || !qkvm_owns(fd) || !process_owns())
		return copy;
	call_begin(CALL_SHORT);
	qkvm_dup(fd, copy);
	trace_line("fds", "dup %d = %d", fd, copy);
	call_end();
	return copy;
}

EXPORT int dup(int fd)
{
	return duplicated(fd, NEXT(dup)(fd));
}

static void replaced(int fd, int by)
{
	if (fd != by && qkvm_owns(fd) && process_owns() && NEXT(fcntl)(by, F_GETFD) >= 0)
		forget(fd);
}

EXPORT int dup2(int fd, int copy)
{
	replaced(copy, fd);
	return fd == copy ? NEXT(dup2)(fd, copy) : duplicated(fd, NEXT(dup2)(fd, copy));
}

EXPORT int dup3(int fd, int copy, int flags)
{
	if (!(flags & ~O_CLOEXEC))
		replaced(copy, fd);
	return duplicated(fd, NEXT(dup3)(fd, copy, flags));
}

#define FCNTL(name) \
	EXPORT int name(int fd, int cmd, ...) \
	{ \
		unsigned long arg; \
		va_list ap; \
		va_start(ap, cmd); \
		arg = va_arg(ap, unsigned long); \
		va_end(ap); \
		if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) \
			return duplicated(fd, NEXT(name)(fd, cmd, arg)); \
		return NEXT(name)(fd, cmd, arg); \
	}
FCNTL(fcntl)
FCNTL(fcntl64)

/* ---- use ------------------------------------------------------------------------------------- */

EXPORT ssize_t read(int fd, void *buf, size_t size)
{
	return qkvm_owns(fd) ? answer(-EINVAL) : NEXT(read)(fd, buf, size);
}

/* The dirty ring is shared, and no code. Linux kvm_main.c kvm_vcpu_mmap() */
static bool ring_refused(int prot, int flags, off_t off)
{
	return off >= KVM_DIRTY_LOG_PAGE_OFFSET * 4096L &&
		(prot & PROT_EXEC || (flags & MAP_TYPE) == MAP_PRIVATE);
}

/* A vCPU's memory is the descriptor's own, but for what it shares with others; VMs have none. */
static void *map_ours(void *addr, size_t size, int prot, int flags, int fd, off_t off)
{
	void *at;
	int ret;

	if (qkvm_kind(fd) != QKVM_VCPU) {
		errno = ENODEV;
		return MAP_FAILED;
	}
	if (ring_refused(prot, flags, off)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	at = NEXT(mmap)(addr, size, prot, flags, fd, off);
	if (at == MAP_FAILED)
		return at;
	call_begin(CALL_SHORT);
	ret = qkvm_mapped(fd, at, size, (unsigned long)off);
	call_end();
	if (!ret)
		return at;
	munmap(at, size);
	errno = -ret;
	return MAP_FAILED;
}

#define MMAP(name, offset) \
	EXPORT void *name(void *addr, size_t size, int prot, int flags, int fd, offset off) \
	{ \
		if (!(flags & MAP_ANONYMOUS) && qkvm_owns(fd)) \
			return map_ours(addr, size, prot, flags, fd, off); \
		return NEXT(name)(addr, size, prot, flags, fd, off); \
	}
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

/* ---- looks ----------------------------------------------------------------------------------- */

#define KVM_RDEV	makedev(10, 232)
#define KVM_MODE	(S_IFCHR | 0666)

static int kvm_access(int mode)
{
	return (int)answer(mode & X_OK ? -EACCES : 0);
}

#define ACCESS(name) \
	EXPORT int name(const char *path, int mode) \
	{ \
		return is_kvm(path) ? kvm_access(mode) : NEXT(name)(path, mode); \
	}
ACCESS(access)
ACCESS(eaccess)
ACCESS(euidaccess)

EXPORT int faccessat(int dir, const char *path, int mode, int flags)
{
	return is_kvm_at(dir, path) ? kvm_access(mode) : NEXT(faccessat)(dir, path, mode, flags);
}

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "one on x86-64");

static int kvm_stat(void *buf)
{
	struct stat *st = buf;

	memset(st, 0, sizeof(*st));
	st->st_mode = KVM_MODE;
	st->st_rdev = KVM_RDEV;
	st->st_nlink = 1;
	st->st_blksize = 4096;
	return 0;
}

static bool is_system(int fd)
{
	return qkvm_owns(fd) && qkvm_kind(fd) == QKVM_SYSTEM;
}

/* The second of each pair is what programs built for older C libraries call. */
#define STAT(name, old, type) \
	EXPORT int name(const char *path, struct type *st) \
	{ \
		return is_kvm(path) ? kvm_stat(st) : NEXT(name)(path, st); \
	} \
	int old(int version, const char *path, struct type *st); \
	EXPORT int old(int version, const char *path, struct type *st) \
	{ \
		return is_kvm(path) ? kvm_stat(st) : NEXT(old)(version, path, st); \
	}
STAT(stat, __xstat, stat)
STAT(stat64, __xstat64, stat64)
STAT(lstat, __lxstat, stat)
STAT(lstat64, __lxstat64, stat64)

#define FSTAT(name, old, type) \
	EXPORT int name(int fd, struct type *st) \
	{ \
		return is_system(fd) ? kvm_stat(st) : NEXT(name)(fd, st); \
	} \
	int old(int version, int fd, struct type *st); \
	EXPORT int old(int version, int fd, struct type *st) \
	{ \
		return is_system(fd) ? kvm_stat(st) : NEXT(old)(version, fd, st); \
	}
FSTAT(fstat, __fxstat, stat)
FSTAT(fstat64, __fxstat64, stat64)

#define FSTATAT(name, old, type) \
	EXPORT int name(int dir, const char *path, struct type *st, int flags) \
	{ \
		return is_kvm_at(dir, path) ? kvm_stat(st) : NEXT(name)(dir, path, st, flags); \
	} \
	int old(int version, int dir, const char *path, struct type *st, int flags); \
	EXPORT int old(int version, int dir, const char *path, struct type *st, int flags) \
	{ \
		return is_kvm_at(dir, path) ? kvm_stat(st) \
					    : NEXT(old)(version, dir, path, st, flags); \
	}
FSTATAT(fstatat, __fxstatat, stat)
FSTATAT(fstatat64, __fxstatat64, stat64)

EXPORT int statx(int dir, const char *path, int flags, unsigned int mask, struct statx *st)
{
	if (!is_kvm_at(dir, path))
		return NEXT(statx)(dir, path, flags, mask, st);
	memset(st, 0, sizeof(*st));
	st->stx_mask = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_UID | STATX_GID;
	st->stx_mode = KVM_MODE;
	st->stx_nlink = 1;
	st->stx_blksize = 4096;
	st->stx_rdev_major = 10;
	st->stx_rdev_minor = 232;
	return 0;
}
