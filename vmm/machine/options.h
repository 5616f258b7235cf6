/* Which board a machine is, in the words of the command line. */
#ifndef QUMRA_VMM_MACHINE_OPTIONS_H
#define QUMRA_VMM_MACHINE_OPTIONS_H

#include "lib/types.h"
#include "vmm/machine/numa.h"

#define VMGENID_SIZE 16

struct vmgenid_options {
	bool there;
	bool fixed;	/* guid was given, in the order of its bytes in memory; else it is random */
	u8 guid[VMGENID_SIZE];
};

enum machine_kind { MACHINE_Q35, MACHINE_MICROVM };

struct machine_options {
	enum machine_kind kind;
	struct numa numa;
	struct vmgenid_options vmgenid;
	/* q35 */
	unsigned root_ports;
	bool hpet;
	/* microvm */
	bool rtc, pcie;
};

#endif
