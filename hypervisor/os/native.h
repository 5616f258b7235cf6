/*
 * Machine code made at run time, and the host faults it may cause. Internal to os/: memory.c tells
 * here what os_code_alloc gave out.
 */
#ifndef QUMRA_HYPERVISOR_OS_NATIVE_H
#define QUMRA_HYPERVISOR_OS_NATIVE_H

#include <stddef.h>

/* From now on faults inside [rx, rx + size) end the call into it (os.h). 0 or -ENOMEM. */
int native_area_add(const void *rx, size_t size);
void native_area_remove(const void *rx);

#endif
