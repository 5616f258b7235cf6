/* Where guest RAM lies for those who map it, too: see guest_memory.h. */
#include "vmm/memory/guest_memory.h"

int guest_memory_file(const struct guest_memory *mem, const void *host, u64 *offset)
{
	if (!mem->shared || !mem->map || mem->fd < 0)
		return -1;
	*offset = (const u8 *)host - mem->start;
	return mem->fd;
}
