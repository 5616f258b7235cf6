/* Signals and KVM_RUN: signal(7), api.rst 4.10, 4.20 and "immediate_exit". */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "tests/softkvm/client.h"

static volatile int calls;
static volatile int last_value;
static struct guest *volatile watched;
static struct kvm_regs seen;

static void count_call(int sig)
{
	calls++;
}

static void action_set(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	CHECK(sigaction(sig, &sa, NULL) == 0);
}

/* ---- another thread that sends ------------------------------------------------------------- */

struct sender {
	pthread_t thread, to;
	struct guest *guest;
	int sig;
	uint16_t count;		/* before the guest was started */
};

/* Once the guest runs. */
static void *sender_main(void *arg)
{
	struct sender *s = arg;

	while (guest_count(s->guest) == s->count)
		;
	CHECK(pthread_kill(s->to, s->sig) == 0);
	return NULL;
}

static void sender_start(struct sender *s, struct guest *g, int sig)
{
	*s = (struct sender){ .to = pthread_self(), .guest = g, .sig = sig, .count = guest_count(g) };
	CHECK(pthread_create(&s->thread, NULL, sender_main, s) == 0);
}

/* A signal ends KVM_RUN, and its handler has run by then, once. */
static void run_is_interrupted(struct guest *g, int sig)
{
	struct sender s;
	int before = calls;

	sender_start(&s, g, sig);
	CHECK(guest_run(g) == -EINTR);
	CHECK(calls == before + 1);
	CHECK(g->run->exit_reason == KVM_EXIT_INTR);
	pthread_join(s.thread, NULL);
}

static void test_interrupted(void)
{
	struct guest g;

	/* Set before KVM is opened, and after; by each function; with SA_RESTART, which does not
	 * help. */
	action_set(SIGUSR1, count_call, 0);
	guest_new(&g, code_forever, sizeof(code_forever));
	for (int i = 0; i < 50; i++)
		run_is_interrupted(&g, SIGUSR1);
	action_set(SIGUSR2, count_call, SA_RESTART);
	run_is_interrupted(&g, SIGUSR2);
	CHECK(signal(SIGUSR2, SIG_IGN) == count_call);
	CHECK(signal(SIGUSR2, count_call) == SIG_IGN);
	run_is_interrupted(&g, SIGUSR2);
	action_set(SIGRTMIN, count_call, SA_NODEFER);
	run_is_interrupted(&g, SIGRTMIN);
	guest_free(&g);
}

/* The vCPU is complete when a handler runs: it may use it. */
static void look_at_vcpu(int sig)
{
	CHECK(ioctl(watched->vcpu, KVM_GET_REGS, &seen) == 0);
	calls++;
}

static void test_handler_uses_vcpu(void)
{
	struct guest g;

	guest_new(&g, code_forever, sizeof(code_forever));
	watched = &g;
	action_set(SIGUSR1, look_at_vcpu, 0);
	for (int i = 0; i < 20; i++) {
		run_is_interrupted(&g, SIGUSR1);
		CHECK(seen.rip == CODE_AT || seen.rip == CODE_AT + 4);
	}
	guest_free(&g);
}

static sigjmp_buf out;

static void jump_out(int sig)
{
	siglongjmp(out, 1);
}

/* A handler need not return. */
static void test_jump(void)
{
	struct sender s;
	struct guest g;

	guest_new(&g, code_forever, sizeof(code_forever));
	action_set(SIGUSR1, jump_out, 0);
	for (volatile int i = 0; i < 20; i++) {
		sender_start(&s, &g, SIGUSR1);
		if (!sigsetjmp(out, 1)) {
			guest_run(&g);
			CHECK(!"unreached");
		}
		pthread_join(s.thread, NULL);
	}
	guest_free(&g);
}

/* A signal from before KVM_RUN does not count; immediate_exit does. */
static void test_immediate(void)
{
	struct guest g;

	guest_new(&g, code_halt, sizeof(code_halt));
	action_set(SIGUSR1, count_call, 0);
	raise(SIGUSR1);
	CHECK(calls == 1);
	CHECK(guest_run(&g) == 0 && g.run->exit_reason == KVM_EXIT_HLT);
	g.run->immediate_exit = 1;
	CHECK(guest_run(&g) == -EINTR);
	guest_free(&g);
}

static void count_value(int sig, siginfo_t *info, void *ctx)
{
	CHECK(sig == SIGRTMIN + 3 && info->si_code == SI_QUEUE);
	last_value += info->si_value.sival_int;
	calls++;
}

static void *queue_three(void *arg)
{
	struct sender *s = arg;

	while (guest_count(s->guest) == s->count)
		;
	for (int i = 1; i <= 3; i++)
		CHECK(pthread_sigqueue(s->to, s->sig, (union sigval){ .sival_int = i * i }) == 0);
	return NULL;
}

/* Each of a queue arrives with its value. */
static void test_queue(void)
{
	struct sigaction sa = { .sa_sigaction = count_value, .sa_flags = SA_SIGINFO };
	struct sender s = { .to = pthread_self(), .sig = SIGRTMIN + 3 };
	struct guest g;

	guest_new(&g, code_forever, sizeof(code_forever));
	CHECK(sigaction(SIGRTMIN + 3, &sa, NULL) == 0);
	s.guest = &g;
	for (int i = 1; i <= 20; i++) {
		s.count = guest_count(&g);
		CHECK(pthread_create(&s.thread, NULL, queue_three, &s) == 0);
		while (calls < 3 * i)
			CHECK(guest_run(&g) == -EINTR);
		pthread_join(s.thread, NULL);
		CHECK(calls == 3 * i && last_value == 14 * i);
	}
	guest_free(&g);
}

/* What the program asks of sigaction is what it gets. */
static void test_actions(void)
{
	struct sigaction sa = { .sa_handler = count_call, .sa_flags = SA_RESETHAND | SA_NODEFER }, old;
	struct guest g;
	sigset_t now;

	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGUSR2);
	guest_new(&g, code_forever, sizeof(code_forever));
	CHECK(sigaction(SIGUSR1, &sa, &old) == 0 && old.sa_handler == SIG_DFL);
	CHECK(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == count_call);
	CHECK((old.sa_flags & (SA_RESETHAND | SA_NODEFER | SA_SIGINFO)) == (SA_RESETHAND | SA_NODEFER));
	CHECK(sigismember(&old.sa_mask, SIGUSR2) && !sigismember(&old.sa_mask, SIGHUP));
	run_is_interrupted(&g, SIGUSR1);
	CHECK(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
	sigprocmask(SIG_BLOCK, NULL, &now);
	CHECK(!sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2));
	CHECK_FAILS(sigaction(SIGKILL, &sa, NULL), EINVAL);
	CHECK_FAILS(sigaction(65, &sa, NULL), EINVAL);
	guest_free(&g);
}

static bool kick_enough;

static void *kick_main(void *arg)
{
	struct sender *s = arg;

	while (!__atomic_load_n(&kick_enough, __ATOMIC_ACQUIRE)) {
		CHECK(pthread_kill(s->to, s->sig) == 0);
		usleep(1000);
	}
	return NULL;
}

/* A vCPU that sleeps in HLT with an irqchip. */
static void test_halted(void)
{
	struct kvm_mp_state mp;
	struct guest g = { 0 };
	struct sender s = { .to = pthread_self(), .sig = SIGUSR1 };

	guest_new_irqchip(&g, code_halt, sizeof(code_halt));
	action_set(SIGUSR1, count_call, 0);
	CHECK(pthread_create(&s.thread, NULL, kick_main, &s) == 0);
	do {
		CHECK(guest_run(&g) == -EINTR && calls);
		CHECK(ioctl(g.vcpu, KVM_GET_MP_STATE, &mp) == 0);
	} while (mp.mp_state != KVM_MP_STATE_HALTED);
	calls = 0;
	CHECK(guest_run(&g) == -EINTR && calls);
	__atomic_store_n(&kick_enough, true, __ATOMIC_RELEASE);
	pthread_join(s.thread, NULL);
	CHECK(guest_count(&g) == 1);
}

static void mask_set(struct guest *g, uint64_t set)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} __attribute__((packed)) mask = { .head.len = 8, .set = set };

	CHECK(ioctl(g->vcpu, KVM_SET_SIGNAL_MASK, &mask) == 0);
}

/* QEMU's older way: the signal is blocked but in KVM_RUN, ends it, and stays to be waited for. */
static void test_mask(void)
{
	struct timespec none = { 0 };
	struct sender s;
	struct guest g;
	sigset_t set;

	guest_new(&g, code_forever, sizeof(code_forever));
	action_set(SIGUSR1, count_call, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	mask_set(&g, 0);
	for (int i = 0; i < 5; i++) {
		sender_start(&s, &g, SIGUSR1);
		CHECK(guest_run(&g) == -EINTR && calls == 0);
		CHECK(sigtimedwait(&set, NULL, &none) == SIGUSR1);
		CHECK(sigtimedwait(&set, NULL, &none) == -1);
		pthread_join(s.thread, NULL);
	}
	guest_free(&g);
}

/* Blocked by the mask, though not by the thread: it waits until KVM_RUN is over. */
static void test_mask_blocks(void)
{
	/* mov ecx, 2^20; inc word [500h]; again: dec ecx; jnz again; hlt: long enough to be hit */
	static const unsigned char code[] = { 0x66, 0xb9, 0, 0, 0x10, 0, 0xff, 0x06, 0, 5, 0x66, 0x49,
		0x75, 0xfc, 0xf4 };
	struct sender s;
	struct guest g;

	guest_new(&g, code, sizeof(code));
	action_set(SIGUSR1, count_call, 0);
	mask_set(&g, 1ull << (SIGUSR1 - 1));
	sender_start(&s, &g, SIGUSR1);
	CHECK(guest_run(&g) == 0 && g.run->exit_reason == KVM_EXIT_HLT);
	pthread_join(s.thread, NULL);
	CHECK(calls == 1);
	guest_free(&g);
}

/* ---- timers, faults ------------------------------------------------------------------------ */

static void test_timer(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF };
	struct itimerspec every = { .it_interval.tv_nsec = 500000, .it_value.tv_nsec = 500000 };
	struct guest g;
	timer_t t;
	int runs = 0;

	guest_new(&g, code_forever, sizeof(code_forever));
	action_set(SIGPROF, count_call, SA_RESTART);
	CHECK(timer_create(CLOCK_MONOTONIC, &ev, &t) == 0 && timer_settime(t, 0, &every, NULL) == 0);
	while (calls < 500) {
		CHECK(guest_run(&g) == -EINTR);
		runs++;
	}
	CHECK(timer_delete(t) == 0);
	CHECK(runs <= calls);
	guest_free(&g);
}

static volatile int *volatile nowhere = (volatile int *)16;

static void recover(int sig, siginfo_t *info, void *ctx)
{
	CHECK(info->si_addr == (void *)16);
	siglongjmp(out, 1);
}

/* movaps xmm0, [601h]: the host's CPU finds the fault of the guest. Its #GP ends in a triple one. */
static void test_faults(void)
{
	struct sigaction sa = { .sa_sigaction = recover, .sa_flags = SA_SIGINFO }, old;
	static const unsigned char code[] = { 0x0f, 0x28, 0x06, 0x01, 0x06, 0xf4 };
	struct kvm_sregs sregs;
	struct guest g;
	sigset_t all;

	CHECK(sigaction(SIGSEGV, &sa, NULL) == 0);
	guest_new(&g, code, sizeof(code));
	CHECK(ioctl(g.vcpu, KVM_GET_SREGS, &sregs) == 0);
	sregs.cr4 |= 0x600;
	CHECK(ioctl(g.vcpu, KVM_SET_SREGS, &sregs) == 0);
	/* The vector of #GP, 13: a HLT at 0:0700h. */
	memcpy(g.ram + 13 * 4, "\x00\x07\x00\x00", 4);
	g.ram[0x700] = 0xf4;
	for (int i = 0; i < 20; i++) {
		guest_restart(&g);
		CHECK(guest_run(&g) == 0 && g.run->exit_reason == KVM_EXIT_HLT);
		if (!sigsetjmp(out, 1))
			*nowhere = 1;
		CHECK(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_sigaction == recover);
		sa.sa_flags ^= SA_NODEFER;
		CHECK(sigaction(SIGSEGV, &sa, &old) == 0 && old.sa_sigaction == recover);
		/* A thread of many a program has all blocked. */
		sigfillset(&all);
		CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
		guest_restart(&g);
		CHECK(guest_run(&g) == 0 && g.run->exit_reason == KVM_EXIT_HLT);
		sigemptyset(&all);
		CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
	}
	guest_free(&g);
}

const struct client_test signal_tests[] = {
	{ "interrupted", test_interrupted }, { "handler-uses-vcpu", test_handler_uses_vcpu },
	{ "jump", test_jump }, { "immediate", test_immediate }, { "queue", test_queue },
	{ "actions", test_actions }, { "halted", test_halted }, { "mask", test_mask },
	{ "mask-blocks", test_mask_blocks }, { "timer", test_timer }, { "faults", test_faults }, { 0 },
};
