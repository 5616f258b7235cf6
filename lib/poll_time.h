/*
 * How long a thread looks before it sleeps. Where CPUs idle, and more so in a virtual machine, waking one
 * takes 10 to 50 us: who is woken often and soon had better stay awake that long. Who is not sleeps at once.
 */
#ifndef QUMRA_LIB_POLL_TIME_H
#define QUMRA_LIB_POLL_TIME_H

#include "lib/types.h"

#define POLL_TIME_START_NS 10000
/* About what waking costs: looking for longer than that loses more than it can gain. */
#define POLL_TIME_MAX_NS   50000

/* The next time's limit, from this one's and how long the wait then took, as KVM's halt_poll_ns goes. */
static inline u64 poll_time_next(u64 limit_ns, u64 waited_ns, u64 max_ns)
{
	if (waited_ns <= limit_ns)
		return limit_ns;
	if (waited_ns > max_ns)
		return 0;
	return MIN(MAX(2 * limit_ns, (u64)POLL_TIME_START_NS), max_ns);
}

#endif
