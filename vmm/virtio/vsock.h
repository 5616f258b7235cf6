/*
 * virtio socket device (virtio 1.2, 5.10) whose host side are Unix sockets: who connects to PATH and sends
 * "CONNECT PORT\n" reaches that port of the guest (and reads "OK PORT\n" when the guest has taken it); the
 * guest's connections to port P of the host (CID 2) go to whoever listens on PATH_P. The convention is
 * that of Firecracker and Cloud Hypervisor.
 */
#ifndef QUMRA_VMM_VIRTIO_VSOCK_H
#define QUMRA_VMM_VIRTIO_VSOCK_H

#include <linux/virtio_vsock.h>

#include "vmm/virtio/options.h"
#include "vmm/virtio/virtio.h"

#define VSOCK_CONNECTIONS_MAX	128
#define VSOCK_RESETS_MAX	64

struct vsock_connection;

/* To be told to the driver: there is no such connection. */
struct vsock_reset {
	u32 local_port, peer_port;
};

struct virtio_vsock {
	struct virtio_device dev;
	u64 cid;			/* the guest's */
	char path[92];			/* with _PORT behind it, a Unix socket's */
	int listener, epoll, watch;
	u32 next_port;			/* for connections from the host */
	unsigned connections;
	struct vsock_connection *first;
	unsigned resets;
	struct vsock_reset reset[VSOCK_RESETS_MAX];
	bool event_due;			/* all connections are gone, which the driver does not know */
};

int virtio_vsock_init(struct virtio_vsock *v, const struct vsock_options *o,
		      const struct guest_memory *mem, struct io_thread *io, struct error *err);
void virtio_vsock_destroy(struct virtio_vsock *v);

/*
 * Tells the driver, if that is due and there is a buffer, that all connections are gone (5.10.6.7).
 * Under the device's lock; also for other devices of this kind.
 */
void vsock_send_event(struct virtio_device *d, unsigned queue, bool *due);

extern const struct device_ops virtio_vsock_device_ops;	/* self: a struct virtio_vsock */

/* ---- vsock_link.c: connections and the host's sockets ---------------------------------------- */

#define VSOCK_BUFFER	65536u	/* of a connection: what the guest may send ahead of the socket */
#define VSOCK_LINE	32	/* "CONNECT PORT\n" */

enum vsock_state {
	VSOCK_LINE_WANTED,	/* the host's client says which port it wants */
	VSOCK_ASKED,		/* the guest was asked, or is about to be */
	VSOCK_OPEN,
	VSOCK_DEAD,		/* over, but the guest is still to be told */
};

enum {	/* what the driver is to be sent, in this order */
	VSOCK_TELL_REQUEST = 1, VSOCK_TELL_RESPONSE = 2, VSOCK_TELL_CREDIT = 4,
	VSOCK_TELL_SHUTDOWN = 8, VSOCK_TELL_RESET = 16,
};

struct vsock_connection {
	struct vsock_connection *next;
	struct virtio_vsock *v;
	int fd;
	u32 local_port, peer_port;	/* the host's, the guest's */
	enum vsock_state state;
	u8 tell;
	bool readable, writable;	/* as epoll said last */
	bool ended;			/* nothing more comes from the socket */
	bool broken;			/* nothing more can be sent there */
	bool from_host;
	u8 peer_shut;			/* the guest's VIRTIO_VSOCK_SHUTDOWN_* */
	/* 5.10.6.3: counters of bytes, free-running. */
	u32 sent, peer_taken, peer_buffer;
	u32 received, taken, told;	/* taken: gone to the socket; told: of it, to the driver */
	char line[VSOCK_LINE];
	u32 line_len;
	u8 buffer[VSOCK_BUFFER];	/* of bytes received, not taken: a ring */
};

struct vsock_connection *vsock_find(struct virtio_vsock *v, u32 local_port, u32 peer_port);
/* The guest's wish to reach the host's port; NULL: nobody is there. */
struct vsock_connection *vsock_connect(struct virtio_vsock *v, u32 local_port, u32 peer_port);
/* The guest will be told that it is over. */
void vsock_reset(struct vsock_connection *c);
void vsock_close(struct vsock_connection *c);
void vsock_close_all(struct virtio_vsock *v);
/* n bytes of the guest's at offset in iov; false: it sent more than it may. */
bool vsock_receive(struct vsock_connection *c, const struct iovec *iov, unsigned iovs, u64 offset, u32 n);
/* To the socket, as much as it takes. */
void vsock_flush(struct vsock_connection *c);
/* The guest took a connection that the host asked for. */
void vsock_accepted(struct vsock_connection *c);
/* What is new on the sockets: flags of connections, and new ones. */
void vsock_poll(struct virtio_vsock *v);
int vsock_listen(struct virtio_vsock *v, struct error *err);

#endif
