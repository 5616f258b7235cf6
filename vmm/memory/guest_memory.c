/* Guest RAM: see guest_memory.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/size.h"
#include "vmm/memory/guest_memory.h"

static u64 host_ram(void)
{
	return (u64)sysconf(_SC_PHYS_PAGES) * (u64)sysconf(_SC_PAGESIZE);
}

int guest_memory_check(u64 size, struct error *err)
{
	char text[SIZE_TEXT_MAX], limit[SIZE_TEXT_MAX];
	u64 ram = host_ram();

	size_format(size, text);
	if (size < GUEST_MEMORY_MIN)
		return error_usage(err, "--memory: %s is too little; the least is %s", text,
				   size_format(GUEST_MEMORY_MIN, limit));
	if (size & 4095)
		return error_usage(err, "--memory: %s is not a multiple of 4 KiB", text);
	if (size > BIT(GUEST_PHYS_BITS) - (GUEST_HOLE_END - GUEST_LOW_MAX))
		return error_usage(err,
			"--memory: %s does not fit the guest's %d physical address bits "
			"(this host has %llu MiB of RAM)",
			text, GUEST_PHYS_BITS, (unsigned long long)(ram >> 20));
	if (size > ram)
		return error_usage(err, "--memory: %s is more than this host's RAM (%llu MiB)",
			text, (unsigned long long)(ram >> 20));
	return 0;
}

static void region_add(struct guest_memory *mem, u64 gpa, u64 size, u8 *host)
{
	if (size)
		mem->region[mem->count++] =
			(struct guest_region){.gpa = gpa, .size = size, .host = host};
}

void guest_memory_layout(struct guest_memory *mem, u8 *host)
{
	u64 low = mem->size <= GUEST_HOLE_START ? mem->size : GUEST_LOW_MAX;

	mem->count = 0;
	region_add(mem, 0, MIN(low, GUEST_VGA_START), host);
	if (low > GUEST_VGA_END)
		region_add(mem, GUEST_VGA_END, low - GUEST_VGA_END, host + GUEST_VGA_END);
	region_add(mem, GUEST_HOLE_END, mem->size - low, host + low);
}

int guest_memory_create(
	struct guest_memory *mem, u64 size, const struct memory_backing *backing, struct error *err)
{
	int ret;

	*mem = (struct guest_memory){ .size = size, .shared = backing && backing->share };
	ret = memory_backing_map(
		backing, size, &mem->map, &mem->map_size, &mem->start, &mem->fd, err);
	if (ret < 0)
		return ret;
	/* A guest's memory is neither ours to dump nor our children's to share. */
	madvise(mem->map, mem->map_size, MADV_DONTDUMP);
	madvise(mem->map, mem->map_size, MADV_DONTFORK);
	madvise(mem->start, size, MADV_HUGEPAGE);
	guest_memory_layout(mem, mem->start);
	return 0;
}

void guest_memory_destroy(struct guest_memory *mem)
{
	if (mem->map) {
		munmap(mem->map, mem->map_size);
		if (mem->fd >= 0)
			close(mem->fd);
	}
	mem->map = NULL;
	mem->fd = -1;
	mem->count = 0;
}

int guest_memory_register(
	const struct guest_memory *mem, const struct kvm *kvm, bool shadow, struct error *err)
{
	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *r = &mem->region[i];
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.guest_phys_addr = r->gpa,
			.memory_size = r->size,
			.userspace_addr = (uintptr_t)r->host,
		};
		u64 skip = shadow && r->gpa == GUEST_VGA_END ? GUEST_SHADOW_END - r->gpa : 0;
		long ret;

		slot.guest_phys_addr += skip;
		slot.memory_size -= skip;
		slot.userspace_addr += skip;
		ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);

		if (ret < 0)
			return error_set(err, -ret,
				"the hypervisor refuses guest memory at %#llx: %s",
				(unsigned long long)r->gpa, strerror(-ret));
	}
	return 0;
}

void *guest_memory_at(const struct guest_memory *mem, u64 gpa, u64 len)
{
	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *r = &mem->region[i];

		if (gpa >= r->gpa && gpa - r->gpa < r->size && len <= r->size - (gpa - r->gpa))
			return r->host + (gpa - r->gpa);
	}
	return NULL;
}

u64 guest_memory_low_end(const struct guest_memory *mem)
{
	u64 end = 0;

	for (unsigned i = 0; i < mem->count; i++)
		if (mem->region[i].gpa < GUEST_HOLE_START)
			end = mem->region[i].gpa + mem->region[i].size;
	return end;
}

u64 guest_memory_high_size(const struct guest_memory *mem)
{
	const struct guest_region *last = mem->count ? &mem->region[mem->count - 1] : NULL;

	return last && last->gpa >= GUEST_HOLE_END ? last->size : 0;
}

u64 guest_memory_resident(const struct guest_memory *mem)
{
	enum { chunk = 4096 };	/* pages a call */
	unsigned char seen[chunk];
	u64 pages = 0;

	for (u64 at = 0; at < mem->map_size; at += chunk * 4096) {
		u64 len = MIN(mem->map_size - at, chunk * 4096);

		if (mincore((u8 *)mem->map + at, len, seen) < 0)
			break;
		for (u64 i = 0; i < (len + 4095) / 4096; i++)
			pages += seen[i] & 1;
	}
	return pages * 4096;
}
