/*
 * Stale translations: after each thing that says a mapping has changed, data accesses, the stack
 * and code must all see the new one; before it has been said, old or new, but nothing else.
 */
#include "hostile.h"

#define PLACE	TEST_VA
#define CODE_OFF 0x100
#define DATA_OFF 0x200
#define STACK_OFF 0xf00
#define ROUNDS	60

extern u64 boot_pml4[512];

static u8 *frames[2];
static ulong other_cr3;		/* tables that map PLACE to frames[1] */

static void frames_fill(void)
{
	unsigned k;

	for (k = 0; k < 2; k++) {
		put_return(frames[k] + CODE_OFF, 0xc0de + k);
		*(u64 *)(frames[k] + DATA_OFF) = 0xda7a + k;
	}
}

/* Pushes and pops with the stack in the page; the value comes back through memory only. */
static ulong stack_use(ulong top, ulong v)
{
	ulong out;

	asm volatile("mov %%rsp, %%rcx; mov %1, %%rsp; push %2; pop %0; mov %%rcx, %%rsp"
		: "=&r"(out) : "r"(top), "r"(v) : "rcx", "memory");
	return out;
}

/* What is at PLACE must be frame k. */
static void look(unsigned k, const char *after)
{
	ulong v = load64(PLACE + DATA_OFF), c = call_at(PLACE + CODE_OFF);

	sweep_check(v == 0xda7a + k, "%s: data %lx", after, v);
	sweep_check((c & 0xffffffff) == 0xc0de + k, "%s: code %lx", after, c);
	*(u64 *)(frames[0] + STACK_OFF - 8) = *(u64 *)(frames[1] + STACK_OFF - 8) = 0;
	sweep_check(stack_use(PLACE + STACK_OFF, 0x57ac) == 0x57ac, "%s: stack", after);
	sweep_check(*(u64 *)(frames[k] + STACK_OFF - 8) == 0x57ac, "%s: the stack is elsewhere", after);
	sweep_check(*(u64 *)(frames[!k] + STACK_OFF - 8) == 0, "%s: the old stack is written", after);
}

static void set_pte(unsigned k, u64 flags)
{
	*page_entry(PLACE, 1) = (ulong)frames[k] | flags;
}

static void by_invlpg(void)
{
	unsigned n;

	sweep("INVLPG");
	for (n = 0; n < ROUNDS; n++) {
		set_pte(n & 1, PTE_P | PTE_W);
		invlpg((void *)PLACE);
		look(n & 1, "invlpg");
	}
	sweep_end();
}

static void by_cr3(void)
{
	unsigned n;

	sweep("CR3");
	for (n = 0; n < ROUNDS; n++) {
		set_pte(n & 1, PTE_P | PTE_W);
		tlb_flush();
		look(n & 1, "cr3");
	}
	sweep_end();
}

/* Tables like ours but for one page. */
static void make_other(void)
{
	u64 *pml4 = page_alloc(), *pdpt = page_alloc(), *pd = page_alloc(), *pt = page_alloc();

	memcpy(pml4, boot_pml4, 4096);
	pml4[PLACE >> 39 & 511] = (ulong)pdpt | PTE_P | PTE_W;
	pdpt[PLACE >> 30 & 511] = (ulong)pd | PTE_P | PTE_W;
	pd[PLACE >> 21 & 511] = (ulong)pt | PTE_P | PTE_W;
	pt[PLACE >> 12 & 511] = (ulong)frames[1] | PTE_P | PTE_W;
	other_cr3 = (ulong)pml4;
}

static void by_switch(void)
{
	ulong own = read_cr3();
	unsigned n;

	set_pte(0, PTE_P | PTE_W);
	tlb_flush();
	sweep("another CR3 and back");
	for (n = 0; n < ROUNDS; n++) {
		look(0, "own");
		write_cr3(other_cr3);
		look(1, "other");
		write_cr3(own);
	}
	sweep_end();
}

/* The switch under a stack in the page, without anything between. */
static void under_stack(void)
{
	ulong own = read_cr3(), v, n;

	*(u64 *)(frames[0] + STACK_OFF - 8) = 0xaaaa;
	*(u64 *)(frames[1] + STACK_OFF - 8) = 0xbbbb;
	sweep("the stack's page changes between push and pop");
	for (n = 0; n < ROUNDS; n++) {
		asm volatile("mov %%rsp, %%rbx; mov %1, %%rsp; push %4; mov %2, %%cr3; sub $8, %%rsp;"
			"add $8, %%rsp; pop %0; mov %3, %%cr3; mov %%rbx, %%rsp"
			: "=&r"(v) : "r"(PLACE + STACK_OFF), "r"(other_cr3), "r"(own), "r"(n)
			: "rbx", "memory");
		sweep_check(v == 0xbbbb, "popped %lx", v);
		sweep_check(*(u64 *)(frames[0] + STACK_OFF - 8) == n, "pushed elsewhere");
	}
	sweep_end();
}

#define NOFLUSH	BIT(63)

static void by_pcid(void)
{
	ulong own = read_cr3() & ~0xffful;
	unsigned n, p;

	if (!(cpuid(1, 0).ecx & BIT(17))) {
		skip("PCID", "not there");
		return;
	}
	write_cr4(read_cr4() | CR4_PCIDE);
	sweep("PCIDs");
	set_pte(0, PTE_P | PTE_W);
	for (n = 0; n < ROUNDS; n++) {
		write_cr3(other_cr3 | 1);
		write_cr3(own | 2);
		look(0, "pcid 2");
		write_cr3(other_cr3 | 1 | NOFLUSH);
		look(1, "pcid 1, kept");
		write_cr3(own | 2 | NOFLUSH);
		look(0, "pcid 2, kept");
		/* The same PCID with other tables: all of it is dropped. */
		write_cr3(other_cr3 | 2);
		look(1, "pcid 2 reused");
		write_cr3(own | 2);
		look(0, "pcid 2 again");
	}
	/* More PCIDs than anyone keeps. */
	for (n = 0; n < 4; n++)
		for (p = 1; p < 100; p++) {
			write_cr3((p & 1 ? other_cr3 : own) | p | (n ? NOFLUSH : 0));
			look(p & 1, "many");
		}
	for (p = 1; p < 100; p++) {
		write_cr3((p & 1 ? own : other_cr3) | p);
		look(!(p & 1), "many, the other way");
	}
	sweep_end();
	write_cr3(own);
	write_cr4(read_cr4() & ~CR4_PCIDE);
}

static void invpcid(ulong type, ulong pcid, ulong la)
{
	struct { ulong pcid, la; } d = { pcid, la };

	asm volatile("invpcid %1, %0" :: "r"(type), "m"(d) : "memory");
}

static void by_invpcid(void)
{
	ulong own = read_cr3() & ~0xffful, type;
	unsigned n;

	if (!(cpuid(7, 0).ebx & BIT(10)) || !(cpuid(1, 0).ecx & BIT(17))) {
		skip("INVPCID", "not there");
		return;
	}
	write_cr4(read_cr4() | CR4_PCIDE);
	write_cr3(own | 3);
	sweep("INVPCID");
	for (n = 0; n < ROUNDS; n++)
		for (type = 0; type < 4; type++) {
			set_pte((n + type) & 1, PTE_P | PTE_W);
			invpcid(type, 3, PLACE);
			look((n + type) & 1, "this PCID");
			/* From another PCID, then back with what is kept. */
			write_cr3(other_cr3 | 4 | NOFLUSH);
			write_cr3(other_cr3 | 4);
			set_pte((n + type + 1) & 1, PTE_P | PTE_W);
			invpcid(type, 3, PLACE);
			look(1, "another PCID");
			write_cr3(own | 3 | NOFLUSH);
			look((n + type + 1) & 1, "back");
		}
	sweep_end();
	write_cr3(own);
	write_cr4(read_cr4() & ~CR4_PCIDE);
}

static void by_control_bits(void)
{
	unsigned n;

	sweep("CR4.PGE with global pages");
	write_cr4(read_cr4() | CR4_PGE);
	for (n = 0; n < ROUNDS; n++) {
		set_pte(n & 1, PTE_P | PTE_W | PTE_G);
		write_cr4(read_cr4() & ~CR4_PGE);
		write_cr4(read_cr4() | CR4_PGE);
		look(n & 1, "PGE");
	}
	write_cr4(read_cr4() & ~CR4_PGE);
	sweep_end();
	sweep("CR0.WP");
	set_pte(0, PTE_P);
	invlpg((void *)PLACE);
	for (n = 0; n < ROUNDS; n++) {
		write_cr0(read_cr0() & ~CR0_WP);
		sweep_check(catch(store64(PLACE + DATA_OFF, 0xda7a)) == NONE, "off");
		sweep_check(catch(stack_use(PLACE + STACK_OFF, 1)) == NONE, "off, stack");
		write_cr0(read_cr0() | CR0_WP);
		sweep_check(catch(store64(PLACE + DATA_OFF, 0xda7a)) == PF, "on");
		sweep_check(catch(stack_use(PLACE + STACK_OFF, 1)) == PF, "on, stack");
	}
	sweep_end();
	set_pte(0, PTE_P | PTE_W | PTE_NX);
	invlpg((void *)PLACE);
	sweep("EFER.NXE");
	for (n = 0; n < ROUNDS; n++) {
		sweep_check(catch(call_at(PLACE + CODE_OFF)) == PF, "no execution");
		*page_entry(PLACE, 1) &= ~PTE_NX;
		invlpg((void *)PLACE);
		sweep_check(catch(call_at(PLACE + CODE_OFF)) == NONE, "execution");
		*page_entry(PLACE, 1) |= PTE_NX;
		invlpg((void *)PLACE);
	}
	sweep_end();
}

/* Rights taken away, one after the other. */
static void by_rights(void)
{
	unsigned n;

	write_cr0(read_cr0() | CR0_WP);
	sweep("rights taken away");
	for (n = 0; n < ROUNDS; n++) {
		set_pte(0, PTE_P | PTE_W);
		invlpg((void *)PLACE);
		look(0, "all");
		set_pte(0, PTE_P);
		invlpg((void *)PLACE);
		sweep_check(catch(store64(PLACE + DATA_OFF, 1)) == PF, "a store");
		sweep_check(catch(stack_use(PLACE + STACK_OFF, 1)) == PF, "a push");
		*page_entry(PLACE, 1) = 0;
		invlpg((void *)PLACE);
		sweep_check(catch(load64(PLACE + DATA_OFF)) == PF, "a load");
		sweep_check(catch(call_at(PLACE + CODE_OFF)) == PF, "a call");
		sweep_check(catch(stack_use(PLACE + STACK_OFF, 1)) == PF, "a push into nothing");
	}
	sweep_end();
}

/* A large page becomes small ones, and one of those goes elsewhere. */
static void by_size(void)
{
	ulong big = TEST_VA + 0x40000000ul;
	u64 *pt = page_alloc(), *pde = page_entry(big, 2);
	unsigned n, k;

	sweep("a large page split");
	for (n = 0; n < 10; n++) {
		*pde = 0x1000000 | PTE_P | PTE_W | PTE_PS;
		tlb_flush();
		for (k = 0; k < 512; k++)
			store64(big + k * 0x1000, k);
		for (k = 0; k < 512; k++)
			pt[k] = (0x1000000 + (511 - k) * 0x1000) | PTE_P | PTE_W;
		*pde = (ulong)pt | PTE_P | PTE_W;
		invlpg((void *)(big + 0x5000));
		for (k = 0; k < 512; k++)
			sweep_check(load64(big + k * 0x1000) == 511 - k, "page %u", k);
	}
	sweep_end();
	*pde = 0;
	tlb_flush();
}

USER_TEXT static ulong user_touch(ulong at)
{
	return *(volatile ulong *)at;
}

USER_TEXT static ulong user_push(ulong at)
{
	asm volatile("mov %%rsp, %%rcx; mov %0, %%rsp; push %%rax; mov %%rcx, %%rsp"
		:: "r"(at) : "rcx", "memory");
	return 0;
}

/* The kernel's translations are not the user's, whatever was used last. */
static void by_privilege(void)
{
	unsigned n;

	set_pte(0, PTE_P | PTE_W);
	invlpg((void *)PLACE);
	sweep("privilege");
	for (n = 0; n < ROUNDS; n++) {
		look(0, "kernel");
		sweep_check(user_call(user_touch, PLACE + DATA_OFF) == PF, "user's load");
		look(0, "kernel");
		sweep_check(user_call(user_push, PLACE + STACK_OFF) == PF, "user's push");
	}
	sweep_end();
}

/* The slot behind the page goes, and another one comes. */
static void by_slot(void)
{
	ulong at = TEST_VA + 0x80000000ul;
	unsigned n;

	page_map(at, SPARE_SLOT + 0x3000, PTE_P | PTE_W);
	sweep("a slot deleted and made again");
	for (n = 0; n < ROUNDS; n++) {
		host_call(HOST_SLOT_DELETE, 0, 0, 0);
		sweep_check(load64(at) == ~0ul, "no memory: %lx", load64(at));
		store64(at, 1);
		host_call(HOST_SLOT_CREATE, n & 1, 0, 0);
		store64(at, 0x5107 + n);
		sweep_check(load64(at) == 0x5107 + n, "memory");
		put_return((void *)(at + 0x100), n);
		sweep_check(call_at(at + 0x100) == n, "code");
		sweep_check(stack_use(at + 0x800, n) == n, "stack");
	}
	sweep_end();
}

void guest_main(void)
{
	frames[0] = page_alloc();
	frames[1] = page_alloc();
	frames_fill();
	/* The stack may be what faults. */
	idt_set(PF, SEL_KCODE, trap_stub(PF), GATE_INT, 0, 1);
	page_map(PLACE, (ulong)frames[0], PTE_P | PTE_W);
	make_other();
	group("stale entries");
	by_invlpg();
	by_cr3();
	by_switch();
	under_stack();
	by_pcid();
	by_invpcid();
	by_control_bits();
	by_rights();
	by_size();
	by_privilege();
	by_slot();
}
