/*
 * Instructions that kernels run often and that touch the processor's own state, done without leaving
 * translated code: the bits of RFLAGS outside the host's, FS and GS base, time stamps, control
 * registers as sources, bit strings, MOVS and STOS. SDM 2.
 *
 * Each does the usual case only; whatever is unusual (a level that may not, a direction down, bits
 * that change the mode, an interrupt that waits) goes to the interpreter's handler.
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/exec.h"
#include "hypervisor/x86/mmu.h"

/* ---- pieces ---- */

/* Fields outside the hot page: the vCPU stays where it is as long as its code. */
#define FIELD(t, field)	((u64)&(t)->v->field)

/* RAX or EAX to or from an absolute address. */
static void put_abs(struct trans *t, bool wide, u8 op, u64 at)
{
	if (wide)
		put8(&t->e, 0x48);
	put8(&t->e, op);
	put64(&t->e, at);
}
static void load_abs(struct trans *t, bool wide, u64 at) { put_abs(t, wide, 0xa1, at); }
static void store_abs(struct trans *t, bool wide, u64 at) { put_abs(t, wide, 0xa3, at); }

static void test_mem(struct trans *t, struct place m, u32 bits)
{
	emit_rm(&t->e, false, 0xf7, 0, m);
	put32(&t->e, bits);
}

static void test_ax(struct trans *t, u32 bits)
{
	put8(&t->e, 0xa9);
	put32(&t->e, bits);
}

static void byte_cmp(struct trans *t, struct place m, u8 imm)
{
	emit_rm(&t->e, false, 0x80, ALU_CMP, m);
	put8(&t->e, imm);
}

static void slow_if(struct trans *t, u8 cc)
{
	cold_add(t, COLD_SLOW, emit_jcc(&t->e, cc, TO_LATER));
}

static void exec_if(struct trans *t, u8 cc)
{
	cold_add(t, COLD_EXEC, emit_jcc(&t->e, cc, TO_LATER));
}

/* From here on flags are free. */
static void flags_free(struct trans *t)
{
	flags_save(t);
	t->fl = FL_SAVED;
}

static bool user_mode(const struct trans *t)
{
	return t->mode->idx == MMU_USER;
}

/* Levels 1 and 2 have the kernel's mode too. */
static void kernel_check(struct trans *t)
{
	byte_cmp(t, HOT(cpl), 0);
	slow_if(t, CC_NZ);
}

/* All of a guest register from AX. */
static void guest_set(struct trans *t, unsigned int guest, bool wide)
{
	u8 h = host_of(t, guest);

	if (h != H_NONE) {
		emit_rr(&t->e, wide, OP_STORE, H_AX, h);
		return;
	}
	if (!wide)
		emit_rr(&t->e, false, OP_STORE, H_AX, H_AX);
	emit_rm(&t->e, true, OP_STORE, H_AX, home_place(t, guest));
}

static void rflags_or(struct trans *t, u32 bits)
{
	emit_alu_mem_imm(&t->e, true, ALU_OR, HOT(rflags), (s32)bits);
}

static void rflags_clear(struct trans *t, u32 bits)
{
	emit_alu_mem_imm(&t->e, true, ALU_AND, HOT(rflags), (s32)~bits);
}

/* ---- RFLAGS ---- */

static bool emit_cli(struct trans *t)
{
	if (user_mode(t))
		return false;
	flags_free(t);
	kernel_check(t);
	rflags_clear(t, RFLAGS_IF);
	return true;
}

/*
 * Without an interrupt that waits the shadow needs no state: the kick is not looked at before the
 * next instruction is over. Where the interpreter runs that, it sees the shadow (slow.c).
 */
static bool emit_sti(struct trans *t)
{
	if (user_mode(t) || t->k + 1 == t->n)
		return false;
	flags_free(t);
	poll_emit(t);
	byte_cmp(t, HOT(cpl), 0);
	exec_if(t, CC_NZ);
	byte_cmp(t, HOT(irq_wanted), 0);
	exec_if(t, CC_NZ);
	test_mem(t, HOT(rflags), RFLAGS_IF);
	exec_if(t, CC_NZ);
	rflags_or(t, RFLAGS_IF);
	t->group_of[t->k + 1] = 0;	/* its twin might look at the kick */
	t->shadow |= BIT(t->k + 1);
	return true;
}

static bool emit_cld(struct trans *t)
{
	flags_free(t);
	rflags_clear(t, RFLAGS_DF);
	return true;
}

static bool emit_std(struct trans *t)
{
	flags_free(t);
	rflags_or(t, RFLAGS_DF);
	return true;
}

static bool stack_64(const struct trans *t)
{
	return long_mode(t) && insn_now(t)->opsize == 8;
}

/* RFLAGS to RAX, from hot.flags (LAHF, SETO) and v->rflags. VM and RF are not set here. */
static void rflags_gather(struct trans *t)
{
	struct emitter *e = &t->e;

	emit_rm(e, false, OP_LOAD, H_AX, HOT(hot.flags));
	emit_rr(e, false, OP_STORE, H_AX, H_11);
	emit_shr(e, false, H_AX, 8);
	emit_alu_imm(e, false, ALU_AND, H_AX, 0xd5);
	emit_alu_imm(e, false, ALU_AND, H_11, 1);
	emit_shl(e, false, H_11, 11);
	emit_rr(e, false, OP_XOR, H_AX, H_11);
	emit_rm(e, true, OP_LOAD, H_11, HOT(rflags));
	emit_alu_imm(e, true, ALU_AND, H_11, (s32)~(u32)RFLAGS_ARITH);
	emit_rr(e, true, OP_XOR, H_AX, H_11);
}

static bool emit_pushf(struct trans *t)
{
	struct place m;

	if (!stack_64(t))
		return false;
	flags_free(t);
	rflags_gather(t);
	emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hot.slot[0]));
	stack_check(t, -8, 8, &m);
	emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(hot.slot[0]));
	emit_rm(&t->e, true, OP_STORE, H_AX, m);
	site_access(t);
	emit_rm(&t->e, true, OP_LEA, H_15, at_base(H_15, -8));
	return true;
}

/* EAX: RFLAGS. To hot.flags. */
static void flags_from_image(struct trans *t)
{
	struct emitter *e = &t->e;

	emit_rr(e, false, OP_STORE, H_AX, H_11);
	emit_alu_imm(e, false, ALU_AND, H_AX, 0xd5);
	emit_shl(e, false, H_AX, 8);
	emit_shr(e, false, H_11, 11);
	emit_alu_imm(e, false, ALU_AND, H_11, 1);
	emit_rr(e, false, OP_XOR, H_AX, H_11);
	emit_rm(e, false, OP_STORE, H_AX, HOT(hot.flags));
}

/* Nothing but arithmetic flags and DF changes, or in the kernel IF, with no interrupt waiting. */
static bool emit_popf(struct trans *t)
{
	u32 free = RFLAGS_ARITH | RFLAGS_DF | (user_mode(t) ? 0 : RFLAGS_IF);
	struct emitter *e = &t->e;
	struct place m;

	if (!stack_64(t))
		return false;
	flags_free(t);
	if (!user_mode(t)) {
		byte_cmp(t, HOT(cpl), 0);
		exec_if(t, CC_NZ);
		byte_cmp(t, HOT(irq_wanted), 0);
		exec_if(t, CC_NZ);
	}
	stack_check(t, 0, 8, &m);
	emit_rm(e, true, OP_LOAD, H_AX, m);
	site_access(t);
	emit_rr(e, true, OP_STORE, H_AX, H_11);
	emit_rm(e, true, OP_XOR, H_11, HOT(rflags));
	emit_rr(e, false, 0xf7, 0, H_11);	/* test r11d */
	put32(e, ~free);
	exec_if(t, CC_NZ);
	emit_alu_imm(e, false, ALU_AND, H_11, (s32)(free & ~RFLAGS_ARITH));
	emit_rm(e, true, 0x31, H_11, HOT(rflags));	/* xor */
	flags_from_image(t);
	emit_rm(e, true, OP_LEA, H_15, at_base(H_15, 8));
	return true;
}

/* ---- SMAP's flag: another mode behind it, and so another fragment ---- */

static void mode_set(struct trans *t, enum mmu_index idx)
{
	const s32 tags = (s32)sizeof(((struct tlb_entry *)0)->tag[0]);
	s32 by = (s32)idx - t->mode->idx;
	struct emitter *e = &t->e;

	emit_rm(e, false, 0xc6, 0, HOT(mmu_idx));
	put8(e, (u8)idx);
	emit_alu_mem_imm(e, true, ALU_ADD, HOT(tlb_ctx), by * 2);
	emit_alu_mem_imm(e, false, ALU_ADD, HOT(tlb_tags), by * tags);
	emit_alu_mem_imm(e, true, ALU_ADD, HOT(tlb_hit), by * tags);
	emit_alu_mem_imm(e, true, ALU_OR, HOT(hot.stack_tag), -1);
	branch_next(t);
}
_Static_assert(TLB_INVALID == ~0ULL, "mode_set");

static bool emit_stac(struct trans *t)
{
	if (user_mode(t))
		return false;
	flags_free(t);
	byte_cmp(t, HOT(cpl), 0);
	exec_if(t, CC_NZ);
	rflags_or(t, RFLAGS_AC);
	if (t->mode->idx == MMU_KERNEL_SMAP)
		mode_set(t, MMU_KERNEL);
	return true;
}

static bool emit_clac(struct trans *t)
{
	if (user_mode(t))
		return false;
	flags_free(t);
	byte_cmp(t, HOT(cpl), 0);
	exec_if(t, CC_NZ);
	if (t->mode->idx == MMU_KERNEL_SMAP)
		return true;
	load_abs(t, true, FIELD(t, cr4));
	test_ax(t, CR4_SMAP);
	exec_if(t, CC_Z);
	rflags_clear(t, RFLAGS_AC);
	mode_set(t, MMU_KERNEL_SMAP);
	return true;
}

/* ---- bases of FS and GS. In 64-bit mode ebase and hit_base are the segment's own ---- */

static void base_from_ax(struct trans *t, enum segreg s)
{
	emit_rm(&t->e, true, OP_STORE, H_AX, HOT(ebase[s]));
	emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hit_base[s]));
	store_abs(t, true, FIELD(t, seg[s].base));
}

static bool emit_swapgs(struct trans *t)
{
	if (user_mode(t) || !long_mode(t))
		return false;
	flags_free(t);
	kernel_check(t);
	emit_rm(&t->e, true, OP_LOAD, H_11, HOT(ebase[SEG_GS]));
	load_abs(t, true, FIELD(t, msr.kernel_gs_base));
	base_from_ax(t, SEG_GS);
	emit_rr(&t->e, true, OP_STORE, H_11, H_AX);
	store_abs(t, true, FIELD(t, msr.kernel_gs_base));
	return true;
}

static bool fsgsbase_check(struct trans *t)
{
	if (!long_mode(t))
		return false;
	flags_free(t);
	load_abs(t, true, FIELD(t, cr4));
	test_ax(t, CR4_FSGSBASE);
	slow_if(t, CC_Z);
	return true;
}

static bool base_read(struct trans *t, enum segreg s)
{
	const struct insn *i = insn_now(t);

	if (!fsgsbase_check(t))
		return false;
	emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(ebase[s]));
	guest_set(t, i->rm >> 3, i->opsize == 8);
	return true;
}

static bool emit_rdfsbase(struct trans *t) { return base_read(t, SEG_FS); }
static bool emit_rdgsbase(struct trans *t) { return base_read(t, SEG_GS); }

/* Bits 63 to 47 must be the same. */
static bool base_write(struct trans *t, enum segreg s)
{
	const struct insn *i = insn_now(t);
	u8 h = host_of(t, i->rm >> 3);
	struct emitter *e = &t->e;

	if (i->opsize != 8 || h == H_NONE || t->v->maxlinaddr > 48 || !fsgsbase_check(t))
		return false;
	emit_rr(e, true, OP_STORE, h, H_AX);
	emit_shl(e, true, H_AX, 16);
	emit_rr(e, true, 0xc1, 7, H_AX);	/* sar */
	put8(e, 16);
	emit_rr(e, true, OP_CMP, H_AX, h);
	slow_if(t, CC_NZ);
	base_from_ax(t, s);
	return true;
}

static bool emit_wrfsbase(struct trans *t) { return base_write(t, SEG_FS); }
static bool emit_wrgsbase(struct trans *t) { return base_write(t, SEG_GS); }

/* ---- time stamp ---- */

/* CR4.TSD keeps it from all but level 0. */
static void tsc_check(struct trans *t)
{
	load_abs(t, true, FIELD(t, cr4));
	test_ax(t, CR4_TSD);
	slow_if(t, CC_NZ);
}

static void emit_tsc(struct trans *t)
{
	struct emitter *e = &t->e;

	PUT(e, 0x0f, 0x31);			/* rdtsc */
	emit_shl(e, true, H_DX, 32);
	emit_rr(e, true, OP_XOR, H_DX, H_AX);
	load_abs(t, true, FIELD(t, tsc_offset));
	emit_rr(e, true, OP_ADD, H_DX, H_AX);
	emit_rr(e, false, OP_STORE, H_DX, H_10);
	emit_shr(e, true, H_DX, 32);
}

static bool emit_rdtsc(struct trans *t)
{
	if (t->v->tsc_ratio != TSC_RATIO_ONE)
		return false;
	flags_free(t);
	tsc_check(t);
	emit_tsc(t);
	return true;
}

static bool emit_rdtscp(struct trans *t)
{
	if (t->v->tsc_ratio != TSC_RATIO_ONE)
		return false;
	flags_free(t);
	tsc_check(t);
	PUT(&t->e, 0x0f, 0xae, 0xe8);		/* lfence: it waits for what came before */
	emit_tsc(t);
	load_abs(t, true, FIELD(t, msr.tsc_aux));
	emit_rr(&t->e, false, OP_STORE, H_AX, H_CX);
	return true;
}

/* LFENCE, MFENCE, SFENCE */
static bool emit_fence(struct trans *t)
{
	PUT(&t->e, 0x0f, 0xae, (u8)(0xc0 | form_now(t)->ext << 3));
	return true;
}

/* ---- control and segment registers as sources ---- */

static bool emit_from_cr(struct trans *t)
{
	const struct insn *i = insn_now(t);
	u64 at = i->reg == 0 ? FIELD(t, cr0) : i->reg == 2 ? FIELD(t, cr2) :
		i->reg == 3 ? FIELD(t, cr3) : FIELD(t, cr4);

	if (user_mode(t) || i->reg == 8 || i->reg == 1 || i->reg > 4)
		return false;
	flags_free(t);
	kernel_check(t);
	load_abs(t, true, at);
	guest_set(t, i->rm >> 3, long_mode(t));
	return true;
}

static bool emit_from_sreg(struct trans *t)
{
	const struct insn *i = insn_now(t);
	struct hop word = { .op = OP_STORE, .opsize16 = true };
	u64 at = FIELD(t, seg[i->reg].sel);
	struct place m;

	if (i->flags & I_MEM) {
		if (!operand_encodable(t))
			return false;
		flags_free(t);
		operand_check(t, 2, true, true, &m);
		put8(&t->e, 0x66);
		load_abs(t, false, at);
		emit_op(&t->e, &word, H_AX, &m, 0);
		site_access(t);
		return true;
	}
	if (i->opsize == 2 && host_of(t, i->rm >> 3) == H_NONE)
		return false;
	put8(&t->e, 0x66);
	load_abs(t, false, at);
	if (i->opsize == 2) {
		emit_op(&t->e, &word, H_AX, NULL, host_of(t, i->rm >> 3));
		return true;
	}
	PUT(&t->e, 0x0f, 0xb7, 0xc0);		/* movzx eax, ax */
	guest_set(t, i->rm >> 3, false);
	return true;
}

/* ---- bit strings: the bit's number reaches beyond the operand ---- */

static void bit_element_check(struct trans *t, u8 index, bool write)
{
	const struct insn *i = insn_now(t);
	bool wide = i->opsize == 8;
	struct emitter *e = &t->e;

	operand_address(t, true, H_AX);
	emit_rr(e, true, OP_STORE, H_AX, H_11);
	emit_rr(e, true, wide ? OP_LOAD : 0x63, H_AX, index);	/* mov, movsxd */
	emit_rr(e, true, 0xc1, 7, H_AX);	/* sar */
	put8(e, wide ? 6 : 5);
	emit_rm(e, true, OP_LEA, H_AX, (struct place){ .base = H_11, .index = H_AX,
		.scale = wide ? 3 : 2 });
	emit_rr(e, false, OP_STORE, H_AX, H_11);
	emit_rm(e, true, OP_LEA, H_AX, at_base(H_AX, i->opsize - 1));
	address_check(t, write);
}

static bool emit_bit(struct trans *t)
{
	const struct insn *i = insn_now(t);
	const struct form *f = form_now(t);
	struct hop o = { .map = 1, .op = f->op, .w = i->opsize == 8, .lock = i->flags & I_LOCK };
	struct place m = { .base = H_AX, .index = H_11 };
	u8 index = host_of(t, i->reg >> 3);
	bool r11 = i->base < 16 && i->index < 16 && host_of(t, i->base) == H_NONE &&
		host_of(t, i->index) == H_NONE;	/* its address takes R11 */

	if (!(i->flags & I_MEM))
		return emit_generic(t);
	if (!long_mode(t) || i->asize != 8 || i->opsize == 2 || index == H_NONE || r11 ||
		i->seg == SEG_FS || i->seg == SEG_GS || !operand_encodable(t))
		return false;
	flags_free(t);
	bit_element_check(t, index, f->op != 0xa3);
	flags_need(t);
	operand_address(t, true, H_AX);
	emit_op(&t->e, &o, index, &m, 0);
	site_access(t);
	flags_written(t);
	return true;
}

/* ---- CMPXCHG16B ---- */

static bool emit_cmpxchg16(struct trans *t)
{
	struct hop o = { .map = 1, .op = 0xc7, .w = true, .lock = insn_now(t)->flags & I_LOCK };
	struct place m;

	if (!operand_encodable(t))
		return false;
	flags_free(t);
	operand_check(t, 16, true, true, &m);
	flags_need(t);
	emit_rr(&t->e, true, OP_STORE, H_10, H_AX);
	site_now(t);
	emit_op(&t->e, &o, 1, &m, 0);
	emit_rr(&t->e, true, OP_STORE, H_AX, H_10);
	flags_written(t);
	return true;
}

/* ---- MOVS, STOS: upwards, within a page at either end ---- */

static bool repeated(const struct insn *i)
{
	return i->flags & (I_REP | I_REPNE);
}

/*
 * R11: the addend for what reg points to. (No elements, at a page's start: the byte before is in
 * another page, so the handler does nothing.)
 */
static void string_check(struct trans *t, u8 reg, bool write)
{
	const struct insn *i = insn_now(t);
	struct place last = at_base(reg, i->opsize - 1);

	emit_rr(&t->e, false, OP_STORE, reg, H_11);
	if (repeated(i))
		last = (struct place){ .base = reg, .index = H_CX,
			.scale = (u8)__builtin_ctz(i->opsize), .disp = -1 };
	emit_rm(&t->e, true, OP_LEA, H_AX, last);
	address_check(t, write);
}

static void put_string(struct trans *t, u8 op)
{
	const struct insn *i = insn_now(t);

	if (i->opsize == 2)
		put8(&t->e, 0x66);
	if (repeated(i))
		put8(&t->e, 0xf3);
	if (i->opsize == 8)
		put8(&t->e, 0x48);
	put8(&t->e, (u8)(op | (i->opsize > 1)));
}

static bool string_begin(struct trans *t)
{
	const struct insn *i = insn_now(t);

	if (!long_mode(t) || i->asize != 8)
		return false;
	flags_free(t);
	test_mem(t, HOT(rflags), RFLAGS_DF);
	slow_if(t, CC_NZ);
	if (repeated(i)) {
		emit_alu_imm(&t->e, true, ALU_CMP, H_CX, 4096 / i->opsize);
		slow_if(t, CC_A);
	}
	return true;
}

static bool emit_stos(struct trans *t)
{
	struct emitter *e = &t->e;

	if (!string_begin(t))
		return false;
	string_check(t, H_DI, true);
	emit_rr(e, true, OP_STORE, H_10, H_AX);
	emit_rr(e, true, OP_ADD, H_DI, H_11);
	site_string(t, false);
	put_string(t, 0xaa);
	emit_rr(e, true, 0x2b, H_DI, H_11);	/* sub */
	return true;
}

static bool emit_movs(struct trans *t)
{
	struct emitter *e = &t->e;

	if (insn_now(t)->seg == SEG_FS || insn_now(t)->seg == SEG_GS || !string_begin(t))
		return false;
	string_check(t, H_SI, false);
	emit_rm(e, true, OP_STORE, H_11, HOT(hot.slot[0]));
	string_check(t, H_DI, true);
	emit_rr(e, true, OP_ADD, H_DI, H_11);
	emit_rm(e, true, OP_ADD, H_SI, HOT(hot.slot[0]));
	site_string(t, true);
	put_string(t, 0xa4);
	emit_rr(e, true, 0x2b, H_DI, H_11);
	emit_rm(e, true, 0x2b, H_SI, HOT(hot.slot[0]));
	return true;
}

/* ---- all of them ---- */

static const struct system_form {
	insn_fn *run;
	const struct exec_set *set;
	bool (*emit)(struct trans *t);
} forms[] = {
	{ .run = exec_cli, .emit = emit_cli }, { .run = exec_sti, .emit = emit_sti },
	{ .run = exec_cld, .emit = emit_cld }, { .run = exec_std, .emit = emit_std },
	{ .run = exec_pushf, .emit = emit_pushf }, { .run = exec_popf, .emit = emit_popf },
	{ .run = exec_stac, .emit = emit_stac }, { .run = exec_clac, .emit = emit_clac },
	{ .run = exec_swapgs, .emit = emit_swapgs },
	{ .run = exec_rdfsbase, .emit = emit_rdfsbase },
	{ .run = exec_rdgsbase, .emit = emit_rdgsbase },
	{ .run = exec_wrfsbase, .emit = emit_wrfsbase },
	{ .run = exec_wrgsbase, .emit = emit_wrgsbase },
	{ .run = exec_rdtsc, .emit = emit_rdtsc }, { .run = exec_rdtscp, .emit = emit_rdtscp },
	{ .run = exec_fence, .emit = emit_fence },
	{ .run = exec_mov_from_cr, .emit = emit_from_cr },
	{ .run = exec_mov_from_sreg, .emit = emit_from_sreg },
	{ .run = exec_cmpxchg16b, .emit = emit_cmpxchg16 },
	{ .set = &x_bt_EG, .emit = emit_bit }, { .set = &x_bts_EG, .emit = emit_bit },
	{ .set = &x_btr_EG, .emit = emit_bit }, { .set = &x_btc_EG, .emit = emit_bit },
	{ .set = &x_stos, .emit = emit_stos }, { .set = &x_movs, .emit = emit_movs },
};

static const struct system_form *system_form(const struct opcode *row)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(forms); k++)
		if (forms[k].run ? forms[k].run == row->run : forms[k].set == row->set)
			return &forms[k];
	return NULL;
}

bool form_is_system(const struct opcode *row)
{
	return system_form(row);
}

bool emit_system(struct trans *t)
{
	return system_form(opcode_row(insn_now(t)->row))->emit(t);
}
