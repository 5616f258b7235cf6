/* Commands of disks that CD-ROM drives have too. */
#ifndef QUMRA_VMM_SCSI_DISK_H
#define QUMRA_VMM_SCSI_DISK_H

#include "vmm/scsi/scsi.h"

/* Of one range to unmap, or one WRITE SAME: it takes no memory, so only time limits it. */
#define SCSI_RANGE_MAX ((1u << 30) / 512)
#define SCSI_UNMAP_RANGES 64	/* of one UNMAP */

/* Checks the range and moves its blocks. */
void scsi_data(struct scsi_task *t, bool write, u64 lba, u64 blocks);
void scsi_read(struct scsi_task *t);
void scsi_verify(struct scsi_task *t);
void scsi_read_capacity(struct scsi_task *t);

#endif
