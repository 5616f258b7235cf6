/* A disk in memory: see model.h. */
#include <stdlib.h>
#include <string.h>

#include "tests/block/model.h"

#define SECTOR 512

void model_init(struct model *m, u64 size, u64 seed)
{
	*m = (struct model){ .size = size, .seed = seed };
	m->data = calloc(1, size);
	m->buf = calloc(1, size);
	m->undefined = calloc(1, size / SECTOR + 1);
	assert_true(m->data && m->buf && m->undefined);
}

void model_free(struct model *m)
{
	free(m->data);
	free(m->buf);
	free(m->undefined);
}

void model_load(struct model *m, struct block *b)
{
	assert_int_equal(do_op(b, BLOCK_READ, 0, m->data, m->size), 0);
}

static void model_define(struct model *m, u64 offset, u64 bytes, bool undefined)
{
	for (u64 s = offset / SECTOR; s <= (offset + bytes - 1) / SECTOR; s++)
		m->undefined[s] = undefined;
}

static void model_compare(struct model *m, u64 offset, u64 bytes, const u8 *buf)
{
	for (u64 i = 0; i < bytes; i++)
		if (m->undefined[(offset + i) / SECTOR])
			m->data[offset + i] = buf[i];
		else if (m->data[offset + i] != buf[i])
			fail_msg("byte %#llx of the disk is %#x, not %#x", (unsigned long long)(offset + i),
				buf[i], m->data[offset + i]);
}

static void model_write(struct model *m, struct block *b, u64 offset, u64 bytes)
{
	u64 seed = next_random(&m->seed);

	/* Sectors that are partly undefined become defined: look first. */
	assert_int_equal(do_op(b, BLOCK_READ, offset, m->buf, bytes), 0);
	model_compare(m, offset, bytes, m->buf);
	for (u64 i = 0; i < bytes; i++)
		m->buf[i] = i % 8 ? m->buf[i - 1] * 5U + 1 : next_random(&seed);
	assert_int_equal(do_op(b, BLOCK_WRITE, offset, m->buf, bytes), 0);
	memcpy(m->data + offset, m->buf, bytes);
	model_define(m, offset, bytes, false);
}

static void model_one(struct model *m, struct block *b)
{
	u64 offset = next_random(&m->seed) % m->size;
	u64 most = next_random(&m->seed) % 8 ? 20000 : m->size / 3;
	u64 bytes = next_random(&m->seed) % MIN(m->size - offset, most) + 1;

	/* Whole sectors, so that what is undefined is, too; some longer grains. */
	u64 grain = next_random(&m->seed) % 3 ? SECTOR : 65536;
	offset = ALIGN_DOWN(offset, grain);
	bytes = MIN(ALIGN_UP(bytes, grain), m->size - offset);
	switch (next_random(&m->seed) % 10) {
	case 0:
		assert_int_equal(do_op(b, BLOCK_DISCARD, offset, NULL, bytes), 0);
		model_define(m, offset, bytes, true);
		break;
	case 1:
	case 2:
		assert_int_equal(do_zero(b, offset, bytes, next_random(&m->seed) & 1), 0);
		memset(m->data + offset, 0, bytes);
		model_define(m, offset, bytes, false);
		break;
	case 3:
		assert_int_equal(do_flush(b), 0);
		break;
	case 4:
	case 5:
	case 6:
		assert_int_equal(do_op(b, BLOCK_READ, offset, m->buf, bytes), 0);
		model_compare(m, offset, bytes, m->buf);
		break;
	default: model_write(m, b, offset, bytes);
	}
}

void model_run(struct model *m, struct block *b, int rounds)
{
	for (int i = 0; i < rounds; i++)
		model_one(m, b);
}

void model_check(struct model *m, struct block *b)
{
	assert_int_equal(do_op(b, BLOCK_READ, 0, m->buf, m->size), 0);
	model_compare(m, 0, m->size, m->buf);
	memset(m->undefined, 0, m->size / SECTOR + 1);
}

void model_grow(struct model *m, u64 size)
{
	struct model old = *m;

	model_init(m, size, old.seed);
	memcpy(m->data, old.data, old.size);
	memcpy(m->undefined, old.undefined, old.size / SECTOR);
	model_free(&old);
}

void model_save(const struct model *m, const char *name)
{
	put_file(name, m->data, m->size);
}
