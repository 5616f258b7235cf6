/*
 * Reset control, port 0xCF9 (Intel PIIX3 data sheet, 2.4.3), and system control port A, port 0x92
 * (IBM PS/2): two ways to reset the machine besides the keyboard controller's.
 */
#include <errno.h>

#include "vmm/hw/reset_control.h"

#define RST_CPU		BIT(2)	/* a rising bit resets */
#define RST_KEPT	0x0A	/* system reset, full reset */

#define PORT_A_INIT	BIT(0)	/* a rising bit resets the CPU */
#define PORT_A_A20	BIT(1)

static u64 reset_read(void *dev, u64 offset, unsigned size)
{
	const struct reset_control *r = dev;

	(void)offset;
	(void)size;
	return r->control;
}

static void reset_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct reset_control *r = dev;

	(void)offset;
	(void)size;
	r->control = value & RST_KEPT;
	if (value & RST_CPU)
		r->events.request(r->events.arg, MACHINE_RESET, 0);
}

static u64 port_a_read(void *dev, u64 offset, unsigned size)
{
	const struct reset_control *r = dev;

	(void)offset;
	(void)size;
	return r->port_a;
}

static void port_a_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct reset_control *r = dev;
	bool rises = value & ~r->port_a & PORT_A_INIT;

	(void)offset;
	(void)size;
	r->port_a = value & (PORT_A_INIT | PORT_A_A20);
	if (rises)
		r->events.request(r->events.arg, MACHINE_RESET, 0);
}

const struct io_ops reset_control_io_ops = { .read = reset_read, .write = reset_write, .width = 1 };
const struct io_ops reset_port_a_io_ops = {.read = port_a_read, .write = port_a_write, .width = 1};

static void reset_control_reset(void *dev)
{
	struct reset_control *r = dev;

	r->control = 0;
	r->port_a = PORT_A_A20;
}

static void reset_control_nop(void *dev)
{
	(void)dev;
}

static const struct state_field reset_control_fields[] = {
	STATE_FIELD(struct reset_control_state, control, 1),
	STATE_FIELD(struct reset_control_state, port_a, 1),
};

static const struct state_table reset_control_table =
	STATE_TABLE("reset-control", struct reset_control_state, 1, reset_control_fields);

static void reset_control_save(void *dev, void *state)
{
	const struct reset_control *r = dev;

	*(struct reset_control_state *)state = (struct reset_control_state){
		.control = r->control, .port_a = r->port_a,
	};
}

static int reset_control_load(void *dev, const void *state)
{
	struct reset_control *r = dev;
	const struct reset_control_state *st = state;

	if (st->control & ~RST_KEPT || st->port_a & ~(PORT_A_INIT | PORT_A_A20))
		return -EINVAL;
	r->control = st->control;
	r->port_a = st->port_a;
	return 0;
}

const struct device_ops reset_control_device_ops = {
	.table = &reset_control_table, .reset = reset_control_reset, .pause = reset_control_nop,
	.resume = reset_control_nop, .save = reset_control_save, .load = reset_control_load,
};

void reset_control_init(struct reset_control *r, const struct machine_events *events)
{
	*r = (struct reset_control){ .events = *events };
	reset_control_reset(r);
}
