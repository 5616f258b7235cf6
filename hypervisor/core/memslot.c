/*
 * Memory slots: which guest physical pages are user space's memory. The rules are those of
 * KVM_SET_USER_MEMORY_REGION (Linux Documentation/virt/kvm/api.rst 4.35): a slot is created,
 * deleted (size 0), moved, or has its flags changed; its size, its memory and KVM_MEM_READONLY
 * never change.
 *
 * A change builds a new table and exchanges it for the old one while no vCPU is in guest code.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "lib/search.h"

#define PAGE		4096ULL
#define PAGE_MASK	(PAGE - 1)
#define SLOT_MAX_PAGES	((1ULL << 31) - 1)
#define GPA_END		(GPA_ADDRESS + 1) /* the architecture's widest physical address */
#define SLOT_FLAGS	(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)

const struct memslot *memslot_find(const struct vm *vm, u64 gpa)
{
	const struct memslots *all = vm->slots;
	u32 n = COUNT_UPTO(all->n, i, all->slot[i].gpa, gpa);

	if (!n || gpa - all->slot[n - 1].gpa >= all->slot[n - 1].size)
		return NULL;
	return &all->slot[n - 1];
}

const struct memslot *memslot_by_id(const struct vm *vm, u32 id)
{
	u32 i;

	for (i = 0; i < vm->slots->n; i++)
		if (vm->slots->slot[i].id == id)
			return &vm->slots->slot[i];
	return NULL;
}

void memslot_mark_dirty(struct vm *vm, struct vcpu *v, const struct memslot *s, u64 gpa)
{
	u64 page = (gpa - s->gpa) >> 12, bit = BIT(page % 64);

	if (!s->dirty || __atomic_fetch_or(&s->dirty[page / 64], bit, __ATOMIC_RELAXED) & bit)
		return;
	/* Untold, it has to be told with the next write. */
	if (vm->dirty_ring_bytes && !dirty_ring_push(vm, v, s->id, page))
		__atomic_fetch_and(&s->dirty[page / 64], ~bit, __ATOMIC_RELAXED);
}

/* ---- what a slot owns --------------------------------------------------------------------- */

static size_t dirty_area(const struct memslot *s)
{
	return ALIGN_UP(dirty_bytes(s->size), PAGE);
}

static size_t code_area(const struct memslot *s)
{
	return ALIGN_UP((s->size >> 12) * sizeof(struct code_page), PAGE);
}

static void slot_free(struct memslot *s)
{
	if (s->dirty)
		os_pages_free(s->dirty, dirty_area(s));
	if (s->code)
		os_pages_free(s->code, code_area(s));
}

/* A new log: the last word has bits for existing pages only. */
static void dirty_set_all(struct memslot *s)
{
	u64 pages = s->size >> 12;

	memset(s->dirty, 0xff, pages / 64 * sizeof(u64));
	if (pages % 64)
		s->dirty[pages / 64] = BIT(pages % 64) - 1;
}

static void log_alloc(const struct vm *vm, struct memslot *s)
{
	s->dirty = os_pages_alloc(dirty_area(s));
	if (s->dirty && vm->dirty_manual & KVM_DIRTY_LOG_INITIALLY_SET && !vm->dirty_ring_bytes)
		dirty_set_all(s);
}

/* Gives s what it lacks. On failure, what it had is still its own. */
static int slot_alloc(const struct vm *vm, struct memslot *s)
{
	if (!s->code)
		s->code = os_pages_alloc(code_area(s));
	if ((s->flags & KVM_MEM_LOG_DIRTY_PAGES) && !s->dirty)
		log_alloc(vm, s);
	if (!s->code || ((s->flags & KVM_MEM_LOG_DIRTY_PAGES) && !s->dirty))
		return -ENOMEM;
	return 0;
}

void memslots_free(struct vm *vm)
{
	u32 i;

	for (i = 0; i < vm->slots->n; i++)
		slot_free(&vm->slots->slot[i]);
	os_free(vm->slots);
}

/* ---- checks ------------------------------------------------------------------------------- */

/* Bits 31:16 are the address space. */
bool memslot_id_valid(u32 id)
{
	return (u16)id < MAX_SLOTS && id >> 16 < NR_MEM_SPACES;
}

static bool region_sane(const struct kvm_userspace_memory_region *mem)
{
	if (mem->flags & ~SLOT_FLAGS)
		return false;
	if ((mem->memory_size | mem->guest_phys_addr | mem->userspace_addr) & PAGE_MASK)
		return false;
	if (!os_user_range(mem->userspace_addr, mem->memory_size))
		return false;
	if (!memslot_id_valid(mem->slot))
		return false;
	if (mem->memory_size >> 12 > SLOT_MAX_PAGES)
		return false;
	return mem->guest_phys_addr + mem->memory_size >= mem->guest_phys_addr;
}

static bool region_overlaps(const struct vm *vm, const struct kvm_userspace_memory_region *mem)
{
	u64 end = mem->guest_phys_addr + mem->memory_size;
	u32 i;

	for (i = 0; i < vm->slots->n; i++) {
		const struct memslot *s = &vm->slots->slot[i];

		if (s->id != mem->slot && mem->guest_phys_addr < s->gpa + s->size && s->gpa < end)
			return true;
	}
	return false;
}

static int region_check_place(const struct vm *vm, const struct kvm_userspace_memory_region *mem)
{
	if ((mem->guest_phys_addr & GPA_ADDRESS) + mem->memory_size > GPA_END)
		return -EINVAL;
	return region_overlaps(vm, mem) ? -EEXIST : 0;
}

/* ---- change ------------------------------------------------------------------------------- */

/* A copy of the table without slot id, with room for one more. */
static struct memslots *slots_without(const struct memslots *old, u32 id)
{
	struct memslots *all = os_alloc(sizeof(*all) + (old->n + 1) * sizeof(all->slot[0]));
	u32 i;

	if (!all)
		return NULL;
	for (i = 0; i < old->n; i++)
		if (old->slot[i].id != id)
			all->slot[all->n++] = old->slot[i];
	return all;
}

static void slots_insert(struct memslots *all, const struct memslot *s)
{
	u32 i = all->n++;

	for (; i > 0 && all->slot[i - 1].gpa > s->gpa; i--)
		all->slot[i] = all->slot[i - 1];
	all->slot[i] = *s;
}

/* Puts s (NULL: nothing) in the place of old (NULL: nothing); frees what only old had. */
static int slots_replace(struct vm *vm, const struct memslot *old, const struct memslot *s)
{
	struct memslots *before = vm->slots;
	struct memslots *after = slots_without(before, old ? old->id : ~0u);
	struct memslot gone = { 0 };

	if (!after)
		return -ENOMEM;
	if (s)
		slots_insert(after, s);
	if (old)
		gone = *old;
	if (s && gone.code == s->code)
		gone.code = NULL;
	if (s && gone.dirty == s->dirty)
		gone.dirty = NULL;
	vm_stop_vcpus(vm);
	vm->slots = after;
	vm->stat.slots = after->n;
	vm->stat.slot_changes++;
	vm_request_all(vm, REQ_TLB_FLUSH);
	vm_request_all(vm, REQ_CODE_FLUSH);
	vm_start_vcpus(vm);
	slot_free(&gone);
	os_free(before);
	return 0;
}

static int slot_create(struct vm *vm, const struct kvm_userspace_memory_region *mem)
{
	struct memslot s = {
		.id = mem->slot,
		.flags = mem->flags,
		.gpa = mem->guest_phys_addr,
		.size = mem->memory_size,
		.hva = mem->userspace_addr,
	};
	int ret = region_check_place(vm, mem);

	if (ret)
		return ret;
	ret = slot_alloc(vm, &s);
	if (!ret)
		ret = slots_replace(vm, NULL, &s);
	if (ret)
		slot_free(&s);
	return ret;
}

static int slot_modify(struct vm *vm, const struct memslot *old,
	const struct kvm_userspace_memory_region *mem)
{
	struct memslot s = *old;
	int ret = 0;

	if (mem->userspace_addr != old->hva || mem->memory_size != old->size ||
	    ((mem->flags ^ old->flags) & KVM_MEM_READONLY))
		return -EINVAL;
	if (mem->guest_phys_addr == old->gpa && mem->flags == old->flags)
		return 0;
	if (mem->guest_phys_addr != old->gpa)
		ret = region_check_place(vm, mem);
	if (ret)
		return ret;
	s.gpa = mem->guest_phys_addr;
	s.flags = mem->flags;
	if (!(s.flags & KVM_MEM_LOG_DIRTY_PAGES))
		s.dirty = NULL;
	ret = slot_alloc(vm, &s);
	if (!ret)
		ret = slots_replace(vm, old, &s);
	if (ret && s.dirty && s.dirty != old->dirty)
		os_pages_free(s.dirty, dirty_area(&s));
	return ret;
}

int memslot_set(struct vm *vm, const struct kvm_userspace_memory_region *mem)
{
	struct kvm_userspace_memory_region r = *mem;
	const struct memslot *old;

	if (!region_sane(mem))
		return -EINVAL;
	old = memslot_by_id(vm, r.slot);
	if (!r.memory_size)
		return old ? slots_replace(vm, old, NULL) : -EINVAL;
	if (r.guest_phys_addr > GPA_ADDRESS)
		return -EINVAL;
	r.guest_phys_addr |= mem_space(r.slot >> 16);
	return old ? slot_modify(vm, old, &r) : slot_create(vm, &r);
}

/* ---- access by the hypervisor ------------------------------------------------------------- */

/* Bytes from gpa to the end of its slot, at most n; *s is the slot. 0: no memory there. */
static size_t guest_span(const struct vm *vm, u64 gpa, size_t n, const struct memslot **s)
{
	*s = memslot_find(vm, gpa);
	return *s ? MIN(n, (*s)->gpa + (*s)->size - gpa) : 0;
}

int vm_read_guest(struct vm *vm, u64 gpa, void *buf, size_t n)
{
	const struct memslot *s;
	size_t part;

	for (; n; n -= part, gpa += part, buf = (char *)buf + part) {
		part = guest_span(vm, gpa, n, &s);
		if (!part)
			return -EFAULT;
		if (os_copy(buf, memslot_host(s, gpa), part))
			return -EFAULT;
	}
	return 0;
}

int vm_write_guest(struct vm *vm, u64 gpa, const void *buf, size_t n)
{
	const struct memslot *s;
	size_t part;
	u64 page;

	for (; n; n -= part, gpa += part, buf = (const char *)buf + part) {
		part = guest_span(vm, gpa, n, &s);
		if (!part || (s->flags & KVM_MEM_READONLY))
			return -EFAULT;
		if (os_copy(memslot_host(s, gpa), buf, part))
			return -EFAULT;
		for (page = gpa & ~PAGE_MASK; page < gpa + part; page += PAGE)
			memslot_mark_dirty(vm, NULL, s, page);
	}
	return 0;
}
