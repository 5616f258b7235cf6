/*
 * The I/O APIC: 24 pins, each with a redirection entry. Intel 82093AA data sheet (290566), version
 * 11h: no EOI register, so level-triggered entries are reopened by the local APICs' EOI messages.
 *
 * As in KVM, the polarity bit is stored and ignored: a line is "asserted" or not. An edge on a
 * masked pin is lost unless the line is raised again after unmasking; a level is looked at when
 * unmasked.
 */
#include "hypervisor/irqchip/chips.h"

#include "hypervisor/irqchip/lapic.h"

#define IOAPIC_LEN	0x100
#define IOREGSEL	0x00
#define IOWIN		0x10
#define IOREG_ID	0x00
#define IOREG_VERSION	0x01
#define IOREG_ARB	0x02
#define IOREG_TABLE	0x10
#define IOAPIC_VERSION	0x11

/* Redirection entry. 82093AA 3.2.4 */
#define RTE_VECTOR	0xffULL
#define RTE_MODE_SHIFT	8
#define RTE_LOGICAL	BIT(11)
#define RTE_STATUS	BIT(12)
#define RTE_REMOTE_IRR	BIT(14)
#define RTE_LEVEL	BIT(15)
#define RTE_MASKED	BIT(16)
#define RTE_DEST_SHIFT	56
#define RTE_WRITABLE	(MASK(63, 56) | MASK(16, 15) | BIT(13) | MASK(11, 0))

/* ---- delivery -------------------------------------------------------------------------------- */

static int ioapic_send(struct irqchip *ic, u64 entry)
{
	struct apic_msg m = {
		.dest = (u32)(entry >> RTE_DEST_SHIFT),
		.vector = entry & RTE_VECTOR,
		.mode = entry >> RTE_MODE_SHIFT & 7,
		.logical = entry & RTE_LOGICAL,
		.level = entry & RTE_LEVEL,
		.assert = true,
	};

	return lapic_deliver(ic->vm, NULL, &m);
}

/* Sends the pin's message if the entry lets it. */
static int ioapic_service(struct irqchip *ic, unsigned int pin)
{
	struct ioapic *io = &ic->ioapic;
	u64 *entry = &io->entry[pin];
	int ret;

	if (*entry & RTE_MASKED || (*entry & RTE_LEVEL && *entry & RTE_REMOTE_IRR))
		return -1;
	if (!(*entry & RTE_LEVEL))
		io->delivered |= BIT(pin);
	ret = ioapic_send(ic, *entry);
	if (ret > 0 && *entry & RTE_LEVEL)
		*entry |= RTE_REMOTE_IRR;
	return ret;
}

static int ioapic_raise(struct irqchip *ic, unsigned int pin)
{
	struct ioapic *io = &ic->ioapic;
	bool was = io->irr & BIT(pin);

	io->irr |= BIT(pin);
	if (!(io->entry[pin] & RTE_LEVEL)) {
		io->delivered &= ~BIT(pin);
		if (was)
			return 0;
	}
	return ioapic_service(ic, pin);
}

int ioapic_set_line(struct irqchip *ic, unsigned int pin, u32 source, int level)
{
	struct ioapic *io = &ic->ioapic;

	if (pin >= IOAPIC_PINS)
		return -1;
	if (line_level(&io->sources[pin], source, level))
		return ioapic_raise(ic, pin);
	io->irr &= ~BIT(pin);
	return 1;
}

/* ---- end of interrupt ------------------------------------------------------------------------ */

bool ioapic_handles(const struct irqchip *ic, u8 vector)
{
	return READ_ONCE(ic->ioapic.handled[vector >> 6]) >> (vector & 63) & 1;
}

void ioapic_update_handled(struct irqchip *ic)
{
	struct ioapic *io = &ic->ioapic;
	u64 handled[4] = { 0 };

	for (unsigned int pin = 0; pin < IOAPIC_PINS && !ic->vm->split_irqchip; pin++) {
		u8 vector = io->entry[pin] & RTE_VECTOR;

		if (io->entry[pin] & RTE_LEVEL || irqchip_wants_ack(ic, KVM_IRQCHIP_IOAPIC, pin))
			handled[vector >> 6] |= BIT(vector & 63);
	}
	if (ic->vm->split_irqchip)
		split_handled(ic, handled);
	for (unsigned int i = 0; i < 4; i++)
		WRITE_ONCE(io->handled[i], handled[i]);
}

static void ioapic_eoi_pin(struct irqchip *ic, unsigned int pin, bool level)
{
	struct ioapic *io = &ic->ioapic;
	u64 *entry = &io->entry[pin];

	irqchip_acked(ic, KVM_IRQCHIP_IOAPIC, pin);	/* may lower the line */
	if (!level || !(*entry & RTE_LEVEL))
		return;
	*entry &= ~RTE_REMOTE_IRR;
	if (io->irr & BIT(pin))
		ioapic_service(ic, pin);
}

/* 82093AA 3.2.4, remote IRR: every entry with the vector is meant. */
void ioapic_eoi(struct irqchip *ic, u8 vector, bool level)
{
	os_mutex_lock(&ic->lock);
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++)
		if ((ic->ioapic.entry[pin] & RTE_VECTOR) == vector)
			ioapic_eoi_pin(ic, pin, level);
	os_mutex_unlock(&ic->lock);
}

/* ---- registers ------------------------------------------------------------------------------- */

static u32 ioapic_read_reg(const struct ioapic *io)
{
	u32 n = io->select - IOREG_TABLE;

	switch (io->select) {
	case IOREG_VERSION:
		return (IOAPIC_PINS - 1) << 16 | IOAPIC_VERSION;
	case IOREG_ID:
	case IOREG_ARB:
		return (io->id & 0xf) << 24;
	default:
		if (io->select < IOREG_TABLE || n >= 2 * IOAPIC_PINS)
			return ~0u;
		return (u32)(io->entry[n / 2] >> (n & 1) * 32);
	}
}

static void ioapic_write_entry(struct irqchip *ic, unsigned int pin, bool high, u32 val)
{
	struct ioapic *io = &ic->ioapic;
	u64 old = io->entry[pin], new;

	new = high ? (u32)old | (u64)val << 32 : (old & ~0xffffffffULL) | val;
	new = (new & RTE_WRITABLE) | (old & ~RTE_WRITABLE);
	/* Linux and Xen clear remote IRR by turning the entry to edge and back. */
	if (!(new & RTE_LEVEL))
		new &= ~RTE_REMOTE_IRR;
	io->entry[pin] = new;
	ioapic_update_handled(ic);
	if (old & RTE_MASKED && !(new & RTE_MASKED))
		irqchip_unmasked(ic, KVM_IRQCHIP_IOAPIC, pin);
	if (new & RTE_LEVEL && io->irr & BIT(pin))
		ioapic_service(ic, pin);
}

static void ioapic_write_reg(struct irqchip *ic, u32 val)
{
	struct ioapic *io = &ic->ioapic;
	u32 n = io->select - IOREG_TABLE;

	if (io->select == IOREG_ID)
		io->id = val >> 24 & 0xf;
	else if (io->select >= IOREG_TABLE && n < 2 * IOAPIC_PINS)
		ioapic_write_entry(ic, n / 2, n & 1, val);
}

static int ioapic_read(struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, void *data)
{
	struct irqchip *ic = container_of(d, struct irqchip, ioapic.dev);
	u32 val = 0;

	os_mutex_lock(&ic->lock);
	switch (addr & (IOAPIC_LEN - 1)) {
	case IOREGSEL:
		val = ic->ioapic.select;
		break;
	case IOWIN:
		val = ioapic_read_reg(&ic->ioapic);
		break;
	}
	os_mutex_unlock(&ic->lock);
	memset(data, 0, len);
	memcpy(data, &val, MIN(len, sizeof(val)));
	return 0;
}

static int ioapic_write(
	struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, const void *data)
{
	struct irqchip *ic = container_of(d, struct irqchip, ioapic.dev);
	u32 val = 0;

	memcpy(&val, data, MIN(len, sizeof(val)));
	os_mutex_lock(&ic->lock);
	switch (addr & (IOAPIC_LEN - 1)) {
	case IOREGSEL:
		ic->ioapic.select = val & 0xff;
		break;
	case IOWIN:
		ioapic_write_reg(ic, val);
		break;
	}
	os_mutex_unlock(&ic->lock);
	return 0;
}

static const struct io_device_ops ioapic_ops = { .read = ioapic_read, .write = ioapic_write };

int ioapic_create(struct irqchip *ic)
{
	struct ioapic *io = &ic->ioapic;

	io->dev.ops = &ioapic_ops;
	io->base = IOAPIC_BASE;
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++)
		io->entry[pin] = RTE_MASKED;
	return bus_register(ic->vm, BUS_MMIO, IOAPIC_BASE, IOAPIC_LEN, &io->dev);
}

/* ---- saved state ----------------------------------------------------------------------------- */

_Static_assert(sizeof(struct kvm_ioapic_state) == 24 + 8 * IOAPIC_PINS, "KVM's layout");

void ioapic_get(const struct irqchip *ic, struct kvm_ioapic_state *s)
{
	const struct ioapic *io = &ic->ioapic;

	memset(s, 0, sizeof(*s));
	s->base_address = io->base;
	s->ioregsel = io->select;
	s->id = io->id;
	s->irr = io->irr & ~io->delivered;
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++)
		s->redirtbl[pin].bits = io->entry[pin];
}

void ioapic_set(struct irqchip *ic, const struct kvm_ioapic_state *s)
{
	struct ioapic *io = &ic->ioapic;

	io->select = s->ioregsel & 0xff;
	io->id = s->id & 0xf;
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++)
		io->entry[pin] = s->redirtbl[pin].bits & (RTE_WRITABLE | RTE_REMOTE_IRR);
	ioapic_update_handled(ic);
	io->irr = 0;
	io->delivered = 0;
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++)
		if (s->irr & BIT(pin))
			ioapic_raise(ic, pin);
}
