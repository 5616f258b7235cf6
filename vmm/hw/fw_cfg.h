/* fw_cfg: what the VMM tells firmware, by number and by name. */
#ifndef QUMRA_VMM_HW_FW_CFG_H
#define QUMRA_VMM_HW_FW_CFG_H

#include "vmm/firmware/image.h"
#include "vmm/machine/io_map.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/migration/state.h"

/* Selector keys. */
enum fw_cfg_key {
	FW_CFG_SIGNATURE = 0x00, FW_CFG_ID = 0x01, FW_CFG_UUID = 0x02, FW_CFG_RAM_SIZE = 0x03,
	FW_CFG_NOGRAPHIC = 0x04, FW_CFG_NB_CPUS = 0x05, FW_CFG_KERNEL_ADDR = 0x07,
	FW_CFG_KERNEL_SIZE = 0x08, FW_CFG_INITRD_ADDR = 0x0A, FW_CFG_INITRD_SIZE = 0x0B,
	FW_CFG_NUMA = 0x0D, FW_CFG_BOOT_MENU = 0x0E, FW_CFG_MAX_CPUS = 0x0F,
	FW_CFG_KERNEL_DATA = 0x11, FW_CFG_INITRD_DATA = 0x12, FW_CFG_CMDLINE_ADDR = 0x13,
	FW_CFG_CMDLINE_SIZE = 0x14, FW_CFG_CMDLINE_DATA = 0x15, FW_CFG_SETUP_ADDR = 0x16,
	FW_CFG_SETUP_SIZE = 0x17, FW_CFG_SETUP_DATA = 0x18, FW_CFG_FILE_DIR = 0x19,
	FW_CFG_FILE_FIRST = 0x20,
};

#define FW_CFG_FILES_MAX	64
#define FW_CFG_ITEMS		(FW_CFG_FILE_FIRST + FW_CFG_FILES_MAX)
#define FW_CFG_NAME_SIZE	56
#define FW_CFG_CACHE		512

#define PORT_FW_CFG		0x510	/* selector, and data in its second byte */
#define PORT_FW_CFG_DMA		0x514

struct fw_cfg_item {
	char name[FW_CFG_NAME_SIZE];	/* of a file */
	const u8 *data;			/* size bytes, or NULL: from image */
	u8 *writable;			/* the same where the guest may write them, or NULL */
	const struct image *image;
	u64 image_offset, size;
	void (*select)(void *arg);	/* before it is read from its start; may be NULL */
	void *arg;
	u8 value[8];			/* of a number */
};

struct fw_cfg {
	const struct guest_memory *mem;
	struct fw_cfg_item item[FW_CFG_ITEMS];
	unsigned files;
	u8 directory[4 + FW_CFG_FILES_MAX * 64];

	u16 key;	/* selected */
	u64 offset;	/* of the next byte */
	u64 dma;	/* address register, as far as it was written */

	/* Bytes of an image that were read ahead for the data port. */
	u8 cache[FW_CFG_CACHE];
	u64 cache_at, cache_len;
	u16 cache_key;
};

void fw_cfg_init(struct fw_cfg *fw, const struct guest_memory *mem);
/* data stays the caller's, and must stay. A file of the same name or an item is replaced. */
void fw_cfg_add(struct fw_cfg *fw, enum fw_cfg_key key, const void *data, u64 size);
void fw_cfg_add_number(struct fw_cfg *fw, enum fw_cfg_key key, u64 value, unsigned size);
void fw_cfg_add_image(struct fw_cfg *fw, enum fw_cfg_key key, const struct image *image, u64 offset,
		      u64 size);
/* -ENOSPC when there are too many, -EINVAL when the name is too long. */
int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, u64 size);
/* One that the guest may write, by DMA. */
int fw_cfg_add_writable(struct fw_cfg *fw, const char *name, void *data, u64 size);
int fw_cfg_add_file_number(struct fw_cfg *fw, const char *name, u64 value, unsigned size);
/* select runs before a guest reads the file, and may change its content, not its size. */
void fw_cfg_set_select(struct fw_cfg *fw, const char *name, void (*select)(void *arg), void *arg);

extern const struct io_ops fw_cfg_io_ops, fw_cfg_dma_ops;
extern const struct device_ops fw_cfg_device_ops;

#endif
