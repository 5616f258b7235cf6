/* Which board a machine is, in the words of the command line. */
#ifndef QUMRA_VMM_MACHINE_OPTIONS_H
#define QUMRA_VMM_MACHINE_OPTIONS_H

#include "lib/types.h"
#include "vmm/machine/numa.h"

enum machine_kind { MACHINE_Q35, MACHINE_MICROVM };

struct machine_options {
	enum machine_kind kind;
	struct numa numa;
	/* q35 */
	unsigned root_ports;
	bool hpet;
	/* microvm */
	bool rtc, pcie;
};

#endif
