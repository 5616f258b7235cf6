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

/* A pointer's place, for what takes that. */
struct input_place {
	u32 x, y, width, height;	/* dots, of a screen of this size */
	s32 wheel;			/* as in input_motion */
	u32 buttons;
};

/* NULL: there is no such device. */
struct input {
	void (*key)(void *arg, unsigned code, bool down);
	void *key_arg;
	void (*motion)(void *arg, const struct input_motion *motion);
	void *motion_arg;
	/* Those that come first; false: nobody listens there yet, so it is for the others. */
	bool (*key_first)(void *arg, unsigned code, bool down);
	void *key_first_arg;
	bool (*place)(void *arg, const struct input_place *place);
	void *place_arg;
};

static inline void input_key(const struct input *in, unsigned code, bool down)
{
	if (in->key_first && in->key_first(in->key_first_arg, code, down))
		return;
	if (in->key)
		in->key(in->key_arg, code, down);
}

static inline void input_motion(const struct input *in, const struct input_motion *motion)
{
	if (in->motion)
		in->motion(in->motion_arg, motion);
}

/* False: nobody takes places, only motion. */
static inline bool input_place(const struct input *in, const struct input_place *place)
{
	return in->place && in->place(in->place_arg, place);
}

/* keysym.c: the key of an X keysym on a US keyboard, or 0. */
unsigned keysym_to_key(u32 keysym);

#endif
