/* The split irqchip: local APICs here, the rest of the chips is ours to play. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "tests/api/handlers.h"

#define PINS	24
#define LEVEL	BIT(15)	/* of an MSI's data */

static long enable_split(int vm, u64 pins)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { pins } };

	return call(vm, KVM_ENABLE_CAP, &cap);
}

static int vm_new(int sys)
{
	int vm = call_num(sys, KVM_CREATE_VM, 0);

	assert_true(vm >= 0);
	return vm;
}

static void split_new(struct machine *m, u32 lint0)
{
	machine_new_split(m, PINS);
	apic_on(m, lint0);
	handlers_install_polling(m);
}

static void test_refusals(void **state)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_pit_config pit = { 0 };
	struct kvm_irqfd irqfd = { .gsi = 5, .flags = KVM_IRQFD_FLAG_RESAMPLE };
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry e; } r = {
		.head.nr = 1,
		.e = { .gsi = 3, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = 2 } },
	};
	struct machine m;
	int vm;

	machine_new(&m, PLAIN);
	assert_int_equal(call_num(m.sys, KVM_CHECK_EXTENSION, KVM_CAP_SPLIT_IRQCHIP), 1);
	assert_int_equal(enable_split(m.vm, 4097), -EINVAL);
	assert_int_equal(enable_split(m.vm, PINS), -EEXIST);	/* there is a vCPU */
	vm = vm_new(m.sys);
	assert_int_equal(call_num(vm, KVM_CREATE_IRQCHIP, 0), 0);
	assert_int_equal(enable_split(vm, PINS), -EEXIST);
	api->close(vm);
	vm = vm_new(m.sys);
	assert_int_equal(enable_split(vm, 4096), 0);
	assert_int_equal(enable_split(vm, PINS), -EEXIST);
	assert_int_equal(call_num(vm, KVM_CREATE_IRQCHIP, 0), -EEXIST);
	assert_int_equal(call(vm, KVM_GET_IRQCHIP, &chip), -ENXIO);
	assert_int_equal(call(vm, KVM_SET_IRQCHIP, &chip), -ENXIO);
	assert_int_equal(call(vm, KVM_CREATE_PIT2, &pit), -ENOENT);
	assert_int_equal(call(vm, KVM_SET_GSI_ROUTING, &r), -EINVAL);
	irqfd.fd = irqfd.resamplefd = new_eventfd();
	assert_int_equal(call(vm, KVM_IRQFD, &irqfd), -EINVAL);
	close(irqfd.fd);
	api->close(vm);
	machine_free(&m);
}

/* Messages by ioctl, line and irqfd. */
static void test_messages(void **state)
{
	struct kvm_msi msi = { .address_lo = MSI_ADDRESS, .data = 0x51 };
	struct kvm_irq_level line = { .irq = 40, .level = 1 };
	struct kvm_irqfd irqfd = { .gsi = 40 };
	struct machine m;

	split_new(&m, LINT0_MASKED);
	assert_int_equal(call(m.vm, KVM_SIGNAL_MSI, &msi), 1);
	assert_int_equal(next_report(&m), 0x51);
	/* No route at first: KVM's default ones are of chips. */
	line.irq = 3;
	assert_int_equal(call(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	assert_int_equal(line.status, -1);
	line.irq = 40;
	line.level = 1;
	route_msi(&m, 40, 0x61);
	assert_int_equal(call(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	assert_int_equal(line.status, 1);
	assert_int_equal(next_report(&m), 0x61);
	irqfd.fd = new_eventfd();
	assert_int_equal(call(m.vm, KVM_IRQFD, &irqfd), 0);
	signal_eventfd(irqfd.fd);
	assert_int_equal(next_report(&m), 0x61);
	expect_quiet(&m);
	machine_free(&m);
	close(irqfd.fd);
}

/* KVM_RUN past polls, to what is neither. */
static u32 next_exit(struct machine *m)
{
	do {
		assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	} while (is_noise(m));
	return m->run->exit_reason;
}

/* The EOI of what a reserved GSI's level-triggered route could have sent becomes an exit. */
static void test_eoi(void **state)
{
	static const struct {
		u32 gsi, route, sent;
		bool exits;
	} cases[] = {
		{ 3, 0x61 | LEVEL, 0x61 | LEVEL, true },
		{ PINS - 1, 0x61 | LEVEL, 0x61 | LEVEL, true },
		{ 3, 0x61 | LEVEL, 0x61, true },
		{ 3, 0x61 | LEVEL, 0x62 | LEVEL, false },
		{ 3, 0x61, 0x61, false },
		{ PINS, 0x61 | LEVEL, 0x61 | LEVEL, false },
		{ 4000, 0x61 | LEVEL, 0x61 | LEVEL, false },
	};
	struct kvm_msi msi = { .address_lo = MSI_ADDRESS };
	struct machine m;

	split_new(&m, LINT0_MASKED);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		route_msi(&m, cases[i].gsi, cases[i].route);
		/* The kernel looks at the routes when the vCPU next enters. */
		run_until(&m, KVM_EXIT_IO);
		msi.data = cases[i].sent;
		assert_int_equal(call(m.vm, KVM_SIGNAL_MSI, &msi), 1);
		if (cases[i].exits) {
			assert_int_equal(next_exit(&m), KVM_EXIT_IOAPIC_EOI);
			assert_int_equal(m.run->eoi.vector, cases[i].sent & 0xff);
		}
		assert_int_equal(next_exit(&m), KVM_EXIT_IO);
		assert_int_equal(m.run->io.port, REPORT_PORT);
		assert_int_equal(*(u8 *)io_data(m.run), cases[i].sent & 0xff);
	}
	expect_quiet(&m);
	machine_free(&m);
}

/* By MSR as by memory: nothing of the guest's is executed before user space hears of it. */
static void test_eoi_msr(void **state)
{
	/* mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; out REPORT_PORT, al; iret */
	static const u8 x2apic_handler[] = { 0x66, 0xb9, 0x0b, 0x08, 0, 0, 0x66, 0x31, 0xc0,
		0x66, 0x31, 0xd2, 0x0f, 0x30, 0xe6, REPORT_PORT, 0xcf };
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 e[100]; } id = { .head.nent = 100 };
	struct kvm_msi msi = { .address_lo = MSI_ADDRESS, .data = 0x61 | LEVEL };
	struct kvm_sregs s;
	struct machine m;

	skip_on_emulated_host("runs on to the next exit after an EOI by MSR");
	split_new(&m, LINT0_MASKED);
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_CPUID, &id), 0);
	assert_int_equal(call(m.vcpu, KVM_SET_CPUID2, &id), 0);
	s = get_sregs(m.vcpu);
	s.apic_base |= BIT(10);
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
	memcpy(m.ram + 0x1800, x2apic_handler, sizeof(x2apic_handler));
	*(u32 *)(m.ram + 0x61 * 4) = 0x1800;
	route_msi(&m, 3, 0x61 | LEVEL);
	run_until(&m, KVM_EXIT_IO);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(call(m.vm, KVM_SIGNAL_MSI, &msi), 1);
		assert_int_equal(next_exit(&m), KVM_EXIT_IOAPIC_EOI);
		assert_int_equal(m.run->eoi.vector, 0x61);
		assert_int_equal(next_exit(&m), KVM_EXIT_IO);
		assert_int_equal(m.run->io.port, REPORT_PORT);
	}
	machine_free(&m);
}

/* To x2APICs 0xff is a broadcast, or the ID of none of them: as user space has it. api.rst 7.7 */
static void test_broadcast(void **state)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 e[100]; } id = { .head.nent = 100 };
	struct kvm_msi all = { .address_lo = MSI_ADDRESS | 0xff << 12, .data = 0x61 };
	struct kvm_enable_cap bad = { .cap = KVM_CAP_X2APIC_API, .args = { BIT(30) } };
	struct kvm_sregs s;
	struct machine m;

	split_new(&m, LINT0_MASKED);
	assert_int_equal(call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_X2APIC_API) & 3, 3);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &bad), -EINVAL);
	assert_int_equal(call(m.sys, KVM_GET_SUPPORTED_CPUID, &id), 0);
	assert_int_equal(call(m.vcpu, KVM_SET_CPUID2, &id), 0);
	s = get_sregs(m.vcpu);
	s.apic_base |= BIT(10);
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(call(m.vm, KVM_SIGNAL_MSI, &all), 1);
	enable_cap(m.vm, KVM_CAP_X2APIC_API,
		KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
	assert_true(call(m.vm, KVM_SIGNAL_MSI, &all) <= 0);
	all.address_hi = 0xffffff00;
	assert_int_equal(call(m.vm, KVM_SIGNAL_MSI, &all), 1);
	machine_free(&m);
}

/* Routes whose message is for others are not this vCPU's affair. */
static void test_eoi_destination(void **state)
{
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry e; } r = {
		.head.nr = 1,
		.e = { .gsi = 3, .type = KVM_IRQ_ROUTING_MSI,
		       .u.msi = { .address_lo = MSI_ADDRESS | 5 << 12, .data = 0x61 | LEVEL } },
	};
	struct kvm_msi msi = { .address_lo = MSI_ADDRESS, .data = 0x61 | LEVEL };
	struct machine m;

	split_new(&m, LINT0_MASKED);
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, &r), 0);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(call(m.vm, KVM_SIGNAL_MSI, &msi), 1);
	assert_int_equal(next_report(&m), 0x61);
	machine_free(&m);
}

/* ---- the PIC of user space ------------------------------------------------------------------- */

static long interrupt(struct machine *m, u32 vector)
{
	struct kvm_interrupt irq = { .irq = vector };

	return call(m->vcpu, KVM_INTERRUPT, &irq);
}

/* KVM_INTERRUPT goes through LINT0, one at a time, and is taken when the guest can. */
static void test_pic(void **state)
{
	struct machine m;

	split_new(&m, LINT0_EXTINT);
	/* STI holds interrupts off until the first poll is over. */
	run_until(&m, KVM_EXIT_IO);
	run_until(&m, KVM_EXIT_IO);
	assert_true(m.run->ready_for_interrupt_injection);
	assert_int_equal(interrupt(&m, 256), -EINVAL);
	for (u32 v = 0x30; v < 0x38; v++) {
		assert_int_equal(interrupt(&m, v), 0);
		assert_int_equal(interrupt(&m, v), -EEXIST);
		assert_int_equal(next_report(&m), v);
	}
	run_until(&m, KVM_EXIT_IO);
	assert_true(m.run->ready_for_interrupt_injection);
	/* LINT0 masked: it waits, and no other can. */
	apic_on(&m, LINT0_MASKED);
	run_until(&m, KVM_EXIT_IO);
	assert_false(m.run->ready_for_interrupt_injection);
	assert_int_equal(interrupt(&m, 0x40), 0);
	assert_int_equal(interrupt(&m, 0x41), -EEXIST);
	expect_quiet(&m);
	assert_false(m.run->ready_for_interrupt_injection);
	apic_on(&m, LINT0_EXTINT);
	assert_int_equal(next_report(&m), 0x40);
	machine_free(&m);
}

/* With IF clear a vector waits, and the window is told of when it opens. */
static void test_window(void **state)
{
	/* in al, 0x97; sti; nop; again: in al, POLL_PORT; jmp again */
	static const u8 code[] = { 0xe4, 0x97, 0xfb, 0x90, 0xe4, POLL_PORT, 0xeb, 0xfc };
	struct machine m;

	split_new(&m, LINT0_EXTINT);
	code_with_handlers(&m, code, sizeof(code));
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, 0x97);
	assert_false(m.run->ready_for_interrupt_injection);
	assert_false(m.run->if_flag);
	m.run->request_interrupt_window = 1;
	assert_int_equal(next_exit(&m), KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_true(m.run->ready_for_interrupt_injection);
	if (!api_is_host())	/* an emulated one is late */
		assert_int_equal(get_regs(m.vcpu).rip, CODE_AT + 4);
	assert_int_equal(interrupt(&m, 0x33), 0);
	assert_int_equal(next_report(&m), 0x33);
	/* With LINT0 masked there is no window. */
	apic_on(&m, LINT0_MASKED);
	code_with_handlers(&m, code, sizeof(code));
	do {
		run_until(&m, KVM_EXIT_IO);
	} while (m.run->io.port != 0x97);
	for (int i = 0; i < 5; i++) {
		run_until(&m, KVM_EXIT_IO);
		assert_int_equal(m.run->io.port, POLL_PORT);
	}
	machine_free(&m);
}

/* HLT sleeps in the hypervisor, and KVM_INTERRUPT's vector wakes. */
static void test_halt(void **state)
{
	struct machine m;

	split_new(&m, LINT0_EXTINT);
	handlers_install(&m);
	assert_int_equal(interrupt(&m, 0x44), 0);
	assert_int_equal(next_report(&m), 0x44);
	/* Halted, with the window asked for: it is open. */
	m.run->request_interrupt_window = 1;
	run_until(&m, KVM_EXIT_IRQ_WINDOW_OPEN);
	m.run->request_interrupt_window = 0;
	assert_int_equal(interrupt(&m, 0x45), 0);
	assert_int_equal(next_report(&m), 0x45);
	machine_free(&m);
}

int test_split(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_eoi),
		cmocka_unit_test(test_eoi_msr),
		cmocka_unit_test(test_eoi_destination),
		cmocka_unit_test(test_broadcast),
		cmocka_unit_test(test_pic),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_halt),
	};

	return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
