/*
 * MSI-X (PCI Local Bus 3.0, 6.8.2): the table and the pending bits, in a BAR of their own, and the
 * way of a message to the interrupt controllers. A vector that is handed out as an eventfd is
 * joined to the hypervisor only while the guest has it unmasked; a masked one keeps its count in
 * the eventfd, which is the pending bit.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vmm/pci/bus.h"

enum { MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PBA = 8, MSIX_SIZE = 12, MSIX_ENTRY = 16 };
#define CONTROL_ENABLE	BIT(15)
#define CONTROL_MASK	BIT(14)
#define VECTOR_MASK	BIT(0)

static u16 msix_control(const struct pci_device *d)
{
	return d->msix ? pci_get_u16(d->config, d->msix + MSIX_CONTROL) : 0;
}

bool pci_msix_enabled(const struct pci_device *d)
{
	return msix_control(d) & CONTROL_ENABLE;
}

/* A message is a write to memory, so a function that is no bus master sends none. */
static bool vector_live(const struct pci_device *d, const struct pci_msix_vector *v)
{
	u16 control = msix_control(d);

	return d->bus && control & CONTROL_ENABLE && !(control & CONTROL_MASK) &&
	       !(v->control & VECTOR_MASK) && pci_is_master(d);
}

static void vector_wire(struct pci_device *d, struct pci_msix_vector *v, bool on)
{
	pthread_mutex_lock(&d->msix_lock);
	v->wired.on = on;
	v->wired.address = v->address;
	v->wired.data = v->data;
	pthread_mutex_unlock(&d->msix_lock);
}

static void vector_disconnect(struct pci_device *d, struct pci_msix_vector *v)
{
	struct pci_host *h = d->bus ? d->bus->host : NULL;

	if (v->route >= 0)
		vector_wire(d, v, false);
	if (v->route >= 0 && h)
		h->msi->disconnect(h->msi_arg, v->fd, v->route);
	v->route = -1;
}

/* moved: address or data changed. */
static void vector_update(struct pci_device *d, struct pci_msix_vector *v, bool moved)
{
	struct pci_host *h;
	bool live = vector_live(d, v);

	if (!live || moved)
		vector_disconnect(d, v);
	if (!live)
		return;
	h = d->bus->host;
	if (v->pending) {
		v->pending = false;
		h->msi->send(h->msi_arg, v->address, v->data);
	}
	if (v->fd < 0 || v->route >= 0)
		return;
	v->route = h->msi->connect(h->msi_arg, v->fd, v->address, v->data);
	if (v->route >= 0)
		vector_wire(d, v, true);
}

void pci_msix_update(struct pci_device *d)
{
	for (unsigned i = 0; i < d->vectors; i++)
		vector_update(d, &d->vector[i], false);
}

/* ---- registers ------------------------------------------------------------------------------- */

static bool vector_pending(const struct pci_msix_vector *v)
{
	struct pollfd p = { .fd = v->fd, .events = POLLIN };

	return v->pending || (v->fd >= 0 && v->route < 0 && poll(&p, 1, 0) == 1);
}

bool pci_msix_pending(const struct pci_device *d, unsigned vector)
{
	return vector < d->vectors && vector_pending(&d->vector[vector]);
}

static u32 msix_read_table(const struct pci_device *d, u64 offset)
{
	const struct pci_msix_vector *v;

	if (offset / MSIX_ENTRY >= d->vectors)
		return 0;
	v = &d->vector[offset / MSIX_ENTRY];
	switch (offset % MSIX_ENTRY) {
	case 0:
		return v->address;
	case 4:
		return v->address >> 32;
	case 8:
		return v->data;
	default:
		return v->control;
	}
}

static u32 msix_read_pending(const struct pci_device *d, u64 offset)
{
	u32 value = 0;

	for (unsigned i = 0; i < 32 && offset * 8 + i < d->vectors; i++)
		value |= (u32)vector_pending(&d->vector[offset * 8 + i]) << i;
	return value;
}

static u64 msix_read(void *arg, u64 offset, unsigned size)
{
	const struct pci_device *d = arg;
	u64 word = offset & ~3ULL;
	u32 value = word >= d->msix_pba ? msix_read_pending(d, word - d->msix_pba)
					: msix_read_table(d, word);

	return value >> (offset & 3) * 8;
}

static void msix_write(void *arg, u64 offset, u64 value, unsigned size)
{
	struct pci_device *d = arg;
	struct pci_msix_vector *v;

	/* Whole doublewords only (PCI 3.0, 6.8.2). */
	if (offset >= d->msix_pba || offset / MSIX_ENTRY >= d->vectors || size != 4 || offset & 3)
		return;
	v = &d->vector[offset / MSIX_ENTRY];
	switch (offset % MSIX_ENTRY) {
	case 0:
		v->address = (v->address & ~0xFFFFFFFFULL) | (value & ~3ULL);
		break;
	case 4:
		v->address = (u32)v->address | value << 32;
		break;
	case 8:
		v->data = value;
		break;
	default:
		v->control = value & VECTOR_MASK;
		vector_update(d, v, false);
		return;
	}
	vector_update(d, v, true);
}

static const struct io_ops msix_ops = { .read = msix_read, .write = msix_write, .width = 4 };

/* ---- life ------------------------------------------------------------------------------------ */

static u32 msix_table_size(unsigned vectors)
{
	return ALIGN_UP(vectors * MSIX_ENTRY, 2048);
}

u64 pci_msix_bar_size(unsigned vectors)
{
	u64 need = msix_table_size(vectors) + ALIGN_UP(vectors, 64) / 8, size = 4096;

	while (size < need)
		size *= 2;
	return size;
}

int pci_add_msix(struct pci_device *d, unsigned bar, unsigned vectors)
{
	if (!vectors || vectors > PCI_MSIX_VECTORS_MAX)
		return -EINVAL;
	d->vector = calloc(vectors, sizeof(*d->vector));
	if (!d->vector)
		return -ENOMEM;
	d->vectors = vectors;
	pthread_mutex_init(&d->msix_lock, NULL);
	for (unsigned i = 0; i < vectors; i++)
		d->vector[i].fd = d->vector[i].route = -1;
	d->msix = pci_add_capability(d, PCI_CAP_MSIX, MSIX_SIZE);
	d->msix_bar = bar;
	d->msix_pba = msix_table_size(vectors);
	pci_put_u16(d->config, d->msix + MSIX_CONTROL, vectors - 1);
	pci_put_u16(d->writable, d->msix + MSIX_CONTROL, CONTROL_ENABLE | CONTROL_MASK);
	pci_put_u32(d->config, d->msix + MSIX_TABLE, bar);
	pci_put_u32(d->config, d->msix + MSIX_PBA, d->msix_pba | bar);
	pci_add_bar(d, bar, PCI_BAR_MEM32, pci_msix_bar_size(vectors), &msix_ops, d);
	pci_msix_reset(d);
	return 0;
}

static void eventfd_empty(int fd)
{
	u64 count;
	struct iovec to = { &count, sizeof(count) };
	/* Whoever else has it may have made it blocking. */
	ssize_t n = preadv2(fd, &to, 1, -1, RWF_NOWAIT);

	(void)n;
}

/* All masked, nothing pending; eventfds stay, empty. */
void pci_msix_reset(struct pci_device *d)
{
	for (unsigned i = 0; i < d->vectors; i++) {
		struct pci_msix_vector *v = &d->vector[i];

		vector_disconnect(d, v);
		v->address = v->data = 0;
		v->control = VECTOR_MASK;
		v->pending = false;
		if (v->fd >= 0)
			eventfd_empty(v->fd);
	}
}

void pci_msix_release(struct pci_device *d)
{
	for (unsigned i = 0; i < d->vectors; i++) {
		vector_disconnect(d, &d->vector[i]);
		if (d->vector[i].fd >= 0)
			close(d->vector[i].fd);
	}
	free(d->vector);
	d->vector = NULL;
	d->vectors = 0;
}

void pci_msix_notify(struct pci_device *d, unsigned vector)
{
	struct pci_msix_vector *v;

	if (vector >= d->vectors || !pci_msix_enabled(d))
		return;
	v = &d->vector[vector];
	if (vector_live(d, v))
		d->bus->host->msi->send(d->bus->host->msi_arg, v->address, v->data);
	else
		v->pending = true;
}

int pci_msix_eventfd(struct pci_device *d, unsigned vector)
{
	struct pci_msix_vector *v;

	if (vector >= d->vectors)
		return -EINVAL;
	v = &d->vector[vector];
	if (v->fd < 0) {
		v->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (v->fd < 0)
			return -errno;
		vector_update(d, v, false);
	}
	return v->fd;
}

void pci_msix_signal(struct pci_device *d, unsigned vector)
{
	const struct pci_msix_vector *v = &d->vector[vector];
	const struct pci_host *h = d->bus ? d->bus->host : NULL;
	u64 one = 1;
	ssize_t n = 0;

	pthread_mutex_lock(&d->msix_lock);
	if (v->wired.on && h)
		h->msi->send(h->msi_arg, v->wired.address, v->wired.data);
	else
		n = write(v->fd, &one, sizeof(one));
	pthread_mutex_unlock(&d->msix_lock);
	(void)n;	/* full: it is pending already */
}
