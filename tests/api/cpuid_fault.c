/*
 * CPUID that faults outside CPL 0 (SDM 3A 2.9): MSR_PLATFORM_INFO says that a guest may ask for it, MSR_MISC_FEATURES_ENABLES
 * asks. In KVM so for every guest.
 */
#include <string.h>

#include "tests/api/api.h"
#include "tests/api/flat.h"

#define PLATFORM_INFO	0xce
#define MISC_FEATURES	0x140
#define CPUID_FAULT	BIT(31)

/* CPUID, OUT to port 0x10, at this CPL; no IDT. */
static u32 cpuid_at(struct machine *m, u8 cpl)
{
	static const u8 code[] = { 0x0f, 0xa2, 0xe6, 0x10 };
	struct kvm_regs r = { .rip = CODE_AT, .rsp = 0x8000, .rflags = 0x3002 };
	struct kvm_vcpu_events e;
	struct kvm_sregs s;

	memcpy(m->ram + CODE_AT, code, sizeof(code));
	assert_int_equal(call(m->vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	e.exception.injected = e.exception.pending = 0;
	assert_int_equal(call(m->vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	flat_mode(m->vcpu);
	s = get_sregs(m->vcpu);
	s.idt.limit = 0;
	s.cs.dpl = s.ss.dpl = s.ds.dpl = s.es.dpl = cpl;
	s.cs.selector |= cpl;
	s.ss.selector |= cpl;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
	set_regs(m->vcpu, &r);
	assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	return m->run->exit_reason;
}

static void test_asked_for(void **state)
{
	struct machine m;

	skip_on_emulated_host("CPUID is emulated there, by other code");
	machine_new(&m, PLAIN);
	assert_int_equal(get_msr(m.vcpu, PLATFORM_INFO), CPUID_FAULT);
	assert_int_equal(cpuid_at(&m, 3), KVM_EXIT_IO);
	assert_int_equal(flat_wrmsr(&m, MISC_FEATURES, 1), KVM_EXIT_IO);
	assert_int_equal(get_msr(m.vcpu, MISC_FEATURES), 1);
	assert_int_equal(cpuid_at(&m, 0), KVM_EXIT_IO);
	assert_int_equal(cpuid_at(&m, 3), KVM_EXIT_SHUTDOWN);
	assert_int_equal(msr_put(m.vcpu, PLATFORM_INFO, 0), 0);
	assert_int_equal(flat_wrmsr(&m, MISC_FEATURES, 0), KVM_EXIT_IO);
	assert_int_equal(cpuid_at(&m, 3), KVM_EXIT_IO);
	machine_free(&m);
}

static void test_reserved(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_not_equal(flat_wrmsr(&m, MISC_FEATURES, 2), KVM_EXIT_IO);
	assert_int_equal(msr_put(m.vcpu, MISC_FEATURES, 2), 0);
	assert_int_equal(msr_put(m.vcpu, PLATFORM_INFO, 0), 1);
	assert_int_not_equal(flat_wrmsr(&m, MISC_FEATURES, 1), KVM_EXIT_IO);
	assert_int_equal(msr_put(m.vcpu, MISC_FEATURES, 1), 0);
	assert_int_equal(msr_put(m.vcpu, MISC_FEATURES, 0), 1);
	machine_free(&m);
}

int test_cpuid_fault(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asked_for),
		cmocka_unit_test(test_reserved),
	};

	return cmocka_run_group_tests_name("cpuid_fault", tests, NULL, NULL);
}
