/*
 * Performance counters of AMD's kind: registers, KVM_SET_PMU_EVENT_FILTER (api.rst 4.120), KVM_CAP_PMU_CAPABILITY
 * (7.35). tests/guest/pmu.c has what a guest sees.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/api/api.h"
#include "tests/api/flat.h"

#define EVNTSEL0	0xc0010000
#define PERFCTR0	0xc0010004
#define CORE_CTL(n)	(0xc0010200u + 2 * (n))
#define CORE_CTR(n)	(0xc0010201u + 2 * (n))
#define INSNS		0xc0ull
#define OS		BIT(17)
#define EN		BIT(22)
#define LEAF1_CORE	BIT(23)

struct cpuid_table {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[100];
};

/* The vendor is AMD; six counters or four. */
static void cpuid_amd(struct machine *m, bool core)
{
	struct cpuid_table c = { .head.nent = 100 };

	assert_int_equal(call(m->sys, KVM_GET_SUPPORTED_CPUID, &c), 0);
	for (u32 k = 0; k < c.head.nent; k++) {
		struct kvm_cpuid_entry2 *e = &c.entry[k];

		if (e->function == 0) {
			e->ebx = 0x68747541;
			e->edx = 0x69746e65;
			e->ecx = 0x444d4163;
		} else if (e->function == 0x80000001) {
			e->ecx = core ? e->ecx | LEAF1_CORE : e->ecx & ~(u32)LEAF1_CORE;
		}
	}
	assert_int_equal(call(m->vcpu, KVM_SET_CPUID2, &c), 0);
}

static bool core_supported(struct machine *m)
{
	struct cpuid_table c = { .head.nent = 100 };

	assert_int_equal(call(m->sys, KVM_GET_SUPPORTED_CPUID, &c), 0);
	for (u32 k = 0; k < c.head.nent; k++)
		if (c.entry[k].function == 0x80000001)
			return c.entry[k].ecx & LEAF1_CORE;
	return false;
}

static void pmu_machine(struct machine *m, bool core)
{
	skip_on_emulated_host("its processor has no counters");
	machine_new(m, PLAIN);
	require_cap(m, KVM_CAP_PMU_CAPABILITY);
	if (core && !core_supported(m)) {
		machine_free(m);
		skip();
	}
	cpuid_amd(m, core);
}

/* Instructions that the guest runs between two WRMSR: the first read is one. */
static u64 guest_counts(struct machine *m)
{
	u64 val;

	assert_int_equal(set_msr(m->vcpu, PERFCTR0, 0), 1);
	assert_int_equal(flat_wrmsr(m, EVNTSEL0, INSNS | OS | EN), KVM_EXIT_IO);
	assert_int_equal(flat_rdmsr(m, PERFCTR0, &val), KVM_EXIT_IO);
	assert_int_equal(flat_rdmsr(m, PERFCTR0, &val), KVM_EXIT_IO);
	assert_int_equal(flat_wrmsr(m, EVNTSEL0, 0), KVM_EXIT_IO);
	return val;
}

static void test_registers(void **state)
{
	struct machine m;
	u64 val;

	pmu_machine(&m, true);
	assert_int_equal(set_msr(m.vcpu, EVNTSEL0, ~0ull & ~EN), 1);
	assert_int_equal(get_msr(m.vcpu, EVNTSEL0), 0xfffd7ffffull & ~EN);
	assert_int_equal(get_msr(m.vcpu, CORE_CTL(0)), get_msr(m.vcpu, EVNTSEL0));
	assert_int_equal(set_msr(m.vcpu, EVNTSEL0, 0), 1);
	assert_int_equal(set_msr(m.vcpu, CORE_CTR(5), ~0ull), 1);
	assert_int_equal(get_msr(m.vcpu, CORE_CTR(5)), BIT(48) - 1);
	assert_int_equal(flat_rdmsr(&m, CORE_CTR(5), &val), KVM_EXIT_IO);
	assert_int_equal(val, BIT(48) - 1);
	assert_true(guest_counts(&m) > 0);
	/* A counter that is saved while it counts goes on where it is restored. */
	assert_int_equal(set_msr(m.vcpu, PERFCTR0, 1ull << 40), 1);
	assert_int_equal(set_msr(m.vcpu, EVNTSEL0, INSNS | OS | EN), 1);
	assert_int_equal(get_msr(m.vcpu, PERFCTR0), 1ull << 40);
	assert_int_equal(flat_rdmsr(&m, 0x1b, &val), KVM_EXIT_IO);
	val = get_msr(m.vcpu, PERFCTR0) - (1ull << 40);
	assert_true(val > 0 && val < 100);
	machine_free(&m);
}

static void test_four(void **state)
{
	struct machine m;
	u64 val;

	pmu_machine(&m, false);
	assert_true(guest_counts(&m) > 0);
	assert_int_not_equal(flat_rdmsr(&m, CORE_CTL(0), &val), KVM_EXIT_IO);
	machine_free(&m);
}

static long filter(struct machine *m, u32 action, u32 flags, u32 n, const u64 *events)
{
	struct kvm_pmu_event_filter *f = calloc(1, sizeof(*f) + n * sizeof(u64));
	long ret;

	f->action = action;
	f->flags = flags;
	f->nevents = n;
	memcpy(f->events, events, MIN(n, 4u) * sizeof(u64));
	ret = call(m->vm, KVM_SET_PMU_EVENT_FILTER, f);
	free(f);
	return ret;
}

static void test_filter(void **state)
{
	const u64 with[4] = { 0x1c0, 0x76, INSNS, 0xc2 }, without[4] = { 0xf000000c0, 0x76, 0xc1, 0x1c0 };
	struct machine m;

	pmu_machine(&m, false);
	require_cap(&m, KVM_CAP_PMU_EVENT_FILTER);
	assert_int_equal(filter(&m, 2, 0, 4, with), -EINVAL);
	assert_int_equal(filter(&m, KVM_PMU_EVENT_DENY, 2, 4, with), -EINVAL);
	assert_int_equal(filter(&m, KVM_PMU_EVENT_DENY, 0, 301, with), -E2BIG);
	assert_int_equal(call_num(m.vm, KVM_SET_PMU_EVENT_FILTER, 1), -EFAULT);
	assert_true(guest_counts(&m) > 0);
	for (int deny = 0; deny < 2; deny++) {
		u32 action = deny ? KVM_PMU_EVENT_DENY : KVM_PMU_EVENT_ALLOW;

		assert_int_equal(filter(&m, action, 0, 4, with), 0);
		assert_int_equal(guest_counts(&m) > 0, !deny);
		assert_int_equal(filter(&m, action, 0, 4, without), 0);
		assert_int_equal(guest_counts(&m) > 0, deny);
		assert_int_equal(filter(&m, action, 0, 0, with), 0);
		assert_int_equal(guest_counts(&m) > 0, deny);
	}
	assert_int_equal(filter(&m, KVM_PMU_EVENT_ALLOW, 0, 300, with), 0);
	machine_free(&m);
}

static void test_disabled(void **state)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_PMU_CAPABILITY, .args = { KVM_PMU_CAP_DISABLE } };
	struct machine m;
	u64 val = 1;

	pmu_machine(&m, true);
	/* Too late. */
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &cap), -EINVAL);
	api->close(m.vcpu);
	api->close(m.vm);
	m.vm = (int)call_num(m.sys, KVM_CREATE_VM, 0);
	cap.args[0] = 2;
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &cap), -EINVAL);
	cap.args[0] = KVM_PMU_CAP_DISABLE;
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &cap), 0);
	m.vcpu = (int)call_num(m.vm, KVM_CREATE_VCPU, 0);
	cpuid_amd(&m, true);
	/* K7's are there on every AMD processor, so guests may touch them. */
	assert_int_equal(set_msr(m.vcpu, EVNTSEL0, INSNS | OS | EN), 1);
	assert_int_equal(msr_get(m.vcpu, EVNTSEL0, &val), 1);
	assert_int_equal(val, 0);
	assert_int_equal(msr_put(m.vcpu, CORE_CTL(0), EN), 0);
	api->close(m.vcpu);
	api->close(m.vm);
	api->close(m.sys);
}

int test_pmu(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_four),
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_disabled),
	};

	return cmocka_run_group_tests_name("pmu", tests, NULL, NULL);
}
