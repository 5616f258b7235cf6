/* Injected interrupts and NMIs, the interrupt window, saved events, guest debugging. */
#include <errno.h>
#include <string.h>

#include "tests/api/api.h"

/* Vector n leads to 0:0x1800 + n: a HLT of its own. */
static void vectors_to_halts(struct machine *m)
{
	u32 n;

	for (n = 0; n < 256; n++) {
		*(u32 *)(m->ram + n * 4) = 0x1800 + n;
		m->ram[0x1800 + n] = 0xf4;
	}
}

static void inject(struct machine *m, u32 vector)
{
	struct kvm_interrupt irq = { .irq = vector };

	assert_int_equal(call(m->vcpu, KVM_INTERRUPT, &irq), 0);
}

static void expect_vector(struct machine *m, u32 n)
{
	run_to_halt(m);
	assert_int_equal(get_regs(m->vcpu).rip, 0x1801 + n);
}

static void test_interrupt(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	vectors_to_halts(&m);
	CODE(&m, 0xfb, 0x90, 0x90, 0xf4);	/* sti; nop; nop; hlt */
	run_to_halt(&m);
	assert_int_equal(m.run->if_flag, 1);
	assert_int_equal(m.run->ready_for_interrupt_injection, 1);
	inject(&m, 0x21);
	expect_vector(&m, 0x21);
	assert_int_equal(m.run->if_flag, 0);
	assert_int_equal(m.run->ready_for_interrupt_injection, 0);
	/* The return address is that after HLT. */
	assert_int_equal(*(u16 *)(m.ram + 0x7ffa), CODE_AT + 4);
	machine_free(&m);
}

static void test_window(void **state)
{
	struct machine m;

	skip_on_emulated_host("opens no window between emulated instructions");
	machine_new(&m, PLAIN);
	vectors_to_halts(&m);
	CODE(&m, 0x90, 0x90, 0xfb, 0x40, 0x40, 0xf4);	/* nop; nop; sti; inc ax; inc ax; hlt */
	m.run->request_interrupt_window = 1;
	run_until(&m, KVM_EXIT_IRQ_WINDOW_OPEN);
	/* After the instruction that follows STI. */
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 4);
	assert_int_equal(get_regs(m.vcpu).rax, 1);
	assert_int_equal(m.run->ready_for_interrupt_injection, 1);
	m.run->request_interrupt_window = 0;
	inject(&m, 0x30);
	expect_vector(&m, 0x30);
	assert_int_equal(*(u16 *)(m.ram + 0x7ffa), CODE_AT + 4);
	machine_free(&m);
}

static void test_interrupt_arguments(void **state)
{
	struct kvm_interrupt irq = { .irq = 256 };
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vcpu, KVM_INTERRUPT, &irq), -EINVAL);
	machine_free(&m);
	machine_new(&m, WITH_IRQCHIP);
	irq.irq = 32;
	assert_int_equal(call(m.vcpu, KVM_INTERRUPT, &irq), -ENXIO);
	machine_free(&m);
}

/* An interrupt that arrives while an I/O instruction waits for user space comes after that
 * instruction. */
static void test_interrupt_during_io(void **state)
{
	struct machine m;

	machine_new(&m, PLAIN);
	vectors_to_halts(&m);
	CODE(&m, 0xfb, 0x90, 0xe4, 0x60, 0x40, 0xf4);	/* sti; nop; in al, 0x60; inc ax; hlt */
	run_until(&m, KVM_EXIT_IO);
	*(u8 *)io_data(m.run) = 0x10;
	inject(&m, 0x40);
	expect_vector(&m, 0x40);
	assert_int_equal(get_regs(m.vcpu).rax & 0xff, 0x10);
	assert_int_equal(*(u16 *)(m.ram + 0x7ffa), CODE_AT + 4);
	machine_free(&m);
}

static void test_nmi(void **state)
{
	struct machine m;

	skip_on_emulated_host("delivers a second NMI only at the next exit");
	machine_new(&m, PLAIN);
	vectors_to_halts(&m);
	m.ram[0x1802] = 0x90;		/* handler: nop; iret, so that the second NMI comes */
	CODE(&m, 0x90, 0xf4);
	assert_int_equal(call_num(m.vcpu, KVM_NMI, 0), 0);
	*(u32 *)(m.ram + 2 * 4) = 0x1900;
	memcpy(m.ram + 0x1900, "\xfe\x06\x00\x05\xf4\xcf", 6);	/* inc byte [0x500]; hlt; iret */
	run_to_halt(&m);
	assert_int_equal(m.ram[0x500], 1);
	/* Blocked until IRET. */
	assert_int_equal(call_num(m.vcpu, KVM_NMI, 0), 0);
	run_to_halt(&m);
	assert_int_equal(m.ram[0x500], 2);
	assert_int_equal(*(u16 *)(m.ram + 0x7ffa), CODE_AT);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 2);
	machine_free(&m);
}

/* Handler: inc byte [0x500]; iret. Code: nop; out 0x10, al */
static void nmi_counter(struct machine *m)
{
	*(u32 *)(m->ram + 2 * 4) = 0x1900;
	memcpy(m->ram + 0x1900, "\xfe\x06\x00\x05\xcf", 5);
	CODE(m, 0x90, 0xe6, 0x10);
}

/* One is served, one latched meanwhile, the third is lost. SDM 3A 6.7.1 */
static void test_many_nmis(void **state)
{
	struct kvm_vcpu_events e;
	struct machine m;
	int i;

	skip_on_emulated_host("delivers a second NMI only at the next exit");
	machine_new(&m, PLAIN);
	nmi_counter(&m);
	for (i = 0; i < 3; i++)
		assert_int_equal(call_num(m.vcpu, KVM_NMI, 0), 0);
	assert_int_equal(call(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	assert_int_equal(e.nmi.pending, 1);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.ram[0x500], 2);
	machine_free(&m);
}

/* The same by messages. */
static void test_many_nmi_messages(void **state)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 4 << 8 };
	struct machine m;
	int i;

	skip_on_emulated_host("delivers a second NMI only at the next exit");
	machine_new(&m, WITH_IRQCHIP);
	nmi_counter(&m);
	for (i = 0; i < 3; i++)
		assert_int_equal(call(m.vm, KVM_SIGNAL_MSI, &msi), 1);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.ram[0x500], 2);
	machine_free(&m);
}

static void test_saved_events(void **state)
{
	struct kvm_vcpu_events e;
	struct machine m;

	machine_new(&m, PLAIN);
	vectors_to_halts(&m);
	CODE(&m, 0x90, 0xf4);
	assert_int_equal(call(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	assert_int_equal(e.exception.injected, 0);
	assert_int_equal(e.interrupt.injected, 0);
	assert_int_equal(e.nmi.pending | e.nmi.masked | e.nmi.injected, 0);
	e.exception.injected = 1;
	e.exception.nr = 2;
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	e.exception.nr = 32;
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	e.exception.nr = 6;
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	expect_vector(&m, 6);
	e.exception.injected = 0;
	e.flags = BIT(20);
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	machine_free(&m);
}

static struct kvm_vcpu_events get_events(struct machine *m)
{
	struct kvm_vcpu_events e;

	assert_int_equal(call(m->vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	return e;
}

static void set_events(struct machine *m, const struct kvm_vcpu_events *e)
{
	assert_int_equal(call(m->vcpu, KVM_SET_VCPU_EVENTS, e), 0);
}

static void set_rip(struct machine *m, u64 rip)
{
	struct kvm_regs r = get_regs(m->vcpu);

	r.rip = rip;
	set_regs(m->vcpu, &r);
}

/* New registers drop a pending exception, wherever RIP goes, and none that is injected, nor an NMI. */
static void test_set_regs_drops_pending(void **state)
{
	struct kvm_vcpu_events e;
	struct machine m;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_EXCEPTION_PAYLOAD);
	enable_cap(m.vm, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	vectors_to_halts(&m);
	CODE(&m, 0x90, 0xf4);
	e = get_events(&m);
	e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	e.exception.pending = 1;
	e.exception.nr = 6;
	set_events(&m, &e);
	e = get_events(&m);
	assert_int_equal(e.exception.pending, 1);
	assert_int_equal(e.exception.injected, 0);
	set_rip(&m, CODE_AT);
	assert_int_equal(get_events(&m).exception.pending, 0);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 2);
	e = get_events(&m);
	e.exception.injected = 1;
	e.exception.nr = 6;
	set_events(&m, &e);
	set_rip(&m, CODE_AT + 1);
	assert_int_equal(get_events(&m).exception.injected, 1);
	expect_vector(&m, 6);
	assert_int_equal(*(u16 *)(m.ram + 0x7ffa), CODE_AT + 1);
	e = get_events(&m);
	e.nmi.injected = 1;
	set_events(&m, &e);
	set_rip(&m, CODE_AT);
	assert_int_equal(get_events(&m).nmi.injected, 1);
	expect_vector(&m, 2);
	machine_free(&m);
}

static void answer_gate(struct machine *m, u32 vector)
{
	u32 gate = 0x1800 + vector;

	run_until(m, KVM_EXIT_MMIO);
	assert_int_equal(m->run->mmio.phys_addr, 0x200000 + 4 * vector);
	memcpy(m->run->mmio.data, &gate, sizeof(gate));
}

/*
 * In the midst of INT n, INT3: its gate lies in a device. Nothing is told of it, so that who saves and
 * restores has the instruction again, and what it returns to is right.
 */
static void soft_event(const u8 *insn, size_t size, u32 vector)
{
	struct kvm_vcpu_events e;
	struct kvm_sregs s;
	struct machine m;

	machine_new(&m, PLAIN);
	vectors_to_halts(&m);
	machine_code(&m, insn, size);
	s = get_sregs(m.vcpu);
	s.idt.base = 0x200000;
	s.idt.limit = 0x3ff;
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
	answer_gate(&m, vector);
	e = get_events(&m);
	assert_int_equal(e.interrupt.injected | e.interrupt.soft, 0);
	assert_int_equal(e.exception.injected | e.exception.pending, 0);
	set_events(&m, &e);
	answer_gate(&m, vector);
	expect_vector(&m, vector);
	assert_int_equal(*(u16 *)(m.ram + 0x7ffa), CODE_AT + size);
	machine_free(&m);
}

static void test_soft_events(void **state)
{
	static const u8 int1[] = { 0xf1 };
	static const u8 int21[] = { 0xcd, 0x21 }, int3[] = { 0xcc };

	/* Its processor walks the gates, and knows no devices there. */
	if (api_is_host())
		skip();
	soft_event(int21, sizeof(int21), 0x21);
	soft_event(int3, sizeof(int3), 3);
	soft_event(int1, sizeof(int1), 1);
}

/* An exception goes first, and the interrupt or NMI that was set with it is still there. */
static void test_exception_with_others(void **state)
{
	struct kvm_vcpu_events e;
	struct kvm_regs r;
	struct machine m;

	if (api_is_host())
		skip();
	machine_new(&m, PLAIN);
	vectors_to_halts(&m);
	CODE(&m, 0x90, 0xf4);
	*(u32 *)(m.ram + 6 * 4) = 0x1900;
	memcpy(m.ram + 0x1900, "\x90\xeb\x00\xf4", 4);	/* nop; jmp +0; hlt */
	e = get_events(&m);
	e.exception.injected = 1;
	e.exception.nr = 6;
	e.nmi.injected = 1;
	e.interrupt.injected = 1;
	e.interrupt.nr = 0x21;
	set_events(&m, &e);
	e = get_events(&m);
	assert_int_equal(e.exception.injected, 1);
	assert_int_equal(e.interrupt.injected, 1);
	assert_int_equal(e.interrupt.nr, 0x21);
	/* The NMI follows at the handler's beginning. */
	expect_vector(&m, 2);
	assert_int_equal(*(u16 *)(m.ram + 0x7ffa), CODE_AT);
	assert_in_range(*(u16 *)(m.ram + 0x7ff4), 0x1900, 0x1903);
	e = get_events(&m);
	assert_int_equal(e.interrupt.injected, 1);
	assert_int_equal(e.nmi.masked, 1);
	r = get_regs(m.vcpu);
	r.rflags |= 0x200;
	set_regs(m.vcpu, &r);
	expect_vector(&m, 0x21);
	/* The same with an NMI alone. */
	e = get_events(&m);
	e.nmi.injected = 1;
	e.interrupt.injected = 1;
	e.interrupt.nr = 0x22;
	set_events(&m, &e);
	expect_vector(&m, 2);
	assert_int_equal(get_events(&m).interrupt.nr, 0x22);
	machine_free(&m);
}

static void test_shadow(void **state)
{
	struct kvm_vcpu_events e;
	struct machine m;

	skip_on_emulated_host("opens no window between emulated instructions");
	machine_new(&m, PLAIN);
	vectors_to_halts(&m);
	CODE(&m, 0x90, 0x40, 0xf4);	/* nop; inc ax; hlt with interrupts on and in a shadow */
	assert_int_equal(call(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	{
		struct kvm_regs r = get_regs(m.vcpu);

		r.rflags |= 0x200;
		set_regs(m.vcpu, &r);
	}
	e.flags = KVM_VCPUEVENT_VALID_SHADOW;
	e.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	e.interrupt.injected = 0;
	assert_int_equal(call(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	m.run->request_interrupt_window = 1;
	run_until(&m, KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 1);
	machine_free(&m);
}

static void test_single_step(void **state)
{
	struct kvm_guest_debug d = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	struct machine m;

	machine_new(&m, PLAIN);
	CODE(&m, 0x40, 0x90, 0x40, 0xf4);	/* inc ax; nop; inc ax; hlt */
	assert_int_equal(call(m.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	run_until(&m, KVM_EXIT_DEBUG);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 1);
	assert_int_equal(m.run->debug.arch.exception, 1);
	assert_true(m.run->debug.arch.dr6 & BIT(14));
	run_until(&m, KVM_EXIT_DEBUG);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 2);
	assert_int_equal(m.run->debug.arch.pc, CODE_AT + 2);
	d.control = 0;
	assert_int_equal(call(m.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax, 2);
	machine_free(&m);
}

static void test_breakpoints(void **state)
{
	struct kvm_guest_debug d = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
		.arch.debugreg = { [0] = CODE_AT + 2, [7] = 0x402 },
	};
	struct machine m;

	skip_on_emulated_host("has no hardware breakpoints in emulated code");
	machine_new(&m, PLAIN);
	CODE(&m, 0x40, 0x40, 0x40, 0xf4);
	assert_int_equal(call(m.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	run_until(&m, KVM_EXIT_DEBUG);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 2);
	assert_int_equal(m.run->debug.arch.dr6 & 0xf, 1);
	d = (struct kvm_guest_debug){ .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP };
	CODE(&m, 0x40, 0xcc, 0xf4);
	assert_int_equal(call(m.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	run_until(&m, KVM_EXIT_DEBUG);
	assert_int_equal(m.run->debug.arch.exception, 3);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 1);
	machine_free(&m);
}

int test_events(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_interrupt_arguments),
		cmocka_unit_test(test_interrupt_during_io),
		cmocka_unit_test(test_nmi),
		cmocka_unit_test(test_many_nmis),
		cmocka_unit_test(test_many_nmi_messages),
		cmocka_unit_test(test_saved_events),
		cmocka_unit_test(test_set_regs_drops_pending),
		cmocka_unit_test(test_soft_events),
		cmocka_unit_test(test_exception_with_others),
		cmocka_unit_test(test_shadow),
		cmocka_unit_test(test_single_step),
		cmocka_unit_test(test_breakpoints),
	};

	return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
