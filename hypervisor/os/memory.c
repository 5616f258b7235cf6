/* The seam's memory: heap, lazily committed pages, and code areas that are never writable where
 * they execute. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/os/native.h"
#include "hypervisor/os/os.h"

#define GUARD 4096UL

void *os_alloc(size_t size)
{
	void *p;

	/* Structures hold fields for XSAVE and cache lines, aligned to 64. */
	if (size > SIZE_MAX - 64)
		return NULL;
	p = aligned_alloc(64, ALIGN_UP(MAX(size, 1), (size_t)64));
	if (p)
		memset(p, 0, size);
	return p;
}

void os_free(void *p)
{
	free(p);
}

void *os_pages_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void *os_pages_alloc_shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* An old size of zero duplicates a shared mapping. mremap(2) */
int os_pages_alias(void *src, size_t size, void *at)
{
	void *p = mremap(src, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, at);

	return p == MAP_FAILED ? -errno : 0;
}

void os_pages_free(void *p, size_t size)
{
	if (p)
		munmap(p, size);
}

void os_pages_discard(void *p, size_t size)
{
	madvise(p, size, MADV_DONTNEED);
}

/* size bytes of address space between two guard pages, inaccessible; NULL when there is none. */
static void *reserve_guarded(size_t size)
{
	char *area = mmap(NULL, size + 2 * GUARD, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return area == MAP_FAILED ? NULL : area + GUARD;
}

static void unmap_guarded(void *p, size_t size)
{
	if (p)
		munmap((char *)p - GUARD, size + 2 * GUARD);
}

/*
 * Shared anonymous memory, not a memfd: that one has a file's name, by which profilers look for
 * symbols in a file instead of in the map of perfmap.c. It is executable only where it was never
 * writable: the second mapping has no page yet when it changes from the first one's protection.
 */
static int code_map(size_t size, void *rw, void *rx)
{
	int ret;

	if (mmap(rw, size, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -errno;
	ret = os_pages_alias(rw, size, rx);
	if (!ret && mprotect(rx, size, PROT_READ | PROT_EXEC))
		ret = -errno;
	return ret;
}

int os_code_alloc(size_t size, void **rw, void **rx, const struct os_code_fault *fault)
{
	int ret = -ENOMEM;

	*rw = reserve_guarded(size);
	*rx = reserve_guarded(size);
	if (*rw && *rx)
		ret = code_map(size, *rw, *rx);
	if (!ret)
		ret = native_area_add(*rx, size, fault);
	if (ret)
		os_code_free(*rw, *rx, size);
	return ret;
}

void os_code_set_resume(void *rx, u64 resume)
{
	native_area_resume(rx, resume);
}

void os_code_free(void *rw, void *rx, size_t size)
{
	native_area_remove(rx);
	unmap_guarded(rw, size);
	unmap_guarded(rx, size);
}

/* The content stays: the mapping is shared with the executable one. */
void os_code_settle(void *rw, size_t size)
{
	madvise(rw, size, MADV_DONTNEED);
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23		/* Linux 5.14; an error before it */
#endif

void os_pages_prepare(void *p, size_t size)
{
	madvise(p, size, MADV_POPULATE_WRITE);
}

void os_code_prepare(void *rw, size_t size)
{
	madvise(rw, size, MADV_POPULATE_WRITE);
}
