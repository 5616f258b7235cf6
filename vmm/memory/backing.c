/*
 * Guest RAM from anonymous memory, a memfd, a file or huge pages (Linux' Documentation/admin-guide/mm/
 * hugetlbpage.rst): see backing.h. Address space is reserved first and the memory put into it, so that
 * every kind is aligned alike.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/size.h"
#include "vmm/memory/backing.h"

#define ALIGN_LEAST	(2ULL << 20)	/* what transparent huge pages want */
#define HUGE_SHIFT	26		/* MAP_HUGE_SHIFT and MFD_HUGE_SHIFT: the size's logarithm */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23		/* Linux 5.14 */
#endif

static const struct memory_backing plain;

int memory_backing_check(const struct memory_backing *b, u64 size, struct error *err)
{
	char page[SIZE_TEXT_MAX];

	b = b ? b : &plain;
	if (b->huge && b->file)
		return error_usage(
			err, "--memory: hugepages does not go with file; a file of hugetlbfs has them");
	if (b->huge && size % b->huge)
		return error_usage(err, "--memory: is not a multiple of huge pages of %s",
			size_format(b->huge, page));
	return 0;
}

/* ---- huge pages ------------------------------------------------------------------------------ */

/* A figure of the host's pool; -1: it has no pages of that size. */
static long pool_figure(u64 huge, const char *what)
{
	char path[128];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/%s",
		(unsigned long long)huge >> 10, what);
	f = fopen(path, "re");
	if (f && fscanf(f, "%ld", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

static int huge_missing(u64 huge, u64 size, int errnum, struct error *err)
{
	long there = pool_figure(huge, "free_hugepages"), kept = pool_figure(huge, "resv_hugepages");
	char page[SIZE_TEXT_MAX];

	size_format(huge, page);
	if (there < 0)
		return error_set(err, ENOMEM, "--memory: this host has no huge pages of %s", page);
	if ((u64)(there - kept) >= size / huge)
		return error_set(err, errnum, "--memory: huge pages of %s: %s", page, strerror(errnum));
	return error_set(err, ENOMEM,
		"--memory: this host has %ld free huge pages of %s, and %llu are needed; root makes them in "
		"/sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages", there - kept, page,
		(unsigned long long)(size / huge), (unsigned long long)huge >> 10);
}

static unsigned huge_flags(u64 huge)
{
	return (unsigned)__builtin_ctzll(huge) << HUGE_SHIFT;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int memfd_open(const struct memory_backing *b, u64 size, struct error *err)
{
	int fd = memfd_create("guest memory",
		MFD_CLOEXEC | MFD_ALLOW_SEALING | (b->huge ? MFD_HUGETLB | huge_flags(b->huge) : 0));

	if (fd < 0 && b->huge)
		return huge_missing(b->huge, size, errno, err);
	if (fd < 0)
		return error_set(err, errno, "memfd: %s", strerror(errno));
	/* Whoever else gets the descriptor shall not cut it short under us. */
	if (ftruncate(fd, size) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		return fd;
	error_set(err, errno, "--memory: %s", strerror(errno));
	close(fd);
	return -ENOMEM;
}

/* A new file, which only who shares makes, is as large as memory; one that is there has to be. */
static int file_check(const struct memory_backing *b, int fd, u64 size, struct error *err)
{
	struct stat st;

	if (flock(fd, (b->share ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ?
			error_set(err, EBUSY, "%s: is in use by another machine", b->file) :
			error_set(err, errno, "%s: cannot be locked: %s", b->file, strerror(errno));
	/* Not before: it may have been another's that was just making it. */
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "%s: is not a regular file", b->file);
	if (b->share && st.st_size == 0)
		return ftruncate(fd, size) == 0 ? 0 :
			error_set(err, errno, "%s: %s", b->file, strerror(errno));
	if ((u64)st.st_size != size)
		return error_set(err, EINVAL, "%s: has %llu bytes; memory has %llu", b->file,
			(unsigned long long)st.st_size, (unsigned long long)size);
	return 0;
}

static int file_open(const struct memory_backing *b, u64 size, struct error *err)
{
	int fd = open(b->file, (b->share ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NOCTTY, 0600);
	int ret;

	if (fd < 0)
		return error_set(err, errno, "%s: %s", b->file, strerror(errno));
	ret = file_check(b, fd, size, err);
	if (ret == 0)
		return fd;
	close(fd);
	return ret;
}

/* The size of the pages that a file is made of where these are huge; 0. */
static u64 file_huge(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (u64)fs.f_bsize : 0;
}

/* ---- mapping --------------------------------------------------------------------------------- */

/* All pages now; where the kernel cannot be asked, a byte of each is written as it is. */
static int populate(u8 *start, u64 size, u64 huge, struct error *err)
{
	if (madvise(start, size, MADV_POPULATE_WRITE) == 0)
		return 0;
	if (errno != EINVAL)
		return huge ? huge_missing(huge, size, errno, err) :
			error_set(err, errno, "--memory: prealloc: %s", strerror(errno));
	for (u64 at = 0; at < size; at += 4096)
		((volatile u8 *)start)[at] = ((volatile u8 *)start)[at];
	return 0;
}

static int map_over(const struct memory_backing *b, u8 *start, u64 size, int fd, u64 huge, struct error *err)
{
	int flags = MAP_FIXED | (b->share ? MAP_SHARED : MAP_PRIVATE);

	if (fd < 0)
		flags |= MAP_ANONYMOUS;
	/* Huge pages are reserved here and now: who lacks one later dies of it. */
	if (huge && fd < 0)
		flags |= MAP_HUGETLB | (int)huge_flags(huge);
	else if (!huge)
		flags |= MAP_NORESERVE;
	if (mmap(start, size, PROT_READ | PROT_WRITE, flags, fd, 0) != MAP_FAILED)
		return b->prealloc ? populate(start, size, huge, err) : 0;
	return huge ? huge_missing(huge, size, errno, err) :
		error_set(err, ENOMEM, "cannot map %llu MiB of guest memory: %s",
			(unsigned long long)size >> 20, strerror(errno));
}

static int backing_open(const struct memory_backing *b, u64 size, struct error *err)
{
	if (b->file)
		return file_open(b, size, err);
	return b->share ? memfd_open(b, size, err) : -1;
}

int memory_backing_map(const struct memory_backing *b, u64 size, void **map, u64 *map_size, u8 **start,
		       int *fd, struct error *err)
{
	u64 huge, align;
	int ret;

	b = b ? b : &plain;
	*map = NULL;
	*fd = -1;
	ret = backing_open(b, size, err);
	if (ret < 0 && (b->file || b->share))
		return ret;
	*fd = ret;
	huge = b->file ? file_huge(*fd) : b->huge;
	align = MAX(huge, ALIGN_LEAST);
	*map_size = size + align;
	*map = mmap(NULL, *map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (*map == MAP_FAILED) {
		*map = NULL;
		ret = error_set(err, ENOMEM, "cannot map %llu MiB of guest memory: %s",
			(unsigned long long)size >> 20, strerror(errno));
	} else {
		*start = (u8 *)ALIGN_UP((uintptr_t)*map, align);
		ret = map_over(b, *start, size, *fd, huge, err);
	}
	if (ret == 0)
		return 0;
	if (*map)
		munmap(*map, *map_size);
	if (*fd >= 0)
		close(*fd);
	*map = NULL;
	*fd = -1;
	return ret;
}
