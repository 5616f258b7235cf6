/* What the command line says about the screen. */
#ifndef QUMRA_VMM_DISPLAY_OPTIONS_H
#define QUMRA_VMM_DISPLAY_OPTIONS_H

#include "lib/types.h"

struct screen_options {
	bool vga;		/* asked for by itself */
	bool vnc;
	const char *vnc_address, *vnc_password;	/* NULL: the usual, none */
	const char *screenshot;	/* NULL: none */
	u64 screenshot_every;	/* seconds; 0: only when asked and at the end */
};

/* Does the machine have a screen, keyboard and mouse? */
static inline bool screen_wanted(const struct screen_options *o)
{
	return o->vga || o->vnc || o->screenshot;
}

#endif
