/* Sizes as people write them: a decimal number with an optional K, M, G or T (powers of 1024). */
#ifndef QUMRA_LIB_SIZE_H
#define QUMRA_LIB_SIZE_H

#include "lib/types.h"

/* 0, -EINVAL for anything that is not a size, -ERANGE when it does not fit 64 bits. */
int size_parse(const char *text, u64 *size);

#define SIZE_TEXT_MAX 32
/* The shortest exact text, such as "512M" or "4097 bytes"; returns buf. */
const char *size_format(u64 size, char buf[SIZE_TEXT_MAX]);

#endif
