/*
 * The stack as a weapon: pushes, pops, calls, returns, ENTER and LEAVE at the edges of pages, at
 * odd addresses, over pages that are missing, read-only, devices, ROM, or code; with huge pages of
 * steps between; from kernel and user mode.
 */
#include "hostile.h"

#define PLACE	TEST_VA			/* two pages, then one that is not there */
#define CANARY	0xca9a57ca9a57ca9aul

static u8 *frames[2];

enum { PUSH, POP, PUSHF, POPF, CALL, RET, ENTER, LEAVE, PUSH16, POP16, PUSH_MEM, POP_MEM, NR_OPS };
static const char *const op_name[] = { "push", "pop", "pushf", "popf", "call", "ret", "enter", "leave",
	"push16", "pop16", "push mem", "pop mem" };

u64 scratch;

#define ON_STACK(body) \
	asm volatile("mov %%rsp, %%rbx; mov %%rbp, %%r12; mov %0, %%rsp; " body \
		"; 9: mov %%rsp, %%rdx; mov %%rbx, %%rsp; mov %%r12, %%rbp; mov %%rdx, %1" \
		:: "r"(sp), "m"(after), "a"(CANARY) \
		: "rbx", "rdx", "r12", "rcx", "rsi", "memory", "cc")

static ulong after;

static void one(unsigned op, ulong sp)
{
	switch (op) {
	case PUSH: ON_STACK("push %%rax"); break;
	case POP: ON_STACK("pop %%rcx"); break;
	case PUSHF: ON_STACK("pushf"); break;
	case POPF: ON_STACK("pop %%rcx; push $2; popf"); break;
	case CALL: ON_STACK("call 9f"); break;
	case RET: ON_STACK("lea 9f(%%rip), %%rcx; mov %%rcx, (%%rsp); ret"); break;
	case ENTER: ON_STACK("enter $0, $0"); break;
	case LEAVE: ON_STACK("mov %%rsp, %%rbp; leave"); break;
	case PUSH16: ON_STACK("push %%ax"); break;
	case POP16: ON_STACK("pop %%cx"); break;
	case PUSH_MEM: ON_STACK("pushq scratch(%%rip)"); break;
	case POP_MEM: ON_STACK("popq scratch(%%rip)"); break;
	}
}

static bool reads(unsigned op)
{
	return op == POP || op == RET || op == LEAVE || op == POP16 || op == POP_MEM || op == POPF;
}

static unsigned width(unsigned op)
{
	return op == PUSH16 || op == POP16 ? 2 : 8;
}

static void fill(void)
{
	unsigned n;

	for (n = 0; n < 512; n++)
		((u64 *)frames[0])[n] = ((u64 *)frames[1])[n] = 0x1111111111111111;
}

/* All of it lies in pages that are there. */
static void inside(void)
{
	unsigned op, off;

	for (op = 0; op < NR_OPS; op++) {
		sweep(op_name[op]);
		for (off = 0x1000 - 20; off < 0x1000 + 20; off++) {
			ulong sp = PLACE + off;
			int v = catch(one(op, sp));
			s64 want = reads(op) ? width(op) : -(s64)width(op);

			sweep_check(v == NONE, "at %x: %d", off, v);
			if (op == POPF || op == RET || op == CALL)
				continue;
			sweep_check((s64)(after - sp) == want, "at %x: moved by %lx", off, after - sp);
		}
		sweep_end();
	}
}

/* Over the end of what is there. */
static void beyond(void)
{
	unsigned op, off, n;
	ulong end = PLACE + 0x2000;

	for (op = 0; op < NR_OPS; op++) {
		sweep(op_name[op]);
		for (off = 1; off < 24; off++) {
			ulong sp = end - 12 + off;
			bool out = reads(op) ? sp + width(op) > end : sp > end;
			int v = catch(one(op, sp));

			sweep_check(v == (out ? PF : NONE), "at end - 12 + %u: %d", off, v);
			if (out && v == PF)
				sweep_check(fault.cr2 >= end && fault.cr2 < end + 24, "CR2 %lx",
					fault.cr2);
		}
		/* Below the first page. */
		for (n = 0; n < 8 && !reads(op); n++) {
			int v = catch(one(op, PLACE + n));

			sweep_check(v == (n >= width(op) ? NONE : PF), "below: %u: %d", n, v);
		}
		sweep_end();
	}
}

static void set_second(u64 entry)
{
	*page_entry(PLACE + 0x1000, 1) = entry;
	invlpg((void *)(PLACE + 0x1000));
}

/* The second page in turn is read-only, a device, ROM, nothing; each time memory comes back. */
static void kinds(void)
{
	static const struct {
		const char *name;
		u64 entry;
		int push, pop;
	} kind[] = {
		{ "read-only", PTE_P, PF, NONE },
		{ "a device", NOTHING_THERE | PTE_P | PTE_W, NONE, NONE },
		{ "ROM", ROM_SLOT | PTE_P | PTE_W, NONE, NONE },
		{ "nothing", 0, PF, PF },
	};
	unsigned n, k;

	for (k = 0; k < ARRAY_SIZE(kind); k++) {
		sweep(kind[k].name);
		for (n = 0; n < 40; n++) {
			ulong sp = PLACE + 0x1000 + 64 + n;
			u64 entry = kind[k].entry;
			int v;

			set_second((ulong)frames[1] | PTE_P | PTE_W);
			one(PUSH, sp);
			sweep_check(*(u64 *)(frames[1] + 56 + n) == CANARY, "memory");
			set_second(entry ? entry == PTE_P ? (ulong)frames[1] | PTE_P : entry : 0);
			*(u64 *)(frames[1] + 56 + n) = 0x5555;
			v = catch(one(PUSH, sp));
			sweep_check(v == kind[k].push, "push: %d", v);
			v = catch(one(POP, sp));
			sweep_check(v == kind[k].pop, "pop: %d", v);
			sweep_check(*(u64 *)(frames[1] + 56 + n) == 0x5555, "the old page is written");
			/* Over the border. */
			catch(one(PUSH, PLACE + 0x1004));
			catch(one(POP, PLACE + 0xffc));
			catch(one(CALL, PLACE + 0x1002));
		}
		sweep_end();
	}
	set_second((ulong)frames[1] | PTE_P | PTE_W);
}

/* Pushes over code that has run, and that runs again. */
static void over_code(void)
{
	unsigned n;

	sweep("pushes over code");
	for (n = 0; n < 200; n++) {
		ulong sp = PLACE + 0x808, v;

		put_return(frames[0] + 0x800, n);
		sweep_check(call_at(PLACE + 0x800) == n, "before");
		asm volatile("mov %%rsp, %%rbx; mov %1, %%rsp; push %2; mov %%rbx, %%rsp; call *%3"
			: "=a"(v) : "r"(sp), "r"(0xc300000000b8ul | (u64)(n + 7) << 8),
			  "r"(PLACE + 0x800) : "rbx", "rcx", "rdx", "rsi", "rdi", "memory", "cc");
		sweep_check(v == n + 7, "after: %lx", v);
	}
	sweep_end();
}

/* The call's own return address overwrites the code that called. */
static void call_over_itself(void)
{
	static const u8 code[] = { 0x48, 0x89, 0xe3, 0x48, 0x89, 0xfc, 0xe8, 0, 0, 0, 0, 0x48, 0x89, 0xdc,
		0xc3 };
	unsigned n;

	sweep("a call whose return address lands in its own code");
	for (n = 0; n < 60; n++) {
		memcpy(frames[0] + 0x400, code, sizeof(code));
		/* RDI: the stack's top: somewhere around the code. */
		catch(asm volatile("call *%0" :: "r"(PLACE + 0x400), "D"(PLACE + 0x3e0 + n)
			: "rbx", "rax", "rcx", "memory", "cc"));
		sweep_check(true, "survived");
	}
	sweep_end();
}

static void wild(void)
{
	static const ulong sps[] = { 0, 1, 8, 0x7fffffffffff, 0x800000000000, 0x800000000004,
		0xffff800000000000ul, 0xffff800000000004ul, ~0ul, ~7ul, 0x8000000000000000ul,
		0x200040000000ul, 0x200041000000ul };
	unsigned op, k;

	sweep("a stack anywhere");
	for (op = 0; op < NR_OPS; op++)
		for (k = 1; k < ARRAY_SIZE(sps); k++) {
			int v = sps[k] == 1 || sps[k] == 8 ? PF : catch(one(op, sps[k]));

			sweep_check(v == PF || v == SS || v == GP || sps[k] < 0x1000,
				"%s at %lx: %d", op_name[op], sps[k], v);
		}
	sweep_end();
	sweep("ENTER with all levels");
	for (k = 0; k < 32; k++)
		catch(asm volatile("mov %%rsp, %%rbx; mov %%rbp, %%r12; mov %0, %%rsp; mov %0, %%rbp;"
			".byte 0xc8, 0xff, 0xff, 31; mov %%rbx, %%rsp; mov %%r12, %%rbp"
			:: "r"(PLACE + 0x2000 - k * 17) : "rbx", "r12", "memory"));
	sweep_check(true, "survived");
	sweep_end();
}

USER_TEXT static ulong user_wild(ulong sp)
{
	asm volatile("mov %%rsp, %%rcx; mov %0, %%rsp; push %%rcx; mov %%rcx, %%rsp"
		:: "r"(sp) : "rcx", "memory");
	return 0;
}

static void from_user(void)
{
	unsigned n;

	sweep("user mode with the kernel's stack");
	for (n = 0; n < 50; n++) {
		one(PUSH, PLACE + 0x800);
		sweep_check(user_call(user_wild, PLACE + 0x800) == PF, "the page just used");
		sweep_check(user_call(user_wild, (ulong)trap_stack_top - 8) == PF, "the trap stack");
		sweep_check(user_call(user_wild, (ulong)user_stack_top - 512) == NONE, "its own");
	}
	sweep_end();
}

void guest_main(void)
{
	int v;

	for (v = 0; v < 32; v++)
		idt_set(v, SEL_KCODE, trap_stub(v), GATE_INT, 0, 1);
	write_cr0(read_cr0() | CR0_WP);
	frames[0] = page_alloc();
	frames[1] = page_alloc();
	page_map(PLACE, (ulong)frames[0], PTE_P | PTE_W);
	page_map(PLACE + 0x1000, (ulong)frames[1], PTE_P | PTE_W);
	fill();
	group("stack inside");
	inside();
	group("stack beyond");
	beyond();
	group("stack in");
	kinds();
	group("stack");
	over_code();
	call_over_itself();
	wild();
	from_user();
}
