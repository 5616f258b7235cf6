/*
 * A second exception while one is delivered: which pairs are delivered one after the other, which
 * become #DF. SDM 3A 6.15 (#DF), table 6-5. The first comes from user mode, so that its handler's
 * stack (RSP0) can be made to fault; the second's handler and #DF's have stacks of their own (IST
 * 1).
 */
#include "guest.h"

/* How the first one's delivery fails. */
enum breakage {
	STACK_HOLE,	/* RSP0 in an unmapped page: #PF */
	STACK_BAD,	/* RSP0 not canonical: #SS(0) */
	GATE_ABSENT,	/* its gate is not present: #NP(gate) */
	GATE_CODE,	/* its gate leads to a data segment: #GP(selector) */
	NR_BREAKAGES,
};

#define HOLE	0x3fe00000ul	/* a 2 MiB page that the test unmaps */

/* No switch: its table would lie in supervisor memory. */
USER_TEXT static ulong user_fault(ulong vector)
{
	if (vector == DE)
		asm volatile("xor %%ecx, %%ecx; div %%ecx" ::: "eax", "ecx", "edx", "cc");
	if (vector == BP)
		asm volatile("int3");
	if (vector == UD)
		asm volatile("ud2");
	if (vector == NP)
		asm volatile("mov %0, %%fs" :: "r"(SEL_FREE | 3));
	if (vector == SS)
		asm volatile("mov %0, %%rbp; mov (%%rbp), %%eax" :: "r"(1ul << 63) : "rax", "rbp");
	if (vector == GP)
		asm volatile("mov %0, %%fs" :: "r"(0x7ffb));
	if (vector == PF)
		asm volatile("mov (%0), %%eax" :: "r"(HOLE) : "eax");
	if (vector == 0x40)
		asm volatile("int $0x40");
	return 0;
}

static bool contributory(int v)
{
	return v == DE || v == TS || v == NP || v == SS || v == GP;
}

static int combined(int first, int second)
{
	if (contributory(first) && contributory(second))
		return DF;
	if (first == PF && (contributory(second) || second == PF))
		return DF;
	return second;
}

static void break_delivery(int vector, enum breakage how)
{
	switch (how) {
	case STACK_HOLE:
		tss.rsp[0] = HOLE + 0x1000;
		break;
	case STACK_BAD:
		tss.rsp[0] = 1ul << 63;
		break;
	case GATE_ABSENT:
		idt[vector * 2] &= ~BIT(47);
		break;
	case GATE_CODE:
		idt_set(vector, SEL_KDATA, trap_stub(vector), GATE_INT, 3, 0);
		break;
	default:
		break;
	}
}

static void mend(void)
{
	int i;

	tss.rsp[0] = (ulong)trap_stack_top;
	for (i = 0; i < 256; i++)
		idt_default(i);
}

static void pair(int first, enum breakage how)
{
	static const int second_of[NR_BREAKAGES] = { PF, SS, NP, GP };
	int second = second_of[how], want = combined(first, second), got;
	/* Software interrupts are inside the program: no EXT. SDM 3A 6.13 */
	ulong ext = first != BP && first != 0x40;
	ulong error = 0;

	mend();
	if (how == GATE_ABSENT)
		error = first * 8 + 2 + ext;
	else if (how == GATE_CODE)
		error = SEL_KDATA + ext;
	else if (how == STACK_BAD)
		error = ext;
	else
		error = 2;		/* a supervisor's write */
	if (want == DF)
		error = 0;
	idt_set(first, SEL_KCODE, trap_stub(first), GATE_INT, 3, 0);
	idt_set(DF, SEL_KCODE, trap_stub(DF), GATE_INT, 0, 1);
	/* A first of the same vector as the second must not use the second's good stack. */
	if (second != first)
		idt_set(second, SEL_KCODE, trap_stub(second), GATE_INT, 0, 1);
	break_delivery(first, how);
	got = user_call(user_fault, first);
	sweep_check(got == want && fault.f.error == error, "%d, then %d: %d(%lx), want %d(%lx)",
		first, second, got,
		    fault.f.error, want, error);
	sweep_check(fault.f.cs == SEL_UCODE, "%d, then %d: CS %lx", first, second, fault.f.cs);
	if (want == PF)
		sweep_check(fault.cr2 == HOLE + 0x1000 - 8, "%d, then %d: CR2 %lx", first,
		second, fault.cr2);
	mend();
}

void guest_main(void)
{
	static const int firsts[] = { DE, BP, UD, NP, SS, GP, PF, 0x40 };
	extern u64 boot_pd[];
	unsigned i;
	enum breakage how;

	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0x73, 0xc));
	boot_pd[HOLE >> 21] = 0;
	write_cr3(read_cr3());
	group("nested exceptions");
	for (how = 0; how < NR_BREAKAGES; how++) {
		static const char *const name[] = { "no stack page", "stack not canonical",
			"gate not present",
			"gate to data" };

		sweep(name[how]);
		for (i = 0; i < ARRAY_SIZE(firsts); i++)
			pair(firsts[i], how);
		sweep_end();
	}
}
