/*
 * Writing host machine code. SDM 2A chapter 2. All addresses inside the code cache are 32-bit
 * offsets from its start, so that one piece of code serves both mappings of it.
 */
#ifndef QUMRA_HYPERVISOR_DBT_EMIT_H
#define QUMRA_HYPERVISOR_DBT_EMIT_H

#include "hypervisor/x86/vcpu.h"

enum host_reg {
	H_AX, H_CX, H_DX, H_BX, H_SP, H_BP, H_SI, H_DI, H_8, H_9, H_10, H_11, H_12, H_13, H_14, H_15,
	H_NONE,
};

struct emitter {
	u8 *base;	/* the code area, writable */
	u32 at;		/* where the next byte goes */
	u32 last;	/* the last instruction with ModRM: here */
	u8 r11;		/* what R11 holds, a number of the caller's; 0: no more */
	bool ax_flags;	/* AX holds flags as hot.flags would; what uses AX stores them first */
};

/* A memory operand of the host: [base + index * 2^scale + disp], or gs:[disp]. */
struct place {
	u8 base, index, scale;
	bool gs;
	s32 disp;
};

/* An opcode with what precedes it. */
struct hop {
	u8 pfx;		/* 0, 0x66, 0xf2, 0xf3: mandatory */
	bool opsize16;	/* 0x66 as operand size */
	bool w;
	u8 map;		/* 0: one byte, 1: 0f, 2: 0f 38, 3: 0f 3a */
	u8 op;
	bool force_rex;	/* a byte register SPL to DIL is meant */
	bool no_rex;	/* AH to BH is meant */
	bool vex, l;
	u8 vvvv;
	bool lock;
	bool evex;	/* vex too; vector registers are 0 to 31 */
	u8 evex_last;	/* its last byte without V': insn.evex */
	u8 disp_shift;	/* disp8 counts in units of 2 to this */
};

/*
 * Without a check: a fragment's parts are bounded, and cache_reserve() leaves more room than they can
 * take (MAX_INSNS of them at the longest each).
 */
static inline void put8(struct emitter *e, u8 b)
{
	e->base[e->at++] = b;
}

static inline void put32(struct emitter *e, u32 x)
{
	__builtin_memcpy(e->base + e->at, &x, 4);
	e->at += 4;
}

static inline void put64(struct emitter *e, u64 x)
{
	__builtin_memcpy(e->base + e->at, &x, 8);
	e->at += 8;
}

static __always_inline_ void put_bytes(struct emitter *e, const u8 *b, unsigned int n)
{
	__builtin_memcpy(e->base + e->at, b, n);
	e->at += n;
}
#define PUT(e, ...) put_bytes((e), (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

static inline struct place at_gs(u32 off)
{
	return (struct place){ .base = H_NONE, .index = H_NONE, .gs = true, .disp = (s32)off };
}
static inline struct place at_base(u8 base, s32 disp)
{
	return (struct place){ .base = base, .index = H_NONE, .disp = disp };
}
/* gs:[index + disp] */
static inline struct place at_gs_index(u8 index, u32 off)
{
	return (struct place){ .base = index, .index = H_NONE, .gs = true, .disp = (s32)off };
}
#define HOT(field)	at_gs(offsetof(struct vcpu, field))
#define HOT_REG(n)	at_gs(offsetof(struct vcpu, r) + 8 * (n))

/* The instruction with ModRM: mem, or the register rm where mem is NULL. */
void emit_op(struct emitter *e, const struct hop *o, u8 reg, const struct place *mem, u8 rm);

/* Without ModRM: EMMS, VZEROUPPER. */
void emit_plain(struct emitter *e, const struct hop *o);

/* One-byte opcodes; w: 64 bits. */
void emit_rr(struct emitter *e, bool w, u8 op, u8 reg, u8 rm);
void emit_rm(struct emitter *e, bool w, u8 op, u8 reg, struct place mem);
/* 81 /ext or 83 /ext: add 0, or 1, and 4, sub 5, xor 6, cmp 7. */
void emit_alu_imm(struct emitter *e, bool w, u8 ext, u8 rm, s32 imm);
void emit_alu_mem_imm(struct emitter *e, bool w, u8 ext, struct place mem, s32 imm);
void emit_shr(struct emitter *e, bool w, u8 rm, u8 count);
void emit_shl(struct emitter *e, bool w, u8 rm, u8 count);
void emit_mov_imm(struct emitter *e, u8 reg, u64 imm);

#define OP_LOAD		0x8b	/* mov reg, rm */
#define OP_STORE	0x89	/* mov rm, reg */
#define OP_LEA		0x8d
#define OP_ADD		0x03	/* add reg, rm */
#define OP_SUB		0x2b
#define OP_XOR		0x33
#define OP_CMP		0x3b	/* cmp reg, rm */
enum { ALU_ADD = 0, ALU_OR = 1, ALU_AND = 4, ALU_SUB = 5, ALU_XOR = 6, ALU_CMP = 7 };

/* Jumps within the code area; return the offset of the rel32 for emit_patch. */
#define TO_LATER	0	/* the target is patched in later */
u32 emit_jmp(struct emitter *e, u32 target);
#define JMP_BYTES	5u
u32 emit_call_to(struct emitter *e, u32 target);
u32 emit_jcc(struct emitter *e, u8 cc, u32 target);
void emit_jmp_mem(struct emitter *e, struct place mem);
void emit_call_mem(struct emitter *e, struct place mem);
void emit_stack_push(struct emitter *e, u8 reg);
void emit_stack_pop(struct emitter *e, u8 reg);
void emit_ret_host(struct emitter *e);
static inline void emit_patch(u8 *base, u32 site, u32 target)
{
	u32 rel = target - (site + 4);

	__builtin_memcpy(base + site, &rel, 4);
}
enum { CC_O = 0, CC_B = 2, CC_AE = 3, CC_Z = 4, CC_NZ = 5, CC_BE = 6, CC_A = 7, CC_L = 12, CC_G = 15 };

void emit_align(struct emitter *e, u32 n);

/* R11: an address; becomes the offset of its entry in space->tlb. Clobbers flags. */
void emit_tlb_index(struct emitter *e);

/* Arithmetic flags to and from v->hot.flags, through RAX. */
void emit_flags_save(struct emitter *e);
void emit_flags_restore(struct emitter *e);
/* The same in two steps: to and from RAX (ax_flags), and from there to memory, where they are in it. */
void emit_flags_take(struct emitter *e);
void emit_flags_store(struct emitter *e);
void emit_flags_load(struct emitter *e);

#endif
