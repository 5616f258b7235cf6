/*
 * The console device (virtio 1.2, 5.3). Queues: receive and transmit of port 0, control from and to the
 * device, then receive and transmit of the other ports. Control messages that we owe are bits of the
 * port, so a driver that gives no buffers costs nothing.
 */
#include <errno.h>
#include <linux/virtio_console.h>
#include <string.h>

#include "vmm/virtio/console.h"
#include "vmm/virtio/sg.h"

#define CONSOLE_QUEUE_SIZE	128
#define QUEUE_CONTROL_IN	2	/* to the driver */
#define QUEUE_CONTROL_OUT	3
#define PIECE			2048	/* bytes copied at a time */

/* In the order in which they are sent. */
enum { OWE_ADD = 1, OWE_CONSOLE = 2, OWE_NAME = 4, OWE_OPEN = 8, OWE_ALL = 15 };

_Static_assert(sizeof(struct virtio_console_control) == 8, "virtio 1.2 5.3.6.2");

static struct virtio_console *to_console(struct virtio_device *d)
{
	return container_of(d, struct virtio_console, dev);
}

static unsigned receive_queue(unsigned port)
{
	return port ? 2 + 2 * port : 0;
}

static struct console_port *queue_port(struct virtio_console *con, unsigned queue)
{
	return &con->port[queue < 2 ? 0 : queue / 2 - 1];
}

static unsigned port_number(const struct console_port *p)
{
	return p - p->console->port;
}

/* Without MULTIPORT port 0 is all there is, and it is open (5.3.2). */
static bool port_is_open(const struct console_port *p)
{
	return p->guest_open || !virtio_has(&p->console->dev, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* ---- control --------------------------------------------------------------------------------- */

static u32 message_make(const struct console_port *p, u8 what, u8 *buf, u32 size)
{
	struct virtio_console_control c = { .id = port_number(p), .value = 1 };
	u32 len = sizeof(c);

	c.event = what == OWE_ADD ? VIRTIO_CONSOLE_PORT_ADD :
		  what == OWE_CONSOLE ? VIRTIO_CONSOLE_CONSOLE_PORT :
		  what == OWE_NAME ? VIRTIO_CONSOLE_PORT_NAME : VIRTIO_CONSOLE_PORT_OPEN;
	memcpy(buf, &c, sizeof(c));
	if (what == OWE_NAME) {
		u32 n = strnlen(p->name, size - len);

		memcpy(buf + len, p->name, n);
		len += n;
	}
	return len;
}

static bool control_send(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_console *con = to_console(d);
	u8 buf[128];

	for (unsigned i = 0; i < con->ports; i++) {
		struct console_port *p = &con->port[i];
		u8 what = p->pending & -p->pending;
		u32 len;

		if (!what)
			continue;
		p->pending &= ~what;
		len = message_make(p, what, buf, sizeof(buf));
		virtio_done(d, queue, c, sg_write(c->iov + c->outs, c->ins, 0, buf, len));
		return true;
	}
	return false;
}

static void control_flush(struct virtio_console *con)
{
	virtio_queue_run(&con->dev, QUEUE_CONTROL_IN, control_send);
}

static void port_is_ready(struct console_port *p)
{
	p->ready = true;
	p->pending |= p->name ? OWE_NAME | OWE_OPEN : OWE_CONSOLE | OWE_OPEN;
}

static void control_take(struct virtio_console *con, const struct virtio_console_control *m)
{
	struct console_port *p = &con->port[MIN(m->id, con->ports - 1)];

	if (m->event == VIRTIO_CONSOLE_DEVICE_READY) {
		for (unsigned i = 0; i < con->ports && m->value; i++)
			con->port[i].pending |= OWE_ADD;
		return;
	}
	if (m->id >= con->ports)
		return;
	if (m->event == VIRTIO_CONSOLE_PORT_READY && m->value) {
		port_is_ready(p);
	} else if (m->event == VIRTIO_CONSOLE_PORT_OPEN) {
		p->guest_open = m->value;
		if (p->guest_open && p->attached)
			chardev_accept_input(&p->chardev);
	}
}

static bool control_receive(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_console_control m;

	if (sg_read(c->iov, c->outs, 0, &m, sizeof(m)) == sizeof(m))
		control_take(to_console(d), &m);
	virtio_done(d, queue, c, 0);
	return true;
}

/* ---- data ------------------------------------------------------------------------------------ */

static bool port_transmit(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct console_port *p = queue_port(to_console(d), queue);
	u8 buf[PIECE];

	while (p->attached && p->sent < c->out_bytes) {
		size_t n = sg_read(c->iov, c->outs, p->sent, buf, sizeof(buf));
		size_t taken = chardev_write(&p->chardev, buf, n);

		p->sent += taken;
		if (taken < n)
			return false;	/* port_drained comes back */
	}
	p->sent = 0;
	virtio_done(d, queue, c, 0);
	return true;
}

static void port_drained(void *arg)
{
	struct console_port *p = arg;

	virtio_queue_kick(&p->console->dev, receive_queue(port_number(p)) + 1);
}

static size_t port_room(void *arg)
{
	struct console_port *p = arg;
	struct virtio_device *d = &p->console->dev;
	unsigned queue = receive_queue(port_number(p));
	struct virtq_chain c;

	if (!virtio_running(d) || !port_is_open(p) || !virtio_pop_or_wait(d, queue, &c))
		return 0;
	virtq_unpop(&d->queue[queue].vq, &c);
	return c.in_bytes;
}

static void port_receive(void *arg, const u8 *data, size_t n)
{
	struct console_port *p = arg;
	struct virtio_device *d = &p->console->dev;
	unsigned queue = receive_queue(port_number(p));
	struct virtq_chain c;

	/* The driver may take its buffer back between port_room() and this: then input is lost. */
	if (virtio_pop(d, queue, &c))
		virtio_done(d, queue, &c, sg_write(c.iov + c.outs, c.ins, 0, data, n));
	/* What else waits goes into the next one. */
	virtio_queue_kick(d, queue);
}

static void port_line_break(void *arg)
{
	(void)arg;
}

static void console_kick(struct virtio_device *d, unsigned queue)
{
	struct virtio_console *con = to_console(d);
	struct console_port *p;

	if (queue == QUEUE_CONTROL_OUT) {
		virtio_queue_run(d, queue, control_receive);
		control_flush(con);
	} else if (queue == QUEUE_CONTROL_IN) {
		control_flush(con);
	} else if (queue & 1) {
		virtio_queue_run(d, queue, port_transmit);
	} else {
		p = queue_port(con, queue);
		if (p->attached)
			chardev_accept_input(&p->chardev);
	}
}

static void console_stop(struct virtio_device *d)
{
	struct virtio_console *con = to_console(d);

	for (unsigned i = 0; i < con->ports; i++) {
		struct console_port *p = &con->port[i];

		p->guest_open = p->ready = false;
		p->pending = 0;
		p->sent = 0;
	}
}

static void console_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	const struct virtio_console_config c = { .max_nr_ports = to_console(d)->ports };

	memcpy(data, (const u8 *)&c + offset, len);
}

/* 5.3.4: a character before any queue works. */
static void console_config_write(struct virtio_device *d, u32 offset, const void *data, u32 len)
{
	struct console_port *p = &to_console(d)->port[0];

	if (offset == offsetof(struct virtio_console_config, emerg_wr) && len && p->attached)
		chardev_write(&p->chardev, data, 1);
}

static const struct virtio_device_ops console_ops = {
	.name = "virtio-console", .id = VIRTIO_ID_CONSOLE, .kick = console_kick,
	.stop = console_stop, .config_read = console_config_read,
	.config_write = console_config_write,
};

/* ---- the five verbs, of what is its own ------------------------------------------------------ */

struct console_state {
	u32 sent[CONSOLE_PORTS_MAX];
	u8 flags[CONSOLE_PORTS_MAX], pending[CONSOLE_PORTS_MAX];
};

enum { PORT_GUEST_OPEN = 1, PORT_READY = 2 };

static const struct state_field console_fields[] = {
	STATE_FIELD(struct console_state, sent, 1),
	STATE_FIELD(struct console_state, flags, 1),
	STATE_FIELD(struct console_state, pending, 1),
};

static const struct state_table console_table =
	STATE_TABLE("virtio-console", struct console_state, 1, console_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

static void verb_save(void *dev, void *state)
{
	struct virtio_console *con = dev;
	struct console_state *st = state;

	for (unsigned i = 0; i < con->ports; i++) {
		const struct console_port *p = &con->port[i];

		st->sent[i] = p->sent;
		st->pending[i] = p->pending;
		st->flags[i] = (p->guest_open ? PORT_GUEST_OPEN : 0) | (p->ready ? PORT_READY : 0);
	}
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_console *con = dev;
	const struct console_state *st = state;

	for (unsigned i = 0; i < con->ports; i++)
		if (st->flags[i] & ~(PORT_GUEST_OPEN | PORT_READY) || st->pending[i] & ~OWE_ALL ||
		    (st->pending[i] & OWE_NAME && !con->port[i].name))
			return -EINVAL;
	virtio_lock(&con->dev);
	for (unsigned i = 0; i < con->ports; i++) {
		struct console_port *p = &con->port[i];

		p->sent = st->sent[i];
		p->pending = st->pending[i];
		p->guest_open = st->flags[i] & PORT_GUEST_OPEN;
		p->ready = st->flags[i] & PORT_READY;
	}
	virtio_unlock(&con->dev);
	return 0;
}

const struct device_ops virtio_console_device_ops = {
	.table = &console_table, .reset = verb_nothing, .pause = verb_nothing,
	.resume = verb_nothing, .save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

int virtio_console_init(struct virtio_console *con, unsigned ports, const struct guest_memory *mem,
			struct io_thread *io, struct error *err)
{
	*con = (struct virtio_console){ .ports = ports };
	for (unsigned i = 0; i < ports; i++)
		con->port[i].console = con;
	return virtio_init(&con->dev, &console_ops,
		BIT(VIRTIO_CONSOLE_F_MULTIPORT) | BIT(VIRTIO_CONSOLE_F_EMERG_WRITE), 2 + 2 * ports,
		CONSOLE_QUEUE_SIZE, sizeof(struct virtio_console_config), mem, io, err);
}

static void port_quit(void *arg)
{
	(void)arg;	/* only a terminal asks for it */
}

int virtio_console_open(struct virtio_console *con, unsigned port, const char *where,
			const char *name, struct error *err)
{
	struct console_port *p = &con->port[port];
	const struct chardev_events events = { .quit = port_quit, .arg = p };
	const struct chardev_front front = {
		.room = port_room, .receive = port_receive, .drained = port_drained,
		.line_break = port_line_break, .arg = p,
	};
	int ret = chardev_open(&p->chardev, "--device console=", where,
			       &con->dev.io->loop, &events, err);

	if (ret < 0)
		return ret;
	p->name = name;
	p->attached = true;
	chardev_attach(&p->chardev, &front);
	return 0;
}

void virtio_console_destroy(struct virtio_console *con)
{
	for (unsigned i = 0; i < con->ports; i++) {
		if (!con->port[i].attached)
			continue;
		chardev_flush(&con->port[i].chardev, 1000);
		chardev_destroy(&con->port[i].chardev);
	}
	virtio_destroy(&con->dev);
}
