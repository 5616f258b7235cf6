/* MSRs: the table's form, and the rules of the registers that have some. */
#include <errno.h>
#include <string.h>

#include "hypervisor/x86/msr.h"
#include "hypervisor/x86/msr_row.h"
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

static void sorted_and_apart(void **state)
{
	unsigned int i;

	for (i = 0; i < nr_msr_rows; i++) {
		assert_true(msr_rows[i].count > 0);
		assert_true(msr_rows[i].field + 8u * msr_rows[i].count <= sizeof(struct vcpu));
		assert_true(!i || msr_rows[i - 1].first + msr_rows[i - 1].count <= msr_rows[i].first);
	}
}

/* Time-stamp counter; Hyper-V's run time and reference time. */
static bool goes_on(u32 index)
{
	return index == 0x10 || index == 0x40000010 || index == 0x40000020;
}

/* What a guest saves, it can load; what is listed, user space can read and write back. */
static void listed_ones_round_trip(void **state)
{
	static u32 list[512];
	unsigned int i, n = msr_list(list, 512);
	u64 val, again;

	assert_in_range(n, 1, 512);
	assert_int_equal(msr_list(NULL, 0), n);
	for (i = 0; i < n; i++) {
		assert_int_equal(msr_read(m->v, list[i], &val, true), 0);
		if (msr_write(m->v, list[i], val, true))
			fail_msg("MSR %x does not take its own value %llx", list[i],
				(unsigned long long)val);
		assert_int_equal(msr_read(m->v, list[i], &again, true), 0);
		if (!goes_on(list[i]))
			assert_int_equal(again, val);
	}
}

struct rule {
	u32 index;
	u64 val;
	bool allowed;
};

static const struct rule rules[] = {
	{ 0xc0000080, BIT(0), true },		/* EFER */
	{ 0xc0000080, BIT(8) | BIT(11), true },
	{ 0xc0000080, BIT(10), true },		/* LMA: ignored */
	{ 0xc0000080, BIT(12), false },		/* SVME */
	{ 0xc0000080, BIT(1), false },
	{ 0xc0000082, BIT(47), false },		/* LSTAR: canonical */
	{ 0xc0000082, MASK(63, 47), true },
	{ 0xc0000100, BIT(47), false },
	{ 0xc0000102, BIT(63), false },
	{ 0xc0000103, BIT(32), false },		/* TSC_AUX */
	{ 0x277, 0x0007040600070406, true },	/* PAT */
	{ 0x277, 0x0000000000000002, false },
	{ 0x277, 0x0000000000000008, false },
	{ 0x250, 0x0606060606060606, true },	/* MTRR */
	{ 0x250, 0x0706060606060606, false },
	{ 0x2ff, 0xc06, true },
	{ 0x2ff, 0x1c06, false },
	{ 0x200, 0x06, true },
	{ 0x200, 0x100, false },
	{ 0x201, 0x800, true },
	{ 0x201, 0x400, false },
	{ 0x20f, 0x800, true },
	{ 0x210, 0, false },
	{ 0xfe, 0, false },			/* MTRRcap */
	{ 0x400, ~0ULL, true },			/* MC0_CTL */
	{ 0x400, 1, false },
	{ 0x401, 1, false },			/* MC0_STATUS */
	{ 0x401, 0, true },
	{ 0x400 + 4 * 31, 0, true },		/* the last bank there can be */
	{ 0x400 + 4 * 32, 0, false },
	{ 0x9e, 0, false },			/* SMBASE: user space only */
	{ 0xda0, 1, false },			/* XSS */
	{ 0x4b564d03, 3, false },		/* steal time: 64-byte aligned */
	{ 0x4b564d03, 0x41, true },
	{ 0x40000000, 1, false },		/* Hyper-V: not in CPUID */
	{ 0xc0010000, 5, true },		/* counters: dropped */
	{ 0x48, 0, false },			/* SPEC_CTRL */
	{ 0x12345, 0, false },
};

static void guest_rules(void **state)
{
	const struct rule *r;

	for (r = rules; r < rules + ARRAY_SIZE(rules); r++)
		if (!msr_write(m->v, r->index, r->val, false) != r->allowed)
			fail_msg("MSR %x := %llx", r->index, (unsigned long long)r->val);
}

static void efer(void **state)
{
	u64 val;

	m->v->cr0 |= CR0_PE | CR0_PG;
	m->v->efer = EFER_LME | EFER_LMA;
	assert_int_equal(msr_write(m->v, 0xc0000080, 0, false), -EINVAL);
	assert_int_equal(msr_write(m->v, 0xc0000080, EFER_LME, false), 0);
	assert_int_equal(msr_read(m->v, 0xc0000080, &val, false), 0);
	assert_int_equal(val, EFER_LME | EFER_LMA);
	machine_feature(m, F_NX, false);
	assert_int_equal(msr_write(m->v, 0xc0000080, EFER_LME | EFER_NX, false), -EINVAL);
}

static void segment_bases(void **state)
{
	u64 val;

	machine_long(m, 0, 0x1000);
	assert_int_equal(msr_write(m->v, 0xc0000101, 0x1234, false), 0);
	assert_int_equal(m->v->ebase[SEG_GS], 0x1234);
	assert_int_equal(msr_read(m->v, 0xc0000101, &val, false), 0);
	assert_int_equal(val, 0x1234);
}

static void tsc_and_adjust(void **state)
{
	u64 before, val;

	assert_int_equal(msr_write(m->v, 0x10, 1000, false), 0);
	assert_in_range(tsc_read(m->v), 1000, 1000 + 4000000000ULL);
	assert_int_equal(msr_read(m->v, 0x3b, &val, false), 0);
	assert_int_not_equal(val, 0);
	before = m->v->tsc_offset;
	assert_int_equal(msr_write(m->v, 0x3b, val + 500, false), 0);
	assert_int_equal(m->v->tsc_offset, before + 500);
	assert_int_equal(msr_write(m->v, 0x3b, 0, true), 0);	/* user space: the clock stays */
	assert_int_equal(m->v->tsc_offset, before + 500);
}

static void reset_values(void **state)
{
	u64 val;

	assert_int_equal(msr_read(m->v, 0x277, &val, false), 0);
	assert_int_equal(val, 0x0007040600070406);
	assert_int_equal(msr_write(m->v, 0x2ff, 0xc06, false), 0);
	vcpu_reset(m->v, true);
	assert_int_equal(msr_read(m->v, 0x2ff, &val, false), 0);
	assert_int_equal(val, 0xc06);
	vcpu_reset(m->v, false);
	assert_int_equal(msr_read(m->v, 0x2ff, &val, false), 0);
	assert_int_equal(val, 0);
}

static void features(void **state)
{
	u32 list[16];
	unsigned int i, n = msr_feature_list(list, 16);
	u64 val;

	assert_in_range(n, 1, 16);
	for (i = 0; i < n; i++)
		assert_int_equal(msr_feature_read(list[i], &val), 0);
	assert_int_equal(msr_feature_read(0x10, &val), -EINVAL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sorted_and_apart), TEST(listed_ones_round_trip), TEST(guest_rules),
		TEST(efer),
		TEST(segment_bases), TEST(tsc_and_adjust), TEST(reset_values), TEST(features),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
