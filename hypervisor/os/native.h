/*
 * Machine code made at run time, and the host faults it may cause. Internal to os/: memory.c tells
 * native.c what os_code_alloc gave out, and chain.c asks it about each fault.
 */
#ifndef QUMRA_HYPERVISOR_OS_NATIVE_H
#define QUMRA_HYPERVISOR_OS_NATIVE_H

#include "hypervisor/os/os.h"

struct sigaction;

/*
 * From now on faults inside [rx, rx + size) go where fault says; NULL: they end the call into the
 * area (os.h). 0 or -ENOMEM.
 */
int native_area_add(const void *rx, size_t size, const struct os_code_fault *fault);
void native_area_resume(const void *rx, u64 resume);
void native_area_remove(const void *rx);
/* In a signal handler: was it a fault in an area? ctx (ucontext_t) then goes on as it should. */
bool native_area_fault(void *ctx);
/* user.c: the same for a fault at this address that os_fault_catch() is for. */
bool native_fault_caught(u64 address, void *ctx);

/* perfmap.c: opens the map of names if it is wanted, before any code runs. */
void perfmap_init(void);
/* dump.c: the same for the developer's dump. */
void dump_init(void);

/* chain.c: puts our handler before those of the program, once. 0 or -errno. */
int chain_install(void);
/*
 * For a binding that stands between the program and sigaction(2): sets and tells the program's
 * action for one of the four signals, and ours stays in front. -ENOENT: it is none of them, or ours
 * is not there yet. Both may be NULL.
 */
int chain_action(int sig, const struct sigaction *act, struct sigaction *old);
bool chain_has(int sig);
/* The thread's signal mask was changed: os_code_guard() is to look at once. */
void chain_mask_changed(void);

/* fork(2): each part's locks and threads. */
void fd_fork_begin(void);
void fd_fork_end(bool child);
void native_fork_child(void);
void chain_fork_child(void);
void timer_fork_child(void);
/* os_code_guard() by a clock of one's own: *last is when it looked. */
void chain_guard(u64 *last);

/* A file that the environment may ask for, once: fd is -1 before and without it. */
struct asked_file {
	struct os_mutex lock;
	bool asked;
	int fd;
};
static inline void asked_file_open(struct asked_file *f, int (*open_it)(void))
{
	os_mutex_lock(&f->lock);
	if (!f->asked)
		WRITE_ONCE(f->fd, open_it());
	f->asked = true;
	os_mutex_unlock(&f->lock);
}

#endif
