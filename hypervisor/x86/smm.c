/*
 * System management mode: entry by SMI, the state save area, RSM. APM 2 10.2 (tables 10-1, 10-2),
 * SDM 3C 31.4 to 31.7.
 *
 * A vCPU in SMM sees the memory slots of address space 1 (core/vm.h), so all that it has cached of
 * guest memory goes at both ends. An SMI waits for the end of an interrupt shadow: the save area has
 * no place for one. Auto-HALT restart and I/O restart are not offered, as in KVM 6.1: a CPU that was
 * halted goes on behind HLT.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/msr.h"
#include "hypervisor/x86/smm.h"
#include "hypervisor/x86/system.h"

#include <linux/errno.h>

#define SMM_HANDLER	0x8000
#define SAVE_AREA	0xfe00	/* from SMBASE; offsets below count from SMBASE + 0x8000 */
#define SAVE_FIRST	0x7e00
#define SAVE_SIZE	512
#define SAVE_REVISION	0x7efc
#define REVISION_32	0x00020000	/* SMBASE can be changed */
#define REVISION_64	0x00020064
#define MSR_EFER	0xc0000080
#define NR_DATA_SEGS	6	/* ES to GS */

/* ---- the save area's formats ----------------------------------------------------------------- */

/* A register of v: size bytes at "at", bytes of it in struct vcpu. */
struct save_field {
	u16 at, size, field, bytes;
};
#define FIELD(at, size, f) { at, size, offsetof(struct vcpu, f), sizeof(((struct vcpu *)0)->f) }

/* Where the parts of a segment are. */
struct save_segment {
	u16 sel, attr, limit, base;
};

struct save_format {
	const struct save_field *field;
	u32 n;
	u32 revision;
	struct save_segment seg[NR_SEGS];
	u16 attr_size, base_size;
	u16 attr_shift;
};

static const struct save_field fields_32[] = {
	FIELD(0x7ffc, 4, cr0), FIELD(0x7ff8, 4, cr3), FIELD(0x7ff4, 4, rflags),
	FIELD(0x7ff0, 4, r[R_RIP]),
	FIELD(0x7fd0, 4, r[R_RAX]), FIELD(0x7fd4, 4, r[R_RCX]), FIELD(0x7fd8, 4, r[R_RDX]),
	FIELD(0x7fdc, 4, r[R_RBX]), FIELD(0x7fe0, 4, r[R_RSP]), FIELD(0x7fe4, 4, r[R_RBP]),
	FIELD(0x7fe8, 4, r[R_RSI]), FIELD(0x7fec, 4, r[R_RDI]),
	FIELD(0x7fcc, 4, dr6), FIELD(0x7fc8, 4, dr7),
	FIELD(0x7f74, 4, gdt.base), FIELD(0x7f70, 4, gdt.limit),
	FIELD(0x7f58, 4, idt.base), FIELD(0x7f54, 4, idt.limit),
	FIELD(0x7f14, 4, cr4), FIELD(0x7ef8, 4, msr.smbase),
};

static const struct save_field fields_64[] = {
	FIELD(0x7ff8, 8, r[R_RAX]), FIELD(0x7ff0, 8, r[R_RCX]), FIELD(0x7fe8, 8, r[R_RDX]),
	FIELD(0x7fe0, 8, r[R_RBX]), FIELD(0x7fd8, 8, r[R_RSP]), FIELD(0x7fd0, 8, r[R_RBP]),
	FIELD(0x7fc8, 8, r[R_RSI]), FIELD(0x7fc0, 8, r[R_RDI]), FIELD(0x7fb8, 8, r[R_R8]),
	FIELD(0x7fb0, 8, r[R_R9]), FIELD(0x7fa8, 8, r[R_R10]), FIELD(0x7fa0, 8, r[R_R11]),
	FIELD(0x7f98, 8, r[R_R12]), FIELD(0x7f90, 8, r[R_R13]), FIELD(0x7f88, 8, r[R_R14]),
	FIELD(0x7f80, 8, r[R_R15]), FIELD(0x7f78, 8, r[R_RIP]), FIELD(0x7f70, 4, rflags),
	FIELD(0x7f68, 8, dr6), FIELD(0x7f60, 8, dr7), FIELD(0x7f58, 8, cr0),
	FIELD(0x7f50, 8, cr3), FIELD(0x7f48, 8, cr4), FIELD(0x7f00, 4, msr.smbase),
	FIELD(0x7ed0, 8, efer),
	FIELD(0x7e84, 4, idt.limit), FIELD(0x7e88, 8, idt.base),
	FIELD(0x7e64, 4, gdt.limit), FIELD(0x7e68, 8, gdt.base),
};

#define SEGMENT_32(n, at) { 0x7fa8 + 4 * (n), at, (at) + 4, (at) + 8 }
#define SEGMENT_64(at) { at, (at) + 2, (at) + 4, (at) + 8 }

static const struct save_format format_32 = {
	.field = fields_32, .n = ARRAY_SIZE(fields_32), .revision = REVISION_32,
	.seg = {
		[SEG_ES] = SEGMENT_32(0, 0x7f84), [SEG_CS] = SEGMENT_32(1, 0x7f90),
		[SEG_SS] = SEGMENT_32(2, 0x7f9c), [SEG_DS] = SEGMENT_32(3, 0x7f2c),
		[SEG_FS] = SEGMENT_32(4, 0x7f38), [SEG_GS] = SEGMENT_32(5, 0x7f44),
		[SEG_LDTR] = { 0x7fc0, 0x7f78, 0x7f7c, 0x7f80 },
		[SEG_TR] = { 0x7fc4, 0x7f5c, 0x7f60, 0x7f64 },
	},
	.attr_size = 4, .base_size = 4, .attr_shift = 8,
};

static const struct save_format format_64 = {
	.field = fields_64, .n = ARRAY_SIZE(fields_64), .revision = REVISION_64,
	.seg = {
		[SEG_ES] = SEGMENT_64(0x7e00), [SEG_CS] = SEGMENT_64(0x7e10),
		[SEG_SS] = SEGMENT_64(0x7e20), [SEG_DS] = SEGMENT_64(0x7e30),
		[SEG_FS] = SEGMENT_64(0x7e40), [SEG_GS] = SEGMENT_64(0x7e50),
		[SEG_LDTR] = SEGMENT_64(0x7e70), [SEG_TR] = SEGMENT_64(0x7e90),
	},
	.attr_size = 2, .base_size = 8,
};

/* A vCPU without a CPUID table has all features, but for KVM it has none. */
static const struct save_format *save_format(const struct vcpu *v)
{
	return v->cpuid_n && vcpu_has(v, F_LM) ? &format_64 : &format_32;
}

/* ---- between the area and v ------------------------------------------------------------------ */

static void area_put(u8 *area, u16 at, unsigned int size, u64 val)
{
	mem_store(area + (at - SAVE_FIRST), size, val);
}

static u64 area_get(const u8 *area, u16 at, unsigned int size)
{
	return mem_load(area + (at - SAVE_FIRST), size);
}

static void segment_put(u8 *area, const struct save_format *f, const struct vcpu *v, unsigned int n)
{
	const struct save_segment *at = &f->seg[n];
	const struct segment *s = &v->seg[n];

	area_put(area, at->sel, f->attr_size, s->sel);
	area_put(area, at->attr, f->attr_size, (u64)(s->attr & SEG_ATTR) << f->attr_shift);
	area_put(area, at->limit, 4, s->limit);
	area_put(area, at->base, f->base_size, s->base);
}

static void segment_take(struct vcpu *v, const u8 *area, const struct save_format *f,
	unsigned int n)
{
	const struct save_segment *at = &f->seg[n];
	struct segment *s = &v->seg[n];

	s->sel = (u16)area_get(area, at->sel, f->attr_size);
	s->attr = (u32)(area_get(area, at->attr, f->attr_size) >> f->attr_shift) & SEG_ATTR;
	if (!(s->attr & SEG_P))
		s->attr |= SEG_UNUSABLE;
	s->limit = (u32)area_get(area, at->limit, 4);
	s->base = area_get(area, at->base, f->base_size);
}

static void state_put(u8 *area, const struct vcpu *v)
{
	const struct save_format *f = save_format(v);
	u32 n;

	for (n = 0; n < f->n; n++) {
		const struct save_field *r = &f->field[n];

		area_put(area, r->at, r->size, mem_load((const u8 *)v + r->field, r->bytes));
	}
	for (n = 0; n < NR_SEGS; n++)
		segment_put(area, f, v, n);
	area_put(area, SAVE_REVISION, 4, f->revision);
}

static void state_take(struct vcpu *v, const u8 *area)
{
	const struct save_format *f = save_format(v);
	u32 n;

	for (n = 0; n < f->n; n++) {
		const struct save_field *r = &f->field[n];

		mem_store((u8 *)v + r->field, r->bytes, area_get(area, r->at, r->size));
	}
	for (n = 0; n < NR_SEGS; n++)
		segment_take(v, area, f, n);
}

/* ---- in and out ------------------------------------------------------------------------------ */

void smm_set(struct vcpu *v, bool smm)
{
	v->smm = smm;
	v->mem_space = mem_space(smm);
	if (!smm) {
		/* INIT, SMI, NMI and interrupts that waited. */
		v->smm_inside_nmi = false;
		vcpu_request(v, REQ_EVENT);
	}
	mmu_flush_all(v);
}

/* Code may have been decoded from where the state goes. */
static void area_write(struct vcpu *v, const u8 *area)
{
	u64 at = v->mem_space + v->msr.smbase + SAVE_AREA, end = at + SAVE_SIZE;
	const struct memslot *s;

	if (vm_write_guest(v->vm, at, area, SAVE_SIZE))
		return;	/* as to a bus where nobody answers */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (; at < end; at = ALIGN_UP(at + 1, 4096ULL)) {
		s = memslot_find(v->vm, at);
		code_note_write(v, s, at, (unsigned int)(MIN(end, ALIGN_UP(at + 1, 4096ULL)) - at));
	}
}

/* SDM 3C table 31-4; EFER: APM 2 table 10-3. The IDT's limit is KVM's. */
static void handler_state(struct vcpu *v)
{
	unsigned int n;

	v->rflags = RFLAGS_FIXED;
	v->r[R_RIP] = SMM_HANDLER;
	v->cr0 &= ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
	v->cr4 = 0;
	v->efer = 0;
	v->idt.base = 0;
	v->idt.limit = 0;
	v->dr7 = DR7_FIXED;
	for (n = 0; n < NR_DATA_SEGS; n++) {
		v->seg[n].sel = n == SEG_CS ? (u16)(v->msr.smbase >> 4) : 0;
		v->seg[n].base = n == SEG_CS ? v->msr.smbase : 0;
		v->seg[n].limit = 0xffffffff;
		v->seg[n].attr = SEG_P | SEG_G | SEG_S | SEG_TYPE_RW | SEG_TYPE_A;
	}
}

static void derived_update(struct vcpu *v)
{
	cpuid_update(v);
	vcpu_update_mode(v);
	mmu_flush_all(v);
}

void smm_enter(struct vcpu *v)
{
	u8 area[SAVE_SIZE];

	memset(area, 0, sizeof(area));
	state_put(area, v);
	v->smi_pending = false;
	v->msr.smi_count++;
	smm_set(v, true);
	area_write(v, area);
	/* NMIs wait, and so they may have before. */
	v->smm_inside_nmi = v->nmi_blocked;
	v->nmi_blocked = true;
	handler_state(v);
	derived_update(v);
}

/* ---- RSM ------------------------------------------------------------------------------------- */

static bool pae_paging(const struct vcpu *v)
{
	return v->cr0 & CR0_PG && v->cr4 & CR4_PAE && !vcpu_long_mode(v);
}

/* The values that the handler left in the area, as the processor's own checks would take them. */
static int control_load(struct vcpu *v, u64 cr0, u64 cr3, u64 cr4, u64 efer)
{
	if (msr_write(v, MSR_EFER, efer & ~EFER_LMA, false))
		return -EINVAL;
	efer = v->efer & ~EFER_LMA;
	if (efer & EFER_LME && cr0 & CR0_PG)
		efer |= EFER_LMA;
	if (cr3 & (v->mmu.maxphyaddr_mask | MASK(63, 52)) || cr_check(v, cr0, cr4, efer))
		return -EINVAL;
	v->cr0 = cr0 | CR0_ET;
	v->cr3 = cr3;
	v->cr4 = cr4;
	v->efer = efer;
	return pae_paging(v) && !mmu_load_pdptes(v) ? -EINVAL : 0;
}

static int state_load(struct vcpu *v, const u8 *area)
{
	u64 cr0, cr3, cr4, efer;
	int ret;

	state_take(v, area);
	cr0 = v->cr0;
	cr3 = v->cr3;
	cr4 = v->cr4;
	efer = v->efer;
	v->cr0 = CR0_ET;
	v->cr3 = v->cr4 = v->efer = 0;
	ret = v->dr6 >> 32 || v->dr7 >> 32 ? -EINVAL : control_load(v, cr0, cr3, cr4, efer);
	if (ret) {
		v->cr0 = CR0_ET;
		v->cr4 = v->efer = 0;
	}
	v->dr6 = (u32)v->dr6 | DR6_FIXED;
	v->dr7 = (u32)v->dr7 | DR7_FIXED;
	v->rflags = (v->rflags & RFLAGS_DEFINED) | RFLAGS_FIXED;
	return ret;
}

int smm_leave(struct vcpu *v)
{
	u8 area[SAVE_SIZE];
	int ret = vm_read_guest(v->vm, v->mem_space + v->msr.smbase + SAVE_AREA, area,
		sizeof(area));

	if (ret)
		return ret;
	if (!v->smm_inside_nmi)
		v->nmi_blocked = false;
	smm_set(v, false);
	ret = state_load(v, area);
	derived_update(v);
	v->r[R_RIP] &= v->rip_mask;
	v->irq_shadow = v->mov_ss_shadow = false;
	v->step_tf = false;
	return ret;
}
