/* Memory and registers of the fuzzer's machines. */
#ifndef QUMRA_TESTS_HOSTILE_IMAGE_H
#define QUMRA_TESTS_HOSTILE_IMAGE_H

#include "tests/hostile/gen.h"

#define IMAGE_RAM	(2u << 20)
#define GDT_AT		0x1000u
#define IDT_AT		0x2000u
#define TSS_AT		0x3000u
#define STUBS_AT	0x4000u
#define STACK_TOP	0x7f00u
#define TABLES_AT	0x8000u
#define CODE_AT		0x20000u
#define CODE_SIZE	0x4000u
#define DATA_AT		0x30000u
#define DATA_SIZE	0x10000u
#define GDT_ENTRIES	16

enum mode { REAL, PROT16, PROT32, V86, PAGED32, PAE, COMPAT, LONG64, NR_MODES };

struct image {
	u8 *ram;
	struct random *r;
	enum mode mode;
	struct places places;
	u64 table_next;
};

bool mode_wide(enum mode m);
void image_make(struct image *i);
void image_sregs(struct image *i, struct kvm_sregs *s);
void image_regs(struct image *i, struct kvm_regs *k);
void image_fpu(struct image *i, struct kvm_fpu *f);

#endif
