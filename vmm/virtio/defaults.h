/* What virtio devices are where nobody said it: for who makes them and for who prints them. */
#ifndef QUMRA_VMM_VIRTIO_DEFAULTS_H
#define QUMRA_VMM_VIRTIO_DEFAULTS_H

#include "vmm/virtio/options.h"

/* Of a disk that is no SCSI unit. */
unsigned virtio_disk_queues(const struct disk_options *o, unsigned cpus);
/* The option ROM's file; NULL: none. firmware: something runs it. */
const char *virtio_nic_rom(const struct nic_options *o, bool firmware);
/*
 * Gives each network without an address one. A guest keeps its settings by it, so it is the same at each
 * start where that is possible: see defaults.c. No two networks get the same one.
 */
void virtio_nic_macs(struct virtio_options *o);

#endif
