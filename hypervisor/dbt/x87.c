/*
 * x87 instructions: copied with their memory operand replaced, since the guest's x87 state is in the
 * host's unit. A pending error shows at the next waiting instruction as a host fault, with the
 * fragment's sites to say where.
 *
 * What the host's unit does not know are the guest's pointers to the last instruction and its
 * operand (FIP, FDP, FOP and their selectors; insn/x87.c). Behind each instruction that has them,
 * translated code notes them in v->hot, and C brings them to v->fpu before it looks at anything. A
 * slow access goes on where the notes are made, so that each instruction of a fragment can rely on
 * those before it. SDM 1 8.1.8
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/native.h"

/* hot.x87_last: offset in hot.x87_page, FOP, and that it is there. */
#define LAST_FOP_SHIFT	12
#define LAST_NOTED	BIT(31)

void x87_pointers_fold(struct vcpu *v)
{
	struct fpu *f = v->fpu;
	u32 last = v->hot.x87_last;

	f->fop = last >> LAST_FOP_SHIFT & 0x7ff;
	f->fip = (v->hot.x87_page + (last & 0xfff)) & v->rip_mask;
	f->fcs = v->seg[SEG_CS].sel;
	v->hot.x87_last = 0;
	if (v->hot.x87_data == X87_NO_DATA)
		return;
	f->fdp = v->hot.x87_data;
	f->fds = v->seg[v->hot.x87_seg].sel;
	v->hot.x87_data = X87_NO_DATA;
}

static u8 x87_modrm(const struct insn *i)
{
	return (u8)i->imm;
}

static u8 x87_escape(const struct insn *i)
{
	return 0xd8 | (i->imm >> 8 & 7);
}

/* FNSTSW AX */
bool x87_stores_ax(const struct insn *i)
{
	return x87_escape(i) == 0xdf && x87_modrm(i) == 0xe0;
}

/* ---- the instruction ---- */

/* FNCLEX and FNINIT have an effect outside the unit: IRQ 13 falls. */
static bool x87_usable(const struct trans *t)
{
	const struct insn *i = insn_now(t);

	if (t->mode->fp_trap & FP_X87 || (i->flags & I_MEM && !operand_encodable(t)))
		return false;
	return i->exec == exec_fwait || !x87_clears_error(x87_modrm(i), x87_escape(i));
}

static void emit_memory(struct trans *t)
{
	const struct insn *i = insn_now(t);
	const struct opcode *row = opcode_row(i->row);
	struct hop o = { .op = x87_escape(i) };
	struct place m;

	operand_check(t, opcode_mem_size(row, i), opcode_mem_access(row) & OPC_MEM_WRITE, false, &m);
	site_now(t);
	emit_op(&t->e, &o, x87_modrm(i) >> 3 & 7, &m, 0);
}

static void emit_registers(struct trans *t)
{
	const struct insn *i = insn_now(t);
	const struct opcode *row = opcode_row(i->row);

	if (row->f_read & RFLAGS_ARITH)
		flags_need(t);
	site_now(t);
	PUT(&t->e, x87_escape(i), x87_modrm(i));
	if (row->f_write & RFLAGS_ARITH)
		flags_written(t);
	if (x87_stores_ax(i))
		PUT(&t->e, 0x66, 0x41, 0x89, 0xc2);	/* mov r10w, ax */
}

bool emit_x87(struct trans *t)
{
	const struct insn *i = insn_now(t);

	if (!x87_usable(t))
		return false;
	if (i->exec == exec_fwait) {
		site_now(t);
		put8(&t->e, 0x9b);
	} else if (i->flags & I_MEM) {
		emit_memory(t);
	} else {
		emit_registers(t);
	}
	return true;
}

/* ---- its notes ---- */

static void emit_store_imm(struct trans *t, struct place m, u32 imm)
{
	emit_rm(&t->e, false, 0xc7, 0, m);
	put32(&t->e, imm);
}

static void emit_note_data(struct trans *t)
{
	const struct insn *i = insn_now(t);

	operand_address(t, true, H_AX);
	emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hot.x87_data));
	if (t->x87_seg == i->seg + 1)
		return;
	emit_store_imm(t, HOT(hot.x87_seg), i->seg);
	t->x87_seg = i->seg + 1;
}

void emit_x87_notes(struct trans *t)
{
	const struct insn *i = insn_now(t);

	if (!x87_usable(t) || i->exec == exec_fwait ||
		x87_is_control(x87_modrm(i), x87_escape(i)))
		return;
	emit_store_imm(t, HOT(hot.x87_last),
		LAST_NOTED | (u32)(i->imm & 0x7ff) << LAST_FOP_SHIFT | t->off[t->k]);
	if (!t->x87_page) {
		emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(hot.page));
		emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hot.x87_page));
		t->x87_page = true;
	}
	if (i->flags & I_MEM)
		emit_note_data(t);
}
