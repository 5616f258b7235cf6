/* Where a VNC server listens. */
#ifndef QUMRA_VMM_DISPLAY_VNC_LISTEN_H
#define QUMRA_VMM_DISPLAY_VNC_LISTEN_H

#include "lib/error.h"

struct vnc_listener {
	int fd;			/* -1: none */
	char path[128];		/* of a Unix socket, or empty */
	char text[192];		/* where, for the person */
};

/*
 * NULL: the first free port from 5900 on at 127.0.0.1; "5901" or ":1": that one there; "HOST:PORT",
 * "[HOST]:PORT"; "unix:PATH", which only our own user may open. A usage error says what it may be.
 */
int vnc_address_check(const char *address, bool password, struct error *err);
/* With address checked. */
int vnc_listen(struct vnc_listener *l, const char *address, struct error *err);
void vnc_unlisten(struct vnc_listener *l);

#endif
