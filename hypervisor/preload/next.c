/* The functions beneath ours: dlsym(3) with RTLD_NEXT, so that other preloaded libraries keep their
 * place in the row; and the ways there of our own code (--wrap). */
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/preload/preload.h"

static const char *const names[] = {
#define NEXT_NAME(name) [NEXT_##name] = #name,
	NEXT_FUNCTIONS(NEXT_NAME)
#undef NEXT_NAME
};

void *next_function(enum next_name name)
{
	static void *known[NR_NEXT];	/* atomic */
	void *fn = READ_ONCE(known[name]);

	if (likely(fn))
		return fn;
	fn = dlsym(RTLD_NEXT, names[name]);
	WRITE_ONCE(known[name], fn);
	return fn;
}

/* ---- calls of our own code ------------------------------------------------------------------- */

int __wrap_close(int fd);
int __wrap_open64(const char *path, int flags, int mode);
void *__wrap_mmap64(void *addr, size_t size, int prot, int flags, int fd, off_t off);
int __wrap_sigaction(int sig, const struct sigaction *act, struct sigaction *old);
int __wrap_sigprocmask(int how, const sigset_t *set, sigset_t *old);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);

int __wrap_close(int fd)
{
	return NEXT(close)(fd);
}

int __wrap_open64(const char *path, int flags, int mode)
{
	return NEXT(open64)(path, flags, mode);
}

void *__wrap_mmap64(void *addr, size_t size, int prot, int flags, int fd, off_t off)
{
	return NEXT(mmap64)(addr, size, prot, flags, fd, off);
}

int __wrap_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	return NEXT(sigaction)(sig, act, old);
}

int __wrap_sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return NEXT(sigprocmask)(how, set, old);
}

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return NEXT(pthread_sigmask)(how, set, old);
}
