/*
 * The tables that the processor reads by itself, in hostile places: IDT, GDT, LDT, TSS and page
 * tables that lie in devices, in ROM, nowhere, over the end of memory, in each other, at the
 * host's addresses; and faults while faults are delivered from there.
 */
#include "hostile.h"

#define PLACE	TEST_VA
#define NONE_AT	(TEST_VA + 0x40000000ul)

struct table { u16 limit; u64 base; } __attribute__((packed));

/* What a double fault finds is always whole, with a stack of its own. */
static void df_safe(void)
{
	idt_set(DF, SEL_KCODE, trap_stub(DF), GATE_INT, 0, 1);
}

static const ulong places[] = {
	NOTHING_THERE, ROM_SLOT, NONE_AT, 0x200040000000ul, 0xfee00000, ~0xffful, 0x7fffffffe000ul,
	0x800000000000ul, 0xffff800000000000ul, 0x8000000000000000ul,
};

/* Selectors loaded from an LDT that is somewhere else. */
static void descriptor_tables(void)
{
	unsigned k, n;
	int v;

	sweep("segments from an LDT anywhere");
	for (n = 0; n < 5; n++)
		for (k = 0; k < ARRAY_SIZE(places); k++) {
			gdt_set(SEL_FREE, (u64)0xffff | (places[k] & 0xffffff) << 16 | 0x82ull << 40 |
				(places[k] >> 24 & 0xff) << 56);
			gdt[SEL_FREE / 8 + 1] = places[k] >> 32;
			v = catch(asm volatile("lldt %w0" :: "r"(SEL_FREE)));
			sweep_check(v == NONE || v == GP, "lldt %lx: %d", places[k], v);
			v = catch(asm volatile("mov %w0, %%fs" :: "r"(4 | 8 * n)));
			sweep_check(v == NONE || v == GP || v == NP || v == PF || v == SS,
				"mov fs from the LDT at %lx: %d", places[k], v);
			catch(asm volatile("verr %w0; lar %w0, %%eax" :: "r"(4 | 8) : "cc", "eax"));
			asm volatile("mov %w0, %%fs; lldt %w0" :: "r"(0));
		}
	sweep_end();
}

/* An interrupt through a gate that is somewhere else. */
static void gates(void)
{
	struct table own, odd = { .limit = 0xfff, .base = PLACE + 0x800 };
	unsigned k, n;
	int v;

	asm volatile("sidt %0" : "=m"(own));
	/* The exceptions' gates are whole, those from 0x80 on are not. */
	memcpy((u8 *)idt + 0x800, idt, 0x800);
	sweep("an IDT whose upper gates lie in another page");
	for (n = 0; n < 10; n++)
		for (k = 0; k < ARRAY_SIZE(places); k++) {
			ulong at = places[k];
			u64 e = at == NONE_AT ? 0 : at < 0x100000000ul ? at | PTE_P | PTE_W : 0;

			page_map(PLACE, (ulong)idt, PTE_P | PTE_W);
			page_map(PLACE + 0x1000, e, e ? PTE_P | PTE_W : 0);
			asm volatile("lidt %0" :: "m"(odd));
			v = catch(asm volatile("int $0x90"));
			asm volatile("lidt %0" :: "m"(own));
			sweep_check(v != NONE, "%lx: %d", at, v);
		}
	sweep_end();
	for (k = 0; k < 256; k++)
		idt_default(k);
	df_safe();
}

/* Page tables in devices and ROM, and a table that is its own. */
static void page_tables(void)
{
	static const u64 homes[] = { NOTHING_THERE, ROM_SLOT, 0xfee00000, 0x7ffffff000, 0xffffffffff000,
		SPARE_SLOT, 0x1fff000, 0x2000000 };
	ulong at = TEST_VA + 0xc0000000ul;
	unsigned k, level, n;

	for (level = 2; level <= 4; level++) {
		/* PML4 and PDPT entries of their own, so that nothing else is lost. */
		ulong va = level == 4 ? 0x400000000000ul : level == 3 ? TEST_VA + 0x1000000000ul : at;
		u64 *e = page_entry(va, level);

		sweep("page tables anywhere");
		for (k = 0; k < ARRAY_SIZE(homes); k++)
			for (n = 0; n < 8; n++) {
				int v;

				*e = homes[k] | PTE_P | PTE_W | PTE_U | (n & 1 ? PTE_A : 0);
				tlb_flush();
				v = catch(load64(va + n * 0x1000));
				sweep_check(v == PF || v == NONE, "load: %d", v);
				v = catch(store64(va + n * 0x1000 + 8, 0));
				sweep_check(v == PF || v == NONE, "store: %d", v);
				v = catch(call_at(va + 0x800));
				sweep_check(v != DF, "call: %d", v);
			}
		*e = 0;
		tlb_flush();
		sweep_end();
	}
}

/* A table that maps itself: writes to pages are writes to entries. */
static void own_tables(void)
{
	u64 *pt = page_alloc();
	u8 *frames[2] = { page_alloc(), page_alloc() };
	ulong at = TEST_VA + 0x100000000ul;
	unsigned n;

	*page_entry(at, 2) = (ulong)pt | PTE_P | PTE_W;
	pt[0] = (ulong)pt | PTE_P | PTE_W;
	tlb_flush();
	*(u64 *)frames[0] = 0;
	*(u64 *)frames[1] = 1;
	sweep("a page table that maps itself");
	for (n = 0; n < 300; n++) {
		store64(at + 8, (ulong)frames[n & 1] | PTE_P | PTE_W);
		invlpg((void *)(at + 0x1000));
		sweep_check(load64(at + 0x1000) == (n & 1), "round %u", n);
	}
	sweep_end();
	*page_entry(at, 2) = 0;
	tlb_flush();
}

/* A fault whose handler's stack faults, whose handler is gone, ...: each ends as #DF. */
static void storms(void)
{
	static const ulong stacks[] = { NONE_AT, 0x8000000000000000ul, 0x800000000000ul, 0x200040000008ul,
		NOTHING_THERE - 8 };
	unsigned k, n, vector;

	sweep("faults inside faults");
	for (n = 0; n < 20; n++)
		for (k = 0; k < ARRAY_SIZE(stacks); k++)
			for (vector = 0; vector < 3; vector++) {
				static const int vectors[] = { PF, GP, UD };
				int v;

				tss.ist[1] = stacks[k] & ~15ul;
				idt_set(vectors[vector], SEL_KCODE, trap_stub(vectors[vector]),
					GATE_INT, 0, 2);
				if (vector == 0)
					v = catch(load64(NONE_AT));
				else if (vector == 1)
					v = catch(load64(1ul << 63));
				else
					v = catch(asm volatile("ud2"));
				sweep_check(v == DF || v == PF || v == SS || v == GP || k == 4,
					"stack %lx: %d", stacks[k], v);
				idt_default(vectors[vector]);
			}
	sweep_end();
}

/* The TSS: I/O bitmap and stacks over the end of their page. */
USER_TEXT static ulong user_in(ulong port)
{
	ulong v;

	asm volatile("inb %w1, %b0" : "=a"(v) : "d"(port));
	return v;
}

static void bitmap(void)
{
	unsigned n;

	sweep("the I/O bitmap");
	for (n = 0; n < 65536; n += 251) {
		tss.iomap = n;
		user_call(user_in, 0xffff - n);
		user_call(user_in, n);
		sweep_check(true, "survived");
	}
	tss.iomap = offsetof(struct tss, bitmap);
	sweep_end();
}

void guest_main(void)
{
	df_safe();
	group("tables");
	descriptor_tables();
	gates();
	page_tables();
	own_tables();
	storms();
	bitmap();
}
