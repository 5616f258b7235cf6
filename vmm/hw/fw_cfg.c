/*
 * The firmware configuration device that SeaBIOS and OVMF know (QEMU's docs/specs/fw_cfg): a
 * selector and a data port, a directory of named files, and a DMA interface whose commands lie in
 * guest memory. Nothing here can be written by the guest but the selection and files that say so.
 */
#include <errno.h>
#include <string.h>

#include "vmm/hw/fw_cfg.h"

#define ID_TRADITIONAL	BIT(0)
#define ID_DMA		BIT(1)
#define KEY_WRITE	BIT(14)	/* a wish to write, long obsolete */

/* "QEMU CFG", big-endian: what the DMA register reads as. */
#define DMA_SIGNATURE	0x51454D5520434647ULL
#define DMA_ERROR	BIT(0)
#define DMA_READ	BIT(1)
#define DMA_SKIP	BIT(2)
#define DMA_SELECT	BIT(3)
#define DMA_WRITE	BIT(4)

struct dma_command {	/* all big-endian */
	u32 control, length;
	u64 address;
};
_Static_assert(sizeof(struct dma_command) == 16, "fw_cfg");

struct directory_entry {
	u32 size;	/* big-endian, as the key */
	u16 key, reserved;
	char name[FW_CFG_NAME_SIZE];
};
_Static_assert(sizeof(struct directory_entry) == 64, "fw_cfg");

/* ---- items ----------------------------------------------------------------------------------- */

void fw_cfg_add(struct fw_cfg *fw, enum fw_cfg_key key, const void *data, u64 size)
{
	fw->item[key].data = data;
	fw->item[key].size = size;
}

static void item_set_number(struct fw_cfg_item *item, u64 value, unsigned size)
{
	memcpy(item->value, &value, sizeof(value));
	item->data = item->value;
	item->size = size;
}

void fw_cfg_add_number(struct fw_cfg *fw, enum fw_cfg_key key, u64 value, unsigned size)
{
	item_set_number(&fw->item[key], value, size);
}

void fw_cfg_add_image(struct fw_cfg *fw, enum fw_cfg_key key, const struct image *image, u64 offset,
		      u64 size)
{
	fw->item[key].data = NULL;
	fw->item[key].image = image;
	fw->item[key].image_offset = offset;
	fw->item[key].size = size;
}

static struct fw_cfg_item *file_find(struct fw_cfg *fw, const char *name)
{
	for (unsigned i = 0; i < fw->files; i++)
		if (strcmp(fw->item[FW_CFG_FILE_FIRST + i].name, name) == 0)
			return &fw->item[FW_CFG_FILE_FIRST + i];
	return NULL;
}

static void directory_build(struct fw_cfg *fw)
{
	u32 count = __builtin_bswap32(fw->files);

	memcpy(fw->directory, &count, 4);
	for (unsigned i = 0; i < fw->files; i++) {
		const struct fw_cfg_item *item = &fw->item[FW_CFG_FILE_FIRST + i];
		struct directory_entry e = {
			.size = __builtin_bswap32(item->size),
			.key = __builtin_bswap16(FW_CFG_FILE_FIRST + i),
		};

		memcpy(e.name, item->name, sizeof(e.name));
		memcpy(fw->directory + 4 + i * sizeof(e), &e, sizeof(e));
	}
	fw_cfg_add(fw, FW_CFG_FILE_DIR, fw->directory, 4 + fw->files * 64);
}

static struct fw_cfg_item *file_new(struct fw_cfg *fw, const char *name)
{
	struct fw_cfg_item *item = file_find(fw, name);

	if (item || fw->files == FW_CFG_FILES_MAX)
		return item;
	item = &fw->item[FW_CFG_FILE_FIRST + fw->files++];
	memcpy(item->name, name, strlen(name) + 1);
	return item;
}

int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, u64 size)
{
	struct fw_cfg_item *item;

	if (strlen(name) >= FW_CFG_NAME_SIZE || size > 0xFFFFFFFF)
		return -EINVAL;
	item = file_new(fw, name);
	if (!item)
		return -ENOSPC;
	item->data = data;
	item->writable = NULL;
	item->size = size;
	directory_build(fw);
	return 0;
}

int fw_cfg_add_writable(struct fw_cfg *fw, const char *name, void *data, u64 size)
{
	int ret = fw_cfg_add_file(fw, name, data, size);

	if (ret == 0)
		file_find(fw, name)->writable = data;
	return ret;
}

int fw_cfg_add_file_number(struct fw_cfg *fw, const char *name, u64 value, unsigned size)
{
	int ret = fw_cfg_add_file(fw, name, NULL, size);

	if (ret == 0)
		item_set_number(file_find(fw, name), value, size);
	return ret;
}

void fw_cfg_set_select(struct fw_cfg *fw, const char *name, void (*select)(void *arg), void *arg)
{
	struct fw_cfg_item *item = file_find(fw, name);

	if (!item)
		return;
	item->select = select;
	item->arg = arg;
}

/* ---- reading --------------------------------------------------------------------------------- */

static const struct fw_cfg_item *item_selected(const struct fw_cfg *fw)
{
	unsigned key = fw->key & ~KEY_WRITE;

	return key < FW_CFG_ITEMS ? &fw->item[key] : NULL;
}

static void fw_cfg_select(struct fw_cfg *fw, u16 key)
{
	const struct fw_cfg_item *item;

	fw->key = key;
	fw->offset = 0;
	item = item_selected(fw);
	if (item && item->select)
		item->select(item->arg);
}

/* What of n bytes at the offset there is; 0 behind the end. */
static u64 item_left(const struct fw_cfg_item *item, u64 offset, u64 n)
{
	if (!item || offset >= item->size)
		return 0;
	return MIN(n, item->size - offset);
}

/* false: the file behind it cannot be read. */
static bool item_read(const struct fw_cfg_item *item, u64 offset, u8 *dst, u64 n)
{
	struct error err;

	if (!n)
		return true;
	if (item->data) {
		memcpy(dst, item->data + offset, n);
		return true;
	}
	return image_read(item->image, item->image_offset + offset, dst, n, "image", &err) >= 0;
}

static u8 item_byte(struct fw_cfg *fw, const struct fw_cfg_item *item)
{
	if (item->data)
		return item->data[fw->offset];
	if (fw->cache_key != fw->key || fw->offset - fw->cache_at >= fw->cache_len) {
		fw->cache_at = fw->offset;
		fw->cache_key = fw->key;
		fw->cache_len = item_left(item, fw->offset, FW_CFG_CACHE);
		if (!item_read(item, fw->offset, fw->cache, fw->cache_len))
			memset(fw->cache, 0, sizeof(fw->cache));
	}
	return fw->cache[fw->offset - fw->cache_at];
}

static u8 fw_cfg_next(struct fw_cfg *fw)
{
	const struct fw_cfg_item *item = item_selected(fw);
	u8 byte = 0;

	if (item_left(item, fw->offset, 1)) {
		byte = item_byte(fw, item);
		fw->offset++;
	}
	return byte;
}

static u64 port_read(void *dev, u64 offset, unsigned size)
{
	(void)size;
	return offset == 1 ? fw_cfg_next(dev) : 0;	/* the selector cannot be read */
}

static void port_write(void *dev, u64 offset, u64 value, unsigned size)
{
	if (offset == 0 && size == 2)
		fw_cfg_select(dev, value);
}

const struct io_ops fw_cfg_io_ops = { .read = port_read, .write = port_write, .width = 2 };

/* ---- DMA ------------------------------------------------------------------------------------- */

/* length bytes of the item, zeros behind its end, to guest memory. */
static bool dma_read(struct fw_cfg *fw, u64 address, u64 length)
{
	const struct fw_cfg_item *item = item_selected(fw);
	u64 there = item_left(item, fw->offset, length);
	u8 *dst = guest_memory_at(fw->mem, address, length);

	if (!dst || !item_read(item, fw->offset, dst, there))
		return false;
	memset(dst + there, 0, length - there);
	fw->offset += there;
	return true;
}

/* All of it or nothing. */
static bool dma_write(struct fw_cfg *fw, u64 address, u64 length)
{
	const struct fw_cfg_item *item = item_selected(fw);
	const u8 *src = guest_memory_at(fw->mem, address, length);

	if (!src || !item || !item->writable || item_left(item, fw->offset, length) != length)
		return false;
	memcpy(item->writable + fw->offset, src, length);
	fw->offset += length;
	return true;
}

static bool dma_execute(struct fw_cfg *fw, const struct dma_command *command)
{
	u32 control = __builtin_bswap32(command->control);
	u64 length = __builtin_bswap32(command->length);

	if (control & DMA_SELECT)
		fw_cfg_select(fw, control >> 16);
	if (control & DMA_READ)
		return !length || dma_read(fw, __builtin_bswap64(command->address), length);
	if (control & DMA_WRITE)
		return dma_write(fw, __builtin_bswap64(command->address), length);
	if (control & DMA_SKIP)
		fw->offset += item_left(item_selected(fw), fw->offset, length);
	return true;
}

static void dma_start(struct fw_cfg *fw, u64 at)
{
	struct dma_command command;
	u8 *guest = guest_memory_at(fw->mem, at, sizeof(command));
	u32 control;

	if (!guest)
		return;
	memcpy(&command, guest, sizeof(command));
	control = dma_execute(fw, &command) ? 0 : __builtin_bswap32((u32)DMA_ERROR);
	memcpy(guest, &control, sizeof(control));
}

static u64 dma_register_read(void *dev, u64 offset, unsigned size)
{
	u64 value = __builtin_bswap64(DMA_SIGNATURE) >> offset * 8;

	(void)dev;
	(void)size;
	return value;
}

/* Big-endian; the low half starts it. Only whole words, or both at once. */
static void dma_register_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct fw_cfg *fw = dev;
	u64 at;

	if (size == 8) {
		at = __builtin_bswap64(value);
	} else if (size == 4 && offset == 0) {
		fw->dma = (u64)__builtin_bswap32(value) << 32;
		return;
	} else if (size == 4 && offset == 4) {
		at = fw->dma | __builtin_bswap32(value);
	} else {
		return;
	}
	fw->dma = 0;
	dma_start(fw, at);
}

const struct io_ops fw_cfg_dma_ops = {
	.read = dma_register_read, .write = dma_register_write, .width = 8};

/* ---- device ---------------------------------------------------------------------------------- */

struct fw_cfg_state {
	u16 key;
	u64 offset, dma;
};

static void fw_cfg_reset(void *dev)
{
	struct fw_cfg *fw = dev;

	fw->key = 0;
	fw->offset = fw->dma = 0;
	fw->cache_len = 0;
}

static void fw_cfg_nop(void *dev)
{
	(void)dev;
}

static const struct state_field fw_cfg_fields[] = {
	STATE_FIELD(struct fw_cfg_state, key, 1),
	STATE_FIELD(struct fw_cfg_state, offset, 1),
	STATE_FIELD(struct fw_cfg_state, dma, 1),
};

static const struct state_table fw_cfg_table =
	STATE_TABLE("fw-cfg", struct fw_cfg_state, 1, fw_cfg_fields);

static void fw_cfg_save(void *dev, void *state)
{
	const struct fw_cfg *fw = dev;

	*(struct fw_cfg_state *)state = (struct fw_cfg_state){
		.key = fw->key, .offset = fw->offset, .dma = fw->dma};
}

static int fw_cfg_load(void *dev, const void *state)
{
	struct fw_cfg *fw = dev;
	const struct fw_cfg_state *st = state;

	if (st->dma & 0xFFFFFFFF)
		return -EINVAL;
	fw->key = st->key;
	fw->offset = st->offset;
	fw->dma = st->dma;
	fw->cache_len = 0;
	return 0;
}

const struct device_ops fw_cfg_device_ops = {
	.table = &fw_cfg_table, .reset = fw_cfg_reset, .pause = fw_cfg_nop, .resume = fw_cfg_nop,
	.save = fw_cfg_save, .load = fw_cfg_load,
};

void fw_cfg_init(struct fw_cfg *fw, const struct guest_memory *mem)
{
	*fw = (struct fw_cfg){ .mem = mem };
	fw_cfg_add(fw, FW_CFG_SIGNATURE, "QEMU", 4);
	fw_cfg_add_number(fw, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4);
	directory_build(fw);
}
