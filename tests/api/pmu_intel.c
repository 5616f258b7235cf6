/*
 * Performance counters of Intel's kind (SDM 3B 20.2), for a guest whose vendor is Intel: what they count, the registers and
 * what of them is reserved, IA32_PERF_CAPABILITIES, KVM_SET_PMU_EVENT_FILTER's fixed counters.
 */
#include <errno.h>
#include <string.h>

#include "tests/api/api.h"
#include "tests/api/flat.h"

#define PERFCTR(n)	(0xc1u + (n))
#define EVTSEL(n)	(0x186u + (n))
#define FIXED(n)	(0x309u + (n))
#define PERF_CAP	0x345
#define FIXED_CTRL	0x38d
#define STATUS		0x38e
#define GLOBAL_CTRL	0x38f
#define OVF_CTRL	0x390
#define PMC(n)		(0x4c1u + (n))
#define CAP_FW_WRITE	BIT(13)

#define CYCLES		0x3cull
#define REF_CYCLES	0x13cull
#define INSNS		0xc0ull
#define BRANCHES	0xc4ull
#define OS		BIT(17)
#define INT		BIT(20)
#define ANY		BIT(21)
#define EN		BIT(22)
#define MASK48		(BIT(48) - 1)
#define LOOPS		1000u

#define LVTPC		0x340
#define PMI		0x77

/* The vendor is Intel; leaf 0xA as it is supported, of this version. */
static void intel_machine(struct machine *m, int kind, u32 version)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[100];
	} c = { .head.nent = 100 };
	bool found = false;

	skip_on_emulated_host("its processor has no counters");
	machine_new(m, kind);
	assert_int_equal(call(m->sys, KVM_GET_SUPPORTED_CPUID, &c), 0);
	for (u32 k = 0; k < c.head.nent; k++) {
		struct kvm_cpuid_entry2 *e = &c.entry[k];

		if (e->function == 0) {
			e->ebx = 0x756e6547;
			e->edx = 0x49656e69;
			e->ecx = 0x6c65746e;
		} else if (e->function == 0xa) {
			found = (e->eax & 0xff) >= 2 && (e->edx & 0x1f) >= 3;
			e->eax = (e->eax & ~0xffu) | version;
		}
	}
	if (!found) {
		machine_free(m);
		skip();
	}
	assert_int_equal(call(m->vcpu, KVM_SET_CPUID2, &c), 0);
}

/* MOV ECX, LOOPS; LOOP: as many branches, and one instruction more. */
static void run_loop(struct machine *m)
{
	static const u8 insn[] = { 0xb9, LOOPS & 0xff, LOOPS >> 8, 0, 0, 0xe2, 0xfe };
	struct kvm_regs r = { 0 };

	assert_int_equal(flat_insn(m, insn, sizeof(insn), &r), KVM_EXIT_IO);
}

static void guest_writes(struct machine *m, u32 index, u64 val)
{
	assert_int_equal(flat_wrmsr(m, index, val), KVM_EXIT_IO);
}

static u64 guest_reads(struct machine *m, u32 index)
{
	u64 val;

	assert_int_equal(flat_rdmsr(m, index, &val), KVM_EXIT_IO);
	return val;
}

static void start(struct machine *m, u32 n, u64 event, u64 from)
{
	guest_writes(m, EVTSEL(n), 0);
	guest_writes(m, PERFCTR(n), from);
	guest_writes(m, EVTSEL(n), event | OS | EN);
	guest_writes(m, GLOBAL_CTRL, BIT(n));
}

/* The loop's, and no more than some instructions around it. */
static void assert_about(u64 got, u64 want)
{
	assert_in_range(got, want, want + 30);
}

static u64 loop_counts(struct machine *m, u32 n, u64 event)
{
	start(m, n, event, 0);
	run_loop(m);
	guest_writes(m, GLOBAL_CTRL, 0);
	return guest_reads(m, PERFCTR(n));
}

static void intel_events(void **state)
{
	struct machine m;

	intel_machine(&m, PLAIN, 2);
	assert_about(loop_counts(&m, 0, INSNS), LOOPS + 1);
	assert_about(loop_counts(&m, 3, BRANCHES), LOOPS);
	assert_in_range(loop_counts(&m, 1, CYCLES), 100, 1u << 31);
	assert_in_range(loop_counts(&m, 2, REF_CYCLES), 100, 1u << 31);
	assert_int_equal(loop_counts(&m, 2, 0xc5), 0);	/* said not to be there */
	/* Stopped globally. */
	start(&m, 0, INSNS, 0);
	guest_writes(&m, GLOBAL_CTRL, 0);
	guest_writes(&m, PERFCTR(0), 5);
	run_loop(&m);
	assert_int_equal(guest_reads(&m, PERFCTR(0)), 5);
	machine_free(&m);
}

static void intel_fixed(void **state)
{
	struct machine m;

	intel_machine(&m, PLAIN, 2);
	for (u32 n = 0; n < 3; n++)
		guest_writes(&m, FIXED(n), 0);
	guest_writes(&m, FIXED_CTRL, 0x111);
	run_loop(&m);
	assert_int_equal(guest_reads(&m, FIXED(0)), 0);
	guest_writes(&m, GLOBAL_CTRL, 7ull << 32);
	run_loop(&m);
	guest_writes(&m, GLOBAL_CTRL, 0);
	assert_about(guest_reads(&m, FIXED(0)), LOOPS + 1);
	for (u32 n = 1; n < 3; n++)
		assert_in_range(guest_reads(&m, FIXED(n)), 100, 1u << 31);
	/* Only users'. */
	guest_writes(&m, FIXED(0), 0);
	guest_writes(&m, FIXED_CTRL, 2);
	guest_writes(&m, GLOBAL_CTRL, 1ull << 32);
	run_loop(&m);
	assert_int_equal(guest_reads(&m, FIXED(0)), 0);
	machine_free(&m);
}

static void lapic_write_reg(struct machine *m, u32 reg, u32 val)
{
	struct kvm_lapic_state s;

	assert_int_equal(call(m->vcpu, KVM_GET_LAPIC, &s), 0);
	memcpy(s.regs + reg, &val, sizeof(val));
	assert_int_equal(call(m->vcpu, KVM_SET_LAPIC, &s), 0);
}

static u32 lapic_read_reg(struct machine *m, u32 reg)
{
	struct kvm_lapic_state s;
	u32 val;

	assert_int_equal(call(m->vcpu, KVM_GET_LAPIC, &s), 0);
	memcpy(&val, s.regs + reg, sizeof(val));
	return val;
}

static void intel_overflow(void **state)
{
	struct machine m;

	intel_machine(&m, WITH_IRQCHIP, 2);
	lapic_enable(m.vcpu);
	lapic_write_reg(&m, LVTPC, PMI);
	start(&m, 1, INSNS, (u64)-500);
	run_loop(&m);
	assert_int_equal(guest_reads(&m, STATUS), BIT(1));
	assert_false(lapic_requested(m.vcpu, PMI));
	guest_writes(&m, OVF_CTRL, BIT(1));
	assert_int_equal(guest_reads(&m, STATUS), 0);
	/* With an interrupt, which masks the entry. */
	start(&m, 1, INSNS | INT, (u64)-500);
	run_loop(&m);
	assert_int_equal(guest_reads(&m, STATUS), BIT(1));
	assert_true(lapic_requested(m.vcpu, PMI));
	assert_int_equal(lapic_read_reg(&m, LVTPC), PMI | BIT(16));
	guest_writes(&m, GLOBAL_CTRL, 0);
	guest_writes(&m, FIXED(0), MASK48 - 499);
	guest_writes(&m, FIXED_CTRL, 1);
	guest_writes(&m, GLOBAL_CTRL, 1ull << 32);
	run_loop(&m);
	assert_int_equal(guest_reads(&m, STATUS), BIT(1) | BIT(32));
	/* A saved status is restored. */
	assert_int_equal(set_msr(m.vcpu, STATUS, BIT(2)), 1);
	assert_int_equal(guest_reads(&m, STATUS), BIT(2));
	machine_free(&m);
}

static void assert_gp(struct machine *m, u32 index, u64 val)
{
	assert_int_not_equal(flat_wrmsr(m, index, val), KVM_EXIT_IO);
}

static u32 rdpmc(struct machine *m, u32 index, u64 *val)
{
	static const u8 insn[] = { 0x0f, 0x33 };
	struct kvm_regs r = { .rcx = index };
	u32 ret = flat_insn(m, insn, sizeof(insn), &r);

	*val = (u32)r.rax | r.rdx << 32;
	return ret;
}

static void intel_registers(void **state)
{
	struct machine m;
	u64 val;

	intel_machine(&m, PLAIN, 2);
	/* 32 bits by the old name, sign-extended; 48 by the new one. */
	guest_writes(&m, PERFCTR(0), 0xff87654321);
	assert_int_equal(guest_reads(&m, PERFCTR(0)), 0xffff87654321);
	guest_writes(&m, PMC(3), 0x123487654321);
	assert_int_equal(guest_reads(&m, PERFCTR(3)), 0x123487654321);
	assert_gp(&m, PMC(0), BIT(48));
	assert_int_equal(rdpmc(&m, 3, &val), KVM_EXIT_IO);
	assert_int_equal(val, 0x123487654321);
	guest_writes(&m, FIXED(2), 0x2345);
	assert_int_equal(rdpmc(&m, BIT(30) | 2, &val), KVM_EXIT_IO);
	assert_int_equal(val, 0x2345);
	assert_int_not_equal(rdpmc(&m, 4, &val), KVM_EXIT_IO);
	assert_int_not_equal(rdpmc(&m, BIT(30) | 3, &val), KVM_EXIT_IO);
	assert_gp(&m, EVTSEL(0), INSNS | ANY);
	assert_gp(&m, EVTSEL(0), BIT(32));
	assert_gp(&m, FIXED_CTRL, 4);
	assert_gp(&m, FIXED_CTRL, BIT(12));
	assert_gp(&m, GLOBAL_CTRL, BIT(4));
	assert_gp(&m, GLOBAL_CTRL, BIT(35));
	assert_gp(&m, STATUS, 0);
	guest_writes(&m, OVF_CTRL, BIT(62) | BIT(63) | 0xf | 7ull << 32);
	assert_gp(&m, OVF_CTRL, BIT(4));
	assert_int_equal(guest_reads(&m, OVF_CTRL), 0);
	assert_gp(&m, PERFCTR(4), 0);
	machine_free(&m);
}

static void intel_version_1(void **state)
{
	struct machine m;
	u64 val;

	intel_machine(&m, PLAIN, 1);
	guest_writes(&m, EVTSEL(0), INSNS | OS | EN);
	run_loop(&m);
	guest_writes(&m, EVTSEL(0), 0);
	assert_about(guest_reads(&m, PERFCTR(0)), LOOPS + 1);
	assert_int_not_equal(flat_rdmsr(&m, GLOBAL_CTRL, &val), KVM_EXIT_IO);
	assert_int_not_equal(flat_rdmsr(&m, FIXED(0), &val), KVM_EXIT_IO);
	/* User space saves and restores all that is listed. */
	assert_int_equal(msr_get(m.vcpu, GLOBAL_CTRL, &val), 1);
	assert_int_equal(val, 0);
	assert_int_equal(msr_put(m.vcpu, GLOBAL_CTRL, 0), 1);
	assert_int_equal(msr_put(m.vcpu, GLOBAL_CTRL, 1), 0);
	machine_free(&m);
}

static void intel_without(void **state)
{
	struct machine m;
	u64 val;

	intel_machine(&m, PLAIN, 0);
	/* Two pairs that Linux writes without asking. */
	guest_writes(&m, EVTSEL(1), INSNS | OS | EN);
	assert_int_equal(guest_reads(&m, EVTSEL(1)), 0);
	assert_gp(&m, EVTSEL(2), 0);
	assert_int_not_equal(rdpmc(&m, 0, &val), KVM_EXIT_IO);
	assert_int_equal(msr_put(m.vcpu, PERF_CAP, CAP_FW_WRITE), 0);
	machine_free(&m);
}

static void intel_capabilities(void **state)
{
	struct machine m;

	intel_machine(&m, PLAIN, 2);
	assert_int_equal(guest_reads(&m, PERF_CAP), CAP_FW_WRITE);
	assert_gp(&m, PERF_CAP, 0);
	assert_int_equal(msr_put(m.vcpu, PERF_CAP, 1), 0);
	assert_int_equal(msr_put(m.vcpu, PERF_CAP, 0), 1);
	assert_gp(&m, PMC(0), 1);
	assert_int_equal(msr_put(m.vcpu, PERF_CAP, CAP_FW_WRITE), 1);
	guest_writes(&m, PMC(0), 1);
	machine_free(&m);
}

static u64 fixed_counts(struct machine *m)
{
	guest_writes(m, FIXED(0), 0);
	guest_writes(m, FIXED_CTRL, 1);
	guest_writes(m, GLOBAL_CTRL, 1ull << 32);
	run_loop(m);
	guest_writes(m, GLOBAL_CTRL, 0);
	return guest_reads(m, FIXED(0));
}

static void intel_filter(void **state)
{
	struct kvm_pmu_event_filter f = { .fixed_counter_bitmap = 1 };
	struct machine m;

	intel_machine(&m, PLAIN, 2);
	require_cap(&m, KVM_CAP_PMU_EVENT_FILTER);
	for (int deny = 0; deny < 2; deny++) {
		f.action = deny ? KVM_PMU_EVENT_DENY : KVM_PMU_EVENT_ALLOW;
		for (f.fixed_counter_bitmap = 1; f.fixed_counter_bitmap <= 2; f.fixed_counter_bitmap++) {
			assert_int_equal(call(m.vm, KVM_SET_PMU_EVENT_FILTER, &f), 0);
			assert_int_equal(fixed_counts(&m) > 0, deny == (f.fixed_counter_bitmap == 2));
		}
		/* No event is listed. */
		assert_int_equal(loop_counts(&m, 0, INSNS) > 0, deny);
	}
	machine_free(&m);
}

int test_pmu_intel(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(intel_events),
		cmocka_unit_test(intel_fixed),
		cmocka_unit_test(intel_overflow),
		cmocka_unit_test(intel_registers),
		cmocka_unit_test(intel_version_1),
		cmocka_unit_test(intel_without),
		cmocka_unit_test(intel_capabilities),
		cmocka_unit_test(intel_filter),
	};

	return cmocka_run_group_tests_name("pmu_intel", tests, NULL, NULL);
}
