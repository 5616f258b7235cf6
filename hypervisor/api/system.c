/* ioctls of the system descriptor, /dev/kvm. */
#include "hypervisor/api/api.h"
#include "hypervisor/api/qkvm.h"

static long sys_api_version(struct call *c)
{
	return c->arg ? -EINVAL : KVM_API_VERSION;
}

static long sys_create_vm(struct call *c)
{
	struct vm *vm;
	int ret;

	/* Machine type: x86 knows the default one. */
	if (c->arg)
		return -EINVAL;
	ret = vm_create(&vm);
	if (ret)
		return ret;
	ret = handle_open(HANDLE_VM, "kvm-vm", vm, 0, NULL, NULL);
	vm_put(vm);
	return ret;
}

static long sys_check_extension(struct call *c)
{
	return capability_value(c->arg);
}

static long sys_vcpu_mmap_size(struct call *c)
{
	return c->arg ? -EINVAL : VCPU_MMAP_SIZE;
}

/* The numbers of a tracing interface that was before tracepoints. */
static long sys_trace(struct call *c)
{
	return -EOPNOTSUPP;
}

static const struct ioctl_row rows[] = {
	ROW(KVM_GET_API_VERSION, sys_api_version),
	ROW(KVM_CREATE_VM, sys_create_vm),
	ROW(KVM_CHECK_EXTENSION, sys_check_extension),
	ROW(KVM_GET_VCPU_MMAP_SIZE, sys_vcpu_mmap_size),
	ROW_DIR(KVM_GET_MSR_INDEX_LIST, sizeof(struct kvm_msr_list), 0, sys_get_msr_index_list),
	ROW_DIR(KVM_GET_MSR_FEATURE_INDEX_LIST, sizeof(struct kvm_msr_list), 0,
		sys_get_msr_feature_index_list),
	ROW_DIR(KVM_GET_MSRS, sizeof(struct kvm_msrs), 0, sys_get_msrs),
	ROW(KVM_GET_SUPPORTED_CPUID, sys_get_supported_cpuid),
	ROW(KVM_X86_GET_MCE_CAP_SUPPORTED, sys_get_mce_cap),
	ROW(KVM_GET_DEVICE_ATTR, sys_get_attr),
	ROW(KVM_HAS_DEVICE_ATTR, sys_has_attr),
	ROW(KVM_GET_EMULATED_CPUID, sys_get_emulated_cpuid),
	ROW(KVM_GET_SUPPORTED_HV_CPUID, sys_get_hv_cpuid),
	ROW_DIR(KVM_TRACE_ENABLE, 0, 0, sys_trace),
	ROW(KVM_TRACE_PAUSE, sys_trace),
	ROW(KVM_TRACE_DISABLE, sys_trace),
};

const struct ioctl_class system_ioctls = {
	.rows = rows, .n = ARRAY_SIZE(rows), .unknown = -EINVAL,
};
