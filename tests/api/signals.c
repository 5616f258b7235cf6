/*
 * Signals of a program that embeds us, around the engine: its actions for faults, set before ours
 * or later, and its asynchronous signals while a guest computes.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "hypervisor/api/qkvm.h"
#include "hypervisor/os/os.h"
#include "tests/api/child.h"

static const struct api soft = { "soft", qkvm_open, qkvm_ioctl, qkvm_mmap, qkvm_close };
const struct api *api = &soft;

/* ---- what a handler finds ------------------------------------------------------------------ */

static struct {
	u32 mxcsr;
	u16 fcw;
	u64 rflags;
} seen;

static void look_around(int sig)
{
	__asm__ volatile("stmxcsr %0" : "=m"(seen.mxcsr));
	__asm__ volatile("fnstcw %0" : "=m"(seen.fcw));
	seen.rflags = __builtin_ia32_readeflags_u64();
}

/* getpid and kill as instructions: no C code may run with these control words. */
static void control_words(void)
{
	struct { u32 mxcsr; u16 fcw; } guest = { 0x5f00, 0x0f40 }, after, clean = { 0x1f80, 0x37f };

	signal(SIGUSR1, look_around);
	__asm__ volatile("ldmxcsr %[gm]; fldcw %[gf]; std\n\t"
			 "mov %[nr_getpid], %%eax; syscall\n\t"
			 "mov %%eax, %%edi; mov %[sig], %%esi; mov %[nr_kill], %%eax; syscall\n\t"
			 "cld; stmxcsr %[am]; fnstcw %[af]\n\t"
			 "ldmxcsr %[cm]; fldcw %[cf]"
			 : [am] "=m"(after.mxcsr), [af] "=m"(after.fcw)
			 : [gm] "m"(guest.mxcsr), [gf] "m"(guest.fcw), [cm] "m"(clean.mxcsr),
			   [cf] "m"(clean.fcw), [nr_getpid] "i"(SYS_getpid), [nr_kill] "i"(SYS_kill),
			   [sig] "i"(SIGUSR1)
			 : "rax", "rcx", "r11", "rdi", "rsi", "memory", "cc");
	CHECK(seen.mxcsr == 0x1f80 && seen.fcw == 0x37f && !(seen.rflags & 0x400));
	CHECK(after.mxcsr == guest.mxcsr && after.fcw == guest.fcw);
}

static void test_control_words(void **state)
{
	EXPECT_FINE(control_words);
}

/* ---- a guest in flat 32-bit protected mode ------------------------------------------------- */

#define GDT_AT		0x2000
#define IDT_AT		0x3000
#define HANDLER_AT	0x4000
#define COUNTER_AT	0x500
#define DATA_AT		0x600

static struct kvm_segment flat(u16 selector, u8 type)
{
	return (struct kvm_segment){ .selector = selector, .limit = 0xffffffff, .type = type,
		.present = 1, .s = 1, .db = 1, .g = 1 };
}

static void protected_mode(struct machine *m)
{
	struct kvm_regs r = { .rip = CODE_AT, .rsp = 0x8000, .rflags = 2 };
	struct kvm_sregs s = get_sregs(m->vcpu);

	s.cs = flat(8, 11);
	s.ds = s.es = s.fs = s.gs = s.ss = flat(16, 3);
	s.cr0 = 0x31;			/* NE, ET, PE */
	s.cr4 |= 0x600;			/* OSFXSR, OSXMMEXCPT */
	s.gdt = (struct kvm_dtable){ .base = GDT_AT, .limit = 23 };
	s.idt = (struct kvm_dtable){ .base = IDT_AT, .limit = 32 * 8 - 1 };
	CHECK(call(m->vcpu, KVM_SET_SREGS, &s) == 0);
	set_regs(m->vcpu, &r);
}

/* #GP: add dword [COUNTER_AT], 1; add dword [esp + 4], 7; add esp, 4; iret */
static const u8 gp_handler[] = { 0x83, 0x05, 0x00, 0x05, 0, 0, 1, 0x83, 0x44, 0x24, 4, 7,
	0x83, 0xc4, 4, 0xcf };

static void guest_new(struct machine *m, const void *code, size_t size)
{
	static const u64 gdt[] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff };
	u64 gate = (HANDLER_AT & 0xffff) | 8ULL << 16 | 0x8eULL << 40;

	machine_new(m, PLAIN);
	memcpy(m->ram + GDT_AT, gdt, sizeof(gdt));
	memcpy(m->ram + IDT_AT + 13 * 8, &gate, 8);
	memcpy(m->ram + HANDLER_AT, gp_handler, sizeof(gp_handler));
	memcpy(m->ram + CODE_AT, code, size);
	protected_mode(m);
}

/* movaps xmm0, [DATA_AT + 1] faults on the host too, inside a code area; hlt */
static const u8 misaligned[] = { 0x0f, 0x28, 0x05, 0x01, 0x06, 0, 0, 0xf4 };

static u32 guest_counter(const struct machine *m)
{
	return *(const volatile u32 *)(m->ram + COUNTER_AT);
}

/* One #GP that the host CPU finds for the guest. */
static void guest_fault_once(struct machine *m)
{
	u32 before = guest_counter(m);

	protected_mode(m);
	CHECK(call_num(m->vcpu, KVM_RUN, 0) == 0 && m->run->exit_reason == KVM_EXIT_HLT);
	CHECK(guest_counter(m) == before + 1);
}

/* again: movaps xmm0, [DATA_AT + 1]; jmp again */
static const u8 misaligned_for_ever[] = { 0x0f, 0x28, 0x05, 0x01, 0x06, 0, 0, 0xeb, 0xf7 };

struct runner {
	struct machine m;
	pthread_t thread;
	bool stop;
};

static void *runner_main(void *arg)
{
	struct runner *r = arg;

	while (!load_acquire(&r->stop)) {
		long ret = call_num(r->m.vcpu, KVM_RUN, 0);

		CHECK(ret == -EINTR);
	}
	return NULL;
}

static void runner_start(struct runner *r)
{
	guest_new(&r->m, misaligned_for_ever, sizeof(misaligned_for_ever));
	r->stop = false;
	CHECK(pthread_create(&r->thread, NULL, runner_main, r) == 0);
	while (guest_counter(&r->m) < 100)
		;
}

static void runner_stop(struct runner *r)
{
	u32 count = guest_counter(&r->m);

	/* Still running? */
	while (guest_counter(&r->m) == count)
		;
	r->m.run->immediate_exit = 1;
	store_release(&r->stop, true);
	pthread_join(r->thread, NULL);
	machine_free(&r->m);
}

/* ---- actions set before us ----------------------------------------------------------------- */

static sigjmp_buf again;
static struct {
	volatile u32 calls;
	void *volatile addr, *volatile stack;
	volatile bool usr1, segv;
	volatile int code;
} last;

static void recover(int sig, siginfo_t *info, void *ctx)
{
	sigset_t now;
	char here;

	last.calls++;
	last.addr = info->si_addr;
	last.code = info->si_code;
	last.stack = &here;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	last.usr1 = sigismember(&now, SIGUSR1);
	last.segv = sigismember(&now, SIGSEGV);
	siglongjmp(again, 1);
}

static volatile int *volatile nowhere = (volatile int *)0x10;

static void fault_and_recover(void)
{
	u32 calls = last.calls;
	sigset_t now;

	if (!sigsetjmp(again, 1))
		*nowhere = 1;
	CHECK(last.calls == calls + 1);
	CHECK(last.addr == (void *)nowhere && last.code == SEGV_MAPERR);
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	CHECK(!sigismember(&now, SIGSEGV) && !sigismember(&now, SIGUSR1));
}

static void set_action(int sig, void (*fn)(int, siginfo_t *, void *), int flags, bool mask_usr1)
{
	struct sigaction sa = { .sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags };

	sigemptyset(&sa.sa_mask);
	if (mask_usr1)
		sigaddset(&sa.sa_mask, SIGUSR1);
	CHECK(sigaction(sig, &sa, NULL) == 0);
}

static u8 alt_stack[65536];

static void use_alt_stack(void)
{
	stack_t st = { .ss_sp = alt_stack, .ss_size = sizeof(alt_stack) };

	CHECK(sigaltstack(&st, NULL) == 0);
}

static bool was_on_alt_stack(void)
{
	return (u8 *)last.stack >= alt_stack && (u8 *)last.stack < alt_stack + sizeof(alt_stack);
}

/* The handler runs as its flags say, 1000 times, while a vCPU's faults are served. */
static void recovering(int flags, bool mask_usr1)
{
	struct runner r;

	use_alt_stack();
	set_action(SIGSEGV, recover, flags, mask_usr1);
	runner_start(&r);
	for (int i = 0; i < 1000; i++) {
		fault_and_recover();
		CHECK(last.usr1 == mask_usr1);
		CHECK(last.segv == !(flags & SA_NODEFER));
		CHECK(was_on_alt_stack() == !!(flags & SA_ONSTACK));
	}
	runner_stop(&r);
}

static void recovering_plain(void) { recovering(0, false); }
static void recovering_masked(void) { recovering(SA_ONSTACK, true); }
static void recovering_nodefer(void) { recovering(SA_NODEFER | SA_ONSTACK, true); }

static void test_recovering_handler(void **state)
{
	EXPECT_FINE(recovering_plain);
	EXPECT_FINE(recovering_masked);
	EXPECT_FINE(recovering_nodefer);
}

static void reset_hand(void)
{
	struct machine m;

	set_action(SIGSEGV, recover, SA_RESETHAND, false);
	guest_new(&m, misaligned, sizeof(misaligned));
	guest_fault_once(&m);
	fault_and_recover();
	guest_fault_once(&m);
	*nowhere = 1;
}

static void test_reset_hand(void **state)
{
	EXPECT_SIGNAL(reset_hand, SIGSEGV);
}

/* A handler of one argument; and one that repairs the cause and returns to the instruction. */
static void *repair_page;
static void repair(int sig)
{
	last.calls++;
	mprotect(repair_page, 4096, PROT_READ | PROT_WRITE);
}

static void repairing(void)
{
	struct machine m;

	signal(SIGSEGV, repair);
	guest_new(&m, misaligned, sizeof(misaligned));
	repair_page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(repair_page != MAP_FAILED);
	for (u32 i = 1; i < 100; i++) {
		*(volatile u32 *)repair_page = i;
		CHECK(last.calls == i && *(volatile u32 *)repair_page == i);
		mprotect(repair_page, 4096, PROT_NONE);
		guest_fault_once(&m);
	}
	machine_free(&m);
}

static void test_repairing_handler(void **state)
{
	EXPECT_FINE(repairing);
}

/* ---- actions set after us ------------------------------------------------------------------ */

static struct sigaction next;	/* what chaining_handler found */
static u32 chained;

static void chaining_handler(int sig, siginfo_t *info, void *ctx)
{
	chained++;
	CHECK(next.sa_flags & SA_SIGINFO);
	next.sa_sigaction(sig, info, ctx);
}

/* So long that the next entry into the guest looks at the actions. */
static void let_guard_look(struct machine *m)
{
	u64 start = os_clock_ns();

	while (os_clock_ns() - start < 2 * OS_GUARD_MS * 1000000ULL)
		;
	guest_fault_once(m);
}

static void later_handlers(void)
{
	struct sigaction other = { .sa_sigaction = chaining_handler, .sa_flags = SA_SIGINFO };
	struct sigaction found;
	struct machine m;

	guest_new(&m, misaligned, sizeof(misaligned));
	guest_fault_once(&m);
	/* The program's first. */
	set_action(SIGSEGV, recover, 0, true);
	let_guard_look(&m);
	fault_and_recover();
	CHECK(last.usr1);
	/* One over ours that calls what it found: ours again, which must not call it again. */
	CHECK(sigaction(SIGSEGV, &other, &next) == 0);
	CHECK(next.sa_sigaction != recover);
	for (int i = 0; i < 3; i++) {
		let_guard_look(&m);
		fault_and_recover();
		CHECK(last.usr1 && chained == (u32)i + 1);
	}
	/* It puts back what it found; what lay below that is in force again. */
	CHECK(sigaction(SIGSEGV, &next, NULL) == 0);
	let_guard_look(&m);
	sigaction(SIGSEGV, NULL, &found);
	CHECK(found.sa_sigaction == next.sa_sigaction);
	fault_and_recover();
	CHECK(chained == 3);
	/* The same few actions in turn, for ever. */
	for (int i = 0; i < 200; i++) {
		set_action(SIGSEGV, recover, i & 1 ? SA_NODEFER : 0, i & 2);
		let_guard_look(&m);
		fault_and_recover();
		CHECK(last.segv == !(i & 1) && last.usr1 == !!(i & 2));
	}
	machine_free(&m);
}

static void test_later_handlers(void **state)
{
	EXPECT_FINE(later_handlers);
}

/* All signals blocked, as some programs have them in the threads of their vCPUs. */
static void all_blocked(void)
{
	struct machine m;
	sigset_t all;

	guest_new(&m, misaligned, sizeof(misaligned));
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	guest_fault_once(&m);
	guest_fault_once(&m);
	machine_free(&m);
}

static void test_all_blocked(void **state)
{
	EXPECT_FINE(all_blocked);
}

/* ---- death --------------------------------------------------------------------------------- */

static const int deadly[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
static unsigned int death;	/* index into deadly[] */
static void (*action_before)(int);
static struct runner death_runner;

static void die_by_instruction(void)
{
	FILE *file;
	volatile char *p;

	switch (deadly[death]) {
	case SIGSEGV:
		*nowhere = 1;
		break;
	case SIGBUS:
		file = tmpfile();
		CHECK(file);
		p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(file), 0);
		CHECK(p != MAP_FAILED);
		(void)*p;
		break;
	case SIGFPE:
		__asm__ volatile("xor %%ecx, %%ecx; div %%ecx" : : : "eax", "ecx", "edx");
		break;
	case SIGILL:
		__asm__ volatile("ud2");
		break;
	}
}

static void with_vcpu(void)
{
	signal(deadly[death], action_before);
	runner_start(&death_runner);
}

static void die_faulting(void)
{
	with_vcpu();
	die_by_instruction();
}

static void die_sent(void)
{
	with_vcpu();
	raise(deadly[death]);
}

static void survive_sent(void)
{
	with_vcpu();
	for (int i = 0; i < 10; i++) {
		raise(deadly[death]);
		kill(getpid(), deadly[death]);
	}
	runner_stop(&death_runner);
}

static void test_death(void **state)
{
	for (death = 0; death < ARRAY_SIZE(deadly); death++) {
		action_before = SIG_DFL;
		EXPECT_SIGNAL(die_faulting, deadly[death]);
		EXPECT_SIGNAL(die_sent, deadly[death]);
		/* An ignored signal does not happen, an ignored fault kills all the same. */
		action_before = SIG_IGN;
		EXPECT_SIGNAL(die_faulting, deadly[death]);
		EXPECT_FINE(survive_sent);
	}
}

/*
 * What a core file or a debugger gets: the second time around our handler is gone, and the state is
 * that of the instruction that failed.
 */
static void die_traced(void)
{
	signal(SIGILL, SIG_DFL);
	runner_start(&death_runner);
	CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	__asm__ volatile("mov $0x1234567, %%eax; ud2" : : : "eax");
}

static bool catches(pid_t pid, int sig)
{
	char name[64], line[256];
	unsigned long long set = ~0ULL;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%d/status", pid);
	f = fopen(name, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "SigCgt: %llx", &set) == 1)
			break;
	fclose(f);
	return set >> (sig - 1) & 1;
}

static void test_death_traced(void **state)
{
	struct user_regs_struct regs[2];
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		die_traced();
		_exit(0);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSTOPPED(status));
		ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL);
		assert_int_equal(WSTOPSIG(status), SIGILL);
		assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs[i]), 0);
		assert_int_equal(catches(pid, SIGILL), i == 0);
		assert_int_equal(ptrace(PTRACE_CONT, pid, NULL, SIGILL), 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
	assert_memory_equal(&regs[0], &regs[1], sizeof(regs[0]));
	assert_int_equal(regs[1].rax, 0x1234567);
}

/* ---- timers while a guest computes --------------------------------------------------------- */

/*
 * mov ecx, N; ldmxcsr [DATA_AT]; movss xmm0, [DATA_AT + 4]; movss xmm1, [DATA_AT + 8]
 * fninit; fldcw [DATA_AT + 16]; fld dword [DATA_AT + 4]
 * again: addss xmm0, xmm1; fadd dword [DATA_AT + 8]; dec ecx; jnz again
 * movss [DATA_AT + 12], xmm0; fstp dword [DATA_AT + 20]; hlt
 */
#define ROUNDS 300000
static const u8 summing[] = {
	0xb9, ROUNDS & 0xff, ROUNDS >> 8 & 0xff, ROUNDS >> 16, 0,
	0x0f, 0xae, 0x15, 0x00, 0x06, 0, 0,
	0xf3, 0x0f, 0x10, 0x05, 0x04, 0x06, 0, 0,
	0xf3, 0x0f, 0x10, 0x0d, 0x08, 0x06, 0, 0,
	0xdb, 0xe3, 0xd9, 0x2d, 0x10, 0x06, 0, 0,
	0xd9, 0x05, 0x04, 0x06, 0, 0,
	0xf3, 0x0f, 0x58, 0xc1,
	0xd8, 0x05, 0x08, 0x06, 0, 0,
	0x49, 0x75, 0xf3,
	0xf3, 0x0f, 0x11, 0x05, 0x0c, 0x06, 0, 0,
	0xd9, 0x1d, 0x14, 0x06, 0, 0,
	0xf4,
};

struct sums {
	u32 mxcsr;
	float start, step, sum;
	u32 fcw;
	float x87_sum;
};

static const struct sums sums_start = { .mxcsr = 0x5f80, .start = 1.0f, .step = 1e-3f, .fcw = 0x0b3f };

/* The same on the host CPU, before there is any timer. */
static struct sums expected_sums(void)
{
	struct sums s = sums_start;
	u32 clean = 0x1f80;

	__asm__ volatile("ldmxcsr %[mxcsr]\n\tmovss %[start], %%xmm0\n\tmovss %[step], %%xmm1\n\t"
			 "fninit; fldcw %[fcw]; flds %[start]\n\t"
			 "mov %[n], %%ecx\n"
			 "1: addss %%xmm1, %%xmm0; fadds %[step]; dec %%ecx; jnz 1b\n\t"
			 "movss %%xmm0, %[sum]; fstps %[x87]; fninit; ldmxcsr %[clean]"
			 : [sum] "=m"(s.sum), [x87] "=m"(s.x87_sum)
			 : [mxcsr] "m"(s.mxcsr), [start] "m"(s.start), [step] "m"(s.step),
			   [fcw] "m"(s.fcw), [n] "i"(ROUNDS), [clean] "m"(clean)
			 : "ecx", "xmm0", "xmm1", "memory", "cc");
	return s;
}

static struct {
	volatile u32 calls[65];
	volatile u32 bad;
	volatile double work;
} timers;
static pthread_t vcpu_thread;

/* Uses vector and x87 registers, errno and the stack as any handler may. */
static void on_timer(int sig, siginfo_t *info, void *ctx)
{
	int saved = errno;
	char here;

	look_around(sig);
	if (seen.mxcsr != 0x1f80 || seen.fcw != 0x37f || (seen.rflags & 0x40400))
		timers.bad++;
	if ((u8 *)&here < alt_stack || (u8 *)&here >= alt_stack + sizeof(alt_stack))
		timers.bad++;
	if (!pthread_equal(pthread_self(), vcpu_thread))
		timers.bad++;
	timers.work = timers.work * 1.5 + (double)(long double)timers.work / 3;
	__asm__ volatile("pxor %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; fldz; fstp %%st(0)"
			 : : : "xmm0", "xmm1");
	syscall(SYS_close, -1);
	errno = ENOTTY;
	timers.calls[sig]++;
	errno = saved;
}

static timer_t timer_start(int sig, long ns)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = sig };
	struct itimerspec every = { .it_interval.tv_nsec = ns, .it_value.tv_nsec = ns };
	timer_t t;

	ev._sigev_un._tid = syscall(SYS_gettid);
	CHECK(timer_create(CLOCK_MONOTONIC, &ev, &t) == 0);
	CHECK(timer_settime(t, 0, &every, NULL) == 0);
	return t;
}

static void timers_over_guest(int flags)
{
	struct sums want = expected_sums(), got;
	struct machine m;
	timer_t a, b;

	use_alt_stack();
	vcpu_thread = pthread_self();
	guest_new(&m, summing, sizeof(summing));
	set_action(SIGALRM, on_timer, SA_ONSTACK | flags, false);
	set_action(SIGPROF, on_timer, SA_ONSTACK | flags, false);
	a = timer_start(SIGALRM, 1000000);
	b = timer_start(SIGPROF, 1000000);
	while (timers.calls[SIGALRM] < 300 || timers.calls[SIGPROF] < 300) {
		long ret;

		memcpy(m.ram + DATA_AT, &sums_start, sizeof(sums_start));
		protected_mode(&m);
		do {
			ret = call_num(m.vcpu, KVM_RUN, 0);
		} while (ret == -EINTR);
		CHECK(ret == 0 && m.run->exit_reason == KVM_EXIT_HLT);
		memcpy(&got, m.ram + DATA_AT, sizeof(got));
		CHECK(!memcmp(&got, &want, sizeof(got)));
	}
	timer_delete(a);
	timer_delete(b);
	CHECK(timers.bad == 0);
	machine_free(&m);
}

static void timers_restart(void) { timers_over_guest(SA_RESTART); }
static void timers_plain(void) { timers_over_guest(0); }

static void test_timers(void **state)
{
	EXPECT_FINE(timers_plain);
	EXPECT_FINE(timers_restart);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_control_words),
		cmocka_unit_test(test_recovering_handler),
		cmocka_unit_test(test_reset_hand),
		cmocka_unit_test(test_repairing_handler),
		cmocka_unit_test(test_later_handlers),
		cmocka_unit_test(test_all_blocked),
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_death_traced),
		cmocka_unit_test(test_timers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
