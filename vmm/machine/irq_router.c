/* Interrupt lines and messages: see irq_router.h, and the kernel's Documentation/virt/kvm/api.rst. */
#include <errno.h>
#include <stdlib.h>

#include "vmm/machine/irq_router.h"

#define PIC_LINES 16

static void route_chip(struct kvm_irq_routing *r, u32 gsi, u32 chip, u32 pin)
{
	r->entries[r->nr++] = (struct kvm_irq_routing_entry){.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin}};
}

/* KVM's default, but for the PIT: GSI 0 is the IOAPIC's pin 2, as MADT and MP table say. */
static void route_lines(struct kvm_irq_routing *r)
{
	for (u32 i = 0; i < PIC_LINES; i++)
		route_chip(r, i, i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, i % 8);
	for (u32 i = 0; i < IRQ_LINES; i++)
		if (i != 2)
			route_chip(r, i, KVM_IRQCHIP_IOAPIC, i ? i : 2);
}

static void route_message(struct kvm_irq_routing *r, u32 gsi, const struct irq_message *m)
{
	r->entries[r->nr++] = (struct kvm_irq_routing_entry){.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {.address_lo = m->address, .address_hi = m->address >> 32, .data = m->data}};
}

long irq_router_program(const struct irq_router *r)
{
	size_t most = PIC_LINES + IRQ_LINES + r->messages;
	struct kvm_irq_routing *table = calloc(1, sizeof(*table) + most * sizeof(table->entries[0]));
	long ret;

	if (!table)
		return -ENOMEM;
	route_lines(table);
	for (unsigned i = 0; i < r->messages; i++)
		if (r->message[i].used)
			route_message(table, IRQ_LINES + i, &r->message[i]);
	ret = kvm_ioctl(r->kvm, r->kvm->vm_fd, KVM_SET_GSI_ROUTING, table);
	free(table);
	return ret;
}

void irq_router_init(struct irq_router *r, const struct kvm *kvm)
{
	*r = (struct irq_router){ .kvm = kvm };
}

void irq_router_destroy(struct irq_router *r)
{
	free(r->message);
	r->message = NULL;
	r->messages = 0;
}

static void line_drive(const struct irq_router *r, unsigned gsi)
{
	struct kvm_irq_level irq = { .irq = gsi, .level = r->holders[gsi] > 0 };

	kvm_ioctl(r->kvm, r->kvm->vm_fd, KVM_IRQ_LINE, &irq);
}

void irq_router_set_line(void *arg, unsigned gsi, bool level)
{
	struct irq_router *r = arg;
	unsigned before = r->holders[gsi];

	r->holders[gsi] += level ? 1 : -1;
	if (!before != !r->holders[gsi])
		line_drive(r, gsi);
}

void irq_router_renew(struct irq_router *r)
{
	for (unsigned i = 0; i < IRQ_LINES; i++)
		if (r->holders[i])
			line_drive(r, i);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void message_send(void *arg, u64 address, u32 data)
{
	struct irq_router *r = arg;
	struct kvm_msi msi = {
		.address_lo = address, .address_hi = address >> 32, .data = data };

	kvm_ioctl(r->kvm, r->kvm->vm_fd, KVM_SIGNAL_MSI, &msi);
}

static int message_new(struct irq_router *r)
{
	unsigned i = 0;

	while (i < r->messages && r->message[i].used)
		i++;
	if (i == IRQ_MESSAGES_MAX)
		return -ENOSPC;
	if (i == r->messages) {
		struct irq_message *more = reallocarray(r->message, i + 16, sizeof(*more));

		if (!more)
			return -ENOMEM;
		r->message = more;
		for (unsigned k = i; k < i + 16; k++)
			r->message[k].used = false;
		r->messages = i + 16;
	}
	return i;
}

static long message_irqfd(const struct irq_router *r, int fd, int route, u32 flags)
{
	struct kvm_irqfd irqfd = { .fd = fd, .gsi = IRQ_LINES + route, .flags = flags };

	return kvm_ioctl(r->kvm, r->kvm->vm_fd, KVM_IRQFD, &irqfd);
}

static int message_connect(void *arg, int fd, u64 address, u32 data)
{
	struct irq_router *r = arg;
	int route = message_new(r);
	long ret;

	if (route < 0)
		return route;
	r->message[route] = (struct irq_message){ .address = address, .data = data, .used = true };
	ret = irq_router_program(r);
	if (ret >= 0)
		ret = message_irqfd(r, fd, route, 0);
	if (ret < 0)
		r->message[route].used = false;
	return ret < 0 ? ret : route;
}

static void message_disconnect(void *arg, int fd, int route)
{
	struct irq_router *r = arg;

	message_irqfd(r, fd, route, KVM_IRQFD_FLAG_DEASSIGN);
	/* The route stays in the hypervisor until the table is next written: nothing uses it. */
	r->message[route].used = false;
}

const struct pci_msi_ops irq_router_msi_ops = {
	.send = message_send, .connect = message_connect, .disconnect = message_disconnect};
