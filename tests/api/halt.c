/*
 * Polling in HLT (Linux Documentation/virt/kvm/halt-polling.rst): a guest that is soon woken, its limit by
 * KVM_CAP_HALT_POLL, and MSR_KVM_POLL_CONTROL, by which the guest does without.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "lib/clock.h"
#include "tests/api/api.h"

#define MSR_POLL_CONTROL 0x4b564d05
#define COUNTER 0x500
#define NMI_HANDLER 0x2000
#define ROUNDS_MAX 20000
#define HLTS 100	/* in a round */
#define MANY 8		/* of these; by chance, without looking, it is one in thousands */
#define FEW 10		/* of five times as many */

struct waker {
	struct machine m;
	pthread_t thread;
	int stats;
	u64 late_ns;		/* it waits so long before each */
	cpu_set_t cpus;		/* that the test may use */
	bool stop;
};

static void spin(u64 ns)
{
	for (u64 start = clock_monotonic_ns(); clock_monotonic_ns() - start < ns;)
		;
}

/* To the nth of the CPUs: beside other work the two threads would else share one, and look in vain. */
static void pin(const struct waker *w, pthread_t thread, int n)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &w->cpus) && seen++ == n % CPU_COUNT(&w->cpus))
			CPU_SET(cpu, &one);
	assert_int_equal(pthread_setaffinity_np(thread, sizeof(one), &one), 0);
}

/* An NMI for each that the guest has counted. */
static void *waker_main(void *arg)
{
	const struct kvm_msi nmi = { .address_lo = 0xfee00000, .data = 4 << 8 };
	struct waker *w = arg;
	volatile u16 *counter = (volatile u16 *)(w->m.ram + COUNTER);

	while (!load_acquire(&w->stop)) {
		u16 seen = *counter;

		spin(w->late_ns);
		call(w->m.vm, KVM_SIGNAL_MSI, &nmi);
		while (*counter == seen && !load_acquire(&w->stop))
			;
	}
	return NULL;
}

static void waker_start(struct waker *w)
{
	/* inc word [COUNTER]; iret */
	static const u8 handler[] = { 0xff, 0x06, COUNTER & 0xff, COUNTER >> 8, 0xcf };

	*w = (struct waker){ .stop = false };
	assert_int_equal(sched_getaffinity(0, sizeof(w->cpus), &w->cpus), 0);
	skip_on_emulated_host("its HLT has no such counters");
	machine_new(&w->m, WITH_IRQCHIP);
	require_cap(&w->m, KVM_CAP_HALT_POLL);
	/* L: mov cx, HLTS; hlt; loop back by one; out 0x80, al; jmp L */
	CODE(&w->m, 0xb9, HLTS, 0, 0xf4, 0xe2, 0xfd, 0xe6, 0x80, 0xeb, 0xf6);
	memcpy(w->m.ram + NMI_HANDLER, handler, sizeof(handler));
	memcpy(w->m.ram + 4 * 2, (u16[]){ NMI_HANDLER, 0 }, 4);
	w->stats = call_num(w->m.vcpu, KVM_GET_STATS_FD, 0);
	assert_true(w->stats >= 0);
}

/*
 * Runs rounds of HLTs, until a counter has grown by many in one of them or it has had its number of rounds:
 * on a busy host not each will do. The most that it has grown by.
 */
static u64 waker_rounds(struct waker *w, int rounds, const char *name)
{
	u64 before = stat_of(w->stats, name), now, most = 0;

	store_release(&w->stop, false);
	assert_int_equal(pthread_create(&w->thread, NULL, waker_main, w), 0);
	pin(w, pthread_self(), 0);
	pin(w, w->thread, 1);
	for (int i = 0; i < rounds && most < MANY; i++, before = now) {
		run_until(&w->m, KVM_EXIT_IO);
		now = stat_of(w->stats, name);
		most = MAX(most, now - before);
	}
	store_release(&w->stop, true);
	pthread_join(w->thread, NULL);
	assert_int_equal(sched_setaffinity(0, sizeof(w->cpus), &w->cpus), 0);
	return most;
}

static void waker_end(struct waker *w)
{
	close(w->stats);
	machine_free(&w->m);
}

static void test_polls(void **state)
{
	struct waker w;

	waker_start(&w);
	if (CPU_COUNT(&w.cpus) == 1)
		assert_int_equal(waker_rounds(&w, 10, "halt_attempted_poll"), 0);
	else
		assert_in_range(waker_rounds(&w, ROUNDS_MAX, "halt_successful_poll"), MANY, HLTS);
	waker_end(&w);
}

/* Who is woken late does not look: it would look in vain. */
static void test_idle(void **state)
{
	struct waker w;

	waker_start(&w);
	w.late_ns = 300000;
	assert_in_range(waker_rounds(&w, 5, "halt_attempted_poll"), 0, FEW);
	waker_end(&w);
}

static void test_limit(void **state)
{
	struct waker w;
	struct kvm_enable_cap large = { .cap = KVM_CAP_HALT_POLL, .args = { BIT(32) } };

	waker_start(&w);
	assert_int_equal(call(w.m.vm, KVM_ENABLE_CAP, &large), -EINVAL);
	enable_cap(w.m.vm, KVM_CAP_HALT_POLL, 0);
	assert_int_equal(waker_rounds(&w, 20, "halt_attempted_poll"), 0);
	waker_end(&w);
}

static void test_control(void **state)
{
	struct waker w;

	waker_start(&w);
	if (set_msr(w.m.vcpu, MSR_POLL_CONTROL, 0) != 1) {
		waker_end(&w);
		skip();
	}
	assert_int_equal(waker_rounds(&w, 20, "halt_attempted_poll"), 0);
	waker_end(&w);
}

int test_halt_poll(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_polls),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_control),
	};

	return cmocka_run_group_tests_name("halt", tests, NULL, NULL);
}
