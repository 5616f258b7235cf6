/*
 * Prints what the API serves, from its own tables, for scripts/kvm-api: "ioctl TYPE NAME" for each row, and
 * "capability NUMBER VALUE" for each one that a system or VM descriptor has.
 */
#include <stdio.h>

#include "hypervisor/api/api.h"
#include "hypervisor/api/qkvm.h"

#define LAST_CAPABILITY 1000

static void print_class(const char *type, const struct ioctl_class *class)
{
	for (u32 i = 0; i < class->n; i++)
		printf("ioctl %s %s\n", type, class->rows[i].name);
}

static long larger(long a, long b)
{
	return a > b ? a : b;
}

static int print_capabilities(void)
{
	int sys = qkvm_open(), vm;

	if (sys < 0)
		return 1;
	vm = (int)qkvm_ioctl(sys, KVM_CREATE_VM, 0);
	if (vm < 0)
		return 1;
	for (unsigned long cap = 0; cap <= LAST_CAPABILITY; cap++) {
		long value = larger(qkvm_ioctl(sys, KVM_CHECK_EXTENSION, cap),
			qkvm_ioctl(vm, KVM_CHECK_EXTENSION, cap));

		if (value > 0)
			printf("capability %lu %ld\n", cap, value);
	}
	qkvm_close(vm);
	qkvm_close(sys);
	return 0;
}

int main(void)
{
	print_class("system", &system_ioctls);
	print_class("vm", &vm_ioctls);
	print_class("vcpu", &vcpu_ioctls);
	return print_capabilities();
}
