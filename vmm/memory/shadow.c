/* Shadow RAM by the PAM registers: see shadow.h, and Intel 3 Series data sheet, 5.1.19 on. */
#include <errno.h>
#include <string.h>

#include "vmm/memory/shadow.h"
#include "vmm/memory/slots.h"

#define READS	BIT(0)
#define WRITES	BIT(1)
#define SMALL	0x4000U	/* all segments but the last, which is 64 KiB */

static u64 segment_start(unsigned n)
{
	return SHADOW_START + (u64)n * SMALL;
}

static u64 segment_size(unsigned n)
{
	return n == SHADOW_SEGMENTS - 1 ? 0x10000 : SMALL;
}

static unsigned segment_of(u64 offset)
{
	return MIN(offset / SMALL, SHADOW_SEGMENTS - 1u);
}

/* PAM0 has the last segment in its upper half; PAM1 to PAM6 have two each, the lower one first. */
static u8 segment_access(const u8 pam[MCH_PAMS], unsigned n)
{
	if (n == SHADOW_SEGMENTS - 1)
		return pam[0] >> 4 & 3;
	return pam[1 + n / 2] >> (n & 1 ? 4 : 0) & 3;
}

static const u8 *segment_rom(const struct shadow *s, unsigned n)
{
	return segment_start(n) >= SHADOW_ROM ? s->rom + (segment_start(n) - SHADOW_ROM) : NULL;
}

static long segment_set_slot(const struct shadow *s, unsigned n, const u8 *host, u32 flags)
{
	struct kvm_userspace_memory_region slot = {
		.slot = SLOT_SHADOW + n,
		.flags = flags,
		.guest_phys_addr = segment_start(n),
		.memory_size = host ? segment_size(n) : 0,
		.userspace_addr = (uintptr_t)host,
	};

	return kvm_ioctl(s->kvm, s->kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);
}

/* Writes that must not go where reads come from leave the hypervisor: a read-only slot. */
static long segment_map(const struct shadow *s, unsigned n)
{
	const u8 *host = s->access[n] & READS ? s->ram + (segment_start(n) - SHADOW_START)
					      : segment_rom(s, n);
	u32 flags = s->access[n] == (READS | WRITES) ? 0 : KVM_MEM_READONLY;

	return host ? segment_set_slot(s, n, host, flags) : 0;
}

void shadow_set_pam(void *arg, const u8 pam[MCH_PAMS])
{
	struct shadow *s = arg;

	for (unsigned n = 0; n < SHADOW_SEGMENTS; n++) {
		u8 access = segment_access(pam, n);

		if (access == s->access[n])
			continue;
		if (s->access[n] & READS || segment_rom(s, n))
			segment_set_slot(s, n, NULL, 0);
		s->access[n] = access;
		segment_map(s, n);
	}
}

static u64 shadow_read(void *dev, u64 offset, unsigned size)
{
	const struct shadow *s = dev;
	unsigned n = segment_of(offset);
	u64 value = ~0ULL;

	/* Only for an access that the hypervisor was making when the segment changed. */
	if (s->access[n] & READS)
		memcpy(&value, s->ram + offset, size);
	else if (segment_rom(s, n))
		memcpy(&value, s->rom + offset - (SHADOW_ROM - SHADOW_START), size);
	return value;
}

static void shadow_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct shadow *s = dev;

	if (s->access[segment_of(offset)] & WRITES)
		memcpy(s->ram + offset, &value, size);
}

const struct io_ops shadow_io_ops = { .read = shadow_read, .write = shadow_write, .width = 8 };

int shadow_init(struct shadow *s, const struct kvm *kvm, const struct guest_memory *mem,
		const u8 *rom, struct error *err)
{
	*s = (struct shadow){
		.kvm = kvm,
		.rom = rom,
		.ram = guest_memory_at(mem, SHADOW_START, SHADOW_END - SHADOW_START),
	};
	if (!s->ram)
		return error_set(err, ENOMEM, "there is no memory for the firmware's shadow");
	for (unsigned n = 0; n < SHADOW_SEGMENTS; n++) {
		long ret = segment_map(s, n);

		if (ret < 0)
			return error_set(err, -ret, "the hypervisor refuses the firmware's ROM: %s",
				strerror(-ret));
	}
	return 0;
}
