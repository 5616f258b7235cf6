/*
 * The guest's CPUID: what the hypervisor supports, with the facts that only the VMM knows (which
 * CPU this is, how many there are) and without what this VMM does not offer. SDM 2A "CPUID", APM 3
 * appendix E.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cpus/cpu_state.h"
#include "vmm/memory/guest_memory.h"

#define CPUID_MAX 256

enum { EAX, EBX, ECX, EDX };

/* Bits forced off, then on, and why. All indexes of a leaf alike. */
static const struct cpuid_fix {
	u32 function, reg;
	u32 clear, set;
	const char *why;
} cpuid_fixes[] = {
	{ 0x00000001, ECX, BIT(5), 0, "VMX: no nested guests" },
	{ 0x00000001, ECX, BIT(27), BIT(31), "OSXSAVE follows CR4; there is a hypervisor" },
	{ 0x00000006, EAX, 0, BIT(2), "ARAT: the APIC timer never stops" },
	{ 0x0000000A, EAX, ~0U, 0, "no performance counters" },
	{ 0x0000000A, EBX, ~0U, 0, "no performance counters" },
	{ 0x0000000A, ECX, ~0U, 0, "no performance counters" },
	{ 0x0000000A, EDX, ~0U, 0, "no performance counters" },
	{ 0x80000001, ECX, BIT(2), 0, "SVM: no nested guests" },
	{ 0x80000001, ECX, BIT(24) | BIT(28), 0, "counters of the host's own caches" },
	{ 0x8000000A, EAX, ~0U, 0, "SVM: no nested guests" },
	{ 0x8000000A, EBX, ~0U, 0, "SVM: no nested guests" },
	{ 0x8000000A, EDX, ~0U, 0, "SVM: no nested guests" },
	{ 0x80000022, EAX, ~0U, 0, "no performance counters" },
	{ 0x80000022, EBX, ~0U, 0, "no performance counters" },
};

struct cpuid_table {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[CPUID_MAX];
};

static u32 *cpuid_reg(struct kvm_cpuid_entry2 *e, unsigned reg)
{
	return reg == EAX ? &e->eax : reg == EBX ? &e->ebx : reg == ECX ? &e->ecx : &e->edx;
}

static void cpuid_fix_entry(struct kvm_cpuid_entry2 *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(cpuid_fixes); i++) {
		const struct cpuid_fix *f = &cpuid_fixes[i];

		if (f->function == e->function) {
			u32 *r = cpuid_reg(e, f->reg);

			*r = (*r & ~f->clear) | f->set;
		}
	}
}

/* ---- topology -------------------------------------------------------------------------------- */

/* What the leaves about one CPU are made from. */
struct cpu_identity {
	const struct cpu_topology *t;
	struct cpu_place place;
	unsigned apic_id;
	unsigned package;	/* logical processors in a socket */
	unsigned thread_bits, socket_shift;
	bool amd;
	bool tsc_deadline;
};

static u32 bits_put(u32 reg, unsigned low, unsigned width, u32 value)
{
	u32 mask = MASK(low + width - 1, low);

	return (reg & ~mask) | (value << low & mask);
}

/* Leaf 1: APIC id, logical processors in the package. CMP_LEGACY is AMD's: APM 3 appendix E. */
static void cpuid_version(struct kvm_cpuid_entry2 *e, const struct cpu_identity *id)
{
	e->ebx = bits_put(e->ebx, 24, 8, id->apic_id);
	e->ebx = bits_put(e->ebx, 16, 8, id->package);
	e->edx = bits_put(e->edx, 28, 1, id->package > 1);	/* HTT */
	if (id->tsc_deadline)
		e->ecx |= BIT(24);
}

/* Leaves 0xB and 0x1F: per level, how far to shift an APIC id for the next, and how many CPUs. */
static void cpuid_levels(struct kvm_cpuid_entry2 *e, const struct cpu_identity *id)
{
	enum { LEVEL_SMT = 1, LEVEL_CORE = 2 };

	e->eax = e->ebx = 0;
	e->ecx = e->index;
	if (e->index == 0) {
		e->eax = id->thread_bits;
		e->ebx = id->t->threads;
		e->ecx |= LEVEL_SMT << 8;
	} else if (e->index == 1) {
		e->eax = id->socket_shift;
		e->ebx = id->package;
		e->ecx |= LEVEL_CORE << 8;
	}
	e->edx = id->apic_id;
}

enum { CACHE_TYPE = 0x1F, CACHE_LEVEL_SHIFT = 5, CACHE_LEVEL = 7 };

/* Does this cache belong to one core? The last level is the socket's. */
static bool cache_of_core(const struct kvm_cpuid_entry2 *e)
{
	return (e->eax >> CACHE_LEVEL_SHIFT & CACHE_LEVEL) < 3;
}

/* Leaf 4 counts APIC ids that there is room for. */
static void cpuid_caches_intel(struct kvm_cpuid_entry2 *e, const struct cpu_identity *id)
{
	unsigned shift = cache_of_core(e) ? id->thread_bits : id->socket_shift;

	if (!(e->eax & CACHE_TYPE))
		return;
	e->eax = bits_put(e->eax, 14, 12, (1u << shift) - 1);
	e->eax = bits_put(e->eax, 26, 6, (1u << (id->socket_shift - id->thread_bits)) - 1);
}

/* Leaf 0x8000001D counts logical processors. */
static void cpuid_caches_amd(struct kvm_cpuid_entry2 *e, const struct cpu_identity *id)
{
	if (e->eax & CACHE_TYPE)
		e->eax = bits_put(e->eax, 14, 12,
			(cache_of_core(e) ? id->t->threads : id->package) - 1);
}

/* Leaf 0x8000001E: core and its threads, node and nodes in the socket (one each). */
static void cpuid_node(struct kvm_cpuid_entry2 *e, const struct cpu_identity *id)
{
	e->eax = id->apic_id;
	e->ebx = id->place.core | (id->t->threads - 1) << 8;
	e->ecx = id->place.socket;
}

static void cpuid_identify(struct kvm_cpuid_entry2 *e, const struct cpu_identity *id)
{
	switch (e->function) {
	case 1:
		cpuid_version(e, id);
		break;
	case 4:
		cpuid_caches_intel(e, id);
		break;
	case 0xB:
	case 0x1F:
		cpuid_levels(e, id);
		break;
	case 0x80000001:
		e->ecx = bits_put(e->ecx, 1, 1, id->amd && id->package > 1);
		break;
	case 0x80000008:	/* AMD's NC and ApicIdCoreIdSize; reserved on Intel's */
		/*
		 * What guest_memory_check() counts on, on every host: OVMF makes page tables for all of the
		 * physical space, and those of 48 bits do not fit into the memory that it has then.
		 */
		e->eax = bits_put(e->eax, 0, 8, MIN(e->eax & 0xFF, GUEST_PHYS_BITS));
		e->ecx = bits_put(e->ecx, 0, 8, id->amd ? id->package - 1 : 0);
		e->ecx = bits_put(e->ecx, 12, 4, id->amd ? id->socket_shift : 0);
		break;
	case 0x8000001D:
		cpuid_caches_amd(e, id);
		break;
	case 0x8000001E:
		cpuid_node(e, id);
		break;
	}
}

/* ---- the table ------------------------------------------------------------------------------- */

static struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *t, u32 function, u32 index)
{
	for (u32 i = 0; i < t->head.nent; i++)
		if (t->entry[i].function == function && t->entry[i].index == index)
			return &t->entry[i];
	return NULL;
}

/* The hypervisor may list the first level only of those that there are. */
static void cpuid_add_level(struct cpuid_table *t, u32 function)
{
	const struct kvm_cpuid_entry2 *first = cpuid_find(t, function, 0);

	if (!first || cpuid_find(t, function, 1) || t->head.nent == CPUID_MAX)
		return;
	t->entry[t->head.nent] = *first;
	t->entry[t->head.nent++].index = 1;
}

static bool cpuid_is_amd(struct cpuid_table *t)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(t, 0, 0);

	/* "AuthenticAMD", "HygonGenuine" */
	return e && (e->ebx == 0x68747541 || e->ebx == 0x6f677948);
}

static void cpuid_fill(struct cpuid_table *t, const struct cpu_topology *topology, unsigned index,
	bool tsc_deadline)
{
	const struct cpu_identity id = {
		.t = topology,
		.place = topology_place(topology, index),
		.apic_id = topology_apic_id(topology, index),
		.package = topology->cores * topology->threads,
		.thread_bits = topology_thread_bits(topology),
		.socket_shift = topology_socket_shift(topology),
		.amd = cpuid_is_amd(t),
		.tsc_deadline = tsc_deadline,
	};

	cpuid_add_level(t, 0xB);
	cpuid_add_level(t, 0x1F);
	for (u32 i = 0; i < t->head.nent; i++) {
		cpuid_fix_entry(&t->entry[i]);
		cpuid_identify(&t->entry[i], &id);
	}
}

int cpu_cpuid_set(const struct kvm *kvm, int fd, const struct cpu_topology *topology,
	unsigned index, struct error *err)
{
	struct cpuid_table *t = calloc(1, sizeof(*t));
	long ret;

	if (!t)
		return error_set(err, ENOMEM, "out of memory");
	t->head.nent = CPUID_MAX;
	ret = kvm_ioctl(kvm, kvm->fd, KVM_GET_SUPPORTED_CPUID, t);
	if (ret >= 0) {
		cpuid_fill(t, topology, index,
			kvm_capability(kvm, KVM_CAP_TSC_DEADLINE_TIMER));
		ret = kvm_ioctl(kvm, fd, KVM_SET_CPUID2, t);
	}
	free(t);
	if (ret < 0)
		return error_set(err, -ret, "cannot set the guest's CPUID: %s", strerror(-ret));
	return 0;
}
