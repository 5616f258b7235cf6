/*
 * Machine code made at run time, and the host faults it may cause. Internal to os/: memory.c tells
 * native.c what os_code_alloc gave out, and chain.c asks it about each fault.
 */
#ifndef QUMRA_HYPERVISOR_OS_NATIVE_H
#define QUMRA_HYPERVISOR_OS_NATIVE_H

#include "lib/types.h"

struct os_code_fault;

/*
 * From now on faults inside [rx, rx + size) go where fault says; NULL: they end the call into the
 * area (os.h). 0 or -ENOMEM.
 */
int native_area_add(const void *rx, size_t size, const struct os_code_fault *fault);
void native_area_resume(const void *rx, u64 resume);
void native_area_remove(const void *rx);
/* In a signal handler: was it a fault in an area? ctx (ucontext_t) then goes on as it should. */
bool native_area_fault(void *ctx);

/* perfmap.c: opens the map of names if it is wanted, before any code runs. */
void perfmap_init(void);
/* dump.c: the same for the developer's dump. */
void dump_init(void);

/* chain.c: puts our handler before those of the program, once. 0 or -errno. */
int chain_install(void);

#endif
