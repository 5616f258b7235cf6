/*
 * KVM_EXIT_SET_TPR: without an irqchip of the hypervisor's a guest that lowers CR8 comes out, as an interrupt of user space's
 * local APIC may have waited for that. Linux arch/x86/kvm (svm.c, vmx.c); api.rst 5 has cr8 only.
 */
#include "tests/api/api.h"

/* MOV CR8, RAX by its 32-bit name (LOCK MOV CR0) is AMD's only: 64-bit code, then OUT to port 0x10. */
static const u8 code[] = { 0x44, 0x0f, 0x22, 0xc0, 0xe6, 0x10 };

static u32 write_cr8(struct machine *m, u64 val)
{
	struct kvm_regs r = { .rip = CODE_AT, .rflags = 2, .rax = val, .rsp = 0x8000 };

	set_regs(m->vcpu, &r);
	assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	return m->run->exit_reason;
}

static void test_lowered(void **state)
{
	struct machine m;

	skip_on_emulated_host("MOV CR8 is emulated, without this exit");
	machine_new(&m, PLAIN);
	paged_mode(&m);
	for (size_t i = 0; i < sizeof(code); i++)
		m.ram[CODE_AT + i] = code[i];
	assert_int_equal(write_cr8(&m, 5), KVM_EXIT_IO);
	assert_int_equal(write_cr8(&m, 5), KVM_EXIT_IO);
	assert_int_equal(write_cr8(&m, 9), KVM_EXIT_IO);
	assert_int_equal(write_cr8(&m, 3), KVM_EXIT_SET_TPR);
	assert_int_equal(m.run->cr8, 3);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 4);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(m.run->exit_reason, KVM_EXIT_IO);
	machine_free(&m);
}

int test_cr8(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lowered),
	};

	return cmocka_run_group_tests_name("cr8", tests, NULL, NULL);
}
