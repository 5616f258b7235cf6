/* The local APIC's timer in its three modes, against a clock that we move. */
#include "fake.h"

#define VECTOR	0xec

static unsigned int drain(struct vcpu *v)
{
	unsigned int n = 0;

	while (take(v) == VECTOR) {
		apic_write(v, LR_EOI, 0);
		n++;
	}
	return n;
}

static void test_one_shot(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	apic_write(v, LR_LVT_TIMER, VECTOR);
	apic_write(v, LR_TDCR, 0x3);		/* by 16 */
	apic_write(v, LR_TMICT, 1000);
	assert_int_equal(apic_read(v, LR_TMCCT), 1000);
	fake_advance(m, 8000);
	assert_int_equal(apic_read(v, LR_TMCCT), 500);
	fake_advance(m, 7999);
	assert_int_equal(drain(v), 0);
	fake_advance(m, 1);
	assert_int_equal(drain(v), 1);
	assert_int_equal(apic_read(v, LR_TMCCT), 0);
	fake_advance(m, 1000000000);
	assert_int_equal(drain(v), 0);
	apic_write(v, LR_TMICT, 1000);
	apic_write(v, LR_TMICT, 0);		/* stops it */
	fake_advance(m, 1000000000);
	assert_int_equal(drain(v), 0);
}

static void test_divisors(void **state)
{
	static const u8 codes[][2] = {	/* TDCR, divisor */
		{ 0x0, 2 }, { 0x1, 4 }, { 0x2, 8 }, { 0x3, 16 },
		{ 0x8, 32 }, { 0x9, 64 }, { 0xa, 128 }, { 0xb, 1 },
	};
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	for (unsigned int i = 0; i < ARRAY_SIZE(codes); i++) {
		apic_write(v, LR_TDCR, codes[i][0]);
		apic_write(v, LR_TMICT, 0xffffffff);
		fake_advance(m, 128000);
		assert_int_equal(apic_read(v, LR_TMCCT), 0xffffffff - 128000 / codes[i][1]);
	}
}

static void test_divisor_change_keeps_the_count(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	apic_write(v, LR_LVT_TIMER, VECTOR);
	apic_write(v, LR_TDCR, 0xb);
	apic_write(v, LR_TMICT, 1000000);
	fake_advance(m, 400000);
	apic_write(v, LR_TDCR, 0x0);
	assert_int_equal(apic_read(v, LR_TMCCT), 600000);
	fake_advance(m, 1199999);
	assert_int_equal(drain(v), 0);
	fake_advance(m, 1);
	assert_int_equal(drain(v), 1);
}

static void test_periodic(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];
	u64 start = fake_now;
	unsigned int ticks = 0;

	apic_write(v, LR_LVT_TIMER, LVT_TIMER_PERIODIC | VECTOR);
	apic_write(v, LR_TDCR, 0xb);
	apic_write(v, LR_TMICT, 1000000);
	for (unsigned int i = 0; i < 1000; i++) {
		fake_advance(m, 333333);	/* never in step with the timer */
		ticks += drain(v);
	}
	assert_int_equal(ticks, (fake_now - start) / 1000000);
	assert_int_equal(apic_read(v, LR_TMCCT), 1000000 - (fake_now - start) % 1000000);
	apic_write(v, LR_LVT_TIMER, LVT_MASKED | LVT_TIMER_PERIODIC | VECTOR);
	fake_advance(m, 5000000);
	assert_int_equal(drain(v), 0);
	apic_write(v, LR_LVT_TIMER, LVT_TIMER_PERIODIC | VECTOR);
	fake_advance(m, 1000000);
	assert_int_equal(drain(v), 1);		/* masked, it ran on */
}

/* The alarm comes late: the phase stays, what was missed is made up, but not a whole pause of the
 * VM. */
static void test_periodic_late(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];
	u64 start = fake_now;
	unsigned int arms;

	apic_write(v, LR_LVT_TIMER, LVT_TIMER_PERIODIC | VECTOR);
	apic_write(v, LR_TDCR, 0xb);
	apic_write(v, LR_TMICT, 1000000);
	fake_now += 3500000;
	assert_int_equal(apic_read(v, LR_TMCCT), 500000);
	fake_advance(m, 0);
	assert_true(fake_armed(start + 4000000));
	fake_now += 3600 * 1000000000ULL;
	arms = fake_arms;
	fake_advance(m, 0);
	assert_in_range(fake_arms - arms, 1, 1100);
	assert_true(fake_armed(start + 3604 * 1000000000ULL - 1000000000ULL * 4 + 4000000));
}

/* A guest cannot make the host spin. */
static void test_periodic_minimum(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	apic_write(v, LR_LVT_TIMER, LVT_TIMER_PERIODIC | VECTOR);
	apic_write(v, LR_TDCR, 0xb);
	apic_write(v, LR_TMICT, 1);
	fake_arms = 0;
	fake_advance(m, 10000000);
	assert_in_range(fake_arms, 10, 51);
	apic_write(v, LR_LVT_TIMER, VECTOR);	/* set as one-shot, turned periodic afterwards */
	apic_write(v, LR_TMICT, 100);
	apic_write(v, LR_LVT_TIMER, LVT_TIMER_PERIODIC | VECTOR);
	fake_arms = 0;
	fake_advance(m, 10000000);
	assert_in_range(fake_arms, 10, 51);
	apic_read(v, LR_TMCCT);
}

static void test_tsc_deadline(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];
	u64 tsc;

	v->tsc_offset = 123456;
	lapic_set_tsc_deadline(v, 1);
	assert_int_equal(lapic_get_tsc_deadline(v), 0);	/* not in this mode */
	apic_write(v, LR_LVT_TIMER, LVT_TIMER_DEADLINE | VECTOR);
	tsc = fake_now * FAKE_TSC_PER_NS + v->tsc_offset;
	lapic_set_tsc_deadline(v, tsc + 2000);
	assert_int_equal(lapic_get_tsc_deadline(v), tsc + 2000);
	assert_int_equal(apic_read(v, LR_TMCCT), 0);
	apic_write(v, LR_TMICT, 77);			/* ignored */
	assert_int_equal(apic_read(v, LR_TMICT), 0);
	fake_advance(m, 999);
	assert_int_equal(drain(v), 0);
	fake_advance(m, 1);
	assert_int_equal(drain(v), 1);
	assert_int_equal(lapic_get_tsc_deadline(v), 0);
	lapic_set_tsc_deadline(v, 5);			/* in the past: at once */
	fake_serve(m);
	assert_int_equal(drain(v), 1);
	lapic_set_tsc_deadline(v, tsc + 1000000);
	lapic_set_tsc_deadline(v, 0);			/* disarmed */
	fake_advance(m, 10000000);
	assert_int_equal(drain(v), 0);
	lapic_set_tsc_deadline(v, ~0ULL);
	fake_advance(m, 10000000);
	assert_int_equal(drain(v), 0);
}

static void test_mode_change_disarms(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	apic_write(v, LR_LVT_TIMER, LVT_TIMER_DEADLINE | VECTOR);
	lapic_set_tsc_deadline(v, (fake_now + 1000) * FAKE_TSC_PER_NS);
	apic_write(v, LR_LVT_TIMER, VECTOR);
	fake_advance(m, 100000);
	assert_int_equal(drain(v), 0);
	apic_write(v, LR_TDCR, 0xb);
	apic_write(v, LR_TMICT, 1000);
	apic_write(v, LR_LVT_TIMER, LVT_TIMER_DEADLINE | VECTOR);
	assert_int_equal(apic_read(v, LR_TMICT), 0);
	fake_advance(m, 100000);
	assert_int_equal(drain(v), 0);
}

static void test_tsc_set_back(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	apic_write(v, LR_LVT_TIMER, LVT_TIMER_DEADLINE | VECTOR);
	lapic_set_tsc_deadline(v, (fake_now + 1000) * FAKE_TSC_PER_NS);
	v->tsc_offset -= 4000;				/* 2 us */
	fake_advance(m, 2999);
	assert_int_equal(drain(v), 0);
	fake_advance(m, 1);
	assert_int_equal(drain(v), 1);
}

/* Programming it anew does not lose the expiry that nobody has served yet. */
static void test_expired_before_reprogramming(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];
	struct kvm_lapic_state s;

	apic_write(v, LR_LVT_TIMER, VECTOR);
	apic_write(v, LR_TDCR, 0xb);
	for (unsigned int i = 0; i < 5; i++) {
		apic_write(v, LR_TMICT, 1000);
		fake_now += 1000;
		switch (i) {
		case 0:
			apic_write(v, LR_TMICT, 0);
			break;
		case 1:
			apic_write(v, LR_TDCR, 0xb);
			break;
		case 2:
			apic_write(v, LR_LVT_TIMER, LVT_MASKED | VECTOR);
			break;
		case 3:
			assert_int_equal(apic_read(v, LR_TMCCT), 0);
			break;
		default:
			lapic_get_state(v, &s);
			lapic_set_state(v, &s);
		}
		assert_int_equal(drain(v), 1);
		apic_write(v, LR_LVT_TIMER, VECTOR);
	}
	apic_write(v, LR_LVT_TIMER, LVT_TIMER_DEADLINE | VECTOR);
	lapic_set_tsc_deadline(v, (fake_now + 1000) * FAKE_TSC_PER_NS);
	fake_now += 1000;
	lapic_set_tsc_deadline(v, 0);
	assert_int_equal(drain(v), 1);
}

static void test_reset_stops(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];

	apic_write(v, LR_LVT_TIMER, LVT_TIMER_PERIODIC | VECTOR);
	apic_write(v, LR_TMICT, 100000);
	lapic_reset(v, true);
	apic_enable(v);
	apic_write(v, LR_LVT_TIMER, VECTOR);
	fake_advance(m, 1000000000);
	assert_int_equal(drain(v), 0);
}

static void test_state_keeps_the_count(void **state)
{
	struct machine *m = *state;
	struct vcpu *v = m->cpu[0];
	struct kvm_lapic_state s;

	apic_write(v, LR_LVT_TIMER, LVT_TIMER_PERIODIC | VECTOR);
	apic_write(v, LR_TDCR, 0xb);
	apic_write(v, LR_TMICT, 1000000);
	fake_advance(m, 300000);
	lapic_get_state(v, &s);
	fake_now += 77777777;				/* while it was saved */
	assert_int_equal(lapic_set_state(v, &s), 0);
	assert_int_equal(apic_read(v, LR_TMCCT), 700000);
	fake_advance(m, 699999);
	assert_int_equal(drain(v), 0);
	fake_advance(m, 1);
	assert_int_equal(drain(v), 1);
	fake_advance(m, 1000000);
	assert_int_equal(drain(v), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_one_shot),
		T(test_divisors),
		T(test_divisor_change_keeps_the_count),
		T(test_periodic),
		T(test_periodic_late),
		T(test_periodic_minimum),
		T(test_tsc_deadline),
		T(test_mode_change_disarms),
		T(test_tsc_set_back),
		T(test_expired_before_reprogramming),
		T(test_reset_stops),
		T(test_state_keeps_the_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
