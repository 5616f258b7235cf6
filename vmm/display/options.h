/* What the command line says about the screen. */
#ifndef QUMRA_VMM_DISPLAY_OPTIONS_H
#define QUMRA_VMM_DISPLAY_OPTIONS_H

#include "lib/types.h"

struct screen_options {
	bool vga;		/* asked for by itself */
	bool gpu;		/* there is a virtio-gpu */
	bool vnc;
	const char *vnc_address, *vnc_password;	/* NULL: the usual, none */
	const char *screenshot;	/* NULL: none */
	u64 screenshot_every;	/* seconds; 0: only when asked and at the end */
};

/* Does the machine have a screen, and a PC a keyboard and mouse? */
static inline bool screen_wanted(const struct screen_options *o)
{
	return o->vga || o->gpu || o->vnc || o->screenshot;
}

/* A VGA? Where there is a virtio-gpu it must be asked for. */
static inline bool screen_has_vga(const struct screen_options *o)
{
	return o->vga || (screen_wanted(o) && !o->gpu);
}

#endif
