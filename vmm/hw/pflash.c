/*
 * A NOR flash memory with Intel's command set (JEDEC JEP137 0x0001; Intel StrataFlash J3 data sheet,
 * chapter 9; Common Flash Interface, JESD68), one byte wide, blocks of 4 KiB. In read-array mode,
 * which is nearly always, reads do not come here: the memory is mapped into the guest.
 */
#include <errno.h>
#include <string.h>

#include "vmm/hw/pflash.h"

enum {
	CMD_PROGRAM = 0x10, CMD_ERASE = 0x20, CMD_PROGRAM_2 = 0x40, CMD_CLEAR_STATUS = 0x50,
	CMD_READ_STATUS = 0x70, CMD_READ_ID = 0x90, CMD_READ_CFI = 0x98, CMD_CONFIRM = 0xD0,
	CMD_BUFFER = 0xE8, CMD_READ_ARRAY = 0xFF,
};

#define STATUS_READY	BIT(7)
#define STATUS_ERASE	BIT(5)	/* error in erasing, with PROGRAM a wrong sequence */
#define STATUS_PROGRAM	BIT(4)

#define BUFFER_MAX	256
#define ID_MAKER	0x89	/* Intel */
#define ID_DEVICE	0x18

static void flash_set(struct pflash *f, u8 command, u8 cycle)
{
	bool direct = command == CMD_READ_ARRAY, before = f->command == CMD_READ_ARRAY;

	f->command = command;
	f->cycle = cycle;
	if (direct != before)
		f->set_direct(f->arg, direct);
}

/* JESD68: the query table, from 0x10 on. */
static u8 flash_cfi(const struct pflash *f, u64 offset)
{
	u64 blocks = f->size / PFLASH_BLOCK - 1;
	const u8 table[] = {
		'Q', 'R', 'Y', 0x01, 0x00, 0x31, 0x00, 0, 0, 0, 0,
		0x45, 0x55, 0, 0, 7, 7, 10, 0, 4, 4, 4, 0,
		__builtin_ctzll(f->size | BIT(63)), 0, 0, 8, 0, 1,
		blocks, blocks >> 8, PFLASH_BLOCK >> 8, 0,
	};

	return offset >= 0x10 && offset - 0x10 < sizeof(table) ? table[offset - 0x10] : 0;
}

static u8 flash_read_byte(const struct pflash *f, u64 offset)
{
	switch (f->command) {
	case CMD_READ_ARRAY:
		return f->data[offset];
	case CMD_READ_ID:
		return (offset & 0xFF) == 0 ? ID_MAKER : (offset & 0xFF) == 1 ? ID_DEVICE : 0;
	case CMD_READ_CFI:
		return flash_cfi(f, offset & 0xFF);
	default:
		return f->status;
	}
}

static u64 flash_read(void *dev, u64 offset, unsigned size)
{
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)flash_read_byte(dev, offset + i) << 8 * i;
	return value;
}

/* ---- writes ---------------------------------------------------------------------------------- */

static void flash_first(struct pflash *f, u64 offset, u8 value)
{
	switch (value) {
	case CMD_PROGRAM:
	case CMD_PROGRAM_2:
	case CMD_ERASE:
		flash_set(f, value, 1);
		break;
	case CMD_BUFFER:
		f->status |= STATUS_READY;
		f->block = offset & ~(u64)(PFLASH_BLOCK - 1);
		flash_set(f, value, 3);	/* the count, bytes, and CONFIRM */
		break;
	case CMD_CLEAR_STATUS:
		f->status = 0;
		flash_set(f, CMD_READ_ARRAY, 0);
		break;
	case CMD_READ_STATUS:
	case CMD_READ_ID:
	case CMD_READ_CFI:
		flash_set(f, value, 0);
		break;
	default:
		flash_set(f, CMD_READ_ARRAY, 0);
	}
}

static void flash_dirty(struct pflash *f, u64 start, u64 size)
{
	bool clean = f->dirty_end == 0;

	f->dirty_start = clean ? start : MIN(f->dirty_start, start);
	f->dirty_end = MAX(f->dirty_end, start + size);
}

static void flash_program(struct pflash *f, u64 offset, u8 value)
{
	/* Programming takes ones away; only an erasure brings them back. */
	if (f->readonly) {
		f->status |= STATUS_PROGRAM;
		return;
	}
	f->data[offset] &= value;
	flash_dirty(f, offset, 1);
}

static void flash_erase(struct pflash *f, u64 offset, u8 value)
{
	u64 block = offset & ~(u64)(PFLASH_BLOCK - 1);

	if (value != CMD_CONFIRM) {
		f->status |= STATUS_ERASE | STATUS_PROGRAM;
	} else if (f->readonly) {
		f->status |= STATUS_ERASE;
	} else {
		memset(f->data + block, 0xFF, PFLASH_BLOCK);
		flash_dirty(f, block, PFLASH_BLOCK);
	}
}

static void flash_buffer(struct pflash *f, u64 offset, u8 value)
{
	if (f->cycle == 3) {
		f->count = value + 1;
		f->cycle = 2;
	} else if (f->cycle == 2) {
		/* Bytes of another block end it with an error. */
		if ((offset & ~(u64)(PFLASH_BLOCK - 1)) == f->block)
			flash_program(f, offset, value);
		else
			f->status |= STATUS_PROGRAM;
		if (--f->count == 0)
			f->cycle = 1;
	} else {
		if (value != CMD_CONFIRM)
			f->status |= STATUS_ERASE | STATUS_PROGRAM;
		f->cycle = 0;
	}
}

static void flash_write_byte(struct pflash *f, u64 offset, u8 value)
{
	if (f->cycle == 0) {
		flash_first(f, offset, value);
	} else if (f->command == CMD_BUFFER) {
		flash_buffer(f, offset, value);
	} else {
		f->cycle = 0;
		if (f->command == CMD_ERASE)
			flash_erase(f, offset, value);
		else
			flash_program(f, offset, value);
		f->status |= STATUS_READY;
	}
}

static void flash_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct pflash *f = dev;

	/* A wide command is one command: the chip is a byte wide, and so is its data. */
	if (f->cycle == 0)
		size = 1;
	for (unsigned i = 0; i < size && (i == 0 || f->cycle); i++)
		flash_write_byte(f, offset + i, value >> 8 * i);
}

const struct io_ops pflash_io_ops = { .read = flash_read, .write = flash_write, .width = 8 };

/* ---- device ---------------------------------------------------------------------------------- */

/* The content is the owner's. */
struct pflash_state {
	u8 command, cycle, status;
	u64 block;
	u16 count;
};

static void flash_reset(void *dev)
{
	struct pflash *f = dev;

	flash_set(f, CMD_READ_ARRAY, 0);
	f->status = 0;
}

static void flash_nop(void *dev)
{
	(void)dev;
}

static const struct state_field flash_fields[] = {
	STATE_FIELD(struct pflash_state, command, 1),
	STATE_FIELD(struct pflash_state, cycle, 1),
	STATE_FIELD(struct pflash_state, status, 1),
	STATE_FIELD(struct pflash_state, block, 1),
	STATE_FIELD(struct pflash_state, count, 1),
};

static const struct state_table flash_table =
	STATE_TABLE("pflash", struct pflash_state, 1, flash_fields);

static void flash_save(void *dev, void *state)
{
	const struct pflash *f = dev;

	*(struct pflash_state *)state = (struct pflash_state){
		.command = f->command, .cycle = f->cycle, .status = f->status, .block = f->block,
		.count = f->count,
	};
}

/* The cycles that a command has. */
static u8 command_cycles(u8 command)
{
	switch (command) {
	case CMD_PROGRAM:
	case CMD_PROGRAM_2:
	case CMD_ERASE:
		return 1;
	case CMD_BUFFER:
		return 3;
	default:
		return 0;
	}
}

static int flash_load(void *dev, const void *state)
{
	struct pflash *f = dev;
	const struct pflash_state *st = state;

	if (st->cycle > command_cycles(st->command) || st->count > BUFFER_MAX ||
		(st->cycle == 2 && !st->count) || st->block >= f->size ||
		st->block % PFLASH_BLOCK)
		return -EINVAL;
	flash_set(f, st->command, st->cycle);
	f->status = st->status;
	f->block = st->block;
	f->count = st->count;
	return 0;
}

const struct device_ops pflash_device_ops = {
	.table = &flash_table, .reset = flash_reset, .pause = flash_nop, .resume = flash_nop,
	.save = flash_save, .load = flash_load,
};

void pflash_init(struct pflash *f, u8 *data, u64 size, bool readonly,
		 void (*set_direct)(void *arg, bool direct), void *arg)
{
	*f = (struct pflash){
		.data = data, .size = size, .readonly = readonly, .set_direct = set_direct,
		.arg = arg, .command = CMD_READ_ARRAY,
	};
}
