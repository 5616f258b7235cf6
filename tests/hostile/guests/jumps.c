/*
 * Wild jumps: control goes to addresses of every kind, by every instruction that takes one. Each
 * must end in the architectural fault, or run what lies there.
 */
#include "hostile.h"

#define PLACE	TEST_VA
#define NONE_AT	(TEST_VA + 0x40000000ul)	/* not mapped */
#define NON_CANONICAL 0x0000900000000000ul

static u8 *frame;

static ulong target;

static void by_register(void)
{
	asm volatile("call *%0" :: "r"(target) : "memory", "rax", "cc");
}

static void by_memory(void)
{
	asm volatile("call *%0" :: "m"(target) : "memory", "rax", "cc");
}

static void by_jump(void)
{
	asm volatile("lea 1f(%%rip), %%rcx; push %%rcx; jmp *%0; 1:"
		:: "r"(target) : "memory", "rax", "rcx", "cc");
}

static void by_return(void)
{
	asm volatile("lea 1f(%%rip), %%rcx; push %%rcx; push %0; ret; 1:"
		:: "r"(target) : "memory", "rax", "rcx", "cc");
}

static void by_iret(void)
{
	asm volatile("lea 1f(%%rip), %%rcx; push %%rcx; mov %%rsp, %%rdx; mov %%ss, %%ecx;"
		"push %%rcx; push %%rdx; pushf; mov %%cs, %%ecx; push %%rcx; push %0; iretq; 1:"
		:: "r"(target) : "memory", "rax", "rcx", "rdx", "cc");
}

static void by_far_return(void)
{
	asm volatile("lea 1f(%%rip), %%rcx; push %%rcx; mov %%cs, %%ecx; push %%rcx; push %0; lretq; 1:"
		:: "r"(target) : "memory", "rax", "rcx", "cc");
}

static const struct way {
	const char *name;
	void (*go)(void);
} ways[] = {
	{ "call register", by_register }, { "call memory", by_memory }, { "jmp", by_jump },
	{ "ret", by_return }, { "iretq", by_iret }, { "lret", by_far_return },
};

static void to_faults(ulong at, int vector, const char *what)
{
	unsigned w, n;

	sweep(what);
	for (n = 0; n < 20; n++)
		for (w = 0; w < ARRAY_SIZE(ways); w++) {
			int v;

			target = at;
			v = catch(ways[w].go());
			sweep_check(v == vector, "%s: %d", ways[w].name, v);
			if (vector == PF && v == PF)
				sweep_check(fault.cr2 == at && fault.f.ip == at, "%s: CR2 %lx IP %lx",
					ways[w].name, fault.cr2, fault.f.ip);
		}
	sweep_end();
}

static void to_code(void)
{
	unsigned w, n, k;

	sweep("code that is there");
	for (k = 0; k < 200; k++)
		put_return(frame + k * 16, k);
	for (n = 0; n < 20; n++)
		for (k = 0; k < 200; k++)
			for (w = 0; w < ARRAY_SIZE(ways); w++) {
				int v;

				target = PLACE + k * 16;
				v = catch(ways[w].go());
				sweep_check(v == NONE, "%s: %d", ways[w].name, v);
			}
	sweep_end();
}

static void into_instructions(void)
{
	/* mov $0x04b0c3b0, %eax; ret: at 1 mov $0xc3, %al; mov $4, %al; ret ... */
	static const u8 code[] = { 0xb8, 0xb0, 0x05, 0xb0, 0x07, 0xc3, 0x90, 0xc3 };
	static const ulong want[] = { 0x07b005b0, 7, 0x07b0, 7 };
	unsigned n;

	memcpy(frame, code, sizeof(code));
	sweep("into the middle of instructions");
	for (n = 0; n < 300; n++) {
		ulong v;

		sweep_check((call_at(PLACE) & 0xffffffff) == want[0], "at 0");
		v = call_at(PLACE + 1);
		sweep_check((v & 0xff) == want[1], "at 1: %lx", v);
		v = call_at(PLACE + 3);
		sweep_check((v & 0xff) == want[3], "at 3: %lx", v);
		sweep_check(catch(call_at(PLACE + 5)) == NONE, "at 5");
	}
	sweep_end();
}

static void at_edges(void)
{
	ulong edge = PLACE + 0x1000;

	sweep("over the end of a page, with nothing behind it");
	frame[0xfff] = 0xb8;
	sweep_check(catch(call_at(edge - 1)) == PF && fault.cr2 == edge, "one byte: CR2 %lx",
		fault.cr2);
	frame[0xfff] = 0x90;
	sweep_check(catch(call_at(edge - 1)) == PF && fault.cr2 == edge && fault.f.ip == edge,
		"falls out: CR2 %lx", fault.cr2);
	frame[0xfff] = 0xc3;
	sweep_check(catch(call_at(edge - 1)) == NONE, "ret in the last byte");
	frame[0xffe] = 0xeb;	/* jmp +127: target in the page that is not there */
	frame[0xfff] = 0x7f;
	sweep_check(catch(call_at(edge - 2)) == PF && fault.cr2 == edge + 127, "CR2 %lx", fault.cr2);
	sweep_end();
}

/* The top of the address space: execution goes on at 0, which is mapped. */
static void at_top(void)
{
	ulong top = ~0xffful;

	asm volatile("rep stosb" : : "D"(0), "a"(0xc3), "c"(0x200) : "memory");
	page_map(top, (ulong)frame, PTE_P | PTE_W);
	frame[0xfff] = 0xc3;
	sweep("the last page of the address space");
	sweep_check(catch(call_at(~0ul)) == NONE, "ret in the last byte");
	put_return(frame + 0x100, 0x77);
	sweep_check(call_at(top + 0x100) == 0x77, "code");
	frame[0xffe] = 0xeb;
	frame[0xfff] = 0x7f;
	sweep_check(catch(call_at(~0ul - 1)) == NONE, "a jump over the top");
	frame[0xfff] = 0x90;
	sweep_check(catch(call_at(~0ul)) == NONE, "on to 0");
	sweep_end();
	page_map(top, 0, 0);
}

/* The lower half's last page: what follows is not canonical. */
static void at_middle(void)
{
	ulong last = 0x7ffffffff000;

	page_map(last, (ulong)frame, PTE_P | PTE_W);
	sweep("the last page of the lower half");
	frame[0xfff] = 0xc3;
	sweep_check(catch(call_at(last + 0xfff)) == NONE, "ret in the last byte");
	frame[0xfff] = 0x90;
	sweep_check(catch(call_at(last + 0xfff)) == GP, "falls out");
	frame[0xffe] = 0xeb;
	frame[0xfff] = 0x10;
	sweep_check(catch(call_at(last + 0xffe)) == GP, "jumps out");
	sweep_end();
	page_map(last, 0, 0);
}

/* Targets that a table of 4096 entries, or one with 32-bit tags, would take for one another. */
static void aliases(void)
{
	static const ulong apart[] = { 1ul << 12, 1ul << 13, 1ul << 16, 1ul << 20, 1ul << 24, 1ul << 28,
		1ul << 32, 1ul << 33, 1ul << 40 };
	u8 *other = page_alloc();
	unsigned n, k;

	put_return(frame + 0x40, 0xa);
	put_return(other + 0x40, 0xb);
	for (k = 0; k < ARRAY_SIZE(apart); k++) {
		page_map(PLACE + apart[k], (ulong)other, PTE_P | PTE_W);
		sweep("targets that look alike");
		for (n = 0; n < 100; n++) {
			sweep_check(call_at(PLACE + 0x40) == 0xa, "the first, 2^%d", k);
			sweep_check(call_at(PLACE + apart[k] + 0x40) == 0xb, "the other, 2^%d", k);
		}
		page_map(PLACE + apart[k], 0, 0);
		sweep_check(call_at(PLACE + 0x40) == 0xa, "the first alone");
		sweep_check(catch(call_at(PLACE + apart[k] + 0x40)) == PF, "the other is gone");
		sweep_end();
	}
}

/* ROM: the host has filled it with NOPs, a RET at the end of each page. Writes do nothing. */
static void in_rom(void)
{
	unsigned k;

	sweep("code in ROM");
	for (k = 0; k < 16; k++) {
		*(volatile u8 *)(ROM_SLOT + k * 0x1000 + 0x800) = 0xcc;
		sweep_check(catch(call_at(ROM_SLOT + k * 0x1000 + k * 8)) == NONE, "page %u", k);
	}
	sweep_end();
}

USER_TEXT static ulong user_jump(ulong to)
{
	asm volatile("jmp *%0" :: "r"(to) : "memory");
	return 0;
}

static void from_user(void)
{
	static const ulong to[] = { 0x100000, PLACE, NON_CANONICAL, NONE_AT, 0xfffffffffffff000,
		0x200040000000 };
	unsigned k, n;

	put_return(frame, 1);
	sweep("user mode cannot follow the kernel");
	for (n = 0; n < 50; n++)
		for (k = 0; k < ARRAY_SIZE(to); k++) {
			int want = to[k] == NON_CANONICAL ? GP : PF;

			call_at(PLACE);
			sweep_check(user_call(user_jump, to[k]) == want, "%lx", to[k]);
		}
	sweep_end();
}

void guest_main(void)
{
	frame = page_alloc();
	page_map(PLACE, (ulong)frame, PTE_P | PTE_W);
	page_map(PLACE + 0x1000, 0, 0);
	group("wild jumps");
	to_faults(~0ul, PF, "the last address of all");
	to_faults(0xffffffff00000000ul, PF, "zeros below");
	to_code();
	to_faults(NONE_AT, PF, "an address that is not mapped");
	to_faults(host_pointer(), PF, "an address of the host's");
	to_faults(0x7f0000000000ul, PF, "where programs' libraries lie");
	page_map(PLACE + 0x3000, (ulong)frame, PTE_P | PTE_NX);
	to_faults(PLACE + 0x3008, PF, "a page without execute right");
	to_faults(NON_CANONICAL, GP, "a non-canonical address");
	into_instructions();
	at_edges();
	at_top();
	to_faults(~0ul, PF, "the last address, not mapped any more");
	at_middle();
	aliases();
	in_rom();
	from_user();
}
