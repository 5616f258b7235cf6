/* Block commands (SBC-3): of disks, and those that CD-ROM drives share with them (see cd.c). */
#include <stdlib.h>
#include <string.h>

#include "vmm/scsi/disk.h"
#include "vmm/virtio/sg.h"



/* Is [lba, lba + blocks) on the medium? Else the task has ended. */
static bool range_check(struct scsi_task *t, u64 lba, u64 blocks)
{
	u64 all = t->unit->blocks;

	if (lba <= all && blocks <= all - lba)
		return true;
	scsi_check(t, &SCSI_OUT_OF_RANGE);
	return false;
}

static void data_done(struct scsi_task *t, int result)
{
	t->moved = result == 0 ? t->io.bytes : 0;
	scsi_io_end(t, result);
}

void scsi_data(struct scsi_task *t, bool write, u64 lba, u64 blocks)
{
	u64 bytes = blocks * t->unit->block_size, there = write ? t->out_bytes : t->in_bytes;
	struct iovec *iov = write ? t->out : t->in;

	if (!range_check(t, lba, blocks))
		return;
	if (bytes > there) {
		t->overrun = true;
		scsi_good(t);
		return;
	}
	if (!bytes) {
		scsi_good(t);
		return;
	}
	t->io.op = write ? BLOCK_WRITE : BLOCK_READ;
	t->io.offset = lba * t->unit->block_size;
	t->io.bytes = bytes;
	t->io.iov = iov;
	t->io.iovs = sg_slice(iov, write ? t->outs : t->ins, 0, bytes, iov);
	scsi_io(t, data_done);
}

/* RDPROTECT and kin: there is no protection information. */
static bool protection_asked(const struct scsi_task *t)
{
	return t->cdb[0] >> 5 && t->cdb[1] >> 5;
}

void scsi_read(struct scsi_task *t)
{
	u64 lba, blocks;

	scsi_range(t->cdb, &lba, &blocks);
	if (protection_asked(t))
		scsi_check(t, &SCSI_INVALID_FIELD);
	else
		scsi_data(t, false, lba, blocks);
}

static void write_blocks(struct scsi_task *t)
{
	u64 lba, blocks;

	scsi_range(t->cdb, &lba, &blocks);
	if (protection_asked(t)) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	/* FUA; WRITE AND VERIFY has no such bit and means the medium. */
	t->io.fua = (t->cdb[0] >> 5 && t->cdb[1] & 8) || t->cdb[0] == 0x2E || t->cdb[0] == 0x8E;
	scsi_data(t, true, lba, blocks);
}

/* Without a comparison the answer is that of a read; with one, we would have to hold both. */
void scsi_verify(struct scsi_task *t)
{
	u64 lba, blocks;

	scsi_range(t->cdb, &lba, &blocks);
	if (t->cdb[1] & 6 || protection_asked(t))
		scsi_check(t, &SCSI_INVALID_FIELD);
	else if (range_check(t, lba, blocks))
		scsi_good(t);
}

static void synchronize(struct scsi_task *t)
{
	u64 lba, blocks;

	scsi_range(t->cdb, &lba, &blocks);
	if (!range_check(t, lba, blocks))
		return;
	t->io.op = BLOCK_FLUSH;
	scsi_io(t, scsi_io_end);
}

void scsi_read_capacity(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	u8 data[8];

	if (t->cdb[8] & 1 || scsi_get32(t->cdb + 2)) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	scsi_put32(data, u->blocks ? MIN(u->blocks - 1, 0xFFFFFFFFULL) : 0);
	scsi_put32(data + 4, u->block_size);
	scsi_reply(t, data, sizeof(data), sizeof(data));
}

/* SERVICE ACTION IN(16): READ CAPACITY(16) is all there is. */
static void read_capacity_16(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	u8 data[32] = { 0 };

	if ((t->cdb[1] & 0x1F) != 0x10) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	scsi_put64(data, u->blocks ? u->blocks - 1 : 0);
	scsi_put32(data + 8, u->block_size);
	data[13] = __builtin_ctz(MAX(u->info.physical / u->block_size, 1u));
	data[14] = u->info.discard ? 0x80 : 0;	/* thin: LBPME */
	scsi_reply(t, data, sizeof(data), scsi_get32(t->cdb + 10));
}

/* A disk that is stopped is one that has written everything. */
static void start_stop(struct scsi_task *t)
{
	if (t->cdb[4] & 1) {
		scsi_good(t);
		return;
	}
	t->io.op = BLOCK_FLUSH;
	scsi_io(t, scsi_io_end);
}

/* ---- WRITE SAME ------------------------------------------------------------------------------ */

static bool is_zero(const u8 *data, size_t n)
{
	return !data[0] && memcmp(data, data + 1, n - 1) == 0;
}

static void pattern_step(struct scsi_task *t, int result)
{
	u64 size = t->unit->block_size, blocks = MIN(t->end - t->lba, SCSI_PATTERN_SIZE / size);

	if (result < 0 || !blocks) {
		scsi_io_end(t, result);
		return;
	}
	t->one = (struct iovec){ t->buffer, blocks * size };
	t->io.op = BLOCK_WRITE;
	t->io.offset = t->lba * size;
	t->io.bytes = blocks * size;
	t->io.iov = &t->one;
	t->io.iovs = 1;
	t->lba += blocks;
	scsi_io(t, pattern_step);
}

static void write_pattern(struct scsi_task *t, const u8 *block, u64 lba, u64 blocks)
{
	u32 size = t->unit->block_size;

	t->buffer = malloc(SCSI_PATTERN_SIZE);
	if (!t->buffer) {
		scsi_check(t, &SCSI_NO_MEMORY);
		return;
	}
	for (u32 i = 0; i < SCSI_PATTERN_SIZE; i += size)
		memcpy(t->buffer + i, block, size);
	t->lba = lba;
	t->end = lba + blocks;
	pattern_step(t, 0);
}

static void write_same(struct scsi_task *t)
{
	u32 size = t->unit->block_size;
	bool unmap = t->cdb[1] & 8, no_data = t->cdb[0] == 0x93 && t->cdb[1] & 1;
	u8 block[4096] = { 0 };
	u64 lba, blocks;

	scsi_range(t->cdb, &lba, &blocks);
	if (t->cdb[1] & 0xF6 || !blocks || blocks > SCSI_RANGE_MAX) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	if (!range_check(t, lba, blocks) || (!no_data && !scsi_parameters(t, block, size)))
		return;
	if (!is_zero(block, size)) {
		write_pattern(t, block, lba, blocks);
		return;
	}
	t->io.op = BLOCK_WRITE_ZEROES;
	t->io.unmap = unmap;
	t->io.offset = lba * size;
	t->io.bytes = blocks * size;
	scsi_io(t, scsi_io_end);
}

/* ---- UNMAP: t->buffer has its ranges of 16 bytes --------------------------------------------- */

static void unmap_step(struct scsi_task *t, int result)
{
	const u8 *range = t->buffer + 16 * t->at;

	while (result == 0 && t->at < t->count && !scsi_get32(range + 8)) {
		t->at++;
		range += 16;
	}
	if (result < 0 || t->at == t->count) {
		scsi_io_end(t, result);
		return;
	}
	t->at++;
	t->io.op = BLOCK_DISCARD;
	t->io.offset = scsi_get64(range) * t->unit->block_size;
	t->io.bytes = (u64)scsi_get32(range + 8) * t->unit->block_size;
	scsi_io(t, unmap_step);
}

static bool unmap_ranges_valid(struct scsi_task *t)
{
	for (unsigned i = 0; i < t->count; i++) {
		const u8 *range = t->buffer + 16 * i;

		if (scsi_get32(range + 8) > SCSI_RANGE_MAX) {
			scsi_check(t, &SCSI_INVALID_PARAMETER);
			return false;
		}
		if (!range_check(t, scsi_get64(range), scsi_get32(range + 8)))
			return false;
	}
	return true;
}

static void unmap(struct scsi_task *t)
{
	u32 len = scsi_get16(t->cdb + 7);
	u8 list[8 + 16 * SCSI_UNMAP_RANGES];

	if (!t->unit->info.discard || t->cdb[1] & 1) {
		scsi_check(t, t->cdb[1] & 1 ? &SCSI_INVALID_FIELD : &SCSI_INVALID_OPCODE);
		return;
	}
	if (!len) {
		scsi_good(t);
		return;
	}
	if (len < 8 || len > sizeof(list)) {
		scsi_check(t, len < 8 ? &SCSI_PARAMETER_LENGTH : &SCSI_INVALID_FIELD);
		return;
	}
	if (!scsi_parameters(t, list, len))
		return;
	if (scsi_get16(list) < 6 || scsi_get16(list + 2) > len - 8) {
		scsi_check(t, &SCSI_INVALID_PARAMETER);
		return;
	}
	t->at = 0;
	t->count = scsi_get16(list + 2) / 16;
	t->buffer = malloc(sizeof(list));
	if (!t->buffer) {
		scsi_check(t, &SCSI_NO_MEMORY);
		return;
	}
	memcpy(t->buffer, list + 8, 16 * t->count);
	if (unmap_ranges_valid(t))
		unmap_step(t, 0);
}

#define ON SCSI_ON_DISK
#define ON_WRITES (SCSI_ON_DISK | SCSI_WRITES)

const struct scsi_command scsi_block[256] = {
	[0x08] = { scsi_read, ON }, [0x28] = { scsi_read, ON }, [0xA8] = { scsi_read, ON },
	[0x88] = { scsi_read, ON },
	[0x0A] = { write_blocks, ON_WRITES }, [0x2A] = { write_blocks, ON_WRITES },
	[0xAA] = { write_blocks, ON_WRITES }, [0x8A] = { write_blocks, ON_WRITES },
	[0x2E] = { write_blocks, ON_WRITES }, [0x8E] = { write_blocks, ON_WRITES },
	[0x2F] = { scsi_verify, ON }, [0xAF] = { scsi_verify, ON }, [0x8F] = { scsi_verify, ON },
	[0x35] = { synchronize, ON }, [0x91] = { synchronize, ON },
	[0x25] = { scsi_read_capacity, ON }, [0x9E] = { read_capacity_16, ON },
	[0x1B] = { start_stop, ON },
	[0x41] = { write_same, ON_WRITES }, [0x93] = { write_same, ON_WRITES },
	[0x42] = { unmap, ON_WRITES },
};
