/* String instructions that run into page faults, and go on. SDM 2, REP; SDM 3A 6.15 (#PF). */
#include "paging.h"

/* Two pages at A and two at B; the second of each can be taken away. */
#define A	TEST_VA
#define B	(TEST_VA + 0x100000)
#define EDGE	0x1000ul

static u8 *frame[4];
static u32 faults;
static bool keep_away;		/* leave the page missing: the fault is caught */

static void present(ulong va, bool yes)
{
	*page_entry(va, 1) = yes ? *page_entry(va, 1) | PTE_P : *page_entry(va, 1) & ~PTE_P;
	invlpg((void *)va);
}

/* Registers as the fault saw them. */
static struct trap_frame seen;

static void page_in(struct trap_frame *f)
{
	faults++;
	seen = *f;
	present(read_cr2() & ~0xffful, true);
	if (faults > 20) {
		print("FAIL faults without end at %lx\n", f->ip);
		guest_exit(0x12);
	}
}

static void fill(u8 *p, u32 n, u32 seed)
{
	while (n--) {
		seed = seed * 1664525 + 1013904223;
		*p++ = seed >> 24;
	}
}

struct regs { ulong si, di, cx, ax; };

#define RUN(insn, r) asm volatile(insn : "+S"((r)->si), "+D"((r)->di), "+c"((r)->cx), "+a"((r)->ax) :: "memory", "cc")

/* movs and stos of each width, both directions, over a page that comes in on demand. */
#define MOVE(name, insn, width) \
static void move_##name(bool down) \
{ \
	struct regs r; \
	u32 n = 96 / width; \
	ulong first = EDGE - 48; \
	fill(frame[0], 4096, 1); fill(frame[1], 4096, 2); \
	memset(frame[2], 0, 4096); memset(frame[3], 0, 4096); \
	present(A + EDGE, true); present(B + EDGE, true); \
	present(down ? B : B + EDGE, false); \
	faults = 0; \
	r = (struct regs){ A + first + (down ? 96 - width : 0), B + first + (down ? 96 - width : 0), n, 0 }; \
	if (down) { RUN("std; " insn "; cld", &r); } else { RUN(insn, &r); } \
	sweep_check(faults == 1, #name " down %d: %u faults", down, faults); \
	sweep_check(!r.cx && r.di - (B + first) == (down ? -(ulong)width : 96) && \
		    r.si - (A + first) == (down ? -(ulong)width : 96), #name " down %d: registers", down); \
	sweep_check(!memcmp((void *)(A + first), (void *)(B + first), 96), #name " down %d: data", down); \
	sweep_check(seen.cx == n / 2 && seen.di == (down ? B + EDGE - width : B + EDGE), \
		    #name " down %d: at the fault CX %lx DI %lx", down, seen.cx, seen.di); \
}
MOVE(movsb, "rep movsb", 1)
MOVE(movsw, "rep movsw", 2)
MOVE(movsl, "rep movsl", 4)
MOVE(movsq, "rep movsq", 8)

#define STORE(name, insn, width) \
static void store_##name(bool down) \
{ \
	struct regs r; \
	u32 i, bad = 0; \
	ulong first = EDGE - 48; \
	memset(frame[2], 0, 4096); memset(frame[3], 0, 4096); \
	present(B, true); present(B + EDGE, true); \
	present(down ? B : B + EDGE, false); \
	faults = 0; \
	r = (struct regs){ 0, B + first + (down ? 96 - width : 0), 96 / width, 0x5a5a5a5a5a5a5a5aul }; \
	if (down) { RUN("std; " insn "; cld", &r); } else { RUN(insn, &r); } \
	for (i = 0; i < 96; i++) \
		bad += ((u8 *)B)[first + i] != 0x5a; \
	sweep_check(faults == 1 && !bad && !r.cx && !((u8 *)B)[first - 1] && !((u8 *)B)[first + 96], \
		    #name " down %d: %u faults, %u bytes wrong", down, faults, bad); \
}
STORE(stosb, "rep stosb", 1)
STORE(stosw, "rep stosw", 2)
STORE(stosl, "rep stosl", 4)
STORE(stosq, "rep stosq", 8)

static void moves(void)
{
	int down;

	sweep("rep movs and rep stos over a missing page");
	for (down = 0; down < 2; down++) {
		move_movsb(down);
		move_movsw(down);
		move_movsl(down);
		move_movsq(down);
		store_stosb(down);
		store_stosw(down);
		store_stosl(down);
		store_stosq(down);
	}
	sweep_end();
}

static void compares(void)
{
	struct regs r;
	ulong flags;

	group("compares");
	present(A + EDGE, true);
	present(B + EDGE, true);
	memset(frame[0], 7, 4096);
	memset(frame[1], 7, 4096);
	memset(frame[2], 7, 4096);
	memset(frame[3], 7, 4096);
	frame[3][20] = 9;
	present(B + EDGE, false);
	faults = 0;
	r = (struct regs){ A + EDGE - 10, B + EDGE - 10, 100, 0 };
	RUN("repe cmpsb; pushf; pop %%rax", &r);
	expect("repe cmpsb: one fault", faults, 1);
	expect("it stops at the difference", r.cx, 100 - 31);
	expect("flags of 7 against 9", r.ax & (FL_ZF | FL_CF | FL_SF), FL_CF | FL_SF);
	present(B + EDGE, false);
	faults = 0;
	r = (struct regs){ 0, B + EDGE - 10, 100, 9 };
	RUN("repne scasb", &r);
	expect("repne scasb: one fault", faults, 1);
	expect("it stops at the byte", r.di, B + EDGE + 21);
	present(A + EDGE, false);
	faults = 0;
	r = (struct regs){ A + EDGE - 3, 0, 3, 0 };
	RUN("rep lodsb", &r);
	expect("rep lodsb that just fits", faults, 0);
	expect("its byte", r.ax, 7);
	r = (struct regs){ A + EDGE - 4, 0, 4, 0 };
	RUN("rep lodsw", &r);
	expect("rep lodsw over the edge", faults, 1);
	/* A fault keeps the flags of the element before. */
	present(B + EDGE, false);
	keep_away = true;
	trap_handle(PF, NULL);
	r = (struct regs){ A + EDGE - 4, B + EDGE - 4, 8, 0 };
	expect_fault("repe cmpsb, page missing", PF, 0, RUN("repe cmpsb", &r));
	expect("CX at the fault", fault.f.cx, 4);
	expect("flags at the fault", fault.f.flags & (FL_ZF | FL_CF), FL_ZF);
	expect("RF in the saved flags", fault.f.flags & FL_RF, FL_RF);
	trap_handle(PF, page_in);
	keep_away = false;
	present(B + EDGE, true);
	flags = 0;
	r = (struct regs){ A, B, 0, 0x1234 };
	asm volatile("xor %%edx, %%edx; stc; repe cmpsb; pushf; pop %3" : "+S"(r.si), "+D"(r.di), "+c"(r.cx), "=r"(flags)
		     :: "rdx", "cc", "memory");
	expect("CX 0 leaves the flags", flags & (FL_CF | FL_ZF), FL_CF | FL_ZF);
	expect("and the pointers", r.si - A + r.di - B, 0);
}

static void overlaps(void)
{
	struct regs r;
	u32 i, bad = 0;

	group("overlaps");
	present(A + EDGE, true);
	((u8 *)A)[EDGE - 20] = 0x77;
	r = (struct regs){ A + EDGE - 20, A + EDGE - 19, 40, 0 };
	RUN("rep movsb", &r);
	for (i = 0; i < 41; i++)
		bad += ((u8 *)A)[EDGE - 20 + i] != 0x77;
	expect("movsb one ahead repeats the byte", bad, 0);
	fill((u8 *)A, 256, 3);
	memcpy((void *)B, (void *)A, 256);
	r = (struct regs){ A + 3, A, 100, 0 };
	RUN("rep movsb", &r);
	expect("movsb downwards in memory", memcmp((void *)A, (void *)(B + 3), 100), 0);
	fill((u8 *)A, 256, 4);
	memcpy((void *)B, (void *)A, 256);
	r = (struct regs){ A + 99, A + 102, 100, 0 };
	RUN("std; rep movsb; cld", &r);
	expect("movsb upwards, DF set", memcmp((void *)(A + 3), (void *)B, 100), 0);
	/* Qwords at distance 4: each sees half of the one before. */
	fill((u8 *)A, 64, 5);
	memcpy((void *)B, (void *)A, 64);
	for (i = 0; i < 4; i++) {
		volatile u64 v = *(u64 *)(B + i * 8);

		*(u64 *)(B + i * 8 + 4) = v;
	}
	r = (struct regs){ A, A + 4, 4, 0 };
	RUN("rep movsq", &r);
	expect("movsq at distance 4", memcmp((void *)A, (void *)B, 64), 0);
}

static void wrap(void)
{
	struct regs r;

	group("address size");
	/* 32-bit addresses in 64-bit code: registers are truncated, ECX counts. */
	memset((void *)0x500000, 0, 64);
	r = (struct regs){ 0, 0xffffffff00500000ul, 0xffffffff00000008ul, 0xab };
	RUN("addr32 rep stosb", &r);
	expect("addr32 stosb", *(u64 *)0x500000, 0xababababababababul);
	expect("EDI zero-extends", r.di, 0x500008);
	expect("ECX zero-extends", r.cx, 0);
	r = (struct regs){ 0, 0x500000, 0x100000000ul, 0xcd };
	RUN("addr32 rep stosb", &r);
	expect("ECX 0 stores nothing", *(u8 *)0x500000, 0xab);
}

static void string_io(void)
{
	struct regs r;
	u8 *p = (u8 *)A;

	group("ins and outs");
	/* The RTC's RAM cell 0x40 gives its byte as often as asked. */
	outb(0x70, 0x40);
	outb(0x71, 0x3c);
	outb(0x70, 0x40);
	memset(p, 0, 0x2000);
	present(A + EDGE, false);
	faults = 0;
	r = (struct regs){ 0, A + EDGE - 4, 8, 0 };
	asm volatile("rep insb" : "+D"(r.di), "+c"(r.cx) : "d"(0x71) : "memory");
	expect("rep insb over a missing page", faults, 1);
	expect("its bytes", *(u64 *)(p + EDGE - 4), 0x3c3c3c3c3c3c3c3cul);
	expect("its registers", r.di - A - EDGE + r.cx, 4);
	p[EDGE + 3] = 0x81;
	present(A + EDGE, false);
	faults = 0;
	r = (struct regs){ A + EDGE - 4, 0, 8, 0 };
	asm volatile("rep outsb" : "+S"(r.si), "+c"(r.cx) : "d"(0x71) : "memory");
	expect("rep outsb over a missing page", faults, 1);
	expect("the last byte arrived", inb(0x71), 0x81);
	present(A + EDGE, false);
	trap_handle(PF, NULL);
	r = (struct regs){ 0, A + EDGE - 2, 8, 0 };
	expect_fault("rep insb, page missing", PF, PF_W,
		asm volatile("rep insb" : "+D"(r.di), "+c"(r.cx) : "d"(0x71) : "memory"));
	expect("CX at the fault", fault.f.cx, 6);
	trap_handle(PF, page_in);
	present(A + EDGE, true);
	outb(0x70, 0x40);
	*(u16 *)p = 0;
	r = (struct regs){ 0, A, 1, 0 };
	asm volatile("rep insb" : "+D"(r.di), "+c"(r.cx) : "d"(0x71) : "memory");
	expect("one element", *(u16 *)p, 0x81);
}

static void read_only(void)
{
	struct regs r;

	group("read-only");
	write_cr0(read_cr0() | CR0_WP);
	present(B + EDGE, true);
	*page_entry(B + EDGE, 1) &= ~PTE_W;
	invlpg((void *)(B + EDGE));
	trap_handle(PF, NULL);
	memset(frame[2], 0, 4096);
	r = (struct regs){ 0, B + EDGE - 8, 4, -1ul };
	expect_fault("stosq into a read-only page", PF, PF_P | PF_W, RUN("rep stosq", &r));
	expect("one was stored", *(u64 *)(B + EDGE - 8), -1ul);
	expect("CX at the fault", fault.f.cx, 3);
	expect("DI at the fault", fault.f.di, B + EDGE);
	memset((void *)(B + EDGE - 8), 0, 8);
	r = (struct regs){ 0, B + EDGE - 4, 4, -1ul };
	expect_fault("stosq across the edge", PF, PF_P | PF_W, RUN("rep stosq", &r));
	expect("nothing was stored", *(u64 *)(B + EDGE - 8), 0);
	expect("CX of the crossing", fault.f.cx, 4);
	write_cr0(read_cr0() & ~CR0_WP);
}

void guest_main(void)
{
	int i;

	for (i = 0; i < 4; i++)
		frame[i] = page_alloc();
	page_map(A, (ulong)frame[0], PTE_P | PTE_W);
	page_map(A + EDGE, (ulong)frame[1], PTE_P | PTE_W);
	page_map(B, (ulong)frame[2], PTE_P | PTE_W);
	page_map(B + EDGE, (ulong)frame[3], PTE_P | PTE_W);
	trap_handle(PF, page_in);
	moves();
	compares();
	overlaps();
	wrap();
	string_io();
	read_only();
}
