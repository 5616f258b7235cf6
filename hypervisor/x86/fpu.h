/*
 * x87, MMX, SSE, AVX and AVX-512 state. Engine code is compiled without vector registers, so while a vCPU
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

/* State components, by number. SDM 1 13.1 */
enum {
	XSTATE_X87, XSTATE_SSE, XSTATE_AVX, XSTATE_OPMASK = 5, XSTATE_ZMM_HI256, XSTATE_HI16_ZMM,
	NR_XSTATES,
};

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

/*
 * The same with AVX-512, whose parts lie where the host's CPUID leaf 0xD says: at 832, 896 and 1408
 * (AMD), or at 1088, 1152 and 1664 (Intel, where MPX lies between).
 */
#define FPU_AREA	2688u

/* Where components lie, as CPUID leaf 0xD says it. Those below AVX have their place in the legacy
 * area. SDM 1 13.4.2, 13.4.3 */
struct xsave_layout {
	u16 offset[NR_XSTATES], size[NR_XSTATES];
	u8 aligned;		/* bits of those that the compacted form aligns */
};

/* That of a host with these components (fpu_host_xcr0()); AVX-512's where there is none: AMD's. */
void xsave_layout_read(struct xsave_layout *l, u64 host_xcr0);
/* Of a component past the legacy area; compact: all components of that area, 0: standard form. */
unsigned int xsave_offset(const struct xsave_layout *l, unsigned int xstate, u64 compact);
/* Bytes of an area with these components. */
unsigned int xsave_size(const struct xsave_layout *l, u64 components, bool compact);

struct fpu {
	union {
		u8 area[FPU_AREA] __attribute__((aligned(64)));
		struct xsave_image image; /* complete: every component holds its value, whatever
					   * XSTATE_BV says; that is the guest's XINUSE */
	};
	/* Kept by us: the host's own pointers would be those of our code. SDM 1 8.1.8 */
	u64 fip, fdp;
	u16 fcs, fds, fop;
	struct xsave_layout layout;
	u64 host_xcr0;			/* fpu_host_xcr0() */
	u64 live;			/* with v->fpu_live: components in the host's registers */
	bool host_in_use;		/* XGETBV with ECX = 1, and AVX */
	u8 pointer_bits;		/* of FIP and FDP, sign-extended: 48, or 57 */
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

/*
 * Components that the host's system has turned on, of those that are kept here; 0: no XSAVE.
 * AVX-512's three come together, and only where masks have 64 bits (AVX512BW). Takes some CPUIDs, which
 * cost 4 us each on a virtual host.
 */
u64 fpu_host_xcr0(void);

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

/* The image of x87 as FNINIT gives it; a vector component cleared (MXCSR stays). SDM 1 13.6 */
void fpu_init_x87(struct fpu *f);
void fpu_init_vectors(struct fpu *f, u64 components);

/*
 * One register in v->fpu, not live: n up to 31, k up to 7. vec_put() writes bytes of it and clears
 * the rest, up to the longest vector there is. SDM 2A 2.6.10, "zeroing"
 */
void vec_get(const struct fpu *f, unsigned int n, u8 out[64]);
void vec_put(struct fpu *f, unsigned int n, const u8 *in, unsigned int bytes);
u64 mask_get(const struct fpu *f, unsigned int k);
void mask_put(struct fpu *f, unsigned int k, u64 val);

/*
 * KVM_GET/SET_FPU, KVM_GET/SET_XSAVE: v->fpu <-> the API's structures, XSAVE's in the host's layout.
 * -EINVAL on bad images.
 */
void fpu_to_kvm(struct vcpu *v, struct kvm_fpu *out);
int fpu_from_kvm(struct vcpu *v, const struct kvm_fpu *in);
void fpu_to_xsave(struct vcpu *v, struct kvm_xsave *out);
int fpu_from_xsave(struct vcpu *v, const struct kvm_xsave *in);

#endif
