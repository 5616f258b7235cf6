/* What the tests of disk images share: see fixture.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/block/fixture.h"

static char dir[64];

int dir_make(void **state)
{
	(void)state;
	strcpy(dir, "/var/tmp/qumra-block-XXXXXX");
	assert_non_null(mkdtemp(dir));
	return 0;
}

int dir_remove(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
	return 0;
}

const char *in_dir(const char *name)
{
	static char path[16][512];
	static unsigned next;
	char *p = path[next++ % 16];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

int shell(const char *fmt, ...)
{
	char command[4096];
	int n = snprintf(command, sizeof(command), "cd %s && { ", dir), status;
	va_list ap;

	va_start(ap, fmt);
	n += vsnprintf(command + n, sizeof(command) - n, fmt, ap);
	va_end(ap);
	assert_true(n < (int)sizeof(command) - 16);
	strcat(command, "\n} >&2");
	fflush(NULL);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void put_file(const char *name, const void *data, size_t size)
{
	int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
}

struct block *open_block(const struct block_options *o)
{
	struct error err = ERROR_INIT;
	struct block *b = NULL;

	if (block_open(&b, o, NULL, &err) < 0)
		fail_msg("%s", err.text);
	return b;
}

void refuse_block(const struct block_options *o, const char *text)
{
	struct error err = ERROR_INIT;
	struct block *b = NULL;

	assert_true(block_open(&b, o, NULL, &err) < 0);
	assert_true(err.kind != ERROR_NONE);
	if (!strstr(err.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, err.text);
}

struct waiter {
	struct block_request req;
	bool done;
	int result;
};

static void waiter_done(struct block_request *req, int result)
{
	struct waiter *w = (struct waiter *)req;

	w->done = true;
	w->result = result;
}

static int wait_for(struct block *b, struct waiter *w)
{
	w->req.done = waiter_done;
	block_submit(b, &w->req);
	assert_false(w->done);
	block_drain(b);
	assert_true(w->done);
	return w->result;
}

int do_op(struct block *b, enum block_op op, u64 offset, void *buf, u64 bytes)
{
	/* In three pieces, where there is room. */
	u64 cut = bytes > 1024 ? 512 : bytes;
	struct iovec iov[3] = { { buf, cut } };
	struct waiter w = { .req = { .op = op, .offset = offset, .bytes = bytes, .iov = iov, .iovs = 1 } };

	if (cut < bytes) {
		iov[1] = (struct iovec){ (u8 *)buf + cut, 0 };
		iov[2] = (struct iovec){ (u8 *)buf + cut, bytes - cut };
		w.req.iovs = 3;
	}
	return wait_for(b, &w);
}

int do_zero(struct block *b, u64 offset, u64 bytes, bool unmap)
{
	struct waiter w = { .req = { .op = BLOCK_WRITE_ZEROES, .offset = offset, .bytes = bytes,
				    .unmap = unmap } };

	return wait_for(b, &w);
}

int do_flush(struct block *b)
{
	return do_op(b, BLOCK_FLUSH, 0, NULL, 0);
}

u64 next_random(u64 *seed)
{
	u64 z = *seed += 0x9E3779B97F4A7C15;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
	z = (z ^ z >> 27) * 0x94D049BB133111EB;
	return z ^ z >> 31;
}
