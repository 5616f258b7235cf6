/*
 * Timers of devices, in guest time: nanoseconds that run with the host's monotonic clock while the
 * VM runs and stand still while it is paused. A queue belongs to one VM and is used under its lock.
 * Whoever owns the queue gets told the next deadline through `program`, and calls
 * timer_queue_run().
 */
#ifndef QUMRA_VMM_LOOP_TIMER_H
#define QUMRA_VMM_LOOP_TIMER_H

#include "lib/types.h"

#define TIMER_NEVER (~0ULL)

struct timer_queue;

struct timer {
	struct timer_queue *queue;
	void (*fn)(void *arg);
	void *arg;
	u64 deadline;		/* TIMER_NEVER: not armed */
	struct timer *next;
};

struct timer_queue {
	u64 (*clock)(void *arg);	/* monotonic host time, ns */
	void (*program)(void *arg, u64 deadline);	/* in host time; TIMER_NEVER: none */
	void *arg;
	struct timer *first;		/* by deadline */
	u64 offset;			/* guest time = host time - offset */
	u64 paused_at;			/* guest time while paused */
	bool paused;
};

u64 timer_queue_now(const struct timer_queue *q);
/* Fires what is due, then programs the next. */
void timer_queue_run(struct timer_queue *q);
void timer_queue_pause(struct timer_queue *q);
void timer_queue_resume(struct timer_queue *q);

void timer_init(struct timer *t, struct timer_queue *q, void (*fn)(void *arg), void *arg);
void timer_arm(struct timer *t, u64 deadline);
void timer_cancel(struct timer *t);

#endif
