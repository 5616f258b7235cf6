/*
 * Names for machine code made at run time, as perf(1) reads them: /tmp/perf-PID.map, a line
 * "START SIZE name" in hexadecimal for each piece (Linux tools/perf/Documentation/jit-interface.txt).
 * QUMRA_PERF_MAP=1 asks for it.
 *
 * Lines gather in a buffer that is written out when it is full, a tenth of a second after the last
 * time, and at the process's end. What is used after the file was opened keeps the vector
 * registers, so names can be given while the guest's are live.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hypervisor/os/native.h"
#include "hypervisor/os/os.h"

#define MAP_BUFFER	65536u
#define MAP_LINE	256u
#define MAP_FLUSH_NS	100000000ULL

static struct {
	struct asked_file file;
	u32 used;
	u64 flushed_ns;
	char buf[MAP_BUFFER];
} map = { .file.fd = -1 };

/* With the lock. A file that cannot be written has no readers to tell. */
static void map_write(void)
{
	u32 done = 0;

	while (done < map.used) {
		long n = syscall(SYS_write, map.file.fd, map.buf + done, map.used - done);

		if (n <= 0)
			break;
		done += n;
	}
	map.used = 0;
	map.flushed_ns = os_clock_ns();
}

static void map_at_exit(void)
{
	os_mutex_lock(&map.file.lock);
	map_write();
	os_mutex_unlock(&map.file.lock);
}

/* Of this user's own making only: /tmp is everybody's. */
static int map_open(void)
{
	const char *want = getenv("QUMRA_PERF_MAP");
	char path[64];
	int fd;

	if (!want || !*want || *want == '0')
		return -1;
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		os_log(OS_LOG_ERROR, "cannot create %s", path);
	else
		atexit(map_at_exit);
	return fd;
}

void perfmap_init(void)
{
	asked_file_open(&map.file, map_open);
}

bool os_code_named(void)
{
	return READ_ONCE(map.file.fd) >= 0;
}

static u32 put_hex(char *p, u64 value)
{
	u32 digits = 1;

	while (digits < 16 && value >> (4 * digits))
		digits++;
	for (u32 i = 0; i < digits; i++)
		p[i] = "0123456789abcdef"[value >> (4 * (digits - 1 - i)) & 15];
	return digits;
}

/* A name ends at a control character: it must not begin another line. */
static u32 put_line(char *p, u64 start, u32 size, const char *name)
{
	u32 n = put_hex(p, start);

	p[n++] = ' ';
	n += put_hex(p + n, size);
	p[n++] = ' ';
	while (n < MAP_LINE - 1 && (u8)*name >= ' ')
		p[n++] = *name++;
	p[n++] = '\n';
	return n;
}

void os_code_name(u64 start, u32 size, const char *name)
{
	if (!os_code_named())
		return;
	os_mutex_lock(&map.file.lock);
	map.used += put_line(map.buf + map.used, start, size, name);
	if (map.used > MAP_BUFFER - MAP_LINE || os_clock_ns() - map.flushed_ns > MAP_FLUSH_NS)
		map_write();
	os_mutex_unlock(&map.file.lock);
}
