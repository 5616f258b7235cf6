/* PNG: see png.h. The size is little beside a screen's, so it is made in memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "vmm/display/png.h"

#define SIGNATURE	"\x89PNG\r\n\x1a\n"
#define SIGNATURE_SIZE	8
#define CHUNK_FRAME	12	/* length, type, CRC */
#define HEADER_SIZE	13
#define TRUE_COLOR	2
#define FILTER_UP	2	/* rows are like those above: text compresses well */

static u8 *put_u32(u8 *at, u32 value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = value >> (24 - 8 * i);
	return at + 4;
}

/* data may lie where it belongs already. Returns what is behind the chunk. */
static u8 *put_chunk(u8 *at, const char type[4], const u8 *data, u32 size)
{
	u8 *start = put_u32(at, size);

	memcpy(start, type, 4);
	if (size)
		memmove(start + 4, data, size);
	return put_u32(start + 4 + size, crc32(0, start, size + 4));
}

/* Each row behind its filter's number. */
static u8 *make_rows(const u32 *pixel, u32 width, u32 height)
{
	size_t stride = 1 + 3 * (size_t)width;
	u8 *rows = malloc(stride * height), *out = rows;

	for (u32 y = 0; rows && y < height; y++) {
		const u32 *row = pixel + (size_t)y * width, *above = y ? row - width : NULL;

		*out++ = FILTER_UP;
		for (u32 x = 0; x < width; x++) {
			u32 up = above ? above[x] : 0;

			*out++ = (row[x] >> 16) - (up >> 16);
			*out++ = (row[x] >> 8) - (up >> 8);
			*out++ = row[x] - up;
		}
	}
	return rows;
}

static u8 *put_header(u8 *at, u32 width, u32 height)
{
	u8 header[HEADER_SIZE] = { [8] = 8, [9] = TRUE_COLOR };

	put_u32(header, width);
	put_u32(header + 4, height);
	memcpy(at, SIGNATURE, SIGNATURE_SIZE);
	return put_chunk(at + SIGNATURE_SIZE, "IHDR", header, sizeof(header));
}

int png_make(const u32 *pixel, u32 width, u32 height, u8 **png, size_t *size)
{
	size_t raw = (1 + 3 * (size_t)width) * height;
	uLongf packed = compressBound(raw);
	u8 *rows = make_rows(pixel, width, height), *out, *at;

	out = malloc(SIGNATURE_SIZE + 3 * CHUNK_FRAME + HEADER_SIZE + packed);
	if (!rows || !out)
		goto fail;
	at = put_header(out, width, height);
	if (compress2(at + 8, &packed, rows, raw, Z_BEST_SPEED) != Z_OK)
		goto fail;
	at = put_chunk(at, "IDAT", at + 8, packed);
	at = put_chunk(at, "IEND", NULL, 0);
	*png = out;
	*size = at - out;
	free(rows);
	return 0;
fail:
	free(rows);
	free(out);
	return -ENOMEM;
}
