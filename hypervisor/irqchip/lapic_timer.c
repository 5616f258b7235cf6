/*
 * The local APIC's timer: one-shot, periodic and TSC-deadline. SDM 3A 11.5.4
 *
 * The bus clock is 1 GHz, as KVM's: a count of 1 at divisor 1 is a nanosecond. An expiry comes as a
 * request to the vCPU, which compares its own deadline with the clock; so an alarm that was set for
 * an earlier programming is harmless, and nothing here needs a lock. An access to the timer's
 * registers does the same first: what expired before it must not be lost by it.
 */
#include "hypervisor/irqchip/lapic.h"

#include "hypervisor/x86/system.h"

/* KVM's limit (min_timer_period_us): a guest must not keep the host busy with a periodic timer. */
#define MIN_PERIOD_NS	200000ULL
/* Ticks missed for longer than this (a paused machine) are forgotten. */
#define MAX_BACKLOG_NS	1000000000ULL

static void timer_fired(void *arg)
{
	struct lapic *l = arg;

	vcpu_request(l->vcpu, REQ_APIC_TIMER);
}

void lapic_timer_init(struct lapic *l)
{
	os_timer_init(&l->timer.os, timer_fired, l);
}

static u32 timer_mode(const struct lapic *l)
{
	return l->reg[LR_LVT_TIMER] & LVT_TIMER_MODE;
}

/* SDM 3A figure 11-10: bits 3, 1, 0; 111b divides by one. */
static u32 timer_divisor(u32 tdcr)
{
	u32 code = (tdcr & 3) | (tdcr & 8) >> 1;

	return 1u << ((code + 1) & 7);
}

static u64 counts_to_ns(const struct lapic *l, u32 count)
{
	return (u64)count * timer_divisor(l->reg[LR_TDCR]);
}

void lapic_timer_stop(struct lapic *l)
{
	struct lapic_timer *t = &l->timer;

	if (t->deadline)
		os_timer_cancel(&t->os);
	t->deadline = 0;
	t->tsc = 0;
}

static void timer_arm(struct lapic *l, u64 deadline)
{
	l->timer.deadline = deadline;
	os_timer_arm(&l->timer.os, deadline);
}

void lapic_timer_start(struct lapic *l, u32 count)
{
	struct lapic_timer *t = &l->timer;

	if (!count || !l->reg[LR_TMICT]) {
		lapic_timer_stop(l);
		return;
	}
	t->period = counts_to_ns(l, l->reg[LR_TMICT]);
	if (timer_mode(l) == LVT_TIMER_PERIODIC)
		t->period = MAX(t->period, MIN_PERIOD_NS);
	timer_arm(l, os_clock_ns() + MIN(counts_to_ns(l, count), t->period));
}

/*
 * Saved state with a counter of zero: QEMU never saves it. As KVM does, a periodic timer begins a
 * period, and a one-shot one expires at once, which is better than never.
 */
void lapic_timer_restore(struct lapic *l, u32 count)
{
	if (count || timer_mode(l) == LVT_TIMER_PERIODIC || !l->reg[LR_TMICT]) {
		lapic_timer_start(l, count ? count : l->reg[LR_TMICT]);
		return;
	}
	l->timer.period = counts_to_ns(l, l->reg[LR_TMICT]);
	timer_arm(l, os_clock_ns());
}

/* ns until the counter reads zero. */
static u64 timer_remaining(const struct lapic *l)
{
	const struct lapic_timer *t = &l->timer;
	u64 now = os_clock_ns(), late;

	if (now < t->deadline)
		return t->deadline - now;
	if (timer_mode(l) != LVT_TIMER_PERIODIC || !t->period)
		return 0;
	/* Expired, not yet served: the counter has been reloaded all the same. */
	late = now - t->deadline;
	return t->period - late % t->period;
}

u32 lapic_timer_count(const struct lapic *l)
{
	u64 count;

	if (!l->timer.deadline || timer_mode(l) == LVT_TIMER_DEADLINE)
		return 0;
	count = timer_remaining(l) / timer_divisor(l->reg[LR_TDCR]);
	return (u32)MIN(count, l->reg[LR_TMICT]);
}

void lapic_timer_write_divide(struct lapic *l, u32 val)
{
	u32 count = lapic_timer_count(l);

	l->reg[LR_TDCR] = val;
	if (l->timer.deadline && timer_mode(l) != LVT_TIMER_DEADLINE)
		lapic_timer_start(l, count);
}

/* SDM 3A 11.5.4.1: entering or leaving TSC-deadline mode disarms. */
void lapic_timer_write_lvt(struct lapic *l, u32 val)
{
	u32 old = timer_mode(l), mode = val & LVT_TIMER_MODE;

	if (old == mode || (old != LVT_TIMER_DEADLINE && mode != LVT_TIMER_DEADLINE))
		return;
	lapic_timer_stop(l);
	l->reg[LR_TMICT] = 0;
	l->timer.period = 0;
}

/* ---- TSC deadline ---------------------------------------------------------------------------- */

u64 lapic_get_tsc_deadline(const struct vcpu *v)
{
	if (!v->lapic || timer_mode(v->lapic) != LVT_TIMER_DEADLINE)
		return 0;
	return v->lapic->timer.tsc;
}

void lapic_set_tsc_deadline(struct vcpu *v, u64 val)
{
	struct lapic *l = v->lapic;

	if (!l || timer_mode(l) != LVT_TIMER_DEADLINE)
		return;
	lapic_timer_expired(v);
	if (!val) {
		lapic_timer_stop(l);
		return;
	}
	l->timer.tsc = val;
	if (val <= tsc_read(v)) {
		l->timer.deadline = 1;
		vcpu_request(v, REQ_APIC_TIMER);
		return;
	}
	timer_arm(l, MAX(tsc_deadline_ns(v, val), 1));
}

/* ---- expiry ---------------------------------------------------------------------------------- */

/* The next tick keeps the phase, however late this one is served. */
static void timer_reload(struct lapic *l)
{
	struct lapic_timer *t = &l->timer;
	u64 period = MAX(t->period, MIN_PERIOD_NS); /* LVT may have been one-shot when it was set */
	u64 now = os_clock_ns(), next = t->deadline + period;

	if (now > next + MAX_BACKLOG_NS)
		next += (now - next) / period * period;
	timer_arm(l, next);
}

static void deadline_expired(struct vcpu *v, struct lapic *l)
{
	struct lapic_timer *t = &l->timer;

	/* The two clocks differ by a rounding, or the TSC was set back. */
	if (tsc_read(v) < t->tsc) {
		timer_arm(l, MAX(tsc_deadline_ns(v, t->tsc), 1));
		return;
	}
	t->deadline = 0;
	t->tsc = 0;
	lapic_local(l, LR_LVT_TIMER);
}

void lapic_timer_expired(struct vcpu *v)
{
	struct lapic *l = v->lapic;

	if (!l || !l->timer.deadline)
		return;
	if (timer_mode(l) == LVT_TIMER_DEADLINE) {
		deadline_expired(v, l);
		return;
	}
	if (os_clock_ns() < l->timer.deadline)
		return;
	if (timer_mode(l) == LVT_TIMER_PERIODIC && l->timer.period)
		timer_reload(l);
	else
		l->timer.deadline = 0;
	lapic_local(l, LR_LVT_TIMER);
}
