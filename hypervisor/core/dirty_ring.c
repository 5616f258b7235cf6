/*
 * The dirty ring: each vCPU tells in a ring, shared with user space, which pages were written first
 * since the last reset; KVM_RUN ends when it is nearly full. Linux Documentation/virt/kvm/api.rst
 * 8.29. The slot's bitmap remembers what stands in some ring: a page is told once.
 *
 * Pushes go under vm->dirty_lock (a leaf), so a write by the hypervisor for no vCPU finds a ring too.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/x86/fpu.h"

#define RESERVED	64u	/* entries that are left when KVM_RUN ends */
#define MIN_FREE	8u	/* with fewer, an instruction begins no new page */

_Static_assert(sizeof(struct kvm_dirty_gfn) == 16, "ABI");

static u32 ring_used(const struct dirty_ring *r)
{
	return READ_ONCE(r->dirty) - READ_ONCE(r->reset);
}

bool dirty_ring_full(const struct vcpu *v)
{
	const struct dirty_ring *r = &v->dirty_ring;

	return unlikely(r->size) && ring_used(r) >= r->size - RESERVED;
}

void dirty_ring_make_room(struct vcpu *v)
{
	const struct dirty_ring *r = &v->dirty_ring;

	if (likely(!r->size) || ring_used(r) < r->size - MIN_FREE)
		return;
	fpu_put(v);
	v->kick = 1;
	vcpu_unwind(v, UNWIND_RESTART);
}

/* ---- pushing --------------------------------------------------------------------------------- */

static struct vcpu *emptiest(struct vm *vm)
{
	u32 i, n = load_acquire(&vm->nr_vcpus);
	struct vcpu *best = NULL;

	for (i = 0; i < n; i++)
		if (!best || ring_used(&vm->vcpus[i]->dirty_ring) < ring_used(&best->dirty_ring))
			best = vm->vcpus[i];
	return best;
}

/* Under dirty_lock. False: no room. */
static bool ring_put(struct dirty_ring *r, u32 slot, u64 page)
{
	struct kvm_dirty_gfn *e = &r->gfn[r->dirty & (r->size - 1)];

	if (ring_used(r) >= r->size)
		return false;
	e->slot = slot;
	e->offset = page;
	store_release(&e->flags, KVM_DIRTY_GFN_F_DIRTY);
	WRITE_ONCE(r->dirty, r->dirty + 1);
	return true;
}

bool dirty_ring_push(struct vm *vm, struct vcpu *v, u32 slot, u64 page)
{
	bool done;

	os_mutex_lock(&vm->dirty_lock);
	if (!v || ring_used(&v->dirty_ring) >= v->dirty_ring.size)
		v = emptiest(vm);
	done = v && ring_put(&v->dirty_ring, slot, page);
	os_mutex_unlock(&vm->dirty_lock);
	if (done && dirty_ring_full(v))
		vcpu_kick(v);
	return done;
}

/* ---- KVM_CAP_DIRTY_LOG_RING, KVM_RESET_DIRTY_RINGS ------------------------------------------- */

int dirty_ring_enable(struct vm *vm, u64 bytes)
{
	u32 size = (u32)bytes;

	if (!size || size & (size - 1) || size < DIRTY_PAGE ||
	    size < RESERVED * sizeof(struct kvm_dirty_gfn))
		return -EINVAL;
	if (size > DIRTY_RING_MAX)
		return -E2BIG;
	if (vm->dirty_ring_bytes || vm->nr_vcpus)
		return -EINVAL;
	vm->dirty_ring_bytes = size;
	return 0;
}

void dirty_ring_init(struct vcpu *v)
{
	if (!v->vm->dirty_ring_bytes)
		return;
	v->dirty_ring.gfn = (void *)((char *)v->run + DIRTY_RING_OFFSET);
	v->dirty_ring.size = v->vm->dirty_ring_bytes / (u32)sizeof(struct kvm_dirty_gfn);
}

/* User space wrote the entry: nothing in it is to be believed. */
static void page_reset(struct vm *vm, u32 slot, u64 page)
{
	const struct memslot *s = memslot_id_valid(slot) ? memslot_by_id(vm, slot) : NULL;

	if (s && s->dirty && page < s->size >> 12)
		__atomic_fetch_and(&s->dirty[page / 64], ~BIT(page % 64), __ATOMIC_RELAXED);
}

static int ring_reset(struct vm *vm, struct dirty_ring *r)
{
	int n = 0;

	for (;; n++) {
		struct kvm_dirty_gfn *e = &r->gfn[r->reset & (r->size - 1)];

		if (!ring_used(r) || !(load_acquire(&e->flags) & KVM_DIRTY_GFN_F_RESET))
			return n;
		page_reset(vm, READ_ONCE(e->slot), READ_ONCE(e->offset));
		store_release(&e->flags, 0);
		WRITE_ONCE(r->reset, r->reset + 1);
	}
}

int dirty_ring_reset(struct vm *vm)
{
	int n = 0;
	u32 i;

	if (!vm->dirty_ring_bytes)
		return -EINVAL;
	vm->stat.dirty_logs++;
	vm_stop_vcpus(vm);
	os_mutex_lock(&vm->dirty_lock);
	for (i = 0; i < vm->nr_vcpus; i++)
		n += ring_reset(vm, &vm->vcpus[i]->dirty_ring);
	os_mutex_unlock(&vm->dirty_lock);
	if (n)
		vm_request_all(vm, REQ_TLB_FLUSH);
	vm_start_vcpus(vm);
	return n;
}
