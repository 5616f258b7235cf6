/*
 * Polling in HLT (Linux Documentation/virt/kvm/halt-polling.rst): a guest that is soon woken, its limit by
 * KVM_CAP_HALT_POLL, and MSR_KVM_POLL_CONTROL, by which the guest does without.
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "tests/api/api.h"

#define MSR_POLL_CONTROL 0x4b564d05
#define COUNTER 0x500
#define NMI_HANDLER 0x2000
#define ROUNDS_MAX 2000

struct waker {
	struct machine m;
	pthread_t thread;
	int stats;
	bool stop;
};

/* An NMI for each that the guest has counted. */
static void *waker_main(void *arg)
{
	const struct kvm_msi nmi = { .address_lo = 0xfee00000, .data = 4 << 8 };
	struct waker *w = arg;
	volatile u16 *counter = (volatile u16 *)(w->m.ram + COUNTER);

	while (!load_acquire(&w->stop)) {
		u16 seen = *counter;

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
	skip_on_emulated_host("its HLT has no such counters");
	machine_new(&w->m, WITH_IRQCHIP);
	require_cap(&w->m, KVM_CAP_HALT_POLL);
	/* L: mov cx, 100; hlt; loop back by one; out 0x80, al; jmp L */
	CODE(&w->m, 0xb9, 100, 0, 0xf4, 0xe2, 0xfd, 0xe6, 0x80, 0xeb, 0xf6);
	memcpy(w->m.ram + NMI_HANDLER, handler, sizeof(handler));
	memcpy(w->m.ram + 4 * 2, (u16[]){ NMI_HANDLER, 0 }, 4);
	w->stats = call_num(w->m.vcpu, KVM_GET_STATS_FD, 0);
	assert_true(w->stats >= 0);
}

/* Runs rounds of a hundred HLTs, until it has looked instead of slept or has had its number of rounds. */
static u64 waker_polls(struct waker *w, int rounds)
{
	u64 before = stat_of(w->stats, "halt_successful_poll"), polls = 0;

	store_release(&w->stop, false);
	assert_int_equal(pthread_create(&w->thread, NULL, waker_main, w), 0);
	for (int i = 0; i < rounds && !polls; i++) {
		run_until(&w->m, KVM_EXIT_IO);
		polls = stat_of(w->stats, "halt_successful_poll") - before;
	}
	store_release(&w->stop, true);
	pthread_join(w->thread, NULL);
	return polls;
}

static void waker_end(struct waker *w)
{
	close(w->stats);
	machine_free(&w->m);
}

static void test_polls(void **state)
{
	struct waker w;
	cpu_set_t cpus;

	waker_start(&w);
	assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	if (CPU_COUNT(&cpus) == 1)
		assert_int_equal(waker_polls(&w, 10), 0);
	else
		assert_int_not_equal(waker_polls(&w, ROUNDS_MAX), 0);
	waker_end(&w);
}

static void test_limit(void **state)
{
	struct waker w;

	waker_start(&w);
	enable_cap(w.m.vm, KVM_CAP_HALT_POLL, 0);
	assert_int_equal(waker_polls(&w, 20), 0);
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
	assert_int_equal(waker_polls(&w, 20), 0);
	waker_end(&w);
}

int test_halt_poll(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_polls),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_control),
	};

	return cmocka_run_group_tests_name("halt", tests, NULL, NULL);
}
