/*
 * CPUID by the shape of the machine's CPUs, decoded as the manuals say: SDM 3A 8.9 (leaves 1, 4, 0xB, 0x1F),
 * APM 3 appendix E (0x80000008, 0x8000001D, 0x8000001E).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "vmm/cpus/cpu_state.h"
#include "vmm/memory/guest_memory.h"

#define ENTRIES 64

struct table {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[ENTRIES];
};

static struct table set;	/* what the VMM gave to the vCPU */
static bool amd, deadline;

enum { L1 = 1, L3 = 3, DATA = 1, UNIFIED = 3 };

/* As a host has it: of one CPU, or of the host's own number, which must not be seen. */
static const struct kvm_cpuid_entry2 host[] = {
	{ .function = 0, .eax = 0x1F },
	{ .function = 1, .ebx = 0x07200800, .ecx = BIT(5) | BIT(27), .edx = 0x178BFBFF },
	{ .function = 4, .index = 0, .eax = 0xFC01C000 | L1 << 5 | DATA },
	{ .function = 4, .index = 1, .eax = 0xFC3FC000 | L3 << 5 | UNIFIED },
	{ .function = 4, .index = 2, .eax = 0 },
	{ .function = 6 },
	{ .function = 0xB, .index = 0, .eax = 5, .ebx = 32, .ecx = 0x100, .edx = 9 },
	{ .function = 0x1F, .index = 0, .eax = 5, .ebx = 32, .ecx = 0x100, .edx = 9 },
	{ .function = 0x80000001 },
	{ .function = 0x80000008, .eax = 0x3030, .ecx = 0x501F },
	{ .function = 0x8000001D, .index = 0, .eax = 0x3FFC000 | L1 << 5 | DATA },
	{ .function = 0x8000001D, .index = 1, .eax = 0x3FFC000 | L3 << 5 | UNIFIED },
	{ .function = 0x8000001D, .index = 2, .eax = 0 },
	{ .function = 0x8000001E, .eax = 7, .ebx = 0x1F1F, .ecx = 0x703 },
};

static long host_cpuid(struct table *t)
{
	assert_true(t->head.nent >= ARRAY_SIZE(host));
	t->head.nent = ARRAY_SIZE(host);
	memcpy(t->entry, host, sizeof(host));
	/* "Auth" and "Genu": only EBX is looked at. */
	t->entry[0].ebx = amd ? 0x68747541 : 0x756E6547;
	return 0;
}

static long ioctl_served(int fd, unsigned long request, unsigned long arg)
{
	const struct table *t = (void *)arg;

	(void)fd;
	switch (request) {
	case KVM_GET_SUPPORTED_CPUID:
		return host_cpuid((void *)arg);
	case KVM_CHECK_EXTENSION:
		return arg == KVM_CAP_TSC_DEADLINE_TIMER && deadline;
	default:
		assert_int_equal(request, KVM_SET_CPUID2);
		assert_true(t->head.nent <= ENTRIES);
		memcpy(&set, t, sizeof(t->head) + t->head.nent * sizeof(t->entry[0]));
		return 0;
	}
}

static void make(const struct cpu_topology *t, unsigned cpu)
{
	static const struct kvm_backend backend = { .name = "test", .ioctl = ioctl_served };
	const struct kvm kvm = { .backend = &backend };
	struct error err = ERROR_INIT;

	assert_int_equal(cpu_cpuid_set(&kvm, -1, t, cpu, &err), 0);
}

static const struct kvm_cpuid_entry2 *leaf(u32 function, u32 index)
{
	for (u32 i = 0; i < set.head.nent; i++)
		if (set.entry[i].function == function && set.entry[i].index == index)
			return &set.entry[i];
	fail_msg("there is no leaf 0x%x, %u", function, index);
	return NULL;
}

static u32 field(u32 reg, unsigned high, unsigned low)
{
	return (reg & MASK(high, low)) >> low;
}

/* The least power of two that is not smaller. */
static u32 room(u32 n)
{
	u32 r = 1;

	while (r < n)
		r *= 2;
	return r;
}

/* ---- what each CPU says ---------------------------------------------------------------------- */

/* Leaves 0xB and 0x1F, as software walks them: SDM 3A example 8-18. */
static void check_levels(u32 function, const struct cpu_topology *t, const struct cpu_place *p)
{
	const struct kvm_cpuid_entry2 *smt = leaf(function, 0), *core = leaf(function, 1);
	u32 id = smt->edx, thread_shift = field(smt->eax, 4, 0), shift = field(core->eax, 4, 0);

	assert_int_equal(field(smt->ecx, 15, 8), 1);
	assert_int_equal(field(core->ecx, 15, 8), 2);
	assert_int_equal(field(smt->ecx, 7, 0), 0);
	assert_int_equal(field(core->ecx, 7, 0), 1);
	assert_int_equal(field(smt->ebx, 15, 0), t->threads);
	assert_int_equal(field(core->ebx, 15, 0), t->threads * t->cores);
	assert_int_equal(core->edx, id);
	assert_int_equal(id & (BIT(thread_shift) - 1), p->thread);
	assert_int_equal((id & (BIT(shift) - 1)) >> thread_shift, p->core);
	assert_int_equal(id >> shift, p->socket);
	assert_int_equal(BIT(thread_shift), room(t->threads));
	assert_int_equal(BIT(shift), room(t->threads) * room(t->cores));
}

static void check_leaf_1(const struct cpu_topology *t)
{
	const struct kvm_cpuid_entry2 *e = leaf(1, 0);

	assert_int_equal(field(e->ebx, 31, 24), leaf(0xB, 0)->edx);
	assert_int_equal(field(e->ebx, 23, 16), t->cores * t->threads);
	assert_int_equal(field(e->ebx, 15, 8), 8);	/* CLFLUSH's line is the host's */
	assert_int_equal(field(e->edx, 28, 28), t->cores * t->threads > 1);
	/* No VMX; a hypervisor; the timer where the hypervisor has it. */
	assert_int_equal(field(e->ecx, 5, 5), 0);
	assert_int_equal(field(e->ecx, 31, 31), 1);
	assert_int_equal(field(e->ecx, 24, 24), deadline);
}

static void check_caches_intel(const struct cpu_topology *t)
{
	const struct kvm_cpuid_entry2 *first = leaf(4, 0), *last = leaf(4, 1);

	assert_int_equal(field(first->eax, 25, 14) + 1, room(t->threads));
	assert_int_equal(field(last->eax, 25, 14) + 1, room(t->threads) * room(t->cores));
	assert_int_equal(field(first->eax, 31, 26) + 1, room(t->cores));
	assert_int_equal(field(last->eax, 31, 26) + 1, room(t->cores));
	assert_int_equal(field(first->eax, 13, 0), L1 << 5 | DATA);
	assert_int_equal(leaf(4, 2)->eax, 0);
}

static void check_amd(const struct cpu_topology *t, const struct cpu_place *p)
{
	const struct kvm_cpuid_entry2 *size = leaf(0x80000008, 0), *node = leaf(0x8000001E, 0);
	u32 shift = field(size->ecx, 15, 12), package = t->cores * t->threads;

	assert_int_equal(field(size->ecx, 7, 0) + 1, package);
	assert_int_equal(BIT(shift), room(t->threads) * room(t->cores));
	assert_int_equal(leaf(0xB, 0)->edx >> shift, p->socket);
	assert_int_equal(field(leaf(0x80000001, 0)->ecx, 1, 1), package > 1);	/* CmpLegacy */
	assert_int_equal(node->eax, leaf(0xB, 0)->edx);
	assert_int_equal(field(node->ebx, 7, 0), p->core);
	assert_int_equal(field(node->ebx, 15, 8) + 1, t->threads);
	assert_int_equal(field(node->ecx, 7, 0), p->socket);
	assert_int_equal(field(node->ecx, 10, 8), 0);
	assert_int_equal(field(leaf(0x8000001D, 0)->eax, 25, 14) + 1, t->threads);
	assert_int_equal(field(leaf(0x8000001D, 1)->eax, 25, 14) + 1, package);
	assert_int_equal(leaf(0x8000001D, 2)->eax, 0);
}

static void check_cpu(const struct cpu_topology *t, const struct cpu_place *p)
{
	make(t, (p->socket * t->cores + p->core) * t->threads + p->thread);
	check_levels(0xB, t, p);
	check_levels(0x1F, t, p);
	check_leaf_1(t);
	assert_int_equal(field(leaf(0x80000008, 0)->eax, 7, 0), GUEST_PHYS_BITS);
	assert_int_equal(field(leaf(0x80000008, 0)->eax, 15, 8), 48);
	check_caches_intel(t);
	if (amd)
		check_amd(t, p);
	else
		assert_int_equal(leaf(0x80000008, 0)->ecx, 0);
}

static void check_shape(const struct cpu_topology *t)
{
	struct cpu_place p;

	for (p.socket = 0; p.socket < t->sockets; p.socket++)
		for (p.core = 0; p.core < t->cores; p.core++)
			for (p.thread = 0; p.thread < t->threads; p.thread++)
				check_cpu(t, &p);
}

static void test_shapes(void **state)
{
	static const struct cpu_topology shapes[] = {
		{ 1, 1, 1 }, { 1, 4, 1 }, { 1, 2, 2 }, { 2, 2, 2 }, { 2, 3, 2 }, { 3, 1, 1 }, { 1, 5, 3 },
		{ 1, 64, 1 }, { 64, 1, 1 }, { 1, 1, 64 }, { 2, 16, 2 },
	};

	(void)state;
	for (unsigned vendor = 0; vendor < 2; vendor++) {
		amd = vendor;
		deadline = !vendor;
		for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
			check_shape(&shapes[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_shapes) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
