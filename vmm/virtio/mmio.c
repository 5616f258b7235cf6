/*
 * virtio over memory-mapped registers (virtio 1.2, 4.2.2), version 2. Kicks do not come here: an
 * ioeventfd takes them. The interrupt status is apart from the device's lock, so that a CPU in its
 * interrupt handler never waits for the I/O thread.
 */
#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/virtio/mmio.h"

#define MMIO_MAGIC	0x74726976	/* "virt" */
#define MMIO_VERSION	2
#define MMIO_VENDOR	0x524D5551	/* "QUMR" */

unsigned virtio_mmio_gsi(unsigned index)
{
	static const u8 gsi[] = { 5, 10, 11, 7, 15, 14, 6, 3 };

	return gsi[index % ARRAY_SIZE(gsi)];
}

int virtio_mmio_cmdline(unsigned index, char *buf, size_t size)
{
	return snprintf(buf, size, " virtio_mmio.device=%#x@%#llx:%u:%u", VIRTIO_MMIO_SIZE,
		VIRTIO_MMIO_BASE + (unsigned long long)index * VIRTIO_MMIO_STRIDE,
		virtio_mmio_gsi(index), index);
}

/* ---- interrupts ------------------------------------------------------------------------------ */

static void mmio_signal(struct virtio_mmio *m)
{
	u64 one = 1;
	ssize_t n = write(m->irq_fd, &one, sizeof(one));

	(void)n;
}

static void mmio_interrupt(void *transport, int queue)
{
	struct virtio_mmio *m = transport;
	u32 why = queue == VIRTIO_CONFIG ? VIRTIO_MMIO_INT_CONFIG : VIRTIO_MMIO_INT_VRING;

	__atomic_fetch_or(&m->interrupt_status, why, __ATOMIC_SEQ_CST);
	mmio_signal(m);
}

static void mmio_transport_reset(void *transport)
{
	struct virtio_mmio *m = transport;

	WRITE_ONCE(m->interrupt_status, 0);
	m->device_features_sel = m->driver_features_sel = m->queue_sel = 0;
}

/* ---- registers ------------------------------------------------------------------------------- */

static struct virtio_queue *selected(const struct virtio_mmio *m)
{
	return m->queue_sel < m->dev->queues ? &m->dev->queue[m->queue_sel] : NULL;
}

static u32 queue_read(const struct virtio_mmio *m, u64 reg)
{
	const struct virtio_queue *q = selected(m);

	if (!q)
		return 0;
	return reg == VIRTIO_MMIO_QUEUE_NUM_MAX ? q->size_max : q->vq.ready;
}

static u32 register_read(const struct virtio_mmio *m, u64 reg)
{
	const struct virtio_device *d = m->dev;

	switch (reg) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MMIO_MAGIC;
	case VIRTIO_MMIO_VERSION:
		return MMIO_VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return d->ops->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return MMIO_VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return m->device_features_sel > 1 ? 0 : d->offered >> 32 * m->device_features_sel;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
	case VIRTIO_MMIO_QUEUE_READY:
		return queue_read(m, reg);
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return READ_ONCE(m->interrupt_status);
	case VIRTIO_MMIO_STATUS:
		return d->status;
	case VIRTIO_MMIO_SHM_LEN_LOW:	/* 4.2.2: a region that is not there has length -1 */
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return ~0u;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return d->config_generation;
	default:
		return 0;
	}
}

static u64 mmio_read(void *dev, u64 offset, unsigned size)
{
	struct virtio_mmio *m = dev;
	u64 value = 0;

	if (offset == VIRTIO_MMIO_INTERRUPT_STATUS)
		return READ_ONCE(m->interrupt_status);
	virtio_lock(m->dev);
	if (offset >= VIRTIO_MMIO_CONFIG)
		virtio_config_read(m->dev, offset - VIRTIO_MMIO_CONFIG, &value, size);
	else if (size == 4 && !(offset & 3))	/* 4.2.2.2: whole registers only */
		value = register_read(m, offset);
	virtio_unlock(m->dev);
	return value;
}

static void set_half(u64 *word, bool high, u32 value)
{
	unsigned shift = high ? 32 : 0;

	*word = (*word & ~(0xFFFFFFFFULL << shift)) | (u64)value << shift;
}

static void queue_ready(struct virtio_mmio *m, u32 value)
{
	struct virtio_queue *q = selected(m);

	if (value == 1)
		virtio_queue_enable(m->dev, m->queue_sel);
	/* 4.2.2.2: only a reset ends a queue that is in use. */
	else if (!(m->dev->status & VIRTIO_CONFIG_S_DRIVER_OK))
		virtq_stop(&q->vq);
}

static void queue_write(struct virtio_mmio *m, u64 reg, u32 value)
{
	struct virtio_queue *q = selected(m);

	if (!q)
		return;
	if (reg == VIRTIO_MMIO_QUEUE_READY) {
		queue_ready(m, value);
		return;
	}
	if (q->vq.ready)
		return;
	switch (reg) {
	case VIRTIO_MMIO_QUEUE_NUM:
		q->config.size = MIN(value, 0xFFFF);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&q->config.desc, reg == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&q->config.driver, reg == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&q->config.device, reg == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
		break;
	}
}

static void driver_features(struct virtio_mmio *m, u32 value)
{
	u64 features = m->dev->features;

	if (m->driver_features_sel > 1)
		return;
	set_half(&features, m->driver_features_sel, value);
	virtio_set_features(m->dev, features);
}

static void register_write(struct virtio_mmio *m, u64 reg, u32 value)
{
	switch (reg) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		m->device_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		m->driver_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		driver_features(m, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		m->queue_sel = value;
		break;
	case VIRTIO_MMIO_STATUS:
		virtio_set_status(m->dev, value);
		break;
	default:
		queue_write(m, reg, value);
	}
}

static void mmio_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct virtio_mmio *m = dev;

	if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
		__atomic_fetch_and(&m->interrupt_status, ~(u32)value, __ATOMIC_SEQ_CST);
		return;
	}
	if (offset == VIRTIO_MMIO_QUEUE_NOTIFY) {
		if (value < m->dev->queues)
			virtio_queue_kick(m->dev, value);
		return;
	}
	virtio_lock(m->dev);
	if (offset >= VIRTIO_MMIO_CONFIG)
		virtio_config_write(m->dev, offset - VIRTIO_MMIO_CONFIG, &value, size);
	else if (size == 4 && !(offset & 3))
		register_write(m, offset, value);
	virtio_unlock(m->dev);
}

const struct io_ops virtio_mmio_io_ops = { .read = mmio_read, .write = mmio_write, .width = 4 };

/* ---- the five verbs -------------------------------------------------------------------------- */

/* The device's own reset does it all. */
static void verb_reset(void *dev)
{
	mmio_transport_reset(dev);
}

static void verb_pause(void *dev)
{
	(void)dev;
}

static void verb_resume(void *dev)
{
	struct virtio_mmio *m = dev;

	if (READ_ONCE(m->interrupt_status))
		mmio_signal(m);
}

struct mmio_state {
	u32 device_features_sel, driver_features_sel, queue_sel, interrupt_status;
};

static const struct state_field mmio_fields[] = {
	STATE_FIELD(struct mmio_state, device_features_sel, 1),
	STATE_FIELD(struct mmio_state, driver_features_sel, 1),
	STATE_FIELD(struct mmio_state, queue_sel, 1),
	STATE_FIELD(struct mmio_state, interrupt_status, 1),
};

static const struct state_table mmio_table =
	STATE_TABLE("virtio-mmio", struct mmio_state, 1, mmio_fields);

static void verb_save(void *dev, void *state)
{
	const struct virtio_mmio *m = dev;

	*(struct mmio_state *)state = (struct mmio_state){
		m->device_features_sel, m->driver_features_sel, m->queue_sel,
		READ_ONCE(m->interrupt_status),
	};
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_mmio *m = dev;
	const struct mmio_state *st = state;

	if (st->interrupt_status & ~(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG))
		return -EINVAL;
	m->device_features_sel = st->device_features_sel;
	m->driver_features_sel = st->driver_features_sel;
	m->queue_sel = st->queue_sel;
	WRITE_ONCE(m->interrupt_status, st->interrupt_status);
	return 0;
}

const struct device_ops virtio_mmio_device_ops = {
	.table = &mmio_table, .reset = verb_reset, .pause = verb_pause, .resume = verb_resume,
	.save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

static int mmio_wire(struct virtio_mmio *m, struct error *err)
{
	struct kvm_irqfd irq = { .fd = m->irq_fd, .gsi = m->gsi };
	long ret = kvm_ioctl(m->kvm, m->kvm->vm_fd, KVM_IRQFD, &irq);

	for (unsigned i = 0; i < m->dev->queues && ret >= 0; i++) {
		struct kvm_ioeventfd kick = {
			.datamatch = i, .addr = m->base + VIRTIO_MMIO_QUEUE_NOTIFY, .len = 4,
			.fd = m->dev->queue[i].kick_fd, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
		};

		ret = kvm_ioctl(m->kvm, m->kvm->vm_fd, KVM_IOEVENTFD, &kick);
	}
	if (ret < 0)
		return error_set(err, -ret, "%s: the hypervisor takes no eventfds: %s",
			m->dev->ops->name, strerror(-ret));
	return 0;
}

int virtio_mmio_init(struct virtio_mmio *m, struct virtio_device *dev, unsigned index,
		     const struct kvm *kvm, struct io_map *map, struct error *err)
{
	const struct io_range range = { VIRTIO_MMIO_BASE + (u64)index * VIRTIO_MMIO_STRIDE,
					VIRTIO_MMIO_SIZE, &virtio_mmio_io_ops, m, "virtio-mmio" };
	int ret;

	*m = (struct virtio_mmio){
		.dev = dev, .kvm = kvm, .base = range.base, .gsi = virtio_mmio_gsi(index) };
	m->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->irq_fd < 0)
		return error_set(err, errno, "eventfd: %s", strerror(errno));
	dev->transport = (struct virtio_transport){
		.interrupt = mmio_interrupt, .reset = mmio_transport_reset, .transport = m };
	ret = map ? io_map_add(map, &range) : 0;
	if (ret < 0)
		return error_set(err, -ret, "there is no room for %s", dev->ops->name);
	return kvm ? mmio_wire(m, err) : 0;
}

void virtio_mmio_destroy(struct virtio_mmio *m)
{
	if (m->dev && m->irq_fd >= 0)
		close(m->irq_fd);
	m->dev = NULL;
}
