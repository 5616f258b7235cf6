/*
 * fw_cfg's content: memory map, ACPI tables with the commands by which firmware places them
 * (QEMU's "table loader": allocate, add pointer, add checksum), SMBIOS, numbers.
 */
#include <errno.h>
#include <string.h>

#include "vmm/firmware/firmware.h"
#include "vmm/machine/pc.h"

#define FILE_TABLES	"etc/acpi/tables"
#define FILE_RSDP	"etc/acpi/rsdp"
#define FILE_LOADER	"etc/table-loader"
#define FILE_GUID	"etc/vmgenid_guid"
#define FILE_GUID_ADDR	"etc/vmgenid_addr"

enum { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER = 2, LOADER_ADD_CHECKSUM = 3, LOADER_WRITE_POINTER = 4 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

struct loader_command {
	u32 command;
	union {
		struct { char file[FW_CFG_NAME_SIZE]; u32 align; u8 zone; } __attribute__((packed)) alloc;
		struct {
			char dest[FW_CFG_NAME_SIZE], src[FW_CFG_NAME_SIZE];
			u32 offset;
			u8 size;
		} __attribute__((packed)) pointer;
		struct { char file[FW_CFG_NAME_SIZE]; u32 offset, start, length; } sum;
		struct {
			char dest[FW_CFG_NAME_SIZE], src[FW_CFG_NAME_SIZE];
			u32 dest_offset, src_offset;
			u8 size;
		} __attribute__((packed)) write;
		u8 pad[LOADER_COMMAND_SIZE - 4];
	};
} __attribute__((packed));
_Static_assert(sizeof(struct loader_command) == LOADER_COMMAND_SIZE, "table loader");

static void loader_add(struct firmware *fw, const struct loader_command *c)
{
	if (fw->commands < LOADER_COMMANDS_MAX)
		memcpy(fw->loader[fw->commands++], c, sizeof(*c));
}

static void loader_allocate(struct firmware *fw, const char *file, u32 align, u8 zone)
{
	struct loader_command c = { .command = LOADER_ALLOCATE };

	strcpy(c.alloc.file, file);
	c.alloc.align = align;
	c.alloc.zone = zone;
	loader_add(fw, &c);
}

static void loader_pointer_to(
	struct firmware *fw, const char *dest, const char *src, u32 offset, u8 size)
{
	struct loader_command c = { .command = LOADER_ADD_POINTER };

	strcpy(c.pointer.dest, dest);
	strcpy(c.pointer.src, src);
	c.pointer.offset = offset;
	c.pointer.size = size;
	loader_add(fw, &c);
}

static void loader_pointer(struct firmware *fw, const char *dest, u32 offset, u8 size)
{
	loader_pointer_to(fw, dest, FILE_TABLES, offset, size);
}

/* Firmware writes into the file dest where it has put the file src. */
static void loader_write_pointer(struct firmware *fw, const char *dest, const char *src)
{
	struct loader_command c = { .command = LOADER_WRITE_POINTER };

	strcpy(c.write.dest, dest);
	strcpy(c.write.src, src);
	c.write.size = 8;
	loader_add(fw, &c);
}

static void loader_sum(struct firmware *fw, const char *file, u32 offset, u32 start, u32 length)
{
	struct loader_command c = { .command = LOADER_ADD_CHECKSUM };

	strcpy(c.sum.file, file);
	c.sum.offset = offset;
	c.sum.start = start;
	c.sum.length = length;
	loader_add(fw, &c);
}

/* The RSDP with offsets for addresses, and checksums to be made. */
static void rsdp_build(struct firmware *fw)
{
	struct acpi_rsdp *r = &fw->rsdp;

	acpi_rsdp(r, fw->acpi.rsdt, fw->acpi.xsdt);
	r->checksum = r->extended_checksum = 0;
	loader_pointer(fw, FILE_RSDP, offsetof(struct acpi_rsdp, rsdt), 4);
	loader_pointer(fw, FILE_RSDP, offsetof(struct acpi_rsdp, xsdt), 8);
	loader_sum(fw, FILE_RSDP, offsetof(struct acpi_rsdp, checksum), 0, 20);
	loader_sum(fw, FILE_RSDP, offsetof(struct acpi_rsdp, extended_checksum), 0, sizeof(*r));
}

/* As the chipset is now: firmware has placed ECAM by the time it reads the tables. */
static int acpi_refresh(struct firmware *fw)
{
	struct acpi_config config;
	struct acpi_tables *t = &fw->acpi;

	pc_acpi_config(&config, fw->pc, fw->config.machine, fw->config.memory, fw->config.cpus);
	*t = (struct acpi_tables){ .base = fw->acpi_blob, .size = sizeof(fw->acpi_blob) };
	memset(fw->acpi_blob, 0, sizeof(fw->acpi_blob));
	memset(fw->loader, 0, sizeof(fw->loader));
	fw->commands = 0;
	if (acpi_build(t, &config) < 0)
		return -ENOMEM;
	loader_allocate(fw, FILE_RSDP, 16, ZONE_FSEG);
	loader_allocate(fw, FILE_TABLES, 64, ZONE_HIGH);
	for (unsigned i = 0; i < t->pointers; i++)
		loader_pointer(fw, FILE_TABLES, t->pointer[i].at, t->pointer[i].size);
	if (t->vmgenid) {
		loader_allocate(fw, FILE_GUID, VMGENID_PAGE_SIZE, ZONE_HIGH);
		loader_pointer_to(fw, FILE_TABLES, FILE_GUID, t->vmgenid, 4);
		loader_write_pointer(fw, FILE_GUID_ADDR, FILE_GUID);
	}
	for (unsigned i = 0; i < t->sums; i++)
		loader_sum(fw, FILE_TABLES, t->sum[i].start + ACPI_CHECKSUM, t->sum[i].start,
			t->sum[i].length);
	rsdp_build(fw);
	return 0;
}

static void on_loader_select(void *arg)
{
	acpi_refresh(arg);
}

static int fill_acpi(struct firmware *fw)
{
	int ret = acpi_refresh(fw);
	/* The commands are for these sizes for good: nothing grows between two resets. */
	u32 size = ALIGN_UP(fw->acpi.used, 4096);

	if (ret < 0 ||
	    (ret = fw_cfg_add_file(&fw->cfg, FILE_TABLES, fw->acpi_blob, size)) < 0 ||
	    (ret = fw_cfg_add_file(&fw->cfg, FILE_RSDP, &fw->rsdp, sizeof(fw->rsdp))) < 0 ||
	    (ret = fw_cfg_add_file(&fw->cfg, FILE_LOADER, fw->loader, sizeof(fw->loader))) < 0)
		return ret;
	if (fw->acpi.vmgenid &&
	    ((ret = fw_cfg_add_file(&fw->cfg, FILE_GUID, fw->pc->vmgenid.page, VMGENID_PAGE_SIZE)) < 0 ||
	     (ret = fw_cfg_add_writable(&fw->cfg, FILE_GUID_ADDR, &fw->pc->vmgenid.address, 8)) < 0))
		return ret;
	fw_cfg_set_select(&fw->cfg, FILE_LOADER, on_loader_select, fw);
	return 0;
}

/* RAM, and what is kept for VT-x. Firmware knows the rest by itself. */
static int fill_e820(struct firmware *fw)
{
	const struct guest_memory *mem = fw->config.memory;
	u64 high = guest_memory_high_size(mem);
	unsigned n = 0;

	fw->e820[n].size = guest_memory_low_end(mem);
	fw->e820[n++].type = E820_USABLE;
	fw->e820[n].addr = E820_KVM_PAGES;
	fw->e820[n].size = E820_KVM_PAGES_SIZE;
	fw->e820[n++].type = E820_FIRMWARE;
	if (high) {
		fw->e820[n].addr = GUEST_HOLE_END;
		fw->e820[n].size = high;
		fw->e820[n++].type = E820_USABLE;
	}
	return fw_cfg_add_file(&fw->cfg, "etc/e820", fw->e820, n * sizeof(fw->e820[0]));
}

static int fill_smbios(struct firmware *fw)
{
	int ret;

	smbios_build(&fw->smbios, fw->config.memory, fw->config.cpus);
	ret = fw_cfg_add_file(&fw->cfg, "etc/smbios/smbios-anchor", &fw->smbios.anchor,
		sizeof(fw->smbios.anchor));
	if (ret == 0)
		ret = fw_cfg_add_file(&fw->cfg, "etc/smbios/smbios-tables", fw->smbios.table,
			fw->smbios.used);
	return ret;
}

static int fill_numbers(struct firmware *fw)
{
	unsigned cpus = topology_cpus(fw->config.cpus), last = cpus - 1;
	int ret;

	fw_cfg_add_number(&fw->cfg, FW_CFG_RAM_SIZE, fw->config.memory->size, 8);
	fw_cfg_add_number(&fw->cfg, FW_CFG_NB_CPUS, cpus, 2);
	/* It bounds APIC ids, which have gaps. */
	fw_cfg_add_number(&fw->cfg, FW_CFG_MAX_CPUS, topology_apic_id(fw->config.cpus, last) + 1, 2);
	fw_cfg_add_number(&fw->cfg, FW_CFG_NOGRAPHIC, !fw->config.screen, 2);
	fw_cfg_add_number(&fw->cfg, FW_CFG_BOOT_MENU, 0, 2);
	ret = fw_cfg_add_file_number(&fw->cfg, "etc/boot-fail-wait", ~0U, 4);
	if (ret == 0 && fw->config.serial_console)
		ret = fw_cfg_add_file_number(&fw->cfg, "etc/sercon-port", PORT_COM1, 2);
	return ret;
}

int firmware_fill(struct firmware *fw, struct error *err)
{
	int ret;

	if ((ret = fill_numbers(fw)) < 0 || (ret = fill_e820(fw)) < 0 ||
		(ret = fill_smbios(fw)) < 0 || (ret = fill_acpi(fw)) < 0)
		return error_set(err, -ret, "cannot tell the firmware about the machine: %s",
			strerror(-ret));
	return fw->config.kernel ? firmware_add_kernel(fw, err) : 0;
}

int firmware_set_boot_order(struct firmware *fw, const struct boot_order *order, struct error *err)
{
	size_t size = boot_order_text(order, fw->boot_first, fw->boot_text);

	if (size && fw_cfg_add_file(&fw->cfg, "bootorder", fw->boot_text, size) < 0)
		return error_set(err, ENOSPC, "too many files for the firmware");
	return 0;
}
