/*
 * vCPUs on threads: the two ways to get one out of KVM_RUN, slots that change under it, several at
 * once, and the start of a second processor. Nothing sleeps here to get an order: a thread is
 * waited for by what it does.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/api/api.h"

static __thread struct kvm_run *thread_run;

static void kick_handler(int sig)
{
	if (thread_run)
		thread_run->immediate_exit = 1;
}

struct runner {
	struct machine m;
	pthread_t thread;
	u16 seen;
	long ret;
	pid_t tid;	/* 0: it has not begun */
	bool done;
};

static void *runner_main(void *arg)
{
	struct runner *r = arg;
	long ret;

	thread_run = r->m.run;
	store_release(&r->tid, (pid_t)syscall(SYS_gettid));
	ret = call_num(r->m.vcpu, KVM_RUN, 0);
	r->ret = ret;
	store_release(&r->done, true);
	return NULL;
}

static void runner_start(struct runner *r)
{
	struct sigaction sa = { .sa_handler = kick_handler };

	sigaction(SIGUSR1, &sa, NULL);
	r->done = false;
	r->tid = 0;
	r->seen = *(volatile u16 *)(r->m.ram + 0x500);
	assert_int_equal(pthread_create(&r->thread, NULL, runner_main, r), 0);
}

/* Until its vCPU waits: nothing else of it sleeps. */
static void runner_sleeps(struct runner *r)
{
	char path[64], state = 0;
	FILE *f;

	while (!load_acquire(&r->tid))
		sched_yield();
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", r->tid);
	while (state != 'S' && !load_acquire(&r->done)) {
		f = fopen(path, "r");
		assert_true(f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1);
		fclose(f);
	}
}

/* Until the guest has counted on in ram[0x500]. */
static void wait_counting(struct runner *r)
{
	volatile u16 *counter = (volatile u16 *)(r->m.ram + 0x500);

	while (*counter == r->seen && !load_acquire(&r->done))
		;
	r->seen = *counter;
	assert_false(load_acquire(&r->done));
}

/* again: inc word [0x500]; jmp again */
static const u8 counting[] = { 0xff, 0x06, 0x00, 0x05, 0xeb, 0xfa };

/* Counts for a while, until it is kicked out. */
static void count_and_kick(struct runner *r)
{
	machine_code(&r->m, counting, sizeof(counting));
	r->m.run->immediate_exit = 0;
	runner_start(r);
	wait_counting(r);
	pthread_kill(r->thread, SIGUSR1);
	pthread_join(r->thread, NULL);
	assert_int_equal(r->ret, -EINTR);
}

static void test_kick_running(void **state)
{
	struct runner r;
	int i;

	machine_new(&r.m, PLAIN);
	for (i = 0; i < 20; i++)
		count_and_kick(&r);
	machine_free(&r.m);
}

/* A debugger: stops the vCPU in a loop, writes to the loop, and goes on where it was. */
static void test_patch_stopped(void **state)
{
	struct runner r;
	u16 start;

	machine_new(&r.m, PLAIN);
	for (int i = 0; i < 5; i++) {
		count_and_kick(&r);
		r.m.ram[CODE_AT + 4] = 0xf4;	/* hlt instead of jmp */
		r.m.run->immediate_exit = 0;
		runner_start(&r);
		start = r.seen;
		while (!load_acquire(&r.done) && (u16)(*(volatile u16 *)(r.m.ram + 0x500) - start) < 1000)
			;
		if (!load_acquire(&r.done))	/* it goes on counting, perhaps */
			pthread_kill(r.thread, SIGUSR1);
		pthread_join(r.thread, NULL);
		assert_int_equal(r.ret, 0);
		assert_int_equal(r.m.run->exit_reason, KVM_EXIT_HLT);
	}
	machine_free(&r.m);
}

/* Pieces of code one after the other at the same place, each run from its start. */
static void run_pieces(bool flat)
{
	struct kvm_regs regs;
	struct machine m;

	machine_new(&m, PLAIN);
	CODE(&m, 0xb0, 0x00, 0xf4);	/* mov al, 0; hlt */
	if (flat)
		flat_mode(m.vcpu);
	for (u8 i = 0; i < 10; i++) {
		regs = get_regs(m.vcpu);
		regs.rip = CODE_AT;
		set_regs(m.vcpu, &regs);
		m.ram[CODE_AT + 1] = i;
		assert_int_equal(call(m.vcpu, KVM_RUN, NULL), 0);
		assert_int_equal(m.run->exit_reason, KVM_EXIT_HLT);
		assert_int_equal(get_regs(m.vcpu).rax & 0xff, i);
	}
	machine_free(&m);
}

static void test_patch_halted(void **state)
{
	run_pieces(false);
	run_pieces(true);
}

/* Signals hit at any point before, while and after the vCPU falls asleep: none is lost. */
static void test_kick_halted(void **state)
{
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct runner r;
	int i;

	machine_new(&r.m, WITH_IRQCHIP);
	for (i = 0; i < 300; i++) {
		volatile int n;

		CODE(&r.m, 0xff, 0x06, 0x00, 0x05, 0xf4);	/* inc word [0x500]; hlt */
		assert_int_equal(call(r.m.vcpu, KVM_SET_MP_STATE, &mp), 0);
		r.m.run->immediate_exit = 0;
		runner_start(&r);
		wait_counting(&r);
		for (n = 0; n < i * 50; n++)
			;
		pthread_kill(r.thread, SIGUSR1);
		pthread_join(r.thread, NULL);
		assert_int_equal(r.ret, -EINTR);
	}
	machine_free(&r.m);
}

/* KVM_SET_SIGNAL_MASK: a signal that the thread blocks and KVM_RUN does not ends KVM_RUN and stays
 * pending. */
static void test_signal_mask(void **state)
{
	struct {
		struct kvm_signal_mask head;
		u64 set;
	} __attribute__((packed)) mask = { .head.len = 8 };
	struct runner r;
	sigset_t usr2, old;
	int sig;

	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &usr2, &old);
	machine_new(&r.m, PLAIN);
	assert_int_equal(call(r.m.vcpu, KVM_SET_SIGNAL_MASK, &mask), 0);
	machine_code(&r.m, counting, sizeof(counting));
	runner_start(&r);
	wait_counting(&r);
	/* Sent to the process: whoever unblocks it has it. */
	kill(getpid(), SIGUSR2);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.ret, -EINTR);
	assert_int_equal(r.m.run->exit_reason, KVM_EXIT_INTR);
	assert_int_equal(sigwait(&usr2, &sig), 0);
	assert_int_equal(sig, SIGUSR2);
	mask.head.len = 4;
	assert_int_equal(call(r.m.vcpu, KVM_SET_SIGNAL_MASK, &mask), -EINVAL);
	assert_int_equal(call(r.m.vcpu, KVM_SET_SIGNAL_MASK, NULL), 0);
	machine_free(&r.m);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Slots come and go, and the dirty log is taken, while the guest runs. */
static void test_slots_under_running(void **state)
{
	struct kvm_userspace_memory_region mem = {
		.slot = 1, .guest_phys_addr = 0x40000, .memory_size = 0x4000,
	};
	struct runner r;
	int i;

	machine_new(&r.m, PLAIN);
	mem.userspace_addr =
		(u64)mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	machine_code(&r.m, counting, sizeof(counting));
	runner_start(&r);
	for (i = 0; i < 200; i++) {
		mem.memory_size = 0x4000;
		assert_int_equal(call(r.m.vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
		mem.memory_size = 0;
		assert_int_equal(call(r.m.vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
		wait_counting(&r);
	}
	pthread_kill(r.thread, SIGUSR1);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.ret, -EINTR);
	munmap((void *)mem.userspace_addr, 0x4000);
	machine_free(&r.m);
}

/* Every page that the guest writes is in one of the logs taken while it writes. */
static void test_log_under_running(void **state)
{
	struct kvm_userspace_memory_region mem = {
		.slot = 0, .memory_size = RAM_SIZE, .flags = KVM_MEM_LOG_DIRTY_PAGES,
	};
	u64 bits = 0;
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = &bits };
	struct runner r;
	int i;

	machine_new(&r.m, PLAIN);
	mem.userspace_addr = (u64)r.m.ram;
	assert_int_equal(call(r.m.vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
	machine_code(&r.m, counting, sizeof(counting));
	runner_start(&r);
	for (i = 0; i < 200; i++) {
		assert_int_equal(call(r.m.vm, KVM_GET_DIRTY_LOG, &log), 0);
		/* Writes from now on, not the last ones before. */
		r.seen = *(volatile u16 *)(r.m.ram + 0x500);
		wait_counting(&r);
		assert_int_equal(call(r.m.vm, KVM_GET_DIRTY_LOG, &log), 0);
		assert_true(bits & 1);
	}
	pthread_kill(r.thread, SIGUSR1);
	pthread_join(r.thread, NULL);
	machine_free(&r.m);
}

/* LOCK INC by several vCPUs of one VM: no count is lost. */
#define SMP 4
#define SMP_COUNTS 1000

static void *smp_main(void *arg)
{
	struct runner *r = arg;

	r->ret = call_num(r->m.vcpu, KVM_RUN, 0);
	return NULL;
}

static void test_smp_locked(void **state)
{
	/* mov cx, 1000; again: lock inc word [0x500]; loop again; hlt */
	static const u8 code[] = {
		0xb9, 0xe8, 0x03, 0xf0, 0xff, 0x06, 0x00, 0x05, 0xe2, 0xf9, 0xf4,
	};
	struct runner r[SMP];
	int i;

	machine_new(&r[0].m, PLAIN);
	machine_code(&r[0].m, code, sizeof(code));
	for (i = 1; i < SMP; i++) {
		r[i].m = r[0].m;
		r[i].m.vcpu = vcpu_new(r[0].m.vm, i, &r[i].m.run);
		real_mode(r[i].m.vcpu, CODE_AT);
	}
	for (i = 0; i < SMP; i++)
		assert_int_equal(pthread_create(&r[i].thread, NULL, smp_main, &r[i]), 0);
	for (i = 0; i < SMP; i++) {
		pthread_join(r[i].thread, NULL);
		assert_int_equal(r[i].ret, 0);
		assert_int_equal(r[i].m.run->exit_reason, KVM_EXIT_HLT);
	}
	assert_int_equal(*(u16 *)(r[0].m.ram + 0x500), SMP * SMP_COUNTS);
	for (i = 1; i < SMP; i++) {
		munmap(r[i].m.run, RUN_SIZE);
		api->close(r[i].m.vcpu);
	}
	machine_free(&r[0].m);
}

/* The second processor waits for INIT and SIPI, then starts at the page that SIPI names. SDM 3A
 * 9.4 */
static void test_startup_ipi(void **state)
{
	struct kvm_msi init = { .address_lo = 0xfee01000, .data = 0x4500 };
	struct kvm_msi sipi = { .address_lo = 0xfee01000, .data = 0x4603 };
	struct kvm_mp_state mp;
	struct runner r;

	skip_on_emulated_host("takes no INIT from KVM_SIGNAL_MSI");
	machine_new(&r.m, WITH_IRQCHIP);
	api->close(r.m.vcpu);
	munmap(r.m.run, RUN_SIZE);
	r.m.vcpu = vcpu_new(r.m.vm, 1, &r.m.run);
	assert_int_equal(call(r.m.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
	/* out 0x77, al at 0300:0 */
	memcpy(r.m.ram + 0x3000, "\xe6\x77\xf4", 3);
	call(r.m.vm, KVM_SIGNAL_MSI, &init);
	assert_int_equal(call(r.m.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_INIT_RECEIVED);
	runner_start(&r);
	call(r.m.vm, KVM_SIGNAL_MSI, &sipi);
	pthread_join(r.thread, NULL);
	/* KVM answers EAGAIN when a processor has just been started. */
	if (r.ret == -EAGAIN)
		r.ret = call_num(r.m.vcpu, KVM_RUN, 0);
	assert_int_equal(r.ret, 0);
	assert_int_equal(r.m.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(r.m.run->io.port, 0x77);
	assert_int_equal(get_sregs(r.m.vcpu).cs.selector, 0x300);
	machine_free(&r.m);
}

/*
 * KVM_RUN of a processor that waits for its first INIT ends with EAGAIN when that comes, and before
 * anything runs. What struct kvm_run says of registers is not looked at.
 */
static void first_init(bool asleep)
{
	struct kvm_msi init = { .address_lo = 0xfee01000, .data = 0x4500 };
	struct kvm_mp_state mp;
	struct runner r;

	machine_new(&r.m, WITH_IRQCHIP);
	api->close(r.m.vcpu);
	munmap(r.m.run, RUN_SIZE);
	r.m.vcpu = vcpu_new(r.m.vm, 1, &r.m.run);
	r.m.run->immediate_exit = 1;
	assert_int_equal(call_num(r.m.vcpu, KVM_RUN, 0), -EINTR);
	r.m.run->immediate_exit = 0;
	r.m.run->kvm_dirty_regs = ~0ULL;
	r.m.run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	r.m.run->s.regs.regs.rdx = 1;
	if (!asleep)
		call(r.m.vm, KVM_SIGNAL_MSI, &init);
	runner_start(&r);
	if (asleep) {
		runner_sleeps(&r);
		call(r.m.vm, KVM_SIGNAL_MSI, &init);
	}
	pthread_join(r.thread, NULL);
	assert_int_equal(r.ret, -EAGAIN);
	assert_int_not_equal(r.m.run->s.regs.regs.rdx, 1);
	assert_int_equal(call(r.m.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_INIT_RECEIVED);
	assert_int_equal(call_num(r.m.vcpu, KVM_RUN, 0), -EINVAL);
	machine_free(&r.m);
}

static void test_first_init(void **state)
{
	skip_on_emulated_host("takes no INIT from KVM_SIGNAL_MSI");
	first_init(false);
	first_init(true);
}

/* ---- faults that follow each other for ever ------------------------------------------------ */

#define FAULTS_GDT	0x2000
#define FAULTS_IDT	0x3000
#define FAULTS_HANDLER	0x4000
#define FAULTS_FLAGS	0x43002		/* AC, IOPL 3 */

/*
 * User code with alignment checks, whose #AC goes to a handler of its own level: on a crooked stack
 * the frame of the first raises the second, and so on. SDM 3A 6.15 (#AC)
 */
static void endless_faults(struct machine *m)
{
	/* add word [0x500], 1; mov eax, [0x501] */
	static const u8 code[] = { 0x66, 0x83, 0x05, 0x00, 0x05, 0, 0, 1, 0xa1, 0x01, 0x05, 0, 0 };
	static const u8 handler[] = { 0xe6, 0x77 };	/* out 0x77, al */
	static const u64 gdt[] = { 0, 0, 0, 0x00cffb000000ffff, 0x00cff3000000ffff };
	const u64 gate = FAULTS_HANDLER | 0x1bULL << 16 | 0x8eULL << 40;
	struct kvm_regs r = { .rip = CODE_AT, .rsp = 0x8001, .rflags = FAULTS_FLAGS };
	struct kvm_sregs s;

	memcpy(m->ram + CODE_AT, code, sizeof(code));
	memcpy(m->ram + FAULTS_HANDLER, handler, sizeof(handler));
	memcpy(m->ram + FAULTS_GDT, gdt, sizeof(gdt));
	memcpy(m->ram + FAULTS_IDT + 17 * 8, &gate, 8);
	flat_mode(m->vcpu);
	s = get_sregs(m->vcpu);
	s.cs.selector = 0x1b;
	s.ss.selector = s.ds.selector = s.es.selector = 0x23;
	s.cs.dpl = s.ss.dpl = s.ds.dpl = s.es.dpl = 3;
	s.cr0 |= 1 << 18;		/* AM */
	s.gdt = (struct kvm_dtable){ .base = FAULTS_GDT, .limit = sizeof(gdt) - 1 };
	s.idt = (struct kvm_dtable){ .base = FAULTS_IDT, .limit = 32 * 8 - 1 };
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
	set_regs(m->vcpu, &r);
}

/* Each change stops the vCPU and lets it go on. */
static void disturb(struct machine *m)
{
	struct kvm_userspace_memory_region mem = { .slot = 1, .guest_phys_addr = 0x40000,
		.userspace_addr = (u64)m->ram };

	for (int i = 0; i < 10; i++) {
		mem.memory_size = i & 1 ? 0 : 0x1000;
		assert_int_equal(call(m->vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
	}
}

static void test_endless_faults(void **state)
{
	struct kvm_vcpu_events e;
	struct kvm_regs regs;
	struct runner r;

	skip_on_emulated_host("checks no alignment");
	machine_new(&r.m, PLAIN);
	for (int i = 0; i < 30; i++) {
		endless_faults(&r.m);
		r.m.run->immediate_exit = 0;
		runner_start(&r);
		wait_counting(&r);
		if (i & 1)
			disturb(&r.m);
		assert_false(load_acquire(&r.done));
		pthread_kill(r.thread, SIGUSR1);
		pthread_join(r.thread, NULL);
		assert_int_equal(r.ret, -EINTR);
		assert_int_equal(r.m.run->exit_reason, KVM_EXIT_INTR);
		/* The fault is still on its way, and comes when there is a stack for it. */
		assert_int_equal(call(r.m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
		assert_true(e.exception.injected && e.exception.nr == 17);
		r.m.run->immediate_exit = 0;
		regs = get_regs(r.m.vcpu);
		regs.rsp = 0x8000;
		set_regs(r.m.vcpu, &regs);
		assert_int_equal(call(r.m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
		run_until(&r.m, KVM_EXIT_IO);
		assert_int_equal(r.m.run->io.port, 0x77);
		assert_int_equal(get_regs(r.m.vcpu).rsp, 0x8000 - 16);
	}
	machine_free(&r.m);
}

int test_threads(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kick_running),
		cmocka_unit_test(test_kick_halted),
		cmocka_unit_test(test_patch_stopped),
		cmocka_unit_test(test_patch_halted),
		cmocka_unit_test(test_signal_mask),
		cmocka_unit_test(test_slots_under_running),
		cmocka_unit_test(test_log_under_running),
		cmocka_unit_test(test_smp_locked),
		cmocka_unit_test(test_startup_ipi),
		cmocka_unit_test(test_first_init),
		cmocka_unit_test(test_endless_faults),
	};

	return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
