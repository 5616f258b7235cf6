/* The seam's files: memory of ours that user space reads through descriptors of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/os/os.h"

int os_file_create(const char *name, size_t size, void **mem)
{
	int file = memfd_create(name, MFD_CLOEXEC);
	int ret = 0;

	if (file < 0)
		return -errno;
	if (ftruncate(file, size) < 0)
		ret = -errno;
	else
		ret = os_fd_map(file, size, mem);
	if (!ret)
		return file;
	close(file);
	return ret;
}

/* Where there is no /proc, the descriptor can write as well. */
int os_file_open(int file)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		fd = fcntl(file, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

void os_file_close(int file, void *mem, size_t size)
{
	os_fd_unmap(mem, size);
	close(file);
}
