/*
 * Loops of a known number of instructions, for instructions a second. Prints "begin NAME COUNT" and "end NAME", so
 * that the host's clock measures. Built with the tests' guest library.
 */
#include "guest.h"

/* Registers only: 10 instructions a round. */
static void integer(u32 rounds)
{
	asm volatile("1:	lea	3(%%rax, %%rbx), %%rdx\n"
		     "	xor	%%rdx, %%rax\n"
		     "	add	$7, %%rbx\n"
		     "	rol	$5, %%rax\n"
		     "	mov	%%rax, %%rsi\n"
		     "	shr	$3, %%rsi\n"
		     "	imul	%%rsi, %%rbx\n"
		     "	sub	%%rsi, %%rax\n"
		     "	dec	%%ecx\n"
		     "	jnz	1b"
		     : "+c"(rounds) :: "rax", "rbx", "rdx", "rsi", "cc");
}

static u32 table[4096];

/* Loads, stores, calls: 12 instructions a round. */
static void memory(u32 rounds)
{
	asm volatile("	xor	%%eax, %%eax\n"
		     "1:	mov	%%ecx, %%edx\n"
		     "	and	$4095, %%edx\n"
		     "	add	(%1, %%rdx, 4), %%eax\n"
		     "	mov	%%eax, (%1, %%rdx, 4)\n"
		     "	push	%%rax\n"
		     "	call	2f\n"
		     "	pop	%%rdx\n"
		     "	cmp	%%edx, %%eax\n"
		     "	dec	%%ecx\n"
		     "	jnz	1b\n"
		     "	jmp	3f\n"
		     "2:	inc	%%eax\n"
		     "	ret\n"
		     "3:" : "+c"(rounds) : "r"(table) : "rax", "rdx", "memory", "cc");
}

/* Branches that are hard to foresee: 6 instructions a round, 8 in the half of them that falls through. */
static u32 branches(u32 rounds)
{
	u32 odd = 0;

	asm volatile("	mov	$12345, %%eax\n"
		     "1:	imul	$1103515245, %%eax, %%eax\n"
		     "	add	$12345, %%eax\n"
		     "	test	$0x10000, %%eax\n"
		     "	jz	2f\n"
		     "	inc	%1\n"
		     "	xor	$0x55, %%eax\n"
		     "2:	dec	%%ecx\n"
		     "	jnz	1b" : "+c"(rounds), "+r"(odd) :: "rax", "cc");
	return odd;
}

void guest_main(void)
{
	u32 rounds = 20000000, odd;

	print("begin integer %u\n", rounds * 10);
	integer(rounds);
	print("end integer\n");
	rounds = 10000000;
	print("begin memory %u\n", rounds * 12);
	memory(rounds);
	print("end memory\n");
	rounds = 20000000;
	print("begin branches %u\n", rounds * 6 + rounds);
	odd = branches(rounds);
	print("end branches\n");
	check(odd > rounds / 3, "branches taken: %u", odd);
}
