/* Internal snapshots (qcow2: Snapshots): found by id or name, opened to be read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/qcow2/qcow2.h"

struct snapshot_header {
	u64 l1_offset;
	u32 l1_size;
	u16 id_size, name_size;
	u32 seconds, nanoseconds;
	u64 clock;
	u32 vm_state_size, extra_size;
} __attribute__((packed));
_Static_assert(sizeof(struct snapshot_header) == 40, "qcow2: Snapshots");

/* Of the extra data. */
#define EXTRA_DISK_SIZE 8
#define EXTRA_MAX	1024
#define TABLE_MAX	(64U << 20)

struct snapshot {
	u64 l1_offset, disk_size;	/* disk_size 0: not told */
	u32 l1_size;
	char id[NAME_MAX_BYTES + 1], name[NAME_MAX_BYTES + 1];
};

/* Names may be longer than ours; they are then cut, and not found. */
static int snapshot_text(struct qcow2 *q, char *to, u64 offset, u16 length)
{
	u16 n = MIN(length, NAME_MAX_BYTES);

	to[n] = 0;
	return proto_read(q->layer.file, to, n, offset);
}

/* Steps *at to the next one. */
static int snapshot_load(struct qcow2 *q, u64 *at, struct snapshot *s)
{
	struct snapshot_header h;
	u32 extra;
	u64 size = 0;
	int ret = proto_read(q->layer.file, &h, sizeof(h), *at);

	if (ret < 0)
		return ret;
	*at += sizeof(h);
	extra = be32toh(h.extra_size);
	if (extra > EXTRA_MAX)
		return -EINVAL;
	if (extra >= EXTRA_DISK_SIZE + 8)
		ret = proto_read(q->layer.file, &size, 8, *at + EXTRA_DISK_SIZE);
	*at += extra;
	if (!ret)
		ret = snapshot_text(q, s->id, *at, be16toh(h.id_size));
	*at += be16toh(h.id_size);
	if (!ret)
		ret = snapshot_text(q, s->name, *at, be16toh(h.name_size));
	*at = ALIGN_UP(*at + be16toh(h.name_size), 8);
	s->l1_offset = be64toh(h.l1_offset);
	s->l1_size = be32toh(h.l1_size);
	s->disk_size = be64toh(size);
	if (cluster_offset(q, s->l1_offset) || (u64)s->l1_size * 8 > L1_BYTES_MAX)
		return -EINVAL;
	return ret;
}

int snapshot_each(struct qcow2 *q, int (*fn)(struct qcow2 *q, u64 l1_offset, u32 l1_size, void *arg),
	void *arg, u64 *end)
{
	u64 at = q->snapshots_offset;
	struct snapshot s;
	int ret = 0;

	for (u32 i = 0; i < q->snapshots && !ret; i++) {
		ret = snapshot_load(q, &at, &s);
		if (!ret && at - q->snapshots_offset > TABLE_MAX)
			ret = -EINVAL;
		if (!ret && fn)
			ret = fn(q, s.l1_offset, s.l1_size, arg);
	}
	*end = at;
	return ret;
}

static int snapshot_use(struct qcow2 *q, const struct snapshot *s, struct error *err)
{
	u64 size = s->disk_size ?: q->layer.size;

	if (size > INT64_MAX - 511 || s->l1_size < l1_entries(q, size))
		return error_set(err, EINVAL, "%s: the L1 table of its snapshot is too small",
			q->layer.file->name);
	q->layer.size = ALIGN_UP(size, 512);
	q->l1_offset = s->l1_offset;
	q->l1_size = s->l1_size;
	return 0;
}

int snapshot_find(struct qcow2 *q, const char *name, struct error *err)
{
	u64 at = q->snapshots_offset;
	struct snapshot s, found = { 0 };
	bool have = false;

	/* An id goes before a name. */
	for (u32 i = 0; i < q->snapshots; i++) {
		int ret = snapshot_load(q, &at, &s);

		if (ret < 0)
			return error_set(err, -ret, "%s: its table of snapshots is corrupt",
				q->layer.file->name);
		if (!strcmp(s.id, name))
			return snapshot_use(q, &s, err);
		if (!have && !strcmp(s.name, name)) {
			found = s;
			have = true;
		}
	}
	if (!have)
		return error_usage(err, "%s has no internal snapshot %s", q->layer.file->name, name);
	return snapshot_use(q, &found, err);
}
