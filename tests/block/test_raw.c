/* Raw images: every cache mode and engine, ends that are no sectors, probing, locks, throttling. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/block/fixture.h"
#include "vmm/loop/loop.h"

#define MIB (1U << 20)

static const char *const caches[] = { "writeback", "writethrough", "none", "directsync", "unsafe" };
static const char *const engines[] = { "threads", "io_uring" };

static bool have(const char *engine)
{
	struct aio *aio;

	if (aio_new(&aio, strcmp(engine, "threads") ? AIO_URING : AIO_THREADS, NULL) < 0)
		return false;
	aio_free(aio);
	return true;
}

static void fill(u8 *buf, size_t n, u64 seed)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = next_random(&seed);
}

/* Writes at odd places, zeroes and discards, beside the same in memory. */
static void check_model(const struct block_options *o, u64 size, int rounds)
{
	struct block *b = open_block(o);
	u8 *model = calloc(1, size), *buf = malloc(size);
	u64 seed = 1;

	for (int i = 0; i < rounds; i++) {
		u64 offset = next_random(&seed) % size;
		u64 bytes = next_random(&seed) % MIN(size - offset, 200000ULL) + 1;

		if (next_random(&seed) % 4 == 0)
			offset = ALIGN_DOWN(offset, 4096), bytes = MIN(ALIGN_UP(bytes, 4096), size - offset);
		switch (next_random(&seed) % 4) {
		case 0:
			assert_int_equal(do_zero(b, offset, bytes, i & 1), 0);
			memset(model + offset, 0, bytes);
			break;
		case 1:
			assert_int_equal(do_op(b, BLOCK_READ, offset, buf, bytes), 0);
			assert_memory_equal(buf, model + offset, bytes);
			break;
		default:
			fill(buf, bytes, i);
			memcpy(model + offset, buf, bytes);
			assert_int_equal(do_op(b, BLOCK_WRITE, offset, buf, bytes), 0);
		}
	}
	assert_int_equal(do_flush(b), 0);
	assert_int_equal(block_close(b), 0);
	b = open_block(o);
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, size), 0);
	assert_memory_equal(buf, model, size);
	assert_int_equal(do_op(b, BLOCK_DISCARD, 4096, NULL, size / 2), 0);
	assert_int_equal(do_op(b, BLOCK_READ, 4096 + size / 2, buf, size / 2 - 4096), 0);
	assert_memory_equal(buf, model + 4096 + size / 2, size / 2 - 4096);
	assert_int_equal(block_close(b), 0);
	free(model);
	free(buf);
}

static void test_modes(void **state)
{
	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(caches); c++)
		for (size_t e = 0; e < ARRAY_SIZE(engines); e++) {
			struct block_options o = { .file = in_dir("modes"), .format = "raw",
				.cache = caches[c], .aio = engines[e] };

			if (!have(engines[e]))
				continue;
			must("rm -f modes; truncate -s 1M modes");
			check_model(&o, MIB, 60);
		}
}

static void test_odd_end(void **state)
{
	struct block_options o = { .file = in_dir("odd"), .format = "raw" };
	struct block_info info;
	struct block *b;
	u8 buf[1024];

	(void)state;
	put_file("odd", "hello", 5);
	b = open_block(&o);
	block_get_info(b, &info);
	assert_int_equal(info.size, 512);
	memset(buf, 0xff, sizeof(buf));
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 512), 0);
	assert_memory_equal(buf, "hello\0\0", 7);
	assert_int_equal(buf[511], 0);
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 513), -EINVAL);
	assert_int_equal(do_op(b, BLOCK_READ, 1ULL << 63, buf, 512), -EINVAL);
	assert_int_equal(do_op(b, BLOCK_WRITE, 0, buf, 512), 0);
	block_close(b);
	must("test $(stat -c %%s odd) = 512");
}

static void test_readonly(void **state)
{
	struct block_options o = { .file = in_dir("ro"), .format = "raw", .readonly = true };
	struct block *b;
	u8 buf[512] = { 0 };

	(void)state;
	must("truncate -s 64K ro && chmod 444 ro");
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_WRITE, 0, buf, 512), -EPERM);
	assert_int_equal(do_zero(b, 0, 512, false), -EPERM);
	assert_int_equal(do_op(b, BLOCK_DISCARD, 0, NULL, 512), -EPERM);
	assert_int_equal(do_flush(b), 0);
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 512), 0);
	block_close(b);
}

static void refuse_resize(struct block *b, u64 size, const char *text)
{
	struct error err = ERROR_INIT;

	assert_true(block_resize(b, size, &err) < 0);
	if (!strstr(err.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, err.text);
}

/* Also a file that somebody has made larger already: it must not be cut. */
static void test_resize(void **state)
{
	struct block_options o = { .file = in_dir("grows"), .format = "raw" };
	struct error err = ERROR_INIT;
	struct block_info info;
	struct block *b;
	u8 buf[512];

	(void)state;
	must("head -c 100000 /dev/zero | tr '\\0' x >grows");
	b = open_block(&o);
	assert_int_equal(block_resize(b, MIB, &err), 0);
	block_get_info(b, &info);
	assert_int_equal(info.size, MIB);
	assert_int_equal(do_op(b, BLOCK_READ, 99840, buf, 512), 0);
	assert_true(buf[0] == 'x' && buf[159] == 'x' && !buf[160] && !buf[511]);
	assert_int_equal(do_op(b, BLOCK_WRITE, MIB - 512, buf, 512), 0);
	assert_int_equal(block_resize(b, MIB, &err), 0);
	refuse_resize(b, MIB - 512, "cannot be made smaller");
	refuse_resize(b, MIB + 1, "multiple of 512");
	must("truncate -s 3M grows");
	refuse_resize(b, 2 * MIB, "has 3145728 bytes");
	assert_int_equal(block_resize(b, 3 * MIB, &err), 0);
	block_get_info(b, &info);
	assert_int_equal(info.size, 3 * MIB);
	block_close(b);
	must("test $(stat -c %%s grows) = 3145728");
	o.readonly = true;
	b = open_block(&o);
	refuse_resize(b, 4 * MIB, "only read");
	block_close(b);
}

static void test_refused(void **state)
{
	struct block_options o = { .file = in_dir("nothing") };

	(void)state;
	refuse_block(&o, "No such file");
	must("mkfifo fifo && mkdir directory && printf KDMV >v.vmdk && truncate -s 1M v.vmdk");
	o.file = in_dir("fifo");
	refuse_block(&o, "neither a file nor a block device");
	o.readonly = true;
	o.file = in_dir("directory");
	refuse_block(&o, "neither a file nor a block device");
	o.file = "/dev/null";
	refuse_block(&o, "neither a file nor a block device");
	o.file = in_dir("v.vmdk");
	refuse_block(&o, "format vmdk");
	o.file = "http://localhost/x";
	refuse_block(&o, "no such protocol");
	o.file = in_dir("v.vmdk");
	o.format = "vmdk";
	refuse_block(&o, "format=vmdk");
	o.format = "raw";
	o.cache = "some";
	refuse_block(&o, "cache=some");
	o.cache = NULL;
	o.aio = "native";
	refuse_block(&o, "aio=native");
}

/* A guest must not turn an image that was taken for raw into a qcow2 with a backing file. */
static void test_probed(void **state)
{
	struct block_options o = { .file = in_dir("probed") };
	struct block *b;
	u8 buf[1024] = "QFI\xfb\0\0\0\3", magic[2] = "\xfb";

	(void)state;
	must("truncate -s 64K probed");
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_WRITE, 0, buf, 1024), -EPERM);
	assert_int_equal(do_op(b, BLOCK_WRITE, 512, buf, 512), 0);
	/* Nor in two steps. */
	buf[3] = 0;
	assert_int_equal(do_op(b, BLOCK_WRITE, 0, buf, 512), 0);
	assert_int_equal(do_op(b, BLOCK_WRITE, 3, magic, 1), -EPERM);
	block_close(b);
	o.format = "raw";
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_WRITE, 3, magic, 1), 0);
	block_close(b);
}

/* The same rules as qemu-img's and QEMU's, both ways. */
static void test_locks(void **state)
{
	struct block_options rw = { .file = in_dir("locked"), .format = "raw" }, ro = rw, shared = rw;
	struct block *b, *c;

	(void)state;
	ro.readonly = true;
	shared.share = true;
	must("truncate -s 64K locked");
	b = open_block(&rw);
	refuse_block(&rw, "in use by another program");
	refuse_block(&ro, "in use by another program, which writes it");
	refuse_block(&shared, "in use by another program");
	assert_int_not_equal(shell("qemu-img resize -f raw locked 128K"), 0);
	must("qemu-img info -U -f raw locked");
	assert_int_not_equal(shell("qemu-io -f raw -c 'read 0 512' locked"), 0);
	rw.no_lock = true;
	c = open_block(&rw);
	block_close(c);
	block_close(b);
	rw.no_lock = false;
	b = open_block(&ro);
	c = open_block(&ro);
	refuse_block(&rw, "in use by another program");
	must("qemu-img info -f raw locked");
	assert_int_not_equal(shell("qemu-io -f raw -c 'write 0 512' locked"), 0);
	block_close(b);
	block_close(c);
	b = open_block(&shared);
	c = open_block(&shared);
	block_close(b);
	block_close(c);
}

static void test_locked_by_qemu(void **state)
{
	struct block_options rw = { .file = in_dir("theirs"), .format = "raw" }, ro = rw;
	FILE *io;
	char line[64];
	char command[600];

	(void)state;
	ro.readonly = true;
	must("truncate -s 64K theirs");
	/* qemu-io has the image open for as long as it reads commands. */
	snprintf(command, sizeof(command), "qemu-io -f raw %s >%s 2>&1", rw.file, in_dir("said"));
	must("mkfifo said");
	io = popen(command, "w");
	assert_non_null(io);
	fputs("length\n", io);
	fflush(io);
	FILE *said = fopen(in_dir("said"), "r");
	assert_non_null(said);
	assert_non_null(fgets(line, sizeof(line), said));
	refuse_block(&rw, "in use by another program");
	refuse_block(&ro, "in use by another program");
	fclose(said);
	pclose(io);
	block_close(open_block(&rw));
}

/* Submitted at once: all are done, each once, whatever order and overlap. */
struct flock_of_requests {
	struct block_request req[200];
	struct iovec iov[200];
	u8 data[200][4096];
};

static int done_count;

static void one_done(struct block_request *req, int result)
{
	(void)req;
	assert_int_equal(result, 0);
	done_count++;
}

static void test_many(void **state)
{
	(void)state;
	for (size_t e = 0; e < ARRAY_SIZE(engines); e++) {
		struct block_options o = { .file = in_dir("many"), .format = "raw", .aio = engines[e] };
		struct flock_of_requests *f = calloc(1, sizeof(*f));
		struct block *b;
		u8 *back = malloc(MIB);

		if (!have(engines[e]))
			continue;
		must("rm -f many; truncate -s 1M many");
		b = open_block(&o);
		done_count = 0;
		block_plug(b);
		for (int i = 0; i < 200; i++) {
			memset(f->data[i], i, 4096);
			f->iov[i] = (struct iovec){ f->data[i], 4096 };
			f->req[i] = (struct block_request){ .op = BLOCK_WRITE, .offset = i * 4096,
				.bytes = 4096, .iov = &f->iov[i], .iovs = 1, .done = one_done };
			block_submit(b, &f->req[i]);
		}
		block_unplug(b);
		block_drain(b);
		assert_int_equal(done_count, 200);
		assert_int_equal(do_op(b, BLOCK_READ, 0, back, MIB), 0);
		for (int i = 0; i < 200; i++)
			assert_memory_equal(back + i * 4096, f->data[i], 4096);
		block_close(b);
		free(back);
		free(f);
	}
}

/* What is a copy to the page cache is done at the end of the plug, but not inside block_submit(). */
static void test_here(void **state)
{
	struct block_options o = { .file = in_dir("here"), .format = "raw", .cache = "writeback" };
	struct block *b;
	u8 data[4096];
	struct iovec iov = { data, sizeof(data) };
	struct block_request req = { .op = BLOCK_WRITE, .offset = 8192, .bytes = sizeof(data), .iov = &iov,
		.iovs = 1, .done = one_done };

	(void)state;
	must("rm -f here; truncate -s 1M here");
	b = open_block(&o);
	memset(data, 0x5A, sizeof(data));
	done_count = 0;
	block_plug(b);
	block_plug(b);
	block_submit(b, &req);
	block_unplug(b);
	assert_int_equal(done_count, 0);
	block_unplug(b);
	assert_int_equal(done_count, 1);
	memset(data, 0, sizeof(data));
	assert_int_equal(do_op(b, BLOCK_READ, 8192, data, sizeof(data)), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		assert_int_equal(data[i], 0x5A);
	block_close(b);
}

/* A large request is done before the plug ends, where its submitter says that it may be; a small one is not. */
static void test_here_large(void **state)
{
	static u8 data[64 << 10];
	struct block_options o = { .file = in_dir("here"), .format = "raw", .cache = "writeback" };
	struct iovec small = { data, 4096 }, large = { data, sizeof(data) };
	struct block_request first = { .op = BLOCK_WRITE, .bytes = small.iov_len, .iov = &small, .iovs = 1,
		.done = one_done };
	struct block_request second = { .op = BLOCK_WRITE, .offset = 8192, .bytes = sizeof(data),
		.iov = &large, .iovs = 1, .done = one_done };
	struct block *b;

	(void)state;
	must("rm -f here; truncate -s 1M here");
	b = open_block(&o);
	done_count = 0;
	block_plug(b);
	block_submit(b, &first);
	block_plugged_turn(b);
	assert_int_equal(done_count, 0);
	block_submit(b, &second);
	assert_int_equal(done_count, 0);
	block_plugged_turn(b);
	assert_int_equal(done_count, 2);
	block_unplug(b);
	block_close(b);
}

/* In a loop, from done() on to the next. */
struct chain {
	struct block_request req;
	struct iovec iov;
	u8 data[512];
	struct block *block;
	struct loop *loop;
	int left;
};

static void chain_next(struct block_request *req, int result)
{
	struct chain *c = (struct chain *)req;

	assert_int_equal(result, 0);
	if (!--c->left)
		loop_stop(c->loop);
	else
		block_submit(c->block, req);
}

static void nothing(void *arg)
{
	(void)arg;
}

static u64 run_chain(const struct block_options *o, int count)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct error err = ERROR_INIT;
	struct timespec start, end;
	struct loop loop;
	struct chain c = { .left = count, .loop = &loop };

	assert_int_equal(loop_init(&loop, &lock, &err), 0);
	assert_int_equal(block_open(&c.block, o, &loop, &err), 0);
	c.iov = (struct iovec){ c.data, 512 };
	c.req = (struct block_request){ .op = BLOCK_WRITE, .bytes = 512, .iov = &c.iov, .iovs = 1,
		.done = chain_next };
	clock_gettime(CLOCK_MONOTONIC, &start);
	block_submit(c.block, &c.req);
	assert_int_equal(loop_run(&loop, nothing, NULL, &err), 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	block_close(c.block);
	loop_destroy(&loop);
	return (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
}

static void test_loop(void **state)
{
	struct block_options o = { .file = in_dir("loop"), .format = "raw" };

	(void)state;
	must("truncate -s 64K loop");
	for (size_t e = 0; e < ARRAY_SIZE(engines); e++) {
		o.aio = engines[e];
		if (have(engines[e]))
			run_chain(&o, 1000);
	}
}

static void test_throttle(void **state)
{
	struct block_options o = { .file = in_dir("slow"), .format = "raw" };
	u64 ms;

	(void)state;
	must("truncate -s 64K slow");
	/* 10 are free, 30 more take 300 ms. */
	o.throttle.limit[THROTTLE_IOPS_WRITE].average = 100;
	ms = run_chain(&o, 41);
	assert_in_range(ms, 280, 5000);
	/* Bytes: 64 KiB a second, the first 6.4 KiB free. */
	memset(&o.throttle, 0, sizeof(o.throttle));
	o.throttle.limit[THROTTLE_BPS].average = 65536;
	ms = run_chain(&o, 13 + 1 + 32);
	assert_in_range(ms, 230, 5000);
	/* A burst of all of it. */
	o.throttle.limit[THROTTLE_BPS].burst = 65536;
	ms = run_chain(&o, 13 + 1 + 32);
	assert_in_range(ms, 0, 200);
	/* Reads do not count as writes. */
	memset(&o.throttle, 0, sizeof(o.throttle));
	o.throttle.limit[THROTTLE_IOPS_READ].average = 1;
	ms = run_chain(&o, 41);
	assert_in_range(ms, 0, 500);
}

static void test_punch(void **state)
{
	struct block_options o = { .file = in_dir("punched"), .format = "raw" };
	struct block *b;

	(void)state;
	must("head -c 1M /dev/urandom >punched");
	o.ignore_discard = true;
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_DISCARD, 0, NULL, MIB), 0);
	block_close(b);
	must("sync punched; test $(stat -c %%b punched) -ge 2048");
	o.ignore_discard = false;
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_DISCARD, 0, NULL, MIB / 2), 0);
	assert_int_equal(do_zero(b, MIB / 2, MIB / 4, true), 0);
	block_close(b);
	must("sync punched; test $(stat -c %%b punched) -le 1100; test $(stat -c %%s punched) = 1048576");
}

/* A disk that fills: an error for what does not fit, and all that was acknowledged is there. */
static void test_full(void **state)
{
	struct block_options o = { .format = "raw" };
	struct block *b;
	u8 *buf = malloc(MIB), *back = malloc(MIB);

	(void)state;
	if (shell("mkdir full && mount -t tmpfs -o size=1M none full")) {
		free(buf);
		free(back);
		skip();
	}
	must("truncate -s 4M full/raw");
	o.file = in_dir("full/raw");
	b = open_block(&o);
	fill(buf, MIB, 3);
	assert_int_equal(do_op(b, BLOCK_WRITE, 0, buf, MIB / 2), 0);
	assert_int_equal(do_op(b, BLOCK_WRITE, MIB, buf, MIB), -ENOSPC);
	assert_int_equal(do_op(b, BLOCK_READ, 0, back, MIB / 2), 0);
	assert_memory_equal(buf, back, MIB / 2);
	assert_int_equal(do_op(b, BLOCK_DISCARD, MIB, NULL, MIB), 0);
	assert_int_equal(do_op(b, BLOCK_WRITE, 2 * MIB, buf, 65536), 0);
	/* A file that is gone is still there for us; one cut short reads as zeroes. */
	must("rm full/raw");
	assert_int_equal(do_op(b, BLOCK_READ, 0, back, MIB / 2), 0);
	assert_memory_equal(buf, back, MIB / 2);
	block_close(b);
	must("umount full");
	free(buf);
	free(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_odd_end),
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_probed),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_locked_by_qemu),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_here),
		cmocka_unit_test(test_here_large),
		cmocka_unit_test(test_loop),
		cmocka_unit_test(test_throttle),
		cmocka_unit_test(test_punch),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
