/*
 * The one seam to the operating system. user.c binds it to POSIX and Linux; a kernel module would
 * bind it to the kernel. Everything in hypervisor/ outside os/, dbt/'s host glue and preload/ may
 * call these functions and nothing else.
 *
 * Vector registers: any function here may clobber the host's x87, MMX, SSE and AVX state. An engine
 * that keeps guest state live in them calls fpu_put() first (x86/fpu.h). The mem* functions and the
 * clock functions marked "registers kept" do not.
 *
 * Errors are negative errno values. Times are nanoseconds of the monotonic clock.
 */
#ifndef QUMRA_HYPERVISOR_OS_OS_H
#define QUMRA_HYPERVISOR_OS_OS_H

#include <stdarg.h>

#include "lib/types.h"

/* ---- memory ------------------------------------------------------------------------------- */

/* Zeroed memory, or NULL. */
void *os_alloc(size_t size);
void os_free(void *p);
/* Zeroed pages, committed on first touch only; NULL when out of memory. size: multiple of 4096. */
void *os_pages_alloc(size_t size);
void os_pages_free(void *p, size_t size);
/*
 * The same, of a kind that os_pages_alias() can map once more: the size bytes from src appear at
 * "at" too, inside other pages of ours, and go when those are freed. 0 or -errno.
 */
void *os_pages_alloc_shared(size_t size);
int os_pages_alias(void *src, size_t size, void *at);
/* All of it is about to be written: faults of single pages would cost more. */
void os_pages_prepare(void *p, size_t size);
/* Gives the content back to the system: the pages read as zero again. */
void os_pages_discard(void *p, size_t size);

/*
 * What a host fault (#GP, #MF, #XM, #DE ...) at an address inside a code area does: *rip and
 * *vector are set to its RIP and x86 vector, and the thread goes on at resume with all other
 * registers and the flags as they were. Only the thread that runs in the area writes there, so one
 * area is for one thread at a time. It must have the host's stack in RSP, and AC and DF clear in
 * RFLAGS, wherever it can fault or be interrupted. resume 0: os_code_set_resume() follows before
 * the area is first run.
 */
struct os_code_fault {
	u64 resume;
	u64 *rip, *vector;
};

/*
 * One piece of memory mapped twice: *rw writable, *rx executable, never both at one address.
 * Inaccessible guard pages lie around both.
 *
 * Host faults at an address inside rx do not kill the process. With fault (copied; what it points
 * to stays valid until os_code_free) they go where it says. With NULL they end the call that led
 * there: the function called returns 1 + the x86 vector (1 + 13 for #GP, 1 + 16 for #MF ...) with
 * the other registers as they were, so its return address is at [rsp] wherever it can fault.
 */
int os_code_alloc(size_t size, void **rw, void **rx, const struct os_code_fault *fault);
void os_code_set_resume(void *rx, u64 resume);
void os_code_free(void *rw, void *rx, size_t size);
/* [rw, rw + size) of the writable side will hardly be written for now: it need not stay mapped. */
void os_code_settle(void *rw, size_t size);
/* rw to rw + size is about to be written: faults of single pages would cost more. */
void os_code_prepare(void *rw, size_t size);

/*
 * Names [start, start + size) of a code area for profilers (docs/profiling.md); registers kept. Does
 * nothing unless os_code_named(): QUMRA_PERF_MAP=1 was set when the first area was made.
 */
bool os_code_named(void);
void os_code_name(u64 start, u32 size, const char *name);
/*
 * Appends to the developer's dump of translated code (docs/profiling.md); registers kept. Only if
 * os_dump_wanted(): QUMRA_DUMP_FRAGMENTS named a file when the first area was made.
 */
bool os_dump_wanted(void);
void os_dump(const char *text, u32 n);

/*
 * Signals of the program that embeds us. SIGSEGV, SIGBUS, SIGFPE and SIGILL outside code areas go
 * to the action that was set before our handler, as if we were not there. A program that sets one
 * of these later takes it away from us: os_code_guard(), called by each thread before it enters a
 * code area, puts ours in front again and the new one behind it, and unblocks the four signals in
 * the thread (a blocked fault would kill). It looks once every OS_GUARD_MS and costs a RDTSC
 * otherwise; a fault in an area in between goes to the program's handler. All other signals are
 * the program's alone. Its handlers run with the control words of a new thread and must return:
 * one that jumps out of a code area (siglongjmp) leaves its vCPU unusable.
 */
#define OS_GUARD_MS	1
void os_code_guard(void);

/*
 * The base of the thread's GS segment; registers kept, once there is an area. os_gs_fast: RDGSBASE
 * and WRGSBASE may be used in machine code of ours too; else each of these is a system call
 * (QUMRA_NO_FSGSBASE=1 asks for that). Signal handlers of the program see whatever base is loaded:
 * an engine that runs between two kicks has its own there, and puts the former one back before it
 * returns.
 */
bool os_gs_fast(void);
u64 os_gs_get(void);
void os_gs_set(u64 base);

/* Registers kept. The asm names make the compiler's implicit calls land here too. */
void *memcpy(void *dst, const void *src, size_t n) __asm__("os_memcpy");
void *memmove(void *dst, const void *src, size_t n) __asm__("os_memmove");
void *memset(void *dst, int c, size_t n) __asm__("os_memset");
int memcmp(const void *a, const void *b, size_t n) __asm__("os_memcmp");

/* ---- locks and waiting -------------------------------------------------------------------- */

/* Registers kept by all of this section. */
struct os_mutex { u32 state; };
void os_mutex_init(struct os_mutex *m);
void os_mutex_destroy(struct os_mutex *m);
void os_mutex_lock(struct os_mutex *m);
void os_mutex_unlock(struct os_mutex *m);
/* True when taken. */
bool os_mutex_trylock(struct os_mutex *m);

/* An auto-reset event with one waiter: a signal that comes before the wait is not lost. */
struct os_event { u32 state; };
#define OS_FOREVER (~0ULL)
void os_event_init(struct os_event *e);
void os_event_signal(struct os_event *e);
/*
 * 0: signalled; -ETIMEDOUT: deadline passed; -EINTR: a signal handler ran, or *stop (may be NULL)
 * is not zero. A handler that sets *stop just before the sleep begins is not missed.
 */
int os_event_wait(struct os_event *e, u64 deadline_ns, const volatile u8 *stop);
/* Looks for at most so long, without a system call. True: signalled, or *stop, or os_run_caught(). */
bool os_event_poll(struct os_event *e, u64 ns, const volatile u8 *stop);

void os_yield(void);
/* Processors that the calling thread may run on. */
unsigned os_cpus(void);

/* ---- signals (bit n - 1 of a set is signal n) --------------------------------------------- */

/* Signals that wait for this thread or the process, blocked at present. */
u64 os_signals_pending(void);
/* Blocks exactly those in mask for this thread; returns what was blocked before. */
u64 os_signals_block(u64 mask);
/* Blocks those in mask too, but for faults that code areas may raise; returns what was blocked. */
u64 os_signals_hold(u64 mask);

/*
 * Signals of the program that a binding above us catches (preload/): what the calling thread runs,
 * and whether one was caught for it. All async-signal-safe, registers kept.
 */
void os_run_set(void *run);	/* NULL: nothing */
void *os_run_get(void);
void os_run_catch(bool caught);
bool os_run_caught(void);
/* The calling thread, for others to say os_run_catch(true) for it while it lives. */
void *os_run_thread(void);
void os_run_catch_thread(void *thread);

/* ---- fork --------------------------------------------------------------------------------- */

/*
 * Around fork(2), as pthread_atfork(3) calls them. In the child there are no threads but the
 * caller's, and what engines had mapped must not be touched: it is shared with the parent.
 */
void os_fork_begin(void);
void os_fork_end(bool child);

/* ---- clocks and timers -------------------------------------------------------------------- */

u64 os_clock_ns(void);		/* monotonic; registers kept */
u64 os_thread_ns(void);		/* that the calling thread has had a processor; registers kept */
u64 os_wall_ns(void);		/* since the Unix epoch; registers kept */
u32 os_tsc_khz(void);		/* frequency of RDTSC, measured or read once per process */

/*
 * A one-shot timer. fn runs on a service thread, without any lock of ours held, and may arm any
 * timer. os_timer_cancel returns when fn neither runs nor will run (what fn arms meanwhile is
 * void); never call it from fn. Arming and cancelling: registers kept.
 */
struct os_timer { u64 opaque[10]; };
void os_timer_init(struct os_timer *t, void (*fn)(void *arg), void *arg);
void os_timer_arm(struct os_timer *t, u64 deadline_ns);
void os_timer_cancel(struct os_timer *t);
void os_timer_destroy(struct os_timer *t);

/* ---- the scheduler ------------------------------------------------------------------------ */

u64 os_thread_cpu_ns(void);	/* that the calling thread has run; registers kept */
/*
 * How long the calling thread has waited for a processor while it could have run, in ns since it
 * began. Zeroed memory is a valid, closed struct. 0 or -errno; registers kept.
 */
struct os_delay { int fd; u64 inode, device, thread; };
int os_delay_read(struct os_delay *d, u64 *ns);
void os_delay_close(struct os_delay *d);
bool os_delay_known(void);	/* does the host count that at all? */

u32 os_processors(void);	/* that are on line */
/* Has this process the privilege to take the whole machine down (CAP_SYS_BOOT)? */
bool os_may_reboot(void);

/* Can two host processors of this machine be threads of one core? */
bool os_smt_possible(void);

/* ---- descriptors -------------------------------------------------------------------------- */

/*
 * Creates a real descriptor of this process that stands for obj. size > 0 gives it that many bytes
 * of shared memory (a memfd), mapped for us at *mem. Returns the descriptor or -errno.
 */
int os_fd_create(const char *name, void *obj, size_t size, void **mem);
/* obj, after hold(obj) while no other thread can close the descriptor; NULL for any other one. */
void *os_fd_object(int fd, void (*hold)(void *obj));
/* Maps the descriptor's memory once more, for user space. 0 or -errno. */
int os_fd_map(int fd, size_t size, void **addr);
/* Closes the number and returns the object, which it does not free; NULL when it is not one of
 * ours. */
void *os_fd_close(int fd);
/* The same, but the number stays open. */
void *os_fd_forget(int fd);
/* other, a duplicate of fd that nobody knows yet, stands for the same object, after hold(obj). 0 or
 * -errno. */
int os_fd_share(int fd, int other, void (*hold)(void *obj));
/* Has fd an object? Never waits; in signal handlers too. */
bool os_fd_present(int fd);
/* Once for each number; fn may not use descriptors. */
void os_fd_each(void (*fn)(void *obj));
void os_fd_unmap(void *mem, size_t size);

/* ---- eventfds of user space --------------------------------------------------------------- */

/*
 * Counters that the hypervisor signals (ioeventfd, resampling) or waits for (irqfd). User space
 * names one by a descriptor, which it may close or give another meaning at any time.
 */

/*
 * Which eventfd fd stands for: one number for all descriptors of it, and its own as long as it
 * lives. 0, -EBADF, or -EINVAL: not an eventfd.
 */
int os_eventfd_id(int fd, u64 *id);

/* One to signal. It stays, whatever becomes of fd; there is one object for each eventfd. 0, or
 * -errno as above, -ENOMEM, -EMFILE. */
struct os_eventfd;
int os_eventfd_get(int fd, struct os_eventfd **e);
void os_eventfd_put(struct os_eventfd *e);
/* Adds one to the counter. Any thread, any lock held; registers kept. */
void os_eventfd_signal(const struct os_eventfd *e);

/*
 * Waiting. fn is called after each signal, several of which may be one call, when the counter has
 * been taken back to zero; a counter that is not zero at first counts as a signal. fn may take leaf
 * locks; it is not to add or remove waits. One waiter serves any number of waits: here it is a
 * thread and an epoll set, started by the first of them; a kernel would hang a callback into each
 * eventfd's queue.
 *
 * A wait holds no eventfd: when the last descriptor is closed there will be no more signals, and
 * os_wait_closed() says so after an os_waiter_look(). In a child by fork a waiter does nothing, and
 * may only be destroyed.
 */
struct os_waiter;
struct os_wait {
	void (*fn)(struct os_wait *w);
	u64 id;			/* os_eventfd_id() */
	/* the seam's own */
	struct os_waiter *waiter;
	u64 token;
	int fd;
	bool closed;
};
int os_waiter_create(struct os_waiter **w);	/* 0 or -errno */
/* Returns when no fn runs or will. Waits that are left are over. */
void os_waiter_destroy(struct os_waiter *w);
/* fn is set. 0, -EBADF, -EINVAL: not an eventfd, or another -errno. */
int os_wait_add(struct os_waiter *waiter, struct os_wait *w, int fd);
/* Returns when fn neither runs nor will. Signals that came before are taken. */
void os_wait_remove(struct os_wait *w);
void os_waiter_look(struct os_waiter *w);
static inline bool os_wait_closed(const struct os_wait *w)
{
	return w->closed;
}

/*
 * A file of size bytes for user space to read, mapped for us at *mem: a number of ours, or -errno.
 * os_file_open: a descriptor for user space, which reads only and is closed with close(2).
 */
int os_file_create(const char *name, size_t size, void **mem);
int os_file_open(int file);
void os_file_close(int file, void *mem, size_t size);

/* ---- user space --------------------------------------------------------------------------- */

/* Between our memory and the caller's of an ioctl. 0, or -EFAULT: it is not mapped so that it
 * could be; what was copied by then is not undone. */
int os_user_read(void *dst, u64 addr, size_t n);
int os_user_write(u64 addr, const void *src, size_t n);
/* Could [addr, addr + n) be user space's memory at all? */
bool os_user_range(u64 addr, u64 n);
/* memcpy where one side is guest memory, which user space may have taken away: 0 or -EFAULT.
 * Registers kept, once there is an area. */
int os_copy(void *dst, const void *src, size_t n);

/*
 * Page faults of this thread at addresses that owns() calls its own do not end the process: the
 * thread goes on in land(arg), which does not return, with the vector registers and the stack's
 * end as they were. For plain accesses of guest memory, and only while the place that land() jumps
 * to is good and no lock is held that it does not know of. owns() runs in a signal handler. c stays
 * valid until the next call; NULL: nothing is caught. Returns the former one. Registers kept.
 */
struct os_fault_catch {
	bool (*owns)(void *arg, u64 addr);
	void (*land)(void *arg) __noreturn_;
	void *arg;
};
const struct os_fault_catch *os_fault_catch(const struct os_fault_catch *c);

/* ---- the host's processor ------------------------------------------------------------------ */

/*
 * CPUID of the host, as it was when first asked: nothing that differs between its processors.
 * r: EAX, EBX, ECX, EDX. Registers kept.
 */
void os_cpuid(u32 leaf, u32 sub, u32 r[4]);

/* ---- environment, log --------------------------------------------------------------------- */

enum os_log_level { OS_LOG_ERROR, OS_LOG_WARN, OS_LOG_INFO, OS_LOG_DEBUG };
void os_log(enum os_log_level level, const char *fmt, ...) __printf_(2, 3);
/* A setting of the embedding program, such as QUMRA_ENGINE; NULL when unset. */
const char *os_getenv(const char *name);
/* The calling thread's identity, for ownership checks. */
u64 os_thread_self(void);
/* An assertion of ours failed before any VM could take the blame. Does not return. */
__noreturn_ void os_panic(const char *what);

#endif
