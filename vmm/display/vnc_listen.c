/* A VNC server's listening socket: see vnc_listen.h. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/unix_listen.h"
#include "vmm/display/vnc_listen.h"

#define UNIX		"unix:"
#define LOOPBACK	"127.0.0.1"
#define PORT_FIRST	5900
#define PORTS		100
#define BACKLOG		4

/* ---- addresses ------------------------------------------------------------------------------- */

struct address {
	const char *path;	/* NULL: TCP */
	char host[128];
	unsigned port;
};

static bool number(const char *text, unsigned max, unsigned *value)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	*value = n;
	return *text >= '0' && *text <= '9' && !*end && n <= max;
}

/* "HOST:" or "[HOST]:" in front of the port. */
static bool host_take(struct address *a, const char *text, size_t len)
{
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (!len || len >= sizeof(a->host))
		return false;
	memcpy(a->host, text, len);
	a->host[len] = 0;
	return true;
}

static bool address_parse(struct address *a, const char *text)
{
	const char *colon = strrchr(text, ':');

	*a = (struct address){ .host = LOOPBACK };
	if (strncmp(text, UNIX, strlen(UNIX)) == 0) {
		a->path = text + strlen(UNIX);
		return *a->path;
	}
	if (!colon)
		return number(text, 65535, &a->port) && a->port;
	if (colon == text) {
		if (!number(text + 1, PORTS - 1, &a->port))
			return false;
		a->port += PORT_FIRST;
		return true;
	}
	return host_take(a, text, colon - text) && number(colon + 1, 65535, &a->port) && a->port;
}

static bool is_loopback(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

int vnc_address_check(const char *address, bool password, struct error *err)
{
	struct address a;

	if (!address)
		return 0;
	if (!address_parse(&a, address))
		return error_usage(err, "--display: vnc: \"%s\" is none of PORT, :NUMBER, HOST:PORT, "
			"unix:PATH", address);
	if (!a.path && !is_loopback(a.host) && !password)
		return error_usage(err, "--display: vnc: %s is open to a network: that needs password=FILE",
			address);
	return 0;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static int listen_unix(struct vnc_listener *l, const char *path, struct error *err)
{
	l->fd = unix_listen("--display vnc=" UNIX, path, BACKLOG, true, err);
	if (l->fd < 0)
		return l->fd;
	snprintf(l->path, sizeof(l->path), "%s", path);
	snprintf(l->text, sizeof(l->text), UNIX "%s", path);
	return 0;
}

/* -errno, -EINVAL for a host that is not known. */
static int listen_tcp(struct vnc_listener *l, const char *host, unsigned port)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *list;
	char service[8];
	int one = 1, ret = 0;

	snprintf(service, sizeof(service), "%u", port);
	if (getaddrinfo(host, service, &hints, &list))
		return -EINVAL;
	l->fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(l->fd, list->ai_addr, list->ai_addrlen) < 0 || listen(l->fd, BACKLOG) < 0)
		ret = -errno;
	freeaddrinfo(list);
	if (ret < 0 && l->fd >= 0) {
		close(l->fd);
		l->fd = -1;
	}
	snprintf(l->text, sizeof(l->text), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
	return ret;
}

static int listen_anywhere(struct vnc_listener *l)
{
	int ret = -EADDRINUSE;

	for (unsigned i = 0; i < PORTS && ret == -EADDRINUSE; i++)
		ret = listen_tcp(l, LOOPBACK, PORT_FIRST + i);
	return ret;
}

int vnc_listen(struct vnc_listener *l, const char *address, struct error *err)
{
	struct address a = { .host = LOOPBACK };
	int ret;

	*l = (struct vnc_listener){ .fd = -1 };
	if (address && !address_parse(&a, address))
		return error_usage(err, "--display: vnc: \"%s\" is no address", address);
	if (a.path)
		return listen_unix(l, a.path, err);
	ret = address ? listen_tcp(l, a.host, a.port) : listen_anywhere(l);
	return ret < 0 ? error_set(err, -ret, "--display vnc: cannot listen on %s: %s", l->text,
				   strerror(-ret)) : 0;
}

void vnc_unlisten(struct vnc_listener *l)
{
	if (l->fd >= 0)
		close(l->fd);
	if (l->path[0])
		unlink(l->path);
	*l = (struct vnc_listener){ .fd = -1 };
}
