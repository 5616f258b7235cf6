/* Firmware's files, and where they are in the machine: see firmware.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/firmware/firmware.h"
#include "vmm/machine/pc.h"
#include "vmm/memory/slots.h"

#define ROM_MIN		0x20000		/* what shows below 1 MiB */
#define ROM_MAX		0x1000000	/* what the chipset decodes as flash memory: 16 MiB */
#define ROM_TOP		0x100000000ULL

/* Where Debian has them, the best first. */
static const struct firmware_kind {
	const char *name, *package;
	const char *code[3];
	const char *vars[3];	/* beside each code, the file that variables begin as */
} firmware_kinds[] = {
	{ "bios", "seabios",
		{ "/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/bios.bin" }, { NULL } },
	{ "uefi", "ovmf", { "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd" },
		{ "/usr/share/OVMF/OVMF_VARS_4M.fd", "/usr/share/OVMF/OVMF_VARS.fd" } },
};

static const struct firmware_kind *kind_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(firmware_kinds); i++)
		if (strcmp(name, firmware_kinds[i].name) == 0)
			return &firmware_kinds[i];
	return NULL;
}

int firmware_check(const char *name, struct error *err)
{
	const struct firmware_kind *k = kind_find(name);

	if (!*name)
		return error_usage(err, "--firmware: the value is empty");
	if (!k || access(k->code[0], R_OK) == 0 || access(k->code[1], R_OK) == 0)
		return 0;
	return error_set(err, ENOENT, "--firmware %s: there is no %s; it is in Debian's package %s",
		name, k->code[0], k->package);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* The file's content in pages of their own. */
static int rom_read(const char *path, u8 **data, u64 *size, struct error *err)
{
	struct image image;
	int ret = image_open(&image, path, err);

	if (ret < 0)
		return ret;
	if (image.size < ROM_MIN || image.size > ROM_MAX || image.size % 4096) {
		ret = error_set(err, EINVAL,
			"%s: is no firmware: %llu bytes are not 128K to 16M in whole pages", path,
			(unsigned long long)image.size);
		goto out;
	}
	*data = mmap(NULL, image.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*data == MAP_FAILED) {
		*data = NULL;
		ret = error_set(err, ENOMEM, "out of memory");
		goto out;
	}
	*size = image.size;
	ret = image_read(&image, 0, *data, image.size, "firmware", err);
out:
	image_close(&image);
	return ret;
}

bool firmware_files(const char *name, const char **code, const char **vars)
{
	const struct firmware_kind *k = kind_find(name);
	unsigned i = k && access(k->code[0], R_OK) == 0 ? 0 : 1;

	*code = k ? k->code[i] : NULL;
	*vars = k ? k->vars[i] : NULL;
	return k;
}

static int kind_open(struct firmware *fw, const char *code, const char *vars, struct error *err)
{
	int ret = rom_read(code, &fw->rom, &fw->rom_size, err);

	return ret == 0 && vars ? rom_read(vars, &fw->vars, &fw->vars_size, err) : ret;
}

int firmware_open(struct firmware *fw, const char *name, const char *vars, struct error *err)
{
	const char *code, *first;
	int ret;

	memset(fw, 0, sizeof(*fw));
	fw->vars_fd = fw->option_rom.fd = -1;
	if (!firmware_files(name, &code, &first))
		code = name;
	ret = kind_open(fw, code, first, err);
	if (ret == 0 && fw->vars)
		ret = vars_open(fw, vars, err);
	else if (ret == 0 && vars)
		ret = error_usage(err, "--firmware: only uefi has variables");
	if (ret < 0)
		firmware_close(fw);
	return ret;
}

void firmware_close(struct firmware *fw)
{
	vars_flush(fw, true);
	if (fw->rom)
		munmap(fw->rom, fw->rom_size);
	if (fw->vars)
		munmap(fw->vars, fw->vars_size);
	if (fw->vars_fd >= 0)
		close(fw->vars_fd);
	image_close(&fw->option_rom);
	free(fw->option_rom_data);
	free(fw->setup);
	memset(fw, 0, sizeof(*fw));
	fw->vars_fd = fw->option_rom.fd = -1;
}

/* ---- in the machine -------------------------------------------------------------------------- */

static u64 vars_address(const struct firmware *fw)
{
	return ROM_TOP - fw->rom_size - fw->vars_size;
}

static long rom_set_slot(const struct firmware *fw, u32 number, u64 gpa, u64 size, const u8 *host)
{
	struct kvm_userspace_memory_region slot = {
		.slot = number,
		.flags = KVM_MEM_READONLY,
		.guest_phys_addr = gpa,
		.memory_size = host ? size : 0,
		.userspace_addr = (uintptr_t)host,
	};

	return kvm_ioctl(fw->kvm, fw->kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);
}

static void vars_set_direct(void *arg, bool direct)
{
	struct firmware *fw = arg;

	rom_set_slot(fw, SLOT_FLASH, vars_address(fw), fw->vars_size, direct ? fw->vars : NULL);
	if (direct)
		vars_flush(fw, false);
}

int firmware_map(struct firmware *fw, const struct kvm *kvm, const struct firmware_config *config,
		 struct error *err)
{
	long ret;

	fw->kvm = kvm;
	fw->config = *config;
	ret = rom_set_slot(fw, SLOT_ROM, ROM_TOP - fw->rom_size, fw->rom_size, fw->rom);
	if (ret >= 0 && fw->vars)
		ret = rom_set_slot(fw, SLOT_FLASH, vars_address(fw), fw->vars_size, fw->vars);
	if (ret < 0)
		return error_set(err, -ret, "the hypervisor refuses the firmware's ROM: %s",
			strerror(-ret));
	/* Its last 128 KiB also show below 1 MiB. */
	return shadow_init(&fw->shadow, kvm, config->memory,
		fw->rom + fw->rom_size - (SHADOW_END - SHADOW_ROM), err);
}

int firmware_attach(struct firmware *fw, struct pc *pc, struct error *err)
{
	const struct io_range ports[] = {
		{ PORT_FW_CFG, 2, &fw_cfg_io_ops, &fw->cfg, "fw-cfg" },
		{ PORT_FW_CFG_DMA, 8, &fw_cfg_dma_ops, &fw->cfg, "fw-cfg-dma" },
	};
	const struct io_range shadow = { SHADOW_START, SHADOW_END - SHADOW_START, &shadow_io_ops,
		&fw->shadow, "shadow" };
	const struct io_range flash = { vars_address(fw), fw->vars_size, &pflash_io_ops, &fw->flash,
		"pflash" };
	int ret;

	fw->pc = pc;
	fw_cfg_init(&fw->cfg, fw->config.memory);
	if ((ret = io_map_add(&pc->pio, &ports[0])) < 0 ||
	    (ret = io_map_add(&pc->pio, &ports[1])) < 0 ||
	    (ret = io_map_add(&pc->mmio, &shadow)) < 0 ||
	    (ret = pc_add_device(pc, &fw_cfg_device_ops, &fw->cfg)) < 0)
		return error_set(err, -ret, "the machine's I/O map is inconsistent");
	if (fw->vars) {
		pflash_init(&fw->flash, fw->vars, fw->vars_size, false, vars_set_direct, fw);
		if ((ret = io_map_add(&pc->mmio, &flash)) < 0 ||
		    (ret = pc_add_device(pc, &pflash_device_ops, &fw->flash)) < 0)
			return error_set(err, -ret, "the machine's I/O map is inconsistent");
	}
	return firmware_fill(fw, err);
}
