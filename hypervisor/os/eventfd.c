/*
 * The seam's eventfds: which one a descriptor stands for, and those that we signal. eventfd(2),
 * proc(5).
 *
 * An eventfd is known by the number that the kernel shows in /proc/thread-self/fdinfo. As long as
 * we hold a descriptor of our own, nobody else gets that number.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hypervisor/os/eventfd.h"
#include "hypervisor/os/os.h"
#include "hypervisor/os/syscall.h"

/* ---- descriptors of our own --------------------------------------------------------------- */

static pthread_mutex_t limit_lock = PTHREAD_MUTEX_INITIALIZER;

/* The limit counts only where numbers are given out. */
void fd_limit_raise(struct rlimit *old)
{
	struct rlimit more;

	pthread_mutex_lock(&limit_lock);
	if (getrlimit(RLIMIT_NOFILE, old))
		old->rlim_cur = old->rlim_max = 0;
	more = *old;
	more.rlim_cur = more.rlim_max;
	if (old->rlim_cur < old->rlim_max)
		setrlimit(RLIMIT_NOFILE, &more);
}

void fd_limit_restore(const struct rlimit *old)
{
	if (old->rlim_cur < old->rlim_max)
		setrlimit(RLIMIT_NOFILE, old);
	pthread_mutex_unlock(&limit_lock);
}

#define ASIDE_LIMIT	65536u	/* the kernel's table of descriptors grows with the largest number */
#define ASIDE_WITHIN	512u	/* where the limit is not to be raised: not among the first ones */

int fd_dup_aside(int fd)
{
	struct rlimit old;
	int ret;

	fd_limit_raise(&old);
	ret = fcntl(fd, F_DUPFD_CLOEXEC, (int)MIN(old.rlim_cur, ASIDE_LIMIT));
	if (ret < 0)
		ret = fcntl(fd, F_DUPFD_CLOEXEC, (int)MIN(old.rlim_cur / 2, ASIDE_WITHIN));
	if (ret < 0)
		ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (ret < 0)
		ret = -errno;
	fd_limit_restore(&old);
	return ret;
}

static void info_path(char path[64], int fd)
{
	static const char prefix[] = "/proc/thread-self/fdinfo/";
	char digits[12];
	size_t n = 0, at = sizeof(prefix) - 1;
	unsigned int rest = (unsigned int)fd;

	memcpy(path, prefix, sizeof(prefix));
	do {
		digits[n++] = '0' + rest % 10;
		rest /= 10;
	} while (rest);
	while (n)
		path[at++] = digits[--n];
	path[at] = 0;
}

int fd_info_open(int fd)
{
	struct rlimit old;
	char path[64];
	int info;

	info_path(path, fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0 && errno == EMFILE) {
		fd_limit_raise(&old);
		info = open(path, O_RDONLY | O_CLOEXEC);
		fd_limit_restore(&old);
	}
	return info < 0 ? -errno : info;
}

/* ---- identity ----------------------------------------------------------------------------- */

static ssize_t info_read(int fd, char *text, size_t size)
{
	int info = fd_info_open(fd);
	ssize_t n;

	if (info < 0)
		return info;
	n = read(info, text, size - 1);
	close(info);
	text[MAX(n, 0)] = 0;
	return n;
}

static u64 number_at(const char *s)
{
	u64 val = 0;

	while (*s == ' ' || *s == '\t')
		s++;
	while (*s >= '0' && *s <= '9')
		val = val * 10 + (u64)(*s++ - '0');
	return val;
}

int os_eventfd_id(int fd, u64 *id)
{
	static const char key[] = "eventfd-id:";
	char text[512];
	const char *at;

	if (fd < 0 || fcntl(fd, F_GETFD) < 0)
		return -EBADF;
	if (info_read(fd, text, sizeof(text)) <= 0)
		return -EINVAL;
	at = strstr(text, key);
	if (at)
		*id = number_at(at + sizeof(key) - 1);
	else if (strstr(text, "eventfd-count:"))
		*id = 1ULL << 32 | (u32)fd;	/* before Linux 5.2: no better than the descriptor */
	else
		return -EINVAL;
	return 0;
}

/* ---- those to signal ---------------------------------------------------------------------- */

struct os_eventfd {
	struct os_eventfd *next;
	u64 id;
	u32 refs;
	int fd;		/* ours */
};

#define BUCKETS 256
static struct {
	pthread_mutex_t lock;
	struct os_eventfd *bucket[BUCKETS];	/* by id */
} known = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct os_eventfd *known_find(u64 id)
{
	struct os_eventfd *e = known.bucket[id % BUCKETS];

	while (e && e->id != id)
		e = e->next;
	return e;
}

static int known_add(int fd, u64 id, struct os_eventfd **out)
{
	struct os_eventfd *e = os_alloc(sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->fd = fd_dup_aside(fd);
	if (e->fd < 0) {
		int ret = e->fd;

		os_free(e);
		return ret;
	}
	e->id = id;
	e->next = known.bucket[id % BUCKETS];
	known.bucket[id % BUCKETS] = e;
	*out = e;
	return 0;
}

int os_eventfd_get(int fd, struct os_eventfd **out)
{
	int ret;
	u64 id;

	pthread_mutex_lock(&known.lock);
	ret = os_eventfd_id(fd, &id);
	if (ret)
		goto out;
	*out = known_find(id);
	if (!*out)
		ret = known_add(fd, id, out);
	if (!ret)
		(*out)->refs++;
out:
	pthread_mutex_unlock(&known.lock);
	return ret;
}

void os_eventfd_put(struct os_eventfd *e)
{
	struct os_eventfd **at;

	pthread_mutex_lock(&known.lock);
	if (--e->refs == 0) {
		at = &known.bucket[e->id % BUCKETS];
		while (*at != e)
			at = &(*at)->next;
		*at = e->next;
		close(e->fd);
		os_free(e);
	}
	pthread_mutex_unlock(&known.lock);
}

/*
 * The kernel's own signal stops at the largest count; here it blocks, or with EFD_NONBLOCK fails
 * with nothing lost. A guest that adds one at a time does not get there.
 */
void os_eventfd_signal(const struct os_eventfd *e)
{
	static const u64 one = 1;

	sys6(SYS_write, (unsigned long)e->fd, (unsigned long)&one, sizeof(one), 0, 0, 0);
}
