/*
 * The seam's descriptors: memfds, so that a number is real to the rest of the process, and the one
 * table of the process that tells which object a number stands for.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/os/os.h"

static struct fd_table {
	pthread_rwlock_t lock;
	void **object;		/* by descriptor */
	size_t n;
} table = { .lock = PTHREAD_RWLOCK_INITIALIZER };

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

static int table_enter(int fd, void *obj)
{
	int ret;

	pthread_rwlock_wrlock(&table.lock);
	ret = table_reserve((size_t)fd + 1);
	if (!ret)
		table.object[fd] = obj;
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
	void *obj = NULL;

	pthread_rwlock_rdlock(&table.lock);
	if (fd >= 0 && (size_t)fd < table.n)
		obj = table.object[fd];
	if (obj)
		hold(obj);
	pthread_rwlock_unlock(&table.lock);
	return obj;
}

void *os_fd_close(int fd)
{
	void *obj = NULL;

	pthread_rwlock_wrlock(&table.lock);
	if (fd >= 0 && (size_t)fd < table.n) {
		obj = table.object[fd];
		table.object[fd] = NULL;
	}
	/* While locked: the number must not be given out anew before the table has forgotten it. */
	if (obj)
		close(fd);
	pthread_rwlock_unlock(&table.lock);
	return obj;
}
