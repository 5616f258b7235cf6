/*
 * block-bench FILE FORMAT read|write DEPTH SIZE COUNT STEP [CACHE [AIO]]: requests of SIZE bytes, STEP bytes
 * apart (0: at random places), DEPTH at once, through the block layer; prints their number a second. The
 * counterpart of `qemu-img bench`.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmm/block/block.h"
#include "vmm/loop/loop.h"

struct bench {
	struct block *block;
	struct loop loop;
	u64 size, step, at, disk, seed;
	u64 to_start, under_way;
	int failed;
};

struct slot {
	struct block_request req;
	struct iovec iov;
	struct bench *bench;
};

static u64 bench_place(struct bench *b)
{
	u64 at = b->at;

	if (b->step) {
		b->at = (at + b->step) % (b->disk - b->size + 1);
		b->at -= b->at % 512;
		return at;
	}
	b->seed = b->seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (b->seed >> 16) % (b->disk / b->size) * b->size;
}

static void slot_start(struct slot *s)
{
	struct bench *b = s->bench;

	b->to_start--;
	b->under_way++;
	s->req.offset = bench_place(b);
	block_submit(b->block, &s->req);
}

static void slot_done(struct block_request *req, int result)
{
	struct slot *s = (struct slot *)req;
	struct bench *b = s->bench;

	b->under_way--;
	if (result < 0)
		b->failed = result;
	if (b->to_start && !b->failed)
		slot_start(s);
	else if (!b->under_way)
		loop_stop(&b->loop);
}

static void nothing(void *arg)
{
	(void)arg;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static int bench_run(struct bench *b, enum block_op op, u64 depth, struct error *err)
{
	struct slot *slots = calloc(depth, sizeof(*slots));
	u8 *buf = aligned_alloc(4096, ALIGN_UP(depth * b->size, 4096));
	int ret;

	memset(buf, 7, depth * b->size);
	block_plug(b->block);
	for (u64 i = 0; i < depth && b->to_start; i++) {
		struct slot *s = &slots[i];

		s->bench = b;
		s->iov = (struct iovec){ buf + i * b->size, b->size };
		s->req = (struct block_request){ .op = op, .bytes = b->size, .iov = &s->iov, .iovs = 1,
			.done = slot_done };
		slot_start(s);
	}
	block_unplug(b->block);
	ret = loop_run(&b->loop, nothing, NULL, err);
	free(slots);
	free(buf);
	return ret ?: b->failed;
}

int main(int argc, char **argv)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct error err = ERROR_INIT;
	struct block_options o = { 0 };
	struct block_info info;
	struct bench b = { .seed = 1 };
	double start, seconds;
	u64 count;
	int ret;

	if (argc < 8) {
		fprintf(stderr, "block-bench FILE FORMAT read|write DEPTH SIZE COUNT STEP [CACHE [AIO]]\n");
		return 2;
	}
	o.file = argv[1];
	o.format = argv[2];
	o.readonly = !strcmp(argv[3], "read");
	o.cache = argc > 8 ? argv[8] : NULL;
	o.aio = argc > 9 ? argv[9] : NULL;
	b.size = strtoull(argv[5], NULL, 0);
	count = b.to_start = strtoull(argv[6], NULL, 0);
	b.step = strtoull(argv[7], NULL, 0);
	if (loop_init(&b.loop, &lock, &err) < 0 || block_open(&b.block, &o, &b.loop, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	block_get_info(b.block, &info);
	b.disk = info.size;
	start = now();
	ret = bench_run(&b, o.readonly ? BLOCK_READ : BLOCK_WRITE, strtoull(argv[4], NULL, 0), &err);
	seconds = now() - start;
	block_close(b.block);
	if (ret < 0) {
		fprintf(stderr, "failed: %s\n", strerror(-ret));
		return 1;
	}
	printf("%.0f a second, %.0f MiB/s, %.3f s\n", count / seconds, count * b.size / seconds / (1 << 20), seconds);
	return 0;
}
