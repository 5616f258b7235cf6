/*
 * Capabilities: what KVM_CHECK_EXTENSION answers, one row each, and the ones that a VM must enable.
 * Those without a row are 0. Linux Documentation/virt/kvm/api.rst 4.4, sections 6 to 8.
 */
#include <linux/kvm_para.h>

#include "hypervisor/api/api.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/msr.h"

#define SYNC_FIELDS	(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
#define X2APIC_FLAGS	(KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
#define GUESTDBG_FLAGS	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP | \
			 KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP | \
			 KVM_GUESTDBG_BLOCKIRQ)

#define DIRTY_LOG_FLAGS	(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)
#define MSR_REASONS	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | \
			 KVM_MSR_EXIT_REASON_FILTER)

/* Most are behaviours that we never had: disabling these is remembered and changes nothing. */
#define QUIRKS (KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_CD_NW_CLEARED | \
		KVM_X86_QUIRK_LAPIC_MMIO_HOLE | KVM_X86_QUIRK_OUT_7E_INC_RIP | \
		KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_FIX_HYPERCALL_INSN | \
		KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

/*
 * MWAIT never leaves the guest and ends at once. There are no residencies of C-states to read, as on
 * KVM where the processor is AMD's.
 */
#define DISABLE_EXITS	(KVM_X86_DISABLE_EXITS_MWAIT | KVM_X86_DISABLE_EXITS_HLT | \
			 KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_CSTATE)
#define HYPERCALL_EXITS	(1 << KVM_HC_MAP_GPA_RANGE)
#define NOTIFY_FLAGS	(u32)(KVM_X86_NOTIFY_VMEXIT_ENABLED | KVM_X86_NOTIFY_VMEXIT_USER)
#define BUS_LOCK_MODES	(KVM_BUS_LOCK_DETECTION_OFF | KVM_BUS_LOCK_DETECTION_EXIT)

static const int capability[] = {
	[KVM_CAP_IRQCHIP] = 1,
	[KVM_CAP_HLT] = 1,
	[KVM_CAP_MMU_SHADOW_CACHE_CONTROL] = 1,
	[KVM_CAP_USER_MEMORY] = 1,
	[KVM_CAP_SET_TSS_ADDR] = 1,
	[KVM_CAP_EXT_CPUID] = 1,
	[KVM_CAP_CLOCKSOURCE] = 1,
	[KVM_CAP_VAPIC] = 1,
	[KVM_CAP_NR_MEMSLOTS] = MAX_SLOTS,
	[KVM_CAP_PIT] = 1,
	[KVM_CAP_NOP_IO_DELAY] = 1,
	[KVM_CAP_MP_STATE] = 1,
	[KVM_CAP_COALESCED_MMIO] = COALESCED_PAGE,
	[KVM_CAP_SYNC_MMU] = 1,
	[KVM_CAP_DESTROY_MEMORY_REGION_WORKS] = 1,
	[KVM_CAP_USER_NMI] = 1,
	[KVM_CAP_SET_GUEST_DEBUG] = 1,
	[KVM_CAP_REINJECT_CONTROL] = 1,
	[KVM_CAP_IRQ_ROUTING] = MAX_IRQ_ROUTES,
	[KVM_CAP_IRQ_INJECT_STATUS] = 1,
	[KVM_CAP_IRQFD] = 1,
	[KVM_CAP_JOIN_MEMORY_REGIONS_WORKS] = 1,
	[KVM_CAP_PIT2] = 1,
	[KVM_CAP_SET_BOOT_CPU_ID] = 1,
	[KVM_CAP_IOEVENTFD] = 1,
	[KVM_CAP_PIT_STATE2] = 1,
	[KVM_CAP_SET_IDENTITY_MAP_ADDR] = 1,
	[KVM_CAP_ADJUST_CLOCK] = CLOCK_FLAGS,
	[KVM_CAP_VCPU_EVENTS] = 1,
	[KVM_CAP_INTR_SHADOW] = 1,
	[KVM_CAP_DEBUGREGS] = 1,
	[KVM_CAP_X86_ROBUST_SINGLESTEP] = 1,
	[KVM_CAP_ENABLE_CAP] = 1,
	[KVM_CAP_XSAVE] = 1,
	[KVM_CAP_XCRS] = 1,
	[KVM_CAP_GET_TSC_KHZ] = 1,
	[KVM_CAP_MAX_VCPUS] = MAX_VCPUS,
	[KVM_CAP_TSC_DEADLINE_TIMER] = 1,
	[KVM_CAP_SYNC_REGS] = SYNC_FIELDS,
	[KVM_CAP_SIGNAL_MSI] = 1,
	[KVM_CAP_READONLY_MEM] = 1,
	[KVM_CAP_IRQFD_RESAMPLE] = 1,
	[KVM_CAP_EXT_EMUL_CPUID] = 1,
	[KVM_CAP_IOAPIC_POLARITY_IGNORED] = 1,
	[KVM_CAP_ENABLE_CAP_VM] = 1,
	[KVM_CAP_IOEVENTFD_NO_LENGTH] = 1,
	[KVM_CAP_CHECK_EXTENSION_VM] = 1,
	[KVM_CAP_DISABLE_QUIRKS] = 1,
	[KVM_CAP_SPLIT_IRQCHIP] = 1,
	[KVM_CAP_IOEVENTFD_ANY_LENGTH] = 1,
	[KVM_CAP_MAX_VCPU_ID] = MAX_VCPU_IDS,
	[KVM_CAP_X86_SMM] = 1,
	[KVM_CAP_MULTI_ADDRESS_SPACE] = NR_MEM_SPACES,
	[KVM_CAP_X2APIC_API] = X2APIC_FLAGS,
	[KVM_CAP_IMMEDIATE_EXIT] = 1,
	[KVM_CAP_GET_MSR_FEATURES] = 1,
	[KVM_CAP_COALESCED_PIO] = 1,
	[KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2] = DIRTY_LOG_FLAGS,
	[KVM_CAP_SET_GUEST_DEBUG2] = GUESTDBG_FLAGS,
	[KVM_CAP_MCE] = MCE_MAX_BANKS,
	[KVM_CAP_INTERNAL_ERROR_DATA] = 1,
	[KVM_CAP_PCI_SEGMENT] = 1,
	[KVM_CAP_X86_DISABLE_EXITS] = DISABLE_EXITS,
	[KVM_CAP_MSR_PLATFORM_INFO] = 1,
	[KVM_CAP_EXCEPTION_PAYLOAD] = 1,
	[KVM_CAP_X86_TRIPLE_FAULT_EVENT] = 1,
	[KVM_CAP_EXIT_HYPERCALL] = HYPERCALL_EXITS,
	[KVM_CAP_EXIT_ON_EMULATION_FAILURE] = 1,
	[KVM_CAP_HALT_POLL] = 1,
	[KVM_CAP_X86_BUS_LOCK_EXIT] = BUS_LOCK_MODES,
	[KVM_CAP_X86_NOTIFY_VMEXIT] = 1,
	[KVM_CAP_LAST_CPU] = 1,
	[KVM_CAP_DISABLE_QUIRKS2] = QUIRKS,
	[KVM_CAP_SYSTEM_EVENT_DATA] = 1,
	[KVM_CAP_BINARY_STATS_FD] = 1,
	[KVM_CAP_TSC_CONTROL] = 1,
	[KVM_CAP_VM_TSC_CONTROL] = 1,
	[KVM_CAP_VCPU_ATTRIBUTES] = 1,
	[KVM_CAP_SYS_ATTRIBUTES] = 1,
	[KVM_CAP_X86_USER_SPACE_MSR] = 1,
	[KVM_CAP_X86_MSR_FILTER] = 1,
	[KVM_CAP_DIRTY_LOG_RING] = DIRTY_RING_MAX,
	[KVM_CAP_DIRTY_LOG_RING_ACQ_REL] = DIRTY_RING_MAX,
	[KVM_CAP_SREGS2] = 1,
	[KVM_CAP_HYPERV] = 1,
	[KVM_CAP_HYPERV_VAPIC] = 1,
	[KVM_CAP_HYPERV_SPIN] = 1,
	[KVM_CAP_HYPERV_TIME] = 1,
	[KVM_CAP_HYPERV_SYNIC] = 1,
	[KVM_CAP_HYPERV_SYNIC2] = 1,
	[KVM_CAP_HYPERV_VP_INDEX] = 1,
	[KVM_CAP_HYPERV_EVENTFD] = 1,
	[KVM_CAP_HYPERV_TLBFLUSH] = 1,
	[KVM_CAP_HYPERV_SEND_IPI] = 1,
	[KVM_CAP_HYPERV_CPUID] = 1,
	[KVM_CAP_SYS_HYPERV_CPUID] = 1,
	[KVM_CAP_HYPERV_ENFORCE_CPUID] = 1,
	[KVM_CAP_ENFORCE_PV_FEATURE_CPUID] = 1,
	[KVM_CAP_KVMCLOCK_CTRL] = 1,
	[KVM_CAP_ASYNC_PF] = 1,
	[KVM_CAP_ASYNC_PF_INT] = 1,
	[KVM_CAP_PMU_EVENT_FILTER] = 1,
	[KVM_CAP_PMU_CAPABILITY] = KVM_PMU_CAP_DISABLE,
	[KVM_CAP_VM_DISABLE_NX_HUGE_PAGES] = 1,
	[KVM_CAP_XSAVE2] = sizeof(struct kvm_xsave),
};

int capability_value(u64 cap)
{
	/* The recommended number. */
	if (cap == KVM_CAP_NR_VCPUS)
		return MIN(os_processors(), MAX_VCPUS);
	if (cap == KVM_CAP_STEAL_TIME)
		return os_delay_known();
	return cap < ARRAY_SIZE(capability) ? capability[cap] : 0;
}

/* Once on it stays on, as in KVM. */
static int enable_bus_lock_exit(struct vm *vm, u64 mode)
{
	if (mode & ~(u64)BUS_LOCK_MODES || mode == BUS_LOCK_MODES)
		return -EINVAL;
	if (!(mode & KVM_BUS_LOCK_DETECTION_EXIT))
		return 0;
	WRITE_ONCE(vm->bus_lock_exits, true);
	vm_request_all(vm, REQ_CODE_FLUSH);
	return 0;
}

/*
 * The exit is for a guest that keeps its processor from every event for longer than the window. None
 * can here: each instruction, and each attempt to deliver an event, ends where events are looked for.
 */
static int enable_notify(const struct vm *vm, u32 flags)
{
	if (flags & ~NOTIFY_FLAGS || !(flags & KVM_X86_NOTIFY_VMEXIT_ENABLED))
		return -EINVAL;
	return vm->nr_vcpus ? -EINVAL : 0;
}

/* There are no pages of that kind here. Who may ask is checked as in KVM, whose host it may hurt. */
static int disable_nx_huge_pages(const struct vm *vm, u64 arg)
{
	if (!os_may_reboot())
		return -EPERM;
	return arg || vm->nr_vcpus ? -EINVAL : 0;
}

int capability_enable(struct vm *vm, const struct kvm_enable_cap *cap)
{
	u64 arg = cap->args[0];

	if (cap->flags)
		return -EINVAL;
	switch (cap->cap) {
	case KVM_CAP_DISABLE_QUIRKS:
		vm->disabled_quirks = arg & QUIRKS;
		return 0;
	case KVM_CAP_SPLIT_IRQCHIP:
		return irqchip_create_split(vm, arg);
	case KVM_CAP_X2APIC_API:
		if (arg & ~(u64)X2APIC_FLAGS)
			return -EINVAL;
		vm->x2apic_32bit_ids |= !!(arg & KVM_X2APIC_API_USE_32BIT_IDS);
		vm->x2apic_exact |= !!(arg & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
		return 0;
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		if (arg & ~(u64)(arg & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE ? DIRTY_LOG_FLAGS : 0))
			return -EINVAL;
		vm->dirty_manual = arg;
		return 0;
	case KVM_CAP_DIRTY_LOG_RING:
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return dirty_ring_enable(vm, arg);
	case KVM_CAP_DISABLE_QUIRKS2:
		if (arg & ~(u64)QUIRKS)
			return -EINVAL;
		vm->disabled_quirks = arg;
		return 0;
	case KVM_CAP_X86_DISABLE_EXITS:
		if (arg & ~(u64)DISABLE_EXITS)
			return -EINVAL;
		vm->disabled_exits |= arg;
		return 0;
	case KVM_CAP_MSR_PLATFORM_INFO:
		vm->platform_info_denied = !arg;
		return 0;
	case KVM_CAP_EXCEPTION_PAYLOAD:
		vm->exception_payload = arg;
		return 0;
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
		vm->triple_fault_event = arg;
		return 0;
	case KVM_CAP_EXIT_HYPERCALL:
		if (arg & ~(u64)HYPERCALL_EXITS)
			return -EINVAL;
		vm->hypercall_exits = arg;
		return 0;
	case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
		/* Nothing that fails is turned into #UD: they all exit anyway. */
		return arg & ~1ULL ? -EINVAL : 0;
	case KVM_CAP_HALT_POLL:
		if (arg >> 32)
			return -EINVAL;
		WRITE_ONCE(vm->halt_poll_ns, (u32)arg);
		return 0;
	case KVM_CAP_X86_BUS_LOCK_EXIT:
		return enable_bus_lock_exit(vm, arg);
	case KVM_CAP_X86_NOTIFY_VMEXIT:
		return enable_notify(vm, (u32)arg);
	case KVM_CAP_X86_USER_SPACE_MSR:
		if (arg & ~(u64)MSR_REASONS)
			return -EINVAL;
		vm->user_msr_mask = arg;
		return 0;
	case KVM_CAP_PMU_CAPABILITY:
		if (arg & ~(u64)KVM_PMU_CAP_DISABLE || vm->nr_vcpus)
			return -EINVAL;
		vm->pmu_disabled = arg & KVM_PMU_CAP_DISABLE;
		return 0;
	case KVM_CAP_VM_DISABLE_NX_HUGE_PAGES:
		return disable_nx_huge_pages(vm, arg);
	case KVM_CAP_MAX_VCPU_ID:
		if (arg > MAX_VCPU_IDS || (vm->max_vcpu_ids && vm->max_vcpu_ids != arg))
			return -EINVAL;
		vm->max_vcpu_ids = (u32)arg;
		return 0;
	default:
		return -EINVAL;
	}
}
