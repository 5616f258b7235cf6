/* Giving guest memory back to the host: see guest_memory.h. */
#include <sys/mman.h>

#include "vmm/memory/guest_memory.h"

#define PAGE 4096ULL

void guest_memory_discard(void *host, u64 len)
{
	uintptr_t start = ALIGN_UP((uintptr_t)host, PAGE);
	uintptr_t end = ALIGN_DOWN((uintptr_t)host + len, PAGE);

	if (start >= end)
		return;
	/*
	 * A hole in the file, if there is one that others share; private memory is only forgotten. The
	 * mapping stays either way: engines hold host addresses of this memory, and whoever touches it
	 * again gets a fresh page. Pages larger than what is given back may refuse; then nothing is gained.
	 */
	if (madvise((void *)start, end - start, MADV_REMOVE) < 0)
		madvise((void *)start, end - start, MADV_DONTNEED);
}
