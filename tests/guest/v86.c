/* Virtual-8086 mode without its extensions (CR4.VME is 0). SDM 3A 20.2, 20.3. */
#include "guest.h"

#define R	((volatile u16 *)0x6000)
#define RL	((volatile u32 *)0x6000)

void v86_enter(ulong ip, ulong flags, ulong seg);
asm(".text\n"
"v86_enter:\n"		/* CS and SS 0, SP 0x7000, the others seg */
"	mov 4(%esp), %eax; mov 8(%esp), %edx; mov 12(%esp), %ecx\n"
"	or $0x20002, %edx\n"
"	push %ecx; push %ecx; push %ecx; push %ecx\n"
"	push $0; push $0x7000; push %edx; push $0; push %eax\n"
"	iret\n");

#define IOPL(n) ((ulong)(n) << 12)

/* A body that faults at its label, or ends with INT 0x80. */
#define BODY(name, insn) \
	extern u8 v86_##name[], v86_##name##_at[]; \
	REAL_CODE(".globl v86_" #name ", v86_" #name "_at\n" \
		"v86_" #name ":\n" \
		"	" insn "\n" \
		"	int $0x80\n");
#define HERE(name) "\nv86_" #name "_at: "
BODY(cli, HERE(cli) "cli")
BODY(sti, HERE(sti) "sti")
BODY(pushf, HERE(pushf) "pushf")
BODY(pushfl, HERE(pushfl) "pushfl")
BODY(popf, "push $2;" HERE(popf) "popf")
BODY(iret, "push $2; push $0; push $1f;" HERE(iret) "iret; 1:")
BODY(intn, HERE(intn) "int $0x42")
BODY(int3, "int3; " HERE(int3))
BODY(into, "mov $0x7f, %al; add $1, %al; into; " HERE(into))
BODY(int1, ".byte 0xf1; " HERE(int1))
BODY(hlt, HERE(hlt) "hlt")
BODY(cr0, HERE(cr0) "mov %cr0, %eax")
BODY(lgdt, HERE(lgdt) "lgdt 0x6000")
BODY(lldt, HERE(lldt) "lldt %ax")
BODY(str, HERE(str) "str %ax")
BODY(lar, HERE(lar) "lar %ax, %ax")
BODY(verr, HERE(verr) "verr %ax")
BODY(arpl, HERE(arpl) ".byte 0x63, 0xc0")
BODY(clts, HERE(clts) "clts")
BODY(rdmsr, HERE(rdmsr) "rdmsr")
BODY(in, HERE(in) "inb $0x80, %al")
BODY(out, HERE(out) "outb %al, $0x80")
BODY(limit, "mov $0xffff, %bx;" HERE(limit) "mov (%bx), %ax")
BODY(stack, "mov $0xffff, %bp;" HERE(stack) "mov (%bp), %ax")
BODY(far, "mov $0x10000, %ebx;" HERE(far) "mov (%ebx), %al")
BODY(ud, HERE(ud) "ud2")
BODY(vex, HERE(vex) ".byte 0xc5, 0xf8, 0x77")		/* VZEROUPPER: LDS of a register here */
BODY(far_jump_out, HERE(far_jump_out) "ljmpl $0, $0x10000")
BODY(syscall, HERE(syscall) "syscall")
BODY(sysexit, HERE(sysexit) "sysexit")

static void run(const u8 *body, unsigned iopl, ulong flags)
{
	catch(v86_enter((ulong)body, IOPL(iopl) | flags, 0));
}

static void expect_v86(const char *name, const u8 *body, unsigned iopl, int vector, ulong error,
	const u8 *at)
{
	run(body, iopl, 0);
	if (fault.vector != vector || (vector >= 10 && vector < 15 && fault.f.error != error))
		check(false, "%s: %d(%lx), want %d(%lx)", name, fault.vector, fault.f.error,
			vector, error);
	else if (vector != VEC_USER_RETURN &&
		 (fault.f.ip != (ulong)at || fault.f.cs || !(fault.f.flags & FL_VM)))
		check(false, "%s: at %lx:%lx flags %lx, want %lx", name, fault.f.cs, fault.f.ip,
			fault.f.flags, (ulong)at);
	else
		check(true, "%s", name);
}
#define FAULTS(name, iopl, vector, error) expect_v86(#name, v86_##name, iopl, vector, error, \
	v86_##name##_at)
#define RUNS(name, iopl) expect_v86(#name " runs", v86_##name, iopl, VEC_USER_RETURN, 0, NULL)

/* ---- what depends on IOPL ---- */

static void sensitive(void)
{
	group("IOPL 2");
	FAULTS(cli, 2, GP, 0);
	FAULTS(sti, 2, GP, 0);
	FAULTS(pushf, 2, GP, 0);
	FAULTS(pushfl, 2, GP, 0);
	FAULTS(popf, 2, GP, 0);
	FAULTS(iret, 2, GP, 0);
	FAULTS(intn, 2, GP, 0);
	group("IOPL 2, not sensitive");
	FAULTS(int3, 2, BP, 0);
	FAULTS(into, 2, OF, 0);
	FAULTS(int1, 2, DB, 0);
	group("IOPL 3");
	RUNS(cli, 3);
	RUNS(sti, 3);
	RUNS(pushf, 3);
	RUNS(popf, 3);
	RUNS(iret, 3);
	FAULTS(intn, 3, GP, 0x42 * 8 + 2);
	idt_set(0x42, SEL_KCODE, trap_stub(0x42), GATE_INT, 3, 0);
	run(v86_intn, 3, 0);
	expect("int n through a DPL 3 gate", fault.vector, 0x42);
	idt_default(0x42);
}

static void privileged(void)
{
	group("privileged and protected-mode instructions");
	FAULTS(hlt, 3, GP, 0);
	FAULTS(cr0, 3, GP, 0);
	FAULTS(lgdt, 3, GP, 0);
	FAULTS(clts, 3, GP, 0);
	FAULTS(rdmsr, 3, GP, 0);
	FAULTS(lldt, 3, UD, 0);
	FAULTS(str, 3, UD, 0);
	FAULTS(lar, 3, UD, 0);
	FAULTS(verr, 3, UD, 0);
	FAULTS(arpl, 3, UD, 0);
	FAULTS(ud, 3, UD, 0);
	FAULTS(vex, 3, UD, 0);
	FAULTS(sysexit, 3, GP, 0);
	FAULTS(syscall, 3, UD, 0);
	group("ports");
	FAULTS(in, 3, GP, 0);
	FAULTS(out, 3, GP, 0);
	tss.bitmap[0x80 / 8] &= ~1;
	RUNS(in, 3);
	RUNS(out, 3);
	tss.bitmap[0x80 / 8] |= 1;
	group("limits");
	FAULTS(limit, 3, GP, 0);
	FAULTS(stack, 3, SS, 0);
	FAULTS(far, 3, GP, 0);
	FAULTS(far_jump_out, 3, GP, 0);
}

/* ---- what it computes ---- */

extern u8 v86_work[], v86_work_far[];
REAL_CODE(
	".globl v86_work, v86_work_far\n"
	"v86_work:\n"
	"	mov %ds, %ax; mov %ax, %bx; xor %ax, %ax; mov %ax, %ds; mov %bx, 0x6000\n"
	"	mov $0x610, %ax; mov %ax, %es; movw $0x1234, %es:2\n"			/* 0x6102 */
	"	mov $0xffff, %ax; mov %ax, %fs; mov %fs:0x10, %al; "
	"mov %al, 0x6004\n"	/* 0x100000 */
	"	lcall $0x100, $(v86_work_far - 0x1000); mov %dx, 0x6006\n"
	"	push $0x610; pop %gs; mov %gs:2, %ax; mov %ax, 0x6008\n"
	"	pushf; pop %ax; mov %ax, 0x600a\n"
	"	pushl $0x3002; popfl; pushfl; pop %eax; mov %eax, 0x600c\n"
	"	cli; pushf; pop %ax; mov %ax, 0x6010; sti; nop; pushf; pop %ax; mov %ax, 0x6012\n"
	"	push $0x0246; push $0; push $1f; "
	"iret\n"	/* IOPL 0 in the image is not loaded */
	"1:	pushf; pop %ax; mov %ax, 0x6014\n"
	"	smsw %ax; mov %ax, 0x6016\n"
	"	mov %sp, 0x6018\n"
	"	int $0x80\n"
	"v86_work_far: mov %cs, %dx; lret\n");

static void work(void)
{
	int i;

	group("work");
	for (i = 0; i < 0x100; i++)
		R[i] = 0;
	catch(v86_enter((ulong)v86_work, IOPL(3), 0x777));
	expect("ends with INT 0x80", fault.vector, VEC_USER_RETURN);
	expect("DS as entered", R[0], 0x777);
	expect("segment times 16", R[0x81], 0x1234);
	expect("0xffff:0x10 is 1 MiB", R[2] & 0xff, *(u8 *)0x100000);
	expect("far call", R[3], 0x100);
	expect("pop gs", R[4], 0x1234);
	expect("flags", R[5] & 0x7000, 0x3000);
	expect("popfl keeps VM, pushfl hides it", RL[3] & 0x33200, 0x3000);
	expect("cli", R[8] & FL_IF, 0);
	expect("sti", R[9] & FL_IF, FL_IF);
	expect("iret keeps IOPL", R[10] & 0x3247, 0x3246);
	expect("smsw", R[11] & 1, 1);
	expect("SP", R[12], 0x7000);
	expect("saved DS", fault.f.v86_ds, 0);
	expect("saved ES", fault.f.v86_es, 0x610);
	expect("saved FS", fault.f.v86_fs, 0xffff);
	expect("saved GS", fault.f.v86_gs, 0x610);
	expect("saved SS:SP", fault.f.ss << 16 | fault.f.sp, 0x7000);
	expect("DS in the handler is null", fault.f.ds, 0);
	expect("GS in the handler is null", fault.f.gs, 0);
	expect("the stack is that of the TSS", fault.frame_at + sizeof(struct trap_frame),
		(ulong)trap_stack_top);
}

/* ---- in and out ---- */

static void ways(void)
{
	group("ways in and out");
	expect_fault("IRET to EIP 0x10000", GP, 0, v86_enter(0x10000, IOPL(3), 0));
	idt_set(0x42, SEL_FREE, trap_stub(0x42), GATE_INT, 3, 0);
	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0x9f, 0xc));
	run(v86_intn, 3, 0);
	check(fault.vector == GP && fault.f.error == SEL_FREE,
		"gate to conforming code: %d(%lx)", fault.vector, fault.f.error);
	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0xbb, 0xc));
	run(v86_intn, 3, 0);
	check(fault.vector == GP && fault.f.error == SEL_FREE, "gate to code of DPL 1: %d(%lx)",
		fault.vector, fault.f.error);
	idt_default(0x42);
	/* RF and the rest of the image. */
	run(v86_ud, 3, FL_AC | FL_CF);
	check((fault.f.flags & (FL_AC | FL_CF | FL_RF)) == (FL_AC | FL_CF | FL_RF),
		"flags saved by a fault: %lx",
	      fault.f.flags);
}

/* ---- single-step ---- */

static unsigned traps;
static ulong first_trap;

static void on_trap(struct trap_frame *f)
{
	if (!traps++)
		first_trap = f->ip;
	if (traps == 2)
		f->flags &= ~FL_TF;
}

static void stepping(void)
{
	group("single-step");
	trap_handle(DB, on_trap);
	run(v86_limit, 3, FL_TF);
	expect("traps", traps, 1);
	expect("after the first instruction", first_trap, (ulong)v86_limit_at);
	trap_handle(DB, NULL);
}

void guest_main(void)
{
	sensitive();
	privileged();
	work();
	ways();
	stepping();
}
