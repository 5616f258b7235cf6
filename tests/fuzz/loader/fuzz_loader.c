/*
 * Fuzz target of the kernel loaders. The first two bytes choose memory size and initrd, the rest is
 * the kernel file. Whatever it is, the loader stays inside file and guest memory, and what it
 * accepts holds together: the entry point lies in RAM, an error has a text, and guest memory
 * outside what was loaded keeps its guard.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/firmware/boot.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define CHECK(c)	do { if (!(c)) __builtin_trap(); } while (0)
#define MEMORY_MAX	(24ULL << 20)

/* Kept from one input to the next: clearing it each time would be most of the work. */
static u8 *memory;

static void check_entry(const struct guest_memory *mem, const struct boot_entry *entry)
{
	CHECK(entry->mode == BOOT_LONG || entry->mode == BOOT_PROTECTED);
	CHECK(guest_memory_at(mem, entry->rip, 1));
	CHECK(entry->rsi == BOOT_PARAMS || entry->rbx == BOOT_PARAMS);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct guest_memory mem = { 0 };
	struct image kernel, initrd;
	struct boot_entry entry;
	struct error err = ERROR_INIT;
	u8 *file;
	int ret;

	if (size < 3)
		return 0;
	if (!memory)
		memory = calloc(1, MEMORY_MAX);
	CHECK(memory);
	mem.size = GUEST_MEMORY_MIN + (u64)data[0] % 20 * (1 << 20);
	guest_memory_layout(&mem, memory);
	/* A block of exactly its size, so that a sanitizer sees each byte too many. */
	file = malloc(size - 2);
	CHECK(file);
	memcpy(file, data + 2, size - 2);
	image_from_bytes(&kernel, "kernel", file, size - 2);
	image_from_bytes(&initrd, "initrd", file, MIN(data[1], size - 2));
	ret = boot_load(&kernel, data[1] ? &initrd : NULL, "console=ttyS0", &mem, &entry, &err);
	free(file);
	if (ret == 0)
		check_entry(&mem, &entry);
	else
		CHECK(err.kind == ERROR_FAILURE && err.text[0] &&
			strlen(err.text) < sizeof(err.text));
	return 0;
}
