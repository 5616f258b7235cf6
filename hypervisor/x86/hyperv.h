/*
 * Hyper-V's paravirtual interfaces as KVM has them: what a guest uses that finds "Hv#1" in CPUID leaf
 * 0x40000001. Microsoft, Hypervisor Top Level Functional Specification (TLFS) 6.0b; which MSRs and
 * calls, and their exits to user space: Linux Documentation/virt/kvm/api.rst (KVM_CAP_HYPERV*,
 * KVM_EXIT_HYPERV) and KVM of Linux 6.1.
 *
 * A vCPU's part is made when it is first needed and stays (v->hv, any thread); the partition's part
 * (vm->hv) is always there. Locking: hv_vm.lock is a leaf but for what writes guest memory.
 */
#ifndef QUMRA_HYPERVISOR_X86_HYPERV_H
#define QUMRA_HYPERVISOR_X86_HYPERV_H

#include "hypervisor/core/vm.h"

/* ---- MSRs. TLFS appendix C ---------------------------------------------------------------------- */

enum hv_msr {
	HV_GUEST_OS_ID		= 0x40000000, HV_HYPERCALL, HV_VP_INDEX, HV_RESET,
	HV_VP_RUNTIME		= 0x40000010,
	HV_TIME_REF_COUNT	= 0x40000020, HV_REFERENCE_TSC, HV_TSC_FREQUENCY, HV_APIC_FREQUENCY,
	HV_EOI			= 0x40000070, HV_ICR, HV_TPR, HV_VP_ASSIST_PAGE,
	HV_SCONTROL		= 0x40000080, HV_SVERSION, HV_SIEFP, HV_SIMP, HV_EOM,
	HV_SINT0		= 0x40000090,
	HV_STIMER0_CONFIG	= 0x400000b0,	/* and its count; four pairs */
	HV_SYNDBG_CONTROL	= 0x400000f1, HV_SYNDBG_STATUS, HV_SYNDBG_SEND, HV_SYNDBG_RECV,
	HV_SYNDBG_PENDING,
	HV_SYNDBG_OPTIONS	= 0x400000ff,
	HV_CRASH_P0		= 0x40000100,
	HV_CRASH_CTL		= 0x40000105, HV_REENLIGHTENMENT, HV_TSC_EMULATION, HV_TSC_EMULATION_STATUS,
};

#define HV_PAGE_ENABLE	BIT(0)		/* of each MSR that names a page */
#define HV_PAGE_ADDRESS	(~0xfffULL)

#define HV_SINTS	16
#define HV_SINT_VECTOR	0xffu
#define HV_SINT_MASKED	BIT(16)
#define HV_SINT_AUTO_EOI BIT(17)
#define HV_STIMERS	4

/* ---- CPUID. TLFS 2.4 ---------------------------------------------------------------------------- */

enum hv_leaf {
	HV_LEAF_VENDOR		= 0x40000000, HV_LEAF_INTERFACE, HV_LEAF_VERSION, HV_LEAF_FEATURES,
	HV_LEAF_ADVICE, HV_LEAF_LIMITS,
	HV_LEAF_NESTED		= 0x4000000a,
	HV_LEAF_DBG_VENDOR	= 0x40000080, HV_LEAF_DBG_INTERFACE, HV_LEAF_DBG_PLATFORM,
};
#define HV_INTERFACE	0x31237648u	/* "Hv#1" */
#define HV_CPUID_LEAVES	10

/* What a guest was told, and is held to with KVM_CAP_HYPERV_ENFORCE_CPUID. */
struct hv_cpuid {
	u32 features_eax, features_ebx, features_edx, advice_eax, advice_ebx, syndbg_eax;
};

/* HV_LEAF_FEATURES EAX: MSRs. */
#define HV_F_RUNTIME		BIT(0)
#define HV_F_REF_COUNT		BIT(1)
#define HV_F_SYNIC		BIT(2)
#define HV_F_STIMER		BIT(3)
#define HV_F_APIC		BIT(4)
#define HV_F_HYPERCALL		BIT(5)
#define HV_F_VP_INDEX		BIT(6)
#define HV_F_RESET		BIT(7)
#define HV_F_REF_TSC		BIT(9)
#define HV_F_FREQUENCY		BIT(11)
#define HV_F_REENLIGHTEN	BIT(13)
/* EBX: calls. */
#define HV_F_POST_MESSAGES	BIT(4)
#define HV_F_SIGNAL_EVENTS	BIT(5)
#define HV_F_DEBUGGING		BIT(11)
/* EDX */
#define HV_F_GUEST_DEBUG	BIT(1)
#define HV_F_XMM_INPUT		BIT(4)
#define HV_F_FREQUENCY_THERE	BIT(8)
#define HV_F_CRASH		BIT(10)
#define HV_F_DEBUG_MSRS		BIT(11)
#define HV_F_STIMER_DIRECT	BIT(19)
/* HV_LEAF_ADVICE EAX */
#define HV_A_TLB_FLUSH		BIT(2)
#define HV_A_APIC		BIT(3)
#define HV_A_RELAXED		BIT(5)
#define HV_A_NO_AUTO_EOI	BIT(9)
#define HV_A_CLUSTER_IPI	BIT(10)
#define HV_A_EX_MASKS		BIT(11)
#define HV_A_NO_CORE_SHARING	BIT(18)
/* HV_LEAF_DBG_PLATFORM EAX */
#define HV_D_KERNEL		BIT(1)
/* HV_LEAF_NESTED EAX, EBX: without nested virtualization they say nothing, but KVM always sets them. */
#define HV_N_MSR_BITMAP		BIT(19)
#define HV_N_PERF_GLOBAL	BIT(0)

/* ---- calls. TLFS appendix A --------------------------------------------------------------------- */

enum hv_call {
	HV_CALL_FLUSH_SPACE	= 0x02,
	HV_CALL_FLUSH_LIST	= 0x03,
	HV_CALL_LONG_SPIN	= 0x08,
	HV_CALL_SEND_IPI	= 0x0b,
	HV_CALL_FLUSH_SPACE_EX	= 0x13,
	HV_CALL_FLUSH_LIST_EX	= 0x14,
	HV_CALL_SEND_IPI_EX	= 0x15,
	HV_CALL_POST_MESSAGE	= 0x5c,
	HV_CALL_SIGNAL_EVENT	= 0x5d,
	HV_CALL_POST_DEBUG	= 0x69,
	HV_CALL_RETRIEVE_DEBUG	= 0x6a,
	HV_CALL_RESET_DEBUG	= 0x6b,
};

/* ---- state -------------------------------------------------------------------------------------- */

/* TLFS 12.7.2 */
struct hv_tsc_page {
	u32 sequence;		/* 0: read the MSR instead */
	u32 reserved;
	u64 scale;		/* 100 ns = (tsc * scale >> 64) + offset */
	s64 offset;
};
_Static_assert(sizeof(struct hv_tsc_page) == 24, "TLFS 12.7.2");

struct hv_connection {		/* KVM_HYPERV_EVENTFD */
	struct hv_connection *next;
	u32 id;
	struct os_eventfd *event;
};

struct hv_vm {
	struct os_mutex lock;
	u64 guest_os_id, hypercall;
	u64 crash[5], crash_ctl;
	u64 reenlightenment, tsc_emulation, tsc_emulation_status;
	u64 tsc_msr;		/* HV_REFERENCE_TSC */
	u8 tsc_state;		/* enum in hyperv_tsc.c */
	struct hv_tsc_page tsc;	/* as written */
	struct hv_connection *connections;
	struct { u64 control, status, send, recv, pending, options; } syndbg;
};

/* A timer message. TLFS 11.10.5 */
struct hv_message {
	u32 type;		/* 0: the slot is free */
	u8 size;		/* of the payload */
	u8 flags;		/* bit 0: another one waits */
	u8 reserved[2];
	u64 sender;
	struct {
		u32 index, reserved;
		u64 expiration, delivery;
	} timer;
};
_Static_assert(sizeof(struct hv_message) == 40, "TLFS 11.10.5");

struct hv_stimer {
	struct vcpu *vcpu;
	u32 index;
	u64 config, count;
	u64 expires;		/* in reference time; 0: not running */
	bool undelivered;	/* it has expired, and its message found no room */
	struct os_timer os;
};

struct hv_vcpu {
	struct hv_cpuid cpuid;
	bool enabled;		/* CPUID says "Hv#1" */
	bool enforce;		/* KVM_CAP_HYPERV_ENFORCE_CPUID */
	u32 vp_index;		/* read by any thread */
	u64 assist;		/* HV_VP_ASSIST_PAGE */
	u64 runtime_offset;
	/* the synthetic interrupt controller; sint and gsi are read and written by any thread */
	bool synic;		/* KVM_CAP_HYPERV_SYNIC(2) */
	bool keep_pages;	/* SYNIC2: SIMP and SIEFP are not cleared when enabled */
	u64 control, version, event_page, message_page;
	u64 sint[HV_SINTS];
	s32 gsi[HV_SINTS];	/* that ends where this SINT is, or -1 */
	struct hv_stimer stimer[HV_STIMERS];
	u32 stimer_pending;	/* atomic */
	u32 todo;		/* HV_DO_*, atomic */
	struct kvm_hyperv_exit exit;
	u8 call_len;		/* user space serves a hypercall: length of the instruction */
	bool syndbg_status;	/* user space answers with a status */
};

/* REQ_HYPERV: which. */
#define HV_DO_CRASH	BIT(0)
#define HV_DO_RESET	BIT(1)
#define HV_DO_EXIT	BIT(2)
#define HV_DO_STIMER	BIT(3)

/* ---- hyperv.c ----------------------------------------------------------------------------------- */

int hv_vm_create(struct vm *vm);
void hv_vm_destroy(struct vm *vm);
int hv_vcpu_need(struct vcpu *v);	/* makes v->hv; 0 or -ENOMEM */
void hv_vcpu_destroy(struct vcpu *v);
int hv_cpuid_changed(struct vcpu *v);
void hv_request(struct vcpu *v, u32 what);
/* After a WRMSR of the guest: user space hears of it before the next instruction. */
void hv_request_now(struct vcpu *v, u32 what);
int hv_serve(struct vcpu *v);		/* REQ_HYPERV */
void hv_complete(struct vcpu *v);	/* KVM_RUN begins: takes user space's answer */
struct vcpu *hv_vcpu_by_index(const struct vm *vm, u32 vp_index);
static inline u32 hv_index(const struct vcpu *v)
{
	const struct hv_vcpu *hv = load_acquire(&v->hv);

	return hv ? READ_ONCE(hv->vp_index) : v->index;
}

int hv_enable_synic(struct vcpu *v, bool keep_pages);
int hv_enable_enforce(struct vcpu *v, bool on);
/* KVM_HYPERV_EVENTFD */
int hv_eventfd(struct vm *vm, const struct kvm_hyperv_eventfd *arg);

/* ---- hyperv_cpuid.c ----------------------------------------------------------------------------- */

void hv_cpuid_supported(bool lapic, struct kvm_cpuid_entry2 out[HV_CPUID_LEAVES]);
/* May the guest use this MSR, this call? */
bool hv_msr_allowed(const struct hv_vcpu *hv, u32 index);
bool hv_call_allowed(const struct hv_vcpu *hv, u16 code);

/* ---- hyperv_tsc.c: reference time --------------------------------------------------------------- */

u64 hv_time(struct vm *vm);		/* in 100 ns */
void hv_tsc_msr_write(struct vcpu *v, u64 val, bool host);	/* hv lock held */
void hv_tsc_page_update(struct vm *vm);
/* The clocks that the page was computed from are others now. */
void hv_clock_changed(struct vm *vm);

/* ---- hyperv_synic.c ----------------------------------------------------------------------------- */

void hv_synic_init(struct hv_vcpu *hv);
u64 hv_synic_read(const struct vcpu *v, u32 index);
int hv_synic_write(struct vcpu *v, u32 index, u64 val, bool host);
/* KVM_IRQ_ROUTING_HV_SINT: any thread. >0 delivered, 0, or -errno. */
int hv_sint_raise(struct vm *vm, u32 vp_index, u32 sint);
void hv_sint_set_gsi(struct vm *vm, u32 vp_index, u32 sint, u32 gsi);
/* The local APIC asks, on the vCPU's thread, with v->hv: */
bool hv_auto_eoi(const struct vcpu *v, u8 vector);	/* goes into service for no time at all */
bool hv_wants_ack(const struct vcpu *v, u8 vector);
void hv_acked(struct vcpu *v, u8 vector);
/*
 * Puts a message into the slot of its SINT. 0; -EAGAIN: the slot is taken (with drop: 0, and the
 * message is forgotten); or another -errno.
 */
int hv_message_post(struct vcpu *v, u32 sint, const struct hv_message *m, bool drop);

/* ---- hyperv_stimer.c ---------------------------------------------------------------------------- */

void hv_stimer_init(struct vcpu *v, struct hv_vcpu *hv);
void hv_stimer_destroy(struct hv_vcpu *hv);
u64 hv_stimer_read(struct vcpu *v, u32 index);
int hv_stimer_write(struct vcpu *v, u32 index, u64 val, bool host);
/* The guest has made room in this SINT's message slot. */
void hv_stimer_slot_free(struct vcpu *v, u32 sint);
void hv_stimers_run(struct vcpu *v);

/* ---- hyperv_call.c ------------------------------------------------------------------------------ */

static inline bool hv_calls_enabled(const struct vcpu *v)
{
	return unlikely(v->hv) && v->hv->enabled && READ_ONCE(v->vm->hv->guest_os_id);
}
/* The instruction has len bytes. May unwind: #UD, or to user space. */
void hv_hypercall(struct vcpu *v, u8 len);
void hv_call_result(struct vcpu *v, u64 result);

#endif
