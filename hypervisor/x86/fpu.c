/*
 * Moving the guest's x87, SSE, AVX and AVX-512 state between the host's registers and memory, its
 * layout and reset values, and its form in the KVM API. SDM 1 chapters 8, 10, 13 to 15.
 */
#include "hypervisor/x86/fpu.h"

#include <linux/errno.h>

#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/regs.h"

#define XCR0_UP_TO_AVX	(XCR0_X87 | XCR0_SSE | XCR0_AVX)

static u64 host_xgetbv(u32 index)
{
	u32 lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
	return lo | (u64)hi << 32;
}

static const u16 xstate_sizes[NR_XSTATES] = {
	[XSTATE_SSE] = 256, [XSTATE_AVX] = 256, [XSTATE_OPMASK] = 64, [XSTATE_ZMM_HI256] = 512,
	[XSTATE_HI16_ZMM] = 1024,
};

/* Does the host keep this component as we do? */
static bool host_layout_known(unsigned int xstate)
{
	u32 r[4], size = xstate_sizes[xstate];

	os_cpuid(0xd, xstate, r);
	return r[0] == size && r[1] >= XSAVE_SIZE && r[1] + size <= FPU_AREA && !(r[1] & 63);
}

static bool host_avx512(void)
{
	u32 r[4];

	os_cpuid(7, 0, r);
	return r[1] & BIT(16) && r[1] & BIT(30) && host_layout_known(XSTATE_OPMASK) &&
		host_layout_known(XSTATE_ZMM_HI256) && host_layout_known(XSTATE_HI16_ZMM);
}

u64 fpu_host_xcr0(void)
{
	u64 xcr0;
	u32 r[4];

	os_cpuid(1, 0, r);
	if (!(r[2] & BIT(27)) || cpuid_host_plain())
		return 0;
	xcr0 = host_xgetbv(0) & (XCR0_UP_TO_AVX | XCR0_AVX512);
	if ((xcr0 & XCR0_UP_TO_AVX) != XCR0_UP_TO_AVX || !(r[2] & BIT(28)))
		return XCR0_X87 | XCR0_SSE;
	if ((xcr0 & XCR0_AVX512) != XCR0_AVX512 || !host_avx512())
		return XCR0_UP_TO_AVX;
	return xcr0;
}

void xsave_layout_read(struct xsave_layout *l, u64 host_xcr0)
{
	static const u16 amd[NR_XSTATES] = { [XSTATE_SSE] = 160, [XSTATE_AVX] = XSAVE_AVX_OFFSET,
		[XSTATE_OPMASK] = 832, [XSTATE_ZMM_HI256] = 896, [XSTATE_HI16_ZMM] = 1408 };
	u32 r[4];

	memcpy(l->offset, amd, sizeof(amd));
	memcpy(l->size, xstate_sizes, sizeof(l->size));
	l->aligned = 0;
	for (unsigned int k = XSTATE_AVX; k < NR_XSTATES; k++) {
		if (!(host_xcr0 >> k & 1))
			continue;
		os_cpuid(0xd, k, r);
		l->offset[k] = (u16)r[1];
		l->aligned |= r[2] & BIT(1) ? 1u << k : 0;
	}
}

unsigned int xsave_offset(const struct xsave_layout *l, unsigned int xstate, u64 compact)
{
	unsigned int at = XSAVE_AVX_OFFSET;

	if (!compact)
		return l->offset[xstate];
	for (unsigned int k = XSTATE_AVX;; k++) {
		if (l->aligned >> k & 1 && compact >> k & 1)
			at = ALIGN_UP(at, 64u);
		if (k == xstate)
			return at;
		at += compact >> k & 1 ? l->size[k] : 0;
	}
}

unsigned int xsave_size(const struct xsave_layout *l, u64 components, bool compact)
{
	unsigned int end = XSAVE_AVX_OFFSET;

	for (unsigned int k = XSTATE_AVX; k < NR_XSTATES; k++)
		if (components >> k & 1)
			end = MAX(end, xsave_offset(l, k, compact ? components : 0) + l->size[k]);
	return end;
}

/*
 * A processor with five-level paging keeps 57 bits, whether its system uses that paging or not, and
 * CPUID under a hypervisor does not tell. So it is asked.
 */
static u8 host_pointer_bits(void)
{
	struct fxsave_image before __attribute__((aligned(16))), fx __attribute__((aligned(16)));

	__asm__ volatile("fxsave64 %0" : "=m"(before));
	fx = before;
	fx.fcw = FCW_DEFAULT & ~1u;	/* an error is pending: AMD's keep nothing else */
	fx.fsw = FSW_ES | 1;
	fx.fdp = BIT(48);
	__asm__ volatile("fxrstor64 %0; fxsave64 %0; fxrstor64 %1" : "+m"(fx) : "m"(before));
	return fx.fdp == BIT(48) ? 57 : 48;
}

static void fpu_probe_host(struct fpu *f)
{
	u32 r[4];

	os_cpuid(0, 0, r);
	f->pointers_on_error_only = r[2] == 0x444d4163;		/* "AuthenticAMD" */
	f->pointer_bits = host_pointer_bits();
	f->host_xcr0 = fpu_host_xcr0();
	os_cpuid(0xd, 1, r);
	f->host_in_use = f->host_xcr0 & XCR0_AVX && (r[0] & BIT(2));
	__asm__ volatile("fxsave64 %0" : "+m"(f->image.fx));
	/* SDM 1 11.6.6: a mask of zero stands for the processors that had none. */
	f->mxcsr_mask = f->image.fx.mxcsr_mask ? f->image.fx.mxcsr_mask : 0xffbf;
	memset(&f->image, 0, sizeof(f->image));
	f->image.fx.mxcsr_mask = f->mxcsr_mask;
	xsave_layout_read(&f->layout, f->host_xcr0);
}

/* os_alloc promises no alignment for XSAVE: whole pages do. */
#define FPU_ALLOC	ALIGN_UP(sizeof(struct fpu), (size_t)4096)

int fpu_create(struct vcpu *v)
{
	v->fpu = os_pages_alloc(FPU_ALLOC);
	if (!v->fpu)
		return -ENOMEM;
	fpu_probe_host(v->fpu);
	v->fpu_live = false;
	fpu_reset(v, false);
	return 0;
}

void fpu_destroy(struct vcpu *v)
{
	if (v->fpu)
		os_pages_free(v->fpu, FPU_ALLOC);
	v->fpu = NULL;
}

void fpu_init_x87(struct fpu *f)
{
	struct fxsave_image *fx = &f->image.fx;

	fx->fcw = FCW_DEFAULT;
	fx->fsw = 0;
	fx->ftw = 0;
	memset(fx->st, 0, sizeof(fx->st));
	f->fip = f->fdp = 0;
	f->fcs = f->fds = f->fop = 0;
}

void fpu_init_vectors(struct fpu *f, u64 components)
{
	for (unsigned int k = XSTATE_SSE; k < NR_XSTATES; k++)
		if (components >> k & 1)
			memset(f->area + f->layout.offset[k], 0, f->layout.size[k]);
}

/* ---- single registers ------------------------------------------------------------------------ */

/* Of sixteen registers, what the component holds of one. */
static unsigned int part_at(const struct fpu *f, unsigned int xstate, unsigned int n)
{
	return f->layout.offset[xstate] + f->layout.size[xstate] / 16u * (n & 15);
}

void vec_get(const struct fpu *f, unsigned int n, u8 out[64])
{
	if (n >= 16) {
		memcpy(out, f->area + part_at(f, XSTATE_HI16_ZMM, n), 64);
		return;
	}
	memcpy(out, f->image.fx.xmm[n], 16);
	memcpy(out + 16, f->image.ymmh[n], 16);
	memcpy(out + 32, f->area + part_at(f, XSTATE_ZMM_HI256, n), 32);
}

void vec_put(struct fpu *f, unsigned int n, const u8 *in, unsigned int bytes)
{
	u8 val[64];

	memcpy(val, in, bytes);
	memset(val + bytes, 0, sizeof(val) - bytes);
	if (n >= 16) {
		memcpy(f->area + part_at(f, XSTATE_HI16_ZMM, n), val, 64);
		f->image.xstate_bv |= XCR0_HI16_ZMM;
		return;
	}
	memcpy(f->image.fx.xmm[n], val, 16);
	memcpy(f->image.ymmh[n], val + 16, 16);
	memcpy(f->area + part_at(f, XSTATE_ZMM_HI256, n), val + 32, 32);
	f->image.xstate_bv |= XCR0_SSE | XCR0_AVX | (bytes > 32 ? XCR0_ZMM_HI256 : 0);
}

u64 mask_get(const struct fpu *f, unsigned int k)
{
	u64 val;

	memcpy(&val, f->area + f->layout.offset[XSTATE_OPMASK] + 8 * k, 8);
	return val;
}

void mask_put(struct fpu *f, unsigned int k, u64 val)
{
	memcpy(f->area + f->layout.offset[XSTATE_OPMASK] + 8 * k, &val, 8);
	f->image.xstate_bv |= XCR0_OPMASK;
}

/* SDM 3A table 10-1: all of it keeps its value through INIT. */
void fpu_reset(struct vcpu *v, bool init)
{
	struct fpu *f = v->fpu;

	if (init)
		return;
	fpu_put(v);
	fpu_init_x87(f);
	fpu_init_vectors(f, ~0ULL);
	f->image.fx.fcw = FCW_RESET;
	f->image.fx.ftw = 0xff;		/* every register is +0.0, none is empty */
	f->image.fx.mxcsr = MXCSR_DEFAULT;
	f->image.xstate_bv = XCR0_X87;
	f->image.xcomp_bv = 0;
}

/* ---- moving it ------------------------------------------------------------------------------- */

/*
 * XRSTOR and XSAVE take 220 and 130 cycles (Zen 4; Zen 3 270 and 120), FNINIT 80, whatever there is
 * to move. Mostly x87 is in its initial state, which XINUSE tells for certain (SDM 1 13.6): then
 * plain moves of the vector registers do it in a quarter of the time, and there is nothing to clean
 * up. ZMM16 to ZMM31 take 16 cycles to load and 26 to store, the masks 13 and 16.
 */
#define EACH_REG(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define EACH_HI16(X) X(0, 16) X(1, 17) X(2, 18) X(3, 19) X(4, 20) X(5, 21) X(6, 22) X(7, 23) \
	X(8, 24) X(9, 25) X(10, 26) X(11, 27) X(12, 28) X(13, 29) X(14, 30) X(15, 31)
#define EACH_MASK(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define LOW(n)	#n "*16(%0)"
#define LOAD_XMM(n)	"vmovups " LOW(n) ", %%xmm" #n "\n\t"
#define LOAD_HIGH(n)	"vinsertf128 $1, " #n "*16(%1), %%ymm" #n ", %%ymm" #n "\n\t"
#define SAVE_XMM(n)	"vmovups %%xmm" #n ", " LOW(n) "\n\t"
#define SAVE_HIGH(n)	"vextractf128 $1, %%ymm" #n ", " #n "*16(%0)\n\t"
#define LOAD_HI256(n)	"vinsertf64x4 $1, " #n "*32(%0), %%zmm" #n ", %%zmm" #n "\n\t"
#define SAVE_HI256(n)	"vextractf64x4 $1, %%zmm" #n ", " #n "*32(%0)\n\t"
#define LOAD_HI16(k, n)	"vmovups " #k "*64(%0), %%zmm" #n "\n\t"
#define SAVE_HI16(k, n)	"vmovups %%zmm" #n ", " #k "*64(%0)\n\t"
#define ZERO_HI16(k, n)	"vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"
#define LOAD_MASK(n)	"kmovq " #n "*8(%0), %%k" #n "\n\t"
#define SAVE_MASK(n)	"kmovq %%k" #n ", " #n "*8(%0)\n\t"
#define ZERO_MASK(n)	"kxorq %%k" #n ", %%k" #n ", %%k" #n "\n\t"

static u8 *component(struct fpu *f, unsigned int xstate)
{
	return f->area + f->layout.offset[xstate];
}

/*
 * AVX-512's part, after the rest of ZMM0 to ZMM15 was loaded. What the guest does not use may hold
 * what the C library's string functions have left there. (AMD's XINUSE is exact, so it is clear
 * then; Intel's may go on saying "in use", which is allowed.)
 */
static void avx512_load(struct fpu *f, u64 want, u64 in_use)
{
	if (want & XCR0_ZMM_HI256)
		__asm__ volatile(EACH_REG(LOAD_HI256)
			: : "r"(component(f, XSTATE_ZMM_HI256)) : "memory");
	if (want & XCR0_HI16_ZMM)
		__asm__ volatile(EACH_HI16(LOAD_HI16)
			: : "r"(component(f, XSTATE_HI16_ZMM)) : "memory");
	else if (in_use & XCR0_HI16_ZMM)
		__asm__ volatile(EACH_HI16(ZERO_HI16) ::: "memory");
	if (want & XCR0_OPMASK)
		__asm__ volatile(EACH_MASK(LOAD_MASK)
			: : "r"(component(f, XSTATE_OPMASK)) : "memory");
	else if (in_use & XCR0_OPMASK)
		__asm__ volatile(EACH_MASK(ZERO_MASK) ::: "memory");
}

/*
 * ZMM16 to ZMM31 and the masks stay as they are: no C code is the slower for it, and the C library
 * leaves something there as well.
 */
static void avx512_save(struct fpu *f, u64 in_use)
{
	if (in_use & XCR0_ZMM_HI256)
		__asm__ volatile(EACH_REG(SAVE_HI256)
			: : "r"(component(f, XSTATE_ZMM_HI256)) : "memory");
	if (in_use & XCR0_HI16_ZMM)
		__asm__ volatile(EACH_HI16(SAVE_HI16)
			: : "r"(component(f, XSTATE_HI16_ZMM)) : "memory");
	if (in_use & XCR0_OPMASK)
		__asm__ volatile(EACH_MASK(SAVE_MASK)
			: : "r"(component(f, XSTATE_OPMASK)) : "memory");
}

/* A VEX load of an XMM register clears the rest of the ZMM register. SDM 1 14.1.2, 15.5 */
static bool fpu_load_fast(struct fpu *f)
{
	struct xsave_image *x = &f->image;
	u64 in_use;

	if (!f->host_in_use || (x->xstate_bv & (XCR0_X87 | XCR0_SSE)) != XCR0_SSE)
		return false;
	in_use = host_xgetbv(1);
	if (in_use & XCR0_X87)
		return false;
	if (x->xstate_bv & XCR0_AVX)
		__asm__ volatile(EACH_REG(LOAD_XMM) EACH_REG(LOAD_HIGH)
			: : "r"(x->fx.xmm), "r"(x->ymmh) : "memory");
	else
		__asm__ volatile(EACH_REG(LOAD_XMM) : : "r"(x->fx.xmm) : "memory");
	if (f->live & XCR0_AVX512)
		avx512_load(f, x->xstate_bv, in_use);
	__asm__ volatile("ldmxcsr %0" : : "m"(x->fx.mxcsr));
	return true;
}

/* The image becomes that of components in their initial state, as XSAVE would write it. */
static void image_init(struct fpu *f, u64 components)
{
	struct fxsave_image *fx = &f->image.fx;

	if (components & XCR0_X87) {
		fx->fcw = FCW_DEFAULT;
		fx->fsw = 0;
		fx->ftw = 0;
		memset(fx->st, 0, sizeof(fx->st));
	}
	fpu_init_vectors(f, components & ~XCR0_SSE);
}

static const u32 clean_mxcsr = MXCSR_DEFAULT;

static bool fpu_save_fast(struct fpu *f)
{
	struct xsave_image *x = &f->image;
	u64 in_use, idle;

	if (!f->host_in_use)
		return false;
	in_use = host_xgetbv(1) & f->live;
	if (in_use & XCR0_X87)
		return false;
	idle = x->xstate_bv & f->live & ~in_use;
	if (unlikely(idle))
		image_init(f, idle);
	__asm__ volatile(EACH_REG(SAVE_XMM) : : "r"(x->fx.xmm) : "memory");
	if (in_use & XCR0_AVX)
		__asm__ volatile(EACH_REG(SAVE_HIGH) : : "r"(x->ymmh) : "memory");
	if (in_use & XCR0_AVX512)
		avx512_save(f, in_use);
	if (in_use & (XCR0_AVX | XCR0_ZMM_HI256))
		__asm__ volatile("vzeroupper");
	__asm__ volatile("stmxcsr %0; ldmxcsr %1" : "=m"(x->fx.mxcsr) : "m"(clean_mxcsr));
	x->xstate_bv = (x->xstate_bv & ~f->live) | in_use;
	return true;
}

/*
 * Of a guest that has not turned AVX-512 on, that state is not in the host's registers: whatever
 * they hold, it cannot tell.
 */
void fpu_load(struct vcpu *v)
{
	struct fpu *f = v->fpu;

	v->fpu_live = true;
	f->live = f->host_xcr0 & (XCR0_UP_TO_AVX | (v->xcr0 & XCR0_AVX512));
	if (likely(fpu_load_fast(f)))
		return;
	if (f->live)
		__asm__ volatile("xrstor64 %0" : : "m"(f->area), "a"((u32)f->live), "d"(0));
	else
		__asm__ volatile("fxrstor64 %0" : : "m"(f->image.fx));
}

void fpu_save(struct vcpu *v)
{
	struct fpu *f = v->fpu;

	v->fpu_live = false;
	if (likely(fpu_save_fast(f)))
		return;
	if (f->live) {
		__asm__ volatile("xsave64 %0" : "+m"(f->area) : "a"((u32)f->live), "d"(0));
	} else {
		__asm__ volatile("fxsave64 %0" : "+m"(f->image.fx));
		f->image.xstate_bv = XCR0_X87 | XCR0_SSE;
	}
	__asm__ volatile("fninit; ldmxcsr %0" : : "m"(clean_mxcsr));
	if (f->live & XCR0_AVX)
		__asm__ volatile("vzeroupper");
}

/* Guests ask only where the host has XGETBV with ECX = 1. */
u64 fpu_in_use(struct vcpu *v)
{
	const struct fpu *f = v->fpu;
	u64 saved = f->image.xstate_bv;

	return v->fpu_live ? (saved & ~f->live) | (host_xgetbv(1) & f->live) : saved;
}

/* ---- the KVM API's forms ------------------------------------------------------------------- */

void fpu_to_kvm(struct vcpu *v, struct kvm_fpu *out)
{
	const struct fpu *f = v->fpu;
	const struct fxsave_image *fx = &f->image.fx;

	fpu_put(v);
	memset(out, 0, sizeof(*out));
	memcpy(out->fpr, fx->st, sizeof(out->fpr));
	out->fcw = fx->fcw;
	out->fsw = fx->fsw;
	out->ftwx = fx->ftw;
	out->last_opcode = f->fop;
	out->last_ip = f->fip;
	out->last_dp = f->fdp;
	memcpy(out->xmm, fx->xmm, sizeof(out->xmm));
	out->mxcsr = fx->mxcsr;
}

int fpu_from_kvm(struct vcpu *v, const struct kvm_fpu *in)
{
	struct fpu *f = v->fpu;
	struct fxsave_image *fx = &f->image.fx;

	if (in->mxcsr & ~f->mxcsr_mask)
		return -EINVAL;
	fpu_put(v);
	memcpy(fx->st, in->fpr, sizeof(fx->st));
	fx->fcw = in->fcw;
	fx->fsw = in->fsw;
	fx->ftw = in->ftwx;
	f->fop = in->last_opcode & 0x7ff;
	f->fip = in->last_ip;
	f->fdp = in->last_dp;
	f->fcs = f->fds = 0;
	memcpy(fx->xmm, in->xmm, sizeof(fx->xmm));
	fx->mxcsr = in->mxcsr;
	f->image.xstate_bv |= XCR0_X87 | XCR0_SSE;
	return 0;
}

/*
 * As Linux since 6.1.58: only components that the guest's CPUID has are told of, so that a host
 * without the others takes the image; but what comes may have them.
 */
static u64 components_told(const struct vcpu *v)
{
	return v->cpuid_n ? cpuid_xcr0(v) | XCR0_X87 | XCR0_SSE : ~0ULL;
}

void fpu_to_xsave(struct vcpu *v, struct kvm_xsave *out)
{
	struct fpu *f = v->fpu;
	struct xsave_image *x = (struct xsave_image *)out->region;
	struct fxsave_image *fx = &x->fx;
	u64 told = components_told(v);

	fpu_put(v);
	memset(out->region, 0, sizeof(out->region));
	memcpy(out->region, f->area, sizeof(f->area));
	fx->fop = f->fop;
	fx->fip = f->fip;
	fx->fdp = f->fdp;
	fx->mxcsr_mask = f->mxcsr_mask;
	memset(fx->unused, 0, sizeof(fx->unused));
	x->xstate_bv &= told;
	for (unsigned int k = XSTATE_AVX; k < NR_XSTATES; k++)
		if (!(told >> k & 1))
			memset((u8 *)x + f->layout.offset[k], 0, f->layout.size[k]);
}

/* Linux's validate_user_xstate_header() and fpu_copy_uabi_to_guest_fpstate(). */
static bool xsave_valid(struct vcpu *v, const struct xsave_image *in)
{
	u64 have = v->fpu->host_xcr0 | XCR0_X87 | XCR0_SSE;

	if (in->xstate_bv & ~have || in->xcomp_bv)
		return false;
	for (unsigned int k = 0; k < ARRAY_SIZE(in->header); k++)
		if (in->header[k])
			return false;
	return !(in->xstate_bv & XCR0_UP_TO_AVX) || !(in->fx.mxcsr & ~v->fpu->mxcsr_mask);
}

/* Takes over the components that XSTATE_BV names and initializes the others. SDM 1 13.8.1 */
int fpu_from_xsave(struct vcpu *v, const struct kvm_xsave *in)
{
	struct fpu *f = v->fpu;
	struct xsave_image x;

	memcpy(&x, in->region, sizeof(x));
	if (!xsave_valid(v, &x))
		return -EINVAL;
	fpu_put(v);
	memcpy(f->area, in->region, sizeof(f->area));
	f->image.fx.mxcsr_mask = f->mxcsr_mask;
	f->fop = x.fx.fop & 0x7ff;
	f->fip = x.fx.fip;
	f->fdp = x.fx.fdp;
	f->fcs = f->fds = 0;
	if (!(x.xstate_bv & XCR0_X87))
		fpu_init_x87(f);
	fpu_init_vectors(f, ~x.xstate_bv);
	if (!(x.xstate_bv & (XCR0_SSE | XCR0_AVX)))
		f->image.fx.mxcsr = MXCSR_DEFAULT;
	return 0;
}
