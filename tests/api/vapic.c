/* The task priority in a word of guest memory, and reports of its use. api.rst 4.36, 4.37 */
#include <errno.h>
#include <string.h>

#include "tests/api/api.h"

#define WORD_AT	0x600

/* A machine with an APIC whose page is at DS:0, ES is the memory's start. */
static void apic_machine(struct machine *m, u64 word_at)
{
	struct kvm_vapic_addr va = { .vapic_addr = word_at };
	struct kvm_sregs s;

	machine_new(m, WITH_IRQCHIP);
	s = get_sregs(m->vcpu);
	s.ds.base = 0xfee00000;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(call(m->vcpu, KVM_SET_VAPIC_ADDR, &va), 0);
}

static void code_at(struct machine *m, const void *code, size_t size)
{
	struct kvm_regs r = { .rip = CODE_AT, .rsp = 0x8000, .rflags = 2 };

	memcpy(m->ram + CODE_AT, code, size);
	set_regs(m->vcpu, &r);
}

static u32 tpr(struct machine *m)
{
	struct kvm_lapic_state lapic;

	assert_int_equal(call(m->vcpu, KVM_GET_LAPIC, &lapic), 0);
	return *(u32 *)(lapic.regs + 0x80);
}

/* What the guest writes to the register shows in the word, and the other way about. */
static void test_word(void **state)
{
	static const u8 code[] = {
		0x66, 0xc7, 0x06, 0x80, 0x00, 0x30, 0x00, 0x00, 0x00,	/* mov dword [80h], 30h */
		0xe6, 0x99, 0xe6, 0x99,					/* out 99h, al; twice */
		0x26, 0xc6, 0x06, 0x00, 0x06, 0x50,			/* mov byte es:[600h], 50h */
		0xe6, 0x99,
		0x66, 0xc7, 0x06, 0x80, 0x00, 0x40, 0x00, 0x00, 0x00,
		0xe6, 0x99, 0xe6, 0x99,
	};
	struct machine m;

	skip_on_emulated_host("writes the word only when it enters the guest, which it hardly does");
	apic_machine(&m, WORD_AT);
	memset(m.ram + WORD_AT, 0, 4);
	code_at(&m, code, sizeof(code));
	run_until(&m, KVM_EXIT_IO);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(*(u32 *)(m.ram + WORD_AT), 0x30);
	assert_int_equal(tpr(&m), 0x30);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(tpr(&m), 0x50);
	run_until(&m, KVM_EXIT_IO);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(*(u32 *)(m.ram + WORD_AT), 0x40);
	assert_int_equal(tpr(&m), 0x40);
	machine_free(&m);
}

static void test_arguments(void **state)
{
	struct kvm_vapic_addr va = { .vapic_addr = RAM_SIZE * 16 };
	struct kvm_tpr_access_ctl ctl = { .flags = 1 };
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vcpu, KVM_SET_VAPIC_ADDR, &va), -EINVAL);
	machine_free(&m);
	machine_new(&m, WITH_IRQCHIP);
	assert_int_equal(call(m.vcpu, KVM_SET_VAPIC_ADDR, &va), -EINVAL);
	va.vapic_addr = 0;
	assert_int_equal(call(m.vcpu, KVM_SET_VAPIC_ADDR, &va), 0);
	assert_int_equal(call(m.vcpu, KVM_TPR_ACCESS_REPORTING, &ctl), -EINVAL);
	machine_free(&m);
}

/* Reports come when the access is done. */
static void test_reports(void **state)
{
	static const u8 code[] = {
		0x66, 0xc7, 0x06, 0x80, 0x00, 0x30, 0x00, 0x00, 0x00,	/* mov dword [80h], 30h */
		0x66, 0xa1, 0x80, 0x00,					/* mov eax, [80h] */
		0xe6, 0x99,
	};
	struct kvm_tpr_access_ctl ctl = { .enabled = 1 };
	struct machine m;

	skip_on_emulated_host("reports no access between emulated instructions");
	apic_machine(&m, 0);
	assert_int_equal(call(m.vcpu, KVM_TPR_ACCESS_REPORTING, &ctl), 0);
	code_at(&m, code, sizeof(code));
	run_until(&m, KVM_EXIT_TPR_ACCESS);
	assert_int_equal(m.run->tpr_access.rip, CODE_AT);
	assert_int_equal(m.run->tpr_access.is_write, 1);
	assert_int_equal(tpr(&m), 0x30);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 9);
	run_until(&m, KVM_EXIT_TPR_ACCESS);
	assert_int_equal(m.run->tpr_access.rip, CODE_AT + 9);
	assert_int_equal(m.run->tpr_access.is_write, 0);
	assert_int_equal((u32)get_regs(m.vcpu).rax, 0x30);
	ctl.enabled = 0;
	assert_int_equal(call(m.vcpu, KVM_TPR_ACCESS_REPORTING, &ctl), 0);
	code_at(&m, code, sizeof(code));
	run_until(&m, KVM_EXIT_IO);
	machine_free(&m);
}

int test_vapic(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_word),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_reports),
	};

	return cmocka_run_group_tests_name("vapic", tests, NULL, NULL);
}
