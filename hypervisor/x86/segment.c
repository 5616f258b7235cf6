/*
 * Segment registers: descriptor tables, the checks on loading, real and virtual-8086 mode. SDM 3A
 * 3.4, 3.5, 5.2 to 5.6; SDM 2B MOV, LLDT, LTR. Where a null selector goes to FS or GS, the base is
 * cleared (Intel; AMD since Zen 2).
 */
#include "hypervisor/x86/segment.h"

/* ---- descriptor tables ---- */

static bool descriptor_find(const struct vcpu *v, u16 sel, unsigned int size, u64 *la)
{
	const struct segment *ldt = &v->seg[SEG_LDTR];
	u64 base = sel & SEL_TI ? ldt->base : v->gdt.base;
	u32 limit = sel & SEL_TI ? ldt->limit : v->gdt.limit;
	u32 off = sel & 0xfff8;

	*la = vcpu_long_mode(v) ? base + off : (u32)(base + off);
	return !(sel & SEL_TI && ldt->attr & SEG_UNUSABLE) && off + size - 1 <= limit;
}

u64 descriptor_addr(struct vcpu *v, u16 sel, unsigned int size, u8 vector)
{
	u64 la;

	if (!descriptor_find(v, sel, size, &la))
		vcpu_raise(v, vector, SEL_ERROR(sel));
	return la;
}

bool descriptor_peek(struct vcpu *v, u16 sel, u64 *desc)
{
	u64 la;

	if (sel_null(sel) || !descriptor_find(v, sel, 8, &la))
		return false;
	*desc = sys_read(v, la, 8);
	return true;
}

u64 descriptor_read(struct vcpu *v, u16 sel, u8 vector)
{
	return sys_read(v, descriptor_addr(v, sel, 8, vector), 8);
}

u64 descriptor_read_high(struct vcpu *v, u16 sel, u8 vector)
{
	u64 high = sys_read(v, descriptor_addr(v, sel, 16, vector) + 8, 8);

	if (high >> 40 & 0x1f)
		vcpu_raise(v, vector, SEL_ERROR(sel));
	return high;
}

void descriptor_accessed(struct vcpu *v, u16 sel, u64 *desc)
{
	const u64 accessed = BIT(40);
	u64 la;

	if (*desc & accessed)
		return;
	*desc |= accessed;
	la = descriptor_addr(v, sel, 8, VEC_GP);
	sys_write(v, la + 5, 1, (u8)(*desc >> 40));
}

void descriptor_busy(struct vcpu *v, u16 sel, bool busy)
{
	u64 la = descriptor_addr(v, sel, 8, VEC_TS) + 5;
	u64 old = sys_read(v, la, 1);

	sys_write(v, la, 1, busy ? old | SYS_BUSY : old & ~(u64)SYS_BUSY);
}

void segment_unpack(struct segment *seg, u16 sel, u64 desc)
{
	u32 limit = (u32)(desc & 0xffff) | (u32)(desc >> 32 & 0xf0000);

	seg->sel = sel;
	seg->attr = desc_attr(desc);
	seg->base = (desc >> 16 & 0xffffff) | (desc >> 32 & 0xff000000);
	seg->limit = seg->attr & SEG_G ? limit << 12 | 0xfff : limit;
}

/* ---- values without a descriptor ---- */

/* The RPL stays visible as DPL: for SS it is the CPL. */
void segment_set_null(struct segment *seg, u16 sel)
{
	*seg = (struct segment) {
		.sel = sel,
		.attr = SEG_UNUSABLE | sel_rpl(sel) << SEG_DPL_SHIFT,
	};
}

void segment_drop(struct segment *seg)
{
	u64 base = seg->base;

	segment_set_null(seg, 0);
	seg->base = base;
}

/* SDM 3A 20.1.1: limit 0xffff, DPL 3, read-write, accessed. */
void segment_set_v86(struct segment *seg, u16 sel)
{
	*seg = (struct segment) {
		.base = (u64)sel << 4,
		.limit = 0xffff,
		.attr = ATTR_S_DATA | 3 << SEG_DPL_SHIFT,
		.sel = sel,
	};
}

/*
 * Limit, D/B and granularity survive a load in real mode ("unreal mode" rests on it); the rights
 * are those of real mode. SDM 3A 9.9.2
 */
void segment_set_real(struct vcpu *v, enum segreg s, u16 sel)
{
	struct segment *seg = &v->seg[s];

	if (vcpu_protected(v) && vcpu_v86(v)) {
		segment_set_v86(seg, sel);
		return;
	}
	if (seg->attr & SEG_UNUSABLE) {
		seg->limit = 0xffff;
		seg->attr = 0;
	}
	seg->sel = sel;
	seg->base = (u64)sel << 4;
	seg->attr = (seg->attr & (SEG_DB | SEG_G | SEG_AVL)) | ATTR_S_DATA;
	if (s == SEG_CS)
		seg->attr |= SEG_TYPE_CODE;
}

/* ---- loads in protected mode ---- */

void segment_read_stack(struct vcpu *v, struct segment *seg, u16 sel, unsigned int cpl, u8 invalid)
{
	u64 desc = descriptor_read(v, sel, invalid);

	if (sel_rpl(sel) != cpl || !desc_writable_data(desc) || desc_dpl(desc) != cpl)
		vcpu_raise(v, invalid, SEL_ERROR(sel));
	if (!desc_present(desc))
		vcpu_raise(v, VEC_SS, SEL_ERROR(sel));
	descriptor_accessed(v, sel, &desc);
	segment_unpack(seg, sel, desc);
}

void segment_read_data(struct vcpu *v, struct segment *seg, u16 sel, unsigned int cpl, u8 invalid)
{
	u64 desc;

	if (sel_null(sel)) {
		segment_set_null(seg, sel);
		return;
	}
	desc = descriptor_read(v, sel, invalid);
	if (desc_system(desc) || (desc_code(desc) && !(desc_type(desc) & SEG_TYPE_RW)))
		vcpu_raise(v, invalid, SEL_ERROR(sel));
	if (!(desc_code(desc) && desc_conforming(desc)) &&
	    (sel_rpl(sel) > desc_dpl(desc) || cpl > desc_dpl(desc)))
		vcpu_raise(v, invalid, SEL_ERROR(sel));
	if (!desc_present(desc))
		vcpu_raise(v, VEC_NP, SEL_ERROR(sel));
	descriptor_accessed(v, sel, &desc);
	segment_unpack(seg, sel, desc);
}

static void load_stack(struct vcpu *v, struct segment *seg, u16 sel)
{
	if (!sel_null(sel)) {
		segment_read_stack(v, seg, sel, v->cpl, VEC_GP);
		return;
	}
	if (!vcpu_64bit(v) || v->cpl == 3 || sel_rpl(sel) != v->cpl)
		raise_gp(v, 0);
	segment_set_null(seg, sel);
}

void segment_load(struct vcpu *v, enum segreg s, u16 sel)
{
	struct segment seg;

	if (vcpu_real(v) || vcpu_v86(v)) {
		segment_set_real(v, s, sel);
		vcpu_update_mode(v);
		return;
	}
	if (s == SEG_SS)
		load_stack(v, &seg, sel);
	else
		segment_read_data(v, &seg, sel, v->cpl, VEC_GP);
	v->seg[s] = seg;
	vcpu_update_mode(v);
}

/* ---- LDTR and TR ---- */

/* Long mode: the base's upper half, from the second 8 bytes. */
static void read_high_base(struct vcpu *v, struct segment *seg, u16 sel, u8 invalid)
{
	if (!vcpu_long_mode(v))
		return;
	seg->base |= descriptor_read_high(v, sel, invalid) << 32;
	if (!linear_canonical(v, seg->base))
		vcpu_raise(v, invalid, SEL_ERROR(sel));
}

void segment_read_ldt(struct vcpu *v, struct segment *seg, u16 sel, u8 invalid, u8 absent)
{
	u64 desc;

	if (sel_null(sel)) {
		segment_set_null(seg, sel);
		return;
	}
	if (sel & SEL_TI)
		vcpu_raise(v, invalid, SEL_ERROR(sel));
	desc = descriptor_read(v, sel, invalid);
	if (!desc_system(desc) || desc_type(desc) != SYS_LDT)
		vcpu_raise(v, invalid, SEL_ERROR(sel));
	if (!desc_present(desc))
		vcpu_raise(v, absent, SEL_ERROR(sel));
	segment_unpack(seg, sel, desc);
	read_high_base(v, seg, sel, invalid);
}

void segment_load_ldt(struct vcpu *v, u16 sel)
{
	struct segment seg;

	segment_read_ldt(v, &seg, sel, VEC_GP, VEC_NP);
	v->seg[SEG_LDTR] = seg;
}

void segment_load_tr(struct vcpu *v, u16 sel)
{
	struct segment seg;
	u64 desc;

	if (sel_null(sel))
		raise_gp(v, 0);
	if (sel & SEL_TI)
		raise_gp(v, SEL_ERROR(sel));
	desc = descriptor_read(v, sel, VEC_GP);
	if (!desc_system(desc) ||
	    (desc_type(desc) != SYS_TSS32 && (desc_type(desc) != SYS_TSS16 || vcpu_long_mode(v))))
		raise_gp(v, SEL_ERROR(sel));
	if (!desc_present(desc))
		vcpu_raise(v, VEC_NP, SEL_ERROR(sel));
	segment_unpack(&seg, sel, desc);
	read_high_base(v, &seg, sel, VEC_GP);
	descriptor_busy(v, sel, true);
	seg.attr |= SYS_BUSY;
	v->seg[SEG_TR] = seg;
}
