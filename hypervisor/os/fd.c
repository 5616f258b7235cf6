/*
 * The seam's descriptors: memfds, so that a number is real to the rest of the process, and the one
 * table of the process that tells which object a number stands for. Several numbers may stand for
 * one object (dup).
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/os/native.h"
#include "hypervisor/os/os.h"

static struct fd_table {
	pthread_rwlock_t lock;
	void **object;		/* by descriptor */
	size_t n;
} table = { .lock = PTHREAD_RWLOCK_INITIALIZER };

/*
 * The same once more, a bit for each, for those who ask of every descriptor of the process and must
 * neither wait nor be in the way of a signal handler. Numbers above are not ours.
 */
#define MAX_FDS	(1u << 20)	/* fs.nr_open, unless raised */
static u64 present[MAX_FDS / 64];	/* atomic */

static void present_set(int fd, bool on)
{
	u64 *word = &present[(u32)fd / 64], bit = BIT((u32)fd % 64);

	if (on)
		__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(word, ~bit, __ATOMIC_SEQ_CST);
}

bool os_fd_present(int fd)
{
	return (u32)fd < MAX_FDS && READ_ONCE(present[(u32)fd / 64]) >> ((u32)fd % 64) & 1;
}

/* With the table locked for writing. */
static int table_reserve(size_t n)
{
	size_t want = MAX(n, MAX(table.n * 2, (size_t)64));
	void **grown;

	if (n <= table.n)
		return 0;
	grown = reallocarray(table.object, want, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	memset(grown + table.n, 0, (want - table.n) * sizeof(*grown));
	table.object = grown;
	table.n = want;
	return 0;
}

/* With the table locked for writing. */
static int table_set(int fd, void *obj)
{
	int ret = (u32)fd < MAX_FDS ? table_reserve((size_t)fd + 1) : -EMFILE;

	if (!ret) {
		table.object[fd] = obj;
		present_set(fd, obj);
	}
	return ret;
}

/* Locked. */
static void *table_get(int fd)
{
	return fd >= 0 && (size_t)fd < table.n ? table.object[fd] : NULL;
}

static int table_enter(int fd, void *obj)
{
	int ret;

	pthread_rwlock_wrlock(&table.lock);
	ret = table_set(fd, obj);
	pthread_rwlock_unlock(&table.lock);
	return ret;
}

int os_fd_map(int fd, size_t size, void **addr)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*addr = p;
	return 0;
}

void os_fd_unmap(void *mem, size_t size)
{
	if (mem)
		munmap(mem, size);
}

int os_fd_create(const char *name, void *obj, size_t size, void **mem)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (size) {
		ret = ftruncate(fd, size) < 0 ? -errno : os_fd_map(fd, size, mem);
		if (ret < 0)
			goto fail;
	}
	ret = table_enter(fd, obj);
	if (!ret)
		return fd;
	if (size)
		os_fd_unmap(*mem, size);
fail:
	close(fd);
	return ret;
}

void *os_fd_object(int fd, void (*hold)(void *obj))
{
	void *obj;

	pthread_rwlock_rdlock(&table.lock);
	obj = table_get(fd);
	if (obj)
		hold(obj);
	pthread_rwlock_unlock(&table.lock);
	return obj;
}

int os_fd_share(int fd, int other, void (*hold)(void *obj))
{
	void *obj;
	int ret = -EBADF;

	pthread_rwlock_wrlock(&table.lock);
	obj = table_get(fd);
	if (obj)
		ret = table_set(other, obj);
	if (!ret)
		hold(obj);
	pthread_rwlock_unlock(&table.lock);
	return ret;
}

static void *fd_remove(int fd, bool and_close)
{
	void *obj;

	pthread_rwlock_wrlock(&table.lock);
	obj = table_get(fd);
	if (obj)
		table_set(fd, NULL);
	/* While locked: the number must not be given out anew before the table has forgotten it. */
	if (obj && and_close)
		close(fd);
	pthread_rwlock_unlock(&table.lock);
	return obj;
}

void *os_fd_close(int fd)
{
	return fd_remove(fd, true);
}

void *os_fd_forget(int fd)
{
	return fd_remove(fd, false);
}

void os_fd_each(void (*fn)(void *obj))
{
	pthread_rwlock_rdlock(&table.lock);
	for (size_t fd = 0; fd < table.n; fd++)
		if (table.object[fd])
			fn(table.object[fd]);
	pthread_rwlock_unlock(&table.lock);
}

/* ---- fork ------------------------------------------------------------------------------------ */

void fd_fork_begin(void)
{
	pthread_rwlock_wrlock(&table.lock);
}

void fd_fork_end(bool child)
{
	if (child)
		table.lock = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
	else
		pthread_rwlock_unlock(&table.lock);
}
