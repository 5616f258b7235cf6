/*
 * Hyper-V's CPUID leaves: what is offered (KVM_GET_SUPPORTED_HV_CPUID), and which bit allows which
 * MSR and call where user space wants that to be enforced. TLFS 2.4, api.rst 4.118.
 */
#include "hypervisor/x86/hyperv.h"

enum { EAX, EBX, ECX, EDX };

/* ---- what is offered ---------------------------------------------------------------------------- */

#define FEATURES_EAX	(HV_F_RUNTIME | HV_F_REF_COUNT | HV_F_SYNIC | HV_F_STIMER | HV_F_APIC | \
			 HV_F_HYPERCALL | HV_F_VP_INDEX | HV_F_RESET | HV_F_REF_TSC | \
			 HV_F_FREQUENCY | HV_F_REENLIGHTEN)
#define FEATURES_EBX	(HV_F_POST_MESSAGES | HV_F_SIGNAL_EVENTS | HV_F_DEBUGGING)
#define FEATURES_EDX	(HV_F_GUEST_DEBUG | HV_F_XMM_INPUT | HV_F_FREQUENCY_THERE | HV_F_CRASH | \
			 HV_F_DEBUG_MSRS)
#define ADVICE_EAX	(HV_A_TLB_FLUSH | HV_A_APIC | HV_A_RELAXED | HV_A_NO_AUTO_EOI | \
			 HV_A_EX_MASKS)
#define ADVICE_SPINS	0xfffu		/* before a call of "long spin wait" */
#define BUILD		0x3839u		/* of Windows Server 2016, as KVM says */
#define VERSION		0x000a0000u	/* 10.0 */
#define MAX_LOGICAL	64u
#define DBG_INTERFACE	0x31235356u	/* "VS#1" */

/* The signature in EBX, ECX, EDX. */
static void put_vendor(u32 r[4], u32 max)
{
	static const char vendor[12] = "Linux KVM Hv";

	r[EAX] = max;
	memcpy(&r[EBX], vendor, sizeof(vendor));
}

static void leaf_fill(u32 leaf, bool lapic, u32 r[4])
{
	switch (leaf) {
	case HV_LEAF_VENDOR:
		put_vendor(r, HV_LEAF_DBG_PLATFORM);
		break;
	case HV_LEAF_INTERFACE:
		r[EAX] = HV_INTERFACE;
		break;
	case HV_LEAF_VERSION:
		r[EAX] = BUILD;
		r[EBX] = VERSION;
		break;
	case HV_LEAF_FEATURES:
		r[EAX] = FEATURES_EAX;
		r[EBX] = FEATURES_EBX;
		r[EDX] = FEATURES_EDX | (lapic ? HV_F_STIMER_DIRECT : 0);
		break;
	case HV_LEAF_ADVICE:
		r[EAX] = ADVICE_EAX | (lapic ? HV_A_CLUSTER_IPI : 0) |
			 (os_smt_possible() ? 0 : HV_A_NO_CORE_SHARING);
		r[EBX] = ADVICE_SPINS;
		break;
	case HV_LEAF_LIMITS:
		r[EAX] = MAX_VCPUS;
		r[EBX] = MAX_LOGICAL;
		break;
	case HV_LEAF_NESTED:
		r[EAX] = HV_N_MSR_BITMAP;
		r[EBX] = HV_N_PERF_GLOBAL;
		break;
	case HV_LEAF_DBG_VENDOR:
		put_vendor(r, 0);
		break;
	case HV_LEAF_DBG_INTERFACE:
		r[EAX] = DBG_INTERFACE;
		break;
	case HV_LEAF_DBG_PLATFORM:
		r[EAX] = HV_D_KERNEL;
		break;
	}
}

void hv_cpuid_supported(bool lapic, struct kvm_cpuid_entry2 out[HV_CPUID_LEAVES])
{
	static const u32 leaves[HV_CPUID_LEAVES] = {
		HV_LEAF_VENDOR, HV_LEAF_INTERFACE, HV_LEAF_VERSION, HV_LEAF_FEATURES,
		HV_LEAF_ADVICE, HV_LEAF_LIMITS, HV_LEAF_DBG_VENDOR, HV_LEAF_DBG_INTERFACE,
		HV_LEAF_DBG_PLATFORM, HV_LEAF_NESTED,
	};

	memset(out, 0, HV_CPUID_LEAVES * sizeof(*out));
	for (unsigned int i = 0; i < HV_CPUID_LEAVES; i++) {
		u32 r[4] = { 0, 0, 0, 0 };

		leaf_fill(leaves[i], lapic, r);
		out[i].function = leaves[i];
		out[i].eax = r[EAX];
		out[i].ebx = r[EBX];
		out[i].ecx = r[ECX];
		out[i].edx = r[EDX];
	}
}

/* ---- what is enforced --------------------------------------------------------------------------- */

/* MSRs first to last need a bit of one of the words of struct hv_cpuid. */
static const struct { u32 first, last, need; bool edx; } msr_needs[] = {
	{ HV_GUEST_OS_ID, HV_HYPERCALL, HV_F_HYPERCALL, false },
	{ HV_VP_INDEX, HV_VP_INDEX, HV_F_VP_INDEX, false },
	{ HV_RESET, HV_RESET, HV_F_RESET, false },
	{ HV_VP_RUNTIME, HV_VP_RUNTIME, HV_F_RUNTIME, false },
	{ HV_TIME_REF_COUNT, HV_TIME_REF_COUNT, HV_F_REF_COUNT, false },
	{ HV_REFERENCE_TSC, HV_REFERENCE_TSC, HV_F_REF_TSC, false },
	{ HV_TSC_FREQUENCY, HV_APIC_FREQUENCY, HV_F_FREQUENCY, false },
	{ HV_EOI, HV_VP_ASSIST_PAGE, HV_F_APIC, false },
	{ HV_SCONTROL, HV_EOM, HV_F_SYNIC, false },
	{ HV_SINT0, HV_SINT0 + HV_SINTS - 1, HV_F_SYNIC, false },
	{ HV_STIMER0_CONFIG, HV_STIMER0_CONFIG + 2 * HV_STIMERS - 1, HV_F_STIMER, false },
	{ HV_SYNDBG_CONTROL, HV_SYNDBG_OPTIONS, HV_F_DEBUG_MSRS, true },
	{ HV_CRASH_P0, HV_CRASH_CTL, HV_F_CRASH, true },
	{ HV_REENLIGHTENMENT, HV_TSC_EMULATION_STATUS, HV_F_REENLIGHTEN, false },
};

bool hv_msr_allowed(const struct hv_vcpu *hv, u32 index)
{
	if (!hv->enforce)
		return true;
	for (unsigned int i = 0; i < ARRAY_SIZE(msr_needs); i++)
		if (index >= msr_needs[i].first && index <= msr_needs[i].last)
			return msr_needs[i].need & (msr_needs[i].edx ? hv->cpuid.features_edx :
								       hv->cpuid.features_eax);
	return false;
}

/* All of these bits. */
static bool advised(const struct hv_vcpu *hv, u64 bits)
{
	return (hv->cpuid.advice_eax & bits) == bits;
}

bool hv_call_allowed(const struct hv_vcpu *hv, u16 code)
{
	const struct hv_cpuid *c = &hv->cpuid;

	if (!hv->enforce)
		return true;
	switch (code) {
	case HV_CALL_LONG_SPIN:
		return c->advice_ebx && c->advice_ebx != ~0u;
	case HV_CALL_POST_MESSAGE:
		return c->features_ebx & HV_F_POST_MESSAGES;
	case HV_CALL_SIGNAL_EVENT:
		return c->features_ebx & HV_F_SIGNAL_EVENTS;
	case HV_CALL_POST_DEBUG:
	case HV_CALL_RETRIEVE_DEBUG:
	case HV_CALL_RESET_DEBUG:
		/* Without a debugger the call does not exist, which is another answer. */
		return !(c->syndbg_eax & HV_D_KERNEL) || c->features_ebx & HV_F_DEBUGGING;
	case HV_CALL_FLUSH_SPACE:
	case HV_CALL_FLUSH_LIST:
		return advised(hv, HV_A_TLB_FLUSH);
	case HV_CALL_FLUSH_SPACE_EX:
	case HV_CALL_FLUSH_LIST_EX:
		return advised(hv, HV_A_TLB_FLUSH | HV_A_EX_MASKS);
	case HV_CALL_SEND_IPI:
		return advised(hv, HV_A_CLUSTER_IPI);
	case HV_CALL_SEND_IPI_EX:
		return advised(hv, HV_A_CLUSTER_IPI | HV_A_EX_MASKS);
	default:
		return true;
	}
}
