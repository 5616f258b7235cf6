/*
 * The x87 unit: arithmetic runs in stubs (native.h); what a stub cannot know is kept here: the last
 * instruction's opcode and pointers, and the environment's four memory formats.
 * SDM 1 chapter 8, figures 8-9 to 8-12.
 */
#include "hypervisor/insn/native.h"

#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/opcode.h"

/*
 * Control instructions leave FOP, FIP and FDP alone: FLDCW, FNSTCW, FNSTSW, FNCLEX, FNINIT and the
 * two that are no-ops since the 387. (FNOP, FINCSTP, FDECSTP and FFREE do set them.) SDM 1 8.1.8,
 * and measured.
 */
bool x87_is_control(u8 modrm, u8 escape)
{
	switch (escape) {
	case 0xd9: return modrm < 0xc0 && (modrm >> 3 & 7) >= 5;
	case 0xdb: return modrm >= 0xe0 && modrm <= 0xe4;
	case 0xdd: return modrm < 0xc0 && (modrm >> 3 & 7) == 7;
	case 0xdf: return modrm == 0xe0;
	default: return false;
	}
}

/* Of those with a memory operand all but FNSTCW and FNSTSW. */
static bool x87_waits(u8 modrm, u8 escape)
{
	return (modrm >> 3 & 7) != 7 || (escape != 0xd9 && escape != 0xdd);
}

bool x87_clears_error(u8 modrm, u8 escape)
{
	return escape == 0xdb && (modrm == 0xe2 || modrm == 0xe3);
}

static void x87_track(struct vcpu *v, const struct insn *i, u8 escape, u8 modrm)
{
	struct fpu *f = v->fpu;

	if (x87_clears_error(modrm, escape)) {
		if (modrm == 0xe3) {
			f->fip = f->fdp = 0;
			f->fcs = f->fds = f->fop = 0;
		}
		x87_error_cleared(v);
		return;
	}
	if (x87_is_control(modrm, escape))
		return;
	f->fop = (escape & 7) << 8 | modrm;
	f->fip = v->r[R_RIP];
	f->fcs = v->seg[SEG_CS].sel;
	if (i->flags & I_MEM) {
		f->fdp = insn_ea(v, i);
		f->fds = v->seg[i->seg].sel;
	}
}

void x87_wait(struct vcpu *v)
{
	u16 fsw = v->fpu->image.fx.fsw;

	if (v->fpu_live)
		__asm__ volatile("fnstsw %0" : "=a"(fsw));
	if (fsw & FSW_ES)
		x87_error(v);
}

/*
 * A store that is not to plain memory may exit to user space and come back to run again, so the
 * unit's state must change only after the last byte is out.
 */
static __cold_ void x87_store_bounced(
	struct vcpu *v, const struct insn *i, const struct native_stub *s, u64 ea)
{
	u8 buf[16];
	struct xsave_image before, after;
	u64 err;

	mem_probe(v, i->seg, ea, s->size, MEM_WRITE);
	fpu_put(v);
	before = v->fpu->image;
	fpu_get(v);
	err = s->run(buf, v->r);
	fpu_put(v);
	if (err)
		native_fault(v, err - 1);
	after = v->fpu->image;
	v->fpu->image = before;
	mem_copy_out(v, i->seg, ea, buf, s->size);
	v->fpu->image = after;
}

static void x87_run(struct vcpu *v, const struct native_stub *s, void *p)
{
	u64 err;

	fpu_get(v);
	err = s->run(p, v->r);
	fpu_done(v);
	if (unlikely(err))
		native_fault(v, err - 1);
}

static void x87_memory(struct vcpu *v, const struct insn *i, const struct native_stub *s)
{
	bool write = s->access & OPC_MEM_WRITE;
	u64 ea = insn_ea(v, i);
	u8 buf[16];
	void *p = mem_hit(v, i->seg, ea, s->size, write);

	if (unlikely(!p)) {
		if (x87_waits((u8)i->imm, 0xd8 | (i->imm >> 8 & 7)))
			x87_wait(v);
		p = mem_slow_ptr(v, i->seg, ea, s->size, write ? MEM_WRITE : MEM_READ);
	}
	if (unlikely(!p && write)) {
		x87_store_bounced(v, i, s, ea);
		return;
	}
	if (unlikely(!p)) {
		mem_copy_in(v, i->seg, ea, buf, s->size);
		p = buf;
	}
	x87_run(v, s, p);
}

void exec_x87(struct vcpu *v, const struct insn *i)
{
	const struct native_stub *s = native_stub(v, i);
	u8 modrm = (u8)i->imm, escape = 0xd8 | (i->imm >> 8 & 7);

	fp_gate(v, FP_X87);
	if (i->flags & I_MEM)
		x87_memory(v, i, s);
	else
		x87_run(v, s, NULL);
	x87_track(v, i, escape, modrm);
}

/* SDM 3A 2.5: #NM only with both MP and TS; EM does not matter. */
void exec_fwait(struct vcpu *v, const struct insn *i)
{
	(void)i;
	if ((v->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		vcpu_raise(v, VEC_NM, 0);
	x87_wait(v);
}

/* ---- tags, and the error summary ----------------------------------------------------------- */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned int x87_tag(const u8 st[16])
{
	u64 frac;
	u16 exp;

	memcpy(&frac, st, 8);
	memcpy(&exp, st + 8, 2);
	exp &= 0x7fff;
	if (exp == 0x7fff)
		return TAG_SPECIAL;
	if (!exp)
		return frac ? TAG_SPECIAL : TAG_ZERO;
	return frac >> 63 ? TAG_VALID : TAG_SPECIAL;
}

/* Two bits for each physical register. SDM 1 8.1.7 */
static u16 x87_full_tags(const struct fxsave_image *fx)
{
	unsigned int top = FSW_TOP(fx->fsw);
	u16 tags = 0;

	for (unsigned int r = 0; r < 8; r++) {
		unsigned int tag = TAG_EMPTY;

		if (fx->ftw & (1 << r))
			tag = x87_tag(fx->st[(r - top) & 7]);
		tags |= tag << (2 * r);
	}
	return tags;
}

static u8 x87_short_tags(u16 tags)
{
	u8 ftw = 0;

	for (unsigned int r = 0; r < 8; r++)
		if ((tags >> (2 * r) & 3) != TAG_EMPTY)
			ftw |= 1 << r;
	return ftw;
}

void x87_set_top(struct fxsave_image *fx, unsigned int top)
{
	unsigned int by = top - FSW_TOP(fx->fsw);
	u8 st[8][16];

	memcpy(st, fx->st, sizeof(st));
	for (unsigned int k = 0; k < 8; k++)
		memcpy(fx->st[k], st[(k + by) & 7], 16);
	fx->fsw = (fx->fsw & ~0x3800) | top << 11;
}

/* ES and its copy B say whether an unmasked exception is flagged. SDM 1 8.1.3.3 */
static void x87_summarize(struct fxsave_image *fx)
{
	fx->fsw &= 0x7f7f;
	if (fx->fsw & ~fx->fcw & 0x3f)
		fx->fsw |= 0x8080;
}

/* ---- the environment in memory ------------------------------------------------------------- */

#define ENV_WORDS	7

/* Real and virtual-8086 mode know linear addresses only. */
static bool env_is_real(const struct vcpu *v)
{
	return !vcpu_protected(v) || vcpu_v86(v);
}

static u32 env_linear(u16 sel, u64 off)
{
	return ((u32)sel << 4) + (u32)off;
}

/* Returns the size: 14 or 28 bytes. */
static unsigned int env_pack(struct vcpu *v, const struct insn *i, u8 out[28])
{
	const struct fpu *f = v->fpu;
	const struct fxsave_image *fx = &f->image.fx;
	bool real = env_is_real(v);
	u32 ip = real ? env_linear(f->fcs, f->fip) : (u32)f->fip;
	u32 dp = real ? env_linear(f->fds, f->fdp) : (u32)f->fdp;
	u32 w[ENV_WORDS] = { fx->fcw, fx->fsw, x87_full_tags(fx), ip, f->fcs, dp, f->fds };

	if (i->opsize == 2) {
		if (real) {
			w[4] = (ip >> 4 & 0xf000) | f->fop;
			w[6] = dp >> 4 & 0xf000;
		}
		for (unsigned int k = 0; k < ENV_WORDS; k++)
			memcpy(out + 2 * k, &w[k], 2);
		return 2 * ENV_WORDS;
	}
	if (real) {
		w[3] = 0xffff0000 | (ip & 0xffff);
		w[4] = (ip >> 16) << 12 | f->fop;
		w[5] = 0xffff0000 | (dp & 0xffff);
		w[6] = (dp >> 16) << 12;
	} else {
		w[4] |= (u32)f->fop << 16;
		w[6] |= 0xffff0000;
	}
	for (unsigned int k = 0; k < 3; k++)
		w[k] |= 0xffff0000;
	memcpy(out, w, 4 * ENV_WORDS);
	return 4 * ENV_WORDS;
}

static unsigned int env_size(const struct insn *i)
{
	return i->opsize == 2 ? 2 * ENV_WORDS : 4 * ENV_WORDS;
}

static void env_unpack_pointers(struct vcpu *v, const struct insn *i, const u32 w[ENV_WORDS])
{
	struct fpu *f = v->fpu;

	f->fip = w[3];
	f->fdp = w[5];
	f->fcs = (u16)w[4];
	f->fds = (u16)w[6];
	f->fop = w[4] >> 16 & 0x7ff;
	if (!env_is_real(v)) {
		if (i->opsize == 2)
			f->fop = 0;
		return;
	}
	f->fcs = f->fds = 0;
	f->fop = w[4] & 0x7ff;
	f->fip = (w[3] & 0xffff) | (i->opsize == 2 ? (w[4] & 0xf000) << 4 : (w[4] >> 12) << 16);
	f->fdp = (w[5] & 0xffff) | (i->opsize == 2 ? (w[6] & 0xf000) << 4 : (w[6] >> 12) << 16);
}

/* Into v->fpu, which is not live. st: the registers follow as FNSAVE wrote them, or NULL. */
static void env_unpack(struct vcpu *v, const struct insn *i, const u8 *in, const u8 *st)
{
	struct fxsave_image *fx = &v->fpu->image.fx;
	u32 w[ENV_WORDS] = { 0 };

	if (i->opsize == 2) {
		for (unsigned int k = 0; k < ENV_WORDS; k++)
			memcpy(&w[k], in + 2 * k, 2);
	} else {
		memcpy(w, in, sizeof(w));
	}
	x87_set_top(fx, FSW_TOP(w[1]));
	fx->fcw = (w[0] & FCW_VALID) | FCW_ONE;
	fx->fsw = (u16)w[1];
	fx->ftw = x87_short_tags((u16)w[2]);
	env_unpack_pointers(v, i, w);
	x87_summarize(fx);
	for (unsigned int k = 0; st && k < 8; k++) {
		memset(fx->st[k], 0, 16);
		memcpy(fx->st[k], st + 10 * k, 10);
	}
	v->fpu->image.xstate_bv |= XCR0_X87;
	x87_error_cleared(v);
}

/* mem_* copies are at most 64 bytes. */
#define COPY_MAX 64u

/* The first word (which must be aligned, where that is checked) and the last byte fault first, as
 * on AMD; the manuals leave the order open. */
static void probe_ends(
	struct vcpu *v, const struct insn *i, u64 ea, unsigned int size, enum mem_access acc)
{
	mem_probe(v, i->seg, ea, i->opsize == 2 ? 2 : 4, acc);
	mem_probe(v, i->seg, ea + size - 1, 1, acc);
}

static void copy_in(struct vcpu *v, const struct insn *i, u64 ea, u8 *buf, unsigned int size)
{
	probe_ends(v, i, ea, size, MEM_READ);
	for (unsigned int at = 0; at < size; at += COPY_MAX)
		mem_copy_in(v, i->seg, ea + at, buf + at, MIN(COPY_MAX, size - at));
}

static void copy_out(struct vcpu *v, const struct insn *i, u64 ea, const u8 *buf, unsigned int size)
{
	probe_ends(v, i, ea, size, MEM_WRITE);
	for (unsigned int at = 0; at < size; at += COPY_MAX)
		mem_probe(v, i->seg, ea + at, MIN(COPY_MAX, size - at), MEM_WRITE);
	for (unsigned int at = 0; at < size; at += COPY_MAX)
		mem_copy_out(v, i->seg, ea + at, buf + at, MIN(COPY_MAX, size - at));
}

void exec_fnstenv(struct vcpu *v, const struct insn *i)
{
	struct fxsave_image *fx = &v->fpu->image.fx;
	u8 env[28];

	fp_gate(v, FP_X87);
	fpu_put(v);
	copy_out(v, i, insn_ea(v, i), env, env_pack(v, i, env));
	fx->fcw |= 0x3f;
	x87_summarize(fx);
	v->fpu->image.xstate_bv |= XCR0_X87;
}

void exec_fldenv(struct vcpu *v, const struct insn *i)
{
	u8 env[28];

	fp_gate(v, FP_X87);
	fpu_put(v);
	x87_wait(v);
	copy_in(v, i, insn_ea(v, i), env, env_size(i));
	env_unpack(v, i, env, NULL);
}

void exec_fnsave(struct vcpu *v, const struct insn *i)
{
	struct fpu *f = v->fpu;
	unsigned int n;
	u8 buf[108];

	fp_gate(v, FP_X87);
	fpu_put(v);
	n = env_pack(v, i, buf);
	for (unsigned int k = 0; k < 8; k++, n += 10)
		memcpy(buf + n, f->image.fx.st[k], 10);
	copy_out(v, i, insn_ea(v, i), buf, n);
	/* FNINIT marks the registers empty and leaves their content. */
	x87_set_top(&f->image.fx, 0);
	f->image.fx.fcw = FCW_DEFAULT;
	f->image.fx.fsw = 0;
	f->image.fx.ftw = 0;
	f->fip = f->fdp = 0;
	f->fcs = f->fds = f->fop = 0;
	f->image.xstate_bv |= XCR0_X87;
	x87_error_cleared(v);
}

void exec_frstor(struct vcpu *v, const struct insn *i)
{
	unsigned int size = env_size(i);
	u8 buf[108];

	fp_gate(v, FP_X87);
	fpu_put(v);
	x87_wait(v);
	copy_in(v, i, insn_ea(v, i), buf, size + 80);
	env_unpack(v, i, buf, buf + size);
}
