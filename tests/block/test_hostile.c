/* Images that are corrupt, cut short, or made to harm: one clear line, or an error for what is hurt. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/block/fixture.h"

#define MIB	(1ULL << 20)
#define CLUSTER 65536ULL

static void poke(u64 offset, u64 value, unsigned bytes)
{
	int fd = open(in_dir("disk"), O_WRONLY);

	value = __builtin_bswap64(value << (64 - 8 * bytes));
	assert_int_equal(pwrite(fd, &value, bytes, offset), bytes);
	close(fd);
}

static u64 peek(u64 offset)
{
	int fd = open(in_dir("disk"), O_RDONLY);
	u64 value;

	assert_int_equal(pread(fd, &value, 8, offset), 8);
	close(fd);
	return __builtin_bswap64(value);
}

/* 64 MiB, all of the first MiB written. */
static void fresh(void)
{
	must("rm -f disk; qemu-img create -q -f qcow2 disk 64M; qemu-io -c 'write -q -P 5 0 1M' disk");
}

static struct block_options disk(bool readonly)
{
	return (struct block_options){ .file = in_dir("disk"), .format = "qcow2", .readonly = readonly };
}

/* Offsets in the header: qcow2, "Header". */
struct poke {
	u32 offset, bytes;
	u64 value;
	const char *line;
	bool writing_only;	/* to be read it will do */
};

static void test_header(void **state)
{
	static const struct poke pokes[] = {
		{ 0, 4, 0, "not a qcow2 image", false },
		{ 4, 4, 1, "version 1", false },
		{ 4, 4, 4, "version 4", false },
		{ 8, 8, 1 << 20, "name of its backing file", false },
		{ 8, 8, 8, "name of its backing file", false },
		{ 20, 4, 8, "cluster size", false },
		{ 20, 4, 22, "cluster size", false },
		{ 20, 4, 0xffffffff, "cluster size", false },
		{ 24, 8, ~0ULL, "disk size", false },
		{ 24, 8, 1ULL << 60, "too small for the disk", false },
		{ 32, 4, 1, "AES", false },
		{ 32, 4, 2, "LUKS", false },
		{ 36, 4, 0xffffffff, "L1 table is too large", false },
		{ 36, 4, 4 << 20, "behind the file's end", false },
		{ 36, 4, 0, "too small for the disk", false },
		{ 40, 8, 1ULL << 55, "behind the file's end", false },
		{ 40, 8, 0x30001, "misaligned", false },
		{ 40, 8, 0x10000, "overlap", true },
		{ 40, 8, 0, "overlap", true },
		{ 48, 8, 1ULL << 55, "behind the file's end", true },
		{ 48, 8, 0x30000, "overlap", true },
		{ 56, 4, 0xffffffff, "refcount table is too large", false },
		{ 56, 4, 0, "no refcount table", true },
		{ 56, 4, 100, "behind the file's end", true },
		{ 60, 4, 0xffffffff, "too many internal snapshots", false },
		{ 60, 4, 60000, "", true },
		{ 64, 8, 17, "misaligned", false },
		{ 72, 8, 1 << 4, "extended_l2", false },
		{ 72, 8, 1 << 3, "compression type", false },
		{ 72, 8, 1 << 2, "does not name its data file", false },
		{ 72, 8, 1 << 1, "marked corrupt", true },
		{ 72, 8, 1ULL << 63, "unknown qcow2 features 0x8000000000000000", false },
		{ 96, 4, 7, "width of refcounts", false },
		{ 100, 4, 8, "impossible length", false },
		{ 100, 4, 1 << 20, "impossible length", false },
		{ 104, 1, 9, "compression type", false },
		{ 116, 4, 0xfffffff0, "extension of its qcow2 header is too long", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pokes); i++) {
		struct block_options rw = disk(false), ro = disk(true);

		fresh();
		poke(pokes[i].offset, pokes[i].value, pokes[i].bytes);
		refuse_block(&rw, pokes[i].line);
		if (!pokes[i].writing_only)
			refuse_block(&ro, pokes[i].line);
		else
			block_close(open_block(&ro));
	}
}

static void test_backing(void **state)
{
	struct block_options o = disk(false);

	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 -u -b disk -F qcow2 x 1M; mv x disk");
	refuse_block(&o, "is its own backing file");
	must("rm -f disk; ln -sf disk link; qemu-img create -q -f qcow2 -u -b a -F qcow2 disk 1M;"
	     "qemu-img create -q -f qcow2 -u -b b -F qcow2 a 1M; qemu-img create -q -f qcow2 -u -b link -F qcow2 b 1M");
	refuse_block(&o, "is its own backing file");
	must("rm -f disk; qemu-img create -q -f qcow2 -u -b gone -F qcow2 disk 1M");
	refuse_block(&o, "No such file");
	must("rm -f disk; qemu-img create -q -f qcow2 -u -b 'json:{\"driver\":\"null-co\"}' -F raw disk 1M");
	refuse_block(&o, "no such protocol");
	must("rm -f disk; qemu-img create -q -f qcow2 -u -b a -F vmdk disk 1M");
	refuse_block(&o, "format vmdk");
	must("rm -f disk; qemu-img create -q -f qcow2 -o data_file=disk2 disk 1M; ln -f disk disk2 ||"
	     "{ rm disk2; ln disk disk2; }");
	refuse_block(&o, "its own backing file");
	must("truncate -s 1M c0; for i in $(seq 70); do "
	     "qemu-img create -q -f qcow2 -u -b c$((i-1)) -F $([ $i = 1 ] && echo raw || echo qcow2) c$i 1M; done;"
	     "mv c70 disk");
	refuse_block(&o, "more than 64 backing files");
}

/* An entry of the first L2 table spoiled: what it maps fails, all else goes on. */
static void check_entry(u64 entry, bool is_l1)
{
	struct block_options o = disk(false);
	u8 *buf = malloc(CLUSTER);
	u64 l1 = 0x30000, l2;
	struct block *b;

	fresh();
	must("qemu-io -c 'write -q -P 5 1M 64k' disk");
	l2 = peek(l1) & MASK(55, 9);
	poke(is_l1 ? l1 : l2 + 8, entry, 8);
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_READ, CLUSTER + 512, buf, 512), -EIO);
	assert_int_equal(do_op(b, BLOCK_WRITE, CLUSTER + 512, buf, 512), -EIO);
	if (!is_l1) {
		assert_int_equal(do_op(b, BLOCK_READ, 0, buf, CLUSTER), 0);
		assert_int_equal(buf[77], 5);
		assert_int_equal(do_op(b, BLOCK_WRITE, 2 * CLUSTER, buf, 512), 0);
		assert_int_equal(do_flush(b), 0);
	}
	block_close(b);
	o.readonly = true;
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_READ, CLUSTER + 512, buf, 512), -EIO);
	block_close(b);
	free(buf);
}

static void test_entries(void **state)
{
	(void)state;
	check_entry(0x8000000000050200, false);		/* misaligned */
	check_entry(0x8000000000050200, true);
	check_entry(0x8001000000000000, true);		/* behind the end */
	check_entry(0x4000000000000000 | 0x50000, false);	/* compressed; is no deflate stream */
	check_entry(0x7fffffffffffffff, false);
}

/* Writes must not go to a table, whatever an entry says. */
static void test_table_as_data(void **state)
{
	static const u64 tables[] = { 0, 0x10000, 0x20000, 0x30000 };
	struct block_options o = disk(false);
	u8 buf[512] = { 1 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		struct block *b;
		u64 l2;

		fresh();
		l2 = peek(0x30000) & MASK(55, 9);
		poke(l2 + 8, tables[i] ? tables[i] | 1ULL << 63 : l2 | 1ULL << 63, 8);
		b = open_block(&o);
		/* Both ways: with the table in the cache, and not. */
		assert_int_equal(do_op(b, BLOCK_WRITE, CLUSTER, buf, 512), -EIO);
		assert_int_equal(do_op(b, BLOCK_WRITE, CLUSTER, buf, 512), -EIO);
		assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 512), 0);
		assert_int_equal(do_op(b, BLOCK_WRITE, CLUSTER, buf, 512), -EIO);
		block_close(b);
		refuse_block(&o, "marked corrupt");
	}
}

/* Tables that are counted as free are not given to a guest; more is given back than was counted. */
static void test_counts(void **state)
{
	struct block_options o = disk(false);
	struct block *b;
	u8 buf[512] = { 1 };

	(void)state;
	fresh();
	for (int i = 0; i < 32; i++)
		poke(0x20000 + 2 * i, 0, 2);
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_WRITE, 8 * MIB, buf, 512), -EIO);
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 512), 0);
	assert_int_equal(buf[0], 5);
	block_close(b);
	fresh();
	for (int i = 5; i < 32; i++)
		poke(0x20000 + 2 * i, 0, 2);
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_DISCARD, 0, NULL, MIB), 0);
	assert_int_equal(do_flush(b), 0);
	assert_int_equal(do_op(b, BLOCK_WRITE, 8 * MIB, buf, 512), -EIO);
	block_close(b);
	/* All blocks of refcounts are one. */
	fresh();
	poke(0x10008, 0x20000, 8);
	refuse_block(&o, "overlap");
}

/* Cut at every place: refused, or what is not there fails. */
static void test_cut(void **state)
{
	struct block_options o = disk(false);
	struct error err;
	struct block *b;
	u8 buf[4096] = { 0 };

	(void)state;
	for (u64 at = 0; at < 24 * CLUSTER; at += at < 400 ? 56 : 40000) {
		fresh();
		must("cp disk whole; truncate -s %llu disk", (unsigned long long)at);
		err = (struct error)ERROR_INIT;
		if (block_open(&b, &o, NULL, &err) < 0) {
			assert_true(err.text[0]);
			continue;
		}
		do_op(b, BLOCK_READ, 0, buf, 4096);
		do_op(b, BLOCK_WRITE, 65536, buf, 4096);
		do_op(b, BLOCK_WRITE, 8 * MIB, buf, 4096);
		do_flush(b);
		block_close(b);
	}
}

/* Dirty, and its references lead nowhere. */
static void test_dirty(void **state)
{
	struct block_options o = disk(false);
	char line[80];
	u64 l2;

	(void)state;
	fresh();
	poke(72, 1, 8);
	block_close(open_block(&o));
	must("qemu-img check -q disk");
	l2 = peek(0x30000) & MASK(55, 9);
	poke(72, 1, 8);
	poke(l2, 0x80ffffffffff0000, 8);
	snprintf(line, sizeof(line), "L2 table at %#llx refers to 0xffffffffff0000", (unsigned long long)l2);
	refuse_block(&o, line);
	/* Behind all that a refcount table of one cluster counts. */
	must("rm -f disk; qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk 1M;"
	     "qemu-io -c 'write -q 0 4k' disk");
	l2 = peek(peek(40)) & MASK(55, 9);
	poke(72, 1, 8);
	poke(l2, BIT(63) | 3 * MIB, 8);
	refuse_block(&o, "too short) at");
}

/* Nobody takes from another what it has counted: without a lock no bit is set, and none believed. */
static void check_unlocked(const struct block_options *o)
{
	struct block *b;
	u8 buf[512] = { 1 };

	fresh();
	b = open_block(o);
	assert_int_equal(do_op(b, BLOCK_WRITE, 8 * MIB, buf, 512), 0);
	assert_int_equal(do_flush(b), 0);
	assert_int_equal(peek(72), 0);
	block_close(b);
	must("qemu-img check -q disk; qemu-img amend -q -o lazy_refcounts=on disk");
	b = open_block(o);
	assert_int_equal(do_op(b, BLOCK_WRITE, 16 * MIB, buf, 512), 0);
	assert_int_equal(do_flush(b), 0);
	assert_int_equal(peek(72), 1);
	refuse_block(o, "qemu-img check -r all");
	assert_int_equal(do_op(b, BLOCK_WRITE, 24 * MIB, buf, 512), 0);
	assert_int_equal(block_close(b), 0);
	assert_int_equal(peek(72), 0);
	must("qemu-img check -q disk");
}

static void test_unlocked(void **state)
{
	struct block_options o = disk(false), alone = disk(false);
	struct block *b;
	u8 buf[512] = { 1 };

	(void)state;
	fresh();
	b = open_block(&alone);
	assert_int_equal(do_op(b, BLOCK_WRITE, 8 * MIB, buf, 512), 0);
	assert_int_equal(peek(72), 1);
	o.no_lock = true;
	refuse_block(&o, "no lock");
	assert_int_equal(block_close(b), 0);
	assert_int_equal(peek(72), 0);
	check_unlocked(&o);
	o.no_lock = false;
	o.share = true;
	check_unlocked(&o);
}

/* The file is cut, and then gone, under an open image. */
static void test_vanished(void **state)
{
	struct block_options o = disk(false);
	struct block *b;
	u8 buf[512];

	(void)state;
	fresh();
	b = open_block(&o);
	must("truncate -s 200000 disk");
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 512), -EIO);
	must("rm disk");
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 512), -EIO);
	block_close(b);
	fresh();
	b = open_block(&o);
	must("rm disk");
	assert_int_equal(do_op(b, BLOCK_WRITE, 8 * MIB, buf, 512), 0);
	assert_int_equal(do_flush(b), 0);
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 512), 0);
	assert_int_equal(buf[0], 5);
	assert_int_equal(block_close(b), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_backing),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_table_as_data),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_dirty),
		cmocka_unit_test(test_unlocked),
		cmocka_unit_test(test_vanished),
	};

	return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
