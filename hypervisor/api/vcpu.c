/* ioctls of a vCPU's descriptor. Linux Documentation/virt/kvm/api.rst section 4, rows of type
 * "vcpu". */
#include "hypervisor/api/api.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

_Static_assert(sizeof(struct kvm_regs) == 144 && sizeof(struct kvm_sregs) == 312, "ABI");
_Static_assert(sizeof(struct kvm_vcpu_events) == 64 && sizeof(struct kvm_debugregs) == 128, "ABI");
_Static_assert(sizeof(struct kvm_xsave) == 4096 && sizeof(struct kvm_fpu) == 416, "ABI");
_Static_assert(sizeof(struct kvm_lapic_state) == 1024, "ABI");
_Static_assert(sizeof(struct kvm_translation) == 24, "ABI");
_Static_assert(sizeof(struct kvm_vapic_addr) == 8 && sizeof(struct kvm_tpr_access_ctl) == 40, "ABI");

/* ---- KVM_RUN ------------------------------------------------------------------------------ */

#define SYNC_FIELDS (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

/* Registers that user space changed in struct kvm_run. api.rst 6.74 */
static int sync_in(struct vcpu *v, u64 fields)
{
	const struct kvm_sync_regs *s = &v->run->s.regs;
	int ret = 0;

	if (fields & KVM_SYNC_X86_REGS)
		regs_set(v, &s->regs);
	if (fields & KVM_SYNC_X86_SREGS)
		ret = sregs_set(v, &s->sregs);
	if (!ret && (fields & KVM_SYNC_X86_EVENTS))
		ret = events_set(v, &s->events);
	return ret;
}

static void sync_out(struct vcpu *v, u64 fields)
{
	struct kvm_sync_regs *s = &v->run->s.regs;

	if (fields & KVM_SYNC_X86_REGS)
		regs_get(v, &s->regs);
	if (fields & KVM_SYNC_X86_SREGS)
		sregs_get(v, &s->sregs);
	if (fields & KVM_SYNC_X86_EVENTS)
		events_get(v, &s->events);
}

static long vcpu_ioctl_run(struct call *c)
{
	struct vcpu *v = c->v;
	struct kvm_run *run = v->run;
	u64 valid = READ_ONCE(run->kvm_valid_regs), dirty = READ_ONCE(run->kvm_dirty_regs);
	long ret;

	if (c->arg)
		return -EINVAL;
	/* One that waits for its first INIT takes nothing over, and leaves before anything runs. */
	if (v->mp_state != KVM_MP_STATE_UNINITIALIZED) {
		if (((valid | dirty) & ~(u64)SYNC_FIELDS) || sync_in(v, dirty))
			return -EINVAL;
		run->kvm_dirty_regs = 0;
	}
	ret = vcpu_run(v);
	sync_out(v, valid);
	return ret;
}

static long vcpu_set_signal_mask(struct call *c)
{
	struct kvm_signal_mask m;
	u64 set;

	/* NULL takes the mask away, so this is no row with an argument. */
	if (!c->arg) {
		c->v->signal_mask_set = false;
		return 0;
	}
	if (os_user_read(&m, c->arg, sizeof(m)))
		return -EFAULT;
	if (m.len != sizeof(set))
		return -EINVAL;
	if (os_user_read(&set, c->arg + sizeof(m), sizeof(set)))
		return -EFAULT;
	c->v->signal_mask = set;
	c->v->signal_mask_set = true;
	return 0;
}

/* ---- registers: rows whose work is elsewhere ---------------------------------------------- */

static long vcpu_get_regs(struct call *c)
{
	regs_get(c->v, c->data);
	return 0;
}

static long vcpu_set_regs(struct call *c)
{
	regs_set(c->v, c->data);
	return 0;
}

static long vcpu_get_sregs(struct call *c)
{
	sregs_get(c->v, c->data);
	return 0;
}

static long vcpu_set_sregs(struct call *c)
{
	return sregs_set(c->v, c->data);
}

static long vcpu_get_fpu(struct call *c)
{
	fpu_to_kvm(c->v, c->data);
	return 0;
}

static long vcpu_set_fpu(struct call *c)
{
	return fpu_from_kvm(c->v, c->data);
}

static long vcpu_get_xsave(struct call *c)
{
	fpu_to_xsave(c->v, c->data);
	return 0;
}

static long vcpu_set_xsave(struct call *c)
{
	return fpu_from_xsave(c->v, c->data);
}

static long vcpu_get_events(struct call *c)
{
	events_get(c->v, c->data);
	return 0;
}

static long vcpu_set_events(struct call *c)
{
	return events_set(c->v, c->data);
}

static long vcpu_get_lapic(struct call *c)
{
	if (!c->v->lapic)
		return -EINVAL;
	lapic_get_state(c->v, c->data);
	return 0;
}

static long vcpu_set_lapic(struct call *c)
{
	return c->v->lapic ? lapic_set_state(c->v, c->data) : -EINVAL;
}

/* ---- the rest ----------------------------------------------------------------------------- */

static void translate(struct vcpu *v)
{
	struct kvm_translation *t = v->guard_arg;
	u64 gpa;

	t->valid = !mmu_translate(v, t->linear_address, &gpa);
	t->physical_address = t->valid ? gpa : ~0ULL;
}

static long vcpu_translate(struct call *c)
{
	struct kvm_translation *t = c->data;

	c->v->guard_arg = t;
	/* A page table whose memory is gone leads nowhere. */
	if (vcpu_guarded(c->v, translate) != UNWIND_NONE) {
		c->v->memory_lost = false;
		t->valid = 0;
		t->physical_address = ~0ULL;
	}
	/* As KVM has it: these two were never filled in with more. */
	t->writeable = 1;
	t->usermode = 0;
	return 0;
}

static long vcpu_get_tsc_khz(struct call *c)
{
	return c->v->tsc_khz;
}

/* The counter itself jumps: user space sets it next. */
static long vcpu_set_tsc_khz(struct call *c)
{
	long ret = tsc_set_khz(c->v, (u32)c->arg);

	if (!ret)
		tsc_changed(c->v);
	return ret;
}

static long vcpu_enable_cap(struct call *c)
{
	const struct kvm_enable_cap *cap = c->data;

	return cap->flags ? -EINVAL : pv_enable_cap(c->v, cap);
}

static long vcpu_set_vapic_addr(struct call *c)
{
	struct kvm_vapic_addr va;

	/* Checked before the argument is read. */
	if (!c->v->lapic)
		return -EINVAL;
	return os_user_read(&va, c->arg, sizeof(va)) ? -EFAULT : lapic_set_vapic(c->v, va.vapic_addr);
}

static long vcpu_tpr_access_reporting(struct call *c)
{
	const struct kvm_tpr_access_ctl *ctl = c->data;

	if (ctl->flags)
		return -EINVAL;
	if (c->v->lapic)
		lapic_report_tpr(c->v, ctl->enabled);
	return 0;
}

static const struct ioctl_row rows[] = {
	ROW(KVM_RUN, vcpu_ioctl_run),
	ROW(KVM_GET_REGS, vcpu_get_regs),
	ROW(KVM_SET_REGS, vcpu_set_regs),
	ROW(KVM_GET_SREGS, vcpu_get_sregs),
	ROW(KVM_SET_SREGS, vcpu_set_sregs),
	ROW(KVM_TRANSLATE, vcpu_translate),
	ROW(KVM_INTERRUPT, vcpu_interrupt),
	ROW_DIR(KVM_GET_MSRS, sizeof(struct kvm_msrs), 0, vcpu_get_msrs),
	ROW(KVM_SET_MSRS, vcpu_set_msrs),
	ROW(KVM_SET_CPUID, vcpu_set_cpuid),
	ROW_DIR(KVM_SET_SIGNAL_MASK, 0, 0, vcpu_set_signal_mask),
	ROW(KVM_GET_FPU, vcpu_get_fpu),
	ROW(KVM_SET_FPU, vcpu_set_fpu),
	ROW(KVM_GET_LAPIC, vcpu_get_lapic),
	ROW(KVM_SET_LAPIC, vcpu_set_lapic),
	ROW(KVM_SET_CPUID2, vcpu_set_cpuid2),
	ROW(KVM_GET_CPUID2, vcpu_get_cpuid2),
	ROW(KVM_GET_MP_STATE, vcpu_get_mp_state),
	ROW(KVM_SET_MP_STATE, vcpu_set_mp_state),
	ROW(KVM_NMI, vcpu_nmi),
	ROW(KVM_SMI, vcpu_smi),
	ROW(KVM_SET_GUEST_DEBUG, vcpu_set_guest_debug),
	ROW(KVM_GET_VCPU_EVENTS, vcpu_get_events),
	ROW(KVM_SET_VCPU_EVENTS, vcpu_set_events),
	ROW(KVM_GET_DEBUGREGS, vcpu_get_debugregs),
	ROW(KVM_SET_DEBUGREGS, vcpu_set_debugregs),
	ROW_DIR(KVM_SET_VAPIC_ADDR, 0, 0, vcpu_set_vapic_addr),
	ROW(KVM_TPR_ACCESS_REPORTING, vcpu_tpr_access_reporting),
	ROW(KVM_SET_TSC_KHZ, vcpu_set_tsc_khz),
	ROW(KVM_GET_TSC_KHZ, vcpu_get_tsc_khz),
	ROW(KVM_ENABLE_CAP, vcpu_enable_cap),
	ROW(KVM_GET_XSAVE, vcpu_get_xsave),
	ROW(KVM_SET_XSAVE, vcpu_set_xsave),
	ROW(KVM_GET_XCRS, vcpu_get_xcrs),
	ROW(KVM_SET_XCRS, vcpu_set_xcrs),
	ROW(KVM_KVMCLOCK_CTRL, vcpu_kvmclock_ctrl),
	ROW(KVM_GET_SREGS2, vcpu_get_sregs2),
	ROW(KVM_SET_SREGS2, vcpu_set_sregs2),
	ROW(KVM_GET_XSAVE2, vcpu_get_xsave),
	ROW(KVM_X86_SETUP_MCE, vcpu_setup_mce),
	ROW(KVM_X86_SET_MCE, vcpu_set_mce),
	ROW(KVM_SET_DEVICE_ATTR, vcpu_set_attr),
	ROW(KVM_GET_DEVICE_ATTR, vcpu_get_attr),
	ROW(KVM_HAS_DEVICE_ATTR, vcpu_has_attr),
	ROW(KVM_GET_STATS_FD, vcpu_get_stats_fd),
	ROW(KVM_GET_SUPPORTED_HV_CPUID, vcpu_get_hv_cpuid),
};

const struct ioctl_class vcpu_ioctls = { .rows = rows, .n = ARRAY_SIZE(rows), .unknown = -EINVAL };
