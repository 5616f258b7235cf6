/* The system descriptor: version, capabilities, lists, and how wrong requests are refused. */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/api/api.h"

static void test_version(void **state)
{
	int sys = api->open();

	assert_int_equal(call_num(sys, KVM_GET_API_VERSION, 0), 12);
	assert_int_equal(call_num(sys, KVM_GET_API_VERSION, 1), -EINVAL);
	assert_int_equal(call_num(sys, KVM_GET_VCPU_MMAP_SIZE, 0), RUN_SIZE);
	assert_int_equal(call_num(sys, KVM_GET_VCPU_MMAP_SIZE, 1), -EINVAL);
	assert_int_equal(api->close(sys), 0);
}

static void test_capabilities(void **state)
{
	static const int needed[] = {
		KVM_CAP_IRQCHIP, KVM_CAP_HLT, KVM_CAP_USER_MEMORY, KVM_CAP_SET_TSS_ADDR,
		KVM_CAP_EXT_CPUID, KVM_CAP_CLOCKSOURCE, KVM_CAP_NR_VCPUS, KVM_CAP_NR_MEMSLOTS,
		KVM_CAP_PIT2, KVM_CAP_MP_STATE, KVM_CAP_DESTROY_MEMORY_REGION_WORKS,
		KVM_CAP_USER_NMI, KVM_CAP_IRQ_ROUTING, KVM_CAP_JOIN_MEMORY_REGIONS_WORKS,
		KVM_CAP_ADJUST_CLOCK, KVM_CAP_VCPU_EVENTS, KVM_CAP_DEBUGREGS, KVM_CAP_XSAVE,
		KVM_CAP_XCRS, KVM_CAP_GET_TSC_KHZ, KVM_CAP_SIGNAL_MSI, KVM_CAP_READONLY_MEM,
		KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_SYNC_REGS, KVM_CAP_GET_MSR_FEATURES,
		KVM_CAP_SYNC_MMU, KVM_CAP_TSC_DEADLINE_TIMER, KVM_CAP_CHECK_EXTENSION_VM,
	};
	int sys = api->open();
	int vm = call_num(sys, KVM_CREATE_VM, 0);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(needed); i++) {
		assert_true(call_num(sys, KVM_CHECK_EXTENSION, needed[i]) > 0);
		assert_true(call_num(vm, KVM_CHECK_EXTENSION, needed[i]) > 0);
	}
	assert_int_equal(call_num(sys, KVM_CHECK_EXTENSION, KVM_CAP_PPC_SMT), 0);
	assert_int_equal(call_num(sys, KVM_CHECK_EXTENSION, 100000), 0);
	assert_int_equal(call_num(sys, KVM_CHECK_EXTENSION, ~0UL), 0);
	api->close(vm);
	api->close(sys);
}

static void test_refusals(void **state)
{
	struct machine m;
	struct kvm_regs r;

	machine_new(&m, PLAIN);
	assert_int_equal(call_num(m.sys, KVM_CREATE_VM, 0x1000), -EINVAL);
	/* Each class of descriptor refuses in its own way. */
	assert_int_equal(call_num(m.sys, KVM_RUN, 0), -EINVAL);
	assert_int_equal(call(m.vm, KVM_GET_REGS, &r), -ENOTTY);
	assert_int_equal(call_num(m.vcpu, KVM_CREATE_IRQCHIP, 0), -EINVAL);
	assert_int_equal(call(m.vcpu, KVM_GET_REGS, NULL), -EFAULT);
	assert_int_equal(call(m.vcpu, KVM_SET_REGS, NULL), -EFAULT);
	assert_int_equal(call(m.vm, KVM_SET_USER_MEMORY_REGION, NULL), -EFAULT);
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_CPUID, NULL), -EFAULT);
	assert_int_equal(call_num(-1, KVM_RUN, 0), -EBADF);
	machine_free(&m);
}

/* Closing in any order; a closed number is nothing any more. */
static void test_close(void **state)
{
	struct kvm_regs r;
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(api->close(m.sys), 0);
	assert_int_equal(api->close(m.vm), 0);
	r = get_regs(m.vcpu);
	assert_int_equal(r.rip, CODE_AT);
	assert_int_equal(api->close(m.vcpu), 0);
	assert_int_equal(api->close(m.vcpu), -EBADF);
	assert_int_equal(call(m.vcpu, KVM_GET_REGS, &r), -EBADF);
	/* The mapping outlives the descriptor. */
	m.run->immediate_exit = 1;
}

static struct kvm_cpuid2 *cpuid_new(u32 n)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + n * sizeof(c->entries[0]));

	c->nent = n;
	return c;
}

static const struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_cpuid2 *c, u32 leaf, u32 sub)
{
	u32 i;

	for (i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf && c->entries[i].index == sub)
			return &c->entries[i];
	return NULL;
}

static void test_cpuid(void **state)
{
	struct kvm_cpuid2 *c = cpuid_new(256), *back = cpuid_new(256);
	struct machine m;
	u32 n;

	machine_new(&m, PLAIN);
	c->nent = 0;
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_CPUID, c), -E2BIG);
	c->nent = 1;
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_CPUID, c), -E2BIG);
	c->nent = 256;
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_CPUID, c), 0);
	n = c->nent;
	assert_in_range(n, 10, 128);
	assert_non_null(cpuid_find(c, 0, 0));
	assert_true(cpuid_find(c, 1, 0)->edx & BIT(0));
	assert_non_null(cpuid_find(c, 7, 0));
	assert_true(cpuid_find(c, 0x80000001, 0)->edx & BIT(29));
	assert_memory_equal(&cpuid_find(c, 0x40000000, 0)->ebx, "KVMKVMKVM\0\0", 12);
	/* What is supported is accepted, and comes back. */
	assert_int_equal(call(m.vcpu, KVM_SET_CPUID2, c), 0);
	assert_int_equal(call(m.vcpu, KVM_GET_CPUID2, back), 0);
	assert_int_equal(back->nent, n);
	assert_memory_equal(&cpuid_find(c, 0, 0)->ebx, &cpuid_find(back, 0, 0)->ebx, 12);
	back->nent = n - 1;
	assert_int_equal(call(m.vcpu, KVM_GET_CPUID2, back), -E2BIG);
	c->nent = 1000;
	assert_int_equal(call(m.vcpu, KVM_SET_CPUID2, c), -E2BIG);
	machine_free(&m);
	free(c);
	free(back);
}

static long put_linear_bits(int vcpu, struct kvm_cpuid2 *c, u32 bits)
{
	struct kvm_cpuid_entry2 *e = (struct kvm_cpuid_entry2 *)cpuid_find(c, 0x80000008, 0);

	e->eax = (e->eax & ~0xff00u) | bits << 8;
	return call(vcpu, KVM_SET_CPUID2, c);
}

static void test_linear_bits(void **state)
{
	struct kvm_cpuid old = { .nent = 1 };
	struct kvm_cpuid2 *c = cpuid_new(256);
	struct { struct kvm_cpuid head; struct kvm_cpuid_entry e; } one = {
		.head = old, .e = { .function = 0x80000008, .eax = 0x3a28 },
	};
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_CPUID, c), 0);
	assert_int_equal(put_linear_bits(m.vcpu, c, 47), -EINVAL);
	assert_int_equal(put_linear_bits(m.vcpu, c, 64), -EINVAL);
	assert_int_equal(put_linear_bits(m.vcpu, c, 0), 0);
	assert_int_equal(put_linear_bits(m.vcpu, c, 57), 0);
	assert_int_equal(put_linear_bits(m.vcpu, c, 48), 0);
	assert_int_equal(call(m.vcpu, KVM_SET_CPUID, &one), -EINVAL);
	one.e.eax = 0x3028;
	assert_int_equal(call(m.vcpu, KVM_SET_CPUID, &one), 0);
	machine_free(&m);
	free(c);
}

static long emulated(int sys, struct kvm_cpuid2 *c, u32 n)
{
	c->nent = n;
	return call(sys, KVM_GET_EMULATED_CPUID, c);
}

/* Three entries, with room for one more; the padding of all that are offered is clean. */
static void test_emulated_cpuid(void **state)
{
	struct kvm_cpuid2 *c = cpuid_new(256);
	int sys = api->open();

	assert_int_equal(emulated(sys, c, 0), -E2BIG);
	assert_int_equal(emulated(sys, c, 2), -E2BIG);
	assert_int_equal(emulated(sys, c, 3), -E2BIG);
	assert_int_equal(emulated(sys, c, 4), 0);
	assert_int_equal(c->nent, 3);
	c->entries[7].padding[2] = 1;
	assert_int_equal(emulated(sys, c, 7), 0);
	assert_int_equal(emulated(sys, c, 8), -EINVAL);
	assert_int_equal(emulated(sys, c, 100000), -EINVAL);
	c->entries[7].padding[2] = 0;
	assert_int_equal(emulated(sys, c, 256), 0);
	api->close(sys);
	free(c);
}

static void test_old_tracing(void **state)
{
	int sys = api->open();

	assert_int_equal(call_num(sys, KVM_TRACE_ENABLE, 0), -EOPNOTSUPP);
	assert_int_equal(call_num(sys, KVM_TRACE_PAUSE, 0), -EOPNOTSUPP);
	assert_int_equal(call_num(sys, KVM_TRACE_DISABLE, 0), -EOPNOTSUPP);
	api->close(sys);
}

/* As many vCPUs are recommended as there are processors. */
static void test_nr_vcpus(void **state)
{
	int sys = api->open();

	assert_int_equal(call_num(sys, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS), sysconf(_SC_NPROCESSORS_ONLN));
	api->close(sys);
}

static bool may_reboot(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	assert_int_equal(syscall(SYS_capget, &head, data), 0);
	return data[0].effective & 1u << CAP_SYS_BOOT;
}

/* A capability for those who may take the host down. */
static void test_nx_huge_pages(void **state)
{
	struct kvm_enable_cap c = { .cap = KVM_CAP_VM_DISABLE_NX_HUGE_PAGES };
	bool may = may_reboot();
	struct machine m;
	int vm;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_VM_DISABLE_NX_HUGE_PAGES);
	vm = call_num(m.sys, KVM_CREATE_VM, 0);
	assert_int_equal(call(vm, KVM_ENABLE_CAP, &c), may ? 0 : -EPERM);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &c), may ? -EINVAL : -EPERM);
	c.args[0] = 1;
	assert_int_equal(call(vm, KVM_ENABLE_CAP, &c), may ? -EINVAL : -EPERM);
	api->close(vm);
	machine_free(&m);
}

static void check_msr_list(int sys, unsigned long request, u32 must)
{
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + 1024 * 4);
	bool found = false;
	u32 n, i;

	assert_int_equal(call(sys, request, l), -E2BIG);
	n = l->nmsrs;
	assert_in_range(n, 1, 1024);
	l->nmsrs = n - 1;
	assert_int_equal(call(sys, request, l), -E2BIG);
	assert_int_equal(call(sys, request, l), 0);
	assert_int_equal(l->nmsrs, n);
	for (i = 0; i < n; i++)
		found |= l->indices[i] == must;
	assert_true(found);
	free(l);
}

static void test_msr_lists(void **state)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry e[2]; } msrs = {
		.head.nmsrs = 2, .e = { { .index = 0x8b }, { .index = 0xdeadbeef } },
	};
	int sys = api->open();

	check_msr_list(sys, KVM_GET_MSR_INDEX_LIST, 0xc0000081);
	check_msr_list(sys, KVM_GET_MSR_FEATURE_INDEX_LIST, 0x8b);
	/* Stops at the first unknown one. */
	assert_int_equal(call(sys, KVM_GET_MSRS, &msrs), 1);
	msrs.head.nmsrs = 256;
	assert_int_equal(call(sys, KVM_GET_MSRS, &msrs), -E2BIG);
	api->close(sys);
}

int test_system(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_linear_bits),
		cmocka_unit_test(test_emulated_cpuid),
		cmocka_unit_test(test_old_tracing),
		cmocka_unit_test(test_nr_vcpus),
		cmocka_unit_test(test_nx_huge_pages),
		cmocka_unit_test(test_msr_lists),
	};

	return cmocka_run_group_tests_name("system", tests, NULL, NULL);
}
