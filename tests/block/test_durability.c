/*
 * A writer is killed at a random moment, again and again, on the same image. Each time what it had
 * flushed must be there, and the image must be sound: no error for qemu-img check, at most leaks, and
 * not even those when it was opened once more, by us or by QEMU.
 *
 * QUMRA_KILLS says how often for each kind of image; 6 without it.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/block/fixture.h"

#define MIB    (1U << 20)
#define GRAIN  4096
#define SECTOR 512
#define BLOCKS (8 * MIB / GRAIN)
/* One version in so many of a block is zeroes. */
#define ZERO_EVERY 7

/* What the writer tells; it outlives it. */
struct diary {
	atomic_uint begun[BLOCKS], durable[BLOCKS];	/* versions */
	atomic_uint flushes;
};

static void put_version(u32 *data, u32 block, u32 version)
{
	for (u32 i = 0; i < GRAIN / 4; i++)
		data[i] = version % ZERO_EVERY ? (version << 16) + block + i : 0;
}

struct one {
	struct block_request req;
	struct iovec iov;
	u32 block, version;
	u8 data[GRAIN];
};

static void one_done(struct block_request *req, int result)
{
	(void)req;
	if (result < 0)
		_exit(3);
}

/* A few blocks at once, then a flush. */
static void write_batch(struct block *b, struct diary *d, u64 *seed)
{
	static struct one ones[16];
	u32 count = next_random(seed) % ARRAY_SIZE(ones) + 1;

	for (u32 i = 0; i < count; i++) {
		struct one *o = &ones[i];
		bool again = false;

		o->block = next_random(seed) % BLOCKS;
		for (u32 j = 0; j < i; j++)
			again |= ones[j].block == o->block;
		o->version = atomic_load(&d->begun[o->block]) + !again;
		atomic_store(&d->begun[o->block], o->version);
		put_version((u32 *)o->data, o->block, o->version);
		o->iov = (struct iovec){ o->data, GRAIN };
		o->req = (struct block_request){
			.op = o->version % ZERO_EVERY ? BLOCK_WRITE : BLOCK_WRITE_ZEROES,
			.unmap = o->version & 1, .offset = (u64)o->block * GRAIN, .bytes = GRAIN,
			.iov = &o->iov, .iovs = 1, .done = one_done };
		block_submit(b, &o->req);
	}
	block_drain(b);
	if (do_flush(b))
		_exit(4);
	for (u32 i = 0; i < count; i++)
		atomic_store(&d->durable[ones[i].block], ones[i].version);
	atomic_fetch_add(&d->flushes, 1);
}

static void writer(const struct block_options *o, struct diary *d, u64 seed)
{
	struct error err = ERROR_INIT;
	struct block *b;

	if (block_open(&b, o, NULL, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		_exit(2);
	}
	for (;;)
		write_batch(b, d, &seed);
}

/* A write that was not acknowledged may be there in part, by sectors. */
static void check_block(const struct diary *d, u32 block, const u32 *data)
{
	u32 first = atomic_load(&d->durable[block]), last = atomic_load(&d->begun[block]), v;
	u32 want[GRAIN / 4];

	for (u32 at = 0; at < GRAIN / 4; at += SECTOR / 4) {
		for (v = first; v <= last; v++) {
			put_version(want, block, v);
			if (!memcmp(want + at, data + at, SECTOR))
				break;
		}
		if (v > last)
			fail_msg("block %u is none of the versions %u to %u, but has %#x at %u", block,
				first, last, data[at], at);
	}
}

static void check_image(const struct block_options *o, const struct diary *d)
{
	u8 *all = malloc(8 * MIB);
	struct block *b = open_block(o);

	assert_int_equal(do_op(b, BLOCK_READ, 0, all, 8 * MIB), 0);
	assert_int_equal(block_close(b), 0);
	for (u32 i = 0; i < BLOCKS; i++)
		check_block(d, i, (u32 *)(all + (u64)i * GRAIN));
	free(all);
}

/* At some time within about 60 ms of the first flush. */
static void kill_somewhen(pid_t pid, const struct diary *d, u64 *seed)
{
	u32 before = atomic_load(&d->flushes);
	int status;

	while (atomic_load(&d->flushes) == before) {
		if (waitpid(pid, &status, WNOHANG))
			fail_msg("the writer ended, status %#x", status);
		usleep(500);
	}
	usleep(next_random(seed) % 60000);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

/* What the dead writer had under way may be under way for a moment: until then its lock is there. */
static void wait_until_free(const struct block_options *o)
{
	struct block_options ro = *o;
	struct error err = ERROR_INIT;
	struct block *b = NULL;

	ro.readonly = true;
	for (int i = 0; i < 20 && block_open(&b, &ro, NULL, &err) == -EBUSY; i++)
		err = (struct error)ERROR_INIT;
	if (!b)
		fail_msg("%s", err.text);
	block_close(b);
}

static int kills(void)
{
	const char *text = getenv("QUMRA_KILLS");

	return text ? atoi(text) : 6;
}

/* Before anybody opens it to write. Every second time that is QEMU, which has to repair it as well. */
static void check_counts(int kill, bool lazy)
{
	int status = shell("qemu-img check -q disk >check 2>&1");

	/* 3: leaks and nothing worse. */
	if (!lazy && status && status != 3) {
		shell("cat check");
		fail_msg("qemu-img check says %d after kill %d", status, kill);
	}
	if (kill % 2) {
		must("qemu-io -f qcow2 -c quit disk >repair 2>&1");
		must("qemu-img check -q disk");
	}
}

static void run(const char *make, const char *format, const char *cache, bool lazy)
{
	struct diary *d = mmap(NULL, sizeof(*d), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct block_options o = { .file = in_dir("disk"), .format = format, .cache = cache };
	u64 seed = 7;

	assert_true(d != MAP_FAILED);
	must("rm -f disk base; %s", make);
	for (int i = 0; i < kills(); i++) {
		pid_t pid = fork();

		if (!pid)
			writer(&o, d, seed + i);
		kill_somewhen(pid, d, &seed);
		wait_until_free(&o);
		if (!strcmp(format, "qcow2"))
			check_counts(i, lazy);
		check_image(&o, d);
		if (!strcmp(format, "qcow2"))
			must("qemu-img check -q disk");
	}
	print_message("%u flushes in %d lives\n", atomic_load(&d->flushes), kills());
	munmap(d, sizeof(*d));
}

static void test_raw(void **state)
{
	(void)state;
	run("truncate -s 8M disk", "raw", "writeback", false);
	run("truncate -s 8M disk", "raw", "none", false);
}

static void test_qcow2(void **state)
{
	(void)state;
	run("qemu-img create -q -f qcow2 disk 8M", "qcow2", "writeback", false);
	run("qemu-img create -q -f qcow2 disk 8M", "qcow2", "none", false);
	run("qemu-img create -q -f qcow2 -o cluster_size=4k disk 8M", "qcow2", "unsafe", false);
	run("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk 8M", "qcow2", "unsafe",
		false);
}

static void test_backing(void **state)
{
	(void)state;
	run("truncate -s 8M base; qemu-img create -q -f qcow2 -b base -F raw disk 8M", "qcow2",
		"writeback", false);
}

static void test_lazy(void **state)
{
	(void)state;
	run("qemu-img create -q -f qcow2 -o lazy_refcounts=on disk 8M", "qcow2", "writeback", true);
	run("qemu-img create -q -f qcow2 -o lazy_refcounts=on,cluster_size=512 disk 8M", "qcow2",
		"unsafe", true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_qcow2),
		cmocka_unit_test(test_backing),
		cmocka_unit_test(test_lazy),
	};

	return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
