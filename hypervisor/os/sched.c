/*
 * The seam's view of the host's scheduler: how long a thread ran, and how long it waited for a
 * processor. Linux Documentation/scheduler/sched-stats.rst (/proc/<pid>/schedstat). Compiled with
 * -mgeneral-regs-only, system calls only through the C library's thin wrappers.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hypervisor/os/os.h"

#define NS_PER_SEC 1000000000ULL

u64 os_thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* "ran waited times": nanoseconds, nanoseconds, turns. False: something else stands there. */
static bool parse(const char *text, ssize_t n, u64 field[3])
{
	const char *p = text, *end = text + n;

	for (int i = 0; i < 3; i++, p++) {
		const char *start = p;

		field[i] = 0;
		for (; p < end && *p >= '0' && *p <= '9'; p++)
			field[i] = field[i] * 10 + (u64)(*p - '0');
		if (p == start || p == end || *p != (i < 2 ? ' ' : '\n'))
			return false;
	}
	return true;
}

static int fields_read(int fd, u64 field[3])
{
	char text[96];
	ssize_t n = pread(fd, text, sizeof(text), 0);

	return n > 0 && parse(text, n, field) ? 0 : -EIO;
}

static bool still_ours(const struct os_delay *d)
{
	struct stat st;

	return !fstat(d->fd, &st) && st.st_ino == d->inode && st.st_dev == d->device;
}

/* The embedding program may have closed the number, and got it again for something else. */
void os_delay_close(struct os_delay *d)
{
	if (d->thread && still_ours(d))
		close(d->fd);
	d->thread = 0;
}

static int delay_open(struct os_delay *d)
{
	struct stat st;
	int fd;

	os_delay_close(d);
	fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st)) {
		close(fd);
		return -EIO;
	}
	d->fd = fd;
	d->inode = st.st_ino;
	d->device = st.st_dev;
	d->thread = os_thread_self();
	return 0;
}

int os_delay_read(struct os_delay *d, u64 *ns)
{
	u64 field[3];
	int ret = 0;

	if (d->thread != os_thread_self())
		ret = delay_open(d);
	if (!ret)
		ret = fields_read(d->fd, field);
	if (!ret)
		*ns = field[1];
	return ret;
}

/* A kernel that does not count says zero to all three. */
bool os_delay_known(void)
{
	static u8 known;	/* 0: not asked yet, 1: no, 2: yes */
	struct os_delay d = { .thread = 0 };
	u64 field[3] = { 0, 0, 0 };

	if (READ_ONCE(known))
		return known == 2;
	if (!delay_open(&d))
		fields_read(d.fd, field);
	os_delay_close(&d);
	WRITE_ONCE(known, field[2] ? 2 : 1);
	return known == 2;
}

bool os_smt_possible(void)
{
	char text[16];
	ssize_t n = -1;
	int fd = open("/sys/devices/system/cpu/smt/control", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	text[n > 0 ? n : 0] = 0;
	return strncmp(text, "forceoff", 8) && strncmp(text, "notsupported", 12);
}

/* The C library's cpu_set_t is for 1024; a host that has more than these is no host with one. */
unsigned os_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 2 : (unsigned)CPU_COUNT(&set);
}
