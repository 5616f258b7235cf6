/*
 * Linux's x86 boot protocol (the kernel's Documentation/arch/x86/boot.rst), version 2.06 and later,
 * for bzImages: the 64-bit entry where the kernel has one, else the 32-bit entry.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>

#include "lib/size.h"
#include "vmm/firmware/boot.h"
#include "vmm/firmware/e820.h"
#include "vmm/machine/acpi.h"

#define HEADER_OFFSET	offsetof(struct boot_params, hdr)
#define HEADER_MAGIC	0x53726448	/* "HdrS" */
#define BOOT_FLAG	0xAA55
#define SECTOR		512
#define DEFAULT_SETUP_SECTS	4
#define ENTRY64_OFFSET	0x200
#define LOADER_UNDEFINED	0xFF
#define VID_MODE_NORMAL	0xFFFF

#define PROTOCOL_CMDLINE_SIZE	0x206
#define PROTOCOL_PREF_ADDRESS	0x20A
#define PROTOCOL_XLOADFLAGS	0x20C

_Static_assert(sizeof(struct boot_params) == 4096, "the zero page is a page");
_Static_assert(offsetof(struct boot_params, hdr) == 0x1F1, "boot.rst");

/* The kernel's header as far as the file has one, and where things go. */
struct bzimage {
	const struct image *file;
	struct setup_header hdr;
	u64 payload_offset, payload_size;	/* in the file */
	u64 end; /* guest memory that the kernel needs, from BOOT_KERNEL */
};

bool bzimage_probe(const u8 *head, u64 size)
{
	u32 magic;
	u16 flag;

	if (size < HEADER_OFFSET + offsetof(struct setup_header, realmode_swtch))
		return false;
	memcpy(&magic, head + HEADER_OFFSET + offsetof(struct setup_header, header), sizeof(magic));
	memcpy(&flag, head + HEADER_OFFSET + offsetof(struct setup_header, boot_flag),
		sizeof(flag));
	return magic == HEADER_MAGIC && flag == BOOT_FLAG;
}

/* The header ends where the second byte of its jump instruction points to (boot.rst, "jump"). */
static int bzimage_read_header(struct bzimage *bz, struct error *err)
{
	u8 jump_size;
	u64 end;
	int ret = image_read(bz->file, 0x201, &jump_size, 1, "setup header", err);

	if (ret < 0)
		return ret;
	end = 0x202 + (u64)jump_size;
	memset(&bz->hdr, 0, sizeof(bz->hdr));
	return image_read(bz->file, HEADER_OFFSET, &bz->hdr,
		MIN(end - HEADER_OFFSET, sizeof(bz->hdr)), "setup header", err);
}

static int bzimage_check_header(const struct bzimage *bz, struct error *err)
{
	const char *name = bz->file->name;

	if (bz->hdr.version < PROTOCOL_CMDLINE_SIZE)
		return error_set(err, ENOEXEC,
			"%s: speaks boot protocol %d.%02d; 2.06 is the oldest supported", name,
			bz->hdr.version >> 8, bz->hdr.version & 0xFF);
	if (!(bz->hdr.loadflags & LOADED_HIGH))
		return error_set(err, ENOEXEC,
			"%s: is a zImage, which loads below 1 MiB; only bzImages are supported",
			name);
	if (!bz->hdr.relocatable_kernel && bz->hdr.code32_start != BOOT_KERNEL)
		return error_set(err, ENOEXEC, "%s: is not relocatable and wants to be at %#x",
			name, bz->hdr.code32_start);
	return 0;
}

static int bzimage_find_payload(struct bzimage *bz, struct error *err)
{
	u64 sects = bz->hdr.setup_sects ? bz->hdr.setup_sects : DEFAULT_SETUP_SECTS;
	u64 size = (u64)bz->hdr.syssize * 16;

	bz->payload_offset = (sects + 1) * SECTOR;
	if (bz->payload_offset >= bz->file->size)
		return error_set(err, ENOEXEC,
			"%s: is truncated: setup_sects is %llu, so the kernel would begin at "
			"byte %llu of %llu",
			bz->file->name, (unsigned long long)sects,
			(unsigned long long)bz->payload_offset, (unsigned long long)bz->file->size);
	bz->payload_size = bz->file->size - bz->payload_offset;
	/* syssize counts paragraphs and may round up; behind it is a signature or padding. */
	if (size > bz->payload_size + 15)
		return error_set(err, ENOEXEC,
			"%s: is truncated: syssize says %llu bytes of kernel, the file has %llu",
			bz->file->name, (unsigned long long)size,
			(unsigned long long)bz->payload_size);
	if (size == 0)
		return error_set(
			err, ENOEXEC, "%s: syssize is 0: there is no kernel in it", bz->file->name);
	bz->payload_size = MIN(size, bz->payload_size);
	return 0;
}

/* The decompressor works in place: init_size bytes from where the kernel ends up. */
static int bzimage_find_end(struct bzimage *bz, const struct guest_memory *mem, struct error *err)
{
	u64 low_end = guest_memory_low_end(mem);
	char need[SIZE_TEXT_MAX];

	bz->end = BOOT_KERNEL + bz->payload_size;
	if (bz->hdr.version >= PROTOCOL_PREF_ADDRESS) {
		u64 start = bz->hdr.pref_address, end;

		if (bz->hdr.relocatable_kernel && start < BOOT_KERNEL)
			start = BOOT_KERNEL;
		if (__builtin_add_overflow(start, (u64)bz->hdr.init_size, &end) ||
			end > GUEST_HOLE_START)
			return error_set(err, ENOEXEC,
				"%s: wants to run at %#llx with %#x bytes, outside low memory",
				bz->file->name, (unsigned long long)start, bz->hdr.init_size);
		bz->end = MAX(bz->end, end);
	}
	if (bz->end > low_end)
		return error_set(err, ENOMEM,
			"%s: needs at least %s of memory; give more with --memory", bz->file->name,
			size_format(ALIGN_UP(bz->end, 1 << 20), need));
	return 0;
}

static int bzimage_load_payload(const struct bzimage *bz, const struct guest_memory *mem,
	struct error *err)
{
	return image_load(bz->file, bz->payload_offset, mem, BOOT_KERNEL, bz->payload_size, "kernel",
		err);
}

static void bzimage_write_e820(struct boot_params *bp, const struct guest_memory *mem)
{
	struct e820 map;
	u64 above = guest_memory_low_end(mem) - (1 << 20);

	e820_build(&map, mem);
	for (unsigned i = 0; i < map.count; i++) {
		bp->e820_table[i].addr = map.entry[i].addr;
		bp->e820_table[i].size = map.entry[i].size;
		bp->e820_table[i].type = map.entry[i].type;
	}
	bp->e820_entries = map.count;
	bp->alt_mem_k = above >> 10;
	bp->screen_info.ext_mem_k = MIN(above >> 10, 0xFFFFu);
}

static int bzimage_write_params(const struct bzimage *bz, const struct guest_memory *mem,
	u64 initrd, u64 initrd_size, struct error *err)
{
	struct boot_params *bp = guest_memory_at(mem, BOOT_PARAMS, sizeof(*bp));

	if (!bp)
		return error_set(err, ENOMEM, "there is no memory for the boot parameters");
	memset(bp, 0, sizeof(*bp));
	bp->hdr = bz->hdr;
	bp->hdr.type_of_loader = LOADER_UNDEFINED;
	bp->hdr.vid_mode = VID_MODE_NORMAL;
	bp->hdr.code32_start = BOOT_KERNEL;
	bp->hdr.cmd_line_ptr = BOOT_CMDLINE;
	bp->hdr.ramdisk_image = initrd;
	bp->hdr.ramdisk_size = initrd_size;
	bp->hdr.setup_data = 0;
	bp->acpi_rsdp_addr = ACPI_AREA;
	bzimage_write_e820(bp, mem);
	return 0;
}

int bzimage_load(const struct image *kernel, const struct image *initrd, const char *cmdline,
	const struct guest_memory *mem, struct boot_entry *entry, struct error *err)
{
	struct bzimage bz = { .file = kernel };
	u64 addr, size;
	int ret;

	if ((ret = bzimage_read_header(&bz, err)) < 0 ||
	    (ret = bzimage_check_header(&bz, err)) < 0 ||
	    (ret = bzimage_find_payload(&bz, err)) < 0 ||
	    (ret = bzimage_find_end(&bz, mem, err)) < 0 ||
	    (ret = bzimage_load_payload(&bz, mem, err)) < 0)
		return ret;
	ret = boot_load_initrd(kernel, initrd, mem, bz.end, bz.hdr.initrd_addr_max, &addr, &size, err);
	if (ret < 0 || (ret = boot_write_cmdline(kernel, cmdline, bz.hdr.cmdline_size, mem, err)) < 0 ||
	    (ret = bzimage_write_params(&bz, mem, addr, size, err)) < 0)
		return ret;
	entry->rsi = BOOT_PARAMS;
	if (bz.hdr.version >= PROTOCOL_XLOADFLAGS && bz.hdr.xloadflags & XLF_KERNEL_64) {
		entry->mode = BOOT_LONG;
		entry->rip = BOOT_KERNEL + ENTRY64_OFFSET;
	} else {
		entry->mode = BOOT_PROTECTED;
		entry->rip = BOOT_KERNEL;
	}
	return 0;
}
