/*
 * The program's signal handlers, while it is in a call of ours.
 *
 * A kernel's KVM_RUN ends with EINTR when a signal is pending, and the handler runs when it is over.
 * We are a library: a handler would run on top of the guest, in the midst of the engine, with our
 * locks held, and KVM_RUN would not know. So each handler of the program is entered through ours.
 * In a call of ours that one queues the signal again, to stay pending (blocked by the mask that
 * it returns to) until the call is over, and interrupts KVM_RUN. Outside of calls it goes on to the
 * program's. sigaction(2), signal(7), api.rst 4.10
 *
 * What the kernel has as action is the truth about SIG_DFL and SIG_IGN; the table only adds to our
 * handler which one of the program's it stands for. The four signals of faults have their own
 * chain (os/chain.c), with the engine's needs; they do not interrupt.
 */
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "hypervisor/os/native.h"
#include "hypervisor/os/os.h"
#include "hypervisor/preload/preload.h"

#define NR_SIGNALS 65

typedef void action_fn(int sig, siginfo_t *info, void *ctx);

/* What the kernel's part of an action cannot tell while our handler stands there. */
static struct {
	action_fn *fn;		/* atomic; stays when the action becomes another */
	int flags;		/* the program's own, atomic */
} actions[NR_SIGNALS];
static struct os_mutex lock;	/* of changes, with all signals blocked */

/* Signals that wait for the end of this thread's call. */
static __thread u64 deferred __attribute__((tls_model("initial-exec")));

static void on_signal(int sig, siginfo_t *info, void *ctx);

static bool is_ours(const struct sigaction *a)
{
	return a->sa_sigaction == on_signal;
}

static bool is_handler(const struct sigaction *a)
{
	return a->sa_handler != SIG_DFL && a->sa_handler != SIG_IGN;
}

static bool is_fault(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL;
}

static u64 *mask_bits(sigset_t *set)
{
	return (u64 *)set;
}

/* ---- delivery -------------------------------------------------------------------------------- */

/*
 * Outside of calls. What our action has without these two flags is done here: with them the signal
 * could not be queued again.
 */
static void deliver(int sig, siginfo_t *info, ucontext_t *ctx)
{
	int flags = READ_ONCE(actions[sig].flags);
	u64 self = BIT(sig - 1);

	if (flags & SA_RESETHAND) {
		struct sigaction none = { .sa_handler = SIG_DFL };

		NEXT(sigaction)(sig, &none, NULL);
	}
	if (flags & SA_NODEFER && !(*mask_bits(&ctx->uc_sigmask) & self))
		syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &self, NULL, sizeof(self));
	load_acquire(&actions[sig].fn)(sig, info, ctx);
}

static bool defer(int sig, siginfo_t *info, ucontext_t *ctx)
{
	enum call_kind call = call_now();

	if (call == CALL_NONE)
		return false;
	if (call == CALL_RUN)
		qkvm_interrupt(true);
	if (syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), sig, info))
		return false;
	*mask_bits(&ctx->uc_sigmask) |= BIT(sig - 1);
	*(volatile u64 *)&deferred |= BIT(sig - 1);
	return true;
}

static void on_signal(int sig, siginfo_t *info, void *ctx)
{
	int saved = errno;
	bool later = defer(sig, info, ctx);

	errno = saved;
	if (!later)
		deliver(sig, info, ctx);
}

void signals_release(void)
{
	u64 set = *(volatile u64 *)&deferred;

	if (likely(!set))
		return;
	*(volatile u64 *)&deferred = 0;
	syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, sizeof(set));
}

/* ---- actions --------------------------------------------------------------------------------- */

/* The program's view of what the kernel has. */
static void translate(int sig, struct sigaction *a)
{
	if (!is_ours(a))
		return;
	a->sa_sigaction = actions[sig].fn;
	a->sa_flags = actions[sig].flags;
}

/* Ours, in the kernel, for the program's a. */
static struct sigaction stand_in(const struct sigaction *a)
{
	struct sigaction ours = *a;

	ours.sa_sigaction = on_signal;
	ours.sa_flags = (a->sa_flags | SA_SIGINFO) & ~(int)(SA_RESETHAND | SA_NODEFER);
	return ours;
}

/* With the lock. */
static int action_set(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction now, ours;
	int ret = NEXT(sigaction)(sig, NULL, &now);

	if (ret)
		return ret;
	translate(sig, &now);
	if (is_handler(act)) {
		ours = stand_in(act);
		store_release(&actions[sig].fn, act->sa_sigaction);
		WRITE_ONCE(actions[sig].flags, act->sa_flags);
		act = &ours;
	}
	ret = NEXT(sigaction)(sig, act, NULL);
	if (!ret && old)
		*old = now;
	return ret;
}

/* Actions that we let pass, and look at only. */
static int action_pass(int sig, const struct sigaction *act, struct sigaction *old)
{
	int ret = NEXT(sigaction)(sig, act, old);

	if (!ret && old)
		translate(sig, old);
	return ret;
}

static int action_locked(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction copy = *act;	/* may be the same memory as old */
	u64 mask = os_signals_block(~0ULL);
	int ret;

	os_mutex_lock(&lock);
	ret = action_set(sig, &copy, old);
	os_mutex_unlock(&lock);
	os_signals_block(mask);
	return ret;
}

static int action(int sig, const struct sigaction *act, struct sigaction *old)
{
	if (sig <= 0 || sig >= NR_SIGNALS || !process_attached())
		return NEXT(sigaction)(sig, act, old);
	if (!act || !process_owns())
		return chain_has(sig) && !act ? (int)answer(chain_action(sig, NULL, old))
					      : action_pass(sig, act, old);
	if (chain_has(sig))
		return (int)answer(chain_action(sig, act, old));
	return is_fault(sig) ? action_pass(sig, act, old) : action_locked(sig, act, old);
}

EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	return action(sig, act, old);
}

/* signal(3) and its relatives differ in flags. */
static sighandler_t action_simple(int sig, sighandler_t handler, int flags)
{
	struct sigaction act = { .sa_handler = handler, .sa_flags = flags }, old;

	if (handler == SIG_ERR) {
		errno = EINVAL;
		return SIG_ERR;
	}
	sigemptyset(&act.sa_mask);
	if (!(flags & SA_NODEFER))
		sigaddset(&act.sa_mask, sig);
	return action(sig, &act, &old) ? SIG_ERR : old.sa_handler;
}

#define SIGNAL_BSD(name) \
	EXPORT sighandler_t name(int sig, sighandler_t handler) \
	{ \
		return process_attached() ? action_simple(sig, handler, SA_RESTART) \
					  : NEXT(name)(sig, handler); \
	}
#define SIGNAL_SYSV(name) \
	EXPORT sighandler_t name(int sig, sighandler_t handler) \
	{ \
		return process_attached() \
			? action_simple(sig, handler, (int)(SA_RESETHAND | SA_NODEFER)) \
			: NEXT(name)(sig, handler); \
	}
SIGNAL_BSD(signal)
SIGNAL_BSD(bsd_signal)
SIGNAL_BSD(ssignal)
SIGNAL_SYSV(sysv_signal)
SIGNAL_SYSV(__sysv_signal)

/* A thread that blocks faults would die of the next one in the engine. */
EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	int ret = NEXT(sigprocmask)(how, set, old);

	chain_mask_changed();
	return ret;
}

EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	int ret = NEXT(pthread_sigmask)(how, set, old);

	chain_mask_changed();
	return ret;
}

/* ---- the process ----------------------------------------------------------------------------- */

/* Handlers from before the first open of /dev/kvm, by whatever way they came. */
void signals_attach(void)
{
	struct sigaction now;

	os_mutex_init(&lock);
	for (int sig = 1; sig < NR_SIGNALS; sig++)
		if (!is_fault(sig) && !NEXT(sigaction)(sig, NULL, &now) && is_handler(&now))
			action_locked(sig, &now, NULL);
}

/* No handler in between: it may call what waits for the locks that are held. */
static u64 mask_before_fork;	/* under the lock */

void signals_fork_begin(void)
{
	u64 mask = os_signals_block(~0ULL);

	os_mutex_lock(&lock);
	mask_before_fork = mask;
}

void signals_fork_end(bool child)
{
	u64 mask = mask_before_fork;

	os_mutex_unlock(&lock);
	if (child)
		chain_mask_changed();
	os_signals_block(mask);
}
