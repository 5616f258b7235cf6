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

#define HEADER_AT	offsetof(struct xsave_image, xstate_bv)
#define X87_HEAD_SIZE	24u
#define MXCSR_AT	offsetof(struct fxsave_image, mxcsr)
#define MXCSR_SIZE	8u		/* with its mask */
#define X87_REGS_AT	offsetof(struct fxsave_image, st)
#define X87_REGS_SIZE	128u
#define LEGACY_XMM_AT	offsetof(struct fxsave_image, xmm)

/* A piece of an area: where in guest memory, and what is stored there or comes from there. */
struct part {
	u16 at, len;
	u8 xstate;	/* when restored: its component */
	const u8 *data;
};

struct parts {
	unsigned int n;
	struct part part[NR_XSTATES + 3];
};

static void part_add(struct parts *p, unsigned int at, unsigned int len, const void *data)
{
	p->part[p->n++] = (struct part){ .at = (u16)at, .len = (u16)len, .data = data };
}

static void part_add_x87(struct parts *p, const struct fxsave_image *fx, const struct fpu *f)
{
	part_add(p, 0, X87_HEAD_SIZE, fx);
	part_add(p, X87_REGS_AT, X87_REGS_SIZE, f->image.fx.st);
}

static void part_add_mxcsr(struct parts *p, const struct fxsave_image *fx)
{
	part_add(p, MXCSR_AT, MXCSR_SIZE, &fx->mxcsr);
}

/*
 * Bytes of a vector component that move. Outside 64-bit mode registers 8 to 31 are neither saved nor
 * restored. SDM 1 13.5, 13.13
 */
static unsigned int moving_bytes(const struct vcpu *v, unsigned int xstate)
{
	unsigned int size = v->fpu->layout.size[xstate];

	if (vcpu_64bit(v) || xstate == XSTATE_OPMASK)
		return size;
	return xstate == XSTATE_HI16_ZMM ? 0 : size / 2;
}

/* Vector components, in an area of the standard form, or with these components (compact). */
static void parts_add_vectors(
	const struct vcpu *v, struct parts *p, u64 components, u64 compact)
{
	const struct fpu *f = v->fpu;

	for (unsigned int k = XSTATE_SSE; k < NR_XSTATES; k++) {
		unsigned int len;

		if (!(components >> k & 1))
			continue;
		len = moving_bytes(v, k);
		if (!len)
			continue;
		part_add(p, k == XSTATE_SSE ? LEGACY_XMM_AT : xsave_offset(&f->layout, k, compact),
			len, f->area + f->layout.offset[k]);
		p->part[p->n - 1].xstate = (u8)k;
	}
}

/* Bytes of an area that are at hand. */
static void *area_hit(
	struct vcpu *v, const struct insn *i, u64 ea, unsigned int len, bool write)
{
	return mem_hit(v, i->seg, mem_wrap(v, ea), len, write);
}

static void part_probe(struct vcpu *v, const struct insn *i, u64 ea, struct part p)
{
	for (unsigned int at = 0; at < p.len; at += COPY_MAX)
		mem_probe(v, i->seg, ea + p.at + at, MIN(COPY_MAX, p.len - at), MEM_WRITE);
}

static void part_store(struct vcpu *v, const struct insn *i, u64 ea, struct part p)
{
	void *to = area_hit(v, i, ea + p.at, p.len, true);

	if (likely(to)) {
		memcpy(to, p.data, p.len);
		return;
	}
	for (unsigned int at = 0; at < p.len; at += COPY_MAX)
		mem_copy_out(v, i->seg, ea + p.at + at, p.data + at, MIN(COPY_MAX, p.len - at));
}

static void parts_store(struct vcpu *v, const struct insn *i, u64 ea, const struct parts *p)
{
	for (unsigned int k = 0; k < p->n; k++)
		if (unlikely(!area_hit(v, i, ea + p->part[k].at, p->part[k].len, true)))
			part_probe(v, i, ea, p->part[k]);
	for (unsigned int k = 0; k < p->n; k++)
		part_store(v, i, ea, p->part[k]);
}

static void area_load(
	struct vcpu *v, const struct insn *i, u64 ea, void *to, unsigned int len)
{
	const void *from = area_hit(v, i, ea, len, false);

	if (likely(from)) {
		memcpy(to, from, len);
		return;
	}
	for (unsigned int at = 0; at < len; at += COPY_MAX)
		mem_copy_in(v, i->seg, ea + at, (u8 *)to + at, MIN(COPY_MAX, len - at));
}

/* Where the parts' bytes are: in guest memory, or brought to room. */
static void parts_find(struct vcpu *v, const struct insn *i, u64 ea, struct parts *p, u8 *room)
{
	for (unsigned int k = 0; k < p->n; k++) {
		struct part *q = &p->part[k];

		q->data = area_hit(v, i, ea + q->at, q->len, false);
		if (likely(q->data))
			continue;
		area_load(v, i, ea + q->at, room, q->len);
		q->data = room;
		room += q->len;
	}
}

static void byte_probe(struct vcpu *v, const struct insn *i, u64 ea, enum mem_access acc)
{
	if (unlikely(!area_hit(v, i, ea, 1, acc == MEM_WRITE)))
		mem_probe(v, i->seg, ea, 1, acc);
}

/* The ends of XSAVE's area fault first, as on AMD; the manuals leave the order open. */
static void probe_ends(struct vcpu *v, const struct insn *i, u64 ea, unsigned int size)
{
	byte_probe(v, i, ea, MEM_WRITE);
	byte_probe(v, i, ea + size - 1, MEM_WRITE);
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

/* As wide pointers come back. */
static u64 pointer_canonical(const struct fpu *f, u64 ptr)
{
	unsigned int unused = 64 - f->pointer_bits;

	return (u64)((s64)(ptr << unused) >> unused);
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
	f->fip = wide ? pointer_canonical(f, in->fip) : (u32)in->fip;
	f->fdp = wide ? pointer_canonical(f, in->fdp) : (u32)in->fdp;
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

/* What lies before the x87 registers. */
static void head_pack(const struct vcpu *v, const struct insn *i, struct fxsave_image *fx)
{
	memcpy(fx, &v->fpu->image.fx, X87_REGS_AT);
	pointers_pack(v, i, fx);
	fx->reserved = 0;
	fx->mxcsr_mask = v->fpu->mxcsr_mask;
}

void exec_fxsave(struct vcpu *v, const struct insn *i)
{
	u64 ea = fx_begin(v, i);
	struct fxsave_image fx;
	struct parts p = { 0 };

	byte_probe(v, i, ea + sizeof(fx) - 1, MEM_WRITE);	/* first, as on AMD */
	head_pack(v, i, &fx);
	part_add_x87(&p, &fx, v->fpu);
	part_add_mxcsr(&p, &fx);
	if ((v->cr4 & CR4_OSFXSR) && !fx_without_xmm(v))
		parts_add_vectors(v, &p, XCR0_SSE, 0);
	parts_store(v, i, ea, &p);
}

void exec_fxrstor(struct vcpu *v, const struct insn *i)
{
	u64 ea = fx_begin(v, i);
	struct xsave_image *image = &v->fpu->image;
	struct fxsave_image fx;

	byte_probe(v, i, ea + sizeof(fx) - 1, MEM_READ);	/* first, as on AMD */
	area_load(v, i, ea, &fx, sizeof(fx));
	if ((v->cr4 & CR4_OSFXSR) && (fx.mxcsr & ~v->fpu->mxcsr_mask))
		raise_gp(v, 0);
	x87_unpack(v, i, &fx);
	if (!(v->cr4 & CR4_OSFXSR))
		return;
	image->fx.mxcsr = fx.mxcsr;
	if (!fx_without_xmm(v))
		memcpy(image->fx.xmm, fx.xmm, moving_bytes(v, XSTATE_SSE));
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

/* SDM 1 13.7 and, with optimize, 13.9: components in their initial state are left out. */
static void xsave_standard(struct vcpu *v, const struct insn *i, bool optimize)
{
	u64 ea = x_begin(v, i), rfbm = v->xcr0 & x_mask(v), inuse = v->fpu->image.xstate_bv;
	u64 save = optimize ? rfbm & inuse : rfbm, bv;
	struct parts p = { 0 };
	struct fxsave_image fx;

	probe_ends(v, i, ea, xsave_size(&v->fpu->layout, rfbm, false));
	head_pack(v, i, &fx);
	area_load(v, i, ea + HEADER_AT, &bv, sizeof(bv));
	bv = (bv & ~rfbm) | (inuse & rfbm);
	if (save & XCR0_X87)
		part_add_x87(&p, &fx, v->fpu);
	if (rfbm & (XCR0_SSE | XCR0_AVX))
		part_add_mxcsr(&p, &fx);
	parts_add_vectors(v, &p, save, 0);
	part_add(&p, HEADER_AT, sizeof(bv), &bv);
	parts_store(v, i, ea, &p);
}

/* SDM 1 13.10, 13.11. */
static void xsave_compact(struct vcpu *v, const struct insn *i, u64 supervisor)
{
	u64 ea = x_begin(v, i), rfbm = (v->xcr0 | supervisor) & x_mask(v);
	u64 inuse = v->fpu->image.xstate_bv, header[2];
	struct parts p = { 0 };
	struct fxsave_image fx;

	probe_ends(v, i, ea, xsave_size(&v->fpu->layout, rfbm, true));
	head_pack(v, i, &fx);
	if (fx.mxcsr != MXCSR_DEFAULT)
		inuse |= XCR0_SSE;
	header[0] = rfbm & inuse;
	header[1] = rfbm | XCOMP_COMPACT;
	if (header[0] & XCR0_X87)
		part_add_x87(&p, &fx, v->fpu);
	if (header[0] & XCR0_SSE)
		part_add_mxcsr(&p, &fx);
	parts_add_vectors(v, &p, header[0], header[1]);
	part_add(&p, HEADER_AT, sizeof(header), header);
	parts_store(v, i, ea, &p);
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

struct header {
	u64 xstate_bv, xcomp_bv, tail[6];
};

static bool header_tail_clear(const struct header *h)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(h->tail); k++)
		if (h->tail[k])
			return false;
	return true;
}

/* SDM 1 13.8.1: bytes 23:8 of the header must be 0. 13.8.2: all but XSTATE_BV and XCOMP_BV must. */
static bool header_valid(
	const struct vcpu *v, const struct header *h, u64 allowed, bool need_compact)
{
	if (!(h->xcomp_bv & XCOMP_COMPACT))
		return !need_compact && !h->xcomp_bv && !h->tail[0] && !(h->xstate_bv & ~allowed);
	if (!need_compact && !vcpu_has(v, F_XSAVEC))
		return false;
	return !(h->xcomp_bv & ~XCOMP_COMPACT & ~allowed) && !(h->xstate_bv & ~h->xcomp_bv) &&
		header_tail_clear(h);
}

/* Clears components; what is initialized only in half stays in use. */
static void vectors_init(struct vcpu *v, u64 components)
{
	struct fpu *f = v->fpu;

	for (unsigned int k = XSTATE_SSE; k < NR_XSTATES; k++) {
		unsigned int len = moving_bytes(v, k);

		if (!(components >> k & 1))
			continue;
		memset(f->area + f->layout.offset[k], 0, len);
		if (len == f->layout.size[k])
			f->image.xstate_bv &= ~BIT(k);
	}
}

static void vectors_load(struct vcpu *v, const struct parts *p)
{
	struct fpu *f = v->fpu;

	for (const struct part *q = p->part; q < p->part + p->n; q++) {
		memcpy(f->area + f->layout.offset[q->xstate], q->data, q->len);
		f->image.xstate_bv |= BIT(q->xstate);
	}
}

/* Where what is to be loaded ends: that faults first, as on AMD. */
static unsigned int compact_end(const struct vcpu *v, u64 load, u64 compact)
{
	const struct xsave_layout *l = &v->fpu->layout;
	unsigned int k = NR_XSTATES;

	while (--k >= XSTATE_AVX)
		if (load >> k & 1)
			return xsave_offset(l, k, compact) + l->size[k];
	return XSAVE_AVX_OFFSET;
}

static void xrstor(struct vcpu *v, const struct insn *i, u64 supervisor, bool need_compact)
{
	u64 ea = x_begin(v, i), allowed = v->xcr0 | supervisor, rfbm = allowed & x_mask(v);
	u64 load, init, mxcsr_from, compact;
	struct fxsave_image *now = &v->fpu->image.fx, fx;
	struct parts p = { 0 };
	struct header h;
	u8 room[FPU_AREA];
	unsigned int end;

	/* Which page faults where several would: as on AMD. */
	byte_probe(v, i, ea, MEM_READ);
	area_load(v, i, ea + HEADER_AT, &h, sizeof(h));
	if (!header_valid(v, &h, allowed, need_compact))
		raise_gp(v, 0);
	compact = h.xcomp_bv;
	load = rfbm & h.xstate_bv;
	init = rfbm & ~h.xstate_bv;
	end = compact ? compact_end(v, load, compact) : xsave_size(&v->fpu->layout, rfbm, false);
	byte_probe(v, i, ea + end - 1, MEM_READ);
	/* The standard form loads MXCSR even where it initializes the registers. SDM 1 13.8.1 */
	mxcsr_from = compact ? load & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
	if (mxcsr_from || (load & XCR0_X87))
		area_load(v, i, ea, &fx, LEGACY_XMM_AT);
	parts_add_vectors(v, &p, load, compact);
	parts_find(v, i, ea, &p, room);
	if (mxcsr_from && (fx.mxcsr & ~v->fpu->mxcsr_mask))
		raise_gp(v, 0);

	if (load & XCR0_X87)
		x87_unpack(v, i, &fx);
	if (init & XCR0_X87) {
		fpu_init_x87(v->fpu);
		v->fpu->image.xstate_bv &= ~XCR0_X87;
	}
	if (mxcsr_from)
		now->mxcsr = fx.mxcsr;
	else if (compact && (init & XCR0_SSE))
		now->mxcsr = MXCSR_DEFAULT;
	vectors_load(v, &p);
	vectors_init(v, init);
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
