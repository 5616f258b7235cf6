/* The seam's environment: settings, log, threads. */
#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hypervisor/os/os.h"

const char *os_getenv(const char *name)
{
	return getenv(name);
}

u32 os_processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (u32)n : 1;
}

bool os_may_reboot(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	if (syscall(SYS_capget, &head, data))
		return false;
	return data[CAP_TO_INDEX(CAP_SYS_BOOT)].effective & CAP_TO_MASK(CAP_SYS_BOOT);
}

u64 os_thread_self(void)
{
	return (u64)pthread_self();
}

static const char *const level_name[] = {
	[OS_LOG_ERROR] = "error",
	[OS_LOG_WARN] = "warning",
	[OS_LOG_INFO] = "info",
	[OS_LOG_DEBUG] = "debug",
};

/* QUMRA_LOG names the least urgent level shown. */
static enum os_log_level log_threshold(void)
{
	const char *want = os_getenv("QUMRA_LOG");
	size_t i;

	for (i = 0; want && i < ARRAY_SIZE(level_name); i++)
		if (!strcmp(want, level_name[i]))
			return i;
	return OS_LOG_WARN;
}

void os_log(enum os_log_level level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (level > log_threshold())
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fprintf(stderr, "qumra: %s: %s\n", level_name[level], line);
}

void os_panic(const char *what)
{
	fprintf(stderr, "qumra: internal error: %s\n", what);
	abort();
}
