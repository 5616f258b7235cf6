/*
 * Saved device state: a declared table of fields over a struct of its own, apart from the live
 * device. Each field says in which version of the device's table it first appeared, so that a newer
 * program loads what an older one saved.
 *
 * On the wire, little-endian: name\0, version u16, fields u16, then for each field name\0, size
 * u16, bytes.
 */
#ifndef QUMRA_VMM_MIGRATION_STATE_H
#define QUMRA_VMM_MIGRATION_STATE_H

#include "lib/types.h"

struct state_field {
	const char *name;
	u16 offset, size;
	u16 since;	/* version of the table */
};

struct state_table {
	const char *name;
	u16 version;
	u16 oldest;	/* that can still be read: before it, what follows the fields was of another form */
	u16 count;
	u32 size;	/* of the struct */
	const struct state_field *fields;
};

#define STATE_FIELD(type, field, ver)                            \
	{                                                        \
		.name = #field, .offset = offsetof(type, field), \
		.size = sizeof(((type *)0)->field), .since = ver \
	}
#define STATE_TABLE_FROM(nm, type, first, ver, list)                                  \
	{                                                                             \
		.name = nm, .version = ver, .oldest = first, .count = ARRAY_SIZE(list), \
		.size = sizeof(type), .fields = list                                  \
	}
#define STATE_TABLE(nm, type, ver, list) STATE_TABLE_FROM(nm, type, 1, ver, list)

/* Bytes written, or -ENOSPC. */
long state_write(const struct state_table *table, const void *state, void *buf, size_t size);
/*
 * Bytes read, or -EINVAL for what is not this table's, -ENOTSUP for a version newer than ours or
 * older than the oldest that is read. Fields that the writer did not know are zero.
 */
long state_read(const struct state_table *table, void *state, const void *buf, size_t size);

/* The verbs that every device answers, always under the machine's lock. */
struct device_ops {
	const struct state_table *table;
	void (*reset)(void *dev);
	void (*pause)(void *dev);	/* guest time stops */
	void (*resume)(void *dev);
	void (*save)(void *dev, void *state);
	/* Checks every field: a bad state is -EINVAL and changes nothing. */
	int (*load)(void *dev, const void *state);
	/*
	 * What has no fixed size, behind the table's fields; both NULL where there is nothing of the
	 * kind. save_more() returns the bytes written or -ENOSPC. load_more() comes in load's place and
	 * has both; it returns the bytes read or -errno.
	 */
	long (*save_more)(void *dev, void *buf, size_t size);
	long (*load_more)(void *dev, const void *state, const void *buf, size_t size);
	/* Why it cannot be saved now, for a person; NULL: it can. May itself be NULL. */
	const char *(*obstacle)(void *dev);
};

struct device {
	const struct device_ops *ops;
	void *self;
};

/* Through the wire format, for one device. -EOPNOTSUPP: there is an obstacle. */
long device_save(const struct device *dev, void *buf, size_t size);
long device_load(const struct device *dev, const void *buf, size_t size);

/* No device's saved struct is larger. */
#define DEVICE_STATE_MAX 8192

#endif
