/* How a back end is reached: it listens at a path, or is a virtiofsd that we start. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/virtio/vhost.h"

static int unix_socket(const char *option, struct error *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? error_set(err, errno, "%s: socket: %s", option, strerror(errno)) : fd;
}

int vhost_connect(const char *option, const char *path, struct error *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, ret;

	if (strlen(path) >= sizeof(sa.sun_path))
		return error_usage(err, "%s: %s: the path is too long for a socket", option, path);
	strcpy(sa.sun_path, path);
	fd = unix_socket(option, err);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	ret = error_set(err, errno, "%s: %s: %s", option, path, strerror(errno));
	close(fd);
	return ret;
}

/*
 * A socket that listens under a name that the kernel makes up (unix(7), autobind), and one that is
 * its first client, as a server takes only that one: there is room for one to wait, so whoever gets in is it.
 */
static int pair_listening(int fd[2], struct error *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa);
	int ret;

	fd[0] = unix_socket("--share", err);
	fd[1] = fd[0] < 0 ? -1 : unix_socket("--share", err);
	if (fd[1] >= 0)
		fcntl(fd[1], F_SETFL, O_NONBLOCK);	/* EAGAIN: somebody else was first */
	if (fd[1] >= 0 && bind(fd[0], (struct sockaddr *)&sa, sizeof(sa_family_t)) == 0 &&
	    listen(fd[0], 0) == 0 && getsockname(fd[0], (struct sockaddr *)&sa, &len) == 0 &&
	    connect(fd[1], (struct sockaddr *)&sa, len) == 0)
		return 0;
	ret = error_set(err, errno, "--share: cannot make a socket for virtiofsd: %s", strerror(errno));
	if (fd[0] >= 0)
		close(fd[0]);
	if (fd[1] >= 0)
		close(fd[1]);
	return ret;
}

int vhost_virtiofsd(struct child *c, const char *folder, struct error *err)
{
	static const char *const at[] = {	/* Debian 13, Debian 12, Arch */
		"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd",
	};
	char source[4200], number[24];
	const char *argv[] = { "virtiofsd", number, "-o", source, "-o", "log_level=warn", NULL };
	int fd[2], ret;

	/* Its option has no way to say a comma. */
	if (strpbrk(folder, ",\\") || strlen(folder) > 4096)
		return error_usage(err, "--share: bus=fs cannot share \"%s\" for its name", folder);
	if (access(folder, R_OK | X_OK) < 0)
		return error_set(err, errno, "--share: %s: %s", folder, strerror(errno));
	for (size_t i = ARRAY_SIZE(at); i-- > 0;)
		argv[0] = access(at[i], X_OK) == 0 ? at[i] : argv[0];
	ret = pair_listening(fd, err);
	if (ret < 0)
		return ret;
	snprintf(source, sizeof(source), "source=%s", folder);
	snprintf(number, sizeof(number), "--fd=%d", fd[0]);
	ret = child_start(c, argv, fd[0], err);
	close(fd[0]);
	if (ret == 0)
		return fd[1];
	close(fd[1]);
	return ret;
}
