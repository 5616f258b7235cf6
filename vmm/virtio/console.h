/* virtio console (virtio 1.2, 5.3) with several ports, each with a chardev on the host's side. */
#ifndef QUMRA_VMM_VIRTIO_CONSOLE_H
#define QUMRA_VMM_VIRTIO_CONSOLE_H

#include "vmm/chardev/chardev.h"
#include "vmm/virtio/virtio.h"

#define CONSOLE_PORTS_MAX 8

struct virtio_console;

struct console_port {
	struct virtio_console *console;
	struct chardev chardev;
	bool attached;		/* the chardev is open */
	const char *name;	/* NULL: a console (hvc), else a plain port */
	bool guest_open;	/* the driver has it open */
	bool ready;		/* the driver knows it */
	u8 pending;		/* control messages that wait for a buffer, see console.c */
	u32 sent;		/* bytes of the transmit queue's first buffer that are out */
};

struct virtio_console {
	struct virtio_device dev;
	unsigned ports;
	struct console_port port[CONSOLE_PORTS_MAX];
};

/* Ports without chardevs. It must not move afterwards. */
int virtio_console_init(struct virtio_console *con, unsigned ports, const struct guest_memory *mem,
			struct io_thread *io, struct error *err);
/* where: as chardev_open() takes it, but not the terminal, whose keys are the machine's. */
int virtio_console_open(struct virtio_console *con, unsigned port, const char *where,
			const char *name, struct error *err);
void virtio_console_destroy(struct virtio_console *con);

extern const struct device_ops virtio_console_device_ops;	/* what is its own, beside the device's */

#endif
