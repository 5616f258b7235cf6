/*
 * Address spaces: what each keeps and loses with CR3, INVLPG and INVPCID; global pages; the columns
 * of a TLB entry; what an engine is told.
 */
#include <string.h>

#include "tests/unit/x86/machine.h"

#define P	BIT(0)
#define W	BIT(1)
#define U	BIT(2)
#define A	BIT(5)
#define D	BIT(6)
#define PS	BIT(7)
#define G	BIT(8)

#define ROOT	0x1000
#define L3	0x2000
#define L2	0x3000
#define L1	0x4000		/* maps linear 0 .. 2 MiB to itself */
#define HUGE	0x40000000ULL	/* linear: a 1 GiB page at 0 */
#define KEEP	CR3_NOFLUSH

static struct machine *m;

static void remap(u64 la, u64 gpa, u64 flags)
{
	*ram64(m, L1 + 8 * (la >> 12)) = gpa | P | W | U | flags;
}

/* Page n of memory says so. */
static int setup(void **state)
{
	unsigned int i;

	m = machine_create();
	*ram64(m, ROOT) = L3 | P | W | U;
	*ram64(m, L3) = L2 | P | W | U;
	*ram64(m, L3 + 8) = P | W | U | PS;
	*ram64(m, L2) = L1 | P | W | U;
	for (i = 0; i < 512; i++)
		remap((u64)i << 12, (u64)i << 12, 0);
	for (i = 16; i < 512; i++)
		*ram32(m, i << 12) = i;
	machine_long(m, 0, ROOT);
	return 0;
}

static int teardown(void **state)
{
	machine_destroy(m);
	return 0;
}

static u64 read_at(u64 la)
{
	u64 val = ~0ULL;

	assert_int_equal(try_read(m, SEG_DS, la, 4, &val), UNWIND_NONE);
	return val;
}

/* Whether reading at la walks. */
static bool fills(u64 la)
{
	u64 before = m->v->stat.tlb_fills;

	read_at(la);
	return m->v->stat.tlb_fills != before;
}

static void set_cr3(u64 val)
{
	assert_int_equal(try_cr_write(m, 3, val), UNWIND_NONE);
}

static void use_cr4(u64 bits)
{
	assert_int_equal(try_cr_write(m, 4, m->v->cr4 | bits), UNWIND_NONE);
}

static void set_cpl(unsigned int cpl)
{
	m->v->seg[SEG_SS].attr = (m->v->seg[SEG_SS].attr & ~(3u << SEG_DPL_SHIFT)) | cpl << SEG_DPL_SHIFT;
	vcpu_update_mode(m->v);
	assert_int_equal(m->v->cpl, cpl);
}

/* ---- CR3 and global pages ---- */

static void cr3_keeps_global(void **state)
{
	use_cr4(CR4_PGE);
	remap(0x9000, 0x10000, G);
	remap(0xa000, 0x11000, 0);
	assert_int_equal(read_at(0x9000), 16);
	assert_int_equal(read_at(0xa000), 17);
	remap(0x9000, 0x12000, G);
	remap(0xa000, 0x12000, 0);
	set_cr3(ROOT);
	assert_int_equal(read_at(0x9000), 16);
	assert_int_equal(read_at(0xa000), 18);
	mmu_flush_page(m->v, 0x9000);
	assert_int_equal(read_at(0x9000), 18);
	/* Toggling CR4.PGE drops them too. SDM 3A 4.10.4.1 */
	remap(0x9000, 0x13000, G);
	assert_int_equal(try_cr_write(m, 4, m->v->cr4 & ~CR4_PGE), UNWIND_NONE);
	assert_int_equal(read_at(0x9000), 19);
	/* Without it the bit means nothing. */
	remap(0x9000, 0x10000, G);
	set_cr3(ROOT);
	assert_int_equal(read_at(0x9000), 16);
}

/* An entry changes sides: global, then not, then global again. */
static void global_and_not(void **state)
{
	use_cr4(CR4_PGE);
	remap(0x9000, 0x10000, G);
	read_at(0x9000);
	remap(0x9000, 0x11000, 0);
	mmu_flush_page(m->v, 0x9000);
	assert_int_equal(read_at(0x9000), 17);
	remap(0x9000, 0x12000, G);
	set_cr3(ROOT);
	assert_int_equal(read_at(0x9000), 18);
	set_cr3(ROOT);
	assert_false(fills(0x9000));
	remap(0x9000, 0x13000, 0);
	mmu_flush_all(m->v);
	assert_int_equal(read_at(0x9000), 19);
	remap(0x9000, 0x10000, G);
	set_cr3(ROOT);
	assert_int_equal(read_at(0x9000), 16);
	mmu_flush_all(m->v);
	assert_true(fills(0x9000));
}

/* Two linear pages that share an entry, each of the two kinds. */
static void global_evicted(void **state)
{
	const u64 other = HUGE + 0x9000;

	use_cr4(CR4_PGE);
	remap(0x9000, 0x10000, G);
	read_at(0x9000);
	assert_true(fills(other));
	set_cr3(ROOT);
	assert_true(fills(other));
	assert_true(fills(0x9000));
	set_cr3(ROOT);
	assert_false(fills(0x9000));
}

/* ---- PCIDs ---- */

/* More PCIDs than spaces, each with a page table of its own as it were. */
static void many_pcids(void **state)
{
	unsigned int i;

	use_cr4(CR4_PCIDE);
	for (i = 1; i < 100; i++) {
		remap(0x9000, 0x10000 + 0x1000 * i, 0);
		set_cr3(ROOT | i | KEEP);
		assert_int_equal(read_at(0x9000), 16 + i);
	}
	/* The last few still have theirs; the first has lost it. */
	for (i = 99; i > 99 - NR_SPACES + 2; i--) {
		set_cr3(ROOT | i | KEEP);
		assert_false(fills(0x9000));
		assert_int_equal(read_at(0x9000), 16 + i);
	}
	set_cr3(ROOT | 1 | KEEP);
	assert_int_equal(read_at(0x9000), 16 + 99);
	assert_ptr_equal(m->v->tlb_hit, (u8 *)m->v->space->tlb + m->v->tlb_tags);
}

static void cr3_drops_its_own(void **state)
{
	use_cr4(CR4_PCIDE);
	set_cr3(ROOT | 1);
	read_at(0x9000);
	set_cr3(ROOT | 2);
	read_at(0x9000);
	set_cr3(ROOT | 1);
	assert_true(fills(0x9000));
	set_cr3(ROOT | 2 | KEEP);
	assert_false(fills(0x9000));
}

static void invlpg_everywhere(void **state)
{
	use_cr4(CR4_PCIDE);
	read_at(0x9000);
	read_at(HUGE + 0x10000);
	set_cr3(ROOT | 1 | KEEP);
	read_at(0x9000);
	read_at(HUGE + 0x10000);
	mmu_flush_page(m->v, 0x9123);
	mmu_flush_page(m->v, HUGE + BIT(29));
	assert_true(fills(0x9000));
	assert_true(fills(HUGE + 0x10000));
	set_cr3(ROOT | KEEP);
	assert_true(fills(0x9000));
	assert_true(fills(HUGE + 0x10000));
}

/* ASIDs run out with several spaces in use. */
static void asids_run_out(void **state)
{
	unsigned int i;

	use_cr4(CR4_PCIDE);
	for (i = 0; i < 1500; i++) {
		*ram32(m, 0x10000) = i;
		*ram32(m, 0x11000) = ~i;
		remap(0x9000, i & 1 ? 0x10000 : 0x11000, 0);
		set_cr3(ROOT | i % 5);
		assert_int_equal(read_at(0x9000), i & 1 ? i : ~i);
		assert_in_range(m->v->space->asid, 1, 511);
		assert_int_equal(m->v->space->key, i % 5);
	}
}

/* ---- columns ---- */

static void columns(void **state)
{
	u64 val;

	remap(0x9000, 0x10000, 0);
	remap(0xa000, 0x11000, 0);
	*ram64(m, L1 + 8 * 9) &= ~U;
	read_at(0x9000);
	read_at(0xa000);
	set_cpl(3);
	assert_int_equal(try_read(m, SEG_DS, 0x9000, 4, &val), UNWIND_EVENT);
	assert_true(fills(0xa000));
	assert_false(fills(0xa000));
	set_cpl(0);
	assert_false(fills(0x9000));
	assert_false(fills(0xa000));
	/* The page moves; who looks first takes the whole entry. */
	remap(0xa000, 0x12000, 0);
	mmu_flush_writes(m->v, 0x11000);
	m->v->space->tlb[0xa].tag[MMU_USER][0] = TLB_INVALID;
	set_cpl(3);
	assert_int_equal(read_at(0xa000), 18);
	set_cpl(0);
	assert_true(fills(0xa000));
	assert_int_equal(read_at(0xa000), 18);
}

/* Two linear pages of one entry that are the same page of memory. */
static void columns_of_aliases(void **state)
{
	const u64 other = ((u64)TLB_ENTRIES << 12) + 0x9000;

	*ram64(m, L2 + 8 * (TLB_ENTRIES / 512)) = L1 | P | W | U;
	remap(0x9000, 0x10000, 0);
	set_cpl(3);
	read_at(0x9000);
	set_cpl(0);
	assert_true(fills(other));
	set_cpl(3);
	assert_true(fills(0x9000));
	set_cpl(0);
	assert_true(fills(other));
}

/* What one column knows of decoded code on the page, another one's fill does not take away. */
static void columns_with_code(void **state)
{
	struct code_page *c = &m->vm.slots->slot[0].code[9];

	assert_int_equal(try_write(m, SEG_DS, 0x9000, 4, 1), UNWIND_NONE);
	c->mask = BIT(1);
	mmu_flush_writes(m->v, 0x9000);
	*ram64(m, L1 + 8 * 9) &= ~W;
	set_cpl(3);
	read_at(0x9000);
	set_cpl(0);
	assert_null(mem_hit(m->v, SEG_DS, 0x9000, 4, true));
	*ram64(m, L1 + 8 * 9) |= W;
	assert_int_equal(try_write(m, SEG_DS, 0x9040, 4, 1), UNWIND_NONE);
	assert_int_equal(c->mask, 0);
}

static void no_hit_while_aligned(void **state)
{
	u64 val;

	set_cpl(3);
	read_at(0x9000);
	assert_non_null(mem_hit(m->v, SEG_DS, 0x9000, 4, false));
	m->v->cr0 |= CR0_AM;
	m->v->rflags |= RFLAGS_AC;
	vcpu_update_mode(m->v);
	assert_null(mem_hit(m->v, SEG_DS, 0x9000, 4, false));
	assert_false(fills(0x9000));
	assert_int_equal(try_read(m, SEG_DS, 0x9001, 4, &val), UNWIND_EVENT);
	m->v->rflags &= ~RFLAGS_AC;
	vcpu_update_mode(m->v);
	assert_non_null(mem_hit(m->v, SEG_DS, 0x9000, 4, false));
}

/* ---- the stack's page ---- */

static void assert_stack_forgotten(void)
{
	assert_int_equal(m->v->hot.stack_tag, TLB_INVALID);
	m->v->hot.stack_tag = 0x9000;
}

static void stack_is_forgotten(void **state)
{
	vcpu_update_mode(m->v);
	assert_stack_forgotten();
	mmu_flush_page(m->v, 0x9000);
	assert_stack_forgotten();
	mmu_flush_writes(m->v, 0x9000);
	assert_stack_forgotten();
	mmu_flush_all(m->v);
	assert_stack_forgotten();
	set_cr3(ROOT);
	assert_stack_forgotten();
	use_cr4(CR4_PCIDE);
	assert_stack_forgotten();
	set_cr3(ROOT | 3 | KEEP);
	assert_stack_forgotten();
	mmu_invpcid(m->v, 1, 3, 0);
	assert_stack_forgotten();
}

/* ---- the engine ---- */

static struct {
	unsigned int all, local, page;
	struct space *s;
	u64 la;
} told;

static void engine_drop(struct vcpu *v, struct space *s, bool global)
{
	told.s = s;
	if (global)
		told.all++;
	else
		told.local++;
}

static void engine_drop_page(struct vcpu *v, struct space *s, u64 la)
{
	told.s = s;
	told.la = la;
	told.page++;
}

static void assert_told(unsigned int all, unsigned int local, unsigned int page, struct space *s)
{
	assert_int_equal(told.all, all);
	assert_int_equal(told.local, local);
	assert_int_equal(told.page, page);
	assert_ptr_equal(told.s, s);
	memset(&told, 0, sizeof(told));
}

static void engine_is_told(void **state)
{
	static const struct cpu_engine_ops engine = {
		.space_drop = engine_drop, .space_drop_page = engine_drop_page,
	};
	struct space *first = m->v->space, *second;

	m->v->engine = &engine;
	memset(&told, 0, sizeof(told));
	mmu_flush_page(m->v, 0x9000);
	set_cr3(ROOT);
	assert_told(0, 0, 0, NULL);	/* nothing of the engine's is there */
	first->code_used = true;
	set_cr3(ROOT);
	assert_told(0, 1, 0, first);
	mmu_flush_page(m->v, 0x9abc);
	assert_int_equal(told.la, 0x9abc);
	assert_told(0, 0, 1, first);
	use_cr4(CR4_PCIDE);
	assert_told(1, 0, 0, first);
	set_cr3(ROOT | 1 | KEEP);
	assert_told(0, 0, 0, NULL);
	second = m->v->space;
	assert_ptr_not_equal(second, first);
	second->code_used = true;
	mmu_flush_page(m->v, 0x9000);
	assert_told(0, 0, 2, second);
	mmu_invpcid(m->v, 1, 0, 0);
	assert_told(1, 0, 0, first);
	/* Code in a large page: all of its fragments go, so everything does. */
	mmu_fetch_page(m->v, HUGE, NULL);
	mmu_flush_page(m->v, HUGE + BIT(28));
	assert_told(1, 0, 0, second);
}

/* ---- the vCPU's first page ---- */

static void hot_page_is_in_each(void **state)
{
	void *run = os_pages_alloc(VCPU_MMAP_SIZE);
	struct vcpu *v, *other;
	struct vm *vm;
	unsigned int n;

	assert_int_equal(vm_create(&vm), 0);
	assert_int_equal(vcpu_create(vm, 0, run, &v), 0);
	assert_non_null(v->space);
	for (n = 0; n < NR_SPACES; n++) {
		other = (struct vcpu *)vcpu_space(v, n)->hot;
		v->r[R_RBX] = 100 + n;
		assert_int_equal(other->r[R_RBX], 100 + n);
		other->hot.slot[7] = 200 + n;
		assert_int_equal(v->hot.slot[7], 200 + n);
		assert_ptr_equal(other->space, v->space);
	}
	vcpu_destroy(v);
	vm_put(vm);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(cr3_keeps_global), TEST(global_and_not), TEST(global_evicted),
		TEST(many_pcids), TEST(cr3_drops_its_own), TEST(invlpg_everywhere),
		TEST(asids_run_out), TEST(columns), TEST(columns_of_aliases), TEST(columns_with_code),
		TEST(no_hit_while_aligned), TEST(stack_is_forgotten), TEST(engine_is_told),
		cmocka_unit_test(hot_page_is_in_each),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
