/* VNC with a client of libvncclient's: the picture and its changes, keys, pointer, passwords, sockets; screenshots. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/input-event-codes.h>
#include <rfb/rfbclient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "vmm/display/display.h"
#include "vmm/display/input.h"
#include "vmm/display/png.h"
#include "vmm/display/screenshot.h"
#include "vmm/display/vnc.h"
#include "vmm/display/vnc_listen.h"

#define WIDTH	320
#define HEIGHT	200
#define WAIT_S	20

struct bench {
	pthread_mutex_t lock;
	pthread_cond_t happened;
	struct display display;
	struct input input;
	struct vnc *vnc;
	char folder[64], path[96], file[96];
	u32 color;	/* what the device draws at (3, 5) */
	u32 width, height;
	unsigned key, downs, ups;
	struct input_motion motion;
	unsigned motions;
};

static struct bench b;

/* ---- the machine ----------------------------------------------------------------------------- */

static void on_update(void *arg)
{
	u32 row[1024] = { 0 };

	(void)arg;
	if (b.display.width != b.width || b.display.height != b.height)
		assert_int_equal(display_resize(&b.display, b.width, b.height), 0);
	row[3] = b.color;
	display_put_row(&b.display, 5, row);
}

static void on_key(void *arg, unsigned code, bool down)
{
	(void)arg;
	b.key = code;
	b.downs += down;
	b.ups += !down;
	pthread_cond_broadcast(&b.happened);
}

static void on_motion(void *arg, const struct input_motion *m)
{
	(void)arg;
	b.motion = *m;
	b.motions++;
	pthread_cond_broadcast(&b.happened);
}

/* Under the lock, until the counter has arrived. */
static void wait_for(const unsigned *counter, unsigned value)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	while (*counter < value)
		if (pthread_cond_timedwait(&b.happened, &b.lock, &until))
			fail_msg("no input came");
}

static void password_write(const char *text)
{
	FILE *f = fopen(b.file, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int serve(const char *address, const char *password, struct error *err)
{
	const struct vnc_config config = {
		.address = address, .password = password, .name = "test", .display = &b.display,
		.input = &b.input, .lock = &b.lock,
	};

	*err = (struct error)ERROR_INIT;
	return vnc_create(&b.vnc, &config, err);
}

static int setup(void **state)
{
	(void)state;
	memset(&b, 0, sizeof(b));
	pthread_mutex_init(&b.lock, NULL);
	pthread_cond_init(&b.happened, NULL);
	strcpy(b.folder, "/tmp/qumra-vnc-XXXXXX");
	assert_non_null(mkdtemp(b.folder));
	snprintf(b.path, sizeof(b.path), "%s/socket", b.folder);
	snprintf(b.file, sizeof(b.file), "%s/file", b.folder);
	b.width = WIDTH;
	b.height = HEIGHT;
	b.color = 0x123456;
	b.input = (struct input){ .key = on_key, .motion = on_motion };
	assert_int_equal(display_init(&b.display), 0);
	display_set_source(&b.display, on_update, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	vnc_destroy(b.vnc);
	display_destroy(&b.display);
	unlink(b.file);
	assert_int_equal(access(b.path, F_OK), -1);
	assert_int_equal(rmdir(b.folder), 0);
	return 0;
}

/* ---- the client ------------------------------------------------------------------------------ */

static const char *client_password;

static char *get_password(rfbClient *client)
{
	(void)client;
	return client_password ? strdup(client_password) : NULL;
}

static void no_log(const char *format, ...)
{
	(void)format;
}

/* NULL: it did not get in. host: a name, or a socket's path. */
static rfbClient *connect_to(const char *host, int port, const char *password)
{
	rfbClient *c = rfbGetClient(8, 3, 4);

	rfbClientLog = rfbClientErr = no_log;
	client_password = password;
	c->GetPassword = get_password;
	c->canHandleNewFBSize = TRUE;
	free(c->serverHost);
	c->serverHost = strdup(host);
	c->serverPort = port;
	return rfbInitClient(c, NULL, NULL) ? c : NULL;
}

static rfbClient *connect_unix(const char *password)
{
	return connect_to(b.path, 5900, password);
}

static void leave(rfbClient *c)
{
	free(c->frameBuffer);
	rfbClientCleanup(c);
}

/* The client's format is its own default: red lowest. */
static u32 seen(const rfbClient *c, u32 x, u32 y)
{
	const u8 *p = c->frameBuffer + 4 * ((size_t)y * c->width + x);

	return p[0] << 16 | p[1] << 8 | p[2];
}

static void expect_pixel(rfbClient *c, u32 color)
{
	time_t end = time(NULL) + WAIT_S;

	while (c->width != (int)b.width || seen(c, 3, 5) != color) {
		int n = WaitForMessage(c, 100000);

		assert_true(n >= 0);
		if (n > 0)
			assert_true(HandleRFBServerMessage(c));
		assert_true(time(NULL) < end);
	}
}

static void set_color(u32 color)
{
	pthread_mutex_lock(&b.lock);
	b.color = color;
	pthread_mutex_unlock(&b.lock);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_picture(void **state)
{
	struct error err;
	rfbClient *c, *other;
	struct stat st;

	(void)state;
	assert_int_equal(serve(NULL, NULL, &err), 0);
	assert_memory_equal(vnc_where(b.vnc), "127.0.0.1:59", 12);
	vnc_destroy(b.vnc);
	snprintf(b.path, sizeof(b.path), "unix:%s/socket", b.folder);
	assert_int_equal(serve(b.path, NULL, &err), 0);
	memmove(b.path, b.path + 5, sizeof(b.path) - 5);
	assert_int_equal(stat(b.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	c = connect_unix(NULL);
	assert_non_null(c);
	expect_pixel(c, 0x123456);
	assert_int_equal(seen(c, 4, 5), 0);
	set_color(0xFF8001);
	expect_pixel(c, 0xFF8001);
	/* Another size, and another client that came before it. */
	other = connect_unix(NULL);
	assert_non_null(other);
	expect_pixel(other, 0xFF8001);
	pthread_mutex_lock(&b.lock);
	b.width = 640;
	b.height = 100;
	b.color = 0x00FF00;
	pthread_mutex_unlock(&b.lock);
	expect_pixel(c, 0x00FF00);
	expect_pixel(other, 0x00FF00);
	assert_int_equal(c->height, 100);
	leave(c);
	set_color(0x0000FF);
	expect_pixel(other, 0x0000FF);
	leave(other);
	/* With a client in the middle of it all. */
	c = connect_unix(NULL);
	assert_non_null(c);
	vnc_destroy(b.vnc);
	b.vnc = NULL;
	leave(c);
}

static void serve_unix(const char *password)
{
	char address[128];
	struct error err;

	snprintf(address, sizeof(address), "unix:%s", b.path);
	assert_int_equal(serve(address, password, &err), 0);
}

static int connect_raw(void)
{
	const struct timeval patience = { .tv_sec = WAIT_S };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(addr.sun_path, b.path);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* The server speaks first (RFC 6143, 7.1.1). The library waited for ever for the fourth byte of such. */
static void test_early_talkers(void **state)
{
	int fd[4];
	char version[12];

	(void)state;
	serve_unix(NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = connect_raw();
		assert_int_equal(send(fd[i], "GET", i % 4, MSG_NOSIGNAL), i % 4);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		assert_int_equal(recv(fd[i], version, sizeof(version), MSG_WAITALL), sizeof(version));
		assert_memory_equal(version, "RFB 003.008\n", sizeof(version));
		close(fd[i]);
	}
}

static void test_input(void **state)
{
	rfbClient *c;

	(void)state;
	serve_unix(NULL);
	c = connect_unix(NULL);
	assert_non_null(c);
	SendKeyEvent(c, 'q', TRUE);
	pthread_mutex_lock(&b.lock);
	wait_for(&b.downs, 1);
	assert_int_equal(b.key, KEY_Q);
	pthread_mutex_unlock(&b.lock);
	SendKeyEvent(c, 'q', FALSE);
	SendKeyEvent(c, 0x12345678, TRUE);
	SendPointerEvent(c, 100, 50, 0);
	SendPointerEvent(c, 107, 47, rfbButton1Mask | rfbButton5Mask);
	pthread_mutex_lock(&b.lock);
	wait_for(&b.motions, 2);
	assert_int_equal(b.ups, 1);
	assert_int_equal(b.downs, 1);
	assert_int_equal(b.motion.dx, 7);
	assert_int_equal(b.motion.dy, -3);
	assert_int_equal(b.motion.wheel, 1);
	assert_int_equal(b.motion.buttons, INPUT_LEFT);
	pthread_mutex_unlock(&b.lock);
	/* A client that goes lets go of everything. */
	SendKeyEvent(c, 0xFFE1, TRUE);
	pthread_mutex_lock(&b.lock);
	wait_for(&b.downs, 2);
	pthread_mutex_unlock(&b.lock);
	leave(c);
	pthread_mutex_lock(&b.lock);
	wait_for(&b.ups, 2);
	assert_int_equal(b.key, KEY_LEFTSHIFT);
	wait_for(&b.motions, 3);
	assert_int_equal(b.motion.buttons, 0);
	pthread_mutex_unlock(&b.lock);
}

static void test_password(void **state)
{
	struct error err;
	rfbClient *c;

	(void)state;
	password_write("sesame42\nmore\n");
	serve_unix(b.file);
	assert_null(connect_unix("sesame43"));
	assert_null(connect_unix("s"));
	c = connect_unix("sesame42");
	assert_non_null(c);
	expect_pixel(c, 0x123456);
	leave(c);
	vnc_destroy(b.vnc);
	password_write("ninechars\n");
	assert_true(serve(NULL, b.file, &err) < 0);
	assert_non_null(strstr(err.text, "1 to 8"));
	password_write("\n");
	assert_true(serve(NULL, b.file, &err) < 0);
	assert_true(serve(NULL, "/nonexistent", &err) < 0);
	assert_non_null(strstr(err.text, "/nonexistent"));
}

static void test_addresses(void **state)
{
	static const char *const good[] = { "5901", ":1", "127.0.0.1:5907", "[::1]:5900", "unix:/x" };
	static const char *const bad[] = { "", "0", "65536", ":100", ":", "host:", "unix:", "1.2.3.4:x" };
	struct vnc_listener one, two;
	struct error err = ERROR_INIT;
	char address[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(vnc_address_check(good[i], false, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(vnc_address_check(bad[i], true, &err) < 0);
	err = (struct error)ERROR_INIT;
	assert_true(vnc_address_check("0.0.0.0:5900", false, &err) < 0);
	assert_non_null(strstr(err.text, "password"));
	assert_int_equal(vnc_address_check("0.0.0.0:5900", true, &err), 0);
	/* The second takes the next port; a socket in use is left alone, a dead one replaced. */
	assert_int_equal(vnc_listen(&one, NULL, &err), 0);
	assert_int_equal(vnc_listen(&two, NULL, &err), 0);
	assert_string_not_equal(one.text, two.text);
	vnc_unlisten(&two);
	err = (struct error)ERROR_INIT;
	assert_true(vnc_listen(&two, strrchr(one.text, ':') + 1, &err) < 0);
	vnc_unlisten(&two);
	vnc_unlisten(&one);
	snprintf(address, sizeof(address), "unix:%s", b.path);
	err = (struct error)ERROR_INIT;
	assert_int_equal(vnc_listen(&one, address, &err), 0);
	assert_true(vnc_listen(&two, address, &err) < 0);
	assert_non_null(strstr(err.text, "in use"));
	close(one.fd);
	assert_int_equal(vnc_listen(&one, address, &err), 0);
	vnc_unlisten(&one);
	password_write("no socket");
	snprintf(address, sizeof(address), "unix:%s", b.file);
	err = (struct error)ERROR_INIT;
	assert_true(vnc_listen(&one, address, &err) < 0);
	assert_non_null(strstr(err.text, "no socket"));
}

/* ---- screenshots ----------------------------------------------------------------------------- */

static u32 big_endian(const u8 *p)
{
	return (u32)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

/* One that knows what png.c may write, and no more. */
static void check_png(const u8 *png, size_t size, const u32 *pixel, u32 width, u32 height)
{
	uLongf raw = (1 + 3 * (size_t)width) * height;
	u8 *rows = malloc(raw), *at = rows;
	size_t idat = 8 + 25;

	assert_memory_equal(png, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16);
	assert_int_equal(big_endian(png + 16), width);
	assert_int_equal(big_endian(png + 20), height);
	assert_memory_equal(png + 24, "\x08\x02\0\0\0", 5);
	assert_int_equal(big_endian(png + 29), crc32(0, png + 12, 17));
	assert_memory_equal(png + idat + 4, "IDAT", 4);
	assert_int_equal(size, idat + 12 + big_endian(png + idat) + 12);
	assert_int_equal(big_endian(png + size - 16), crc32(0, png + idat + 4, big_endian(png + idat) + 4));
	assert_memory_equal(png + size - 12, "\0\0\0\0IEND\xAE\x42\x60\x82", 12);
	assert_int_equal(uncompress(rows, &raw, png + idat + 8, big_endian(png + idat)), Z_OK);
	assert_int_equal(raw, (1 + 3 * (size_t)width) * height);
	for (u32 y = 0; y < height; y++) {
		assert_int_equal(*at++, 2);
		for (u32 x = 0; x < width; x++, at += 3) {
			const u8 *up = y ? at - 3 * width - 1 : (const u8 *)"\0\0\0";

			for (unsigned i = 0; i < 3; i++)
				at[i] += up[i];
			assert_int_equal(at[0] << 16 | at[1] << 8 | at[2], pixel[y * width + x]);
		}
	}
	free(rows);
}

static void test_png(void **state)
{
	u32 pixel[7 * 5];
	u8 *png;
	size_t size;

	(void)state;
	for (u32 i = 0; i < 35; i++)
		pixel[i] = i * 0x123457 & 0xFFFFFF;
	assert_int_equal(png_make(pixel, 7, 5, &png, &size), 0);
	check_png(png, size, pixel, 7, 5);
	free(png);
}

static u64 test_clock(void *arg)
{
	return *(u64 *)arg;
}

static void no_program(void *arg, u64 deadline)
{
	(void)arg;
	(void)deadline;
}

static void check_file(void)
{
	static u8 data[100000];
	FILE *f = fopen(b.file, "r");
	size_t n = f ? fread(data, 1, sizeof(data), f) : 0;

	assert_non_null(f);
	fclose(f);
	check_png(data, n, b.display.pixel, WIDTH, HEIGHT);
	unlink(b.file);
}

static void test_screenshot(void **state)
{
	u64 now = 1000;
	struct timer_queue timers = { .clock = test_clock, .program = no_program, .arg = &now };
	struct screenshot s;
	struct error err = ERROR_INIT;

	(void)state;
	assert_true(screenshot_init(&s, &b.display, &timers, "/nonexistent/x.png", 0, &err) < 0);
	err = (struct error)ERROR_INIT;
	assert_true(screenshot_init(&s, &b.display, &timers, b.folder, 0, &err) < 0);
	err = (struct error)ERROR_INIT;
	assert_int_equal(screenshot_init(&s, &b.display, &timers, b.file, 2, &err), 0);
	assert_int_equal(access(b.file, F_OK), -1);
	assert_int_equal(screenshot_take(&s, &err), 0);
	assert_int_equal(b.display.pixel[5 * WIDTH + 3], 0x123456);
	check_file();
	now += 1999999999;
	timer_queue_run(&timers);
	assert_int_equal(access(b.file, F_OK), -1);
	now += 1;
	timer_queue_run(&timers);
	check_file();
	now += 2000000000;
	timer_queue_run(&timers);
	check_file();
	screenshot_destroy(&s);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_picture), TEST(test_early_talkers), TEST(test_input), TEST(test_password),
		TEST(test_addresses), TEST(test_png), TEST(test_screenshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
