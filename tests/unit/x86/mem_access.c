/*
 * Memory accesses: segment limits and types, canonical addresses, alignment, page crossings,
 * devices, and the TLB: what fills it, what must be forgotten when.
 */
#include <string.h>

#include "tests/unit/x86/machine.h"

#define P	BIT(0)
#define W	BIT(1)
#define U	BIT(2)
#define D	BIT(6)
#define PS	BIT(7)

#define ROOT	0x1000
#define L3	0x2000
#define L2	0x3000
#define L1	0x4000		/* maps linear 0 .. 2 MiB to itself */
#define LARGE	0x400000ULL	/* linear and physical: a 2 MiB page */
#define DEVICE	0x800000ULL	/* linear: a 2 MiB page without memory */

static struct machine *m;

static int setup(void **state)
{
	unsigned int i;

	m = machine_create();
	*ram64(m, ROOT) = L3 | P | W | U;
	*ram64(m, ROOT + 0xff8) = L3 | P | W | U;	/* the last 512 GiB once more */
	*ram64(m, L3) = L2 | P | W | U;
	*ram64(m, L3 + 0xff8) = L2 | P | W | U;
	*ram64(m, L2) = L1 | P | W | U;
	*ram64(m, L2 + 16) = LARGE | P | W | U | PS;
	*ram64(m, L2 + 32) = NO_SLOT | P | W | U | PS;
	for (i = 0; i < 512; i++)
		*ram64(m, L1 + 8 * i) = (i << 12) | P | W | U;
	return 0;
}

static int teardown(void **state)
{
	machine_destroy(m);
	return 0;
}

static void assert_fault(enum unwind why, u8 vector, u32 error)
{
	assert_int_equal(why, UNWIND_EVENT);
	assert_int_equal(m->v->event.vector, vector);
	assert_int_equal(m->v->event.error, error);
}

static void assert_pf(enum unwind why, u32 error, u64 la)
{
	assert_fault(why, VEC_PF, error);
	assert_int_equal(m->v->event.payload, la);
}

/* ---- segments ---- */

struct limit_case {
	u32 limit, attr;
	u32 off, size;
	bool allowed;
};

#define DATA	(SEG_P | SEG_S | SEG_TYPE_RW)
#define DOWN	(DATA | SEG_TYPE_EC)

static const struct limit_case limit_cases[] = {
	{ 0xfff, DATA, 0xffc, 4, true },
	{ 0xfff, DATA, 0xffd, 4, false },
	{ 0xfff, DATA, 0xffffffff, 1, false },
	{ 0, DATA, 0, 1, true },
	{ 0, DATA, 0, 2, false },
	{ 0xfff, DOWN | SEG_DB, 0x1000, 8, true },
	{ 0xfff, DOWN | SEG_DB, 0xfff, 1, false },
	{ 0xfff, DOWN, 0xfffc, 4, true },
	{ 0xfff, DOWN, 0xfffd, 4, false },
	{ 0xffff, DATA | SEG_UNUSABLE, 0, 1, false },
};

static void segment_limits(void **state)
{
	const struct limit_case *c;
	u64 val;

	machine_protected(m, 0);
	for (c = limit_cases; c < limit_cases + ARRAY_SIZE(limit_cases); c++) {
		m->v->seg[SEG_ES].limit = m->v->seg[SEG_SS].limit = c->limit;
		m->v->seg[SEG_ES].attr = m->v->seg[SEG_SS].attr = c->attr;
		vcpu_update_mode(m->v);
		if (c->allowed) {
			assert_int_equal(try_read(m, SEG_ES, c->off, c->size, &val), UNWIND_NONE);
			assert_int_equal(try_write(m, SEG_SS, c->off, c->size, 0), UNWIND_NONE);
		} else {
			assert_fault(try_read(m, SEG_ES, c->off, c->size, &val), VEC_GP, 0);
			assert_fault(try_write(m, SEG_SS, c->off, c->size, 0), VEC_SS, 0);
		}
	}
}

static void segment_types(void **state)
{
	u64 val;

	machine_protected(m, 0);
	assert_int_equal(try_read(m, SEG_CS, 0, 4, &val), UNWIND_NONE);
	assert_fault(try_write(m, SEG_CS, 0, 4, 0), VEC_GP, 0);
	m->v->seg[SEG_CS].attr &= ~SEG_TYPE_RW;
	m->v->seg[SEG_DS].attr &= ~SEG_TYPE_RW;
	vcpu_update_mode(m->v);
	assert_fault(try_read(m, SEG_CS, 0, 4, &val), VEC_GP, 0);
	assert_int_equal(try_read(m, SEG_DS, 0, 4, &val), UNWIND_NONE);
	assert_fault(try_write(m, SEG_DS, 0, 4, 0), VEC_GP, 0);
}

static void real_mode(void **state)
{
	u64 val;

	*ram32(m, 0x12340 + 0xfffc) = 0x11223344;
	m->v->seg[SEG_DS].base = 0x12340;
	vcpu_update_mode(m->v);
	assert_int_equal(try_read(m, SEG_DS, 0xfffc, 4, &val), UNWIND_NONE);
	assert_int_equal(val, 0x11223344);
	assert_fault(try_read(m, SEG_DS, 0xfffd, 4, &val), VEC_GP, 0);
	assert_fault(try_read(m, SEG_SS, 0xffff, 2, &val), VEC_SS, 0);
	/* CS is writable, whatever its type says. */
	m->v->seg[SEG_CS].base = 0;
	vcpu_update_mode(m->v);
	assert_int_equal(try_write(m, SEG_CS, 0, 4, 0), UNWIND_NONE);
}

static void linear_wraps_at_4g(void **state)
{
	u64 val;

	machine_protected(m, 0);
	*ram32(m, 0x100) = 0x55667788;
	m->v->seg[SEG_DS].base = 0xfffff000;
	vcpu_update_mode(m->v);
	assert_int_equal(try_read(m, SEG_DS, 0x1100, 4, &val), UNWIND_NONE);
	assert_int_equal(val, 0x55667788);
	/* An operand's second page, too. */
	m->v->seg[SEG_DS].base = 0;
	m->v->pdpte[3] = L2 | P;
	m->v->pdpte[0] = L2 | P;
	*ram64(m, L2 + 0xff8) = L1 | P | W | U;
	m->v->cr0 |= CR0_PG;
	m->v->cr4 |= CR4_PAE;
	mmu_flush_all(m->v);
	vcpu_update_mode(m->v);
	*ram32(m, 0) = 0xaabbccdd;
	*ram32(m, 0x1ffffc) = 0x11223344;
	assert_int_equal(try_read(m, SEG_DS, 0xfffffffe, 4, &val), UNWIND_NONE);
	assert_int_equal(val, 0xccdd1122);
	*ram64(m, L1) = 0;
	mmu_flush_all(m->v);
	assert_pf(try_read(m, SEG_DS, 0xfffffffe, 4, &val), 0, 0);
}

static void canonical(void **state)
{
	u64 val;

	machine_long(m, 0, ROOT);
	assert_fault(try_read(m, SEG_DS, BIT(47), 1, &val), VEC_GP, 0);
	assert_fault(try_read(m, SEG_SS, BIT(47) - 1, 2, &val), VEC_SS, 0);
	assert_fault(try_sys_read(m, BIT(63), 8, &val), VEC_GP, 0);
	assert_pf(try_read(m, SEG_DS, MASK(63, 47), 1, &val), 0, MASK(63, 47));
	m->v->seg[SEG_FS].base = 0x7000;
	vcpu_update_mode(m->v);
	*ram32(m, 0x7010) = 77;
	assert_int_equal(try_read(m, SEG_FS, 0x10, 4, &val), UNWIND_NONE);
	assert_int_equal(val, 77);
}

static void alignment(void **state)
{
	static const unsigned int sizes[] = { 2, 4, 8 };
	unsigned int i;
	u64 val;

	machine_long(m, 3, ROOT);
	m->v->cr0 |= CR0_AM;
	m->v->rflags |= RFLAGS_AC;
	vcpu_update_mode(m->v);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(try_read(m, SEG_DS, 0x8000 + sizes[i], sizes[i], &val),
			UNWIND_NONE);
		assert_fault(try_read(m, SEG_DS, 0x8000 + sizes[i] / 2, sizes[i], &val), VEC_AC, 0);
		assert_fault(try_write(m, SEG_DS, 0x8000 + sizes[i] / 2, sizes[i], 0), VEC_AC, 0);
	}
	*ram64(m, L1 + 8 * 8) = 0;
	mmu_flush_all(m->v);
	/* First of the two is #AC, as on AMD. */
	assert_fault(try_read(m, SEG_DS, 0x8001, 4, &val), VEC_AC, 0);
	assert_pf(try_read(m, SEG_DS, 0x8004, 4, &val), PF_U, 0x8004);
	m->v->cr0 &= ~CR0_AM;
	vcpu_update_mode(m->v);
	assert_int_equal(try_read(m, SEG_DS, 0x9001, 4, &val), UNWIND_NONE);
}

/* ---- pages ---- */

static void crossing(void **state)
{
	u64 val;

	machine_long(m, 0, ROOT);
	*ram64(m, L1 + 8 * 9) = 0x20000 | P | W | U;
	*ram64(m, L1 + 8 * 10) = 0x10000 | P | W | U;
	assert_int_equal(try_write(m, SEG_DS, 0x9ffd, 8, 0x8877665544332211ULL), UNWIND_NONE);
	assert_int_equal(mem_load(m->ram + 0x20ffd, 2), 0x2211);
	assert_int_equal(m->ram[0x20fff], 0x33);
	assert_int_equal(*ram32(m, 0x10000), 0x77665544);
	assert_int_equal(try_read(m, SEG_DS, 0x9ffd, 8, &val), UNWIND_NONE);
	assert_int_equal(val, 0x8877665544332211ULL);
	/* A fault on the second page leaves the first alone. */
	*ram64(m, L1 + 8 * 10) = 0x10000 | P | U;
	mmu_flush_page(m->v, 0xa000);
	assert_pf(try_write(m, SEG_DS, 0x9ffd, 8, 0), PF_P | PF_W, 0xa000);
	assert_int_equal(m->ram[0x20fff], 0x33);
}

static void devices(void **state)
{
	u64 val;

	machine_long(m, 0, ROOT);
	assert_int_equal(try_read(m, SEG_DS, DEVICE + 0x123, 4, &val), UNWIND_EXIT);
	assert_int_equal(m->v->run->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(m->v->run->mmio.phys_addr, NO_SLOT + 0x123);
	assert_int_equal(m->v->run->mmio.len, 4);
	assert_false(m->v->run->mmio.is_write);
}

static void read_only_slot(void **state)
{
	u64 val;

	machine_long(m, 0, ROOT);
	*ram64(m, L1 + 8 * 9) = ROM_BASE | P | W | U;
	*(u32 *)m->rom = 0xabcd;
	assert_int_equal(try_read(m, SEG_DS, 0x9000, 4, &val), UNWIND_NONE);
	assert_int_equal(val, 0xabcd);
	assert_int_equal(try_write(m, SEG_DS, 0x9000, 4, 1), UNWIND_EXIT);
	assert_int_equal(m->v->run->exit_reason, KVM_EXIT_MMIO);
	assert_true(m->v->run->mmio.is_write);
	assert_int_equal(*(u32 *)m->rom, 0xabcd);
}

static void dirty_log(void **state)
{
	u64 val;

	machine_long(m, 0, ROOT);
	m->vm.slots->slot[0].dirty = m->dirty;
	*ram64(m, L1 + 8 * 9) |= D;
	assert_int_equal(try_read(m, SEG_DS, 0x9000, 4, &val), UNWIND_NONE);
	memset(m->dirty, 0, sizeof(m->dirty));
	assert_int_equal(try_read(m, SEG_DS, 0x9000, 4, &val), UNWIND_NONE);
	assert_int_equal(m->dirty[0], 0);
	assert_int_equal(try_write(m, SEG_DS, 0x9000, 4, 1), UNWIND_NONE);
	assert_int_equal(m->dirty[0], BIT(9));
	memset(m->dirty, 0, sizeof(m->dirty));
	mmu_flush_all(m->v);
	assert_int_equal(try_write(m, SEG_DS, 0x9000, 4, 1), UNWIND_NONE);
	assert_int_equal(m->dirty[0], BIT(9));
}

/*
 * A write to a page whose mask says "decoded here" is told to the code cache, which drops the page.
 */
static void code_pages(void **state)
{
	struct code_page *c = &m->vm.slots->slot[0].code[9];
	u64 val;

	machine_long(m, 0, ROOT);
	assert_int_equal(try_write(m, SEG_DS, 0x9000, 4, 1), UNWIND_NONE);
	c->mask = BIT(2);
	c->gen = 5;
	mmu_flush_writes(m->v, 0x9000);
	assert_null(mem_hit(m->v, SEG_DS, 0x9000, 4, true));
	assert_int_equal(try_read(m, SEG_DS, 0x9000, 4, &val), UNWIND_NONE);
	assert_non_null(mem_hit(m->v, SEG_DS, 0x9000, 4, false));
	assert_int_equal(try_write(m, SEG_DS, 0x9000 + 0xc0, 4, 7), UNWIND_NONE);
	assert_int_equal(c->gen, 5);
	assert_int_equal(try_write(m, SEG_DS, 0x9000 + 0x7d, 4, 7), UNWIND_NONE);
	assert_int_equal(mem_load(m->ram + 0x907d, 4), 7);
	assert_int_not_equal(c->gen, 5);
	/* With nothing decoded left, the next write makes the page fast again. */
	assert_int_equal(c->mask, 0);
	assert_int_equal(try_write(m, SEG_DS, 0x9000, 4, 7), UNWIND_NONE);
	assert_non_null(mem_hit(m->v, SEG_DS, 0x9000, 4, true));
}

/* ---- rights and contexts ---- */

static void smap(void **state)
{
	u64 val;

	machine_long(m, 0, ROOT);
	*ram64(m, L1 + 8 * 9) &= ~U;
	m->v->cr4 |= CR4_SMAP;
	vcpu_update_mode(m->v);
	assert_pf(try_read(m, SEG_DS, 0x8000, 4, &val), PF_P, 0x8000);
	assert_int_equal(try_read(m, SEG_DS, 0x9000, 4, &val), UNWIND_NONE);
	m->v->rflags |= RFLAGS_AC;
	vcpu_update_mode(m->v);
	assert_int_equal(try_read(m, SEG_DS, 0x8000, 4, &val), UNWIND_NONE);
	assert_pf(try_sys_read(m, 0x8000, 8, &val), PF_P, 0x8000);
	m->v->rflags &= ~RFLAGS_AC;
	vcpu_update_mode(m->v);
	assert_pf(try_read(m, SEG_DS, 0x8000, 4, &val), PF_P, 0x8000);
}

static void user_and_supervisor(void **state)
{
	u64 val;

	machine_long(m, 0, ROOT);
	*ram64(m, L1 + 8 * 9) &= ~U;
	assert_int_equal(try_read(m, SEG_DS, 0x9000, 4, &val), UNWIND_NONE);
	m->v->seg[SEG_SS].attr |= 3u << SEG_DPL_SHIFT;
	vcpu_update_mode(m->v);
	assert_int_equal(m->v->cpl, 3);
	assert_pf(try_read(m, SEG_DS, 0x9000, 4, &val), PF_P | PF_U, 0x9000);
	assert_int_equal(try_sys_read(m, 0x9000, 4, &val), UNWIND_NONE);
}

/* ---- what must be forgotten, and what may stay ---- */

static void remap(u64 la, u64 gpa)
{
	*ram64(m, L1 + 8 * (la >> 12)) = gpa | P | W | U;
}

static u64 read_at(u64 la)
{
	u64 val = ~0ULL;

	assert_int_equal(try_read(m, SEG_DS, la, 4, &val), UNWIND_NONE);
	return val;
}

static void invlpg(void **state)
{
	machine_long(m, 0, ROOT);
	*ram32(m, 0x10000) = 1;
	*ram32(m, 0x11000) = 2;
	remap(0x9000, 0x10000);
	assert_int_equal(read_at(0x9000), 1);
	remap(0x9000, 0x11000);
	assert_int_equal(read_at(0x9000), 1);
	mmu_flush_page(m->v, 0x9fff);
	assert_int_equal(read_at(0x9000), 2);
}

static void invlpg_large(void **state)
{
	machine_long(m, 0, ROOT);
	*ram32(m, LARGE + 0x5000) = 1;
	*ram32(m, 0x5000) = 2;
	*ram32(m, 0x9000) = 3;
	assert_int_equal(read_at(0x9000), 3);
	assert_int_equal(read_at(LARGE + 0x5000), 1);
	*ram64(m, L2 + 16) = P | W | PS;
	remap(0x9000, 0x10000);
	/* One address stands for the whole large page, and leaves other pages alone. */
	mmu_flush_page(m->v, LARGE + 0x123000);
	assert_int_equal(read_at(LARGE + 0x5000), 2);
	assert_int_equal(read_at(0x9000), 3);
}

static void cr3_without_pcid(void **state)
{
	unsigned int i;

	machine_long(m, 0, ROOT);
	for (i = 0; i < 1200; i++) {	/* more than there are ASIDs */
		*ram32(m, 0x10000) = i;
		*ram32(m, 0x11000) = ~i;
		remap(0x9000, i & 1 ? 0x10000 : 0x11000);
		assert_int_equal(try_cr_write(m, 3, ROOT), UNWIND_NONE);
		assert_int_equal((u32)read_at(0x9000), i & 1 ? i : ~i);
	}
}

static void cr3_with_pcid(void **state)
{
	const u64 keep = CR3_NOFLUSH;

	machine_long(m, 0, ROOT);
	m->v->cr4 |= CR4_PCIDE;
	mmu_flush_all(m->v);
	*ram32(m, 0x10000) = 1;
	*ram32(m, 0x11000) = 2;
	*ram32(m, 0x12000) = 3;
	remap(0x9000, 0x10000);
	assert_int_equal(read_at(0x9000), 1);
	remap(0x9000, 0x11000);
	assert_int_equal(try_cr_write(m, 3, ROOT | 5 | keep), UNWIND_NONE);
	assert_int_equal(read_at(0x9000), 2);
	remap(0x9000, 0x12000);
	assert_int_equal(try_cr_write(m, 3, ROOT | keep), UNWIND_NONE);
	assert_int_equal(m->v->cr3, ROOT);
	assert_int_not_equal(read_at(0x9000), 2);	/* never PCID 5's entry */
	assert_int_equal(try_cr_write(m, 3, ROOT), UNWIND_NONE);
	assert_int_equal(read_at(0x9000), 3);
	remap(0xa000, 0x10000);
	assert_int_equal(try_cr_write(m, 3, ROOT | 5 | keep), UNWIND_NONE);
	assert_int_equal(read_at(0xa000), 1);
	remap(0xa000, 0x11000);
	mmu_invpcid(m->v, 1, 5, 0);
	assert_int_equal(read_at(0xa000), 2);
	/* Dropped while another is current. */
	assert_int_equal(try_cr_write(m, 3, ROOT | keep), UNWIND_NONE);
	remap(0xa000, 0x12000);
	mmu_invpcid(m->v, 1, 5, 0);
	assert_int_equal(try_cr_write(m, 3, ROOT | 5 | keep), UNWIND_NONE);
	assert_int_equal(read_at(0xa000), 3);
}

static void pcid_is_kept(void **state)
{
	u64 fills;

	machine_long(m, 0, ROOT);
	m->v->cr4 |= CR4_PCIDE;
	mmu_flush_all(m->v);
	read_at(0x9000);
	assert_int_equal(try_cr_write(m, 3, ROOT | 5), UNWIND_NONE);
	read_at(0xa000);
	fills = m->v->stat.tlb_fills;
	assert_int_equal(try_cr_write(m, 3, ROOT | CR3_NOFLUSH), UNWIND_NONE);
	read_at(0x9000);
	assert_int_equal(try_cr_write(m, 3, ROOT | 5 | CR3_NOFLUSH), UNWIND_NONE);
	read_at(0xa000);
	assert_int_equal(m->v->stat.tlb_fills, fills);
}

/* ---- control registers ---- */

static void cr_rules(void **state)
{
	machine_protected(m, 0);
	assert_fault(try_cr_write(m, 0, CR0_PG), VEC_GP, 0);
	assert_fault(try_cr_write(m, 0, CR0_PE | CR0_NW), VEC_GP, 0);
	assert_fault(try_cr_write(m, 0, BIT(32) | CR0_PE), VEC_GP, 0);
	assert_fault(try_cr_write(m, 4, CR4_LA57), VEC_GP, 0);
	assert_fault(try_cr_write(m, 4, CR4_PCIDE), VEC_GP, 0);
	assert_fault(try_cr_write(m, 8, 16), VEC_GP, 0);
	assert_fault(try_cr_write(m, 5, 0), VEC_UD, 0);
	m->v->efer = EFER_LME;
	m->v->cr3 = ROOT;
	assert_fault(try_cr_write(m, 0, CR0_PE | CR0_PG), VEC_GP, 0);	/* no PAE */
	assert_int_equal(try_cr_write(m, 4, CR4_PAE), UNWIND_NONE);
	m->v->seg[SEG_CS].attr |= SEG_L;
	assert_fault(try_cr_write(m, 0, CR0_PE | CR0_PG), VEC_GP, 0);	/* CS.L */
	m->v->seg[SEG_CS].attr &= ~SEG_L;
	assert_int_equal(try_cr_write(m, 0, CR0_PE | CR0_PG), UNWIND_NONE);
	assert_true(m->v->efer & EFER_LMA);
	assert_fault(try_cr_write(m, 4, 0), VEC_GP, 0);			/* PAE in long mode */
	assert_fault(try_cr_write(m, 3, BIT(m->v->maxphyaddr)), VEC_GP, 0);
	assert_fault(try_cr_write(m, 3, CR3_NOFLUSH), VEC_GP, 0);	/* without PCIDE */
	m->v->cr3 = ROOT | 1;
	assert_fault(try_cr_write(m, 4, CR4_PAE | CR4_PCIDE), VEC_GP, 0);
	m->v->cr3 = ROOT;
	assert_int_equal(try_cr_write(m, 4, CR4_PAE | CR4_PCIDE), UNWIND_NONE);
	assert_fault(try_cr_write(m, 0, CR0_PE), VEC_GP, 0);		/* PG off with PCIDE */
	assert_int_equal(try_cr_write(m, 4, CR4_PAE), UNWIND_NONE);
	assert_int_equal(try_cr_write(m, 0, CR0_PE), UNWIND_NONE);
	assert_false(m->v->efer & EFER_LMA);
}

static void pae_loads_pdptes(void **state)
{
	machine_protected(m, 0);
	m->v->cr3 = ROOT;
	*ram64(m, ROOT) = L2 | P | BIT(1);
	assert_int_equal(try_cr_write(m, 4, CR4_PAE), UNWIND_NONE);
	assert_fault(try_cr_write(m, 0, CR0_PE | CR0_PG), VEC_GP, 0);
	assert_false(m->v->cr0 & CR0_PG);
	*ram64(m, ROOT) = L2 | P;
	assert_int_equal(try_cr_write(m, 0, CR0_PE | CR0_PG), UNWIND_NONE);
	assert_int_equal(m->v->pdpte[0], L2 | P);
	/* The registers, not memory, are what counts. */
	*ram64(m, ROOT) = 0;
	assert_int_equal(read_at(0x9000), 0);
	assert_int_equal(try_cr_write(m, 3, ROOT), UNWIND_NONE);
	assert_int_equal(m->v->pdpte[0], 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(segment_limits), TEST(segment_types), TEST(real_mode),
		TEST(linear_wraps_at_4g), TEST(canonical), TEST(alignment), TEST(crossing),
		TEST(devices), TEST(read_only_slot), TEST(dirty_log), TEST(code_pages), TEST(smap),
		TEST(user_and_supervisor), TEST(invlpg),
		TEST(invlpg_large), TEST(cr3_without_pcid), TEST(cr3_with_pcid), TEST(pcid_is_kept),
		TEST(cr_rules), TEST(pae_loads_pdptes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
