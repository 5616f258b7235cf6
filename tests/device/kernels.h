/* Kernel files made in memory, good ones, for tests to spoil. */
#ifndef QUMRA_TESTS_DEVICE_KERNELS_H
#define QUMRA_TESTS_DEVICE_KERNELS_H

#include <asm/bootparam.h>
#include <elf.h>
#include <string.h>

#include "lib/types.h"

#define KERNEL_PAYLOAD 8192

/* A bzImage with the given number of setup sectors after the boot sector. Returns its size. */
static inline size_t make_bzimage(u8 *buf, u8 setup_sects, u16 version, bool is64)
{
	size_t start = (setup_sects + 1) * 512;
	struct setup_header h = {
		.setup_sects = setup_sects,
		.syssize = KERNEL_PAYLOAD / 16,
		.boot_flag = 0xAA55,
		.jump = 0xEB | 0x6A << 8,
		.header = 0x53726448,
		.version = version,
		.loadflags = LOADED_HIGH,
		.code32_start = 0x100000,
		.initrd_addr_max = 0x7FFFFFFF,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.xloadflags = is64 ? XLF_KERNEL_64 : 0,
		.cmdline_size = 2047,
		.pref_address = 0x1000000,
		.init_size = 0x100000,
	};

	memset(buf, 0, start);
	memcpy(buf + 0x1F1, &h, sizeof(h));
	for (size_t i = 0; i < KERNEL_PAYLOAD; i++)
		buf[start + i] = i * 7;
	return start + KERNEL_PAYLOAD;
}

struct elf_file {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[3];
	struct {
		Elf64_Nhdr nh;
		char name[4];
		u64 entry;
	} note;
	u8 text[256], data[256];
};

/* A PVH kernel: text at 1 MiB, data with a tail of zeros at 2 MiB. */
static inline void make_elf(struct elf_file *f)
{
	*f = (struct elf_file){
		.eh = {.e_ident = ELFMAG,
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = 1,
			.e_phoff = offsetof(struct elf_file, ph),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 3},
		.ph =
			{
				{PT_LOAD, 5, offsetof(struct elf_file, text), 0, 0x100000, 256, 256,
					4096},
				{PT_LOAD, 6, offsetof(struct elf_file, data), 0, 0x200000, 256, 512,
					4096},
				{PT_NOTE, 4, offsetof(struct elf_file, note), 0, 0, sizeof(f->note),
					0, 4},
			},
		.note = {{4, 8, 18}, "Xen", 0x100010},
	};
	f->eh.e_ident[EI_CLASS] = ELFCLASS64;
	f->eh.e_ident[EI_DATA] = ELFDATA2LSB;
	f->eh.e_ident[EI_VERSION] = 1;
	memset(f->text, 0x90, sizeof(f->text));
	memset(f->data, 0xDA, sizeof(f->data));
}

#endif
