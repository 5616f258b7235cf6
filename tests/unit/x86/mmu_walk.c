/*
 * The page walk against an independent model: every combination of rights at two levels, write
 * protection, SMEP, SMAP, NX, privilege and kind of access; reserved bits one by one; accessed and
 * dirty bits; large pages of every size.
 *
 * The model is written from the rules' text (SDM 3A 4.6.1, 4.7) as one rule a line, the walk from
 * the tables' structure, so that a mistake would have to be made twice in two forms.
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/x86/machine.h"

#define P	BIT(0)
#define W	BIT(1)
#define U	BIT(2)
#define A	BIT(5)
#define D	BIT(6)
#define PS	BIT(7)
#define NX	BIT(63)

#define ROOT	0x1000
#define L3	0x2000
#define L2	0x3000
#define L1	0x4000
#define DATA	0x5000
#define LA	0x0000008040201abcULL	/* index 1 at each of the four levels */
#define LA32	0x40201abcULL

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

/* ---- formats: where the entries of the test's one mapping lie ---- */

struct format {
	const char *name;
	unsigned int levels, entry;
	u64 at[4];	/* address of the entry, leaf first */
	u64 next[4];	/* what it points to */
	u64 la;
	bool lma, pae;
};

static const struct format formats[] = {
	{ "4-level", 4, 8, { L1 + 8, L2 + 8, L3 + 8, ROOT + 8 }, { DATA, L1, L2, L3 }, LA,
		true, true },
	{ "PAE", 2, 8, { L1 + 8, L2 + 8 }, { DATA, L1 }, LA32, false, true },
	{ "32-bit", 2, 4, { L1 + 0x201 * 4, L2 + 0x100 * 4 }, { DATA, L1 }, LA32, false, false },
};

static void entry_put(const struct format *f, unsigned int level, u64 val)
{
	if (f->entry == 8)
		*ram64(m, f->at[level]) = val;
	else
		*ram32(m, f->at[level]) = (u32)val;
}

static u64 entry_get(const struct format *f, unsigned int level)
{
	return f->entry == 8 ? *ram64(m, f->at[level]) : *ram32(m, f->at[level]);
}

/* bits: rights of the upper levels and of the leaf. */
static void mapping_put(const struct format *f, u64 upper, u64 leaf)
{
	unsigned int l;

	for (l = 0; l < f->levels; l++)
		entry_put(f, l, f->next[l] | (l ? upper : leaf));
}

static void format_enter(const struct format *f, u64 cr0, u64 cr4, u64 efer)
{
	struct vcpu *v = m->v;

	v->cr0 = CR0_PE | CR0_PG | CR0_ET | cr0;
	v->cr4 = cr4 | (f->pae ? CR4_PAE : CR4_PSE);
	v->efer = efer | (f->lma ? EFER_LME | EFER_LMA : 0);
	v->cr3 = f->lma ? ROOT : L2;
	v->pdpte[0] = v->pdpte[2] = v->pdpte[3] = 0;
	v->pdpte[1] = L2 | P;
}

/* ---- the model ---- */

struct situation {
	u64 upper, leaf;
	bool wp, smep, nxe, pae;
	enum mmu_index idx;
	enum mem_access acc;
};

/* 0: allowed, else the error code plus 0x10000. */
static u32 model(const struct situation *s)
{
	bool user_access = s->idx == MMU_USER, write = s->acc == MEM_WRITE,
		fetch = s->acc == MEM_EXEC;
	bool user_page = s->upper & s->leaf & U;
	bool read_only = !(s->upper & s->leaf & W);
	bool no_exec = (s->upper | s->leaf) & NX;
	u32 code = (write ? PF_W : 0) | (user_access ? PF_U : 0);
	bool bad = false;

	if (fetch && (s->smep || (s->nxe && s->pae)))
		code |= PF_I;
	if (!s->nxe && no_exec)
		return 0x10000 | code | PF_P | PF_RSVD;
	bad |= user_access && !user_page;
	bad |= user_access && write && read_only;
	bad |= !user_access && write && read_only && s->wp;
	bad |= fetch && no_exec;
	bad |= !user_access && fetch && user_page && s->smep;
	bad |= s->idx == MMU_KERNEL_SMAP && !fetch && user_page;
	return bad ? 0x10000 | code | PF_P : 0;
}

static u32 walk(u64 la, enum mem_access acc, enum mmu_index idx, struct mmu_map *map)
{
	u32 error = 0;

	return mmu_walk(m->v, la, acc, idx, map, &error) ? 0x10000 | error : 0;
}

static void check_situation(const struct format *f, const struct situation *s)
{
	struct mmu_map map = { 0 };
	u32 expected = model(s), got;

	mapping_put(f, s->upper, s->leaf);
	format_enter(f, s->wp ? CR0_WP : 0, s->smep ? CR4_SMEP : 0, s->nxe ? EFER_NX : 0);
	got = walk(f->la, s->acc, s->idx, &map);
	if (got != expected)
		fail_msg("%s upper %llx leaf %llx wp %d smep %d nxe %d idx %d acc %d: %x, not %x",
			f->name, (unsigned long long)s->upper, (unsigned long long)s->leaf, s->wp,
			s->smep, s->nxe, s->idx, s->acc, got, expected);
	if (!got)
		assert_int_equal(map.gpa, DATA + (f->la & 0xfff));
	assert_int_equal(entry_get(f, 0) & (A | D), got ? 0 : s->acc == MEM_WRITE ? A | D : A);
	assert_int_equal(entry_get(f, 1) & (A | D), got ? 0 : A);
}

static u64 rights_of(unsigned int n, bool wide)
{
	return P | (n & 1 ? W : 0) | (n & 2 ? U : 0) | (n & 4 && wide ? NX : 0);
}

static void rights(void **state)
{
	unsigned int f, n;

	for (f = 0; f < ARRAY_SIZE(formats); f++)
		for (n = 0; n < 8 * 8 * 8 * 9; n++) {
			struct situation s = {
				.upper = rights_of(n & 7, formats[f].entry == 8),
				.leaf = rights_of(n >> 3 & 7, formats[f].entry == 8),
				.wp = n >> 6 & 1, .smep = n >> 7 & 1, .nxe = n >> 8 & 1,
				.pae = formats[f].pae,
				.idx = (n >> 9) % 3, .acc = (n >> 9) / 3,
			};

			check_situation(&formats[f], &s);
		}
}

static void absent(void **state)
{
	struct mmu_map map;
	unsigned int f, l;

	for (f = 0; f < ARRAY_SIZE(formats); f++)
		for (l = 0; l < formats[f].levels; l++) {
			mapping_put(&formats[f], P | W | U, P | W | U);
			entry_put(&formats[f], l, ~0ULL & ~P);
			format_enter(&formats[f], CR0_WP, 0, EFER_NX);
			assert_int_equal(walk(formats[f].la, MEM_READ, MMU_KERNEL, &map), 0x10000);
			assert_int_equal(walk(formats[f].la, MEM_WRITE, MMU_USER, &map),
				0x10000 | PF_W | PF_U);
		}
	format_enter(&formats[1], 0, 0, 0);
	mapping_put(&formats[1], P | W | U, P | W | U);
	m->v->pdpte[1] = 0;
	assert_int_equal(walk(LA32, MEM_READ, MMU_KERNEL, &map), 0x10000);
}

/* ---- reserved bits ---- */

struct reserved {
	unsigned int format, level;
	u64 extra;	/* bits of the entry beside P, W, U */
	u64 mask;	/* bits that fault when set, below MAXPHYADDR's and NX */
};

static const struct reserved reserved[] = {
	{ 0, 0, 0, 0 },
	{ 0, 1, 0, 0 },
	{ 0, 1, PS, MASK(20, 13) },
	{ 0, 2, 0, 0 },
	{ 0, 2, PS, MASK(29, 13) },
	{ 0, 3, 0, PS },
	{ 1, 0, 0, MASK(62, 52) },
	{ 1, 1, 0, MASK(62, 52) },
	{ 1, 1, PS, MASK(62, 52) | MASK(20, 13) },
	{ 2, 0, 0, 0 },
	{ 2, 1, 0, 0 },
	{ 2, 1, PS, MASK(21, 21) },
};

/* Bits that change where the walk goes, or its rights, are not tried. */
static bool bit_tried(const struct reserved *r, unsigned int bit)
{
	if (bit <= 2 || (r->level && !(r->extra & PS) && bit >= 12 && bit < m->v->maxphyaddr))
		return false;
	return !(bit == 7 && r->level && r->level < 3);
}

static void check_reserved(const struct reserved *r, unsigned int bit, bool nxe)
{
	const struct format *f = &formats[r->format];
	u64 mask = r->mask;
	struct mmu_map map;
	u32 got;

	if (f->entry == 8)
		mask |= MASK(51, m->v->maxphyaddr) | (nxe ? 0 : NX);
	mapping_put(f, P | W | U, P | W | U);
	entry_put(f, r->level, (r->extra & PS ? 0 : f->next[r->level]) |
		P | W | U | r->extra | BIT(bit));
	format_enter(f, CR0_WP, 0, nxe ? EFER_NX : 0);
	got = walk(f->la, MEM_READ, MMU_KERNEL, &map);
	if (!!(got & PF_RSVD) != !!(mask & BIT(bit)))
		fail_msg("%s level %u extra %llx bit %u nxe %d: %x", f->name, r->level,
			(unsigned long long)r->extra, bit, nxe, got);
	if (got & PF_RSVD)
		assert_int_equal(got, 0x10000 | PF_P | PF_RSVD);
}

static void reserved_bits(void **state)
{
	unsigned int i, bit;

	for (i = 0; i < ARRAY_SIZE(reserved); i++)
		for (bit = 0; bit < 8 * formats[reserved[i].format].entry; bit++) {
			if (!bit_tried(&reserved[i], bit))
				continue;
			check_reserved(&reserved[i], bit, true);
			check_reserved(&reserved[i], bit, false);
		}
}

static void reserved_by_feature(void **state)
{
	struct mmu_map map;

	mapping_put(&formats[0], P | W | U, P | W | U);
	entry_put(&formats[0], 2, P | W | U | PS);
	format_enter(&formats[0], 0, 0, 0);
	assert_int_equal(walk(LA, MEM_READ, MMU_KERNEL, &map), 0);
	machine_feature(m, F_PDPE1GB, false);
	assert_int_equal(walk(LA, MEM_READ, MMU_KERNEL, &map), 0x10000 | PF_P | PF_RSVD);

	mapping_put(&formats[2], P | W | U, P | W | U);
	entry_put(&formats[2], 1, P | W | U | PS | BIT(14));
	format_enter(&formats[2], 0, 0, 0);
	assert_int_equal(walk(LA32, MEM_READ, MMU_KERNEL, &map), 0);
	machine_feature(m, F_PSE36, false);
	assert_int_equal(walk(LA32, MEM_READ, MMU_KERNEL, &map), 0x10000 | PF_P | PF_RSVD);
	/* Without CR4.PSE the bit that says "large" is ignored. */
	entry_put(&formats[2], 1, L1 | P | W | U | PS);
	m->v->cr4 &= ~CR4_PSE;
	assert_int_equal(walk(LA32, MEM_READ, MMU_KERNEL, &map), 0);
	assert_int_equal(map.page_size, 4096);
	assert_int_equal(map.gpa, DATA + 0xabc);
}

/* ---- sizes and addresses ---- */

static void large_pages(void **state)
{
	struct mmu_map map;

	mapping_put(&formats[0], P | W | U, P | W | U);
	format_enter(&formats[0], 0, 0, 0);
	entry_put(&formats[0], 1, 0x0000123440000000ULL | P | W | PS);
	assert_int_equal(walk(LA, MEM_WRITE, MMU_KERNEL, &map), 0);
	assert_int_equal(map.gpa, 0x0000123440000000ULL | (LA & MASK(20, 0)));
	assert_int_equal(map.page_size, 2 << 20);
	assert_int_equal(entry_get(&formats[0], 1) & (A | D), A | D);
	entry_put(&formats[0], 2, 0x0000123440000000ULL | P | W | PS | BIT(12));
	assert_int_equal(walk(LA, MEM_READ, MMU_KERNEL, &map), 0);
	assert_int_equal(map.gpa, 0x0000123440000000ULL | (LA & MASK(29, 0)));
	assert_int_equal(map.page_size, 1 << 30);
	assert_int_equal(entry_get(&formats[0], 2) & (A | D), A);

	/* PSE-36: bits 20:13 are 39:32 of the address. */
	format_enter(&formats[2], 0, 0, 0);
	entry_put(&formats[2], 1, 0x12800000 | BIT(13) | BIT(20) | P | PS);
	assert_int_equal(walk(LA32, MEM_READ, MMU_KERNEL, &map), 0);
	assert_int_equal(map.gpa, 0x8112800000ULL | (LA32 & MASK(21, 0)));
	assert_int_equal(map.page_size, 4 << 20);
}

static void dirty_decides_writable(void **state)
{
	struct mmu_map map;

	mapping_put(&formats[0], P | W | U, P | W | U);
	format_enter(&formats[0], CR0_WP, 0, 0);
	assert_int_equal(walk(LA, MEM_READ, MMU_USER, &map), 0);
	assert_false(map.writable);
	assert_int_equal(walk(LA, MEM_WRITE, MMU_USER, &map), 0);
	assert_true(map.writable);
	assert_int_equal(walk(LA, MEM_READ, MMU_USER, &map), 0);
	assert_true(map.writable);
	entry_put(&formats[0], 0, DATA | P | U | A | D);
	assert_int_equal(walk(LA, MEM_READ, MMU_KERNEL, &map), 0);
	assert_false(map.writable);
	m->v->cr0 &= ~CR0_WP;
	assert_int_equal(walk(LA, MEM_READ, MMU_KERNEL, &map), 0);
	assert_true(map.writable);
}

/* ---- tables in odd places ---- */

static void table_without_memory(void **state)
{
	struct mmu_map map;

	mapping_put(&formats[0], P | W | U, P | W | U);
	entry_put(&formats[0], 1, NO_SLOT | P | W | U);
	format_enter(&formats[0], 0, 0, 0);
	assert_int_equal(walk(LA, MEM_READ, MMU_KERNEL, &map), 0x10000 | PF_P | PF_RSVD);
}

static void table_in_rom(void **state)
{
	struct mmu_map map;
	u64 *pte = (u64 *)(m->rom + 8);

	mapping_put(&formats[0], P | W | U, P | W | U);
	entry_put(&formats[0], 1, ROM_BASE | P | W | U);
	*pte = DATA | P | W | U;
	format_enter(&formats[0], 0, 0, 0);
	assert_int_equal(walk(LA, MEM_WRITE, MMU_KERNEL, &map), 0);
	assert_int_equal(*pte, DATA | P | W | U);
	assert_int_equal(entry_get(&formats[0], 1) & A, A);
}

static void tables_are_logged(void **state)
{
	struct mmu_map map;

	m->vm.slots->slot[0].dirty = m->dirty;
	memset(m->dirty, 0, sizeof(m->dirty));
	mapping_put(&formats[0], P | W | U, P | W | U);
	format_enter(&formats[0], 0, 0, 0);
	assert_int_equal(walk(LA, MEM_READ, MMU_KERNEL, &map), 0);
	assert_int_equal(m->dirty[0], 0x1e);
	memset(m->dirty, 0, sizeof(m->dirty));
	assert_int_equal(walk(LA, MEM_WRITE, MMU_KERNEL, &map), 0);
	assert_int_equal(m->dirty[0], 0x10);
}

static void pdptes(void **state)
{
	unsigned int bit;
	bool bad;

	m->v->cr3 = ROOT | 0x20;
	for (bit = 1; bit < 64; bit++) {
		bad = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= m->v->maxphyaddr;
		*ram64(m, ROOT + 0x20 + 24) = P | BIT(bit);
		assert_int_equal(mmu_load_pdptes(m->v), !bad);
		*ram64(m, ROOT + 0x20 + 24) = BIT(bit);
		assert_true(mmu_load_pdptes(m->v));
		assert_int_equal(m->v->pdpte[3], BIT(bit));
	}
}

static void translate_has_no_effect(void **state)
{
	u64 gpa;

	mapping_put(&formats[0], P, P | NX);
	format_enter(&formats[0], CR0_WP, 0, EFER_NX);
	assert_int_equal(mmu_translate(m->v, LA, &gpa), 0);
	assert_int_equal(gpa, DATA + 0xabc);
	assert_int_equal(entry_get(&formats[0], 0), DATA | P | NX);
	assert_int_equal(mmu_translate(m->v, LA + 0x1000, &gpa), -EFAULT);
	assert_int_equal(mmu_translate(m->v, BIT(47) | LA, &gpa), -EFAULT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(rights, setup, teardown),
		cmocka_unit_test_setup_teardown(absent, setup, teardown),
		cmocka_unit_test_setup_teardown(reserved_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(reserved_by_feature, setup, teardown),
		cmocka_unit_test_setup_teardown(large_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(dirty_decides_writable, setup, teardown),
		cmocka_unit_test_setup_teardown(table_without_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(table_in_rom, setup, teardown),
		cmocka_unit_test_setup_teardown(tables_are_logged, setup, teardown),
		cmocka_unit_test_setup_teardown(pdptes, setup, teardown),
		cmocka_unit_test_setup_teardown(translate_has_no_effect, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
