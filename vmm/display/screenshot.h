/*
 * Pictures of the screen in a file: when asked (a key, a signal), now and then, and at the end. The
 * file is replaced as a whole: whoever reads it finds a complete picture, the last one.
 */
#ifndef QUMRA_VMM_DISPLAY_SCREENSHOT_H
#define QUMRA_VMM_DISPLAY_SCREENSHOT_H

#include "lib/error.h"
#include "vmm/display/display.h"
#include "vmm/loop/timer.h"

struct screenshot {
	struct display *display;
	const char *file;
	u64 every;		/* ns; 0: only when asked */
	struct timer timer;
};

/* Is the file's folder there and may we write? Better now than at the end of a long run. */
int screenshot_init(struct screenshot *s, struct display *d, struct timer_queue *timers,
		    const char *file, u64 seconds, struct error *err);
/* Under the machine's lock, as all. */
int screenshot_take(struct screenshot *s, struct error *err);
/* Once, into any file. */
int screenshot_save(struct display *d, const char *file, struct error *err);
void screenshot_destroy(struct screenshot *s);

#endif
