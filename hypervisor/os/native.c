/*
 * Host faults in machine code made at run time (os_code_alloc). Guest vector and x87 instructions
 * run there unchanged, so #GP for misalignment, #MF and #XM come from the real CPU, as signals. The
 * handler (chain.c) makes the thread go on where the area's os_code_fault says, or the call
 * return: RIP := [RSP], RSP += 8, RAX := 1 + vector.
 *
 * What handlers see of the guest: its vector and x87 state is in the signal frame, which the kernel
 * restores on return, so exception flags in MXCSR and the x87 status word survive. The handler
 * itself starts with the initial state, MXCSR 1F80h and FCW 37Fh, whatever the guest had loaded
 * (Linux since 3.7, arch/x86/kernel/signal.c; tests/api/signals.c measures it), and DF and TF are
 * clear. But RFLAGS.AC and the base of GS are as they were interrupted: so translated code never
 * runs with AC set, and a program's handler finds an engine's GS base.
 */
#include "hypervisor/os/native.h"

#include <errno.h>
#include <pthread.h>
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
} areas = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* An area stays while a thread runs in it: only foreign addresses can meet a change. */
static const struct area *area_find(u64 rip)
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

bool native_area_fault(void *ctx)
{
	greg_t *r = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	const struct area *a = area_find((u64)r[REG_RIP]);

	if (!a)
		return false;
	if (a->fault.rip) {
		*a->fault.rip = (u64)r[REG_RIP];
		*a->fault.vector = (u64)r[REG_TRAPNO];
		r[REG_RIP] = (greg_t)a->fault.resume;
		return true;
	}
	r[REG_RAX] = 1 + r[REG_TRAPNO];
	r[REG_RIP] = *(greg_t *)r[REG_RSP];
	r[REG_RSP] += 8;
	return true;
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
	int ret = chain_install();

	if (ret)
		return ret;
	/* These read the environment, which is no longer possible with a guest's vectors live. */
	perfmap_init();
	dump_init();
	os_gs_fast();
	ret = -ENOMEM;
	pthread_mutex_lock(&areas.lock);
	for (unsigned int i = 0; i < MAX_AREAS; i++) {
		if (!area_take(&areas.area[i], rx, size, fault))
			continue;
		if (i >= areas.top)
			store_release(&areas.top, i + 1);
		ret = 0;
		break;
	}
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

/* ---- fork ------------------------------------------------------------------------------------ */

void native_fork_child(void)
{
	areas.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

void os_fork_begin(void)
{
	fd_fork_begin();
}

void os_fork_end(bool child)
{
	fd_fork_end(child);
	if (!child)
		return;
	native_fork_child();
	chain_fork_child();
	timer_fork_child();
	os_run_set(NULL);
}
