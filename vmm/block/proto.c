/* Choosing the protocol by the name of an image: see proto.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/block/proto.h"

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

void proto_close(struct proto *p)
{
	char *name;

	if (!p)
		return;
	name = p->name;
	p->ops->close(p);
	free(name);
}

static bool starts_with(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* As QEMU has it: a name with a colon before any slash names a protocol. */
bool proto_has_scheme(const char *name)
{
	size_t n = strcspn(name, ":/");

	return n && name[n] == ':';
}

int proto_open(struct proto **out, const char *name, const struct proto_options *o,
	struct error *err)
{
	if (starts_with(name, "file:"))
		return file_open(out, name + strlen("file:"), o, err);
	if (o->no_wait && proto_has_scheme(name))
		return error_set(err, ENOTSUP, "%s: not while a machine runs: a file or device of this host",
			name);
	if (starts_with(name, "nbd:") || starts_with(name, "nbds:") || starts_with(name, "nbd+unix:") ||
	    starts_with(name, "nbds+unix:"))
		return nbd_open(out, name, o, err);
	if (proto_has_scheme(name))
		return error_usage(err, "%s: no such protocol; a path with a colon is written ./%s",
			name, name);
	return file_open(out, name, o, err);
}
