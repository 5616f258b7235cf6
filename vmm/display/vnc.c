/* VNC: see vnc.h. */
#include "vmm/display/vnc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/input-event-codes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "vmm/display/vnc_library.h"
#include "vmm/display/vnc_listen.h"

#define CLIENTS_MAX	8
#define FRAME_MS	33
#define CLIENT_WAIT_MS	3000	/* for the rest of a message, or for room to send */
#define PASSWORD_MAX	8	/* RFC 6143, 7.2.2: DES takes no more */

/* RFC 6143, 7.5.5 */
#define RFB_LEFT	BIT(0)
#define RFB_MIDDLE	BIT(1)
#define RFB_RIGHT	BIT(2)
#define RFB_WHEEL_UP	BIT(3)
#define RFB_WHEEL_DOWN	BIT(4)

struct vnc {
	struct vnc_library lib;
	struct vnc_listener listener;
	struct vnc_config config;
	rfbScreenInfoPtr screen;
	u32 *frame;		/* what clients get: red and blue the other way round */
	u32 width, height;
	struct display_view view;
	char password[PASSWORD_MAX + 1];
	char *passwords[2];	/* the list that the library wants */
	pthread_t thread;
	bool started;
	int stop_fd;

	/* The sockets, so that stop finds them under way. */
	pthread_mutex_t clients_lock;
	int client[CLIENTS_MAX];
	unsigned clients;

	/* What the clients hold down, and where the pointer is. */
	bool down[KEY_CNT];
	int x, y, mask;
	bool placed;
};

/* ---- input (VNC's thread, without the lock) -------------------------------------------------- */

static void vnc_key(struct vnc *vnc, unsigned key, bool down)
{
	vnc->down[key] = down;
	pthread_mutex_lock(vnc->config.lock);
	input_key(vnc->config.input, key, down);
	pthread_mutex_unlock(vnc->config.lock);
}

static void on_key(rfbBool down, rfbKeySym keysym, rfbClientPtr cl)
{
	struct vnc *vnc = cl->screen->screenData;
	unsigned key = keysym_to_key(keysym);

	if (key && !cl->viewOnly)
		vnc_key(vnc, key, down);
}

static void vnc_release_keys(struct vnc *vnc)
{
	for (unsigned key = 0; key < KEY_CNT; key++)
		if (vnc->down[key])
			vnc_key(vnc, key, false);
}

static void on_release_all(rfbClientPtr cl)
{
	vnc_release_keys(cl->screen->screenData);
}

static u32 buttons(int mask)
{
	return (mask & RFB_LEFT ? INPUT_LEFT : 0) | (mask & RFB_RIGHT ? INPUT_RIGHT : 0) |
	       (mask & RFB_MIDDLE ? INPUT_MIDDLE : 0);
}

/*
 * A viewer knows places. A tablet takes them; for a mouse they become motion, which begins at the first
 * place.
 */
static void vnc_pointer(struct vnc *vnc, int mask, int x, int y)
{
	int pressed = mask & ~vnc->mask;
	const struct input_motion motion = {
		.dx = vnc->placed ? x - vnc->x : 0,
		.dy = vnc->placed ? y - vnc->y : 0,
		.wheel = (pressed & RFB_WHEEL_DOWN ? 1 : 0) - (pressed & RFB_WHEEL_UP ? 1 : 0),
		.buttons = buttons(mask),
	};
	const struct input_place place = {
		.x = x, .y = y, .width = vnc->width, .height = vnc->height,
		.wheel = motion.wheel, .buttons = motion.buttons,
	};

	vnc->x = x;
	vnc->y = y;
	vnc->mask = mask;
	vnc->placed = true;
	pthread_mutex_lock(vnc->config.lock);
	if (!input_place(vnc->config.input, &place))
		input_motion(vnc->config.input, &motion);
	pthread_mutex_unlock(vnc->config.lock);
}

static void on_pointer(int mask, int x, int y, rfbClientPtr cl)
{
	struct vnc *vnc = cl->screen->screenData;

	if (!cl->viewOnly && x >= 0 && y >= 0 && x < DISPLAY_WIDTH_MAX && y < DISPLAY_HEIGHT_MAX)
		vnc_pointer(vnc, mask, x, y);
}

/* ---- clients --------------------------------------------------------------------------------- */

static void client_forget(struct vnc *vnc, int fd)
{
	pthread_mutex_lock(&vnc->clients_lock);
	for (unsigned i = 0; i < vnc->clients; i++)
		if (vnc->client[i] == fd)
			vnc->client[i--] = vnc->client[--vnc->clients];
	pthread_mutex_unlock(&vnc->clients_lock);
}

/* The library has closed the socket by now, so its number is kept apart. */
static void on_gone(rfbClientPtr cl)
{
	struct vnc *vnc = cl->screen->screenData;

	client_forget(vnc, (int)(intptr_t)cl->clientData - 1);
	vnc_release_keys(vnc);
	vnc_pointer(vnc, 0, vnc->x, vnc->y);
	vnc->placed = false;
}

static enum rfbNewClientAction on_new(rfbClientPtr cl)
{
	cl->clientData = (void *)(intptr_t)(cl->sock + 1);
	cl->clientGoneHook = on_gone;
	return RFB_CLIENT_ACCEPT;
}

/* Known before the library has it: it may fail in its first write. */
static bool client_remember(struct vnc *vnc, int fd)
{
	bool room;

	pthread_mutex_lock(&vnc->clients_lock);
	room = vnc->clients < CLIENTS_MAX;
	if (room)
		vnc->client[vnc->clients++] = fd;
	pthread_mutex_unlock(&vnc->clients_lock);
	return room;
}

#define VERSION_SIZE	12	/* RFC 6143, 7.1.1: the server's first message */

/*
 * The library first peeks for what WebSockets begin with: it waits 100 ms for each client, and for
 * ever (in a busy loop) for one that sends less than 4 bytes. So it meets a socket pair of ours that
 * says "RFB ", and the client takes that one's place, by number, when the library has sent its
 * version there.
 */
static void client_greet(struct vnc *vnc, int client, int library, int ours)
{
	u8 version[VERSION_SIZE];
	int one = 1;

	if (send(ours, "RFB ", 4, MSG_NOSIGNAL) != 4 || !client_remember(vnc, library)) {
		close(library);
		return;
	}
	if (!vnc->lib.new_client(vnc->screen, library)) {	/* it has closed the socket */
		client_forget(vnc, library);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* What fails here the library finds, as the end of its client. */
	if (recv(ours, version, sizeof(version), MSG_DONTWAIT) == sizeof(version) &&
	    fcntl(client, F_SETFL, O_NONBLOCK) == 0 && dup3(client, library, O_CLOEXEC) >= 0)
		send(client, version, sizeof(version), MSG_NOSIGNAL);
}

static void vnc_accept(struct vnc *vnc)
{
	int client = accept4(vnc->listener.fd, NULL, NULL, SOCK_CLOEXEC), pair[2];

	if (client < 0)
		return;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
		/* The library uses select(). */
		if (pair[0] < FD_SETSIZE)
			client_greet(vnc, client, pair[0], pair[1]);
		else
			close(pair[0]);
		close(pair[1]);
	}
	close(client);
}

/* ---- the picture ----------------------------------------------------------------------------- */

static u32 swapped(u32 pixel)
{
	return (pixel & 0xFF) << 16 | (pixel & 0xFF00) | (pixel >> 16 & 0xFF);
}

static void frame_copy(struct vnc *vnc, const struct display_rect *r)
{
	for (u32 y = r->y; y < r->y + r->height; y++) {
		const u32 *from = vnc->config.display->pixel + (size_t)y * vnc->width;
		u32 *to = vnc->frame + (size_t)y * vnc->width;

		for (u32 x = r->x; x < r->x + r->width; x++)
			to[x] = swapped(from[x]);
	}
}

/* Under the machine's lock. The old frame is returned, for when the library has let go of it. */
static u32 *frame_fit(struct vnc *vnc)
{
	const struct display *d = vnc->config.display;
	u32 *old = vnc->frame, *frame;

	if (!display_view_resized(&vnc->view) && vnc->width == d->width && vnc->height == d->height)
		return NULL;
	frame = calloc((size_t)d->width * d->height, sizeof(*frame));
	if (!frame)
		return NULL;
	vnc->frame = frame;
	vnc->width = d->width;
	vnc->height = d->height;
	return old;
}

#define RECTS_MAX 64	/* an update; the rest comes with the next */

static void vnc_refresh(struct vnc *vnc)
{
	struct display_rect rect[RECTS_MAX];
	unsigned n = 0;
	u32 *old;

	pthread_mutex_lock(vnc->config.lock);
	display_refresh(vnc->config.display);
	old = frame_fit(vnc);
	/* No memory for the new size: the old picture stays. */
	if (vnc->width == vnc->config.display->width && vnc->height == vnc->config.display->height)
		while (n < RECTS_MAX && display_view_next(&vnc->view, &rect[n]))
			frame_copy(vnc, &rect[n++]);
	pthread_mutex_unlock(vnc->config.lock);
	if (old) {
		vnc->lib.new_frame(vnc->screen, (char *)vnc->frame, vnc->width,
			vnc->height, 8, 3, 4);
		free(old);
	}
	for (unsigned i = 0; i < n; i++)
		vnc->lib.mark(vnc->screen, rect[i].x, rect[i].y,
			rect[i].x + rect[i].width, rect[i].y + rect[i].height);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* False: stop. */
static bool vnc_wait(struct vnc *vnc)
{
	struct pollfd p[2 + CLIENTS_MAX] = {
		{ .fd = vnc->stop_fd, .events = POLLIN }, { .fd = vnc->listener.fd, .events = POLLIN } };
	unsigned n = 2;

	for (unsigned i = 0; i < vnc->clients; i++)
		p[n++] = (struct pollfd){ .fd = vnc->client[i], .events = POLLIN };
	if (poll(p, n, vnc->clients ? FRAME_MS : -1) < 0 && errno != EINTR)
		return false;
	if (p[0].revents)
		return false;
	if (p[1].revents)
		vnc_accept(vnc);
	return true;
}

static void *vnc_run(void *arg)
{
	struct vnc *vnc = arg;
	u64 due = 0;

	pthread_setname_np(pthread_self(), "vnc");
	while (vnc_wait(vnc)) {
		/* However much a client has to say. */
		if (vnc->clients && clock_monotonic_ns() >= due) {
			vnc_refresh(vnc);
			due = clock_monotonic_ns() + FRAME_MS * 1000000ULL;
		}
		vnc->lib.process(vnc->screen, 0);
	}
	return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int password_read(struct vnc *vnc, const char *file, struct error *err)
{
	char text[64];
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n < 0)
		error_set(err, errno, "--display: password: %s: %s", file, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -EIO;
	text[n] = 0;
	text[strcspn(text, "\r\n")] = 0;
	if (!text[0] || strlen(text) > PASSWORD_MAX)
		return error_set(err, EINVAL, "--display: password: %s: its first line must have 1 to %d "
			"characters, which is what VNC takes", file, PASSWORD_MAX);
	strcpy(vnc->password, text);
	return 0;
}

static int screen_make(struct vnc *vnc, struct error *err)
{
	rfbScreenInfoPtr s;

	vnc->width = vnc->config.display->width;
	vnc->height = vnc->config.display->height;
	vnc->frame = calloc((size_t)vnc->width * vnc->height, sizeof(*vnc->frame));
	s = vnc->lib.get_screen(NULL, NULL, vnc->width, vnc->height, 8, 3, 4);
	if (!s || !vnc->frame)
		return error_set(err, ENOMEM, "out of memory");
	vnc->screen = s;
	s->screenData = vnc;
	s->frameBuffer = (char *)vnc->frame;
	s->desktopName = vnc->config.name;
	s->port = s->ipv6port = 0;	/* it listens nowhere itself */
	s->maxClientWait = CLIENT_WAIT_MS;
	s->alwaysShared = TRUE;
	s->cursor = NULL;		/* the guest draws its own */
	s->kbdAddEvent = on_key;
	s->kbdReleaseAllKeys = on_release_all;
	s->ptrAddEvent = on_pointer;
	s->newClientHook = on_new;
	if (vnc->password[0]) {
		vnc->passwords[0] = vnc->password;
		s->authPasswdData = vnc->passwords;
		s->passwordCheck = vnc->lib.check_password;
	}
	vnc->lib.init(s);
	return 0;
}

static int vnc_start(struct vnc *vnc, struct error *err)
{
	int ret;

	pthread_mutex_lock(vnc->config.lock);
	ret = display_attach(vnc->config.display, &vnc->view);
	pthread_mutex_unlock(vnc->config.lock);
	if (ret < 0)
		return error_set(err, -ret, "--display vnc: %s", strerror(-ret));
	ret = pthread_create(&vnc->thread, NULL, vnc_run, vnc);
	if (ret)
		return error_set(err, ret, "cannot start a thread: %s", strerror(ret));
	vnc->started = true;
	return 0;
}

int vnc_create(struct vnc **out, const struct vnc_config *config, struct error *err)
{
	struct vnc *vnc = calloc(1, sizeof(*vnc));
	int ret;

	*out = NULL;
	if (!vnc)
		return error_set(err, ENOMEM, "out of memory");
	vnc->config = *config;
	vnc->listener.fd = vnc->stop_fd = -1;
	pthread_mutex_init(&vnc->clients_lock, NULL);
	if ((ret = vnc_library_open(&vnc->lib, err)) < 0 ||
	    (config->password && (ret = password_read(vnc, config->password, err)) < 0))
		goto fail;
	vnc->lib.log_enable(FALSE);
	vnc->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (vnc->stop_fd < 0)
		ret = error_set(err, errno, "eventfd: %s", strerror(errno));
	if (ret < 0 || (ret = screen_make(vnc, err)) < 0 ||
	    (ret = vnc_listen(&vnc->listener, config->address, err)) < 0 ||
	    (ret = vnc_start(vnc, err)) < 0)
		goto fail;
	*out = vnc;
	return 0;
fail:
	vnc_destroy(vnc);
	return ret;
}

const char *vnc_where(const struct vnc *vnc)
{
	return vnc->listener.text;
}

/* A thread that waits for a client finds the socket dead. */
static void vnc_stop(struct vnc *vnc)
{
	u64 one = 1;

	if (!vnc->started)
		return;
	if (write(vnc->stop_fd, &one, sizeof(one)) < 0)
		log_line("vnc: %s", strerror(errno));
	pthread_mutex_lock(&vnc->clients_lock);
	for (unsigned i = 0; i < vnc->clients; i++)
		shutdown(vnc->client[i], SHUT_RDWR);
	pthread_mutex_unlock(&vnc->clients_lock);
	pthread_join(vnc->thread, NULL);
	vnc->started = false;
}

void vnc_destroy(struct vnc *vnc)
{
	if (!vnc)
		return;
	vnc_stop(vnc);
	vnc_unlisten(&vnc->listener);
	if (vnc->screen) {
		vnc->lib.shutdown(vnc->screen, TRUE);
		vnc->lib.cleanup(vnc->screen);
	}
	if (vnc->view.display) {
		pthread_mutex_lock(vnc->config.lock);
		display_detach(&vnc->view);
		pthread_mutex_unlock(vnc->config.lock);
	}
	if (vnc->stop_fd >= 0)
		close(vnc->stop_fd);
	pthread_mutex_destroy(&vnc->clients_lock);
	free(vnc->frame);
	free(vnc);
}
