/*
 * The main thread's event loop over epoll. Callbacks run under the machine's lock, must not block,
 * and may add, change and remove watches, their own too.
 */
#ifndef QUMRA_VMM_LOOP_LOOP_H
#define QUMRA_VMM_LOOP_LOOP_H

#include <pthread.h>
#include <sys/epoll.h>

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/loop/timer.h"

#define LOOP_WATCHES_MAX 48

struct loop_watch {
	int fd;			/* -1: a free slot */
	u32 events;		/* EPOLLIN, EPOLLOUT; 0: only errors and hangups */
	bool always;		/* a plain file: epoll refuses it, it is always ready */
	u32 generation;		/* tells a late event for an earlier user of the slot */
	void (*fn)(void *arg, u32 events);
	void *arg;
};

struct loop {
	int epoll_fd, timer_fd, wake_fd;
	pthread_mutex_t *lock;
	unsigned waiting;	/* threads in loop_enter(); atomic */
	unsigned entered;	/* how many were let in, under the lock, and who is told of each */
	pthread_cond_t let_in;
	bool stop;
	u64 poll_max_ns, poll_ns;	/* it looks for so long before it sleeps: lib/poll_time.h */
	u32 generation;
	struct loop_watch watch[LOOP_WATCHES_MAX];
	struct timer_queue timers;
};

int loop_init(struct loop *loop, pthread_mutex_t *lock, struct error *err);
void loop_destroy(struct loop *loop);

/* Returns the watch's number, or -errno. The loop does not own fd. */
int loop_add(struct loop *loop, int fd, u32 events, void (*fn)(void *arg, u32 events), void *arg);
void loop_change(struct loop *loop, int watch, u32 events);
void loop_remove(struct loop *loop, int watch);

/* Until loop_stop(). on_wake runs after each loop_wake(), under the lock. */
int loop_run(struct loop *loop, void (*on_wake)(void *arg), void *arg, struct error *err);
/*
 * Takes the loop's lock in another thread than its own. A mutex goes to whoever is at hand, which is a loop
 * that has just let go of it and has more to do: it lets one who waits here go first at each turn.
 */
void loop_enter(struct loop *loop);
/* Any thread, signal handlers too. */
void loop_wake(struct loop *loop);
void loop_stop(struct loop *loop);

#endif
