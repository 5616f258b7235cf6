/*
 * Instructions on descriptor tables and descriptors: LGDT and its kin, LLDT, LTR, LAR, LSL, VERR,
 * VERW, ARPL. SDM 2, SDM 3A 5.10. User-mode instruction prevention: SDM 3A 2.5 (CR4.UMIP).
 */
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"
#include "hypervisor/x86/segment.h"

static void require_cpl0(struct vcpu *v)
{
	if (v->cpl != 0)
		raise_gp(v, 0);
}

static void require_protected(struct vcpu *v)
{
	if (vcpu_real(v) || vcpu_v86(v))
		raise_ud(v);
}

static void umip_check(struct vcpu *v)
{
	if (v->cr4 & CR4_UMIP && v->cpl != 0)
		raise_gp(v, 0);
}

static u16 load_selector(struct vcpu *v, const struct insn *i)
{
	return (u16)(i->flags & I_MEM ? insn_load(v, i, 2) : gpr_get(v, i->rm, 2));
}

/* To memory 16 bits, to a register as many as it has. */
static void store_word(struct vcpu *v, const struct insn *i, u64 val)
{
	if (i->flags & I_MEM)
		insn_store(v, i, 2, val);
	else
		gpr_set(v, i->rm, i->opsize, val);
}

/* ---- GDTR, IDTR: a limit of 2 bytes and a base of 4, or 8 in 64-bit mode ---- */

static u64 table_base_ea(const struct vcpu *v, const struct insn *i)
{
	u64 ea = insn_ea(v, i) + 2;

	if (i->asize == 8)
		return ea;
	return i->asize == 4 ? (u32)ea : (u16)ea;
}

static struct dtable table_load(struct vcpu *v, const struct insn *i)
{
	struct dtable t;

	require_cpl0(v);
	t.limit = (u16)insn_load(v, i, 2);
	t.base = mem_read(v, i->seg, table_base_ea(v, i), vcpu_64bit(v) ? 8 : 4);
	if (!vcpu_64bit(v) && i->opsize == 2)
		t.base &= 0xffffff;
	if (!linear_canonical(v, t.base))
		raise_gp(v, 0);
	return t;
}

static void table_store(struct vcpu *v, const struct insn *i, const struct dtable *t)
{
	unsigned int size = vcpu_64bit(v) ? 8 : 4;
	u64 ea = table_base_ea(v, i);

	umip_check(v);
	mem_probe(v, i->seg, ea, size, MEM_WRITE);
	insn_store(v, i, 2, t->limit);
	mem_write(v, i->seg, ea, size, t->base);
}

void exec_lgdt(struct vcpu *v, const struct insn *i)
{
	v->gdt = table_load(v, i);
}

void exec_lidt(struct vcpu *v, const struct insn *i)
{
	v->idt = table_load(v, i);
}

void exec_sgdt(struct vcpu *v, const struct insn *i)
{
	table_store(v, i, &v->gdt);
}

void exec_sidt(struct vcpu *v, const struct insn *i)
{
	table_store(v, i, &v->idt);
}

/* ---- LDTR, TR, machine status word ---- */

void exec_lldt(struct vcpu *v, const struct insn *i)
{
	require_protected(v);
	require_cpl0(v);
	segment_load_ldt(v, load_selector(v, i));
}

void exec_ltr(struct vcpu *v, const struct insn *i)
{
	require_protected(v);
	require_cpl0(v);
	segment_load_tr(v, load_selector(v, i));
}

void exec_sldt(struct vcpu *v, const struct insn *i)
{
	require_protected(v);
	umip_check(v);
	store_word(v, i, v->seg[SEG_LDTR].sel);
}

void exec_str(struct vcpu *v, const struct insn *i)
{
	require_protected(v);
	umip_check(v);
	store_word(v, i, v->seg[SEG_TR].sel);
}

void exec_smsw(struct vcpu *v, const struct insn *i)
{
	umip_check(v);
	store_word(v, i, cr_read(v, 0));
}

/* ---- questions about descriptors ---- */

/*
 * Types of system descriptors that the instruction knows, legacy and long mode. SDM 2A tables 3-53,
 * 3-56
 */
#define T(n)		(1u << (n))
#define LSL_LONG	(T(SYS_LDT) | T(SYS_TSS32) | T(SYS_TSS32_BUSY))
#define LSL_LEGACY	(LSL_LONG | T(SYS_TSS16) | T(SYS_TSS16_BUSY))
#define LAR_LONG	(LSL_LONG | T(SYS_CALL32))
#define LAR_LEGACY	(LAR_LONG | LSL_LEGACY | T(SYS_CALL16) | T(SYS_TASK))

/* May a program at the present CPL see this descriptor? */
static bool descriptor_visible(const struct vcpu *v, u16 sel, u64 desc)
{
	if (desc_code(desc) && desc_conforming(desc))
		return true;
	return v->cpl <= desc_dpl(desc) && sel_rpl(sel) <= desc_dpl(desc);
}

static bool descriptor_query(struct vcpu *v, u16 sel, u64 *desc, u32 legacy_types, u32 long_types)
{
	u32 types = vcpu_long_mode(v) ? long_types : legacy_types;

	if (!descriptor_peek(v, sel, desc))
		return false;
	if (desc_system(*desc) && !(types & T(desc_type(*desc))))
		return false;
	return descriptor_visible(v, sel, *desc);
}

#define LAR_MASK	0x00f0ff00u

void exec_lar(struct vcpu *v, const struct insn *i)
{
	u16 sel;
	u64 desc;
	bool ok;

	require_protected(v);
	sel = load_selector(v, i);
	ok = descriptor_query(v, sel, &desc, LAR_LEGACY, LAR_LONG);
	if (ok)
		gpr_set(v, i->reg, i->opsize, desc >> 32 & LAR_MASK);
	flags_set_zf(v, ok);
}

void exec_lsl(struct vcpu *v, const struct insn *i)
{
	struct segment seg;
	u16 sel;
	u64 desc;
	bool ok;

	require_protected(v);
	sel = load_selector(v, i);
	ok = descriptor_query(v, sel, &desc, LSL_LEGACY, LSL_LONG);
	if (ok) {
		segment_unpack(&seg, sel, desc);
		gpr_set(v, i->reg, i->opsize, seg.limit);
	}
	flags_set_zf(v, ok);
}

void exec_verr(struct vcpu *v, const struct insn *i)
{
	u16 sel;
	u64 desc;
	bool ok;

	require_protected(v);
	sel = load_selector(v, i);
	ok = descriptor_query(v, sel, &desc, 0, 0);
	flags_set_zf(v, ok && (!desc_code(desc) || desc_type(desc) & SEG_TYPE_RW));
}

void exec_verw(struct vcpu *v, const struct insn *i)
{
	u16 sel;
	u64 desc;
	bool ok;

	require_protected(v);
	sel = load_selector(v, i);
	ok = descriptor_query(v, sel, &desc, 0, 0);
	flags_set_zf(v, ok && desc_writable_data(desc));
}

/* Raises the destination's RPL to the source's. SDM 2A ARPL */
void exec_arpl(struct vcpu *v, const struct insn *i)
{
	u16 dst, src = (u16)gpr_get(v, i->reg, 2);
	bool raise;

	require_protected(v);
	dst = load_selector(v, i);
	raise = sel_rpl(dst) < sel_rpl(src);
	if (raise) {
		dst = (u16)((dst & ~SEL_RPL) | sel_rpl(src));
		if (i->flags & I_MEM)
			insn_store(v, i, 2, dst);
		else
			gpr_set(v, i->rm, 2, dst);
	}
	flags_set_zf(v, raise);
}
