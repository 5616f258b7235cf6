/* Good qcow2 images of 512-byte clusters, some of them spoiled: see image.h. */
#include <string.h>
#include <zlib.h>

#include "tests/fuzz/qcow2/image.h"
#include "vmm/block/qcow2/qcow2.h"

#define CLUSTER	   512
/* The image's clusters. */
enum { HEADER, REFTABLE, REFBLOCK, L1, L2_A, L2_B, DATA_A, DATA_B, PACKED, SNAPSHOTS, OLD_L1, CLUSTERS };
#define DISK (100 * 1024)

static u64 rng;

static u32 next(void)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return rng >> 32;
}

static u64 nasty(void)
{
	static const u64 values[] = {
		0, 1, 0xFF, 0x200, 0x400, 0x600, 0x800, 0xA00, 0x1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
		0x100000000, BIT(55), BIT(56), BIT(62), BIT(63), BIT(63) | 0x800, BIT(63) | 0x200,
		0x7FFFFFFFFFFFFFFF, ~0ULL, ~0ULL - 511, BIT(62) | 0x1000, ENTRY_ZERO | 0xC00,
	};

	return values[next() % ARRAY_SIZE(values)];
}

static u32 put_packed(u8 *at)
{
	u8 plain[CLUSTER];
	z_stream z = { .next_in = plain, .avail_in = CLUSTER, .next_out = at, .avail_out = CLUSTER };

	for (int i = 0; i < CLUSTER; i++)
		plain[i] = i / 7;
	deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
	deflate(&z, Z_FINISH);
	deflateEnd(&z);
	return CLUSTER - z.avail_out;
}

static void put_header(u8 *file)
{
	struct qcow2_header h = {
		.magic = htobe32(QCOW2_MAGIC), .version = htobe32(2 + next() % 2),
		.cluster_bits = htobe32(9), .size = htobe64(DISK), .l1_size = htobe32(4),
		.l1_table_offset = htobe64(L1 * CLUSTER),
		.refcount_table_offset = htobe64(REFTABLE * CLUSTER),
		.refcount_table_clusters = htobe32(1), .nb_snapshots = htobe32(1),
		.snapshots_offset = htobe64(SNAPSHOTS * CLUSTER), .refcount_order = htobe32(4),
		.header_length = htobe32(104),
	};

	if (next() % 4 == 0) {
		h.backing_file_offset = htobe64(200);
		h.backing_file_size = htobe32(4);
		memcpy(file + 200, "base", 4);
	}
	if (next() % 4 == 0)
		h.incompatible_features = htobe64(INCOMPATIBLE_DIRTY);
	if (next() % 4 == 0)
		h.compatible_features = htobe64(COMPATIBLE_LAZY);
	memcpy(file, &h, 104);
}

static void put_tables(u8 *file)
{
	u64 *l1 = (u64 *)(file + L1 * CLUSTER), *a = (u64 *)(file + L2_A * CLUSTER);
	u64 *b = (u64 *)(file + L2_B * CLUSTER);
	u16 *counts = (u16 *)(file + REFBLOCK * CLUSTER);

	*(u64 *)(file + REFTABLE * CLUSTER) = htobe64(REFBLOCK * CLUSTER);
	for (int i = 0; i < CLUSTERS; i++)
		counts[i] = htobe16(1);
	l1[0] = htobe64(L2_A * CLUSTER | ENTRY_COPIED);
	l1[1] = htobe64(L2_B * CLUSTER | ENTRY_COPIED);
	a[0] = htobe64(DATA_A * CLUSTER | ENTRY_COPIED);
	a[1] = htobe64(ENTRY_COMPRESSED | PACKED * CLUSTER);
	b[3] = htobe64(DATA_B * CLUSTER | ENTRY_COPIED);
	put_packed(file + PACKED * CLUSTER);
	/* A snapshot of another time, when the disk was empty: its L1 table, an id, a name. */
	*(u64 *)(file + SNAPSHOTS * CLUSTER) = htobe64(OLD_L1 * CLUSTER);
	*(u32 *)(file + SNAPSHOTS * CLUSTER + 8) = htobe32(4);
	*(u32 *)(file + SNAPSHOTS * CLUSTER + 12) = htobe32(1 << 16 | 1);
	memcpy(file + SNAPSHOTS * CLUSTER + 40, "1s", 2);
}

size_t make_input(u8 *buf, u64 *seed, bool *good)
{
	u8 *file = buf + OPERATIONS;
	size_t size = CLUSTERS * CLUSTER;
	u32 spoils;

	rng = *seed;
	memset(buf, 0, OPERATIONS + size);
	for (int i = 1; i < OPERATIONS; i++)
		buf[i] = next();
	buf[0] = next() % 8 ? 0 : next();
	put_header(file);
	put_tables(file);
	spoils = next() % 5;
	*good = !spoils;
	for (u32 n = spoils; n; n--) {
		u64 value = htobe64(next() % 4 ? nasty() : next());
		/* A field of the header, or an entry that is likely to be looked at. */
		size_t at = next() & 1 ? next() % 14 * 8 :
			    next() % CLUSTERS * CLUSTER + (next() & 1 ? next() % 4 : next() % 64) * 8;

		memcpy(file + at + (next() & 1 ? 4 : 0), (u8 *)&value + 4, 4);
		if (next() & 1)
			memcpy(file + at, &value, 8);
	}
	if (next() % 8 == 0) {
		*good = false;
		size = next() % size;
	}
	*seed = rng;
	return OPERATIONS + size;
}
