/* Register files: what goes in comes out, and what cannot be is refused. */
#include <errno.h>
#include <string.h>

#include "tests/api/api.h"

#define CR0_PE	BIT(0)
#define CR0_PG	BIT(31)
#define CR0_NW	BIT(29)
#define CR4_PAE	BIT(5)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)

static void test_general(void **state)
{
	struct kvm_regs in, out;
	struct machine m;
	size_t i;

	machine_new(&m, PLAIN);
	for (i = 0; i < sizeof(in) / 8; i++)
		((u64 *)&in)[i] = 0x1111111111111111 * (i + 1);
	in.rflags = 0x46;
	set_regs(m.vcpu, &in);
	out = get_regs(m.vcpu);
	assert_memory_equal(&in, &out, sizeof(in));
	/* Bit 1 is always set. */
	in.rflags = 0;
	set_regs(m.vcpu, &in);
	assert_int_equal(get_regs(m.vcpu).rflags, 2);
	machine_free(&m);
}

static void test_segments(void **state)
{
	struct kvm_sregs in, out;
	struct machine m;

	machine_new(&m, PLAIN);
	in = get_sregs(m.vcpu);
	in.ds = (struct kvm_segment){
		.base = 0x12340, .limit = 0xffffffff, .selector = 0x10, .type = 3,
		.present = 1, .dpl = 0, .db = 1, .s = 1, .g = 1,
	};
	in.ldt = (struct kvm_segment){
		.base = 0x5000, .limit = 0xff, .selector = 0x28, .type = 2, .present = 1,
	};
	in.gdt = (struct kvm_dtable){ .base = 0x3000, .limit = 0x7f };
	in.idt = (struct kvm_dtable){ .base = 0x4000, .limit = 0x7ff };
	in.cr2 = 0x123456789abc;
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &in), 0);
	out = get_sregs(m.vcpu);
	assert_memory_equal(&in.ds, &out.ds, sizeof(in.ds));
	assert_memory_equal(&in.ldt, &out.ldt, sizeof(in.ldt));
	assert_int_equal(out.gdt.base, 0x3000);
	assert_int_equal(out.gdt.limit, 0x7f);
	assert_int_equal(out.idt.base, 0x4000);
	assert_int_equal(out.cr2, 0x123456789abc);
	machine_free(&m);
}

/* Power-up state. SDM 3A table 10-1 */
static void test_power_up(void **state)
{
	struct kvm_run *run;
	struct kvm_sregs s;
	struct kvm_regs r;
	int sys = api->open();
	int vm = call_num(sys, KVM_CREATE_VM, 0);
	int vcpu = vcpu_new(vm, 0, &run);

	s = get_sregs(vcpu);
	r = get_regs(vcpu);
	assert_int_equal(r.rip, 0xfff0);
	assert_int_equal(r.rflags, 2);
	assert_int_equal(s.cs.base, 0xffff0000);
	assert_int_equal(s.cs.selector, 0xf000);
	assert_int_equal(s.cs.limit, 0xffff);
	assert_int_equal(s.ds.base, 0);
	assert_int_equal(s.cr0, 0x60000010);
	assert_int_equal(s.cr4, 0);
	assert_int_equal(s.efer, 0);
	assert_int_equal(s.apic_base & 0xfffff000, 0xfee00000);
	api->close(vcpu);
	api->close(vm);
	api->close(sys);
}

static void test_impossible_sregs(void **state)
{
	static const struct {
		const char *why;
		u64 cr0, cr4, efer;
		bool l;
		int ret;
	} row[] = {
		{ "protected mode", CR0_PE, 0, 0, false, 0 },
		{ "long mode", CR0_PE | CR0_PG, CR4_PAE, EFER_LME | EFER_LMA, true, 0 },
		{ "no PAE", CR0_PE | CR0_PG, 0, EFER_LME | EFER_LMA, false, -EINVAL },
		{ "no LMA", CR0_PE | CR0_PG, CR4_PAE, EFER_LME, false, -EINVAL },
		{ "LMA without paging", CR0_PE, CR4_PAE, EFER_LMA, false, -EINVAL },
		{ "CS.L in legacy mode", CR0_PE, 0, 0, true, -EINVAL },
		{ "paging without protection", CR0_PG, 0, 0, false, -EINVAL },
		{ "NW without CD", CR0_PE | CR0_NW, 0, 0, false, -EINVAL },
		{ "upper half of CR0", CR0_PE | BIT(40), 0, 0, false, -EINVAL },
		{ "reserved bit of CR4", CR0_PE, BIT(63), 0, false, -EINVAL },
	};
	struct kvm_sregs good, s;
	struct machine m;
	size_t i;

	machine_new(&m, PLAIN);
	good = get_sregs(m.vcpu);
	for (i = 0; i < ARRAY_SIZE(row); i++) {
		long ret;

		s = good;
		s.cr0 = row[i].cr0;
		s.cr4 = row[i].cr4;
		s.efer = row[i].efer;
		s.cs.l = row[i].l;
		s.cr3 = 0x2000;
		ret = call(m.vcpu, KVM_SET_SREGS, &s);
		if (ret != row[i].ret)
			fail_msg("%s: %ld", row[i].why, ret);
	}
	machine_free(&m);
}

static void test_sregs2(void **state)
{
	struct kvm_sregs2 s;
	struct machine m;

	skip_on_emulated_host("never calls PDPTRs valid");
	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vcpu, KVM_GET_SREGS2, &s), 0);
	assert_int_equal(s.flags, 0);
	s.flags = 2;
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS2, &s), -EINVAL);
	s.flags = 0;
	s.cr0 |= CR0_PE | CR0_PG;
	s.cr4 |= CR4_PAE;
	s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	s.pdptrs[2] = 0x3001;
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS2, &s), 0);
	memset(&s, 0, sizeof(s));
	assert_int_equal(call(m.vcpu, KVM_GET_SREGS2, &s), 0);
	assert_int_equal(s.flags, KVM_SREGS2_FLAGS_PDPTRS_VALID);
	assert_int_equal(s.pdptrs[2], 0x3001);
	machine_free(&m);
}

static void test_debugregs(void **state)
{
	struct kvm_debugregs in = { .db = { 1, 2, 3, 4 }, .dr6 = 0xffff0ff1, .dr7 = 0x401 }, out;
	struct machine m;

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vcpu, KVM_SET_DEBUGREGS, &in), 0);
	assert_int_equal(call(m.vcpu, KVM_GET_DEBUGREGS, &out), 0);
	assert_memory_equal(in.db, out.db, sizeof(in.db));
	assert_int_equal(out.dr6, in.dr6);
	assert_int_equal(out.dr7, in.dr7);
	in.flags = 1;
	assert_int_equal(call(m.vcpu, KVM_SET_DEBUGREGS, &in), -EINVAL);
	in.flags = 0;
	in.dr7 |= BIT(32);
	assert_int_equal(call(m.vcpu, KVM_SET_DEBUGREGS, &in), -EINVAL);
	machine_free(&m);
}

static void give_cpuid(struct machine *m)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 e[256]; } c = { .head.nent = 256 };

	assert_int_equal(call(m->sys, KVM_GET_SUPPORTED_CPUID, &c), 0);
	assert_int_equal(call(m->vcpu, KVM_SET_CPUID2, &c), 0);
}

static void test_xcrs(void **state)
{
	struct kvm_xcrs x;
	struct machine m;

	machine_new(&m, PLAIN);
	give_cpuid(&m);
	assert_int_equal(call(m.vcpu, KVM_GET_XCRS, &x), 0);
	assert_int_equal(x.nr_xcrs, 1);
	assert_int_equal(x.xcrs[0].value, 1);
	x.xcrs[0].value = 7;
	assert_int_equal(call(m.vcpu, KVM_SET_XCRS, &x), 0);
	x.xcrs[0].value = 6;
	assert_int_equal(call(m.vcpu, KVM_SET_XCRS, &x), -EINVAL);
	x.xcrs[0].value = 5;
	assert_int_equal(call(m.vcpu, KVM_SET_XCRS, &x), -EINVAL);
	x.xcrs[0].value = BIT(62) | 1;
	assert_int_equal(call(m.vcpu, KVM_SET_XCRS, &x), -EINVAL);
	/* The first of several counts, and others are not looked at. */
	x.nr_xcrs = 3;
	x.xcrs[0] = (struct kvm_xcr){ .xcr = 1, .value = 6 };
	x.xcrs[1] = (struct kvm_xcr){ .value = 7 };
	x.xcrs[2] = (struct kvm_xcr){ .value = 6 };
	assert_int_equal(call(m.vcpu, KVM_SET_XCRS, &x), 0);
	x.xcrs[0] = (struct kvm_xcr){ .value = 1 };
	x.nr_xcrs = KVM_MAX_XCRS + 1;
	assert_int_equal(call(m.vcpu, KVM_SET_XCRS, &x), -EINVAL);
	x.nr_xcrs = 1;
	x.flags = 1;
	assert_int_equal(call(m.vcpu, KVM_SET_XCRS, &x), -EINVAL);
	assert_int_equal(call(m.vcpu, KVM_GET_XCRS, &x), 0);
	assert_int_equal(x.xcrs[0].value, 7);
	machine_free(&m);
}

static void test_fpu(void **state)
{
	static struct kvm_xsave xs, back;
	struct kvm_fpu in, out;
	struct machine m;

	skip_on_emulated_host("loses XMM registers in KVM_SET_FPU");
	machine_new(&m, PLAIN);
	give_cpuid(&m);
	assert_int_equal(call(m.vcpu, KVM_GET_FPU, &in), 0);
	in.mxcsr = 0x1f80;
	in.fcw = 0x27f;
	memset(in.xmm[3], 0xa5, 16);
	memset(in.fpr[2], 0x5a, 10);
	assert_int_equal(call(m.vcpu, KVM_SET_FPU, &in), 0);
	assert_int_equal(call(m.vcpu, KVM_GET_FPU, &out), 0);
	assert_int_equal(out.fcw, 0x27f);
	assert_memory_equal(in.xmm, out.xmm, sizeof(in.xmm));
	assert_memory_equal(in.fpr[2], out.fpr[2], 10);
	/* The same state, seen as an XSAVE image: XMM3 at 160 + 3 * 16. */
	assert_int_equal(call(m.vcpu, KVM_GET_XSAVE, &xs), 0);
	assert_memory_equal((u8 *)xs.region + 208, in.xmm[3], 16);
	assert_int_equal(call(m.vcpu, KVM_SET_XSAVE, &xs), 0);
	assert_int_equal(call(m.vcpu, KVM_GET_XSAVE, &back), 0);
	assert_memory_equal(xs.region, back.region, 512);
	/* The size is the old one where no feature needs more. api.rst 4.134 */
	assert_int_equal(call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2), sizeof(xs));
	memset(&back, 0xee, sizeof(back));
	assert_int_equal(call(m.vcpu, KVM_GET_XSAVE2, &back), 0);
	assert_memory_equal(xs.region, back.region, sizeof(xs));
	/* A reserved MXCSR bit, and a component that does not exist. */
	xs.region[6] |= 1u << 31;
	assert_int_equal(call(m.vcpu, KVM_SET_XSAVE, &xs), -EINVAL);
	xs.region[6] &= ~(1u << 31);
	xs.region[129] |= 1u << 30;
	assert_int_equal(call(m.vcpu, KVM_SET_XSAVE, &xs), -EINVAL);
	machine_free(&m);
}

static void test_msrs(void **state)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry e[4]; } in = {
		.head.nmsrs = 4,
		.e = { { .index = 0xc0000082, .data = 0x1234 }, { .index = 0x174, .data = 0x10 },
		       { .index = 0xdeadbeef }, { .index = 0x175 } },
	}, out = { .head.nmsrs = 2, .e = { { .index = 0xc0000082 }, { .index = 0x174 } } };
	struct machine m;

	machine_new(&m, PLAIN);
	give_cpuid(&m);
	assert_int_equal(call(m.vcpu, KVM_SET_MSRS, &in), 2);
	assert_int_equal(call(m.vcpu, KVM_GET_MSRS, &out), 2);
	assert_int_equal(out.e[0].data, 0x1234);
	assert_int_equal(out.e[1].data, 0x10);
	in.head.nmsrs = 256;
	assert_int_equal(call(m.vcpu, KVM_SET_MSRS, &in), -E2BIG);
	machine_free(&m);
}

/* Every MSR of the list can be read, and written with what was read. */
static void test_all_msrs(void **state)
{
	struct { struct kvm_msr_list head; u32 index[1024]; } l = { .head.nmsrs = 1024 };
	struct { struct kvm_msrs head; struct kvm_msr_entry e[1]; } one = { .head.nmsrs = 1 };
	struct machine m;
	u32 i;

	machine_new(&m, WITH_IRQCHIP);
	give_cpuid(&m);
	assert_int_equal(call(m.sys, KVM_GET_MSR_INDEX_LIST, &l), 0);
	for (i = 0; i < l.head.nmsrs; i++) {
		one.e[0].index = l.head.indices[i];
		if (call(m.vcpu, KVM_GET_MSRS, &one) != 1 && !api_is_host())
			fail_msg("MSR %#x cannot be read", l.head.indices[i]);
		if (call(m.vcpu, KVM_SET_MSRS, &one) != 1 && !api_is_host())
			fail_msg("MSR %#x does not take back %#llx", l.head.indices[i],
				 one.e[0].data);
	}
	machine_free(&m);
}

static void test_translate(void **state)
{
	struct kvm_translation t = { .linear_address = 0x1234 };
	struct kvm_sregs s;
	struct machine m;

	skip_on_emulated_host("translates without the paging of KVM_SET_SREGS");
	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vcpu, KVM_TRANSLATE, &t), 0);
	assert_int_equal(t.valid, 1);
	assert_int_equal(t.physical_address, 0x1234);
	/* 32-bit paging: page 0x5000 to 0x7000, nothing else. */
	*(u32 *)(m.ram + 0x2000) = 0x3003;
	*(u32 *)(m.ram + 0x3000 + 4 * 5) = 0x7003;
	s = get_sregs(m.vcpu);
	s.cr0 |= CR0_PE | CR0_PG;
	s.cr3 = 0x2000;
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
	t.linear_address = 0x5678;
	assert_int_equal(call(m.vcpu, KVM_TRANSLATE, &t), 0);
	assert_int_equal(t.valid, 1);
	assert_int_equal(t.physical_address, 0x7678);
	t.linear_address = 0x6000;
	assert_int_equal(call(m.vcpu, KVM_TRANSLATE, &t), 0);
	assert_int_equal(t.valid, 0);
	/* No accessed bits set on the way. */
	assert_int_equal(*(u32 *)(m.ram + 0x3000 + 4 * 5), 0x7003);
	machine_free(&m);
}

static void test_tsc_khz(void **state)
{
	struct machine m;
	long khz;

	machine_new(&m, PLAIN);
	khz = call_num(m.vcpu, KVM_GET_TSC_KHZ, 0);
	assert_in_range(khz, 100000, 10000000);
	assert_int_equal(call_num(m.vcpu, KVM_SET_TSC_KHZ, khz), 0);
	machine_free(&m);
}

int test_regs(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_general),
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_power_up),
		cmocka_unit_test(test_impossible_sregs),
		cmocka_unit_test(test_sregs2),
		cmocka_unit_test(test_debugregs),
		cmocka_unit_test(test_xcrs),
		cmocka_unit_test(test_fpu),
		cmocka_unit_test(test_msrs),
		cmocka_unit_test(test_all_msrs),
		cmocka_unit_test(test_translate),
		cmocka_unit_test(test_tsc_khz),
	};

	return cmocka_run_group_tests_name("registers", tests, NULL, NULL);
}
