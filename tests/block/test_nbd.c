/* NBD: images on qemu-nbd and nbdkit, and servers that go away. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/block/model.h"

#define MIB (1ULL << 20)

/* Starts a server with a socket "socket" in the directory; its pid is in "pid". Both say when they listen. */
static void serve(const char *format, const char *file)
{
	must("rm -f socket pid; qemu-nbd --fork --persistent --pid-file=pid -f %s -k $PWD/socket %s --discard=unmap",
		format, file);
}

static void stop(void)
{
	must("kill $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.05; done");
}

static const char *uri(const char *form)
{
	static char text[600];

	snprintf(text, sizeof(text), form, in_dir("socket"));
	return text;
}

static void check_model(const char *name, const char *format, u64 size)
{
	struct block_options o = { .file = name, .format = format };
	struct block_info info;
	struct model m;
	struct block *b;

	model_init(&m, size, 3);
	for (int turn = 0; turn < 2; turn++) {
		b = open_block(&o);
		block_get_info(b, &info);
		assert_int_equal(info.size, size);
		if (turn)
			model_check(&m, b);
		else
			model_load(&m, b);
		model_run(&m, b, 60);
		model_check(&m, b);
		assert_int_equal(block_close(b), 0);
	}
	model_save(&m, "model.raw");
	model_free(&m);
}

static void test_raw(void **state)
{
	(void)state;
	must("truncate -s 8M disk");
	serve("raw", "disk");
	check_model(uri("nbd+unix:///?socket=%s"), "raw", 8 * MIB);
	check_model(uri("nbd:unix:%s"), "raw", 8 * MIB);
	stop();
	must("cmp disk model.raw");
}

static void test_qcow2(void **state)
{
	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 disk 8M; truncate -s 32M disk");
	serve("raw", "disk");
	check_model(uri("nbd+unix:///?socket=%s"), "qcow2", 8 * MIB);
	stop();
	must("qemu-img check -q -f qcow2 disk && qemu-img compare -q -f raw -F qcow2 model.raw disk");
}

/* No lock keeps others from it: what is dirty may be another's who writes it now. */
static void test_dirty(void **state)
{
	struct block_options o = { .file = uri("nbd+unix:///?socket=%s"), .format = "qcow2" };
	struct block *b;

	(void)state;
	must("rm -f disk; qemu-img create -q -f qcow2 disk 8M; truncate -s 32M disk");
	serve("raw", "disk");
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_WRITE, 0, "x", 1), 0);
	assert_int_equal(do_flush(b), 0);
	must("test $(od -An -j79 -N1 -tu1 disk) = 0");
	assert_int_equal(block_close(b), 0);
	must("printf '\\001' | dd of=disk bs=1 seek=79 conv=notrunc status=none");
	refuse_block(&o, "no lock");
	o.readonly = true;
	block_close(open_block(&o));
	stop();
}

static void test_backing(void **state)
{
	struct block_options o = { .format = "qcow2", .file = in_dir("top") };
	struct block *b;
	u8 buf[512];

	(void)state;
	must("rm -f disk; yes 12345678 | head -c 4M >disk");
	serve("raw", "disk");
	must("qemu-img create -q -f qcow2 -u -b '%s' -F raw top 4M", uri("nbd+unix:///?socket=%s"));
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_WRITE, 9000, "x", 1), 0);
	assert_int_equal(do_op(b, BLOCK_READ, 9000, buf, 512), 0);
	assert_memory_equal(buf, "x2345678\n1", 10);
	block_close(b);
	stop();
}

/* Without any of the optional commands. */
static void test_plain_server(void **state)
{
	(void)state;
	must("rm -f socket pid; truncate -s 8M plain; nbdkit -P pid -U $PWD/socket --filter=nozero --filter=fua "
	     "file $PWD/plain fuamode=emulate && while [ ! -s pid ]; do sleep 0.05; done");
	check_model(uri("nbd+unix:///?socket=%s"), "raw", 8 * MIB);
	stop();
}

static void test_refused(void **state)
{
	struct block_options o = { .file = uri("nbd+unix:///?socket=%s"), .format = "raw" };

	(void)state;
	must("rm -f socket");
	refuse_block(&o, "nbd+unix:///");
	must("nbdkit -r -P pid -U $PWD/socket memory 1M && while [ ! -s pid ]; do sleep 0.05; done");
	refuse_block(&o, "readonly");
	o.readonly = true;
	block_close(open_block(&o));
	stop();
}

/* Every request then fails; none hangs. */
static void test_gone(void **state)
{
	struct block_options o = { .format = "raw" };
	struct block *b;
	u8 buf[4096] = { 0 };

	(void)state;
	must("truncate -s 8M disk");
	serve("raw", "disk");
	o.file = uri("nbd+unix:///?socket=%s");
	b = open_block(&o);
	assert_int_equal(do_op(b, BLOCK_READ, 0, buf, 4096), 0);
	must("kill -9 $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.05; done");
	assert_true(do_op(b, BLOCK_READ, 0, buf, 4096) < 0);
	assert_true(do_op(b, BLOCK_WRITE, 0, buf, 4096) < 0);
	assert_true(do_flush(b) < 0);
	assert_true(block_close(b) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_qcow2),
		cmocka_unit_test(test_dirty),
		cmocka_unit_test(test_backing),
		cmocka_unit_test(test_plain_server),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_gone),
	};

	return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
