/*
 * Inside the API: descriptors' objects, and ioctls as table rows.
 *
 * A row's argument is copied in before its handler and out after it, so handlers see our memory
 * (call.data); what lies beyond the fixed structure they move themselves with os_user_read/write.
 */
#ifndef QUMRA_HYPERVISOR_API_API_H
#define QUMRA_HYPERVISOR_API_API_H

#include <linux/errno.h>
#include <linux/ioctl.h>
#include <linux/kvm.h>

#include "hypervisor/core/vm.h"

/* What a descriptor stands for. */
enum handle_kind { HANDLE_SYSTEM, HANDLE_VM, HANDLE_VCPU, NR_HANDLE_KINDS };
struct handle {
	u32 refs;		/* atomic: the descriptor and each call in progress */
	enum handle_kind kind;
	bool foreign;		/* made before fork(2), by the parent: its VM is the parent's */
	struct vm *vm;		/* referenced */
	struct vcpu *vcpu;	/* HANDLE_VCPU: NULL until it is complete */
};

/* Makes a descriptor for a new handle (which takes a reference to vm); size and mem as
 * os_fd_create(). */
int handle_open(enum handle_kind kind, const char *name, struct vm *vm, size_t size, void **mem,
	struct handle **h);
int handle_close(int fd);
void handle_hold(void *obj);	/* of a struct handle */
void handle_release(struct handle *h);

struct call {
	struct vm *vm;		/* NULL for system ioctls */
	struct vcpu *v;		/* vCPU ioctls: locked and entered */
	u64 arg;		/* as user space gave it */
	void *data;		/* its structure, or NULL */
	struct handle *handle;
};

struct ioctl_row {
	unsigned long request;
	const char *name;
	u32 in, out;		/* bytes of call.data copied in before and out after */
	long (*fn)(struct call *c);
};

#define IOCTL_IN(req)	(_IOC_DIR(req) & _IOC_WRITE ? _IOC_SIZE(req) : 0)
#define IOCTL_OUT(req)	(_IOC_DIR(req) & _IOC_READ ? _IOC_SIZE(req) : 0)
#define ROW(req, f)	{ (unsigned int)(req), #req, IOCTL_IN(req), IOCTL_OUT(req), f }
/* Requests whose number does not tell the direction of their argument. */
#define ROW_DIR(req, i, o, f) { (unsigned int)(req), #req, i, o, f }

/* Rows that are called often stand first. */
struct ioctl_class {
	const struct ioctl_row *rows;
	u32 n;
	int unknown;		/* -errno for a request without a row */
};
extern const struct ioctl_class system_ioctls, vm_ioctls, vcpu_ioctls;

/* What KVM_GET_CLOCK says, and KVM_SET_CLOCK takes. */
#define CLOCK_FLAGS	(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

#define MAX_IRQ_ROUTES	4096	/* in one KVM_SET_GSI_ROUTING */

/* caps.c: the value of KVM_CHECK_EXTENSION, and KVM_ENABLE_CAP on a VM. */
int capability_value(u64 cap);
int capability_enable(struct vm *vm, const struct kvm_enable_cap *cap);

/* eventfd.c */
long vm_irqfd(struct call *c);
long vm_ioeventfd(struct call *c);
long vm_register_coalesced_mmio(struct call *c);
long vm_unregister_coalesced_mmio(struct call *c);
long vm_create_device(struct call *c);

/* cpuid.c: of the system, and of a vCPU. */
long sys_get_supported_cpuid(struct call *c);
long sys_get_emulated_cpuid(struct call *c);
long vcpu_set_cpuid(struct call *c);
long vcpu_set_cpuid2(struct call *c);
long vcpu_get_cpuid2(struct call *c);

/* system.c, vm.c, vcpu.c, by kind */
extern const struct ioctl_class *const ioctl_classes[NR_HANDLE_KINDS];
/* pv.c: paravirtual interfaces */
long sys_get_hv_cpuid(struct call *c);
long vcpu_get_hv_cpuid(struct call *c);
long vcpu_kvmclock_ctrl(struct call *c);
long vm_hyperv_eventfd(struct call *c);
/* KVM_ENABLE_CAP of a vCPU; -EINVAL: not one of these. */
int pv_enable_cap(struct vcpu *v, const struct kvm_enable_cap *cap);

/* stats.c */
long vcpu_get_stats_fd(struct call *c);
long vm_get_stats_fd(struct call *c);
void vcpu_stats_each(const struct vcpu *v, void (*fn)(void *arg, const char *name, u64 value),
	void *arg);

/* msrs.c */
long sys_get_msr_index_list(struct call *c);
long sys_get_msr_feature_index_list(struct call *c);
long sys_get_msrs(struct call *c);
long vcpu_get_msrs(struct call *c);
long vcpu_set_msrs(struct call *c);
long vm_set_msr_filter(struct call *c);
long vm_set_pmu_event_filter(struct call *c);
long sys_get_mce_cap(struct call *c);
long vcpu_setup_mce(struct call *c);
long vcpu_set_mce(struct call *c);

/* attrs.c */
long vcpu_has_attr(struct call *c);
long vcpu_get_attr(struct call *c);
long vcpu_set_attr(struct call *c);
long sys_has_attr(struct call *c);
long sys_get_attr(struct call *c);

/* regs.c */
void regs_get(struct vcpu *v, struct kvm_regs *r);
void regs_set(struct vcpu *v, const struct kvm_regs *r);
void sregs_get(struct vcpu *v, struct kvm_sregs *s);
int sregs_set(struct vcpu *v, const struct kvm_sregs *s);
long vcpu_get_sregs2(struct call *c);
long vcpu_set_sregs2(struct call *c);
long vcpu_get_debugregs(struct call *c);
long vcpu_set_debugregs(struct call *c);
long vcpu_get_xcrs(struct call *c);
long vcpu_set_xcrs(struct call *c);

/* events.c */
void events_get(struct vcpu *v, struct kvm_vcpu_events *e);
int events_set(struct vcpu *v, const struct kvm_vcpu_events *e);
long vcpu_get_mp_state(struct call *c);
long vcpu_set_mp_state(struct call *c);
long vcpu_interrupt(struct call *c);
long vcpu_nmi(struct call *c);
long vcpu_smi(struct call *c);
long vcpu_set_guest_debug(struct call *c);

#endif
