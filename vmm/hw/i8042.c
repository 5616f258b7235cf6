/*
 * Intel 8042 keyboard controller as in the IBM PS/2 (PS/2 Hardware Interface Technical Reference,
 * "Keyboard and Auxiliary Device Controller"). With nothing plugged into a port, a byte sent there
 * comes back as the controller's own timeout answer.
 *
 * A device keeps its bytes until the output buffer is empty and its port on. The controller's own
 * answers come at once: a byte of a device that nobody has read yet goes back to that device.
 */
#include <errno.h>
#include <string.h>

#include "vmm/hw/i8042.h"
#include "vmm/hw/ps2_keyboard.h"

#define STATUS_OBF	0x01	/* output buffer full */
#define STATUS_SYS	0x04	/* system flag: self-test passed */
#define STATUS_CMD	0x08	/* last write was a command */
#define STATUS_UNLOCK	0x10
#define STATUS_AUX	0x20	/* output came from the auxiliary port */
#define STATUS_TIMEOUT	0x40

#define CONFIG_KBD_INT	0x01
#define CONFIG_AUX_INT	0x02
#define CONFIG_SYS	0x04
#define CONFIG_KBD_OFF	0x10
#define CONFIG_AUX_OFF	0x20
#define CONFIG_XLATE	0x40

#define OUTPORT_NORESET	0x01
#define OUTPORT_A20	0x02

enum {
	CMD_READ_RAM = 0x20,	/* 0x20 to 0x3F; 0x20 is the configuration */
	CMD_WRITE_RAM = 0x60,
	CMD_AUX_DISABLE = 0xA7,
	CMD_AUX_ENABLE = 0xA8,
	CMD_AUX_TEST = 0xA9,
	CMD_SELF_TEST = 0xAA,
	CMD_KBD_TEST = 0xAB,
	CMD_KBD_DISABLE = 0xAD,
	CMD_KBD_ENABLE = 0xAE,
	CMD_READ_INPORT = 0xC0,
	CMD_READ_OUTPORT = 0xD0,
	CMD_WRITE_OUTPORT = 0xD1,
	CMD_WRITE_KBD_BUFFER = 0xD2,
	CMD_WRITE_AUX_BUFFER = 0xD3,
	CMD_WRITE_AUX = 0xD4,
	CMD_PULSE = 0xF0,	/* 0xF0 to 0xFF: bit n clear pulses line n */
};

#define ANSWER_SELF_TEST_OK	0x55
#define ANSWER_PORT_OK		0x00
#define ANSWER_NO_DEVICE	0xFE
#define RELEASE_SET_2		0xF0
#define RELEASE_SET_1		0x80

static void i8042_update_irq(struct i8042 *k)
{
	bool full = k->output_flags & STATUS_OBF, aux = k->output_flags & STATUS_AUX;

	irq_line_set(&k->irq_kbd, full && !aux && k->config & CONFIG_KBD_INT);
	irq_line_set(&k->irq_aux, full && aux && k->config & CONFIG_AUX_INT);
}

static void i8042_output(struct i8042 *k, u8 value, u8 flags)
{
	/* Each byte is an edge of its own. */
	k->output_flags = 0;
	i8042_update_irq(k);
	k->output = value;
	k->output_flags = STATUS_OBF | flags;
	i8042_update_irq(k);
}

/* ---- bytes of devices ------------------------------------------------------------------------ */

/* A release in set 2 is two bytes, in set 1 a bit: the first of the two only turns it on. */
static bool i8042_take_key(struct i8042 *k, u8 *value)
{
	while (ps2_take(k->keyboard, &k->raw)) {
		*value = k->raw;
		if (!(k->config & CONFIG_XLATE))
			return true;
		if (k->raw == RELEASE_SET_2) {
			k->release = true;
			continue;
		}
		*value = ps2_translate(k->raw) | (k->release ? RELEASE_SET_1 : 0);
		return true;
	}
	return false;
}

static void i8042_pump(struct i8042 *k)
{
	u8 value;

	if (k->output_flags & STATUS_OBF)
		return;
	if (k->keyboard && !(k->config & CONFIG_KBD_OFF) && i8042_take_key(k, &value)) {
		k->from_device = true;
		i8042_output(k, value, 0);
	} else if (k->mouse && !(k->config & CONFIG_AUX_OFF) && ps2_take(k->mouse, &k->raw)) {
		k->from_device = true;
		i8042_output(k, k->raw, STATUS_AUX);
	}
}

static void i8042_ready(void *arg)
{
	i8042_pump(arg);
}

static void i8042_put_back(struct i8042 *k)
{
	if (!(k->output_flags & STATUS_OBF) || !k->from_device)
		return;
	ps2_put_back(k->output_flags & STATUS_AUX ? k->mouse : k->keyboard, k->raw);
}

/* ---- what the controller says itself --------------------------------------------------------- */

static void i8042_answer(struct i8042 *k, u8 value, u8 flags)
{
	i8042_put_back(k);
	k->from_device = false;
	i8042_output(k, value, flags);
}

static void i8042_set_config(struct i8042 *k, u8 value)
{
	k->config = value;
	k->status = (k->status & ~STATUS_SYS) | (value & CONFIG_SYS ? STATUS_SYS : 0);
	i8042_update_irq(k);
	i8042_pump(k);
}

static void i8042_send(struct i8042 *k, struct ps2_device *dev, u8 value, u8 flags)
{
	if (dev)
		dev->write(dev, value);
	else
		i8042_answer(k, ANSWER_NO_DEVICE, flags | STATUS_TIMEOUT);
	i8042_pump(k);
}

static void i8042_set_outport(struct i8042 *k, u8 value)
{
	/* A20 can be read back but gates nothing: no CPU of this age masks addresses. */
	k->outport = value;
	if (!(value & OUTPORT_NORESET))
		k->reset(k->reset_arg);
}

static void i8042_command(struct i8042 *k, u8 cmd)
{
	k->status |= STATUS_CMD;
	k->command = 0;
	switch (cmd) {
	case CMD_READ_RAM:
		i8042_answer(k, k->config, 0);
		break;
	case CMD_READ_RAM + 1 ... CMD_READ_RAM + 31:
		i8042_answer(k, k->ram[cmd & 31], 0);
		break;
	case CMD_WRITE_RAM ... CMD_WRITE_RAM + 31:
	case CMD_WRITE_OUTPORT ... CMD_WRITE_AUX:
		k->command = cmd;
		break;
	case CMD_AUX_DISABLE:
		i8042_set_config(k, k->config | CONFIG_AUX_OFF);
		break;
	case CMD_AUX_ENABLE:
		i8042_set_config(k, k->config & ~CONFIG_AUX_OFF);
		break;
	case CMD_AUX_TEST:
	case CMD_KBD_TEST:
		i8042_answer(k, ANSWER_PORT_OK, 0);
		break;
	case CMD_SELF_TEST:
		k->status |= STATUS_SYS;
		i8042_answer(k, ANSWER_SELF_TEST_OK, 0);
		break;
	case CMD_KBD_DISABLE:
		i8042_set_config(k, k->config | CONFIG_KBD_OFF);
		break;
	case CMD_KBD_ENABLE:
		i8042_set_config(k, k->config & ~CONFIG_KBD_OFF);
		break;
	case CMD_READ_INPORT:
		i8042_answer(k, 0x80, 0);	/* not locked */
		break;
	case CMD_READ_OUTPORT:
		i8042_answer(k, k->outport, 0);
		break;
	case CMD_PULSE ... CMD_PULSE + 15:
		if (!(cmd & OUTPORT_NORESET))
			k->reset(k->reset_arg);
		break;
	}
}

static void i8042_data(struct i8042 *k, u8 value)
{
	u8 cmd = k->command;

	k->status &= ~STATUS_CMD;
	k->command = 0;
	switch (cmd) {
	case 0:
		/* To the keyboard; sending enables its port. */
		k->config &= ~CONFIG_KBD_OFF;
		i8042_send(k, k->keyboard, value, 0);
		break;
	case CMD_WRITE_RAM:
		i8042_set_config(k, value);
		break;
	case CMD_WRITE_RAM + 1 ... CMD_WRITE_RAM + 31:
		k->ram[cmd & 31] = value;
		break;
	case CMD_WRITE_OUTPORT:
		i8042_set_outport(k, value);
		break;
	case CMD_WRITE_KBD_BUFFER:
		i8042_answer(k, value, 0);
		break;
	case CMD_WRITE_AUX_BUFFER:
		i8042_answer(k, value, STATUS_AUX);
		break;
	case CMD_WRITE_AUX:
		k->config &= ~CONFIG_AUX_OFF;
		i8042_send(k, k->mouse, value, STATUS_AUX);
		break;
	}
}

static u64 i8042_read_data(void *dev, u64 offset, unsigned size)
{
	struct i8042 *k = dev;
	u8 value = k->output;

	(void)offset;
	(void)size;
	if (k->output_flags & STATUS_OBF && k->from_device && !(k->output_flags & STATUS_AUX))
		k->release = false;
	k->output_flags = 0;
	i8042_update_irq(k);
	i8042_pump(k);
	return value;
}

static u64 i8042_read_status(void *dev, u64 offset, unsigned size)
{
	const struct i8042 *k = dev;

	(void)offset;
	(void)size;
	return k->status | k->output_flags;
}

static void i8042_write_data(void *dev, u64 offset, u64 value, unsigned size)
{
	(void)offset;
	(void)size;
	i8042_data(dev, value);
}

static void i8042_write_command(void *dev, u64 offset, u64 value, unsigned size)
{
	(void)offset;
	(void)size;
	i8042_command(dev, value);
}

const struct io_ops i8042_data_ops = {
	.read = i8042_read_data, .write = i8042_write_data, .width = 1};
const struct io_ops i8042_command_ops = {
	.read = i8042_read_status, .write = i8042_write_command, .width = 1,
};

/* ---- device ---------------------------------------------------------------------------------- */

static void i8042_reset(void *dev)
{
	struct i8042 *k = dev;

	k->status = STATUS_SYS | STATUS_UNLOCK;	/* as after firmware's self-test */
	k->config = CONFIG_SYS | CONFIG_XLATE | CONFIG_KBD_INT | CONFIG_AUX_INT;
	k->outport = OUTPORT_NORESET | OUTPORT_A20;
	k->output = k->output_flags = k->command = 0;
	k->from_device = k->release = false;
	memset(k->ram, 0, sizeof(k->ram));
	i8042_update_irq(k);
}

static void i8042_nop(void *dev)
{
	(void)dev;
}

static void i8042_resume(void *dev)
{
	i8042_update_irq(dev);
}

static const struct state_field i8042_fields[] = {
	STATE_FIELD(struct i8042_state, status, 1),
	STATE_FIELD(struct i8042_state, config, 1),
	STATE_FIELD(struct i8042_state, output, 1),
	STATE_FIELD(struct i8042_state, output_flags, 1),
	STATE_FIELD(struct i8042_state, command, 1),
	STATE_FIELD(struct i8042_state, outport, 1),
	STATE_FIELD(struct i8042_state, ram, 1),
	STATE_FIELD(struct i8042_state, raw, 2),
	STATE_FIELD(struct i8042_state, from_device, 2),
	STATE_FIELD(struct i8042_state, release, 2),
};

static const struct state_table i8042_table =
	STATE_TABLE("i8042", struct i8042_state, 2, i8042_fields);

static void i8042_save(void *dev, void *state)
{
	const struct i8042 *k = dev;
	struct i8042_state *st = state;

	*st = (struct i8042_state){
		.status = k->status, .config = k->config, .output = k->output,
		.output_flags = k->output_flags, .command = k->command, .outport = k->outport,
		.raw = k->raw, .from_device = k->from_device, .release = k->release,
	};
	memcpy(st->ram, k->ram, sizeof(st->ram));
}

static int i8042_load(void *dev, const void *state)
{
	struct i8042 *k = dev;
	const struct i8042_state *st = state;

	if (st->output_flags & ~(STATUS_OBF | STATUS_AUX | STATUS_TIMEOUT) ||
	    st->status & (STATUS_OBF | STATUS_AUX | STATUS_TIMEOUT) || st->from_device > 1 ||
	    st->release > 1)
		return -EINVAL;
	if (st->from_device && !(st->output_flags & STATUS_AUX ? k->mouse : k->keyboard))
		return -EINVAL;
	k->status = st->status;
	k->config = st->config;
	k->output = st->output;
	k->output_flags = st->output_flags;
	k->command = st->command;
	k->outport = st->outport;
	memcpy(k->ram, st->ram, sizeof(k->ram));
	k->raw = st->raw;
	k->from_device = st->from_device;
	k->release = st->release;
	i8042_update_irq(k);
	return 0;
}

const struct device_ops i8042_device_ops = {
	.table = &i8042_table, .reset = i8042_reset, .pause = i8042_nop, .resume = i8042_resume,
	.save = i8042_save, .load = i8042_load,
};

void i8042_init(struct i8042 *k, const struct irq_line *kbd, const struct irq_line *aux,
		void (*reset)(void *arg), void *reset_arg)
{
	*k = (struct i8042){
		.irq_kbd = *kbd, .irq_aux = *aux, .reset = reset, .reset_arg = reset_arg};
	i8042_reset(k);
}

static void i8042_plug_one(struct i8042 *k, struct ps2_device *dev)
{
	if (!dev)
		return;
	dev->ready = i8042_ready;
	dev->arg = k;
}

void i8042_plug(struct i8042 *k, struct ps2_device *keyboard, struct ps2_device *mouse)
{
	k->keyboard = keyboard;
	k->mouse = mouse;
	i8042_plug_one(k, keyboard);
	i8042_plug_one(k, mouse);
}
