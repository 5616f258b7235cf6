/* Register files through the API: struct kvm_regs, kvm_sregs, kvm_sregs2, kvm_debugregs,
 * kvm_xcrs. */
#include "hypervisor/api/api.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

/* ---- general registers -------------------------------------------------------------------- */

/* struct kvm_regs has its own order of the first eight. */
static const struct { u16 off; u8 reg; } kvm_regs_order[] = {
	{ offsetof(struct kvm_regs, rax), R_RAX }, { offsetof(struct kvm_regs, rbx), R_RBX },
	{ offsetof(struct kvm_regs, rcx), R_RCX }, { offsetof(struct kvm_regs, rdx), R_RDX },
	{ offsetof(struct kvm_regs, rsi), R_RSI }, { offsetof(struct kvm_regs, rdi), R_RDI },
	{ offsetof(struct kvm_regs, rsp), R_RSP }, { offsetof(struct kvm_regs, rbp), R_RBP },
	{ offsetof(struct kvm_regs, r8), R_R8 }, { offsetof(struct kvm_regs, r9), R_R9 },
	{ offsetof(struct kvm_regs, r10), R_R10 }, { offsetof(struct kvm_regs, r11), R_R11 },
	{ offsetof(struct kvm_regs, r12), R_R12 }, { offsetof(struct kvm_regs, r13), R_R13 },
	{ offsetof(struct kvm_regs, r14), R_R14 }, { offsetof(struct kvm_regs, r15), R_R15 },
	{ offsetof(struct kvm_regs, rip), R_RIP },
};

void regs_get(struct vcpu *v, struct kvm_regs *r)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kvm_regs_order); i++)
		*(u64 *)((char *)r + kvm_regs_order[i].off) = v->r[kvm_regs_order[i].reg];
	r->rflags = v->rflags;
}

void regs_set(struct vcpu *v, const struct kvm_regs *r)
{
	u64 rip = v->r[R_RIP];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kvm_regs_order); i++)
		v->r[kvm_regs_order[i].reg] =
			*(const u64 *)((const char *)r + kvm_regs_order[i].off);
	v->rflags = (r->rflags & RFLAGS_DEFINED) | RFLAGS_FIXED;
	/* Elsewhere now: what was begun at the old place will not be finished, and there may be
	 * other code (run_forgets()). */
	if (v->r[R_RIP] != rip) {
		memset(&v->io, 0, sizeof(v->io));
		vcpu_request(v, REQ_TLB_FLUSH);
	}
	/* A pending exception was that of the old registers; what has begun goes on, as in KVM. */
	if (!v->event.injected)
		v->event.type = EV_NONE;
	vcpu_update_mode(v);
}

/* ---- segments and control registers ------------------------------------------------------- */

static struct kvm_segment segment_get(const struct segment *s)
{
	return (struct kvm_segment){
		.base = s->base, .limit = s->limit, .selector = s->sel,
		.type = s->attr & SEG_TYPE,
		.s = !!(s->attr & SEG_S),
		.dpl = SEG_DPL(s->attr),
		.present = !!(s->attr & SEG_P),
		.avl = !!(s->attr & SEG_AVL),
		.l = !!(s->attr & SEG_L),
		.db = !!(s->attr & SEG_DB),
		.g = !!(s->attr & SEG_G),
		.unusable = !!(s->attr & SEG_UNUSABLE),
	};
}

static void segment_set(struct segment *s, const struct kvm_segment *k)
{
	s->base = k->base;
	s->limit = k->limit;
	s->sel = k->selector;
	s->attr = (k->type & SEG_TYPE) | (k->s ? SEG_S : 0) | (k->dpl & 3u) << SEG_DPL_SHIFT |
		  (k->present ? SEG_P : 0) | (k->avl ? SEG_AVL : 0) | (k->l ? SEG_L : 0) |
		  (k->db ? SEG_DB : 0) | (k->g ? SEG_G : 0) |
		  (k->unusable || !k->present ? SEG_UNUSABLE : 0);
}

/* The part that struct kvm_sregs and kvm_sregs2 begin with. */
struct sregs_head {
	struct kvm_segment seg[NR_SEGS];
	struct kvm_dtable gdt, idt;
	u64 cr0, cr2, cr3, cr4, cr8, efer, apic_base;
};
_Static_assert(sizeof(struct sregs_head) == offsetof(struct kvm_sregs, interrupt_bitmap), "ABI");
_Static_assert(sizeof(struct sregs_head) == offsetof(struct kvm_sregs2, flags), "ABI");
_Static_assert(offsetof(struct sregs_head, apic_base) == offsetof(struct kvm_sregs2, apic_base),
	"ABI");

static const u8 sregs_order[NR_SEGS] = {
	SEG_CS, SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS, SEG_TR, SEG_LDTR,
};

static void sregs_head_get(struct vcpu *v, struct sregs_head *s)
{
	size_t i;

	for (i = 0; i < NR_SEGS; i++)
		s->seg[i] = segment_get(&v->seg[sregs_order[i]]);
	s->gdt = (struct kvm_dtable){ .base = v->gdt.base, .limit = v->gdt.limit };
	s->idt = (struct kvm_dtable){ .base = v->idt.base, .limit = v->idt.limit };
	s->cr0 = v->cr0;
	s->cr2 = v->cr2;
	s->cr3 = v->cr3;
	s->cr4 = v->cr4;
	s->cr8 = cr_read(v, 8);
	s->efer = v->efer;
	s->apic_base = v->msr.apic_base;
}

static bool sregs_head_valid(const struct vcpu *v, const struct sregs_head *s)
{
	bool paging64 = (s->efer & EFER_LME) && (s->cr0 & CR0_PG);
	u64 cr4 = s->cr4;

	if (paging64 && (!(s->cr4 & CR4_PAE) || !(s->efer & EFER_LMA) ||
			 (s->cr3 & v->mmu.maxphyaddr_mask)))
		return false;
	/* seg[0] is CS, by sregs_order. */
	if (!paging64 && ((s->efer & EFER_LMA) || s->seg[0].l))
		return false;
	/* KVM never asks CPUID for the first two; they have no effect here, as CPUID says. Nor does
	 * it want long mode for PCIDE, which has no effect without. */
	cr4 &= ~(CR4_VME | CR4_PVI | (paging64 ? 0 : CR4_PCIDE));
	return !cr_check(v, s->cr0, cr4, s->efer);
}

static void set_cr8(struct vcpu *v, u64 cr8)
{
	if (v->lapic)
		lapic_set_cr8(v, cr8);
	else
		v->cr8 = cr8 & 0xf;
}

/* VMMs from before KVM_SET_MP_STATE expect that a BSP at its reset vector is running. */
static void unhalt_reset_bsp(struct vcpu *v)
{
	const struct segment *cs = &v->seg[SEG_CS];

	if (v->id == v->vm->bsp_id && v->r[R_RIP] == 0xfff0 && cs->sel == 0xf000 &&
		cs->base == 0xffff0000 && vcpu_real(v)) {
		v->mp_state = KVM_MP_STATE_RUNNABLE;
		v->halted = false;
	}
}

static int sregs_head_set(struct vcpu *v, const struct sregs_head *s)
{
	size_t i;

	if (!sregs_head_valid(v, s))
		return -EINVAL;
	if (s->apic_base != v->msr.apic_base && lapic_set_base(v, s->apic_base, true))
		return -EINVAL;
	for (i = 0; i < NR_SEGS; i++)
		segment_set(&v->seg[sregs_order[i]], &s->seg[i]);
	v->gdt = (struct dtable){ .base = s->gdt.base, .limit = s->gdt.limit };
	v->idt = (struct dtable){ .base = s->idt.base, .limit = s->idt.limit };
	v->cr0 = s->cr0 | CR0_ET;
	v->cr2 = s->cr2;
	v->cr3 = s->cr3;
	v->cr4 = s->cr4;
	v->efer = s->efer;
	set_cr8(v, s->cr8);
	unhalt_reset_bsp(v);
	return 0;
}

static bool pae_paging(const struct vcpu *v)
{
	return (v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !vcpu_long_mode(v);
}

/* Everything derived from control registers. */
static void sregs_settle(struct vcpu *v)
{
	cpuid_update(v);
	vcpu_update_mode(v);
	mmu_set_cr3(v, false);
	mmu_flush_all(v);
}

void sregs_get(struct vcpu *v, struct kvm_sregs *s)
{
	sregs_head_get(v, (struct sregs_head *)s);
	memset(s->interrupt_bitmap, 0, sizeof(s->interrupt_bitmap));
	if (v->extint_pending)
		s->interrupt_bitmap[v->extint_vector / 64] |= BIT(v->extint_vector % 64);
	else if (v->event.type == EV_EXTINT)
		s->interrupt_bitmap[v->event.vector / 64] |= BIT(v->event.vector % 64);
}

/* The first vector set in the bitmap is an acknowledged interrupt that did not get into the guest
 * yet. */
static void interrupt_bitmap_set(struct vcpu *v, const struct kvm_sregs *s)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(s->interrupt_bitmap); i++) {
		if (!s->interrupt_bitmap[i])
			continue;
		v->extint_vector = i * 64 + __builtin_ctzll(s->interrupt_bitmap[i]);
		v->extint_pending = true;
		return;
	}
}

int sregs_set(struct vcpu *v, const struct kvm_sregs *s)
{
	int ret = sregs_head_set(v, (const struct sregs_head *)s);

	if (ret)
		return ret;
	sregs_settle(v);
	if (pae_paging(v))
		mmu_load_pdptes(v);
	interrupt_bitmap_set(v, s);
	return 0;
}

long vcpu_get_sregs2(struct call *c)
{
	struct kvm_sregs2 *s = c->data;

	sregs_head_get(c->v, (struct sregs_head *)s);
	if (pae_paging(c->v)) {
		memcpy(s->pdptrs, c->v->pdpte, sizeof(s->pdptrs));
		s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	}
	return 0;
}

long vcpu_set_sregs2(struct call *c)
{
	const struct kvm_sregs2 *s = c->data;
	struct vcpu *v = c->v;
	bool valid = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
	bool pae = (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
	int ret;

	if ((s->flags & ~KVM_SREGS2_FLAGS_PDPTRS_VALID) || (valid && !pae))
		return -EINVAL;
	ret = sregs_head_set(v, (const struct sregs_head *)s);
	if (ret)
		return ret;
	sregs_settle(v);
	if (valid)
		memcpy(v->pdpte, s->pdptrs, sizeof(v->pdpte));
	else if (pae)
		mmu_load_pdptes(v);
	return 0;
}

/* ---- debug and extended control registers ------------------------------------------------- */

long vcpu_get_debugregs(struct call *c)
{
	struct kvm_debugregs *d = c->data;

	memcpy(d->db, c->v->dr, sizeof(d->db));
	d->dr6 = c->v->dr6;
	d->dr7 = c->v->dr7;
	return 0;
}

long vcpu_set_debugregs(struct call *c)
{
	const struct kvm_debugregs *d = c->data;
	struct vcpu *v = c->v;

	if (d->flags || d->dr6 >> 32 || d->dr7 >> 32)
		return -EINVAL;
	memcpy(v->dr, d->db, sizeof(v->dr));
	v->dr6 = d->dr6;
	v->dr7 = d->dr7;
	vcpu_update_mode(v);
	/* A page that is watched now must leave the fast path. */
	mmu_flush_all(v);
	return 0;
}

long vcpu_get_xcrs(struct call *c)
{
	struct kvm_xcrs *x = c->data;

	x->nr_xcrs = 1;
	x->xcrs[0] = (struct kvm_xcr){ .xcr = 0, .value = c->v->xcr0 };
	return 0;
}

long vcpu_set_xcrs(struct call *c)
{
	const struct kvm_xcrs *x = c->data;
	struct vcpu *v = c->v;
	u32 i;

	if (x->nr_xcrs > KVM_MAX_XCRS || x->flags)
		return -EINVAL;
	/* The first entry for XCR0 counts. */
	for (i = 0; i < x->nr_xcrs && x->xcrs[i].xcr; i++)
		;
	if (i == x->nr_xcrs)
		return 0;
	if (!xcr0_valid(v, x->xcrs[i].value))
		return -EINVAL;
	v->xcr0 = x->xcrs[i].value;
	cpuid_update(v);
	vcpu_update_mode(v);
	return 0;
}
