/*
 * Moving the guest's x87, SSE and AVX state between the host's registers and memory, its reset
 * values, and its form in the KVM API. SDM 1 chapters 8, 10 and 13.
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

/* Does the host keep this component as we do? */
static bool host_layout_known(unsigned int xstate, unsigned int size)
{
	u32 r[4];

	os_cpuid(0xd, xstate, r);
	return r[0] == size && r[1] >= XSAVE_SIZE && r[1] + size <= FPU_AREA && !(r[1] & 63);
}

static bool host_avx512(void)
{
	u32 r[4];

	os_cpuid(7, 0, r);
	return r[1] & BIT(16) && r[1] & BIT(30) &&
		host_layout_known(XSTATE_OPMASK, XSAVE_OPMASK_SIZE) &&
		host_layout_known(XSTATE_ZMM_HI256, XSAVE_ZMM_HI256_SIZE) &&
		host_layout_known(XSTATE_HI16_ZMM, XSAVE_HI16_ZMM_SIZE);
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

/* AMD's offsets, where the host has no AVX-512: nothing moves what lies there. */
static void fpu_probe_offsets(struct fpu *f)
{
	static const u16 amd[NR_XSTATES] = { [XSTATE_SSE] = 160, [XSTATE_AVX] = XSAVE_AVX_OFFSET,
		[XSTATE_OPMASK] = 832, [XSTATE_ZMM_HI256] = 896, [XSTATE_HI16_ZMM] = 1408 };
	u32 r[4];

	memcpy(f->offset, amd, sizeof(amd));
	if (!(f->host_xcr0 & XCR0_AVX512))
		return;
	for (unsigned int k = XSTATE_OPMASK; k < NR_XSTATES; k++) {
		os_cpuid(0xd, k, r);
		f->offset[k] = (u16)r[1];
	}
}

static void fpu_probe_host(struct fpu *f)
{
	u32 r[4];

	os_cpuid(0, 0, r);
	f->pointers_on_error_only = r[2] == 0x444d4163;		/* "AuthenticAMD" */
	f->host_xcr0 = fpu_host_xcr0();
	os_cpuid(0xd, 1, r);
	f->host_in_use = f->host_xcr0 & XCR0_AVX && (r[0] & BIT(2));
	__asm__ volatile("fxsave64 %0" : "+m"(f->image.fx));
	/* SDM 1 11.6.6: a mask of zero stands for the processors that had none. */
	f->mxcsr_mask = f->image.fx.mxcsr_mask ? f->image.fx.mxcsr_mask : 0xffbf;
	memset(&f->image, 0, sizeof(f->image));
	f->image.fx.mxcsr_mask = f->mxcsr_mask;
	fpu_probe_offsets(f);
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

void fpu_init_sse(struct fpu *f)
{
	memset(f->image.fx.xmm, 0, sizeof(f->image.fx.xmm));
}

void fpu_init_avx(struct fpu *f)
{
	memset(f->image.ymmh, 0, sizeof(f->image.ymmh));
}

/* ---- single registers ------------------------------------------------------------------------ */

/* A ZMM register in the area: 16 bytes, 16 and 32, or 64 in one piece. SDM 1 13.5 */
static const u8 *zmm_part(const struct fpu *f, unsigned int n, unsigned int xstate)
{
	unsigned int size = xstate == XSTATE_HI16_ZMM ? 64 : xstate == XSTATE_ZMM_HI256 ? 32 : 16;

	return f->area + f->offset[xstate] + size * (n & 15);
}

void vec_get(const struct fpu *f, unsigned int n, u8 out[64])
{
	if (n >= 16) {
		memcpy(out, zmm_part(f, n, XSTATE_HI16_ZMM), 64);
		return;
	}
	memcpy(out, f->image.fx.xmm[n], 16);
	memcpy(out + 16, f->image.ymmh[n], 16);
	memcpy(out + 32, zmm_part(f, n, XSTATE_ZMM_HI256), 32);
}

void vec_put(struct fpu *f, unsigned int n, const u8 *in, unsigned int bytes)
{
	u8 val[64];

	memcpy(val, in, bytes);
	memset(val + bytes, 0, sizeof(val) - bytes);
	if (n >= 16) {
		memcpy((u8 *)zmm_part(f, n, XSTATE_HI16_ZMM), val, 64);
		f->image.xstate_bv |= XCR0_HI16_ZMM;
		return;
	}
	memcpy(f->image.fx.xmm[n], val, 16);
	memcpy(f->image.ymmh[n], val + 16, 16);
	memcpy((u8 *)zmm_part(f, n, XSTATE_ZMM_HI256), val + 32, 32);
	f->image.xstate_bv |= XCR0_SSE | XCR0_AVX | (bytes > 32 ? XCR0_ZMM_HI256 : 0);
}

u64 mask_get(const struct fpu *f, unsigned int k)
{
	u64 val;

	memcpy(&val, f->area + f->offset[XSTATE_OPMASK] + 8 * k, 8);
	return val;
}

void mask_put(struct fpu *f, unsigned int k, u64 val)
{
	memcpy(f->area + f->offset[XSTATE_OPMASK] + 8 * k, &val, 8);
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
	fpu_init_sse(f);
	fpu_init_avx(f);
	f->image.fx.fcw = FCW_RESET;
	f->image.fx.ftw = 0xff;		/* every register is +0.0, none is empty */
	f->image.fx.mxcsr = MXCSR_DEFAULT;
	f->image.xstate_bv = XCR0_X87;
	f->image.xcomp_bv = 0;
}

/* ---- moving it ------------------------------------------------------------------------------- */

/*
 * XRSTOR and XSAVE take 270 and 120 cycles (Zen 3), FNINIT 80, whatever there is to move. Mostly x87
 * is in its initial state, which XINUSE tells for certain (SDM 1 13.6): then plain moves of the
 * vector registers do it in a quarter of the time, and there is nothing to clean up.
 */
#define EACH_REG(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define LOW(n)	#n "*16(%0)"
#define LOAD_XMM(n)	"vmovups " LOW(n) ", %%xmm" #n "\n\t"
#define LOAD_HIGH(n)	"vinsertf128 $1, " #n "*16(%1), %%ymm" #n ", %%ymm" #n "\n\t"
#define SAVE_XMM(n)	"vmovups %%xmm" #n ", " LOW(n) "\n\t"
#define SAVE_HIGH(n)	"vextractf128 $1, %%ymm" #n ", " #n "*16(%0)\n\t"

/* A VEX load of an XMM register clears the rest of the YMM register. SDM 1 14.1.2 */
static bool fpu_load_fast(struct fpu *f)
{
	struct xsave_image *x = &f->image;

	if (!f->host_in_use || (x->xstate_bv & (XCR0_X87 | XCR0_SSE)) != XCR0_SSE ||
		host_xgetbv(1) & XCR0_X87)
		return false;
	if (x->xstate_bv & XCR0_AVX)
		__asm__ volatile(EACH_REG(LOAD_XMM) EACH_REG(LOAD_HIGH)
			: : "r"(x->fx.xmm), "r"(x->ymmh) : "memory");
	else
		__asm__ volatile(EACH_REG(LOAD_XMM) : : "r"(x->fx.xmm) : "memory");
	__asm__ volatile("ldmxcsr %0" : : "m"(x->fx.mxcsr));
	return true;
}

/* The image becomes that of components in their initial state, as XSAVE would write it. */
static void image_init(struct xsave_image *x, u64 components)
{
	if (components & XCR0_X87) {
		x->fx.fcw = FCW_DEFAULT;
		x->fx.fsw = 0;
		x->fx.ftw = 0;
		memset(x->fx.st, 0, sizeof(x->fx.st));
	}
	if (components & XCR0_AVX)
		memset(x->ymmh, 0, sizeof(x->ymmh));
}

static const u32 clean_mxcsr = MXCSR_DEFAULT;

static bool fpu_save_fast(struct fpu *f)
{
	struct xsave_image *x = &f->image;
	u64 in_use;

	if (!f->host_in_use)
		return false;
	in_use = host_xgetbv(1) & XCR0_UP_TO_AVX;
	if (in_use & XCR0_X87)
		return false;
	if (unlikely(x->xstate_bv & ~in_use))
		image_init(x, x->xstate_bv & ~in_use);
	__asm__ volatile(EACH_REG(SAVE_XMM) : : "r"(x->fx.xmm) : "memory");
	if (in_use & XCR0_AVX)
		__asm__ volatile(EACH_REG(SAVE_HIGH) "vzeroupper" : : "r"(x->ymmh) : "memory");
	__asm__ volatile("stmxcsr %0; ldmxcsr %1" : "=m"(x->fx.mxcsr) : "m"(clean_mxcsr));
	x->xstate_bv = in_use;
	return true;
}

void fpu_load(struct vcpu *v)
{
	struct fpu *f = v->fpu;

	v->fpu_live = true;
	if (likely(fpu_load_fast(f)))
		return;
	if (f->host_xcr0)
		__asm__ volatile("xrstor64 %0" : : "m"(f->image), "a"(XCR0_UP_TO_AVX), "d"(0));
	else
		__asm__ volatile("fxrstor64 %0" : : "m"(f->image.fx));
}

void fpu_save(struct vcpu *v)
{
	struct fpu *f = v->fpu;

	v->fpu_live = false;
	if (likely(fpu_save_fast(f)))
		return;
	if (f->host_xcr0) {
		__asm__ volatile("xsave64 %0" : "+m"(f->image) : "a"(XCR0_UP_TO_AVX), "d"(0));
	} else {
		__asm__ volatile("fxsave64 %0" : "+m"(f->image.fx));
		f->image.xstate_bv = XCR0_X87 | XCR0_SSE;
	}
	__asm__ volatile("fninit; ldmxcsr %0" : : "m"(clean_mxcsr));
	if (f->host_xcr0 & XCR0_AVX)
		__asm__ volatile("vzeroupper");
}

/* Guests ask only where the host has XGETBV with ECX = 1. */
u64 fpu_in_use(struct vcpu *v)
{
	return v->fpu_live ? host_xgetbv(1) & XCR0_UP_TO_AVX : v->fpu->image.xstate_bv;
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

void fpu_to_xsave(struct vcpu *v, struct kvm_xsave *out)
{
	struct fpu *f = v->fpu;
	struct xsave_image x;

	fpu_put(v);
	x = f->image;
	x.fx.fop = f->fop;
	x.fx.fip = f->fip;
	x.fx.fdp = f->fdp;
	x.fx.mxcsr_mask = f->mxcsr_mask;
	memset(x.fx.unused, 0, sizeof(x.fx.unused));
	memset(out->region, 0, sizeof(out->region));
	memcpy(out->region, &x, sizeof(x));
}

/* Takes over the components that XSTATE_BV names and initializes the others. SDM 1 13.8.1 */
int fpu_from_xsave(struct vcpu *v, const struct kvm_xsave *in)
{
	struct fpu *f = v->fpu;
	struct xsave_image x;
	u64 have = f->host_xcr0 & XCR0_AVX ? XCR0_UP_TO_AVX : XCR0_X87 | XCR0_SSE;

	memcpy(&x, in->region, sizeof(x));
	if ((x.xstate_bv & ~have) || x.xcomp_bv || (x.fx.mxcsr & ~f->mxcsr_mask))
		return -EINVAL;
	fpu_put(v);
	f->image = x;
	f->image.fx.mxcsr_mask = f->mxcsr_mask;
	memset(f->image.header, 0, sizeof(f->image.header));
	f->fop = x.fx.fop & 0x7ff;
	f->fip = x.fx.fip;
	f->fdp = x.fx.fdp;
	f->fcs = f->fds = 0;
	if (!(x.xstate_bv & XCR0_X87))
		fpu_init_x87(f);
	if (!(x.xstate_bv & XCR0_SSE))
		fpu_init_sse(f);
	if (!(x.xstate_bv & XCR0_AVX))
		fpu_init_avx(f);
	if (!(x.xstate_bv & (XCR0_SSE | XCR0_AVX)))
		f->image.fx.mxcsr = MXCSR_DEFAULT;
	return 0;
}
