/*
 * What a monitor says of itself (VESA E-EDID Standard, release A, revision 2: EDID 1.4), of one that
 * has the wanted size. Timings are those of CVT with reduced blanking, near enough.
 */
#include <string.h>

#include "vmm/virtio/gpu.h"

#define H_BLANK		160
#define H_FRONT		48
#define H_SYNC		32
#define V_FRONT		3
#define V_SYNC		6
#define CLOCK_MAX	65535	/* of 10 kHz: larger ones are shown less often than 60 times a second */

static const u8 begin[] = {
	0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00,	/* header */
	0x45, 0xB2,			/* the maker in three letters of five bits: QMR */
	0x01, 0x00, 0x00, 0x00, 0x00, 0x00,	/* product; no serial number */
	0xFF, 34,			/* the model's year: 2024 */
	1, 4,				/* version */
	0xA5,				/* digital, 8 bits a colour, DisplayPort */
	0, 0,				/* centimetres, filled in */
	120,				/* gamma 2.2 */
	0x06,				/* sRGB; the first timing is the native one */
	0xEE, 0x91, 0xA3, 0x54, 0x4C, 0x99, 0x26, 0x0F, 0x50, 0x54,	/* sRGB's primaries */
	0x21, 0x08, 0x00,		/* 640x480, 800x600, 1024x768 at 60 Hz */
	1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,	/* no other standard timings */
};

_Static_assert(sizeof(begin) == 54, "E-EDID 3.1");

static u32 millimetres(u32 dots)
{
	return dots * 254 / 1000;	/* 100 dots an inch */
}

/* E-EDID 3.10.2 */
static void timing_make(u8 t[18], u32 width, u32 height)
{
	u32 v_blank = height * 29 / 1000 + V_FRONT + V_SYNC + 1;
	u32 clock = MIN((width + H_BLANK) * (height + v_blank) * 60 / 10000, (u32)CLOCK_MAX);
	u32 mm_x = millimetres(width), mm_y = millimetres(height);

	t[0] = clock;
	t[1] = clock >> 8;
	t[2] = width;
	t[3] = H_BLANK;
	t[4] = width >> 8 << 4 | H_BLANK >> 8;
	t[5] = height;
	t[6] = v_blank;
	t[7] = height >> 8 << 4 | v_blank >> 8;
	t[8] = H_FRONT;
	t[9] = H_SYNC;
	t[10] = V_FRONT << 4 | V_SYNC;
	t[11] = 0;
	t[12] = mm_x;
	t[13] = mm_y;
	t[14] = mm_x >> 8 << 4 | mm_y >> 8;
	t[15] = t[16] = 0;
	t[17] = 0x1A;	/* separate syncs, the horizontal one positive */
}

void gpu_edid_make(u8 edid[GPU_EDID_SIZE], u32 width, u32 height)
{
	static const u8 name[18] = "\0\0\0\xFC\0Qumra\n       ", dummy[18] = { [3] = 0x10 };
	u8 sum = 0;

	memset(edid, 0, GPU_EDID_SIZE);
	memcpy(edid, begin, sizeof(begin));
	edid[21] = millimetres(width) / 10;
	edid[22] = millimetres(height) / 10;
	timing_make(edid + 54, width, height);
	memcpy(edid + 72, name, sizeof(name));
	memcpy(edid + 90, dummy, sizeof(dummy));
	memcpy(edid + 108, dummy, sizeof(dummy));
	for (unsigned i = 0; i < GPU_EDID_SIZE - 1; i++)
		sum += edid[i];
	edid[127] = -sum;
}
