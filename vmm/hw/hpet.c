/*
 * High precision event timers (IA-PC HPET Specification 1.0a): a counter of 100 MHz in guest time and
 * three comparators, all of 64 bits and able of periods. No FSB delivery. A comparator fires when the
 * counter comes to its value, so one that is set to what has passed waits for the counter to come around,
 * as hardware does; guests look at the counter once more behind a write.
 */
#include <errno.h>

#include "vmm/hw/hpet.h"

enum {
	GCAP_ID = 0x00, GEN_CONF = 0x10, GINTR_STA = 0x20, MAIN_CNT = 0xF0,
	TIMERS = 0x100, TIMER_STRIDE = 0x20, TIMER_CONF = 0x00, TIMER_COMP = 0x08,
};

#define TICK_NS		10
#define TICK_FS		10000000ULL

#define AHEAD_MAX	BIT(56)	/* 22 years are never */

#define CONF_ENABLE	BIT(0)
#define CONF_LEGACY	BIT(1)

#define T_LEVEL		BIT(1)
#define T_ENABLE	BIT(2)
#define T_PERIODIC	BIT(3)
#define T_CAPS		(BIT(4) | BIT(5))	/* periods, 64 bits */
#define T_SET		BIT(6)
#define T_32		BIT(8)
#define T_ROUTE(c)	((c) >> 9 & 31)
#define T_WRITABLE	(T_LEVEL | T_ENABLE | T_PERIODIC | T_SET | T_32 | MASK(13, 9))
/* Which inputs of the IOAPIC: those of PIRQ E to H, as in the ICH9. */
#define T_ROUTES	0x00F00000ULL

/* Legacy replacement (2.3.5): timer 0 as the i8254, 1 as the RTC. */
#define IRQ_TIMER0	0
#define IRQ_TIMER1	8

/* ---- the counter ----------------------------------------------------------------------------- */

static u64 host_ticks(const struct hpet *h)
{
	return timer_queue_now(h->t[0].timer.queue) / TICK_NS;
}

static u64 hpet_counter(const struct hpet *h)
{
	return h->config & CONF_ENABLE ? host_ticks(h) + h->counter : h->counter;
}

static u64 timer_mask(const struct hpet_timer *t)
{
	return t->config & T_32 ? 0xFFFFFFFF : ~0ULL;
}

/* ---- interrupts ------------------------------------------------------------------------------ */

bool hpet_is_legacy(const struct hpet *h)
{
	return h->config & CONF_LEGACY;
}

static unsigned timer_number(const struct hpet_timer *t)
{
	return t - t->hpet->t;
}

/* Which line; HPET_LINES: none that there is. */
static unsigned timer_route(const struct hpet_timer *t)
{
	unsigned n = timer_number(t), route = T_ROUTE(t->config);

	if (hpet_is_legacy(t->hpet) && n < 2)
		return n ? IRQ_TIMER1 : IRQ_TIMER0;
	return T_ROUTES >> route & 1 ? route : HPET_LINES;
}

/* Lines of level-triggered timers, from status. */
static void hpet_update_lines(struct hpet *h)
{
	u32 up = 0;

	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		const struct hpet_timer *t = &h->t[i];

		if (h->status >> i & 1 && t->config & T_ENABLE && h->config & CONF_ENABLE)
			up |= 1u << timer_route(t);
	}
	for (unsigned i = 0; i < HPET_LINES; i++)
		if (h->line[i].set)
			irq_line_set(&h->line[i], up >> i & 1);
}

static void timer_interrupt(struct hpet_timer *t)
{
	struct hpet *h = t->hpet;
	unsigned route = timer_route(t);

	if (t->config & T_LEVEL) {
		h->status |= 1u << timer_number(t);
		hpet_update_lines(h);
	} else if (t->config & T_ENABLE && route < HPET_LINES) {
		irq_line_pulse(&h->line[route]);
		hpet_update_lines(h);	/* another timer may hold it */
	}
}

/* ---- comparators ----------------------------------------------------------------------------- */

static void timer_program(struct hpet_timer *t)
{
	struct hpet *h = t->hpet;
	u64 now = hpet_counter(h), ahead = t->due > now ? t->due - now : 0;

	if (t->due == HPET_NEVER || !(h->config & CONF_ENABLE) || ahead > AHEAD_MAX)
		timer_cancel(&t->timer);
	else
		timer_arm(&t->timer, (host_ticks(h) + ahead) * TICK_NS);
}

/* The counter, the comparator or how to compare them changed. */
static void timer_aim(struct hpet_timer *t)
{
	u64 now = hpet_counter(t->hpet), ahead = (t->compare - now) & timer_mask(t);

	t->due = ahead > HPET_NEVER - 1 - now ? HPET_NEVER : now + ahead;
	timer_program(t);
}

static void hpet_aim_all(struct hpet *h)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		timer_aim(&h->t[i]);
}

/* Behind an event: the next one. Those of a period that were missed count as one. */
static void timer_advance(struct hpet_timer *t, u64 now)
{
	u64 mask = timer_mask(t), period = t->period & mask, n;

	if (!(t->config & T_PERIODIC)) {
		/* 32 bits come around (2.3.9.2.1); 64 do not in a lifetime. */
		t->due = mask == ~0ULL ? HPET_NEVER : t->due + mask + 1;
	} else if (!period) {
		t->due = HPET_NEVER;
	} else {
		n = (now - t->due) / period + 1;
		t->due += n * period;
		t->compare = (t->compare + n * period) & mask;
	}
	timer_program(t);
}

static void timer_fired(void *arg)
{
	struct hpet_timer *t = arg;
	u64 now = hpet_counter(t->hpet);

	if (now < t->due) {
		timer_program(t);
		return;
	}
	timer_advance(t, now);
	timer_interrupt(t);
}

/* ---- registers ------------------------------------------------------------------------------- */

static u64 timer_read(const struct hpet_timer *t, u64 reg)
{
	switch (reg) {
	case TIMER_CONF:
		return T_ROUTES << 32 | T_CAPS | t->config;
	case TIMER_COMP:
		return t->compare;
	default:
		return 0;
	}
}

static u64 register_read(const struct hpet *h, u64 reg)
{
	u64 timer = (reg - TIMERS) / TIMER_STRIDE;

	if (reg >= TIMERS)
		return timer < HPET_TIMERS ? timer_read(&h->t[timer], reg % TIMER_STRIDE) : 0;
	switch (reg) {
	case GCAP_ID:
		return TICK_FS << 32 | HPET_ID;
	case GEN_CONF:
		return h->config;
	case GINTR_STA:
		return h->status;
	case MAIN_CNT:
		return hpet_counter(h);
	default:
		return 0;
	}
}

static void timer_write_config(struct hpet_timer *t, u64 value)
{
	t->config = value & T_WRITABLE;
	/* Status belongs to levels. */
	if (!(t->config & T_LEVEL))
		t->hpet->status &= ~(1ULL << timer_number(t));
	if (t->config & T_32) {
		t->compare = (u32)t->compare;
		t->period = (u32)t->period;
	}
	timer_aim(t);
	hpet_update_lines(t->hpet);
}

/* 2.3.9.2.2: a periodic timer's writes are its period, and with VAL_SET, once, where it begins. */
static void timer_write_compare(struct hpet_timer *t, u64 value)
{
	bool periodic = t->config & T_PERIODIC, set = !periodic || t->config & T_SET;

	value &= timer_mask(t);
	t->config &= ~T_SET;
	if (periodic)
		t->period = value;
	if (!set)
		return;
	t->compare = value;
	timer_aim(t);
}

static void timer_write(struct hpet_timer *t, u64 reg, u64 value)
{
	if (reg == TIMER_CONF)
		timer_write_config(t, value);
	else if (reg == TIMER_COMP)
		timer_write_compare(t, value);
}

static void hpet_write_config(struct hpet *h, u64 value)
{
	u64 counter = hpet_counter(h), changed = (h->config ^ value) & (CONF_ENABLE | CONF_LEGACY);

	h->config = value & (CONF_ENABLE | CONF_LEGACY);
	if (changed & CONF_ENABLE) {
		h->counter = h->config & CONF_ENABLE ? counter - host_ticks(h) : counter;
		hpet_aim_all(h);
	}
	if (changed & CONF_LEGACY && h->set_legacy)
		h->set_legacy(h->arg, hpet_is_legacy(h));
	hpet_update_lines(h);
}

static void register_write(struct hpet *h, u64 reg, u64 value)
{
	u64 timer = (reg - TIMERS) / TIMER_STRIDE;

	if (reg >= TIMERS) {
		if (timer < HPET_TIMERS)
			timer_write(&h->t[timer], reg % TIMER_STRIDE, value);
	} else if (reg == GEN_CONF) {
		hpet_write_config(h, value);
	} else if (reg == GINTR_STA) {
		h->status &= ~value;
		hpet_update_lines(h);
	} else if (reg == MAIN_CNT && !(h->config & CONF_ENABLE)) {
		h->counter = value;	/* 2.3.7: only while it stands still */
		hpet_aim_all(h);
	}
}

static u64 hpet_read(void *dev, u64 offset, unsigned size)
{
	(void)size;
	return register_read(dev, offset & ~7ULL) >> (offset & 7) * 8;
}

/* 2.3.2: doublewords and quadwords, aligned. A half leaves the other as it was. */
static void hpet_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct hpet *h = dev;
	u64 reg = offset & ~7ULL, old;

	if (size < 4 || offset & (size - 1))
		return;
	if (size == 4) {
		/* Ones clear in the status, so the other half writes none. */
		old = reg == GINTR_STA ? 0 : register_read(h, reg);
		value = offset & 4 ? (u32)old | value << 32
				   : (old & ~0xFFFFFFFFULL) | (u32)value;
	}
	register_write(h, reg, value);
}

const struct io_ops hpet_io_ops = { .read = hpet_read, .write = hpet_write, .width = 8 };

/* ---- device ---------------------------------------------------------------------------------- */

static void hpet_reset(void *dev)
{
	struct hpet *h = dev;

	hpet_write_config(h, 0);
	h->status = h->counter = 0;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		h->t[i].config = h->t[i].period = 0;
		h->t[i].compare = ~0ULL;
	}
	hpet_aim_all(h);
	hpet_update_lines(h);
}

static void hpet_nop(void *dev)
{
	(void)dev;
}

static const struct state_field hpet_fields[] = {
	STATE_FIELD(struct hpet_state, config, 1),
	STATE_FIELD(struct hpet_state, status, 1),
	STATE_FIELD(struct hpet_state, counter, 1),
	STATE_FIELD(struct hpet_state, timer_config, 1),
	STATE_FIELD(struct hpet_state, compare, 1),
	STATE_FIELD(struct hpet_state, period, 1),
	STATE_FIELD(struct hpet_state, due, 1),
};

static const struct state_table hpet_table = STATE_TABLE("hpet", struct hpet_state, 1, hpet_fields);

/* The counter's value itself: guest time need not be the same where this is loaded. */
static void hpet_save(void *dev, void *state)
{
	const struct hpet *h = dev;
	struct hpet_state *st = state;

	*st = (struct hpet_state){
		.config = h->config, .status = h->status, .counter = hpet_counter(h) };
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		st->timer_config[i] = h->t[i].config;
		st->compare[i] = h->t[i].compare;
		st->period[i] = h->t[i].period;
		st->due[i] = h->t[i].due;
	}
}

static bool hpet_state_is_good(const struct hpet_state *st)
{
	bool good = !(st->config & ~(CONF_ENABLE | CONF_LEGACY)) &&
		    !(st->status & ~MASK(HPET_TIMERS - 1, 0));

	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		u64 c = st->timer_config[i], high = c & T_32 ? ~0xFFFFFFFFULL : 0;

		good = good && !(c & ~T_WRITABLE) && !((st->compare[i] | st->period[i]) & high) &&
		       (st->due[i] >= st->counter || st->counter - st->due[i] < BIT(40));
	}
	return good;
}

static int hpet_load(void *dev, const void *state)
{
	const struct hpet_state *st = state;
	struct hpet *h = dev;

	if (!hpet_state_is_good(st))
		return -EINVAL;
	hpet_write_config(h, 0);
	hpet_write_config(h, st->config);
	h->status = st->status;
	h->counter = st->config & CONF_ENABLE ? st->counter - host_ticks(h) : st->counter;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		struct hpet_timer *t = &h->t[i];

		t->config = st->timer_config[i];
		t->compare = st->compare[i];
		t->period = st->period[i];
		t->due = st->due[i];
		timer_program(t);
	}
	hpet_update_lines(h);
	return 0;
}

const struct device_ops hpet_device_ops = {
	.table = &hpet_table, .reset = hpet_reset, .pause = hpet_nop, .resume = hpet_nop,
	.save = hpet_save, .load = hpet_load,
};

void hpet_init(struct hpet *h, struct timer_queue *timers, const struct irq_line *line,
	       void (*set_legacy)(void *arg, bool on), void *arg)
{
	*h = (struct hpet){ .set_legacy = set_legacy, .arg = arg };
	for (unsigned i = 0; i < HPET_LINES; i++) {
		if (!(T_ROUTES >> i & 1) && i != IRQ_TIMER0 && i != IRQ_TIMER1)
			continue;
		h->line[i] = *line;
		h->line[i].gsi = i;
	}
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		h->t[i].hpet = h;
		timer_init(&h->t[i].timer, timers, timer_fired, &h->t[i]);
	}
	hpet_reset(h);
}
