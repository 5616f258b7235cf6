/* An assembler for the little AML that a machine without plug-ins needs: see aml.h. */
#include <string.h>

#include "vmm/machine/aml.h"

enum {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_NAME = 0x08,
	AML_BYTE = 0x0A,
	AML_WORD = 0x0B,
	AML_DWORD = 0x0C,
	AML_STRING = 0x0D,
	AML_SCOPE = 0x10,
	AML_BUFFER = 0x11,
	AML_PACKAGE = 0x12,
	AML_EXT = 0x5B,
	AML_EXT_DEVICE = 0x82,
	AML_ROOT = '\\',
};

/* Resource descriptors, small items (ACPI 6.4, 6.4.2). */
enum { RES_IRQ = 0x22, RES_IO = 0x47, RES_END = 0x79 };
#define RES_IO_DECODE16 1

static void put(struct aml *a, u8 byte)
{
	if (a->len == a->size)
		a->overrun = true;
	else
		a->buf[a->len++] = byte;
}

static void put_le(struct aml *a, u64 value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		put(a, value >> 8 * i);
}

static void put_text(struct aml *a, const char *text)
{
	while (*text)
		put(a, *text++);
}

/* Lengths take the two-byte form, which holds up to 4095; filled in by aml_end. */
static size_t aml_begin(struct aml *a)
{
	put(a, 0);
	put(a, 0);
	return a->len - 2;
}

void aml_end(struct aml *a, size_t mark)
{
	size_t len = a->len - mark;

	if (a->overrun || len > 4095) {
		a->overrun = true;
		return;
	}
	a->buf[mark] = 0x40 | (len & 15);
	a->buf[mark + 1] = len >> 4;
}

size_t aml_scope(struct aml *a, const char *name)
{
	size_t mark;

	put(a, AML_SCOPE);
	mark = aml_begin(a);
	put(a, AML_ROOT);
	put_text(a, name);
	return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
	size_t mark;

	put(a, AML_EXT);
	put(a, AML_EXT_DEVICE);
	mark = aml_begin(a);
	put_text(a, name);
	return mark;
}

static void aml_int(struct aml *a, u32 value)
{
	if (value <= 1) {
		put(a, value);
	} else if (value <= 0xFF) {
		put(a, AML_BYTE);
		put(a, value);
	} else if (value <= 0xFFFF) {
		put(a, AML_WORD);
		put_le(a, value, 2);
	} else {
		put(a, AML_DWORD);
		put_le(a, value, 4);
	}
}

static void aml_name(struct aml *a, const char *name)
{
	put(a, AML_NAME);
	put_text(a, name);
}

void aml_name_int(struct aml *a, const char *name, u32 value)
{
	aml_name(a, name);
	aml_int(a, value);
}

void aml_name_string(struct aml *a, const char *name, const char *value)
{
	aml_name(a, name);
	put(a, AML_STRING);
	put_text(a, value);
	put(a, 0);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? c - '0' : c - 'A' + 10;
}

/* ACPI 6.4, 19.3.4: five bits a letter, four a digit, big-endian. */
void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	u32 v = (id[0] & 31) << 26 | (id[1] & 31) << 21 | (id[2] & 31) << 16;

	for (int i = 0; i < 4; i++)
		v |= hex_digit(id[3 + i]) << (12 - 4 * i);
	aml_name(a, name);
	put(a, AML_DWORD);
	put_le(a, __builtin_bswap32(v), 4);
}

void aml_name_package(struct aml *a, const char *name, const u8 *values, u8 count)
{
	size_t mark;

	aml_name(a, name);
	put(a, AML_PACKAGE);
	mark = aml_begin(a);
	put(a, count);
	for (u8 i = 0; i < count; i++)
		aml_int(a, values[i]);
	aml_end(a, mark);
}

size_t aml_crs(struct aml *a)
{
	size_t mark;

	aml_name(a, "_CRS");
	put(a, AML_BUFFER);
	mark = aml_begin(a);
	put(a, AML_WORD);
	put_le(a, 0, 2);	/* the buffer's size: aml_crs_end */
	return mark;
}

void aml_crs_io(struct aml *a, u16 base, u8 len)
{
	put(a, RES_IO);
	put(a, RES_IO_DECODE16);
	put_le(a, base, 2);
	put_le(a, base, 2);
	put(a, 1);	/* alignment */
	put(a, len);
}

void aml_crs_irq(struct aml *a, unsigned irq)
{
	put(a, RES_IRQ);
	put_le(a, 1u << irq, 2);
}

void aml_crs_end(struct aml *a, size_t mark)
{
	size_t data = mark + 2 + 3;

	put(a, RES_END);
	put(a, 0);	/* no checksum */
	if (!a->overrun) {
		a->buf[data - 2] = a->len - data;
		a->buf[data - 1] = (a->len - data) >> 8;
	}
	aml_end(a, mark);
}
