/*
 * Inside libsoftkvm.so: the C library's functions beneath ours, and what its parts tell each other.
 *
 * The library stands between a program and the C library (LD_PRELOAD) and gives the program our
 * hypervisor when it opens /dev/kvm. Each function that it interposes looks first whether the call
 * concerns one of our descriptors (a bit test); all others go to the next definition in the order
 * of libraries, unchanged. Nothing happens before the program first opens /dev/kvm: until then no
 * signal action is touched and no memory allocated.
 *
 * Our own code, hypervisor/ included, is linked so that its calls of these functions go to the next
 * definition too (the linker's --wrap, next.c), never to our own.
 */
#ifndef QUMRA_HYPERVISOR_PRELOAD_PRELOAD_H
#define QUMRA_HYPERVISOR_PRELOAD_PRELOAD_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "hypervisor/api/qkvm.h"
#include "lib/types.h"

/* The C library has these for old programs, without a declaration. */
sighandler_t bsd_signal(int sig, sighandler_t handler);

#define EXPORT __attribute__((visibility("default")))

/* ---- next.c ------------------------------------------------------------------------------- */

/* The next definition of a function that we interpose. */
#define NEXT(name) ((__typeof__(&name))next_function(NEXT_##name))
#define NEXT_FUNCTIONS(X) \
	X(open) X(open64) X(openat) X(openat64) X(__open_2) X(__open64_2) X(__openat_2) \
	X(__openat64_2) X(close) X(close_range) X(closefrom) X(dup) X(dup2) X(dup3) X(fcntl) \
	X(fcntl64) X(mmap) X(mmap64) X(read) X(write) X(lseek) X(lseek64) X(ioctl) X(access) \
	X(eaccess) X(euidaccess) X(faccessat) X(stat) X(stat64) X(lstat) X(lstat64) X(fstat) \
	X(fstat64) X(fstatat) X(fstatat64) X(statx) X(__xstat) X(__xstat64) X(__lxstat) \
	X(__lxstat64) X(__fxstat) X(__fxstat64) X(__fxstatat) X(__fxstatat64) X(sigaction) \
	X(signal) X(bsd_signal) X(ssignal) X(sysv_signal) X(__sysv_signal) X(sigprocmask) \
	X(pthread_sigmask) X(pthread_cancel) X(pthread_setcanceltype)
enum next_name {
#define NEXT_ENUM(name) NEXT_##name,
	NEXT_FUNCTIONS(NEXT_ENUM)
#undef NEXT_ENUM
	NR_NEXT
};
void *next_function(enum next_name name);

/* Descriptors of ours are below (os/fd.c). */
#define NR_FDS		(1 << 20)

/* errno's way of an answer of ours. */
static inline long answer(long ret)
{
	if (ret >= 0)
		return ret;
	errno = (int)-ret;
	return -1;
}

/* ---- process.c ---------------------------------------------------------------------------- */

/* The first open of /dev/kvm: from now on we watch signals and forks. */
void process_attach(void);
bool process_attached(void);
/*
 * Are our tables this process's? Not so in a child of vfork(2), which runs on its parent's memory
 * with descriptors and signal actions of its own.
 */
bool process_owns(void);

/* ---- calls.c ------------------------------------------------------------------------------ */

/*
 * Around each call into the hypervisor: like in a kernel, no handler of the program runs before the
 * call is over. A signal that comes meanwhile stays pending, and ends a KVM_RUN.
 */
enum call_kind { CALL_NONE, CALL_SHORT, CALL_RUN };
void call_begin(enum call_kind kind);
/* The thread may end here (pthread_cancel). */
void call_end(void);
enum call_kind call_now(void);

/* ---- signals.c ---------------------------------------------------------------------------- */

void signals_attach(void);
void signals_fork_begin(void);
void signals_fork_end(bool child);
/* The program's handlers of the signals that came during a call run now. */
void signals_release(void);

/* ---- cancel.c ----------------------------------------------------------------------------- */

void cancel_attach(void);
void cancel_fork_begin(void);
void cancel_fork_end(bool child);
/* Between the two the calling thread is not cancelled, but for KVM_RUN being interrupted. */
void cancel_hold(void);
void cancel_run(int fd);
void cancel_release(void);

/* ---- trace.c, stats.c --------------------------------------------------------------------- */

/* SOFTKVM_TRACE and SOFTKVM_STATS, looked at once. */
void trace_attach(void);
void trace_ioctl(int fd, unsigned long request, unsigned long arg, long ret);
void trace_line(const char *kind, const char *fmt, ...) __printf_(2, 3);
void stats_attach(void);
void stats_ioctl(int fd, unsigned long request, long ret);
void stats_close(int fd);

#endif
