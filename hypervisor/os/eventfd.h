/*
 * Descriptors of our own, for eventfd.c and waiter.c. In the kernel they would cost the program
 * none of its numbers, so they are made beyond its limit of open files where that may be raised.
 */
#ifndef QUMRA_HYPERVISOR_OS_EVENTFD_H
#define QUMRA_HYPERVISOR_OS_EVENTFD_H

#include <sys/resource.h>

#include "lib/types.h"

/* Between the two the soft limit is as high as can be; one thread at a time. */
void fd_limit_raise(struct rlimit *old);
void fd_limit_restore(const struct rlimit *old);
/* A further number for the file. Or -errno. */
int fd_dup_aside(int fd);
/* Opens the text in which proc(5) describes fd. Or -errno. */
int fd_info_open(int fd);

#endif
