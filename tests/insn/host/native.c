/*
 * The host side: a signal handler is entered, puts the wanted state into its frame and returns into
 * the sequence; the fault that ends it is caught by another one, which takes the state out of its
 * frame and puts the first frame back. So no register needs care.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/insn/host/host.h"

#define FRAME_XSTATE_MAX 8192

static struct state *wanted;
static ucontext_t caller;
static u8 caller_xstate[FRAME_XSTATE_MAX] __attribute__((aligned(64)));
static size_t xstate_size;
static volatile bool running;
static volatile unsigned int ticks;	/* of a timer while the present sequence runs */

/* By R_RAX ... : the kernel's order differs. */
static const int greg_of[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

/* Software's bytes in a signal frame's FXSAVE area: _fpx_sw_bytes of <asm/sigcontext.h>. */
struct sw_bytes {
	u32 magic1, extended_size;
	u64 xfeatures;
	u32 xstate_size, padding[7];
};
_Static_assert(sizeof(struct sw_bytes) == 48, "bytes 464 to 511");

static void frame_set(ucontext_t *uc, const struct state *s)
{
	struct xsave_image *x = (void *)uc->uc_mcontext.fpregs;
	greg_t *g = uc->uc_mcontext.gregs;
	struct sw_bytes sw;

	for (int k = 0; k < 16; k++)
		g[greg_of[k]] = (greg_t)s->r[k];
	g[REG_RIP] = (greg_t)s->rip;
	g[REG_EFL] = (greg_t)(s->rflags | 0x202);
	g[REG_CSGSFS] = (greg_t)(s->cs | (u64)SEL_DATA << 48);
	memcpy(&sw, x->fx.unused + 48, sizeof(sw));
	x->fx = s->x.fx;
	memcpy(x->fx.unused + 48, &sw, sizeof(sw));
	xstate_put(x, s);
}

static void frame_get(const ucontext_t *uc, struct state *s)
{
	const struct xsave_image *x = (const void *)uc->uc_mcontext.fpregs;
	const greg_t *g = uc->uc_mcontext.gregs;

	for (int k = 0; k < 16; k++)
		s->r[k] = (u64)g[greg_of[k]];
	s->rip = (u64)g[REG_RIP];
	s->rflags = (u64)g[REG_EFL];
	s->cs = (u16)g[REG_CSGSFS];
	s->vector = (u32)g[REG_TRAPNO];
	s->error = (u32)g[REG_ERR];
	s->cr2 = (u64)g[REG_CR2];
	xstate_get(x, s);
}

static void on_enter(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	struct sw_bytes sw;

	(void)sig;
	(void)info;
	memcpy(&sw, ((struct xsave_image *)uc->uc_mcontext.fpregs)->fx.unused + 48, sizeof(sw));
	xstate_size = sw.magic1 == FP_XSTATE_MAGIC1 ? sw.extended_size : 512;
	if (xstate_size > sizeof(caller_xstate))
		abort();
	caller = *uc;
	memcpy(caller_xstate, uc->uc_mcontext.fpregs, xstate_size);
	running = true;
	ticks = 0;
	frame_set(uc, wanted);
}

static void on_end(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	void *fpregs;

	/* The sequence may have set AC, and the kernel leaves it to handlers. */
	__asm__ volatile("pushfq; andl %0, (%%rsp); popfq"
			 :
			 : "i"(~(int)RFLAGS_AC)
			 : "memory", "cc");
	fpregs = uc->uc_mcontext.fpregs;

	(void)info;
	if (!running) {
		signal(sig, SIG_DFL);
		return;
	}
	running = false;
	frame_get(uc, wanted);
	memcpy(uc->uc_mcontext.gregs, caller.uc_mcontext.gregs, sizeof(uc->uc_mcontext.gregs));
	memcpy(fpregs, caller_xstate, xstate_size);
}

void native_tick(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;

	if (!running || ++ticks < 2)
		return;
	uc->uc_mcontext.gregs[REG_TRAPNO] = VECTOR_LATE;
	on_end(sig, info, ctx);
}

int native_setup(void)
{
	static const int ends[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t ss = { .ss_size = 65536 };
	void *p = mmap((void *)AREA_BASE, AREA_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (void *)AREA_BASE)
		return -ENOMEM;
	ss.ss_sp = malloc(ss.ss_size);
	if (!ss.ss_sp || sigaltstack(&ss, NULL))
		return -ENOMEM;
	sa.sa_sigaction = on_enter;
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_sigaction = on_end;
	for (size_t k = 0; k < ARRAY_SIZE(ends); k++)
		sigaction(ends[k], &sa, NULL);
	return 0;
}

void native_go(struct state *s)
{
	wanted = s;
	raise(SIGUSR1);
}
