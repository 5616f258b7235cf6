/*
 * A PS/2 mouse of two or three buttons (IBM PS/2 Technical Reference, "Auxiliary Device"), with the
 * wheel and five buttons of Microsoft's IntelliMouse for a driver that knocks for them.
 */
#ifndef QUMRA_VMM_HW_PS2_MOUSE_H
#define QUMRA_VMM_HW_PS2_MOUSE_H

#include "vmm/display/input.h"
#include "vmm/hw/ps2.h"
#include "vmm/migration/state.h"

struct ps2_mouse {
	struct ps2_device ps2;
	u8 id;		/* 0; 3: with a wheel; 4: five buttons, too */
	u8 status;	/* as the status request says, but for the buttons */
	u8 resolution, rate;
	u8 knock[2];	/* the rates set before this one, the newest first */
	u8 command;	/* waits for its argument, or 0 */
	bool wrap;	/* echoes everything */
	s32 dx, dy, wheel;	/* not reported yet; y upwards */
	u8 buttons, reported;
};

struct ps2_mouse_state {
	u8 id, status, resolution, rate, knock[2], command, wrap, buttons, reported, last, len;
	s32 dx, dy, wheel;
	u8 queue[PS2_QUEUE];
};

void ps2_mouse_init(struct ps2_mouse *m);
/* As struct input's; arg is the mouse. */
void ps2_mouse_motion(void *arg, const struct input_motion *motion);

extern const struct device_ops ps2_mouse_device_ops;

#endif
