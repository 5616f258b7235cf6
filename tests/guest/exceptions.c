/* Each exception with its error code and its saved instruction pointer. SDM 3A 6.15. */
#include "guest.h"

#ifdef __x86_64__
#define REG64	1
#define SP	"%rsp"
#else
#define REG64	0
#define SP	"%esp"
#endif

static void divide(void)
{
	group("#DE");
	expect_fault_at("div r8 by zero", DE, 0, asm volatile(AT("divb %b0") :: "q"(0), "a"(5)));
	expect_fault_at("div r16 by zero", DE, 0, asm volatile(AT("divw %w0") :: "r"(0), "a"(5), "d"(0)));
	expect_fault_at("div r32 by zero", DE, 0, asm volatile(AT("divl %k0") :: "r"(0), "a"(5), "d"(0)));
	expect_fault_at("div r32 overflow", DE, 0, asm volatile(AT("divl %k0") :: "r"(5), "a"(0), "d"(5)));
	expect_fault_at("idiv r8 overflow", DE, 0, asm volatile(AT("idivb %b0") :: "q"(1), "a"(0x80)));
	expect_fault_at("idiv r32 overflow", DE, 0,
			asm volatile(AT("idivl %k0") :: "r"(-1), "a"(0x80000000), "d"(-1)));
	expect_ok("div at the edge", asm volatile("divl %k0" :: "r"(5), "a"(-1), "d"(4)));
#if REG64
	expect_fault_at("div r64 by zero", DE, 0, asm volatile(AT("div %0") :: "r"(0ul), "a"(5), "d"(0)));
	expect_fault_at("div r64 overflow", DE, 0, asm volatile(AT("div %0") :: "r"(5ul), "a"(0), "d"(5)));
	expect_fault_at("idiv r64 overflow", DE, 0,
			asm volatile(AT("idiv %0") :: "r"(-1l), "a"(1ul << 63), "d"(-1l)));
#else
	expect_fault_at("aam 0", DE, 0, asm volatile(AT("aam $0") : : "a"(5)));
#endif
}

static void traps(void)
{
	group("traps");
	expect_fault_at("int3", BP, 0, asm volatile(AFTER("int3")));
	expect_fault_at("int $3", BP, 0, asm volatile(AFTER(".byte 0xcd, 3")));
	expect_fault_at("int1", DB, 0, asm volatile(AFTER(".byte 0xf1")));
	expect_fault_at("int $0x42", 0x42, 0, asm volatile(AFTER("int $0x42")));
#if !REG64
	expect_fault_at("into", OF, 0, asm volatile(AFTER("mov $0x7f, %%al; add $1, %%al; into") ::: "eax"));
	expect_ok("into without OF", asm volatile("xor %%eax, %%eax; into" ::: "eax"));
	{
		static s32 bounds[2] = { -5, 10 };

		expect_ok("bound inside", asm volatile("bound %0, %1" :: "r"(10), "m"(bounds)));
		expect_ok("bound at the lower edge", asm volatile("bound %0, %1" :: "r"(-5), "m"(bounds)));
		expect_fault_at("bound above", BR, 0, asm volatile(AT("bound %0, %1") :: "r"(11), "m"(bounds)));
		expect_fault_at("bound below", BR, 0, asm volatile(AT("bound %0, %1") :: "r"(-6), "m"(bounds)));
	}
#endif
}

static void undefined(void)
{
		group("#UD");
	expect_fault_at("ud2", UD, 0, asm volatile(AT("ud2")));
	expect_fault_at("ud1", UD, 0, asm volatile(AT(".byte 0x0f, 0xb9, 0xc0")));
	expect_fault_at("ud0", UD, 0, asm volatile(AT(".byte 0x0f, 0xff, 0xc0")));
	expect_fault_at("0f 04", UD, 0, asm volatile(AT(".byte 0x0f, 0x04")));
	expect_fault_at("lock nop", UD, 0, asm volatile(AT(".byte 0xf0, 0x90")));
	expect_fault_at("mov to CS", UD, 0, asm volatile(AT(".byte 0x8e, 0xc8") :: "a"(SEL_KDATA)));
	expect_fault_at("mov from CR1", UD, 0, asm volatile(AT(".byte 0x0f, 0x20, 0xc8") ::: "eax"));
	expect_fault_at("lea of a register", UD, 0, asm volatile(AT(".byte 0x8d, 0xc0")));
	expect_fault_at("grp5 /7", UD, 0, asm volatile(AT(".byte 0xff, 0xf8")));
	expect_fault_at("c6 /1", UD, 0, asm volatile(AT(".byte 0xc6, 0xc8, 0x00")));
	expect_fault_at("cmpxchg8b of a register", UD, 0, asm volatile(AT(".byte 0x0f, 0xc7, 0xc8")));
	expect_fault_at("lgdt of a register", UD, 0, asm volatile(AT(".byte 0x0f, 0x01, 0xd7")));
	expect_fault_at("rsm", UD, 0, asm volatile(AT("rsm")));
#if REG64
	expect_fault_at("push %es", UD, 0, asm volatile(AT(".byte 0x06")));
	expect_fault_at("aaa", UD, 0, asm volatile(AT(".byte 0x37")));
	expect_fault_at("salc", UD, 0, asm volatile(AT(".byte 0xd6")));
	expect_fault_at("pusha", UD, 0, asm volatile(AT(".byte 0x60")));
	expect_fault_at("into", UD, 0, asm volatile(AT(".byte 0xce")));
	expect_fault_at("82 /0", UD, 0, asm volatile(AT(".byte 0x82, 0xc0, 0x01")));
	expect_fault_at("far call immediate", UD, 0, asm volatile(AT(".byte 0x9a, 0, 0, 0, 0, 8, 0")));
	expect_fault_at("lds", UD, 0, asm volatile(AT(".byte 0xc5, 0xf8, 0xff")));
#else
	expect_fault_at("les of a register", UD, 0, asm volatile(AT(".byte 0xc4, 0xc0")));
	expect_fault_at("bound of a register", UD, 0, asm volatile(AT(".byte 0x62, 0xc0")));
#endif
	expect_fault_at("too long", GP, 0, asm volatile(
		AT(".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90")));
	expect_ok("15 bytes are fine", asm volatile(
		".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90"));
}

static void device_missing(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4();

	group("#NM");
	write_cr0((cr0 | CR0_TS) & ~CR0_MP & ~CR0_EM);
	expect_fault_at("x87 with TS", NM, 0, asm volatile(AT("fnop")));
	expect_fault_at("fninit with TS", NM, 0, asm volatile(AT("fninit")));
	expect_ok("wait with TS, MP clear", asm volatile("fwait"));
	write_cr4(cr4 | CR4_OSFXSR);
	expect_fault_at("SSE with TS", NM, 0, asm volatile(AT("xorps %xmm0, %xmm0")));
	expect_fault_at("MMX with TS", NM, 0, asm volatile(AT("pxor %mm0, %mm0")));
	write_cr0((cr0 | CR0_TS | CR0_MP) & ~CR0_EM);
	expect_fault_at("wait with TS and MP", NM, 0, asm volatile(AT("fwait")));
	write_cr0((cr0 | CR0_EM) & ~CR0_TS);
	expect_fault_at("x87 with EM", NM, 0, asm volatile(AT("fnop")));
	expect_fault_at("MMX with EM", UD, 0, asm volatile(AT("pxor %mm0, %mm0")));
	expect_fault_at("SSE with EM", UD, 0, asm volatile(AT("xorps %xmm0, %xmm0")));
	write_cr0((cr0 | CR0_TS) & ~CR0_EM);
	asm volatile("clts");
	expect("clts", read_cr0() & CR0_TS, 0);
	write_cr0(cr0 & ~CR0_EM & ~CR0_TS);
	write_cr4(cr4 & ~CR4_OSFXSR);
	expect_fault_at("SSE without OSFXSR", UD, 0, asm volatile(AT("xorps %xmm0, %xmm0")));
	expect_ok("MMX without OSFXSR", asm volatile("pxor %mm0, %mm0; emms"));
	write_cr0(cr0);
	write_cr4(cr4);
}

static void math(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4();
	static u16 cw = 0x37b;		/* divide by zero unmasked */
	static u32 mxcsr = 0x1f80 & ~(1u << 9), old = 0x1f80;
	static float one[4] __attribute__((aligned(16))) = { 1, 1, 1, 1 };

	group("#MF and #XM");
	write_cr0((cr0 | CR0_NE | CR0_MP) & ~CR0_EM & ~CR0_TS);
	expect_fault_at("fwait after 1/0", MF, 0,
		asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp;" AT("fwait") :: "m"(cw)));
	expect_fault_at("next x87 after 1/0", MF, 0,
		asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp; nop;" AT("fld1") :: "m"(cw)));
	expect_ok("no-wait instructions do not check",
		asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fnstsw %%ax; fnclex; fwait; fninit"
			     :: "m"(cw) : "eax"));
	expect_fault("unmasking a pending exception", MF, 0,
		asm volatile("fninit; fld1; fldz; fdivrp; fldcw %0; fwait" :: "m"(cw)));
	asm volatile("fninit");
	write_cr4(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT);
	asm volatile("ldmxcsr %0" :: "m"(mxcsr));
	expect_fault_at("divps by zero", XM, 0,
		asm volatile("movaps %0, %%xmm0; xorps %%xmm1, %%xmm1;" AT("divps %%xmm1, %%xmm0") :: "m"(one)));
	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	expect("MXCSR.ZE set by the fault", mxcsr & 0x3f, 4);
	write_cr4((cr4 | CR4_OSFXSR) & ~CR4_OSXMMEXCPT);
	expect_fault_at("divps by zero without OSXMMEXCPT", UD, 0,
		asm volatile("movaps %0, %%xmm0; xorps %%xmm1, %%xmm1;" AT("divps %%xmm1, %%xmm0") :: "m"(one)));
	asm volatile("ldmxcsr %0" :: "m"(old));
	mxcsr = 0x10000;
	expect_fault("ldmxcsr of a reserved bit", GP, 0, asm volatile("ldmxcsr %0" :: "m"(mxcsr)));
	expect_fault_at("movaps unaligned", GP, 0,
		asm volatile(AT("movaps 4(%0), %%xmm0") :: "r"(one)));
	write_cr0(cr0);
	write_cr4(cr4);
}

USER_TEXT static ulong user_unaligned(ulong arg)
{
	asm volatile("pushf; or" WORD_SUFFIX " $0x40000, (%" SP "); popf; movl 1(%0), %%eax" :: "r"(arg) : "eax");
	return 1;
}

USER_TEXT static ulong user_aligned(ulong arg)
{
	asm volatile("pushf; or" WORD_SUFFIX " $0x40000, (%" SP "); popf; movl 4(%0), %%eax;"
		     "movb 1(%0), %%al; movw 2(%0), %%ax; addl $4, 8(%0)" :: "r"(arg) : "eax");
	return 1;
}

static void alignment(void)
{
	ulong cr0 = read_cr0();
	extern u8 user_stack[];

	group("#AC");
	write_cr0(cr0 | CR0_AM);
	expect_vector("unaligned at CPL 3 with AM and AC", user_call(user_unaligned, (ulong)user_stack), AC, 0);
	expect_vector("aligned at CPL 3", user_call(user_aligned, (ulong)user_stack), NONE, 0);
	write_cr0(cr0 & ~CR0_AM);
	expect_vector("unaligned without AM", user_call(user_unaligned, (ulong)user_stack), NONE, 0);
	write_cr0(cr0 | CR0_AM);
	write_flags(read_flags() | FL_AC);
	expect_ok("unaligned at CPL 0", (void)*(volatile u32 *)(user_stack + 1));
	write_flags(read_flags() & ~FL_AC);
	write_cr0(cr0);
}

static void selectors(void)
{
	group("selectors");
	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0x13, 0xc));		/* not present data */
	gdt_set(SEL_FREE + 8, descriptor(0, 0xfffff, 0x89, 0));		/* a system segment */
	gdt_set(SEL_FREE + 16, descriptor(0, 0xfffff, 0x99, 0xc));	/* execute-only code */
	gdt_set(SEL_FREE + 24, descriptor(0, 0xfffff, 0x91, 0xc));	/* read-only data */
	expect_fault("not present into FS", NP, SEL_FREE, asm volatile("mov %0, %%fs" :: "r"(SEL_FREE)));
	expect_fault("not present into SS", SS, SEL_FREE, asm volatile("mov %0, %%ss" :: "r"(SEL_FREE)));
	expect_fault("system segment into DS", GP, SEL_FREE + 8, asm volatile("mov %0, %%ds" :: "r"(SEL_FREE + 8)));
	expect_fault("execute-only into ES", GP, SEL_FREE + 16, asm volatile("mov %0, %%es" :: "r"(SEL_FREE + 16)));
	expect_fault("read-only into SS", GP, SEL_FREE + 24, asm volatile("mov %0, %%ss" :: "r"(SEL_FREE + 24)));
	expect_fault("RPL 3 into SS", GP, SEL_KDATA, asm volatile("mov %0, %%ss" :: "r"(SEL_KDATA | 3)));
	expect_fault("behind the GDT", GP, 0x8000, asm volatile("mov %0, %%gs" :: "r"(0x8000)));
	asm volatile("lldt %w0" :: "r"(0));
	expect_fault("null LDT", GP, 0x04, asm volatile("mov %0, %%gs" :: "r"(0x04)));
	expect_ok("null into DS, ES, FS, GS", asm volatile("mov %0, %%fs; mov %0, %%gs" :: "r"(0)));
#if !REG64
	expect_fault("null into SS", GP, 0, asm volatile("mov %0, %%ss" :: "r"(0)));
	expect_fault("access through a null FS", GP, 0, asm volatile("mov %%fs:0x100000, %%eax" ::: "eax"));
#else
	expect_ok("null into SS at CPL 0", asm volatile("mov %0, %%ss; mov %1, %%ss" :: "r"(0), "r"(SEL_KDATA)));
	expect_ok("access through a null FS", asm volatile("mov %%fs:0x100000, %%eax" ::: "eax"));
#endif
	expect_fault("ltr of a data segment", GP, SEL_KDATA, asm volatile("ltr %w0" :: "r"(SEL_KDATA)));
	expect_fault("ltr of a busy TSS", GP, SEL_TSS, asm volatile("ltr %w0" :: "r"(SEL_TSS)));
	expect_fault("ltr of null", GP, 0, asm volatile("ltr %w0" :: "r"(0)));
	tss_load();
	expect_fault("lldt of a data segment", GP, SEL_KDATA, asm volatile("lldt %w0" :: "r"(SEL_KDATA)));
	expect_ok("lldt of null", asm volatile("lldt %w0" :: "r"(0)));
	gdt_set(SEL_FREE, 0);
	gdt_set(SEL_FREE + 8, 0);
}

static void gates(void)
{
	group("gates");
	idt_set(0x55, SEL_KCODE, trap_stub(0x55), GATE_INT, 0, 0);
	idt[REG64 ? 0x55 * 2 : 0x55] &= ~BIT(47);
	expect_fault_at("gate not present", NP, 0x55 * 8 + 2, asm volatile(AT("int $0x55")));
	idt_set(0x55, 0, trap_stub(0x55), GATE_INT, 0, 0);
	expect_fault("gate with a null selector", GP, 0, asm volatile("int $0x55"));
	idt_set(0x55, SEL_KDATA, trap_stub(0x55), GATE_INT, 0, 0);
	expect_fault("gate to a data segment", GP, SEL_KDATA, asm volatile("int $0x55"));
	idt_set(0x55, 0x7ff8, trap_stub(0x55), GATE_INT, 0, 0);
	expect_fault("gate behind the GDT", GP, 0x7ff8, asm volatile("int $0x55"));
	idt_set(0x55, SEL_KCODE, trap_stub(0x55), 9, 0, 0);
	expect_fault("gate of a wrong type", GP, 0x55 * 8 + 2, asm volatile("int $0x55"));
	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0x1b, REG64 ? 0xa : 0xc));
	idt_set(0x55, SEL_FREE, trap_stub(0x55), GATE_INT, 0, 0);
	expect_fault("gate to a code segment not present", NP, SEL_FREE, asm volatile("int $0x55"));
	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0xfb, REG64 ? 0xa : 0xc));
	expect_fault("gate to a less privileged segment", GP, SEL_FREE, asm volatile("int $0x55"));
	idt_default(0x55);
	idt_load(0x55 * (REG64 ? 16 : 8) - 1);
	expect_fault_at("vector behind the IDT limit", GP, 0x55 * 8 + 2, asm volatile(AT("int $0x55")));
	idt_load(256 * (REG64 ? 16 : 8) - 1);

	write_flags(FL_IF);
	expect_fault("through an interrupt gate", 0x55, 0, asm volatile("int $0x55"));
	check(fault.f.flags & FL_IF, "saved flags keep IF");
	cli();
}

static volatile ulong flags_seen;

static void see_flags(struct trap_frame *f)
{
	flags_seen = read_flags();
}

static void gate_flags(void)
{
	group("gate flags");
	trap_handle(0x56, see_flags);
	write_flags(FL_IF | FL_AC);
	asm volatile("int $0x56");
	expect("interrupt gate clears IF", flags_seen & FL_IF, 0);
	expect("IF is back after iret", read_flags() & FL_IF, FL_IF);
	idt_set(0x56, SEL_KCODE, trap_stub(0x56), GATE_TRAP, 0, 0);
	asm volatile("int $0x56");
	expect("trap gate keeps IF", flags_seen & FL_IF, FL_IF);
	expect("AC goes through a gate", flags_seen & FL_AC, FL_AC);
#if REG64
	write_flags(FL_NT);
	asm volatile("int $0x56");
	expect("NT cleared by a gate", flags_seen & FL_NT, 0);
#endif
	write_flags(0);
	trap_handle(0x56, NULL);
}

USER_TEXT static ulong user_int(ulong v)
{
	if (v == 0x57)
		asm volatile("int $0x57");
	else if (v == 3)
		asm volatile("int3");
	else if (v == 13)
		asm volatile("int $13");
	else if (v == 0xf1)
		asm volatile(".byte 0xf1");
	return 7;
}

static void from_user(void)
{
	group("from user");
	idt_set(0x57, SEL_KCODE, trap_stub(0x57), GATE_INT, 3, 0);
	expect_vector("int n through a DPL 3 gate", user_call(user_int, 0x57), 0x57, 0);
	expect("saved CS", fault.f.cs, SEL_UCODE);
	expect("saved SS", fault.f.ss, SEL_UDATA);
	check(fault.f.sp < (ulong)user_stack_top && fault.f.sp > (ulong)user_stack_top - 256, "saved SP");
	expect("stack switched to SP0", fault.frame_at + offsetof(struct trap_frame, ss) + sizeof(ulong),
	       (ulong)trap_stack_top);
	idt_set(0x57, SEL_KCODE, trap_stub(0x57), GATE_INT, 0, 0);
	expect_vector("int n through a DPL 0 gate", user_call(user_int, 0x57), GP, 0x57 * 8 + 2);
	idt_set(0x57, SEL_KCODE, trap_stub(0x57), GATE_INT, 2, 0);
	expect_vector("int n through a DPL 2 gate", user_call(user_int, 0x57), GP, 0x57 * 8 + 2);
	expect_vector("int $13 from user", user_call(user_int, 13), GP, 13 * 8 + 2);
	expect_vector("int3 through a DPL 3 gate", user_call(user_int, 3), BP, 0);
	idt_set(BP, SEL_KCODE, trap_stub(BP), GATE_INT, 0, 0);
	expect_vector("int3 through a DPL 0 gate", user_call(user_int, 3), GP, 3 * 8 + 2);
	idt_default(BP);
	expect_vector("int1 ignores DPL", user_call(user_int, 0xf1), DB, 0);
	expect_vector("a plain call", user_call(user_int, 0), NONE, 0);
	expect("its value", fault.f.ax, 7);
}

#define USER_INSN(name, ...) \
	USER_TEXT static ulong user_##name(ulong arg) { asm volatile(__VA_ARGS__); return 0; }
USER_INSN(hlt, "hlt")
USER_INSN(cli, "cli")
USER_INSN(sti, "sti")
USER_INSN(in, "inb $0x80, %%al" ::: "eax")
USER_INSN(out, "outb %%al, $0x80" ::: "eax")
USER_INSN(ins, "insb" ::: "memory")
USER_INSN(clts, "clts")
USER_INSN(invd, "invd")
USER_INSN(wbinvd, "wbinvd")
USER_INSN(rdmsr, "rdmsr" ::: "eax", "edx")
USER_INSN(wrmsr, "wrmsr")
USER_INSN(cr0, "mov %%cr0, %0" : "=r"(arg))
USER_INSN(cr8, "mov %%cr3, %0" : "=r"(arg))
USER_INSN(dr7, "mov %%dr7, %0" : "=r"(arg))
USER_INSN(lgdt, "lgdt (%0)" :: "r"(arg))
USER_INSN(lidt, "lidt (%0)" :: "r"(arg))
USER_INSN(lldt, "lldt %w0" :: "r"(0))
USER_INSN(ltr, "ltr %w0" :: "r"(SEL_TSS))
USER_INSN(lmsw, "lmsw %w0" :: "r"(1))
USER_INSN(invlpg, "invlpg (%0)" :: "r"(arg))
#if REG64
USER_INSN(swapgs, ".byte 0x0f, 0x01, 0xf8")
USER_INSN(sysret, "sysretl")
#else
/* In long mode vendors differ (APM 3 SYSEXIT): see syscalls.c. */
USER_INSN(sysexit, "sysexit")
#endif
USER_INSN(xsetbv, "xsetbv" :: "a"(1), "d"(0), "c"(0))
USER_INSN(rdpmc, "rdpmc" :: "c"(0) : "eax", "edx")

static void privileged(void)
{
	static const struct { const char *name; ulong (*fn)(ulong); } t[] = {
#define T(n) { #n, user_##n }
		T(hlt), T(cli), T(sti), T(in), T(out), T(ins), T(clts), T(invd), T(wbinvd), T(rdmsr), T(wrmsr),
		T(cr0), T(cr8), T(dr7), T(lgdt), T(lidt), T(lldt), T(ltr), T(lmsw), T(invlpg), T(rdpmc),
#if REG64
		T(swapgs), T(sysret),
#else
		T(sysexit),
#endif
	};
	unsigned i;

	sweep("privileged instructions at CPL 3 give #GP(0)");
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		int v = user_call(t[i].fn, 0);

		sweep_check(v == GP && !fault.f.error, "%s: %d(%lx)", t[i].name, v, fault.f.error);
	}
	sweep_end();
	expect_vector("xsetbv without OSXSAVE", user_call(user_xsetbv, 0), UD, 0);
}

static void io_permission(void)
{
	group("I/O permission");
	tss.bitmap[0x80 / 8] &= ~1;
	expect_vector("in from a port of the bitmap", user_call(user_in, 0), NONE, 0);
	expect_vector("out to a port of the bitmap", user_call(user_out, 0), NONE, 0);
	expect_vector("another port", user_call(user_ins, 0), GP, 0);
	tss.bitmap[0x80 / 8] |= 1;
	expect_vector("bit set again", user_call(user_in, 0), GP, 0);
}

static void double_fault(void)
{
	group("#DF");
	idt[REG64 ? GP * 2 : GP] &= ~BIT(47);
	expect_fault("#GP whose gate is not present", DF, 0, asm volatile("mov %0, %%fs" :: "r"(0x8000)));
	idt_default(GP);
	idt[REG64 ? UD * 2 : UD] &= ~BIT(47);
	expect_fault("#UD whose gate is not present is #NP", NP, UD * 8 + 2 + 1, asm volatile("ud2"));
	idt_default(UD);
	idt[REG64 ? DE * 2 : DE] &= ~BIT(47);
	expect_fault("#DE whose gate is not present", DF, 0, asm volatile("divl %0" :: "r"(0), "a"(0), "d"(0)));
	idt_default(DE);
	idt_load(DF * (REG64 ? 16 : 8) + (REG64 ? 15 : 7));
	expect_fault("#GP behind the IDT limit", DF, 0, asm volatile("mov %0, %%fs" :: "r"(0x8000)));
	idt_load(256 * (REG64 ? 16 : 8) - 1);
}

#if REG64
static void long_mode_only(void)
{
	volatile u64 *bad = (u64 *)0x800000000000ul, *top = (u64 *)0x7ffffffffffful;

	group("long mode");
	expect_fault_at("non-canonical read", GP, 0, asm volatile(AT("mov (%0), %%rax") :: "r"(bad) : "rax"));
	expect_fault_at("non-canonical write", GP, 0, asm volatile(AT("mov %%rax, (%0)") :: "r"(bad)));
	expect_fault("read that runs into the hole", GP, 0, asm volatile("mov (%0), %%rax" :: "r"(top) : "rax"));
	expect_fault_at("non-canonical through RBP is #SS", SS, 0,
		asm volatile("push %%rbp; mov %0, %%rbp;" AT("mov (%%rbp), %%rax") "pop %%rbp" :: "r"(bad) : "rax"));
	idt_set(SS, SEL_KCODE, trap_stub(SS), GATE_INT, 0, 1);
	idt_set(GP, SEL_KCODE, trap_stub(GP), GATE_INT, 0, 1);
	expect_fault("push on a non-canonical stack", SS, 0, asm volatile("mov %0, %%rsp; push %%rax" :: "r"(bad + 2)));
	idt_default(SS);
	idt_default(GP);
	expect_fault("jump to a non-canonical address", GP, 0, asm volatile("jmp *%0" :: "r"(bad)));
	expect_fault("not mapped, read", PF, 0, (void)*(volatile u8 *)0x4000000000ul);
	expect("CR2", fault.cr2, 0x4000000000ul);
	expect_fault("not mapped, write", PF, 2, *(volatile u8 *)0x4000000123ul = 1);
	expect("CR2 with offset", fault.cr2, 0x4000000123ul);
	expect_fault("not mapped, fetch", PF, 0x10, asm volatile("jmp *%0" :: "r"(0x4000000000ul)));

	idt_set(UD, SEL_KCODE, trap_stub(UD), GATE_INT, 0, 1);
	expect_fault_at("#UD through IST 1", UD, 0, asm volatile(AT("ud2")));
	expect("frame on the IST stack", fault.frame_at + offsetof(struct trap_frame, ss) + 8, (ulong)ist_stack_top);
	expect("SS in the frame without privilege change", fault.f.ss, SEL_KDATA);
	idt_default(UD);
	expect_fault("#UD on a misaligned stack", UD, 0, asm volatile("sub $5, %%rsp; ud2; add $5, %%rsp" ::: "memory"));
	expect("frame aligned to 16 bytes", (fault.frame_at + offsetof(struct trap_frame, ss) + 8) & 15, 0);

	idt[0x55 * 2 + 1] = 0x12345678;
	expect_fault_at("gate to a non-canonical address", GP, 0, asm volatile(AT("int $0x55")));
	idt_default(0x55);
}

static void page_double_fault(void)
{
	group("#DF");
	tss.ist[1] = 0x4000001000ul;
	idt_set(UD, SEL_KCODE, trap_stub(UD), GATE_INT, 0, 2);
	expect_fault("#UD on a stack not mapped is #PF", PF, 2, asm volatile("ud2"));
	idt_set(PF, SEL_KCODE, trap_stub(PF), GATE_INT, 0, 2);
	idt_set(DF, SEL_KCODE, trap_stub(DF), GATE_INT, 0, 1);
	expect_fault("#PF during #PF", DF, 0, (void)*(volatile u8 *)0x4000000000ul);
	expect("frame on the IST stack", fault.frame_at + offsetof(struct trap_frame, ss) + 8, (ulong)ist_stack_top);
	idt_default(PF);
	idt_set(GP, SEL_KCODE, trap_stub(GP), GATE_INT, 0, 2);
	expect_fault("#PF during #GP is #PF's turn: contributory then page fault", PF, 2,
		     asm volatile("mov %0, %%fs" :: "r"(0x8000)));
	idt_default(GP);
	idt_default(UD);
	idt_default(DF);
}
#endif

void guest_main(void)
{
	divide();
	traps();
	undefined();
	device_missing();
	math();
	alignment();
	selectors();
	gates();
	gate_flags();
	from_user();
	privileged();
	io_permission();
	double_fault();
#if REG64
	long_mode_only();
	page_double_fault();
#endif
}
