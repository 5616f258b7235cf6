/* The table of exit reasons: see names.h. api.rst section 5 */
#include <linux/kvm.h>

#include "hypervisor/preload/names.h"
#include "lib/types.h"

static const char *const exits[] = {
#define EXIT(name) [KVM_EXIT_##name] = "KVM_EXIT_" #name
	EXIT(UNKNOWN), EXIT(EXCEPTION), EXIT(IO), EXIT(HYPERCALL), EXIT(DEBUG), EXIT(HLT),
	EXIT(MMIO), EXIT(IRQ_WINDOW_OPEN), EXIT(SHUTDOWN), EXIT(FAIL_ENTRY), EXIT(INTR),
	EXIT(SET_TPR), EXIT(TPR_ACCESS), EXIT(NMI), EXIT(INTERNAL_ERROR), EXIT(SYSTEM_EVENT),
	EXIT(IOAPIC_EOI), EXIT(HYPERV), EXIT(X86_RDMSR), EXIT(X86_WRMSR), EXIT(DIRTY_RING_FULL),
	EXIT(X86_BUS_LOCK), EXIT(NOTIFY),
};
_Static_assert(ARRAY_SIZE(exits) <= NR_EXITS, "all have a number below");

const char *exit_name(unsigned int reason)
{
	return reason < ARRAY_SIZE(exits) && exits[reason] ? exits[reason] : "unknown";
}
