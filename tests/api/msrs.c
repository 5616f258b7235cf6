/* The guest's MSR accesses in user space's hands: KVM_X86_SET_MSR_FILTER, KVM_EXIT_X86_RDMSR. */
#include <errno.h>
#include <string.h>

#include "tests/api/api.h"

#define MSR_UNKNOWN	0x474f4f00
#define MSR_EFER	0xc0000080
#define MSR_APIC_BASE	0x1b
#define MSR_PAT		0x277

#define REASONS	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER)

/* rdmsr; hlt. And mov eax, 0x11223344; mov edx, 0x55667788; wrmsr; hlt */
#define RDMSR(m) CODE(m, 0x0f, 0x32, 0xf4)
#define WRMSR(m) CODE(m, 0x66, 0xb8, 0x44, 0x33, 0x22, 0x11, 0x66, 0xba, 0x88, 0x77, 0x66, 0x55, 0x0f, 0x30, 0xf4)

static void set_index(struct machine *m, u32 index)
{
	struct kvm_regs r = get_regs(m->vcpu);

	r.rcx = index;
	r.rax = r.rdx = 0;
	set_regs(m->vcpu, &r);
}

/* #GP leads to HLT at 0x1800. */
static void msr_machine(struct machine *m)
{
	machine_new(m, PLAIN);
	*(u32 *)(m->ram + 13 * 4) = 0x1800;
	m->ram[0x1800] = 0xf4;
}

static void expect_gp(struct machine *m)
{
	run_to_halt(m);
	assert_int_equal(get_regs(m->vcpu).rip, 0x1801);
}

static void expect_msr(struct machine *m, u32 exit, u32 index, u32 reason)
{
	run_until(m, exit);
	assert_int_equal(m->run->msr.index, index);
	assert_int_equal(m->run->msr.reason, reason);
	assert_int_equal(m->run->msr.error, 0);
}

static long filter(struct machine *m, u32 flags, u32 kind, u32 first, u32 count, void *bitmap)
{
	struct kvm_msr_filter f = { .flags = flags,
		.ranges[2] = { .flags = kind, .nmsrs = count, .base = first, .bitmap = bitmap } };

	return call(m->vm, KVM_X86_SET_MSR_FILTER, &f);
}

static void test_exit_unknown(void **state)
{
	struct kvm_enable_cap bad = { .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { BIT(5) } };
	struct machine m;

	msr_machine(&m);
	require_cap(&m, KVM_CAP_X86_USER_SPACE_MSR);
	RDMSR(&m);
	set_index(&m, MSR_UNKNOWN);
	expect_gp(&m);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &bad), -EINVAL);
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, REASONS);
	RDMSR(&m);
	set_index(&m, MSR_UNKNOWN);
	expect_msr(&m, KVM_EXIT_X86_RDMSR, MSR_UNKNOWN, KVM_MSR_EXIT_REASON_UNKNOWN);
	m.run->msr.data = 0x1122334455667788;
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax, 0x55667788);
	assert_int_equal(get_regs(m.vcpu).rdx, 0x11223344);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 3);
	/* The same, answered by #GP. */
	RDMSR(&m);
	set_index(&m, MSR_UNKNOWN);
	expect_msr(&m, KVM_EXIT_X86_RDMSR, MSR_UNKNOWN, KVM_MSR_EXIT_REASON_UNKNOWN);
	m.run->msr.error = 1;
	expect_gp(&m);
	assert_int_equal(get_regs(m.vcpu).rax, 0);
	machine_free(&m);
}

static void test_exit_write(void **state)
{
	struct machine m;

	skip_on_emulated_host("its emulator tells user space of unknown registers only");
	msr_machine(&m);
	require_cap(&m, KVM_CAP_X86_USER_SPACE_MSR);
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, REASONS);
	WRMSR(&m);
	set_index(&m, MSR_UNKNOWN);
	expect_msr(&m, KVM_EXIT_X86_WRMSR, MSR_UNKNOWN, KVM_MSR_EXIT_REASON_UNKNOWN);
	assert_int_equal(m.run->msr.data, 0x5566778811223344);
	run_to_halt(&m);
	/* A register that exists, with a value that it does not take. */
	WRMSR(&m);
	set_index(&m, MSR_PAT);
	expect_msr(&m, KVM_EXIT_X86_WRMSR, MSR_PAT, KVM_MSR_EXIT_REASON_INVAL);
	m.run->msr.error = 1;
	expect_gp(&m);
	/* Only what was asked for comes. */
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER);
	WRMSR(&m);
	set_index(&m, MSR_PAT);
	expect_gp(&m);
	WRMSR(&m);
	set_index(&m, MSR_UNKNOWN);
	expect_gp(&m);
	machine_free(&m);
}

/* The answer counts even if the vCPU is to run no further. */
static void test_immediate_exit(void **state)
{
	struct machine m;

	msr_machine(&m);
	require_cap(&m, KVM_CAP_X86_USER_SPACE_MSR);
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, REASONS);
	RDMSR(&m);
	set_index(&m, MSR_UNKNOWN);
	expect_msr(&m, KVM_EXIT_X86_RDMSR, MSR_UNKNOWN, KVM_MSR_EXIT_REASON_UNKNOWN);
	m.run->msr.data = 0x77;
	m.run->immediate_exit = 1;
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EINTR);
	assert_int_equal(get_regs(m.vcpu).rax, 0x77);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 2);
	machine_free(&m);
}

static void test_filter(void **state)
{
	u64 none = 0, efer = 1;
	struct machine m;

	skip_on_emulated_host("its emulator tells user space of unknown registers only");
	msr_machine(&m);
	require_cap(&m, KVM_CAP_X86_MSR_FILTER);
	assert_int_equal(filter(&m, 0, KVM_MSR_FILTER_READ, MSR_PAT, 1, &none), 0);
	RDMSR(&m);
	set_index(&m, MSR_PAT);
	expect_gp(&m);
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER);
	RDMSR(&m);
	set_index(&m, MSR_PAT);
	expect_msr(&m, KVM_EXIT_X86_RDMSR, MSR_PAT, KVM_MSR_EXIT_REASON_FILTER);
	m.run->msr.data = 0x1234;
	/* What changes while user space thinks does not touch its answer. */
	assert_int_equal(filter(&m, 0, 0, 0, 0, NULL), 0);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax, 0x1234);
	RDMSR(&m);
	set_index(&m, MSR_PAT);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax, 0x00070406);
	/* User space itself is not filtered; writes are another kind. */
	assert_int_equal(filter(&m, 0, KVM_MSR_FILTER_WRITE, MSR_PAT, 1, &none), 0);
	assert_int_equal(get_msr(m.vcpu, MSR_PAT), 0x0007040600070406);
	RDMSR(&m);
	set_index(&m, MSR_PAT);
	run_to_halt(&m);
	/* Deny all but one. */
	assert_int_equal(filter(&m, KVM_MSR_FILTER_DEFAULT_DENY, KVM_MSR_FILTER_READ, MSR_EFER, 2,
		&efer), 0);
	RDMSR(&m);
	set_index(&m, MSR_EFER);
	run_to_halt(&m);
	RDMSR(&m);
	set_index(&m, MSR_EFER + 1);
	expect_msr(&m, KVM_EXIT_X86_RDMSR, MSR_EFER + 1, KVM_MSR_EXIT_REASON_FILTER);
	RDMSR(&m);
	set_index(&m, MSR_APIC_BASE);
	expect_msr(&m, KVM_EXIT_X86_RDMSR, MSR_APIC_BASE, KVM_MSR_EXIT_REASON_FILTER);
	machine_free(&m);
}

static void test_filter_arguments(void **state)
{
	static u8 bitmap[KVM_MSR_FILTER_MAX_BITMAP_SIZE + 8];
	const u32 both = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
	struct machine m;

	msr_machine(&m);
	require_cap(&m, KVM_CAP_X86_MSR_FILTER);
	assert_int_equal(filter(&m, 2, both, 0, 1, bitmap), -EINVAL);
	assert_int_equal(filter(&m, KVM_MSR_FILTER_DEFAULT_DENY, both, 0, 0, NULL), -EINVAL);
	assert_int_equal(filter(&m, 0, 0, 0, 1, bitmap), -EINVAL);
	assert_int_equal(filter(&m, 0, 4, 0, 1, bitmap), -EINVAL);
	assert_int_equal(filter(&m, 0, both, 0, KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8 + 1, bitmap), -EINVAL);
	assert_int_equal(filter(&m, 0, both, 0, KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8, bitmap), 0);
	assert_int_equal(filter(&m, 0, both, 0, 8, (void *)8), -EFAULT);
	machine_free(&m);
}

int test_user_msrs(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit_unknown),
		cmocka_unit_test(test_exit_write),
		cmocka_unit_test(test_immediate_exit),
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_filter_arguments),
	};

	return cmocka_run_group_tests_name("msrs", tests, NULL, NULL);
}
