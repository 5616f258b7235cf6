/*
 * All model-specific registers that there may be, read and written with what an attacker would choose,
 * and all leaves of CPUID: each answers or faults, and the guest goes on. What a write left is put
 * back, where the register lets it, so that the next ones meet a machine that runs.
 */
#include "hostile.h"

static const struct range {
	u32 first, count;
	const char *name;
} ranges[] = {
	{ 0, 0x2000, "MSRs of the architecture" },
	{ 0x40000000, 0x200, "MSRs of Hyper-V" },
	{ 0x4b564d00, 16, "MSRs of KVM" },
	{ 0xc0000000, 0x200, "MSRs of AMD" },
	{ 0xc0010000, 0x200, "MSRs of AMD's processors" },
	{ 0x80000000, 16, "MSRs of nobody" }, { 0xfffffff0, 16, "the last MSRs" },
};

static u64 values[] = {
	0, ~0ul, 1, 3, 1ul << 63, 1ul << 47, 0xffff800000000000ul, 0x7fffffffffff, 0xffffffff,
	0x5555555555555555ul, 0xaaaaaaaaaaaaaaaaul, 0xfee00800, NOTHING_THERE | 1, ROM_SLOT | 1,
	0,	/* a page of ours; a host's address */
	0,
};

static u64 read_value;
static u32 readable, writable;

static int read_msr(u32 index)
{
	return catch(read_value = rdmsr(index));
}

static int write_msr(u32 index, u64 v)
{
	return catch(wrmsr(index, v));
}

/* Without long mode or the local APIC as it is there is no guest to go on: these only with reserved bits. */
static bool would_end(u32 index)
{
	return index == MSR_EFER || index == MSR_APIC_BASE;
}

static void write_all(u32 index)
{
	bool known = read_msr(index) == NONE;
	u64 before = read_value;
	unsigned n;

	for (n = 0; n < ARRAY_SIZE(values); n++) {
		int v = write_msr(index, would_end(index) ? values[n] | 1ul << 62 : values[n]);

		sweep_check(v == NONE || v == GP, "WRMSR %x, %lx: %d", index, values[n], v);
		sweep_check(!would_end(index) || v == GP, "WRMSR %x: reserved bits", index);
		writable += v == NONE;
	}
	if (known)
		write_msr(index, before);
	else
		write_msr(index, 0);
}

static void registers(const struct range *r)
{
	u32 n;

	sweep(r->name);
	for (n = 0; n < r->count; n++) {
		int v = read_msr(r->first + n);

		sweep_check(v == NONE || v == GP, "RDMSR %x: %d", r->first + n, v);
		readable += v == NONE;
	}
	for (n = 0; n < r->count; n++)
		write_all(r->first + n);
	sweep_end();
	host_call(HOST_CHECK, 0, 0, 0);
}

/* ---- CPUID ---------------------------------------------------------------------------------- */

static const u32 leaves[] = { 0, 0x20000000, 0x40000000, 0x40000100, 0x80000000, 0x8fffffe0, 0xc0000000,
	0xffffffe0 };
static const u32 subleaves[] = { 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff };

static void all_leaves(void)
{
	unsigned k;
	u32 n, sub;

	sweep("leaves of CPUID");
	for (k = 0; k < ARRAY_SIZE(leaves); k++)
		for (n = 0; n < 0x60; n++) {
			for (sub = 0; sub < 0x40; sub++)
				sweep_check(catch(cpuid(leaves[k] + n, sub)) == NONE, "CPUID %x", leaves[k] + n);
			for (sub = 0; sub < ARRAY_SIZE(subleaves); sub++)
				sweep_check(catch(cpuid(leaves[k] + n, subleaves[sub])) == NONE, "CPUID %x",
					leaves[k] + n);
		}
	sweep_end();
}

void guest_main(void)
{
	unsigned k;

	group("registers and leaves");
	values[ARRAY_SIZE(values) - 2] = (u64)page_alloc() | 1;
	values[ARRAY_SIZE(values) - 1] = host_pointer() | 1;
	for (k = 0; k < ARRAY_SIZE(ranges); k++)
		registers(&ranges[k]);
	check(readable > 50 && writable > 50, "some of them are there");
	check(rdmsr(MSR_EFER) & 1u << 10, "long mode is");
	all_leaves();
}
