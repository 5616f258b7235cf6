/* CPUID: every bit of every feature register accounted for, and what the guest's table becomes. */
#include <cpuid.h>
#include <string.h>

#include "hypervisor/x86/cpuid_table.h"
#include "tests/unit/x86/machine.h"

static struct machine *m;

static int setup(void **state)
{
	m = machine_create();
	return 0;
}

static int teardown(void **state)
{
	machine_destroy(m);
	return 0;
}

static u32 row_mask(const struct cpuid_bit *b)
{
	return (u32)MASK(b->high, b->low);
}

static void each_bit_once(void **state)
{
	u32 seen[NR_CPUID_REGS] = { 0 };
	const struct cpuid_bit *b;
	unsigned int i;

	for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++) {
		assert_in_range(b->reg, 0, NR_CPUID_REGS - 1);
		assert_true(b->low <= b->high && b->high < 32);
		if (seen[b->reg] & row_mask(b))
			fail_msg("%s (register %u, bit %u) is there twice", b->name, b->reg,
				b->low);
		seen[b->reg] |= row_mask(b);
	}
	for (i = 0; i < NR_CPUID_REGS; i++)
		if (seen[i] != 0xffffffff)
			fail_msg("register %u lacks bits %08x", i, ~seen[i]);
}

static void reasons_and_names(void **state)
{
	const struct cpuid_bit *b, *c;

	for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++) {
		assert_non_null(b->name);
		assert_int_equal(b->policy == CPUID_LEFT_OUT, b->why != NULL);
		if (b->policy != CPUID_LEFT_OUT)
			assert_int_equal(b->low, b->high);
		for (c = b + 1; b->feature && c < cpuid_bits + nr_cpuid_bits; c++)
			if (c->feature == b->feature)
				fail_msg("%s and %s are the same feature", b->name, c->name);
	}
}

/*
 * Features that no row names could never be there; three have their bit in leaves that do not exist
 * here.
 */
static void each_feature_has_a_row(void **state)
{
	const struct cpuid_bit *b;
	unsigned int f;
	bool found;

	for (f = F_NONE + 1; f < NR_CPU_FEATURES; f++) {
		found = f == F_SNP || f == F_TDX || f == F_PTWRITE;
		for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++)
			found |= b->feature == f;
		if (!found)
			fail_msg("feature %u has no row", f);
	}
}

static u32 supported_reg(enum cpuid_reg reg)
{
	const struct cpuid_place *p = &cpuid_places[reg];
	struct kvm_cpuid_entry2 e[128];
	int i, n = cpuid_supported(e, 128);

	for (i = 0; i < n; i++)
		if (e[i].function == p->leaf && e[i].index == p->sub)
			return p->out == CPUID_EAX ? e[i].eax : p->out == CPUID_EBX ? e[i].ebx :
				p->out == CPUID_ECX ? e[i].ecx : e[i].edx;
	return 0;
}

static void left_out_bits_are_off(void **state)
{
	const struct cpuid_bit *b;

	for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++)
		if (b->policy == CPUID_LEFT_OUT && supported_reg(b->reg) & row_mask(b))
			fail_msg("%s is on", b->name);
	assert_true(supported_reg(C_1_ECX) & BIT(31));
	assert_true(supported_reg(C_1_EDX) & BIT(0));
	assert_int_equal(supported_reg(C_KVM_EAX) & ~BIT(5),
		MASK(1, 0) | MASK(4, 3) | MASK(7, 6) | BIT(9) | MASK(14, 11) | BIT(24));
	assert_int_equal(supported_reg(C_KVM_EAX) >> 5 & 1, os_delay_known());
}

/*
 * Whatever user space claims, instructions that the host lacks or that we left out stay undefined.
 */
static void claims_are_checked(void **state)
{
	struct kvm_cpuid_entry2 e[NR_CPUID_REGS];
	const struct cpuid_bit *b;
	unsigned int i, eax, ebx, ecx, edx;

	memset(e, 0, sizeof(e));
	for (i = 0; i < NR_CPUID_REGS; i++)
		e[i] = (struct kvm_cpuid_entry2) {
			.function = cpuid_places[i].leaf, .index = cpuid_places[i].sub,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u,
		};
	for (i = 0; i < NR_CPUID_REGS; i++)
		if (!cpuid_places[i].sub && cpuid_places[i].leaf != 7)
			e[i].flags = 0;
	assert_int_equal(cpuid_set(m->v, e, NR_CPUID_REGS), 0);
	for (b = cpuid_bits; b < cpuid_bits + nr_cpuid_bits; b++)
		if (b->feature && b->policy == CPUID_LEFT_OUT)
			assert_false(vcpu_has(m->v, b->feature));
	__cpuid_count(7, 0, eax, ebx, ecx, edx);
	assert_int_equal(!!vcpu_has(m->v, F_SHA), !!(ebx & BIT(29)));
	assert_int_equal(!!vcpu_has(m->v, F_GFNI), !!(ecx & BIT(8)));
	assert_true(vcpu_has(m->v, F_TSCDEADLINE));
	assert_true(vcpu_has(m->v, F_SMEP));
}

/*
 * What is said about transient execution: properties of the CPU are the host's, promises that only
 * the CPU could keep are not made, and controls that would not reach it are not offered.
 */
static void transient_execution(void **state)
{
	unsigned int a, ebx, ecx, edx;
	u32 e8 = supported_reg(C_E8_EBX), e21 = supported_reg(C_E21_EAX);
	u32 tsa = supported_reg(C_E21_ECX);

	__cpuid(0x80000000, a, ebx, ecx, edx);
	if (a >= 0x80000008) {
		unsigned int eax;

		__cpuid(0x80000008, eax, ebx, ecx, edx);
		assert_int_equal(e8 & BIT(26), ebx & BIT(26));		/* SSB_NO */
	}
	ecx = 0;
	if (a >= 0x80000021)
		__cpuid(0x80000021, a, ebx, ecx, edx);
	assert_int_equal(tsa & ~ecx, 0);
	assert_int_equal(e21 & BIT(8), 0);				/* AUTOIBRS */
	assert_int_equal(e8 & (BIT(12) | MASK(19, 14) | BIT(24) | BIT(25) | BIT(28)), 0);
	assert_int_equal(supported_reg(C_7_EDX) & (MASK(28, 26) | BIT(31) | BIT(10)), 0);
}

static void too_many_entries(void **state)
{
	static struct kvm_cpuid_entry2 e[129];

	assert_true(cpuid_set(m->v, e, 129) < 0);
	assert_int_equal(cpuid_supported(NULL, 0), cpuid_supported(e, 128));
}

static void dynamic_bits(void **state)
{
	u32 r[4];

	cpuid_read(m->v, 1, 0, r);
	assert_false(r[2] & BIT(27));
	assert_true(r[3] & BIT(9));
	m->v->cr4 |= CR4_OSXSAVE;
	m->v->msr.apic_base &= ~BIT(11);
	m->v->xcr0 = cpuid_xcr0(m->v);
	cpuid_update(m->v);
	cpuid_read(m->v, 1, 0, r);
	assert_true(r[2] & BIT(27));
	assert_false(r[3] & BIT(9));
	cpuid_read(m->v, 0xd, 0, r);
	assert_int_equal(r[1], r[2]);	/* all that can be enabled is */
	m->v->xcr0 = XCR0_X87;
	cpuid_update(m->v);
	cpuid_read(m->v, 0xd, 0, r);
	assert_int_equal(r[1], 576);
}

static void out_of_range(void **state)
{
	const u32 zero[4] = { 0 };
	u32 r[4], last[4];

	cpuid_read(m->v, 0xd, 1, last);
	cpuid_read(m->v, 0x1000, 1, r);
	assert_memory_equal(r, vcpu_amd(m->v) ? zero : last, sizeof(r));
	cpuid_read(m->v, 0x40000005, 0, r);
	assert_memory_equal(r, zero, sizeof(r));
	cpuid_read(m->v, 0x40000000, 0, r);
	assert_memory_equal(&r[1], "KVMKVMKVM\0\0", 12);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_bit_once), cmocka_unit_test(reasons_and_names),
		cmocka_unit_test(each_feature_has_a_row), cmocka_unit_test(left_out_bits_are_off),
		TEST(claims_are_checked), TEST(transient_execution), TEST(too_many_entries), TEST(dynamic_bits),
		TEST(out_of_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
