/*
 * Character devices over a real event loop: pipes, files, sockets, pseudo-terminals, and the
 * terminal that must come back. The front end is played by this file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/chardev/chardev.h"

struct bench {
	pthread_mutex_t lock;
	struct loop loop;
	struct chardev cd;
	struct error err;
	size_t room;
	u8 in[8192];
	size_t in_len;
	unsigned drained, breaks, quits;
	char dir[32];
	/* loop_run() returns when this holds. */
	bool (*until)(struct bench *b);
};

static size_t front_room(void *arg)
{
	return ((struct bench *)arg)->room;
}

static void front_receive(void *arg, const u8 *data, size_t n)
{
	struct bench *b = arg;

	assert_true(n <= b->room);
	b->room -= n;
	memcpy(b->in + b->in_len, data, n);
	b->in_len += n;
}

static void front_drained(void *arg)
{
	((struct bench *)arg)->drained++;
}

static void front_break(void *arg)
{
	((struct bench *)arg)->breaks++;
}

static void on_quit(void *arg)
{
	((struct bench *)arg)->quits++;
}

static int setup(void **state)
{
	static struct bench b;
	struct error err = ERROR_INIT;

	memset(&b, 0, sizeof(b));
	pthread_mutex_init(&b.lock, NULL);
	b.room = sizeof(b.in);
	strcpy(b.dir, "/tmp/qumra-test-XXXXXX");
	if (!mkdtemp(b.dir) || loop_init(&b.loop, &b.lock, &err) < 0)
		return -1;
	*state = &b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	chardev_destroy(&b->cd);
	loop_destroy(&b->loop);
	rmdir(b->dir);
	return 0;
}

static int open_spec(struct bench *b, const char *spec)
{
	const struct chardev_events events = { .quit = on_quit, .arg = b };
	const struct chardev_front front = {
		front_room, front_receive, front_drained, front_break, b};
	int ret;

	b->err = (struct error)ERROR_INIT;
	ret = chardev_open(&b->cd, "--serial ", spec, &b->loop, &events, &b->err);
	if (ret == 0)
		chardev_attach(&b->cd, &front);
	return ret;
}

static void check_until(void *arg)
{
	struct bench *b = arg;

	if (b->until(b))
		loop_stop(&b->loop);
}

static void *wake_thread(void *arg)
{
	struct bench *b = arg;
	struct pollfd none = { .fd = -1 };

	/* Looks again every millisecond; gives up after ten seconds, so that a failure ends. */
	for (int i = 0; i < 10000 && !READ_ONCE(b->loop.stop); i++) {
		loop_wake(&b->loop);
		poll(&none, 1, 1);
	}
	WRITE_ONCE(b->loop.stop, true);
	loop_wake(&b->loop);
	return NULL;
}

/* Runs the loop until the condition holds; fails when it does not within ten seconds. */
static void run_until(struct bench *b, bool (*until)(struct bench *b))
{
	pthread_t thread;

	b->until = until;
	b->loop.stop = false;
	pthread_create(&thread, NULL, wake_thread, b);
	assert_int_equal(loop_run(&b->loop, check_until, b, NULL), 0);
	pthread_join(thread, NULL);
	assert_true(until(b));
}

/* ---- stdio ----------------------------------------------------------------------------------- */

static int stdio_in, stdio_out, saved[2];

/* Our standard input and output become pipes, whose other ends are stdio_in and stdio_out. */
static void stdio_redirect(void)
{
	int in[2], out[2];

	assert_int_equal(pipe(in) | pipe(out), 0);
	fflush(stdout);
	saved[0] = dup(0);
	saved[1] = dup(1);
	dup2(in[0], 0);
	dup2(out[1], 1);
	close(in[0]);
	close(out[1]);
	stdio_in = in[1];
	stdio_out = out[0];
}

static void stdio_restore(void)
{
	dup2(saved[0], 0);
	dup2(saved[1], 1);
	close(saved[0]);
	close(saved[1]);
	close(stdio_out);
}

static bool got_six(struct bench *b)
{
	return b->in_len >= 6;
}

static bool has_quit(struct bench *b)
{
	return b->quits > 0;
}

static bool input_ended(struct bench *b)
{
	return b->cd.in_fd < 0;
}

static void test_stdio_keys(void **state)
{
	struct bench *b = *state;
	char help[400];

	stdio_redirect();
	assert_int_equal(open_spec(b, "stdio"), 0);
	assert_int_equal(write(stdio_in, "ab\001\001c\001bd\001he\001z", 14), 14);
	run_until(b, got_six);
	assert_memory_equal(b->in, "ab\001cde", 6);
	assert_int_equal(b->breaks, 1);
	assert_in_range(read(stdio_out, help, sizeof(help)), 50, 400);
	assert_non_null(memmem(help, sizeof(help), "Ctrl-A x", 8));
	assert_int_equal(write(stdio_in, "\001x", 2), 2);
	run_until(b, has_quit);
	/* The end of the input does not end the machine; output goes on. */
	close(stdio_in);
	run_until(b, input_ended);
	assert_int_equal(b->quits, 1);
	assert_int_equal(chardev_write(&b->cd, (const u8 *)"out", 3), 3);
	assert_int_equal(read(stdio_out, help, sizeof(help)), 3);
	/* The description that others share stayed as it was. */
	assert_int_equal(fcntl(0, F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fcntl(1, F_GETFL) & O_NONBLOCK, 0);
	stdio_restore();
}

static bool ring_empty(struct bench *b)
{
	char buf[65536];
	struct pollfd p = { .fd = stdio_out, .events = POLLIN };

	if (poll(&p, 1, 0) > 0)
		assert_true(read(stdio_out, buf, sizeof(buf)) > 0);
	return b->cd.out_len == 0;
}

static void test_slow_reader(void **state)
{
	struct bench *b = *state;
	static u8 block[4096];
	size_t total = 0, n;

	stdio_redirect();
	assert_int_equal(open_spec(b, "stdio"), 0);
	do {
		n = chardev_write(&b->cd, block, sizeof(block));
		total += n;
	} while (n == sizeof(block));
	/* Bounded: the pipe and our buffer are full, and nothing blocked. */
	assert_in_range(total, CHARDEV_OUT_SIZE, CHARDEV_OUT_SIZE + (1 << 20));
	assert_int_equal(chardev_write(&b->cd, block, 1), 0);
	assert_int_equal(b->drained, 0);
	run_until(b, ring_empty);
	assert_int_equal(b->drained, 1);
	close(stdio_in);
	stdio_restore();
}

static void test_reader_leaves(void **state)
{
	struct bench *b = *state;

	stdio_redirect();
	assert_int_equal(open_spec(b, "stdio"), 0);
	close(stdio_out);
	for (int i = 0; i < 10; i++)
		assert_int_equal(chardev_write(&b->cd, (const u8 *)"x", 1), 1);
	assert_false(b->cd.connected);
	close(stdio_in);
	stdio_restore();
}

static bool got_all(struct bench *b)
{
	b->room = sizeof(b->in) - b->in_len;
	chardev_accept_input(&b->cd);
	return b->in_len == 6000;
}

static bool buffer_full(struct bench *b)
{
	return b->cd.in_len == CHARDEV_IN_SIZE;
}

/* More input than the buffer holds, for a guest that reads late, after the writer has gone. */
static void test_input_waits(void **state)
{
	struct bench *b = *state;
	u8 data[6000];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = 'A' + i % 23;
	stdio_redirect();
	b->room = 0;
	assert_int_equal(open_spec(b, "stdio"), 0);
	assert_int_equal(write(stdio_in, data, sizeof(data)), sizeof(data));
	close(stdio_in);
	run_until(b, buffer_full);
	run_until(b, got_all);
	assert_memory_equal(b->in, data, sizeof(data));
	stdio_restore();
}

/* ---- files and sockets ----------------------------------------------------------------------- */

static void test_file(void **state)
{
	struct bench *b = *state;
	char spec[80], text[16];
	int fd;

	snprintf(spec, sizeof(spec), "file:%s/log", b->dir);
	assert_int_equal(open_spec(b, spec), 0);
	assert_int_equal(chardev_write(&b->cd, (const u8 *)"console", 7), 7);
	chardev_destroy(&b->cd);
	fd = open(spec + 5, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), 7);
	assert_memory_equal(text, "console", 7);
	close(fd);
	unlink(spec + 5);
	assert_true(open_spec(b, "file:/nonexistent/log") < 0);
	assert_int_equal(b->err.kind, ERROR_FAILURE);
	assert_non_null(strstr(b->err.text, "--serial file:/nonexistent/log: "));
	assert_true(open_spec(b, "file:/") < 0);
	assert_int_equal(open_spec(b, "none"), 0);
	assert_int_equal(chardev_write(&b->cd, (const u8 *)"x", 1), 1);
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static bool connected(struct bench *b)
{
	return b->cd.connected;
}

static bool disconnected(struct bench *b)
{
	return !b->cd.connected;
}

static bool got_two(struct bench *b)
{
	return b->in_len == 2;
}

static bool got_four(struct bench *b)
{
	return b->in_len == 4;
}

static void test_unix(void **state)
{
	struct bench *b = *state;
	struct bench second = { 0 };
	char spec[80], text[16];
	int client, next, fd;

	snprintf(spec, sizeof(spec), "unix:%s/s", b->dir);
	assert_int_equal(open_spec(b, spec), 0);
	assert_int_equal(chardev_write(&b->cd, (const u8 *)"lost", 4), 4);
	client = connect_to(spec + 5);
	run_until(b, connected);
	next = connect_to(spec + 5);
	assert_int_equal(write(client, "hi", 2), 2);
	run_until(b, got_two);
	assert_int_equal(chardev_write(&b->cd, (const u8 *)"yo", 2), 2);
	assert_int_equal(read(client, text, sizeof(text)), 2);
	/* The second client comes in when the first leaves. */
	assert_int_equal(write(next, "me", 2), 2);
	close(client);
	run_until(b, got_four);
	assert_memory_equal(b->in, "hime", 4);
	assert_int_equal(chardev_write(&b->cd, (const u8 *)"me", 2), 2);
	assert_int_equal(read(next, text, sizeof(text)), 2);
	close(next);
	run_until(b, disconnected);
	/* Nobody else may take a path that is served. */
	second.loop = b->loop;
	assert_true(open_spec(&second, spec) < 0);
	assert_non_null(strstr(second.err.text, "in use"));
	assert_non_null(strstr(second.err.text, "--serial unix:/"));
	chardev_destroy(&b->cd);
	assert_int_equal(access(spec + 5, F_OK), -1);
	/* A file is never replaced, a dead socket is. */
	fd = open(spec + 5, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_true(open_spec(b, spec) < 0);
	assert_int_equal(access(spec + 5, F_OK), 0);
	unlink(spec + 5);
	assert_true(open_spec(b,
			    "unix:/"
			    "0123456789012345678901234567890123456789012345678901234567890123456789"
			    "01234567890123456789012345678901234567890123456789") < 0);
}

static void test_pty(void **state)
{
	struct bench *b = *state;
	char text[16];
	int fd;

	assert_int_equal(open_spec(b, "pty"), 0);
	assert_int_equal(chardev_write(&b->cd, (const u8 *)"lost", 4), 4);
	fd = open(b->cd.path, O_RDWR | O_NOCTTY);
	run_until(b, connected);
	assert_int_equal(chardev_write(&b->cd, (const u8 *)"a\n", 2), 2);
	assert_int_equal(read(fd, text, sizeof(text)), 2);
	assert_memory_equal(text, "a\n", 2);
	assert_int_equal(write(fd, "\003\n", 2), 2);
	run_until(b, got_two);
	assert_memory_equal(b->in, "\003\n", 2);
	close(fd);
	run_until(b, disconnected);
}

/* ---- terminal -------------------------------------------------------------------------------- */

/* A child makes the terminal raw and is then ended in each of these ways. */
static void check_terminal(int how)
{
	struct termios before, now;
	struct terminal t;
	int master, slave, ready[2], status;
	struct pollfd none = { .fd = -1 };
	char byte;
	pid_t pid;

	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	assert_int_equal(pipe(ready), 0);
	tcgetattr(slave, &before);
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);	/* cmocka catches it */
		if (terminal_make_raw(&t, slave, NULL) < 0)
			_exit(1);
		if (how == 0)
			terminal_restore(&t);
		byte = 'r';
		if (write(ready[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	tcgetattr(slave, &now);
	assert_int_equal(!(now.c_lflag & ICANON), how != 0);
	kill(pid, how ? how : SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* The guardian acts as soon as it is scheduled. */
	for (int i = 0; i < 5000; i++) {
		tcgetattr(slave, &now);
		if (now.c_lflag == before.c_lflag && now.c_iflag == before.c_iflag)
			break;
		poll(&none, 1, 1);
	}
	assert_int_equal(now.c_lflag, before.c_lflag);
	assert_int_equal(now.c_iflag, before.c_iflag);
	assert_int_equal(now.c_oflag, before.c_oflag);
	close(master);
	close(slave);
	close(ready[0]);
	close(ready[1]);
}

static void test_terminal_comes_back(void **state)
{
	static const int ways[] = { 0, SIGKILL, SIGTERM, SIGINT, SIGSEGV };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		check_terminal(ways[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stdio_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reader_leaves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_input_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty, setup, teardown),
		cmocka_unit_test(test_terminal_comes_back),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
