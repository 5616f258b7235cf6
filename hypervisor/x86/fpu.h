/*
 * x87, MMX, SSE and AVX state. Engine code is compiled without vector registers, so while a vCPU runs,
 * its vector state can stay in the host's registers from one guest instruction to the next.
 *
 * fpu_get(v) puts it there (no-op when it is), fpu_put(v) saves it to v->fpu and gives the host clean
 * control words. Whoever is about to call an os_* function from guest context calls fpu_put first; the
 * run loop does so on every way out of the engine.
 */
#ifndef QUMRA_HYPERVISOR_X86_FPU_H
#define QUMRA_HYPERVISOR_X86_FPU_H

#include "hypervisor/x86/vcpu.h"

/* The standard (non-compacted) XSAVE image with x87, SSE and AVX. SDM 1 13.4 */
#define XSAVE_SIZE	832
struct fpu {
	u8 xsave[XSAVE_SIZE] __attribute__((aligned(64)));
	/* Kept by us: the host's own pointers would be those of our code. SDM 1 8.1.8 */
	u64 fip, fdp;
	u16 fcs, fds, fop;
};

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

/* KVM_GET/SET_FPU, KVM_GET/SET_XSAVE: v->fpu <-> the API's structures. -EINVAL on bad images. */
void fpu_to_kvm(struct vcpu *v, struct kvm_fpu *out);
int fpu_from_kvm(struct vcpu *v, const struct kvm_fpu *in);
void fpu_to_xsave(struct vcpu *v, struct kvm_xsave *out);
int fpu_from_xsave(struct vcpu *v, const struct kvm_xsave *in);

#endif
