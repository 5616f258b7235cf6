/* Logical units and how a task goes through one: see scsi.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/scsi/scsi.h"
#include "vmm/virtio/sg.h"

#define SECTOR_DISK	512
#define SECTOR_CD	2048

/* SPC-4 4.5.6 and annex D. */
const struct scsi_sense SCSI_INVALID_OPCODE = { 0x05, 0x20, 0x00 };
const struct scsi_sense SCSI_INVALID_FIELD = { 0x05, 0x24, 0x00 };
const struct scsi_sense SCSI_OUT_OF_RANGE = { 0x05, 0x21, 0x00 };
const struct scsi_sense SCSI_INVALID_PARAMETER = { 0x05, 0x26, 0x00 };
const struct scsi_sense SCSI_PARAMETER_LENGTH = { 0x05, 0x1A, 0x00 };
const struct scsi_sense SCSI_SAVING_UNSUPPORTED = { 0x05, 0x39, 0x00 };
const struct scsi_sense SCSI_REMOVAL_PREVENTED = { 0x05, 0x53, 0x02 };
const struct scsi_sense SCSI_WRITE_PROTECTED = { 0x07, 0x27, 0x00 };
const struct scsi_sense SCSI_NO_MEMORY = { 0x0B, 0x55, 0x03 };
static const struct scsi_sense no_unit = { 0x05, 0x25, 0x00 };
static const struct scsi_sense read_error = { 0x03, 0x11, 0x00 };
static const struct scsi_sense write_error = { 0x03, 0x0C, 0x00 };
static const struct scsi_sense tray_open = { 0x02, 0x3A, 0x02 }, tray_empty = { 0x02, 0x3A, 0x01 };
static const struct scsi_sense no_space = { 0x07, 0x27, 0x07 };

/* ---- how a task ends ------------------------------------------------------------------------- */

static void task_end(struct scsi_task *t, u8 status)
{
	free(t->buffer);
	t->buffer = NULL;
	t->status = status;
	t->done(t);
}

void scsi_good(struct scsi_task *t)
{
	task_end(t, SCSI_GOOD);
}

void scsi_sense_fill(u8 *sense, const struct scsi_sense *why)
{
	memset(sense, 0, SCSI_SENSE_SIZE);
	sense[0] = 0x70;
	sense[2] = why->key;
	sense[7] = SCSI_SENSE_SIZE - 8;
	sense[12] = why->asc;
	sense[13] = why->ascq;
}

void scsi_check(struct scsi_task *t, const struct scsi_sense *why)
{
	scsi_sense_fill(t->sense, why);
	t->sense_len = SCSI_SENSE_SIZE;
	task_end(t, SCSI_CHECK_CONDITION);
}

void scsi_reply(struct scsi_task *t, const void *data, u32 len, u32 room)
{
	u32 n = MIN(len, room);

	t->overrun = n > t->in_bytes;
	t->moved = sg_write(t->in, t->ins, 0, data, n);
	scsi_good(t);
}

bool scsi_parameters(struct scsi_task *t, void *data, u32 len)
{
	t->moved = sg_read(t->out, t->outs, 0, data, len);
	if (t->moved == len)
		return true;
	scsi_check(t, &SCSI_PARAMETER_LENGTH);
	return false;
}

/* ---- data ------------------------------------------------------------------------------------ */

static void io_done(struct block_request *io, int result)
{
	struct scsi_task *t = container_of(io, struct scsi_task, io);

	t->unit->in_flight--;
	t->io_end(t, result);
}

void scsi_io(struct scsi_task *t, void (*done)(struct scsi_task *t, int result))
{
	t->io_end = done;
	t->io.done = io_done;
	t->unit->in_flight++;
	block_submit(t->unit->block, &t->io);
}

void scsi_io_end(struct scsi_task *t, int result)
{
	if (result == 0)
		scsi_good(t);
	else if (result == -ENOSPC)
		scsi_check(t, &no_space);
	else if (result == -EPERM)
		scsi_check(t, &SCSI_WRITE_PROTECTED);
	else
		scsi_check(t, t->io.op == BLOCK_READ ? &read_error : &write_error);
}

void scsi_range(const u8 *cdb, u64 *lba, u64 *blocks)
{
	switch (cdb[0] >> 5) {
	case 0:
		*lba = scsi_get24(cdb + 1) & 0x1FFFFF;
		*blocks = cdb[4] ? cdb[4] : 256;
		return;
	case 4:
		*lba = scsi_get64(cdb + 2);
		*blocks = scsi_get32(cdb + 10);
		return;
	case 5:
		*lba = scsi_get32(cdb + 2);
		*blocks = scsi_get32(cdb + 6);
		return;
	default:
		*lba = scsi_get32(cdb + 2);
		*blocks = scsi_get16(cdb + 7);
	}
}

/* ---- dispatch -------------------------------------------------------------------------------- */

const struct scsi_sense *scsi_attention_take(struct scsi_unit *u)
{
	static const struct scsi_sense says[] = {	/* by bit of enum scsi_attention */
		{ 0x06, 0x29, 0x00 }, { 0x06, 0x28, 0x00 }, { 0x06, 0x2A, 0x09 },
	};
	unsigned bit;

	if (!u->attention)
		return NULL;
	bit = __builtin_ctz(u->attention);
	u->attention &= ~BIT(bit);
	return &says[bit];
}

const struct scsi_sense *scsi_no_medium(const struct scsi_unit *u)
{
	return u->open ? &tray_open : u->block ? NULL : &tray_empty;
}

static const struct scsi_command *command_find(const struct scsi_unit *u, u8 opcode)
{
	const struct scsi_command *c = &scsi_primary[opcode];

	if (!c->run)
		c = u && u->kind == SCSI_CD ? &scsi_multimedia[opcode] : &scsi_block[opcode];
	return c->run && (!u || c->flags & (u->kind == SCSI_CD ? SCSI_ON_CD : SCSI_ON_DISK)) ? c : NULL;
}

void scsi_submit(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	const struct scsi_command *c = command_find(u, t->cdb[0]);
	const struct scsi_sense *why;

	t->sense_len = 0;
	t->overrun = false;
	t->moved = 0;
	t->buffer = NULL;
	t->io = (struct block_request){ 0 };
	if (!u && (!c || !(c->flags & SCSI_QUIET)))
		scsi_check(t, &no_unit);
	else if (!u || (c && c->flags & SCSI_QUIET))
		c->run(t);
	else if ((why = scsi_attention_take(u)))
		scsi_check(t, why);
	else if (!c)
		scsi_check(t, &SCSI_INVALID_OPCODE);
	else if (c->flags & SCSI_MEDIUM && (why = scsi_no_medium(u)))
		scsi_check(t, why);
	else if (c->flags & SCSI_WRITES && u->info.readonly)
		scsi_check(t, &SCSI_WRITE_PROTECTED);
	else
		c->run(t);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void unit_measure(struct scsi_unit *u)
{
	if (u->block)
		block_get_info(u->block, &u->info);
	else
		u->info = (struct block_info){ .align = 1, .physical = SECTOR_CD };
	u->info.readonly |= u->kind == SCSI_CD;
	u->block_size = u->kind == SCSI_CD ? SECTOR_CD : SECTOR_DISK;
	u->blocks = u->info.size / u->block_size;
}

void scsi_unit_reset(struct scsi_unit *u)
{
	u->attention = SCSI_ATTENTION_RESET;
	u->media_event = 0;
	u->locked = u->open = false;
}

void scsi_unit_init(struct scsi_unit *u, enum scsi_kind kind, struct block *block,
		    const char *serial)
{
	*u = (struct scsi_unit){ .kind = kind, .block = block };
	if (serial)
		memcpy(u->serial, serial, strnlen(serial, SCSI_SERIAL_SIZE));
	unit_measure(u);
	scsi_unit_reset(u);
}

void scsi_unit_destroy(struct scsi_unit *u)
{
	block_close(u->block);
	u->block = NULL;
}

void scsi_unit_replace(struct scsi_unit *u, struct block *block)
{
	scsi_unit_drain(u);
	block_close(u->block);
	u->block = block;
	unit_measure(u);
}

void scsi_unit_drain(struct scsi_unit *u)
{
	if (u->in_flight)
		block_drain(u->block);
}

void scsi_unit_resized(struct scsi_unit *u)
{
	unit_measure(u);
	u->attention |= u->kind == SCSI_CD ? SCSI_ATTENTION_MEDIUM : SCSI_ATTENTION_CAPACITY;
}
