/* The two 8259A as software sees them. */
#include "fake.h"

#define MASTER	0x20
#define SLAVE	0xa0
#define EOI	0x20

/* As Linux does: vectors 30h and 38h, everything unmasked. */
static void pic_init(struct machine *m, u8 icw4)
{
	out8(m, MASTER, 0x11);
	out8(m, MASTER + 1, 0x30);
	out8(m, MASTER + 1, 0x04);
	out8(m, MASTER + 1, icw4);
	out8(m, SLAVE, 0x11);
	out8(m, SLAVE + 1, 0x38);
	out8(m, SLAVE + 1, 0x02);
	out8(m, SLAVE + 1, 0x01);
	out8(m, MASTER + 1, 0);
	out8(m, SLAVE + 1, 0);
	apic_write(m->cpu[0], LR_LVT_LINT0, APIC_EXTINT << LVT_MODE_SHIFT);
}

static void pulse(struct machine *m, u32 gsi)
{
	line(m, gsi, 1);
	line(m, gsi, 0);
}

static u8 read_isr(struct machine *m, u16 port)
{
	out8(m, port, 0x0b);
	return in8(m, port);
}

static u8 read_irr(struct machine *m, u16 port)
{
	out8(m, port, 0x0a);
	return in8(m, port);
}

static void test_fixed_priority(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	pulse(m, 5);
	pulse(m, 3);
	assert_int_equal(read_irr(m, MASTER), 0x28);
	assert_int_equal(take(m->cpu[0]), 0x33);
	assert_int_equal(read_isr(m, MASTER), 0x08);
	assert_int_equal(take(m->cpu[0]), -1);	/* 5 waits for 3 */
	pulse(m, 1);
	assert_int_equal(take(m->cpu[0]), 0x31);	/* 1 does not */
	out8(m, MASTER, EOI);
	assert_int_equal(read_isr(m, MASTER), 0x08);
	assert_int_equal(take(m->cpu[0]), -1);
	out8(m, MASTER, EOI);
	assert_int_equal(take(m->cpu[0]), 0x35);
	out8(m, MASTER, 0x60 | 5);
	assert_int_equal(read_isr(m, MASTER), 0);
}

static void test_edge_needs_a_rise(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	assert_int_equal(line(m, 5, 1), 1);
	assert_int_equal(line(m, 5, 1), 0);	/* coalesced */
	assert_int_equal(take(m->cpu[0]), 0x35);
	out8(m, MASTER, EOI);
	line(m, 5, 1);				/* still high: no edge */
	assert_int_equal(take(m->cpu[0]), -1);
	line(m, 5, 0);
	line(m, 5, 1);
	assert_int_equal(take(m->cpu[0]), 0x35);
}

static void test_level_stays(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	out8(m, 0x4d0, 0xff);
	out8(m, 0x4d1, 0xff);
	assert_int_equal(in8(m, 0x4d0), 0xf8);	/* the lines that are always edges */
	assert_int_equal(in8(m, 0x4d1), 0xde);
	line(m, 5, 1);
	assert_int_equal(take(m->cpu[0]), 0x35);
	assert_int_equal(take(m->cpu[0]), -1);
	out8(m, MASTER, EOI);
	assert_int_equal(take(m->cpu[0]), 0x35);	/* asserted still */
	line(m, 5, 0);
	out8(m, MASTER, EOI);
	assert_int_equal(take(m->cpu[0]), -1);
	line(m, 5, 1);
	line(m, 5, 0); /* withdrawn before the acknowledge: nothing, and nothing spurious */
	assert_int_equal(take(m->cpu[0]), -1);
}

static void test_cascade(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	pulse(m, 12);
	pulse(m, 3);
	assert_int_equal(take(m->cpu[0]), 0x3c);	/* the slave is at IR2 */
	assert_int_equal(read_isr(m, MASTER), 0x04);
	assert_int_equal(read_isr(m, SLAVE), 0x10);
	pulse(m, 8);
	assert_int_equal(take(m->cpu[0]), -1);	/* not fully nested */
	out8(m, SLAVE, EOI);
	assert_int_equal(take(m->cpu[0]), -1);	/* the master's IR2 is in service still */
	out8(m, MASTER, EOI);
	assert_int_equal(take(m->cpu[0]), 0x38);
	out8(m, SLAVE, EOI);
	out8(m, MASTER, EOI);
	assert_int_equal(take(m->cpu[0]), 0x33);
}

static void test_special_fully_nested(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x11);
	pulse(m, 12);
	assert_int_equal(take(m->cpu[0]), 0x3c);
	pulse(m, 9);
	assert_int_equal(take(m->cpu[0]), 0x39);	/* higher at the same slave */
	pulse(m, 13);
	assert_int_equal(take(m->cpu[0]), -1);
	out8(m, SLAVE, EOI);
	assert_int_equal(read_isr(m, SLAVE), 0x10);
}

static void test_slave_request_withdrawn(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	pulse(m, 12);
	out8(m, SLAVE + 1, 0x10);	/* masked before anyone acknowledged it */
	assert_int_equal(take(m->cpu[0]), -1);
	assert_int_equal(read_irr(m, MASTER) & 4, 0);
	out8(m, SLAVE + 1, 0);
	assert_int_equal(take(m->cpu[0]), 0x3c);
}

static void test_mask(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	out8(m, MASTER + 1, 0xfb);
	assert_int_equal(in8(m, MASTER + 1), 0xfb);
	pulse(m, 1);
	assert_int_equal(line(m, 1, 1), -1);
	assert_int_equal(take(m->cpu[0]), -1);
	out8(m, MASTER + 1, 0);
	assert_int_equal(take(m->cpu[0]), 0x31);	/* it was kept */
}

static void test_rotation(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	pulse(m, 3);
	assert_int_equal(take(m->cpu[0]), 0x33);
	out8(m, MASTER, 0xa0);		/* rotate on EOI: 3 is now lowest, 4 highest */
	pulse(m, 3);
	pulse(m, 0);
	pulse(m, 6);
	assert_int_equal(take(m->cpu[0]), 0x36);
	out8(m, MASTER, EOI);
	assert_int_equal(take(m->cpu[0]), 0x30);
	out8(m, MASTER, EOI);
	assert_int_equal(take(m->cpu[0]), 0x33);
	out8(m, MASTER, EOI);
	out8(m, MASTER, 0xc0 | 0);	/* set priority: 0 is lowest */
	pulse(m, 0);
	pulse(m, 7);
	assert_int_equal(take(m->cpu[0]), 0x37);
	out8(m, MASTER, 0xe0 | 7); /* specific EOI of 7, with rotation: the normal order again */
	pulse(m, 7);
	assert_int_equal(take(m->cpu[0]), 0x30);
}

static void test_auto_eoi(void **state)
{
	struct machine *m = *state;

	pic_init(m, 3);
	pulse(m, 3);
	assert_int_equal(take(m->cpu[0]), 0x33);
	assert_int_equal(read_isr(m, MASTER), 0);
	out8(m, MASTER, 0x80);		/* rotate in automatic EOI */
	pulse(m, 3);
	assert_int_equal(take(m->cpu[0]), 0x33);
	pulse(m, 3);
	pulse(m, 4);
	assert_int_equal(take(m->cpu[0]), 0x34);
}

static void test_special_mask(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	pulse(m, 3);
	assert_int_equal(take(m->cpu[0]), 0x33);
	pulse(m, 5);
	assert_int_equal(take(m->cpu[0]), -1);
	out8(m, MASTER + 1, 0x08);
	assert_int_equal(take(m->cpu[0]), -1);	/* masking the one in service is not enough ... */
	out8(m, MASTER, 0x68);
	assert_int_equal(take(m->cpu[0]), 0x35);	/* ... without special mask mode */
	out8(m, MASTER, EOI);			/* 3 is masked: the EOI is 5's */
	assert_int_equal(read_isr(m, MASTER), 0x08);
	out8(m, MASTER, 0x48);
	out8(m, MASTER, EOI);
	assert_int_equal(read_isr(m, MASTER), 0);
}

static void test_poll(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	out8(m, MASTER, 0x0c);
	assert_int_equal(in8(m, MASTER) & 0x80, 0);
	pulse(m, 5);
	out8(m, MASTER, 0x0c);
	assert_int_equal(in8(m, MASTER), 0x85);
	assert_int_equal(read_isr(m, MASTER), 0x20);	/* the read was the acknowledge */
	assert_int_equal(take(m->cpu[0]), -1);
	assert_int_equal(in8(m, MASTER), 0x20);		/* and the next one is ordinary */
}

/* A line that went away between INT and INTA: only user space can make that happen here. */
static void test_spurious_slave(void **state)
{
	struct machine *m = *state;
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_PIC_MASTER };

	pic_init(m, 1);
	out8(m, 0x4d1, 0x10);
	line(m, 12, 1);
	assert_int_equal(irqchip_get(&m->vm, &chip), 0);
	assert_int_equal(chip.chip.pic.irr, 4);
	line(m, 12, 0);
	assert_int_equal(irqchip_has_interrupt(m->cpu[0]), 0);
	assert_int_equal(irqchip_ack_interrupt(m->cpu[0]), -1);
}

static void test_icw1_forgets(void **state)
{
	struct machine *m = *state;

	pic_init(m, 1);
	out8(m, MASTER + 1, 0xff);
	pulse(m, 3);
	line(m, 4, 1);
	pic_init(m, 1);
	assert_int_equal(in8(m, MASTER + 1), 0);
	assert_int_equal(take(m->cpu[0]), -1);
	line(m, 4, 1);			/* the edge circuit was reset: high counts as a rise */
	assert_int_equal(take(m->cpu[0]), 0x34);
}

static void test_wide_access(void **state)
{
	struct machine *m = *state;
	u16 val = 0x30 << 8 | 0x11;

	/* ICW1 and ICW2 at once. */
	assert_int_equal(bus_write(m->cpu[0], BUS_PIO, MASTER, 2, &val), 0);
	out8(m, MASTER + 1, 0x04);
	out8(m, MASTER + 1, 0x01);
	apic_write(m->cpu[0], LR_LVT_LINT0, APIC_EXTINT << LVT_MODE_SHIFT);
	pulse(m, 1);
	assert_int_equal(take(m->cpu[0]), 0x31);
	assert_int_equal(bus_read(m->cpu[0], BUS_PIO, MASTER, 4, &val), -EOPNOTSUPP);
}

/* Who gets INTR: the processor whose LINT0 is ExtINT, or whose APIC is off. */
static void test_extint_wire(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	pic_init(m, 1);
	pulse(m, 1);
	apic_write(v, LR_LVT_LINT0, LVT_MASKED | APIC_EXTINT << LVT_MODE_SHIFT);
	assert_int_equal(take(v), -1);
	assert_int_equal(lapic_set_base(v, LAPIC_DEFAULT_BASE | APICBASE_BSP, false), 0);
	assert_int_equal(take(v), 0x31);
}

/* Linux check_timer(): LINT0 as an ordinary local interrupt ("virtual wire IRQ"), or as an NMI. */
static void test_lint0_fixed_and_nmi(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	pic_init(m, 1);
	apic_write(v, LR_LVT_LINT0, 0x51);
	pulse(m, 1);
	assert_int_equal(take(v), 0x51);
	assert_int_equal(take(v), -1);
	apic_write(v, LR_EOI, 0);
	out8(m, MASTER, 0x0c);
	in8(m, MASTER);
	out8(m, MASTER, EOI);
	apic_write(v, LR_LVT_LINT0, APIC_NMI << LVT_MODE_SHIFT);
	pulse(m, 1);
	fake_serve(m);
	assert_true(v->nmi_pending);
}

static void test_save_and_load(void **state)
{
	struct machine *m = *state, *n = machine_new(1);
	struct kvm_irqchip chip[2] = { { .chip_id = 0 }, { .chip_id = 1 } }, again;

	pic_init(m, 0x13);
	out8(m, 0x4d1, 0x10);
	out8(m, MASTER, 0xc2);
	out8(m, MASTER, 0x6b);
	pulse(m, 4);
	line(m, 12, 1);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(irqchip_get(&m->vm, &chip[i]), 0);
		assert_int_equal(irqchip_set(&n->vm, &chip[i]), 0);
	}
	for (unsigned int i = 0; i < 2; i++) {
		again = (struct kvm_irqchip){ .chip_id = i };
		assert_int_equal(irqchip_get(&n->vm, &again), 0);
		assert_memory_equal(&chip[i], &again, sizeof(again));
	}
	apic_write(n->cpu[0], LR_LVT_LINT0, APIC_EXTINT << LVT_MODE_SHIFT);
	assert_int_equal(take(n->cpu[0]), 0x34);	/* rotated: 3 to 7 come before 2 */
	assert_int_equal(take(n->cpu[0]), 0x3c);
	again.chip_id = 3;
	assert_int_equal(irqchip_get(&m->vm, &again), -EINVAL);
	assert_int_equal(irqchip_set(&m->vm, &again), -EINVAL);
	machine_free(n);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_fixed_priority),
		T(test_edge_needs_a_rise),
		T(test_level_stays),
		T(test_cascade),
		T(test_special_fully_nested),
		T(test_slave_request_withdrawn),
		T(test_mask),
		T(test_rotation),
		T(test_auto_eoi),
		T(test_special_mask),
		T(test_poll),
		T(test_spurious_slave),
		T(test_icw1_forgets),
		T(test_wide_access),
		T(test_extint_wire),
		T(test_lint0_fixed_and_nmi),
		T(test_save_and_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
