/*
 * The control socket: QEMU's machine protocol (QMP), so that its tools and habits serve here, too. A Unix
 * socket that only our own user may open; one client at a time, the next waits. JSON objects each way:
 * a greeting, qmp_capabilities, then commands with replies, and events in between.
 *
 * Specification: QEMU's docs/interop/qmp-spec.txt; the commands are a part of its schema.
 */
#ifndef QUMRA_VMM_CONTROL_CONTROL_H
#define QUMRA_VMM_CONTROL_CONTROL_H

#include "lib/error.h"

struct control;
struct vmm;

/* Everything in the machine's lock and, but for events, in its loop's thread. path: NULL: *out is NULL,
 * which every function here takes. */
int control_create(struct control **out, const char *path, struct vmm *vmm, struct error *err);
/* What a client has not read by then is lost. */
void control_destroy(struct control *c);

/* To a client that is there. Any thread. */
void control_event(struct control *c, const char *name);
/* GUEST_PANICKED; the machine runs on. */
void control_event_panic(struct control *c);
/* SHUTDOWN, RESET: why, by QEMU's ShutdownCause, and whether the guest wanted it. */
void control_event_cause(struct control *c, const char *name, const char *cause, bool guest);

#endif
