/*
 * Fuzz target of the registers of both virtio transports: virtio-mmio's; of virtio-pci the common
 * structure, interrupt status, configuration, notification, the window in configuration space, BARs and
 * MSI-X. Behind them is a device of the test's own that brings back what it is given. The input is a list
 * of accesses, a driver's proper start among them. Whatever they are: kicks are taken where the BAR is,
 * once for each queue; messages are joined exactly for vectors that may go; what is saved loads and is
 * saved again the same; after a reset nothing is left, and a driver can start.
 */
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/device/virtio_driver.h"
#include "vmm/pci/bus.h"
#include "vmm/virtio/mmio.h"
#include "vmm/virtio/pci.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define CHECK(c)	do { if (!(c)) __builtin_trap(); } while (0)
#define QUEUES		3
#define SIZE		8
#define CONFIG_SIZE	20
#define BAR_AT		0xC0004000ULL
#define MSIX_AT		0xC0010000ULL
#define DEVICES	4

struct machine {
	struct io_map pio, map;
	struct guest_ram ram;
	struct io_thread io;
	struct loop loop;
	pthread_mutex_t lock;
	struct pci_host host;
	struct virtio_device dev;
	struct virtio_mmio mmio;
	struct virtio_pci pci;
	bool on_pci, driven;
	u8 config[CONFIG_SIZE];
	struct driver_queue q[QUEUES];
	struct { u64 addr; int fd; } kick[QUEUES];
	unsigned kicks, joins;
	struct device device[DEVICES];
	unsigned devices;
};

static struct machine m;

/* ---- surroundings ---------------------------------------------------------------------------- */

static void no_send(void *arg, u64 address, u32 data)
{
}

static int on_connect(void *arg, int fd, u64 address, u32 data)
{
	CHECK(fd >= 0 && m.joins < QUEUES + 1);
	return m.joins++;
}

static void on_disconnect(void *arg, int fd, int route)
{
	CHECK(m.joins > 0);
	m.joins--;
}

static const struct pci_msi_ops msi_ops = { no_send, on_connect, on_disconnect };

static void no_pirq(void *arg, unsigned pirq, bool level)
{
}

static long on_ioctl(int fd, unsigned long request, unsigned long arg)
{
	const struct kvm_ioeventfd *k = (const void *)arg;
	unsigned i = 0;

	CHECK(request == KVM_IOEVENTFD && k->len == 2);
	while (i < m.kicks && m.kick[i].addr != k->addr)
		i++;
	if (k->flags & KVM_IOEVENTFD_FLAG_DEASSIGN) {
		CHECK(i < m.kicks && m.kick[i].fd == k->fd);
		m.kick[i] = m.kick[--m.kicks];
		return 0;
	}
	CHECK(i == m.kicks && m.kicks < QUEUES);
	m.kick[m.kicks].addr = k->addr;
	m.kick[m.kicks++].fd = k->fd;
	return 0;
}

static const struct kvm_backend backend = { .name = "none", .ioctl = on_ioctl };
static const struct kvm kvm = { .backend = &backend };

/* ---- the device ------------------------------------------------------------------------------ */

static void echo_kick(struct virtio_device *d, unsigned queue)
{
	struct virtq_chain chain;

	CHECK(queue < QUEUES && virtio_running(d) && d->queue[queue].vq.ready);
	while (virtio_running(d) && virtio_pop_or_wait(d, queue, &chain))
		virtio_done(d, queue, &chain, 0);
}

static void echo_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	CHECK(offset < CONFIG_SIZE && len <= CONFIG_SIZE - offset);
	memcpy(data, m.config + offset, len);
}

static void echo_config_write(struct virtio_device *d, u32 offset, const void *data, u32 len)
{
	CHECK(offset < CONFIG_SIZE && len <= CONFIG_SIZE - offset);
	memcpy(m.config + offset, data, len);
}

static const struct virtio_device_ops echo_ops = {
	.name = "echo", .id = VIRTIO_ID_RNG, .kick = echo_kick,
	.config_read = echo_config_read, .config_write = echo_config_write,
};

/* ---- life ------------------------------------------------------------------------------------ */

static void add_device(const struct device_ops *ops, void *self)
{
	m.device[m.devices++] = (struct device){ .ops = ops, .self = self };
}

static void pci_start(struct error *err)
{
	CHECK(loop_init(&m.loop, &m.lock, err) == 0);
	pci_host_init(&m.host, &m.pio, &m.map);
	m.host.msi = &msi_ops;
	m.host.set_pirq = no_pirq;
	CHECK(virtio_pci_init(&m.pci, &m.dev, &kvm, &m.loop, err) == 0);
	CHECK(pci_attach(&m.host.root, PCI_DEVFN(1, 0), &m.pci.pci) == 0);
	add_device(&pci_function_ops, &m.pci.pci);
	add_device(&virtio_pci_device_ops, &m.pci);
}

static void machine_start(bool on_pci)
{
	struct error err = ERROR_INIT;

	memset(&m, 0, sizeof(m));
	m.on_pci = on_pci;
	pthread_mutex_init(&m.lock, NULL);
	ram_init(&m.ram);
	CHECK(io_thread_init(&m.io, &err) == 0);
	CHECK(virtio_init(&m.dev, &echo_ops, 0, QUEUES, SIZE, CONFIG_SIZE, &m.ram.mem, &m.io, &err) == 0);
	if (on_pci) {
		pci_start(&err);
	} else {
		CHECK(virtio_mmio_init(&m.mmio, &m.dev, 0, NULL, &m.map, &err) == 0);
		add_device(&virtio_mmio_device_ops, &m.mmio);
	}
	add_device(&virtio_device_ops, &m.dev);
}

static void machine_end(void)
{
	virtio_pci_destroy(&m.pci);
	virtio_mmio_destroy(&m.mmio);
	CHECK(!m.kicks && !m.joins);
	if (m.on_pci)
		loop_destroy(&m.loop);
	virtio_destroy(&m.dev);
	io_thread_destroy(&m.io);
	free(m.ram.bytes);
}

/* ---- what must hold -------------------------------------------------------------------------- */

static unsigned vectors_live(void)
{
	const struct pci_device *d = &m.pci.pci;
	u16 control = pci_get_u16(d->config, d->msix + 2);
	unsigned n = 0;

	for (unsigned i = 0; i < d->vectors; i++)
		n += d->vector[i].fd >= 0 && !(d->vector[i].control & 1);
	return control >> 14 == 2 && pci_is_master(d) ? n : 0;
}

static void check_pci(void)
{
	const struct virtio_pci *p = &m.pci;
	u64 bar = p->pci.bar[VIRTIO_PCI_BAR].base;

	CHECK(p->notify == (bar == PCI_UNMAPPED ? bar : bar + VIRTIO_PCI_NOTIFY));
	CHECK(m.kicks == (bar == PCI_UNMAPPED ? 0 : QUEUES));
	for (unsigned i = 0; i < m.kicks; i++)
		CHECK(m.kick[i].addr - p->notify < 4 * QUEUES);
	for (unsigned i = 0; i < ARRAY_SIZE(p->vector); i++)
		CHECK(p->fd[i] >= 0 ? p->vector[i] < p->pci.vectors && p->pci.vector[p->vector[i]].fd == p->fd[i]
				    : p->vector[i] == VIRTIO_MSI_NO_VECTOR);
	CHECK(m.joins == vectors_live());
	CHECK(p->isr <= 3);
}

static void check_queues(void)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		const struct virtio_queue *q = &m.dev.queue[i];

		CHECK(!q->vq.ready || (q->config.size <= SIZE && m.dev.status & VIRTIO_CONFIG_S_FEATURES_OK));
	}
	if (m.on_pci)
		check_pci();
}

/* ---- what happens ---------------------------------------------------------------------------- */

/* The threads' turns: what was kicked, and the pin. */
static void turn(void)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		const struct loop_watch *w = &m.io.loop.watch[m.dev.queue[i].watch];

		w->fn(w->arg, EPOLLIN);
	}
	if (m.on_pci)
		m.loop.watch[m.pci.intx_watch].fn(m.loop.watch[m.pci.intx_watch].arg, EPOLLIN);
}

static void config_access(unsigned offset, u32 value, unsigned size, bool write)
{
	offset &= ~(size - 1);
	if (write)
		pci_config_write(&m.pci.pci, offset, value, size);
	else
		pci_config_read(&m.pci.pci, offset, size);
}

static void window_access(const u8 *p, u32 value, bool write)
{
	unsigned at = m.pci.pci.last_capability;

	while (m.pci.pci.config[at] != PCI_CAP_VENDOR || m.pci.pci.config[at + 3] != VIRTIO_PCI_CAP_PCI_CFG)
		at -= 4;
	config_access(at + 4, p[1] & 0x80 ? p[1] : VIRTIO_PCI_BAR, 1, true);
	config_access(at + 8, p[3] << 12 | p[2], 4, true);
	config_access(at + 12, p[1] & 7, 4, true);
	config_access(at + 16, value, 4, write);
}

static void bus_access(u64 at, u64 value, unsigned size, bool write)
{
	if (write)
		io_map_write(&m.map, at, &value, size);
	else
		io_map_read(&m.map, at, &value, size);
}

/* The transport's registers, wherever they are now. */
static void register_access(const u8 *p, u64 value, unsigned size, bool write)
{
	u64 base = m.on_pci ? m.pci.pci.bar[VIRTIO_PCI_BAR].base : m.mmio.base;
	u64 offset = m.on_pci ? (u64)(p[3] & 3) << 12 | p[2] : p[2] | (p[3] & 1) << 8;

	bus_access(base + offset, value, size, write);
}

static void table_access(const u8 *p, u32 value, unsigned size, bool write)
{
	u64 base = m.pci.pci.bar[m.pci.pci.msix_bar].base;

	bus_access(base + (p[3] & 8) * 256 + p[2] % 80, value, size, write);
}

/* A driver's start (virtio 1.2, 3.1.1), by the device's functions: the accesses then spoil it. */
static void start(bool packed)
{
	u64 features = BIT(VIRTIO_F_VERSION_1) | (packed ? BIT(VIRTIO_F_RING_PACKED) : 0);

	virtio_set_status(&m.dev, 0);
	virtio_set_status(&m.dev, 3);
	virtio_set_features(&m.dev, features);
	virtio_set_status(&m.dev, 11);
	CHECK(m.dev.status == 11);
	m.ram.top = RAM_BASE;
	for (unsigned i = 0; i < QUEUES; i++) {
		driver_init(&m.q[i], &m.ram, SIZE, packed, false);
		m.dev.queue[i].config = driver_config(&m.q[i]);
		virtio_queue_enable(&m.dev, i);
		CHECK(m.dev.queue[i].vq.ready);
	}
	virtio_set_status(&m.dev, 15);
	CHECK(m.dev.status == 15);
	m.driven = true;
}

/* Firmware's part and the bus code's. */
static void place(u32 value)
{
	if (!m.on_pci)
		return;
	config_access(PCI_BAR0 + 4 * VIRTIO_PCI_BAR, BAR_AT, 4, true);
	config_access(PCI_BAR0 + 4 * VIRTIO_PCI_BAR + 4, 0, 4, true);
	config_access(PCI_BAR0 + 4, MSIX_AT, 4, true);
	config_access(PCI_COMMAND, 6, 2, true);
	config_access(m.pci.pci.msix + 2, value & 1 ? 0x8000 : 0, 2, true);
	for (unsigned i = 0; i < QUEUES + 1; i++)
		bus_access(MSIX_AT + 16 * i + 12, value >> (1 + i) & 1, 4, true);
}

static void submit(const u8 *p)
{
	const struct piece piece = { RAM_BASE + 0x10000 + p[3], 1 + p[2], p[1] & 1 };

	if (m.driven)
		driver_submit(&m.q[p[1] % QUEUES], &piece, 1, 0);
}

static void interrupt(const u8 *p)
{
	if (m.dev.transport.interrupt)
		m.dev.transport.interrupt(m.dev.transport.transport, (int)(p[2] % (QUEUES + 1)) - 1);
}

static void verb_all(void (*device_verb)(const struct device *dev))
{
	for (unsigned i = 0; i < m.devices; i++)
		device_verb(&m.device[i]);
}

static void do_pause(const struct device *dev)
{
	dev->ops->pause(dev->self);
}

static void do_resume(const struct device *dev)
{
	dev->ops->resume(dev->self);
}

static void do_reset(const struct device *dev)
{
	dev->ops->reset(dev->self);
}

/* Another machine with the same memory goes on; with a byte of the state spoilt: refused, or good. */
static void move(const u8 *p)
{
	static u8 first[DEVICES][16384], second[16384];
	long n[DEVICES];

	verb_all(do_pause);
	for (unsigned i = 0; i < m.devices; i++)
		n[i] = device_save(&m.device[i], first[i], sizeof(first[i]));
	if (p[1] & 1) {
		verb_all(do_reset);
		CHECK(!m.joins && !m.kicks && !m.dev.status);
	}
	for (unsigned i = 0; i < m.devices; i++)
		CHECK(n[i] > 0 && device_load(&m.device[i], first[i], n[i]) == n[i]);
	for (unsigned i = 0; i < m.devices; i++) {
		CHECK(device_save(&m.device[i], second, sizeof(second)) == n[i]);
		CHECK(memcmp(first[i], second, n[i]) == 0);
	}
	if (p[1] & 2) {
		unsigned i = p[2] % m.devices;

		first[i][(p[3] | p[1] >> 4 << 8) % n[i]] ^= p[4];
		if (device_load(&m.device[i], first[i], n[i]) > 0)
			m.driven = false;
	}
	verb_all(do_resume);
}

static void reset(const u8 *p)
{
	m.device[p[2] % m.devices].ops->reset(m.device[p[2] % m.devices].self);
	m.driven = false;
}

/* Eight bytes: what, size, where, value. */
static void access_one(const u8 *p)
{
	unsigned size = 1 << (p[1] & 3);
	bool write = p[0] & 16;
	u32 value;

	memcpy(&value, p + 4, 4);
	switch (p[0] & 15) {
	case 0:
		if (m.on_pci)
			config_access(p[2], value, size & 7 ? size : 4, write);
		break;
	case 1:
	case 2:
		if (m.on_pci)
			window_access(p, value, write);
		break;
	case 3:
		if (m.on_pci)
			table_access(p, value, size, write);
		break;
	case 4:
		interrupt(p);
		break;
	case 5:
		turn();
		break;
	case 6:
		move(p);
		break;
	case 7:
		start(p[1] & 1);
		break;
	case 8:
		place(value);
		break;
	case 9:
		submit(p);
		break;
	case 10:
		reset(p);
		break;
	default:
		register_access(p, value | (u64)value << 32, size, write);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	machine_start(size && data[0] & 32);
	for (size_t i = 0; i + 8 <= size; i += 8) {
		access_one(data + i);
		check_queues();
	}
	verb_all(do_reset);
	check_queues();
	start(false);
	submit((const u8[]){ 0, 0, 1, 1 });
	turn();
	CHECK(m.dev.queue[0].vq.at.used <= 1);
	machine_end();
	return 0;
}
