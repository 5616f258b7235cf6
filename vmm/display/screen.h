/*
 * The machine's screen with all that belongs to it: graphics adapter, front ends, screenshots. Made
 * from what the command line says, as virtio's board is.
 */
#ifndef QUMRA_VMM_DISPLAY_SCREEN_H
#define QUMRA_VMM_DISPLAY_SCREEN_H

#include <pthread.h>

#include "vmm/display/input.h"
#include "vmm/display/options.h"
#include "vmm/machine/pc.h"

struct screen;
struct kvm;

struct screen_env {
	const struct kvm *kvm;
	struct pc *pc;		/* for a VGA */
	struct timer_queue *timers;
	pthread_mutex_t *lock;		/* the machine's */
	const struct input *input;
	bool bios;			/* the adapter needs its ROM */
};

/* NULL in *out when no screen is wanted; every function here takes that. */
int screen_create(struct screen **out, const struct screen_options *o, const struct screen_env *env,
		  struct error *err);
/* Where devices draw. NULL: there is no screen. */
struct display *screen_display(struct screen *s);
/* Ends the front ends: nobody injects input any more. Without the machine's lock. */
void screen_destroy(struct screen *s);
/* Under the lock. A line for the person in text: the file, or why there is none. */
void screen_screenshot(struct screen *s, char *text, size_t size);
/* Into any file. */
int screen_dump(struct screen *s, const char *file, struct error *err);
/* The machine has ended: the last picture, if one was asked for. Says itself what goes wrong. */
void screen_finish(struct screen *s);

#endif
