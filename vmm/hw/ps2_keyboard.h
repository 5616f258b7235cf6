/* A PS/2 keyboard of 102 keys, scan code sets 1 and 2 (IBM PS/2 Technical Reference, "Keyboards"). */
#ifndef QUMRA_VMM_HW_PS2_KEYBOARD_H
#define QUMRA_VMM_HW_PS2_KEYBOARD_H

#include "vmm/hw/ps2.h"
#include "vmm/migration/state.h"

struct ps2_keyboard {
	struct ps2_device ps2;
	bool scanning;
	u8 set;		/* 1 or 2 */
	u8 leds, rate;
	u8 command;	/* waits for its argument, or 0 */
	bool overrun;	/* keys were lost: one more byte says so */
};

struct ps2_keyboard_state {
	u8 scanning, set, leds, rate, command, overrun, last, len;
	u8 queue[PS2_QUEUE];
};

void ps2_keyboard_init(struct ps2_keyboard *k);
/* As struct input's; arg is the keyboard. */
void ps2_keyboard_key(void *arg, unsigned code, bool down);

/* What the controller's translation makes of a byte of set 2. */
u8 ps2_translate(u8 value);

extern const struct device_ops ps2_keyboard_device_ops;

#endif
