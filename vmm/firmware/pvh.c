/*
 * ELF kernels by the PVH boot protocol (Xen's docs/misc/pvh.pandoc, hvm_start_info of
 * xen/include/public/arch-x86/hvm/start_info.h): a 32-bit entry point given by an ELF note, paging
 * off, EBX at a description of memory, command line and initrd.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/firmware/boot.h"
#include "vmm/firmware/e820.h"
#include "vmm/machine/acpi.h"

#define XEN_ELFNOTE_PHYS32_ENTRY	18
#define NOTES_MAX			(1 << 20)
#define PHNUM_MAX			256

#define START_MAGIC	0x336EC578	/* "xEn3", high bit of the E set */

struct pvh_start_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist, cmdline, rsdp, memmap;
	u32 memmap_entries, reserved;
};
struct pvh_module {
	u64 addr, size, cmdline, reserved;
};
struct pvh_memmap {
	u64 addr, size;
	u32 type, reserved;
};
_Static_assert(sizeof(struct pvh_start_info) == 56 && sizeof(struct pvh_module) == 32 &&
	       sizeof(struct pvh_memmap) == 24, "start_info.h");

struct pvh_page {
	struct pvh_start_info info;
	struct pvh_module module;
	struct pvh_memmap memmap[E820_MAX];
};
_Static_assert(sizeof(struct pvh_page) <= 4096, "one page at BOOT_PARAMS");

/* One program header, of either class. */
struct segment {
	u32 type;
	u64 offset, paddr, filesz, memsz, align;
};

struct elf {
	const struct image *file;
	bool is64;
	u64 phoff;
	unsigned phnum;
	struct segment *segment;
	u64 entry;	/* of the note */
	bool has_entry;
	u64 end;	/* of the highest segment below 4 GiB */
};

bool elf_probe(const u8 *head, u64 size)
{
	return size >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0;
}

static int elf_bad(const struct elf *elf, struct error *err, const char *reason)
{
	return error_set(err, ENOEXEC, "%s: %s", elf->file->name, reason);
}

/* ---- headers --------------------------------------------------------------------------------- */

static int elf_read_header(struct elf *elf, struct error *err)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf32_Ehdr e32;
		Elf64_Ehdr e64;
	} h = { { 0 } };
	unsigned type, machine, phentsize;
	int ret = image_read(elf->file, 0, &h, sizeof(h.e32), "ELF header", err);

	if (ret < 0)
		return ret;
	elf->is64 = h.ident[EI_CLASS] == ELFCLASS64;
	if (!elf->is64 && h.ident[EI_CLASS] != ELFCLASS32)
		return elf_bad(elf, err, "is an ELF file of no known class");
	if (h.ident[EI_DATA] != ELFDATA2LSB)
		return elf_bad(elf, err, "is a big-endian ELF file");
	if (elf->is64 && (ret = image_read(elf->file, 0, &h, sizeof(h.e64), "ELF header", err)) < 0)
		return ret;
	type = elf->is64 ? h.e64.e_type : h.e32.e_type;
	machine = elf->is64 ? h.e64.e_machine : h.e32.e_machine;
	phentsize = elf->is64 ? h.e64.e_phentsize : h.e32.e_phentsize;
	elf->phoff = elf->is64 ? h.e64.e_phoff : h.e32.e_phoff;
	elf->phnum = elf->is64 ? h.e64.e_phnum : h.e32.e_phnum;
	if (machine != EM_X86_64 && machine != EM_386)
		return elf_bad(elf, err, "is an ELF file for another kind of machine");
	if (type != ET_EXEC && type != ET_DYN)
		return elf_bad(elf, err, "is an ELF file but not a program");
	if (phentsize != (elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return elf_bad(elf, err, "has ELF program headers of a wrong size");
	if (elf->phnum == 0 || elf->phnum > PHNUM_MAX)
		return error_set(err, ENOEXEC,
			"%s: has %u ELF program headers; 1 to %d are supported", elf->file->name,
			elf->phnum, PHNUM_MAX);
	return 0;
}

static int elf_read_segment(struct elf *elf, unsigned i, struct segment *s, struct error *err)
{
	Elf64_Phdr p64;
	Elf32_Phdr p32;
	int ret;

	if (elf->is64) {
		ret = image_read(elf->file, elf->phoff + i * sizeof(p64), &p64, sizeof(p64),
			"program header", err);
		if (ret == 0)
			*s = (struct segment){p64.p_type, p64.p_offset, p64.p_paddr, p64.p_filesz,
				p64.p_memsz, p64.p_align};
	} else {
		ret = image_read(elf->file, elf->phoff + i * sizeof(p32), &p32, sizeof(p32),
			"program header", err);
		if (ret == 0)
			*s = (struct segment){p32.p_type, p32.p_offset, p32.p_paddr, p32.p_filesz,
				p32.p_memsz, p32.p_align};
	}
	return ret;
}

static int elf_read_segments(struct elf *elf, struct error *err)
{
	if (elf->phoff > elf->file->size)
		return elf_bad(
			elf, err, "is truncated: its ELF program headers lie beyond its end");
	elf->segment = calloc(elf->phnum, sizeof(*elf->segment));
	if (!elf->segment)
		return error_set(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < elf->phnum; i++) {
		int ret = elf_read_segment(elf, i, &elf->segment[i], err);

		if (ret < 0)
			return ret;
	}
	return 0;
}

/* ---- notes ----------------------------------------------------------------------------------- */

/* Looks through notes of n bytes. Padding is to 4 bytes, or to 8 where the segment says so. */
static void elf_scan_notes(struct elf *elf, const u8 *notes, u64 n, u64 align)
{
	u64 at = 0;

	while (n - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr h;
		u64 name, desc, next;

		memcpy(&h, notes + at, sizeof(h));
		name = at + sizeof(h);
		desc = ALIGN_UP(name + h.n_namesz, align);
		next = ALIGN_UP(desc + h.n_descsz, align);
		if (desc > n || h.n_descsz > n - desc)
			return;
		if (h.n_type == XEN_ELFNOTE_PHYS32_ENTRY && h.n_namesz == 4 &&
		    memcmp(notes + name, "Xen", 4) == 0 && (h.n_descsz == 4 || h.n_descsz == 8)) {
			elf->entry = 0;
			memcpy(&elf->entry, notes + desc, h.n_descsz);
			elf->has_entry = true;
			return;
		}
		if (next > n)
			return;
		at = next;
	}
}

static int elf_find_entry(struct elf *elf, struct error *err)
{
	for (unsigned i = 0; i < elf->phnum && !elf->has_entry; i++) {
		const struct segment *s = &elf->segment[i];
		u8 *notes;
		int ret;

		if (s->type != PT_NOTE || s->filesz < sizeof(Elf64_Nhdr))
			continue;
		if (s->filesz > NOTES_MAX)
			return elf_bad(elf, err, "has ELF notes of more than 1 MiB");
		notes = malloc(s->filesz);
		if (!notes)
			return error_set(err, ENOMEM, "out of memory");
		ret = image_read(elf->file, s->offset, notes, s->filesz, "ELF note segment", err);
		if (ret == 0)
			elf_scan_notes(elf, notes, s->filesz, s->align == 8 ? 8 : 4);
		free(notes);
		if (ret < 0)
			return ret;
	}
	if (!elf->has_entry)
		return elf_bad(elf, err,
			"has no PVH entry point (ELF note Xen 18); boot the bzImage instead, or "
			"build with CONFIG_PVH=y");
	if (elf->entry >= GUEST_HOLE_START)
		return error_set(err, ENOEXEC,
			"%s: has its PVH entry point at %#llx, outside low memory", elf->file->name,
			(unsigned long long)elf->entry);
	return 0;
}

/* ---- segments -------------------------------------------------------------------------------- */

static bool ranges_overlap(u64 a, u64 an, u64 b, u64 bn)
{
	return a < b + bn && b < a + an;
}

/* Memory that we use ourselves while booting. */
static bool segment_hits_boot_data(const struct segment *s)
{
	return ranges_overlap(s->paddr, s->memsz, BOOT_AREA, BOOT_AREA_END - BOOT_AREA) ||
	       ranges_overlap(s->paddr, s->memsz, BOOT_CMDLINE, BOOT_CMDLINE_SIZE) ||
	       ranges_overlap(s->paddr, s->memsz, ACPI_AREA, ACPI_AREA_SIZE + MP_AREA_SIZE);
}

static int elf_bad_segment(const struct elf *elf, unsigned i, struct error *err, const char *reason)
{
	const struct segment *s = &elf->segment[i];

	return error_set(err, ENOEXEC, "%s: ELF segment %u (%#llx bytes at %#llx) %s",
		elf->file->name, i, (unsigned long long)s->memsz, (unsigned long long)s->paddr,
		reason);
}

static int elf_check_segment(const struct elf *elf, unsigned i, const struct guest_memory *mem,
			     struct error *err)
{
	const struct segment *s = &elf->segment[i];

	if (s->filesz > s->memsz)
		return elf_bad_segment(elf, i, err, "has more bytes in the file than in memory");
	if (s->offset > elf->file->size || s->filesz > elf->file->size - s->offset)
		return elf_bad_segment(elf, i, err, "lies beyond the end of the file");
	if (!guest_memory_at(mem, s->paddr, s->memsz))
		return elf_bad_segment(elf, i, err, "lies outside guest memory");
	if (segment_hits_boot_data(s))
		return elf_bad_segment(elf, i, err, "covers memory that booting needs");
	for (unsigned j = 0; j < i; j++) {
		const struct segment *o = &elf->segment[j];

		if (o->type == PT_LOAD && o->memsz &&
			ranges_overlap(s->paddr, s->memsz, o->paddr, o->memsz))
			return elf_bad_segment(elf, i, err, "overlaps another segment");
	}
	return 0;
}

static int elf_load_segments(struct elf *elf, const struct guest_memory *mem, struct error *err)
{
	bool holds_entry = false;

	for (unsigned i = 0; i < elf->phnum; i++) {
		const struct segment *s = &elf->segment[i];
		int ret;

		if (s->type != PT_LOAD || !s->memsz)
			continue;
		ret = elf_check_segment(elf, i, mem, err);
		if (ret < 0)
			return ret;
		ret = image_load(
			elf->file, s->offset, mem, s->paddr, s->filesz, "ELF segment", err);
		if (ret < 0)
			return ret;
		memset((u8 *)guest_memory_at(mem, s->paddr, s->memsz) + s->filesz, 0,
			s->memsz - s->filesz);
		if (s->paddr < GUEST_HOLE_START)
			elf->end = MAX(elf->end, s->paddr + s->memsz);
		holds_entry |= elf->entry >= s->paddr && elf->entry - s->paddr < s->filesz;
	}
	if (!holds_entry)
		return elf_bad(elf, err, "has its PVH entry point outside its segments");
	return 0;
}

/* ---- start info ------------------------------------------------------------------------------ */

static int pvh_write_info(
	const struct guest_memory *mem, u64 initrd, u64 initrd_size, struct error *err)
{
	struct pvh_page *page = guest_memory_at(mem, BOOT_PARAMS, sizeof(*page));
	struct e820 map;

	if (!page)
		return error_set(err, ENOMEM, "there is no memory for the start info");
	e820_build(&map, mem);
	memset(page, 0, sizeof(*page));
	page->info = (struct pvh_start_info){
		.magic = START_MAGIC,
		.version = 1,
		.nr_modules = initrd_size ? 1 : 0,
		.modlist = initrd_size ? BOOT_PARAMS + offsetof(struct pvh_page, module) : 0,
		.cmdline = BOOT_CMDLINE,
		.rsdp = ACPI_AREA,
		.memmap = BOOT_PARAMS + offsetof(struct pvh_page, memmap),
		.memmap_entries = map.count,
	};
	page->module = (struct pvh_module){ .addr = initrd, .size = initrd_size };
	for (unsigned i = 0; i < map.count; i++)
		page->memmap[i] = (struct pvh_memmap){
			map.entry[i].addr, map.entry[i].size, map.entry[i].type, 0};
	return 0;
}

int pvh_load(const struct image *kernel, const struct image *initrd, const char *cmdline,
	     const struct guest_memory *mem, struct boot_entry *entry, struct error *err)
{
	struct elf elf = { .file = kernel, .end = BOOT_KERNEL };
	u64 rd_addr, rd_size;
	int ret;

	if ((ret = elf_read_header(&elf, err)) < 0 || (ret = elf_read_segments(&elf, err)) < 0 ||
	    (ret = elf_find_entry(&elf, err)) < 0 || (ret = elf_load_segments(&elf, mem, err)) < 0)
		goto out;
	if ((ret = boot_load_initrd(kernel, initrd, mem, elf.end, GUEST_HOLE_START - 1, &rd_addr,
		     &rd_size, err)) < 0 ||
		(ret = boot_write_cmdline(kernel, cmdline, BOOT_CMDLINE_SIZE, mem, err)) < 0 ||
		(ret = pvh_write_info(mem, rd_addr, rd_size, err)) < 0)
		goto out;
	*entry = (struct boot_entry){.mode = BOOT_PROTECTED, .rip = elf.entry, .rbx = BOOT_PARAMS};
out:
	free(elf.segment);
	return ret;
}
