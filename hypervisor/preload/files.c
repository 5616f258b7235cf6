/*
 * Descriptors and names of files: /dev/kvm is there for everyone who looks, and the numbers of our
 * descriptors are followed through dup(2), fcntl(2) and close(2). The descriptors are real ones
 * (memfds), so FD_CLOEXEC, /proc/self/fd, poll(2) (always ready, like KVM's), epoll (EPERM, like
 * KVM's) and the mapping of a vCPU's need nothing of ours.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "hypervisor/preload/preload.h"

/* ---- names ----------------------------------------------------------------------------------- */

/* An absolute path, without a look at what is there: empty components and "." do not count. */
static bool same_path(const char *path, const char *want)
{
	while (*want) {
		if (*path++ != *want)
			return false;
		while (*want == '/' && (*path == '/' || (*path == '.' && path[1] == '/')))
			path++;
		want++;
	}
	return !*path;
}

static const char *last_component(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Relative to a folder: AT_FDCWD or a descriptor. */
static bool is_kvm_in(int dir, const char *path)
{
	char link[32] = "/proc/self/cwd", full[64];
	ssize_t n;

	if (strcmp(last_component(path), "kvm") || strlen(path) > 32)
		return false;
	if (dir != AT_FDCWD)
		snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, full, 24);
	if (n <= 0 || n >= 24)
		return false;
	snprintf(full + n, sizeof(full) - (size_t)n, "/%s", path);
	return same_path(full, "/dev/kvm");
}

/* Not inlined: callers are declared to get no NULL, and some do. */
static __attribute__((noinline)) bool is_kvm_at(int dir, const char *path)
{
	int before = errno;
	bool is;

	if (!path || !*path)
		return false;
	is = path[0] == '/' ? same_path(path, "/dev/kvm") : is_kvm_in(dir, path);
	errno = before;
	return is;
}

static bool is_kvm(const char *path)
{
	return is_kvm_at(AT_FDCWD, path);
}

/* A "kvm" in a folder that is /dev by another name. */
static bool is_kvm_by_folder(int dir, const char *path)
{
	const char *last = last_component(path);
	char folder[PATH_MAX];
	bool is;
	int fd;

	if (strcmp(last, "kvm") || last == path)
		return false;
	snprintf(folder, sizeof(folder), "%.*s", (int)(last - path), path);
	fd = NEXT(openat)(dir, folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	is = is_kvm_in(fd, "kvm");
	NEXT(close)(fd);
	return is;
}

/* The path, with what the link at its end says in that place. */
static bool follow(int dir, char path[PATH_MAX])
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(dir, path, target, sizeof(target) - 1);
	size_t at = n > 0 && target[0] == '/' ? 0 : (size_t)(last_component(path) - path);

	if (n <= 0 || at + (size_t)n >= PATH_MAX)
		return false;
	memcpy(path + at, target, (size_t)n);
	path[at + (size_t)n] = 0;
	return true;
}

#define LINKS_MAX 40	/* as in the kernel */

/* Needs room for three paths. */
static __attribute__((noinline)) bool walk_to_kvm(int dir, const char *name, bool follows)
{
	char path[PATH_MAX];
	bool found = false;

	memcpy(path, name, strlen(name) + 1);
	for (int i = 0; i < LINKS_MAX && !found; i++) {
		found = is_kvm_at(dir, path) || is_kvm_by_folder(dir, path);
		if (!found && (!follows || !follow(dir, path)))
			break;
	}
	return found;
}

/* Any other name is left at once: these calls are also made on small stacks, as of signal handlers. */
static bool may_lead_to_kvm(int dir, const char *name)
{
	char target[1];

	return !strcmp(last_component(name), "kvm") || readlinkat(dir, name, target, 1) > 0;
}

/*
 * What the system did not find, or did not let the program have: is it /dev/kvm by another name, through
 * links and ".."? Where the node exists, the number that the system finds tells (is_node()). follows: a
 * link at the end, too.
 */
static __attribute__((noinline)) bool leads_to_kvm(int dir, const char *name, bool follows)
{
	int before = errno;
	bool found = name && strlen(name) < PATH_MAX && may_lead_to_kvm(dir, name) &&
		walk_to_kvm(dir, name, follows);

	errno = before;
	return found;
}

#define KVM_RDEV	makedev(10, 232)

static bool is_node(int fd)
{
	struct stat st;

	return !syscall(SYS_fstat, fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev == KVM_RDEV;
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

/* Before the system is asked: it would make what is not there. */
static bool is_kvm_to_open(int dir, const char *path, int flags)
{
	if (flags & O_PATH)
		return false;
	return is_kvm_at(dir, path) ||
		(flags & O_CREAT && leads_to_kvm(dir, path, !(flags & O_NOFOLLOW)));
}

/* What the system has opened, or not. */
static int opened(int dir, const char *path, int flags, int fd)
{
	if (flags & O_PATH)
		return fresh(fd);
	if (fd < 0)
		return leads_to_kvm(dir, path, !(flags & O_NOFOLLOW)) ? open_kvm(flags) : fd;
	fresh(fd);
	if (!is_node(fd))
		return fd;
	NEXT(close)(fd);
	return open_kvm(flags);
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
		if (is_kvm_to_open(AT_FDCWD, path, flags)) \
			return open_kvm(flags); \
		return opened(AT_FDCWD, path, flags, NEXT(name)(path, flags, mode)); \
	}
#define OPENAT(name) \
	EXPORT int name(int dir, const char *path, int flags, ...) \
	{ \
		int mode = 0; \
		GET_MODE(mode, flags); \
		if (is_kvm_to_open(dir, path, flags)) \
			return open_kvm(flags); \
		return opened(dir, path, flags, NEXT(name)(dir, path, flags, mode)); \
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
		return is_kvm(path) ? open_kvm(flags) \
				    : opened(AT_FDCWD, path, flags, NEXT(name)(path, flags)); \
	}
#define OPENAT_2(name) \
	EXPORT int name(int dir, const char *path, int flags) \
	{ \
		return is_kvm_at(dir, path) ? open_kvm(flags) \
					    : opened(dir, path, flags, NEXT(name)(dir, path, flags)); \
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

EXPORT ssize_t write(int fd, const void *buf, size_t size)
{
	return qkvm_owns(fd) ? answer(-EINVAL) : NEXT(write)(fd, buf, size);
}

/* They have no place, and any is as good. Linux kvm_main.c, noop_llseek() */
static off_t seek_ours(int whence)
{
	return answer(whence >= SEEK_SET && whence <= SEEK_HOLE ? 0 : -EINVAL);
}

EXPORT off_t lseek(int fd, off_t off, int whence)
{
	return qkvm_owns(fd) ? seek_ours(whence) : NEXT(lseek)(fd, off, whence);
}

EXPORT off64_t lseek64(int fd, off64_t off, int whence)
{
	return qkvm_owns(fd) ? seek_ours(whence) : NEXT(lseek64)(fd, off, whence);
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

#define KVM_MODE	(S_IFCHR | 0666)

static int kvm_access(int mode)
{
	return (int)answer(mode & X_OK ? -EACCES : 0);
}

#define ACCESS(name) \
	EXPORT int name(const char *path, int mode) \
	{ \
		int ret_ = is_kvm(path) ? kvm_access(mode) : NEXT(name)(path, mode); \
		return ret_ && leads_to_kvm(AT_FDCWD, path, true) ? kvm_access(mode) : ret_; \
	}
ACCESS(access)
ACCESS(eaccess)
ACCESS(euidaccess)

EXPORT int faccessat(int dir, const char *path, int mode, int flags)
{
	int ret = is_kvm_at(dir, path) ? kvm_access(mode) : NEXT(faccessat)(dir, path, mode, flags);

	return ret && leads_to_kvm(dir, path, !(flags & AT_SYMLINK_NOFOLLOW)) ? kvm_access(mode) : ret;
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
#define STAT(name, old, type, follows) \
	static int name##_by(const char *path, struct type *st, int ret) \
	{ \
		return ret && leads_to_kvm(AT_FDCWD, path, follows) ? kvm_stat(st) : ret; \
	} \
	EXPORT int name(const char *path, struct type *st) \
	{ \
		return is_kvm(path) ? kvm_stat(st) : name##_by(path, st, NEXT(name)(path, st)); \
	} \
	int old(int version, const char *path, struct type *st); \
	EXPORT int old(int version, const char *path, struct type *st) \
	{ \
		return is_kvm(path) ? kvm_stat(st) \
				    : name##_by(path, st, NEXT(old)(version, path, st)); \
	}
STAT(stat, __xstat, stat, true)
STAT(stat64, __xstat64, stat64, true)
STAT(lstat, __lxstat, stat, false)
STAT(lstat64, __lxstat64, stat64, false)

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
	static int name##_by(int dir, const char *path, struct type *st, int flags, int ret) \
	{ \
		bool follows = !(flags & AT_SYMLINK_NOFOLLOW); \
		return ret && leads_to_kvm(dir, path, follows) ? kvm_stat(st) : ret; \
	} \
	EXPORT int name(int dir, const char *path, struct type *st, int flags) \
	{ \
		return is_kvm_at(dir, path) ? kvm_stat(st) \
			: name##_by(dir, path, st, flags, NEXT(name)(dir, path, st, flags)); \
	} \
	int old(int version, int dir, const char *path, struct type *st, int flags); \
	EXPORT int old(int version, int dir, const char *path, struct type *st, int flags) \
	{ \
		return is_kvm_at(dir, path) ? kvm_stat(st) \
			: name##_by(dir, path, st, flags, NEXT(old)(version, dir, path, st, flags)); \
	}
FSTATAT(fstatat, __fxstatat, stat)
FSTATAT(fstatat64, __fxstatat64, stat64)

EXPORT int statx(int dir, const char *path, int flags, unsigned int mask, struct statx *st)
{
	int ret = is_kvm_at(dir, path) ? 0 : NEXT(statx)(dir, path, flags, mask, st);

	if (!is_kvm_at(dir, path) &&
		(!ret || !leads_to_kvm(dir, path, !(flags & AT_SYMLINK_NOFOLLOW))))
		return ret;
	memset(st, 0, sizeof(*st));
	st->stx_mask = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_UID | STATX_GID;
	st->stx_mode = KVM_MODE;
	st->stx_nlink = 1;
	st->stx_blksize = 4096;
	st->stx_rdev_major = 10;
	st->stx_rdev_minor = 232;
	return 0;
}
