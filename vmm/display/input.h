/*
 * What a person does at a front end, on its way to the guest's keyboard and mouse. Keys are Linux's
 * codes (<linux/input-event-codes.h>): KEY_A is the key with an A on a US keyboard, whatever it is
 * labelled. Everything is called under the machine's lock.
 */
#ifndef QUMRA_VMM_DISPLAY_INPUT_H
#define QUMRA_VMM_DISPLAY_INPUT_H

#include "lib/types.h"

#define INPUT_LEFT	BIT(0)
#define INPUT_RIGHT	BIT(1)
#define INPUT_MIDDLE	BIT(2)

struct input_motion {
	s32 dx, dy;	/* dots, y downwards */
	s32 wheel;	/* notches, towards the person */
	u32 buttons;	/* those that are down now */
};

/* NULL: there is no such device. */
struct input {
	void (*key)(void *arg, unsigned code, bool down);
	void *key_arg;
	void (*motion)(void *arg, const struct input_motion *motion);
	void *motion_arg;
};

static inline void input_key(const struct input *in, unsigned code, bool down)
{
	if (in->key)
		in->key(in->key_arg, code, down);
}

static inline void input_motion(const struct input *in, const struct input_motion *motion)
{
	if (in->motion)
		in->motion(in->motion_arg, motion);
}

/* keysym.c: the key of an X keysym on a US keyboard, or 0. */
unsigned keysym_to_key(u32 keysym);

#endif
