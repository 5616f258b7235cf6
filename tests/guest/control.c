/* CR0, CR4, EFER and their forbidden combinations; UMIP; leaving long mode and coming back. SDM 3A 2.5, 4.1, 9.8.5. */
#include "paging.h"

static void cr0(void)
{
	ulong v = read_cr0();

	group("CR0");
	expect_fault("PG cleared in 64-bit mode", GP, 0, write_cr0(v & ~CR0_PG));
	expect_fault("PE cleared under PG", GP, 0, write_cr0(v & ~CR0_PE));
	expect_fault("NW without CD", GP, 0, write_cr0((v & ~CR0_CD) | CR0_NW));
	expect_fault("a bit above 31", GP, 0, write_cr0(v | BIT(32)));
	expect_ok("CD and NW", write_cr0(v | CR0_CD | CR0_NW));
	expect_ok("back", write_cr0(v));
	expect("ET is fixed", (write_cr0(v & ~BIT(4)), read_cr0() & BIT(4)), BIT(4));
	write_cr0(v);
	asm volatile("lmsw %w0" :: "r"((u32)(v | 8)));
	expect("lmsw sets TS", read_cr0() & CR0_TS, CR0_TS);
	asm volatile("lmsw %w0" :: "r"((u32)v & ~9));
	expect("lmsw clears TS, not PE", read_cr0() & 9, 1);
	{
		ulong w = 0;

		asm volatile("smsw %0" : "=r"(w));
		expect("smsw of 64 bits", w & 0xffffffff, read_cr0());
	}
	write_cr0(v);
}

static void cr4(void)
{
	struct cpuid c1 = cpuid(1, 0), c7 = cpuid(7, 0);
	ulong v = read_cr4();
	struct { const char *name; int bit; bool there; } t[] = {
		{ "PCIDE", 17, c1.ecx >> 17 & 1 }, { "FSGSBASE", 16, c7.ebx & 1 }, { "SMEP", 20, c7.ebx >> 7 & 1 },
		{ "SMAP", 21, c7.ebx >> 20 & 1 }, { "UMIP", 11, c7.ecx >> 2 & 1 }, { "OSXSAVE", 18, c1.ecx >> 26 & 1 },
		{ "PGE", 7, c1.edx >> 13 & 1 }, { "DE", 3, c1.edx >> 2 & 1 }, { "TSD", 2, c1.edx >> 4 & 1 },
		{ "PKE", 22, c7.ecx >> 3 & 1 }, { "VMXE", 13, c1.ecx >> 5 & 1 }, { "SMXE", 14, c1.ecx >> 6 & 1 },
		{ "LA57", 12, false }, { "bit 15", 15, false }, { "bit 19", 19, false }, { "bit 32", 32, false },
	};
	unsigned i;

	group("CR4");
	sweep("each bit exists as CPUID says");
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		int got = catch(write_cr4(v | BIT(t[i].bit)));

		/* LA57 cannot change while paging is on, whatever CPUID says. */
		sweep_check(got == (t[i].there ? NONE : GP), "%s: %d", t[i].name, got);
		write_cr4(v);
	}
	sweep_end();
	expect_fault("PAE cleared in long mode", GP, 0, write_cr4(v & ~CR4_PAE));
}

static void efer(void)
{
	u64 v = rdmsr(MSR_EFER);

	group("EFER");
	expect("LMA follows", v & EFER_LMA, EFER_LMA);
	expect_fault("LME cleared under paging", GP, 0, wrmsr(MSR_EFER, v & ~EFER_LME));
	expect_fault("reserved bits", GP, 0, wrmsr(MSR_EFER, v | BIT(1)));
	expect_fault("high bits", GP, 0, wrmsr(MSR_EFER, v | BIT(32)));
	expect_ok("LMA is not written", wrmsr(MSR_EFER, v & ~EFER_LMA));
	expect("and stays", rdmsr(MSR_EFER), v);
}

static void cr3(void)
{
	int bits = cpuid(0x80000008, 0).eax & 0xff;

	group("CR3");
	if (bits < 52)
		expect_fault("beyond MAXPHYADDR", GP, 0, write_cr3(read_cr3() | BIT(bits)));
	expect_ok("PWT and PCD", write_cr3(read_cr3() | 0x18));
	expect("are kept", read_cr3() & 0xfff, 0x18);
	write_cr3(read_cr3() & ~0xffful);
}

#define USER_INSN(name, ...) \
	USER_TEXT static ulong user_##name(ulong arg) { asm volatile(__VA_ARGS__); return 0; }
USER_INSN(sgdt, "sgdt (%0)" :: "r"(arg) : "memory")
USER_INSN(sidt, "sidt (%0)" :: "r"(arg) : "memory")
USER_INSN(sldt, "sldt %%eax" ::: "eax")
USER_INSN(str, "str %%eax" ::: "eax")
USER_INSN(smsw, "smsw %%eax" ::: "eax")

static void umip(void)
{
	static const struct { const char *name; ulong (*fn)(ulong); } t[] = {
		{ "sgdt", user_sgdt }, { "sidt", user_sidt }, { "sldt", user_sldt }, { "str", user_str },
		{ "smsw", user_smsw } };
	ulong room = (ulong)user_stack_top - 32;
	unsigned i;

	group("UMIP");
	sweep("off: allowed at CPL 3");
	for (i = 0; i < ARRAY_SIZE(t); i++)
		sweep_check(user_call(t[i].fn, room) == NONE, "%s: %d", t[i].name, fault.vector);
	sweep_end();
	if (!(cpuid(7, 0).ecx & BIT(2))) {
		skip("on", "not in CPUID");
		return;
	}
	write_cr4(read_cr4() | CR4_UMIP);
	sweep("on: #GP(0) at CPL 3");
	for (i = 0; i < ARRAY_SIZE(t); i++)
		sweep_check(user_call(t[i].fn, room) == GP && !fault.f.error, "%s: %d(%lx)", t[i].name, fault.vector,
			    fault.f.error);
	sweep_end();
	expect_ok("on: allowed at CPL 0", asm volatile("smsw %%eax; str %%eax" ::: "eax"));
	write_cr4(read_cr4() & ~CR4_UMIP);
}

USER_INSN(fsbase, "rdfsbase %%rax; wrgsbase %%rax" ::: "rax")

static void fsgsbase(void)
{
	ulong v;

	group("FSGSBASE");
	if (!(cpuid(7, 0).ebx & 1)) {
		skip("all", "not in CPUID");
		return;
	}
	expect_fault("without CR4.FSGSBASE", UD, 0, asm volatile("rdfsbase %%rax" ::: "rax"));
	write_cr4(read_cr4() | CR4_FSGSBASE);
	asm volatile("wrfsbase %0" :: "r"(0x123456789000ul));
	expect("the MSR sees it", rdmsr(MSR_FS_BASE), 0x123456789000ul);
	wrmsr(MSR_GS_BASE, 0xffff888000000000ul);
	asm volatile("rdgsbase %0" : "=r"(v));
	expect("rdgsbase", v, 0xffff888000000000ul);
	asm volatile("wrgsbase %k0" :: "r"(0xdeadbeef));
	expect("32-bit form zero-extends", rdmsr(MSR_GS_BASE), 0xdeadbeef);
	expect_fault("non-canonical", GP, 0, asm volatile("wrfsbase %0" :: "r"(BIT(62))));
	expect_vector("at CPL 3", user_call(user_fsbase, 0), NONE, 0);
	wrmsr(MSR_GS_BASE, 1);
	wrmsr(MSR_KERNEL_GS_BASE, 2);
	asm volatile("swapgs");
	expect("swapgs", rdmsr(MSR_GS_BASE) << 4 | rdmsr(MSR_KERNEL_GS_BASE), 0x21);
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, 0);
	write_cr4(read_cr4() & ~CR4_FSGSBASE);
}

/*
 * Out of long mode by the book and in again: compatibility mode, paging off, LME off, CR4.PAE off, an access in
 * 32-bit protected mode, and all back. Physical addresses are linear ones here.
 */
ulong leave_long_mode(u32 *word);
asm(".text\n"
    "leave_long_mode:\n"
    "	push %rbx; push %rbp\n"
    "	mov %rsp, saved_rsp\n"
    "	mov %rdi, %rsi\n"
    "	ljmp *to_compat\n"
    ".code32\n"
    "leave_compat:\n"
    "	mov $0x10, %eax; mov %eax, %ss; mov %eax, %ds; mov %eax, %es\n"
    "	mov %cr0, %eax; and $0x7fffffff, %eax; mov %eax, %cr0\n"
    "	jmp 1f\n"
    "1:	mov $0xc0000080, %ecx; rdmsr; mov %eax, %ebp; and $~0x100, %eax; wrmsr; rdmsr; mov %eax, %edi\n"
    "	mov %cr4, %ebx; mov %ebx, %eax; and $~0x20, %eax; mov %eax, %cr4\n"
    "	addl $0x1111, (%esi)\n"			/* 32-bit protected mode, paging off */
    "	dec %esi; inc %esi\n"			/* 48 and 40 bytes are REX prefixes in long mode */
    "	.byte 0x48, 0x40\n"
    "	mov %ebx, %cr4\n"
    "	mov %ebp, %eax; xor %edx, %edx; mov $0xc0000080, %ecx; wrmsr\n"
    "	mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
    "	ljmp $0x08, $2f\n"
    ".code64\n"
    "2:	mov saved_rsp, %rsp\n"
    "	mov %edi, %eax\n"
    "	pop %rbp; pop %rbx\n"
    "	ret\n"
    ".data\n"
    "saved_rsp: .quad 0\n"
    "to_compat: .long leave_compat; .word 0x38\n"
    ".text\n");

static void leave(void)
{
	static u32 word;
	u32 i;

	group("long mode");
	sweep("left and entered again");
	for (i = 1; i <= 50; i++) {
		ulong off = leave_long_mode(&word);

		sweep_check(word == i * 0x1111 && !(off & (EFER_LMA | EFER_LME)), "round %u: word %x EFER %lx", i, word, off);
	}
	sweep_end();
	expect("LMA again", rdmsr(MSR_EFER) & EFER_LMA, EFER_LMA);
}

static void cr8(void)
{
	ulong v;

	group("CR8");
	asm volatile("mov %0, %%cr8" :: "r"(5ul));
	asm volatile("mov %%cr8, %0" : "=r"(v));
	expect("reads back", v, 5);
	asm volatile("mov %0, %%cr8" :: "r"(0ul));
}

static void debug_registers(void)
{
	group("DR");
	expect_fault("high half of DR7", GP, 0, write_dr7(BIT(32)));
	expect_fault("high half of DR6", GP, 0, write_dr6(BIT(32)));
	expect_ok("high half of DR0", write_dr0(0x123456789abcul));
	expect("is kept", read_dr0(), 0x123456789abcul);
	write_dr0(0);
	write_cr4(read_cr4() | CR4_DE);
	expect_fault("DR4 under CR4.DE", UD, 0, asm volatile("mov %%db4, %%rax" ::: "rax"));
	write_cr4(read_cr4() & ~CR4_DE);
	expect_ok("DR4 is DR6 without", asm volatile("mov %%db4, %%rax" ::: "rax"));
}

void guest_main(void)
{
	cr4();
	efer();
	cr3();
	umip();
	fsgsbase();
	cr8();
	debug_registers();
	leave();
	cr0();
}
