/*
 * The guest's side of a screen, keyboard and mouse or tablet: prints what comes in as input events of devices
 * given as WORD=NAME, and shows a hardware cursor when C was pressed. Ends with Enter.
 *
 * The structures are those of Linux's DRM interface (drm_mode.h), which is not installed everywhere.
 */
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CURSOR		64
#define CURSOR_X	37
#define CURSOR_Y	(-9)
#define CURSOR_PIXEL	0x80402010	/* half of what is below */
#define DEVICES		4
#define CURSOR_SET	3		/* picture and place */

struct resources {
	uint64_t fbs, crtcs, connectors, encoders;
	uint32_t fb_count, crtc_count, connector_count, encoder_count, size[4];
};

struct create_dumb {
	uint32_t height, width, bpp, flags, handle, pitch;
	uint64_t size;
};

struct map_dumb {
	uint32_t handle, pad;
	uint64_t offset;
};

struct cursor {
	uint32_t flags, crtc;
	int32_t x, y;
	uint32_t width, height, handle;
	int32_t hot_x, hot_y;
};

#define GET_RESOURCES	_IOWR('d', 0xA0, struct resources)
#define CREATE_DUMB	_IOWR('d', 0xB2, struct create_dumb)
#define MAP_DUMB	_IOWR('d', 0xB3, struct map_dumb)
#define SET_CURSOR	_IOWR('d', 0xBB, struct cursor)

static int cursor_show(void)
{
	int fd = open("/dev/dri/card0", O_RDWR);
	struct create_dumb dumb = { CURSOR, CURSOR, 32, 0, 0, 0, 0 };
	struct map_dumb map = { 0, 0, 0 };
	uint32_t crtc[4], *pixel;
	struct resources res = { .crtcs = (uintptr_t)crtc, .crtc_count = 4 };
	struct cursor c = { CURSOR_SET, 0, CURSOR_X, CURSOR_Y, CURSOR, CURSOR, 0, 0, 0 };

	if (ioctl(fd, GET_RESOURCES, &res) < 0 || ioctl(fd, CREATE_DUMB, &dumb) < 0)
		return -1;
	map.handle = c.handle = dumb.handle;
	if (ioctl(fd, MAP_DUMB, &map) < 0)
		return -1;
	pixel = mmap(NULL, dumb.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, map.offset);
	if (pixel == MAP_FAILED)
		return -1;
	for (int i = 0; i < CURSOR * CURSOR; i++)
		pixel[i] = CURSOR_PIXEL;
	c.crtc = crtc[0];
	return ioctl(fd, SET_CURSOR, &c);
}

/* False: the last one. */
static int event_print(const char *name, const struct input_event *e)
{
	printf("EVENT %s %d %d %d\n", name, e->type, e->code, e->value);
	if (e->type != EV_KEY || e->value)
		return 1;
	if (e->code == KEY_C)
		printf(cursor_show() < 0 ? "CHECK BAD cursor\n" : "READY cursor\n");
	return e->code != KEY_ENTER;
}

/* The device of this name; its driver may come to be meanwhile, or finish looking what it is. */
static int input_open(const char *wanted)
{
	char path[32], name[64];

	for (unsigned i = 0;; i = (i + 1) % 32) {
		int fd;

		snprintf(path, sizeof(path), "/dev/input/event%u", i);
		fd = open(path, O_RDWR);
		memset(name, 0, sizeof(name));
		if (fd >= 0 && ioctl(fd, EVIOCGNAME(63), name) > 0 && strcmp(name, wanted) == 0)
			return fd;
		if (fd >= 0)
			close(fd);
	}
}

int main(int argc, char **argv)
{
	struct pollfd p[DEVICES];
	struct input_event e;
	int n = argc - 1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < n && n <= DEVICES; i++) {
		char *name = strchr(argv[i + 1], '=');

		*name++ = 0;
		p[i] = (struct pollfd){ .fd = input_open(name), .events = POLLIN };
	}
	printf("READY events\n");
	while (poll(p, n, -1) > 0)
		for (int i = 0; i < n; i++)
			if (p[i].revents && read(p[i].fd, &e, sizeof(e)) == sizeof(e) &&
			    !event_print(argv[i + 1], &e))
				return 0;
	return 1;
}
