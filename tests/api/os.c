/* The seam's user-space side: what os.h promises. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "hypervisor/os/os.h"

/* ---- memory functions ------------------------------------------------------------------------ */

#define BUF 700

static void fill(u8 *p, unsigned int seed)
{
	unsigned int i;

	for (i = 0; i < BUF; i++)
		p[i] = (u8)(i * 7 + seed);
}

/* Against byte loops that the compiler cannot turn into the functions under test. */
static void slow_move(volatile u8 *d, const volatile u8 *s, size_t n)
{
	size_t i;

	if (d < s)
		for (i = 0; i < n; i++)
			d[i] = s[i];
	else
		for (i = n; i-- > 0;)
			d[i] = s[i];
}

static bool same(const volatile u8 *a, const volatile u8 *b)
{
	size_t i;

	for (i = 0; i < BUF; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* Every size across the three strategies, every small distance of overlap in both directions. */
static void test_moves(void **state)
{
	u8 got[BUF], want[BUF];
	size_t n;
	int shift;

	for (n = 0; n < 300; n++) {
		for (shift = -40; shift <= 40; shift++) {
			fill(got, n);
			fill(want, n);
			memmove(got + 100 + shift, got + 100, n);
			slow_move(want + 100 + shift, want + 100, n);
			if (!same(got, want))
				fail_msg("memmove of %zu by %d", n, shift);
		}
		fill(got, n);
		fill(want, n);
		assert_ptr_equal(memcpy(got + 350, got + 3, n), got + 350);
		slow_move(want + 350, want + 3, n);
		assert_true(same(got, want));
	}
}

static void test_set_and_compare(void **state)
{
	u8 got[BUF], want[BUF];
	size_t n, i;

	for (n = 0; n < 300; n++) {
		fill(got, 1);
		fill(want, 1);
		memset(got + 5, 0xe7, n);
		for (i = 0; i < n; i++)
			((volatile u8 *)want)[5 + i] = 0xe7;
		assert_true(same(got, want));
		assert_int_equal(memcmp(got, want, BUF), 0);
		if (n) {
			got[5 + n - 1] = 0xe8;
			assert_true(memcmp(got + 5, want + 5, n) > 0);
			assert_true(memcmp(want + 5, got + 5, n) < 0);
			assert_int_equal(memcmp(want + 5, got + 5, n - 1), 0);
		}
	}
}

/* ---- registers kept -------------------------------------------------------------------------- */

/* Loads XMM0 to XMM15 with a pattern, calls fn(arg), and tells whether all are the same. */
static bool keeps_registers(void (*fn)(void *arg), void *arg)
{
	static u8 before[BUF] __attribute__((aligned(16))), after[BUF] __attribute__((aligned(16)));

	fill(before, 3);
#define EACH(X) \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define LOAD(n) "movdqa " #n "*16(%[in]), %%xmm" #n "\n\t"
#define SAVE(n) "movdqa %%xmm" #n ", " #n "*16(%[out])\n\t"
	__asm__ volatile("mov %%rsp, %%rbx; sub $256, %%rsp; and $-16, %%rsp\n\t"
			 EACH(LOAD)
			 "call *%[fn]\n\t"
			 EACH(SAVE)
			 "mov %%rbx, %%rsp"
			 : "+D"(arg)
			 : [in] "r"(before), [out] "r"(after), [fn] "r"(fn)
			 : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "cc",
			   "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	return !memcmp(before, after, 16 * 16);
}

static void use_clock(void *arg)
{
	*(volatile u64 *)arg = os_clock_ns();
}

static void use_wall(void *arg)
{
	*(volatile u64 *)arg = os_wall_ns();
}

static void use_mutex(void *arg)
{
	struct os_mutex m;

	os_mutex_init(&m);
	os_mutex_lock(&m);
	os_mutex_unlock(&m);
}

static void use_event(void *arg)
{
	struct os_event e;

	os_event_init(&e);
	os_event_signal(&e);
	os_event_wait(&e, OS_FOREVER, NULL);
	os_event_wait(&e, 1, NULL);
}

static void use_memory(void *arg)
{
	static u8 a[BUF], b[BUF];
	size_t n;

	for (n = 0; n < 600; n += 37) {
		memcpy(a, b, n);
		memmove(a + 8, a, n);
		memset(b, 1, n);
	}
}

static void use_eventfd(void *arg)
{
	os_eventfd_signal(*(struct os_eventfd **)arg);
}

static void use_gs(void *arg)
{
	os_gs_set(os_gs_get());
}

static void test_registers_kept(void **state)
{
	int fd = eventfd(0, 0);
	struct os_eventfd *e;
	u64 x = 0;

	assert_int_equal(os_eventfd_get(fd, &e), 0);
	/* The second time, no symbol is bound any more. */
	use_clock(&x);
	use_wall(&x);
	use_gs(NULL);
	assert_true(keeps_registers(use_clock, &x));
	assert_true(keeps_registers(use_wall, &x));
	assert_true(keeps_registers(use_mutex, NULL));
	assert_true(keeps_registers(use_event, NULL));
	assert_true(keeps_registers(use_memory, NULL));
	assert_true(keeps_registers(use_gs, NULL));
	assert_true(keeps_registers(use_eventfd, &e));
	os_eventfd_put(e);
	assert_int_equal(read(fd, &x, sizeof(x)), sizeof(x));
	assert_int_equal(x, 1);
	close(fd);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void test_event(void **state)
{
	struct os_event e;
	u64 start = os_clock_ns();
	u8 stop[4] __attribute__((aligned(4))) = { 0 };

	os_event_init(&e);
	assert_int_equal(os_event_wait(&e, start + 2000000, NULL), -ETIMEDOUT);
	assert_true(os_clock_ns() >= start + 2000000);
	os_event_signal(&e);
	os_event_signal(&e);
	assert_int_equal(os_event_wait(&e, OS_FOREVER, NULL), 0);
	assert_int_equal(os_event_wait(&e, 0, stop), -ETIMEDOUT);
	stop[1] = 1;
	assert_int_equal(os_event_wait(&e, OS_FOREVER, &stop[1]), -EINTR);
	/* A signal given first counts more. */
	os_event_signal(&e);
	assert_int_equal(os_event_wait(&e, OS_FOREVER, &stop[1]), 0);
}

/* Two threads hand a turn to each other; a lost wakeup would end the test by its time limit. */
#define TURNS 20000
static struct os_event ping, pong;

static void *ponger(void *arg)
{
	int i;

	for (i = 0; i < TURNS; i++) {
		os_event_wait(&ping, OS_FOREVER, NULL);
		os_event_signal(&pong);
	}
	return NULL;
}

static void test_no_wakeup_lost(void **state)
{
	u8 stop[4] __attribute__((aligned(4))) = { 0 };
	pthread_t t;
	int i;

	os_event_init(&ping);
	os_event_init(&pong);
	assert_int_equal(pthread_create(&t, NULL, ponger, NULL), 0);
	for (i = 0; i < TURNS; i++) {
		os_event_signal(&ping);
		assert_int_equal(os_event_wait(&pong, OS_FOREVER, stop), 0);
	}
	pthread_join(t, NULL);
}

/* ---- mutex ----------------------------------------------------------------------------------- */

static struct os_mutex counted_lock;
static u64 counted;

static void *counter_main(void *arg)
{
	int i;

	for (i = 0; i < 100000; i++) {
		os_mutex_lock(&counted_lock);
		counted++;
		os_mutex_unlock(&counted_lock);
	}
	return NULL;
}

static void test_mutex(void **state)
{
	pthread_t t[4];
	int i;

	os_mutex_init(&counted_lock);
	for (i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, counter_main, NULL);
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(counted, 400000);
	assert_true(os_mutex_trylock(&counted_lock));
	assert_false(os_mutex_trylock(&counted_lock));
	os_mutex_unlock(&counted_lock);
}

/* ---- timers ---------------------------------------------------------------------------------- */

#define NR_TIMERS 300

struct probe {
	struct os_timer timer;
	u64 deadline;
	u32 fired;
	bool early;
};
static u32 total_fired;
static u64 last_deadline;
static bool out_of_order;
static struct os_event all_fired;

static void probe_fn(void *arg)
{
	struct probe *p = arg;

	p->early |= os_clock_ns() < p->deadline;
	p->fired++;
	out_of_order |= p->deadline < last_deadline;
	last_deadline = p->deadline;
	total_fired++;
	os_event_signal(&all_fired);
}

/* Armed in any order, some cancelled, some armed twice: each of the rest fires once, in order. */
static void test_timers(void **state)
{
	static struct probe p[NR_TIMERS];
	u64 now = os_clock_ns();
	u32 i, expect = 0;

	os_event_init(&all_fired);
	for (i = 0; i < NR_TIMERS; i++) {
		os_timer_init(&p[i].timer, probe_fn, &p[i]);
		p[i].deadline = now + 400000000 + (i * 7919 % NR_TIMERS) * 20000;
		os_timer_arm(&p[i].timer, p[i].deadline);
	}
	for (i = 0; i < NR_TIMERS; i += 3)
		os_timer_cancel(&p[i].timer);
	for (i = 0; i < NR_TIMERS; i += 6) {
		p[i].deadline = now + 410000000 + i * 1000;
		os_timer_arm(&p[i].timer, p[i].deadline + 1000000);
		os_timer_arm(&p[i].timer, p[i].deadline);
	}
	for (i = 0; i < NR_TIMERS; i++)
		expect += i % 3 || i % 6 == 0;
	while (READ_ONCE(total_fired) < expect)
		os_event_wait(&all_fired, OS_FOREVER, NULL);
	for (i = 0; i < NR_TIMERS; i++) {
		os_timer_destroy(&p[i].timer);
		assert_int_equal(p[i].fired, i % 3 || i % 6 == 0);
		assert_false(p[i].early);
	}
	assert_false(out_of_order);
}

static struct os_timer again;
static u32 again_count;
static bool again_dead, ran_dead;

static void again_fn(void *arg)
{
	if (READ_ONCE(again_dead))
		WRITE_ONCE(ran_dead, true);
	again_count++;
	os_timer_arm(&again, os_clock_ns());
}

/* After a cancellation the function neither runs nor will, though it arms itself all the time. */
static void test_cancel_waits(void **state)
{
	int i;

	os_timer_init(&again, again_fn, NULL);
	for (i = 0; i < 1000; i++) {
		WRITE_ONCE(again_dead, false);
		os_timer_arm(&again, os_clock_ns());
		os_timer_cancel(&again);
		WRITE_ONCE(again_dead, true);
	}
	os_timer_destroy(&again);
	assert_false(READ_ONCE(ran_dead));
}

/* ---- eventfds -------------------------------------------------------------------------------- */

static void test_eventfd_identity(void **state)
{
	int fd[3] = { eventfd(0, 0), eventfd(0, 0), -1 }, pipes[2];
	struct os_eventfd *a, *b;
	u64 id, other, count;

	fd[2] = dup(fd[0]);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(os_eventfd_id(-1, &id), -EBADF);
	assert_int_equal(os_eventfd_id(1 << 30, &id), -EBADF);
	assert_int_equal(os_eventfd_id(pipes[0], &id), -EINVAL);
	assert_int_equal(os_eventfd_id(fd[0], &id), 0);
	assert_int_equal(os_eventfd_id(fd[1], &other), 0);
	assert_int_not_equal(id, other);
	assert_int_equal(os_eventfd_id(fd[2], &other), 0);
	assert_int_equal(id, other);
	/* One object, which outlives the descriptor. */
	assert_int_equal(os_eventfd_get(pipes[0], &a), -EINVAL);
	assert_int_equal(os_eventfd_get(fd[0], &a), 0);
	assert_int_equal(os_eventfd_get(fd[2], &b), 0);
	assert_ptr_equal(a, b);
	os_eventfd_put(b);
	close(fd[0]);
	os_eventfd_signal(a);
	assert_int_equal(read(fd[2], &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	os_eventfd_put(a);
	close(fd[1]);
	close(fd[2]);
	close(pipes[0]);
	close(pipes[1]);
}

struct counting {
	struct os_wait wait;
	struct os_event seen;
	u32 count;
};

static void counting_fn(struct os_wait *w)
{
	struct counting *c = container_of(w, struct counting, wait);

	__atomic_fetch_add(&c->count, 1, __ATOMIC_SEQ_CST);
	os_event_signal(&c->seen);
}

/* Each signal is seen; after a removal none is; a closed one says so, others do not. */
static void test_waits(void **state)
{
	static struct counting c[100];
	struct os_waiter *w;
	u64 one = 1, count;
	int fd[100];
	u32 i, n;

	assert_int_equal(os_waiter_create(&w), 0);
	for (i = 0; i < 100; i++) {
		fd[i] = eventfd(0, EFD_NONBLOCK);
		os_event_init(&c[i].seen);
		c[i].wait.fn = counting_fn;
		assert_int_equal(os_wait_add(w, &c[i].wait, fd[i]), 0);
	}
	for (n = 1; n <= 20; n++)
		for (i = 0; i < 100; i++) {
			assert_int_equal(write(fd[i], &one, sizeof(one)), sizeof(one));
			assert_int_equal(os_event_wait(&c[i].seen, OS_FOREVER, NULL), 0);
			assert_int_equal(READ_ONCE(c[i].count), n);
		}
	for (i = 0; i < 100; i += 2) {
		os_wait_remove(&c[i].wait);
		assert_int_equal(write(fd[i], &one, sizeof(one)), sizeof(one));
	}
	for (i = 1; i < 100; i += 4)
		close(fd[i]);
	os_waiter_look(w);
	for (i = 1; i < 100; i += 2)
		assert_int_equal(os_wait_closed(&c[i].wait), i % 4 == 1);
	assert_int_equal(write(fd[3], &one, sizeof(one)), sizeof(one));
	assert_int_equal(os_event_wait(&c[3].seen, OS_FOREVER, NULL), 0);
	os_waiter_destroy(w);
	for (i = 0; i < 100; i++) {
		assert_int_equal(c[i].count, i == 3 ? 21 : 20);
		if (i % 4 == 1)
			continue;
		/* The counter was taken, but for what came after the removal. */
		n = read(fd[i], &count, sizeof(count)) == sizeof(count);
		assert_int_equal(n, i % 2 == 0);
		close(fd[i]);
	}
}

/* ---- descriptors, code areas ----------------------------------------------------------------- */

static int held;

static void hold(void *obj)
{
	held++;
}

static void test_descriptors(void **state)
{
	int obj, fd, other;
	void *mem, *again_mem;

	fd = os_fd_create("test", &obj, 8192, &mem);
	assert_true(fd >= 0);
	assert_ptr_equal(os_fd_object(fd, hold), &obj);
	assert_int_equal(held, 1);
	assert_int_equal(os_fd_map(fd, 8192, &again_mem), 0);
	*(u32 *)mem = 42;
	assert_int_equal(*(u32 *)again_mem, 42);
	other = dup(0);
	assert_null(os_fd_object(other, hold));
	assert_null(os_fd_object(-1, hold));
	assert_null(os_fd_object(1 << 30, hold));
	assert_null(os_fd_close(other));
	assert_int_equal(close(other), 0);
	assert_ptr_equal(os_fd_close(fd), &obj);
	assert_null(os_fd_object(fd, hold));
	assert_null(os_fd_close(fd));
	assert_int_equal(*(u32 *)again_mem, 42);
	os_fd_unmap(mem, 8192);
	os_fd_unmap(again_mem, 8192);
	assert_int_equal(held, 1);
}

static void test_code_area(void **state)
{
	void *rw, *rx;

	assert_int_equal(os_code_alloc(4096, &rw, &rx, NULL), 0);
	assert_ptr_not_equal(rw, rx);
	memcpy(rw, "\xb8\x2a\x00\x00\x00\xc3", 6);	/* mov eax, 42; ret */
	assert_int_equal(((int (*)(void))rx)(), 42);
	os_code_free(rw, rx, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_set_and_compare),
		cmocka_unit_test(test_registers_kept),
		cmocka_unit_test(test_event),
		cmocka_unit_test(test_no_wakeup_lost),
		cmocka_unit_test(test_mutex),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_cancel_waits),
		cmocka_unit_test(test_eventfd_identity),
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_code_area),
	};

	return cmocka_run_group_tests_name("os", tests, NULL, NULL);
}
