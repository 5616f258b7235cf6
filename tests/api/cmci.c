/*
 * The corrected machine-check interrupt (SDM 3B 16.5): KVM_X86_SETUP_MCE with MCG_CMCI_P gives the local APIC its entry and
 * each bank its IA32_MCi_CTL2; an error without a required action, by KVM_X86_SET_MCE, arrives there.
 */
#include <errno.h>
#include <string.h>

#include "tests/api/api.h"
#include "tests/api/flat.h"

#define CMCI_P		BIT(10)
#define BANKS		8u
#define MC_CTL2(n)	(0x280u + (n))
#define CTL2_EN		BIT(30)
#define BANK		5u
#define VECTOR		0x51
#define LVT_CMCI	0x2f0
#define LVR		0x30
#define MASKED		BIT(16)

static bool supported(struct machine *m)
{
	u64 cap = 0;

	assert_int_equal(call(m->sys, KVM_X86_GET_MCE_CAP_SUPPORTED, &cap), 0);
	return cap & CMCI_P;
}

static void cmci_machine(struct machine *m, u64 cap)
{
	u64 setup = BANKS | cap;

	machine_new(m, WITH_IRQCHIP);
	if (!supported(m)) {
		machine_free(m);
		skip();
	}
	cpuid_with(m, 0, false);
	assert_int_equal(call(m->vcpu, KVM_X86_SETUP_MCE, &setup), 0);
	lapic_enable(m->vcpu);
}

static u32 lapic_reg(struct machine *m, u32 at)
{
	struct kvm_lapic_state s;
	u32 val;

	assert_int_equal(call(m->vcpu, KVM_GET_LAPIC, &s), 0);
	memcpy(&val, s.regs + at, sizeof(val));
	return val;
}

/* MOV [0xfee002f0], EAX and back. */
static u32 guest_lvt(struct machine *m, u32 val)
{
	static const u8 insn[] = { 0xa3, 0xf0, 0x02, 0xe0, 0xfe, 0xa1, 0xf0, 0x02, 0xe0, 0xfe };
	struct kvm_regs r = { .rax = val };

	assert_int_equal(flat_insn(m, insn, sizeof(insn), &r), KVM_EXIT_IO);
	return (u32)r.rax;
}

static void inject(struct machine *m, u64 addr)
{
	struct kvm_x86_mce mce = { .status = BIT(63) | BIT(61) | BIT(58), .addr = addr, .bank = BANK };

	assert_int_equal(call(m->vcpu, KVM_X86_SET_MCE, &mce), 0);
	assert_int_equal(get_msr(m->vcpu, 0x400 + 4 * BANK + 2), addr);
}

static void test_arrives(void **state)
{
	struct machine m;

	cmci_machine(&m, CMCI_P);
	assert_int_equal(lapic_reg(&m, LVR) >> 16, 6);
	assert_int_equal(lapic_reg(&m, LVT_CMCI), MASKED);
	assert_int_equal(guest_lvt(&m, VECTOR), VECTOR);
	inject(&m, 0x1000);
	assert_false(lapic_requested(m.vcpu, VECTOR));	/* not enabled in the bank */
	assert_int_equal(flat_wrmsr(&m, MC_CTL2(BANK), CTL2_EN | 1), KVM_EXIT_IO);
	assert_int_equal(guest_lvt(&m, VECTOR | MASKED), VECTOR | MASKED);
	inject(&m, 0x2000);
	assert_false(lapic_requested(m.vcpu, VECTOR));
	assert_int_equal(guest_lvt(&m, VECTOR), VECTOR);
	inject(&m, 0x3000);
	assert_true(lapic_requested(m.vcpu, VECTOR));
	machine_free(&m);
}

static void test_ctl2(void **state)
{
	struct machine m;
	u64 val;

	cmci_machine(&m, CMCI_P);
	assert_int_equal(flat_wrmsr(&m, MC_CTL2(BANKS - 1), CTL2_EN | 0x7fff), KVM_EXIT_IO);
	assert_int_equal(flat_rdmsr(&m, MC_CTL2(BANKS - 1), &val), KVM_EXIT_IO);
	assert_int_equal(val, CTL2_EN | 0x7fff);
	assert_int_not_equal(flat_wrmsr(&m, MC_CTL2(0), BIT(15)), KVM_EXIT_IO);
	assert_int_not_equal(flat_wrmsr(&m, MC_CTL2(0), BIT(29)), KVM_EXIT_IO);
	assert_int_not_equal(flat_wrmsr(&m, MC_CTL2(BANKS), 0), KVM_EXIT_IO);
	machine_free(&m);
}

static void test_not_there(void **state)
{
	struct machine m;
	u64 val;

	cmci_machine(&m, 0);
	assert_int_equal(lapic_reg(&m, LVR) >> 16, 5);
	assert_int_equal(guest_lvt(&m, VECTOR), 0);
	assert_int_not_equal(flat_rdmsr(&m, MC_CTL2(BANK), &val), KVM_EXIT_IO);
	assert_int_not_equal(flat_wrmsr(&m, MC_CTL2(BANK), 0), KVM_EXIT_IO);
	assert_int_equal(msr_get(m.vcpu, MC_CTL2(BANK), &val), 1);
	assert_int_equal(msr_put(m.vcpu, MC_CTL2(BANK), 0), 1);
	assert_int_equal(msr_put(m.vcpu, MC_CTL2(BANK), CTL2_EN), 0);
	machine_free(&m);
}

int test_cmci(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arrives),
		cmocka_unit_test(test_ctl2),
		cmocka_unit_test(test_not_there),
	};

	return cmocka_run_group_tests_name("cmci", tests, NULL, NULL);
}
