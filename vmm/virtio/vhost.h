/*
 * virtio devices whose queues others serve, a program or the kernel: the front end is here, the back
 * end there. It takes kicks from the eventfd that the hypervisor signals, reads the rings in guest
 * memory and interrupts through an eventfd. So no thread of ours takes part in a request.
 *
 * vhost.c is the device between a transport and a back end; vhost_user.c speaks the protocol of
 * vhost-user (QEMU, docs/interop/vhost-user.rst), vhost_kernel.c the ioctls of /dev/vhost-net and
 * /dev/vhost-vsock.
 *
 * Another program may lie, stop answering or go away at any time. Then it is never spoken to again,
 * the device needs a reset, and does so after every reset.
 */
#ifndef QUMRA_VMM_VIRTIO_VHOST_H
#define QUMRA_VMM_VIRTIO_VHOST_H

#include "vmm/loop/child.h"
#include "vmm/virtio/options.h"
#include "vmm/virtio/virtio.h"

/* ---- the back end ---------------------------------------------------------------------------- */

struct vhost_back;
struct vhost_options;

struct vhost_ring {
	u16 size;
	u32 base;		/* of SET_VRING_BASE */
	u64 desc, driver, device;	/* host addresses in guest memory */
	int kick_fd, call_fd, error_fd;
};

/* Those that return int: 0 or, when the back end is lost now, -EIO. */
struct vhost_back_ops {
	void (*close)(struct vhost_back *b);	/* also of one that is closed */
	/* Is it there, and silent as it should be? NULL: there is nothing to be heard on fd. */
	bool (*check)(struct vhost_back *b);
	int (*get_config)(struct vhost_back *b, void *data, u32 len);
	/* As the driver has accepted them; those that the back end does not offer are not its. */
	int (*set_features)(struct vhost_back *b, u64 features);
	int (*set_memory)(struct vhost_back *b, const struct guest_memory *mem);
	int (*start_ring)(struct vhost_back *b, unsigned i, const struct vhost_ring *ring);
	int (*set_call)(struct vhost_back *b, unsigned i, int fd);
	/* The back end touches the ring no more when this returns. */
	int (*stop_ring)(struct vhost_back *b, unsigned i, u32 *base);
	/* All are started, a bit each; about to be stopped. NULL: each ring goes by itself. */
	int (*run)(struct vhost_back *b, u32 rings);
	void (*halt)(struct vhost_back *b);	/* if there is one, a failure is no loss */
};

struct vhost_back {
	const struct vhost_back_ops *ops;
	int fd;			/* -1: it is lost */
	u64 features, protocol;	/* what it offers; what of vhost-user's was agreed on */
	unsigned queues;	/* that it has; 0: it does not say */
	const char *why;	/* it was lost */
	int tap;		/* of vhost_net; -1: none */
};

/* Takes fd, a connected socket, and asks what is there. 0 or -EIO. */
int vhost_user_open(struct vhost_back *b, int fd);
/* The kernel's, of the interface o->tap and of the address o->cid. */
int vhost_tap_open(struct vhost_back *b, const struct vhost_options *o, struct error *err);
int vhost_vsock_open(struct vhost_back *b, const struct vhost_options *o, struct error *err);
/* May /dev/vhost-net be opened? */
bool vhost_net_there(void);

/* ---- the device ------------------------------------------------------------------------------ */

struct virtio_vhost;

/* What is special about a device's kind: vhost_kinds.c. */
struct vhost_kind {
	struct virtio_device_ops ops;	/* name, id and what follows from them */
	u64 features;		/* that are the back end's to offer */
	u64 own_features;	/* that are ours */
	u32 config_size;
	bool ask_config;	/* the back end has the configuration */
	bool keeps_state;	/* the back end remembers more than positions in rings */
	unsigned queues_fixed, queues_max;	/* of which the first are always there */
	unsigned queues_own;	/* behind the back end's: ours to serve */
	/* A back end of the kernel's; NULL: vhost-user. */
	int (*open)(struct vhost_back *b, const struct vhost_options *o, struct error *err);
	void (*settle)(struct virtio_vhost *v);	/* what is offered, before the driver comes; may be NULL */
	void (*loaded)(struct virtio_vhost *v);	/* a state, under the device's lock; may be NULL */
};

#define VHOST_OPS                                                                           \
	.start = vhost_start, .stop = vhost_stop, .pause = vhost_stop, .resume = vhost_resume, \
	.config_read = vhost_config_read, .rewired = vhost_rewired
void vhost_start(struct virtio_device *d);
void vhost_stop(struct virtio_device *d);
void vhost_resume(struct virtio_device *d);
void vhost_rewired(struct virtio_device *d, unsigned queue);
void vhost_config_read(struct virtio_device *d, u32 offset, void *data, u32 len);

extern const struct vhost_kind vhost_fs, vhost_net, vhost_blk, vhost_tap, vhost_vsock;

#define VHOST_CONFIG_MAX 64

struct virtio_vhost {
	struct virtio_device dev;
	const struct vhost_kind *kind;
	struct vhost_back back;
	struct child child;
	int watch;
	bool told;		/* that the back end has failed */
	bool running;		/* it has the queues */
	u32 started;		/* those, a bit each */
	bool event_due;		/* vsock: the driver is to hear that its connections are gone */
	int call_fd[VIRTIO_QUEUES_MAX], call_watch[VIRTIO_QUEUES_MAX];
	int error_fd, error_watch;
	struct virtio_vhost_call {
		struct virtio_vhost *v;
		unsigned queue;
	} call[VIRTIO_QUEUES_MAX];
	u8 config[VHOST_CONFIG_MAX];
};

struct vhost_options {
	const struct vhost_kind *kind;
	const char *option;	/* for messages: "--net" */
	const char *socket;	/* of a back end; NULL: folder is shared by a virtiofsd of ours */
	const char *folder;
	const char *tap;	/* of the kernel's: an interface */
	u64 cid;		/* or the guest's address */
	unsigned queues;	/* at most, beyond those that are always there; 0: one */
	u8 config[VHOST_CONFIG_MAX];	/* where the back end has none */
};

int virtio_vhost_init(struct virtio_vhost *v, const struct vhost_options *o,
		      const struct guest_memory *mem, struct io_thread *io, struct error *err);
void virtio_vhost_destroy(struct virtio_vhost *v);

extern const struct device_ops virtio_vhost_device_ops;	/* self: a struct virtio_vhost */

/* From the words of the command line. */
void vhost_options_share(struct vhost_options *v, const struct share_options *o);
void vhost_options_vsock(struct vhost_options *v, const struct vsock_options *o);
void vhost_options_nic(struct vhost_options *v, const struct nic_options *o);
void vhost_options_disk(struct vhost_options *v, const struct disk_options *o, unsigned queues);

/* A connected socket, or -errno. */
int vhost_connect(const char *option, const char *path, struct error *err);
/* Starts virtiofsd for a folder and connects to it. */
int vhost_virtiofsd(struct child *c, const char *folder, struct error *err);

#endif
