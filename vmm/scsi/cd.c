/*
 * CD-ROM drives (MMC-6): one session with one track of data, in a drive with a tray that the guest
 * can open and close; the image stays in it, unless whoever owns the machine takes it out or puts in
 * another one. Larger images are DVDs.
 */
#include <errno.h>
#include <string.h>

#include "vmm/scsi/disk.h"

#define PROFILE_CD	0x0008
#define PROFILE_DVD	0x0010
#define CD_BLOCKS_MAX	(80 * 60 * 75)	/* 80 minutes */
#define LEAD_OUT	0xAA
#define DATA_TRACK	0x14	/* Q-channel: current position; data, recorded at once */

enum { EVENT_NONE = 0, EVENT_EJECT = 1, EVENT_NEW = 2, EVENT_REMOVED = 3 };

static bool has_medium(const struct scsi_unit *u)
{
	return !scsi_no_medium(u);
}

static u16 cd_profile(const struct scsi_unit *u)
{
	return u->blocks > CD_BLOCKS_MAX ? PROFILE_DVD : PROFILE_CD;
}

/* ---- the tray -------------------------------------------------------------------------------- */

static void start_stop(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	bool load_eject = t->cdb[4] & 2, start = t->cdb[4] & 1;

	if (load_eject && !start && u->locked) {
		scsi_check(t, &SCSI_REMOVAL_PREVENTED);
		return;
	}
	/*
	 * An event for those who poll, but no unit attention: the only initiator did it itself, and Linux
	 * refuses to read after one that comes behind its opening of the drive.
	 */
	if (load_eject && u->open == start) {
		u->open = !start;
		u->media_event = !start ? EVENT_REMOVED : u->block ? EVENT_NEW : EVENT_NONE;
	}
	scsi_good(t);
}

int scsi_cd_eject(struct scsi_unit *u, bool force)
{
	if (u->open)
		return 0;
	if (u->locked && !force) {
		u->media_event = EVENT_EJECT;
		return -EBUSY;
	}
	u->open = true;
	u->media_event = EVENT_REMOVED;
	return 0;
}

void scsi_cd_remove(struct scsi_unit *u)
{
	scsi_unit_replace(u, NULL);
}

void scsi_cd_load(struct scsi_unit *u, struct block *block)
{
	scsi_unit_replace(u, block);
	u->open = false;
	u->media_event = block ? EVENT_NEW : EVENT_NONE;
	/* SPC-4 5.14: nobody who sends commands did it. Not ready to ready; the medium may have changed. */
	if (block)
		u->attention |= SCSI_ATTENTION_MEDIUM;
}

/* MMC-6 6.6: polled only. */
static void get_event_status(struct scsi_task *t)
{
	struct scsi_unit *u = t->unit;
	bool media = t->cdb[4] & 0x10;
	u8 data[8] = { 0, media ? 6 : 2, media ? 4 : 0x80, 0x10, u->media_event,
		       (u->open ? 1 : 0) | (has_medium(u) ? 2 : 0) };

	if (!(t->cdb[1] & 1)) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	if (media && scsi_get16(t->cdb + 7) > 4)
		u->media_event = EVENT_NONE;
	scsi_reply(t, data, media ? 8 : 4, scsi_get16(t->cdb + 7));
}

static void mechanism_status(struct scsi_task *t)
{
	u8 data[8] = { 0, t->unit->open ? 0x10 : 0 };

	scsi_reply(t, data, sizeof(data), scsi_get16(t->cdb + 8));
}

/* ---- features (MMC-6 5) ---------------------------------------------------------------------- */

static const struct feature {
	u16 code;
	u8 flags;	/* version, persistent, current */
	u8 len;
	u8 data[8];
} features[] = {
	{ 0x0000, 0x03, 8, { 0x00, PROFILE_DVD, 0, 0, 0x00, PROFILE_CD, 0, 0 } },
	{ 0x0001, 0x0B, 8, { 0, 0, 0, 1, 1, 0, 0, 0 } },	/* core, over SCSI */
	{ 0x0002, 0x07, 4, { 2, 0, 0, 0 } },			/* events, polled */
	{ 0x0003, 0x03, 4, { 0x29, 0, 0, 0 } },			/* tray, ejects, locks */
	{ 0x0010, 0x01, 8, { 0, 0, 8, 0, 0, 16, 0, 0 } },	/* reads at random, blocks of 2048 */
	{ 0x001E, 0x08, 4, { 0 } },				/* reads CDs */
	{ 0x001F, 0x08, 4, { 0 } },				/* reads DVDs */
};

static bool feature_current(const struct scsi_unit *u, const struct feature *f)
{
	if (f->code == 0x1E || f->code == 0x1F)
		return has_medium(u) && (cd_profile(u) == PROFILE_DVD) == (f->code == 0x1F);
	return f->flags & 1 && (f->code != 0x10 || has_medium(u));
}

static u32 feature_put(const struct scsi_unit *u, const struct feature *f, u8 *p)
{
	scsi_put16(p, f->code);
	p[2] = (f->flags & ~1) | feature_current(u, f);
	p[3] = f->len;
	memcpy(p + 4, f->data, f->len);
	/* The profile that is current says so in its own entry. */
	for (unsigned i = 0; f->code == 0 && i < f->len; i += 4)
		p[4 + i + 2] = has_medium(u) && scsi_get16(f->data + i) == cd_profile(u);
	return 4u + f->len;
}

static void get_configuration(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	u8 data[8 + ARRAY_SIZE(features) * 12] = { 0 }, which = t->cdb[1] & 3;
	u16 from = scsi_get16(t->cdb + 2);
	u32 n = 8;

	if (which == 3) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];

		if (f->code >= from && (which != 1 || feature_current(u, f)) &&
		    (which != 2 || f->code == from))
			n += feature_put(u, f, data + n);
	}
	scsi_put32(data, n - 4);
	scsi_put16(data + 6, has_medium(u) ? cd_profile(u) : 0);
	scsi_reply(t, data, n, scsi_get16(t->cdb + 7));
}

/* ---- what is on the disc --------------------------------------------------------------------- */

/* An address as such, or as minute, second and frame. */
static void put_address(u8 *p, u64 lba, bool msf)
{
	scsi_put32(p, lba);
	if (!msf)
		return;
	lba += 150;	/* two seconds lie in front */
	p[1] = MIN(lba / 75 / 60, 255u);
	p[2] = lba / 75 % 60;
	p[3] = lba % 75;
}

static u32 toc_tracks(const struct scsi_unit *u, u8 first, bool msf, u8 *p)
{
	u32 n = 4;

	p[2] = p[3] = 1;
	for (unsigned track = 1; track <= LEAD_OUT; track += LEAD_OUT - 1) {
		if (track < first)
			continue;
		p[n + 1] = DATA_TRACK;
		p[n + 2] = track;
		put_address(p + n + 4, track == 1 ? 0 : u->blocks, msf);
		n += 8;
	}
	return n;
}

static u32 toc_sessions(bool msf, u8 *p)
{
	p[2] = p[3] = 1;
	p[5] = DATA_TRACK;
	p[6] = 1;
	put_address(p + 8, 0, msf);
	return 12;
}

/* As in the lead-in (MMC-6 6.26.3.5): first track, last one, lead-out, the track itself. */
static u32 toc_raw(const struct scsi_unit *u, u8 *p)
{
	static const u8 points[] = { 0xA0, 0xA1, 0xA2, 1 };
	u32 n = 4;

	p[2] = p[3] = 1;
	for (size_t i = 0; i < ARRAY_SIZE(points); i++, n += 11) {
		u8 address[4];

		p[n] = 1;
		p[n + 1] = DATA_TRACK;
		p[n + 3] = points[i];
		if (points[i] < 0xA2 && points[i] != 1) {
			p[n + 8] = 1;
			continue;
		}
		put_address(address, points[i] == 1 ? 0 : u->blocks, true);
		memcpy(p + n + 8, address + 1, 3);
	}
	return n;
}

static void read_toc(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	/* Old drivers have the format in the last byte (MMC-6 6.25.2.3). */
	u8 format = t->cdb[2] & 0xF ? t->cdb[2] & 0xF : t->cdb[9] >> 6, first = t->cdb[6];
	bool msf = t->cdb[1] & 2;
	u8 data[64] = { 0 };
	u32 n = 0;

	if (format == 0 && (first <= 1 || first == LEAD_OUT))
		n = toc_tracks(u, first, msf, data);
	else if (format == 1)
		n = toc_sessions(msf, data);
	else if (format == 2 && first <= 1)
		n = toc_raw(u, data);
	if (!n) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	scsi_put16(data, n - 2);
	scsi_reply(t, data, n, scsi_get16(t->cdb + 7));
}

static void read_disc_information(struct scsi_task *t)
{
	u8 data[34] = {
		0, sizeof(data) - 2,
		0x0E,		/* the last session and the disc are complete */
		1, 1, 1, 1,	/* first track; sessions; first and last track of the last */
		0x20,		/* for any use */
	};

	if (t->cdb[1] & 7) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	memset(data + 16, 0xFF, 8);	/* no lead-in or lead-out to be written */
	scsi_reply(t, data, sizeof(data), scsi_get16(t->cdb + 7));
}

/* User data of blocks are what the image has. */
static void read_cd(struct scsi_task *t)
{
	u8 type = t->cdb[1] >> 2 & 7, wanted = t->cdb[9] & 0xF8;
	u64 blocks = scsi_get24(t->cdb + 6);

	if ((type && type != 2) || t->cdb[10] & 7 || (wanted && wanted != 0x10))
		scsi_check(t, &SCSI_INVALID_FIELD);
	else
		scsi_data(t, false, scsi_get32(t->cdb + 2), wanted ? blocks : 0);
}

static void nothing(struct scsi_task *t)
{
	scsi_good(t);
}

#define ON SCSI_ON_CD
#define ON_MEDIUM (SCSI_ON_CD | SCSI_MEDIUM)

const struct scsi_command scsi_multimedia[256] = {
	[0x08] = { scsi_read, ON_MEDIUM }, [0x28] = { scsi_read, ON_MEDIUM },
	[0xA8] = { scsi_read, ON_MEDIUM }, [0x88] = { scsi_read, ON_MEDIUM },
	[0x1B] = { start_stop, ON },
	[0x25] = { scsi_read_capacity, ON_MEDIUM },
	[0x2B] = { nothing, ON_MEDIUM },	/* SEEK */
	[0x2F] = { scsi_verify, ON_MEDIUM },
	[0x35] = { nothing, ON_MEDIUM },	/* nothing is cached */
	[0x43] = { read_toc, ON_MEDIUM },
	[0x46] = { get_configuration, ON | SCSI_QUIET },
	[0x4A] = { get_event_status, ON | SCSI_QUIET },
	[0x51] = { read_disc_information, ON_MEDIUM },
	[0xBB] = { nothing, ON },		/* SET CD SPEED */
	[0xBD] = { mechanism_status, ON },
	[0xBE] = { read_cd, ON_MEDIUM },
};
