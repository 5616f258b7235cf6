/*
 * Hardware task switch by JMP, CALL, IRET and task gates, with TSSs of 16 and 32 bits. SDM 3A 8.2,
 * 8.3.
 *
 * Up to the commit point (task_commit) faults belong to the old task, which is untouched. The new
 * TSS is read in full before the old one is written. From the commit on, faults belong to the new
 * task: its registers are in place, and its selectors, whose descriptors are not loaded yet.
 */
#include "hypervisor/insn/insn.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/segment.h"

/* Where a TSS keeps what. SDM 3A figures 8-2 and 8-10 */
struct tss_layout {
	u8 size;	/* of an item: 2 or 4 */
	u8 min_limit;
	u8 ip, flags, gpr, seg, nr_segs, ldt;
	u8 cr3, trap;	/* 0: has none */
};

static const struct tss_layout tss16 = {
	.size = 2, .min_limit = 0x2b, .ip = 14, .flags = 16, .gpr = 18, .seg = 34, .nr_segs = 4,
	.ldt = 42,
};
static const struct tss_layout tss32 = {
	.size = 4, .min_limit = 0x67, .ip = 32, .flags = 36, .gpr = 40, .seg = 72, .nr_segs = 6,
	.ldt = 96, .cr3 = 28, .trap = 100,
};

/* ES CS SS DS FS GS, as enum segreg counts, is also the order in the TSS. */
#define TSS_SEGS 6
#define TSS_GPRS 8

struct task {
	const struct tss_layout *layout;
	struct segment tr;
	u32 gpr[TSS_GPRS];
	u32 ip, flags, cr3;
	u16 seg[TSS_SEGS], ldt;
	bool trap;
};

static const struct tss_layout *layout_of(u32 attr)
{
	return attr & SYS_32 ? &tss32 : &tss16;
}

/* ---- before the commit: checks, reading the new, saving the old ---- */

static u8 task_vector(enum task_reason why)
{
	return why == TASK_IRET ? VEC_TS : VEC_GP;
}

static void task_find(struct vcpu *v, struct task *t, u16 sel, enum task_reason why)
{
	u8 invalid = task_vector(why);
	unsigned int type;
	u64 desc;

	if (sel & SEL_TI || sel_null(sel))
		vcpu_raise(v, invalid, SEL_ERROR(sel));
	desc = descriptor_read(v, sel, invalid);
	type = desc_system(desc) ? desc_type(desc) : 0;
	if ((type & ~(SYS_32 | SYS_BUSY)) != SYS_TSS16 || !!(type & SYS_BUSY) != (why == TASK_IRET))
		vcpu_raise(v, invalid, SEL_ERROR(sel));
	if (!desc_present(desc))
		vcpu_raise(v, VEC_NP, SEL_ERROR(sel));
	segment_unpack(&t->tr, sel, desc);
	t->tr.attr |= SYS_BUSY;
	t->layout = layout_of(t->tr.attr);
	if (t->tr.limit < t->layout->min_limit)
		vcpu_raise(v, VEC_TS, SEL_ERROR(sel));
}

static void task_read(struct vcpu *v, struct task *t)
{
	const struct tss_layout *l = t->layout;
	u64 base = t->tr.base;
	unsigned int n;

	t->ip = (u32)sys_read(v, base + l->ip, l->size);
	t->flags = (u32)sys_read(v, base + l->flags, l->size);
	for (n = 0; n < TSS_GPRS; n++)
		t->gpr[n] = (u32)sys_read(v, base + l->gpr + n * l->size, l->size);
	for (n = 0; n < TSS_SEGS; n++)
		t->seg[n] = n < l->nr_segs ? (u16)sys_read(v, base + l->seg + n * l->size, 2) : 0;
	t->ldt = (u16)sys_read(v, base + l->ldt, 2);
	t->cr3 = l->cr3 ? (u32)sys_read(v, base + l->cr3, 4) : 0;
	t->trap = l->trap && sys_read(v, base + l->trap, 2) & 1;
}

static void task_save(struct vcpu *v, enum task_reason why, u64 next)
{
	const struct tss_layout *l = layout_of(v->seg[SEG_TR].attr);
	u64 base = v->seg[SEG_TR].base, flags = v->rflags;
	unsigned int n;

	if (why == TASK_IRET)
		flags &= ~RFLAGS_NT;
	if (why == TASK_GATE && v->delivering.type == EV_FAULT && v->delivering.vector != VEC_DB)
		flags |= RFLAGS_RF;
	sys_write(v, base + l->ip, l->size, next);
	sys_write(v, base + l->flags, l->size, flags);
	for (n = 0; n < TSS_GPRS; n++)
		sys_write(v, base + l->gpr + n * l->size, l->size, v->r[n]);
	for (n = 0; n < l->nr_segs; n++)
		sys_write(v, base + l->seg + n * l->size, 2, v->seg[n].sel);
}

/* Busy bits and back link. SDM 3A table 8-2 */
static void task_mark(struct vcpu *v, const struct task *t, enum task_reason why)
{
	if (why == TASK_JUMP || why == TASK_IRET)
		descriptor_busy(v, v->seg[SEG_TR].sel, false);
	if (why != TASK_IRET)
		descriptor_busy(v, t->tr.sel, true);
	if (why == TASK_CALL || why == TASK_GATE)
		sys_write(v, t->tr.base, 2, v->seg[SEG_TR].sel);
}

/* ---- the commit ---- */

#define TASK_FLAGS	(RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | \
			 RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID)
#define DR7_LOCAL	0x155ULL	/* L0 to L3, LE: cleared by a task switch. SDM 3B 17.2.4 */

static void task_commit_gprs(struct vcpu *v, const struct task *t)
{
	unsigned int n;

	for (n = 0; n < TSS_GPRS; n++) {
		if (t->layout->size == 4)
			v->r[n] = t->gpr[n];
		else
			v->r[n] = (v->r[n] & ~0xffffULL) | t->gpr[n];
	}
}

static void task_commit(struct vcpu *v, const struct task *t, enum task_reason why)
{
	unsigned int n;

	task_commit_gprs(v, t);
	v->rflags = (t->flags & TASK_FLAGS) | RFLAGS_FIXED;
	if (why == TASK_CALL || why == TASK_GATE)
		v->rflags |= RFLAGS_NT;
	v->rf_keep = true;
	v->cr0 |= CR0_TS;
	v->dr7 &= ~DR7_LOCAL;
	v->seg[SEG_TR] = t->tr;
	for (n = 0; n < TSS_SEGS; n++) {
		if (vcpu_v86(v))
			segment_set_v86(&v->seg[n], t->seg[n]);
		else
			segment_set_null(&v->seg[n], t->seg[n]);
	}
	segment_set_null(&v->seg[SEG_LDTR], t->ldt);
	/* Until SS is loaded, the CPL is that of CS. */
	if (!vcpu_v86(v))
		v->seg[SEG_SS].attr = SEG_UNUSABLE | sel_rpl(t->seg[SEG_CS]) << SEG_DPL_SHIFT;
	v->r[R_RIP] = t->ip;
	vcpu_update_mode(v);
}

/* ---- in the new task ---- */

static void task_load_cr3(struct vcpu *v, const struct task *t)
{
	if (!t->layout->cr3 || !(v->cr0 & CR0_PG))
		return;
	v->cr3 = t->cr3;
	if (v->cr4 & CR4_PAE && !mmu_load_pdptes(v))
		raise_gp(v, 0);
	mmu_set_cr3(v, false);
}

static void task_load_code(struct vcpu *v, u16 sel)
{
	unsigned int rpl = sel_rpl(sel);
	u64 desc;

	if (sel_null(sel))
		vcpu_raise(v, VEC_TS, SEL_ERROR(sel));
	desc = descriptor_read(v, sel, VEC_TS);
	if (!desc_code(desc) ||
	    (desc_conforming(desc) ? desc_dpl(desc) > rpl : desc_dpl(desc) != rpl))
		vcpu_raise(v, VEC_TS, SEL_ERROR(sel));
	if (!desc_present(desc))
		vcpu_raise(v, VEC_NP, SEL_ERROR(sel));
	descriptor_accessed(v, sel, &desc);
	segment_unpack(&v->seg[SEG_CS], sel, desc);
	vcpu_update_mode(v);
}

static void task_load_stack(struct vcpu *v, u16 sel, unsigned int cpl)
{
	struct segment ss;

	if (sel_null(sel))
		vcpu_raise(v, VEC_TS, SEL_ERROR(sel));
	segment_read_stack(v, &ss, sel, cpl, VEC_TS);
	v->seg[SEG_SS] = ss;
	vcpu_update_mode(v);
}

static void task_load_segments(struct vcpu *v, const struct task *t)
{
	static const u8 data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	unsigned int n, cpl = sel_rpl(t->seg[SEG_CS]);
	struct segment seg;

	segment_read_ldt(v, &seg, t->ldt, VEC_TS, VEC_TS);
	v->seg[SEG_LDTR] = seg;
	if (vcpu_v86(v))
		return;
	task_load_code(v, t->seg[SEG_CS]);
	task_load_stack(v, t->seg[SEG_SS], cpl);
	for (n = 0; n < ARRAY_SIZE(data); n++) {
		segment_read_data(v, &seg, t->seg[data[n]], cpl, VEC_TS);
		v->seg[data[n]] = seg;
	}
}

static void task_push_error(struct vcpu *v, const struct task *t, u32 error)
{
	unsigned int size = t->layout->size;
	u64 sp = v->r[R_RSP] - size;

	stack_write(v, sp, size, error);
	stack_set(v, sp);
}

void task_switch(struct vcpu *v, u16 tss_sel, enum task_reason why, bool has_error, u32 error,
	u64 next)
{
	struct task t;

	task_find(v, &t, tss_sel, why);
	task_read(v, &t);
	task_save(v, why, next);
	task_mark(v, &t, why);
	task_commit(v, &t, why);
	task_load_cr3(v, &t);
	task_load_segments(v, &t);
	vcpu_update_mode(v);
	far_check_rip(v, &v->seg[SEG_CS], v->r[R_RIP]);
	if (has_error)
		task_push_error(v, &t, error);
	if (t.trap) {
		v->pending_db.type = EV_TRAP;
		v->pending_db.vector = VEC_DB;
		v->pending_db.payload |= DR6_BT;
	}
}
