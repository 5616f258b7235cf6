/*
 * virtio over PCI (virtio 1.2, 4.1). One BAR holds the four structures, a page each, so that kicks are
 * apart: an ioeventfd for each queue takes them and follows the BAR where the guest moves it.
 * Interrupts are messages, sent from the I/O thread (pci_msix_signal()). The pin is for drivers without
 * MSI-X; it takes a turn of the machine's loop, under whose lock pins are.
 */
#include <errno.h>
#include <linux/virtio_pci.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/virtio/pci.h"

#define PCI_VENDOR_VIRTIO	0x1AF4
#define PCI_DEVICE_VIRTIO	0x1040	/* and the device's number (4.1.2) */
#define MSIX_BAR		1
#define NOTIFY_STEP		4
#define ISR_QUEUE		1
#define ISR_CONFIG		2
#define CONFIG_VECTOR		VIRTIO_QUEUES_MAX

static void eventfd_signal(int fd)
{
	u64 one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n;
}

/* ---- interrupts ------------------------------------------------------------------------------ */

/* Any thread, under the device's lock. */
static void pci_interrupt(void *transport, int queue)
{
	struct virtio_pci *p = transport;
	unsigned slot = queue == VIRTIO_CONFIG ? CONFIG_VECTOR : (unsigned)queue;

	if (pci_msix_enabled(&p->pci)) {
		if (p->fd[slot] >= 0)
			pci_msix_signal(&p->pci, p->vector[slot]);
		return;
	}
	__atomic_fetch_or(&p->isr, queue == VIRTIO_CONFIG ? ISR_QUEUE | ISR_CONFIG : ISR_QUEUE,
		__ATOMIC_SEQ_CST);
	eventfd_signal(p->intx_fd);
}

/* On the machine's thread, under its lock. */
static void intx_due(void *arg, u32 events)
{
	struct virtio_pci *p = arg;
	u64 count;
	ssize_t n = read(p->intx_fd, &count, sizeof(count));

	(void)n;
	(void)events;
	pci_set_intx(&p->pci, READ_ONCE(p->isr) && !pci_msix_enabled(&p->pci));
}

/* 4.1.4.5.1: reading it is acknowledging. */
static u32 isr_read(struct virtio_pci *p)
{
	u32 isr = __atomic_exchange_n(&p->isr, 0, __ATOMIC_SEQ_CST);

	pci_set_intx(&p->pci, false);
	return isr;
}

/* A vector that is not there reads back as none (4.1.5.1.2). */
static void vector_set(struct virtio_pci *p, unsigned slot, u16 vector)
{
	int fd = vector < p->pci.vectors ? pci_msix_eventfd(&p->pci, vector) : -1;

	p->fd[slot] = fd;
	p->vector[slot] = fd >= 0 ? vector : VIRTIO_MSI_NO_VECTOR;
	if (slot < p->dev->queues && p->dev->ops->rewired)
		p->dev->ops->rewired(p->dev, slot);
}

static int call_fd(void *transport, unsigned queue)
{
	const struct virtio_pci *p = transport;

	return pci_msix_enabled(&p->pci) ? p->fd[queue] : -1;
}

static void transport_reset(void *transport)
{
	struct virtio_pci *p = transport;

	WRITE_ONCE(p->isr, 0);
	p->device_features_sel = p->driver_features_sel = p->queue_sel = 0;
	for (size_t i = 0; i < ARRAY_SIZE(p->vector); i++) {
		p->vector[i] = VIRTIO_MSI_NO_VECTOR;
		p->fd[i] = -1;
	}
}

/* ---- kicks ----------------------------------------------------------------------------------- */

static void kicks_wire(struct virtio_pci *p, bool on)
{
	for (unsigned i = 0; p->kvm && i < p->dev->queues; i++) {
		struct kvm_ioeventfd kick = {
			.addr = p->notify + i * NOTIFY_STEP, .len = 2,
			.fd = p->dev->queue[i].kick_fd,
			.flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
		};

		/* What is refused comes as an exit, which kicks too. */
		kvm_ioctl(p->kvm, p->kvm->vm_fd, KVM_IOEVENTFD, &kick);
	}
}

static void bar_moved(struct pci_device *d, unsigned bar, u64 base)
{
	struct virtio_pci *p = d->self;

	if (bar != VIRTIO_PCI_BAR)
		return;
	if (p->notify != PCI_UNMAPPED)
		kicks_wire(p, false);
	p->notify = base == PCI_UNMAPPED ? base : base + VIRTIO_PCI_NOTIFY;
	if (p->notify != PCI_UNMAPPED)
		kicks_wire(p, true);
}

/* ---- the common structure (4.1.4.3) ---------------------------------------------------------- */

static struct virtio_queue *selected(const struct virtio_pci *p)
{
	return p->queue_sel < p->dev->queues ? &p->dev->queue[p->queue_sel] : NULL;
}

static u32 queue_read(const struct virtio_pci *p, u64 reg)
{
	const struct virtio_queue *q = selected(p);

	if (!q)
		return 0;
	switch (reg) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return q->config.size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return p->vector[p->queue_sel];
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return q->vq.ready;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return p->queue_sel;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return q->config.desc;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return q->config.desc >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return q->config.driver;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return q->config.driver >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return q->config.device;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return q->config.device >> 32;
	default:
		return 0;
	}
}

static u32 common_read(const struct virtio_pci *p, u64 reg)
{
	const struct virtio_device *d = p->dev;

	switch (reg) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return p->device_features_sel;
	case VIRTIO_PCI_COMMON_DF:
		return p->device_features_sel > 1 ? 0 : d->offered >> 32 * p->device_features_sel;
	case VIRTIO_PCI_COMMON_GFSELECT:
		return p->driver_features_sel;
	case VIRTIO_PCI_COMMON_GF:
		return p->driver_features_sel > 1 ? 0 : d->features >> 32 * p->driver_features_sel;
	case VIRTIO_PCI_COMMON_MSIX:
		return p->vector[CONFIG_VECTOR];
	case VIRTIO_PCI_COMMON_NUMQ:
		return d->queues;
	case VIRTIO_PCI_COMMON_STATUS:
		return d->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return (u8)d->config_generation;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return p->queue_sel;
	default:
		return queue_read(p, reg);
	}
}

static void set_half(u64 *word, bool high, u32 value)
{
	unsigned shift = high ? 32 : 0;

	*word = (*word & ~(0xFFFFFFFFULL << shift)) | (u64)value << shift;
}

static void queue_write(struct virtio_pci *p, u64 reg, u32 value)
{
	struct virtio_queue *q = selected(p);

	if (!q)
		return;
	if (reg == VIRTIO_PCI_COMMON_Q_MSIX)
		vector_set(p, p->queue_sel, value);
	if (q->vq.ready)
		return;
	switch (reg) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		q->config.size = value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)		/* 4.1.4.3.2: 0 is never written */
			virtio_queue_enable(p->dev, p->queue_sel);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		set_half(&q->config.desc, reg == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		set_half(&q->config.driver, reg == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		set_half(&q->config.device, reg == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		break;
	}
}

static void driver_features(struct virtio_pci *p, u32 value)
{
	u64 features = p->dev->features;

	if (p->driver_features_sel > 1)
		return;
	set_half(&features, p->driver_features_sel, value);
	virtio_set_features(p->dev, features);
}

static void common_write(struct virtio_pci *p, u64 reg, u32 value)
{
	switch (reg) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		p->device_features_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		p->driver_features_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		driver_features(p, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		vector_set(p, CONFIG_VECTOR, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_set_status(p->dev, value);
		if (!(u8)value)
			pci_set_intx(&p->pci, false);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		p->queue_sel = value;
		break;
	default:
		queue_write(p, reg, value);
	}
}

/* 4.1.3.1: a field is accessed by its own width, 64-bit ones by halves. */
static unsigned common_width(u64 reg)
{
	if (reg == VIRTIO_PCI_COMMON_STATUS || reg == VIRTIO_PCI_COMMON_CFGGENERATION)
		return 1;
	return reg < VIRTIO_PCI_COMMON_MSIX || reg >= VIRTIO_PCI_COMMON_Q_DESCLO ? 4 : 2;
}

/* A part of a field is read, too: iPXE of 2019 takes features by 16 bits. */
static u64 common_read_part(const struct virtio_pci *p, u64 offset, unsigned size)
{
	unsigned width = common_width(offset), skip = offset & (width - 1);

	return size <= width - skip ? common_read(p, offset - skip) >> 8 * skip : 0;
}

static u64 pci_read(void *arg, u64 offset, unsigned size)
{
	struct virtio_pci *p = arg;
	u64 value = 0;

	if (offset >= VIRTIO_PCI_ISR_AT && offset < VIRTIO_PCI_DEVICE)
		return offset == VIRTIO_PCI_ISR_AT ? isr_read(p) : 0;
	virtio_lock(p->dev);
	if (offset < VIRTIO_PCI_ISR_AT)
		value = common_read_part(p, offset, size);
	else if (offset < VIRTIO_PCI_NOTIFY)
		virtio_config_read(p->dev, offset - VIRTIO_PCI_DEVICE, &value, size);
	virtio_unlock(p->dev);
	return value;
}

static void pci_write(void *arg, u64 offset, u64 value, unsigned size)
{
	struct virtio_pci *p = arg;
	u64 queue = (offset - VIRTIO_PCI_NOTIFY) / NOTIFY_STEP;

	if (offset >= VIRTIO_PCI_NOTIFY) {
		if (queue < p->dev->queues)
			virtio_queue_kick(p->dev, queue);
		return;
	}
	virtio_lock(p->dev);
	if (offset < VIRTIO_PCI_ISR_AT && size == common_width(offset))
		common_write(p, offset, value);
	else if (offset >= VIRTIO_PCI_DEVICE)
		virtio_config_write(p->dev, offset - VIRTIO_PCI_DEVICE, &value, size);
	virtio_unlock(p->dev);
}

const struct io_ops virtio_pci_io_ops = { .read = pci_read, .write = pci_write, .width = 4 };

/* ---- the window in configuration space (4.1.4.9) --------------------------------------------- */

static unsigned window_at(const struct virtio_pci *p)
{
	for (unsigned at = p->pci.config[PCI_CAPABILITIES]; at; at = p->pci.config[at + 1])
		if (p->pci.config[at] == PCI_CAP_VENDOR &&
		    p->pci.config[at + 3] == VIRTIO_PCI_CAP_PCI_CFG)
			return at;
	return 0;
}

/* Does an access to configuration space touch the window's data, and does the window say where? */
static bool window_open(struct pci_device *d, unsigned at, unsigned offset, u32 *to, u32 *len)
{
	*to = pci_get_u32(d->config, at + 8);
	*len = pci_get_u32(d->config, at + 12);
	return at && offset == at + 16 && d->config[at + 4] == VIRTIO_PCI_BAR &&
	       (*len == 1 || *len == 2 || *len == 4) && *to <= VIRTIO_PCI_BAR_SIZE - *len &&
	       !(*to & (*len - 1));
}

static void config_read(struct pci_device *d, unsigned offset, unsigned size)
{
	unsigned at = window_at(d->self);
	u32 to, len;

	(void)size;
	if (at && window_open(d, at, offset, &to, &len))
		pci_put_u32(d->config, at + 16, pci_read(d->self, to, len));
}

static void config_written(struct pci_device *d, unsigned offset, unsigned size)
{
	unsigned at = window_at(d->self);
	u32 to, len;

	/* The whole space at once is a reset or a load, not a driver. */
	if (size <= 4 && at && window_open(d, at, offset, &to, &len))
		pci_write(d->self, to, pci_get_u32(d->config, at + 16) & MASK(8 * len - 1, 0), len);
}

/* As a driver's: a bridge resets all that is behind it (PCI-to-PCI Bridge 1.2, 3.2.5.17). */
static void bus_reset(struct pci_device *d)
{
	struct virtio_pci *p = d->self;

	virtio_device_ops.reset(p->dev);
}

static const struct pci_ops pci_ops = {
	.config_read = config_read, .config_written = config_written, .bar_moved = bar_moved,
	.reset = bus_reset,
};

/* ---- the five verbs -------------------------------------------------------------------------- */

static void verb_reset(void *dev)
{
	struct virtio_pci *p = dev;

	virtio_lock(p->dev);
	transport_reset(p);
	virtio_unlock(p->dev);
	pci_set_intx(&p->pci, false);
}

static void verb_pause(void *dev)
{
	(void)dev;
}

static void verb_resume(void *dev)
{
	struct virtio_pci *p = dev;

	eventfd_signal(p->intx_fd);
}

struct pci_state {
	u32 device_features_sel, driver_features_sel, queue_sel, isr;
	u16 vector[VIRTIO_QUEUES_MAX + 1];
};

static const struct state_field pci_fields[] = {
	STATE_FIELD(struct pci_state, device_features_sel, 1),
	STATE_FIELD(struct pci_state, driver_features_sel, 1),
	STATE_FIELD(struct pci_state, queue_sel, 1),
	STATE_FIELD(struct pci_state, isr, 1),
	STATE_FIELD(struct pci_state, vector, 1),
};

static const struct state_table pci_table =
	STATE_TABLE("virtio-pci", struct pci_state, 1, pci_fields);

static void verb_save(void *dev, void *state)
{
	const struct virtio_pci *p = dev;
	struct pci_state *st = state;

	*st = (struct pci_state){ p->device_features_sel, p->driver_features_sel, p->queue_sel,
				  READ_ONCE(p->isr), { 0 } };
	memcpy(st->vector, p->vector, sizeof(st->vector));
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_pci *p = dev;
	const struct pci_state *st = state;

	if (st->isr & ~(ISR_QUEUE | ISR_CONFIG))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(st->vector); i++)
		if (st->vector[i] != VIRTIO_MSI_NO_VECTOR && st->vector[i] >= p->pci.vectors)
			return -EINVAL;
	virtio_lock(p->dev);
	p->device_features_sel = st->device_features_sel;
	p->driver_features_sel = st->driver_features_sel;
	p->queue_sel = st->queue_sel;
	WRITE_ONCE(p->isr, st->isr);
	for (size_t i = 0; i < ARRAY_SIZE(st->vector); i++)
		vector_set(p, i, st->vector[i]);
	virtio_unlock(p->dev);
	return 0;
}

const struct device_ops virtio_pci_device_ops = {
	.table = &pci_table, .reset = verb_reset, .pause = verb_pause, .resume = verb_resume,
	.save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

static u32 class_of(u32 id)
{
	switch (id) {
	case VIRTIO_ID_NET:
		return 0x020000;
	case VIRTIO_ID_BLOCK:
	case VIRTIO_ID_SCSI:
		return 0x010000;
	case VIRTIO_ID_CONSOLE:
		return 0x078000;
	case VIRTIO_ID_GPU:
		return 0x038000;	/* a display that is no VGA */
	case VIRTIO_ID_INPUT:
		return 0x098000;
	default:
		return 0x00FF00;
	}
}

static void add_capability(struct virtio_pci *p, u8 type, u32 offset, u32 length)
{
	struct virtio_pci_notify_cap c = {
		.cap = { .cfg_type = type, .bar = VIRTIO_PCI_BAR, .offset = offset, .length = length },
		.notify_off_multiplier = NOTIFY_STEP,
	};
	unsigned size = sizeof(c.cap);

	/* What follows: a multiplier, or the window's data. */
	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		size = sizeof(c);
	if (type == VIRTIO_PCI_CAP_PCI_CFG)
		size = sizeof(struct virtio_pci_cfg_cap), c.cap.bar = 0, c.notify_off_multiplier = 0;
	pci_add_vendor_capability(&p->pci, &c, size);
}

static int add_structures(struct virtio_pci *p)
{
	unsigned window;

	pci_add_bar(&p->pci, VIRTIO_PCI_BAR, PCI_BAR_MEM64_PREFETCH, VIRTIO_PCI_BAR_SIZE,
		&virtio_pci_io_ops, p);
	add_capability(p, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_COMMON,
		sizeof(struct virtio_pci_common_cfg));
	add_capability(p, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_ISR_AT, 4);
	if (p->dev->config_size)
		add_capability(p, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_DEVICE, p->dev->config_size);
	add_capability(p, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_NOTIFY, p->dev->queues * NOTIFY_STEP);
	add_capability(p, VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
	window = window_at(p);
	p->pci.writable[window + 4] = 0xFF;
	memset(p->pci.writable + window + 8, 0xFF, 12);
	return pci_add_msix(&p->pci, MSIX_BAR, p->dev->queues + 1);
}

int virtio_pci_init(struct virtio_pci *p, struct virtio_device *dev, const struct kvm *kvm,
		    struct loop *loop, struct error *err)
{
	const struct pci_id id = {
		.vendor = PCI_VENDOR_VIRTIO, .device = PCI_DEVICE_VIRTIO + dev->ops->id,
		.subsystem_vendor = PCI_VENDOR_VIRTIO, .subsystem = PCI_DEVICE_VIRTIO + dev->ops->id,
		.class = class_of(dev->ops->id), .revision = 1,
	};

	*p = (struct virtio_pci){ .dev = dev, .kvm = kvm, .loop = loop, .notify = PCI_UNMAPPED,
				  .intx_watch = -1 };
	transport_reset(p);
	dev->transport = (struct virtio_transport){
		.interrupt = pci_interrupt, .reset = transport_reset, .call_fd = call_fd, .transport = p };
	p->intx_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->intx_fd < 0)
		return error_set(err, errno, "eventfd: %s", strerror(errno));
	pci_init(&p->pci, &pci_ops, p, &id);
	pci_set_pin(&p->pci, 1);
	if (add_structures(p) < 0)
		return error_set(err, ENOMEM, "out of memory");
	p->intx_watch = loop ? loop_add(loop, p->intx_fd, EPOLLIN, intx_due, p) : 0;
	return p->intx_watch < 0 ? error_set(err, -p->intx_watch, "too many virtio devices") : 0;
}

void virtio_pci_destroy(struct virtio_pci *p)
{
	if (!p->dev)
		return;
	pci_detach(&p->pci);	/* also what never came onto a bus has vectors */
	if (p->loop && p->intx_watch >= 0)
		loop_remove(p->loop, p->intx_watch);
	if (p->intx_fd >= 0)
		close(p->intx_fd);
	p->dev = NULL;
}
