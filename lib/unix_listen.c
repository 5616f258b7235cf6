/* Listening Unix sockets: see unix_listen.h. */
#include "lib/unix_listen.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* 0, or the errno of a connect(). */
static int try_connect(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), errnum;

	if (fd < 0)
		return errno;
	errnum = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 ? 0 : errno;
	close(fd);
	return errnum;
}

static int path_clear(const char *what, const struct sockaddr_un *addr, struct error *err)
{
	struct stat st;
	int errnum;

	if (lstat(addr->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, EEXIST, "%s%s: there is a file there that is no socket", what,
			addr->sun_path);
	errnum = try_connect(addr);
	if (errnum == 0 || errnum == EAGAIN)
		return error_set(err, EADDRINUSE, "%s%s: in use by another process", what,
			addr->sun_path);
	/* Nobody is behind it; all else, such as EACCES, says nothing of that. */
	if (errnum != ECONNREFUSED)
		return error_set(err, errnum, "%s%s: %s", what, addr->sun_path, strerror(errnum));
	unlink(addr->sun_path);
	return 0;
}

int unix_listen(const char *what, const char *path, int backlog, bool private, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	bool bound = false;
	int fd, ret;

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, ENAMETOOLONG, "%s%s: a socket's path has at most %zu bytes", what,
			path, sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	ret = path_clear(what, &addr, err);
	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* The mode of the descriptor is the one that the path is made with. */
	if (fd >= 0 && (!private || fchmod(fd, 0600) == 0))
		bound = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
	if (bound && listen(fd, backlog) == 0)
		return fd;
	ret = error_set(err, errno, "%s%s: %s", what, path, strerror(errno));
	if (bound)
		unlink(path);
	if (fd >= 0)
		close(fd);
	return ret;
}
