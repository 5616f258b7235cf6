/* Memory slots and the dirty log. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/api/api.h"

#define PAGE 4096UL
#define SLOTS_AREA (64 * PAGE)

static u8 *area(void)
{
	u8 *p = mmap(NULL, SLOTS_AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* One step of a script: a request and what it must return. off: of the memory inside the area. */
struct step {
	u32 slot, flags;
	u64 gpa, size, off;
	int ret;
};

#define LOG	KVM_MEM_LOG_DIRTY_PAGES
#define RO	KVM_MEM_READONLY

static void play(const struct step *s, size_t n)
{
	int sys = api->open();
	int vm = call_num(sys, KVM_CREATE_VM, 0);
	u8 *mem = area();
	size_t i;

	for (i = 0; i < n; i++, s++) {
		struct kvm_userspace_memory_region r = {
			.slot = s->slot, .flags = s->flags, .guest_phys_addr = s->gpa,
			.memory_size = s->size, .userspace_addr = (u64)mem + s->off,
		};
		long ret = call(vm, KVM_SET_USER_MEMORY_REGION, &r);

		if (ret != s->ret)
			fail_msg("step %zu: %ld, expected %d", i, ret, s->ret);
	}
	munmap(mem, SLOTS_AREA);
	api->close(vm);
	api->close(sys);
}

#define PLAY(...) do { \
	static const struct step script_[] = { __VA_ARGS__ }; \
	play(script_, ARRAY_SIZE(script_)); \
} while (0)

static void test_arguments(void **state)
{
	PLAY({ 0, 0, 0, 8 * PAGE, 0, 0 },
	     { 1, 0, 0x100800, PAGE, 0, -EINVAL },		/* address not aligned */
	     { 1, 0, 0x100000, PAGE / 2, 0, -EINVAL },		/* size not aligned */
	     { 1, 0, 0x100000, PAGE, 8, -EINVAL },		/* memory not aligned */
	     { 1, 1u << 31, 0x100000, PAGE, 0, -EINVAL },	/* unknown flag */
	     { 1, 0, ~0xfffUL, 2 * PAGE, 0, -EINVAL },		/* wraps */
	     { 1, 0, 0x100000, 1UL << 60, 0, -EINVAL },		/* no such memory */
	     { 0xffff, 0, 0x100000, PAGE, 0, -EINVAL },		/* no such slot */
	     { 0x70001, 0, 0x100000, PAGE, 0, -EINVAL },	/* no such address space */
	     { 1, 0, 0x100000, 0, 0, -EINVAL });		/* deletes what is not there */
}

static void test_overlap(void **state)
{
	PLAY({ 0, 0, 0x10000, 4 * PAGE, 0, 0 },
	     { 1, 0, 0x10000, 4 * PAGE, 0, -EEXIST },		/* the same */
	     { 1, 0, 0x13000, PAGE, 0, -EEXIST },		/* its end */
	     { 1, 0, 0xf000, 2 * PAGE, 0, -EEXIST },		/* its beginning */
	     { 1, 0, 0xf000, 16 * PAGE, 0, -EEXIST },		/* around it */
	     { 1, 0, 0x14000, PAGE, 0, 0 },			/* just above */
	     { 2, 0, 0xf000, PAGE, 0, 0 },			/* just below */
	     { 2, 0, 0x14000, PAGE, 0, -EEXIST },		/* moved onto another */
	     { 1, 0, 0x14000, 0, 0, 0 },
	     { 2, 0, 0x14000, PAGE, 0, 0 });			/* moved to where one was */
}

static void test_changes(void **state)
{
	PLAY({ 0, 0, 0x10000, 4 * PAGE, 0, 0 },
	     { 0, 0, 0x10000, 4 * PAGE, 0, 0 },			/* nothing changes */
	     { 0, 0, 0x10000, 5 * PAGE, 0, -EINVAL },		/* size */
	     { 0, 0, 0x10000, 4 * PAGE, PAGE, -EINVAL },	/* memory */
	     { 0, RO, 0x10000, 4 * PAGE, 0, -EINVAL },		/* read-only */
	     { 0, LOG, 0x10000, 4 * PAGE, 0, 0 },
	     { 0, 0, 0x10000, 4 * PAGE, 0, 0 },
	     { 0, LOG, 0x12000, 4 * PAGE, 0, 0 },		/* moves over itself */
	     { 0, 0, 0, 0, 0, 0 },				/* deletion looks at no more */
	     { 0, RO, 0x10000, 4 * PAGE, 0, 0 },
	     { 0, RO | LOG, 0x10000, 4 * PAGE, 0, 0 });
}

/* ---- seen by a guest ---------------------------------------------------------------------- */

static void set_slot(struct machine *m, u32 slot, u32 flags, u64 gpa, u64 size, void *mem)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (u64)mem,
	};

	assert_int_equal(call(m->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
}

/* mov al, [bx]; hlt in segment ds */
static u8 guest_peek(struct machine *m, u16 ds, u16 bx)
{
	struct kvm_sregs s;
	struct kvm_regs r;

	CODE(m, 0x8a, 0x07, 0xf4);
	s = get_sregs(m->vcpu);
	s.ds.selector = ds;
	s.ds.base = ds * 16u;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &s), 0);
	r = get_regs(m->vcpu);
	r.rbx = bx;
	set_regs(m->vcpu, &r);
	run_to_halt(m);
	return get_regs(m->vcpu).rax;
}

/* The guest sees deletions and moves at once, though it has used the page before. */
static void test_slot_moves(void **state)
{
	struct machine m;
	u8 *mem = area();

	machine_new(&m, PLAIN);
	mem[0x10] = 0x5a;
	set_slot(&m, 1, 0, 0x40000, PAGE, mem);
	assert_int_equal(guest_peek(&m, 0x4000, 0x10), 0x5a);
	set_slot(&m, 1, 0, 0x41000, PAGE, mem);
	assert_int_equal(guest_peek(&m, 0x4100, 0x10), 0x5a);
	CODE(&m, 0x8a, 0x07, 0xf4);
	{
		struct kvm_sregs s = get_sregs(m.vcpu);
		struct kvm_regs r = get_regs(m.vcpu);

		s.ds.base = 0x40000;
		r.rbx = 0x10;
		assert_int_equal(call(m.vcpu, KVM_SET_SREGS, &s), 0);
		set_regs(m.vcpu, &r);
	}
	run_until(&m, KVM_EXIT_MMIO);
	assert_int_equal(m.run->mmio.phys_addr, 0x40010);
	machine_free(&m);
	munmap(mem, SLOTS_AREA);
}

/* Reads of a read-only slot are memory, writes are MMIO. */
static void test_read_only(void **state)
{
	struct machine m;
	u8 *mem = area();

	machine_new(&m, PLAIN);
	mem[4] = 7;
	set_slot(&m, 1, RO, 0x40000, PAGE, mem);
	/* mov ax, 0x4000; mov ds, ax; mov al, [4]; inc al; mov [4], al; mov bl, [4]; hlt */
	CODE(&m, 0xb8, 0x00, 0x40, 0x8e, 0xd8, 0xa0, 0x04, 0x00, 0xfe, 0xc0, 0xa2, 0x04, 0x00,
	     0x8a, 0x1e, 0x04, 0x00, 0xf4);
	run_until(&m, KVM_EXIT_MMIO);
	assert_int_equal(m.run->mmio.phys_addr, 0x40004);
	assert_int_equal(m.run->mmio.is_write, 1);
	assert_int_equal(m.run->mmio.len, 1);
	assert_int_equal(m.run->mmio.data[0], 8);
	run_to_halt(&m);
	assert_int_equal(get_regs(m.vcpu).rbx & 0xff, 7);
	assert_int_equal(mem[4], 7);
	machine_free(&m);
	munmap(mem, SLOTS_AREA);
}

static u64 dirty_log(struct machine *m, u32 slot)
{
	u64 bits = 0;
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = &bits };

	assert_int_equal(call(m->vm, KVM_GET_DIRTY_LOG, &log), 0);
	return bits;
}

static void test_dirty_log(void **state)
{
	u64 bits;
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = &bits };
	struct machine m;
	u8 *mem = area();

	machine_new(&m, PLAIN);
	set_slot(&m, 1, 0, 0x40000, 16 * PAGE, mem);
	assert_int_equal(call(m.vm, KVM_GET_DIRTY_LOG, &log), -ENOENT);
	log.slot = 0xffff;
	assert_int_equal(call(m.vm, KVM_GET_DIRTY_LOG, &log), -EINVAL);
	set_slot(&m, 1, LOG, 0x40000, 16 * PAGE, mem);
	assert_int_equal(dirty_log(&m, 1), 0);
	/* mov ax, 0x4000; mov ds, ax; again: mov [0x1000], ax; mov [0x3fff], ax; hlt; jmp again */
	CODE(&m, 0xb8, 0x00, 0x40, 0x8e, 0xd8, 0xa3, 0x00, 0x10, 0xa3, 0xff, 0x3f, 0xf4,
	     0xeb, 0xf7);
	run_to_halt(&m);
	assert_int_equal(dirty_log(&m, 1), BIT(1) | BIT(3) | BIT(4));
	assert_int_equal(dirty_log(&m, 1), 0);
	/* Writes after the log was taken are seen again. */
	run_to_halt(&m);
	assert_int_equal(dirty_log(&m, 1), BIT(1) | BIT(3) | BIT(4));
	/* Reads are not writes. */
	guest_peek(&m, 0x4000, 0x2000);
	assert_int_equal(dirty_log(&m, 1), 0);
	set_slot(&m, 1, 0, 0x40000, 16 * PAGE, mem);
	log.slot = 1;
	assert_int_equal(call(m.vm, KVM_GET_DIRTY_LOG, &log), -ENOENT);
	machine_free(&m);
	munmap(mem, SLOTS_AREA);
}

static void test_dirty_clear(void **state)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { 1 } };
	u64 bits = BIT(1);
	struct kvm_clear_dirty_log clear = { .slot = 1, .num_pages = 64, .dirty_bitmap = &bits };
	struct machine m;
	u8 *mem = area();

	machine_new(&m, PLAIN);
	assert_int_equal(call(m.vm, KVM_ENABLE_CAP, &cap), 0);
	set_slot(&m, 1, LOG, 0x40000, 64 * PAGE, mem);
	/* mov ax, 0x4000; mov ds, ax; again: mov [0x1000], ax; mov [0x2000], ax; hlt; jmp again */
	CODE(&m, 0xb8, 0x00, 0x40, 0x8e, 0xd8, 0xa3, 0x00, 0x10, 0xa3, 0x00, 0x20, 0xf4,
	     0xeb, 0xf7);
	run_to_halt(&m);
	assert_int_equal(dirty_log(&m, 1), BIT(1) | BIT(2));
	assert_int_equal(dirty_log(&m, 1), BIT(1) | BIT(2));
	assert_int_equal(call(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), 0);
	assert_int_equal(dirty_log(&m, 1), BIT(2));
	run_to_halt(&m);
	assert_int_equal(dirty_log(&m, 1), BIT(1) | BIT(2));
	clear.first_page = 1;
	assert_int_equal(call(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), -EINVAL);
	clear.first_page = 0;
	clear.num_pages = 63;
	assert_int_equal(call(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), -EINVAL);
	clear.num_pages = 128;
	assert_int_equal(call(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), -EINVAL);
	machine_free(&m);
	munmap(mem, SLOTS_AREA);
}

/* User space may write code at any time between two runs. */
static void test_code_from_outside(void **state)
{
	struct machine m;
	int i;

	machine_new(&m, PLAIN);
	/* mov al, N; hlt */
	for (i = 0; i < 5; i++) {
		const u8 code[] = { 0xb0, (u8)i, 0xf4 };

		machine_code(&m, code, sizeof(code));
		run_to_halt(&m);
		assert_int_equal(get_regs(m.vcpu).rax & 0xff, i);
	}
	machine_free(&m);
}

int test_memory(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_slot_moves),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_dirty_clear),
		cmocka_unit_test(test_code_from_outside),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
