/*
 * The developer's dump of translated code: QUMRA_DUMP_FRAGMENTS=FILE. What is used here keeps the
 * vector registers, as in perfmap.c.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hypervisor/os/native.h"
#include "hypervisor/os/os.h"

static struct asked_file dump = { .fd = -1 };

static int dump_open(void)
{
	const char *path = getenv("QUMRA_DUMP_FRAGMENTS");
	int fd;

	if (!path || !*path)
		return -1;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		os_log(OS_LOG_ERROR, "cannot create %s, which QUMRA_DUMP_FRAGMENTS names", path);
	return fd;
}

void dump_init(void)
{
	asked_file_open(&dump, dump_open);
}

bool os_dump_wanted(void)
{
	return READ_ONCE(dump.fd) >= 0;
}

void os_dump(const char *text, u32 n)
{
	os_mutex_lock(&dump.lock);
	while (n) {
		long done = syscall(SYS_write, dump.fd, text, n);

		if (done <= 0)
			break;
		text += done;
		n -= (u32)done;
	}
	os_mutex_unlock(&dump.lock);
}
