/* Self-modifying and cross-modifying code. SDM 3A 8.1.3, 11.6. */
#include "paging.h"

typedef ulong (*code)(void);

static u8 *page;

/* mov $v, %eax; ret */
static u32 put_mov(u8 *p, u32 v)
{
	p[0] = 0xb8;
	*(u32 *)(p + 1) = v;
	p[5] = 0xc3;
	return 6;
}

static ulong call(void *p)
{
	ulong v;

	asm volatile("call *%1" : "=a"(v) : "r"(p) : "memory", "rcx", "rdx", "rsi", "rdi", "cc");
	return v;
}

static void rewrite(void)
{
	u32 i;

	sweep("a function written anew and called");
	for (i = 0; i < 1000; i++) {
		put_mov(page, i);
		sweep_check(call(page) == i, "round %u", i);
	}
	sweep_end();
	sweep("one byte of its immediate written");
	for (i = 0; i < 256; i++) {
		page[1] = i;
		sweep_check((call(page) & 0xff) == i, "round %u", i);
	}
	sweep_end();
}

static void next_instruction(void)
{
	/* movb $0x42, 1f(%rip) ; mov $imm, %al - the store changes the very next instruction */
	static const u8 insn[] = { 0xc6, 0x05, 1, 0, 0, 0, 0x42, 0xb0, 0x11, 0x0f, 0xb6, 0xc0, 0xc3 };

	memcpy(page + 64, insn, sizeof(insn));
	expect("a store into the next instruction", call(page + 64), 0x42);
	memcpy(page + 64, insn, sizeof(insn));
	page[64 + 6] = 0x77;
	expect("again, with another value", call(page + 64), 0x77);
}

static void in_loop(void)
{
	/*
	 * xor %eax,%eax; mov $10,%ecx; 1: add $1,%eax (83 c0 01); incb -1(immediate); loop
	 * Each round adds one more than the last.
	 */
	static const u8 insn[] = {
		0x31, 0xc0,				/* xor %eax, %eax */
		0xb9, 10, 0, 0, 0,			/* mov $10, %ecx */
		0x83, 0xc0, 0x01,			/* 7: add $1, %eax */
		0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff,	/* incb 9(code): RIP 16 - 7 = 9 */
		0xff, 0xc9,				/* dec %ecx */
		0x75, 0xf3,				/* jnz 7 */
		0xc3,
	};

	memcpy(page + 128, insn, sizeof(insn));
	expect("a loop that changes its own immediate", call(page + 128), 55);
}

static void by_string(void)
{
	u8 source[6];
	ulong v;

	put_mov(source, 0x600d);
	put_mov(page + 256, 0xbad);
	call(page + 256);
	/* The copy and the call are in one run of code. */
	asm volatile("rep movsb; call *%%rbx" : "=a"(v) : "S"(source), "D"(page + 256), "c"(6), "b"(page + 256)
		     : "memory", "cc");
	expect("rep movsb over code", v, 0x600d);
	put_mov(page + 256, 0xbad);
	call(page + 256);
	put_mov(source, 0x7777);
	asm volatile("lock xchg %%rdx, (%%rbx); call *%%rbx" : "=a"(v) : "d"(*(u64 *)source), "b"(page + 256)
		     : "memory", "cc");
	expect("xchg over code", v & 0xffff, 0x7777);
}

static void across_pages(void)
{
	u8 *second = page_alloc(), *va = (u8 *)TEST_VA;

	page_map(TEST_VA, (ulong)page, PTE_P | PTE_W);
	page_map(TEST_VA + 0x1000, (ulong)second, PTE_P | PTE_W);
	put_mov(va + 0xffe, 0x11223344);
	expect("an instruction over two pages", call(va + 0xffe), 0x11223344);
	second[2] = 0x99;
	expect("its tail changed", call(va + 0xffe), 0x99223344);
	va[0xfff] = 0x55;
	expect("its head changed", call(va + 0xffe), 0x99223355);
	{
		u8 *third = page_alloc();

		memcpy(third, second, 4096);
		*(u32 *)(third - 0) = 0x00aabbcc;
		third[3] = 0xc3;
		put_mov(va + 0xffe, 0x01020304);
		call(va + 0xffe);
		memcpy(third, "\xaa\xbb\xcc\xc3", 4);
		page_map(TEST_VA + 0x1000, (ulong)third, PTE_P | PTE_W);
		expect("its second page mapped elsewhere", call(va + 0xffe), 0xccbbaa04);
	}
}

static void alias(void)
{
	u8 *va = (u8 *)(TEST_VA + 0x200000);

	page_map((ulong)va, (ulong)page, PTE_P | PTE_W);
	put_mov(page + 512, 1);
	expect("before", call(page + 512), 1);
	put_mov(va + 512, 2);
	expect("written through an alias", call(page + 512), 2);
	expect("called through the alias", call(va + 512), 2);
	put_mov(page + 512, 3);
	expect("written directly, called through the alias", call(va + 512), 3);
}

/* The page that own goes on in is at first, too; the same own at another address goes on in another page. */
static void two_ways_on(const char *what, u8 *va, u8 *own, u8 *a, u8 *b)
{
	ulong from = 0xff0;	/* where own's code begins */

	page_map((ulong)va, (ulong)a, PTE_P);
	page_map((ulong)va + 0x2000, (ulong)own, PTE_P);
	page_map((ulong)va + 0x3000, (ulong)a, PTE_P);
	page_map((ulong)va + 0x5000, (ulong)own, PTE_P);
	page_map((ulong)va + 0x6000, (ulong)b, PTE_P);
	sweep(what);
	for (u32 i = 0; i < 4; i++) {
		sweep_check(call(va + 16) == 0xa, "alone, round %u", i);
		sweep_check(call(va + 0x2000 + from) == 0xa, "the one, round %u", i);
		sweep_check(call(va + 0x5000 + from) == 0xb, "the other, round %u", i);
	}
	sweep_end();
}

/* Pages at several addresses, of which each time another follows. */
static void aliases_in_a_row(void)
{
	static const u8 tail_a[] = { 0x0a, 0, 0, 0, 0xc3 }, tail_b[] = { 0x0b, 0, 0, 0, 0xc3 };
	u8 *own = page_alloc(), *a = page_alloc(), *b = page_alloc();

	put_mov(a + 16, 0xa);
	memset(a, 0x90, 16);
	put_mov(b + 16, 0xb);
	memset(b, 0x90, 16);
	memset(own + 0xff0, 0x90, 16);
	two_ways_on("into the next page", (u8 *)(TEST_VA + 0x600000), own, a, b);
	/* jmp to mov $..., %eax, whose operand lies in the next page */
	own = page_alloc();
	a = page_alloc();
	b = page_alloc();
	put_mov(a + 16, 0xa);
	memcpy(a, tail_a, sizeof(tail_a));
	memcpy(b, tail_b, sizeof(tail_b));
	own[0xff0] = 0xeb;
	own[0xff1] = 0x0d;
	own[0xfff] = 0xb8;
	two_ways_on("across the next page", (u8 *)(TEST_VA + 0x610000), own, a, b);
}

static void remap(void)
{
	u8 *a = page_alloc(), *b = page_alloc(), *va = (u8 *)(TEST_VA + 0x400000);
	u32 i;

	put_mov(a, 0xa);
	put_mov(b, 0xb);
	page_map((ulong)va, (ulong)a, PTE_P);
	sweep("one address, two frames");
	for (i = 0; i < 100; i++) {
		*page_entry((ulong)va, 1) = (ulong)(i & 1 ? b : a) | PTE_P;
		invlpg(va);
		sweep_check(call(va) == (i & 1 ? 0xb : 0xa), "round %u", i);
	}
	sweep_end();
	*page_entry((ulong)va, 1) = 0;
	invlpg(va);
	expect_fault("and none", PF, 0x10, call(va));
	page_map((ulong)va, (ulong)a, PTE_P | PTE_NX);
	expect_fault("not executable", PF, 0x11, call(va));
	page_map((ulong)va, (ulong)a, PTE_P);
	expect("executable again", call(va), 0xa);
}

static void straight(void)
{
	/* A long run of one-byte instructions; its far end is rewritten from its beginning. */
	u8 *p = page + 1024;

	memset(p, 0x90, 600);
	/* movb $0xc3 (ret)... then it would return early: mov $0xc3, %al; mov %al, 300(p) */
	p[0] = 0xb0;
	p[1] = 0xc3;
	p[2] = 0x88;
	p[3] = 0x05;
	*(s32 *)(p + 4) = 300 - 8;
	p[500] = 0x0f;		/* ud2, never reached */
	p[501] = 0x0b;
	expect_ok("a store far ahead in the same block", call(p));
	p[300] = 0x90;
	p[2] = p[3] = p[4] = p[5] = p[6] = p[7] = 0x90;
	expect_fault("without the store", UD, 0, call(p));
}

static void many_pages(void)
{
	u8 *p[24];
	u32 i, round;

	for (i = 0; i < ARRAY_SIZE(p); i++)
		p[i] = page_alloc();
	sweep("code in many pages, each written each round");
	for (round = 0; round < 20; round++) {
		for (i = 0; i < ARRAY_SIZE(p); i++)
			put_mov(p[i] + round * 16, round * 100 + i);
		for (i = 0; i < ARRAY_SIZE(p); i++)
			sweep_check(call(p[i] + round * 16) == round * 100 + i, "round %u page %u", round, i);
	}
	sweep_end();
}

void guest_main(void)
{
	page = page_alloc();
	rewrite();
	next_instruction();
	in_loop();
	by_string();
	across_pages();
	alias();
	aliases_in_a_row();
	remap();
	straight();
	many_pages();
}
