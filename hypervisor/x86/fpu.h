/*
 * x87, MMX, SSE and AVX state. Engine code is compiled without vector registers, so while a vCPU
 * runs, its vector state can stay in the host's registers from one guest instruction to the next.
 *
 * fpu_get(v) puts it there (no-op when it is), fpu_put(v) saves it to v->fpu and gives the host
 * clean control words. Whoever is about to call an os_* function from guest context calls fpu_put
 * first; the run loop does so on every way out of the engine.
 */
#ifndef QUMRA_HYPERVISOR_X86_FPU_H
#define QUMRA_HYPERVISOR_X86_FPU_H

#include "hypervisor/x86/vcpu.h"

/* The FXSAVE64 image. SDM 1 table 10-2, 2A FXSAVE table 3-47 */
struct fxsave_image {
	u16 fcw, fsw;
	u8 ftw, reserved; /* abridged tags: bit i is set when physical register i is not empty */
	u16 fop;
	u64 fip, fdp;
	u32 mxcsr, mxcsr_mask;
	u8 st[8][16];		/* by stack position: ST0 first */
	u8 xmm[16][16];
	u8 unused[96];		/* 416..463 reserved, 464..511 free for software */
};
_Static_assert(sizeof(struct fxsave_image) == 512, "SDM 1 10.5.1");

/* The standard (non-compacted) XSAVE image with x87, SSE and AVX. SDM 1 13.4 */
#define XSAVE_SIZE	832
#define XSAVE_AVX_OFFSET 576
struct xsave_image {
	struct fxsave_image fx;
	u64 xstate_bv, xcomp_bv, header[6];
	u8 ymmh[16][16];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct xsave_image) == XSAVE_SIZE, "SDM 1 13.4");
_Static_assert(offsetof(struct xsave_image, ymmh) == XSAVE_AVX_OFFSET, "SDM 1 13.5.3");

struct fpu {
	union {
		u8 xsave[XSAVE_SIZE] __attribute__((aligned(64)));
		struct xsave_image image; /* complete: every component holds its value, whatever
					   * XSTATE_BV says; that is the guest's XINUSE */
	};
	/* Kept by us: the host's own pointers would be those of our code. SDM 1 8.1.8 */
	u64 fip, fdp;
	u16 fcs, fds, fop;
	bool host_xsave, host_avx;	/* what the host's system has turned on */
	bool host_in_use;		/* XGETBV with ECX = 1, and AVX */
	bool pointers_on_error_only; /* AMD: FXSAVE, XSAVE save FOP, FIP, FDP only with ES */
	u32 mxcsr_mask;			/* bits that LDMXCSR may set */
};

#define MXCSR_DEFAULT	0x1f80u
#define FCW_DEFAULT	0x037fu		/* FNINIT */
#define FCW_RESET	0x0040u		/* SDM 3A table 10-1 */
#define FCW_VALID	0x1f7fu		/* the others read as zero, but for bit 6: as one */
#define FCW_ONE		0x0040u
#define FSW_ES		BIT(7)
#define FSW_TOP(fsw)	(((fsw) >> 11) & 7)

int fpu_create(struct vcpu *v);		/* allocates v->fpu; 0 or -ENOMEM */
void fpu_destroy(struct vcpu *v);
void fpu_reset(struct vcpu *v, bool init);	/* power-up, or INIT (which keeps it) */
void fpu_load(struct vcpu *v);		/* the slow half of fpu_get */
void fpu_save(struct vcpu *v);		/* the slow half of fpu_put */

static inline void fpu_get(struct vcpu *v)
{
	if (!v->fpu_live)
		fpu_load(v);
}

static inline void fpu_put(struct vcpu *v)
{
	if (v->fpu_live)
		fpu_save(v);
}

/* XINUSE: bits of components that are not in their initial state. SDM 1 13.6 */
u64 fpu_in_use(struct vcpu *v);

/*
 * Right after each instruction that used the live state (and before any call that does not return).
 * Instrumented host code uses vector registers wherever the compiler's runtime likes, so nothing
 * stays live under ASan.
 */
static inline void fpu_done(struct vcpu *v)
{
#ifdef __SANITIZE_ADDRESS__
	fpu_put(v);
#else
	(void)v;
#endif
}

/* The image of one component set to what FNINIT, or a reset of the others, gives. SDM 1 13.6 */
void fpu_init_x87(struct fpu *f);
void fpu_init_sse(struct fpu *f);	/* XMM registers; MXCSR is left alone */
void fpu_init_avx(struct fpu *f);

/* KVM_GET/SET_FPU, KVM_GET/SET_XSAVE: v->fpu <-> the API's structures. -EINVAL on bad images. */
void fpu_to_kvm(struct vcpu *v, struct kvm_fpu *out);
int fpu_from_kvm(struct vcpu *v, const struct kvm_fpu *in);
void fpu_to_xsave(struct vcpu *v, struct kvm_xsave *out);
int fpu_from_xsave(struct vcpu *v, const struct kvm_xsave *in);

#endif
