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

#include "hypervisor/os/os.h"
#include "lib/types.h"

/* Two for each vCPU of 64 big VMs; a fixed table so that the handler can read it without a lock. */
#define MAX_AREAS 8192

static struct {
	pthread_mutex_t lock;
	unsigned int top;		/* entries at and above were never used; atomic */
	struct area {
		u64 start, end;			/* end 0: free; each field atomic */
		struct os_code_fault fault;	/* rip NULL: end the call */
	} area[MAX_AREAS];
	bool installed;
} areas = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const int fault_signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
static struct sigaction previous[ARRAY_SIZE(fault_signals)];

#define INTEGER_ONLY __attribute__((target("general-regs-only")))

/* An area stays while a thread runs in it: only foreign addresses can meet a change. */
INTEGER_ONLY static const struct area *area_find(u64 rip)
{
	unsigned int top = load_acquire(&areas.top);

	for (unsigned int i = 0; i < top; i++) {
		const struct area *a = &areas.area[i];
		u64 end = load_acquire(&a->end);

		if (rip < end && rip >= load_acquire(&a->start) && READ_ONCE(a->end) == end)
			return a;
	}
	return NULL;
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
	const struct area *a = info->si_code > 0 ? area_find((u64)r[REG_RIP]) : NULL;

	if (!a) {
		pass_on(sig, info, ctx);
		return;
	}
	if (a->fault.rip) {
		*a->fault.rip = (u64)r[REG_RIP];
		*a->fault.vector = (u64)r[REG_TRAPNO];
		r[REG_RIP] = (greg_t)a->fault.resume;
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

static bool area_take(struct area *a, const void *rx, size_t size, const struct os_code_fault *fault)
{
	if (a->end)
		return false;
	a->fault = fault ? *fault : (struct os_code_fault){ 0 };
	store_release(&a->start, (u64)rx);
	store_release(&a->end, (u64)rx + size);
	return true;
}

int native_area_add(const void *rx, size_t size, const struct os_code_fault *fault)
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
		if (!area_take(&areas.area[i], rx, size, fault))
			continue;
		if (i >= areas.top)
			store_release(&areas.top, i + 1);
		ret = 0;
		break;
	}
out:
	pthread_mutex_unlock(&areas.lock);
	return ret;
}

/* Under the lock. */
static struct area *area_of(const void *rx)
{
	for (unsigned int i = 0; i < areas.top; i++)
		if (areas.area[i].end && areas.area[i].start == (u64)rx)
			return &areas.area[i];
	return NULL;
}

void native_area_resume(const void *rx, u64 resume)
{
	struct area *a;

	pthread_mutex_lock(&areas.lock);
	a = area_of(rx);
	if (a)
		a->fault.resume = resume;
	pthread_mutex_unlock(&areas.lock);
}

void native_area_remove(const void *rx)
{
	struct area *a;

	pthread_mutex_lock(&areas.lock);
	a = area_of(rx);
	if (a)
		store_release(&a->end, 0);
	pthread_mutex_unlock(&areas.lock);
}
