/*
 * Address spaces: which one a CR3 stands for, and what must be forgotten when. SDM 3A 4.10.
 *
 * A vCPU has NR_SPACES of them (x86/space.h), used in order and then again in turn; without PCIDs
 * the first is the only one. A CR3 write with bit 63 set finds the translations of its PCID again;
 * without it they are dropped, but for global pages. INVLPG reaches every space: for global pages
 * it must, for others it may.
 *
 * Whatever else is cached by linear address (insn/code.c) carries the space's number (asid, 1 to
 * 511) as a tag. Numbers are handed out in order, a new one whenever a space drops something; when
 * none is left, all is flushed and counting starts again.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/insn/code.h"
#include "hypervisor/x86/mmu.h"

#define ASID_LAST	511
#define ASID_SHIFT	3	/* in v->tlb_ctx */

#define INVPCID_ADDRESS	0u
#define INVPCID_CONTEXT	1u

/* ---- one space ---- */

static void engine_drop(struct vcpu *v, struct space *s, bool global)
{
	if (s->code_used && v->engine->space_drop)
		v->engine->space_drop(v, s, global);
}

static void space_drop_all(struct vcpu *v, struct space *s)
{
	tlb_drop_all(s);
	engine_drop(v, s, true);
	s->in_use = false;
}

static void space_drop_local(struct vcpu *v, struct space *s)
{
	tlb_drop_local(s);
	engine_drop(v, s, false);
}

/* True when code ran in a large page there. */
static bool space_drop_page(struct vcpu *v, struct space *s, u64 la)
{
	u64 size;

	tlb_drop_page(s, la);
	if (large_find(&s->large_code, la, &size)) {
		engine_drop(v, s, true);
		return true;
	}
	if (s->code_used && v->engine->space_drop_page)
		v->engine->space_drop_page(v, s, la);
	return false;
}

/* The TLB that stays empty, made when first needed. */
static u8 *tlb_empty(struct vcpu *v)
{
	u64 *tlb = (u64 *)vcpu_space(v, NR_SPACES);

	if (*tlb != TLB_INVALID)
		memset(tlb, 0xff, TLB_SIZE_BYTES);
	return (u8 *)tlb;
}

void space_update_mode(struct vcpu *v)
{
	struct space *s = v->space;

	v->tlb_ctx = (u64)s->asid << ASID_SHIFT | (u64)v->mmu_idx << 1;
	v->tlb_tags = v->mmu_idx * (u32)sizeof(s->tlb[0].tag[0]);
	v->tlb_never = vcpu_align_checked(v) ? TLB_NEVER : 0;
	v->tlb_hit = v->tlb_never ? tlb_empty(v) : (u8 *)s->tlb + v->tlb_tags;
	space_stack_forget(v);
}

/* ---- choosing ---- */

static u64 space_key(const struct vcpu *v)
{
	return v->cr4 & CR4_PCIDE ? v->cr3 & CR3_PCID : 0;
}

/* The nth one, if it is in use. */
static struct space *space_used(const struct vcpu *v, unsigned int n)
{
	struct space *s = vcpu_space(v, n);

	return s->in_use ? s : NULL;
}

static struct space *space_find(const struct vcpu *v, u64 key)
{
	struct space *s;
	unsigned int n;

	for (n = 0; n < v->mmu.spaces_ready; n++) {
		s = space_used(v, n);
		if (s && s->key == key)
			return s;
	}
	return NULL;
}

static struct space *space_unused(struct vcpu *v)
{
	struct mmu_state *m = &v->mmu;
	unsigned int n;

	for (n = 0; n < m->spaces_ready; n++)
		if (!space_used(v, n))
			return vcpu_space(v, n);
	if (m->spaces_ready == NR_SPACES)
		return NULL;
	tlb_init(vcpu_space(v, m->spaces_ready));
	return vcpu_space(v, m->spaces_ready++);
}

/* An empty space for the key; when all are in use, that of another key but the present one. */
static struct space *space_take(struct vcpu *v, u64 key)
{
	struct space *s = space_unused(v);

	while (!s) {
		s = vcpu_space(v, v->mmu.space_next);
		v->mmu.space_next = (u16)((v->mmu.space_next + 1) % NR_SPACES);
		if (s == v->space)
			s = NULL;
		else
			space_drop_all(v, s);
	}
	s->key = key;
	s->in_use = true;
	return s;
}

/* ---- all spaces ---- */

void mmu_flush_all(struct vcpu *v)
{
	unsigned int n;

	for (n = 0; n < v->mmu.spaces_ready; n++)
		if (space_used(v, n))
			space_drop_all(v, vcpu_space(v, n));
	v->space->key = space_key(v);
	v->space->in_use = true;
	v->space->asid = 1;
	v->mmu.asid_next = 2;
	space_update_mode(v);
	code_flush_lookup(v);
}

/* Nothing that was cached under the present space's number holds any more. */
static void asid_renew(struct vcpu *v)
{
	if (v->mmu.asid_next > ASID_LAST)
		mmu_flush_all(v);
	else
		v->space->asid = v->mmu.asid_next++;
}

void mmu_set_cr3(struct vcpu *v, bool keep)
{
	u64 key = space_key(v);
	struct space *s = space_find(v, key);
	bool kept = s && keep;

	if (!s)
		s = space_take(v, key);
	else if (!keep)
		space_drop_local(v, s);
	v->space = s;
	if (!kept)
		asid_renew(v);
	space_update_mode(v);
}

void mmu_flush_page(struct vcpu *v, u64 la)
{
	bool large = false;
	unsigned int n;

	if (!vcpu_long_mode(v))
		la = (u32)la;
	for (n = 0; n < v->mmu.spaces_ready; n++)
		if (space_used(v, n))
			large |= space_drop_page(v, vcpu_space(v, n), la);
	space_stack_forget(v);
	if (large)
		code_flush_lookup(v);
	else
		code_flush_lookup_page(v, la);
}

void mmu_flush_writes(struct vcpu *v, u64 gpa_page)
{
	unsigned int n;

	for (n = 0; n < v->mmu.spaces_ready; n++)
		if (space_used(v, n))
			tlb_drop_writes(vcpu_space(v, n), gpa_page);
	space_stack_forget(v);
}

void mmu_flush_all_writes(struct vcpu *v)
{
	unsigned int n;

	for (n = 0; n < v->mmu.spaces_ready; n++)
		if (space_used(v, n))
			tlb_drop_all_writes(vcpu_space(v, n));
	space_stack_forget(v);
}

static void flush_pcid(struct vcpu *v, u64 pcid)
{
	struct space *s = space_find(v, pcid);

	if (s == v->space)
		mmu_set_cr3(v, false);
	else if (s)
		space_drop_all(v, s);
}

/* SDM 2A INVPCID. The type and the descriptor's reserved bits were checked. */
void mmu_invpcid(struct vcpu *v, unsigned int type, u64 pcid, u64 la)
{
	if (type == INVPCID_ADDRESS)
		mmu_flush_page(v, la);
	else if (type == INVPCID_CONTEXT)
		flush_pcid(v, pcid);
	else
		mmu_flush_all(v);
}

void mmu_init(struct vcpu *v)
{
	if (!v->maxphyaddr) {
		v->maxphyaddr = 36;	/* what CPUID's absence means. SDM 3A 4.1.4 */
		v->mmu.maxphyaddr_mask = MASK(51, 36);
	}
	v->space = space_unused(v);
	mmu_flush_all(v);
}
