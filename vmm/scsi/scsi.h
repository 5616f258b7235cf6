/*
 * SCSI logical units over images of the block layer: disks (SPC-4, SBC-3) and CD-ROM drives (SPC-4,
 * MMC-6). A transport (virtio-scsi) fills in a task and submits it; the unit checks all of it, moves
 * the data and says how it ended. Everything of one unit happens under its I/O thread's lock.
 */
#ifndef QUMRA_VMM_SCSI_SCSI_H
#define QUMRA_VMM_SCSI_SCSI_H

#include "vmm/block/block.h"

#define SCSI_CDB_SIZE		32
#define SCSI_SENSE_SIZE		18	/* of what we say: fixed format, SPC-4 4.5.3 */
#define SCSI_SERIAL_SIZE	20
#define SCSI_PATTERN_SIZE	65536	/* of a block written many times over, in one go */

enum scsi_kind { SCSI_DISK, SCSI_CD };

enum scsi_status {		/* SAM-5 5.3.1 */
	SCSI_GOOD = 0,
	SCSI_CHECK_CONDITION = 2,
	SCSI_BUSY = 8,
};

/* What a unit tells at the next command, each once; the first of them first (SPC-4 5.14). */
enum scsi_attention {
	SCSI_ATTENTION_RESET = 1,	/* power on, or a reset */
	SCSI_ATTENTION_MEDIUM = 2,	/* it may have changed */
	SCSI_ATTENTION_CAPACITY = 4,
	SCSI_ATTENTION_ALL = 7,
};

struct scsi_unit {
	enum scsi_kind kind;
	struct block *block;		/* ours to close; NULL: a drive without a medium */
	struct block_info info;
	u32 block_size;			/* of the logical blocks; a power of two */
	u64 blocks;
	char serial[SCSI_SERIAL_SIZE + 1];
	unsigned in_flight;
	/* Saved. */
	u8 attention;			/* enum scsi_attention */
	u8 media_event;			/* MMC-6 6.6.2.5, told once */
	bool locked;			/* PREVENT ALLOW MEDIUM REMOVAL */
	bool open;			/* the tray */
};

/* Sense key, additional sense code and its qualifier (SPC-4 4.5). */
struct scsi_sense {
	u8 key, asc, ascq;
};

struct scsi_task {
	/* The transport's. */
	struct scsi_unit *unit;		/* NULL: the target has no such unit */
	u8 cdb[SCSI_CDB_SIZE];		/* zeroes behind its end */
	struct iovec *out, *in;		/* what comes with it, and room for the answer; used up */
	unsigned outs, ins;
	u64 out_bytes, in_bytes;
	/* May be called from scsi_submit(). */
	void (*done)(struct scsi_task *t);

	/* The answer. */
	u8 status;
	u8 sense[SCSI_SENSE_SIZE], sense_len;
	bool overrun;			/* the command has more data than there is room */
	u64 moved;			/* bytes, either way */

	/* The unit's own. */
	struct block_request io;
	void (*io_end)(struct scsi_task *t, int result);
	u8 *buffer;			/* freed at the end */
	struct iovec one;
	u64 lba, end;			/* of a command of several steps */
	unsigned at, count;
};

/* The image was opened; it is closed by scsi_unit_destroy(). */
void scsi_unit_init(struct scsi_unit *u, enum scsi_kind kind, struct block *block,
		    const char *serial);
void scsi_unit_destroy(struct scsi_unit *u);
/* As at power-on. */
void scsi_unit_reset(struct scsi_unit *u);
/* Until nothing is in flight. */
void scsi_unit_drain(struct scsi_unit *u);
/*
 * A drive's tray opens, unless the guest has locked it: -EBUSY, and the guest is told of the wish. force
 * opens it nevertheless. What was in it, and whether it was open already, does not matter.
 */
int scsi_cd_eject(struct scsi_unit *u, bool force);
/* Closes the tray with this in it, or with nothing (NULL); what was in it is closed. Drains. */
void scsi_cd_load(struct scsi_unit *u, struct block *block);
/* Takes what is in it out, wherever the tray is. Drains. */
void scsi_cd_remove(struct scsi_unit *u);
/* The image has another size now. */
void scsi_unit_resized(struct scsi_unit *u);

void scsi_submit(struct scsi_task *t);

/* ---- for the command sets -------------------------------------------------------------------- */

extern const struct scsi_sense SCSI_INVALID_OPCODE, SCSI_INVALID_FIELD, SCSI_OUT_OF_RANGE,
	SCSI_INVALID_PARAMETER, SCSI_PARAMETER_LENGTH, SCSI_REMOVAL_PREVENTED,
	SCSI_WRITE_PROTECTED, SCSI_SAVING_UNSUPPORTED, SCSI_NO_MEMORY;

#define SCSI_ON_DISK	1
#define SCSI_ON_CD	2
#define SCSI_ON_BOTH	3
#define SCSI_MEDIUM	4	/* only with a medium in the drive */
#define SCSI_QUIET	8	/* says nothing of attentions, and leaves them */
#define SCSI_WRITES	16	/* not to a write-protected medium */

struct scsi_command {
	void (*run)(struct scsi_task *t);
	u8 flags;
};

/* By operation code. */
extern const struct scsi_command scsi_primary[256], scsi_block[256], scsi_multimedia[256];

void scsi_good(struct scsi_task *t);
void scsi_check(struct scsi_task *t, const struct scsi_sense *why);
/* Sense data for why, SCSI_SENSE_SIZE bytes. */
void scsi_sense_fill(u8 *sense, const struct scsi_sense *why);
/* Another image, or none, in place of what there is, which is drained and closed. */
void scsi_unit_replace(struct scsi_unit *u, struct block *block);
/* The next attention taken from the unit; NULL: there is none. */
const struct scsi_sense *scsi_attention_take(struct scsi_unit *u);
/* Why there is no medium to be reached; NULL: there is one. */
const struct scsi_sense *scsi_no_medium(const struct scsi_unit *u);
/* len bytes are the answer, of which the initiator wants at most room; good. */
void scsi_reply(struct scsi_task *t, const void *data, u32 len, u32 room);
/* The parameter list of len bytes, copied; false: it is not there, and the task has ended. */
bool scsi_parameters(struct scsi_task *t, void *data, u32 len);
/* Hands t->io, filled in but for done, to the image; then done is called with its result. */
void scsi_io(struct scsi_task *t, void (*done)(struct scsi_task *t, int result));
/* The task's end by the image's result. */
void scsi_io_end(struct scsi_task *t, int result);
/* Logical block and number of blocks by the operation code's group; READ(6)'s 0 is 256. */
void scsi_range(const u8 *cdb, u64 *lba, u64 *blocks);

static inline u16 scsi_get16(const u8 *p)
{
	return p[0] << 8 | p[1];
}

static inline u32 scsi_get24(const u8 *p)
{
	return (u32)p[0] << 16 | scsi_get16(p + 1);
}

static inline u32 scsi_get32(const u8 *p)
{
	return (u32)scsi_get16(p) << 16 | scsi_get16(p + 2);
}

static inline u64 scsi_get64(const u8 *p)
{
	return (u64)scsi_get32(p) << 32 | scsi_get32(p + 4);
}

static inline void scsi_put16(u8 *p, u16 v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static inline void scsi_put32(u8 *p, u32 v)
{
	scsi_put16(p, v >> 16);
	scsi_put16(p + 2, v);
}

static inline void scsi_put64(u8 *p, u64 v)
{
	scsi_put32(p, v >> 32);
	scsi_put32(p + 4, v);
}

#endif
