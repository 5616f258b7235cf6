/* What devices ask of the machine's owner. Called under the machine's lock, on any thread. */
#ifndef QUMRA_VMM_MACHINE_REQUEST_H
#define QUMRA_VMM_MACHINE_REQUEST_H

#include "lib/types.h"

enum machine_request {
	MACHINE_POWER_OFF,
	MACHINE_RESET,
	MACHINE_PANIC,		/* the guest says that it crashed; it runs on */
	MACHINE_EXIT,		/* end the process with this status (tests) */
};

struct machine_events {
	void (*request)(void *arg, enum machine_request what, int status);
	void *arg;
};

#endif
