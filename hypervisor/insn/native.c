/*
 * Stubs for instructions that run on the host's vector and x87 units (native.h): their encoding,
 * the area they live in, and the faults that come out of them. SDM 2A chapter 2 (encoding), 3A 2.5
 * and 13.1.
 */
#include "hypervisor/insn/native.h"

#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/opcode.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/system.h"

#define AREA_SIZE	(512u << 10)
#define STUB_ALIGN	16u
#define MAX_STUBS	(AREA_SIZE / STUB_ALIGN / 2)
#define HASH_SIZE	(2 * MAX_STUBS)
#define MAX_CODE	128

struct native {
	u8 *rw;
	void *rx;
	u32 used, count;
	u16 hash[HASH_SIZE];		/* index + 1 of a stub, or 0; open addressing */
	struct native_stub stub[MAX_STUBS];
};
_Static_assert(MAX_STUBS < 0xffff, "a hash entry holds an index");

#define NATIVE_ALLOC	ALIGN_UP(sizeof(struct native), (size_t)4096)

int native_create(struct vcpu *v)
{
	struct native *n = os_pages_alloc(NATIVE_ALLOC);
	void *rw;
	int ret;

	if (!n)
		return -ENOMEM;
	ret = os_code_alloc(AREA_SIZE, &rw, &n->rx, NULL);
	if (ret) {
		os_pages_free(n, NATIVE_ALLOC);
		return ret;
	}
	n->rw = rw;
	v->native = n;
	return 0;
}

void native_destroy(struct vcpu *v)
{
	struct native *n = v->native;

	if (!n)
		return;
	os_code_free(n->rw, n->rx, AREA_SIZE);
	os_pages_free(n, NATIVE_ALLOC);
	v->native = NULL;
}

void native_reset(struct vcpu *v)
{
	struct native *n = v->native;

	n->used = n->count = 0;
	memset(n->hash, 0, sizeof(n->hash));
}

const struct native_stub *native_stub(const struct vcpu *v, const struct insn *i)
{
	return &v->native->stub[i->aux];
}

/* ---- encoding ------------------------------------------------------------------------------ */

/* Host registers that stand in for the guest's general-purpose operands. */
enum {
	HOST_RAX = 0, HOST_RCX = 1, HOST_RDX = 2, HOST_RDI = 7,
	HOST_RM = 8, HOST_REG = 9, HOST_VVVV = 10,
};

struct encoder {
	u8 code[MAX_CODE];
	unsigned int len;
	const struct insn *i;
	const struct opcode *row;
	struct opcode_where at;
	struct { u8 host, off; } gpr[6];	/* loaded before, stored after */
	unsigned int n_gpr;
	u8 reg, rm, vvvv;	/* as they will be encoded */
	u8 imm_bytes, imm_mask;
	u8 trap;
	u8 code_bytes;
};

static void put8(struct encoder *e, u8 b)
{
	e->code[e->len++] = b;
}

static void put_bytes(struct encoder *e, const void *p, unsigned int n)
{
	memcpy(e->code + e->len, p, n);
	e->len += n;
}

#define PUT(e, ...) put_bytes((e), (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

/* mov r, [rsi + off] or mov [rsi + off], r; 64 bits, off below 128. */
static void put_mov(struct encoder *e, u8 op, u8 host, u8 off)
{
	PUT(e, 0x48 | (host >> 3) << 2, op, 0x46 | (host & 7) << 3, off);
}

static void use_gpr(struct encoder *e, u8 host, u8 off)
{
	e->gpr[e->n_gpr].host = host;
	e->gpr[e->n_gpr++].off = off;
}

static u8 operand_number(struct encoder *e, u8 class, u8 host, u8 value)
{
	if (class != CL_GPR)
		return value;
	use_gpr(e, host, value);
	return host;
}

static void plan_operand(struct encoder *e, const struct operand_info *op)
{
	const struct insn *i = e->i;

	if (op->class == CL_VEC)
		e->trap |= FP_SSE;
	if (op->class == CL_MASK)
		e->trap |= FP_AVX512;
	/* CVTPI2PS from memory leaves the x87 state alone. SDM 2A */
	if (op->class == CL_MMX && !(op->place == PL_RM && (i->flags & I_MEM)))
		e->trap |= FP_MMX;
	switch (op->place) {
	case PL_REG:
		e->reg = operand_number(e, op->class, HOST_REG, i->reg);
		break;
	case PL_RM: case PL_U:
		if (!(i->flags & I_MEM))
			e->rm = operand_number(e, op->class, HOST_RM, i->rm);
		break;
	case PL_VVVV:
		e->vvvv = operand_number(e, op->class, HOST_VVVV, i->vvvv);
		break;
	case PL_ACC:
		use_gpr(e, HOST_RAX, i->rm);
		break;
	case PL_IS4:
		/* Outside 64-bit mode bit 7 is ignored. SDM 2A 2.3.7 */
		e->imm_mask = e->code_bytes == 8 ? 0xff : 0x7f;
		e->imm_bytes++;
		break;
	case PL_IMM: case PL_IMMU: case PL_IMM2:
		e->imm_bytes++;
		break;
	}
}

static bool is_vex(const struct encoder *e)
{
	return e->at.map >= MAP_VEX1 && e->at.map <= MAP_VEX3;
}

static bool is_evex(const struct encoder *e)
{
	return e->i->flags & I_EVEX;
}

static bool is_x87(const struct encoder *e)
{
	return e->row->feature == F_FPU ||
	       (e->at.map == MAP_1 && e->at.opcode >= 0xd8 && e->at.opcode <= 0xdf);
}

/* Where each operand goes, and which state the instruction needs. */
static void plan(struct encoder *e)
{
	if (e->i->flags & I_MEM)
		e->rm = HOST_RDI;
	for (unsigned int k = 0; k < 4; k++)
		plan_operand(e, &operand_info[e->row->op[k]]);
	if (e->at.ext >= 0)
		e->reg = e->at.ext;
	if (e->at.rm >= 0 && !(e->i->flags & I_MEM))
		e->rm = e->at.rm;
	if (e->row->attr & ATTR_IMPLICIT) {
		use_gpr(e, HOST_RAX, R_RAX * 8);
		use_gpr(e, HOST_RCX, R_RCX * 8);
		use_gpr(e, HOST_RDX, R_RDX * 8);
	}
	if (is_x87(e))
		e->trap = FP_X87;
	else if (is_evex(e) || e->trap & FP_AVX512)
		e->trap = FP_AVX512;
	else if (is_vex(e))
		e->trap = FP_AVX;
	else if (!e->trap && e->row->feature == F_MMX)
		e->trap = FP_MMX;		/* EMMS */
}

static u8 modrm(const struct encoder *e)
{
	bool mem = e->i->flags & I_MEM;

	return (mem ? 0 : 0xc0) | (e->reg & 7) << 3 | (e->rm & 7);
}

static void put_legacy(struct encoder *e)
{
	static const u8 prefix[] = { [OPC_66] = 0x66, [OPC_F3] = 0xf3, [OPC_F2] = 0xf2 };
	u8 rex = 0x40 | !!(e->i->flags & I_W) << 3 | (e->reg >> 3) << 2 | e->rm >> 3;

	if (e->at.pfx != OPC_NP)
		put8(e, prefix[e->at.pfx]);
	if (rex != 0x40)
		put8(e, rex);
	if (e->at.map != MAP_1)
		put8(e, 0x0f);
	if (e->at.map == MAP_0F38)
		put8(e, 0x38);
	if (e->at.map == MAP_0F3A)
		put8(e, 0x3a);
	put8(e, e->at.opcode);
}

/* Outside 64-bit mode W does not widen implied general-purpose registers. SDM 2B PCMPESTRI */
static bool has_w(const struct encoder *e)
{
	if ((e->row->attr & ATTR_IMPLICIT) && e->code_bytes != 8)
		return false;
	return e->i->flags & I_W;
}

static const u8 pp[] = { [OPC_NP] = 0, [OPC_66] = 1, [OPC_F3] = 2, [OPC_F2] = 3 };

/* The three-byte form. SDM 2A 2.3.5 */
static void put_vex(struct encoder *e)
{
	u8 r = !(e->reg >> 3), b = !(e->rm >> 3);

	put8(e, 0xc4);
	put8(e, r << 7 | 1 << 6 | b << 5 | (e->at.map - MAP_VEX1 + 1));
	put8(e, has_w(e) << 7 | (~e->vvvv & 15) << 3 | !!(e->i->flags & I_L) << 2 | pp[e->at.pfx]);
	put8(e, e->at.opcode);
}

/* Without a displacement, so the tuple type does not matter. SDM 2A 2.7.1 */
static void put_evex(struct encoder *e)
{
	u8 high = e->reg >> 4, x = e->rm >> 4, v4 = e->vvvv >> 4;
	u8 r = e->reg >> 3 & 1, b = e->rm >> 3 & 1;

	put8(e, 0x62);
	put8(e, !r << 7 | !x << 6 | !b << 5 | !high << 4 | (e->at.map - MAP_EVEX1 + 1));
	put8(e, has_w(e) << 7 | (~e->vvvv & 15) << 3 | 4 | pp[e->at.pfx]);
	put8(e, (e->i->evex & (EVEX_K | EVEX_B | EVEX_LL | EVEX_Z)) | !v4 << 3);
	put8(e, e->at.opcode);
}

#define RFLAGS_OFF	(u8)(offsetof(struct vcpu, rflags) - offsetof(struct vcpu, r)), 0, 0, 0
_Static_assert(offsetof(struct vcpu, rflags) - offsetof(struct vcpu, r) < 256, "RFLAGS_OFF");

/* CF, PF, AF, ZF, SF of the guest into the host's: FCMOVcc. */
static void put_flags_in(struct encoder *e)
{
	PUT(e, 0x8a, 0xa6, RFLAGS_OFF);			/* mov ah, [rsi + rflags] */
	PUT(e, 0x9e);					/* sahf */
}

/* All six arithmetic flags into the guest's. */
static void put_flags_out(struct encoder *e)
{
	PUT(e, 0x9f, 0x0f, 0x90, 0xc0);			/* lahf; seto al */
	PUT(e, 0x0f, 0xb6, 0xcc);			/* movzx ecx, ah */
	PUT(e, 0x81, 0xe1, 0xd5, 0, 0, 0);		/* and ecx, SF | ZF | AF | PF | CF */
	PUT(e, 0x83, 0xe0, 0x01, 0xc1, 0xe0, 0x0b);	/* and eax, 1; shl eax, 11 */
	PUT(e, 0x09, 0xc1);				/* or ecx, eax */
	PUT(e, 0x48, 0x8b, 0x86, RFLAGS_OFF);		/* mov rax, [rsi + rflags] */
	PUT(e, 0x48, 0x25, 0x2a, 0xf7, 0xff, 0xff);	/* and rax, ~RFLAGS_ARITH */
	PUT(e, 0x48, 0x09, 0xc8);			/* or rax, rcx */
	PUT(e, 0x48, 0x89, 0x86, RFLAGS_OFF);		/* mov [rsi + rflags], rax */
}
_Static_assert(RFLAGS_ARITH == 0x8d5, "put_flags_out has it as ~0x8d5");

static void put_stub(struct encoder *e)
{
	for (unsigned int k = 0; k < e->n_gpr; k++)
		put_mov(e, 0x8b, e->gpr[k].host, e->gpr[k].off);
	if (e->row->f_read & RFLAGS_ARITH)
		put_flags_in(e);
	if (is_evex(e))
		put_evex(e);
	else if (is_vex(e))
		put_vex(e);
	else
		put_legacy(e);
	if (e->i->flags & I_MODRM)
		put8(e, modrm(e));
	if (e->imm_bytes > 0)
		put8(e, (u8)e->i->imm & e->imm_mask);
	if (e->imm_bytes > 1)
		put8(e, (u8)e->i->imm2);
	for (unsigned int k = 0; k < e->n_gpr; k++)
		put_mov(e, 0x89, e->gpr[k].host, e->gpr[k].off);
	if (e->row->f_write & RFLAGS_ARITH)
		put_flags_out(e);
	PUT(e, 0x31, 0xc0, 0xc3);			/* xor eax, eax; ret */
}

/* ---- the area ------------------------------------------------------------------------------ */

/* FNV-1a */
static u32 code_hash(const u8 *p, unsigned int n)
{
	u32 h = 2166136261u;

	while (n--)
		h = (h ^ *p++) * 16777619u;
	return h ^ h >> 15;
}

static bool stub_equal(const struct native *n, const struct native_stub *a,
	const struct native_stub *b, const u8 *code)
{
	return a->code_len == b->code_len && a->size == b->size && a->access == b->access &&
		a->trap == b->trap && !memcmp(n->rw + a->off, code, a->code_len);
}

/* Finds or makes the stub; returns its index or -ENOSPC. */
static int stub_intern(struct native *n, const struct native_stub *want, const u8 *code)
{
	u32 h = code_hash(code, want->code_len);
	struct native_stub *s;

	for (;; h++) {
		u16 *slot = &n->hash[h % HASH_SIZE];

		if (*slot && stub_equal(n, &n->stub[*slot - 1], want, code))
			return *slot - 1;
		if (*slot)
			continue;
		if (n->count == MAX_STUBS || n->used + MAX_CODE > AREA_SIZE)
			return -ENOSPC;
		*slot = n->count + 1;
		break;
	}
	s = &n->stub[n->count];
	*s = *want;
	s->off = n->used;
	s->run = (u64 (*)(void *, u64 *))((u64)n->rx + n->used);
	memcpy(n->rw + n->used, code, want->code_len);
	n->used += ALIGN_UP(want->code_len, STUB_ALIGN);
	return n->count++;
}

int native_prepare(struct vcpu *v, struct insn *i)
{
	struct encoder e = {
		.i = i, .row = opcode_row(i->row), .imm_mask = 0xff, .code_bytes = v->code_bytes};
	struct native_stub want = { 0 };
	int ret;

	if (!e.row || !opcode_where(i->row, &e.at))
		return -EINVAL;
	plan(&e);
	put_stub(&e);
	want.code_len = e.len;
	want.trap = e.trap;
	if (i->flags & I_MEM) {
		want.size = opcode_mem_size(e.row, i);
		want.access = opcode_mem_access(e.row);
	}
	ret = stub_intern(v->native, &want, e.code);
	if (ret < 0)
		return ret;
	i->aux = ret;
	return 0;
}

/* ---- faults -------------------------------------------------------------------------------- */

void fp_gate_slow(struct vcpu *v, u32 families)
{
	u64 avx = XCR0_SSE | XCR0_AVX;

	if (families & FP_AVX512)
		avx |= XCR0_AVX512;
	if (families & (FP_AVX | FP_AVX512)) {
		if (!vcpu_protected(v) || vcpu_v86(v) || !(v->cr4 & CR4_OSXSAVE) ||
			(v->xcr0 & avx) != avx)
			raise_ud(v);
	}
	if ((families & (FP_SSE | FP_MMX)) && (v->cr0 & CR0_EM))
		raise_ud(v);
	if ((families & FP_SSE) && !(v->cr4 & CR4_OSFXSR))
		raise_ud(v);
	if ((families & FP_X87) && (v->cr0 & CR0_EM))
		vcpu_raise(v, VEC_NM, 0);
	if (v->cr0 & CR0_TS)
		vcpu_raise(v, VEC_NM, 0);
}

/* The x87 unit's line to the second i8259 of a PC. */
#define FERR_GSI	13

static bool x87_error_by_irq(const struct vcpu *v)
{
	return !(v->cr0 & CR0_NE) && irqchip_has_pic(v->vm);
}

void x87_error(struct vcpu *v)
{
	if (!x87_error_by_irq(v))
		vcpu_raise(v, VEC_MF, 0);
	fpu_put(v);
	irqchip_line(v->vm, IRQ_SOURCE_FERR, FERR_GSI, 1, NULL);
	/* The processor waits for the interrupt, before this instruction. */
	vcpu_unwind(v, UNWIND_RESTART);
}

void x87_error_cleared(struct vcpu *v)
{
	if (!x87_error_by_irq(v))
		return;
	fpu_put(v);
	irqchip_line(v->vm, IRQ_SOURCE_FERR, FERR_GSI, 0, NULL);
}

void native_fault(struct vcpu *v, u64 vector)
{
	switch (vector) {
	case VEC_MF:
		x87_error(v);
	case VEC_XM:
		if (!(v->cr4 & CR4_OSXMMEXCPT))
			raise_ud(v);
		break;
	case VEC_PF:
		/* User space took away the memory behind a slot. */
		fpu_put(v);
		vcpu_memory_lost(v);
	}
	vcpu_raise(v, (u8)vector, 0);
}
