/*
 * MMX, SSE, AVX, AES, SHA ... : all that a stub (native.h) does, and the few instructions that
 * touch memory element by element under a mask. SDM 2, APM 4.
 */
#include "hypervisor/insn/native.h"

#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/opcode.h"

/*
 * Misalignment comes before page faults, where it is a fault at all: AMD takes any address for SHA,
 * Intel does not. So the host is asked with a copy of the state.
 */
static __cold_ void check_alignment(struct vcpu *v, const struct native_stub *s, u64 la)
{
	u8 buf[128] __attribute__((aligned(64))) = { 0 }, before[FPU_AREA];
	u64 r[NR_REGS], rflags = v->rflags, err;

	fpu_put(v);
	memcpy(before, v->fpu->area, sizeof(before));
	memcpy(r, v->r, sizeof(r));
	fpu_get(v);
	err = s->run(buf + (la & 63), v->r);
	fpu_put(v);
	memcpy(v->fpu->area, before, sizeof(before));
	memcpy(v->r, r, sizeof(r));
	v->rflags = rflags;
	if (err == 1 + VEC_GP)
		raise_gp(v, 0);
}

/*
 * The memory operand is not plain memory in one page: the stub works on a copy, at the same offset
 * from a cache line, so that the host finds the same misalignment.
 */
static __cold_ void native_bounced(
	struct vcpu *v, const struct insn *i, const struct native_stub *s)
{
	u8 buf[128] __attribute__((aligned(64)));
	enum mem_access acc = s->access & OPC_MEM_WRITE ? MEM_WRITE : MEM_READ;
	u64 ea = insn_ea(v, i), la = v->ebase[i->seg] + ea, err;
	bool copy;
	void *p;

	if (i->flags & I_EVEX && evex_selects(i)) {
		evex_bounced(v, i, s);
		return;
	}
	if (s->trap & FP_MMX)
		x87_wait(v);
	if ((la & (s->size - 1)) && opcode_aligned(opcode_row(i->row), i))
		check_alignment(v, s, la);
	p = mem_slow_ptr(v, i->seg, ea, s->size, acc);
	copy = !p;
	if (copy) {
		p = buf + (la & 63);
		if (s->access & OPC_MEM_WRITE)
			mem_probe(v, i->seg, ea, s->size, MEM_WRITE);
		if (s->access & OPC_MEM_READ)
			mem_copy_in(v, i->seg, ea, p, s->size);
	}
	fpu_get(v);
	err = s->run(p, v->r);
	fpu_done(v);
	if (unlikely(err))
		native_fault(v, err - 1);
	if (copy && (s->access & OPC_MEM_WRITE))
		mem_copy_out(v, i->seg, ea, p, s->size);
}

void exec_native(struct vcpu *v, const struct insn *i)
{
	const struct native_stub *s = native_stub(v, i);
	void *p = NULL;
	u64 err;

	fp_gate(v, s->trap);
	if (i->flags & I_MEM) {
		p = mem_hit(v, i->seg, insn_ea(v, i), s->size, s->access & OPC_MEM_WRITE);
		if (unlikely(!p)) {
			native_bounced(v, i, s);
			return;
		}
	}
	fpu_get(v);
	err = s->run(p, v->r);
	fpu_done(v);
	if (unlikely(err))
		native_fault(v, err - 1);
}

/* The stub itself moves general-purpose registers and flags. */
void exec_native_flags(struct vcpu *v, const struct insn *i)
{
	exec_native(v, i);
}

/* ---- vector registers in memory: v->fpu, not live ------------------------------------------ */

static void vector_get(const struct fpu *f, unsigned int n, u8 out[32])
{
	memcpy(out, f->image.fx.xmm[n], 16);
	memcpy(out + 16, f->image.ymmh[n], 16);
}

static void vector_put(struct fpu *f, unsigned int n, const u8 in[32])
{
	vec_put(f, n, in, 32);
}

/* In the midst of an instruction: bits above 255 stay. */
static void vector_merge(struct fpu *f, unsigned int n, const u8 in[32])
{
	memcpy(f->image.fx.xmm[n], in, 16);
	memcpy(f->image.ymmh[n], in + 16, 16);
	f->image.xstate_bv |= XCR0_SSE | XCR0_AVX;
}

static u64 element(const u8 *vec, unsigned int k, unsigned int size)
{
	return mem_load(vec + k * size, size);
}

static bool element_selected(const u8 *mask, unsigned int k, unsigned int size)
{
	return mask[k * size + size - 1] & 0x80;
}

static unsigned int vector_length(const struct insn *i)
{
	return i->flags & I_L ? 32 : 16;
}

/*
 * Accesses under a mask are never checked for alignment (#AC): in two parts of sizes that mem_*()
 * does not check either.
 */
u64 element_read(struct vcpu *v, const struct insn *i, u64 ea, unsigned int size)
{
	u64 val = 0;

	ea &= address_mask(i);
	if (likely(!vcpu_align_checked(v)))
		return mem_read(v, i->seg, ea, size);
	mem_copy_in(v, i->seg, ea, &val, size - 1);
	mem_copy_in(v, i->seg, ea + size - 1, (u8 *)&val + size - 1, 1);
	return val;
}

static void element_probe(struct vcpu *v, const struct insn *i, u64 ea, unsigned int size)
{
	ea &= address_mask(i);
	mem_probe(v, i->seg, ea, size > 1 ? size - 1 : 1, MEM_WRITE);
	mem_probe(v, i->seg, ea + size - 1, 1, MEM_WRITE);
}

void element_write(struct vcpu *v, const struct insn *i, u64 ea, unsigned int size, u64 val)
{
	ea &= address_mask(i);
	if (likely(size == 1 || !vcpu_align_checked(v))) {
		mem_write(v, i->seg, ea, size, val);
		return;
	}
	mem_copy_out(v, i->seg, ea, &val, size - 1);
	mem_copy_out(v, i->seg, ea + size - 1, (u8 *)&val + size - 1, 1);
}

/* Stores the selected elements: all are checked before the first is written. */
static void store_selected(struct vcpu *v, const struct insn *i, u64 ea, const u8 *mask,
	const u8 *data, unsigned int size, unsigned int n)
{
	for (unsigned int k = 0; k < n; k++)
		if (element_selected(mask, k, size))
			element_probe(v, i, ea + k * size, size);
	for (unsigned int k = 0; k < n; k++)
		if (element_selected(mask, k, size))
			element_write(v, i, ea + k * size, size, element(data, k, size));
}

/* ---- MASKMOVQ, MASKMOVDQU: bytes to seg:[rDI] ---------------------------------------------- */

/* MMX registers are the x87's low 64 bits; using them is an MMX instruction. SDM 1 9.5.1, 9.6.2 */
static void mmx_begin(struct vcpu *v)
{
	struct fxsave_image *fx = &v->fpu->image.fx;

	x87_wait(v);
	x87_set_top(fx, 0);
	fx->ftw = 0xff;
	v->fpu->image.xstate_bv |= XCR0_X87;
}

/* All n bytes must be writable, selected or not, as on AMD. SDM 2A MASKMOVDQU leaves that open. */
static void probe_all(struct vcpu *v, const struct insn *i, u64 ea, unsigned int n)
{
	if (vcpu_align_checked(v) && (ea & 7))
		vcpu_raise(v, VEC_AC, 0);
	/* In sizes that mem_probe does not check for alignment. */
	mem_probe(v, i->seg, ea, n - 1, MEM_WRITE);
	mem_probe(v, i->seg, ea + n - 1, 1, MEM_WRITE);
}

void exec_maskmov(struct vcpu *v, const struct insn *i)
{
	bool mmx = operand_info[opcode_row(i->row)->op[0]].class == CL_MMX;
	struct fpu *f = v->fpu;
	u64 ea = v->r[R_RDI] & address_mask(i);
	u8 data[32], mask[32];

	fp_gate(v, i->flags & I_VEX ? FP_AVX : mmx ? FP_MMX : FP_SSE);
	fpu_put(v);
	if (mmx) {
		mmx_begin(v);
		memcpy(data, f->image.fx.st[i->reg & 7], 8);
		memcpy(mask, f->image.fx.st[i->rm & 7], 8);
	} else {
		vector_get(f, i->reg, data);
		vector_get(f, i->rm, mask);
	}
	probe_all(v, i, ea, mmx ? 8 : 16);
	store_selected(v, i, ea, mask, data, 1, mmx ? 8 : 16);
}

/* ---- VMASKMOVPS/PD, VPMASKMOVD/Q ----------------------------------------------------------- */

/* Opcodes of MAP_VEX2. */
enum {
	VMASKMOVPS_LOAD = 0x2c, VMASKMOVPD_LOAD, VMASKMOVPS_STORE, VMASKMOVPD_STORE,
	VPMASKMOV_LOAD = 0x8c, VPMASKMOV_STORE = 0x8e,
};

static u8 opcode_byte(const struct insn *i)
{
	struct opcode_where at;

	return opcode_where(i->row, &at) ? at.opcode : 0;
}

static unsigned int maskmov_element(const struct insn *i, u8 op)
{
	if (op == VPMASKMOV_LOAD || op == VPMASKMOV_STORE)
		return i->flags & I_W ? 8 : 4;
	return op & 1 ? 8 : 4;
}

void exec_vmaskmov(struct vcpu *v, const struct insn *i)
{
	u8 op = opcode_byte(i);
	unsigned int size = maskmov_element(i, op), n = vector_length(i) / size;
	struct fpu *f = v->fpu;
	u8 data[32] = { 0 }, mask[32];
	u64 ea = insn_ea(v, i);

	fp_gate(v, FP_AVX);
	fpu_put(v);
	vector_get(f, i->vvvv, mask);
	if (op == VMASKMOVPS_STORE || op == VMASKMOVPD_STORE || op == VPMASKMOV_STORE) {
		vector_get(f, i->reg, data);
		store_selected(v, i, ea, mask, data, size, n);
		return;
	}
	for (unsigned int k = 0; k < n; k++)
		if (element_selected(mask, k, size))
			mem_store(data + k * size, size, element_read(v, i, ea + k * size, size));
	vector_put(f, i->reg, data);
}

/* ---- VGATHER*, VPGATHER* ------------------------------------------------------------------- */

/*
 * Element after element; each one done is final (its mask element is clear), so that a fault or an
 * exit at the next resumes there. Mask elements not done yet keep their value, as on AMD (SDM 2C
 * VGATHERDPS has their sign bit spread first).
 */
void exec_gather(struct vcpu *v, const struct insn *i)
{
	unsigned int size = i->flags & I_W ? 8 : 4, isize = opcode_byte(i) & 1 ? 8 : 4;
	unsigned int n = vector_length(i) / MAX(size, isize);
	struct fpu *f = v->fpu;
	u8 dst[32], mask[32], index[32];

	fp_gate(v, FP_AVX);
	if (i->reg == i->vvvv || i->reg == i->index || i->vvvv == i->index)
		raise_ud(v);
	fpu_put(v);
	vector_get(f, i->reg, dst);
	vector_get(f, i->vvvv, mask);
	vector_get(f, i->index, index);
	for (unsigned int k = 0; k < n; k++) {
		u64 at = element(index, k, isize), ea;

		if (!element_selected(mask, k, size)) {
			mem_store(mask + k * size, size, 0);
			vector_merge(f, i->vvvv, mask);
			continue;
		}
		if (isize == 4)
			at = (u64)(s64)(s32)at;
		ea = v->r[i->base] + (at << i->scale) + (u64)(s64)i->disp;
		mem_store(dst + k * size, size, element_read(v, i, ea, size));
		mem_store(mask + k * size, size, 0);
		vector_merge(f, i->reg, dst);
		vector_merge(f, i->vvvv, mask);
		io_log_clear(v);
	}
	memset(dst + n * size, 0, 32 - n * size);
	memset(mask, 0, 32);
	vector_put(f, i->reg, dst);
	vector_put(f, i->vvvv, mask);
}
