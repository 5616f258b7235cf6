/* The dirty ring, and logs that begin with all pages dirty. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/api/api.h"

#define PAGE		0x1000UL
#define RING_BYTES	4096u
#define ENTRIES		(RING_BYTES / sizeof(struct kvm_dirty_gfn))
#define AREA_AT		0x100000UL
#define AREA_PAGES	512
#define SLOT		3

struct ring_machine {
	struct machine m;
	volatile struct kvm_dirty_gfn *ring;
	u8 *area;
	u32 next;	/* entry to harvest */
};

static void area_slot(struct ring_machine *r, u32 flags)
{
	struct kvm_userspace_memory_region mem = {
		.slot = SLOT, .flags = flags, .guest_phys_addr = AREA_AT,
		.memory_size = AREA_PAGES * PAGE, .userspace_addr = (u64)r->area,
	};

	assert_int_equal(call(r->m.vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
}

/* As machine_new(), with the ring enabled before there is a vCPU. */
static void ring_new(struct ring_machine *r)
{
	struct kvm_userspace_memory_region mem = { .memory_size = RAM_SIZE };
	struct machine *m = &r->m;
	void *p;

	skip_on_emulated_host("its emulator tells each write");
	m->sys = api->open();
	if (call_num(m->sys, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING) <= 0) {
		api->close(m->sys);
		print_message("no dirty ring\n");
		skip();
	}
	m->vm = call_num(m->sys, KVM_CREATE_VM, 0);
	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	r->area = mmap(NULL, AREA_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	mem.userspace_addr = (u64)m->ram;
	assert_int_equal(call_num(m->vm, KVM_SET_TSS_ADDR, 0xfffbd000), 0);
	assert_int_equal(call(m->vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
	enable_cap(m->vm, KVM_CAP_DIRTY_LOG_RING, RING_BYTES);
	m->vcpu = vcpu_new(m->vm, 0, &m->run);
	real_mode(m->vcpu, CODE_AT);
	p = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu,
		KVM_DIRTY_LOG_PAGE_OFFSET * PAGE);
	assert_true(p != MAP_FAILED);
	r->ring = p;
	r->next = 0;
	area_slot(r, KVM_MEM_LOG_DIRTY_PAGES);
}

static void ring_free(struct ring_machine *r)
{
	munmap((void *)r->ring, RING_BYTES);
	munmap(r->area, AREA_PAGES * PAGE);
	machine_free(&r->m);
}

/* Takes what is there; seen counts by page. */
static u32 harvest(struct ring_machine *r, u32 *seen)
{
	u32 n = 0;

	for (;; n++, r->next++) {
		volatile struct kvm_dirty_gfn *e = &r->ring[r->next % ENTRIES];

		if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return n;
		assert_int_equal(e->slot, SLOT);
		assert_true(e->offset < AREA_PAGES);
		seen[e->offset]++;
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

/* mov [esi], bl; add esi, 0x1000; loop back; hlt */
static void write_pages(struct ring_machine *r, u32 first, u32 count)
{
	struct kvm_regs regs;

	CODE(&r->m, 0x88, 0x1e, 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, 0xe2, 0xf6, 0xf4);
	flat_mode(r->m.vcpu);
	regs = get_regs(r->m.vcpu);
	regs.rsi = AREA_AT + first * PAGE;
	regs.rcx = count;
	regs.rbx = 0x5a;
	set_regs(r->m.vcpu, &regs);
}

static void test_entries(void **state)
{
	u32 seen[AREA_PAGES] = { 0 };
	struct ring_machine r;
	u32 i;

	ring_new(&r);
	write_pages(&r, 5, 10);
	run_to_halt(&r.m);
	write_pages(&r, 5, 10);
	run_to_halt(&r.m);
	assert_int_equal(harvest(&r, seen), 10);
	for (i = 0; i < AREA_PAGES; i++)
		assert_int_equal(seen[i], i >= 5 && i < 15);
	/* Until it is reset, a page is not told again. */
	write_pages(&r, 5, 10);
	run_to_halt(&r.m);
	assert_int_equal(harvest(&r, seen), 0);
	assert_int_equal(call_num(r.m.vm, KVM_RESET_DIRTY_RINGS, 0), 10);
	assert_int_equal(call_num(r.m.vm, KVM_RESET_DIRTY_RINGS, 0), 0);
	write_pages(&r, 5, 10);
	run_to_halt(&r.m);
	assert_int_equal(harvest(&r, seen), 10);
	ring_free(&r);
}

static void test_ring_full(void **state)
{
	u32 seen[AREA_PAGES] = { 0 }, fulls = 0, i;
	struct ring_machine r;

	ring_new(&r);
	write_pages(&r, 0, AREA_PAGES);
	for (;;) {
		assert_int_equal(call_num(r.m.vcpu, KVM_RUN, 0), 0);
		if (r.m.run->exit_reason != KVM_EXIT_DIRTY_RING_FULL)
			break;
		/* Nobody looked: it stays so. */
		run_until(&r.m, KVM_EXIT_DIRTY_RING_FULL);
		fulls++;
		assert_in_range(harvest(&r, seen), 1, ENTRIES);
		run_until(&r.m, KVM_EXIT_DIRTY_RING_FULL);
		assert_in_range(call_num(r.m.vm, KVM_RESET_DIRTY_RINGS, 0), 1, ENTRIES);
	}
	assert_int_equal(r.m.run->exit_reason, KVM_EXIT_HLT);
	assert_in_range(fulls, 2, 4);
	harvest(&r, seen);
	for (i = 0; i < AREA_PAGES; i++) {
		assert_int_equal(seen[i], 1);
		assert_int_equal(r.area[i * PAGE], 0x5a);
	}
	ring_free(&r);
}

/* One instruction that dirties more pages than there are entries: REP STOSB. */
static void test_ring_string(void **state)
{
	u32 seen[AREA_PAGES] = { 0 }, i;
	struct ring_machine r;
	struct kvm_regs regs;

	ring_new(&r);
	CODE(&r.m, 0xfc, 0xf3, 0xaa, 0xf4);	/* cld; rep stosb; hlt */
	flat_mode(r.m.vcpu);
	regs = get_regs(r.m.vcpu);
	regs.rdi = AREA_AT;
	regs.rcx = AREA_PAGES * PAGE;
	regs.rax = 0x77;
	set_regs(r.m.vcpu, &regs);
	for (;;) {
		assert_int_equal(call_num(r.m.vcpu, KVM_RUN, 0), 0);
		if (r.m.run->exit_reason != KVM_EXIT_DIRTY_RING_FULL)
			break;
		harvest(&r, seen);
		call_num(r.m.vm, KVM_RESET_DIRTY_RINGS, 0);
	}
	assert_int_equal(r.m.run->exit_reason, KVM_EXIT_HLT);
	harvest(&r, seen);
	for (i = 0; i < AREA_PAGES; i++) {
		/* A page under way when the ring was reset is told twice. */
		assert_in_range(seen[i], 1, 2);
		assert_int_equal(r.area[i * PAGE + 0xfff], 0x77);
	}
	ring_free(&r);
}

static void test_ring_arguments(void **state)
{
	struct kvm_enable_cap c = { .cap = KVM_CAP_DIRTY_LOG_RING };
	static const struct { u64 size; int ret; } t[] = {
		{ 0, -EINVAL }, { 2048, -EINVAL }, { 12288, -EINVAL }, { 2 << 20, -E2BIG },
		{ 8192, 0 }, { 8192, -EINVAL },
	};
	u64 bits;
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = &bits };
	struct kvm_clear_dirty_log clear = { .slot = 0, .dirty_bitmap = &bits };
	struct machine m;
	int vm;
	size_t i;

	machine_new(&m, PLAIN);
	require_cap(&m, KVM_CAP_DIRTY_LOG_RING);
	assert_int_equal(call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_ACQ_REL), 1 << 20);
	assert_int_equal(call_num(m.vm, KVM_RESET_DIRTY_RINGS, 0), -EINVAL);
	c.args[0] = 8192;
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &c), -EINVAL);	/* there is a vCPU */
	vm = call_num(m.sys, KVM_CREATE_VM, 0);
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		c.args[0] = t[i].size;
		assert_int_equal(call(vm, KVM_ENABLE_CAP, &c), t[i].ret);
	}
	assert_int_equal(call(vm, KVM_GET_DIRTY_LOG, &log), -ENXIO);
	assert_int_equal(call(vm, KVM_CLEAR_DIRTY_LOG, &clear), -ENXIO);
	api->close(vm);
	machine_free(&m);
}

static void test_initially_set(void **state)
{
	struct kvm_enable_cap bad = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		.args = { KVM_DIRTY_LOG_INITIALLY_SET } };
	u64 bits[2] = { 0 }, all[2] = { ~0ULL, ~0ULL };
	struct kvm_dirty_log log = { .slot = SLOT, .dirty_bitmap = bits };
	struct kvm_clear_dirty_log clear = { .slot = SLOT, .num_pages = 100, .dirty_bitmap = all };
	struct kvm_userspace_memory_region mem = {
		.slot = SLOT, .flags = KVM_MEM_LOG_DIRTY_PAGES, .guest_phys_addr = AREA_AT,
		.memory_size = 100 * PAGE,
	};
	struct machine m;

	machine_new(&m, PLAIN);
	if (!(call_num(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) &
		KVM_DIRTY_LOG_INITIALLY_SET)) {
		machine_free(&m);
		skip();
	}
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &bad), -EINVAL);
	enable_cap(m.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
	mem.userspace_addr = (u64)mmap(NULL, 100 * PAGE, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(call(m.vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
	assert_int_equal(call(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	assert_true(bits[0] == ~0ULL && bits[1] == BIT(36) - 1);
	assert_int_equal(call(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), 0);
	assert_int_equal(call(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	assert_true(!bits[0] && !bits[1]);
	munmap((void *)mem.userspace_addr, 100 * PAGE);
	machine_free(&m);
}

int test_ring(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_ring_full),
		cmocka_unit_test(test_ring_string),
		cmocka_unit_test(test_ring_arguments),
		cmocka_unit_test(test_initially_set),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
