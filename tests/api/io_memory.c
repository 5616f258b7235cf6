/*
 * 64-bit code with far pointers in a device's memory. KVM runs such instructions on its emulator, which knows
 * 16:64 pointers, as Intel has them, whatever the vendor.
 */
#include <string.h>

#include "tests/api/flat.h"

#define GDT_AT		0x3000
#define TABLES_AT	0x10000		/* PML4, PDPT, PD */
#define TARGET		0x1100
#define DEVICE		0x200000	/* behind the memory; mapped where it is */
#define SEL_CODE	8
#define SEL_DATA	16

static void tables(struct machine *m)
{
	u64 *gdt = (u64 *)(m->ram + GDT_AT), *pml4 = (u64 *)(m->ram + TABLES_AT);

	gdt[SEL_CODE / 8] = 0x00209b0000000000;
	gdt[SEL_DATA / 8] = 0x00cf93000000ffff;
	pml4[0] = (TABLES_AT + 0x1000) | 3;
	pml4[512] = (TABLES_AT + 0x2000) | 3;
	pml4[1024] = 0x83;
	pml4[1025] = DEVICE | 0x83;
}

void paged_mode(struct machine *m)
{
	const struct kvm_segment code = { .limit = 0xffffffff, .selector = SEL_CODE, .type = 11, .present = 1,
		.s = 1, .l = 1, .g = 1 };
	const struct kvm_segment data = { .limit = 0xffffffff, .selector = SEL_DATA, .type = 3, .present = 1,
		.s = 1, .db = 1, .g = 1 };
	struct kvm_sregs s = get_sregs(m->vcpu);

	tables(m);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.gdt.base = GDT_AT;
	s.gdt.limit = 23;
	s.cr3 = TABLES_AT;
	s.cr4 |= 0x20;
	s.efer |= 0x500;
	s.cr0 |= 0x80000001;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
}

static void answer(struct machine *m, u64 addr, u32 len, const void *data)
{
	run_until(m, KVM_EXIT_MMIO);
	assert_int_equal(m->run->mmio.phys_addr, addr);
	assert_int_equal(m->run->mmio.len, len);
	assert_int_equal(m->run->mmio.is_write, 0);
	memcpy(m->run->mmio.data, data, len);
}

/* Code at CODE_AT that takes the pointer at DEVICE, and OUT behind it and at TARGET. */
static void begin(struct machine *m, const char *code, size_t size)
{
	struct kvm_regs r = { .rip = CODE_AT, .rsp = 0x8000, .rflags = 2, .rsi = DEVICE, .rax = ~0ull };

	machine_new(m, PLAIN);
	cpuid_with(m, 0, false);
	paged_mode(m);
	set_regs(m->vcpu, &r);
	memcpy(m->ram + CODE_AT, code, size);
	memcpy(m->ram + CODE_AT + size, "\xe6\x10", 2);
	memcpy(m->ram + TARGET, "\xe6\x11", 2);
}

static void test_far_jump(void **state)
{
	const u64 off = TARGET;
	const u16 sel = SEL_CODE;
	struct machine m;

	begin(&m, "\x48\xff\x2e", 3);		/* ljmp *(%rsi) with REX.W */
	answer(&m, DEVICE, 8, &off);
	answer(&m, DEVICE + 8, 2, &sel);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, 0x11);
	machine_free(&m);
}

static void test_lgs(void **state)
{
	const u64 off = 0x1122334455667788;
	const u16 sel = SEL_DATA;
	struct machine m;

	begin(&m, "\x48\x0f\xb5\x06", 4);	/* lgs (%rsi), %rax */
	answer(&m, DEVICE, 8, &off);
	answer(&m, DEVICE + 8, 2, &sel);
	run_until(&m, KVM_EXIT_IO);
	assert_int_equal(m.run->io.port, 0x10);
	assert_true(get_regs(m.vcpu).rax == off);
	machine_free(&m);
}

int test_io_memory(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_far_jump),
		cmocka_unit_test(test_lgs),
	};

	return cmocka_run_group_tests_name("operands in I/O memory", tests, NULL, NULL);
}
