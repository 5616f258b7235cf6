/*
 * Loading of a kernel straight into guest memory, as a boot loader leaves it. A function of bytes
 * and a memory map: no hypervisor, no files beyond `struct image`. Every number in a kernel file is
 * taken for hostile.
 *
 * Low memory while booting (the kernel may reuse it all):
 */
#ifndef QUMRA_VMM_FIRMWARE_BOOT_H
#define QUMRA_VMM_FIRMWARE_BOOT_H

#include "vmm/firmware/image.h"
#include "vmm/memory/guest_memory.h"

#define BOOT_AREA		0x1000
#define BOOT_GDT		0x1000
#define BOOT_PARAMS		0x2000	/* Linux's zero page, or PVH's start info */
#define BOOT_PAGE_TABLES	0x3000	/* six pages: 4 GiB mapped one to one */
#define BOOT_AREA_END		0x9000
#define BOOT_CMDLINE		0x20000
#define BOOT_CMDLINE_SIZE	0x10000
#define BOOT_KERNEL		0x100000

/* Selectors of the GDT, as Linux's boot protocol wants them. */
#define BOOT_CS			0x10
#define BOOT_DS			0x18
#define BOOT_TR			0x20
#define BOOT_GDT_ENTRIES	5

/* BOOT_FIRMWARE: at the reset vector, as the CPU comes out of power-on. */
enum boot_mode { BOOT_PROTECTED, BOOT_LONG, BOOT_FIRMWARE };

/* The vCPU's state at the first instruction; all that is not here is zero. */
struct boot_entry {
	enum boot_mode mode;
	u64 rip, rbx, rsi;
};

/* initrd may be NULL; cmdline is never. Memory not written keeps its content. */
int boot_load(const struct image *kernel, const struct image *initrd, const char *cmdline,
	      const struct guest_memory *mem, struct boot_entry *entry, struct error *err);

/* Is it one? By its first bytes only. */
#define BOOT_PROBE_SIZE 0x1000
bool bzimage_probe(const u8 *head, u64 size);
bool elf_probe(const u8 *head, u64 size);
int bzimage_load(const struct image *kernel, const struct image *initrd, const char *cmdline,
		 const struct guest_memory *mem, struct boot_entry *entry, struct error *err);
int pvh_load(const struct image *kernel, const struct image *initrd, const char *cmdline,
	     const struct guest_memory *mem, struct boot_entry *entry, struct error *err);

/* For the loaders. */
/*
 * Loads initrd as high as possible with its last byte at most at max and its first at least at min;
 * *addr and *size are zero without one.
 */
int boot_load_initrd(const struct image *kernel, const struct image *initrd,
	const struct guest_memory *mem, u64 min, u64 max, u64 *addr, u64 *size, struct error *err);
int boot_write_cmdline(const struct image *kernel, const char *cmdline, u64 limit,
		       const struct guest_memory *mem, struct error *err);
/* GDT and page tables for the mode. */
int boot_write_tables(const struct guest_memory *mem, enum boot_mode mode, struct error *err);

#endif
