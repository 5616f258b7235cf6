/* Dispatch of guest accesses to devices: see io_map.h. */
#include <errno.h>
#include <string.h>

#include "vmm/machine/io_map.h"

/* Index of the first range that ends above addr. */
static unsigned io_map_search(const struct io_map *map, u64 addr)
{
	unsigned lo = 0, hi = map->count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (map->range[mid].base + map->range[mid].size - 1 < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int io_map_add(struct io_map *map, const struct io_range *range)
{
	unsigned at = io_map_search(map, range->base);

	if (!range->size || range->base + range->size - 1 < range->base)
		return -EINVAL;
	if (map->count == IO_RANGES_MAX)
		return -ENOSPC;
	if (at < map->count && map->range[at].base <= range->base + range->size - 1)
		return -EEXIST;
	memmove(&map->range[at + 1], &map->range[at], (map->count - at) * sizeof(*range));
	map->range[at] = *range;
	map->count++;
	return 0;
}

int io_map_remove(struct io_map *map, u64 base)
{
	unsigned at = io_map_search(map, base);

	if (at == map->count || map->range[at].base != base)
		return -ENOENT;
	map->count--;
	memmove(&map->range[at], &map->range[at + 1], (map->count - at) * sizeof(map->range[0]));
	return 0;
}

const struct io_range *io_map_find(const struct io_map *map, u64 addr)
{
	unsigned at = io_map_search(map, addr);

	return at < map->count && map->range[at].base <= addr ? &map->range[at] : NULL;
}

/* The largest piece at addr that one device takes at once. */
static unsigned io_piece(const struct io_range *r, u64 addr, unsigned size)
{
	unsigned piece = 1;

	if (!r)
		return 1;
	while (piece * 2 <= size && piece * 2 <= r->ops->width &&
		addr - r->base + piece * 2 <= r->size)
		piece *= 2;
	return piece;
}

void io_map_read(const struct io_map *map, u64 addr, void *data, unsigned size)
{
	u8 *out = data;

	while (size) {
		const struct io_range *r = io_map_find(map, addr);
		unsigned piece = io_piece(r, addr, size);
		u64 value = r && r->ops->read ? r->ops->read(r->dev, addr - r->base, piece) : ~0ULL;

		memcpy(out, &value, piece);
		out += piece;
		addr += piece;
		size -= piece;
	}
}

void io_map_write(const struct io_map *map, u64 addr, const void *data, unsigned size)
{
	const u8 *in = data;

	while (size) {
		const struct io_range *r = io_map_find(map, addr);
		unsigned piece = io_piece(r, addr, size);
		u64 value = 0;

		memcpy(&value, in, piece);
		if (r && r->ops->write)
			r->ops->write(r->dev, addr - r->base, value, piece);
		in += piece;
		addr += piece;
		size -= piece;
	}
}
