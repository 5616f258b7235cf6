/*
 * Loss of power at any moment. All writes to an image file are recorded, with the flushes between them.
 * The file is then made anew as it may have been left: all writes up to some flush, and any of those up
 * to the next one. Such an image must be sound, and have all that the disk had flushed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/block/fixture.h"
#include "tests/block/memory.h"
#include "vmm/block/qcow2/qcow2.h"

#define GRAIN  4096ULL
#define BLOCKS 512ULL	/* at the end; at first half of them */
#define ROUNDS 60

/* What the disk had at each of its flushes, and where in the record that was. */
struct moment {
	size_t event;
	u8 version[BLOCKS];	/* of each block; 0: zeroes */
	bool touched[BLOCKS];	/* since the moment before */
};

struct history {
	struct memory *file;
	u8 *start;		/* the file before the first event */
	u64 start_size;
	struct moment moments[ROUNDS + 1];
	int count;
	u8 now[BLOCKS];
	bool touched[BLOCKS];
};

static u8 *read_file(const char *name, u64 *size)
{
	FILE *f = fopen(in_dir(name), "rb");
	u8 *data = malloc(16 << 20);

	assert_non_null(f);
	*size = fread(data, 1, 16 << 20, f);
	fclose(f);
	return data;
}

/* The image's, which may be smaller than the disk is to become. */
static u64 blocks(const struct layer *l)
{
	return MIN(l->size / GRAIN, BLOCKS);
}

static void put_block(struct layer *l, struct history *h, u32 block, u8 version)
{
	static u8 data[GRAIN];
	struct iovec iov = { data, GRAIN };

	memset(data, version, GRAIN);
	if (version)
		assert_int_equal(l->ops->writev(l, &iov, 1, block * GRAIN, false), 0);
	else
		assert_int_equal(l->ops->zero(l, block * GRAIN, GRAIN, true), 0);
	h->now[block] = version;
	h->touched[block] = true;
}

static void take_moment(struct history *h)
{
	struct moment *m = &h->moments[h->count++];

	m->event = h->file->events_count;
	memcpy(m->version, h->now, sizeof(h->now));
	memcpy(m->touched, h->touched, sizeof(h->touched));
	memset(h->touched, 0, sizeof(h->touched));
}

static void make_history(struct history *h, u64 *seed)
{
	struct layer_options o = { 0 };
	struct error err = ERROR_INIT;
	struct layer *l;

	h->start = read_file("disk", &h->start_size);
	h->file = memory_new(h->start, h->start_size, 64 << 20);
	h->file->record = true;
	assert_int_equal(qcow2_open(&l, &h->file->proto, &o, NULL, &err), 0);
	take_moment(h);
	for (int i = 0; i < ROUNDS; i++) {
		if (i == ROUNDS / 2)
			assert_int_equal(l->ops->resize(l, BLOCKS * GRAIN, &err), 0);
		for (u64 n = next_random(seed) % 12; n; n--)
			put_block(l, h, next_random(seed) % blocks(l),
				next_random(seed) % 3 ? next_random(seed) % 255 + 1 : 0);
		assert_int_equal(l->ops->flush(l), 0);
		take_moment(h);
	}
	assert_int_equal(l->ops->close(l), 0);
}

/* Events [0, until) for certain, and some of those up to the flush that follows. */
static struct memory *after_crash(const struct history *h, size_t until, u64 *seed)
{
	struct memory *m = memory_new(h->start, h->start_size, 64 << 20);
	bool certain = true;

	for (size_t i = 0; i < h->file->events_count; i++) {
		const struct memory_event *e = &h->file->events[i];

		if (i >= until) {
			certain = false;
			if (!e->data)
				break;
		}
		if (e->data && (certain || next_random(seed) & 1))
			proto_write(&m->proto, e->data, e->bytes, e->offset);
	}
	m->record = false;
	return m;
}

/* The last flush of the disk that was done. */
static const struct moment *last_moment(const struct history *h, size_t until)
{
	int i = 0;

	while (i + 1 < h->count && h->moments[i + 1].event <= until)
		i++;
	return &h->moments[i];
}

static void check_contents(struct layer *l, const struct moment *sure, const struct moment *next)
{
	u8 *all = malloc(BLOCKS * GRAIN);
	struct iovec iov = { all, BLOCKS * GRAIN };

	assert_int_equal(layer_read(l, &iov, 1, 0), 0);
	for (u64 b = 0; b < BLOCKS; b++) {
		u8 *data = all + b * GRAIN;

		/* Written since: old, new, or in part. */
		if (next && next->touched[b])
			continue;
		for (u64 i = 0; i < GRAIN; i++)
			if (data[i] != sure->version[b])
				fail_msg("block %llu has %#x, not %#x", (unsigned long long)b, data[i],
					sure->version[b]);
	}
	free(all);
}

/* Half of the times: just behind a flush, so that all up to the next one is uncertain. */
static size_t pick_event(const struct history *h, u64 *seed)
{
	size_t until = next_random(seed) % h->file->events_count;

	if (next_random(seed) & 1)
		while (until && h->file->events[until - 1].data)
			until--;
	return until;
}

static void check_crash(const struct history *h, size_t until, u64 *seed, bool lazy)
{
	const struct moment *sure = last_moment(h, until);
	const struct moment *next = sure + 1 < h->moments + h->count ? sure + 1 : NULL;
	struct memory *m = after_crash(h, until, seed);
	struct layer_options o = { 0 };
	struct error err = ERROR_INIT;
	struct layer *l;
	int status;

	if (!lazy) {
		put_file("crashed", m->data, m->size);
		status = shell("qemu-img check -q -f qcow2 crashed >check 2>&1");
		if (status && status != 3) {
			shell("cat check");
			fail_msg("qemu-img check says %d after event %zu", status, until);
		}
	}
	if (qcow2_open(&l, &m->proto, &o, NULL, &err) < 0)
		fail_msg("after event %zu: %s", until, err.text);
	check_contents(l, sure, next);
	assert_int_equal(l->ops->close(l), 0);
	/* Once more opened, it has not even leaks. */
	put_file("crashed", m->data, m->size);
	must("qemu-img check -q -f qcow2 crashed");
	memory_free(m);
}

static void run(const char *make, bool lazy)
{
	struct history *h = calloc(1, sizeof(*h));
	u64 seed = 11;

	must("rm -f disk; %s", make);
	make_history(h, &seed);
	print_message("%zu events\n", h->file->events_count);
	for (int i = 0; i < 40; i++)
		check_crash(h, pick_event(h, &seed), &seed, lazy);
	memory_free(h->file);
	free(h->start);
	free(h);
}

static void test_64k(void **state)
{
	(void)state;
	run("qemu-img create -q -f qcow2 disk 1M", false);
}

static void test_512(void **state)
{
	(void)state;
	run("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk 1M", false);
}

static void test_snapshot(void **state)
{
	(void)state;
	run("qemu-img create -q -f qcow2 -o cluster_size=1k disk 1M; qemu-io -c 'write -q -P 0 0 1M' disk;"
	    "qemu-img snapshot -c one disk", false);
}

static void test_lazy(void **state)
{
	(void)state;
	run("qemu-img create -q -f qcow2 -o cluster_size=512,lazy_refcounts=on disk 1M", true);
}

#define AT_BITS	     offsetof(struct qcow2_header, incompatible_features)
#define AT_AUTOCLEAR offsetof(struct qcow2_header, autoclear_features)

static bool dirty(const struct memory *m)
{
	return m->data[AT_BITS + 7] & INCOMPATIBLE_DIRTY;
}

static struct layer *open_memory(struct memory *m)
{
	struct layer_options o = { 0 };
	struct error err = ERROR_INIT;
	struct layer *l;

	if (qcow2_open(&l, &m->proto, &o, NULL, &err) < 0)
		fail_msg("%s", err.text);
	return l;
}

static struct memory *new_memory(const char *make)
{
	struct memory *m;
	u64 size;
	u8 *start;

	must("rm -f disk; %s", make);
	start = read_file("disk", &size);
	m = memory_new(start, size, 64 << 20);
	free(start);
	return m;
}

static void close_sound(struct layer *l, struct memory *m)
{
	assert_int_equal(l->ops->close(l), 0);
	assert_false(dirty(m));
	put_file("crashed", m->data, m->size);
	must("qemu-img check -q -f qcow2 crashed");
}

/* One write or discard of a block, from open to close; all that is written meanwhile. */
static void record_change(struct memory *m, u64 block, bool write)
{
	static u8 data[GRAIN] = { 1 };
	struct iovec iov = { data, GRAIN };
	struct layer *l = open_memory(m);

	if (write)
		assert_int_equal(l->ops->writev(l, &iov, 1, block * GRAIN, false), 0);
	else
		assert_int_equal(l->ops->discard(l, block * GRAIN, GRAIN), 0);
	assert_int_equal(l->ops->close(l), 0);
	assert_false(dirty(m));
}

/* Whatever is changed first, counts or their blocks or their table: the bit is durable before it. */
static void test_bit_first(void **state)
{
	struct memory *m = new_memory("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk 3M");

	(void)state;
	m->record = true;
	for (u64 i = 0; i < 2 * 768; i++) {
		size_t first = m->events_count;
		struct memory_event *e;

		record_change(m, i % 768, i < 768);
		e = m->events + first;
		assert_true(first + 1 < m->events_count);
		if (e[0].offset != AT_BITS || !e[0].data || e[0].data[7] != INCOMPATIBLE_DIRTY || e[1].data)
			fail_msg("change %u begins with a write to %#llx", (u32)i,
				(unsigned long long)e[0].offset);
	}
	memory_free(m);
}

/* The bits of what we do not know go before the clusters that they are about. */
static void test_autoclear_first(void **state)
{
	struct memory *m = new_memory("qemu-img create -q -f qcow2 disk 1M");

	(void)state;
	m->data[AT_BITS + 7] = INCOMPATIBLE_DIRTY;
	m->data[AT_AUTOCLEAR + 7] = 1;
	m->record = true;
	close_sound(open_memory(m), m);
	assert_true(m->events_count > 2);
	assert_int_equal(m->events[0].offset, AT_AUTOCLEAR);
	assert_null(m->events[1].data);
	memory_free(m);
}

/* A table that the header may tell of, or not, is not given back: the next open finds that out. */
static void test_leaked(void **state)
{
	struct memory *m = new_memory("qemu-img create -q -f qcow2 -o cluster_size=512 disk 1M");
	struct error err = ERROR_INIT;
	struct layer *l = open_memory(m);

	(void)state;
	m->broken = offsetof(struct qcow2_header, l1_size);
	assert_true(l->ops->resize(l, 8 << 20, &err) < 0);
	assert_int_equal(l->ops->close(l), 0);
	assert_true(dirty(m));
	close_sound(open_memory(m), m);
	memory_free(m);
}

static bool is_marked(struct memory *m)
{
	struct layer *l = open_memory(m);
	struct iovec iov = { (u8[512]){ 1 }, 512 };
	bool marked;

	assert_int_equal(l->ops->writev(l, &iov, 1, 0, false), 0);
	marked = dirty(m);
	close_sound(l, m);
	return marked;
}

/* Too large to be counted anew: by its size, by its snapshots, or by what it has grown to. */
static void test_too_large(void **state)
{
	struct memory *m = new_memory("qemu-img create -q -f qcow2 disk 900G");
	struct error err = ERROR_INIT;
	struct iovec iov = { (u8[512]){ 1 }, 512 };
	struct layer *l;

	(void)state;
	assert_true(is_marked(m));
	l = open_memory(m);
	assert_int_equal(l->ops->writev(l, &iov, 1, 1 << 20, false), 0);
	assert_true(dirty(m));
	assert_int_equal(l->ops->resize(l, 3ULL << 40, &err), 0);
	assert_false(dirty(m));
	assert_int_equal(l->ops->writev(l, &iov, 1, 2 << 20, false), 0);
	assert_int_equal(l->ops->flush(l), 0);
	put_file("crashed", m->data, m->size);
	must("qemu-img check -q -f qcow2 crashed");
	close_sound(l, m);
	assert_false(is_marked(m));
	memory_free(m);
	m = new_memory("qemu-img create -q -f qcow2 disk 900G; for i in 1 2; do qemu-img snapshot -c $i disk; done");
	assert_false(is_marked(m));
	memory_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_64k),
		cmocka_unit_test(test_512),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_lazy),
		cmocka_unit_test(test_bit_first),
		cmocka_unit_test(test_autoclear_first),
		cmocka_unit_test(test_leaked),
		cmocka_unit_test(test_too_large),
	};

	return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
