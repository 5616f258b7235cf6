/* MSRs: valid and invalid accesses, and what the values do. SDM 4, chapter 2. */
#include "guest.h"

static bool amd;

static void absent(const char *name, u32 msr)
{
	int r = catch(rdmsr(msr));

	sweep_check(r == GP && !fault.f.error, "rdmsr %s: %d", name, r);
	r = catch(wrmsr(msr, 0));
	sweep_check(r == GP && !fault.f.error, "wrmsr %s: %d", name, r);
}

static void unknown(void)
{
	sweep("numbers that mean nothing give #GP(0)");
	absent("0x4000", 0x4000);
	absent("0x12345678", 0x12345678);
	absent("0xc0001fff", 0xc0001fff);
	absent("0x40000200", 0x40000200);
	absent("0xffffffff", 0xffffffff);
	absent("0x8ff", 0x8ff);
	sweep_end();
}

static void addresses(void)
{
	static const struct { const char *name; u32 msr; } t[] = {
		{ "FS_BASE", MSR_FS_BASE }, { "GS_BASE", MSR_GS_BASE }, { "KERNEL_GS_BASE", MSR_KERNEL_GS_BASE },
		{ "LSTAR", MSR_LSTAR }, { "CSTAR", MSR_CSTAR } };
	unsigned i;

	sweep("addresses: canonical ones only");
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		u64 old = rdmsr(t[i].msr);

		sweep_check(catch(wrmsr(t[i].msr, 0x00007fffffffffffull)) == NONE, "%s low", t[i].name);
		sweep_check(rdmsr(t[i].msr) == 0x00007fffffffffffull, "%s low reads back", t[i].name);
		sweep_check(catch(wrmsr(t[i].msr, 0xffff800000000000ull)) == NONE, "%s high", t[i].name);
		sweep_check(catch(wrmsr(t[i].msr, 0x0000800000000000ull)) == GP, "%s non-canonical", t[i].name);
		sweep_check(rdmsr(t[i].msr) == 0xffff800000000000ull, "%s unchanged", t[i].name);
		wrmsr(t[i].msr, old);
	}
	sweep_end();
}

static void syscall_registers(void)
{
	group("system calls");
	wrmsr(MSR_STAR, 0x123456789abcdef0ull);
	expect("STAR", rdmsr(MSR_STAR), 0x123456789abcdef0ull);
	wrmsr(MSR_SFMASK, 0x47700);
	expect("SFMASK", rdmsr(MSR_SFMASK), 0x47700);
	wrmsr(MSR_SYSENTER_CS, 0x10);
	expect("SYSENTER_CS", rdmsr(MSR_SYSENTER_CS), 0x10);
	wrmsr(MSR_SYSENTER_ESP, 0x12345678);
	expect("SYSENTER_ESP", rdmsr(MSR_SYSENTER_ESP), 0x12345678);
	wrmsr(MSR_SYSENTER_EIP, 0x87654321);
	expect("SYSENTER_EIP", rdmsr(MSR_SYSENTER_EIP), 0x87654321);
	wrmsr(MSR_SYSENTER_CS, 0);
}

static void memory_types(void)
{
	u64 pat = rdmsr(MSR_PAT), type;

	group("PAT and MTRR");
	expect("PAT at reset", pat, 0x0007040600070406ull);
	wrmsr(MSR_PAT, 0x0007010600070106ull);
	expect("PAT", rdmsr(MSR_PAT), 0x0007010600070106ull);
	expect_fault("PAT type 2", GP, 0, wrmsr(MSR_PAT, 0x0007040600070402ull));
	expect_fault("PAT type 8", GP, 0, wrmsr(MSR_PAT, 0x0807040600070406ull));
	wrmsr(MSR_PAT, pat);
	if (!(cpuid(1, 0).edx & BIT(12))) {
		skip("MTRR", "not in CPUID");
		return;
	}
	type = rdmsr(0x2ff);
	check((rdmsr(0xfe) & 0xff) >= 8, "variable ranges: %u", (u32)rdmsr(0xfe) & 0xff);
	expect_fault("MTRRcap is read-only", GP, 0, wrmsr(0xfe, 0));
	wrmsr(0x2ff, 0xc06);
	expect("default type", rdmsr(0x2ff), 0xc06);
	expect_fault("default type 2", GP, 0, wrmsr(0x2ff, 0xc02));
	wrmsr(0x250, 0x0606060606060606ull);
	expect("fixed range", rdmsr(0x250), 0x0606060606060606ull);
	expect_fault("fixed range of type 3", GP, 0, wrmsr(0x250, 0x03));
	wrmsr(0x200, 0x80000006);
	wrmsr(0x201, 0xff80000800ull);
	expect("variable base", rdmsr(0x200), 0x80000006);
	expect("variable mask", rdmsr(0x201), 0xff80000800ull);
	wrmsr(0x201, 0);
	wrmsr(0x200, 0);
	wrmsr(0x2ff, type);
}

static void apic_base(void)
{
	u64 v = rdmsr(MSR_APIC_BASE);

	group("APIC_BASE");
	expect("address", v & 0xffffff000ull, 0xfee00000);
	expect("boot processor", v >> 8 & 1, 1);
	expect_fault("reserved bits", GP, 0, wrmsr(MSR_APIC_BASE, v | 1));
	expect_fault("beyond MAXPHYADDR", GP, 0, wrmsr(MSR_APIC_BASE, v | BIT(63)));
}

static void feature_control(void)
{
	group("others");
	/* Linux reads these without a net on every CPU of the vendor. */
	expect_ok("MCG_CAP", rdmsr(0x179));
	expect_ok("MCG_STATUS", wrmsr(0x17a, 0));
	expect_ok("MISC_ENABLE or nothing", (void)catch(rdmsr(0x1a0)));
	if (amd) {
		expect_ok("HWCR", rdmsr(0xc0010015));
		expect_ok("SYSCFG", rdmsr(0xc0010010));
		expect_ok("microcode patch level", rdmsr(0x8b));
	}
	if (cpuid(0x80000001, 0).edx & BIT(27)) {
		wrmsr(MSR_TSC_AUX, 0xffffffff);
		expect("TSC_AUX", rdmsr(MSR_TSC_AUX), 0xffffffff);
		if (!amd)
			expect_fault("TSC_AUX high half", GP, 0, wrmsr(MSR_TSC_AUX, BIT(32)));
		wrmsr(MSR_TSC_AUX, 0);
	}
}

static void sign_of_index(void)
{
	ulong cx = 0xffffffff00000000ul | MSR_STAR;
	u32 lo, hi;

	group("registers");
	wrmsr(MSR_STAR, 0x1122334455667788ull);
	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(cx));
	expect("the upper half of RCX is ignored", (u64)hi << 32 | lo, 0x1122334455667788ull);
	{
		ulong ax = -1ul, dx = -1ul;

		asm volatile("rdmsr" : "+a"(ax), "+d"(dx) : "c"(MSR_STAR));
		expect("RAX is zero-extended", ax, 0x55667788);
		expect("RDX is zero-extended", dx, 0x11223344);
	}
	wrmsr(MSR_STAR, 0);
}

void guest_main(void)
{
	amd = cpuid(0, 0).ecx == 0x444d4163;	/* ...cAMD */
	unknown();
	addresses();
	syscall_registers();
	memory_types();
	apic_base();
	feature_control();
	sign_of_index();
}
