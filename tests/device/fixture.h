/* What a device needs around it in a test: a clock that the test turns, and interrupt lines to look
 * at. */
#ifndef QUMRA_TESTS_DEVICE_FIXTURE_H
#define QUMRA_TESTS_DEVICE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "vmm/loop/timer.h"
#include "vmm/machine/irq_line.h"
#include "vmm/migration/state.h"

#define GSIS 24

struct fixture {
	struct timer_queue timers;
	u64 now;	/* host time, ns */
	u64 wake;	/* what the queue asked for */
	bool level[GSIS];
	unsigned edges[GSIS];	/* rising */
};

static inline u64 fixture_clock(void *arg)
{
	return ((struct fixture *)arg)->now;
}

static inline void fixture_program(void *arg, u64 deadline)
{
	((struct fixture *)arg)->wake = deadline;
}

static inline void fixture_set_irq(void *arg, unsigned gsi, bool level)
{
	struct fixture *f = arg;

	f->level[gsi] = level;
	f->edges[gsi] += level;
}

static inline void fixture_init(struct fixture *f)
{
	*f = (struct fixture){ .now = 1000000000, .wake = TIMER_NEVER };
	f->timers =
		(struct timer_queue){.clock = fixture_clock, .program = fixture_program, .arg = f};
}

static inline struct irq_line fixture_irq(struct fixture *f, unsigned gsi)
{
	return (struct irq_line){ .set = fixture_set_irq, .arg = f, .gsi = gsi };
}

/* Lets ns of time pass, firing timers at their moments. */
static inline void fixture_advance(struct fixture *f, u64 ns)
{
	u64 end = f->now + ns;

	while (f->wake <= end) {
		f->now = MAX(f->now, f->wake);
		f->wake = TIMER_NEVER;
		timer_queue_run(&f->timers);
	}
	f->now = end;
}

/* Saves, scribbles over the device by a reset, loads, saves again: both must be the same bytes. */
static inline void check_round_trip(const struct device_ops *ops, void *self)
{
	struct device dev = { .ops = ops, .self = self };
	static u8 first[65536], second[65536];
	long n = device_save(&dev, first, sizeof(first));

	assert_true(n > 0);
	ops->reset(self);
	assert_int_equal(device_load(&dev, first, n), n);
	assert_int_equal(device_save(&dev, second, sizeof(second)), n);
	assert_memory_equal(first, second, n);
	/* Every truncation is refused. */
	for (long i = 0; i < n; i++)
		assert_true(device_load(&dev, first, i) < 0);
}

#endif
