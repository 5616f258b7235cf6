/* The control socket, how words come and go: see control.h. */
#include "vmm/control/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "lib/unix_listen.h"
#include "vmm/control/commands.h"

#define IN_MAX		(64u << 10)	/* one object */
#define OUT_MAX		(1u << 20)	/* a client that does not read loses its connection */

struct control {
	struct vmm *vmm;
	struct loop *loop;
	int listen_fd, listen_watch;
	int fd, watch;		/* the client, or -1 */
	bool negotiated;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	size_t in_size, out_size;
	char *in, *out;
};

/* ---- out ------------------------------------------------------------------------------------- */

static void client_close(struct control *c)
{
	if (c->fd < 0)
		return;
	loop_remove(c->loop, c->watch);
	close(c->fd);
	c->fd = c->watch = -1;
	c->in_size = c->out_size = 0;
	loop_change(c->loop, c->listen_watch, EPOLLIN);
}

/* False: the client is gone. */
static bool client_flush(struct control *c)
{
	ssize_t n = c->out_size ? send(c->fd, c->out, c->out_size, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		client_close(c);
		return false;
	}
	if (n > 0) {
		c->out_size -= n;
		memmove(c->out, c->out + n, c->out_size);
	}
	loop_change(c->loop, c->watch, EPOLLIN | (c->out_size ? EPOLLOUT : 0));
	return true;
}

/* Takes the reference. An object on a line of its own. */
static void client_say(struct control *c, json_t *what)
{
	char *text = what ? json_dumps(what, JSON_COMPACT) : NULL, *out;
	size_t size = text ? strlen(text) : 0;

	out = text && c->fd >= 0 && c->out_size + size + 2 <= OUT_MAX ?
		realloc(c->out, c->out_size + size + 2) : NULL;
	if (out) {
		memcpy(out + c->out_size, text, size);
		memcpy(out + c->out_size + size, "\r\n", 2);
		c->out = out;
		c->out_size += size + 2;
		client_flush(c);
	} else {
		client_close(c);
	}
	free(text);
	json_decref(what);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void event_say(struct control *c, const char *name, json_t *data)
{
	struct timespec now;
	json_t *event;

	clock_gettime(CLOCK_REALTIME, &now);
	event = json_pack("{s:s, s:{s:I, s:I}}", "event", name, "timestamp", "seconds",
		(json_int_t)now.tv_sec, "microseconds", (json_int_t)now.tv_nsec / 1000);
	if (data)
		json_object_set_new(event, "data", data);
	client_say(c, event);
}

void control_event(struct control *c, const char *name)
{
	if (c && c->negotiated && c->fd >= 0)
		event_say(c, name, NULL);
}

void control_event_panic(struct control *c)
{
	if (c && c->negotiated && c->fd >= 0)
		event_say(c, "GUEST_PANICKED", json_pack("{s:s}", "action", "run"));
}

void control_event_cause(struct control *c, const char *name, const char *cause, bool guest)
{
	if (c && c->negotiated && c->fd >= 0)
		event_say(c, name, json_pack("{s:b, s:s}", "guest", guest, "reason", cause));
}

/* ---- commands -------------------------------------------------------------------------------- */

/* The reply, with the command's id, which may be NULL. Takes the reference to what. */
static void reply_say(struct control *c, const char *kind, json_t *what, json_t *id)
{
	json_t *reply = json_pack("{s:o}", kind, what);

	if (id)
		json_object_set(reply, "id", id);
	client_say(c, reply);
}

static void reply_error(struct control *c, const char *class, const char *text, json_t *id)
{
	json_t *desc = json_string(text);

	/* Cut in the midst of a character, that is no text. */
	for (size_t n = strlen(text); !desc && n--;)
		desc = json_stringn(text, n);
	reply_say(c, "error", json_pack("{s:s, s:o}", "class", class, "desc", desc), id);
}

/* There is nothing that could be enabled. */
static json_t *negotiate(struct control *c, json_t *arguments, struct error *err)
{
	if (json_object_size(arguments) && json_array_size(json_object_get(arguments, "enable"))) {
		error_set(err, EINVAL, "there is no such capability");
		return NULL;
	}
	c->negotiated = true;
	return json_object();
}

static void command_do(struct control *c, const char *name, json_t *arguments, json_t *id)
{
	struct error err = ERROR_INIT;
	json_t *reply;

	if (!c->negotiated && strcmp(name, "qmp_capabilities") != 0) {
		reply_error(c, "CommandNotFound",
			"Expecting capabilities negotiation with 'qmp_capabilities'", id);
		return;
	}
	if (c->negotiated)
		reply = command_run(c->vmm, name, arguments, &err);
	else
		reply = negotiate(c, arguments, &err);
	if (reply)
		reply_say(c, "return", reply, id);
	else
		reply_error(c, err.kind == ERROR_USAGE ? "CommandNotFound" : "GenericError", err.text, id);
}

static void object_take(struct control *c, const char *text, size_t size)
{
	json_error_t why;
	json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why), *arguments = NULL, *id;
	const char *name = NULL;

	id = json_object_get(object, "id");
	if (!object)
		reply_error(c, "GenericError", why.text, NULL);
	else if (json_unpack_ex(object, &why, JSON_STRICT, "{s:s, s?o, s?o}", "execute", &name,
			"arguments", &arguments, "id", &id) < 0)
		reply_error(c, "GenericError", why.text, id);
	else if (arguments && !json_is_object(arguments))
		reply_error(c, "GenericError", "arguments must be an object", id);
	else
		command_do(c, name, arguments, id);
	json_decref(object);
}

/* ---- in -------------------------------------------------------------------------------------- */

/* The length of what stands first: an object up to its last brace, or a line of anything else; 0: not
 * all of it is there. */
static size_t object_length(const char *text, size_t size)
{
	bool quoted = false, object = false;
	unsigned depth = 0;

	for (size_t i = 0; i < size; i++) {
		char ch = text[i];

		if (quoted) {
			i += ch == '\\';	/* and what stands behind it */
			quoted = ch != '"';
		} else if (ch == '"') {
			quoted = object;
		} else if (ch == '{' || ch == '[') {
			object = true;
			depth++;
		} else if (object ? (ch == '}' || ch == ']') && --depth == 0 : ch == '\n') {
			return i + 1;
		}
	}
	return 0;
}

static bool is_blank(const char *text, size_t size)
{
	size_t i = 0;

	while (i < size && strchr(" \t\r\n", text[i]) && text[i])
		i++;
	return i == size;
}

static void client_parse(struct control *c)
{
	size_t size, done = 0;

	while (c->fd >= 0 && (size = object_length(c->in + done, c->in_size - done))) {
		if (!is_blank(c->in + done, size))
			object_take(c, c->in + done, size);
		done += size;
	}
	if (c->fd < 0)
		return;
	c->in_size -= done;
	memmove(c->in, c->in + done, c->in_size);
	if (c->in_size < IN_MAX)
		return;
	reply_error(c, "GenericError", "a command is too long", NULL);
	client_close(c);
}

static void on_client(void *arg, u32 events)
{
	struct control *c = arg;
	ssize_t n;

	if (events & EPOLLOUT && !client_flush(c))
		return;
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = recv(c->fd, c->in + c->in_size, IN_MAX - c->in_size, MSG_DONTWAIT);
	if (n > 0) {
		c->in_size += n;
		client_parse(c);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		client_close(c);
	}
}

static void on_listen(void *arg, u32 events)
{
	struct control *c = arg;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	c->watch = loop_add(c->loop, fd, EPOLLIN, on_client, c);
	if (c->watch < 0) {
		close(fd);
		return;
	}
	c->fd = fd;
	c->negotiated = false;
	loop_change(c->loop, c->listen_watch, 0);	/* the next waits */
	client_say(c, json_pack("{s:{s:o, s:[]}}", "QMP", "version", command_version(), "capabilities"));
}

/* ---- life ------------------------------------------------------------------------------------ */

static int control_listen(struct control *c, const char *path, struct error *err)
{
	c->listen_fd = unix_listen("--control ", path, 4, true, err);
	if (c->listen_fd < 0)
		return c->listen_fd;
	snprintf(c->path, sizeof(c->path), "%s", path);
	c->listen_watch = loop_add(c->loop, c->listen_fd, EPOLLIN, on_listen, c);
	return c->listen_watch < 0 ? error_set(err, ENOSPC, "--control: too many descriptors") : 0;
}

int control_create(struct control **out, const char *path, struct vmm *vmm, struct error *err)
{
	struct control *c;
	int ret;

	*out = NULL;
	if (!path)
		return 0;
	c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, ENOMEM, "out of memory");
	*c = (struct control){ .vmm = vmm, .loop = &vmm->loop, .listen_fd = -1, .listen_watch = -1,
		.fd = -1, .watch = -1, .in = malloc(IN_MAX) };
	ret = c->in ? control_listen(c, path, err) : error_set(err, ENOMEM, "out of memory");
	if (ret < 0)
		control_destroy(c);
	else
		*out = c;
	return ret;
}

void control_destroy(struct control *c)
{
	if (!c)
		return;
	client_close(c);
	if (c->listen_watch >= 0)
		loop_remove(c->loop, c->listen_watch);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	if (c->path[0])
		unlink(c->path);
	free(c->in);
	free(c->out);
	free(c);
}
