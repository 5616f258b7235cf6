/*
 * The socket device: connections both ways with data, credit, ends and half ends; saved state; drivers
 * that say what cannot be.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/device/virtio_board.h"
#include "vmm/virtio/vsock.h"

#define CID	3
#define PORT	77		/* a guest's */
#define HEAD	44
#define BUFFER	4096

struct side {
	struct board b;
	struct virtio_vsock v;
	char path[64];
	int listener;		/* the host's port 5 */
	u64 rx[QUEUE_SIZE];	/* buffers by id */
	u64 tx;
	u8 data[BUFFER];	/* of the last packet */
};

static int unix_socket(const char *path, bool listen_there)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const struct timeval tv = { .tv_sec = 20 };

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	if (listen_there) {
		assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)) | listen(fd, 8), 0);
	} else {
		assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	}
	return fd;
}

static struct side *side_new(void)
{
	struct side *s = calloc(1, sizeof(*s));
	struct vsock_options o = { .path = s->path, .cid = CID };
	char path[96];

	snprintf(s->path, sizeof(s->path), "/tmp/qumra-vsock-%d", getpid());
	unlink(s->path);
	snprintf(path, sizeof(path), "%s_5", s->path);
	unlink(path);
	s->listener = unix_socket(path, true);
	board_init(&s->b);
	assert_int_equal(virtio_vsock_init(&s->v, &o, &s->b.ram.mem, &s->b.io, &s->b.err), 0);
	board_start(&s->b, &s->v.dev);
	return s;
}

static void side_free(struct side *s)
{
	char path[96];

	board_stop(&s->b);
	virtio_vsock_destroy(&s->v);
	board_free(&s->b);
	close(s->listener);
	snprintf(path, sizeof(path), "%s_5", s->path);
	unlink(path);
	assert_int_equal(access(s->path, F_OK), -1);
	free(s);
}

static void give(struct side *s, u64 buf)
{
	const struct piece p[] = { { buf, HEAD, true }, { buf + HEAD, BUFFER, true } };
	int id = driver_submit(&s->b.q[0], p, 2, 0);

	assert_true(id >= 0);
	s->rx[id] = buf;
	kick(&s->b, 0);
}

static void side_drive(struct side *s, u64 features, unsigned buffers)
{
	drive(&s->b, features & ~INDIRECT, 3);
	s->tx = ram_alloc(&s->b.ram, HEAD + 2 * VSOCK_BUFFER);
	for (unsigned i = 0; i < buffers; i++)
		give(s, ram_alloc(&s->b.ram, HEAD + BUFFER));
}

static struct virtio_vsock_hdr packet(u16 op, u32 host_port, u32 len)
{
	return (struct virtio_vsock_hdr){
		.src_cid = CID, .dst_cid = 2, .src_port = PORT, .dst_port = host_port, .len = len,
		.type = VIRTIO_VSOCK_TYPE_STREAM, .op = op, .buf_alloc = 1 << 20 };
}

static void send_packet(struct side *s, const struct virtio_vsock_hdr *h, const void *data)
{
	const struct piece p = { s->tx, HEAD + h->len, false };

	memcpy(at(s->b.ram.bytes, s->tx), h, HEAD);
	if (h->len)
		memcpy(at(s->b.ram.bytes, s->tx + HEAD), data, h->len);
	transfer(&s->b, 1, &p, 1);
}

static void send_op(struct side *s, u16 op, u32 host_port)
{
	const struct virtio_vsock_hdr h = packet(op, host_port, 0);

	send_packet(s, &h, NULL);
}

/* The next packet; its buffer is given again. */
static struct virtio_vsock_hdr next_packet(struct side *s)
{
	struct virtio_vsock_hdr h;
	u16 id;
	u32 len = wait_used(&s->b, 0, &id);

	memcpy(&h, at(s->b.ram.bytes, s->rx[id]), HEAD);
	assert_int_equal(len, HEAD + h.len);
	memcpy(s->data, at(s->b.ram.bytes, s->rx[id] + HEAD), h.len);
	assert_int_equal(h.src_cid, 2);
	assert_int_equal(h.dst_cid, CID);
	give(s, s->rx[id]);
	return h;
}

static struct virtio_vsock_hdr expect_op(struct side *s, u16 op, u32 host_port)
{
	struct virtio_vsock_hdr h;

	/* Credit may be told of at any time. */
	do {
		h = next_packet(s);
	} while (h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE && op != h.op);
	assert_int_equal(h.op, op);
	assert_int_equal(h.src_port, host_port);
	assert_int_equal(h.dst_port, PORT);
	return h;
}

static void read_all(int fd, void *data, size_t n)
{
	assert_int_equal(recv(fd, data, n, MSG_WAITALL), n);
}

/* The guest connects to port 5 of the host; the host's end. */
static int connect_out(struct side *s)
{
	const struct timeval tv = { .tv_sec = 20 };
	int fd;

	send_op(s, VIRTIO_VSOCK_OP_REQUEST, 5);
	expect_op(s, VIRTIO_VSOCK_OP_RESPONSE, 5);
	fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

static void test_out(void **state)
{
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct side *s = side_new();
		struct virtio_vsock_hdr h;
		u8 data[3000], got[3000];
		int fd;

		side_drive(s, layouts[l], 4);
		assert_int_equal(in(&s->b, VIRTIO_MMIO_CONFIG), CID);
		/* Nobody listens. */
		send_op(s, VIRTIO_VSOCK_OP_REQUEST, 6);
		expect_op(s, VIRTIO_VSOCK_OP_RST, 6);
		fd = connect_out(s);
		for (int i = 0; i < 100; i++) {
			h = packet(VIRTIO_VSOCK_OP_RW, 5, 1 + i * 29);
			memset(data, i + 1, sizeof(data));
			send_packet(s, &h, data);
			read_all(fd, got, h.len);
			assert_memory_equal(got, data, h.len);
		}
		/* It was told meanwhile that there is room again: all but what came since. */
		h = expect_op(s, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 5);
		assert_int_equal(h.buf_alloc, VSOCK_BUFFER);
		assert_true(h.fwd_cnt >= VSOCK_BUFFER / 2);
		expect_op(s, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 5);
		send_op(s, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 5);
		do {
			h = expect_op(s, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 5);
		} while (h.fwd_cnt != 100 + 29 * 99 * 50);
		/* Back, in packets as large as the buffers. */
		memset(data, 9, sizeof(data));
		assert_int_equal(write(fd, data, 3000), 3000);
		for (u32 n = 0; n < 3000; n += h.len) {
			h = expect_op(s, VIRTIO_VSOCK_OP_RW, 5);
			assert_memory_equal(s->data, data, h.len);
		}
		/* Half an end each way, then all. */
		shutdown(fd, SHUT_WR);
		h = expect_op(s, VIRTIO_VSOCK_OP_SHUTDOWN, 5);
		assert_int_equal(h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
		h = packet(VIRTIO_VSOCK_OP_RW, 5, 4);
		send_packet(s, &h, "last");
		h = packet(VIRTIO_VSOCK_OP_SHUTDOWN, 5, 0);
		h.flags = 3;
		send_packet(s, &h, NULL);
		read_all(fd, got, 4);
		assert_memory_equal(got, "last", 4);
		assert_int_equal(read(fd, got, 1), 0);
		expect_op(s, VIRTIO_VSOCK_OP_RST, 5);
		close(fd);
		side_free(s);
	}
}

/* The host's client, whose guest takes it. Its port here. */
static u32 connect_in(struct side *s, int *fd)
{
	struct virtio_vsock_hdr h;
	char line[32] = { 0 }, want[32];

	*fd = unix_socket(s->path, false);
	/* What follows the line is data. */
	assert_int_equal(write(*fd, "CONNECT 77\nearly", 16), 16);
	h = next_packet(s);
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(h.dst_port, PORT);
	send_op(s, VIRTIO_VSOCK_OP_RESPONSE, h.src_port);
	snprintf(want, sizeof(want), "OK %u\n", h.src_port);
	read_all(*fd, line, strlen(want));
	assert_string_equal(line, want);
	h = expect_op(s, VIRTIO_VSOCK_OP_RW, h.src_port);
	assert_int_equal(h.len, 5);
	assert_memory_equal(s->data, "early", 5);
	return h.src_port;
}

static void test_in(void **state)
{
	struct side *s = side_new();
	struct virtio_vsock_hdr h;
	char got[8];
	int fd, other;
	u32 port, port2;

	side_drive(s, layouts[3], 4);
	port = connect_in(s, &fd);
	port2 = connect_in(s, &other);
	assert_int_not_equal(port, port2);
	h = packet(VIRTIO_VSOCK_OP_RW, port, 2);
	send_packet(s, &h, "to");
	read_all(fd, got, 2);
	/* The guest ends one at once; the other goes on. */
	send_op(s, VIRTIO_VSOCK_OP_RST, port);
	assert_int_equal(read(fd, got, 1), 0);
	close(fd);
	h = packet(VIRTIO_VSOCK_OP_RW, port2, 3);
	send_packet(s, &h, "too");
	read_all(other, got, 3);
	/* The host's client goes for good: what is sent to it ends the connection. */
	close(other);
	expect_op(s, VIRTIO_VSOCK_OP_SHUTDOWN, port2);
	send_packet(s, &h, "too");
	expect_op(s, VIRTIO_VSOCK_OP_RST, port2);
	/* Refused by the guest: no OK. */
	fd = unix_socket(s->path, false);
	assert_int_equal(write(fd, "CONNECT 9\n", 10), 10);
	h = next_packet(s);
	assert_int_equal(h.dst_port, 9);
	h = (struct virtio_vsock_hdr){ .src_cid = CID, .dst_cid = 2, .src_port = 9, .dst_port = h.src_port,
				       .type = 1, .op = VIRTIO_VSOCK_OP_RST };
	send_packet(s, &h, NULL);
	assert_int_equal(read(fd, got, 1), 0);
	close(fd);
	/* No line that one knows. */
	for (int i = 0; i < 4; i++) {
		const char *bad[] = { "GET / HTTP\n", "CONNECT x\n", "CONNECT 1 2\n",
				      "CONNECT 1111111111111111111111111111111111111111" };

		fd = unix_socket(s->path, false);
		assert_int_equal(write(fd, bad[i], strlen(bad[i])), strlen(bad[i]));
		assert_true(read(fd, got, 1) <= 0);
		close(fd);
	}
	side_free(s);
}

/* Neither side gets more than it has room for. */
static void test_credit(void **state)
{
	static u8 data[VSOCK_BUFFER + 1];
	struct side *s = side_new();
	struct virtio_vsock_hdr h;
	u32 total = 0;
	int fd, size = 4096;

	side_drive(s, layouts[1], 4);
	fd = connect_out(s);
	/* Of 5000 bytes' room only that is used. */
	h = packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 5, 0);
	h.buf_alloc = 5000;
	send_packet(s, &h, NULL);
	assert_int_equal(write(fd, data, 12000), 12000);
	while (total < 5000)
		total += expect_op(s, VIRTIO_VSOCK_OP_RW, 5).len;
	assert_int_equal(total, 5000);
	virtio_lock(&s->v.dev);
	assert_int_equal(s->v.first->sent, 5000);
	virtio_unlock(&s->v.dev);
	h.fwd_cnt = 4000;
	send_packet(s, &h, NULL);
	while (total < 9000)
		total += expect_op(s, VIRTIO_VSOCK_OP_RW, 5).len;
	assert_int_equal(total, 9000);
	/* A guest that sends more than it was allowed is cut off. */
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	h = packet(VIRTIO_VSOCK_OP_RW, 5, sizeof(data));
	send_packet(s, &h, data);
	expect_op(s, VIRTIO_VSOCK_OP_RST, 5);
	close(fd);
	side_free(s);
}

/* Connections do not move; the driver is told, also when it gives a buffer for that later. */
static void test_moves(void **state)
{
	for (int late = 0; late < 2; late++) {
		struct side *s = side_new();
		char got[1];
		u32 event = 77;
		u64 buf;
		u16 id;
		int fd;

		side_drive(s, layouts[3], 4);
		buf = ram_alloc(&s->b.ram, 4);
		const struct piece p = { buf, 4, true };

		memcpy(at(s->b.ram.bytes, buf), &event, 4);
		/* Without connections nothing is told. */
		board_reload(&s->b, &virtio_vsock_device_ops, &s->v);
		fd = connect_out(s);
		if (!late)
			driver_submit(&s->b.q[2], &p, 1, 0);
		assert_int_equal(write(fd, "x", 1), 1);
		board_reload(&s->b, &virtio_vsock_device_ops, &s->v);
		/* What was sent before the pause may have come. */
		assert_true(read(fd, got, 1) <= 0);
		if (late) {
			driver_submit(&s->b.q[2], &p, 1, 0);
			kick(&s->b, 2);
		}
		assert_int_equal(wait_used(&s->b, 2, &id), 4);
		memcpy(&event, at(s->b.ram.bytes, buf), 4);
		assert_int_equal(event, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
		close(fd);
		check_round_trip(&virtio_vsock_device_ops, &s->v);
		check_bad_states(&virtio_vsock_device_ops, &s->v, 1);
		side_free(s);
	}
}

static void test_strangers(void **state)
{
	struct side *s = side_new();
	struct virtio_vsock_hdr h;

	side_drive(s, layouts[3], 8);
	/* For nobody: reset, but for a reset; from or to somebody else, nothing at all. */
	send_op(s, VIRTIO_VSOCK_OP_RST, 50);
	h = packet(VIRTIO_VSOCK_OP_REQUEST, 5, 0);
	h.src_cid = 9;
	send_packet(s, &h, NULL);
	h = packet(VIRTIO_VSOCK_OP_REQUEST, 5, 0);
	h.dst_cid = 1;
	send_packet(s, &h, NULL);
	h = packet(VIRTIO_VSOCK_OP_REQUEST, 51, 0);
	h.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	send_packet(s, &h, NULL);
	expect_op(s, VIRTIO_VSOCK_OP_RST, 51);
	for (u16 op = VIRTIO_VSOCK_OP_RESPONSE; op < 12; op++) {
		if (op == VIRTIO_VSOCK_OP_RST)
			continue;
		send_op(s, op, 52);
		expect_op(s, VIRTIO_VSOCK_OP_RST, 52);
	}
	/* Two with the same ports; what is no operation. */
	close(connect_out(s));
	expect_op(s, VIRTIO_VSOCK_OP_SHUTDOWN, 5);
	send_op(s, VIRTIO_VSOCK_OP_REQUEST, 5);
	expect_op(s, VIRTIO_VSOCK_OP_RST, 5);
	/* No more than there may be; all go when the device is reset. */
	for (u32 i = 0; i < VSOCK_CONNECTIONS_MAX + 3; i++) {
		int fd = -1;

		h = packet(VIRTIO_VSOCK_OP_REQUEST, 5, 0);
		h.src_port = 1000 + i;
		send_packet(s, &h, NULL);
		h = next_packet(s);
		assert_int_equal(h.op, i < VSOCK_CONNECTIONS_MAX ? VIRTIO_VSOCK_OP_RESPONSE : VIRTIO_VSOCK_OP_RST);
		if (i < VSOCK_CONNECTIONS_MAX)
			fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
		(void)fd;	/* kept until the end */
	}
	out(&s->b, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(s->v.connections, 0);
	side_free(s);
}

static void test_bad_drivers(void **state)
{
	struct side *s = side_new();

	for (int i = 0; i < 5; i++) {
		struct virtio_vsock_hdr h = packet(VIRTIO_VSOCK_OP_RW, 5, i == 0 ? 100 : ~0u);
		struct piece p = { RAM_BASE + 0x100000, i < 2 ? HEAD + 50 : i == 2 ? HEAD - 1 : 40, i > 2 };

		side_drive(s, layouts[i & 3], 0);
		memcpy(at(s->b.ram.bytes, p.addr), &h, HEAD);
		driver_submit(&s->b.q[i == 3 ? 0 : 1], &p, 1, 0);
		kick(&s->b, i == 3 ? 0 : 1);
		if (i == 3) {	/* a buffer that no header fits into is seen when it is wanted */
			const struct piece q = { RAM_BASE + 0x110000, HEAD, false };

			h = packet(VIRTIO_VSOCK_OP_REQUEST, 6, 0);
			memcpy(at(s->b.ram.bytes, q.addr), &h, HEAD);
			driver_submit(&s->b.q[1], &q, 1, 0);
			kick(&s->b, 1);
		}
		wait_needs_reset(&s->b);
	}
	side_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_out), cmocka_unit_test(test_in), cmocka_unit_test(test_credit),
		cmocka_unit_test(test_moves), cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_bad_drivers),
	};

	return board_run_tests(tests, BOARD_ALL);
}
