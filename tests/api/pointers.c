/*
 * Pointers that lead nowhere: arguments of ioctls, what these point to in turn, and guest memory that user space
 * took away behind a slot. Nobody dies of them; the answer is EFAULT.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/api/api.h"

#define PAGE	4096u
#define NOWHERE	((void *)0x10000)	/* never mapped: below the lowest address that mmap takes */

/* Our handler comes in front of cmocka's within OS_GUARD_MS of the next call. */
static void settle(const struct machine *m)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < 3000000);
	get_regs(m->vcpu);
}

/* ---- arguments ------------------------------------------------------------------------------- */

static const struct {
	unsigned long request;
	const char *name;
} vcpu_requests[] = {
#define EACH(r) { r, #r }
	EACH(KVM_GET_REGS), EACH(KVM_SET_REGS), EACH(KVM_GET_SREGS), EACH(KVM_SET_SREGS),
	EACH(KVM_TRANSLATE), EACH(KVM_INTERRUPT), EACH(KVM_GET_MSRS), EACH(KVM_SET_MSRS),
	EACH(KVM_SET_CPUID), EACH(KVM_SET_SIGNAL_MASK), EACH(KVM_GET_FPU), EACH(KVM_SET_FPU),
	EACH(KVM_GET_LAPIC), EACH(KVM_SET_LAPIC), EACH(KVM_SET_CPUID2), EACH(KVM_GET_CPUID2),
	EACH(KVM_GET_MP_STATE), EACH(KVM_SET_MP_STATE), EACH(KVM_SET_GUEST_DEBUG),
	EACH(KVM_GET_VCPU_EVENTS), EACH(KVM_SET_VCPU_EVENTS), EACH(KVM_GET_DEBUGREGS),
	EACH(KVM_SET_DEBUGREGS), EACH(KVM_GET_XSAVE), EACH(KVM_SET_XSAVE), EACH(KVM_GET_XCRS),
	EACH(KVM_SET_XCRS), EACH(KVM_GET_SREGS2), EACH(KVM_SET_SREGS2),
}, vm_requests[] = {
	EACH(KVM_SET_USER_MEMORY_REGION), EACH(KVM_GET_DIRTY_LOG), EACH(KVM_IRQ_LINE), EACH(KVM_GET_IRQCHIP), EACH(KVM_SET_IRQCHIP), EACH(KVM_SET_GSI_ROUTING),
	EACH(KVM_CREATE_PIT2), EACH(KVM_SET_CLOCK), EACH(KVM_GET_CLOCK), EACH(KVM_SIGNAL_MSI),
}, system_requests[] = {
	EACH(KVM_GET_MSR_INDEX_LIST), EACH(KVM_GET_MSRS), EACH(KVM_GET_SUPPORTED_CPUID),
#undef EACH
};

#define ALL_FAULT(fd, list, p) do { \
	for (size_t i_ = 0; i_ < ARRAY_SIZE(list); i_++) { \
		long r_ = call(fd, list[i_].request, p); \
		if (r_ != -EFAULT) \
			fail_msg("%s of %p returned %ld", list[i_].name, (void *)(p), r_); \
	} \
} while (0)

static void test_arguments(void **state)
{
	void *const bad[] = { NOWHERE, (void *)1, (void *)0x7fffffffe800, (void *)-8L,
		(void *)0x8000000000000000 };
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	settle(&m);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ALL_FAULT(m.vcpu, vcpu_requests, bad[i]);
		ALL_FAULT(m.vm, vm_requests, bad[i]);
		ALL_FAULT(m.sys, system_requests, bad[i]);
	}
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 4096), -EINVAL);
	machine_free(&m);
}

/* Two pages, the second of which is not there, or cannot be written. */
static u8 *half_page(int second)
{
	u8 *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	assert_int_equal(mprotect(p + PAGE, PAGE, second), 0);
	return p;
}

/* The structure's first half can be had. */
static void test_ends_midway(void **state)
{
	u8 *gone = half_page(PROT_NONE), *fixed = half_page(PROT_READ);
	struct machine m;

	machine_new(&m, PLAIN);
	settle(&m);
	assert_int_equal(call(m.vcpu, KVM_GET_REGS, gone + PAGE - 16), -EFAULT);
	assert_int_equal(call(m.vcpu, KVM_SET_REGS, gone + PAGE - 16), -EFAULT);
	assert_int_equal(call(m.vcpu, KVM_GET_SREGS, fixed + PAGE - 16), -EFAULT);
	assert_int_equal(call(m.vcpu, KVM_GET_REGS, fixed + PAGE), -EFAULT);
	assert_int_equal(call(m.vcpu, KVM_GET_XSAVE, fixed + 8), -EFAULT);
	munmap(gone, 2 * PAGE);
	munmap(fixed, 2 * PAGE);
	machine_free(&m);
}

/* Where the list of MSRs reaches into memory that is not there, none of it counts. */
static void test_msrs_at_an_edge(void **state)
{
	u8 *p = half_page(PROT_NONE);
	struct kvm_msrs *msrs = (void *)(p + PAGE - sizeof(*msrs) - sizeof(msrs->entries[0]));
	struct machine m;
	u64 before;

	machine_new(&m, PLAIN);
	settle(&m);
	before = get_msr(m.vcpu, 0x174);
	msrs->nmsrs = 2;
	msrs->entries[0] = (struct kvm_msr_entry){ .index = 0x174, .data = before + 8 };
	assert_int_equal(call(m.vcpu, KVM_SET_MSRS, msrs), -EFAULT);
	assert_true(get_msr(m.vcpu, 0x174) == before);
	assert_int_equal(call(m.vcpu, KVM_GET_MSRS, msrs), -EFAULT);
	assert_true(msrs->entries[0].data == before + 8);
	msrs->nmsrs = 1;
	assert_int_equal(call(m.vcpu, KVM_SET_MSRS, msrs), 1);
	assert_true(get_msr(m.vcpu, 0x174) == before + 8);
	machine_free(&m);
	munmap(p, 2 * PAGE);
}

/* What lies behind the fixed part: the kernel returns EFAULT for these lists, too. */
static void test_lists(void **state)
{
	u8 *gone = half_page(PROT_NONE);
	struct kvm_msrs *msrs = (void *)(gone + PAGE - sizeof(*msrs) - sizeof(struct kvm_msr_entry));
	struct kvm_cpuid2 *cpuid = (void *)(gone + PAGE - sizeof(*cpuid) - 40);
	struct kvm_irq_routing *routes = (void *)(gone + PAGE - sizeof(*routes));
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = NOWHERE };
	struct kvm_userspace_memory_region mem = { .memory_size = RAM_SIZE,
		.flags = KVM_MEM_LOG_DIRTY_PAGES };
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	settle(&m);
	*msrs = (struct kvm_msrs){ .nmsrs = 2 };
	msrs->entries[0] = (struct kvm_msr_entry){ .index = 0x10 };
	assert_int_equal(call(m.vcpu, KVM_GET_MSRS, msrs), -EFAULT);
	assert_int_equal(call(m.vcpu, KVM_SET_MSRS, msrs), -EFAULT);
	*cpuid = (struct kvm_cpuid2){ .nent = 2 };
	assert_int_equal(call(m.vcpu, KVM_SET_CPUID2, cpuid), -EFAULT);
	*routes = (struct kvm_irq_routing){ .nr = 3 };
	assert_int_equal(call(m.vm, KVM_SET_GSI_ROUTING, routes), -EFAULT);
	mem.userspace_addr = (u64)m.ram;
	assert_int_equal(call(m.vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
	assert_int_equal(call(m.vm, KVM_GET_DIRTY_LOG, &log), -EFAULT);
	munmap(gone, 2 * PAGE);
	machine_free(&m);
}

/* ---- guest memory ---------------------------------------------------------------------------- */

#define DATA_AT	0x5000

static void ram_protect(const struct machine *m, u64 at, int prot)
{
	assert_int_equal(mprotect(m->ram + at, PAGE, prot), 0);
}

/* The page comes back, and the instruction that could not go on is done then, once. */
static void test_data_gone(void **state)
{
	struct machine m;

	skip_on_emulated_host("memory that is gone is an emulation failure");
	machine_new(&m, PLAIN);
	settle(&m);
	/* mov al, [0x5000]; add byte [0x5000], 3; hlt */
	CODE(&m, 0xa0, 0x00, 0x50, 0x80, 0x06, 0x00, 0x50, 0x03, 0xf4);
	m.ram[DATA_AT] = 7;
	ram_protect(&m, DATA_AT, PROT_NONE);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	ram_protect(&m, DATA_AT, PROT_READ);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	assert_int_equal(get_regs(m.vcpu).rax & 0xff, 7);
	ram_protect(&m, DATA_AT, PROT_READ | PROT_WRITE);
	run_to_halt(&m);
	assert_int_equal(m.ram[DATA_AT], 10);
	machine_free(&m);
}

static void test_code_gone(void **state)
{
	struct machine m;

	skip_on_emulated_host("memory that is gone is an emulation failure");
	machine_new(&m, PLAIN);
	settle(&m);
	CODE(&m, 0xb0, 0x2a, 0xf4);	/* mov al, 42; hlt */
	ram_protect(&m, CODE_AT, PROT_NONE);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	ram_protect(&m, CODE_AT, PROT_READ | PROT_WRITE);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax & 0xff, 42);
	/* Known code, too. */
	CODE(&m, 0xb0, 0x2b, 0xf4);
	ram_protect(&m, CODE_AT, PROT_NONE);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	ram_protect(&m, CODE_AT, PROT_READ | PROT_WRITE);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rax & 0xff, 43);
	machine_free(&m);
}

/* An interrupt whose vector and stack cannot be read is not lost. */
static void test_event_gone(void **state)
{
	struct machine m;

	skip_on_emulated_host("memory that is gone is an emulation failure");
	machine_new(&m, PLAIN);
	settle(&m);
	CODE(&m, 0xcd, 0x21, 0xf4);	/* int 21h; hlt */
	*(u32 *)(m.ram + 0x21 * 4) = DATA_AT;
	m.ram[DATA_AT] = 0xf4;
	ram_protect(&m, 0, PROT_NONE);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	ram_protect(&m, 0, PROT_READ | PROT_WRITE);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rip, DATA_AT + 1);
	machine_free(&m);
}

/* Page tables: for KVM_TRANSLATE they lead nowhere; for the guest as any other memory. */
static void test_tables_gone(void **state)
{
	struct kvm_translation t = { .linear_address = 0x1000 };
	struct kvm_sregs s;
	struct machine m;

	skip_on_emulated_host("memory that is gone is an emulation failure");
	machine_new(&m, PLAIN);
	settle(&m);
	s = get_sregs(m.vcpu);
	s.cr3 = DATA_AT;
	s.cr0 |= 0x80000001;
	s.cr4 |= 0x10;
	*(u32 *)(m.ram + DATA_AT) = 0x83;	/* 4 MiB at 0 */
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(call(m.vcpu, KVM_TRANSLATE, &t), 0);
	assert_true(t.valid && t.physical_address == 0x1000);
	ram_protect(&m, DATA_AT, PROT_NONE);
	assert_int_equal(call(m.vcpu, KVM_TRANSLATE, &t), 0);
	assert_false(t.valid);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	machine_free(&m);
}

/* Hot code of 32 bits, which a translator has (64 bits: gone.c). */
static void test_hot_gone(void **state)
{
	/* again: inc dword [0x5000]; cmp dword [0x5000], 1000000; jb again; hlt */
	static const u8 code[] = { 0xff, 0x05, 0, 0x50, 0, 0, 0x81, 0x3d, 0, 0x50, 0, 0,
		0x40, 0x42, 0x0f, 0, 0x72, 0xee, 0xf4 };
	struct kvm_sregs s;
	struct machine m;

	skip_on_emulated_host("memory that is gone is an emulation failure");
	machine_new(&m, PLAIN);
	settle(&m);
	machine_code(&m, code, sizeof(code));
	s = get_sregs(m.vcpu);
	s.cr0 |= 1;
	s.cs = (struct kvm_segment){ .selector = 8, .limit = 0xffffffff, .type = 11, .present = 1,
		.s = 1, .db = 1, .g = 1 };
	s.ds = s.es = s.ss = (struct kvm_segment){ .selector = 16, .limit = 0xffffffff, .type = 3,
		.present = 1, .s = 1, .db = 1, .g = 1 };
	assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
	*(u32 *)(m.ram + DATA_AT) = 0;
	run_to_halt(&m);
	*(u32 *)(m.ram + DATA_AT) = 0;
	set_regs(m.vcpu, &(struct kvm_regs){ .rip = CODE_AT, .rflags = 2 });
	ram_protect(&m, DATA_AT, PROT_READ);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	assert_int_equal(call_num(m.vcpu, KVM_RUN, 0), -EFAULT);
	assert_int_equal(get_regs(m.vcpu).rip, CODE_AT);
	ram_protect(&m, DATA_AT, PROT_READ | PROT_WRITE);
	run_to_halt(&m);
	assert_int_equal(*(u32 *)(m.ram + DATA_AT), 1000000);
	machine_free(&m);
}

int test_pointers(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_ends_midway),
		cmocka_unit_test(test_msrs_at_an_edge),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_data_gone),
		cmocka_unit_test(test_code_gone),
		cmocka_unit_test(test_event_gone),
		cmocka_unit_test(test_tables_gone),
		cmocka_unit_test(test_hot_gone),
	};

	return cmocka_run_group_tests_name("pointers", tests, NULL, NULL);
}
