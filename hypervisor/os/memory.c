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

/* Maps fd between two inaccessible pages; NULL when it cannot. */
static void *map_guarded(int fd, size_t size, int prot)
{
	char *area = mmap(NULL, size + 2 * GUARD, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (area == MAP_FAILED)
		return NULL;
	if (mmap(area + GUARD, size, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		munmap(area, size + 2 * GUARD);
		return NULL;
	}
	return area + GUARD;
}

static void unmap_guarded(void *p, size_t size)
{
	if (p)
		munmap((char *)p - GUARD, size + 2 * GUARD);
}

int os_code_alloc(size_t size, void **rw, void **rx, const struct os_code_fault *fault)
{
	int fd = memfd_create("qumra-code", MFD_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	*rw = *rx = NULL;
	if (ftruncate(fd, size) < 0) {
		ret = -errno;
		goto out;
	}
	*rw = map_guarded(fd, size, PROT_READ | PROT_WRITE);
	*rx = map_guarded(fd, size, PROT_READ | PROT_EXEC);
	ret = *rw && *rx ? native_area_add(*rx, size, fault) : -ENOMEM;
	if (ret)
		os_code_free(*rw, *rx, size);
out:
	close(fd);
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
