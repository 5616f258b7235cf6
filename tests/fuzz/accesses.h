/* What the fuzz targets of accesses share without libFuzzer: accesses.c has main, each target its accesses. */
#ifndef QUMRA_TESTS_FUZZ_ACCESSES_H
#define QUMRA_TESTS_FUZZ_ACCESSES_H

#include "lib/types.h"

/* The next random number. */
u32 next(void);
/* The target's: one access, of 8 bytes, at p. */
void make_access(u8 *p);

#endif
