/* A file in memory: see memory.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/block/memory.h"
#include "vmm/block/iov.h"

static struct memory *memory_of(struct proto *p)
{
	return container_of(p, struct memory, proto);
}

static int memory_readv(struct proto *p, const struct iovec *iov, unsigned iovs, u64 offset)
{
	struct memory *m = memory_of(p);
	u64 bytes = iov_bytes(iov, iovs), there = offset < m->size ? MIN(bytes, m->size - offset) : 0;

	if (there)
		iov_from_buffer(iov, iovs, 0, m->data + offset, there);
	iov_zero(iov, iovs, there, bytes - there);
	return 0;
}

static void memory_record(struct memory *m, const struct iovec *iov, unsigned iovs, u64 offset, u64 bytes)
{
	struct memory_event *e;

	if (!m->record)
		return;
	m->events = realloc(m->events, (m->events_count + 1) * sizeof(*m->events));
	e = &m->events[m->events_count++];
	*e = (struct memory_event){ offset, bytes, iov ? malloc(bytes ?: 1) : NULL };
	if (iov)
		iov_to_buffer(e->data, iov, iovs, 0, bytes);
}

static int memory_writev(struct proto *p, const struct iovec *iov, unsigned iovs, u64 offset, bool fua)
{
	struct memory *m = memory_of(p);
	u64 bytes = iov_bytes(iov, iovs);

	(void)fua;
	if (p->readonly)
		abort();
	if (m->broken && offset == m->broken) {
		m->broken = 0;
		return -EIO;
	}
	if (offset > m->most || bytes > m->most - offset)
		return -ENOSPC;
	if (offset + bytes > m->size) {
		u8 *more = realloc(m->data, offset + bytes);

		if (!more)
			return -ENOSPC;
		memset(more + m->size, 0, offset + bytes - m->size);
		m->data = more;
		m->size = offset + bytes;
	}
	memory_record(m, iov, iovs, offset, bytes);
	iov_to_buffer(m->data + offset, iov, iovs, 0, bytes);
	return 0;
}

static int memory_flush(struct proto *p)
{
	memory_record(memory_of(p), NULL, 0, 0, 0);
	return 0;
}

static int memory_zero(struct proto *p, u64 offset, u64 bytes, bool unmap)
{
	struct memory *m = memory_of(p);
	struct iovec iov = { calloc(1, bytes), bytes };
	int ret;

	(void)unmap;
	if (!iov.iov_base || bytes > m->most)
		return -ENOSPC;
	ret = memory_writev(p, &iov, 1, offset, false);
	free(iov.iov_base);
	return ret;
}

static int memory_discard(struct proto *p, u64 offset, u64 bytes)
{
	struct memory *m = memory_of(p);
	u64 end = MIN(offset + bytes, m->size);

	return offset < end ? memory_zero(p, offset, end - offset, true) : 0;
}

static s64 memory_size(struct proto *p)
{
	return memory_of(p)->size;
}

static bool memory_start(struct proto *p, struct aio *aio, struct aio_task *task, bool write,
	const struct iovec *iov, unsigned iovs, u64 offset, u64 bytes, bool fua)
{
	(void)p, (void)aio, (void)task, (void)write, (void)iov, (void)iovs;
	(void)offset, (void)bytes, (void)fua;
	return false;
}

static void memory_close(struct proto *p)
{
	(void)p;
}

static const struct proto_ops memory_ops = {
	.readv = memory_readv,
	.writev = memory_writev,
	.flush = memory_flush,
	.zero = memory_zero,
	.discard = memory_discard,
	.size = memory_size,
	.start = memory_start,
	.close = memory_close,
};

struct memory *memory_new(const void *data, u64 size, u64 most)
{
	struct memory *m = calloc(1, sizeof(*m));

	m->proto = (struct proto){ .ops = &memory_ops, .name = strdup("memory"), .align = 1,
		.alone = true };
	m->data = malloc(size ?: 1);
	memcpy(m->data, data, size);
	m->size = size;
	m->most = most;
	return m;
}

void memory_free(struct memory *m)
{
	for (size_t i = 0; i < m->events_count; i++)
		free(m->events[i].data);
	free(m->events);
	free(m->data);
	free(m->proto.name);
	free(m);
}
