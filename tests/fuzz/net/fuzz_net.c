/*
 * Fuzz target of --net user: frames of a hostile guest into libslirp, by the backend that the device uses.
 * The input is a list of operations: frames of a few protocols with bytes changed in them, what the host's
 * side answers, turns of the loop. The host's network is not reached: its sockets are pairs of our own.
 *
 * Whatever comes: frames for the guest are whole, what lies beside TFTP's folder stays there, and the
 * router answers who asks for its address. The rest is the sanitizers' to see.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/net/net.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

/* libslirp's TFTP sessions are leaked when it ends, and nobody but libslirp calls this. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:g_malloc";
}

#define CHECK(c)	do { if (!(c)) __builtin_trap(); } while (0)
#define ETH		14
#define IP		(ETH + 20)
#define FRAME_MAX	4096
#define PEERS_MAX	32
#define SECRET		"nobody reads this"

static struct {
	const u8 *in, *end;
	struct loop loop;
	struct net_backend *net;
	bool room;		/* the guest takes frames */
	u32 ack;		/* of what came last by TCP */
	bool answered;		/* who asked for the router's address */
	int peer[PEERS_MAX];
	unsigned peers;
} f;

static u8 take(void)
{
	return f.in < f.end ? *f.in++ : 0;
}

/* ---- the host's network ---------------------------------------------------------------------- */

int socket(int domain, int type, int protocol)
{
	int pair[2];

	(void)domain;
	(void)protocol;
	if (f.peers == PEERS_MAX || take() % 16 == 15) {
		errno = EMFILE;
		return -1;
	}
	if (socketpair(AF_UNIX, (type & 15) == SOCK_STREAM ? SOCK_STREAM : SOCK_DGRAM, 0, pair) < 0)
		return -1;
	fcntl(pair[1], F_SETFL, O_NONBLOCK);
	f.peer[f.peers++] = pair[1];
	return pair[0];
}

int connect(int fd, const struct sockaddr *to, socklen_t len)
{
	/* Not ECONNREFUSED: Linux does not say it here, and libslirp 4.7 then ends with a double free. */
	static const int errors[] = { EINPROGRESS, EINPROGRESS, ENETUNREACH, EINPROGRESS };

	(void)fd;
	(void)to;
	(void)len;
	errno = errors[take() % 4];
	return -1;
}

int bind(int fd, const struct sockaddr *to, socklen_t len)
{
	(void)fd;
	(void)to;
	(void)len;
	return 0;
}

ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t len)
{
	(void)to;
	(void)len;
	return send(fd, data, n, flags | MSG_NOSIGNAL);
}

ssize_t recvfrom(int fd, void *data, size_t n, int flags, struct sockaddr *from, socklen_t *len)
{
	const struct sockaddr_in who = { .sin_family = AF_INET, .sin_port = htons(53),
		.sin_addr = { htonl(INADDR_LOOPBACK) } };

	if (from && len && *len >= sizeof(who)) {
		memcpy(from, &who, sizeof(who));
		*len = sizeof(who);
	}
	return recv(fd, data, n, flags);
}

/* What it sends, or that it hangs up. */
static void host_answers(void)
{
	unsigned n = take();
	u8 data[256];

	if (!f.peers)
		return;
	for (unsigned i = 0; i < n; i++)
		data[i] = i < 12 ? take() : i;
	if (n)
		send(f.peer[take() % f.peers], data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	else
		shutdown(f.peer[take() % f.peers], SHUT_RDWR);
}

static void host_reads(void)
{
	u8 data[4096];

	for (unsigned i = 0; i < f.peers; i++)
		while (recv(f.peer[i], data, sizeof(data), MSG_DONTWAIT) > 0)
			;
}

/* ---- the guest's frames ---------------------------------------------------------------------- */

enum { ARP, DHCP, DNS, TFTP, TFTP_ACK, ICMP, UDP, TCP_SYN, TCP_DATA, TCP_FIN, KINDS };

#define DHCP_SIZE	300	/* most of it zeroes */
#define DATA(text)	.data = text, .len = sizeof(text) - 1

static const struct {
	u8 protocol;		/* IP's; 0: not IP */
	u8 to;			/* 10.0.2.this; 255: all */
	u16 port;
	u8 flags;		/* TCP */
	u16 len;
	const char *data;
} kinds[KINDS] = {
	[ARP] = { DATA("\0\1\x08\0\6\4\0\1" "RT\0\x12\x34V\n\0\2\x0F" "\0\0\0\0\0\0\n\0\2\2") },
	[DHCP] = { .protocol = IPPROTO_UDP, .to = 255, .port = 67, DATA("\1\1\6\0\1\2\3\4") },
	[DNS] = { .protocol = IPPROTO_UDP, .to = 3, .port = 53,
		DATA("\1\2\1\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1") },
	[TFTP] = { .protocol = IPPROTO_UDP, .to = 2, .port = 69,
		DATA("\0\1" "file\0" "octet\0" "blksize\0" "512\0") },
	[TFTP_ACK] = { .protocol = IPPROTO_UDP, .to = 2, .port = 69, DATA("\0\4\0\1") },
	[ICMP] = { .protocol = IPPROTO_ICMP, .to = 2, DATA("\x08\0\0\0\1\2\3\4ping") },
	[UDP] = { .protocol = IPPROTO_UDP, .to = 2, .port = 1234, DATA("hello") },
	[TCP_SYN] = { .protocol = IPPROTO_TCP, .to = 2, .port = 80, .flags = 2, DATA("") },
	[TCP_DATA] = { .protocol = IPPROTO_TCP, .to = 2, .port = 80, .flags = 0x18, DATA("GET / HTTP/1.0\n\n") },
	[TCP_FIN] = { .protocol = IPPROTO_TCP, .to = 2, .port = 80, .flags = 0x11, DATA("") },
};

/* RFC 1071 */
static u32 sum_of(const u8 *p, size_t n, u32 sum)
{
	for (size_t i = 0; i < n; i++)
		sum += i & 1 ? p[i] : p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xFFFF) + (sum >> 16);
	return sum;
}

static void put16(u8 *p, u16 v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static size_t make_ip(u8 *p, unsigned kind, size_t len)
{
	static const u8 head[20] = { 0x45, [8] = 64, [12] = 10, 0, 2, 15, 10, 0, 2 };

	memcpy(p + ETH, head, sizeof(head));
	p[ETH + 9] = kinds[kind].protocol;
	p[ETH + 19] = kinds[kind].to;
	if (kinds[kind].to == 255)
		memset(p + ETH + 16, 255, 4);
	put16(p + ETH + 2, 20 + len);
	return IP;
}

/* From port 4000 + something, so that there are several connections. */
static size_t make_head(u8 *p, unsigned kind, size_t len, u8 which)
{
	if (kinds[kind].protocol == IPPROTO_ICMP)
		return make_ip(p, kind, len);
	put16(p + IP, 4000 + which % 4);
	put16(p + IP + 2, kinds[kind].port);
	if (kinds[kind].protocol == IPPROTO_UDP) {
		put16(p + IP + 4, 8 + len);
		return make_ip(p, kind, 8 + len) + 8;
	}
	put16(p + IP + 6, kinds[kind].flags == 2 ? 100 : 101);
	put16(p + IP + 8, f.ack >> 16);
	put16(p + IP + 10, f.ack);
	p[IP + 12] = 0x50;
	p[IP + 13] = kinds[kind].flags;
	put16(p + IP + 14, 8192);
	return make_ip(p, kind, 20 + len) + 20;
}

/* UDP may go without; a length that says too much is taken as far as there is something. */
static void fix_sums(u8 *p, size_t len)
{
	u8 protocol = p[ETH + 9], pseudo[4] = { 0, protocol, (len - IP) >> 8, len - IP };
	size_t at = protocol == IPPROTO_TCP ? IP + 16 : protocol == IPPROTO_ICMP ? IP + 2 : 0;
	u32 sum = protocol == IPPROTO_TCP ? sum_of(pseudo, 4, sum_of(p + ETH + 12, 8, 0)) : 0;

	put16(p + ETH + 10, 0);
	put16(p + ETH + 10, ~sum_of(p + ETH, 4 * (p[ETH] & 15) <= len - ETH ? 4 * (p[ETH] & 15) : 20, 0));
	if (!at || at + 2 > len)
		return;
	put16(p + at, 0);
	put16(p + at, ~sum_of(p + IP, len - IP, sum));
}

static void send_frame(const u8 *p, size_t len, const struct virtio_net_hdr_v1 *h)
{
	u8 *exact = malloc(len);	/* so that reads behind its end are seen */
	struct iovec iov = { exact, len };

	memcpy(exact, p, len);
	f.net->ops->send(f.net, h, &iov, 1, len);
	free(exact);
}

static void guest_sends(unsigned kind, u8 how)
{
	static u8 p[FRAME_MAX];
	struct virtio_net_hdr_v1 h = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };
	size_t more = how & 8 ? 8 * take() : 0, head = ETH;
	size_t len = kind == DHCP ? DHCP_SIZE : kinds[kind].len;
	bool ip = kinds[kind].protocol;

	memset(p, 0, sizeof(p));
	memcpy(p, "\x52\x55\x0A\0\2\2\x52\x54\0\x12\x34\x56\x08", 13);
	p[13] = ip ? 0 : 6;
	if (ip)
		head = make_head(p, kind, len + more, how >> 4);
	memcpy(p + head, kinds[kind].data, kinds[kind].len);
	if (kind == DHCP)	/* RFC 2131: the cookie, then options */
		memcpy(p + head + 236, "\x63\x82\x53\x63\x35\1\1\xFF", 8);
	len += head + more;
	for (unsigned n = take() % 8; n; n--) {
		size_t at = take();

		p[(how & 4 ? at : head + at) % len] = take();
	}
	if (ip && (how & 3))
		fix_sums(p, len);
	if (how == 255)
		for (size_t i = 0; i < sizeof(h); i++)
			((u8 *)&h)[i] = take();
	if (take() % 16 == 15)
		len = take() % len;
	send_frame(p, len, &h);
}

/* ---- the guest's device ---------------------------------------------------------------------- */

static bool guest_receives(void *arg, const struct virtio_net_hdr_v1 *h, const u8 *p, size_t len)
{
	(void)arg;
	(void)h;
	CHECK(len >= ETH && len <= NET_FRAME_MAX);
	CHECK(!memmem(p, len, SECRET, strlen(SECRET)));
	if (!f.room)
		return false;
	if (p[12] == 8 && p[13] == 6 && len >= 42 && p[21] == 2 && !memcmp(p + 28, "\x0A\0\2\2", 4))
		f.answered = true;
	if (p[12] == 8 && !p[13] && len >= IP + 20 && p[ETH + 9] == IPPROTO_TCP) {
		memcpy(&f.ack, p + IP + 4, 4);
		f.ack = ntohl(f.ack) + (p[IP + 13] & 3 ? 1 : 0);
	}
	return true;
}

static void guest_drained(void *arg)
{
	(void)arg;
}

static void loop_turn(void)
{
	for (unsigned i = 0; i < LOOP_WATCHES_MAX; i++)
		if (f.loop.watch[i].fd >= 0)
			f.loop.watch[i].fn(f.loop.watch[i].arg, EPOLLIN);
	timer_queue_run(&f.loop.timers);
}

static void one_operation(void)
{
	u8 op = take();

	switch (op % 16) {
	case KINDS: host_answers(); break;
	case KINDS + 1: host_reads(); break;
	case KINDS + 2:
		f.room = !f.room;
		if (f.room)
			f.net->ops->resume(f.net);
		break;
	case KINDS + 3:
	case KINDS + 4:
	case KINDS + 5: loop_turn(); break;
	default:
		guest_sends(op % 16, take());
		f.net->ops->flush(f.net);
	}
}

/* ---- a folder with a file, and a file beside it ---------------------------------------------- */

static char base[32], folder[40];

static const char *in_base(const char *name)
{
	static char path[64];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	return path;
}

static void put_file(const char *name, const char *text)
{
	FILE *file = fopen(in_base(name), "w");

	CHECK(file);
	fprintf(file, "%1500s", text);
	fclose(file);
}

static void folder_forget(void)
{
	unlink(in_base("tftp/file"));
	unlink(in_base("secret"));
	rmdir(folder);
	rmdir(base);
}

static void folder_make(void)
{
	strcpy(base, "/tmp/qumra-fuzz-net-XXXXXX");
	CHECK(mkdtemp(base));
	strcpy(folder, in_base("tftp"));
	CHECK(mkdir(folder, 0700) == 0);
	put_file("tftp/file", "end");
	put_file("secret", SECRET);
	atexit(folder_forget);
	signal(SIGPIPE, SIG_IGN);	/* as qumra does */
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	const struct net_front front = { .receive = guest_receives, .drained = guest_drained };
	const struct nic_options o = { .tftp = folder, .bootfile = "file" };
	const u8 ask[] = { ARP, 0, 0, 0 };
	struct error err = ERROR_INIT;

	if (!*base)
		folder_make();
	f.in = data;
	f.end = data + size;
	f.room = true;
	CHECK(loop_init(&f.loop, &lock, &err) == 0 && net_user_open(&f.net, &o, &f.loop, &front, &err) == 0);
	for (unsigned n = 0; f.in < f.end && n < 400; n++)
		one_operation();
	f.room = true;
	f.net->ops->resume(f.net);
	f.answered = false;
	f.in = ask;
	f.end = ask + sizeof(ask);
	one_operation();
	CHECK(f.answered);
	f.net->ops->destroy(f.net);
	loop_destroy(&f.loop);
	while (f.peers)
		close(f.peer[--f.peers]);
	return 0;
}
