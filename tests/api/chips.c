/* The in-kernel interrupt chips through the API: creation, lines, routing, MSI, saved state,
 * clock. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/api/api.h"

static void test_creation(void **state)
{
	struct kvm_pit_config pit = { 0 };
	struct kvm_pit_state2 ps;
	struct kvm_irq_level line = { .irq = 1, .level = 1 };
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct machine m;
	int vm;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vm, KVM_IRQ_LINE, &line), -ENXIO);
	assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &chip), -ENXIO);
	assert_int_equal(call(m.vm, KVM_GET_PIT2, &ps), -ENXIO);
	assert_int_equal(call(m.vm, KVM_CREATE_PIT2, &pit), -ENOENT);
	/* Too late: there is a vCPU. */
	assert_int_equal(call_num(m.vm, KVM_CREATE_IRQCHIP, 0), -EINVAL);
	vm = call_num(m.sys, KVM_CREATE_VM, 0);
	assert_int_equal(call_num(vm, KVM_CREATE_IRQCHIP, 0), 0);
	assert_int_equal(call_num(vm, KVM_CREATE_IRQCHIP, 0), -EEXIST);
	assert_int_equal(call(vm, KVM_GET_PIT2, &ps), -ENXIO);
	assert_int_equal(call(vm, KVM_CREATE_PIT2, &pit), 0);
	assert_int_equal(call(vm, KVM_CREATE_PIT2, &pit), -EEXIST);
	assert_int_equal(call(vm, KVM_GET_PIT2, &ps), 0);
	assert_int_equal(call(vm, KVM_SET_PIT2, &ps), 0);
	assert_int_equal(call(vm, KVM_GET_IRQCHIP, &chip), 0);
	chip.chip_id = 9;
	assert_int_equal(call(vm, KVM_GET_IRQCHIP, &chip), -EINVAL);
	assert_int_equal(call(vm, KVM_IRQ_LINE, &line), 0);
	api->close(vm);
	machine_free(&m);
}

static void test_saved_chips(void **state)
{
	struct kvm_irqchip in = { .chip_id = KVM_IRQCHIP_PIC_MASTER }, out = in;
	struct kvm_lapic_state lapic, back;
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &in), 0);
	in.chip.pic.imr = 0xa5;
	in.chip.pic.irq_base = 0x20;
	assert_int_equal(call(m.vm, KVM_SET_IRQCHIP, &in), 0);
	assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &out), 0);
	assert_memory_equal(&in.chip.pic, &out.chip.pic, sizeof(in.chip.pic));
	in = out = (struct kvm_irqchip){ .chip_id = KVM_IRQCHIP_IOAPIC };
	assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &in), 0);
	assert_int_equal(in.chip.ioapic.base_address, 0xfec00000);
	assert_true(in.chip.ioapic.redirtbl[5].fields.mask);
	in.chip.ioapic.redirtbl[5].bits = 0x0000000000010035;
	assert_int_equal(call(m.vm, KVM_SET_IRQCHIP, &in), 0);
	assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &out), 0);
	assert_int_equal(out.chip.ioapic.redirtbl[5].bits, 0x10035);
	assert_int_equal(call(m.vcpu, KVM_GET_LAPIC, &lapic), 0);
	assert_int_equal(*(u32 *)(lapic.regs + 0xf0), 0xff);
	*(u32 *)(lapic.regs + 0xf0) = 0x1ff;
	*(u32 *)(lapic.regs + 0x80) = 0x20;
	assert_int_equal(call(m.vcpu, KVM_SET_LAPIC, &lapic), 0);
	assert_int_equal(call(m.vcpu, KVM_GET_LAPIC, &back), 0);
	assert_int_equal(*(u32 *)(back.regs + 0xf0), 0x1ff);
	assert_int_equal(*(u32 *)(back.regs + 0x80), 0x20);
	assert_int_equal(get_sregs(m.vcpu).cr8, 2);
	machine_free(&m);
}

static void test_without_lapic(void **state)
{
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_HALTED };
	struct kvm_lapic_state lapic;
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vcpu, KVM_GET_LAPIC, &lapic), -EINVAL);
	assert_int_equal(call(m.vcpu, KVM_SET_LAPIC, &lapic), -EINVAL);
	assert_int_equal(call(m.vcpu, KVM_SET_MP_STATE, &mp), -EINVAL);
	mp.mp_state = 77;
	assert_int_equal(call(m.vcpu, KVM_SET_MP_STATE, &mp), -EINVAL);
	assert_int_equal(call(m.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	machine_free(&m);
}

/* The state of an encrypted guest's processor: any interrupt ends it, as HLT. */
static void test_reset_hold(void **state)
{
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_AP_RESET_HOLD };
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vcpu, KVM_SET_MP_STATE, &mp), -EINVAL);
	machine_free(&m);
	machine_new(&m, WITH_IRQCHIP);
	CODE(&m, 0xe6, 0x42);		/* out 0x42, al */
	assert_int_equal(call(m.vcpu, KVM_SET_MP_STATE, &mp), 0);
	mp.mp_state = 0;
	assert_int_equal(call(m.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_AP_RESET_HOLD);
	*(u32 *)(m.ram + 2 * 4) = CODE_AT;
	assert_int_equal(call_num(m.vcpu, KVM_NMI, 0), 0);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(call(m.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	machine_free(&m);
}

/* The local APIC on, LINT0 open for the PIC, PIC base 0x20 with all lines open. */
static void chips_on(struct machine *m)
{
	struct kvm_irqchip pic = { .chip_id = KVM_IRQCHIP_PIC_MASTER };
	struct kvm_lapic_state lapic;

	assert_int_equal(call(m->vm, KVM_GET_IRQCHIP, &pic), 0);
	pic.chip.pic.irq_base = 0x20;
	pic.chip.pic.imr = 0;
	assert_int_equal(call(m->vm, KVM_SET_IRQCHIP, &pic), 0);
	assert_int_equal(call(m->vcpu, KVM_GET_LAPIC, &lapic), 0);
	*(u32 *)(lapic.regs + 0xf0) = 0x1ff;
	*(u32 *)(lapic.regs + 0x350) = 0x700;
	assert_int_equal(call(m->vcpu, KVM_SET_LAPIC, &lapic), 0);
}

/* out 0x99, al tells which handler ran: al is its vector. It has sent the PIC its EOI. */
static void vectors_report(struct machine *m)
{
	u32 n;

	for (n = 0; n < 256; n++) {
		u8 *h = m->ram + 0x2000 + n * 16;

		*(u32 *)(m->ram + n * 4) = 0x2000 + n * 16;
		/* mov al, 0x20; out 0x20, al; mov al, n; out 0x99, al; iret */
		memcpy(h, "\xb0\x20\xe6\x20\xb0\x00\xe6\x99\xcf", 9);
		h[5] = n;
	}
}

static u8 reported(struct machine *m)
{
	run_until(m, KVM_EXIT_IO);
	assert_int_equal(m->run->io.port, 0x99);
	return *(u8 *)io_data(m->run);
}

/* HLT sleeps in the hypervisor; each interrupt that wakes it is reported. */
static void test_line_and_msi(void **state)
{
	struct kvm_irq_level line = { .irq = 3, .level = 1 };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x51 };
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	chips_on(&m);
	vectors_report(&m);
	CODE(&m, 0xfb, 0xf4, 0xeb, 0xfd);	/* sti; again: hlt; jmp again */
	assert_int_equal(call(m.vm, KVM_IRQ_LINE, &line), 0);
	assert_int_equal(reported(&m), 0x23);
	line.level = 0;
	assert_int_equal(call(m.vm, KVM_IRQ_LINE, &line), 0);
	assert_int_equal(call(m.vm, KVM_SIGNAL_MSI, &msi), 1);
	assert_int_equal(reported(&m), 0x51);
	msi.address_lo = 0xfee05000;	/* APIC 5: nobody */
	assert_true(call(m.vm, KVM_SIGNAL_MSI, &msi) <= 0);
	machine_free(&m);
}

static void test_routing(void **state)
{
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry e[2]; } r = {
		.head.nr = 1,
		.e = { { .gsi = 40, .type = KVM_IRQ_ROUTING_MSI,
			 .u.msi = { .address_lo = 0xfee00000, .data = 0x61 } } },
	};
	struct kvm_irq_level line = { .irq = 40, .level = 1 };
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	chips_on(&m);
	vectors_report(&m);
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, &r), 0);
	CODE(&m, 0xfb, 0xf4, 0xeb, 0xfd);
	assert_int_equal(call(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	assert_int_equal(reported(&m), 0x61);
	r.e[0].type = 99;
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, &r), -EINVAL);
	r.e[0].type = KVM_IRQ_ROUTING_IRQCHIP;
	r.e[0].u.irqchip.irqchip = 9;
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, &r), -EINVAL);
	r.head.flags = 1;
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, &r), -EINVAL);
	r.head.flags = 0;
	r.head.nr = 5000;
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, &r), -EINVAL);
	machine_free(&m);
}

/* A sleeping vCPU is woken by the PIT: channel 0 in mode 2, about 1 ms. */
/* State without a current count, as QEMU restores it: the timer that was on its way still comes. */
static void timer_restored(u32 mode)
{
	struct kvm_lapic_state lapic;
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	chips_on(&m);
	vectors_report(&m);
	CODE(&m, 0xfb, 0xf4, 0xeb, 0xfd);	/* sti; again: hlt; jmp again */
	assert_int_equal(call(m.vcpu, KVM_GET_LAPIC, &lapic), 0);
	*(u32 *)(lapic.regs + 0x320) = 0x55 | mode;
	*(u32 *)(lapic.regs + 0x3e0) = 0xb;
	*(u32 *)(lapic.regs + 0x380) = 1000000;
	*(u32 *)(lapic.regs + 0x390) = 0;
	assert_int_equal(call(m.vcpu, KVM_SET_LAPIC, &lapic), 0);
	assert_int_equal(reported(&m), 0x55);
	machine_free(&m);
}

static void test_timer_restored(void **state)
{
	timer_restored(0);
	timer_restored(BIT(17));
}

static void test_pit(void **state)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct machine m;
	int i;

	machine_new(&m, WITH_IRQCHIP);
	assert_int_equal(call(m.vm, KVM_CREATE_PIT2, &pit), 0);
	chips_on(&m);
	vectors_report(&m);
	/* mov al, 0x34; out 0x43, al; mov al, 0xa9; out 0x40, al; mov al, 4; out 0x40, al; sti;
	 * again: hlt; jmp again */
	CODE(&m, 0xb0, 0x34, 0xe6, 0x43, 0xb0, 0xa9, 0xe6, 0x40, 0xb0, 0x04, 0xe6, 0x40, 0xfb,
	     0xf4, 0xeb, 0xfd);
	for (i = 0; i < 20; i++)
		assert_int_equal(reported(&m), 0x20);
	machine_free(&m);
}

static void test_clock(void **state)
{
	struct kvm_clock_data a, b, c = { .clock = 1000000000000 };
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vm, KVM_GET_CLOCK, &a), 0);
	assert_int_equal(call(m.vm, KVM_GET_CLOCK, &b), 0);
	assert_true(b.clock >= a.clock && b.clock < a.clock + 1000000000);
	assert_int_equal(call(m.vm, KVM_SET_CLOCK, &c), 0);
	assert_int_equal(call(m.vm, KVM_GET_CLOCK, &b), 0);
	assert_true(b.clock >= c.clock && b.clock < c.clock + 1000000000);
	/* What was got may be set, with all its flags; time that passed since counts. */
	assert_int_equal(b.flags & ~(u32)call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_ADJUST_CLOCK), 0);
	b.flags |= KVM_CLOCK_TSC_STABLE | KVM_CLOCK_HOST_TSC;
	assert_int_equal(call(m.vm, KVM_SET_CLOCK, &b), 0);
	assert_int_equal(call(m.vm, KVM_GET_CLOCK, &a), 0);
	assert_true(a.clock >= b.clock && a.clock < b.clock + 1000000000);
	c.flags = BIT(20);
	assert_int_equal(call(m.vm, KVM_SET_CLOCK, &c), -EINVAL);
	machine_free(&m);
}

static void test_fixed_pages(void **state)
{
	u64 addr = 0xfffbc000;
	struct machine m;
	int vm;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vm, KVM_SET_IDENTITY_MAP_ADDR, &addr), -EINVAL);
	vm = call_num(m.sys, KVM_CREATE_VM, 0);
	assert_int_equal(call(vm, KVM_SET_IDENTITY_MAP_ADDR, &addr), 0);
	assert_int_equal(call_num(vm, KVM_SET_TSS_ADDR, 0xfffbd000), 0);
	assert_int_equal(call_num(vm, KVM_SET_TSS_ADDR, 0xfffff000), -EINVAL);
	api->close(vm);
	machine_free(&m);
}

int test_chips(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_creation),
		cmocka_unit_test(test_saved_chips),
		cmocka_unit_test(test_without_lapic),
		cmocka_unit_test(test_reset_hold),
		cmocka_unit_test(test_line_and_msi),
		cmocka_unit_test(test_routing),
		cmocka_unit_test(test_timer_restored),
		cmocka_unit_test(test_pit),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_fixed_pages),
	};

	return cmocka_run_group_tests_name("chips", tests, NULL, NULL);
}
