/*
 * A virtio device behind the PCI transport, as a driver reaches it: by configuration space and BARs that
 * the test's firmware placed, now and then by the window in configuration space. Interrupts are messages,
 * or the pin.
 */
#ifndef QUMRA_TESTS_DEVICE_BOARD_PCI_H
#define QUMRA_TESTS_DEVICE_BOARD_PCI_H

#include <linux/virtio_pci.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/device/fixture.h"
#include "vmm/pci/bus.h"
#include "vmm/virtio/pci.h"

#define BOARD_SLOT	3
#define BOARD_BAR	0xC0004000ULL
#define BOARD_MSIX_BAR	0xC0010000ULL
#define BOARD_MESSAGE	0x40	/* the data of vector 0 */
#define BOARD_ROUTES	256

struct board_pci {
	struct virtio_pci t;
	struct pci_host host;
	struct io_map pio, mmio;
	struct loop loop;
	pthread_mutex_t lock;
	bool msix, level;
	unsigned accesses;
	/* Messages: an eventfd, and a bit for each vector; atomic. */
	int sent_fd;
	u32 sent;
	/* Eventfds that whoever has them writes to: what a hypervisor joins to messages. */
	struct { int fd; u32 data; } joined[BOARD_ROUTES];
	unsigned routes, joins;
};

/* ---- surroundings ---------------------------------------------------------------------------- */

static inline void board_pci_send(void *arg, u64 address, u32 data)
{
	struct board_pci *p = arg;
	u64 one = 1;

	assert_int_equal(address, 0xFEE00000);
	assert_in_range(data, BOARD_MESSAGE, BOARD_MESSAGE + VIRTIO_QUEUES_MAX);
	__atomic_fetch_or(&p->sent, 1U << (data - BOARD_MESSAGE), __ATOMIC_SEQ_CST);
	assert_int_equal(write(p->sent_fd, &one, sizeof(one)), sizeof(one));
}

static inline int board_pci_connect(void *arg, int fd, u64 address, u32 data)
{
	struct board_pci *p = arg;
	unsigned i = p->routes++ % BOARD_ROUTES;

	assert_int_equal(p->joined[i].fd, -1);
	assert_int_equal(address, 0xFEE00000);
	p->joined[i].fd = fd;
	p->joined[i].data = data;
	p->joins++;
	return i;
}

static inline void board_pci_disconnect(void *arg, int fd, int route)
{
	struct board_pci *p = arg;

	assert_int_equal(p->joined[route].fd, fd);
	p->joined[route].fd = -1;
	p->joins--;
}

static inline void board_pci_set_pirq(void *arg, unsigned pirq, bool level)
{
	struct board_pci *p = arg;

	assert_int_equal(pirq, pci_root_pirq(BOARD_SLOT, 0));
	p->level = level;
}

/* ---- accesses -------------------------------------------------------------------------------- */

static inline void board_pci_config_out(struct board_pci *p, unsigned reg, u32 value, unsigned size)
{
	pci_config_write(pci_find(&p->host, 0, PCI_DEVFN(BOARD_SLOT, 0)), reg, value, size);
}

static inline u32 board_pci_config_in(struct board_pci *p, unsigned reg, unsigned size)
{
	return pci_config_read(pci_find(&p->host, 0, PCI_DEVFN(BOARD_SLOT, 0)), reg, size);
}

/* Where the window's structure is (4.1.4.9). */
static inline unsigned board_pci_window(struct board_pci *p)
{
	unsigned at = board_pci_config_in(p, PCI_CAPABILITIES, 1);

	while (board_pci_config_in(p, at, 1) != PCI_CAP_VENDOR ||
	       board_pci_config_in(p, at + 3, 1) != VIRTIO_PCI_CAP_PCI_CFG)
		at = board_pci_config_in(p, at + 1, 1);
	return at;
}

static inline unsigned board_pci_open_window(struct board_pci *p, u64 offset, unsigned size)
{
	unsigned at = board_pci_window(p);

	board_pci_config_out(p, at + 4, VIRTIO_PCI_BAR, 1);
	board_pci_config_out(p, at + 8, offset, 4);
	board_pci_config_out(p, at + 12, size, 4);
	return at + 16;
}

/* Every third access goes by the window. */
static inline u32 board_pci_in(struct board_pci *p, u64 offset, unsigned size)
{
	u32 value = 0;

	if (p->accesses++ % 3 == 2)
		return board_pci_config_in(p, board_pci_open_window(p, offset, size), 4);
	io_map_read(&p->mmio, BOARD_BAR + offset, &value, size);
	return value;
}

static inline void board_pci_out(struct board_pci *p, u64 offset, u32 value, unsigned size)
{
	if (p->accesses++ % 3 == 2)
		board_pci_config_out(p, board_pci_open_window(p, offset, size), value, 4);
	else
		io_map_write(&p->mmio, BOARD_BAR + offset, &value, size);
}

static inline u32 board_pci_table_in(struct board_pci *p, u64 offset)
{
	u32 value = 0;

	io_map_read(&p->mmio, BOARD_MSIX_BAR + offset, &value, 4);
	return value;
}

static inline void board_pci_table_out(struct board_pci *p, u64 offset, u32 value)
{
	io_map_write(&p->mmio, BOARD_MSIX_BAR + offset, &value, 4);
}

/* ---- interrupts ------------------------------------------------------------------------------ */

static inline u32 board_pci_why(const struct board_pci *p, u32 vectors)
{
	u32 config = 1U << (p->t.pci.vectors - 1);

	return (vectors & config ? 2 : 0) | (vectors & ~config ? 1 : 0);
}

/* What is there by now: bit 0 for queues, 1 for the configuration. */
static inline u32 board_pci_messages(struct board_pci *p)
{
	u32 vectors;
	u64 count;

	if (read(p->sent_fd, &count, sizeof(count)) < 0)
		assert_int_equal(errno, EAGAIN);
	vectors = __atomic_exchange_n(&p->sent, 0, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < BOARD_ROUTES; i++)
		if (p->joined[i].fd >= 0 && read(p->joined[i].fd, &count, sizeof(count)) == 8)
			vectors |= 1U << (p->joined[i].data - BOARD_MESSAGE);
	return board_pci_why(p, vectors);
}

static inline u32 board_pci_wait_message(struct board_pci *p)
{
	struct pollfd fd[VIRTIO_QUEUES_MAX + 2] = { { .fd = p->sent_fd, .events = POLLIN } };
	unsigned n = 1;

	for (unsigned i = 0; i < BOARD_ROUTES; i++)
		if (p->joined[i].fd >= 0)
			fd[n++] = (struct pollfd){ .fd = p->joined[i].fd, .events = POLLIN };
	assert_in_range(poll(fd, n, 20000), 1, n);
	return board_pci_messages(p);
}

/* The loop's turn, then what a handler does: reading says why and lowers the pin. */
static inline u32 board_pci_wait_pin(struct board_pci *p)
{
	struct pollfd fd = { .fd = p->t.intx_fd, .events = POLLIN };
	const struct loop_watch *w = &p->loop.watch[p->t.intx_watch];
	u32 why;

	assert_int_equal(poll(&fd, 1, 20000), 1);
	w->fn(w->arg, EPOLLIN);
	why = board_pci_in(p, VIRTIO_PCI_ISR_AT, 1);
	assert_false(p->level);
	return why;
}

static inline u32 board_pci_wait(struct board_pci *p)
{
	return p->msix ? board_pci_wait_message(p) : board_pci_wait_pin(p);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* What firmware and the driver's bus code do. */
static inline void board_pci_place(struct board_pci *p)
{
	board_pci_config_out(p, PCI_BAR0 + 4 * VIRTIO_PCI_BAR, BOARD_BAR, 4);
	board_pci_config_out(p, PCI_BAR0 + 4, BOARD_MSIX_BAR, 4);
	board_pci_config_out(p, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	for (unsigned i = 0; p->msix && i < p->t.pci.vectors; i++) {
		board_pci_table_out(p, 16 * i, 0xFEE00000);
		board_pci_table_out(p, 16 * i + 8, BOARD_MESSAGE + i);
		board_pci_table_out(p, 16 * i + 12, 0);
	}
	if (p->msix)
		board_pci_config_out(p, p->t.pci.msix + 2, 0x8000, 2);
}

static inline void board_pci_start(struct board_pci *p, struct virtio_device *d, const struct kvm *kvm,
				   bool msix, struct error *err)
{
	static const struct pci_msi_ops msi_ops = {
		board_pci_send, board_pci_connect, board_pci_disconnect };

	memset(p, 0, sizeof(*p));
	p->msix = msix;
	for (unsigned i = 0; i < BOARD_ROUTES; i++)
		p->joined[i].fd = -1;
	p->sent_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_true(p->sent_fd >= 0);
	pthread_mutex_init(&p->lock, NULL);
	assert_int_equal(loop_init(&p->loop, &p->lock, err), 0);
	pci_host_init(&p->host, &p->pio, &p->mmio);
	p->host.msi = &msi_ops;
	p->host.msi_arg = p->host.pirq_arg = p;
	p->host.set_pirq = board_pci_set_pirq;
	assert_int_equal(virtio_pci_init(&p->t, d, kvm, &p->loop, err), 0);
	assert_int_equal(pci_attach(&p->host.root, PCI_DEVFN(BOARD_SLOT, 0), &p->t.pci), 0);
	board_pci_place(p);
}

static inline void board_pci_stop(struct board_pci *p)
{
	virtio_pci_destroy(&p->t);
	assert_int_equal(p->joins, 0);
	assert_int_equal(p->mmio.count, 0);
	assert_false(p->level);
	loop_destroy(&p->loop);
	close(p->sent_fd);
}

#endif
