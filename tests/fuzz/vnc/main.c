/*
 * Fuzz of VNC's client messages, against the real server on its thread: clients that shake hands and
 * then send what looks like messages (RFC 6143, 7.5, and the extensions that libvncserver knows), cut
 * short, with wild lengths, or noise, before or after the handshake. Nothing may crash or hang: after each
 * batch a client that behaves must get its first picture, and whatever was pressed must be up again when all
 * have left. vnc [clients [seed]]
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vmm/display/display.h"
#include "vmm/display/input.h"
#include "vmm/display/vnc.h"

#define BATCH		8
/* The server may wait 8 s for each client of a batch: for the rest of a message, and for room. */
#define PATIENCE_S	100
#define KEYS		0x300

static u64 rng;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct display display;
static bool down[KEYS];
static char path[108];

static u32 next(void)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return rng >> 32;
}

static int fail(const char *what)
{
	fprintf(stderr, "FAIL: %s\n", what);
	return 1;
}

/* ---- the machine ----------------------------------------------------------------------------- */

static void on_key(void *arg, unsigned code, bool is_down)
{
	(void)arg;
	if (code >= KEYS)
		abort();
	down[code] = is_down;
}

static void on_motion(void *arg, const struct input_motion *m)
{
	(void)arg;
	if (m->buttons > 7 || abs(m->dx) > DISPLAY_WIDTH_MAX || abs(m->dy) > DISPLAY_HEIGHT_MAX)
		abort();
}

/* A picture that changes in shape, too. */
static void on_update(void *arg)
{
	static u32 row[DISPLAY_WIDTH_MAX], frame;

	(void)arg;
	if (frame++ % 20 == 0)
		display_resize(&display, 8 * (1 + frame % 90), 1 + frame % 300);
	row[frame % display.width] = frame * 0x10203;
	display_put_row(&display, frame % display.height, row);
}

/* ---- clients --------------------------------------------------------------------------------- */

static int client_open(void)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool client_read(int fd, void *data, size_t size)
{
	return recv(fd, data, size, MSG_WAITALL) == (ssize_t)size;
}

static bool client_send(int fd, const void *data, size_t size)
{
	return send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool client_shake(int fd, u16 *width, u16 *height)
{
	u8 buf[256], types;
	u32 name;

	if (!client_read(fd, buf, 12) || !client_send(fd, "RFB 003.008\n", 12) ||
	    !client_read(fd, &types, 1) || !types || !client_read(fd, buf, types) ||
	    !client_send(fd, "\x01", 1) || !client_read(fd, buf, 4) || !client_send(fd, "\x01", 1) ||
	    !client_read(fd, buf, 24))
		return false;
	*width = buf[0] << 8 | buf[1];
	*height = buf[2] << 8 | buf[3];
	name = buf[23];
	return client_read(fd, buf, name);
}

/* A whole picture, raw. Updates of other shapes do not come without being asked for. */
static bool client_behaves(void)
{
	u8 request[10] = { 3 }, reply[4];
	u16 width, height;
	int fd = client_open();
	bool fine = fd >= 0 && client_shake(fd, &width, &height);

	if (fine) {
		request[6] = width >> 8;
		request[7] = width;
		request[8] = height >> 8;
		request[9] = height;
		fine = client_send(fd, request, sizeof(request)) && client_read(fd, reply, sizeof(reply)) &&
		       reply[0] == 0;
	}
	if (fd >= 0)
		close(fd);
	return fine;
}

/* ---- noise ----------------------------------------------------------------------------------- */

/* Type and length of what there is; 0: any. */
static const struct { u8 type, size; } messages[] = {
	{ 0, 20 }, { 2, 8 }, { 3, 10 }, { 4, 8 }, { 5, 6 }, { 6, 12 }, { 7, 12 }, { 8, 4 }, { 9, 4 },
	{ 10, 4 }, { 11, 8 }, { 15, 4 }, { 248, 8 }, { 250, 4 }, { 251, 24 }, { 255, 12 },
};

/* Encodings that switch something in the server. */
static const s32 encodings[] = { 0, 1, 2, 4, 5, 6, 7, 8, 9, 15, 16, 17, -223, -224, -239, -240, -260, -305,
	-307, -308, -32, -23, -256, -247, (s32)0xFFFF8000, (s32)0xFFFFFFFE, 0x574D5664, -1063131698 };

static size_t make_encodings(u8 *p)
{
	u16 n = 1 + next() % 12;

	p[0] = 2;
	p[1] = 0;
	p[2] = next() % 40 ? 0 : next();
	p[3] = n;
	for (unsigned i = 0; i < n; i++) {
		u32 e = encodings[next() % ARRAY_SIZE(encodings)];

		for (unsigned b = 0; b < 4; b++)
			p[4 + 4 * i + b] = e >> (24 - 8 * b);
	}
	return 4 + 4 * n;
}

/* Mostly formats that can be: others end the connection at once. */
static size_t make_format(u8 *p)
{
	static const u8 depths[] = { 8, 16, 32, 24, 1 };

	for (unsigned i = 0; i < 20; i++)
		p[i] = next() % 3 ? 0 : next();
	p[0] = 0;
	p[4] = depths[next() % 5];
	p[5] = next() % 33;
	p[7] = next() % 4 != 0;
	return 20;
}

static size_t make_message(u8 *p)
{
	unsigned kind = next() % ARRAY_SIZE(messages);

	if (kind == 0)
		return make_format(p);
	if (kind == 1)
		return make_encodings(p);
	for (unsigned i = 0; i < messages[kind].size; i++)
		p[i] = next() % 3 ? next() % 4 : next();
	p[0] = next() % 30 ? messages[kind].type : next();
	if (p[0] == 6)	/* cut text: the length's upper bytes, small more often than not */
		p[4] = p[5] = next() % 8 ? 0 : next();
	return messages[kind].size;
}

static void client_noise(int fd)
{
	u8 buf[512];
	u16 width, height;

	/* A few never get through the handshake. */
	if (next() % 6 == 0) {
		for (unsigned i = 0; i < 64; i++)
			buf[i] = next();
		if (next() & 1)
			memcpy(buf, "RFB 003.003\n", 12);
		client_send(fd, buf, 1 + next() % 64);
		return;
	}
	if (!client_shake(fd, &width, &height))
		return;
	for (unsigned n = next() % 40; n; n--) {
		size_t size = make_message(buf), cut = next() % 50 ? size : next() % size;

		if (!client_send(fd, buf, cut) || cut < size)
			return;
	}
}

static bool batch(void)
{
	int fd[BATCH];
	bool fine;

	for (unsigned i = 0; i < BATCH - 1; i++)
		fd[i] = client_open();
	for (unsigned i = 0; i < BATCH - 1; i++) {
		if (fd[i] < 0)
			continue;
		client_noise(fd[i]);
		/* Few wait for the server's patience with half a message: it is seconds. */
		if (next() % 64)
			shutdown(fd[i], SHUT_WR);
	}
	fine = client_behaves();
	for (unsigned i = 0; i < BATCH - 1; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	return fine;
}

/* The server learns of the last close in its own time. */
static bool all_released(void)
{
	time_t end = time(NULL) + PATIENCE_S;
	bool any = true;

	while (any && time(NULL) < end) {
		pthread_mutex_lock(&lock);
		any = memchr(down, true, sizeof(down));
		pthread_mutex_unlock(&lock);
		if (any)
			poll(NULL, 0, 10);
	}
	return !any;
}

static int run(u64 clients)
{
	for (u64 n = 0; n < clients; n += BATCH)
		if (!batch())
			return fail("a client that behaves was not served");
	return all_released() ? 0 : fail("a key hangs");
}

int main(int argc, char **argv)
{
	u64 clients = argc > 1 ? strtoull(argv[1], NULL, 0) : 400;
	const struct input input = { .key = on_key, .motion = on_motion };
	char folder[] = "/tmp/qumra-vnc-XXXXXX", address[128];
	const struct vnc_config config = { .address = address, .name = "fuzz", .display = &display, .input = &input,
		.lock = &lock };
	struct error err = ERROR_INIT;
	struct vnc *vnc;
	int ret;

	rng = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	printf("seed %llu, %llu clients\n", (unsigned long long)rng, (unsigned long long)clients);
	if (!mkdtemp(folder) || display_init(&display) < 0)
		return fail("cannot start");
	snprintf(path, sizeof(path), "%s/vnc", folder);
	snprintf(address, sizeof(address), "unix:%s", path);
	display_set_source(&display, on_update, NULL);
	if (vnc_create(&vnc, &config, &err) < 0)
		return fail(err.text);
	ret = run(clients);
	vnc_destroy(vnc);
	display_destroy(&display);
	rmdir(folder);
	return ret;
}
