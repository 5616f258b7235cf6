/* 32-bit and PAE paging: permissions, page sizes, reserved bits, PDPTEs, accessed and dirty bits. SDM 3A 4.3, 4.4. */
#include "guest.h"

#define P	1
#define W	2
#define U	4
#define ACC	0x20
#define DIRTY	0x40
#define PS	0x80
#define TEST_VA	0x40000000u

static u32 pd32[1024] PAGE_ALIGNED, pt32[1024] PAGE_ALIGNED;
static u64 pdpt[4] __attribute__((aligned(32)));
static u64 pd64[4][512] PAGE_ALIGNED, pt64[512] PAGE_ALIGNED;
static u8 frame[2][4096] PAGE_ALIGNED;
static bool pae;

static void flush(void)
{
	write_cr3(read_cr3());
}

/* One to one for 4 GiB but for the 4 MiB at TEST_VA; 4..8 MiB is the user's. */
static void build(void)
{
	u32 i;

	for (i = 0; i < 1024; i++)
		pd32[i] = i << 22 | P | W | PS | (i == 1 ? U : 0);
	pd32[TEST_VA >> 22] = (ulong)pt32 | P | W | U;
	for (i = 0; i < 2048; i++)
		pd64[i / 512][i % 512] = (u64)i << 21 | P | W | PS | (i == 2 || i == 3 ? U : 0);
	pd64[TEST_VA >> 30][TEST_VA >> 21 & 511] = (ulong)pt64 | P | W | U;
	for (i = 0; i < 4; i++)
		pdpt[i] = (ulong)pd64[i] | P;
}

static void paging_on(bool want_pae)
{
	pae = want_pae;
	write_cr4((read_cr4() & ~(CR4_PAE | CR4_PSE)) | (pae ? CR4_PAE : CR4_PSE));
	write_cr3(pae ? (ulong)pdpt : (ulong)pd32);
	write_cr0(read_cr0() | CR0_PG);
}

static void paging_off(void)
{
	write_cr0(read_cr0() & ~CR0_PG);
}

static void set_pte(u32 index, u64 v)
{
	if (pae)
		pt64[index] = v;
	else
		pt32[index] = v;
	invlpg((void *)(TEST_VA + index * 4096));
}

static u64 get_pte(u32 index)
{
	return pae ? pt64[index] : pt32[index];
}

static void set_pde(u64 v)
{
	if (pae)
		pd64[TEST_VA >> 30][TEST_VA >> 21 & 511] = v;
	else
		pd32[TEST_VA >> 22] = v;
	flush();
}

static u64 table(void)
{
	return pae ? (ulong)pt64 : (ulong)pt32;
}

enum access { READ, WRITE, FETCH };
USER_TEXT static ulong user_read(ulong a) { return *(volatile u8 *)a; }
USER_TEXT static ulong user_write(ulong a) { *(volatile u8 *)a = 0xc3; return 0; }
USER_TEXT static ulong user_fetch(ulong a) { asm volatile("call *%0" :: "r"(a) : "memory"); return 0; }

static int try(enum access kind, bool user)
{
	if (user)
		return user_call(kind == READ ? user_read : kind == WRITE ? user_write : user_fetch, TEST_VA);
	if (kind == READ)
		return catch((void)*(volatile u8 *)TEST_VA);
	if (kind == WRITE)
		return catch(*(volatile u8 *)TEST_VA = 0xc3);
	return catch(asm volatile("call *%0" :: "r"(TEST_VA) : "memory"));
}

static void permission(u32 pde, u32 pte, bool wp, bool smep, bool nx)
{
	int kind, user;
	u32 rights = pde & pte;

	set_pde(table() | P | pde);
	set_pte(0, ((ulong)frame[0] | P | pte) | (nx ? BIT(63) : 0));
	flush();
	for (kind = READ; kind <= FETCH; kind++)
		for (user = 0; user < 2; user++) {
			bool ok = !(user && !(rights & U)) && !(kind == WRITE && !(rights & W) && (user || wp)) &&
				  !(kind == FETCH && nx) && !(kind == FETCH && !user && smep && rights & U);
			ulong error = 1 | (kind == WRITE ? 2 : 0) | (user ? 4 : 0) |
				      (kind == FETCH && (smep || (pae && rdmsr(MSR_EFER) & EFER_NXE)) ? 16 : 0);
			int v = try(kind, user);

			sweep_check(ok ? v == NONE : v == PF && fault.f.error == error && fault.cr2 == TEST_VA,
				    "PDE %x PTE %x WP %d SMEP %d NX %d kind %d user %d: %d(%lx), want %lx", pde, pte, wp,
				    smep, nx, kind, user, v, fault.f.error, ok ? 0 : error);
		}
}

static void permissions(void)
{
	bool has_smep = cpuid(7, 0).ebx & BIT(7), has_nx = cpuid(0x80000001, 0).edx & BIT(20);
	u32 i, wp, smep, nx;

	frame[0][0] = 0xc3;
	if (pae && has_nx)
		wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	sweep("permissions");
	for (wp = 0; wp < 2; wp++)
		for (smep = 0; smep <= has_smep; smep++)
			for (nx = 0; nx <= (pae && has_nx); nx++)
				for (i = 0; i < 16; i++) {
					write_cr0((read_cr0() & ~CR0_WP) | (wp ? CR0_WP : 0));
					write_cr4((read_cr4() & ~CR4_SMEP) | (smep ? CR4_SMEP : 0));
					permission((i & 3) << 1, (i >> 2) << 1, wp, smep, nx);
				}
	sweep_end();
	write_cr0(read_cr0() & ~CR0_WP);
	write_cr4(read_cr4() & ~CR4_SMEP);
	set_pde(table() | P | W | U);
}

static void bits(void)
{
	set_pte(0, (ulong)frame[0] | P | W);
	(void)*(volatile u8 *)TEST_VA;
	expect("A after a read", get_pte(0) & (ACC | DIRTY), ACC);
	*(volatile u8 *)TEST_VA = 0xc3;
	expect("D after a write", get_pte(0) & (ACC | DIRTY), ACC | DIRTY);
	set_pte(1, (ulong)frame[1] | P | W);
	*(volatile u32 *)(TEST_VA + 4094) = 0x44332211;
	expect("over two pages, low", *(u16 *)(frame[0] + 4094), 0x2211);
	expect("over two pages, high", *(u16 *)frame[1], 0x4433);
	set_pte(1, 0);
	expect_fault("not present", PF, 2, *(volatile u32 *)(TEST_VA + 4094) = 0);
	expect("CR2", fault.cr2, TEST_VA + 4096);
}

static void large(void)
{
	ulong size = pae ? 1ul << 21 : 1ul << 22;
	u32 offset = (ulong)frame[1] & (size - 1);
	volatile u8 *p = (u8 *)(TEST_VA + offset);
	u64 base = (ulong)frame[1] & ~(size - 1);

	frame[1][0] = 0x42;
	set_pde(base | P | W | PS);
	expect("large page", *p, 0x42);
	*p = 0x43;
	expect("write through it", frame[1][0], 0x43);
	expect("D in the PDE", (pae ? pd64[1][0] : pd32[TEST_VA >> 22]) & (ACC | DIRTY), ACC | DIRTY);
	set_pde(base | P | PS);
	write_cr0(read_cr0() | CR0_WP);
	expect_fault("read-only", PF, 3, *p = 1);
	write_cr0(read_cr0() & ~CR0_WP);
	if (pae) {
		set_pde(base | P | W | PS | BIT(13));
		expect_fault("reserved bit 13", PF, 9, (void)*p);
	} else {
		set_pde(base | P | W | PS | BIT(21));
		expect_fault("reserved bit 21", PF, 9, (void)*p);
	}
	set_pde(table() | P | W | U);
}

static void pdptes(void)
{
	u64 old = pdpt[1];
	int maxphy = cpuid(0x80000000, 0).eax >= 0x80000008 ? cpuid(0x80000008, 0).eax & 0xff : 36;

	group("PDPTEs");
	set_pte(0, (ulong)frame[0] | P | W);
	(void)*(volatile u8 *)TEST_VA;
	/* SDM 3A 4.4.1: they are read when CR3 is loaded, not at each walk. */
	pdpt[1] = 0;
	invlpg((void *)TEST_VA);
	expect_ok("a change in memory is not seen before CR3 is loaded", (void)*(volatile u8 *)TEST_VA);
	flush();
	expect_fault("not present", PF, 0, (void)*(volatile u8 *)TEST_VA);
	pdpt[1] = old;
	flush();
	expect_ok("present", (void)*(volatile u8 *)TEST_VA);
	pdpt[1] = old | 2;
	expect_fault("reserved bit 1: CR3 refuses", GP, 0, flush());
	pdpt[1] = old | 4;
	expect_fault("reserved bit 2: CR3 refuses", GP, 0, flush());
	pdpt[1] = old | BIT(63);
	expect_fault("NX: CR3 refuses", GP, 0, flush());
	if (maxphy < 52) {
		pdpt[1] = old | BIT(maxphy);
		expect_fault("beyond MAXPHYADDR: CR3 refuses", GP, 0, flush());
	}
	pdpt[1] = old | 0xe00;
	expect_ok("ignored bits", flush());
	pdpt[1] = old;
	flush();
	expect_ok("and all is well", (void)*(volatile u8 *)TEST_VA);
}

static void nx_reserved(void)
{
	group("PAE reserved bits");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_NXE);
	set_pte(0, (ulong)frame[0] | P | W | BIT(63));
	flush();
	expect_fault("NX without NXE", PF, 9, (void)*(volatile u8 *)TEST_VA);
	set_pte(0, (ulong)frame[0] | P | W | BIT(62));
	expect_fault("bit 62", PF, 9, (void)*(volatile u8 *)TEST_VA);
	set_pte(0, (ulong)frame[0] | P | W);
	expect_ok("without", (void)*(volatile u8 *)TEST_VA);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
}

static void global(void)
{
	group("global pages");
	write_cr4(read_cr4() | CR4_PGE);
	frame[0][1] = 1;
	frame[1][1] = 2;
	set_pte(0, (ulong)frame[0] | P | W | 0x100);
	(void)*(volatile u8 *)(TEST_VA + 1);
	set_pte(0, (ulong)frame[1] | P | W | 0x100);
	expect("invlpg takes them too", *(volatile u8 *)(TEST_VA + 1), 2);
	if (pae)
		pt64[0] = (ulong)frame[0] | P | W;
	else
		pt32[0] = (ulong)frame[0] | P | W;
	write_cr4(read_cr4() & ~CR4_PGE);
	expect("CR4.PGE flushes", *(volatile u8 *)(TEST_VA + 1), 1);
}

static void no_paging(void)
{
	group("paging off");
	/* With the same registers and paging off, addresses are physical again. */
	frame[0][2] = 0x77;
	expect("identity", *(volatile u8 *)&frame[0][2], 0x77);
	write_cr4(read_cr4() & ~(CR4_PAE | CR4_PSE));
	write_cr3(0xfffff000);
	expect_ok("CR3 means nothing", (void)*(volatile u8 *)0x100000);
}

void guest_main(void)
{
	int round;

	build();
	paging_on(false);
	group("32-bit paging");
	permissions();
	bits();
	large();
	global();
	paging_off();
	paging_on(true);
	group("PAE paging");
	permissions();
	bits();
	large();
	pdptes();
	nx_reserved();
	global();
	paging_off();
	group("");
	sweep("from one kind to the other");
	for (round = 0; round < 30; round++) {
		paging_on(round & 1);
		set_pde(table() | P | W | U);
		set_pte(0, (ulong)frame[round >> 1 & 1] | P | W);
		flush();
		frame[round >> 1 & 1][9] = round;
		sweep_check(*(volatile u8 *)(TEST_VA + 9) == round, "round %d", round);
		paging_off();
	}
	sweep_end();
	no_paging();
}
