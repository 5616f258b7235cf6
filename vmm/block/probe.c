/* Formats by their first bytes, as QEMU tells them apart. */
#include <string.h>

#include "vmm/block/layer.h"

struct magic {
	const char *name;
	u32 offset, length;
	const char *bytes;
};

static const struct magic magics[] = {
	{ "qcow", 0, 8, "QFI\xfb\0\0\0\1" },
	{ "qcow2", 0, 4, "QFI\xfb" },	/* of a version that we know or not */
	{ "qed", 0, 4, "QED\0" },
	{ "luks", 0, 6, "LUKS\xba\xbe" },
	{ "vmdk", 0, 4, "KDMV" },
	{ "vmdk", 0, 4, "COWD" },
	{ "vmdk", 0, 21, "# Disk DescriptorFile" },
	{ "vhdx", 0, 8, "vhdxfile" },
	{ "vpc", 0, 8, "conectix" },
	{ "vdi", 0x40, 4, "\x7f\x10\xda\xbe" },
	{ "parallels", 0, 16, "WithoutFreeSpace" },
	{ "parallels", 0, 16, "WithouFreSpacExt" },
	{ "bochs", 0, 21, "Bochs Virtual HD Imag" },
	{ "cloop", 0, 21, "#!/bin/sh\n#V2.0 Forma" },
};

const char *format_probe(const u8 *buf, u64 bytes)
{
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		const struct magic *m = &magics[i];

		if (bytes >= m->offset + m->length && !memcmp(buf + m->offset, m->bytes, m->length))
			return m->name;
	}
	return "raw";
}
