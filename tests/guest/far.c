/*
 * Far JMP, CALL, RET and IRET between segments, call gates, privilege levels and code sizes. SDM 2A
 * CALL, JMP, RET, IRET; SDM 3A 5.8.
 */
#include "guest.h"

#ifdef __x86_64__
#define REG64	1
#define CODE_FLAGS 0xa
#define AX	"rax"
#define SPR	"%rsp"
#define SPRA	"%%rsp"
#define LRET_GATE "lretq"
#else
#define REG64	0
#define CODE_FLAGS 0xc
#define AX	"eax"
#define SPR	"%esp"
#define SPRA	"%%esp"
#define LRET_GATE "lret"
#endif

#define SEL_GATE	SEL_FREE		/* two entries in long mode */
#define SEL_CONFORMING	(SEL_FREE + 0x10)
#define SEL_ABSENT	(SEL_FREE + 0x18)
#define SEL_SHORT	(SEL_FREE + 0x20)	/* limit 0xfff */
#define SEL_UCODE_COPY	(SEL_FREE + 0x28)
#define SEL_LD		(SEL_FREE + 0x30)	/* L and D */
#define SEL_DATA_DPL0	(SEL_FREE + 0x38)

struct far_pointer { u32 off; u16 sel; } __attribute__((packed));

volatile ulong seen_cs USER_DATA, seen_sp USER_DATA, seen_ss USER_DATA, seen_frame[8] USER_DATA;
extern u8 far_target[], far_landing[], gate_target[], gate_target16[], gate_params[];

/* All keep every register but AX. */
asm(".text\n"
"far_target:\n"
"	mov %cs, %" AX "; mov %" AX ", seen_cs; mov " SPR ", seen_sp\n"
"	lretl\n"
"gate_target:\n"
"	mov %cs, %" AX "; mov %" AX ", seen_cs; mov " SPR ", seen_sp; mov %ss, %" AX "; "
"mov %" AX ", seen_ss\n"
"	" LRET_GATE "\n"
"gate_target16:\n"
"	mov %cs, %" AX "; mov %" AX ", seen_cs; mov " SPR ", seen_sp\n"
"	lretw\n"
#if !REG64
"gate_params:\n"
"	mov %cs, %eax; mov %eax, seen_cs; mov %esp, seen_sp; mov %ss, %eax; mov %eax, seen_ss\n"
"	push %ecx; xor %ecx, %ecx\n"
"1:	mov %ss:4(%esp, %ecx, 4), %eax; mov %eax, %ss:seen_frame(, %ecx, 4); inc %ecx; "
"cmp $6, %ecx; jb 1b\n"
"	pop %ecx\n"
"	lret $8\n"
#else
"gate_params:\n"
"	mov %cs, %rax; mov %rax, seen_cs; mov %rsp, seen_sp; mov %ss, %rax; mov %rax, seen_ss\n"
"	push %rcx; xor %ecx, %ecx\n"
"1:	mov 8(%rsp, %rcx, 8), %rax; mov %rax, seen_frame(, %rcx, 8); inc %ecx; cmp $6, %ecx; "
"jb 1b\n"
"	pop %rcx\n"
"	lretq\n"
#endif
);

static struct far_pointer far_to(u16 sel, const void *off)
{
	return (struct far_pointer) { (u32)(ulong)off, sel };
}

static void set_gate(u16 sel, u16 target, ulong off, u8 type, u8 params)
{
	gdt[sel / 8] = (off & 0xffff) | (u64)target << 16 | (u64)params << 32 | (u64)type << 40 |
		       (u64)(off >> 16 & 0xffff) << 48;
#if REG64
	gdt[sel / 8 + 1] = off >> 32;
#endif
}

static void set_descriptors(void)
{
	gdt_set(SEL_CONFORMING, descriptor(0, 0xfffff, 0x9f, CODE_FLAGS));
	gdt_set(SEL_ABSENT, descriptor(0, 0xfffff, 0x1b, CODE_FLAGS));
	gdt_set(SEL_SHORT, descriptor(0, 0xfff, 0x9b, 4));
	gdt_set(SEL_UCODE_COPY, descriptor(0, 0xfffff, 0xfb, CODE_FLAGS));
	gdt_set(SEL_LD, descriptor(0, 0xfffff, 0x9b, 0xe));
	gdt_set(SEL_DATA_DPL0, descriptor(0, 0xfffff, 0x93, 0xc));
}

#define CALL_FAR(p)	asm volatile("lcall *%0" :: "m"(p) : AX, "memory")
#define JUMP_FAR(p)	asm volatile("ljmp *%0" :: "m"(p) : AX, "memory")

/* ---- direct ---- */

static void direct(void)
{
	struct far_pointer p = far_to(SEL_KCODE, far_target);
	ulong sp, after;

	group("far call");
	seen_cs = 0;
	asm volatile("mov " SPRA ", %0; lcall *%2; mov " SPRA ", %1"
		: "=&b"(sp), "=r"(after) : "m"(p) : AX, "memory");
	expect("CS", seen_cs, SEL_KCODE);
	expect("two words of 4 bytes pushed", sp - seen_sp, 8);
	expect("stack pointer after the return", after, sp);
	p.sel = SEL_CONFORMING;
	expect_ok("conforming segment", CALL_FAR(p));
	expect("its RPL is CPL", seen_cs, SEL_CONFORMING);
	p.sel = SEL_CONFORMING | 3;
	expect_ok("conforming segment, RPL 3", CALL_FAR(p));
	expect("RPL is CPL still", seen_cs, SEL_CONFORMING);
}

static void direct_faults(void)
{
	static const struct { const char *name; u16 sel; int vector; ulong error; } t[] = {
		{ "null", 0, GP, 0 },
		{ "null with RPL", 3, GP, 0 },
		{ "behind the GDT", 0x7ff8, GP, 0x7ff8 },
		{ "LDT without one", 0x0c, GP, 0x0c },
		{ "data segment", SEL_KDATA, GP, SEL_KDATA },
		{ "not present", SEL_ABSENT, NP, SEL_ABSENT },
		{ "less privileged code", SEL_UCODE_COPY, GP, SEL_UCODE_COPY },
		{ "less privileged code, RPL 3", SEL_UCODE_COPY | 3, GP, SEL_UCODE_COPY },
		{ "RPL above CPL", SEL_KCODE | 1, GP, SEL_KCODE },
		{ "the busy TSS", SEL_TSS, GP, SEL_TSS },
#if REG64
		{ "L and D", SEL_LD, GP, SEL_LD },
#else
		{ "offset over the limit", SEL_SHORT, GP, 0 },
#endif
	};
	unsigned i;

	group("far transfer faults");
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		struct far_pointer p = far_to(t[i].sel, far_target);

		sweep(t[i].name);
		catch(JUMP_FAR(p));
		sweep_check(fault.vector == t[i].vector && fault.f.error == t[i].error,
			"ljmp: %d(%lx)",
			    fault.vector, fault.f.error);
		catch(CALL_FAR(p));
		sweep_check(fault.vector == t[i].vector && fault.f.error == t[i].error,
			"lcall: %d(%lx)",
			    fault.vector, fault.f.error);
		sweep_end();
	}
}

/* ---- call gates at one level ---- */

static void gates_same(void)
{
	/* the offset means nothing */
	struct far_pointer p = far_to(SEL_GATE, (void *)0x12345678ul);
	ulong sp, after;

	group("call gate, same level");
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	seen_cs = 0;
	asm volatile("mov " SPRA ", %0; lcall *%2; mov " SPRA ", %1"
		: "=&b"(sp), "=r"(after) : "m"(p) : AX, "memory");
	expect("CS", seen_cs, SEL_KCODE);
	expect("two words pushed", sp - seen_sp, 2 * sizeof(ulong));
	expect("stack pointer after the return", after, sp);
	set_gate(SEL_GATE, SEL_CONFORMING, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	expect_ok("to a conforming segment", CALL_FAR(p));
	expect("CS of the conforming segment", seen_cs, SEL_CONFORMING);
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_target, 0x80 | GATE_CALL16, 0);
#if REG64
	expect_fault("16-bit gate in long mode", GP, SEL_GATE, CALL_FAR(p));
	set_gate(SEL_GATE, SEL_KCODE32, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	expect_fault("gate to 32-bit code in long mode", GP, SEL_KCODE32, CALL_FAR(p));
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	gdt[SEL_GATE / 8 + 1] = 1ul << 40;
	expect_fault("type bits in the upper half", GP, SEL_GATE, CALL_FAR(p));
	gdt[SEL_GATE / 8 + 1] = 0x00010000;
	expect_fault("non-canonical offset", GP, 0, CALL_FAR(p));
#else
	if ((ulong)gate_target16 < 0x10000)
		skip("16-bit gate", "code below 64 KiB");
#endif
}

static void gate_faults(void)
{
	struct far_pointer p = far_to(SEL_GATE, NULL);

	group("call gate faults");
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_target, GATE_CALL32, 0);
	expect_fault("not present", NP, SEL_GATE, CALL_FAR(p));
	set_gate(SEL_GATE, 0, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	expect_fault("null code", GP, 0, CALL_FAR(p));
	set_gate(SEL_GATE, SEL_KDATA, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	expect_fault("data segment", GP, SEL_KDATA, CALL_FAR(p));
	set_gate(SEL_GATE, SEL_ABSENT, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	expect_fault("code not present", NP, SEL_ABSENT, CALL_FAR(p));
	set_gate(SEL_GATE, 0x7ff8, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	expect_fault("code behind the GDT", GP, 0x7ff8, CALL_FAR(p));
	set_gate(SEL_GATE, SEL_UCODE_COPY, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	expect_fault("less privileged code", GP, SEL_UCODE_COPY, CALL_FAR(p));
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_target, 0x80 | GATE_CALL32, 0);
	p.sel = SEL_GATE | 1;
	expect_fault("RPL above the gate's DPL", GP, SEL_GATE, CALL_FAR(p));
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_target, 0x80 | GATE_INT, 0);
	p.sel = SEL_GATE;
	expect_fault("interrupt gate", GP, SEL_GATE, CALL_FAR(p));
}

/* ---- call gates to an inner level ---- */

static struct far_pointer user_gate USER_DATA;
static volatile ulong user_sp USER_DATA, user_ds USER_DATA, user_gs USER_DATA;

USER_TEXT static ulong user_call_gate(ulong arg)
{
	asm volatile("push %1; push %2; mov " SPRA ", %0; lcall *%3\n"
#if REG64
		"add $16, %%rsp\n"
#endif
		: "=m"(user_sp) : "r"(0x1111ul), "r"(0x2222ul), "m"(user_gate) : AX, "memory");
	return 0x77;
}

USER_TEXT static ulong user_jump_gate(ulong arg)
{
	asm volatile("ljmp *%0" :: "m"(user_gate) : "memory");
	return 0;
}

#if !REG64
/* A gate to level 1, whose stack in the TSS is bad; the handler of the fault runs on level 0's. */
#define SEL_CODE1	(SEL_FREE + 0x50)
#define SEL_DATA1	(SEL_FREE + 0x58)
static void gates_bad_stack(void)
{
	gdt_set(SEL_CODE1, descriptor(0, 0xfffff, 0xbb, 0xc));
	set_gate(SEL_GATE, SEL_CODE1, (ulong)gate_params, 0xe0 | GATE_CALL32, 2);
	tss.esp1 = (ulong)ist_stack_top;
	tss.ss1 = 0;
	expect_vector("null inner SS", user_call(user_call_gate, 0), TS, 0);
	tss.ss1 = SEL_KDATA;
	expect_vector("inner SS of another level", user_call(user_call_gate, 0), TS, SEL_KDATA);
	gdt_set(SEL_DATA1, descriptor(0, 0xfffff, 0x33, 0xc));
	tss.ss1 = SEL_DATA1 | 1;
	expect_vector("inner SS not present", user_call(user_call_gate, 0), SS, SEL_DATA1);
	gdt_set(SEL_DATA1, descriptor(0, 0xfffff, 0xb1, 0xc));
	expect_vector("inner SS read-only", user_call(user_call_gate, 0), TS, SEL_DATA1);
	tss.ss1 = 0x7ff9;
	expect_vector("inner SS behind the GDT", user_call(user_call_gate, 0), TS, 0x7ff8);
	gdt_set(SEL_TSS, descriptor((ulong)&tss, 12, 0x89, 0));
	asm volatile("ltr %w0" :: "r"(SEL_TSS));
	expect_vector("stack behind the TSS limit", user_call(user_call_gate, 0), TS, SEL_TSS);
	tss_load();
}
#endif

static void gates_inner(void)
{
	group("call gate to an inner level");
	user_gate = far_to(SEL_GATE | 3, NULL);
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_params, 0xe0 | GATE_CALL32, 2);
	memset((void *)seen_frame, 0, sizeof(seen_frame));
	expect_vector("called from user mode", user_call(user_call_gate, 0), NONE, 0);
	expect("value after the return", fault.f.ax, 0x77);
	expect("CS", seen_cs, SEL_KCODE);
	expect("SS", seen_ss, REG64 ? 0 : SEL_KDATA);
	expect("stack from the TSS", seen_sp,
		(ulong)trap_stack_top - (REG64 ? 4 : 6) * sizeof(ulong));
	expect("CS in the frame", seen_frame[1] & 0xffff, SEL_UCODE);
#if REG64
	expect("RSP in the frame", seen_frame[2], user_sp);
	expect("SS in the frame", seen_frame[3], SEL_UDATA);
#else
	expect("last parameter", seen_frame[2], 0x2222);
	expect("first parameter", seen_frame[3], 0x1111);
	expect("ESP in the frame", seen_frame[4], user_sp);
	expect("SS in the frame", seen_frame[5] & 0xffff, SEL_UDATA);
#endif
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_params, 0xc0 | GATE_CALL32, 2);
	expect_vector("gate of DPL 2", user_call(user_call_gate, 0), GP, SEL_GATE);
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_params, 0xe0 | GATE_CALL32, 2);
	expect_vector("jump to inner code", user_call(user_jump_gate, 0), GP, SEL_KCODE);
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_params, 0x60 | GATE_CALL32, 2);
	expect_vector("gate not present", user_call(user_call_gate, 0), NP, SEL_GATE);
#if !REG64
	gates_bad_stack();
#endif
}

/* ---- returns ---- */

#if REG64
#define PUSH_FAR(cs, ip) "push %1; push %0; lretq"
#else
#define PUSH_FAR(cs, ip) "push %1; push %0; lret"
#endif
#define RETURN_FAR(cs, ip) asm volatile(PUSH_FAR(cs, ip) :: "r"(ip), "r"((ulong)(cs)) : "memory")

static void returns(void)
{
	group("far return");
	expect_fault("null CS", GP, 0, RETURN_FAR(0, far_target));
	expect_fault("null CS, RPL 3", GP, 0, RETURN_FAR(3, far_target));
	expect_fault("data segment", GP, SEL_KDATA, RETURN_FAR(SEL_KDATA, far_target));
	expect_fault("behind the GDT", GP, 0x7ff8, RETURN_FAR(0x7ff8, far_target));
	expect_fault("code not present", NP, SEL_ABSENT, RETURN_FAR(SEL_ABSENT, far_target));
	expect_fault("DPL other than RPL", GP, SEL_KCODE, RETURN_FAR(SEL_KCODE | 3, far_target));
#if REG64
	expect_fault("non-canonical RIP", GP, 0, RETURN_FAR(SEL_KCODE, 1ul << 47));
#else
	expect_fault("EIP over the limit", GP, 0, RETURN_FAR(SEL_SHORT, far_target));
#endif
}

/* To CPL 3 by RET: SS, SP, CS, IP on the stack; DS keeps a DPL 0 segment that must go. */
USER_TEXT static ulong user_report(ulong arg)
{
	ulong ds, gs;

	asm volatile("mov %%ds, %0; mov %%gs, %1" : "=r"(ds), "=r"(gs));
	asm volatile("mov %0, %%ds" :: "r"(SEL_UDATA));
	user_ds = ds;
	user_gs = gs;
	asm volatile("int %0" :: "i"(VEC_USER_RETURN));
	return 0;
}


#if REG64
static volatile ulong user_word USER_DATA = 0x123456789abcdef0;

/* A 64-bit base outlives the segment, which the outer level may not keep. */
USER_TEXT static ulong user_gs_read(ulong arg)
{
	ulong val, gs;

	asm volatile("mov %%gs:0, %0; mov %%gs, %1" : "=r"(val), "=r"(gs));
	user_ds = val;
	user_gs = gs;
	asm volatile("int %0" :: "i"(VEC_USER_RETURN));
	return 0;
}

static void base_outer(void)
{
	ulong sp = (ulong)user_stack_top - 64;

	asm volatile("mov %0, %%gs" :: "r"(SEL_DATA_DPL0));
	wrmsr(MSR_GS_BASE, (ulong)&user_word);
	expect_fault("to CPL 3 with a DPL 0 GS", VEC_USER_RETURN, 0, asm volatile(
		"push %1; push %2; push %0; push %3; lretq" :: "r"((ulong)SEL_UCODE), "r"((ulong)SEL_UDATA),
		"r"(sp), "r"(user_gs_read) : "memory"));
	expect("GS of DPL 0 is gone", user_gs, 0);
	expect("its base is there", user_ds, user_word);
	expect("also in the MSR", rdmsr(MSR_GS_BASE), (ulong)&user_word);
	asm volatile("mov %0, %%gs" :: "r"(0));
}
#endif

static void returns_outer(void)
{
	ulong cs = SEL_UCODE, ss = SEL_UDATA, sp = (ulong)user_stack_top - 64;
	ulong data = SEL_DATA_DPL0;

	group("far return to an outer level");
#if REG64
#define OUTER "push %1; push %2; push %0; push %3; lretq"
#else
#define OUTER "push %1; push %2; push %0; push %3; lret"
#endif
#define RETURN_OUTER(cs_, ss_, pre) asm volatile(pre OUTER :: "r"((ulong)(cs_)), \
	"r"((ulong)(ss_)), \
	"r"(sp), "r"(user_report), "c"(data), "a"(SEL_UDATA) : "memory")
	expect_fault("to CPL 3", VEC_USER_RETURN, 0,
		RETURN_OUTER(cs, ss, "mov %%ecx, %%ds; mov %%eax, %%gs;"));
	expect("DS of DPL 0 is gone", user_ds, 0);
	expect("GS of DPL 3 stays", user_gs, SEL_UDATA);
	expect("CPL", fault.f.cs, cs);
	data = 3;
	expect_fault("with a null DS of RPL 3", VEC_USER_RETURN, 0,
		RETURN_OUTER(cs, ss, "mov %%ecx, %%ds;"));
	expect("the RPL is gone", user_ds, 0);
	asm volatile("mov %0, %%gs" :: "r"(0));
#if REG64
	base_outer();
#endif
	expect_fault("null SS", GP, 0, RETURN_OUTER(cs, 0, ""));
	expect_fault("SS of another RPL", GP, SEL_KDATA, RETURN_OUTER(cs, SEL_KDATA, ""));
	expect_fault("SS of another DPL", GP, SEL_KDATA, RETURN_OUTER(cs, SEL_KDATA | 3, ""));
	gdt_set(SEL_FREE + 0x40, descriptor(0, 0xfffff, 0x73, 0xc));
	expect_fault("SS not present", SS, SEL_FREE + 0x40,
		RETURN_OUTER(cs, (SEL_FREE + 0x40) | 3, ""));
}

USER_TEXT static ulong user_inward(ulong cs)
{
#if REG64
	asm volatile("push %1; push %0; lretq" :: "r"(0x100000ul), "r"(cs) : "memory");
#else
	asm volatile("push %1; push %0; lret" :: "r"(0x100000ul), "r"(cs) : "memory");
#endif
	return 0;
}

USER_TEXT static ulong user_conforming(ulong arg)
{
	ulong cs;

	asm volatile("lcall *%1; mov %%cs, %0" : "=r"(cs) : "m"(user_gate) : AX, "memory");
	return cs;
}

static void from_user(void)
{
	group("far transfers in user mode");
	expect_vector("lret inward", user_call(user_inward, SEL_KCODE), GP, SEL_KCODE);
	user_gate = far_to(SEL_CONFORMING, far_target);
	/* far_target lies in supervisor pages in 64-bit guests: reaching it is the proof there. */
	int v = user_call(user_conforming, 0);

	if (v == PF) {
		expect("conforming code at CPL 3", fault.f.ip, (ulong)far_target);
		expect("CS with RPL 3", fault.f.cs, SEL_CONFORMING | 3);
	} else {
		expect_vector("conforming code at CPL 3", v, NONE, 0);
		expect("CS with RPL 3", seen_cs, SEL_CONFORMING | 3);
	}
	user_gate = far_to(SEL_KCODE, far_target);
	expect_vector("inner code", user_call(user_conforming, 0), GP, SEL_KCODE);
	user_gate = far_to(SEL_GATE, far_target);
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_params, 0x80 | GATE_CALL32, 0);
	expect_vector("gate of DPL 0", user_call(user_conforming, 0), GP, SEL_GATE);
}

/* ---- IRET ---- */

#if REG64
#define IRET_FRAME "push %2; push %3; push %4; push %1; push %0; iretq"
#define IRET_TO(ip, cs, ss, sp, fl) asm volatile(IRET_FRAME :: "r"((ulong)(ip)), "r"((ulong)(cs)), \
	"r"((ulong)(ss)), "r"((ulong)(sp)), "r"((ulong)(fl)) : "memory")
#else
#define IRET_FRAME "push %2; push %1; push %0; iret"
#define IRET_TO(ip, cs, ss, sp, fl) asm volatile(IRET_FRAME :: "r"((ulong)(ip)), "r"((ulong)(cs)), \
	"r"((ulong)(fl)) : "memory")
#endif

static void irets(void)
{
	u8 *sp = guest_stack_top - 4096;

	(void)sp;
	group("iret");
	expect_fault("null CS", GP, 0, IRET_TO(far_target, 0, SEL_KDATA, sp, 2));
	expect_fault("data segment", GP, SEL_KDATA,
		IRET_TO(far_target, SEL_KDATA, SEL_KDATA, sp, 2));
	expect_fault("code not present", NP, SEL_ABSENT,
		IRET_TO(far_target, SEL_ABSENT, SEL_KDATA, sp, 2));
#if REG64
	expect_fault("non-canonical RIP", GP, 0, IRET_TO(1ul << 47, SEL_KCODE, SEL_KDATA, sp, 2));
	expect_fault("SS not present", SS, SEL_FREE + 0x48, ({
		gdt_set(SEL_FREE + 0x48, descriptor(0, 0xfffff, 0x13, 0xc));
		IRET_TO(far_target, SEL_KCODE, SEL_FREE + 0x48, sp, 2); }));
	expect_fault("null SS for 32-bit code", GP, 0, IRET_TO(far_target, SEL_KCODE32, 0, sp, 2));
	expect_fault("NT in long mode", GP, 0, ({ write_flags(FL_NT); asm volatile("iretq"); }));
	write_flags(0);
#endif
}

#if REG64
/* ---- compatibility mode ---- */

void user_enter(ulong (*fn)(ulong), ulong arg, ulong cs);
ulong compat_work(ulong), compat_gate(ulong), kernel32(ulong);
extern volatile u32 compat_seen[16];
asm(".pushsection .user.text, \"ax\", @progbits\n.code32\n"
"compat_work:\n"
"	mov %cs, %eax; mov %eax, compat_seen\n"
"	mov $0xffffffff, %eax; inc %eax; mov %eax, compat_seen + 4\n"
"	dec %eax; mov %eax, compat_seen + 8\n"		/* 48 is DEC, not REX */
"	push %eax; mov %esp, %edx; pop %ecx; sub %esp, %edx; mov %edx, compat_seen + 12\n"
"	pushf; pop %eax; mov %eax, compat_seen + 16\n"
"	int $0x80\n"
"compat_gate:\n"
"	lcall *user_gate32\n"
"	mov %cs, %eax; mov %eax, compat_seen\n"
"	int $0x80\n"
".code64\n.popsection\n");
volatile u32 compat_seen[16] USER_DATA;
struct far_pointer user_gate32 USER_DATA;

static int compat_call(ulong (*fn)(ulong))
{
	return catch(user_enter(fn, 0, SEL_UCODE32));
}

static void compat(void)
{
	group("compatibility mode");
	expect_vector("32-bit code at CPL 3", compat_call(compat_work), VEC_USER_RETURN, 0);
	expect("CS", compat_seen[0], SEL_UCODE32);
	expect("increment wraps", compat_seen[1], 0);
	expect("48 is dec", compat_seen[2], 0xffffffff);
	expect("push of 4 bytes", compat_seen[3], (u32)-4);
	expect("saved CS", fault.f.cs, SEL_UCODE32);
	expect("saved SS", fault.f.ss, SEL_UDATA);
	expect("saved RSP has no upper half", fault.f.sp >> 32, 0);
	user_gate32 = far_to(SEL_GATE | 3, NULL);
	set_gate(SEL_GATE, SEL_KCODE, (ulong)gate_params, 0xe0 | GATE_CALL32, 0);
	memset((void *)seen_frame, 0, sizeof(seen_frame));
	expect_vector("64-bit call gate from 32-bit code", compat_call(compat_gate),
		VEC_USER_RETURN, 0);
	expect("CS inside", seen_cs, SEL_KCODE);
	expect("CS in the frame", seen_frame[1], SEL_UCODE32);
	expect("back in 32-bit code", compat_seen[0], SEL_UCODE32);
}

/* 64-bit code at CPL 0 to 32-bit code at CPL 0 and back. */
static volatile u32 kernel32_cs;
static void compat_kernel(void)
{
	struct far_pointer back, p;

	asm volatile("movl $1f, %0; movw %w2, %1" : "=m"(back.off), "=m"(back.sel)
		: "r"(SEL_KCODE) : "memory");
	p = far_to(SEL_KCODE32, NULL);
	asm volatile("movl $2f, %0\n"
		"mov %2, %%ebx\n"
		"ljmp *%0\n"
		".code32\n"
		"2: mov %%cs, %%eax\n"
		"ljmp $0x08, $1f\n"
		".code64\n"
		"1: mov %%eax, %1\n"
		: "+m"(p), "=m"(kernel32_cs) : "r"(0) : "rax", "rbx", "memory");
	expect("32-bit code at CPL 0", kernel32_cs, SEL_KCODE32);
}
#endif

void guest_main(void)
{
	set_descriptors();
	direct();
	direct_faults();
	gates_same();
	gate_faults();
	gates_inner();
	returns();
	returns_outer();
	from_user();
	irets();
#if REG64
	compat();
	compat_kernel();
#endif
}
