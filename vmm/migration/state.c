/* Writing and reading declared state: see state.h. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "vmm/migration/state.h"

struct cursor {
	u8 *at, *end;
	bool overrun;
};

static void put(struct cursor *c, const void *data, size_t n)
{
	if (c->overrun || (size_t)(c->end - c->at) < n) {
		c->overrun = true;
		return;
	}
	memcpy(c->at, data, n);
	c->at += n;
}

static void put_u16(struct cursor *c, u16 v)
{
	put(c, &v, sizeof(v));
}

static void put_name(struct cursor *c, const char *name)
{
	put(c, name, strlen(name) + 1);
}

static const u8 *get(struct cursor *c, size_t n)
{
	const u8 *p = c->at;

	if (c->overrun || (size_t)(c->end - c->at) < n) {
		c->overrun = true;
		return NULL;
	}
	c->at += n;
	return p;
}

static u16 get_u16(struct cursor *c)
{
	const u8 *p = get(c, 2);

	return p ? p[0] | p[1] << 8 : 0;
}

static const char *get_name(struct cursor *c)
{
	const u8 *nul = c->overrun ? NULL : memchr(c->at, 0, c->end - c->at);

	if (!nul) {
		c->overrun = true;
		return "";
	}
	return (const char *)get(c, nul - c->at + 1);
}

long state_write(const struct state_table *t, const void *state, void *buf, size_t size)
{
	struct cursor c = { .at = buf, .end = (u8 *)buf + size };

	put_name(&c, t->name);
	put_u16(&c, t->version);
	put_u16(&c, t->count);
	for (unsigned i = 0; i < t->count; i++) {
		const struct state_field *f = &t->fields[i];

		put_name(&c, f->name);
		put_u16(&c, f->size);
		put(&c, (const u8 *)state + f->offset, f->size);
	}
	return c.overrun ? -ENOSPC : c.at - (u8 *)buf;
}

static const struct state_field *state_find(const struct state_table *t, const char *name)
{
	for (unsigned i = 0; i < t->count; i++)
		if (strcmp(t->fields[i].name, name) == 0)
			return &t->fields[i];
	return NULL;
}

long state_read(const struct state_table *t, void *state, const void *buf, size_t size)
{
	struct cursor c = { .at = (u8 *)buf, .end = (u8 *)buf + size };
	u16 version, count;

	memset(state, 0, t->size);
	if (strcmp(get_name(&c), t->name) != 0)
		return -EINVAL;
	version = get_u16(&c);
	count = get_u16(&c);
	if (version > t->version || (version < t->oldest && !c.overrun))
		return -ENOTSUP;
	while (count-- && !c.overrun) {
		const struct state_field *f = state_find(t, get_name(&c));
		u16 len = get_u16(&c);
		const u8 *data = get(&c, len);

		if (!data || !f || f->size != len || f->since > version)
			return -EINVAL;
		memcpy((u8 *)state + f->offset, data, len);
	}
	return c.overrun ? -EINVAL : c.at - (const u8 *)buf;
}

long device_save(const struct device *dev, void *buf, size_t size)
{
	u64 state[DEVICE_STATE_MAX / 8] = { 0 };
	long n, more;

	assert(dev->ops->table->size <= sizeof(state));
	if (dev->ops->obstacle && dev->ops->obstacle(dev->self))
		return -EOPNOTSUPP;
	dev->ops->save(dev->self, state);
	n = state_write(dev->ops->table, state, buf, size);
	if (n < 0 || !dev->ops->save_more)
		return n;
	more = dev->ops->save_more(dev->self, (u8 *)buf + n, size - n);
	return more < 0 ? more : n + more;
}

long device_load(const struct device *dev, const void *buf, size_t size)
{
	u64 state[DEVICE_STATE_MAX / 8] = { 0 };
	long n, ret;

	assert(dev->ops->table->size <= sizeof(state));
	n = state_read(dev->ops->table, state, buf, size);
	if (n < 0)
		return n;
	if (dev->ops->load_more)
		ret = dev->ops->load_more(dev->self, state, (const u8 *)buf + n, size - n);
	else
		ret = dev->ops->load(dev->self, state);
	return ret < 0 ? ret : n + ret;
}
