/*
 * The four signals that host faults become, shared with the program that embeds us.
 *
 * Ours comes first: faults in code areas are served (native.c), and those of guest memory that user
 * space took away (user.c). Every other goes to the action that
 * was there, under that action's own terms: its mask, SA_NODEFER, SA_RESETHAND, SA_SIGINFO; ours
 * is installed with its SA_ONSTACK and SA_RESTART. SIG_DFL ends the process by the same signal at
 * the same instruction, with our handler out of the way. sigaction(2), signal(7).
 *
 * A program may set actions after us, and keep what it finds as "the old one" to call or to put
 * back. So os_code_guard() looks, and installs ours anew over what it finds: each time under another
 * entry point, since the entry that is called tells which action lies below it. A program that
 * calls our old entry from its handler gets what lay below at that time, never itself again; one
 * that puts our old entry back has undone its own change, and so have we.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#include "hypervisor/os/native.h"
#include "hypervisor/os/os.h"

static const int fault_signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
#define NR_SIGNALS	ARRAY_SIZE(fault_signals)
#define NR_ENTRIES	32

/* By signal and entry point: immutable once entered, and never freed, since a handler may look. */
static const struct sigaction *below[NR_SIGNALS][NR_ENTRIES];
static pthread_mutex_t chain_lock = PTHREAD_MUTEX_INITIALIZER;
static bool installed;			/* atomic; set once */
static bool full[NR_SIGNALS];		/* no entry point is left: told once */
static bool dying;			/* atomic; a default action is on its way */

static const struct sigaction default_action;	/* SIG_DFL */

static unsigned int signal_index(int sig)
{
	unsigned int i = 0;

	while (i < NR_SIGNALS - 1 && fault_signals[i] != sig)
		i++;
	return i;
}

/* ---- passing on ---------------------------------------------------------------------------- */

/* Not by the instruction that was interrupted: ignored or blocked, it just does not happen. */
static bool was_sent(int sig, const siginfo_t *info)
{
	return info->si_code <= 0 || (sig == SIGBUS && info->si_code == BUS_MCEERR_AO);
}

/* The instruction faults again without us; what was sent has to be sent again, and waits until we
 * return. */
static void take_default(int sig, siginfo_t *info)
{
	store_release(&dying, true);
	sigaction(sig, &default_action, NULL);
	if (was_sent(sig, info))
		syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), sig, info);
}

/* The kernel's sets are 64 bits; the rest of a sigset_t in a signal frame is something else. */
static u64 set_bits(const sigset_t *set)
{
	return *(const u64 *)set;
}

static void call_handler(const struct sigaction *a, int sig, siginfo_t *info, ucontext_t *ctx)
{
	u64 self = a->sa_flags & SA_NODEFER ? 0 : BIT(sig - 1), before;
	u64 mask = set_bits(&ctx->uc_sigmask) | set_bits(&a->sa_mask) | self;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, sizeof(mask));
	if (a->sa_flags & SA_SIGINFO)
		a->sa_sigaction(sig, info, ctx);
	else
		a->sa_handler(sig);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
}

static void pass_on(const struct sigaction **place, int sig, siginfo_t *info, ucontext_t *ctx)
{
	const struct sigaction *a = load_acquire(place);

	if (a->sa_handler == SIG_IGN && was_sent(sig, info))
		return;
	if (a->sa_handler == SIG_IGN || a->sa_handler == SIG_DFL) {
		take_default(sig, info);
		return;
	}
	if (a->sa_flags & SA_RESETHAND)
		store_release(place, &default_action);
	call_handler(a, sig, info, ctx);
}

/* errno is the interrupted code's. */
static void on_fault(unsigned int entry, int sig, siginfo_t *info, void *ctx)
{
	int saved;

	if (info->si_code > 0 &&
	    (native_area_fault(ctx) || native_fault_caught((u64)info->si_addr, ctx)))
		return;
	saved = errno;
	pass_on(&below[signal_index(sig)][entry], sig, info, ctx);
	errno = saved;
}

/* ---- entry points -------------------------------------------------------------------------- */

#define EACH_ENTRY(X) \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) \
	X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) \
	X(31)

#define DEFINE_ENTRY(n) \
	static void entry_##n(int sig, siginfo_t *info, void *ctx) { on_fault(n, sig, info, ctx); }
EACH_ENTRY(DEFINE_ENTRY)

#define LIST_ENTRY(n) entry_##n,
static void (*const entries[])(int, siginfo_t *, void *) = { EACH_ENTRY(LIST_ENTRY) };
_Static_assert(ARRAY_SIZE(entries) == NR_ENTRIES, "one for each");

static bool is_ours(const struct sigaction *a)
{
	for (unsigned int n = 0; n < NR_ENTRIES; n++)
		if (a->sa_sigaction == entries[n])
			return true;
	return false;
}

/* ---- installing ---------------------------------------------------------------------------- */

static bool same_action(const struct sigaction *a, const struct sigaction *b)
{
	return a->sa_handler == b->sa_handler && a->sa_flags == b->sa_flags &&
	       set_bits(&a->sa_mask) == set_bits(&b->sa_mask);
}

/* An entry point with a below it; -ENOSPC when all have others. With the lock. */
static int entry_for(unsigned int i, const struct sigaction *a)
{
	struct sigaction *copy;
	unsigned int n = 0;

	for (; n < NR_ENTRIES && below[i][n]; n++)
		if (same_action(below[i][n], a))
			return n;
	if (n == NR_ENTRIES)
		return -ENOSPC;
	copy = os_alloc(sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	*copy = *a;
	store_release(&below[i][n], copy);
	return n;
}

/* Ours over a, which is installed. With the lock. */
static int cover(unsigned int i, const struct sigaction *a)
{
	bool handler = a->sa_handler != SIG_DFL && a->sa_handler != SIG_IGN;
	int flags = handler ? a->sa_flags & (SA_ONSTACK | SA_RESTART) : SA_ONSTACK | SA_RESTART;
	struct sigaction ours = { .sa_flags = SA_SIGINFO | flags };
	int n = entry_for(i, a);

	if (n < 0)
		return n;
	ours.sa_sigaction = entries[n];
	sigemptyset(&ours.sa_mask);
	if (sigaction(fault_signals[i], &ours, NULL))
		return -errno;
	/* Not over what take_default() has just set on another thread. */
	if (load_acquire(&dying))
		sigaction(fault_signals[i], &default_action, NULL);
	return 0;
}

/* With the lock. */
static int cover_all(void)
{
	struct sigaction now;
	int ret = 0;

	for (unsigned int i = 0; i < NR_SIGNALS; i++) {
		int err;

		if (full[i] || sigaction(fault_signals[i], NULL, &now) || is_ours(&now))
			continue;
		err = cover(i, &now);
		if (err == -ENOSPC) {
			full[i] = true;
			os_log(OS_LOG_WARN, "signal %d: the program sets its action too often to "
				"keep ours in front", fault_signals[i]);
		} else if (err) {
			ret = err;
		}
	}
	return ret;
}

int chain_install(void)
{
	int ret;

	if (load_acquire(&installed))
		return 0;
	pthread_mutex_lock(&chain_lock);
	ret = cover_all();
	if (!ret)
		store_release(&installed, true);
	pthread_mutex_unlock(&chain_lock);
	return ret;
}

/* A fault whose signal is blocked ends the process, whatever its action. */
static void unblock(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned int i = 0; i < NR_SIGNALS; i++)
		sigaddset(&set, fault_signals[i]);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Five system calls, about 0.5 us. */
static __cold_ void guard_look(void)
{
	unblock();
	pthread_mutex_lock(&chain_lock);
	cover_all();
	pthread_mutex_unlock(&chain_lock);
}

static __thread u64 last_look __attribute__((tls_model("initial-exec")));

void chain_mask_changed(void)
{
	last_look = 0;
}

void chain_guard(u64 *last)
{
	u64 now = __rdtsc();

	if (likely(now - *last < (u64)os_tsc_khz() * OS_GUARD_MS))
		return;
	if (!load_acquire(&installed) || load_acquire(&dying))
		return;
	*last = now;
	guard_look();
}

void os_code_guard(void)
{
	chain_guard(&last_look);
}

/* ---- a binding that sees the program's sigaction(2) ---------------------------------------- */

bool chain_has(int sig)
{
	return fault_signals[signal_index(sig)] == sig && load_acquire(&installed);
}

/* a lies below some entry from now on. No entry point is left: the last one gets another action, as
 * nobody outside knows our entries. With the lock. */
static int put_below(unsigned int i, const struct sigaction *a)
{
	struct sigaction *copy;
	int ret = cover(i, a);

	if (ret != -ENOSPC)
		return ret;
	copy = os_alloc(sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	*copy = *a;
	store_release(&below[i][NR_ENTRIES - 1], copy);
	return cover(i, a);
}

static int action_locked(int sig, const struct sigaction *act, struct sigaction *old)
{
	unsigned int i = signal_index(sig);
	struct sigaction now;

	if (sigaction(sig, NULL, &now))
		return -errno;
	for (unsigned int n = 0; n < NR_ENTRIES; n++)
		if (now.sa_sigaction == entries[n])
			now = *load_acquire(&below[i][n]);
	if (old)
		*old = now;
	return act ? put_below(i, act) : 0;
}

int chain_action(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction copy = { 0 };
	u64 mask;
	int ret;

	if (!chain_has(sig))
		return -ENOENT;
	/* Both may be the same memory. */
	if (act)
		copy = *act;
	mask = os_signals_block(~0ULL);
	pthread_mutex_lock(&chain_lock);
	ret = action_locked(sig, act ? &copy : NULL, old);
	pthread_mutex_unlock(&chain_lock);
	os_signals_block(mask);
	return ret;
}

void chain_fork_child(void)
{
	chain_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}
