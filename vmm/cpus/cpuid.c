/*
 * The guest's CPUID: what the hypervisor supports, with the facts that only the VMM knows (which
 * CPU this is, how many there are) and without what this VMM does not offer. SDM 2A "CPUID", APM 3
 * appendix E.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cpus/cpu_state.h"

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
	{ 0x00000001, EBX, 0x00FF0000, 0x00010000, "one logical processor a package" },
	{ 0x00000001, EDX, BIT(28), 0, "HTT: one logical processor a package" },
	{ 0x00000004, EAX, 0xFFFFC000, 0, "caches are shared by one CPU" },
	{ 0x00000006, EAX, 0, BIT(2), "ARAT: the APIC timer never stops" },
	{ 0x0000000A, EAX, ~0U, 0, "no performance counters" },
	{ 0x0000000A, EBX, ~0U, 0, "no performance counters" },
	{ 0x0000000A, ECX, ~0U, 0, "no performance counters" },
	{ 0x0000000A, EDX, ~0U, 0, "no performance counters" },
	{ 0x80000001, ECX, BIT(2), 0, "SVM: no nested guests" },
	{ 0x80000001, ECX, BIT(1), 0, "CMP_LEGACY: one logical processor a package" },
	{ 0x80000001, ECX, BIT(23) | BIT(24) | BIT(28), 0, "no performance counters" },
	{ 0x80000008, ECX, 0x0000F0FF, 0, "one core a package" },
	{ 0x8000000A, EAX, ~0U, 0, "SVM: no nested guests" },
	{ 0x8000000A, EBX, ~0U, 0, "SVM: no nested guests" },
	{ 0x8000000A, EDX, ~0U, 0, "SVM: no nested guests" },
	{ 0x8000001D, EAX, 0x03FFC000, 0, "caches are shared by one CPU" },
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

/* Leaves 0xB and 0x1F: one thread a core, one core a package. */
static void cpuid_topology(struct kvm_cpuid_entry2 *e, unsigned apic_id)
{
	enum { LEVEL_SMT = 1, LEVEL_CORE = 2 };

	e->eax = 0;
	e->ebx = e->index < 2 ? 1 : 0;
	e->ecx = e->index | (e->index == 0 ? LEVEL_SMT << 8 : e->index == 1 ? LEVEL_CORE << 8 : 0);
	e->edx = apic_id;
}

static void cpuid_identify(struct kvm_cpuid_entry2 *e, unsigned apic_id, bool tsc_deadline)
{
	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0x00FFFFFF) | apic_id << 24;
		if (tsc_deadline)
			e->ecx |= BIT(24);
		break;
	case 0xB:
	case 0x1F:
		cpuid_topology(e, apic_id);
		break;
	case 0x8000001E:
		e->eax = apic_id;
		e->ebx = apic_id & 0xFF;	/* compute unit; one thread in it */
		e->ecx = 0;
		break;
	}
}

int cpu_cpuid_set(const struct kvm *kvm, int fd, unsigned index, struct error *err)
{
	struct cpuid_table *t = calloc(1, sizeof(*t));
	bool tsc_deadline = kvm_capability(kvm, KVM_CAP_TSC_DEADLINE_TIMER);
	long ret;

	if (!t)
		return error_set(err, ENOMEM, "out of memory");
	t->head.nent = CPUID_MAX;
	ret = kvm_ioctl(kvm, kvm->fd, KVM_GET_SUPPORTED_CPUID, t);
	if (ret >= 0) {
		for (u32 i = 0; i < t->head.nent; i++) {
			cpuid_fix_entry(&t->entry[i]);
			cpuid_identify(&t->entry[i], index, tsc_deadline);
		}
		ret = kvm_ioctl(kvm, fd, KVM_SET_CPUID2, t);
	}
	free(t);
	if (ret < 0)
		return error_set(err, -ret, "cannot set the guest's CPUID: %s", strerror(-ret));
	return 0;
}
