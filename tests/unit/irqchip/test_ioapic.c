/* The IOAPIC's redirection entries, and GSI routing to it. */
#include "fake.h"

#define LEVEL	BIT(15)
#define MASKED	BIT(16)
#define REMOTE	BIT(14)

static void eoi(struct vcpu *v)
{
	apic_write(v, LR_EOI, 0);
}

static void test_registers(void **state)
{
	struct machine *m = *state;
	u32 val = 0;

	assert_int_equal(io_read(m, 1), 0x00170011);
	io_write(m, 0, 0xff000000);
	assert_int_equal(io_read(m, 0), 0x0f000000);
	assert_int_equal(io_read(m, 2), 0x0f000000);
	for (unsigned int pin = 0; pin < 24; pin++) {
		assert_int_equal(io_read(m, 0x10 + 2 * pin), 0x10000);
		io_entry(m, pin, 0xabcdef12fffff0ffULL);
		/* Status and remote IRR are not writable. */
		assert_int_equal(io_read(m, 0x10 + 2 * pin), 0x1a0ff);
		assert_int_equal(io_read(m, 0x11 + 2 * pin), 0xab000000);
	}
	/* Registers that are not there, and offsets that are none. */
	for (unsigned int reg = 0x40; reg < 0x100; reg++) {
		io_write(m, (u8)reg, 0);
		assert_int_equal(io_read(m, (u8)reg), 0xffffffff);
	}
	io_write(m, 3, 0);
	assert_int_equal(bus_read(m->cpu[0], BUS_MMIO, IOAPIC_BASE + 0x84, 4, &val), 0);
	assert_int_equal(val, 0);
}

static void test_edge(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	io_entry(m, 20, 0x55);
	assert_int_equal(line(m, 20, 1), 1);
	assert_int_equal(line(m, 20, 1), 0);	/* no new edge */
	assert_int_equal(take(v), 0x55);
	assert_int_equal(take(v), -1);
	eoi(v);
	assert_int_equal(take(v), -1);		/* an edge does not come back with the EOI */
	line(m, 20, 0);
	line(m, 20, 1);
	assert_int_equal(take(v), 0x55);
}

static void test_edge_while_masked_is_lost(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	io_entry(m, 20, MASKED | 0x55);
	assert_int_equal(line(m, 20, 1), -1);
	io_entry(m, 20, 0x55);
	assert_int_equal(take(v), -1);
	line(m, 20, 0);
	line(m, 20, 1);
	assert_int_equal(take(v), 0x55);
}

static void test_level_and_remote_irr(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	io_entry(m, 20, LEVEL | 0x55);
	assert_int_equal(line(m, 20, 1), 1);
	assert_int_equal(io_read(m, 0x10 + 40), LEVEL | REMOTE | 0x55);
	assert_int_equal(line(m, 20, 1), -1);	/* remote IRR holds it */
	assert_int_equal(take(v), 0x55);
	assert_int_equal(apic_read(v, LR_TMR + 2), BIT(0x55 & 31));
	eoi(v);					/* still asserted */
	assert_int_equal(io_read(m, 0x10 + 40), LEVEL | REMOTE | 0x55);
	assert_int_equal(take(v), 0x55);
	line(m, 20, 0);
	assert_int_equal(io_read(m, 0x10 + 40), LEVEL | REMOTE | 0x55);
	eoi(v);
	assert_int_equal(io_read(m, 0x10 + 40), LEVEL | 0x55);
	assert_int_equal(take(v), -1);
}

static void test_level_unmask_delivers(void **state)
{
	struct machine *m = *state;

	io_entry(m, 20, LEVEL | MASKED | 0x55);
	line(m, 20, 1);
	assert_int_equal(take(m->cpu[0]), -1);
	io_entry(m, 20, LEVEL | 0x55);
	assert_int_equal(take(m->cpu[0]), 0x55);
}

/* Linux's __eoi_ioapic_pin() on version 11h: to edge and back, masked. */
static void test_edge_clears_remote_irr(void **state)
{
	struct machine *m = *state;

	io_entry(m, 20, LEVEL | 0x55);
	line(m, 20, 1);
	line(m, 20, 0);
	io_entry(m, 20, MASKED | 0x55);
	assert_int_equal(io_read(m, 0x10 + 40) & REMOTE, 0);
	io_entry(m, 20, LEVEL | 0x55);
	assert_int_equal(io_read(m, 0x10 + 40) & REMOTE, 0);
}

static void test_shared_line(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	io_entry(m, 20, LEVEL | 0x55);
	irqchip_line(&m->vm, 5, 20, 1, NULL);
	irqchip_line(&m->vm, 6, 20, 1, NULL);
	irqchip_line(&m->vm, 5, 20, 0, NULL);
	assert_int_equal(take(v), 0x55);
	eoi(v);
	assert_int_equal(take(v), 0x55);	/* 6 still holds it */
	irqchip_line(&m->vm, 6, 20, 0, NULL);
	eoi(v);
	assert_int_equal(take(v), -1);
	assert_int_equal(irqchip_line(&m->vm, 64, 20, 0, NULL), -EINVAL);
}

static unsigned int acks;

static void count_ack(struct irq_ack *a)
{
	acks++;
}

/* KVM_IRQFD_FLAG_RESAMPLE: the EOI lowers the line and tells whoever drives it. */
static void test_resample(void **state)
{
	struct machine *m = *state;
	struct irq_ack a = { .gsi = 20, .source = IRQ_SOURCE_RESAMPLE, .fn = count_ack };
	struct vcpu *v = m->cpu[0];

	acks = 0;
	irqchip_add_ack(&m->vm, &a);
	io_entry(m, 20, LEVEL | 0x55);
	irqchip_line(&m->vm, IRQ_SOURCE_RESAMPLE, 20, 1, NULL);
	assert_int_equal(take(v), 0x55);
	eoi(v);
	assert_int_equal(acks, 1);
	assert_int_equal(take(v), -1);
	irqchip_remove_ack(&m->vm, &a);
	irqchip_line(&m->vm, IRQ_SOURCE_RESAMPLE, 20, 1, NULL);
	assert_int_equal(take(v), 0x55);
	eoi(v);
	assert_int_equal(acks, 1);
}

static void test_destinations(void **state)
{
	struct machine *m = *state;

	io_entry(m, 16, 2ULL << 56 | 0x31);		/* physical, to 2 */
	line(m, 16, 1);
	assert_int_equal(take(m->cpu[2]), 0x31);
	io_entry(m, 17, 0xffULL << 56 | 0x42);		/* to all */
	assert_int_equal(line(m, 17, 1), 4);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(take(m->cpu[i]), 0x42);
	for (unsigned int i = 0; i < 4; i++)
		apic_write(m->cpu[i], LR_LDR, 1u << (24 + i));
	io_entry(m, 18, 0x0aULL << 56 | BIT(11) | 0x53);	/* logical, to 1 and 3 */
	assert_int_equal(line(m, 18, 1), 2);
	assert_int_equal(take(m->cpu[0]), -1);
	assert_int_equal(take(m->cpu[1]), 0x53);
	assert_int_equal(take(m->cpu[2]), -1);
	assert_int_equal(take(m->cpu[3]), 0x53);
	io_entry(m, 19, 9ULL << 56 | 0x44);		/* to nobody */
	assert_int_equal(line(m, 19, 1), -1);
}

static void test_lowest_priority_takes_turns(void **state)
{
	struct machine *m = *state;
	unsigned int got[4] = { 0 };

	for (unsigned int i = 0; i < 4; i++)
		apic_write(m->cpu[i], LR_LDR, 1u << (24 + i));
	io_entry(m, 18, 0x0fULL << 56 | BIT(11) | APIC_LOWEST << 8 | 0x43);
	for (unsigned int n = 0; n < 8; n++) {
		assert_int_equal(line(m, 18, 1), 1);
		line(m, 18, 0);
		for (unsigned int i = 0; i < 4; i++)
			if (take(m->cpu[i]) == 0x43) {
				got[i]++;
				eoi(m->cpu[i]);
			}
	}
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(got[i], 2);
}

static void test_default_routing(void **state)
{
	struct machine *m = *state;
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_PIC_MASTER };

	for (unsigned int gsi = 0; gsi < 24; gsi++) {
		io_entry(m, gsi, 0x40 + gsi);
		line(m, gsi, 1);
		assert_int_equal(take(m->cpu[0]), 0x40 + gsi);
		eoi(m->cpu[0]);
		line(m, gsi, 0);
	}
	irqchip_get(&m->vm, &chip);
	assert_int_equal(chip.chip.pic.irr, 0xff);	/* IR2 by the slave's output */
	chip.chip_id = KVM_IRQCHIP_PIC_SLAVE;
	irqchip_get(&m->vm, &chip);
	assert_int_equal(chip.chip.pic.irr, 0xff);
	assert_int_equal(line(m, 24, 1), -1);
	assert_int_equal(line(m, 4095, 1), -1);
	assert_int_equal(line(m, 4096, 1), -1);
	assert_int_equal(line(m, ~0u, 1), -1);
}

static struct kvm_irq_routing_entry to_pin(u32 gsi, u32 chip, u32 pin)
{
	return (struct kvm_irq_routing_entry){ .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = chip, .pin = pin } };
}

static struct kvm_irq_routing_entry to_msi(u32 gsi, u32 addr, u32 data)
{
	return (struct kvm_irq_routing_entry){ .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = addr, .data = data } };
}

static void test_routing_replaced(void **state)
{
	struct machine *m = *state;
	struct kvm_irq_routing_entry e[] = {
		to_msi(300, 0xfee02000, 0x61), to_pin(0, KVM_IRQCHIP_IOAPIC, 2),
		to_pin(0, KVM_IRQCHIP_PIC_MASTER, 0), to_msi(4095, 0xfee03000, 0x62),
		to_pin(9, KVM_IRQCHIP_PIC_SLAVE, 1),
	};

	assert_int_equal(irqchip_set_routing(&m->vm, e, ARRAY_SIZE(e)), 0);
	assert_int_equal(line(m, 300, 1), 1);
	assert_int_equal(line(m, 300, 0), -1);
	assert_int_equal(take(m->cpu[2]), 0x61);
	assert_int_equal(line(m, 4095, 1), 1);
	assert_int_equal(take(m->cpu[3]), 0x62);
	io_entry(m, 2, 0x52);
	io_entry(m, 0, 0x50);
	io_entry(m, 20, 0x55);
	line(m, 0, 1);
	assert_int_equal(take(m->cpu[0]), 0x52);
	assert_int_equal(line(m, 20, 1), -1);	/* its route is gone */
	assert_int_equal(irqchip_set_routing(&m->vm, NULL, 0), 0);
	assert_int_equal(line(m, 300, 1), -1);
}

static void test_routing_checked(void **state)
{
	struct machine *m = *state;
	struct kvm_irq_routing_entry e[2];

	e[0] = to_pin(0, KVM_IRQCHIP_IOAPIC, 24);
	assert_int_equal(irqchip_set_routing(&m->vm, e, 1), -EINVAL);
	e[0] = to_pin(0, KVM_IRQCHIP_PIC_SLAVE, 8);
	assert_int_equal(irqchip_set_routing(&m->vm, e, 1), -EINVAL);
	e[0] = to_pin(0, 3, 0);
	assert_int_equal(irqchip_set_routing(&m->vm, e, 1), -EINVAL);
	e[0] = to_pin(4096, KVM_IRQCHIP_IOAPIC, 0);
	assert_int_equal(irqchip_set_routing(&m->vm, e, 1), -EINVAL);
	e[0] = to_msi(1, 0, 0);
	e[0].type = 9;
	assert_int_equal(irqchip_set_routing(&m->vm, e, 1), -EINVAL);
	e[0] = to_pin(1, KVM_IRQCHIP_IOAPIC, 3);	/* a chip twice */
	e[1] = to_pin(1, KVM_IRQCHIP_IOAPIC, 4);
	assert_int_equal(irqchip_set_routing(&m->vm, e, 2), -EINVAL);
	e[1] = to_msi(1, 0, 0);				/* a pin and a message */
	assert_int_equal(irqchip_set_routing(&m->vm, e, 2), -EINVAL);
	assert_int_equal(irqchip_set_routing(&m->vm, e, 4097), -EINVAL);
	io_entry(m, 20, 0x55);				/* after all of that the old table stands */
	assert_int_equal(line(m, 20, 1), 1);
}

static void test_msi(void **state)
{
	struct machine *m = *state;
	struct kvm_msi msi = { .address_lo = 0xfee01000, .data = 0x71 };

	assert_int_equal(irqchip_signal_msi(&m->vm, &msi), 1);
	assert_int_equal(take(m->cpu[1]), 0x71);
	msi.address_lo = 0xfee0900c;	/* to none */
	assert_int_equal(irqchip_signal_msi(&m->vm, &msi), -1);
	msi.address_lo = 0xfeeff000;
	assert_int_equal(irqchip_signal_msi(&m->vm, &msi), 4);
	msi.data = 0x472;		/* NMI to all */
	irqchip_signal_msi(&m->vm, &msi);
	fake_serve(m);
	assert_true(m->cpu[3]->nmi_pending);
	msi.flags = 2;
	assert_int_equal(irqchip_signal_msi(&m->vm, &msi), -EINVAL);
}

static void test_save_and_load(void **state)
{
	struct machine *m = *state, *n = machine_new(1);
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC},
			   again = {.chip_id = KVM_IRQCHIP_IOAPIC};

	io_entry(m, 20, LEVEL | 0x55);
	io_entry(m, 21, 0x56);
	io_entry(m, 22, MASKED | 0x57);
	line(m, 20, 1);
	line(m, 21, 1);
	line(m, 22, 1);
	assert_int_equal(irqchip_get(&m->vm, &chip), 0);
	assert_int_equal(chip.chip.ioapic.irr, BIT(20) | BIT(22));	/* edge 21 was delivered */
	assert_int_equal(irqchip_set(&n->vm, &chip), 0);
	assert_int_equal(irqchip_get(&n->vm, &again), 0);
	assert_memory_equal(&chip, &again, sizeof(chip));
	assert_int_equal(take(n->cpu[0]), -1);
	/* As its saved local APIC would hold it. */
	lapic_accept_vector(n->cpu[0]->lapic, 0x55, true);
	assert_int_equal(take(n->cpu[0]), 0x55);
	eoi(n->cpu[0]);
	assert_int_equal(take(n->cpu[0]), 0x55);
	machine_free(n);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)
#define T4(name) cmocka_unit_test_setup_teardown(name, machine_setup_smp, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_registers),
		T(test_edge),
		T(test_edge_while_masked_is_lost),
		T(test_level_and_remote_irr),
		T(test_level_unmask_delivers),
		T(test_edge_clears_remote_irr),
		T(test_shared_line),
		T(test_resample),
		T4(test_destinations),
		T4(test_lowest_priority_takes_turns),
		T(test_default_routing),
		T4(test_routing_replaced),
		T(test_routing_checked),
		T4(test_msi),
		T(test_save_and_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
