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
	AML_METHOD = 0x14,
	AML_EXT = 0x5B,
	AML_EXT_DEVICE = 0x82,
	AML_ROOT = '\\',
};

/* Resource descriptors, small items (ACPI 6.4, 6.4.2). */
enum { RES_IRQ = 0x22, RES_IO = 0x47, RES_END = 0x79 };
#define RES_IO_DECODE16 1
/* Large items (ACPI 6.4, 6.4.3). */
enum { RES_MEM32_FIXED = 0x86, RES_DWORD = 0x87, RES_WORD = 0x88, RES_QWORD = 0x8A };
/* General flags: fixed at both ends, positive decode, producer. */
#define SPACE_FLAGS 0x0C
enum { RES_INTERRUPT = 0x89 };
enum { INTERRUPT_CONSUMER = 1, INTERRUPT_EDGE = 2, INTERRUPT_SHARED = 8 };

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

/* Room for the two-byte form, which holds up to 4095; filled in by aml_end. */
static size_t aml_begin(struct aml *a)
{
	put(a, 0);
	put(a, 0);
	return a->len - 2;
}

void aml_end(struct aml *a, size_t mark)
{
	size_t len = a->len - mark;

	if (a->overrun)
		return;
	if (len > 4095) {
		/* The three-byte form. What is inside has its lengths already. */
		put(a, 0);
		memmove(a->buf + mark + 3, a->buf + mark + 2, len - 2);
		if (a->vmgenid > mark)
			a->vmgenid++;
		len++;
		a->buf[mark + 2] = len >> 12;
	}
	a->buf[mark] = (len > 4096 ? 0x80 : 0x40) | (len & 15);
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

void aml_int(struct aml *a, u32 value)
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

size_t aml_package(struct aml *a, u8 count)
{
	size_t mark;

	put(a, AML_PACKAGE);
	mark = aml_begin(a);
	put(a, count);
	return mark;
}

size_t aml_name_begin_package(struct aml *a, const char *name, u8 count)
{
	aml_name(a, name);
	return aml_package(a, count);
}

void aml_raw(struct aml *a, const u8 *terms, size_t size)
{
	for (size_t i = 0; i < size; i++)
		put(a, terms[i]);
}

void aml_method(struct aml *a, const char *name, u8 args, const u8 *body, size_t size)
{
	size_t mark;

	put(a, AML_METHOD);
	mark = aml_begin(a);
	put_text(a, name);
	put(a, args);
	aml_raw(a, body, size);
	aml_end(a, mark);
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

void aml_crs_mem32(struct aml *a, u32 base, u32 size)
{
	put(a, RES_MEM32_FIXED);
	put_le(a, 9, 2);
	put(a, 1);	/* read and write */
	put_le(a, base, 4);
	put_le(a, size, 4);
}

/* ACPI 6.4, 6.4.3.5: word, doubleword or quadword address space descriptor. */
void aml_crs_space(struct aml *a, enum aml_space space, u64 base, u64 last)
{
	/* Entire range for I/O; cacheable or not is the BARs' to say for memory: read and write. */
	static const u8 type_flags[] = { [AML_MEMORY] = 0x01, [AML_IO] = 0x03, [AML_BUS] = 0 };
	unsigned width = space != AML_MEMORY ? 2 : last >> 32 ? 8 : 4;

	put(a, width == 2 ? RES_WORD : width == 4 ? RES_DWORD : RES_QWORD);
	put_le(a, 3 + 5 * width, 2);
	put(a, space);
	put(a, SPACE_FLAGS);
	put(a, type_flags[space]);
	put_le(a, 0, width);	/* granularity */
	put_le(a, base, width);
	put_le(a, last, width);
	put_le(a, 0, width);	/* translation */
	put_le(a, last - base + 1, width);
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

/* ACPI 6.4, 6.4.3.6: extended interrupt. */
static void put_interrupt(struct aml *a, u32 gsi, u8 flags)
{
	put(a, RES_INTERRUPT);
	put_le(a, 6, 2);
	put(a, flags);
	put(a, 1);
	put_le(a, gsi, 4);
}

void aml_crs_interrupt(struct aml *a, u32 gsi)
{
	put_interrupt(a, gsi, INTERRUPT_CONSUMER | INTERRUPT_EDGE);
}

void aml_crs_interrupt_shared(struct aml *a, u32 gsi)
{
	put_interrupt(a, gsi, INTERRUPT_CONSUMER | INTERRUPT_EDGE | INTERRUPT_SHARED);
}
