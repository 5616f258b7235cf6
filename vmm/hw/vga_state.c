/*
 * Video memory in VGA's saved state, behind the registers: how many pages are not zero, then each with
 * its number, ascending. Most of it is zero on most machines. See vga.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "vmm/hw/vga.h"

struct saved_page {
	u32 number;
	u8 data[VGA_PAGE];
};

_Static_assert(sizeof(struct saved_page) == VGA_PAGE + 4, "as it is on the wire");

static bool page_is_zero(const u8 *page)
{
	return page[0] == 0 && memcmp(page, page + 1, VGA_PAGE - 1) == 0;
}

long vga_save_memory(void *dev, void *buf, size_t size)
{
	const struct vga *v = dev;
	u32 pages = 0;
	size_t at = sizeof(pages);

	if (size < at)
		return -ENOSPC;
	for (u32 i = 0; i < VGA_PAGES; i++) {
		const u8 *page = v->memory + i * VGA_PAGE;

		if (page_is_zero(page))
			continue;
		if (size - at < sizeof(struct saved_page))
			return -ENOSPC;
		memcpy((u8 *)buf + at, &i, sizeof(i));
		memcpy((u8 *)buf + at + sizeof(i), page, VGA_PAGE);
		at += sizeof(struct saved_page);
		pages++;
	}
	memcpy(buf, &pages, sizeof(pages));
	return at;
}

static u32 page_number(const u8 *page)
{
	u32 number;

	memcpy(&number, page, sizeof(number));
	return number;
}

/* How long the pages are, or -EINVAL. */
static long pages_check(const u8 *buf, size_t size)
{
	u32 pages, least = 0;

	if (size < sizeof(pages))
		return -EINVAL;
	memcpy(&pages, buf, sizeof(pages));
	if (pages > VGA_PAGES || size - sizeof(pages) < pages * sizeof(struct saved_page))
		return -EINVAL;
	for (u32 i = 0; i < pages; i++) {
		u32 number = page_number(buf + sizeof(pages) + i * sizeof(struct saved_page));

		if (number < least || number >= VGA_PAGES)
			return -EINVAL;
		least = number + 1;
	}
	return sizeof(pages) + pages * sizeof(struct saved_page);
}

long vga_load_memory(struct vga *v, const void *buf, size_t size)
{
	long n = pages_check(buf, size);
	const u8 *page = (const u8 *)buf + sizeof(u32), *end = (const u8 *)buf + n;

	if (n < 0)
		return n;
	madvise(v->memory, VGA_MEMORY_SIZE, MADV_DONTNEED);
	for (; page < end; page += sizeof(struct saved_page))
		memcpy(v->memory + page_number(page) * VGA_PAGE, page + sizeof(u32), VGA_PAGE);
	vga_dirty_add(v, 0, VGA_MEMORY_SIZE);
	return n;
}
