/*
 * qcow2 images made by qemu-img: random operations beside a model in memory, with the image closed and
 * opened in between, then qemu-img's word on both the tables and the contents.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/block/model.h"

#define MIB (1ULL << 20)

struct kind {
	const char *name, *make;	/* shell; makes the image "disk" */
	const char *base;		/* what shares nothing with it must stay as it was */
	u64 size;
	int rounds;
};

#define RANDOM_RAW "head -c 3M /dev/urandom | cat - /dev/zero | head -c 5M >base.raw; "

static const struct kind kinds[] = {
	{ "64k", "qemu-img create -q -f qcow2 disk 8M", NULL, 8 * MIB, 60 },
	{ "512", "qemu-img create -q -f qcow2 -o cluster_size=512 disk 4M", NULL, 4 * MIB, 60 },
	{ "4k", "qemu-img create -q -f qcow2 -o cluster_size=4k disk 8M", NULL, 8 * MIB, 60 },
	{ "2M", "qemu-img create -q -f qcow2 -o cluster_size=2M disk 16M", NULL, 16 * MIB, 30 },
	{ "v2", "qemu-img create -q -f qcow2 -o compat=0.10 disk 8M", NULL, 8 * MIB, 60 },
	{ "lazy", "qemu-img create -q -f qcow2 -o lazy_refcounts=on disk 8M", NULL, 8 * MIB, 60 },
	{ "refcounts of 1 bit",
		"qemu-img create -q -f qcow2 -o refcount_bits=1,cluster_size=512 disk 2M", NULL, 2 * MIB, 60 },
	{ "refcounts of 2 bits", "qemu-img create -q -f qcow2 -o refcount_bits=2,cluster_size=1k disk 2M",
		NULL, 2 * MIB, 40 },
	{ "refcounts of 8 bits", "qemu-img create -q -f qcow2 -o refcount_bits=8,cluster_size=1k disk 2M",
		NULL, 2 * MIB, 40 },
	{ "refcounts of 32 bits", "qemu-img create -q -f qcow2 -o refcount_bits=32,cluster_size=1k disk 2M",
		NULL, 2 * MIB, 40 },
	{ "refcounts of 64 bits",
		"qemu-img create -q -f qcow2 -o refcount_bits=64,cluster_size=512 disk 2M", NULL, 2 * MIB, 60 },
	{ "preallocated", "qemu-img create -q -f qcow2 -o preallocation=metadata disk 8M", NULL, 8 * MIB, 60 },
	{ "on raw, shorter", RANDOM_RAW
		"qemu-img create -q -f qcow2 -b base.raw -F raw disk 8M", "base.raw", 8 * MIB, 60 },
	{ "on raw, odd", RANDOM_RAW "truncate -s 5000001 base.raw;"
		"qemu-img create -q -f qcow2 -b base.raw -F raw disk 8M", "base.raw", 8 * MIB, 60 },
	{ "on raw, v2", RANDOM_RAW
		"qemu-img create -q -f qcow2 -o compat=0.10 -b base.raw -F raw disk 8M", "base.raw", 8 * MIB,
		60 },
	{ "on raw, probed", RANDOM_RAW
		"qemu-img create -q -f qcow2 -b base.raw -F raw disk 8M;"
		/* The extension with the format becomes one that nobody knows. */
		"printf '\\0\\0\\0\\1' | dd of=disk bs=1 seek=112 conv=notrunc status=none",
		"base.raw", 8 * MIB, 30 },
	{ "a chain of three", RANDOM_RAW
		"mkdir -p sub; qemu-img create -q -f qcow2 -b ../base.raw -F raw sub/middle 6M;"
		"qemu-io -f qcow2 -c 'write -P 9 1M 1M' -c 'write -z 2M 512k' sub/middle;"
		"qemu-img create -q -f qcow2 -b sub/middle -F qcow2 disk 8M", "sub/middle", 8 * MIB, 60 },
	{ "zlib", RANDOM_RAW "tr '\\0-\\377' 'a-d' <base.raw >base2.raw;"
		"qemu-img convert -c -f raw -O qcow2 base2.raw disk", NULL, 5 * MIB, 60 },
	{ "zstd", RANDOM_RAW "tr '\\0-\\377' 'a-d' <base.raw >base2.raw;"
		"qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd base2.raw disk", NULL, 5 * MIB,
		60 },
	{ "on zlib of 4k", RANDOM_RAW "tr '\\0-\\377' 'a-d' <base.raw >base2.raw;"
		"qemu-img convert -c -f raw -O qcow2 -o cluster_size=4k base2.raw middle;"
		"qemu-img create -q -f qcow2 -b middle -F qcow2 disk", "middle", 5 * MIB, 60 },
	{ "with a snapshot", RANDOM_RAW "qemu-img convert -f raw -O qcow2 base.raw disk;"
		"qemu-img snapshot -c before disk;"
		"qemu-io -f qcow2 -c 'write -P 7 0 1M' -c 'write -z 1M 1M' disk", NULL, 5 * MIB, 60 },
	{ "a data file", "qemu-img create -q -f qcow2 -o data_file=data disk 8M", NULL, 8 * MIB, 60 },
	{ "a raw data file", "qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on disk 8M", NULL,
		8 * MIB, 60 },
};

static void check_kind(const struct kind *k, const char *cache, const char *aio)
{
	struct block_options o = { .file = in_dir("disk"), .format = "qcow2", .cache = cache, .aio = aio };
	struct block_info info;
	struct model m;
	struct block *b;

	print_message("%s, cache=%s, aio=%s\n", k->name, cache, aio);
	must("rm -rf disk base* middle sub data; %s", k->make);
	if (k->base)
		must("cp %s copy", k->base);
	model_init(&m, k->size, k->size + k->rounds);
	for (int turn = 0; turn < 3; turn++) {
		b = open_block(&o);
		block_get_info(b, &info);
		assert_int_equal(info.size, k->size);
		if (turn)
			model_check(&m, b);
		else
			model_load(&m, b);
		model_run(&m, b, k->rounds);
		model_check(&m, b);
		assert_int_equal(block_close(b), 0);
		must("qemu-img check -q -f qcow2 disk");
	}
	model_save(&m, "model.raw");
	must("qemu-img compare -q -f raw -F qcow2 model.raw disk");
	if (k->base)
		must("cmp %s copy", k->base);
	model_free(&m);
}

static void test_random(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		check_kind(&kinds[i], "unsafe", i & 1 ? "threads" : NULL);
}

static void test_caches(void **state)
{
	static const char *const caches[] = { "writeback", "writethrough", "none", "directsync" };
	struct kind k = kinds[0];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(caches); i++) {
		k = kinds[i & 1 ? 0 : 12];
		k.rounds = 15;
		check_kind(&k, caches[i], NULL);
	}
}

/* To this size and, what is refused, back. */
static void resize(struct block *b, u64 size)
{
	struct error err = ERROR_INIT, less = ERROR_INIT;
	struct block_info info;

	if (block_resize(b, size, &err) < 0)
		fail_msg("%s", err.text);
	assert_true(block_resize(b, size - 512, &less) < 0);
	assert_non_null(strstr(less.text, "cannot be made smaller"));
	block_get_info(b, &info);
	assert_int_equal(info.size, size);
}

/* By half a cluster or so, then by much, amid operations. */
static void check_resize(const struct kind *k)
{
	struct block_options o = { .file = in_dir("disk"), .format = "qcow2", .cache = "unsafe" };
	u64 sizes[] = { k->size + 1024, k->size + MIB / 2 + 512, 2 * k->size + 30 * MIB };
	struct model m;
	struct block *b;

	print_message("%s, larger\n", k->name);
	must("rm -rf disk base* middle sub data; %s", k->make);
	model_init(&m, k->size, k->size + 3);
	b = open_block(&o);
	model_load(&m, b);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		model_run(&m, b, 15);
		/* Something in the last cluster. */
		memset(m.data + m.size - 512, 5, 512);
		assert_int_equal(do_op(b, BLOCK_WRITE, m.size - 512, m.data + m.size - 512, 512), 0);
		model_check(&m, b);
		resize(b, sizes[i]);
		model_grow(&m, sizes[i]);
		model_check(&m, b);
		model_run(&m, b, 15);
		if (i == 1) {
			block_close(b);
			must("qemu-img check -q -f qcow2 disk");
			b = open_block(&o);
		}
		model_check(&m, b);
	}
	assert_int_equal(block_close(b), 0);
	must("qemu-img check -q -f qcow2 disk");
	model_save(&m, "model.raw");
	must("qemu-img compare -q -f raw -F qcow2 model.raw disk &&"
	     "qemu-img info disk | grep -q '(%llu bytes)'", (unsigned long long)m.size);
	model_free(&m);
}

static void test_resize(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strstr(kinds[i].name, "data file") && !strstr(kinds[i].name, "on raw, probed"))
			check_resize(&kinds[i]);
}

static void refuse_resize(const char *make, u64 size, const char *text)
{
	struct block_options o = { .file = in_dir("disk"), .format = "qcow2" };
	struct error err = ERROR_INIT;
	struct block *b;

	must("rm -f disk data; %s", make);
	b = open_block(&o);
	assert_true(block_resize(b, size, &err) < 0);
	if (!strstr(err.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, err.text);
	assert_int_equal(block_close(b), 0);
	must("qemu-img check -q disk; qemu-img info disk | grep -q '(1048576 bytes)'");
}

/* The base was longer than the disk: its end must not come to light. And what cannot be done. */
static void test_resize_odd(void **state)
{
	struct block_options o = { .file = in_dir("disk"), .format = "qcow2" };
	struct block *b;
	u8 buf[4096];

	(void)state;
	must("rm -f disk base*; head -c 5M /dev/urandom >base.raw;"
	     "qemu-img create -q -f qcow2 -b base.raw -F raw disk 1000448");
	b = open_block(&o);
	resize(b, 8 * MIB);
	for (u64 at = 1000448; at < 8 * MIB; at += 4096) {
		assert_int_equal(do_op(b, BLOCK_READ, at, buf, MIN(8 * MIB - at, sizeof(buf))), 0);
		assert_int_equal(buf[0] | memcmp(buf, buf + 1, sizeof(buf) - 1), 0);
	}
	assert_int_equal(block_close(b), 0);
	must("qemu-img check -q disk");
	refuse_resize("qemu-img create -q -f qcow2 disk 1M", MIB / 2, "cannot be made smaller");
	refuse_resize("qemu-img create -q -f qcow2 disk 1M", 2 * MIB + 1, "multiple of 512");
	refuse_resize("qemu-img create -q -f qcow2 disk 1M", 1ULL << 62, "too large");
	refuse_resize("qemu-img create -q -f qcow2 -o cluster_size=512 disk 1M", 1ULL << 30, "too large");
	refuse_resize("qemu-img create -q -f qcow2 -o data_file=data disk 1M", 2 * MIB, "another file");
	refuse_resize("qemu-img create -q -f qcow2 -o compat=0.10 disk 1M; qemu-img snapshot -c a disk",
		2 * MIB, "version 2");
}

/* A snapshot of a machine has its state behind the disk's end, and leaves it there when it is gone back to. */
static void test_resize_state(void **state)
{
	struct block_options o = { .file = in_dir("disk"), .format = "qcow2" };
	struct block *b;
	u8 *buf = malloc(MIB);

	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 disk 8M; printf 'savevm a\\nquit\\n' |"
	     "qemu-system-x86_64 -S -accel tcg -m 16 -nodefaults -display none -monitor stdio -drive file=disk >savevm.log;"
	     "qemu-img snapshot -a a disk; qemu-img map disk >map");
	b = open_block(&o);
	resize(b, 1024 * MIB);
	for (u64 at = 8 * MIB; at < 1024 * MIB; at += MIB) {
		assert_int_equal(do_op(b, BLOCK_READ, at, buf, MIB), 0);
		for (u64 i = 0; i < MIB; i += 8)
			assert_int_equal(*(u64 *)(buf + i), 0);
	}
	assert_int_equal(block_close(b), 0);
	must("qemu-img check -q disk; qemu-img snapshot -a a disk; qemu-img check -q disk");
	free(buf);
}

/* Enough for new refcount blocks and for larger refcount tables. */
static void test_growth(void **state)
{
	struct block_options o = { .file = in_dir("disk"), .format = "qcow2", .cache = "unsafe" };
	struct block *b;
	u8 *buf = malloc(MIB);

	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk 40M");
	b = open_block(&o);
	for (u64 i = 0; i < 40; i++) {
		memset(buf, i + 1, MIB);
		assert_int_equal(do_op(b, BLOCK_WRITE, i * MIB, buf, MIB), 0);
		if (i % 7 == 0)
			assert_int_equal(do_flush(b), 0);
	}
	assert_int_equal(block_close(b), 0);
	must("qemu-img check -q disk");
	must("qemu-io -f qcow2 -c 'read -P 1 0 1M' -c 'read -P 40 39M 1M' disk | grep -q 'read 1048576/1048576'");
	must("test $(stat -c %%s disk) -lt 60000000");
	free(buf);
}

/* What is freed is used again, and given back to the file system. */
static void test_space(void **state)
{
	struct block_options o = { .file = in_dir("disk"), .format = "qcow2" };
	struct block *b;
	u8 *buf = malloc(8 * MIB);

	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 disk 64M");
	memset(buf, 1, 8 * MIB);
	b = open_block(&o);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(do_op(b, BLOCK_WRITE, i * 8 * MIB, buf, 8 * MIB), 0);
		assert_int_equal(do_op(b, BLOCK_DISCARD, i * 8 * MIB, NULL, 8 * MIB), 0);
		assert_int_equal(do_flush(b), 0);
	}
	must("sync disk; test $(stat -c %%s disk) -lt 20000000; test $(stat -c %%b disk) -lt 4096");
	block_close(b);
	must("qemu-img check -q disk");
	free(buf);
}

static void test_internal_snapshot(void **state)
{
	struct block_options o = { .file = in_dir("disk"), .internal_snapshot = "first" };
	struct block_info info;
	struct block *b;
	u8 buf[512];

	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 disk 4M; qemu-io -c 'write -P 1 0 4M' disk;"
	     "qemu-img snapshot -c first disk; qemu-io -c 'write -P 2 0 1M' disk; qemu-img resize -q disk 8M;"
	     "qemu-img snapshot -c second disk; qemu-io -c 'write -P 3 0 1M' disk");
	b = open_block(&o);
	block_get_info(b, &info);
	assert_int_equal(info.size, 4 * MIB);
	assert_true(info.readonly);
	assert_int_equal(do_op(b, BLOCK_READ, 512, buf, 512), 0);
	assert_int_equal(buf[0], 1);
	assert_int_equal(do_op(b, BLOCK_WRITE, 512, buf, 512), -EPERM);
	block_close(b);
	o.internal_snapshot = "2";
	b = open_block(&o);
	block_get_info(b, &info);
	assert_int_equal(info.size, 8 * MIB);
	assert_int_equal(do_op(b, BLOCK_READ, 512, buf, 512), 0);
	assert_int_equal(buf[0], 2);
	block_close(b);
	o.internal_snapshot = "third";
	refuse_block(&o, "no internal snapshot third");
}

static void test_overlay(void **state)
{
	struct block_options o = { .file = in_dir("disk"), .format = "raw", .snapshot = true };
	struct block *b, *c;
	struct model m;

	(void)state;
	must("head -c 4M /dev/urandom >disk; cp disk copy; chmod 444 disk");
	b = open_block(&o);
	c = open_block(&o);	/* it is only read, so two may */
	block_close(c);
	model_init(&m, 4 * MIB, 5);
	model_load(&m, b);
	model_run(&m, b, 100);
	model_check(&m, b);
	assert_int_equal(block_close(b), 0);
	model_free(&m);
	must("cmp disk copy");
}

/* Many at once, which meet in clusters. */
struct storm {
	struct block_request req;
	struct iovec iov;
	u8 data[3000];
};

static int storm_left;

static void storm_done(struct block_request *req, int result)
{
	(void)req;
	assert_int_equal(result, 0);
	storm_left--;
}

static void test_requests_at_once(void **state)
{
	struct block_options o = { .file = in_dir("disk"), .format = "qcow2", .cache = "unsafe" };
	enum { N = 700 };
	struct storm *s = calloc(N, sizeof(*s));
	u8 *all = malloc(4 * MIB);
	struct block *b;

	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 disk 4M");
	b = open_block(&o);
	storm_left = N;
	for (int i = 0; i < N; i++) {
		memset(s[i].data, i + 1, sizeof(s[i].data));
		s[i].iov = (struct iovec){ s[i].data, sizeof(s[i].data) };
		s[i].req = (struct block_request){ .op = BLOCK_WRITE, .offset = i * 3000ULL, .bytes = 3000,
			.iov = &s[i].iov, .iovs = 1, .done = storm_done };
		block_submit(b, &s[i].req);
	}
	block_drain(b);
	assert_int_equal(storm_left, 0);
	assert_int_equal(do_op(b, BLOCK_READ, 0, all, 4 * MIB), 0);
	for (int i = 0; i < N; i++)
		assert_memory_equal(all + i * 3000, s[i].data, 3000);
	block_close(b);
	must("qemu-img check -q disk");
	free(s);
	free(all);
}

static void test_readonly(void **state)
{
	struct block_options o = { .file = in_dir("disk"), .readonly = true };
	struct block *b;
	u8 buf[512];

	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 -o lazy_refcounts=on disk 4M;"
	     "qemu-io -c 'write -P 1 0 4M' disk; cp disk copy");
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_READ, 512, buf, 512), 0);
	assert_int_equal(buf[0], 1);
	assert_int_equal(do_op(b, BLOCK_WRITE, 512, buf, 512), -EPERM);
	assert_int_equal(do_flush(b), 0);
	block_close(b);
	must("cmp disk copy");
}

/* On a disk that is full: errors, and what was acknowledged is there. */
static void test_full(void **state)
{
	struct block_options o = { .format = "qcow2" };
	struct block *b;
	u8 *buf = malloc(MIB), *back = malloc(MIB);
	u64 good = 0;

	(void)state;
	if (shell("mkdir full && mount -t tmpfs -o size=6M none full"))
		skip();
	must("qemu-img create -q -f qcow2 full/disk 64M");
	o.file = in_dir("full/disk");
	b = open_block(&o);
	for (u64 i = 0; i < 16; i++) {
		memset(buf, i + 1, MIB);
		if (do_op(b, BLOCK_WRITE, i * MIB, buf, MIB))
			break;
		if (do_flush(b))
			break;
		good = i + 1;
	}
	assert_in_range(good, 3, 6);
	assert_int_equal(do_op(b, BLOCK_WRITE, 20 * MIB, buf, MIB), -ENOSPC);
	for (u64 i = 0; i < good; i++) {
		memset(buf, i + 1, MIB);
		assert_int_equal(do_op(b, BLOCK_READ, i * MIB, back, MIB), 0);
		assert_memory_equal(buf, back, MIB);
	}
	/* With room again it goes on. */
	assert_int_equal(do_op(b, BLOCK_DISCARD, 0, NULL, 2 * MIB), 0);
	assert_int_equal(do_flush(b), 0);
	memset(buf, 99, MIB);
	assert_int_equal(do_op(b, BLOCK_WRITE, 20 * MIB, buf, MIB), 0);
	assert_int_equal(do_flush(b), 0);
	block_close(b);
	must("qemu-img check -q full/disk");
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_READ, 20 * MIB, back, MIB), 0);
	assert_memory_equal(buf, back, MIB);
	block_close(b);
	must("umount full");
	free(buf);
	free(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_caches),
		cmocka_unit_test(test_resize_state),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_resize_odd),
		cmocka_unit_test(test_space),
		cmocka_unit_test(test_internal_snapshot),
		cmocka_unit_test(test_overlay),
		cmocka_unit_test(test_requests_at_once),
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
