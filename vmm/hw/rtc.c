/*
 * MC146818 real-time clock, after Motorola's MC146818 data sheet, with the PC's CMOS memory.
 *
 * The time is the host's plus an offset that the guest sets. Nothing ticks here: flags are worked
 * out when the guest looks, and a timer is armed only for an interrupt that the guest enabled.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "vmm/hw/rtc.h"

enum {
	RTC_SECONDS, RTC_SECONDS_ALARM, RTC_MINUTES, RTC_MINUTES_ALARM, RTC_HOURS, RTC_HOURS_ALARM,
	RTC_WEEKDAY, RTC_DAY, RTC_MONTH, RTC_YEAR, RTC_A, RTC_B, RTC_C, RTC_D,
	RTC_CENTURY = 0x32,
};

#define A_UIP		0x80
#define A_DIVIDER	0x70
#define A_RUNNING	0x20	/* the 32768 Hz time base */
#define A_RATE		0x0F

#define B_SET		0x80
#define B_PIE		0x40
#define B_AIE		0x20
#define B_UIE		0x10
#define B_BINARY	0x04
#define B_24H		0x02
#define B_ENABLES	(B_PIE | B_AIE | B_UIE)

#define C_IRQF		0x80
#define C_PF		0x40
#define C_AF		0x20
#define C_UF		0x10

#define D_VALID		0x80

#define ALARM_ANY	0xC0	/* this bit pattern in an alarm byte matches everything */
#define HOUR_PM		0x80

#define NS		1000000000ULL
#define UIP_NS		244000	/* MC146818 "update cycle": UIP rises 244 us before the update */
#define DAY_SECONDS	86400

static u64 host_wall_ns(void *arg)
{
	struct timespec ts;

	(void)arg;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (u64)ts.tv_sec * NS + ts.tv_nsec;
}

/* The guest's time of day in ns since the epoch. */
static u64 rtc_now(const struct rtc *rtc)
{
	return rtc->wall_ns(rtc->wall_arg) + (u64)rtc->offset * NS;
}

static bool rtc_running(const struct rtc *rtc)
{
	return !(rtc->cmos[RTC_B] & B_SET) && (rtc->cmos[RTC_A] & A_DIVIDER) == A_RUNNING;
}

/* ---- the time in registers ------------------------------------------------------------------- */

static u8 rtc_encode(const struct rtc *rtc, unsigned v)
{
	return rtc->cmos[RTC_B] & B_BINARY ? v : v / 10 << 4 | v % 10;
}

static unsigned rtc_decode(const struct rtc *rtc, u8 v)
{
	return rtc->cmos[RTC_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static u8 rtc_encode_hour(const struct rtc *rtc, unsigned hour)
{
	unsigned h12 = hour % 12 ? hour % 12 : 12;

	if (rtc->cmos[RTC_B] & B_24H)
		return rtc_encode(rtc, hour);
	return rtc_encode(rtc, h12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned rtc_decode_hour(const struct rtc *rtc, u8 v)
{
	if (rtc->cmos[RTC_B] & B_24H)
		return rtc_decode(rtc, v);
	return rtc_decode(rtc, v & ~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* Writes the time of `second` into the registers. */
static void rtc_store_time(struct rtc *rtc, u64 second)
{
	time_t t = second;
	struct tm tm;

	gmtime_r(&t, &tm);
	rtc->cmos[RTC_SECONDS] = rtc_encode(rtc, tm.tm_sec);
	rtc->cmos[RTC_MINUTES] = rtc_encode(rtc, tm.tm_min);
	rtc->cmos[RTC_HOURS] = rtc_encode_hour(rtc, tm.tm_hour);
	rtc->cmos[RTC_WEEKDAY] = rtc_encode(rtc, tm.tm_wday + 1);
	rtc->cmos[RTC_DAY] = rtc_encode(rtc, tm.tm_mday);
	rtc->cmos[RTC_MONTH] = rtc_encode(rtc, tm.tm_mon + 1);
	rtc->cmos[RTC_YEAR] = rtc_encode(rtc, tm.tm_year % 100);
	rtc->cmos[RTC_CENTURY] = rtc_encode(rtc, 19 + tm.tm_year / 100);
}

/* The inverse: what the registers say, made the guest's time from now on. */
static void rtc_take_time(struct rtc *rtc)
{
	struct tm tm = {
		.tm_sec = rtc_decode(rtc, rtc->cmos[RTC_SECONDS]),
		.tm_min = rtc_decode(rtc, rtc->cmos[RTC_MINUTES]),
		.tm_hour = rtc_decode_hour(rtc, rtc->cmos[RTC_HOURS]),
		.tm_mday = rtc_decode(rtc, rtc->cmos[RTC_DAY]),
		.tm_mon = (int)rtc_decode(rtc, rtc->cmos[RTC_MONTH]) - 1,
		.tm_year = rtc_decode(rtc, rtc->cmos[RTC_YEAR]) +
			   ((int)rtc_decode(rtc, rtc->cmos[RTC_CENTURY]) - 19) * 100,
	};
	s64 host = rtc->wall_ns(rtc->wall_arg) / NS;

	rtc->offset = (s64)timegm(&tm) - host;
	rtc->last_second = rtc_now(rtc) / NS;
}

static bool rtc_is_time(unsigned reg)
{
	return reg == RTC_SECONDS || reg == RTC_MINUTES || reg == RTC_HOURS ||
	       (reg >= RTC_WEEKDAY && reg <= RTC_YEAR) || reg == RTC_CENTURY;
}

/* ---- alarm ----------------------------------------------------------------------------------- */

static bool alarm_any(u8 v)
{
	return (v & ALARM_ANY) == ALARM_ANY;
}

static bool rtc_alarm_matches(const struct rtc *rtc, u64 second)
{
	unsigned day = second % DAY_SECONDS;
	u8 s = rtc->cmos[RTC_SECONDS_ALARM], m = rtc->cmos[RTC_MINUTES_ALARM];
	u8 h = rtc->cmos[RTC_HOURS_ALARM];

	return (alarm_any(s) || rtc_decode(rtc, s) == day % 60) &&
	       (alarm_any(m) || rtc_decode(rtc, m) == day / 60 % 60) &&
	       (alarm_any(h) || rtc_decode_hour(rtc, h) == day / 3600);
}

/* The first second after `second` at which the alarm goes off; 0 when it never does. */
static u64 rtc_next_alarm(const struct rtc *rtc, u64 second)
{
	for (u64 s = second + 1; s <= second + DAY_SECONDS; s++)
		if (rtc_alarm_matches(rtc, s))
			return s;
	return 0;
}

/* ---- flags and interrupts -------------------------------------------------------------------- */

/* MC146818 table 5, time base 32768 Hz: 0 is off, 1 and 2 repeat 8 and 9. */
static u64 rtc_period_ns(const struct rtc *rtc)
{
	unsigned rate = rtc->cmos[RTC_A] & A_RATE;

	if (!rate || (rtc->cmos[RTC_A] & A_DIVIDER) != A_RUNNING)
		return 0;
	if (rate < 3)
		rate += 7;
	return (NS << (rate - 1)) / 32768;
}

/* Brings the flags up to now. */
static void rtc_catch_up(struct rtc *rtc)
{
	u64 second = rtc_now(rtc) / NS, period = rtc_period_ns(rtc);
	u64 now = timer_queue_now(rtc->timer.queue);

	if (rtc_running(rtc) && second != rtc->last_second) {
		u64 alarm;

		rtc->cmos[RTC_C] |= C_UF;
		/* A host clock that was set back counts as an update, not as a day of alarms. */
		alarm = second > rtc->last_second ? rtc_next_alarm(rtc, rtc->last_second) : 0;
		if (alarm && alarm <= second)
			rtc->cmos[RTC_C] |= C_AF;
	}
	rtc->last_second = second;
	if (period && now - rtc->last_period >= period) {
		rtc->cmos[RTC_C] |= C_PF;
		rtc->last_period += (now - rtc->last_period) / period * period;
	}
	if (rtc->cmos[RTC_C] & rtc->cmos[RTC_B] & B_ENABLES)
		rtc->cmos[RTC_C] |= C_IRQF;
	else
		rtc->cmos[RTC_C] &= ~C_IRQF;
	irq_line_set(&rtc->irq, rtc->cmos[RTC_C] & C_IRQF);
}

/* Guest time (of the timer queue) at which the next enabled event happens. */
static u64 rtc_next_event(const struct rtc *rtc)
{
	u64 now = timer_queue_now(rtc->timer.queue), wall = rtc_now(rtc);
	u64 next = TIMER_NEVER, period = rtc_period_ns(rtc);
	u8 b = rtc->cmos[RTC_B];

	if (b & B_PIE && period)
		next = rtc->last_period + period;
	if (rtc_running(rtc) && b & B_UIE)
		next = MIN(next, now + (NS - wall % NS));
	if (rtc_running(rtc) && b & B_AIE) {
		u64 alarm = rtc_next_alarm(rtc, wall / NS);

		if (alarm)
			next = MIN(next, now + (alarm * NS - wall));
	}
	return next;
}

static void rtc_update(struct rtc *rtc)
{
	u64 next;

	rtc_catch_up(rtc);
	/* With the line up, nothing new can be told until the guest reads register C. */
	next = rtc->cmos[RTC_C] & C_IRQF ? TIMER_NEVER : rtc_next_event(rtc);
	if (next == TIMER_NEVER)
		timer_cancel(&rtc->timer);
	else
		timer_arm(&rtc->timer, next);
}

static void rtc_timer(void *arg)
{
	rtc_update(arg);
}

/* ---- ports ----------------------------------------------------------------------------------- */

static u8 rtc_read_reg(struct rtc *rtc, unsigned reg)
{
	u8 value;

	if (rtc_is_time(reg) && rtc_running(rtc))
		rtc_store_time(rtc, rtc_now(rtc) / NS);
	switch (reg) {
	case RTC_A:
		value = rtc->cmos[RTC_A];
		if (rtc_running(rtc) && rtc_now(rtc) % NS >= NS - UIP_NS)
			value |= A_UIP;
		return value;
	case RTC_C:
		rtc_catch_up(rtc);
		value = rtc->cmos[RTC_C];
		rtc->cmos[RTC_C] = 0;
		rtc_update(rtc);
		return value;
	default:
		return rtc->cmos[reg];
	}
}

static void rtc_write_a(struct rtc *rtc, u8 value)
{
	bool ran = rtc_running(rtc);

	if (ran)
		rtc_store_time(rtc, rtc_now(rtc) / NS);
	if ((value ^ rtc->cmos[RTC_A]) & (A_RATE | A_DIVIDER))
		rtc->last_period = timer_queue_now(rtc->timer.queue);
	rtc->cmos[RTC_A] = value & ~A_UIP;
	if (!ran && rtc_running(rtc))
		rtc_take_time(rtc);
}

static void rtc_write_b(struct rtc *rtc, u8 value)
{
	bool ran = rtc_running(rtc);

	if (ran)
		rtc_store_time(rtc, rtc_now(rtc) / NS);
	if (value & ~rtc->cmos[RTC_B] & B_PIE)
		rtc->last_period = timer_queue_now(rtc->timer.queue);
	if (value & B_SET)
		value &= ~B_UIE;	/* MC146818: SET clears UIE */
	rtc->cmos[RTC_B] = value;
	if (!ran && rtc_running(rtc))
		rtc_take_time(rtc);
	else if (ran && rtc_running(rtc))
		rtc_store_time(rtc, rtc_now(rtc) / NS);
}

static void rtc_write_reg(struct rtc *rtc, unsigned reg, u8 value)
{
	rtc_catch_up(rtc);
	if (rtc_is_time(reg)) {
		bool ran = rtc_running(rtc);

		if (ran)
			rtc_store_time(rtc, rtc_now(rtc) / NS);
		rtc->cmos[reg] = value;
		if (ran)
			rtc_take_time(rtc);
	} else if (reg == RTC_A) {
		rtc_write_a(rtc, value);
	} else if (reg == RTC_B) {
		rtc_write_b(rtc, value);
	} else if (reg != RTC_C && reg != RTC_D) {
		rtc->cmos[reg] = value;
	}
	rtc_update(rtc);
}

static u64 rtc_read(void *dev, u64 offset, unsigned size)
{
	struct rtc *rtc = dev;

	(void)size;
	return offset == 1 ? rtc_read_reg(rtc, rtc->index) : 0xFF; /* the index is write-only */
}

static void rtc_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct rtc *rtc = dev;

	(void)size;
	if (offset == 0)
		rtc->index = value & 0x7F;	/* bit 7 masks NMI, of which we have no source */
	else
		rtc_write_reg(rtc, rtc->index, value);
}

const struct io_ops rtc_io_ops = { .read = rtc_read, .write = rtc_write, .width = 1 };

/* ---- device ---------------------------------------------------------------------------------- */

/* The chip has a battery: a reset clears only interrupt enables and flags. */
static void rtc_reset(void *dev)
{
	struct rtc *rtc = dev;

	rtc->cmos[RTC_B] &= ~(B_ENABLES | 0x08);
	rtc->cmos[RTC_C] = 0;
	rtc->index = 0;
	rtc_update(rtc);
}

static void rtc_pause(void *dev)
{
	(void)dev;
}

static void rtc_resume(void *dev)
{
	rtc_update(dev);
}

static const struct state_field rtc_fields[] = {
	STATE_FIELD(struct rtc_state, index, 1),
	STATE_FIELD(struct rtc_state, cmos, 1),
	STATE_FIELD(struct rtc_state, offset, 1),
	STATE_FIELD(struct rtc_state, last_second, 1),
};

static const struct state_table rtc_table = STATE_TABLE("rtc", struct rtc_state, 1, rtc_fields);

static void rtc_save(void *dev, void *state)
{
	struct rtc *rtc = dev;
	struct rtc_state *st = state;

	rtc_catch_up(rtc);
	*st = (struct rtc_state){
		.index = rtc->index, .offset = rtc->offset, .last_second = rtc->last_second,
	};
	memcpy(st->cmos, rtc->cmos, sizeof(st->cmos));
}

/* Far enough from any overflow of nanoseconds: 200 years either way. */
#define OFFSET_MAX (200LL * 366 * DAY_SECONDS)

static int rtc_load(void *dev, const void *state)
{
	struct rtc *rtc = dev;
	const struct rtc_state *st = state;

	if (st->index >= RTC_CMOS_SIZE || st->offset > OFFSET_MAX || st->offset < -OFFSET_MAX)
		return -EINVAL;
	memcpy(rtc->cmos, st->cmos, sizeof(rtc->cmos));
	rtc->index = st->index;
	rtc->offset = st->offset;
	rtc->last_second = st->last_second;
	rtc->last_period = timer_queue_now(rtc->timer.queue);
	rtc_update(rtc);
	return 0;
}

const struct device_ops rtc_device_ops = {
	.table = &rtc_table, .reset = rtc_reset, .pause = rtc_pause, .resume = rtc_resume,
	.save = rtc_save, .load = rtc_load,
};

static void cmos_set_u16(struct rtc *rtc, unsigned reg, u64 value)
{
	value = MIN(value, 0xFFFFu);
	rtc->cmos[reg] = value;
	rtc->cmos[reg + 1] = value >> 8;
}

void rtc_set_memory(struct rtc *rtc, u64 low, u64 high)
{
	u64 above_1m = low > (1 << 20) ? low - (1 << 20) : 0;
	u64 above_16m = low > (16 << 20) ? low - (16 << 20) : 0;

	cmos_set_u16(rtc, 0x15, 640);				/* base memory, KiB */
	cmos_set_u16(rtc, 0x17, MIN(above_1m >> 10, 0xFC00u));	/* 1 to 64 MiB, KiB */
	cmos_set_u16(rtc, 0x30, MIN(above_1m >> 10, 0xFC00u));
	cmos_set_u16(rtc, 0x34, above_16m >> 16);		/* above 16 MiB, in 64 KiB */
	rtc->cmos[0x5B] = high >> 16;				/* above 4 GiB, in 64 KiB */
	rtc->cmos[0x5C] = high >> 24;
	rtc->cmos[0x5D] = high >> 32;
	rtc->cmos[0x14] = 0x02;					/* equipment: a coprocessor */
}

void rtc_init(struct rtc *rtc, struct timer_queue *timers, const struct irq_line *irq,
	      u64 (*wall_ns)(void *arg), void *wall_arg)
{
	*rtc = (struct rtc){
		.irq = *irq, .wall_ns = wall_ns ? wall_ns : host_wall_ns, .wall_arg = wall_arg};
	timer_init(&rtc->timer, timers, rtc_timer, rtc);
	rtc->cmos[RTC_A] = A_RUNNING | 6;	/* 1024 Hz, as a PC's firmware sets it */
	rtc->cmos[RTC_B] = B_24H;
	rtc->cmos[RTC_D] = D_VALID;
	rtc->last_second = rtc_now(rtc) / NS;
	rtc->last_period = timer_queue_now(timers);
	rtc_reset(rtc);
}
