/* The cache of table slices: see table.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/proto.h"
#include "vmm/block/qcow2/table.h"

#define TABLE_ALIGN 4096	/* for O_DIRECT */

int table_cache_init(struct table_cache *c, u64 slice_size, u32 count)
{
	u32 buckets = 1;

	while (buckets < count)
		buckets *= 2;
	*c = (struct table_cache){ .count = count, .slice_size = slice_size };
	c->bucket_mask = buckets - 1;
	c->slices = calloc(count, sizeof(*c->slices));
	c->buckets = calloc(buckets, sizeof(struct table_slice *));
	return c->slices && c->buckets ? 0 : -ENOMEM;
}

void table_cache_free(struct table_cache *c)
{
	for (u32 i = 0; c->slices && i < c->count; i++)
		free(c->slices[i].data);
	free(c->slices);
	free(c->buckets);
	*c = (struct table_cache){ 0 };
}

static struct table_slice **table_bucket(struct table_cache *c, u64 offset)
{
	return &c->buckets[(offset / c->slice_size * 0x9E3779B97F4A7C15 >> 24) & c->bucket_mask];
}

static struct table_slice *table_find(struct table_cache *c, u64 offset)
{
	struct table_slice *s = *table_bucket(c, offset);

	while (s && s->offset != offset)
		s = s->next;
	return s;
}

struct table_slice *table_peek(struct table_cache *c, u64 offset)
{
	struct table_slice *s = table_find(c, offset);

	if (s)
		s->used = true;
	return s;
}

static void slice_drop(struct table_cache *c, struct table_slice *s)
{
	struct table_slice **link = table_bucket(c, s->offset);

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	c->dirty -= s->dirty;
	s->dirty = false;
	s->offset = 0;
}

/* A clean slice that was not used of late; NULL: all are dirty. */
static struct table_slice *table_room(struct table_cache *c)
{
	for (u32 i = 0; i < 2 * c->count; i++) {
		struct table_slice *s = &c->slices[c->hand];

		c->hand = (c->hand + 1) % c->count;
		if (!s->offset)
			return s;
		if (!s->dirty && !s->used)
			return s;
		s->used = false;
	}
	return NULL;
}

int table_get(struct table_cache *c, struct proto *file, u64 offset,
	struct table_slice **slice)
{
	struct table_slice *s;
	s64 size;
	int ret;

	*slice = table_peek(c, offset);
	if (*slice)
		return 0;
	size = file->ops->size(file);
	if (size < 0)
		return size;
	if (offset >= (u64)size)
		return -ERANGE;
	s = table_room(c);
	if (!s)
		return -EBUSY;
	if (s->offset)
		slice_drop(c, s);
	if (!s->data && posix_memalign((void **)&s->data, TABLE_ALIGN, c->slice_size)) {
		s->data = NULL;
		return -ENOMEM;
	}
	ret = proto_read(file, s->data, c->slice_size, offset);
	if (ret < 0)
		return ret;
	s->offset = offset;
	s->used = true;
	s->next = *table_bucket(c, offset);
	*table_bucket(c, offset) = s;
	*slice = s;
	return 0;
}

void table_dirty(struct table_cache *c, struct table_slice *s)
{
	c->dirty += !s->dirty;
	s->dirty = true;
}

int table_write(struct table_cache *c, struct proto *file)
{
	int ret = 0;

	for (u32 i = 0; i < c->count && c->dirty && !ret; i++) {
		struct table_slice *s = &c->slices[i];

		if (!s->dirty)
			continue;
		ret = proto_write(file, s->data, c->slice_size, s->offset);
		if (ret < 0)
			break;
		s->dirty = false;
		c->dirty--;
	}
	return ret;
}

void table_forget(struct table_cache *c, u64 offset, u64 bytes)
{
	for (u64 at = offset; at < offset + bytes; at += c->slice_size) {
		struct table_slice *s = table_find(c, at);

		if (s)
			slice_drop(c, s);
	}
}
