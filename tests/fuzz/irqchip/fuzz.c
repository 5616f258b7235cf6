/*
 * A hostile guest and a careless user space at the interrupt chips: random accesses to every port,
 * page and MSR of theirs, random states, lines, messages and routes, while time passes.
 *
 *   irqchip_fuzz [seed [operations]]
 *
 * What must hold: no access outside an array (run it under ASan), no lock left or taken twice (the
 * fake asserts), and work in proportion to time (a guest cannot make timers fire without end).
 */
#include <stdio.h>
#include <string.h>

#include "tests/unit/irqchip/fake.h"

#define CPUS		3
#define MAX_ARMS_PER_MS	(8 * (CPUS + 1))	/* a timer's shortest period is 200 us */

static u64 random_state;

/* xorshift64* */
static u64 rnd(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 2685821657736338717ULL;
}

static u32 below(u32 n)
{
	return (u32)(rnd() >> 32) % n;
}

/* Mostly small or single-bit numbers, which hit more than uniform ones do. */
static u64 value(void)
{
	switch (below(4)) {
	case 0:
		return below(256);
	case 1:
		return 1ULL << below(64);
	case 2:
		return rnd() & 0xffff;
	default:
		return rnd();
	}
}

static unsigned int length(void)
{
	return 1u << below(4);
}

static struct vcpu *cpu(struct machine *m)
{
	return m->cpu[below(CPUS)];
}

/* ---- operations ------------------------------------------------------------------------------ */

static void op_port(struct machine *m)
{
	static const u16 ports[] = {
		0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61};
	u16 port = ports[below(ARRAY_SIZE(ports))];
	u64 data = value();
	unsigned int len = length();

	if (below(3))
		bus_write(cpu(m), BUS_PIO, port, len, &data);
	else
		bus_read(cpu(m), BUS_PIO, port, len, &data);
}

static void op_ioapic(struct machine *m)
{
	u64 data = value();

	if (below(4)) {
		io_write(m, below(4) ? (u8)(0x10 + below(48)) : (u8)below(256), (u32)data);
		return;
	}
	if (below(2))
		bus_write(cpu(m), BUS_MMIO, IOAPIC_BASE + below(0x108), length(), &data);
	else
		bus_read(cpu(m), BUS_MMIO, IOAPIC_BASE + below(0x108), length(), &data);
}

static void op_lapic(struct machine *m)
{
	u64 data = value();
	u32 off = below(4) ? below(NR_LAPIC_REGS) << 4 : below(4096);
	unsigned int len = below(4) ? 4 : length();

	if (below(3))
		lapic_mmio_write(cpu(m), off, len, &data);
	else
		lapic_mmio_read(cpu(m), off, len, &data);
}

static void op_msr(struct machine *m)
{
	u64 data = value();

	switch (below(5)) {
	case 0:
		lapic_set_base(cpu(m), LAPIC_DEFAULT_BASE | (data & 0xfff), below(2));
		break;
	case 1:
		lapic_set_tsc_deadline(cpu(m), fake_now * FAKE_TSC_PER_NS + below(100000000));
		break;
	case 2:
		lapic_set_cr8(cpu(m), data & 15);
		break;
	case 3:
		lapic_msr_read(cpu(m), 0x800 + below(0x100), &data);
		break;
	default:
		lapic_msr_write(cpu(m), 0x800 + below(0x100), data);
	}
}

static void op_line(struct machine *m)
{
	struct kvm_msi msi = {
		.address_lo = 0xfee00000 | (u32)(value() & 0xfffff), .data = (u32)value()};

	if (below(4))
		irqchip_line(&m->vm, below(70), below(30), below(2), NULL);
	else
		irqchip_signal_msi(&m->vm, &msi);
}

static void op_routing(struct machine *m)
{
	struct kvm_irq_routing_entry e[8];
	u32 n = below(ARRAY_SIZE(e) + 1);

	for (u32 i = 0; i < n; i++) {
		e[i] = (struct kvm_irq_routing_entry){ .gsi = below(8) ? below(32) : (u32)value(),
			.type = below(8) ? 1 + below(2) : (u32)value() };
		if (e[i].type == KVM_IRQ_ROUTING_IRQCHIP)
			e[i].u.irqchip = (struct kvm_irq_routing_irqchip){ below(4), below(26) };
		else
			e[i].u.msi = (struct kvm_irq_routing_msi){ .address_lo = (u32)value(),
				.data = (u32)value() };
	}
	irqchip_set_routing(&m->vm, e, n);
}

static void scramble(void *p, size_t size)
{
	u8 *bytes = p;
	u32 n = below(16);

	for (u32 i = 0; i < n; i++)
		bytes[below((u32)size)] = (u8)value();
}

static void op_state(struct machine *m)
{
	struct kvm_irqchip chip = { .chip_id = below(4) };
	struct kvm_pit_state2 pit;
	struct kvm_lapic_state lapic;
	struct vcpu *v = cpu(m);

	switch (below(3)) {
	case 0:
		irqchip_get(&m->vm, &chip);
		scramble(&chip.chip, sizeof(chip.chip));
		irqchip_set(&m->vm, &chip);
		break;
	case 1:
		pit_get(&m->vm, &pit);
		scramble(&pit, sizeof(pit));
		pit_set(&m->vm, &pit);
		break;
	default:
		lapic_get_state(v, &lapic);
		scramble(&lapic, sizeof(lapic));
		lapic_set_state(v, &lapic);
	}
}

static void op_take(struct machine *m)
{
	struct vcpu *v = cpu(m);
	int vector = take(v);

	assert_in_range(vector + 1, 0, 256);
	if (vector >= 0 && below(4)) {
		apic_write(v, LR_EOI, 0);
		out8(m, 0x20, 0x20);
		out8(m, 0xa0, 0x20);
	}
}

static void op_time(struct machine *m)
{
	u64 ms = below(4) ? 1 : below(50);

	fake_arms = 0;
	fake_serve(m);
	fake_advance(m, ms * 1000000 + below(1000));
	/* A late timer catches up a second at most, beside what is due. */
	assert_in_range(fake_arms, 0, (ms + 1) * MAX_ARMS_PER_MS);
	for (unsigned int i = 0; i < CPUS; i++)
		if (below(8) == 0)
			apic_enable(m->cpu[i]);
}

static void op_reset(struct machine *m)
{
	lapic_reset(cpu(m), below(2));
	pit_reinject(&m->vm, below(2));
}

static void (*const ops[])(struct machine *m) = {
	op_port, op_port, op_port, op_ioapic, op_ioapic, op_lapic, op_lapic, op_lapic, op_msr,
	op_line, op_line, op_take, op_take, op_time, op_state, op_routing, op_reset,
};

/* ---- driver ---------------------------------------------------------------------------------- */

static u64 seed = 1, operations = 300000;

static void fuzz(void **state)
{
	struct machine *m = machine_new(CPUS);

	random_state = seed * 0x9e3779b97f4a7c15ULL | 1;
	for (u64 i = 0; i < operations; i++) {
		u32 n = below(ARRAY_SIZE(ops));

		/* States, routes and resets are rare, so that things build up. */
		if (n >= 14 && below(16))
			n = below(14);
		ops[n](m);
	}
	machine_free(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(fuzz) };

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		operations = strtoull(argv[2], NULL, 0);
	printf("seed %llu, %llu operations\n", (unsigned long long)seed,
		(unsigned long long)operations);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
