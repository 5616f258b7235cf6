/*
 * Events and power of a hardware-reduced ACPI machine: the interrupt of a generic event device (ACPI
 * 6.4, 5.6.9) with a register that says what happened, the sleep control and status registers (4.8.3.7)
 * and a reset register (4.8.3.6). The DSDT's _EVT reads the first, so its layout is this board's own.
 */
#include <errno.h>

#include "vmm/hw/ged.h"

/* ACPI 6.4 tables 4.25 and 4.26. */
#define CONTROL_SLP_TYP(c)	((c) >> 2 & 7)
#define CONTROL_SLP_EN		BIT(5)
#define CONTROL_KEPT		0x1C	/* SLP_TYP */

#define EVENTS	(GED_EVENT_POWER_BUTTON | GED_EVENT_VMGENID)

/* The line is up while anything is pending: an edge for the first of several. */
static void ged_update(struct ged *g)
{
	irq_line_set(&g->irq, g->pending);
}

static u32 ged_take_events(struct ged *g)
{
	u32 pending = g->pending;

	g->pending = 0;
	ged_update(g);
	return pending;
}

static u64 ged_read(void *dev, u64 offset, unsigned size)
{
	struct ged *g = dev;

	if (offset == GED_EVENTS && size == 4)
		return ged_take_events(g);
	/* Nothing here wakes from sleep, so the status is zero for good. */
	return offset == GED_SLEEP_CONTROL ? g->control : 0;
}

static void ged_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct ged *g = dev;

	(void)size;
	if (offset == GED_SLEEP_CONTROL) {
		g->control = value & CONTROL_KEPT;
		if (value & CONTROL_SLP_EN && CONTROL_SLP_TYP(value) == GED_SLP_TYP_S5)
			g->events.request(g->events.arg, MACHINE_POWER_OFF, 0);
	} else if (offset == GED_RESET && (value & 0xFF) == GED_RESET_VALUE) {
		g->events.request(g->events.arg, MACHINE_RESET, 0);
	}
}

const struct io_ops ged_io_ops = { .read = ged_read, .write = ged_write, .width = 4 };

void ged_power_button(struct ged *g)
{
	g->pending |= GED_EVENT_POWER_BUTTON;
	ged_update(g);
}

void ged_vmgenid(struct ged *g)
{
	g->pending |= GED_EVENT_VMGENID;
	ged_update(g);
}

/* ---- device ---------------------------------------------------------------------------------- */

static void ged_reset(void *dev)
{
	struct ged *g = dev;

	g->pending = 0;
	g->control = 0;
	ged_update(g);
}

static void ged_nop(void *dev)
{
	(void)dev;
}

static const struct state_field ged_fields[] = {
	STATE_FIELD(struct ged_state, pending, 1),
	STATE_FIELD(struct ged_state, control, 1),
};

static const struct state_table ged_table = STATE_TABLE("ged", struct ged_state, 1, ged_fields);

static void ged_save(void *dev, void *state)
{
	const struct ged *g = dev;

	*(struct ged_state *)state = (struct ged_state){ g->pending, g->control };
}

static int ged_load(void *dev, const void *state)
{
	const struct ged_state *st = state;
	struct ged *g = dev;

	if (st->pending & ~EVENTS || st->control & ~CONTROL_KEPT)
		return -EINVAL;
	g->pending = st->pending;
	g->control = st->control;
	ged_update(g);
	return 0;
}

const struct device_ops ged_device_ops = {
	.table = &ged_table, .reset = ged_reset, .pause = ged_nop, .resume = ged_nop,
	.save = ged_save, .load = ged_load,
};

void ged_init(struct ged *g, const struct irq_line *irq, const struct machine_events *events)
{
	*g = (struct ged){ .irq = *irq, .events = *events };
}
