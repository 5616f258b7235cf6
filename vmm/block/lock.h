/*
 * The lock of an image file, as QEMU and qemu-img take it: open-file-description locks on single bytes
 * say what a program does with the file, and what it does not let others do.
 */
#ifndef QUMRA_VMM_BLOCK_LOCK_H
#define QUMRA_VMM_BLOCK_LOCK_H

#include "lib/error.h"
#include "lib/types.h"

/*
 * Held until fd is closed. share_write: others may write the file meanwhile. wait: up to a second for
 * one that ends. 1: it is held; 0: the file system has no locks, so nothing is known of others.
 */
int lock_take(int fd, const char *path, bool readonly, bool share_write, bool wait, struct error *err);

#endif
