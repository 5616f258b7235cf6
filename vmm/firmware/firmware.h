/*
 * A machine that starts with firmware: its ROM (and flash memory with variables), the shadow below
 * 1 MiB, and all that fw_cfg tells it: memory, CPUs, ACPI, SMBIOS, and a kernel if one is given.
 */
#ifndef QUMRA_VMM_FIRMWARE_FIRMWARE_H
#define QUMRA_VMM_FIRMWARE_FIRMWARE_H

#include "vmm/firmware/boot_order.h"
#include "vmm/firmware/e820.h"
#include "vmm/firmware/image.h"
#include "vmm/firmware/smbios.h"
#include "vmm/hw/fw_cfg.h"
#include "vmm/hw/pflash.h"
#include "vmm/machine/acpi.h"
#include "vmm/memory/shadow.h"

#define ACPI_BLOB_SIZE		0x10000
#define LOADER_COMMANDS_MAX	128
#define LOADER_COMMAND_SIZE	128

struct pc;

struct firmware_config {
	const struct guest_memory *memory;
	const struct machine_options *machine;
	const struct cpu_topology *cpus;
	const struct image *kernel, *initrd;	/* NULL: none */
	const char *cmdline;
	bool serial_console;	/* BIOS text on COM1 */
	bool screen;
};

struct firmware {
	const struct kvm *kvm;
	struct firmware_config config;
	struct pc *pc;
	u8 *rom;	/* ends at 4 GiB */
	u64 rom_size;
	u8 *vars;	/* below it, or NULL */
	u64 vars_size;
	int vars_fd;	/* -1: variables are lost at the end */
	const char *vars_path;	/* the caller's */
	bool vars_unwritten;	/* the file could not be written, which was said */
	struct pflash flash;
	struct shadow shadow;
	struct fw_cfg cfg;

	/* What fw_cfg's files hold. */
	struct acpi_tables acpi;
	u8 acpi_blob[ACPI_BLOB_SIZE];
	struct acpi_rsdp rsdp;
	u8 loader[LOADER_COMMANDS_MAX][LOADER_COMMAND_SIZE];
	unsigned commands;
	struct { u64 addr, size; u32 type; } __attribute__((packed)) e820[E820_MAX];
	struct smbios smbios;
	u8 *setup;		/* the kernel's real-mode part, with our entries in its header */
	const char *boot_first;	/* what of the firmware's own goes before all; NULL: nothing */
	char boot_text[BOOT_TEXT_MAX];
	struct image option_rom;
	u8 *option_rom_data;
};

/* bios, uefi, or a file that begins neither so; is it known? A usage error names what is wrong. */
int firmware_check(const char *name, struct error *err);
/* The files of one that has a name: its code, and what UEFI's variables begin as or NULL. Else false. */
bool firmware_files(const char *name, const char **code, const char **vars);
/*
 * Reads the files. vars: a file for UEFI's variables, made from the distribution's if it does not exist;
 * NULL: they are as the distribution's at each start.
 */
int firmware_open(struct firmware *fw, const char *name, const char *vars, struct error *err);
void firmware_close(struct firmware *fw);
/* Into the VM: memory slots. Guest memory is registered without the shadow's range. */
int firmware_map(struct firmware *fw, const struct kvm *kvm, const struct firmware_config *config,
		 struct error *err);
/* Into the machine: devices and ranges. */
int firmware_attach(struct firmware *fw, struct pc *pc, struct error *err);

/* After firmware_attach(): what to start from. */
int firmware_set_boot_order(struct firmware *fw, const struct boot_order *order, struct error *err);

/* fw_tables.c: all that fw_cfg shows. */
int firmware_fill(struct firmware *fw, struct error *err);
/*
 * vars.c: takes the variables from the file, or makes it; no path: nothing. What was changed goes to the
 * file; what does not go there stays "changed". last: nobody will try again.
 */
int vars_open(struct firmware *fw, const char *path, struct error *err);
void vars_flush(struct firmware *fw, bool last);
/* fw_kernel.c */
int firmware_add_kernel(struct firmware *fw, struct error *err);

#endif
