/* An event loop that never has nothing to do lets in who waits for its lock, at each of its turns. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/clock.h"
#include "tests/device/fixture.h"
#include "vmm/loop/io_thread.h"

#define TURN_NS	200000
#define ENTRIES	500

struct turns {
	struct loop *loop;
	unsigned count;		/* atomic */
	unsigned expected;	/* who must have been let in by the next one */
	unsigned missed;
};

/* Under the lock, for a while; there is more at once. */
static void busy(void *arg, u32 events)
{
	struct turns *t = arg;
	u64 end = clock_monotonic_ns() + TURN_NS;

	(void)events;
	__atomic_fetch_add(&t->count, 1, __ATOMIC_RELAXED);
	t->missed += t->loop->entered < t->expected;
	while (clock_monotonic_ns() < end)
		;
	t->expected = t->loop->entered + !!__atomic_load_n(&t->loop->waiting, __ATOMIC_RELAXED);
}

static void test_let_in(void **state)
{
	struct error err = ERROR_INIT;
	struct io_thread io;
	struct turns t = { .loop = &io.loop };
	int fd = eventfd(1, EFD_CLOEXEC);

	(void)state;
	assert_int_equal(io_thread_init(&io, &err), 0);
	assert_true(loop_add(&io.loop, fd, EPOLLIN, busy, &t) >= 0);
	assert_int_equal(io_thread_start(&io, &err), 0);
	for (int i = 0; i < ENTRIES; i++) {
		unsigned before = __atomic_load_n(&t.count, __ATOMIC_RELAXED);

		while (__atomic_load_n(&t.count, __ATOMIC_RELAXED) == before)
			;
		loop_enter(&io.loop);
		pthread_mutex_unlock(&io.lock);
	}
	io_thread_stop(&io);
	print_message("%u turns, %u of %d entries waited for\n", t.count, io.loop.entered, ENTRIES);
	assert_int_equal(t.missed, 0);
	assert_true(io.loop.entered > 0);
	io_thread_destroy(&io);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_let_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
