/* Keyboard controller: two ports, with a keyboard and a mouse or nothing in them. */
#ifndef QUMRA_VMM_HW_I8042_H
#define QUMRA_VMM_HW_I8042_H

#include "vmm/hw/ps2.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/irq_line.h"
#include "vmm/migration/state.h"

struct i8042 {
	struct irq_line irq_kbd, irq_aux;
	void (*reset)(void *arg);	/* the CPU's reset line was pulled */
	void *reset_arg;

	u8 status;	/* but for the buffer's flags */
	u8 config;	/* the controller's command byte */
	u8 output;	/* the byte that the guest reads next */
	u8 output_flags;/* OBF, AUX, timeout of it */
	u8 command;	/* waits for its data byte, or 0 */
	u8 outport;
	u8 ram[32];

	struct ps2_device *keyboard, *mouse;	/* NULL: nothing plugged in */
	u8 raw;		/* of a device's output: as the device sent it */
	bool from_device;	/* the output came from a device, not from the controller */
	bool release;	/* translation: the next key goes up */
};

struct i8042_state {
	u8 status, config, output, output_flags, command, outport;
	u8 ram[32];
	u8 raw, from_device, release;	/* version 2 */
};

/* Offset 0 of each is its port: 0x60 and 0x64. */
extern const struct io_ops i8042_data_ops, i8042_command_ops;
extern const struct device_ops i8042_device_ops;

void i8042_init(struct i8042 *k, const struct irq_line *kbd, const struct irq_line *aux,
		void (*reset)(void *arg), void *reset_arg);
/* For good; they must stay. NULL: nothing. */
void i8042_plug(struct i8042 *k, struct ps2_device *keyboard, struct ps2_device *mouse);

#endif
