/*
 * A kernel that firmware boots: in parts in fw_cfg, as UEFI's loader and the option ROM
 * linuxboot_dma.bin take them (Linux' Documentation/arch/x86/boot.rst; the option ROM copies
 * what is here to where it says, and jumps into the real-mode part).
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/firmware/boot.h"
#include "vmm/firmware/firmware.h"

#define SECTOR		512
#define SETUP_ADDRESS	0x10000
#define HEAP_END	0xE000	/* of the 64 KiB there; the rest is a stack */
#define LOADER_QEMU	0xB0	/* what this way of loading has as its number */
#define BOOT_AREA_TOP	0x28000	/* kept free below the end of RAM for firmware's tables */

static const char option_rom_path[] = "/usr/share/qemu/linuxboot_dma.bin";

static int kernel_setup_size(const struct image *kernel, u32 *size, struct error *err)
{
	u8 sectors;
	int ret = image_read(kernel, offsetof(struct boot_params, hdr.setup_sects), &sectors, 1,
		"setup header", err);

	*size = ((sectors ? sectors : 4) + 1) * SECTOR;
	if (ret == 0 && *size >= kernel->size)
		return error_set(err, ENOEXEC, "%s: is truncated: there is no kernel in it",
			kernel->name);
	return ret;
}

static int kernel_place_initrd(
	struct firmware *fw, struct setup_header *hdr, struct error *err)
{
	const struct image *initrd = fw->config.initrd;
	u64 top = guest_memory_low_end(fw->config.memory) - BOOT_AREA_TOP;
	u64 at;

	if (!initrd)
		return 0;
	top = MIN(top, (u64)hdr->initrd_addr_max + 1);
	at = initrd->size < top ? ALIGN_DOWN(top - initrd->size, 4096) : 0;
	if (at < BOOT_KERNEL + (u64)hdr->init_size)
		return error_set(err, ENOMEM,
			"%s: does not fit into memory beside the kernel; give more with --memory",
			initrd->name);
	hdr->ramdisk_image = at;
	hdr->ramdisk_size = initrd->size;
	fw_cfg_add_number(&fw->cfg, FW_CFG_INITRD_ADDR, at, 4);
	fw_cfg_add_number(&fw->cfg, FW_CFG_INITRD_SIZE, initrd->size, 4);
	fw_cfg_add_image(&fw->cfg, FW_CFG_INITRD_DATA, initrd, 0, initrd->size);
	return 0;
}

static int kernel_check(const struct image *kernel, const u8 *setup, u32 size,
	const struct setup_header *hdr, struct error *err)
{
	if (!bzimage_probe(setup, size))
		return error_set(err, ENOEXEC, "%s: firmware boots bzImages only", kernel->name);
	if (hdr->version < 0x206 || !(hdr->loadflags & LOADED_HIGH))
		return error_set(err, ENOEXEC, "%s: boot protocol 2.06 is the oldest supported",
			kernel->name);
	return 0;
}

static void kernel_patch_header(struct setup_header *hdr)
{
	hdr->type_of_loader = LOADER_QEMU;
	hdr->loadflags |= CAN_USE_HEAP;
	hdr->heap_end_ptr = HEAP_END - 0x200;
	hdr->cmd_line_ptr = BOOT_CMDLINE;
}

static void kernel_add_parts(struct firmware *fw, u32 setup_size)
{
	const struct image *kernel = fw->config.kernel;
	struct fw_cfg *cfg = &fw->cfg;

	fw_cfg_add_number(cfg, FW_CFG_SETUP_ADDR, SETUP_ADDRESS, 4);
	fw_cfg_add_number(cfg, FW_CFG_SETUP_SIZE, setup_size, 4);
	fw_cfg_add(cfg, FW_CFG_SETUP_DATA, fw->setup, setup_size);
	fw_cfg_add_number(cfg, FW_CFG_KERNEL_ADDR, BOOT_KERNEL, 4);
	fw_cfg_add_number(cfg, FW_CFG_KERNEL_SIZE, kernel->size - setup_size, 4);
	fw_cfg_add_image(cfg, FW_CFG_KERNEL_DATA, kernel, setup_size, kernel->size - setup_size);
	fw_cfg_add_number(cfg, FW_CFG_CMDLINE_ADDR, BOOT_CMDLINE, 4);
	fw_cfg_add_number(cfg, FW_CFG_CMDLINE_SIZE, strlen(fw->config.cmdline) + 1, 4);
	fw_cfg_add(cfg, FW_CFG_CMDLINE_DATA, fw->config.cmdline, strlen(fw->config.cmdline) + 1);
}

static int kernel_read_setup(struct firmware *fw, u32 *size, struct error *err)
{
	const struct image *kernel = fw->config.kernel;
	int ret = kernel_setup_size(kernel, size, err);

	if (ret < 0)
		return ret;
	fw->setup = calloc(1, MAX(*size, (u32)sizeof(struct boot_params)));
	if (!fw->setup)
		return error_set(err, ENOMEM, "out of memory");
	return image_read(kernel, 0, fw->setup, *size, "setup code", err);
}

/* UEFI starts the kernel by itself; a BIOS needs the ROM, and finds it first in the boot order. */
static int kernel_add_option_rom(struct firmware *fw, struct error *err)
{
	int ret;

	if (fw->vars)
		return 0;
	if ((ret = image_open(&fw->option_rom, option_rom_path, err)) < 0)
		return ret;
	fw->option_rom_data = malloc(fw->option_rom.size);
	if (!fw->option_rom_data)
		return error_set(err, ENOMEM, "out of memory");
	ret = image_read(&fw->option_rom, 0, fw->option_rom_data, fw->option_rom.size, "ROM", err);
	if (ret < 0)
		return ret;
	fw->boot_first = "/rom@genroms/linuxboot_dma.bin";
	if (fw_cfg_add_file(&fw->cfg, "genroms/linuxboot_dma.bin", fw->option_rom_data,
		    fw->option_rom.size) < 0)
		return error_set(err, ENOSPC, "too many files for the firmware");
	return 0;
}

int firmware_add_kernel(struct firmware *fw, struct error *err)
{
	struct setup_header *hdr;
	u32 size;
	int ret = kernel_read_setup(fw, &size, err);

	if (ret < 0)
		return ret;
	hdr = (struct setup_header *)(fw->setup + offsetof(struct boot_params, hdr));
	if ((ret = kernel_check(fw->config.kernel, fw->setup, size, hdr, err)) < 0)
		return ret;
	if (strlen(fw->config.cmdline) > MIN(hdr->cmdline_size, BOOT_CMDLINE_SIZE - 1u))
		return error_set(err, E2BIG, "--append: is longer than the kernel takes");
	kernel_patch_header(hdr);
	if ((ret = kernel_place_initrd(fw, hdr, err)) < 0)
		return ret;
	kernel_add_parts(fw, size);
	return kernel_add_option_rom(fw, err);
}
