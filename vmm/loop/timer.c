/* Device timers: see timer.h. A sorted list: a machine has fewer than ten. */
#include "vmm/loop/timer.h"

u64 timer_queue_now(const struct timer_queue *q)
{
	return q->paused ? q->paused_at : q->clock(q->arg) - q->offset;
}

static void queue_program(struct timer_queue *q)
{
	u64 next = q->first && !q->paused ? q->first->deadline : TIMER_NEVER;

	q->program(q->arg, next == TIMER_NEVER ? next : next + q->offset);
}

void timer_queue_run(struct timer_queue *q)
{
	/* A timer may arm itself again, later than now: this ends. */
	while (!q->paused && q->first && q->first->deadline <= timer_queue_now(q)) {
		struct timer *t = q->first;

		q->first = t->next;
		t->deadline = TIMER_NEVER;
		t->fn(t->arg);
	}
	queue_program(q);
}

void timer_queue_pause(struct timer_queue *q)
{
	if (q->paused)
		return;
	q->paused_at = timer_queue_now(q);
	q->paused = true;
	queue_program(q);
}

void timer_queue_resume(struct timer_queue *q)
{
	if (!q->paused)
		return;
	q->offset = q->clock(q->arg) - q->paused_at;
	q->paused = false;
	queue_program(q);
}

void timer_init(struct timer *t, struct timer_queue *q, void (*fn)(void *arg), void *arg)
{
	*t = (struct timer){ .queue = q, .fn = fn, .arg = arg, .deadline = TIMER_NEVER };
}

static void timer_unlink(struct timer *t)
{
	for (struct timer **p = &t->queue->first; *p; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			break;
		}
	}
	t->deadline = TIMER_NEVER;
}

void timer_arm(struct timer *t, u64 deadline)
{
	struct timer_queue *q = t->queue;
	struct timer *first = q->first;
	struct timer **p = &q->first;

	if (t->deadline == deadline)
		return;
	timer_unlink(t);
	while (*p && (*p)->deadline <= deadline)
		p = &(*p)->next;
	t->deadline = deadline;
	t->next = *p;
	*p = t;
	if (q->first == t || first == t)
		queue_program(q);
}

void timer_cancel(struct timer *t)
{
	bool was_first = t->queue->first == t;

	if (t->deadline == TIMER_NEVER)
		return;
	timer_unlink(t);
	if (was_first)
		queue_program(t->queue);
}
