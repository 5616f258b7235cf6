/*
 * The back end's side of vhost-user for tests, on a thread: a network device that brings back what
 * it is sent, or an answer to it, from the rings in the memory that it was given. It can be told to
 * misbehave at a message.
 */
#ifndef QUMRA_TESTS_DEVICE_VHOST_BACK_H
#define QUMRA_TESTS_DEVICE_VHOST_BACK_H

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/device/fixture.h"
#include "vmm/virtio/virtq.h"

enum {	/* vhost-user's requests */
	VU_GET_FEATURES = 1, VU_SET_FEATURES = 2, VU_SET_OWNER = 3, VU_SET_MEM_TABLE = 5,
	VU_SET_VRING_NUM = 8, VU_SET_VRING_ADDR = 9, VU_SET_VRING_BASE = 10, VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12, VU_SET_VRING_CALL = 13, VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL = 15, VU_SET_PROTOCOL = 16, VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18, VU_GET_CONFIG = 24,
};

/* What it does when the message `at` comes for the time `nth` (from 0). */
enum vu_trick {
	VU_HONEST,
	VU_HANG_UP,		/* before an answer */
	VU_HALF,		/* half an answer, then it hangs up */
	VU_SILENT,		/* no answer ever */
	VU_SIZE,		/* an answer of another size: size is in value */
	VU_REQUEST,		/* an answer to something else */
	VU_FLAGS,		/* no reply, by its flags */
	VU_VALUE,		/* another value */
	VU_UNASKED,		/* the answer, and one more */
	VU_FDS,			/* the answer with descriptors */
	VU_ERROR,		/* says that the ring cannot be */
};

struct vu_ring {
	u32 size, base;
	u64 desc, driver, device;
	int kick, call, error;
	bool enabled;
	struct virtq vq;
};

struct vu_back {
	enum vu_trick trick;
	u32 at, nth, value;
	u64 features, protocol, queues;
	u8 config[256];
	char path[108];			/* empty: one of /tmp's */
	size_t (*answer)(u8 *packet, size_t n);	/* in its place; 0 for none. NULL: the packet itself */
	int listener, fd, stop;		/* stop: an eventfd */
	pthread_t thread;
	u64 agreed;
	unsigned seen[32];		/* messages by request */
	u32 config_asked;
	struct guest_memory mem;
	struct { u64 gpa, size, user, offset; } region[8];
	struct vu_ring ring[16];
};

static inline void vu_reply(struct vu_back *b, u32 request, const void *data, u32 size)
{
	u8 m[1024];
	u32 head[3] = { request, 5, size };

	memcpy(m, head, 12);
	memcpy(m + 12, data, size);
	assert_int_equal(send(b->fd, m, 12 + size, MSG_NOSIGNAL), 12 + size);
}

static inline void vu_close_memory(struct vu_back *b)
{
	for (unsigned i = 0; i < b->mem.count; i++)
		munmap(b->mem.region[i].host - b->region[i].offset, b->region[i].size + b->region[i].offset);
	b->mem.count = 0;
}

static inline void vu_memory(struct vu_back *b, const u8 *data, const int *fds)
{
	u32 n;

	vu_close_memory(b);
	memcpy(&n, data, 4);
	assert_in_range(n, 1, 8);
	memcpy(b->region, data + 8, n * 32);
	b->mem.count = n;
	for (unsigned i = 0; i < n; i++) {
		u8 *p = mmap(NULL, b->region[i].size + b->region[i].offset, PROT_READ | PROT_WRITE,
			MAP_SHARED, fds[i], 0);

		assert_ptr_not_equal(p, MAP_FAILED);
		/* Nobody cuts RAM short under the machine. */
		assert_int_equal(ftruncate(fds[i], 4096), -1);
		b->mem.region[i] = (struct guest_region){ b->region[i].gpa, b->region[i].size,
			p + b->region[i].offset };
		close(fds[i]);
	}
}

static inline u64 vu_guest(const struct vu_back *b, u64 user)
{
	for (unsigned i = 0; i < b->mem.count; i++)
		if (user - b->region[i].user < b->region[i].size)
			return user - b->region[i].user + b->region[i].gpa;
	fail_msg("an address outside of all memory");
	return 0;
}

static inline void vu_signal(int fd)
{
	u64 one = 1;

	if (fd >= 0)
		assert_int_equal(write(fd, &one, 8), 8);
}

/* What was sent goes to the buffers for what is received. */
static inline void vu_work(struct vu_back *b)
{
	struct virtq *rx = &b->ring[0].vq, *tx = &b->ring[1].vq;
	static struct virtq_chain out, in;
	bool call = false;
	u8 frame[2048];

	while (b->ring[0].enabled && b->ring[1].enabled && rx->ready && tx->ready &&
	       virtq_pop(tx, &out) > 0) {
		size_t n = 0;
		struct virtq_used used = { out.id, out.slots, 0 };

		if (virtq_pop(rx, &in) <= 0) {
			virtq_unpop(tx, &out);
			break;
		}
		for (unsigned i = 0; i < out.outs && n + out.iov[i].iov_len <= sizeof(frame); i++) {
			memcpy(frame + n, out.iov[i].iov_base, out.iov[i].iov_len);
			n += out.iov[i].iov_len;
		}
		n = b->answer ? b->answer(frame, n) : n;
		assert_true(in.iov[0].iov_len >= n);
		memcpy(in.iov[0].iov_base, frame, n);
		virtq_push(tx, &used, 1);
		used = (struct virtq_used){ in.id, in.slots, n };
		if (n)
			virtq_push(rx, &used, 1);
		else
			virtq_unpop(rx, &in);
		call = true;
	}
	if (call) {
		vu_signal(b->ring[0].call);
		vu_signal(b->ring[1].call);
	}
	/* Whatever comes from here on is kicked for. */
	if (rx->ready && tx->ready && (int)virtq_kicks_on(rx) & (int)virtq_kicks_on(tx) &&
	    b->ring[0].enabled && b->ring[1].enabled)
		vu_work(b);
}

static inline void vu_start(struct vu_back *b, unsigned i)
{
	struct vu_ring *r = &b->ring[i];
	struct virtq_config c = { vu_guest(b, r->desc), vu_guest(b, r->driver),
				  vu_guest(b, r->device), r->size };
	u8 flags = (b->agreed & BIT(28) ? VIRTQ_F_INDIRECT : 0) |
		   (b->agreed & BIT(29) ? VIRTQ_F_EVENT_IDX : 0) |
		   (b->agreed & BIT(34) ? VIRTQ_F_PACKED : 0);
	struct virtq_position at = { r->base, r->base, 1, 1 };

	if (flags & VIRTQ_F_PACKED)
		at = (struct virtq_position){ r->base & 0x7FFF, r->base >> 16 & 0x7FFF,
			r->base >> 15 & 1, r->base >> 31 };
	assert_int_equal(virtq_start(&r->vq, &b->mem, &c, flags), 0);
	assert_int_equal(virtq_seek(&r->vq, &at), 0);
}

static inline u32 vu_base(const struct vu_ring *r)
{
	const struct virtq_position *at = &r->vq.at;

	if (!(r->vq.flags & VIRTQ_F_PACKED))
		return at->used;
	return at->used | at->used_wrap << 15 | (u32)(at->used | at->used_wrap << 15) << 16;
}

static inline void vu_set_fd(int *to, const int *fds, unsigned n)
{
	assert_int_equal(n, 1);
	if (*to >= 0)
		close(*to);
	*to = fds[0];
}

/* An answer, of size bytes at data; 0: this message has none. */
static inline u32 vu_take(struct vu_back *b, u32 request, u8 *data, const int *fds, unsigned n)
{
	u32 w[2];
	u64 number;
	struct vu_ring *r;

	memcpy(w, data, 8);
	memcpy(&number, data, 8);
	r = &b->ring[w[0] & 15];
	switch (request) {
	case VU_GET_FEATURES:
		memcpy(data, &b->features, 8);
		return 8;
	case VU_SET_FEATURES:
		b->agreed = number;
		assert_int_equal(number & ~b->features, 0);
		return 0;
	case VU_GET_PROTOCOL:
		memcpy(data, &b->protocol, 8);
		return 8;
	case VU_GET_QUEUE_NUM:
		memcpy(data, &b->queues, 8);
		return 8;
	case VU_GET_CONFIG:
		b->config_asked = w[1];
		memcpy(data + 12, b->config, w[1]);
		return 12 + w[1];
	case VU_SET_MEM_TABLE:
		vu_memory(b, data, fds);
		return 0;
	case VU_SET_VRING_NUM:
		r->size = w[1];
		return 0;
	case VU_SET_VRING_BASE:
		r->base = w[1];
		return 0;
	case VU_SET_VRING_ADDR:
		memcpy(&r->desc, data + 8, 8);
		memcpy(&r->device, data + 16, 8);
		memcpy(&r->driver, data + 24, 8);
		return 0;
	case VU_SET_VRING_CALL:
		vu_set_fd(&r->call, fds, n);
		return 0;
	case VU_SET_VRING_ERR:
		vu_set_fd(&r->error, fds, n);
		return 0;
	case VU_SET_VRING_KICK:
		vu_set_fd(&r->kick, fds, n);
		vu_start(b, w[0]);
		return 0;
	case VU_SET_VRING_ENABLE:
		r->enabled = w[1];
		vu_work(b);
		return 0;
	case VU_GET_VRING_BASE:
		w[1] = vu_base(r);
		memcpy(data, w, 8);
		virtq_stop(&r->vq);
		return 8;
	}
	return 0;
}

static inline void vu_reply_fds(struct vu_back *b, u32 request, const u8 *data, u32 size)
{
	union { struct cmsghdr c; u8 bytes[64]; } control = { 0 };
	u8 m[64];
	struct iovec iov = { m, 12 + size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = CMSG_SPACE(8) };
	const u32 head[3] = { request, 5, size };
	const int fds[2] = { 0, b->fd };

	memcpy(m, head, 12);
	memcpy(m + 12, data, size);
	control.c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(8), .cmsg_level = SOL_SOCKET,
				      .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.c), fds, 8);
	assert_int_equal(sendmsg(b->fd, &h, 0), 12 + size);
}

/* False: hang up. */
static inline bool vu_misbehave(struct vu_back *b, u32 request, u8 *data, u32 size)
{
	u32 head[3] = { request, 5, size };

	switch (b->trick) {
	case VU_HANG_UP:
		return false;
	case VU_HALF:
		assert_int_equal(send(b->fd, head, 12, MSG_NOSIGNAL), 12);
		assert_int_equal(send(b->fd, data, size / 2, MSG_NOSIGNAL), size / 2);
		return false;
	case VU_SILENT:
		return true;
	case VU_SIZE:
		head[2] = b->value;
		break;
	case VU_REQUEST:
		head[0]++;
		break;
	case VU_FLAGS:
		head[1] = b->value;
		break;
	case VU_VALUE:
		memcpy(data + 4, &b->value, 4);
		vu_reply(b, request, data, size);
		return true;
	case VU_FDS:
		vu_reply_fds(b, request, data, size);
		return true;
	case VU_UNASKED:
		if (size)
			vu_reply(b, request, data, size);
		vu_reply(b, request, data, 8);
		return true;
	case VU_ERROR:
		vu_signal(b->ring[0].error);
		return true;
	case VU_HONEST:
		break;
	}
	send(b->fd, head, 12, MSG_NOSIGNAL);
	send(b->fd, data, size, MSG_NOSIGNAL);
	return true;
}

static inline bool vu_message(struct vu_back *b)
{
	union { struct cmsghdr c; u8 bytes[256]; } control;
	u8 data[1024] = { 0 };
	u32 head[3], size;
	struct iovec iov = { head, 12 };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	int fds[8];
	unsigned n = 0;

	if (recvmsg(b->fd, &h, MSG_WAITALL | MSG_CMSG_CLOEXEC) != 12)
		return false;
	if (h.msg_controllen) {
		n = (control.c.cmsg_len - CMSG_LEN(0)) / 4;
		memcpy(fds, CMSG_DATA(&control.c), n * 4);
	}
	assert_int_equal(head[1] & 7, 1);
	assert_true(head[0] < 32 && head[2] <= sizeof(data));
	if (head[2] && recv(b->fd, data, head[2], MSG_WAITALL) != (ssize_t)head[2])
		return false;
	size = vu_take(b, head[0], data, fds, n);
	if (head[0] == b->at && b->seen[head[0]]++ == b->nth && b->trick)
		return vu_misbehave(b, head[0], data, size);
	if (size)
		vu_reply(b, head[0], data, size);
	return true;
}

static inline void *vu_run(void *arg)
{
	struct vu_back *b = arg;
	bool going = true;

	b->fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC);
	while (going) {
		struct pollfd p[18] = { { b->fd, POLLIN, 0 }, { b->stop, POLLIN, 0 } };

		for (int i = 0; i < 16; i++)
			p[i + 2] = (struct pollfd){ b->ring[i].vq.ready ? b->ring[i].kick : -1, POLLIN, 0 };
		poll(p, 18, -1);
		for (int i = 0; i < 16; i++) {
			u64 count;

			if (p[i + 2].revents)
				assert_int_equal(read(p[i + 2].fd, &count, 8), 8);
		}
		vu_work(b);
		if (p[0].revents)
			going = vu_message(b);
		if (p[1].revents)
			going = false;
	}
	close(b->fd);
	return NULL;
}

/* features, protocol and so on are filled in. */
static inline void vu_begin(struct vu_back *b)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	if (!b->path[0])
		snprintf(b->path, sizeof(b->path), "/tmp/qumra-vhost-%d", getpid());
	unlink(b->path);
	strcpy(sa.sun_path, b->path);
	for (int i = 0; i < 16; i++)
		b->ring[i].kick = b->ring[i].call = b->ring[i].error = -1;
	b->stop = eventfd(0, EFD_CLOEXEC);
	b->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(b->listener, (struct sockaddr *)&sa, sizeof(sa)) | listen(b->listener, 1), 0);
	assert_int_equal(pthread_create(&b->thread, NULL, vu_run, b), 0);
}

static inline void vu_end(struct vu_back *b)
{
	vu_signal(b->stop);
	pthread_join(b->thread, NULL);
	for (int i = 0; i < 16; i++) {
		int fds[] = { b->ring[i].kick, b->ring[i].call, b->ring[i].error };

		for (int k = 0; k < 3; k++)
			if (fds[k] >= 0)
				close(fds[k]);
	}
	vu_close_memory(b);
	close(b->stop);
	close(b->listener);
	unlink(b->path);
}

#endif
