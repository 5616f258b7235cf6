/*
 * FXSAVE, FXRSTOR, the XSAVE family, LDMXCSR and STMXCSR. The images are built from and checked
 * into v->fpu in plain C, so nothing is changed before every fault has been taken. SDM 1 10.5
 * and 13.5 to 13.12, APM 2 11.4.4.
 */
#include "hypervisor/insn/native.h"

#include "hypervisor/insn/exec.h"
#include "hypervisor/x86/cpuid.h"

#define COPY_MAX	64u		/* of mem_copy_in and mem_copy_out */
#define XCOMP_COMPACT	BIT(63)
#define XSS_NONE	0ULL		/* no supervisor component is offered */

/* A piece of an image: offset in guest memory and in the buffer alike. */
struct part {
	u16 off, len;
};

#define PART_X87_HEAD	{ 0, 24 }
#define PART_MXCSR	{ 24, 8 }
#define PART_X87_REGS	{ 32, 128 }
#define PARTS_MAX	8

struct parts {
	unsigned int n;
	struct part part[PARTS_MAX];
};

static void part_add(struct parts *p, struct part part)
{
	p->part[p->n++] = part;
}

static void part_add_x87(struct parts *p)
{
	part_add(p, (struct part)PART_X87_HEAD);
	part_add(p, (struct part)PART_X87_REGS);
}

/* Outside 64-bit mode the registers 8 to 15 are neither saved nor restored. */
static unsigned int vector_bytes(const struct vcpu *v)
{
	return vcpu_64bit(v) ? 256 : 128;
}

static void part_add_xmm(const struct vcpu *v, struct parts *p)
{
	part_add(p, (struct part){ 160, vector_bytes(v) });
}

static void part_add_ymm(const struct vcpu *v, struct parts *p)
{
	part_add(p, (struct part){ XSAVE_AVX_OFFSET, vector_bytes(v) });
}

static void part_probe(struct vcpu *v, const struct insn *i, u64 ea, struct part p)
{
	for (unsigned int at = 0; at < p.len; at += COPY_MAX)
		mem_probe(v, i->seg, ea + p.off + at, MIN(COPY_MAX, p.len - at), MEM_WRITE);
}

static void parts_store(
	struct vcpu *v, const struct insn *i, u64 ea, const void *image, const struct parts *p)
{
	const u8 *from = image;

	for (unsigned int k = 0; k < p->n; k++)
		part_probe(v, i, ea, p->part[k]);
	for (unsigned int k = 0; k < p->n; k++) {
		unsigned int off = p->part[k].off, end = off + p->part[k].len;

		for (; off < end; off += COPY_MAX)
			mem_copy_out(v, i->seg, ea + off, from + off, MIN(COPY_MAX, end - off));
	}
}

static void part_load(struct vcpu *v, const struct insn *i, u64 ea, void *image, unsigned int off,
	unsigned int len)
{
	u8 *to = image;

	for (unsigned int at = off; at < off + len; at += COPY_MAX)
		mem_copy_in(v, i->seg, ea + at, to + at, MIN(COPY_MAX, off + len - at));
}

/* The ends of XSAVE's area fault first, as on AMD; the manuals leave the order open. */
static void probe_ends(struct vcpu *v, const struct insn *i, u64 ea, unsigned int size)
{
	mem_probe(v, i->seg, ea, 1, MEM_WRITE);
	mem_probe(v, i->seg, ea + size - 1, 1, MEM_WRITE);
}

static void check_alignment(struct vcpu *v, const struct insn *i, u64 ea, unsigned int align)
{
	if ((v->ebase[i->seg] + ea) & (align - 1))
		raise_gp(v, 0);
}

/* ---- the x87 part -------------------------------------------------------------------------- */

/*
 * The pointers: 64 bits wide with REX.W, else 32 with a selector each. AMD saves them only while an
 * error is pending, zeros otherwise. APM 2 11.4.4, measured on Zen 3.
 */
static void pointers_pack(const struct vcpu *v, const struct insn *i, struct fxsave_image *fx)
{
	const struct fpu *f = v->fpu;

	fx->fop = 0;
	fx->fip = fx->fdp = 0;
	if (f->pointers_on_error_only && !(fx->fsw & FSW_ES))
		return;
	fx->fop = f->fop;
	fx->fip = f->fip;
	fx->fdp = f->fdp;
	if (!(i->flags & I_W)) {
		fx->fip = (u32)f->fip | (u64)f->fcs << 32;
		fx->fdp = (u32)f->fdp | (u64)f->fds << 32;
	}
}

/* The wide pointers have 48 bits, sign-extended. */
static u64 canonical48(u64 ptr)
{
	return (u64)((s64)(ptr << 16) >> 16);
}

static void x87_unpack(struct vcpu *v, const struct insn *i, const struct fxsave_image *in)
{
	struct fpu *f = v->fpu;
	struct fxsave_image *fx = &f->image.fx;
	bool wide = i->flags & I_W;

	fx->fcw = (in->fcw & FCW_VALID) | FCW_ONE;
	fx->fsw = in->fsw & 0x7f7f;
	if (fx->fsw & ~fx->fcw & 0x3f)
		fx->fsw |= 0x8080;
	fx->ftw = in->ftw;
	for (unsigned int k = 0; k < 8; k++) {
		memset(fx->st[k], 0, 16);
		memcpy(fx->st[k], in->st[k], 10);
	}
	f->fop = in->fop & 0x7ff;
	f->fip = wide ? canonical48(in->fip) : (u32)in->fip;
	f->fdp = wide ? canonical48(in->fdp) : (u32)in->fdp;
	f->fcs = wide ? 0 : (u16)(in->fip >> 32);
	f->fds = wide ? 0 : (u16)(in->fdp >> 32);
	f->image.xstate_bv |= XCR0_X87;
}

/* ---- FXSAVE, FXRSTOR ----------------------------------------------------------------------- */

static u64 fx_begin(struct vcpu *v, const struct insn *i)
{
	u64 ea = insn_ea(v, i);

	if (v->cr0 & (CR0_EM | CR0_TS))
		vcpu_raise(v, VEC_NM, 0);
	check_alignment(v, i, ea, 16);
	fpu_put(v);
	return ea;
}

/* APM 2 11.4.4: fast FXSAVE leaves the XMM registers to the operating system. */
static bool fx_without_xmm(const struct vcpu *v)
{
	return (v->efer & EFER_FFXSR) && vcpu_64bit(v) && v->cpl == 0;
}

void exec_fxsave(struct vcpu *v, const struct insn *i)
{
	u64 ea = fx_begin(v, i);
	struct fxsave_image fx = v->fpu->image.fx;
	struct parts p = { 0 };

	mem_probe(v, i->seg, ea + sizeof(fx) - 1, 1, MEM_WRITE);	/* first, as on AMD */
	pointers_pack(v, i, &fx);
	fx.reserved = 0;
	fx.mxcsr_mask = v->fpu->mxcsr_mask;
	part_add_x87(&p);
	part_add(&p, (struct part)PART_MXCSR);
	if ((v->cr4 & CR4_OSFXSR) && !fx_without_xmm(v))
		part_add_xmm(v, &p);
	parts_store(v, i, ea, &fx, &p);
}

void exec_fxrstor(struct vcpu *v, const struct insn *i)
{
	u64 ea = fx_begin(v, i);
	struct xsave_image *image = &v->fpu->image;
	struct fxsave_image fx;

	mem_probe(v, i->seg, ea + sizeof(fx) - 1, 1, MEM_READ);		/* first, as on AMD */
	part_load(v, i, ea, &fx, 0, sizeof(fx));
	if ((v->cr4 & CR4_OSFXSR) && (fx.mxcsr & ~v->fpu->mxcsr_mask))
		raise_gp(v, 0);
	x87_unpack(v, i, &fx);
	if (!(v->cr4 & CR4_OSFXSR))
		return;
	image->fx.mxcsr = fx.mxcsr;
	if (!fx_without_xmm(v))
		memcpy(image->fx.xmm, fx.xmm, vector_bytes(v));
	image->xstate_bv |= XCR0_SSE;
}

/* ---- XSAVE and its kind -------------------------------------------------------------------- */

static u64 x_begin(struct vcpu *v, const struct insn *i)
{
	u64 ea = insn_ea(v, i);

	if (!(v->cr4 & CR4_OSXSAVE))
		raise_ud(v);
	if (v->cr0 & CR0_TS)
		vcpu_raise(v, VEC_NM, 0);
	check_alignment(v, i, ea, 64);
	fpu_put(v);
	return ea;
}

static u64 x_mask(const struct vcpu *v)
{
	return (u32)v->r[R_RAX] | v->r[R_RDX] << 32;
}

static unsigned int area_size(u64 rfbm)
{
	return rfbm & XCR0_AVX ? XSAVE_SIZE : XSAVE_AVX_OFFSET;
}

static void image_begin(const struct vcpu *v, const struct insn *i, struct xsave_image *x)
{
	*x = v->fpu->image;
	pointers_pack(v, i, &x->fx);
	x->fx.reserved = 0;
	x->fx.mxcsr_mask = v->fpu->mxcsr_mask;
}

/* SDM 1 13.7 and, with optimize, 13.9: components in their initial state are left out. */
static void xsave_standard(struct vcpu *v, const struct insn *i, bool optimize)
{
	u64 ea = x_begin(v, i), rfbm = v->xcr0 & x_mask(v), inuse = v->fpu->image.xstate_bv;
	u64 save = optimize ? rfbm & inuse : rfbm;
	struct parts p = { 0 };
	struct xsave_image x;

	probe_ends(v, i, ea, area_size(rfbm));
	image_begin(v, i, &x);
	part_load(v, i, ea, &x, offsetof(struct xsave_image, xstate_bv), 8);
	x.xstate_bv = (x.xstate_bv & ~rfbm) | (inuse & rfbm);
	if (save & XCR0_X87)
		part_add_x87(&p);
	if (rfbm & (XCR0_SSE | XCR0_AVX))
		part_add(&p, (struct part)PART_MXCSR);
	if (save & XCR0_SSE)
		part_add_xmm(v, &p);
	if (save & XCR0_AVX)
		part_add_ymm(v, &p);
	part_add(&p, (struct part){ offsetof(struct xsave_image, xstate_bv), 8 });
	parts_store(v, i, ea, &x, &p);
}

/* SDM 1 13.10, 13.11. AVX is the only component past the legacy area, so it stays at its standard
 * offset. */
static void xsave_compact(struct vcpu *v, const struct insn *i, u64 supervisor)
{
	u64 ea = x_begin(v, i), rfbm = (v->xcr0 | supervisor) & x_mask(v);
	u64 inuse = v->fpu->image.xstate_bv;
	struct parts p = { 0 };
	struct xsave_image x;
	u64 save;

	probe_ends(v, i, ea, area_size(rfbm));
	image_begin(v, i, &x);
	if (x.fx.mxcsr != MXCSR_DEFAULT)
		inuse |= XCR0_SSE;
	save = rfbm & inuse;
	x.xstate_bv = save;
	x.xcomp_bv = rfbm | XCOMP_COMPACT;
	if (save & XCR0_X87)
		part_add_x87(&p);
	if (save & XCR0_SSE) {
		part_add(&p, (struct part)PART_MXCSR);
		part_add_xmm(v, &p);
	}
	if (save & XCR0_AVX)
		part_add_ymm(v, &p);
	part_add(&p, (struct part){ offsetof(struct xsave_image, xstate_bv), 16 });
	parts_store(v, i, ea, &x, &p);
}

void exec_xsave(struct vcpu *v, const struct insn *i)
{
	xsave_standard(v, i, false);
}

void exec_xsaveopt(struct vcpu *v, const struct insn *i)
{
	xsave_standard(v, i, true);
}

void exec_xsavec(struct vcpu *v, const struct insn *i)
{
	xsave_compact(v, i, 0);
}

static void x_privileged(struct vcpu *v)
{
	if (!(v->cr4 & CR4_OSXSAVE))
		raise_ud(v);
	if (v->cpl)
		raise_gp(v, 0);
}

void exec_xsaves(struct vcpu *v, const struct insn *i)
{
	x_privileged(v);
	xsave_compact(v, i, v->xss & XSS_NONE);
}

/* ---- XRSTOR -------------------------------------------------------------------------------- */

static bool header_tail_clear(const struct xsave_image *x, unsigned int from)
{
	for (unsigned int k = from; k < 6; k++)
		if (x->header[k])
			return false;
	return true;
}

/* SDM 1 13.8.1: bytes 23:8 of the header must be 0. 13.8.2: all but XSTATE_BV and XCOMP_BV must. */
static bool header_valid(
	const struct vcpu *v, const struct xsave_image *x, u64 allowed, bool need_compact)
{
	if (!(x->xcomp_bv & XCOMP_COMPACT))
		return !need_compact && !x->xcomp_bv && !x->header[0] && !(x->xstate_bv & ~allowed);
	if (!need_compact && !vcpu_has(v, F_XSAVEC))
		return false;
	return !(x->xcomp_bv & ~XCOMP_COMPACT & ~allowed) && !(x->xstate_bv & ~x->xcomp_bv) &&
		header_tail_clear(x, 0);
}

static void restore_vectors(struct vcpu *v, const struct xsave_image *x, u64 load, u64 init)
{
	struct xsave_image *image = &v->fpu->image;
	unsigned int n = vector_bytes(v);

	if (load & XCR0_SSE)
		memcpy(image->fx.xmm, x->fx.xmm, n);
	if (load & XCR0_AVX)
		memcpy(image->ymmh, x->ymmh, n);
	if (init & XCR0_SSE)
		memset(image->fx.xmm, 0, n);
	if (init & XCR0_AVX)
		memset(image->ymmh, 0, n);
	/* What is initialized only in half stays in use. */
	image->xstate_bv |= load & (XCR0_SSE | XCR0_AVX);
	if (n == sizeof(image->fx.xmm))
		image->xstate_bv &= ~(init & (XCR0_SSE | XCR0_AVX));
}

static void xrstor(struct vcpu *v, const struct insn *i, u64 supervisor, bool need_compact)
{
	u64 ea = x_begin(v, i), allowed = v->xcr0 | supervisor, rfbm = allowed & x_mask(v);
	struct xsave_image *image = &v->fpu->image, x;
	u64 load, init, mxcsr_from;
	bool compact;

	/* Which page faults where several would: as on AMD. */
	mem_probe(v, i->seg, ea, 1, MEM_READ);
	part_load(v, i, ea, &x, offsetof(struct xsave_image, xstate_bv), 64);
	if (!header_valid(v, &x, allowed, need_compact))
		raise_gp(v, 0);
	compact = x.xcomp_bv & XCOMP_COMPACT;
	if (!compact)
		mem_probe(v, i->seg, ea + area_size(rfbm) - 1, 1, MEM_READ);
	load = rfbm & x.xstate_bv;
	init = rfbm & ~x.xstate_bv;
	/* The standard form loads MXCSR even where it initializes the registers. SDM 1 13.8.1 */
	mxcsr_from = compact ? load & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
	if (mxcsr_from || (load & XCR0_X87))
		part_load(v, i, ea, &x, 0, 160);
	if (load & XCR0_SSE)
		part_load(v, i, ea, &x, 160, vector_bytes(v));
	if (load & XCR0_AVX)
		part_load(v, i, ea, &x, XSAVE_AVX_OFFSET, vector_bytes(v));
	if (mxcsr_from && (x.fx.mxcsr & ~v->fpu->mxcsr_mask))
		raise_gp(v, 0);

	if (load & XCR0_X87)
		x87_unpack(v, i, &x.fx);
	if (init & XCR0_X87) {
		fpu_init_x87(v->fpu);
		image->xstate_bv &= ~XCR0_X87;
	}
	if (mxcsr_from)
		image->fx.mxcsr = x.fx.mxcsr;
	else if (compact && (init & XCR0_SSE))
		image->fx.mxcsr = MXCSR_DEFAULT;
	restore_vectors(v, &x, load, init);
}

void exec_xrstor(struct vcpu *v, const struct insn *i)
{
	xrstor(v, i, 0, false);
}

void exec_xrstors(struct vcpu *v, const struct insn *i)
{
	x_privileged(v);
	xrstor(v, i, v->xss & XSS_NONE, true);
}

/* ---- MXCSR --------------------------------------------------------------------------------- */

static void mxcsr_gate(struct vcpu *v, const struct insn *i)
{
	fp_gate(v, i->flags & I_VEX ? FP_AVX : FP_SSE);
}

void exec_ldmxcsr(struct vcpu *v, const struct insn *i)
{
	u32 val;

	mxcsr_gate(v, i);
	val = (u32)insn_load(v, i, 4);
	if (val & ~v->fpu->mxcsr_mask)
		raise_gp(v, 0);
	if (v->fpu_live)
		__asm__ volatile("ldmxcsr %0" : : "m"(val));
	else
		v->fpu->image.fx.mxcsr = val;
}

void exec_stmxcsr(struct vcpu *v, const struct insn *i)
{
	u32 val;

	mxcsr_gate(v, i);
	if (v->fpu_live)
		__asm__ volatile("stmxcsr %0" : "=m"(val));
	else
		val = v->fpu->image.fx.mxcsr;
	insn_store(v, i, 4, val);
}
