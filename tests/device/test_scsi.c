/*
 * The SCSI controller with a disk and a CD-ROM drive, driven command by command: data against the image
 * on the host, sense data against the standards' codes, resets, saved state and hostile drivers.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_scsi.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/device/virtio_board.h"
#include "vmm/virtio/scsi.h"

#define DISK_SIZE	(1 << 20)
#define CD_SIZE		(100 * 2048)
#define SENSE		96
#define CDB		32
#define HEAD		(19 + CDB)
#define ANSWER		(12 + SENSE)

#define COMMON (BIT(VIRTIO_SCSI_F_CHANGE))

enum { DISK, CD, NOBODY };

struct host {
	struct board b;
	struct virtio_scsi scsi;
	char file[2][32];
	u8 image[2][DISK_SIZE];
};

static void unit_open(struct host *h, int i, bool readonly)
{
	const struct block_options o = { .file = h->file[i], .format = "raw", .readonly = readonly };
	struct block *block;

	assert_int_equal(block_open(&block, &o, &h->b.io.loop, &h->b.err), 0);
	virtio_scsi_add(&h->scsi, i == CD ? SCSI_CD : SCSI_DISK, block, i == CD ? NULL : "serial-7");
}

static void host_open(struct host *h, bool readonly)
{
	board_init(&h->b);
	assert_int_equal(virtio_scsi_init(&h->scsi, 2, &h->b.ram.mem, &h->b.io, &h->b.err), 0);
	unit_open(h, DISK, readonly);
	unit_open(h, CD, true);
	board_start(&h->b, &h->scsi.dev);
}

static struct host *host_new(bool readonly)
{
	struct host *h = calloc(1, sizeof(*h));

	for (int i = 0; i < 2; i++) {
		size_t size = i == CD ? CD_SIZE : DISK_SIZE;
		int fd;

		strcpy(h->file[i], "/tmp/qumra-scsi-XXXXXX");
		fd = mkstemp(h->file[i]);
		for (size_t k = 0; k < size; k++)
			h->image[i][k] = (k >> 9) + k * 13 + i;
		assert_int_equal(write(fd, h->image[i], size), size);
		close(fd);
	}
	host_open(h, readonly);
	return h;
}

static void host_free(struct host *h)
{
	board_stop(&h->b);
	virtio_scsi_destroy(&h->scsi);
	board_free(&h->b);
	unlink(h->file[DISK]);
	unlink(h->file[CD]);
	free(h);
}

/* What a command came to. */
struct answer {
	u32 sense_len, resid;
	u16 qualifier;
	u8 status, response;
	u8 sense[SENSE];
	u32 used;
};

struct request {
	u64 head, answer;
	int id;
};

/* lun0: 1, target, unit. */
static struct request submit(struct host *h, unsigned queue, unsigned target, unsigned unit,
			     const void *cdb, unsigned cdb_len, u64 data, u32 n, bool read)
{
	struct request r = { ram_alloc(&h->b.ram, HEAD), ram_alloc(&h->b.ram, ANSWER), -1 };
	const struct piece all[] = {
		{ r.head, HEAD, false }, { data, n, read }, { r.answer, ANSWER, true } };
	struct piece p[3] = { all[0], read || !n ? all[2] : all[1], read ? all[1] : all[2] };
	unsigned pieces = n ? 3 : 2;
	u64 table = h->b.features & INDIRECT ? ram_alloc(&h->b.ram, 16 * pieces) : 0;
	u8 *head = at(h->b.ram.bytes, r.head);

	memset(head, 0, HEAD);
	head[0] = 1;
	head[1] = target;
	head[2] = 0x40;
	head[3] = unit;
	memcpy(head + 19, cdb, cdb_len);
	memset(at(h->b.ram.bytes, r.answer), 0xEE, ANSWER);
	r.id = driver_submit(&h->b.q[queue], p, pieces, table);
	assert_true(r.id >= 0);
	return r;
}

static struct answer command_at(struct host *h, unsigned target, unsigned unit, const void *cdb,
				unsigned cdb_len, u64 data, u32 n, bool read)
{
	u64 top = h->b.ram.top;
	struct request r = submit(h, 2, target, unit, cdb, cdb_len, data, n, read);
	struct answer a;
	u16 id;

	kick(&h->b, 2);
	a.used = wait_used(&h->b, 2, &id);
	memcpy(&a, at(h->b.ram.bytes, r.answer), ANSWER);
	h->b.ram.top = top;
	return a;
}

static struct answer command(struct host *h, unsigned target, const void *cdb, unsigned cdb_len,
			     u64 data, u32 n, bool read)
{
	return command_at(h, target, 0, cdb, cdb_len, data, n, read);
}

#define CMD(...) ((const u8[]){ __VA_ARGS__ }), sizeof((const u8[]){ __VA_ARGS__ })

static void check_sense(const struct answer *a, u8 key, u8 asc, u8 ascq)
{
	assert_int_equal(a->response, VIRTIO_SCSI_S_OK);
	assert_int_equal(a->status, SCSI_CHECK_CONDITION);
	assert_int_equal(a->sense_len, 18);
	assert_int_equal(a->sense[0], 0x70);
	assert_int_equal(a->sense[2], key);
	assert_int_equal(a->sense[7], 10);
	assert_int_equal(a->sense[12], asc);
	assert_int_equal(a->sense[13], ascq);
}

/* Good, with n bytes moved of those that there was room for. */
static void check_good(const struct answer *a, u32 room, u32 n)
{
	assert_int_equal(a->response, VIRTIO_SCSI_S_OK);
	assert_int_equal(a->status, SCSI_GOOD);
	assert_int_equal(a->sense_len, 0);
	assert_int_equal(a->resid, room - n);
}

/* Every unit begins with having been reset. */
static void settle(struct host *h)
{
	for (unsigned i = 0; i < 2; i++) {
		struct answer a = command(h, i, CMD(0, 0, 0, 0, 0, 0), 0, 0, false);

		check_sense(&a, 6, 0x29, 0);
		a = command(h, i, CMD(0, 0, 0, 0, 0, 0), 0, 0, false);
		check_good(&a, 0, 0);
	}
}

static struct host *host_start(bool readonly, u64 features)
{
	struct host *h = host_new(readonly);

	drive(&h->b, features | COMMON, 4);
	settle(h);
	return h;
}

static void test_who_is_there(void **state)
{
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct host *h = host_new(false);
		u64 buf;
		u8 *data;
		struct answer a;

		drive(&h->b, layouts[l] | COMMON, 4);
		buf = ram_alloc(&h->b.ram, 256);
		data = at(h->b.ram.bytes, buf);
		/* These say nothing of the reset, and leave it to be told. */
		a = command(h, DISK, CMD(0x12, 0, 0, 0, 96, 0), buf, 96, true);
		check_good(&a, 96, 36);
		assert_int_equal(a.used, ANSWER + 36);
		assert_memory_equal(data, "\0\0", 2);
		assert_memory_equal(data + 8, "QUMRA   HARDDISK        1.0 ", 28);
		a = command(h, CD, CMD(0x12, 0, 0, 0, 5, 0), buf, 96, true);
		check_good(&a, 96, 5);
		assert_memory_equal(data, "\x05\x80", 2);
		a = command(h, CD, CMD(0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), buf, 64, true);
		check_good(&a, 64, 16);
		assert_memory_equal(data, "\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0", 16);
		settle(h);
		/* Nobody there; a target without this unit. */
		a = command(h, NOBODY, CMD(0x12, 0, 0, 0, 36, 0), buf, 36, true);
		assert_int_equal(a.response, VIRTIO_SCSI_S_BAD_TARGET);
		a = command_at(h, DISK, 1, CMD(0x12, 0, 0, 0, 36, 0), buf, 36, true);
		check_good(&a, 36, 36);
		assert_int_equal(data[0], 0x7F);
		a = command_at(h, DISK, 1, CMD(0, 0, 0, 0, 0, 0), 0, 0, false);
		check_sense(&a, 5, 0x25, 0);
		a = command_at(h, DISK, 1, CMD(0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), buf, 64, true);
		check_good(&a, 64, 16);
		/* Vital product data: the list, and all in it. */
		a = command(h, DISK, CMD(0x12, 1, 0, 0, 255, 0), buf, 255, true);
		check_good(&a, 255, 4 + 6);
		assert_memory_equal(data + 2, "\0\x06\0\x80\x83\xB0\xB1\xB2", 8);
		a = command(h, DISK, CMD(0x12, 1, 0x80, 0, 255, 0), buf, 255, true);
		check_good(&a, 255, 12);
		assert_memory_equal(data + 4, "serial-7", 8);
		for (const u8 *p = (const u8 *)"\x83\xB0\xB1\xB2"; *p; p++) {
			a = command(h, DISK, CMD(0x12, 1, *p, 0, 255, 0), buf, 255, true);
			check_good(&a, 255, 4 + data[3]);
			assert_int_equal(data[1], *p);
		}
		a = command(h, CD, CMD(0x12, 1, 0x80, 0, 255, 0), buf, 255, true);
		check_sense(&a, 5, 0x24, 0);
		a = command(h, DISK, CMD(0x12, 0, 0x80, 0, 255, 0), buf, 255, true);
		check_sense(&a, 5, 0x24, 0);
		host_free(h);
	}
}

static void test_disk_data(void **state)
{
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct host *h = host_start(false, layouts[l]);
		u64 buf = ram_alloc(&h->b.ram, 131072);
		u8 *data = at(h->b.ram.bytes, buf), file[4096];
		struct answer a = command(h, DISK, CMD(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), buf, 8, true);
		int fd;

		check_good(&a, 8, 8);
		assert_memory_equal(data, "\0\0\x07\xFF\0\0\x02\0", 8);
		a = command(h, DISK, CMD(0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), buf, 32, true);
		check_good(&a, 32, 32);
		assert_memory_equal(data, "\0\0\0\0\0\0\x07\xFF\0\0\x02\0", 12);
		/* Each size of command reads the same. */
		a = command(h, DISK, CMD(0x08, 0, 1, 0, 8, 0), buf, 4096, true);
		check_good(&a, 4096, 4096);
		assert_memory_equal(data, h->image[DISK] + 256 * 512, 4096);
		a = command(h, DISK, CMD(0x08, 0, 1, 0, 0, 0), buf, 131072, true);
		check_good(&a, 131072, 131072);
		a = command(h, DISK, CMD(0x28, 0, 0, 0, 1, 3, 0, 0, 4, 0), buf, 4096, true);
		check_good(&a, 4096, 2048);
		assert_memory_equal(data, h->image[DISK] + 0x103 * 512, 2048);
		a = command(h, DISK, CMD(0xA8, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0), buf, 1024, true);
		check_good(&a, 1024, 1024);
		assert_memory_equal(data, h->image[DISK] + 5 * 512, 1024);
		a = command(h, DISK, CMD(0x88, 0, 0, 0, 0, 0, 0, 0, 7, 0xF8, 0, 0, 0, 8, 0, 0), buf,
			4096, true);
		check_good(&a, 4096, 4096);
		assert_memory_equal(data, h->image[DISK] + 0x7F8 * 512, 4096);
		/* And writes: plain, through the cache, with all of them behind a flush. */
		for (int i = 0; i < 4; i++) {
			const u8 op[] = { 0x2A, 0x2A, 0x8A, 0x2E };
			u8 cdb[16] = { op[i], i == 1 ? 8 : 0, 0, 0, 0, 16 + i, 0, 0, 1 };

			if (op[i] == 0x8A) {
				cdb[5] = cdb[8] = 0;
				cdb[9] = 16 + i;
				cdb[13] = 1;
			}
			memset(data, 0x40 + i, 512);
			a = command(h, DISK, cdb, op[i] == 0x8A ? 16 : 10, buf, 512, false);
			check_good(&a, 512, 512);
			assert_int_equal(a.used, ANSWER);
		}
		a = command(h, DISK, CMD(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0, 0, false);
		check_good(&a, 0, 0);
		fd = open(h->file[DISK], O_RDONLY);
		assert_int_equal(pread(fd, file, 2048, 16 * 512), 2048);
		close(fd);
		for (int i = 0; i < 2048; i++)
			assert_int_equal(file[i], 0x40 + i / 512);
		host_free(h);
	}
}

static void test_disk_ranges(void **state)
{
	struct host *h = host_start(false, layouts[3]);
	u64 buf = ram_alloc(&h->b.ram, 8192);
	u8 *data = at(h->b.ram.bytes, buf), zero[512] = { 0 };
	struct answer a;

	/* WRITE SAME: a pattern in more steps than one, zeroes, no data. */
	memset(data, 0, 512);
	strcpy((char *)data, "pattern");
	a = command(h, DISK, CMD(0x93, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 1, 44, 0, 0), buf, 512, false);
	check_good(&a, 512, 512);
	for (unsigned lba = 99; lba <= 400; lba += lba == 99 || lba == 399 ? 1 : 299) {
		a = command(h, DISK, CMD(0x28, 0, 0, 0, lba >> 8, lba, 0, 0, 1, 0), buf, 512, true);
		check_good(&a, 512, 512);
		if (lba == 99 || lba == 400)
			assert_memory_equal(data, h->image[DISK] + lba * 512, 512);
		else
			assert_string_equal(data, "pattern");
	}
	memset(data, 0, 512);
	a = command(h, DISK, CMD(0x41, 8, 0, 0, 0, 100, 0, 0, 2, 0), buf, 512, false);
	check_good(&a, 512, 512);
	a = command(h, DISK, CMD(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 102, 0, 0, 0, 1, 0, 0), 0, 0, false);
	check_good(&a, 0, 0);
	a = command(h, DISK, CMD(0x28, 0, 0, 0, 0, 100, 0, 0, 4, 0), buf, 2048, true);
	check_good(&a, 2048, 2048);
	for (int i = 0; i < 3; i++)
		assert_memory_equal(data + i * 512, zero, 512);
	assert_string_equal(data + 3 * 512, "pattern");
	/* UNMAP of two ranges and an empty one. */
	memset(data, 0, 56);
	scsi_put16(data, 54);
	scsi_put16(data + 2, 48);
	scsi_put64(data + 8, 103);
	scsi_put32(data + 16, 1);
	scsi_put64(data + 24, 105);
	scsi_put64(data + 40, 2000);
	scsi_put32(data + 48, 48);
	a = command(h, DISK, CMD(0x42, 0, 0, 0, 0, 0, 0, 0, 56, 0), buf, 56, false);
	check_good(&a, 56, 56);
	a = command(h, DISK, CMD(0x28, 0, 0, 0, 0, 103, 0, 0, 2, 0), buf, 1024, true);
	assert_memory_equal(data, zero, 512);
	assert_string_equal(data + 512, "pattern");
	/* Ranges that are none. */
	memset(data, 0, 24);
	scsi_put16(data, 22);
	scsi_put16(data + 2, 16);
	scsi_put64(data + 8, ~0ULL);
	scsi_put32(data + 16, 1);
	a = command(h, DISK, CMD(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), buf, 24, false);
	check_sense(&a, 5, 0x21, 0);
	scsi_put64(data + 8, 0);
	scsi_put32(data + 16, ~0u);
	a = command(h, DISK, CMD(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), buf, 24, false);
	check_sense(&a, 5, 0x26, 0);
	a = command(h, DISK, CMD(0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0), buf, 7, false);
	check_sense(&a, 5, 0x1A, 0);
	a = command(h, DISK, CMD(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), buf, 20, false);
	check_sense(&a, 5, 0x1A, 0);
	a = command(h, DISK, CMD(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0, 0, false);
	check_sense(&a, 5, 0x24, 0);
	host_free(h);
}

static void test_disk_refuses(void **state)
{
	struct host *h = host_start(false, layouts[1]);
	u64 buf = ram_alloc(&h->b.ram, 4096);
	struct answer a;

	a = command(h, DISK, CMD(0xFF, 0, 0, 0, 0, 0), 0, 0, false);
	check_sense(&a, 5, 0x20, 0);
	a = command(h, DISK, CMD(0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0), buf, 12, true);	/* a CD's */
	check_sense(&a, 5, 0x20, 0);
	a = command(h, DISK, CMD(0x28, 0, 0, 0, 7, 0xFF, 0, 0, 2, 0), buf, 1024, true);
	check_sense(&a, 5, 0x21, 0);
	a = command(h, DISK, CMD(0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1, 0, 0), buf,
		512, true);
	check_sense(&a, 5, 0x21, 0);
	a = command(h, DISK, CMD(0x2A, 0, 0x80, 0, 0, 0, 0, 0, 1, 0), buf, 512, false);
	check_sense(&a, 5, 0x21, 0);
	a = command(h, DISK, CMD(0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0), buf, 512, true);
	check_sense(&a, 5, 0x24, 0);
	/* More data than there is room for, either way: told, nothing done. */
	a = command(h, DISK, CMD(0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0), buf, 512, true);
	assert_int_equal(a.response, VIRTIO_SCSI_S_OVERRUN);
	a = command(h, DISK, CMD(0x2A, 0, 0, 0, 0, 0, 0, 0, 2, 0), buf, 512, false);
	assert_int_equal(a.response, VIRTIO_SCSI_S_OVERRUN);
	a = command(h, DISK, CMD(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), buf, 4, true);
	assert_int_equal(a.response, VIRTIO_SCSI_S_OVERRUN);
	/* Sense data on request, when none came by itself. */
	a = command(h, DISK, CMD(0x03, 0, 0, 0, 18, 0), buf, 18, true);
	check_good(&a, 18, 18);
	assert_int_equal(((u8 *)at(h->b.ram.bytes, buf))[2], 0);
	host_free(h);
	/* A disk that cannot be written says so, and is not. */
	h = host_start(true, layouts[1]);
	buf = ram_alloc(&h->b.ram, 512);
	a = command(h, DISK, CMD(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), buf, 512, false);
	check_sense(&a, 7, 0x27, 0);
	a = command(h, DISK, CMD(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0), 0, 0, false);
	check_sense(&a, 7, 0x27, 0);
	a = command(h, DISK, CMD(0x1A, 0, 0x3F, 0, 255, 0), buf, 255, true);
	assert_true(((u8 *)at(h->b.ram.bytes, buf))[2] & 0x80);
	host_free(h);
}

static void test_mode_pages(void **state)
{
	struct host *h = host_start(false, layouts[3]);
	u64 buf = ram_alloc(&h->b.ram, 512);
	u8 *data = at(h->b.ram.bytes, buf);
	struct answer a = command(h, DISK, CMD(0x1A, 0, 0x3F, 0, 255, 0), buf, 255, true);

	check_good(&a, 255, 4 + 8 + 12 + 20 + 12);
	assert_memory_equal(data, "\x37\0\x10\x08\0\0\x08\0\0\0\x02\0\x01\x0A", 14);
	a = command(h, DISK, CMD(0x5A, 8, 8, 0, 0, 0, 0, 0, 255, 0), buf, 255, true);
	check_good(&a, 255, 8 + 20);
	assert_memory_equal(data + 8, "\x08\x12\x04", 3);	/* there is a write cache */
	/* What is read may be written back, what differs may not. */
	data[0] = data[1] = 0;
	a = command(h, DISK, CMD(0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0), buf, 28, false);
	check_good(&a, 28, 28);
	data[10] = 0;
	a = command(h, DISK, CMD(0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0), buf, 28, false);
	check_sense(&a, 5, 0x26, 0);
	data[6] = 0xFF;
	a = command(h, DISK, CMD(0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0), buf, 28, false);
	check_sense(&a, 5, 0x1A, 0);
	a = command(h, DISK, CMD(0x55, 0x11, 0, 0, 0, 0, 0, 0, 28, 0), buf, 28, false);
	check_sense(&a, 5, 0x24, 0);
	/* Nothing is changeable, nothing saved. */
	a = command(h, DISK, CMD(0x1A, 8, 0x48, 0, 255, 0), buf, 255, true);
	check_good(&a, 255, 24);
	assert_int_equal(data[6], 0);
	a = command(h, DISK, CMD(0x1A, 8, 0xC8, 0, 255, 0), buf, 255, true);
	check_sense(&a, 5, 0x39, 0);
	a = command(h, DISK, CMD(0x1A, 8, 0x2A, 0, 255, 0), buf, 255, true);
	check_sense(&a, 5, 0x24, 0);
	a = command(h, CD, CMD(0x1A, 8, 0x2A, 0, 255, 0), buf, 255, true);
	check_good(&a, 255, 4 + 22);
	assert_int_equal(data[10] & 0x29, 0x29);
	host_free(h);
}

static void test_cd(void **state)
{
	struct host *h = host_start(false, layouts[3]);
	u64 buf = ram_alloc(&h->b.ram, 8192);
	u8 *data = at(h->b.ram.bytes, buf);
	struct answer a = command(h, CD, CMD(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), buf, 8, true);

	check_good(&a, 8, 8);
	assert_memory_equal(data, "\0\0\0\x63\0\0\x08\0", 8);
	a = command(h, CD, CMD(0x28, 0, 0, 0, 0, 16, 0, 0, 2, 0), buf, 4096, true);
	check_good(&a, 4096, 4096);
	assert_memory_equal(data, h->image[CD] + 16 * 2048, 4096);
	a = command(h, CD, CMD(0xBE, 0, 0, 0, 0, 99, 0, 0, 1, 0x10, 0, 0), buf, 4096, true);
	check_good(&a, 4096, 2048);
	assert_memory_equal(data, h->image[CD] + 99 * 2048, 2048);
	a = command(h, CD, CMD(0x28, 0, 0, 0, 0, 99, 0, 0, 2, 0), buf, 4096, true);
	check_sense(&a, 5, 0x21, 0);
	a = command(h, CD, CMD(0x2A, 0, 0, 0, 0, 99, 0, 0, 1, 0), buf, 2048, false);
	check_sense(&a, 5, 0x20, 0);
	/* One track and the lead-out behind it: as blocks, and as minutes, seconds, frames. */
	a = command(h, CD, CMD(0x43, 0, 0, 0, 0, 0, 0, 0, 255, 0), buf, 255, true);
	check_good(&a, 255, 20);
	assert_memory_equal(data, "\0\x12\x01\x01\0\x14\x01\0\0\0\0\0\0\x14\xAA\0\0\0\0\x64", 20);
	a = command(h, CD, CMD(0x43, 2, 0, 0, 0, 0, 0xAA, 0, 255, 0), buf, 255, true);
	check_good(&a, 255, 12);
	assert_memory_equal(data + 4, "\0\x14\xAA\0\0\0\x03\x19", 8);	/* 100 + 150 frames */
	a = command(h, CD, CMD(0x43, 0, 0, 0, 0, 0, 0, 0, 255, 0x40), buf, 255, true);
	check_good(&a, 255, 12);
	a = command(h, CD, CMD(0x43, 2, 2, 0, 0, 0, 0, 0, 255, 0), buf, 255, true);
	check_good(&a, 255, 4 + 4 * 11);
	a = command(h, CD, CMD(0x43, 0, 0, 0, 0, 0, 2, 0, 255, 0), buf, 255, true);
	check_sense(&a, 5, 0x24, 0);
	a = command(h, CD, CMD(0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0), buf, 256, true);
	check_good(&a, 256, 4 + scsi_get32(data));
	assert_int_equal(scsi_get16(data + 6), 8);
	a = command(h, CD, CMD(0x46, 2, 0, 0x10, 0, 0, 0, 1, 0, 0), buf, 256, true);
	check_good(&a, 256, 20);
	a = command(h, CD, CMD(0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0), buf, 34, true);
	check_good(&a, 34, 34);
	a = command(h, CD, CMD(0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), buf, 8, true);
	check_good(&a, 8, 8);
	host_free(h);
}

static u8 media_event(struct host *h, u64 buf, u8 *status)
{
	u8 *data = at(h->b.ram.bytes, buf);
	struct answer a = command(h, CD, CMD(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), buf, 8, true);

	check_good(&a, 8, 8);
	assert_memory_equal(data, "\0\x06\x04\x10", 4);
	*status = data[5];
	return data[4];
}

static void test_tray(void **state)
{
	struct host *h = host_start(false, layouts[1]);
	u64 buf = ram_alloc(&h->b.ram, 4096);
	struct answer a;
	u8 status;

	assert_int_equal(media_event(h, buf, &status), 0);
	assert_int_equal(status, 2);
	/* Locked, it stays. */
	a = command(h, CD, CMD(0x1E, 0, 0, 0, 1, 0), 0, 0, false);
	check_good(&a, 0, 0);
	a = command(h, CD, CMD(0x1B, 0, 0, 0, 2, 0), 0, 0, false);
	check_sense(&a, 5, 0x53, 2);
	a = command(h, CD, CMD(0x1E, 0, 0, 0, 0, 0), 0, 0, false);
	a = command(h, CD, CMD(0x1B, 0, 0, 0, 2, 0), 0, 0, false);
	check_good(&a, 0, 0);
	/* Open, over a saved state as well. */
	board_reload(&h->b, &virtio_scsi_device_ops, &h->scsi);
	a = command(h, CD, CMD(0, 0, 0, 0, 0, 0), 0, 0, false);
	check_sense(&a, 2, 0x3A, 2);
	a = command(h, CD, CMD(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), buf, 2048, true);
	check_sense(&a, 2, 0x3A, 2);
	a = command(h, CD, CMD(0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0), buf, 256, true);
	check_good(&a, 256, 4 + scsi_get32(at(h->b.ram.bytes, buf)));
	assert_int_equal(media_event(h, buf, &status), 3);
	assert_int_equal(status, 1);
	assert_int_equal(media_event(h, buf, &status), 0);
	/* Closed: told as an event. */
	a = command(h, CD, CMD(0x1B, 0, 0, 0, 3, 0), 0, 0, false);
	check_good(&a, 0, 0);
	assert_int_equal(media_event(h, buf, &status), 2);
	a = command(h, CD, CMD(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), buf, 2048, true);
	check_good(&a, 2048, 2048);
	check_round_trip(&virtio_scsi_device_ops, &h->scsi);
	check_bad_states(&virtio_scsi_device_ops, &h->scsi, 4);
	host_free(h);
}

/* ---- another medium -------------------------------------------------------------------------- */

static void load(struct host *h, const char *file)
{
	const struct block_options o = { .file = file, .format = "raw", .readonly = true };
	struct block *block = NULL;

	virtio_lock(&h->scsi.dev);
	if (file)
		assert_int_equal(block_open(&block, &o, &h->b.io.loop, &h->b.err), 0);
	scsi_cd_load(&h->scsi.unit[CD], block);
	virtio_unlock(&h->scsi.dev);
}

static int eject(struct host *h, bool force)
{
	int ret;

	virtio_lock(&h->scsi.dev);
	ret = scsi_cd_eject(&h->scsi.unit[CD], force);
	if (ret == 0)
		scsi_cd_remove(&h->scsi.unit[CD]);
	virtio_unlock(&h->scsi.dev);
	return ret;
}

/* Nothing can be read, and the drive says why; a guest that closes the tray finds nothing in it. */
static void check_empty(struct host *h, u64 buf)
{
	struct answer a = command(h, CD, CMD(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), buf, 2048, true);
	u8 status;

	check_sense(&a, 2, 0x3A, 2);
	assert_int_equal(media_event(h, buf, &status), 3);
	assert_int_equal(status, 1);
	a = command(h, CD, CMD(0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0), buf, 256, true);
	assert_int_equal(scsi_get16((u8 *)at(h->b.ram.bytes, buf) + 6), 0);
	a = command(h, CD, CMD(0x1B, 0, 0, 0, 3, 0), 0, 0, false);
	check_good(&a, 0, 0);
	a = command(h, CD, CMD(0, 0, 0, 0, 0, 0), 0, 0, false);
	check_sense(&a, 2, 0x3A, 1);
	assert_int_equal(media_event(h, buf, &status), 0);
	assert_int_equal(status, 0);
	check_round_trip(&virtio_scsi_device_ops, &h->scsi);
}

/* The disk's file, which is a larger CD: told once, then it is read. */
static void check_other(struct host *h, u64 buf)
{
	struct answer a = command(h, CD, CMD(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), buf, 2048, true);
	u8 *data = at(h->b.ram.bytes, buf), status;

	check_sense(&a, 6, 0x28, 0);
	assert_int_equal(media_event(h, buf, &status), 2);
	assert_int_equal(status, 2);
	a = command(h, CD, CMD(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), buf, 8, true);
	assert_memory_equal(data, "\0\0\x01\xFF\0\0\x08\0", 8);
	a = command(h, CD, CMD(0x28, 0, 0, 0, 1, 0xFF, 0, 0, 1, 0), buf, 2048, true);
	check_good(&a, 2048, 2048);
	assert_memory_equal(data, h->image[DISK] + 511 * 2048, 2048);
}

static void test_medium(void **state)
{
	struct host *h = host_start(true, layouts[3]);
	u64 buf = ram_alloc(&h->b.ram, 4096);
	struct answer a;
	u8 status;

	/* Locked: the guest is asked, and goes on reading. */
	a = command(h, CD, CMD(0x1E, 0, 0, 0, 1, 0), 0, 0, false);
	assert_int_equal(eject(h, false), -EBUSY);
	assert_int_equal(media_event(h, buf, &status), 1);
	assert_int_equal(status, 2);
	a = command(h, CD, CMD(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), buf, 2048, true);
	check_good(&a, 2048, 2048);
	a = command(h, CD, CMD(0x1E, 0, 0, 0, 0, 0), 0, 0, false);
	assert_int_equal(eject(h, false), 0);
	assert_int_equal(eject(h, false), 0);
	check_empty(h, buf);
	load(h, h->file[DISK]);
	check_other(h, buf);
	/* Locked, and by force; a drive that is closed on nothing. */
	a = command(h, CD, CMD(0x1E, 0, 0, 0, 1, 0), 0, 0, false);
	check_good(&a, 0, 0);
	assert_int_equal(eject(h, true), 0);
	check_empty(h, buf);
	load(h, NULL);
	a = command(h, CD, CMD(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), buf, 8, true);
	check_sense(&a, 2, 0x3A, 1);
	load(h, h->file[DISK]);
	load(h, h->file[DISK]);
	check_other(h, buf);
	host_free(h);
}

/* ---- control and events ---------------------------------------------------------------------- */

static u8 manage(struct host *h, u32 subtype, unsigned target, unsigned unit)
{
	const struct virtio_scsi_ctrl_tmf_req req = {
		.type = VIRTIO_SCSI_T_TMF, .subtype = subtype, .lun = { 1, target, 0x40, unit } };
	u64 buf = ram_alloc(&h->b.ram, sizeof(req)), ack = ram_alloc(&h->b.ram, 1);
	const struct piece p[] = { { buf, sizeof(req), false }, { ack, 1, true } };

	memcpy(at(h->b.ram.bytes, buf), &req, sizeof(req));
	assert_int_equal(transfer(&h->b, 0, p, 2), 1);
	return *(u8 *)at(h->b.ram.bytes, ack);
}

static void test_control(void **state)
{
	struct host *h = host_start(false, layouts[3]);
	struct answer a;

	assert_int_equal(manage(h, VIRTIO_SCSI_T_TMF_ABORT_TASK, DISK, 0), 0);
	assert_int_equal(manage(h, VIRTIO_SCSI_T_TMF_QUERY_TASK, DISK, 0), 0);
	assert_int_equal(manage(h, VIRTIO_SCSI_T_TMF_ABORT_TASK, DISK, 1), VIRTIO_SCSI_S_INCORRECT_LUN);
	assert_int_equal(manage(h, VIRTIO_SCSI_T_TMF_ABORT_TASK, NOBODY, 0), VIRTIO_SCSI_S_BAD_TARGET);
	assert_int_equal(manage(h, 99, DISK, 0), VIRTIO_SCSI_S_FUNCTION_REJECTED);
	assert_int_equal(manage(h, VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, DISK, 0), 0);
	a = command(h, CD, CMD(0, 0, 0, 0, 0, 0), 0, 0, false);
	check_good(&a, 0, 0);
	a = command(h, DISK, CMD(0, 0, 0, 0, 0, 0), 0, 0, false);
	check_sense(&a, 6, 0x29, 0);
	/* Asynchronous notification: none. */
	const struct virtio_scsi_ctrl_an_req req = { .type = VIRTIO_SCSI_T_AN_QUERY, .lun = { 1, CD } };
	u64 buf = ram_alloc(&h->b.ram, 64);
	const struct piece p[] = { { buf, sizeof(req), false }, { buf + 32, 5, true } };

	memcpy(at(h->b.ram.bytes, buf), &req, sizeof(req));
	assert_int_equal(transfer(&h->b, 0, p, 2), 5);
	assert_memory_equal(at(h->b.ram.bytes, buf + 32), "\0\0\0\0\0", 5);
	host_free(h);
}

static void resize(struct host *h, u64 size)
{
	assert_int_equal(truncate(h->file[DISK], size), 0);
	virtio_lock(&h->scsi.dev);
	assert_true(block_measure(h->scsi.unit[DISK].block));
	assert_false(block_measure(h->scsi.unit[DISK].block));
	virtio_scsi_resized(&h->scsi, DISK);
	virtio_unlock(&h->scsi.dev);
}

static void test_events(void **state)
{
	struct host *h = host_start(false, layouts[3]);
	u64 buf = ram_alloc(&h->b.ram, 512);
	const struct piece p = { buf, 16, true };
	struct virtio_scsi_event e;
	struct answer a;
	u16 id;

	driver_submit(&h->b.q[1], &p, 1, 0);
	kick(&h->b, 1);
	resize(h, 2 * DISK_SIZE);
	assert_int_equal(wait_used(&h->b, 1, &id), 16);
	memcpy(&e, at(h->b.ram.bytes, buf), 16);
	assert_int_equal(e.event, VIRTIO_SCSI_T_PARAM_CHANGE);
	assert_int_equal(e.reason, 0x092A);
	assert_memory_equal(e.lun, "\x01\0\0\0\0\0\0\0", 8);
	a = command(h, DISK, CMD(0, 0, 0, 0, 0, 0), 0, 0, false);
	check_sense(&a, 6, 0x2A, 9);
	a = command(h, DISK, CMD(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), buf, 8, true);
	assert_memory_equal(at(h->b.ram.bytes, buf), "\0\0\x0F\xFF\0\0\x02\0", 8);
	a = command(h, DISK, CMD(0x28, 0, 0, 0, 0xF, 0xFF, 0, 0, 1, 0), buf, 512, true);
	check_good(&a, 512, 512);
	/* Without a buffer it is missed, over a saved state too, and told with the next buffer. */
	resize(h, DISK_SIZE);
	board_reload(&h->b, &virtio_scsi_device_ops, &h->scsi);
	driver_submit(&h->b.q[1], &p, 1, 0);
	kick(&h->b, 1);
	wait_used(&h->b, 1, &id);
	memcpy(&e, at(h->b.ram.bytes, buf), 16);
	assert_int_equal(e.event, VIRTIO_SCSI_T_EVENTS_MISSED);
	host_free(h);
}

/* ---- mid-work -------------------------------------------------------------------------------- */

/* Many reads and writes at once, saved and loaded among them: all come back, all data are right. */
static void test_moves_in_work(void **state)
{
	for (size_t l = 1; l < ARRAY_SIZE(layouts); l += 2) {
		struct host *h = host_start(false, layouts[l]);
		u64 buf = ram_alloc(&h->b.ram, 16 * 4096);
		u16 id;

		for (int round = 0; round < 30; round++) {
			u64 top = h->b.ram.top;

			for (unsigned i = 0; i < 8; i++) {
				bool read = i & 1;
				u32 lba = i * 8;

				memset(at(h->b.ram.bytes, buf + i * 4096), round + i, 4096);
				submit(h, 3, DISK, 0, CMD(read ? 0x28 : 0x2A, 0, 0, 0, 0, lba - 8 * read, 0, 0, 8, 0),
					buf + i * 4096, 4096, read);
			}
			kick(&h->b, 3);
			if (round % 3 == 0)
				board_reload(&h->b, &virtio_scsi_device_ops, &h->scsi);
			for (unsigned i = 0; i < 8; i++)
				wait_used(&h->b, 3, &id);
			h->b.ram.top = top;
		}
		for (unsigned i = 0; i < 8; i += 2) {
			u8 want[4096];
			struct answer a = command(h, DISK, CMD(0x28, 0, 0, 0, 0, i * 8, 0, 0, 8, 0), buf, 4096, true);

			memset(want, 29 + i, 4096);
			check_good(&a, 4096, 4096);
			assert_memory_equal(at(h->b.ram.bytes, buf), want, 4096);
		}
		/* And a driver that resets it in the midst. */
		for (int round = 0; round < 50; round++) {
			for (unsigned i = 0; i < 4; i++)
				submit(h, 2, DISK, 0, CMD(0x28, 0, 0, 0, 0, i, 0, 0, 8, 0), buf, 4096, true);
			kick(&h->b, 2);
			drive(&h->b, layouts[l] | COMMON, 4);
			buf = ram_alloc(&h->b.ram, 4096);
		}
		settle(h);
		host_free(h);
	}
}

static void test_sizes(void **state)
{
	struct host *h = host_start(false, layouts[1]);
	u64 buf = ram_alloc(&h->b.ram, 256);
	u8 *m = at(h->b.ram.bytes, buf);
	/* Sense data of 8 bytes, commands of 12. */
	const struct piece p[] = { { buf, 31, false }, { buf + 64, 12 + 8, true } };

	assert_int_equal(in(&h->b, VIRTIO_MMIO_CONFIG + 20), 96);
	assert_int_equal(in(&h->b, VIRTIO_MMIO_CONFIG + 24), 32);
	out(&h->b, VIRTIO_MMIO_CONFIG + 20, 8);
	out(&h->b, VIRTIO_MMIO_CONFIG + 24, 12);
	out(&h->b, VIRTIO_MMIO_CONFIG, 99);	/* not the driver's */
	assert_int_equal(in(&h->b, VIRTIO_MMIO_CONFIG), 2);
	board_reload(&h->b, &virtio_scsi_device_ops, &h->scsi);
	memset(m, 0, 256);
	m[0] = 1;
	m[19] = 0xFF;
	assert_int_equal(transfer(&h->b, 2, p, 2), 20);
	assert_int_equal(m[64], 8);
	assert_int_equal(m[64 + 10], SCSI_CHECK_CONDITION);
	assert_int_equal(m[64 + 12 + 2], 5);
	out(&h->b, VIRTIO_MMIO_CONFIG + 24, 0);
	wait_needs_reset(&h->b);
	host_free(h);
}

static void test_bad_drivers(void **state)
{
	const struct { unsigned queue; u32 out, in; } bad[] = {
		{ 2, HEAD - 1, ANSWER }, { 2, HEAD, ANSWER - 1 }, { 2, 1, 0 }, { 2, 0, 1 },
		{ 0, 3, 1 }, { 0, 10, 1 }, { 0, 24, 0 }, { 1, 0, 15 },
	};
	struct host *h = host_new(false);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct piece p[2];
		unsigned n = 0;

		drive(&h->b, layouts[i & 3] | COMMON, 4);
		memset(at(h->b.ram.bytes, RAM_BASE + 0x10000), 0, 256);
		if (bad[i].out)
			p[n++] = (struct piece){ RAM_BASE + 0x10000, bad[i].out, false };
		if (bad[i].in)
			p[n++] = (struct piece){ RAM_BASE + 0x20000, bad[i].in, true };
		driver_submit(&h->b.q[bad[i].queue], p, n, 0);
		if (bad[i].queue == 1)
			resize(h, 3 * DISK_SIZE);
		else
			kick(&h->b, bad[i].queue);
		wait_needs_reset(&h->b);
	}
	/* Data both ways: refused, and the device goes on. */
	drive(&h->b, layouts[1] | COMMON, 4);
	settle(h);
	u64 buf = ram_alloc(&h->b.ram, 1024);
	const struct piece both[] = { { buf, HEAD + 8, false }, { buf + 256, ANSWER + 8, true } };

	memset(at(h->b.ram.bytes, buf), 0, 1024);
	transfer(&h->b, 2, both, 2);
	assert_int_equal(((u8 *)at(h->b.ram.bytes, buf + 256))[11], VIRTIO_SCSI_S_FAILURE);
	host_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_is_there), cmocka_unit_test(test_disk_data),
		cmocka_unit_test(test_disk_ranges), cmocka_unit_test(test_disk_refuses),
		cmocka_unit_test(test_mode_pages), cmocka_unit_test(test_cd),
		cmocka_unit_test(test_tray), cmocka_unit_test(test_medium),
		cmocka_unit_test(test_control),
		cmocka_unit_test(test_events), cmocka_unit_test(test_moves_in_work),
		cmocka_unit_test(test_sizes), cmocka_unit_test(test_bad_drivers),
	};

	return board_run_tests(tests, BOARD_ALL);
}
