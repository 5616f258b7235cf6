/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT: what they load, what they save, where they do not exist. SDM
 * 2, APM 3; the vendors differ in compatibility mode, long mode and legacy mode.
 */
#include "guest.h"

#ifdef __x86_64__
#define REG64 1
#else
#define REG64 0
#endif

static bool amd(void)
{
	return cpuid(0, 0).ebx == 0x68747541;
}

/* What the kernel side saw; user code may write it, since in 32-bit guests it shares the page. */
struct seen { ulong cx, r11, flags, sp, cs, ss, count; };
struct seen seen USER_DATA;
ulong user_result USER_DATA, resume_sp USER_DATA;

static int try_user(ulong (*fn)(ulong), ulong arg)
{
	memset(&seen, 0, sizeof(seen));
	return user_call(fn, arg);
}

#if REG64

/* The entries note everything, and return with whatever R11 and RCX are. */
extern u8 entry64[], entry32[], entry_flags[];
void user_enter(ulong (*fn)(ulong), ulong arg, ulong cs);
extern ulong sysret_flags;
ulong sysret_flags;
asm(".text\n"
"entry64:\n"
"	mov %rcx, seen; mov %r11, seen + 8; mov %rsp, seen + 24; incq seen + 48\n"
"	mov %cs, %rax; mov %rax, seen + 32; mov %ss, %rax; mov %rax, seen + 40\n"
"	mov $trap_stack_top - 4096, %rsp; pushf; pop %rax; mov %rax, seen + 16; "
"mov seen + 24, %rsp\n"
"	cmpq $0, sysret_flags; je 1f; mov sysret_flags, %r11\n"
"1:	sysretq\n"
"entry32:\n"
"	mov %rcx, seen; mov %r11, seen + 8; mov %rsp, seen + 24; incq seen + 48\n"
"	mov %cs, %rax; mov %rax, seen + 32; mov %ss, %rax; mov %rax, seen + 40\n"
"	sysretl\n");

USER_TEXT static ulong user_syscall(ulong arg)
{
	ulong flags, cs, ss;

	asm volatile("pushf; pop %%rax; or %3, %%rax; push %%rax; popf\n"
		"syscall\n"
		"1: pushf; pop %0; mov %%cs, %1; mov %%ss, %2"
		: "=r"(flags), "=r"(cs), "=r"(ss) : "r"(arg) : "rax", "rcx", "r11", "memory", "cc");
	user_result = flags;
	return cs << 16 | ss;
}


USER_TEXT static ulong user_sysenter(ulong arg)
{
	asm volatile(".byte 0x0f, 0x34");
	return 0;
}

extern ulong compat_syscall(ulong), compat_sysenter(ulong);
extern u32 compat_cs;
u32 compat_cs USER_DATA;
asm(".pushsection .user.text, \"ax\", @progbits\n.code32\n"
"compat_syscall:\n"
"	syscall\n"
"compat_after:\n"
"	mov %cs, %eax; mov %eax, compat_cs\n"
"	int $0x80\n"
"compat_sysenter:\n"
"	.byte 0x0f, 0x34\n"
"	int $0x80\n"
".code64\n.popsection\n");
extern u8 compat_after[];

static void setup(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	/* SYSCALL: CS 8, SS 0x10. SYSRET: base 0x18 with RPL 3. */
	wrmsr(MSR_STAR, (u64)(SEL_UCODE32) << 48 | (u64)SEL_KCODE << 32);
	wrmsr(MSR_LSTAR, (ulong)entry64);
	wrmsr(MSR_CSTAR, (ulong)entry32);
	wrmsr(MSR_SFMASK, FL_TF | FL_DF | FL_AC | FL_IF);
}

static void syscalls(void)
{
	group("syscall");
	setup();
	expect_vector("and back", try_user(user_syscall, FL_CF | FL_DF), NONE, 0);
	expect("entered once", seen.count, 1);
	check(seen.cx > (ulong)user_syscall && seen.cx < (ulong)user_syscall + 64,
		"RCX is the next RIP");
	expect("R11 has the flags", seen.r11 & (FL_CF | FL_DF | FL_RF), FL_CF | FL_DF);
	expect("SFMASK", seen.flags & FL_DF, 0);
	expect("others stay", seen.flags & FL_CF, FL_CF);
	expect("CS", seen.cs, SEL_KCODE);
	expect("SS", seen.ss, SEL_KDATA);
	check(seen.sp <= (ulong)user_stack_top && seen.sp > (ulong)user_stack_top - 1024,
		"RSP stays");
	expect("CS and SS after SYSRET", fault.f.ax, (ulong)SEL_UCODE64 << 16 | SEL_UDATA);
	expect("flags after SYSRET", user_result & (FL_CF | FL_DF), FL_CF | FL_DF);
	sysret_flags = 0xffffffff & ~(ulong)(FL_TF | FL_AC | FL_IF);
	try_user(user_syscall, 0);
	expect("no VM, RF, or reserved flags by SYSRET",
		user_result & (FL_VM | FL_RF | 0xffffffffffc08028), 0);
	expect("IOPL and NT by SYSRET", user_result & (FL_IOPL | FL_NT), FL_IOPL | FL_NT);
	sysret_flags = 0;
	write_flags(2);
}

static void refused(void)
{
	group("faults");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SCE);
	expect_vector("syscall without EFER.SCE", try_user(user_syscall, 0), UD, 0);
	expect_fault_at("sysret without EFER.SCE", UD, 0, asm volatile(AT("sysretq")));
	setup();
	expect_fault("non-canonical LSTAR", GP, 0, wrmsr(MSR_LSTAR, 1ul << 47));
	expect_fault("non-canonical CSTAR", GP, 0, wrmsr(MSR_CSTAR, 1ul << 63));
	if (amd()) {
		expect_vector("sysenter in 64-bit mode", try_user(user_sysenter, 0), UD, 0);
		expect_fault_at("sysexit in 64-bit mode", UD, 0,
			asm volatile(AT(".byte 0x0f, 0x35")));
	}
}

static void compat(void)
{
	int v;

	group("32-bit code");
	setup();
	compat_cs = 0;
	memset(&seen, 0, sizeof(seen));
	v = catch(user_enter(compat_syscall, 0, SEL_UCODE32));
	if (!amd()) {
		expect_vector("syscall", v, UD, 0);
		return;
	}
	expect_vector("syscall and back", v, VEC_USER_RETURN, 0);
	expect("through CSTAR", seen.count, 1);
	expect("RCX", seen.cx, (ulong)compat_after);
	expect("CS inside", seen.cs, SEL_KCODE);
	expect("CS after SYSRET", compat_cs, SEL_UCODE32);
	v = catch(user_enter(compat_sysenter, 0, SEL_UCODE32));
	expect_vector("sysenter", v, UD, 0);
}

/* The kernel side is not stepped when SFMASK has TF; SYSRET with TF traps at its target. */
static volatile unsigned traps;
static volatile ulong trap_ips[8];

static void on_trap(struct trap_frame *f)
{
	if (traps < ARRAY_SIZE(trap_ips))
		trap_ips[traps] = f->ip;
	traps++;
	if (traps == 3)
		f->flags &= ~FL_TF;
	write_dr6(0);
}

static void stepping(void)
{
	unsigned i;
	bool inside = false;

	group("single-step");
	trap_handle(DB, on_trap);
	try_user(user_syscall, FL_TF);
	for (i = 0; i < traps && i < ARRAY_SIZE(trap_ips); i++)
		inside |= trap_ips[i] >= (ulong)entry64 && trap_ips[i] < (ulong)entry64 + 128;
	check(!inside, "SYSCALL's target is not stepped");
	expect("the trap after SYSRET is at its target", trap_ips[0], seen.cx);
	trap_handle(DB, NULL);
}

#else

extern u8 entry_sysenter[], entry_syscall[], user_back[];
asm(".text\n"
"entry_sysenter:\n"	/* ECX, EDX: user ESP and EIP by our own convention */
"	mov %ecx, seen; mov %edx, seen + 4; mov %esp, seen + 12; incl seen + 24\n"
"	pushf; pop %eax; mov %eax, seen + 8\n"
"	mov %cs, %eax; mov %eax, seen + 16; mov %ss, %eax; mov %eax, seen + 20\n"
"	.byte 0x0f, 0x35\n"
"entry_syscall:\n"
"	mov %ecx, seen; mov %esp, seen + 12; incl seen + 24\n"
"	mov %cs, %eax; mov %eax, seen + 16; mov %ss, %eax; mov %eax, seen + 20\n"
"	sysretl\n");

USER_TEXT static ulong user_sysenter(ulong arg)
{
	ulong cs, ss, sp = 0;

	asm volatile("push %%ebp; mov %%esp, %%ecx; mov $1f, %%edx; .byte 0x0f, 0x34\n"
		"1: pop %%ebp; mov %%cs, %0; mov %%ss, %1; mov %%esp, %2"
		: "=b"(cs), "=S"(ss), "=D"(sp) :: "eax", "ecx", "edx", "memory", "cc");
	return cs << 16 | ss;
}

USER_TEXT static ulong user_syscall(ulong arg)
{
	ulong cs, ss;

	asm volatile("syscall; mov %%cs, %0; mov %%ss, %1" : "=b"(cs), "=S"(ss) :: "eax", "ecx",
		"memory", "cc");
	return cs << 16 | ss;
}

static void sysenter(void)
{
	group("sysenter");
	wrmsr(MSR_SYSENTER_CS, 0);
	expect_vector("with a null CS", try_user(user_sysenter, 0), GP, 0);
	expect_fault_at("sysexit with a null CS", GP, 0, asm volatile(AT(".byte 0x0f, 0x35")));
	wrmsr(MSR_SYSENTER_CS, SEL_KCODE);
	wrmsr(MSR_SYSENTER_EIP, (ulong)entry_sysenter);
	wrmsr(MSR_SYSENTER_ESP, (ulong)trap_stack_top - 256);
	expect_vector("and back", try_user(user_sysenter, 0), NONE, 0);
	expect("entered once", seen.count, 1);
	expect("CS", seen.cs, SEL_KCODE);
	expect("SS", seen.ss, SEL_KDATA);
	expect("ESP", seen.sp, (ulong)trap_stack_top - 256);
	expect("IF and VM", seen.flags & (FL_IF | FL_VM), 0);
	expect("CS and SS after SYSEXIT", fault.f.ax, (ulong)SEL_UCODE32 << 16 | SEL_UDATA);
}

static void syscall(void)
{
	group("syscall");
	expect_vector("without EFER.SCE", try_user(user_syscall, 0), UD, 0);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_KCODE << 32 | (ulong)entry_syscall);
	if (!amd()) {
		expect_vector("in legacy mode", try_user(user_syscall, 0), UD, 0);
		return;
	}
	expect_vector("and back", try_user(user_syscall, 0), NONE, 0);
	expect("entered once", seen.count, 1);
	expect("CS", seen.cs, SEL_KCODE);
	expect("SS", seen.ss, SEL_KDATA);
	expect("CS and SS after SYSRET", fault.f.ax, (ulong)SEL_UCODE32 << 16 | SEL_UDATA);
	expect("SYSRET sets IF", fault.f.flags & FL_IF, FL_IF);
}

#endif

void guest_main(void)
{
#if REG64
	syscalls();
	refused();
	compat();
	stepping();
#else
	sysenter();
	syscall();
#endif
}
