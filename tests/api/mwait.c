/*
 * MONITOR and MWAIT: they do nothing, for guests that are told of them and for those that are not; user space
 * has the latter's #UD by KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS. IA32_MISC_ENABLE, where it decides what CPUID
 * says: KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT. api.rst 7.31
 */
#include <errno.h>

#include "tests/api/api.h"
#include "tests/api/flat.h"

#define MSR_MISC_ENABLE	0x1a0
#define MISC_EMON	BIT(7)
#define MISC_NO_BTS	BIT(11)
#define MISC_MWAIT	BIT(18)
#define LEAF1_MONITOR	BIT(3)

static const u8 monitor[] = { 0x0f, 0x01, 0xc8 }, mwait[] = { 0x0f, 0x01, 0xc9 };
static const u8 cpuid[] = { 0x0f, 0xa2 };

static void mwait_machine(struct machine *m, bool told)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[100];
	} c = { .head.nent = 100 };

	skip_on_emulated_host("its emulator has no MONITOR");
	machine_new(m, PLAIN);
	require_cap(m, KVM_CAP_DISABLE_QUIRKS2);
	assert_int_equal(call(m->sys, KVM_GET_SUPPORTED_CPUID, &c), 0);
	for (u32 k = 0; k < c.head.nent; k++)
		if (c.entry[k].function == 1)
			c.entry[k].ecx = (c.entry[k].ecx & ~(u32)LEAF1_MONITOR) | (told ? LEAF1_MONITOR : 0);
	assert_int_equal(call(m->vcpu, KVM_SET_CPUID2, &c), 0);
}

static bool runs(struct machine *m, const u8 *insn, u64 rcx)
{
	struct kvm_regs r = { .rax = FLAT_DATA, .rcx = rcx };

	return flat_insn(m, insn, 3, &r) == KVM_EXIT_IO;
}

static bool cpuid_says(struct machine *m)
{
	struct kvm_regs r = { .rax = 1 };

	assert_int_equal(flat_insn(m, cpuid, sizeof(cpuid), &r), KVM_EXIT_IO);
	return r.rcx & LEAF1_MONITOR;
}

static void test_faults(void **state)
{
	struct machine m;

	for (int told = 0; told < 2; told++) {
		mwait_machine(&m, told);
		assert_true(runs(&m, monitor, 0));
		assert_true(runs(&m, mwait, 0));
		assert_false(runs(&m, monitor, 1));
		assert_false(runs(&m, mwait, 2));
		enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS);
		assert_int_equal(runs(&m, monitor, 0), told);
		assert_int_equal(runs(&m, mwait, 0), told);
		enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, 0);
		assert_true(runs(&m, mwait, 0));
		machine_free(&m);
	}
}

static void test_misc_enable(void **state)
{
	struct machine m;
	u64 val;

	mwait_machine(&m, false);
	val = get_msr(m.vcpu, MSR_MISC_ENABLE);
	/* The quirk: CPUID stays as it is. */
	assert_int_equal(set_msr(m.vcpu, MSR_MISC_ENABLE, val | MISC_MWAIT), 1);
	assert_false(cpuid_says(&m));
	assert_int_equal(set_msr(m.vcpu, MSR_MISC_ENABLE, val & ~MISC_MWAIT), 1);
	enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2,
		KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS);
	assert_false(runs(&m, mwait, 0));
	assert_int_equal(set_msr(m.vcpu, MSR_MISC_ENABLE, val | MISC_MWAIT), 1);
	assert_true(cpuid_says(&m));
	assert_true(runs(&m, mwait, 0));
	/* The guest's own write; there is no changing of what says what there is. */
	assert_int_equal(flat_wrmsr(&m, MSR_MISC_ENABLE, (val & ~MISC_MWAIT) ^ MISC_EMON), KVM_EXIT_IO);
	assert_false(cpuid_says(&m));
	assert_int_equal(get_msr(m.vcpu, MSR_MISC_ENABLE), val & ~MISC_MWAIT);
	assert_int_not_equal(flat_wrmsr(&m, MSR_MISC_ENABLE, val ^ MISC_NO_BTS), KVM_EXIT_IO);
	machine_free(&m);
}

static void test_no_exits(void **state)
{
	const u32 all = KVM_X86_DISABLE_EXITS_MWAIT | KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE |
		KVM_X86_DISABLE_EXITS_CSTATE;
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_DISABLE_EXITS };
	struct machine m;

	mwait_machine(&m, true);
	if (call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_DISABLE_EXITS) != all) {
		machine_free(&m);
		skip();
	}
	cap.args[0] = 2 * (u64)KVM_X86_DISABLE_EXITS_CSTATE;
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &cap), -EINVAL);
	cap.args[0] = KVM_X86_DISABLE_EXITS_MWAIT | KVM_X86_DISABLE_EXITS_CSTATE;
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &cap), 0);
	for (int k = 0; k < 100; k++) {
		assert_true(runs(&m, monitor, 0));
		assert_true(runs(&m, mwait, 0));
	}
	machine_free(&m);
}

int test_mwait(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_misc_enable),
		cmocka_unit_test(test_no_exits),
	};

	return cmocka_run_group_tests_name("mwait", tests, NULL, NULL);
}
