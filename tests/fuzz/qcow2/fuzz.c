/*
 * Fuzz target of qcow2. The first bytes are operations, the rest is the image file. Whatever it is, it
 * is refused with a line, or each operation succeeds or fails. Of an image that is good, what was
 * written reads back the same. (In a spoiled one two entries may share a cluster.)
 *
 * Names of other files in the image lead to a small raw file in memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "tests/block/memory.h"
#include "tests/fuzz/qcow2/image.h"
#include "vmm/block/qcow2/qcow2.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t most) __attribute__((weak));
size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t most, unsigned seed);

#define CHECK(c)	do { if (!(c)) __builtin_trap(); } while (0)
#define FILE_MOST	(4U << 20)
#define BYTES_MOST	4096

bool input_is_good;

/* --- what the real ones would do with the host --- */

static struct memory *opened[8];
static unsigned opened_count;

int proto_open(struct proto **out, const char *name, const struct proto_options *o, struct error *err)
{
	if (opened_count == ARRAY_SIZE(opened) || name[0] == 'n')
		return error_set(err, ENOENT, "cannot open %s", name);
	opened[opened_count] = memory_new("raw contents", 12, FILE_MOST);
	opened[opened_count]->proto.readonly = o->readonly;
	*out = &opened[opened_count++]->proto;
	return 0;
}

int file_open_temporary(struct proto **out, struct error *err)
{
	(void)out;
	return error_set(err, ENOENT, "none");
}

bool proto_has_scheme(const char *name)
{
	return name[0] == 's';
}

void proto_close(struct proto *p)
{
	(void)p;
}

int proto_read(struct proto *p, void *buf, u64 bytes, u64 offset)
{
	struct iovec iov = { buf, bytes };

	return p->ops->readv(p, &iov, 1, offset);
}

int proto_write(struct proto *p, const void *buf, u64 bytes, u64 offset)
{
	struct iovec iov = { (void *)buf, bytes };

	return p->ops->writev(p, &iov, 1, offset, false);
}

void log_line(const char *fmt, ...)
{
	(void)fmt;
}

/* --- operations --- */

static void write_and_look(struct layer *l, u64 offset, u64 bytes, u8 value)
{
	static u8 out[BYTES_MOST], back[BYTES_MOST];
	struct iovec iov = { out, bytes };

	memset(out, value, bytes);
	if (l->ops->writev(l, &iov, 1, offset, value & 1) < 0)
		return;
	iov.iov_base = back;
	if (l->ops->readv(l, &iov, 1, offset) < 0)
		CHECK(!input_is_good);
	else if (input_is_good)
		CHECK(!memcmp(out, back, bytes));
}

static void one_operation(struct layer *l, const u8 *op)
{
	static u8 buf[BYTES_MOST];
	u64 bytes = MIN(l->size, (op[1] & 0x80 ? 512ULL : 1ULL) * (op[1] & 7) + 1);
	u64 offset = l->size ? (op[1] & 0x40 ? l->size - bytes : (u64)op[2] * 256 % l->size) : 0;
	struct iovec iov = { buf, bytes };
	struct layer_extent e;

	bytes = MIN(bytes, l->size - offset);
	iov.iov_len = bytes;
	if (!bytes)
		return;
	l->ops->map(l, op[0] & 8, offset, bytes, &e);
	switch (op[0] & 7) {
	case 0: l->ops->flush(l); break;
	case 1:
	case 2: l->ops->readv(l, &iov, 1, offset); break;
	case 3:
		if (!l->readonly)
			l->ops->discard(l, offset, MIN(l->size - offset, op[2] * 4096ULL));
		break;
	case 4:
		if (!l->readonly)
			l->ops->zero(l, offset, MIN(l->size - offset, op[2] * 300ULL), op[0] & 16);
		break;
	case 5:
		if (!l->readonly && op[2] & 1) {
			struct error err = ERROR_INIT;

			if (l->size < 64U << 20 && l->ops->resize(l, l->size + op[1] * 16384ULL, &err) < 0)
				CHECK(err.kind != ERROR_NONE && err.text[0]);
			break;
		}
		/* fall through */
	default:
		if (!l->readonly)
			write_and_look(l, offset, bytes, op[0] ^ op[2]);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct layer_options o = { 0 };
	struct error err = ERROR_INIT;
	struct memory *file;
	struct layer *l;

	if (size < OPERATIONS)
		return 0;
	file = memory_new(data + OPERATIONS, size - OPERATIONS, FILE_MOST);
	file->proto.readonly = o.proto.readonly = data[0] & 1;
	if (data[0] & 2)
		o.internal_snapshot = "1";
	if (qcow2_open(&l, &file->proto, &o, NULL, &err) < 0) {
		CHECK(err.kind != ERROR_NONE && err.text[0]);
	} else {
		for (int i = 1; i + 3 <= OPERATIONS; i += 3)
			one_operation(l, data + i);
		layer_close(l);
	}
	while (opened_count)
		memory_free(opened[--opened_count]);
	memory_free(file);
	return 0;
}

/* libFuzzer has no images to begin with: now and then it gets one. */
size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t most, unsigned seed)
{
	static u8 buf[INPUT_MOST] __attribute__((aligned(8)));
	u64 random = seed;
	bool good;

	if (size > OPERATIONS && seed % 8)
		return LLVMFuzzerMutate(data, size, most);
	size = MIN(make_input(buf, &random, &good), most);
	memcpy(data, buf, size);
	return size;
}
