/* 4-level paging: permissions, accessed and dirty bits, reserved bits, page sizes, invalidation. SDM 3A 4.5-4.10. */
#include "paging.h"

enum access { READ, WRITE, FETCH };

static u8 *frame;	/* physical (and identity) address of the page under test */

USER_TEXT static ulong user_read(ulong a) { return *(volatile u8 *)a; }
USER_TEXT static ulong user_write(ulong a) { *(volatile u8 *)a = 0xc3; return 0; }
USER_TEXT static ulong user_fetch(ulong a) { asm volatile("call *%0" :: "r"(a) : "memory"); return 0; }

static int access_user(enum access kind, ulong va)
{
	return user_call(kind == READ ? user_read : kind == WRITE ? user_write : user_fetch, va);
}

static int access_kernel(enum access kind, ulong va, bool ac)
{
	if (ac)
		write_flags(read_flags() | FL_AC);
	if (kind == READ)
		catch((void)*(volatile u8 *)va);
	else if (kind == WRITE)
		catch(*(volatile u8 *)va = 0xc3);
	else
		catch(asm volatile("call *%0" :: "r"(va) : "memory"));
	write_flags(read_flags() & ~FL_AC);
	return fault.vector;
}

/* What SDM 3A 4.6 says: NONE, or the error code. */
static int model(u64 rights, enum access kind, bool user, bool ac, ulong cr0, ulong cr4)
{
	bool ok = true;
	int error = PF_P | (kind == WRITE ? PF_W : 0) | (user ? PF_U : 0) | (kind == FETCH ? PF_I : 0);

	if (user && !(rights & PTE_U))
		ok = false;
	if (kind == WRITE && !(rights & PTE_W) && (user || cr0 & CR0_WP))
		ok = false;
	if (kind == FETCH && rights & PTE_NX)
		ok = false;
	if (!user && rights & PTE_U) {
		if (kind == FETCH && cr4 & CR4_SMEP)
			ok = false;
		if (kind != FETCH && cr4 & CR4_SMAP && !ac)
			ok = false;
	}
	return ok ? NONE : error;
}

static u64 rights_of(int bits)
{
	return (bits & 1 ? PTE_W : 0) | (bits & 2 ? PTE_U : 0) | (bits & 4 ? PTE_NX : 0);
}

static void permission_try(const int bits[4], ulong cr0, ulong cr4, bool smap)
{
	u64 all = PTE_W | PTE_U, nx = 0;
	int level, kind, user, ac;

	for (level = 1; level <= 4; level++) {
		u64 *e = page_entry(TEST_VA, level), r = rights_of(bits[level - 1]);

		*e = (*e & PTE_ADDR) | PTE_P | r;
		all &= r;
		nx |= r & PTE_NX;
	}
	tlb_flush();
	for (kind = READ; kind <= FETCH; kind++)
		for (user = 0; user < 2; user++)
			for (ac = 0; ac < (user || !smap ? 1 : 2); ac++) {
				int want = model(all | nx, kind, user, ac, cr0, cr4);
				int v = user ? access_user(kind, TEST_VA) : access_kernel(kind, TEST_VA, ac);

				if (want == NONE)
					sweep_check(v == NONE,
						"rights %x/%x/%x/%x kind %d user %d ac %d CR0 %lx CR4 %lx: %d(%lx)",
						bits[3], bits[2], bits[1], bits[0], kind, user, ac, cr0, cr4,
						v, fault.f.error);
				else
					sweep_check(v == PF && fault.f.error == (ulong)want && fault.cr2 == TEST_VA,
						"rights %x/%x/%x/%x kind %d user %d ac %d CR0 %lx CR4 %lx: %d(%lx) want PF(%x)",
						bits[3], bits[2], bits[1], bits[0], kind, user, ac, cr0, cr4,
						v, fault.f.error, want);
			}
}

static void permission_controls(ulong cr0, ulong cr4)
{
	int i, j, level, bits[4];
	bool smap = cr4 & CR4_SMAP;

	write_cr0(cr0);
	write_cr4(cr4);
	/* Leaf against page directory, then each upper level alone. */
	for (i = 0; i < 8; i++)
		for (j = 0; j < 8; j++) {
			bits[0] = i;
			bits[1] = j;
			bits[2] = bits[3] = 3;
			permission_try(bits, cr0, cr4, smap);
		}
	for (level = 2; level < 4; level++)
		for (i = 0; i < 8; i++) {
			bits[0] = bits[1] = bits[2] = bits[3] = 3;
			bits[level] = i;
			permission_try(bits, cr0, cr4, smap);
		}
}

static void permissions(void)
{
	struct cpuid c7 = cpuid(7, 0);
	ulong cr0 = read_cr0() & ~CR0_WP, cr4 = read_cr4();
	int wp;

	page_map(TEST_VA, (ulong)frame, PTE_P | PTE_W | PTE_U);
	for (wp = 0; wp < 2; wp++) {
		ulong c = cr0 | (wp ? CR0_WP : 0);

		sweep(wp ? "permissions with WP" : "permissions without WP");
		permission_controls(c, cr4);
		sweep_end();
		if (!(c7.ebx & BIT(7)) || !(c7.ebx & BIT(20))) {
			skip("SMEP and SMAP", "not in CPUID");
			continue;
		}
		sweep(wp ? "permissions with WP and SMEP" : "permissions with SMEP");
		permission_controls(c, cr4 | CR4_SMEP);
		sweep_end();
		sweep(wp ? "permissions with WP and SMAP" : "permissions with SMAP");
		permission_controls(c, cr4 | CR4_SMAP);
		sweep_end();
		sweep(wp ? "permissions with WP, SMEP and SMAP" : "permissions with SMEP and SMAP");
		permission_controls(c, cr4 | CR4_SMEP | CR4_SMAP);
		sweep_end();
	}
	write_cr4(cr4);
	write_cr0(cr0);
	*page_entry(TEST_VA, 4) |= PTE_U | PTE_W;
	*page_entry(TEST_VA, 4) &= ~PTE_NX;
	*page_entry(TEST_VA, 3) |= PTE_U | PTE_W;
	*page_entry(TEST_VA, 3) &= ~PTE_NX;
	*page_entry(TEST_VA, 2) |= PTE_U | PTE_W;
	*page_entry(TEST_VA, 2) &= ~PTE_NX;
	tlb_flush();
}

static void smap_instructions(void)
{
	ulong cr4 = read_cr4();

	group("SMAP");
	if (!(cpuid(7, 0).ebx & BIT(20))) {
		skip("stac and clac", "not in CPUID");
		return;
	}
	page_map(TEST_VA, (ulong)frame, PTE_P | PTE_W | PTE_U);
	write_cr4(cr4 | CR4_SMAP);
	expect_ok("read after stac", asm volatile("stac; movb (%0), %%al; clac" :: "r"(TEST_VA) : "eax"));
	expect_fault("read after clac", PF, PF_P,
		asm volatile("stac; clac; movb (%0), %%al" :: "r"(TEST_VA) : "eax"));
	write_flags(FL_AC);
	expect_fault("the saved flags keep AC", 0x44, 0, asm volatile("int $0x44"));
	expect("AC in the frame", fault.f.flags & FL_AC, FL_AC);
	write_flags(0);
	write_cr4(cr4);
	group("");
}

static void accessed_dirty(void)
{
	u64 *pte = page_entry(TEST_VA, 1), *pde = page_entry(TEST_VA, 2);
	volatile u32 *p = (u32 *)TEST_VA;

	group("A and D");
	page_map(TEST_VA, (ulong)frame, PTE_P | PTE_W);
	*pde &= ~PTE_A;
	tlb_flush();
	(void)*p;
	expect("after a read", *pte & (PTE_A | PTE_D), PTE_A);
	expect("upper level after a read", *pde & (PTE_A | PTE_D), PTE_A);
	*p = 0xc3;
	expect("after a write behind a read", *pte & (PTE_A | PTE_D), PTE_A | PTE_D);
	page_map(TEST_VA, (ulong)frame, PTE_P | PTE_W);
	*p = 0xc3;
	expect("after a write", *pte & (PTE_A | PTE_D), PTE_A | PTE_D);
	page_map(TEST_VA, (ulong)frame, PTE_P | PTE_W);
	asm volatile("lock addl $0, (%0)" :: "r"(p) : "memory");
	expect("after a locked add", *pte & (PTE_A | PTE_D), PTE_A | PTE_D);
	page_map(TEST_VA, (ulong)frame, PTE_P | PTE_W);
	asm volatile("lock cmpxchgl %%ecx, (%0)" :: "r"(p), "a"(1), "c"(2) : "memory", "cc");
	expect("after a compare that fails", *pte & PTE_D, PTE_D);
	page_map(TEST_VA, (ulong)frame, PTE_P);
	write_cr0(read_cr0() | CR0_WP);
	expect_fault("write to read-only", PF, PF_P | PF_W, *p = 1);
	expect("no D after a fault", *pte & PTE_D, 0);
	write_cr0(read_cr0() & ~CR0_WP);
	*p = 0xc3;
	expect("D through WP clear", *pte & PTE_D, PTE_D);
	page_map(TEST_VA, (ulong)frame, PTE_P | PTE_W | PTE_A | PTE_D);
	*pte &= ~(PTE_A | PTE_D);
	invlpg((void *)TEST_VA);
	asm volatile("call *%0" :: "r"(TEST_VA) : "memory");
	expect("after a fetch", *pte & (PTE_A | PTE_D), PTE_A);
	group("");
}

static int phys_bits(void)
{
	return cpuid(0x80000008, 0).eax & 0xff;
}

static void reserved_try(const char *name, ulong va, int level, u64 bit, u64 extra)
{
	u64 *e = page_entry(va, level), old = *e;

	*e = (old & ~PTE_NX) | bit | extra;
	tlb_flush();
	expect_fault(name, PF, PF_P | PF_RSVD, (void)*(volatile u8 *)va);
	expect_vector(name, access_user(WRITE, va), PF, PF_P | PF_RSVD | PF_U | PF_W);
	*e = old;
	tlb_flush();
}

static void reserved(void)
{
	int bits = phys_bits();
	ulong va = TEST_VA;

	group("reserved bits");
	page_map(va, (ulong)frame, PTE_P | PTE_W | PTE_U);
	if (bits < 52) {
		reserved_try("bit 51 of a PTE", va, 1, BIT(51), 0);
		reserved_try("lowest beyond MAXPHYADDR", va, 1, BIT(bits), 0);
		reserved_try("bit 51 of a PDE", va, 2, BIT(51), 0);
		reserved_try("bit 51 of a PDPTE", va, 3, BIT(51), 0);
		reserved_try("bit 51 of a PML4E", va, 4, BIT(51), 0);
	} else {
		skip("beyond MAXPHYADDR", "52 bits of physical address");
	}
	reserved_try("PS of a PML4E", va, 4, PTE_PS, 0);
	reserved_try("bit 13 of a 2 MiB page", va, 2, PTE_PS | BIT(13), 0);
	reserved_try("bit 20 of a 2 MiB page", va, 2, PTE_PS | BIT(20), 0);
	if (cpuid(0x80000001, 0).edx & BIT(26))
		reserved_try("bit 29 of a 1 GiB page", va, 3, PTE_PS | BIT(29), 0);
	else
		reserved_try("1 GiB page without support", va, 3, PTE_PS, 0);
	*page_entry(va, 1) |= PTE_NX;
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_NXE);
	tlb_flush();
	expect_fault("NX without EFER.NXE", PF, PF_P | PF_RSVD, (void)*(volatile u8 *)va);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	*page_entry(va, 1) &= ~PTE_NX;
	tlb_flush();
	expect_ok("all is well again", (void)*(volatile u8 *)va);
	group("");
}

static void sizes(void)
{
	ulong va = TEST_VA + (1ul << 34);
	u64 *pd = page_entry(va, 2), *pdpt = page_entry(va + (1ul << 30), 3);
	volatile u32 *low = (u32 *)(ulong)frame;

	group("page sizes");
	*low = 0x12345678;
	*pd = ((ulong)frame & ~0x1ffffful) | PTE_P | PTE_W | PTE_PS;
	expect("2 MiB page", *(volatile u32 *)(va + ((ulong)frame & 0x1fffff)), 0x12345678);
	expect("its A and D after a read", *pd & (PTE_A | PTE_D), PTE_A);
	*(volatile u32 *)(va + ((ulong)frame & 0x1fffff)) = 0x87654321;
	expect("write through it", *low, 0x87654321);
	expect("its D", *pd & PTE_D, PTE_D);
	*pd &= ~PTE_W;
	write_cr0(read_cr0() | CR0_WP);
	invlpg((void *)(va + 0x1000));		/* any address of the page */
	expect_fault("2 MiB page, read-only", PF, PF_P | PF_W, *(volatile u32 *)(va + 0x150000) = 1);
	write_cr0(read_cr0() & ~CR0_WP);
	if (cpuid(0x80000001, 0).edx & BIT(26)) {
		*pdpt = PTE_P | PTE_W | PTE_PS;
		expect("1 GiB page", *(volatile u32 *)(va + (1ul << 30) + (ulong)frame), 0x87654321);
		expect("its A", *pdpt & (PTE_A | PTE_D), PTE_A);
		*pdpt = 0;
		invlpg((void *)(va + (1ul << 30)));
		expect_fault("1 GiB page gone", PF, 0, (void)*(volatile u32 *)(va + (1ul << 30) + (ulong)frame));
	} else {
		skip("1 GiB page", "not in CPUID");
	}
	*pd = 0;
	tlb_flush();
	/* The PAT bit of a 2 MiB page is bit 12: not part of its address. */
	*pd = ((ulong)frame & ~0x1ffffful) | PTE_P | PTE_PS | BIT(12);
	expect("PAT bit of a 2 MiB page", *(volatile u32 *)(va + ((ulong)frame & 0x1fffff)), 0x87654321);
	*pd = 0;
	tlb_flush();
	*low = 0xc3;
	group("");
}

static u8 *other;

/* Points the page elsewhere; the named way of invalidating must make it seen. */
static u32 remap(u8 *to, u64 flags)
{
	*page_entry(TEST_VA, 1) = (ulong)to | PTE_P | PTE_W | flags;
	return 0;
}

static void invpcid(ulong type, u64 pcid, u64 va)
{
	struct { u64 pcid, va; } d = { pcid, va };

	asm volatile("invpcid %0, %1" :: "m"(d), "r"(type) : "memory");
}

#define SEEN(name, flags, how) do { \
	remap(frame, flags); tlb_flush(); invlpg((void *)TEST_VA); (void)*p; \
	remap(other, flags); how; \
	expect(name, *p, 0x99999999); } while (0)

static void invalidation(void)
{
	volatile u32 *p = (u32 *)TEST_VA;
	ulong cr4 = read_cr4(), cr0 = read_cr0();

	group("invalidation");
	*(u32 *)other = 0x99999999;
	SEEN("invlpg", 0, invlpg((void *)(TEST_VA + 0x123)));
	SEEN("mov to CR3", 0, tlb_flush());
	write_cr4(cr4 | CR4_PGE);
	SEEN("invlpg of a global page", PTE_G, invlpg((void *)TEST_VA));
	SEEN("CR4.PGE cleared", PTE_G, write_cr4(cr4));
	write_cr4(cr4 | CR4_PGE);
	SEEN("CR4.PGE cleared and set", PTE_G, (write_cr4(cr4), write_cr4(cr4 | CR4_PGE)));
	SEEN("mov to CR3 with PGE on, not global", 0, tlb_flush());
	write_cr4(cr4);
	remap(frame, 0);
	invlpg((void *)TEST_VA);
	*page_entry(TEST_VA, 1) = 0;
	invlpg((void *)TEST_VA);
	expect_fault("not present", PF, 0, (void)*p);
	remap(other, 0);
	expect("present again, without invlpg", *p, 0x99999999);
	write_cr0(cr0);
	group("");
}

static void pcid(void)
{
	volatile u32 *p = (u32 *)TEST_VA;
	ulong cr4 = read_cr4(), cr3 = read_cr3();
	bool has_invpcid = cpuid(7, 0).ebx & BIT(10);

	group("PCID");
	if (!(cpuid(1, 0).ecx & BIT(17))) {
		skip("all", "not in CPUID");
		return;
	}
	remap(frame, 0);
	write_cr3(cr3 | 8);		/* PCD: bit 3 */
	expect_fault("CR4.PCIDE with low bits of CR3 set", GP, 0, write_cr4(cr4 | CR4_PCIDE));
	write_cr3(cr3);
	expect_fault("bit 63 of CR3 without PCIDE", GP, 0, write_cr3(cr3 | BIT(63)));
	expect_ok("CR4.PCIDE", write_cr4(cr4 | CR4_PCIDE));
	write_cr3(cr3 | 5);
	expect("CR3 keeps the PCID", read_cr3(), cr3 | 5);
	write_cr3(cr3 | 6 | BIT(63));
	expect("bit 63 is not kept", read_cr3(), cr3 | 6);
	/* Entries of one PCID must not serve another whose tables differ. */
	{
		u64 *pml4 = page_alloc();

		memcpy(pml4, (void *)(cr3 & PTE_ADDR), 4096);
		pml4[TEST_VA >> 39 & 511] = 0;
		write_cr3(cr3 | 1);
		remap(other, 0);
		invlpg((void *)TEST_VA);
		expect("mapped in PCID 1", *p, 0x99999999);
		write_cr3((ulong)pml4 | 2);
		expect_fault("not mapped in PCID 2", PF, 0, (void)*p);
		write_cr3(cr3 | 1 | BIT(63));
		expect("mapped in PCID 1 again", *p, 0x99999999);
		write_cr3((ulong)pml4 | 2 | BIT(63));
		expect_fault("not mapped in PCID 2 again", PF, 0, (void)*p);
		write_cr3(cr3);
	}
	if (has_invpcid) {
		write_cr3(cr3 | 3);
		SEEN("INVPCID 0: one address", 0, invpcid(0, 3, TEST_VA));
		SEEN("INVPCID 1: one PCID", 0, invpcid(1, 3, 0));
		SEEN("INVPCID 2: all with global", PTE_G, invpcid(2, 0, 0));
		SEEN("INVPCID 3: all but global", 0, invpcid(3, 0, 0));
		/* Invalidated from afar, seen on return without a flush. */
		remap(frame, 0);
		invlpg((void *)TEST_VA);
		(void)*p;
		write_cr3(cr3 | 4);
		remap(other, 0);
		invpcid(1, 3, 0);
		write_cr3(cr3 | 3 | BIT(63));
		expect("INVPCID 1 of another PCID", *p, 0x99999999);
		expect_fault("INVPCID type 4", GP, 0, invpcid(4, 0, 0));
		expect_fault("INVPCID with reserved bits", GP, 0, invpcid(1, 0x1000, 0));
		expect_fault("INVPCID 0, non-canonical", GP, 0, invpcid(0, 0, 0x800000000000ul));
		write_cr3(cr3);
	} else {
		skip("INVPCID", "not in CPUID");
	}
	write_cr4(cr4);
	if (has_invpcid)
		expect_fault("INVPCID of a PCID without PCIDE", GP, 0, invpcid(1, 1, 0));
	group("");
}

static void crossing(void)
{
	u8 *second = page_alloc();
	volatile u64 *p = (u64 *)(TEST_VA + 0x1000 - 3);

	group("page crossing");
	memset(frame, 0x11, 4096);
	memset(second, 0x22, 4096);
	page_map(TEST_VA, (ulong)frame, PTE_P | PTE_W);
	page_map(TEST_VA + 0x1000, (ulong)second, PTE_P | PTE_W);
	expect("read over two frames", *p, 0x2222222222111111ul);
	*p = 0x8877665544332211ul;
	expect("write over two frames, low", *(u32 *)(frame + 4092) >> 8, 0x332211);
	expect("write over two frames, high", *(u64 *)second & 0xffffffffff, 0x8877665544);
	asm volatile("lock addq %1, %0" : "+m"(*p) : "r"(0x0101010101010101ul));
	expect("locked add over two frames", *p, 0x8978675645342312ul + 0);
	*page_entry(TEST_VA + 0x1000, 1) = 0;
	invlpg((void *)(TEST_VA + 0x1000));
	expect_fault("write into the missing half", PF, PF_W, *p = 0);
	expect("CR2 is the second page", fault.cr2, TEST_VA + 0x1000);
	expect("nothing of it was written", *(u32 *)(frame + 4092) >> 8, 0x342312);
	expect_fault("read of the missing half", PF, 0, (void)*p);
	expect("CR2 of the read", fault.cr2, TEST_VA + 0x1000);
	memset(frame, 0x90, 4096);
	frame[4095] = 0xb8;		/* mov imm32, %eax: its immediate lies in the next page */
	expect_fault("fetch of the missing half", PF, PF_I, asm volatile("call *%0" :: "r"(TEST_VA + 4090) : "eax"));
	expect("CR2 of the fetch", fault.cr2, TEST_VA + 0x1000);
	expect("RIP is the instruction's start", fault.f.ip, TEST_VA + 4095);
	page_map(TEST_VA + 0x1000, (ulong)second, PTE_P | PTE_W);
	memcpy(second, "\x78\x56\x34\x12\xc3", 5);
	{
		ulong v;

		asm volatile("call *%1" : "=a"(v) : "r"(TEST_VA + 4090) : "memory");
		expect("fetch over two frames", v, 0x12345678);
	}
	frame[0] = 0xc3;
	group("");
}

void guest_main(void)
{
	frame = page_alloc();
	other = page_alloc();
	frame[0] = 0xc3;
	permissions();
	smap_instructions();
	accessed_dirty();
	reserved();
	sizes();
	invalidation();
	pcid();
	crossing();
}
