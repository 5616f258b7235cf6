/* What all boot protocols share: see boot.h. */
#include <errno.h>
#include <string.h>

#include "lib/size.h"
#include "vmm/firmware/boot.h"

/* What a file that is no kernel of ours may be instead, for the message. */
static const struct {
	u16 offset, len;
	const char *bytes, *what;
} boot_others[] = {
	{ 0, 2, "\x1f\x8b", "is compressed with gzip; unpack it first" },
	{ 0, 6, "\xfd" "7zXZ\0", "is compressed with xz; unpack it first" },
	{ 0, 4, "\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it first" },
	{ 0, 6, "070701", "is a cpio archive; it belongs to --initrd" },
	{ 0, 8, "!<arch>\n", "is a Debian package or an archive; unpack it first" },
	{ 56, 4, "ARM\x64", "is a kernel for 64-bit ARM" },
	{ 0, 2, "#!", "is a script" },
	{ 0x1fe, 2, "\x55\xaa", "is a boot sector, not a kernel" },
};

static int boot_unknown(const struct image *kernel, const u8 *head, u64 size, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(boot_others); i++) {
		u64 end = (u64)boot_others[i].offset + boot_others[i].len;

		if (size >= end && memcmp(head + boot_others[i].offset, boot_others[i].bytes,
					  boot_others[i].len) == 0)
			return error_set(err, ENOEXEC, "%s: %s", kernel->name, boot_others[i].what);
	}
	return error_set(err, ENOEXEC, "%s: is neither a bzImage nor an ELF kernel", kernel->name);
}

int boot_load(const struct image *kernel, const struct image *initrd, const char *cmdline,
	      const struct guest_memory *mem, struct boot_entry *entry, struct error *err)
{
	u8 head[BOOT_PROBE_SIZE];
	u64 size = MIN(kernel->size, sizeof(head));
	int ret = image_read(kernel, 0, head, size, "beginning", err);

	*entry = (struct boot_entry){ 0 };
	if (ret < 0)
		return ret;
	if (elf_probe(head, size))
		ret = pvh_load(kernel, initrd, cmdline, mem, entry, err);
	else if (bzimage_probe(head, size))
		ret = bzimage_load(kernel, initrd, cmdline, mem, entry, err);
	else
		ret = boot_unknown(kernel, head, size, err);
	return ret < 0 ? ret : boot_write_tables(mem, entry->mode, err);
}

int boot_load_initrd(const struct image *kernel, const struct image *initrd,
	const struct guest_memory *mem, u64 min, u64 max, u64 *addr, u64 *size, struct error *err)
{
	u64 top = MIN(guest_memory_low_end(mem), max + 1), at;
	char need[SIZE_TEXT_MAX], have[SIZE_TEXT_MAX];

	*addr = *size = 0;
	if (!initrd)
		return 0;
	at = initrd->size <= top ? ALIGN_DOWN(top - initrd->size, 4096) : 0;
	min = ALIGN_UP(min, 4096);
	if (at < min || !guest_memory_at(mem, at, initrd->size))
		return error_set(err, ENOMEM,
			"%s: does not fit into memory: it has %s, and %s are free "
			"above the kernel %s; give more with --memory",
			initrd->name, size_format(ALIGN_UP(initrd->size, 1024), need),
			size_format(top > min ? ALIGN_DOWN(top - min, 1024) : 0, have),
			kernel->name);
	*addr = at;
	*size = initrd->size;
	return image_load(initrd, 0, mem, at, initrd->size, "initrd", err);
}

int boot_write_cmdline(const struct image *kernel, const char *cmdline, u64 limit,
		       const struct guest_memory *mem, struct error *err)
{
	size_t len = strlen(cmdline);
	char *dst = guest_memory_at(mem, BOOT_CMDLINE, BOOT_CMDLINE_SIZE);

	limit = MIN(limit, BOOT_CMDLINE_SIZE - 1);
	if (len > limit)
		return error_set(err, E2BIG, "--append: %zu characters are too many: %s takes %llu",
			len, kernel->name, (unsigned long long)limit);
	if (!dst)
		return error_set(err, ENOMEM, "there is no memory for the command line");
	memcpy(dst, cmdline, len + 1);
	return 0;
}

/* Flat descriptors (SDM 3A 3.4.5): accessed, present, DPL 0. */
#define GDT_CODE32	0x00CF9B000000FFFFULL
#define GDT_CODE64	0x00AF9B000000FFFFULL
#define GDT_DATA	0x00CF93000000FFFFULL
#define GDT_TSS_BUSY	0x00008B0000000067ULL

#define PTE_TABLE	0x23	/* present, writable, accessed */
#define PTE_LARGE	0xE3	/* and dirty, 2 MiB */

static void write_page_tables(u64 *table)
{
	u64 *pdpt = table + 512, *pd = table + 1024;

	memset(table, 0, 2 * 4096);
	table[0] = (BOOT_PAGE_TABLES + 0x1000) | PTE_TABLE;
	for (u64 i = 0; i < 4; i++)
		pdpt[i] = (BOOT_PAGE_TABLES + 0x2000 + i * 0x1000) | PTE_TABLE;
	for (u64 i = 0; i < 4 * 512; i++)
		pd[i] = i << 21 | PTE_LARGE;
}

int boot_write_tables(const struct guest_memory *mem, enum boot_mode mode, struct error *err)
{
	const u64 gdt[BOOT_GDT_ENTRIES] = {
		0, 0, mode == BOOT_LONG ? GDT_CODE64 : GDT_CODE32, GDT_DATA, GDT_TSS_BUSY,
	};
	u8 *area = guest_memory_at(mem, BOOT_AREA, BOOT_AREA_END - BOOT_AREA);

	if (!area)
		return error_set(err, ENOMEM, "there is no memory for the boot tables");
	memcpy(area + (BOOT_GDT - BOOT_AREA), gdt, sizeof(gdt));
	if (mode == BOOT_LONG)
		write_page_tables((u64 *)(area + (BOOT_PAGE_TABLES - BOOT_AREA)));
	return 0;
}
