/*
 * A program that serves one device (virtiofsd, passt): started with a socket of ours, it ends when we
 * close our side of it, which the kernel does too if we are killed.
 */
#ifndef QUMRA_VMM_LOOP_CHILD_H
#define QUMRA_VMM_LOOP_CHILD_H

#include <sys/types.h>

#include "lib/error.h"

struct child {
	pid_t pid;	/* 0: none */
};

/* Of descriptors only standard error and fd are passed on, fd under the same number. */
int child_start(struct child *c, const char *const *argv, int fd, struct error *err);
/* When its socket is closed: it has a moment to end, then it is killed. */
void child_end(struct child *c);

#endif
