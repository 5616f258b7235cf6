/* Opening and closing chains of images: see layer.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "vmm/block/layer.h"
#include "vmm/block/iov.h"
#include "vmm/block/qcow2/qcow2.h"

bool format_exists(const char *format)
{
	return !strcmp(format, "raw") || !strcmp(format, "qcow2");
}

static int format_probe_file(struct proto *file, const char **format, struct error *err)
{
	u8 buf[PROBE_BYTES];
	int ret = proto_read(file, buf, sizeof(buf), 0);

	if (ret < 0)
		return error_set(err, -ret, "cannot read %s: %s", file->name, strerror(-ret));
	*format = format_probe(buf, sizeof(buf));
	return 0;
}

static int layer_open_format(struct layer **out, struct proto *file, const struct layer_options *o,
	struct error *err)
{
	const char *format = o->format;
	int ret = 0;

	if (!format)
		ret = format_probe_file(file, &format, err);
	if (ret < 0)
		return ret;
	if (!format_exists(format))
		return error_usage(err, "%s: images in format %s are not supported", file->name, format);
	if (!strcmp(format, "qcow2"))
		return qcow2_open(out, file, o, NULL, err);
	if (o->internal_snapshot)
		return error_usage(err, "%s: a raw image has no snapshots", file->name);
	if (!o->format && !file->readonly)
		log_line("%s: no format was given, taken as raw; its first sector cannot be made "
			 "that of another format (format=raw says that it is raw)", file->name);
	return raw_open(out, file, !o->format, err);
}

int layer_open(struct layer **out, const char *name, const struct layer_options *o,
	struct error *err)
{
	struct proto *file;
	int ret = proto_open(&file, name, &o->proto, err);

	if (ret < 0)
		return ret;
	ret = layer_open_format(out, file, o, err);
	if (ret < 0)
		proto_close(file);
	return ret;
}

int layer_beside(char **path, const struct proto *above, const char *name, struct error *err)
{
	const char *slash = strrchr(above->name, '/');
	int ret;

	if (name[0] == '/' || proto_has_scheme(name)) {
		*path = strdup(name);
		return *path ? 0 : error_set(err, ENOMEM, "out of memory");
	}
	if (!above->is_file)
		return error_usage(err, "%s: the name %s in it is relative to nothing", above->name, name);
	ret = asprintf(path, "%.*s%s", slash ? (int)(slash - above->name) + 1 : 0, above->name, name);
	return ret < 0 ? error_set(err, ENOMEM, "out of memory") : 0;
}

int layer_open_file(struct proto **out, const char *path, const struct proto *above,
	const struct layer_options *o, struct error *err)
{
	struct proto_chain link = { above, o->proto.above };
	struct proto_options po = o->proto;

	po.above = &link;
	return proto_open(out, path, &po, err);
}

static int chain_length(const struct proto_chain *c)
{
	int n = 0;

	for (; c; c = c->above)
		n++;
	return n;
}

int layer_open_backing(struct layer **out, const struct proto *above, const char *name,
	const struct layer_options *o, struct error *err)
{
	struct proto_chain link = { above, o->proto.above };
	struct layer_options below = *o;
	struct error why = ERROR_INIT;
	char *path;
	int ret;

	if (chain_length(&link) > LAYERS_MAX)
		return error_usage(err, "%s: more than %d backing files", above->name, LAYERS_MAX);
	ret = layer_beside(&path, above, name, err);
	if (ret < 0)
		return ret;
	below.proto.readonly = true;
	below.proto.write_through = false;
	below.proto.above = &link;
	ret = layer_open(out, path, &below, &why);
	free(path);
	if (ret < 0)
		error_set(err, -ret, "%s; it is the backing file of %s", why.text, above->name);
	return ret;
}

int layer_add_overlay(struct layer **img, struct error *err)
{
	struct qcow2_new n = { .size = (*img)->size };
	struct layer_options o = { 0 };
	struct proto *file;
	int ret = file_open_temporary(&file, err);

	if (ret < 0)
		return ret;
	ret = qcow2_create(file, &n, err);
	if (!ret)
		ret = qcow2_open(img, file, &o, *img, err);
	if (ret < 0)
		proto_close(file);
	return ret;
}

int layer_close(struct layer *img)
{
	int ret = 0;

	while (img) {
		struct layer *backing = img->backing;
		struct proto *file = img->file;
		int one = img->ops->close(img);

		ret = ret ?: one;
		proto_close(file);
		img = backing;
	}
	return ret;
}

int layer_read(struct layer *img, const struct iovec *iov, unsigned iovs, u64 offset)
{
	u64 bytes = iov_bytes(iov, iovs);
	u64 there = offset < img->size ? MIN(bytes, img->size - offset) : 0;
	struct iovec *part;
	int ret = 0;

	if (there == bytes)
		return img->ops->readv(img, iov, iovs, offset);
	iov_zero(iov, iovs, there, bytes - there);
	if (!there)
		return 0;
	part = malloc(iovs * sizeof(*part));
	if (!part)
		return -ENOMEM;
	ret = img->ops->readv(img, part, iov_cut(part, iov, iovs, 0, there), offset);
	free(part);
	return ret;
}
