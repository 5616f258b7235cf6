/* What firmware talks to: fw_cfg and its content, flash memory, the shadow below 1 MiB. */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/device/fixture.h"
#include "vmm/firmware/firmware.h"
#include "vmm/machine/pc.h"
#include "vmm/memory/slots.h"

#define MEMORY (16ULL << 20)

/* ---- fw_cfg ---------------------------------------------------------------------------------- */

struct board {
	struct guest_memory mem;
	u8 *ram;
	struct fw_cfg cfg;
	struct image image;
	u8 file[3000];
	unsigned selects;
};

static void on_select(void *arg)
{
	((struct board *)arg)->selects++;
}

static int setup(void **state)
{
	static struct board b;

	memset(&b, 0, sizeof(b));
	b.mem.size = MEMORY;
	b.ram = calloc(1, MEMORY);
	guest_memory_layout(&b.mem, b.ram);
	fw_cfg_init(&b.cfg, &b.mem);
	for (size_t i = 0; i < sizeof(b.file); i++)
		b.file[i] = i * 7;
	image_from_bytes(&b.image, "file", b.file, sizeof(b.file));
	assert_int_equal(fw_cfg_add_file(&b.cfg, "etc/one", "hello", 5), 0);
	assert_int_equal(fw_cfg_add_file_number(&b.cfg, "etc/two", 0x1234, 2), 0);
	fw_cfg_set_select(&b.cfg, "etc/one", on_select, &b);
	fw_cfg_add_image(&b.cfg, FW_CFG_KERNEL_DATA, &b.image, 100, 2000);
	*state = &b;
	return 0;
}

static int teardown(void **state)
{
	free(((struct board *)*state)->ram);
	return 0;
}

static void select_key(struct board *b, u16 key)
{
	fw_cfg_io_ops.write(&b->cfg, 0, key, 2);
}

static void read_bytes(struct board *b, void *dst, size_t n)
{
	for (u8 *p = dst; n--; p++)
		*p = fw_cfg_io_ops.read(&b->cfg, 1, 1);
}

/* The key of a file, found as firmware finds it. */
static u16 find_file(struct board *b, const char *name, u32 *size)
{
	u8 count[4], entry[64];

	select_key(b, FW_CFG_FILE_DIR);
	read_bytes(b, count, 4);
	for (unsigned n = count[3] | count[2] << 8; n; n--) {
		read_bytes(b, entry, sizeof(entry));
		if (strcmp((char *)entry + 8, name) == 0) {
			*size = (u32)entry[0] << 24 | entry[1] << 16 | entry[2] << 8 | entry[3];
			return entry[4] << 8 | entry[5];
		}
	}
	return 0;
}

static void test_ports(void **state)
{
	struct board *b = *state;
	u8 buf[2100];
	u32 size;
	u16 key;

	select_key(b, FW_CFG_SIGNATURE);
	read_bytes(b, buf, 6);
	assert_memory_equal(buf, "QEMU\0\0", 6);
	select_key(b, FW_CFG_ID);
	read_bytes(b, buf, 4);
	assert_memory_equal(buf, "\3\0\0\0", 4);
	key = find_file(b, "etc/one", &size);
	assert_int_equal(size, 5);
	assert_int_equal(b->selects, 0);
	select_key(b, key);
	assert_int_equal(b->selects, 1);
	read_bytes(b, buf, 7);
	assert_memory_equal(buf, "hello\0\0", 7);
	key = find_file(b, "etc/two", &size);
	select_key(b, key);
	read_bytes(b, buf, 2);
	assert_memory_equal(buf, "\x34\x12", 2);
	assert_int_equal(find_file(b, "etc/three", &size), 0);
	/* A part of a file, over the ends of what is read ahead. */
	select_key(b, FW_CFG_KERNEL_DATA);
	read_bytes(b, buf, 2100);
	assert_memory_equal(buf, b->file + 100, 2000);
	assert_int_equal(buf[2000], 0);
	/* Keys that there are not. */
	select_key(b, 0xFFFF);
	read_bytes(b, buf, 3);
	assert_memory_equal(buf, "\0\0\0", 3);
	fw_cfg_io_ops.write(&b->cfg, 1, 0x55, 1);
	/* Limits of the directory. */
	memset(buf, 'x', 56);
	buf[56] = 0;
	assert_int_equal(fw_cfg_add_file(&b->cfg, (char *)buf, "", 0), -EINVAL);
	for (int i = 2; i < FW_CFG_FILES_MAX; i++) {
		buf[3] = 0;
		buf[0] = 'a' + i / 26;
		buf[1] = 'a' + i % 26;
		assert_int_equal(fw_cfg_add_file(&b->cfg, (char *)buf, "", 0), 0);
	}
	assert_int_equal(fw_cfg_add_file(&b->cfg, "more", "", 0), -ENOSPC);
	assert_int_equal(fw_cfg_add_file(&b->cfg, "etc/one", "again", 5), 0);
}

#define COMMAND 0x1000

static u32 dma(struct board *b, u32 control, u32 length, u64 address)
{
	u32 head[2] = { __builtin_bswap32(control), __builtin_bswap32(length) };

	memcpy(b->ram + COMMAND, head, 8);
	address = __builtin_bswap64(address);
	memcpy(b->ram + COMMAND + 8, &address, 8);
	fw_cfg_dma_ops.write(&b->cfg, 0, 0, 4);
	fw_cfg_dma_ops.write(&b->cfg, 4, __builtin_bswap32(COMMAND), 4);
	memcpy(&control, b->ram + COMMAND, 4);
	return __builtin_bswap32(control);
}

enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

static void test_dma(void **state)
{
	struct board *b = *state;
	u8 *dst = b->ram + 0x100000;

	assert_true(fw_cfg_dma_ops.read(&b->cfg, 0, 8) == 0x47464320554D4551ULL);
	memset(dst, 0xCC, 4096);
	assert_int_equal(dma(b, FW_CFG_KERNEL_DATA << 16 | SELECT | READ, 1000, 0x100000), 0);
	assert_memory_equal(dst, b->file + 100, 1000);
	assert_int_equal(dst[1000], 0xCC);
	/* On from there, over the end: zeros. */
	assert_int_equal(dma(b, SKIP, 500, 0), 0);
	assert_int_equal(dma(b, READ, 600, 0x100000), 0);
	assert_memory_equal(dst, b->file + 1600, 500);
	assert_int_equal(dst[500], 0);
	assert_int_equal(dst[599], 0);
	assert_int_equal(dma(b, SKIP, ~0u, 0), 0);
	assert_int_equal(dma(b, READ, 4, 0x100000), 0);
	assert_memory_equal(dst, "\0\0\0\0", 4);
	/* Not memory, not all memory, not writable. */
	assert_int_equal(dma(b, SELECT | READ, 4, 0xA0000), ERROR);
	assert_int_equal(dma(b, READ, 4, MEMORY - 2), ERROR);
	assert_int_equal(dma(b, READ, ~0u, 0x100000), ERROR);
	assert_int_equal(dma(b, READ, 16, ~0ULL - 8), ERROR);
	assert_int_equal(dma(b, WRITE, 4, 0x100000), ERROR);
	assert_int_equal(dma(b, READ, 0, ~0ULL), 0);
	/* Over its own command: done from a copy. */
	assert_int_equal(dma(b, FW_CFG_KERNEL_DATA << 16 | SELECT | READ, 64, COMMAND - 8), 0);
	/* A command that is not in memory does nothing. */
	fw_cfg_dma_ops.write(&b->cfg, 0, __builtin_bswap32(1), 4);
	fw_cfg_dma_ops.write(&b->cfg, 4, ~0u, 4);
	fw_cfg_dma_ops.write(&b->cfg, 0, ~0ULL, 8);
	fw_cfg_dma_ops.write(&b->cfg, 3, 1, 1);
}

/* Saved with a file half read and half an address written. */
static void test_fw_cfg_state(void **state)
{
	struct board *b = *state;
	struct device dev = { .ops = &fw_cfg_device_ops, .self = &b->cfg };
	u8 saved[256], buf[4];
	long n;

	select_key(b, FW_CFG_KERNEL_DATA);
	read_bytes(b, buf, 3);
	fw_cfg_dma_ops.write(&b->cfg, 0, __builtin_bswap32(7), 4);
	n = device_save(&dev, saved, sizeof(saved));
	check_round_trip(&fw_cfg_device_ops, &b->cfg);
	fw_cfg_device_ops.reset(&b->cfg);
	assert_int_equal(device_load(&dev, saved, n), n);
	read_bytes(b, buf, 4);
	assert_memory_equal(buf, b->file + 103, 4);
	assert_true(b->cfg.dma == 7ULL << 32);
}

/* ---- what is in it --------------------------------------------------------------------------- */

static u8 *dma_file(struct board *b, const char *name, u64 at, u32 *size)
{
	u16 key = find_file(b, name, size);

	assert_int_not_equal(key, 0);
	assert_int_equal(dma(b, (u32)key << 16 | SELECT | READ, *size, at), 0);
	return b->ram + at;
}

static u64 place_of(const char *file)
{
	if (strcmp(file, "etc/vmgenid_guid") == 0)
		return 0x700000;
	return strcmp(file, "etc/acpi/rsdp") == 0 ? 0x200000 : 0x300000;
}

/* Where the file src lies goes into the file dest. */
static void run_write_pointer(struct board *b, const u8 *c)
{
	u32 offset[2], size;
	u64 place;
	u16 key = find_file(b, (const char *)c + 4, &size);

	memcpy(offset, c + 116, 8);
	assert_int_equal(c[124], 8);
	place = place_of((const char *)c + 60) + offset[1];
	memcpy(b->ram + 0x800000, &place, 8);
	assert_int_equal(dma(b, (u32)key << 16 | SELECT | SKIP, offset[0], 0), 0);
	assert_int_equal(dma(b, WRITE, 8, 0x800000), 0);
	/* Behind its end, outside of memory, and to files that are for reading: nothing. */
	assert_int_equal(dma(b, WRITE, 1, 0x800000), ERROR);
	assert_int_equal(dma(b, (u32)key << 16 | SELECT | WRITE, 9, 0x800000), ERROR);
	assert_int_equal(dma(b, (u32)key << 16 | SELECT | WRITE, 8, MEMORY - 4), ERROR);
	key = find_file(b, "etc/vmgenid_guid", &size);
	assert_int_equal(dma(b, (u32)key << 16 | SELECT | WRITE, 8, 0x800000), ERROR);
}

static void run_command(struct board *b, const u8 *c)
{
	u32 command, at[3];
	u64 value = 0;
	u8 *p;

	memcpy(&command, c, 4);
	switch (command) {
	case 1:
		break;
	case 2:
		memcpy(at, c + 116, 4);
		p = b->ram + place_of((char *)c + 4) + at[0];
		memcpy(&value, p, c[120]);
		value += place_of((char *)c + 60);
		memcpy(p, &value, c[120]);
		break;
	case 3:
		memcpy(at, c + 60, 12);
		p = b->ram + place_of((char *)c + 4);
		p[at[0]] = firmware_checksum(p + at[1], at[2]);
		break;
	case 4:
		run_write_pointer(b, c);
		break;
	default:
		assert_int_equal(command, 0);
	}
}

static u32 load_u32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

/* Does what firmware does with the loader's commands, then looks at the tables. */
static void test_tables(void **state)
{
	static struct firmware fw;
	static const struct cpu_topology cpus = { 1, 2, 2 };
	static const char *const want[] = { "FACP", "APIC", "MCFG" };
	struct board *b = *state;
	struct error err = ERROR_INIT;
	u32 size;
	const u8 *commands, *rsdt;

	fw.config = (struct firmware_config){ .memory = &b->mem, .cpus = &cpus, .cmdline = "" };
	fw_cfg_init(&fw.cfg, &b->mem);
	assert_int_equal(firmware_fill(&fw, &err), 0);
	b->cfg = fw.cfg;
	dma_file(b, "etc/acpi/rsdp", 0x200000, &size);
	assert_int_equal(size, 36);
	dma_file(b, "etc/acpi/tables", 0x300000, &size);
	assert_int_equal(size % 4096, 0);
	commands = dma_file(b, "etc/table-loader", 0x400000, &size);
	for (u32 i = 0; i < size; i += 128)
		run_command(b, commands + i);
	assert_memory_equal(b->ram + 0x200000, "RSD PTR ", 8);
	assert_int_equal(firmware_checksum(b->ram + 0x200000, 20), 0);
	assert_int_equal(firmware_checksum(b->ram + 0x200000, 36), 0);
	rsdt = b->ram + load_u32(b->ram + 0x200010);
	assert_memory_equal(rsdt, "RSDT", 4);
	assert_int_equal(firmware_checksum(rsdt, load_u32(rsdt + 4)), 0);
	assert_int_equal(load_u32(rsdt + 4), 36 + 4 * ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		const u8 *t = b->ram + load_u32(rsdt + 36 + 4 * i);

		assert_memory_equal(t, want[i], 4);
		assert_int_equal(firmware_checksum(t, load_u32(t + 4)), 0);
	}
	dma_file(b, "etc/smbios/smbios-anchor", 0x500000, &size);
	assert_int_equal(size, 31);
	assert_int_equal(firmware_checksum(b->ram + 0x500000, 31), 0);
	assert_int_equal(firmware_checksum(b->ram + 0x500010, 15), 0);
	dma_file(b, "etc/smbios/smbios-tables", 0x600000, &size);
	assert_int_equal(size, b->ram[0x500016] | b->ram[0x500017] << 8);
	/* The last structure is the end, and its strings are none. */
	assert_int_equal(b->ram[0x600000 + size - 6], 127);
	dma_file(b, "etc/e820", 0x500000, &size);
	assert_int_equal(size, 40);
	assert_int_equal(load_u32(b->ram + 0x500008), MEMORY);
}

static void no_notify(void *arg)
{
	(void)arg;
}

/* The page with the generation ID: firmware places it, tells the DSDT and us where, and there it changes. */
static void test_vmgenid_tables(void **state)
{
	static struct firmware fw;
	static struct pc pc;
	static const struct cpu_topology cpus = { 1, 1, 1 };
	const struct machine_options o = { .vmgenid = { .there = true } };
	struct board *b = *state;
	struct error err = ERROR_INIT;
	struct device dev = { &vmgenid_device_ops, &pc.vmgenid };
	u8 first[VMGENID_SIZE], saved[256], *p, *tables;
	u32 size;
	long n;
	const u8 *commands;

	pc.pci.ecam = ECAM_BASE;
	pc.pci.ecam_size = ECAM_SIZE;
	assert_int_equal(vmgenid_init(&pc.vmgenid, &o.vmgenid, &b->mem, no_notify, NULL), 0);
	fw.pc = &pc;
	fw.config = (struct firmware_config){
		.memory = &b->mem, .cpus = &cpus, .machine = &o, .cmdline = "" };
	fw_cfg_init(&fw.cfg, &b->mem);
	assert_int_equal(firmware_fill(&fw, &err), 0);
	b->cfg = fw.cfg;
	dma_file(b, "etc/acpi/rsdp", 0x200000, &size);
	tables = dma_file(b, "etc/acpi/tables", 0x300000, &size);
	p = memmem(tables, size, "VGIA\x0C\0\0\0", 9);
	assert_non_null(p);
	dma_file(b, "etc/vmgenid_guid", 0x700000, &size);
	assert_int_equal(size, 4096);
	commands = dma_file(b, "etc/table-loader", 0x400000, &size);
	for (u32 i = 0; i < size; i += 128)
		run_command(b, commands + i);
	assert_int_equal(load_u32(p + 5), 0x700000);
	assert_true(pc.vmgenid.address == 0x700000);
	/* Nothing but zeroes where a table's header would be. */
	assert_memory_equal(b->ram + 0x700000, b->ram + 0x900000, VMGENID_OFFSET);
	memcpy(first, b->ram + 0x700000 + VMGENID_OFFSET, VMGENID_SIZE);
	assert_memory_equal(first, pc.vmgenid.guid, VMGENID_SIZE);
	n = device_save(&dev, saved, sizeof(saved));
	vmgenid_device_ops.reset(&pc.vmgenid);
	assert_int_equal(device_load(&dev, saved, n), n);
	vmgenid_device_ops.resume(&pc.vmgenid);
	assert_memory_not_equal(b->ram + 0x700000 + VMGENID_OFFSET, first, VMGENID_SIZE);
}

/* ---- flash memory ---------------------------------------------------------------------------- */

struct flash_board {
	struct pflash f;
	u8 data[4 * PFLASH_BLOCK];
	bool direct;
	unsigned changes;
};

static void on_direct(void *arg, bool direct)
{
	struct flash_board *b = arg;

	b->direct = direct;
	b->changes++;
}

static int flash_setup(void **state)
{
	static struct flash_board b;

	memset(&b, 0, sizeof(b));
	memset(b.data, 0xFF, sizeof(b.data));
	b.direct = true;
	pflash_init(&b.f, b.data, sizeof(b.data), false, on_direct, &b);
	*state = &b;
	return 0;
}

static void out(struct flash_board *b, u64 at, u8 value)
{
	pflash_io_ops.write(&b->f, at, value, 1);
}

static u8 in(struct flash_board *b, u64 at)
{
	return pflash_io_ops.read(&b->f, at, 1);
}

static void test_flash(void **state)
{
	struct flash_board *b = *state;

	/* How OVMF finds out that this is flash memory. */
	b->data[5] = 0x12;
	out(b, 5, 0x50);
	assert_int_equal(in(b, 5), 0x12);
	out(b, 5, 0x70);
	assert_false(b->direct);
	assert_int_equal(in(b, 5), 0);
	out(b, 5, 0xFF);
	assert_true(b->direct);
	assert_int_equal(in(b, 5), 0x12);
	/* Programming only clears bits; an erasure sets those of its block. */
	out(b, 5, 0x10);
	out(b, 5, 0xF3);
	assert_int_equal(in(b, 5), 0x80);
	out(b, 6, 0x40);
	out(b, 6, 0x34);
	out(b, 0, 0xFF);
	assert_int_equal(b->data[5], 0x12);
	assert_int_equal(b->data[6], 0x34);
	assert_int_equal(b->f.dirty_start, 5);
	assert_int_equal(b->f.dirty_end, 7);
	b->data[PFLASH_BLOCK] = 0;
	out(b, 100, 0x20);
	out(b, 100, 0xD0);
	out(b, 0, 0xFF);
	assert_int_equal(b->data[5], 0xFF);
	assert_int_equal(b->data[PFLASH_BLOCK], 0);
	/* Not confirmed: a wrong sequence. */
	out(b, PFLASH_BLOCK, 0x20);
	out(b, PFLASH_BLOCK, 0x00);
	assert_int_equal(in(b, 0), 0xB0);
	assert_int_equal(b->data[PFLASH_BLOCK], 0);
	out(b, 0, 0x50);
	/* Buffered, within a block and over its end. */
	out(b, PFLASH_BLOCK * 2, 0xE8);
	assert_int_equal(in(b, 0) & 0x80, 0x80);
	out(b, PFLASH_BLOCK * 2, 1);
	out(b, PFLASH_BLOCK * 2, 0xAB);
	out(b, PFLASH_BLOCK * 3, 0xCD);
	out(b, PFLASH_BLOCK * 2, 0xD0);
	assert_int_equal(in(b, 0) & 0x10, 0x10);
	out(b, 0, 0xFF);
	assert_int_equal(b->data[PFLASH_BLOCK * 2], 0xAB);
	assert_int_equal(b->data[PFLASH_BLOCK * 3], 0xFF);
	out(b, 0, 0x98);
	assert_int_equal(in(b, 0x10) | in(b, 0x11) << 8 | in(b, 0x12) << 16, 'Q' | 'R' << 8 | 'Y' << 16);
	assert_int_equal(in(b, 0x27), 14);
	assert_int_equal(in(b, 0x2D), 3);
	assert_int_equal(in(b, 0x30), 0);
	assert_int_equal(in(b, 0x2F), PFLASH_BLOCK >> 8);
	out(b, 0, 0x90);
	assert_int_equal(in(b, 0), 0x89);
	b->f.readonly = true;
	out(b, 0, 0x10);
	out(b, 0, 0);
	assert_int_equal(in(b, 0) & 0x10, 0x10);
	assert_int_equal(b->data[0], 0xFF);
	pflash_io_ops.write(&b->f, 0, 0x5050505050505050, 8);
	assert_true(b->direct);
}

static void test_flash_state(void **state)
{
	struct flash_board *b = *state;
	struct pflash_state_check { u8 command, cycle, status; u64 block; u16 count; } st;

	out(b, PFLASH_BLOCK, 0xE8);
	out(b, PFLASH_BLOCK, 3);
	out(b, PFLASH_BLOCK, 0x11);
	check_round_trip(&pflash_device_ops, &b->f);
	assert_false(b->direct);
	/* It goes on in the middle. */
	for (u8 i = 1; i < 4; i++)
		out(b, PFLASH_BLOCK + i, 0x11 * (i + 1));
	out(b, PFLASH_BLOCK, 0xD0);
	assert_memory_equal(b->data + PFLASH_BLOCK, "\x11\x22\x33\x44", 4);
	assert_int_equal(in(b, 0), 0x80);
	memset(&st, 0, sizeof(st));
	pflash_device_ops.save(&b->f, &st);
	st.block = sizeof(b->data);
	assert_int_equal(pflash_device_ops.load(&b->f, &st), -EINVAL);
	st.block = 0;
	st.cycle = 1;
	st.command = 0x70;
	assert_int_equal(pflash_device_ops.load(&b->f, &st), -EINVAL);
}

/* ---- shadow ---------------------------------------------------------------------------------- */

static struct { u64 size; u8 *host; u32 flags; } slots[64];

static long slot_ioctl(int fd, unsigned long request, unsigned long arg)
{
	const struct kvm_userspace_memory_region *r = (void *)arg;

	(void)fd;
	assert_int_equal(request, KVM_SET_USER_MEMORY_REGION);
	slots[r->slot].size = r->memory_size;
	slots[r->slot].host = (u8 *)(uintptr_t)r->userspace_addr;
	slots[r->slot].flags = r->flags;
	return 0;
}

static void test_shadow(void **state)
{
	struct board *b = *state;
	static const struct kvm_backend backend = { .name = "test", .ioctl = slot_ioctl };
	const struct kvm kvm = { .backend = &backend };
	static u8 rom[0x20000];
	struct shadow s;
	struct error err = ERROR_INIT;
	u8 pam[MCH_PAMS] = { 0 };
	u8 *ram = b->ram + 0xC0000;

	memset(slots, 0, sizeof(slots));
	memset(rom, 0x5A, sizeof(rom));
	assert_int_equal(shadow_init(&s, &kvm, &b->mem, rom, &err), 0);
	/* At reset: nothing, and the ROM's end. */
	assert_int_equal(slots[SLOT_SHADOW].size, 0);
	assert_ptr_equal(slots[SLOT_SHADOW + 8].host, rom);
	assert_ptr_equal(slots[SLOT_SHADOW + 12].host, rom + 0x10000);
	assert_int_equal(slots[SLOT_SHADOW + 12].size, 0x10000);
	assert_int_equal(slots[SLOT_SHADOW + 12].flags, KVM_MEM_READONLY);
	assert_int_equal(shadow_io_ops.read(&s, 0, 1) & 0xFF, 0xFF);
	shadow_io_ops.write(&s, 0x30000, 1, 1);
	assert_int_equal(ram[0x30000], 0);
	/* Writes to RAM, reads from ROM: how a BIOS copies itself. */
	pam[0] = 0x20;
	shadow_set_pam(&s, pam);
	assert_ptr_equal(slots[SLOT_SHADOW + 12].host, rom + 0x10000);
	shadow_io_ops.write(&s, 0x30000, 0x77, 1);
	assert_int_equal(ram[0x30000], 0x77);
	assert_int_equal(shadow_io_ops.read(&s, 0x30000, 1) & 0xFF, 0x5A);
	pam[0] = 0x10;
	shadow_set_pam(&s, pam);
	assert_ptr_equal(slots[SLOT_SHADOW + 12].host, ram + 0x30000);
	assert_int_equal(slots[SLOT_SHADOW + 12].flags, KVM_MEM_READONLY);
	pam[0] = 0x30;
	pam[1] = 0x03;
	pam[6] = 0x31;
	shadow_set_pam(&s, pam);
	assert_int_equal(slots[SLOT_SHADOW + 12].flags, 0);
	assert_ptr_equal(slots[SLOT_SHADOW].host, ram);
	assert_int_equal(slots[SLOT_SHADOW].size, 0x4000);
	assert_int_equal(slots[SLOT_SHADOW + 1].size, 0);
	assert_ptr_equal(slots[SLOT_SHADOW + 10].host, ram + 0x28000);
	assert_int_equal(slots[SLOT_SHADOW + 10].flags, KVM_MEM_READONLY);
	assert_int_equal(slots[SLOT_SHADOW + 11].flags, 0);
	memset(pam, 0, sizeof(pam));
	shadow_set_pam(&s, pam);
	assert_int_equal(slots[SLOT_SHADOW].size, 0);
	assert_ptr_equal(slots[SLOT_SHADOW + 12].host, rom + 0x10000);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void check_refused(const char *name, const char *vars, const char *reason)
{
	static struct firmware fw;
	struct error err = ERROR_INIT;

	assert_true(firmware_open(&fw, name, vars, &err) < 0);
	if (!strstr(err.text, reason))
		fail_msg("\"%s\" does not say \"%s\"", err.text, reason);
	firmware_close(&fw);
}

static void test_files(void **state)
{
	static struct firmware fw;
	char rom[] = "/tmp/test-rom-XXXXXX";
	struct error err = ERROR_INIT;
	int fd = mkstemp(rom);

	(void)state;
	assert_true(fd >= 0);
	check_refused(rom, NULL, "is empty");
	assert_int_equal(ftruncate(fd, 4096), 0);
	check_refused(rom, NULL, "is no firmware");
	assert_int_equal(ftruncate(fd, 0x20001), 0);
	check_refused(rom, NULL, "is no firmware");
	assert_int_equal(ftruncate(fd, 0x1001000), 0);
	check_refused(rom, NULL, "is no firmware");
	assert_int_equal(ftruncate(fd, 0x20000), 0);
	check_refused(rom, "x", "only uefi has variables");
	check_refused("/nonexistent/rom", NULL, "No such file");
	assert_int_equal(firmware_open(&fw, rom, NULL, &err), 0);
	assert_int_equal(fw.rom_size, 0x20000);
	firmware_close(&fw);
	close(fd);
	unlink(rom);
}

/* ---- UEFI's variables ------------------------------------------------------------------------ */

/* As a full disk: no file may be longer. */
static void limit_files(rlim_t bytes)
{
	struct rlimit r;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
	r.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static unsigned files_in(const char *folder)
{
	DIR *d = opendir(folder);
	unsigned n = 0;

	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void change(struct firmware *fw, u64 at, u8 value)
{
	fw->vars[at] = value;
	fw->flash.dirty_start = at;
	fw->flash.dirty_end = at + 1;
	vars_flush(fw, false);
}

static void check_byte(const char *path, u64 at, u8 want)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	u8 byte = 0;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	assert_int_equal(byte, want);
	close(fd);
}

/* A start that cannot write the whole file leaves none, and one that could leaves it whole. */
static void check_new_file(struct firmware *fw, const char *folder, const char *path)
{
	struct error err = ERROR_INIT;
	struct stat st;

	limit_files(4096);
	check_refused("uefi", path, "File too large");
	assert_int_equal(files_in(folder), 0);
	limit_files(RLIM_INFINITY);
	assert_int_equal(firmware_open(fw, "uefi", path, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, fw->vars_size);
	assert_int_equal(files_in(folder), 1);
	check_refused("uefi", path, "in use by another machine");
}

/* What could not be written is written with the next change, and at the end. */
static void check_full_disk(struct firmware *fw, const char *path)
{
	struct error err = ERROR_INIT;

	change(fw, 10000, 0x5A);
	check_byte(path, 10000, 0x5A);
	limit_files(4096);
	change(fw, 10000, 0x11);
	assert_true(fw->vars_unwritten);
	check_byte(path, 10000, 0x5A);
	limit_files(RLIM_INFINITY);
	vars_flush(fw, false);
	assert_false(fw->vars_unwritten);
	check_byte(path, 10000, 0x11);
	limit_files(4096);
	change(fw, 10000, 0x22);
	limit_files(RLIM_INFINITY);
	firmware_close(fw);
	assert_int_equal(firmware_open(fw, "uefi", path, &err), 0);
	assert_int_equal(fw->vars[10000], 0x22);
	firmware_close(fw);
}

/* An empty file becomes whole, a short one is none of ours. */
static void check_other_files(struct firmware *fw, const char *path)
{
	struct error err = ERROR_INIT;
	struct stat st;

	assert_int_equal(truncate(path, 100), 0);
	check_refused("uefi", path, "has 100 bytes");
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(firmware_open(fw, "uefi", path, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, fw->vars_size);
	assert_int_equal(st.st_mode & 0777, 0640);
	check_byte(path, 0, fw->vars[0]);
	check_refused("uefi", path, "in use by another machine");
	firmware_close(fw);
}

/* A link to no file makes that file, and stays a link. */
static void check_links(struct firmware *fw, const char *folder)
{
	char path[80], link[80], relative[80];
	struct error err = ERROR_INIT;
	struct stat st;

	snprintf(path, sizeof(path), "%s/target", folder);
	snprintf(link, sizeof(link), "%s/link", folder);
	snprintf(relative, sizeof(relative), "%s/link2", folder);
	assert_int_equal(symlink("target", link), 0);
	assert_int_equal(symlink("link", relative), 0);
	assert_int_equal(firmware_open(fw, "uefi", relative, &err), 0);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_size, fw->vars_size);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(lstat(link, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	check_refused("uefi", path, "in use by another machine");
	firmware_close(fw);
	unlink(path);
	unlink(link);
	unlink(relative);
	assert_int_equal(symlink("none/target", link), 0);
	check_refused("uefi", link, "No such file");
	unlink(link);
}

/* Root replaces another's file by one of the other's. */
static void check_owner(struct firmware *fw, const char *path)
{
	struct error err = ERROR_INIT;
	struct stat st;

	assert_int_equal(truncate(path, 0), 0);
	if (chown(path, 1234, 4321) < 0)
		return;
	assert_int_equal(firmware_open(fw, "uefi", path, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 4321);
	assert_int_equal(st.st_size, fw->vars_size);
	firmware_close(fw);
}

/* Opens in a folder that takes no other file, as one who is not root. */
static int open_as_other(struct firmware *fw, const char *folder, const char *path)
{
	struct error err = ERROR_INIT;
	struct stat st;

	if (chmod(folder, 0555) < 0 || (geteuid() == 0 && (setegid(4321) < 0 || seteuid(1234) < 0)))
		return 1;
	if (firmware_open(fw, "uefi", path, &err) < 0 || stat(path, &st) < 0)
		return 2;
	if ((u64)st.st_size != fw->vars_size || files_in(folder) != 1)
		return 3;
	check_refused("uefi", path, "in use by another machine");
	change(fw, 10000, 0x77);
	firmware_close(fw);
	check_byte(path, 10000, 0x77);
	return 0;
}

/* A mount of its own cannot be replaced. */
static int open_mounted(struct firmware *fw, const char *path)
{
	struct error err = ERROR_INIT;
	struct stat st;

	if (truncate(path, 0) < 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(path, path, NULL, MS_BIND, NULL) < 0)
		return 1;
	if (firmware_open(fw, "uefi", path, &err) < 0 || stat(path, &st) < 0)
		return 2;
	return (u64)st.st_size != fw->vars_size ? 3 : 0;
}

/* An empty file that no other can take the place of is filled. */
static void check_in_place(struct firmware *fw, const char *folder, const char *path)
{
	int status;
	pid_t pid;

	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(chmod(path, 0666), 0);
	pid = fork();
	if (pid == 0)
		_exit(open_as_other(fw, folder, path));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(chmod(folder, 0755), 0);
	pid = fork();
	if (pid == 0)
		_exit(open_mounted(fw, path));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* 1: who is not root may not try. */
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
}

static void test_variables(void **state)
{
	static struct firmware fw;
	char folder[] = "/tmp/test-vars-XXXXXX", path[64];
	struct error err = ERROR_INIT;

	(void)state;
	if (firmware_check("uefi", &err) < 0)
		skip();
	signal(SIGXFSZ, SIG_IGN);
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/none/vars", folder);
	check_refused("uefi", path, "No such file");
	snprintf(path, sizeof(path), "%s/vars", folder);
	check_new_file(&fw, folder, path);
	check_full_disk(&fw, path);
	check_other_files(&fw, path);
	check_owner(&fw, path);
	check_in_place(&fw, folder, path);
	unlink(path);
	check_links(&fw, folder);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fw_cfg_state, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vmgenid_tables, setup, teardown),
		cmocka_unit_test_setup(test_flash, flash_setup),
		cmocka_unit_test_setup(test_flash_state, flash_setup),
		cmocka_unit_test_setup_teardown(test_shadow, setup, teardown),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_variables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
