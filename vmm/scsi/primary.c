/* What every logical unit answers (SPC-4): who it is, how it is set, what is wrong. */
#include <string.h>

#include "vmm/scsi/disk.h"

#define TYPE_DISK	0x00
#define TYPE_CD		0x05
#define TYPE_NONE	0x7F	/* no unit here, and there cannot be one */
#define PAGES_MAX	256	/* bytes of mode parameters or of vital product data */
#define UNMAP_BLOCKS	SCSI_RANGE_MAX
#define UNMAP_RANGES	SCSI_UNMAP_RANGES

static void test_unit_ready(struct scsi_task *t)
{
	scsi_good(t);
}

static void request_sense(struct scsi_task *t)
{
	static const struct scsi_sense none = { 0 }, no_unit = { 0x05, 0x25, 0x00 };
	const struct scsi_sense *why = t->unit ? scsi_attention_take(t->unit) : &no_unit;
	u8 sense[SCSI_SENSE_SIZE];

	if (t->cdb[1] & 1) {	/* descriptors: not ours */
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	if (!why)
		why = scsi_no_medium(t->unit) ?: &none;
	scsi_sense_fill(sense, why);
	scsi_reply(t, sense, sizeof(sense), t->cdb[4]);
}

/* SPC-4 6.33: there is one unit, 0. */
static void report_luns(struct scsi_task *t)
{
	u8 list[16] = { [3] = 8 };
	u32 room = scsi_get32(t->cdb + 6);

	if (room < sizeof(list) || t->cdb[2] > 2) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	if (t->cdb[2] == 1)	/* well-known ones only */
		list[3] = 0;
	scsi_reply(t, list, 8 + list[3], room);
}

static void prevent_allow(struct scsi_task *t)
{
	t->unit->locked = t->cdb[4] & 1;
	scsi_good(t);
}

/* ---- INQUIRY (6.4) and vital product data (7.8) ---------------------------------------------- */

static u32 put_text(u8 *to, const char *text, u32 size)
{
	for (u32 i = 0; i < size; i++)
		to[i] = *text ? *text++ : ' ';
	return size;
}

static void inquiry_standard(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	bool cd = u && u->kind == SCSI_CD;
	u8 data[36] = {
		u ? cd ? TYPE_CD : TYPE_DISK : TYPE_NONE,
		cd ? 0x80 : 0,		/* removable */
		0x05,			/* SPC-3 */
		0x12,			/* LUNs of more than a byte; format of this data */
		sizeof(data) - 5, 0, 0,
		0x02,			/* commands are queued */
	};

	put_text(data + 8, "QUMRA", 8);
	put_text(data + 16, cd ? "CD-ROM" : "HARDDISK", 16);
	put_text(data + 32, "1.0", 4);
	scsi_reply(t, data, sizeof(data), scsi_get16(t->cdb + 3));
}

static u32 vpd_serial(const struct scsi_unit *u, u8 *p)
{
	return put_text(p, u->serial, strlen(u->serial));
}

/* A designator: T10 vendor identification, and what tells units apart. */
static u32 vpd_identification(const struct scsi_unit *u, u8 *p)
{
	u32 n = put_text(p + 4, "QUMRA", 8);

	n += put_text(p + 12, u->serial[0] ? u->serial : "disk", u->serial[0] ? strlen(u->serial) : 4);
	p[0] = 2;	/* ASCII */
	p[1] = 1;
	p[3] = n;
	return 4 + n;
}

/* SBC-3 6.6.4 */
static u32 vpd_block_limits(const struct scsi_unit *u, u8 *p)
{
	u32 grain = u->info.physical / u->block_size;

	memset(p, 0, 60);
	p[0] = 1;	/* WRITE SAME of 0 blocks is refused */
	scsi_put16(p + 2, grain);
	if (u->info.discard) {
		scsi_put32(p + 16, UNMAP_BLOCKS);
		scsi_put32(p + 20, UNMAP_RANGES);
		scsi_put32(p + 24, grain);
	}
	scsi_put64(p + 32, UNMAP_BLOCKS);
	return 60;
}

/* SBC-3 6.6.2 */
static u32 vpd_characteristics(const struct scsi_unit *u, u8 *p)
{
	(void)u;
	memset(p, 0, 60);
	p[1] = 1;	/* does not rotate */
	return 60;
}

/* SBC-3 6.6.6 */
static u32 vpd_provisioning(const struct scsi_unit *u, u8 *p)
{
	memset(p, 0, 4);
	if (u->info.discard) {
		p[1] = 0xE0;	/* UNMAP, WRITE SAME(16) and (10) unmap */
		p[2] = 2;	/* thin */
	}
	return 4;
}

static u32 vpd_pages(const struct scsi_unit *u, u8 *p);

static const struct vpd_page {
	u8 code, kinds;
	u32 (*fill)(const struct scsi_unit *u, u8 *p);
} vpd_table[] = {
	{ 0x00, SCSI_ON_BOTH, vpd_pages },
	{ 0x80, SCSI_ON_BOTH, vpd_serial },
	{ 0x83, SCSI_ON_BOTH, vpd_identification },
	{ 0xB0, SCSI_ON_DISK, vpd_block_limits },
	{ 0xB1, SCSI_ON_DISK, vpd_characteristics },
	{ 0xB2, SCSI_ON_DISK, vpd_provisioning },
};

static u8 unit_kind(const struct scsi_unit *u)
{
	return u->kind == SCSI_CD ? SCSI_ON_CD : SCSI_ON_DISK;
}

static bool vpd_here(const struct vpd_page *page, const struct scsi_unit *u)
{
	return page->kinds & unit_kind(u) && (page->code != 0x80 || u->serial[0]);
}

static u32 vpd_pages(const struct scsi_unit *u, u8 *p)
{
	u32 n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(vpd_table); i++)
		if (vpd_here(&vpd_table[i], u))
			p[n++] = vpd_table[i].code;
	return n;
}

static void inquiry(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	u8 data[PAGES_MAX];
	u32 n;

	if (!(t->cdb[1] & 1) && !t->cdb[2]) {
		inquiry_standard(t);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(vpd_table) && u && t->cdb[1] & 1; i++) {
		if (vpd_table[i].code != t->cdb[2] || !vpd_here(&vpd_table[i], u))
			continue;
		n = vpd_table[i].fill(u, data + 4);
		data[0] = u->kind == SCSI_CD ? TYPE_CD : TYPE_DISK;
		data[1] = t->cdb[2];
		scsi_put16(data + 2, n);
		scsi_reply(t, data, 4 + n, scsi_get16(t->cdb + 3));
		return;
	}
	scsi_check(t, &SCSI_INVALID_FIELD);
}

/* ---- mode pages (7.5); none can be changed --------------------------------------------------- */

static void page_recovery(const struct scsi_unit *u, u8 *p)
{
	p[2] = u->kind == SCSI_DISK ? 0x80 : 0;	/* writes to bad blocks are moved elsewhere */
}

static void page_caching(const struct scsi_unit *u, u8 *p)
{
	p[2] = u->info.write_cache ? 0x04 : 0;
}

static void page_control(const struct scsi_unit *u, u8 *p)
{
	(void)u;
	p[3] = 0x10;	/* commands may be reordered */
}

/* MMC-3 6.3.11 */
static void page_capabilities(const struct scsi_unit *u, u8 *p)
{
	p[2] = 0x0B;	/* reads CD-R, CD-RW, DVD-ROM */
	p[4] = 0x40;	/* several sessions */
	p[6] = 0x29 | (u->locked ? 0x02 : 0);	/* a tray that can be ejected and locked */
	scsi_put16(p + 8, 50 * 176);	/* speed, and now */
	scsi_put16(p + 12, 2048);	/* KiB of buffer */
	scsi_put16(p + 14, 50 * 176);
}

static const struct mode_page {
	u8 code, kinds, size;	/* without the two bytes at its head */
	void (*fill)(const struct scsi_unit *u, u8 *p);
} mode_table[] = {
	{ 0x01, SCSI_ON_BOTH, 0x0A, page_recovery },
	{ 0x08, SCSI_ON_DISK, 0x12, page_caching },
	{ 0x0A, SCSI_ON_BOTH, 0x0A, page_control },
	{ 0x2A, SCSI_ON_CD, 0x14, page_capabilities },
};

static u32 mode_page_fill(const struct mode_page *page, const struct scsi_unit *u, bool changeable,
			  u8 *p)
{
	memset(p, 0, 2u + page->size);
	p[0] = page->code;
	p[1] = page->size;
	if (!changeable)
		page->fill(u, p);
	return 2u + page->size;
}

/* code 0x3F: all of them. */
static u32 mode_pages_fill(const struct scsi_unit *u, u8 code, bool changeable, u8 *p)
{
	u32 n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(mode_table); i++) {
		const struct mode_page *page = &mode_table[i];

		if (page->kinds & unit_kind(u) && (code == 0x3F || code == page->code))
			n += mode_page_fill(page, u, changeable, p + n);
	}
	return n;
}

static u32 mode_block_descriptor(const struct scsi_unit *u, u8 *p)
{
	scsi_put32(p, MIN(u->blocks, 0xFFFFFFFFULL));
	scsi_put32(p + 4, u->block_size);
	return 8;
}

static void mode_sense(struct scsi_task *t)
{
	const struct scsi_unit *u = t->unit;
	bool ten = t->cdb[0] == 0x5A;
	u8 data[PAGES_MAX] = { 0 }, what = t->cdb[2] >> 6;
	u32 head = ten ? 8 : 4, described = 0, n;

	if (what == 3) {
		scsi_check(t, &SCSI_SAVING_UNSUPPORTED);
		return;
	}
	if (u->kind == SCSI_DISK && !(t->cdb[1] & 8))
		described = mode_block_descriptor(u, data + head);
	n = mode_pages_fill(u, t->cdb[2] & 0x3F, what == 1, data + head + described);
	if (!n || (t->cdb[3] && t->cdb[3] != 0xFF)) {
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	n += head + described;
	data[ten ? 3 : 2] = u->kind == SCSI_CD ? 0 : 0x10 | (u->info.readonly ? 0x80 : 0);
	data[ten ? 7 : 3] = described;
	if (ten)
		scsi_put16(data, n - 2);
	else
		data[0] = n - 1;
	scsi_reply(t, data, n, ten ? scsi_get16(t->cdb + 7) : t->cdb[4]);
}

/* Do these parameters say what is the case? */
static bool mode_pages_agree(const struct scsi_unit *u, const u8 *p, u32 len)
{
	u8 now[PAGES_MAX];

	while (len) {
		u32 n = mode_pages_fill(u, p[0] & 0x3F, false, now);

		if ((p[0] & 0x3F) == 0x3F || !n || n > len)
			return false;
		now[0] |= p[0] & 0x80;
		if (memcmp(now, p, n) != 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

static void mode_select(struct scsi_task *t)
{
	bool ten = t->cdb[0] == 0x55;
	u32 len = ten ? scsi_get16(t->cdb + 7) : t->cdb[4], head = ten ? 8 : 4;
	u8 data[PAGES_MAX];

	if ((t->cdb[1] & 0x11) != 0x10 || len > sizeof(data)) {	/* pages, and not to be saved */
		scsi_check(t, &SCSI_INVALID_FIELD);
		return;
	}
	if (len && !scsi_parameters(t, data, len))
		return;
	if (len && len >= head)
		head += ten ? scsi_get16(data + 6) : data[3];
	if (len && head > len)
		scsi_check(t, &SCSI_PARAMETER_LENGTH);
	else if (len && !mode_pages_agree(t->unit, data + head, len - head))
		scsi_check(t, &SCSI_INVALID_PARAMETER);
	else
		scsi_good(t);
}

const struct scsi_command scsi_primary[256] = {
	[0x00] = { test_unit_ready, SCSI_ON_BOTH | SCSI_MEDIUM },
	[0x03] = { request_sense, SCSI_ON_BOTH | SCSI_QUIET },
	[0x12] = { inquiry, SCSI_ON_BOTH | SCSI_QUIET },
	[0x15] = { mode_select, SCSI_ON_BOTH },
	[0x1A] = { mode_sense, SCSI_ON_BOTH },
	[0x1E] = { prevent_allow, SCSI_ON_BOTH },
	[0x55] = { mode_select, SCSI_ON_BOTH },
	[0x5A] = { mode_sense, SCSI_ON_BOTH },
	[0xA0] = { report_luns, SCSI_ON_BOTH | SCSI_QUIET },
};
