/* The 8254 and port 61h, against a clock that we move. Times are in PIT ticks of 838 ns. */
#include "fake.h"

#define CTRL	0x43
#define VECTOR	0x30

/* The first ns at which n ticks are over. */
static u64 ticks(u64 n)
{
	return (n * 1000000000 + 1193181) / 1193182;
}

/* To an absolute tick count, so that no rounding adds up. */
static void until(struct machine *m, u64 start, u64 n)
{
	fake_advance(m, start + ticks(n) - fake_now);
}

static void program(struct machine *m, unsigned int ch, u8 mode, u16 count)
{
	out8(m, CTRL, (u8)(ch << 6 | 0x30 | mode << 1));
	out8(m, (u16)(0x40 + ch), (u8)count);
	out8(m, (u16)(0x40 + ch), (u8)(count >> 8));
}

static u16 latch(struct machine *m, unsigned int ch)
{
	u8 low;

	out8(m, CTRL, (u8)(ch << 6));
	low = in8(m, (u16)(0x40 + ch));
	return (u16)(low | in8(m, (u16)(0x40 + ch)) << 8);
}

static u8 status(struct machine *m, unsigned int ch)
{
	out8(m, CTRL, (u8)(0xe0 | 2 << ch));
	return in8(m, (u16)(0x40 + ch));
}

static bool out2(struct machine *m)
{
	return in8(m, 0x61) & 0x20;
}

/* IRQ 0 through the PIC, so that acknowledgements are the guest's. */
static void pic_on(struct machine *m)
{
	out8(m, 0x20, 0x11);
	out8(m, 0x21, VECTOR);
	out8(m, 0x21, 4);
	out8(m, 0x21, 1);
	out8(m, 0x21, 0xfe);
	apic_write(m->cpu[0], LR_LVT_LINT0, APIC_EXTINT << LVT_MODE_SHIFT);
}

static unsigned int drain(struct machine *m)
{
	unsigned int n = 0;

	while (take(m->cpu[0]) == VECTOR) {
		out8(m, 0x20, 0x20);
		n++;
	}
	return n;
}

/* Linux pit_hpet_ptimer_calibrate_cpu(), pit_calibrate_tsc(): channel 2, mode 0, output in port
 * 61h. */
static void test_calibration(void **state)
{
	struct machine *m = *state;
	u16 count = 1193182 / 100;
	u64 start;

	out8(m, 0x61, (in8(m, 0x61) & ~2) | 1);
	program(m, 2, 0, count);
	start = fake_now;
	assert_false(out2(m));
	until(m, start, count - 1);
	assert_false(out2(m));
	until(m, start, count);
	assert_true(out2(m));
	assert_in_range(fake_now - start, 9990000, 10010000);
	until(m, start, 3 * count);
	assert_true(out2(m));
}

/* Linux quick_pit_calibrate(): reads the counter without latching, high byte every other time. */
static void test_quick_calibration(void **state)
{
	struct machine *m = *state;
	u64 start;

	out8(m, 0x61, (in8(m, 0x61) & ~2) | 1);
	out8(m, CTRL, 0xb0);
	out8(m, 0x42, 0xff);
	out8(m, 0x42, 0xff);
	start = fake_now;
	in8(m, 0x42);
	in8(m, 0x42);
	for (unsigned int expect = 0xff; expect > 0xf0; expect--) {
		until(m, start, (0xff - expect) * 256 + 10);
		in8(m, 0x42);
		assert_int_equal(in8(m, 0x42), expect);
	}
}

static void test_port_61(void **state)
{
	struct machine *m = *state;
	unsigned int toggles = 0;
	u8 last;

	out8(m, 0x61, 0xff);
	assert_int_equal(in8(m, 0x61) & 0xcf, 0x03);	/* bits 2, 3, 6 and 7 are not ours */
	out8(m, 0x61, 0);
	assert_int_equal(in8(m, 0x61) & 0x03, 0);
	last = in8(m, 0x61) & 0x10;
	for (unsigned int i = 0; i < 1000; i++) {
		fake_advance(m, 1000);
		toggles += (in8(m, 0x61) & 0x10) != last;
		last = in8(m, 0x61) & 0x10;
	}
	assert_in_range(toggles, 55, 67);
}

static void test_mode_0(void **state)
{
	struct machine *m = *state;
	u64 start;

	out8(m, 0x61, 1);
	out8(m, CTRL, 0xb0);
	assert_int_equal(status(m, 2), 0x70);	/* output low, no count */
	out8(m, 0x42, 0xe8);
	out8(m, 0x42, 0x03);
	start = fake_now;
	assert_int_equal(status(m, 2), 0x30);
	until(m, start, 400);
	assert_int_equal(latch(m, 2), 600);
	out8(m, 0x61, 0);			/* the gate stops it */
	fake_advance(m, 5000000);
	assert_int_equal(latch(m, 2), 600);
	out8(m, 0x61, 1);
	start = fake_now;
	until(m, start, 599);
	assert_false(out2(m));
	until(m, start, 600);
	assert_true(out2(m));
	until(m, start, 601);
	assert_int_equal(latch(m, 2), 0xffff);	/* counts on */
	out8(m, 0x42, 0x10); /* the first byte of a new count: output low, counting stops */
	assert_false(out2(m));
}

static void test_mode_1(void **state)
{
	struct machine *m = *state;
	u64 start;

	out8(m, 0x61, 0);
	program(m, 2, 1, 1000);
	fake_advance(m, 5000000);
	assert_true(out2(m));		/* waits for the gate to rise */
	out8(m, 0x61, 1);
	start = fake_now;
	assert_false(out2(m));
	until(m, start, 500);
	out8(m, 0x61, 0);		/* the level of the gate does not matter */
	until(m, start, 600);
	assert_false(out2(m));
	out8(m, 0x61, 1);		/* retriggered */
	start = fake_now;
	until(m, start, 999);
	assert_false(out2(m));
	until(m, start, 1000);
	assert_true(out2(m));
}

static void test_mode_2(void **state)
{
	struct machine *m = *state;
	u64 start;

	out8(m, 0x61, 1);
	program(m, 2, 2, 100);
	start = fake_now;
	for (unsigned int n = 0; n < 1000; n++) {
		until(m, start, n);
		assert_int_equal(latch(m, 2), 100 - n % 100);
		assert_int_equal(out2(m), n % 100 != 99);	/* low in the last clock */
	}
	out8(m, 0x61, 0);
	assert_true(out2(m));
	fake_advance(m, 5000000);
	out8(m, 0x61, 1);			/* a rising gate reloads */
	assert_int_equal(latch(m, 2), 100);
}

static void test_mode_3(void **state)
{
	struct machine *m = *state;
	u64 start;

	out8(m, 0x61, 1);
	program(m, 2, 3, 10);
	start = fake_now;
	for (unsigned int n = 0; n < 100; n++) {
		until(m, start, n);
		assert_int_equal(out2(m), n % 10 < 5);
		assert_int_equal(latch(m, 2), 10 - 2 * (n % 5));
	}
	program(m, 2, 7, 7); /* modes 6 and 7 are 2 and 3; odd: high for one clock longer */
	assert_int_equal(status(m, 2) & 0x3f, 0x36);
	start = fake_now;
	for (unsigned int n = 0; n < 70; n++) {
		until(m, start, n);
		assert_int_equal(out2(m), n % 7 < 4);
	}
}

static void test_modes_4_and_5(void **state)
{
	struct machine *m = *state;
	u64 start;

	out8(m, 0x61, 1);
	program(m, 2, 4, 50);
	start = fake_now;
	until(m, start, 49);
	assert_true(out2(m));
	until(m, start, 50);
	assert_false(out2(m));			/* the strobe: one clock */
	until(m, start, 51);
	assert_true(out2(m));
	out8(m, 0x61, 0);
	program(m, 2, 5, 50);
	fake_advance(m, 1000000);
	assert_true(out2(m));
	out8(m, 0x61, 1);
	start = fake_now;
	until(m, start, 50);
	assert_false(out2(m));
	until(m, start, 51);
	assert_true(out2(m));
}

static void test_latch_and_read_back(void **state)
{
	struct machine *m = *state;
	u64 start;

	out8(m, 0x61, 1);
	program(m, 2, 2, 0x4000);
	program(m, 1, 2, 0x8000);
	start = fake_now;
	until(m, start, 0x100);
	out8(m, CTRL, 0x80);
	until(m, start, 0x200);
	out8(m, CTRL, 0x80);			/* ignored: one is latched */
	assert_int_equal(in8(m, 0x42), 0x00);
	assert_int_equal(in8(m, 0x42), 0x3f);
	out8(m, CTRL, 0xcc);			/* read back counts and status of 1 and 2 */
	until(m, start, 0x300);
	assert_int_equal(in8(m, 0x42), 0xb4);	/* status comes first */
	assert_int_equal(in8(m, 0x42), 0x00);
	assert_int_equal(in8(m, 0x42), 0x3e);
	assert_int_equal(in8(m, 0x41), 0xb4);
	assert_int_equal(in8(m, 0x41), 0x00);
	assert_int_equal(in8(m, 0x41), 0x7e);
	out8(m, CTRL, 0xa4);			/* high byte only */
	out8(m, 0x42, 0x12);
	assert_int_equal(in8(m, 0x42), 0x12);
	out8(m, CTRL, 0x94);			/* low byte only */
	out8(m, 0x42, 0x34);
	assert_int_equal(in8(m, 0x42), 0x34);
	assert_int_equal(in8(m, CTRL), 0);
}

static void test_bcd(void **state)
{
	struct machine *m = *state;
	u64 start;

	out8(m, 0x61, 1);
	out8(m, CTRL, 0xb5);			/* channel 2, mode 2, BCD */
	out8(m, 0x42, 0x34);
	out8(m, 0x42, 0x12);
	start = fake_now;
	assert_int_equal(latch(m, 2), 0x1234);
	until(m, start, 235);
	assert_int_equal(latch(m, 2), 0x0999);
	until(m, start, 1234);
	assert_int_equal(latch(m, 2), 0x1234);
	out8(m, CTRL, 0xb5);
	out8(m, 0x42, 0);
	out8(m, 0x42, 0);			/* 10000 */
	start = fake_now;
	assert_int_equal(latch(m, 2), 0);
	until(m, start, 1);
	assert_int_equal(latch(m, 2), 0x9999);
	out8(m, 0x42, 0xff);			/* no digits: whatever they mean, nothing breaks */
	out8(m, 0x42, 0xff);
	latch(m, 2);
}

static void test_irq0_periodic(void **state)
{
	struct machine *m = *state;
	unsigned int got = 0;
	u64 start;

	pic_on(m);
	program(m, 0, 2, 1193);
	start = fake_now;
	for (unsigned int i = 0; i < 3000; i++) {
		fake_advance(m, 333333);
		got += drain(m);
	}
	assert_int_equal(got, (fake_now - start) * 1193182 / 1000000000 / 1193);
	out8(m, CTRL, 0x30);			/* a new mode stops it until a count comes */
	fake_advance(m, 1000000000);
	assert_int_equal(drain(m), 0);
}

static void test_irq0_one_shot(void **state)
{
	struct machine *m = *state;
	u64 start;

	pic_on(m);
	program(m, 0, 0, 11932);
	start = fake_now;
	until(m, start, 11931);
	assert_int_equal(drain(m), 0);
	until(m, start, 11932);
	assert_int_equal(drain(m), 1);
	fake_advance(m, 1000000000);
	assert_int_equal(drain(m), 0);
	program(m, 0, 4, 11932);		/* Linux's clockevent: mode 4 */
	start = fake_now;
	until(m, start, 11932);
	assert_int_equal(drain(m), 0);		/* the strobe begins ... */
	until(m, start, 11933);
	assert_int_equal(drain(m), 1);		/* ... and its end is the edge */
	program(m, 0, 1, 11932);		/* channel 0's gate never rises */
	fake_advance(m, 1000000000);
	assert_int_equal(drain(m), 0);
}

/* The guest was away for ten ticks: it gets them all, one for each acknowledgement. */
static void test_lost_ticks_come_back(void **state)
{
	struct machine *m = *state;
	u64 start;

	pic_on(m);
	program(m, 0, 2, 11932);
	start = fake_now;
	until(m, start, 10 * 11932);
	assert_int_equal(drain(m), 10);
	until(m, start, 11 * 11932);
	assert_int_equal(drain(m), 1);
	assert_int_equal(pit_reinject(&m->vm, false), 0);
	until(m, start, 21 * 11932);
	assert_int_equal(drain(m), 1);
	until(m, start, 22 * 11932);
	assert_int_equal(drain(m), 1);
}

/* Ours was away: the alarm comes ten ticks late. */
static void test_late_alarm(void **state)
{
	struct machine *m = *state;
	u64 start;

	pic_on(m);
	program(m, 0, 2, 11932);
	start = fake_now;
	fake_now = start + ticks(10 * 11932 + 100);
	fake_advance(m, 0);
	assert_int_equal(drain(m), 10);
	assert_true(fake_armed(start + ticks(11 * 11932)));
	fake_now += 3600 * 1000000000ULL;	/* an hour: not all of it */
	fake_advance(m, 0);
	assert_in_range(drain(m), 1, 1001);
}

static void test_backlog_ends_with_unmask(void **state)
{
	struct machine *m = *state;

	pic_on(m);
	out8(m, 0x21, 0xff);
	program(m, 0, 2, 11932);
	fake_advance(m, ticks(100 * 11932));
	out8(m, 0x21, 0xfe);
	assert_in_range(drain(m), 0, 1);
}

/* Through the IOAPIC, the local APIC's EOI is the acknowledgement, though the entry is an edge. */
static void test_reinjection_by_ioapic(void **state)
{
	struct machine *m = *state;
	unsigned int got = 0;

	io_entry(m, 0, 0x51);
	program(m, 0, 2, 11932);
	fake_advance(m, ticks(10 * 11932));
	while (take(m->cpu[0]) == 0x51) {
		apic_write(m->cpu[0], LR_EOI, 0);
		got++;
	}
	assert_int_equal(got, 10);
}

/* The local APIC was off: ticks went nowhere, and reinjection does not wait for their EOI. */
static void test_refused_tick(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	io_entry(m, 0, 0x51);
	apic_write(v, LR_SVR, 0xff);
	out8(m, 0x21, 0xff);
	program(m, 0, 2, 11932);
	fake_advance(m, ticks(3 * 11932));
	apic_enable(v);
	fake_advance(m, ticks(11932));
	assert_int_equal(take(v), 0x51);
}

/* A guest cannot make the host spin. */
static void test_minimum_period(void **state)
{
	struct machine *m = *state;

	for (unsigned int count = 1; count < 5; count++) {
		program(m, 0, 2, (u16)count);
		fake_arms = 0;
		fake_advance(m, 10000000);
		assert_in_range(fake_arms, 1, 51);
	}
}

/* Linux's NMI watchdog through LINT0: KVM sends one with each tick. */
static void test_watchdog(void **state)
{
	struct machine *m = *state;

	pic_on(m);
	apic_write(m->cpu[0], LR_LVT_LINT0, APIC_NMI << LVT_MODE_SHIFT);
	program(m, 0, 2, 11932);
	fake_advance(m, ticks(11932));
	assert_true(m->cpu[0]->nmi_pending);
}

static void test_save_and_load(void **state)
{
	struct machine *m = *state, *n = machine_new(1);
	struct kvm_pit_state2 a, b;
	u64 start;

	out8(m, 0x61, 3);
	program(m, 0, 2, 11932);
	program(m, 2, 3, 5000);
	out8(m, CTRL, 0x80);
	in8(m, 0x42);
	assert_int_equal(pit_get(&m->vm, &a), 0);
	assert_int_equal(a.flags, KVM_PIT_FLAGS_SPEAKER_DATA_ON);
	assert_int_equal(pit_set(&n->vm, &a), 0);
	start = fake_now;
	assert_int_equal(pit_get(&n->vm, &b), 0);
	for (unsigned int i = 0; i < 3; i++)
		a.channels[i].count_load_time = b.channels[i].count_load_time = 0;
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(in8(n, 0x42), 5000 >> 8);
	pic_on(n);
	until(n, start, 11932);
	assert_int_equal(drain(n), 1);
	memset(&a, 0xff, sizeof(a));		/* nonsense is taken in, without harm */
	assert_int_equal(pit_set(&n->vm, &a), 0);
	for (unsigned int i = 0; i < 3; i++) {
		latch(n, i);
		status(n, i);
	}
	fake_advance(n, 1000000000);
	machine_free(n);
}

/* As it is at power-on it counts nothing, and so it is when that state comes back. */
static void test_blank(void **state)
{
	struct machine *m = *state;
	struct kvm_pit_state2 blank;

	pic_on(m);
	assert_int_equal(pit_get(&m->vm, &blank), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(blank.channels[i].mode, 0xff);
	program(m, 0, 2, 11932);
	assert_int_equal(pit_set(&m->vm, &blank), 0);
	fake_advance(m, 1000000000);
	assert_int_equal(drain(m), 0);
	assert_int_equal(pit_get(&m->vm, &blank), 0);
	assert_int_equal(blank.channels[0].mode, 0xff);
	program(m, 0, 2, 11932);
	fake_advance(m, 100000000);
	assert_true(drain(m) > 0);
}

static void test_hpet_legacy(void **state)
{
	struct machine *m = *state;
	struct kvm_pit_state2 s;

	pic_on(m);
	program(m, 0, 2, 11932);
	pit_get(&m->vm, &s);
	s.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
	pit_set(&m->vm, &s);
	fake_advance(m, 1000000000);
	assert_int_equal(drain(m), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_calibration),
		T(test_blank),
		T(test_quick_calibration),
		T(test_port_61),
		T(test_mode_0),
		T(test_mode_1),
		T(test_mode_2),
		T(test_mode_3),
		T(test_modes_4_and_5),
		T(test_latch_and_read_back),
		T(test_bcd),
		T(test_irq0_periodic),
		T(test_irq0_one_shot),
		T(test_lost_ticks_come_back),
		T(test_late_alarm),
		T(test_backlog_ends_with_unmask),
		T(test_reinjection_by_ioapic),
		T(test_refused_tick),
		T(test_minimum_period),
		T(test_watchdog),
		T(test_save_and_load),
		T(test_hpet_legacy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
