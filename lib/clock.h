/* The host's clock that never goes back. */
#ifndef QUMRA_LIB_CLOCK_H
#define QUMRA_LIB_CLOCK_H

#include <time.h>

#include "lib/types.h"

static inline u64 clock_monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

#endif
