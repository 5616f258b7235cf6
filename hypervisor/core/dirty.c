/*
 * The dirty log: which pages of a slot were written since the log was last cleared (Linux
 * Documentation/virt/kvm/api.rst 4.8, 4.117). A vCPU's fast write path sets no bit, so clearing one
 * takes the write translations away; that happens with all vCPUs stopped.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"

static const struct memslot *dirty_slot(const struct vm *vm, u32 id)
{
	const struct memslot *s = memslot_by_id(vm, id);

	return s && s->dirty ? s : NULL;
}

int dirty_get(struct vm *vm, const struct kvm_dirty_log *log)
{
	const struct memslot *s;
	int ret;

	if (vm->dirty_ring_bytes)
		return -ENXIO;
	if (!memslot_id_valid(log->slot))
		return -EINVAL;
	s = dirty_slot(vm, log->slot);
	if (!s)
		return -ENOENT;
	if (vm->dirty_manual)
		return os_user_write((u64)log->dirty_bitmap, s->dirty, dirty_bytes(s->size));
	vm->stat.dirty_logs++;
	vm_stop_vcpus(vm);
	ret = os_user_write((u64)log->dirty_bitmap, s->dirty, dirty_bytes(s->size));
	if (!ret)
		memset(s->dirty, 0, dirty_bytes(s->size));
	vm_request_all(vm, REQ_TLB_FLUSH);
	vm_start_vcpus(vm);
	return ret;
}

/* Clears in word i of the slot's bitmap what user space's bitmap has set there. */
static int clear_word(const struct memslot *s, u64 bitmap, u64 first, u64 i, u64 pages)
{
	u64 left = pages - i * 64, word;
	int ret = os_user_read(&word, bitmap + i * 8, sizeof(word));

	if (ret)
		return ret;
	if (left < 64)
		word &= BIT(left) - 1;
	__atomic_fetch_and(&s->dirty[first / 64 + i], ~word, __ATOMIC_RELAXED);
	return 0;
}

int dirty_clear(struct vm *vm, const struct kvm_clear_dirty_log *log)
{
	const struct memslot *s;
	u64 i, npages;
	int ret = 0;

	if (vm->dirty_ring_bytes)
		return -ENXIO;
	if (!memslot_id_valid(log->slot) || (log->first_page & 63))
		return -EINVAL;
	s = dirty_slot(vm, log->slot);
	if (!s)
		return -ENOENT;
	npages = s->size >> 12;
	/* A length that is no multiple of 64 must reach the end of the slot. */
	if (log->first_page > npages || log->num_pages > npages - log->first_page ||
	    (log->num_pages < npages - log->first_page && (log->num_pages & 63)))
		return -EINVAL;
	vm->stat.dirty_logs++;
	vm_stop_vcpus(vm);
	for (i = 0; !ret && i * 64 < log->num_pages; i++)
		ret = clear_word(s, (u64)log->dirty_bitmap, log->first_page, i, log->num_pages);
	vm_request_all(vm, REQ_TLB_FLUSH);
	vm_start_vcpus(vm);
	return ret;
}
