/*
 * Does each check find what it is there for? A child does the damage that an escape would do; it
 * must end with status 1, and a child that does none with 0.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

static long nothing(int fd, unsigned long request, unsigned long arg)
{
	return 0;
}

static long leave_df(int fd, unsigned long request, unsigned long arg)
{
	__asm__ volatile("std" ::: "cc");
	return 0;
}

static long leave_ac(int fd, unsigned long request, unsigned long arg)
{
	/* The red zone is this function's, so it is stepped over. */
	__asm__ volatile("lea -128(%%rsp), %%rsp; pushf; orl $0x40000, (%%rsp); popf;"
			 "lea 128(%%rsp), %%rsp" ::: "memory", "cc");
	return 0;
}

static long leave_mxcsr(int fd, unsigned long request, unsigned long arg)
{
	u32 v = 0;

	__asm__ volatile("ldmxcsr %0" :: "m"(v));
	return 0;
}

static long leave_fcw(int fd, unsigned long request, unsigned long arg)
{
	u16 v = 0x77f;

	__asm__ volatile("fldcw %0" :: "m"(v));
	return 0;
}

static long leave_x87(int fd, unsigned long request, unsigned long arg)
{
	__asm__ volatile("fld1");
	return 0;
}

static long leave_gs(int fd, unsigned long request, unsigned long arg)
{
	syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, RAM_HOST);
	return 0;
}

static long leave_rbx(int fd, unsigned long request, unsigned long arg)
{
	/* Unknown to the compiler. */
	__asm__ volatile("inc %rbx");
	return 0;
}

static long leave_signals(int fd, unsigned long request, unsigned long arg)
{
	u64 all = 1 << 11;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 8);
	return 0;
}

static long write_near(int fd, unsigned long request, unsigned long arg)
{
	*(volatile u8 *)(RAM_HOST - 1) ^= 1;
	return 0;
}

static long write_low(int fd, unsigned long request, unsigned long arg)
{
	*(volatile u8 *)0x200123 ^= 1;
	return 0;
}

static long map_rwx(int fd, unsigned long request, unsigned long arg)
{
	mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return 0;
}

static u8 guest_memory[4096];

static long read_near(int fd, unsigned long request, unsigned long arg)
{
	memcpy(guest_memory + 77, (const void *)(RAM_HOST + RAM_MAX + 1000), 16);
	return 0;
}

static const struct damage {
	const char *name;
	enter_fn *fn;
	int status;
} damages[] = {
	{ "none", nothing, 0 }, { "DF", leave_df, 1 }, { "AC", leave_ac, 1 },
	{ "MXCSR", leave_mxcsr, 1 }, { "x87 control word", leave_fcw, 1 },
	{ "x87 stack", leave_x87, 1 }, { "GS base", leave_gs, 1 }, { "RBX", leave_rbx, 1 },
	{ "signal mask", leave_signals, 1 }, { "a write beside RAM", write_near, 1 },
	{ "a write to a low address", write_low, 1 }, { "RWX memory", map_rwx, 1 },
	{ "a read beside RAM", read_near, 1 },
};

static int child(const struct damage *d)
{
	/* What fail() says is no news. */
	if (d->status && !freopen("/dev/null", "w", stderr))
		return 2;
	enter_checked(-1, d->fn);
	canary_check();
	canary_search(guest_memory, sizeof(guest_memory));
	maps_check();
	return 0;
}

int selftest_run(void)
{
	int failed = 0, status;
	size_t k;

	for (k = 0; k < ARRAY_SIZE(damages); k++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(child(&damages[k]));
		waitpid(pid, &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == damages[k].status)
			continue;
		printf("FAIL %s: status %x\n", damages[k].name, status);
		failed = 1;
	}
	return failed;
}
