/*
 * libvncserver, loaded when a screen is served: it brings TLS, JPEG and more, which would cost each
 * start milliseconds and memory.
 */
#ifndef QUMRA_VMM_DISPLAY_VNC_LIBRARY_H
#define QUMRA_VMM_DISPLAY_VNC_LIBRARY_H

#include <rfb/rfb.h>

#include "lib/error.h"

/* A name of ours, and the library's (rfbInitServer is a macro for the one that fits its options). */
#define VNC_FUNCTIONS(X) \
	X(get_screen, rfbGetScreen) X(init, rfbInitServer) X(shutdown, rfbShutdownServer) \
	X(cleanup, rfbScreenCleanup) X(new_client, rfbNewClient) X(new_frame, rfbNewFramebuffer) \
	X(mark, rfbMarkRectAsModified) X(process, rfbProcessEvents) X(log_enable, rfbLogEnable) \
	X(check_password, rfbCheckPasswordByList)

struct vnc_library {
	void *handle;		/* dlopen()'s */
#define VNC_MEMBER(name, function) __typeof__(&function) name;
	VNC_FUNCTIONS(VNC_MEMBER)
#undef VNC_MEMBER
};

int vnc_library_open(struct vnc_library *lib, struct error *err);
/* The library stays: its threads' data does not like to be taken away. */

#endif
