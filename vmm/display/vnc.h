/*
 * The screen over VNC (RFC 6143), by libvncserver. All of the library runs on one thread of its own,
 * so a slow or hostile client holds up other clients and nothing else: the machine's lock is taken
 * for the copy of what has changed, and for a key.
 */
#ifndef QUMRA_VMM_DISPLAY_VNC_H
#define QUMRA_VMM_DISPLAY_VNC_H

#include <pthread.h>

#include "lib/error.h"
#include "vmm/display/display.h"
#include "vmm/display/input.h"

struct vnc;

struct vnc_config {
	const char *address;	/* as vnc_address_check() takes it, or NULL */
	const char *password;	/* a file, or NULL: no password */
	const char *name;	/* the machine's, for the viewer's title */
	struct display *display;
	const struct input *input;
	pthread_mutex_t *lock;	/* the machine's */
};

/* Listens; *out is NULL on failure. Without the machine's lock, as destroy. */
int vnc_create(struct vnc **out, const struct vnc_config *config, struct error *err);
/* Where, for the person. */
const char *vnc_where(const struct vnc *vnc);
void vnc_destroy(struct vnc *vnc);

#endif
