/*
 * pthread_cancel(3) and ioctls: a thread of the asynchronous type dies in KVM_RUN, what the kernel
 * held for it is free, and the vCPU is there for others; none of the deferred type does. pthreads(7)
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include "tests/softkvm/client.h"

static volatile int cleaned;
static volatile int interrupted;

static void count_cleanup(void *arg)
{
	cleaned++;
}

static void on_signal(int sig)
{
	interrupted++;
}

static void type_set(int type)
{
	CHECK(pthread_setcanceltype(type, NULL) == 0);
}

/* Runs for ever, one KVM_RUN after another. */
static void *async_main(void *arg)
{
	struct guest *g = arg;

	pthread_cleanup_push(count_cleanup, NULL);
	type_set(PTHREAD_CANCEL_ASYNCHRONOUS);
	for (;;)
		guest_run(g);
	pthread_cleanup_pop(0);
	return NULL;
}

static void thread_cancelled(pthread_t t)
{
	void *ret;

	CHECK(pthread_cancel(t) == 0);
	CHECK(pthread_join(t, &ret) == 0 && ret == PTHREAD_CANCELED);
}

/* Early and late: before KVM_RUN, at its beginning, and well within. */
static void test_async(void)
{
	struct kvm_regs halt;
	struct guest g;
	pthread_t t;

	guest_new(&g, code_forever, sizeof(code_forever));
	for (int i = 0; i < 300; i++) {
		uint16_t count = guest_count(&g);

		CHECK(pthread_create(&t, NULL, async_main, &g) == 0);
		if (i & 1)
			while (guest_count(&g) == count)
				sched_yield();
		for (volatile int wait = i * 50; wait; wait--)
			;
		thread_cancelled(t);
	}
	/* The even ones may not have come as far as their handler. */
	CHECK(cleaned >= 150);
	halt = (struct kvm_regs){ .rip = CODE_AT + 0x1000, .rflags = 2 };
	g.ram[halt.rip] = 0xf4;
	CHECK(ioctl(g.vcpu, KVM_SET_REGS, &halt) == 0);
	CHECK(guest_run(&g) == 0 && g.run->exit_reason == KVM_EXIT_HLT);
	guest_free(&g);
}

/* In a sleep of the guest's. */
static void test_async_halted(void)
{
	struct kvm_mp_state mp;
	struct guest g;
	pthread_t t;

	guest_new_irqchip(&g, code_halt, sizeof(code_halt));
	for (int i = 0; i < 20; i++) {
		CHECK(pthread_create(&t, NULL, async_main, &g) == 0);
		while (!guest_count(&g))
			sched_yield();
		thread_cancelled(t);
		CHECK(ioctl(g.vcpu, KVM_GET_MP_STATE, &mp) == 0);
		CHECK(i < 1 || mp.mp_state == KVM_MP_STATE_HALTED || mp.mp_state == 0);
	}
}

struct holder {
	struct guest *guest;
	int state, type;
	volatile bool left;
};

/* One KVM_RUN, that a signal ends, not the cancellation. */
static void *holder_main(void *arg)
{
	struct holder *h = arg;

	pthread_setcancelstate(h->state, NULL);
	type_set(h->type);
	CHECK(guest_run(h->guest) == -EINTR);
	h->left = true;
	CHECK(interrupted);
	/* No more of a cancellation point than before. */
	for (int i = 0; i < 100; i++)
		CHECK(ioctl(h->guest->sys, KVM_GET_API_VERSION, 0) == KVM_API_VERSION);
	type_set(PTHREAD_CANCEL_DEFERRED);
	cleaned++;
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	for (;;)
		pthread_testcancel();
	return NULL;
}

static void guest_counts_on(const struct guest *g)
{
	for (int i = 0; i < 5; i++) {
		uint16_t count = guest_count(g);

		while (guest_count(g) == count)
			sched_yield();
		usleep(2000);
	}
}

static void held_over_run(struct guest *g, int state, int type)
{
	struct holder h = { .guest = g, .state = state, .type = type };
	uint16_t count = guest_count(g);
	pthread_t t;
	void *ret;

	cleaned = interrupted = 0;
	CHECK(pthread_create(&t, NULL, holder_main, &h) == 0);
	while (guest_count(g) == count)
		sched_yield();
	CHECK(pthread_cancel(t) == 0);
	guest_counts_on(g);
	CHECK(!h.left);
	CHECK(pthread_kill(t, SIGUSR1) == 0);
	CHECK(pthread_join(t, &ret) == 0 && ret == PTHREAD_CANCELED && cleaned == 1);
}

static void test_deferred(void)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct guest g;

	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
	guest_new(&g, code_forever, sizeof(code_forever));
	held_over_run(&g, PTHREAD_CANCEL_ENABLE, PTHREAD_CANCEL_DEFERRED);
	held_over_run(&g, PTHREAD_CANCEL_DISABLE, PTHREAD_CANCEL_ASYNCHRONOUS);
	held_over_run(&g, PTHREAD_CANCEL_DISABLE, PTHREAD_CANCEL_DEFERRED);
	guest_free(&g);
}

/* Calls that take locks, until it dies. What it leaves open is the main thread's to close. */
static volatile int last_fd;
static volatile int rounds;

static void *caller_main(void *arg)
{
	struct guest *g = arg;
	struct kvm_userspace_memory_region region = { .slot = 1, .guest_phys_addr = 0x100000 };

	region.userspace_addr = (uintptr_t)g->ram;
	type_set(PTHREAD_CANCEL_ASYNCHRONOUS);
	for (;;) {
		region.memory_size = RAM_SIZE - region.memory_size;
		ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region);
		ioctl(g->vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY);
		last_fd = ioctl(g->sys, KVM_CREATE_VM, 0);
		close(last_fd);
		rounds++;
	}
	return NULL;
}

static void test_calls(void)
{
	struct kvm_userspace_memory_region region = { .slot = 1, .guest_phys_addr = 0x100000 };
	pthread_t t;
	struct guest g;

	guest_new(&g, code_halt, sizeof(code_halt));
	for (int i = 0; i < 100; i++) {
		int before = rounds;

		CHECK(pthread_create(&t, NULL, caller_main, &g) == 0);
		while (rounds == before)
			sched_yield();
		for (volatile int wait = i * 500; wait; wait--)
			;
		thread_cancelled(t);
		region.userspace_addr = (uintptr_t)g.ram;
		region.memory_size = RAM_SIZE;
		CHECK(ioctl(g.vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
		region.memory_size = 0;
		CHECK(ioctl(g.vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
	}
	CHECK(guest_run(&g) == 0 && g.run->exit_reason == KVM_EXIT_HLT);
	guest_free(&g);
}

const struct client_test cancel_tests[] = {
	{ "cancel-async", test_async }, { "cancel-halted", test_async_halted },
	{ "cancel-deferred", test_deferred }, { "cancel-calls", test_calls }, { 0 },
};
