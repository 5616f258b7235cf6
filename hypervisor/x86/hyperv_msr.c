/*
 * Hyper-V's MSRs: who may use them, and those that are neither of the synthetic interrupt controller
 * nor of the timers. TLFS 3.2 (hypercall page), 7 (VP), 9.4 (APIC), 12 (time), 5.9 (crash).
 */
#include "hypervisor/x86/hyperv.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/msr_row.h"
#include "hypervisor/x86/system.h"

#define CRASH_NOTIFY	BIT(63)
#define APIC_HZ		1000000000u	/* lapic_timer.c */
#define NS_PER_UNIT	100u

/* ---- of the partition: hv_vm.lock is held ------------------------------------------------------- */

/* VMCALL or VMMCALL, and RET. */
static int hypercall_page_write(struct vcpu *v, u64 val)
{
	static const u8 intel[] = { 0x0f, 0x01, 0xc1, 0xc3 }, amd[] = { 0x0f, 0x01, 0xd9, 0xc3 };

	return vm_write_guest(v->vm, val & HV_PAGE_ADDRESS, vcpu_amd(v) ? amd : intel,
			      sizeof(intel)) ? -EINVAL : 0;
}

/* Without a guest OS id there are no hypercalls. TLFS 3.13 */
static int set_hypercall(struct vcpu *v, u64 val, bool host)
{
	struct hv_vm *hv = v->vm->hv;

	if (!hv->guest_os_id)
		return 0;
	if (val & HV_PAGE_ENABLE && hypercall_page_write(v, val))
		return -EINVAL;
	hv->hypercall = val;
	return 0;
}

static int set_guest_os_id(struct vcpu *v, u64 val, bool host)
{
	struct hv_vm *hv = v->vm->hv;

	WRITE_ONCE(hv->guest_os_id, val);
	if (!val)
		hv->hypercall &= ~HV_PAGE_ENABLE;
	return 0;
}

static int set_crash_ctl(struct vcpu *v, u64 val, bool host)
{
	if (host)
		v->vm->hv->crash_ctl = val & CRASH_NOTIFY;
	else if (val & CRASH_NOTIFY)
		hv_request_now(v, HV_DO_CRASH);
	return 0;
}

static void syndbg_exit(struct vcpu *v, u32 index)
{
	const struct hv_vm *hv = v->vm->hv;
	struct kvm_hyperv_exit *e = &v->hv->exit;

	memset(e, 0, sizeof(*e));
	e->type = KVM_EXIT_HYPERV_SYNDBG;
	e->u.syndbg.msr = index;
	e->u.syndbg.control = hv->syndbg.control;
	e->u.syndbg.send_page = hv->syndbg.send;
	e->u.syndbg.recv_page = hv->syndbg.recv;
	e->u.syndbg.pending_page = hv->syndbg.pending;
	v->hv->syndbg_status = index == HV_SYNDBG_CONTROL;
	hv_request_now(v, HV_DO_EXIT);
}

/* A plain register of the partition, or NULL. */
static u64 *partition_field(struct hv_vm *hv, u32 index)
{
	switch (index) {
	case HV_GUEST_OS_ID: return &hv->guest_os_id;
	case HV_HYPERCALL: return &hv->hypercall;
	case HV_REFERENCE_TSC: return &hv->tsc_msr;
	case HV_CRASH_P0 ... HV_CRASH_CTL - 1: return &hv->crash[index - HV_CRASH_P0];
	case HV_CRASH_CTL: return &hv->crash_ctl;
	case HV_REENLIGHTENMENT: return &hv->reenlightenment;
	case HV_TSC_EMULATION: return &hv->tsc_emulation;
	case HV_TSC_EMULATION_STATUS: return &hv->tsc_emulation_status;
	case HV_SYNDBG_CONTROL: return &hv->syndbg.control;
	case HV_SYNDBG_STATUS: return &hv->syndbg.status;
	case HV_SYNDBG_SEND: return &hv->syndbg.send;
	case HV_SYNDBG_RECV: return &hv->syndbg.recv;
	case HV_SYNDBG_PENDING: return &hv->syndbg.pending;
	case HV_SYNDBG_OPTIONS: return &hv->syndbg.options;
	default: return NULL;
	}
}

static int partition_set(struct vcpu *v, u32 index, u64 val, bool host)
{
	switch (index) {
	case HV_GUEST_OS_ID:
		return set_guest_os_id(v, val, host);
	case HV_HYPERCALL:
		return set_hypercall(v, val, host);
	case HV_CRASH_CTL:
		return set_crash_ctl(v, val, host);
	case HV_REFERENCE_TSC:
		hv_tsc_msr_write(v, val, host);
		return 0;
	case HV_TSC_EMULATION_STATUS:
		if (val && !host)
			return -EINVAL;
		break;
	case HV_RESET:
		if (val == 1)
			hv_request_now(v, HV_DO_RESET);
		return 0;
	case HV_TIME_REF_COUNT:
		return host ? 0 : -EINVAL;
	}
	*partition_field(v->vm->hv, index) = val;
	if (!host && (index == HV_SYNDBG_CONTROL || index == HV_SYNDBG_PENDING))
		syndbg_exit(v, index);
	return 0;
}

static u64 partition_get(struct vcpu *v, u32 index)
{
	if (index == HV_TIME_REF_COUNT)
		return hv_time(v->vm);
	return index == HV_RESET ? 0 : *partition_field(v->vm->hv, index);
}

static bool partition_wide(struct hv_vm *hv, u32 index)
{
	return index == HV_TIME_REF_COUNT || index == HV_RESET || partition_field(hv, index);
}

/* ---- of the vCPU -------------------------------------------------------------------------------- */

static u64 runtime(void)
{
	return os_thread_cpu_ns() / NS_PER_UNIT;
}

static int set_vp_index(struct vcpu *v, u64 val, bool host)
{
	if (!host || (u32)val >= MAX_VCPUS)
		return -EINVAL;
	WRITE_ONCE(v->hv->vp_index, (u32)val);
	return 0;
}

/* Its first word is what KVM's own EOI in memory is, bit for bit. The rest of the page is kept. */
static int set_assist_page(struct vcpu *v, u64 val)
{
	u64 gpa = val & HV_PAGE_ADDRESS;
	const u32 zero = 0;
	int ret;

	if (!(val & HV_PAGE_ENABLE)) {
		v->hv->assist = val;
		return lapic_pv_eoi_set(v, 0);
	}
	lapic_pv_eoi_sync(v);
	if (vm_write_guest(v->vm, gpa, &zero, sizeof(zero)))
		return -EINVAL;
	ret = lapic_pv_eoi_set(v, gpa | 1);
	if (!ret)
		v->hv->assist = val;
	return ret;
}

static int vp_set(struct vcpu *v, u32 index, u64 val, bool host)
{
	switch (index) {
	case HV_VP_INDEX:
		return set_vp_index(v, val, host);
	case HV_VP_RUNTIME:
		if (host)
			v->hv->runtime_offset = val - runtime();
		return host ? 0 : -EINVAL;
	case HV_TSC_FREQUENCY:
	case HV_APIC_FREQUENCY:
		return host ? 0 : -EINVAL;
	case HV_EOI:
		return lapic_hv_write(v, LR_EOI, val);
	case HV_ICR:
		return lapic_hv_write(v, LR_ICR, val);
	case HV_TPR:
		return lapic_hv_write(v, LR_TPR, val);
	case HV_VP_ASSIST_PAGE:
		return set_assist_page(v, val);
	case HV_STIMER0_CONFIG ... HV_STIMER0_CONFIG + 2 * HV_STIMERS - 1:
		return hv_stimer_write(v, index, val, host);
	default:
		return hv_synic_write(v, index, val, host);
	}
}

static int vp_get(struct vcpu *v, u32 index, u64 *val)
{
	switch (index) {
	case HV_VP_INDEX:
		*val = v->hv->vp_index;
		return 0;
	case HV_VP_RUNTIME:
		*val = runtime() + v->hv->runtime_offset;
		return 0;
	case HV_TSC_FREQUENCY:
		*val = vcpu_tsc_khz(v) * 1000ULL;
		return 0;
	case HV_APIC_FREQUENCY:
		*val = APIC_HZ;
		return 0;
	case HV_EOI:
		return lapic_hv_read(v, LR_EOI, val);
	case HV_ICR:
		return lapic_hv_read(v, LR_ICR, val);
	case HV_TPR:
		return lapic_hv_read(v, LR_TPR, val);
	case HV_VP_ASSIST_PAGE:
		*val = v->hv->assist;
		return 0;
	case HV_STIMER0_CONFIG ... HV_STIMER0_CONFIG + 2 * HV_STIMERS - 1:
		*val = hv_stimer_read(v, index);
		return 0;
	default:
		*val = hv_synic_read(v, index);
		return 0;
	}
}

/* ---- all ---------------------------------------------------------------------------------------- */

/* The debugger's registers exist where there is one, whatever is enforced. */
static bool debugger_missing(const struct hv_vcpu *hv, u32 index)
{
	return index >= HV_SYNDBG_CONTROL && index <= HV_SYNDBG_OPTIONS &&
	       !(hv->cpuid.syndbg_eax & HV_D_KERNEL);
}

static bool synic_missing(const struct hv_vcpu *hv, u32 index)
{
	return index >= HV_SCONTROL && index < HV_SINT0 + HV_SINTS && !hv->synic;
}

bool hv_msr_accessible(const struct vcpu *v, u32 index)
{
	const struct hv_vcpu *hv = v->hv;

	return hv && hv->enabled && hv_msr_allowed(hv, index) && !debugger_missing(hv, index) &&
	       !synic_missing(hv, index);
}

int msr_get_hv(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	struct hv_vm *hv = v->vm->hv;
	u32 index = row->first + n;

	fpu_put(v);
	if (hv_vcpu_need(v))
		return -EINVAL;
	if (!partition_wide(hv, index))
		return vp_get(v, index, val);
	os_mutex_lock(&hv->lock);
	*val = partition_get(v, index);
	os_mutex_unlock(&hv->lock);
	return 0;
}

int msr_set_hv(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	struct hv_vm *hv = v->vm->hv;
	u32 index = row->first + n;
	int ret;

	fpu_put(v);
	if (hv_vcpu_need(v))
		return -EINVAL;
	if (!partition_wide(hv, index))
		return vp_set(v, index, val, host);
	os_mutex_lock(&hv->lock);
	ret = partition_set(v, index, val, host);
	os_mutex_unlock(&hv->lock);
	return ret;
}
