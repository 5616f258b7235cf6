/*
 * Host code that all fragments share: the way in and out, calls of the interpreter, the stack's
 * page. System V calling convention towards C.
 */
#include "hypervisor/dbt/dbt.h"

static const u8 callee_saved[] = { H_BX, H_BP, H_12, H_13, H_14, H_15 };

/* Guest registers in host registers; the rest is in v->r always. */
static const struct { u8 guest, host; } held[] = {
	{ R_RAX, H_10 }, { R_RCX, H_CX }, { R_RDX, H_DX }, { R_RBX, H_BX }, { R_RSP, H_15 },
	{ R_RBP, H_BP }, { R_RSI, H_SI }, { R_RDI, H_DI }, { R_R8, H_8 }, { R_R9, H_9 },
	{ R_R12, H_12 }, { R_R13, H_13 }, { R_R14, H_14 },
};

static void guest_load(struct emitter *e)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(held); k++)
		emit_rm(e, true, OP_LOAD, held[k].host, HOT_REG(held[k].guest));
}

static void guest_store(struct emitter *e)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(held); k++)
		emit_rm(e, true, OP_STORE, held[k].host, HOT_REG(held[k].guest));
}

/*
 * Bytes of the host's stack that hold the guest's calls, 16 for each; CPUs predict 16 to 64. Threads
 * of embedding programs may have small stacks.
 */
#define RET_ROOM	16384

/* u32 enter(u64 host): to a "saved" entry. */
static void put_enter(struct emitter *e)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(callee_saved); k++)
		emit_stack_push(e, callee_saved[k]);
	emit_rm(e, false, 0xff, 6, HOT(hot.ret_base));	/* push */
	emit_rm(e, true, OP_STORE, H_SP, HOT(hot.host_rsp));
	emit_rm(e, true, OP_LEA, H_AX, at_base(H_SP, -RET_ROOM));
	emit_rm(e, true, OP_STORE, H_AX, HOT(hot.ret_limit));
	emit_rr(e, true, OP_STORE, H_DI, H_11);
	guest_load(e);
	PUT(e, 0x41, 0xff, 0xe3);		/* jmp r11 */
}

/* hot.exit: why. v has the guest's registers. */
static void put_return(struct emitter *e)
{
	emit_rm(e, true, OP_LOAD, H_SP, HOT(hot.host_rsp));
	emit_alu_imm(e, true, ALU_ADD, H_SP, 8);
	for (unsigned int k = ARRAY_SIZE(callee_saved); k--;)
		emit_stack_pop(e, callee_saved[k]);
	emit_rm(e, false, OP_LOAD, H_AX, HOT(hot.exit));
	emit_ret_host(e);
}

/* R11: why. Flags are saved. */
static void put_exit(struct emitter *e)
{
	emit_rm(e, false, OP_STORE, H_11, HOT(hot.exit));
	guest_store(e);
	put_return(e);
}

/* Forgets all calls, where they are void. RAX is lost. */
static void put_void_check(struct emitter *e)
{
	u32 valid;

	emit_alu_mem_imm(e, false, ALU_CMP, HOT(hot.ret_void), 0);
	valid = emit_jcc(e, CC_Z, TO_LATER);
	emit_alu_mem_imm(e, false, ALU_AND, HOT(hot.ret_void), 0);
	emit_rm(e, true, OP_LOAD, H_SP, HOT(hot.host_rsp));
	emit_rm(e, true, OP_LOAD, H_AX, HOT(hot.ret_base));
	emit_rm(e, true, OP_STORE, H_AX, at_base(H_SP, 0));
	emit_patch(e->base, valid, e->at);
}

/* R11: the record of the instruction that ends a fragment; flags are saved. See dbt_go(). */
static void put_go(struct emitter *e, struct vcpu *v, u64 (*go)(struct vcpu *v, u32 rec))
{
	u32 leave;

	guest_store(e);
	emit_mov_imm(e, H_DI, (u64)v);
	emit_rr(e, false, OP_STORE, H_11, H_SI);
	emit_mov_imm(e, H_AX, (u64)go);
	PUT(e, 0xff, 0xd0);			/* call rax */
	emit_rr(e, true, OP_STORE, H_AX, H_11);
	emit_rr(e, true, 0x85, H_AX, H_AX);	/* test */
	leave = emit_jcc(e, CC_Z, TO_LATER);
	put_void_check(e);
	guest_load(e);
	PUT(e, 0x41, 0xff, 0xe3);		/* jmp r11 */
	emit_patch(e->base, leave, e->at);
	emit_mov_imm(e, H_AX, LEAVE_DONE);
	emit_rm(e, false, OP_STORE, H_AX, HOT(hot.exit));
	put_return(e);
}

/*
 * R11: a record; flags are saved. Comes back with the state that the handler left: to the caller,
 * or where the record says (dbt_slow()'s result).
 */
static void put_slow(struct emitter *e, struct vcpu *v, bool called)
{
	guest_store(e);
	emit_mov_imm(e, H_DI, (u64)v);
	emit_rr(e, false, OP_STORE, H_11, H_SI);
	if (called)
		emit_alu_imm(e, true, ALU_SUB, H_SP, 8);
	emit_mov_imm(e, H_AX, (u64)dbt_slow);
	PUT(e, 0xff, 0xd0);			/* call rax */
	emit_rr(e, true, OP_STORE, H_AX, H_11);
	if (called)
		emit_alu_imm(e, true, ALU_ADD, H_SP, 8);
	guest_load(e);
	emit_flags_restore(e);
	if (called)
		emit_ret_host(e);
	else
		PUT(e, 0x41, 0xff, 0xe3);	/* jmp r11 */
}

/* Called in place of a dead fragment: the return address says which. */
static void put_dead(struct emitter *e, const struct dbt *d, bool saved)
{
	if (!saved)
		emit_flags_save(e);
	PUT(e, 0x41, 0x5b);			/* pop r11 */
	emit_mov_imm(e, H_AX, d->rx);
	emit_rr(e, true, 0x29, H_AX, H_11);	/* sub r11, rax */
	emit_shl(e, false, H_11, LEAVE_BITS);
	emit_alu_imm(e, false, ALU_OR, H_11, LEAVE_DEAD);
	emit_jmp(e, d->tramp.exit_saved);
}

/* A host fault, with all registers and flags as they were. */
static void put_fault(struct emitter *e, const struct dbt *d)
{
	emit_rm(e, false, OP_STORE, H_AX, HOT(hot.fault_ax));
	emit_rm(e, true, OP_STORE, H_11, HOT(hot.fault_r11));
	PUT(e, 0x9f, 0x0f, 0x90, 0xc0);		/* lahf; seto al */
	emit_rm(e, false, OP_STORE, H_AX, HOT(hot.arg));
	emit_mov_imm(e, H_11, LEAVE_FAULT);
	emit_jmp(e, d->tramp.exit_saved);
}

static struct place tlb_place(u32 field)
{
	return at_gs_index(H_11, offsetof(struct space, tlb) + field);
}

/*
 * Called when an access by the stack pointer is outside the stack's page. RAX: its linear address.
 * Where the TLB has that page as writable, it becomes the stack's page, R11 its addend, ZF is set.
 */
static void put_stack(struct emitter *e, unsigned int idx)
{
	u32 far, miss;

	emit_stack_push(e, H_CX);
	emit_rr(e, false, OP_STORE, H_AX, H_11);
	emit_tlb_index(e);
	emit_rr(e, true, OP_STORE, H_AX, H_CX);
	emit_alu_imm(e, true, ALU_AND, H_CX, -4096);
	emit_alu_imm(e, false, ALU_AND, H_AX, 0xfff);
	emit_alu_imm(e, false, ALU_CMP, H_AX, 0xff8);
	far = emit_jcc(e, CC_A, TO_LATER);
	emit_rm(e, true, OP_CMP, H_CX,
		tlb_place(offsetof(struct tlb_entry, tag) + idx * 16 + 8));
	miss = emit_jcc(e, CC_NZ, TO_LATER);
	emit_rm(e, true, OP_LOAD, H_11, tlb_place(offsetof(struct tlb_entry, addend)));
	emit_rm(e, true, OP_STORE, H_CX, HOT(hot.stack_tag));
	emit_rm(e, true, OP_STORE, H_11, HOT(hot.stack_addend));
	emit_rr(e, false, OP_CMP, H_AX, H_AX);
	emit_patch(e->base, far, e->at);
	emit_patch(e->base, miss, e->at);
	emit_stack_pop(e, H_CX);
	emit_ret_host(e);
}

/* ---- returns: the guest's RSP has moved; RAX: the target; R11: the record; flags are saved ---- */

/* No landing finds this one. */
static void put_ret_slow(struct emitter *e)
{
	emit_mov_imm(e, H_AX, NO_TARGET);
	emit_ret_host(e);
}

static void put_ret_lookup(struct emitter *e, const struct dbt *d, unsigned int mode)
{
	u32 miss;

	emit_jump_index(e);
	emit_rm(e, true, OP_CMP, H_AX, jump_field(mode, offsetof(struct jump_entry, la)));
	miss = emit_jcc(e, CC_NZ, TO_LATER);
	emit_alu_imm(e, true, ALU_AND, H_AX, -4096);
	emit_rm(e, true, OP_STORE, H_AX, HOT(hot.page));
	emit_jmp_mem(e, jump_field(mode, offsetof(struct jump_entry, host)));
	emit_patch(e->base, miss, e->at);
	emit_rm(e, false, OP_LOAD, H_11, HOT(hot.arg));
	emit_jmp(e, d->tramp.go_ret);
}

/* From a landing: its address lies on the stack. The base's entry stays where it is. */
static void put_ret_miss(struct emitter *e, struct dbt *d, unsigned int mode)
{
	u32 lookup, base, call;

	d->tramp.ret_miss[mode] = e->at;
	emit_rm(e, false, OP_STORE, H_11, HOT(hot.arg));
	emit_stack_pop(e, H_11);
	lookup = e->at;
	put_ret_lookup(e, d, mode);
	base = e->at;
	emit_rm(e, false, OP_STORE, H_11, HOT(hot.arg));
	emit_jmp(e, lookup);
	call = e->at;
	emit_call_to(e, base);
	d->tramp.ret_base[mode] = e->at;
	emit_jmp(e, call);
}

void trampolines_emit(struct vcpu *v)
{
	struct dbt *d = dbt_of(v);
	struct emitter e = { .base = d->rw };
	struct trampolines *t = &d->tramp;

	t->enter = e.at;
	put_enter(&e);
	t->exit_host = e.at;
	emit_flags_save(&e);
	t->exit_saved = e.at;
	put_exit(&e);
	t->flags_save = e.at;
	emit_flags_save(&e);
	emit_ret_host(&e);
	t->slow = e.at;
	put_slow(&e, v, true);
	t->slow_back = e.at;
	put_slow(&e, v, false);
	t->go = e.at;
	put_go(&e, v, dbt_go);
	t->go_ret = e.at;
	put_go(&e, v, dbt_go_ret);
	t->ret_slow = e.at;
	put_ret_slow(&e);
	for (unsigned int k = 0; k < NR_MODES; k++)
		put_ret_miss(&e, d, k);
	t->dead_host = e.at;
	put_dead(&e, d, false);
	t->dead_saved = e.at;
	put_dead(&e, d, true);
	t->fault = e.at;
	put_fault(&e, d);
	for (unsigned int k = 0; k < NR_TLB_INDEXES; k++) {
		t->stack[k] = e.at;
		put_stack(&e, k);
	}
	t->end = e.at;
	if (t->end > d->slab[0].code.start)
		os_panic("trampolines are too long");
	os_code_set_resume((void *)d->rx, d->rx + t->fault);
}
