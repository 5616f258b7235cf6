/* Assembles ACPI machine language (ACPI 6.4, chapter 20) into a buffer. */
#ifndef QUMRA_VMM_MACHINE_AML_H
#define QUMRA_VMM_MACHINE_AML_H

#include "lib/types.h"

struct aml {
	u8 *buf;
	size_t len, size;
	bool overrun;
};

/* Packages that carry their length: begin returns a mark for aml_end. */
size_t aml_scope(struct aml *a, const char *name);	/* a root-relative name of one segment */
size_t aml_device(struct aml *a, const char *name);
void aml_end(struct aml *a, size_t mark);

void aml_name_int(struct aml *a, const char *name, u32 value);
void aml_name_string(struct aml *a, const char *name, const char *value);
/* id: three letters and four hexadecimal digits, such as PNP0501. */
void aml_name_eisaid(struct aml *a, const char *name, const char *id);
void aml_name_package(struct aml *a, const char *name, const u8 *values, u8 count);

/* _CRS: begin, resources, end. */
size_t aml_crs(struct aml *a);
void aml_crs_io(struct aml *a, u16 base, u8 len);
void aml_crs_irq(struct aml *a, unsigned irq);	/* edge, active high, exclusive */
void aml_crs_end(struct aml *a, size_t mark);

#endif
