/*
 * Host faults in machine code made at run time (os_code_alloc). Guest vector and x87 instructions
 * run there unchanged, so #GP for misalignment, #MF and #XM come from the real CPU, as signals. The
 * handler makes the call return: RIP := [RSP], RSP += 8, RAX := 1 + vector. All other faults
 * go to whatever handler was there before.
 *
 * The handlers run with the guest's vector state saved in the signal frame, which the kernel
 * restores on return: exception flags in MXCSR and the x87 status word survive.
 */
#include "hypervisor/os/native.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include "lib/types.h"

/* Two for each vCPU of 64 big VMs; a fixed table so that the handler can read it without a lock. */
#define MAX_AREAS 8192

static struct {
	pthread_mutex_t lock;
	unsigned int top;		/* entries at and above were never used; atomic */
	struct { u64 start, end; } area[MAX_AREAS];	/* end 0: free; each field atomic */
	bool installed;
} areas = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const int fault_signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
static struct sigaction previous[ARRAY_SIZE(fault_signals)];

#define INTEGER_ONLY __attribute__((target("general-regs-only")))

INTEGER_ONLY static bool in_area(u64 rip)
{
	unsigned int top = load_acquire(&areas.top);

	for (unsigned int i = 0; i < top; i++)
		if (rip < load_acquire(&areas.area[i].end) && rip >= READ_ONCE(areas.area[i].start))
			return true;
	return false;
}

/* As if we had not been there. A default action is taken by returning to the instruction without
 * us. */
static void pass_on(int sig, siginfo_t *info, void *ctx)
{
	const struct sigaction *old = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(fault_signals); i++)
		if (fault_signals[i] == sig)
			old = &previous[i];
	if (old->sa_flags & SA_SIGINFO) {
		old->sa_sigaction(sig, info, ctx);
	} else if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN) {
		signal(sig, SIG_DFL);
		if (info->si_code <= 0)		/* sent by someone: it would not come again */
			raise(sig);
	} else {
		old->sa_handler(sig);
	}
}

INTEGER_ONLY static void on_fault(int sig, siginfo_t *info, void *ctx)
{
	greg_t *r = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	if (info->si_code <= 0 || !in_area((u64)r[REG_RIP])) {
		pass_on(sig, info, ctx);
		return;
	}
	r[REG_RAX] = 1 + r[REG_TRAPNO];
	r[REG_RIP] = *(greg_t *)r[REG_RSP];
	r[REG_RSP] += 8;
}

static int install(void)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(fault_signals); i++)
		if (sigaction(fault_signals[i], &sa, &previous[i]))
			return -errno;
	return 0;
}

int native_area_add(const void *rx, size_t size)
{
	int ret = -ENOMEM;

	pthread_mutex_lock(&areas.lock);
	if (!areas.installed) {
		ret = install();
		if (ret)
			goto out;
		areas.installed = true;
		ret = -ENOMEM;
	}
	for (unsigned int i = 0; i < MAX_AREAS; i++) {
		if (areas.area[i].end)
			continue;
		WRITE_ONCE(areas.area[i].start, (u64)rx);
		store_release(&areas.area[i].end, (u64)rx + size);
		if (i >= areas.top)
			store_release(&areas.top, i + 1);
		ret = 0;
		break;
	}
out:
	pthread_mutex_unlock(&areas.lock);
	return ret;
}

void native_area_remove(const void *rx)
{
	pthread_mutex_lock(&areas.lock);
	for (unsigned int i = 0; i < areas.top; i++)
		if (areas.area[i].end && areas.area[i].start == (u64)rx)
			store_release(&areas.area[i].end, 0);
	pthread_mutex_unlock(&areas.lock);
}
