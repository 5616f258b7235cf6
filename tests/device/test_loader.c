/* The kernel loaders: what a good file leaves in memory, and one clear line for each bad one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/device/kernels.h"
#include "vmm/firmware/boot.h"
#include "vmm/firmware/e820.h"

#define MEMORY (64ULL << 20)

struct bench {
	struct guest_memory mem;
	u8 *host, *file;
	struct error err;
	struct boot_entry entry;
};

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	b->host = calloc(1, MEMORY);
	b->file = calloc(1, 1 << 20);
	b->mem.size = MEMORY;
	guest_memory_layout(&b->mem, b->host);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	free(b->host);
	free(b->file);
	free(b);
	return 0;
}

static int load(
	struct bench *b, const void *bytes, size_t size, size_t initrd_size, const char *cmdline)
{
	u8 *rd_bytes = malloc(initrd_size + 1);
	struct image kernel, initrd;
	int ret;

	memset(rd_bytes, 0xCD, initrd_size + 1);
	image_from_bytes(&kernel, "kernel", bytes, size);
	image_from_bytes(&initrd, "initrd", rd_bytes, initrd_size);
	b->err = (struct error)ERROR_INIT;
	ret = boot_load(
		&kernel, initrd_size ? &initrd : NULL, cmdline, &b->mem, &b->entry, &b->err);
	free(rd_bytes);
	return ret;
}

static void refuse(struct bench *b, const void *bytes, size_t size, const char *reason)
{
	assert_true(load(b, bytes, size, 0, "") < 0);
	assert_int_equal(b->err.kind, ERROR_FAILURE);
	if (!strstr(b->err.text, reason))
		fail_msg("\"%s\" does not say \"%s\"", b->err.text, reason);
	assert_null(strchr(b->err.text, '\n'));
}

/* ---- bzImage --------------------------------------------------------------------------------- */

static void test_bzimage64(void **state)
{
	struct bench *b = *state;
	size_t size = make_bzimage(b->file, 4, 0x20F, true);
	struct boot_params *bp = (void *)(b->host + BOOT_PARAMS);
	u64 *pml4 = (void *)(b->host + BOOT_PAGE_TABLES);

	assert_int_equal(load(b, b->file, size, 5000, "console=ttyS0"), 0);
	assert_int_equal(b->entry.mode, BOOT_LONG);
	assert_int_equal(b->entry.rip, 0x100200);
	assert_int_equal(b->entry.rsi, BOOT_PARAMS);
	assert_memory_equal(b->host + 0x100000, b->file + 5 * 512, KERNEL_PAYLOAD);
	assert_int_equal(bp->hdr.type_of_loader, 0xFF);
	assert_string_equal((char *)b->host + bp->hdr.cmd_line_ptr, "console=ttyS0");
	assert_int_equal(bp->hdr.ramdisk_image, MEMORY - 8192);
	assert_int_equal(bp->hdr.ramdisk_size, 5000);
	assert_int_equal(b->host[bp->hdr.ramdisk_image + 4999], 0xCD);
	assert_int_equal(bp->e820_entries, 6);
	assert_int_equal(bp->e820_table[3].addr, 0x100000);
	assert_int_equal(bp->e820_table[3].size, MEMORY - 0x100000);
	/* The identity map: 4 GiB by 2 MiB. */
	assert_int_equal(pml4[0] & ~0xFFFULL, BOOT_PAGE_TABLES + 0x1000);
	assert_int_equal(pml4[512 + 3] & ~0xFFFULL, BOOT_PAGE_TABLES + 0x5000);
	assert_int_equal(pml4[1024 + 2047], 2047ULL << 21 | 0xE3);
}

static void test_bzimage32(void **state)
{
	struct bench *b = *state;
	size_t size = make_bzimage(b->file, 4, 0x206, true);

	/* No sectors means four; before 2.12 there are no xloadflags. */
	b->file[0x1F1] = 0;
	assert_int_equal(load(b, b->file, size, 0, ""), 0);
	assert_int_equal(b->entry.mode, BOOT_PROTECTED);
	assert_int_equal(b->entry.rip, 0x100000);
	assert_memory_equal(b->host + 0x100000, b->file + 5 * 512, KERNEL_PAYLOAD);
	size = make_bzimage(b->file, 4, 0x20F, false);
	assert_int_equal(load(b, b->file, size, 0, ""), 0);
	assert_int_equal(b->entry.mode, BOOT_PROTECTED);
}

static void test_bzimage_initrd_limits(void **state)
{
	struct bench *b = *state;
	size_t size = make_bzimage(b->file, 4, 0x20F, true);
	struct setup_header *h = (void *)(b->file + 0x1F1);
	struct boot_params *bp = (void *)(b->host + BOOT_PARAMS);
	u64 room = MEMORY - 0x1100000;

	h->initrd_addr_max = 0x1FFFFFF;
	assert_int_equal(load(b, b->file, size, 4096, ""), 0);
	assert_int_equal(bp->hdr.ramdisk_image, 0x1FFF000);
	h->initrd_addr_max = 0xFFFFFFFF;
	assert_int_equal(load(b, b->file, size, room, ""), 0);
	assert_int_equal(bp->hdr.ramdisk_image, 0x1100000);
	assert_true(load(b, b->file, size, room + 1, "") < 0);
	assert_non_null(strstr(b->err.text, "does not fit"));
	h->initrd_addr_max = 0x1000;
	assert_true(load(b, b->file, size, 4096, "") < 0);
	h->initrd_addr_max = 0;
	assert_true(load(b, b->file, size, 1, "") < 0);
}

static void test_bzimage_cmdline(void **state)
{
	struct bench *b = *state;
	size_t size = make_bzimage(b->file, 4, 0x20F, true);
	char line[2049];

	memset(line, 'a', sizeof(line));
	line[2047] = 0;
	assert_int_equal(load(b, b->file, size, 0, line), 0);
	line[2047] = 'a';
	line[2048] = 0;
	assert_true(load(b, b->file, size, 0, line) < 0);
	assert_non_null(strstr(b->err.text, "2048 characters"));
}

static void test_bzimage_bad(void **state)
{
	struct bench *b = *state;
	size_t size;
	struct setup_header *h = (void *)(b->file + 0x1F1);

#define SPOIL(statement, reason) do { \
		size = make_bzimage(b->file, 4, 0x20F, true); \
		statement; \
		refuse(b, b->file, size, reason); \
	} while (0)
	SPOIL(h->setup_sects = 255, "truncated: setup_sects is 255");
	SPOIL(h->syssize = 0xFFFFFFFF, "truncated: syssize");
	SPOIL(h->syssize = 0, "syssize is 0");
	SPOIL(h->version = 0x205, "boot protocol 2.05");
	SPOIL(h->loadflags = 0, "zImage");
	SPOIL(h->relocatable_kernel = 0; h->code32_start = 0xFFFFFFFF, "not relocatable");
	SPOIL(h->init_size = 0xFFFFFFFF, "outside low memory");
	SPOIL(h->pref_address = ~0ULL, "outside low memory");
	SPOIL(h->pref_address = MEMORY, "needs at least 65 MiB");
	SPOIL(h->header = 0, "boot sector");
	SPOIL(size = 0x220, "truncated");
	SPOIL(size = 5 * 512, "truncated");
	SPOIL(size -= 16, "truncated: syssize");
	SPOIL(size = 0x205, "boot sector");
#undef SPOIL
}

/* ---- ELF ------------------------------------------------------------------------------------- */

struct start_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist, cmdline, rsdp, memmap;
	u32 memmap_entries;
};

static void test_pvh(void **state)
{
	struct bench *b = *state;
	struct start_info *si = (void *)(b->host + BOOT_PARAMS);
	struct elf_file f;
	u64 *module, *map;

	make_elf(&f);
	memset(b->host + 0x200000, 0xFF, 512);
	assert_int_equal(load(b, &f, sizeof(f), 100, "hello"), 0);
	assert_int_equal(b->entry.mode, BOOT_PROTECTED);
	assert_int_equal(b->entry.rip, 0x100010);
	assert_int_equal(b->entry.rbx, BOOT_PARAMS);
	assert_int_equal(b->host[0x1000FF], 0x90);
	assert_int_equal(b->host[0x2000FF], 0xDA);
	assert_int_equal(b->host[0x200100], 0);
	assert_int_equal(b->host[0x2001FF], 0);
	assert_int_equal(si->magic, 0x336EC578);
	assert_int_equal(si->version, 1);
	assert_string_equal((char *)b->host + si->cmdline, "hello");
	assert_int_equal(si->nr_modules, 1);
	module = (void *)(b->host + si->modlist);
	assert_int_equal(module[0], MEMORY - 4096);
	assert_int_equal(module[1], 100);
	assert_int_equal(si->memmap_entries, 6);
	map = (void *)(b->host + si->memmap);
	assert_int_equal(map[0], 0);
	assert_int_equal(map[1], E820_EBDA);
	assert_int_equal(si->rsdp, 0xE0000);
}

static void test_pvh_note_variants(void **state)
{
	struct bench *b = *state;
	struct elf_file f;

	make_elf(&f);
	f.note.nh.n_descsz = 4;
	f.ph[2].p_filesz = 20;
	assert_int_equal(load(b, &f, sizeof(f), 0, ""), 0);
	assert_int_equal(b->entry.rip, 0x100010);
	make_elf(&f);
	f.eh.e_machine = EM_386;
	assert_int_equal(load(b, &f, sizeof(f), 0, ""), 0);
}

static void test_pvh_bad(void **state)
{
	struct bench *b = *state;
	struct elf_file f;
	size_t size;

#define SPOIL(statement, reason) do { \
		make_elf(&f); \
		size = sizeof(f); \
		statement; \
		refuse(b, &f, size, reason); \
	} while (0)
	SPOIL(f.eh.e_ident[EI_CLASS] = 7, "class");
	SPOIL(f.eh.e_ident[EI_DATA] = ELFDATA2MSB, "big-endian");
	SPOIL(f.eh.e_machine = EM_AARCH64, "another kind of machine");
	SPOIL(f.eh.e_type = ET_REL, "not a program");
	SPOIL(f.eh.e_phentsize = 1, "wrong size");
	SPOIL(f.eh.e_phnum = 0, "0 ELF program headers");
	SPOIL(f.eh.e_phnum = 0xFFFF, "65535 ELF program headers");
	SPOIL(f.eh.e_phoff = ~0ULL, "truncated");
	SPOIL(f.eh.e_phoff = sizeof(f) - 8, "truncated");
	SPOIL(size = 20, "truncated");
	SPOIL(size = 60, "truncated");
	SPOIL(f.ph[0].p_offset = ~0ULL, "beyond the end");
	SPOIL(f.ph[0].p_offset = sizeof(f) - 255, "beyond the end");
	SPOIL(f.ph[0].p_filesz = ~0ULL; f.ph[0].p_memsz = ~0ULL, "beyond the end");
	SPOIL(f.ph[0].p_filesz = 257, "more bytes in the file than in memory");
	SPOIL(f.ph[1].p_memsz = MEMORY, "outside guest memory");
	SPOIL(f.ph[1].p_memsz = ~0ULL, "outside guest memory");
	SPOIL(f.ph[1].p_paddr = ~0ULL, "outside guest memory");
	SPOIL(f.ph[1].p_paddr = 0x9FF80, "outside guest memory");
	SPOIL(f.ph[1].p_paddr = 0x1000, "booting needs");
	SPOIL(f.ph[1].p_paddr = 0x8FF0, "booting needs");
	SPOIL(f.ph[1].p_paddr = 0x20000, "booting needs");
	SPOIL(f.ph[1].p_paddr = 0xF0000, "booting needs");
	SPOIL(f.ph[1].p_paddr = 0x1000FF, "overlaps");
	SPOIL(f.ph[0].p_type = PT_NULL; f.ph[1].p_type = PT_NULL, "outside its segments");
	SPOIL(f.note.entry = 0x100100, "outside its segments");
	SPOIL(f.note.entry = ~0ULL, "outside low memory");
	SPOIL(f.note.nh.n_type = 17, "no PVH entry point");
	SPOIL(f.note.name[0] = 'Y', "no PVH entry point");
	SPOIL(f.note.nh.n_namesz = 0xFFFFFFFF, "no PVH entry point");
	SPOIL(f.note.nh.n_descsz = 0xFFFFFFFF, "no PVH entry point");
	SPOIL(f.ph[2].p_offset = ~0ULL, "truncated");
	SPOIL(f.ph[2].p_filesz = ~0ULL, "notes of more than 1 MiB");
	SPOIL(f.ph[2].p_filesz = 1 << 20, "truncated");
	SPOIL(f.ph[2].p_type = PT_NULL, "no PVH entry point");
#undef SPOIL
}

/* ---- other files ----------------------------------------------------------------------------- */

static void test_not_kernels(void **state)
{
	struct bench *b = *state;

	refuse(b, "x", 1, "neither");
	refuse(b, "\x1f\x8b\x08", 3, "gzip");
	refuse(b, "#!/bin/sh\n", 10, "script");
	refuse(b, "070701000", 9, "--initrd");
	refuse(b, "!<arch>\ndebian-binary", 21, "unpack");
	memset(b->file, 0, 512);
	b->file[510] = 0x55;
	b->file[511] = 0xAA;
	refuse(b, b->file, 512, "boot sector");
}

static void test_files(void **state)
{
	struct bench *b = *state;
	char path[] = "/tmp/qumra-test-XXXXXX";
	int fd = mkstemp(path);
	struct guest_memory mem;
	struct image image;

	b->err = (struct error)ERROR_INIT;
	assert_true(image_open(&image, "/nonexistent/kernel", &b->err) < 0);
	assert_string_equal(b->err.text, "/nonexistent/kernel: No such file or directory");
	b->err = (struct error)ERROR_INIT;
	assert_true(image_open(&image, "/", &b->err) < 0);
	assert_string_equal(b->err.text, "/: is a directory");
	b->err = (struct error)ERROR_INIT;
	assert_true(image_open(&image, path, &b->err) < 0);
	assert_non_null(strstr(b->err.text, "is empty"));
	/* Guest memory keeps what it had when the file is cut short later. */
	for (size_t i = 0; i < 10000; i++)
		b->file[i] = i * 3;
	assert_int_equal(write(fd, b->file, 10000), 10000);
	b->err = (struct error)ERROR_INIT;
	assert_int_equal(image_open(&image, path, &b->err), 0);
	assert_int_equal(guest_memory_create(&mem, 8 << 20, NULL, &b->err), 0);
	assert_int_equal(image_load(&image, 0, &mem, 0x100000, 10000, "file", &b->err), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_memory_equal(guest_memory_at(&mem, 0x100000, 10000), b->file, 10000);
	assert_true(image_load(&image, 0, &mem, 0x100000, 10001, "file", &b->err) < 0);
	guest_memory_destroy(&mem);
	image_close(&image);
	close(fd);
	unlink(path);
}

/* ---- memory map ------------------------------------------------------------------------------ */

static void test_layout(void **state)
{
	struct guest_memory mem = { .size = 5ULL << 30 };
	u8 *host = (u8 *)0x10000000;	/* addresses only */
	struct e820 map;

	(void)state;
	guest_memory_layout(&mem, host);
	assert_int_equal(mem.count, 3);
	assert_ptr_equal(guest_memory_at(&mem, 0, 0xA0000), host);
	assert_null(guest_memory_at(&mem, 0, 0xA0001));
	assert_null(guest_memory_at(&mem, 0xA0000, 1));
	assert_null(guest_memory_at(&mem, 0xBFFFF, 2));
	assert_ptr_equal(guest_memory_at(&mem, 0xC0000, 1), host + 0xC0000);
	assert_null(guest_memory_at(&mem, 0x7FFFFFFF, 2));
	assert_ptr_equal(guest_memory_at(&mem, 1ULL << 32, 3ULL << 30), host + (2ULL << 30));
	assert_null(guest_memory_at(&mem, 1ULL << 32, (3ULL << 30) + 1));
	assert_null(guest_memory_at(&mem, ~0ULL, 2));
	assert_null(guest_memory_at(&mem, 0x1000, ~0ULL));
	assert_int_equal(guest_memory_low_end(&mem), 2ULL << 30);
	assert_int_equal(guest_memory_high_size(&mem), 3ULL << 30);
	e820_build(&map, &mem);
	for (unsigned i = 1; i < map.count; i++)
		assert_true(map.entry[i - 1].addr + map.entry[i - 1].size <= map.entry[i].addr);
	assert_int_equal(map.entry[map.count - 1].addr, 1ULL << 32);
	/* What fits below the devices stays there in one piece. */
	mem.size = GUEST_HOLE_START;
	guest_memory_layout(&mem, host);
	assert_int_equal(guest_memory_low_end(&mem), GUEST_HOLE_START);
	assert_int_equal(guest_memory_high_size(&mem), 0);
}

static void test_memory_sizes(void **state)
{
	struct error err;

	(void)state;
#define CHECK(size) (err = (struct error)ERROR_INIT, guest_memory_check(size, &err))
	assert_int_equal(CHECK(4 << 20), 0);
	assert_true(CHECK(0) < 0);
	assert_int_equal(err.kind, ERROR_USAGE);
	assert_true(CHECK(3 << 20) < 0);
	assert_true(CHECK((4 << 20) + 1) < 0);
	assert_true(CHECK(1ULL << 40) < 0);
	assert_true(CHECK(~0ULL) < 0);
#undef CHECK
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bzimage64, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bzimage32, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bzimage_initrd_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bzimage_cmdline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bzimage_bad, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pvh, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pvh_note_variants, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pvh_bad, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_kernels, setup, teardown),
		cmocka_unit_test_setup_teardown(test_files, setup, teardown),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_memory_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
