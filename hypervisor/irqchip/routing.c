/*
 * Where a global system interrupt goes: pins of the chips, or a message. Linux
 * Documentation/virt/kvm/api.rst 4.52 (KVM_SET_GSI_ROUTING). The default is KVM's: GSI n is pin n
 * of the IOAPIC and, below 16, of the PICs.
 */
#include "hypervisor/irqchip/chips.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/hyperv.h"

/* ---- messages. SDM 3A 11.11 ------------------------------------------------------------------ */

#define MSI_DEST_SHIFT		12
#define MSI_REDIRECT_HINT	BIT(3)
#define MSI_LOGICAL		BIT(2)
#define MSI_MODE_SHIFT		8
#define MSI_LEVEL		BIT(15)

struct apic_msg msi_message(const struct vm *vm, u32 addr_lo, u32 addr_hi, u32 data)
{
	struct apic_msg m = {
		.dest = addr_lo >> MSI_DEST_SHIFT & 0xff,
		.vector = (u8)data,
		.mode = data >> MSI_MODE_SHIFT & 7,
		.logical = addr_lo & MSI_LOGICAL,
		.lowest = addr_lo & MSI_REDIRECT_HINT,
		.level = data & MSI_LEVEL,
		.assert = true,
	};

	/* KVM_X2APIC_API_USE_32BIT_IDS: the upper address holds ID bits 31:8. */
	if (vm->x2apic_32bit_ids)
		m.dest |= addr_hi & 0xffffff00;
	return m;
}

int msi_deliver(struct vm *vm, u32 addr_lo, u32 addr_hi, u32 data)
{
	struct apic_msg m = msi_message(vm, addr_lo, addr_hi, data);

	return lapic_deliver(vm, NULL, &m);
}

/* ---- building a table ------------------------------------------------------------------------ */

static const struct { u8 pins, first; } chip_pins[] = {
	[KVM_IRQCHIP_PIC_MASTER]	= { 8, 0 },
	[KVM_IRQCHIP_PIC_SLAVE]		= { 8, 8 },
	[KVM_IRQCHIP_IOAPIC]		= { IOAPIC_PINS, 0 },
};

static int route_from_pin(struct route *r, u32 chip, u32 pin)
{
	if (chip >= ARRAY_SIZE(chip_pins) || pin >= chip_pins[chip].pins)
		return -EINVAL;
	r->chip = (u8)chip;
	r->pin = (u8)(pin + chip_pins[chip].first);
	return 0;
}

static int route_from_msi(
	const struct vm *vm, struct route *r, const struct kvm_irq_routing_msi *msi)
{
	if (vm->x2apic_32bit_ids && msi->address_hi & 0xff)
		return -EINVAL;
	r->addr_lo = msi->address_lo;
	r->addr_hi = msi->address_hi;
	r->data = msi->data;
	return 0;
}

static int route_from_entry(
	const struct vm *vm, struct route *r, const struct kvm_irq_routing_entry *e)
{
	if (e->gsi >= NR_GSI)
		return -EINVAL;
	*r = (struct route){ .gsi = e->gsi, .type = (u8)e->type };
	switch (e->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		return e->flags || vm->split_irqchip ? -EINVAL
				: route_from_pin(r, e->u.irqchip.irqchip, e->u.irqchip.pin);
	case KVM_IRQ_ROUTING_MSI:
		return e->flags & ~KVM_MSI_VALID_DEVID ? -EINVAL : route_from_msi(vm, r, &e->u.msi);
	case KVM_IRQ_ROUTING_HV_SINT:
		r->addr_lo = e->u.hv_sint.vcpu;
		r->data = e->u.hv_sint.sint;
		return e->flags ? -EINVAL : 0;
	default:
		return -EINVAL;
	}
}

static struct routing *routing_alloc(u32 n)
{
	struct routing *rt = os_alloc(sizeof(*rt) + n * sizeof(rt->route[0]));

	if (rt)
		memset(rt->gsi_of, 0xff, sizeof(rt->gsi_of));
	return rt;
}

struct routing *routing_empty(void)
{
	return routing_alloc(0);
}

static void routing_name_pin(struct routing *rt, const struct route *r)
{
	if (r->type == KVM_IRQ_ROUTING_IRQCHIP)
		rt->gsi_of[r->chip][r->pin - chip_pins[r->chip].first] = (s16)r->gsi;
}

/* Turns counts in first[g + 1] into start indexes. */
static void routing_sum(struct routing *rt)
{
	for (u32 g = 0; g < NR_GSI; g++)
		rt->first[g + 1] += rt->first[g];
}

/* A GSI has one route to each chip, or a single message. */
static bool routes_conflict(const struct route *a, const struct route *b)
{
	return a->type != KVM_IRQ_ROUTING_IRQCHIP || b->type != KVM_IRQ_ROUTING_IRQCHIP ||
	       a->chip == b->chip;
}

static int routing_check(const struct routing *rt)
{
	for (u32 g = 0; g < NR_GSI; g++) {
		u32 first = rt->first[g], n = rt->first[g + 1] - first;

		if (n > ARRAY_SIZE(chip_pins))
			return -EINVAL;
		for (u32 a = first; a < first + n; a++)
			for (u32 b = first; b < a; b++)
				if (routes_conflict(&rt->route[a], &rt->route[b]))
					return -EINVAL;
	}
	return 0;
}

static int routing_fill(
	const struct vm *vm, struct routing *rt, const struct kvm_irq_routing_entry *e, u32 n)
{
	struct route r;
	int err;

	for (u32 i = 0; i < n; i++) {
		err = route_from_entry(vm, &r, &e[i]);
		if (err)
			return err;
		rt->first[r.gsi + 1]++;
	}
	routing_sum(rt);
	/* Placing a route moves its GSI's first[] on: in the end each has become the next one's. */
	for (u32 i = 0; i < n; i++) {
		route_from_entry(vm, &r, &e[i]);
		rt->route[rt->first[r.gsi]++] = r;
		routing_name_pin(rt, &r);
	}
	for (u32 g = NR_GSI; g > 0; g--)
		rt->first[g] = rt->first[g - 1];
	rt->first[0] = 0;
	return routing_check(rt);
}

static struct route default_route(u32 gsi, u8 chip)
{
	return (struct route){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .chip = chip, .pin = (u8)gsi,
	};
}

struct routing *routing_default(void)
{
	struct routing *rt = routing_alloc(IOAPIC_PINS + PIC_PINS);
	u32 n = 0;

	if (!rt)
		return NULL;
	for (u32 gsi = 0; gsi < NR_GSI; gsi++) {
		rt->first[gsi] = n;
		if (gsi < PIC_PINS)
			rt->route[n++] = default_route(gsi, (u8)(gsi >> 3));
		if (gsi < IOAPIC_PINS)
			rt->route[n++] = default_route(gsi, KVM_IRQCHIP_IOAPIC);
	}
	rt->first[NR_GSI] = n;
	for (u32 i = 0; i < n; i++)
		routing_name_pin(rt, &rt->route[i]);
	return rt;
}

/* SINTs are told which GSI they end: it is acknowledged with them. */
static void routing_name_sints(struct vm *vm, const struct routing *rt)
{
	for (u32 i = 0; i < rt->first[NR_GSI]; i++) {
		const struct route *r = &rt->route[i];

		if (r->type == KVM_IRQ_ROUTING_HV_SINT)
			hv_sint_set_gsi(vm, r->addr_lo, r->data, r->gsi);
	}
}

int irqchip_set_routing(struct vm *vm, const struct kvm_irq_routing_entry *e, u32 n)
{
	struct irqchip *ic = vm->irqchip;
	struct routing *rt, *old;
	int err;

	if (!ic || n > NR_GSI)
		return -EINVAL;
	rt = routing_alloc(n);
	if (!rt)
		return -ENOMEM;
	err = routing_fill(vm, rt, e, n);
	if (err) {
		os_free(rt);
		return err;
	}
	os_mutex_lock(&ic->lock);
	old = ic->routing;
	ic->routing = rt;
	ioapic_update_handled(ic);
	routing_name_sints(vm, rt);
	os_mutex_unlock(&ic->lock);
	os_free(old);
	return 0;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static int route_set(struct irqchip *ic, const struct route *r, u32 source, int level)
{
	if (r->type == KVM_IRQ_ROUTING_MSI)
		return level ? msi_deliver(ic->vm, r->addr_lo, r->addr_hi, r->data) : -1;
	if (r->type == KVM_IRQ_ROUTING_HV_SINT)
		return level ? hv_sint_raise(ic->vm, r->addr_lo, r->data) : -1;
	if (r->chip == KVM_IRQCHIP_IOAPIC)
		return ioapic_set_line(ic, r->pin, source, level);
	return pic_set_line(ic, r->pin, source, level);
}

/* Several chips: the sum of those that took it, -1 when none did. */
int routing_set_line(struct irqchip *ic, u32 source, u32 gsi, int level)
{
	const struct routing *rt = ic->routing;
	int sum = -1;

	if (gsi >= NR_GSI)
		return -1;
	for (u32 i = rt->first[gsi]; i < rt->first[gsi + 1]; i++) {
		int ret = route_set(ic, &rt->route[i], source, level);

		if (ret >= 0)
			sum = (sum < 0 ? 0 : sum) + ret;
	}
	return sum;
}

int irqchip_line(struct vm *vm, u32 source, u32 gsi, int level, int *delivered)
{
	struct irqchip *ic = vm->irqchip;
	int ret;

	if (!ic || source >= NR_IRQ_SOURCES)
		return -EINVAL;
	os_mutex_lock(&ic->lock);
	ret = routing_set_line(ic, source, gsi, level);
	os_mutex_unlock(&ic->lock);
	if (delivered)
		*delivered = ret;
	return 0;
}
