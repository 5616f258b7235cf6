/* Pictures as PNG files (ISO/IEC 15948): true colour, 8 bits a sample, by zlib alone. */
#ifndef QUMRA_VMM_DISPLAY_PNG_H
#define QUMRA_VMM_DISPLAY_PNG_H

#include "lib/types.h"

/* pixel: 0x00RRGGBB, row by row. *png is allocated. 0 or -ENOMEM. */
int png_make(const u32 *pixel, u32 width, u32 height, u8 **png, size_t *size);

#endif
