/* The TSC's rate and offset. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "tests/api/api.h"

#define MSR_TSC		0x10
#define MSR_TSC_ADJUST	0x3b

static struct kvm_device_attr offset_attr(u64 *val)
{
	return (struct kvm_device_attr){ .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET,
		.addr = (u64)val };
}

static u64 host_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

/* rdtsc; hlt: by the guest */
static u64 guest_tsc(struct machine *m)
{
	struct kvm_regs r;

	CODE(m, 0x0f, 0x31, 0xf4);
	flat_mode(m->vcpu);
	run_to_halt(m);
	r = get_regs(m->vcpu);
	return r.rax | r.rdx << 32;
}

static void test_offset(void **state)
{
	struct kvm_device_attr a, bad;
	struct machine m;
	u64 offset = 0, now, val;

	skip_on_emulated_host("RDTSC is the host's own");
	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_VCPU_ATTRIBUTES);
	a = offset_attr(&offset);
	assert_int_equal(call(m.vcpu, KVM_HAS_DEVICE_ATTR, &a), 0);
	bad = a;
	bad.attr = 7;
	assert_int_equal(call(m.vcpu, KVM_HAS_DEVICE_ATTR, &bad), -ENXIO);
	assert_int_equal(call(m.vcpu, KVM_GET_DEVICE_ATTR, &bad), -ENXIO);
	assert_int_equal(call(m.vcpu, KVM_SET_DEVICE_ATTR, &bad), -ENXIO);
	bad = a;
	bad.group = 9;
	assert_int_equal(call(m.vcpu, KVM_HAS_DEVICE_ATTR, &bad), -ENXIO);
	bad = a;
	bad.addr = 8;
	assert_int_equal(call(m.vcpu, KVM_GET_DEVICE_ATTR, &bad), -EFAULT);
	assert_int_equal(call(m.vcpu, KVM_GET_DEVICE_ATTR, &a), 0);
	now = __builtin_ia32_rdtsc() + offset;
	val = guest_tsc(&m);
	assert_in_range(val, now, __builtin_ia32_rdtsc() + offset);
	offset += 1ULL << 50;
	assert_int_equal(call(m.vcpu, KVM_SET_DEVICE_ATTR, &a), 0);
	val = guest_tsc(&m);
	assert_in_range(val, now + (1ULL << 50), __builtin_ia32_rdtsc() + offset);
	assert_int_equal(get_msr(m.vcpu, MSR_TSC_ADJUST), 0);
	machine_free(&m);
}

/* Does the guest's TSC run at khz? Between two readings that the host's clock brackets. */
static void check_rate(struct machine *m, u64 khz)
{
	u64 t0 = host_ns(), a = guest_tsc(m), t1 = host_ns(), t2, b, t3;

	while (host_ns() - t1 < 30000000)
		;
	t2 = host_ns();
	b = guest_tsc(m);
	t3 = host_ns();
	/* 1/8 % for what the rate was measured with. */
	assert_in_range((b - a) / 100 * 800, (t2 - t1) * khz / 1000000 / 100 * 799,
		(t3 - t0) * khz / 1000000 / 100 * 801);
}

static void test_rate(void **state)
{
	struct machine m;
	long host;

	skip_on_emulated_host("RDTSC is the host's own");
	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_TSC_CONTROL);
	host = call_num(m.vcpu, KVM_GET_TSC_KHZ, 0);
	assert_true(host > 100000);
	check_rate(&m, host);
	assert_int_equal(call_num(m.vcpu, KVM_SET_TSC_KHZ, host / 3), 0);
	assert_int_equal(call_num(m.vcpu, KVM_GET_TSC_KHZ, 0), host / 3);
	check_rate(&m, host / 3);
	assert_int_equal(call_num(m.vcpu, KVM_SET_TSC_KHZ, host * 2), 0);
	check_rate(&m, host * 2);
	/* Near enough: it runs as the host's, and says what it was told. */
	assert_int_equal(call_num(m.vcpu, KVM_SET_TSC_KHZ, host + 5), 0);
	assert_int_equal(call_num(m.vcpu, KVM_GET_TSC_KHZ, 0), host + 5);
	assert_int_equal(call_num(m.vcpu, KVM_SET_TSC_KHZ, 0), 0);
	assert_int_equal(call_num(m.vcpu, KVM_GET_TSC_KHZ, 0), host);
	assert_int_equal(call_num(m.vcpu, KVM_SET_TSC_KHZ, 0x7fffffff), -EINVAL);
	machine_free(&m);
}

/* What is written is read, at any rate. */
static void test_write_scaled(void **state)
{
	struct machine m;
	u64 val;
	long host;

	skip_on_emulated_host("RDTSC is the host's own");
	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_TSC_CONTROL);
	host = call_num(m.vcpu, KVM_GET_TSC_KHZ, 0);
	assert_int_equal(call_num(m.vcpu, KVM_SET_TSC_KHZ, host / 2), 0);
	assert_int_equal(set_msr(m.vcpu, MSR_TSC, 1ULL << 60), 1);
	val = get_msr(m.vcpu, MSR_TSC);
	assert_in_range(val, 1ULL << 60, (1ULL << 60) + (u64)host * 500);
	val = guest_tsc(&m);
	assert_in_range(val, 1ULL << 60, (1ULL << 60) + (u64)host * 500);
	machine_free(&m);
}

static void test_vm_rate(void **state)
{
	struct kvm_run *run;
	struct machine m;
	long host;
	int vm, v;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_VM_TSC_CONTROL);
	host = call_num(m.vcpu, KVM_GET_TSC_KHZ, 0);
	vm = call_num(m.sys, KVM_CREATE_VM, 0);
	assert_int_equal(call_num(vm, KVM_GET_TSC_KHZ, 0), host);
	assert_int_equal(call_num(vm, KVM_SET_TSC_KHZ, 0x7fffffff), -EINVAL);
	assert_int_equal(call_num(vm, KVM_SET_TSC_KHZ, host / 2), 0);
	assert_int_equal(call_num(vm, KVM_GET_TSC_KHZ, 0), host / 2);
	v = vcpu_new(vm, 0, &run);
	assert_int_equal(call_num(v, KVM_GET_TSC_KHZ, 0), host / 2);
	api->close(v);
	assert_int_equal(call_num(vm, KVM_SET_TSC_KHZ, 0), 0);
	assert_int_equal(call_num(vm, KVM_GET_TSC_KHZ, 0), host);
	api->close(vm);
	machine_free(&m);
}

/* wrmsr of TSC_ADJUST moves the TSC, wrmsr of TSC moves TSC_ADJUST. */
static void test_adjust(void **state)
{
	u64 before, offset = 0, moved = 0;
	struct kvm_device_attr a = offset_attr(&offset), b = offset_attr(&moved);
	struct kvm_regs r;
	struct machine m;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_VCPU_ATTRIBUTES);
	if (!api_is_host()) {
		assert_int_equal(call(m.vcpu, KVM_GET_DEVICE_ATTR, &a), 0);
		before = get_msr(m.vcpu, MSR_TSC_ADJUST);
		CODE(&m, 0x0f, 0x30, 0xf4);	/* wrmsr; hlt */
		r = get_regs(m.vcpu);
		r.rcx = MSR_TSC_ADJUST;
		r.rax = 0;
		r.rdx = 0x100;
		set_regs(m.vcpu, &r);
		run_to_halt(&m);
		assert_int_equal(call(m.vcpu, KVM_GET_DEVICE_ATTR, &b), 0);
		assert_int_equal(moved - offset, (0x100ULL << 32) - before);
		assert_int_equal(get_msr(m.vcpu, MSR_TSC_ADJUST), 0x100ULL << 32);
		/* User space's write is only remembered. */
		assert_int_equal(set_msr(m.vcpu, MSR_TSC_ADJUST, 5), 1);
		assert_int_equal(call(m.vcpu, KVM_GET_DEVICE_ATTR, &a), 0);
		assert_int_equal(offset, moved);
	}
	machine_free(&m);
}

int test_tsc(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_offset),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_write_scaled),
		cmocka_unit_test(test_vm_rate),
		cmocka_unit_test(test_adjust),
	};

	return cmocka_run_group_tests_name("tsc", tests, NULL, NULL);
}
