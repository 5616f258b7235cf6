/* Assembles ACPI machine language (ACPI 6.4, chapter 20) into a buffer. */
#ifndef QUMRA_VMM_MACHINE_AML_H
#define QUMRA_VMM_MACHINE_AML_H

#include "lib/types.h"

struct aml {
	u8 *buf;
	size_t len, size;
	bool overrun;
	size_t vmgenid;		/* where a doubleword is that holds the address of its page; 0: nowhere */
};

/* Packages that carry their length: begin returns a mark for aml_end. */
size_t aml_scope(struct aml *a, const char *name);	/* a root-relative name of one segment */
size_t aml_device(struct aml *a, const char *name);
void aml_end(struct aml *a, size_t mark);

void aml_int(struct aml *a, u32 value);
void aml_name_int(struct aml *a, const char *name, u32 value);
void aml_name_string(struct aml *a, const char *name, const char *value);
/* id: three letters and four hexadecimal digits, such as PNP0501. */
void aml_name_eisaid(struct aml *a, const char *name, const char *id);
void aml_name_package(struct aml *a, const char *name, const u8 *values, u8 count);

/* A package whose elements follow, alone or under a name: begin returns a mark. */
size_t aml_package(struct aml *a, u8 count);
size_t aml_name_begin_package(struct aml *a, const char *name, u8 count);
/* body: term list, assembled by hand. args: a number, and AML_SERIALIZED. */
#define AML_SERIALIZED 0x08
void aml_method(struct aml *a, const char *name, u8 args, const u8 *body, size_t size);

/* Terms assembled by hand. */
void aml_raw(struct aml *a, const u8 *terms, size_t size);

/* _CRS: begin, resources, end. */
size_t aml_crs(struct aml *a);
void aml_crs_io(struct aml *a, u16 base, u8 len);
void aml_crs_irq(struct aml *a, unsigned irq);	/* edge, active high, exclusive */
void aml_crs_mem32(struct aml *a, u32 base, u32 size);
/* What a bridge hands on. The resource types of ACPI 6.4 table 6.47. */
enum aml_space { AML_MEMORY = 0, AML_IO = 1, AML_BUS = 2 };
void aml_crs_space(struct aml *a, enum aml_space space, u64 base, u64 last);
void aml_crs_interrupt(struct aml *a, u32 gsi);		/* edge, active high, exclusive */
void aml_crs_interrupt_shared(struct aml *a, u32 gsi);	/* the same for several */
void aml_crs_end(struct aml *a, size_t mark);

#endif
