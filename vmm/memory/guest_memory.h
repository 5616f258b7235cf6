/*
 * Guest RAM: where it lies in guest physical space, and checked access to it. A plain map of
 * regions, so that the loaders work on any memory, a test's array as well.
 *
 *   0 .. 0xA0000                  RAM (slot 0)
 *   0xA0000 .. 0xC0000            nothing: where a display adapter's window would be
 *   0xC0000 .. low end            RAM (slot 1); firmware tables lie from 0xE0000
 *   low end .. 4 GiB              devices; PCI configuration from 0xB0000000 on
 *   4 GiB ..                      the rest of RAM (slot 2)
 *
 * The low end is all of RAM up to 0xB0000000, and 2 GiB where there is more: q35's.
 */
#ifndef QUMRA_VMM_MEMORY_GUEST_MEMORY_H
#define QUMRA_VMM_MEMORY_GUEST_MEMORY_H

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/kvm/kvm.h"
#include "vmm/memory/backing.h"

#define GUEST_MEMORY_MIN	(4ULL << 20)
#define GUEST_HOLE_START	0xB0000000ULL	/* no RAM from here to GUEST_HOLE_END */
#define GUEST_LOW_MAX		0x80000000ULL	/* RAM below 4 GiB where not all of it fits there */
#define GUEST_HOLE_END		0x100000000ULL
#define GUEST_VGA_START		0xA0000ULL
#define GUEST_VGA_END		0xC0000ULL
#define GUEST_SHADOW_END	0x100000ULL
/* What the CPUID of every guest promises at least. */
#define GUEST_PHYS_BITS		40

#define GUEST_REGIONS_MAX	4

struct guest_region {
	u64 gpa;
	u64 size;
	u8 *host;
};

struct guest_memory {
	u64 size;	/* of RAM in all, the hole at 0xA0000 counted in */
	unsigned count;
	struct guest_region region[GUEST_REGIONS_MAX];	/* ascending, disjoint */
	void *map;	/* one mapping under all regions, or NULL */
	u64 map_size;
	u8 *start;	/* in it, the first byte of RAM */
	int fd;		/* with map: what is mapped at start, from its offset 0 on; -1: anonymous memory */
	bool shared;	/* others who map fd see what the guest writes */
};

/*
 * size must have passed guest_memory_check(). backing: NULL for anonymous memory. Pages are committed on
 * first touch, if it does not say otherwise.
 */
int guest_memory_create(
	struct guest_memory *mem, u64 size, const struct memory_backing *backing, struct error *err);
void guest_memory_destroy(struct guest_memory *mem);
/* Where host memory of RAM lies in a file that others may map: its descriptor, or -1 if it is private. */
int guest_memory_file(const struct guest_memory *mem, const void *host, u64 *offset);
/* Is this a size that can be? A usage error names the limit that it breaks. */
int guest_memory_check(u64 size, struct error *err);
/* Lays the PC's regions over host memory of mem->size bytes. */
void guest_memory_layout(struct guest_memory *mem, u8 *host);
/* Registers every region with the hypervisor; with shadow, but for what lies from 0xC0000 to 1 MiB. */
int guest_memory_register(
	const struct guest_memory *mem, const struct kvm *kvm, bool shadow, struct error *err);

/* The host address of [gpa, gpa + len), or NULL unless all of it is one region's RAM. */
void *guest_memory_at(const struct guest_memory *mem, u64 gpa, u64 len);
/*
 * Gives the whole pages in [host, host + len), which is guest memory, back to the host. They stay
 * mapped and read as zeroes, or as what the file under a private mapping has, until written again.
 */
void guest_memory_discard(void *host, u64 len);
/* The end of RAM below 4 GiB, and the amount above. */
u64 guest_memory_low_end(const struct guest_memory *mem);
u64 guest_memory_high_size(const struct guest_memory *mem);
/* Bytes of it that are resident now. */
u64 guest_memory_resident(const struct guest_memory *mem);

#endif
