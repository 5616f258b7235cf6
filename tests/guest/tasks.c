/*
 * Hardware task switch: CALL, JMP, IRET, task gates, TSSs of 32 and 16 bits, and what faults in the
 * new task. SDM 3A 8.2, 8.3.
 */
#include "guest.h"

#define SEL_TASK	SEL_FREE
#define SEL_CATCHER	(SEL_FREE + 0x08)
#define SEL_TASK16	(SEL_FREE + 0x10)
#define SEL_GATE	(SEL_FREE + 0x18)
#define SEL_LDT		(SEL_FREE + 0x20)
#define SEL_ABSENT	(SEL_FREE + 0x28)

struct tss16 {
	u16 back, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es,
		cs, ss, ds, ldt;
};
_Static_assert(sizeof(struct tss16) == 44, "SDM 3A figure 8-10");

static struct tss task PAGE_ALIGNED, catcher PAGE_ALIGNED;
static struct tss16 task16;
static u8 task_stack[8192], catcher_stack[8192];
static u64 ldt[2];

/* What a task saw of itself. */
static struct seen {
	unsigned count;
	ulong flags, cr0, cr3, tr, ldtr, esp, eax, back, ds, cs, dr7;
} seen;

static bool busy(u16 sel)
{
	return ((volatile u64 *)gdt)[sel / 8] >> 41 & 1;
}

static u16 tr(void)
{
	u16 v;

	asm volatile("str %0" : "=m"(v));
	return v;
}

void task_body(ulong flags, ulong eax, ulong esp);
void task_body(ulong flags, ulong eax, ulong esp)
{
	u16 l;
	ulong ds, cs;

	asm volatile("sldt %0" : "=m"(l));
	asm volatile("mov %%ds, %0; mov %%cs, %1" : "=r"(ds), "=r"(cs));
	seen.count++;
	seen.flags = flags;
	seen.cr0 = read_cr0();
	seen.cr3 = read_cr3();
	seen.dr7 = read_dr7();
	seen.tr = tr();
	seen.ldtr = l;
	seen.esp = esp;
	seen.eax = eax;
	seen.back = task.back;
	seen.ds = ds;
	seen.cs = cs;
}

/* Entered with TASK; after IRET it goes on behind it, and comes round again. */
extern u8 task_iret[], task_iret_end[], task_jump[], catcher_entry[], task_error[];
asm(".text\n"
"task_iret:\n"
"	push %esp; push %eax; pushf; call task_body; add $12, %esp\n"
"	iret\n"
"task_iret_end:\n"
"	jmp task_iret\n"
"task_jump:\n"
"	push %esp; push %eax; pushf; call task_body; add $12, %esp\n"
"	ljmp $0x40, $0\n"	/* SEL_TSS */
"	jmp task_jump\n"
"task_error:\n"			/* through a gate with an error code; steps over two bytes */
"	push %esp; pushl 4(%esp); pushf; call task_body; add $12, %esp\n"
"	addl $2, tss + 32\n"
"	add $4, %esp\n"
"	iret\n"
"	jmp task_error\n");

static void set_tss(u16 sel, const void *t, u32 limit, u8 type)
{
	gdt_set(sel, descriptor((ulong)t, limit, 0x80 | type, 0));
}

static void task_reset(const void *entry)
{
	memset(&task, 0, offsetof(struct tss, int_map));
	task.eip = (ulong)entry;
	task.eflags = 2;
	task.esp = (ulong)task_stack + sizeof(task_stack);
	task.esp0 = (ulong)trap_stack_top;
	task.ss0 = SEL_KDATA;
	task.eax = 0xabcd;
	task.cs = SEL_KCODE;
	task.ss = task.ds = task.es = SEL_KDATA;
	task.cr3 = read_cr3();
	task.iomap = sizeof(task);
	set_tss(SEL_TASK, &task, 0x67, 9);
	memset(&seen, 0, sizeof(seen));
}

#define CALL_TASK(sel) asm volatile("lcall %0, $0" :: "i"(sel) : "memory", "cc")
#define JUMP_TASK(sel) asm volatile("ljmp %0, $0" :: "i"(sel) : "memory", "cc")

/* ---- CALL, JMP, IRET ---- */

static void calls(void)
{
	group("CALL to a TSS");
	task_reset(task_iret);
	write_flags(2 | FL_CF);
	write_cr0(read_cr0() & ~CR0_TS);
	write_dr7(0x400 | 0x155 | 0xaa);
	CALL_TASK(SEL_TASK);
	expect("entered once", seen.count, 1);
	expect("EAX from the TSS", seen.eax, 0xabcd);
	expect("ESP from the TSS", seen.esp, (ulong)task_stack + sizeof(task_stack));
	expect("NT set", seen.flags & FL_NT, FL_NT);
	expect("flags from the TSS", seen.flags & FL_CF, 0);
	expect("CR0.TS set", seen.cr0 & CR0_TS, CR0_TS);
	expect("TR", seen.tr, SEL_TASK);
	expect("back link", seen.back, SEL_TSS);
	expect("LDTR", seen.ldtr, 0);
	expect("local breakpoints off, global ones on", seen.dr7 & 0xff, 0xaa);
	expect("TR after IRET", tr(), SEL_TSS);
	check(busy(SEL_TSS) && !busy(SEL_TASK), "busy bits after IRET");
	expect("saved EFLAGS of the task have no NT", task.eflags & FL_NT, 0);
	expect("saved EIP is behind IRET", task.eip, (ulong)task_iret_end);
	check(!(read_flags() & FL_NT), "no NT here");
	CALL_TASK(SEL_TASK);
	expect("entered again", seen.count, 2);
	write_dr7(0x400);

	group("JMP to a TSS");
	task_reset(task_jump);
	JUMP_TASK(SEL_TASK);
	expect("entered", seen.count, 1);
	expect("no NT", seen.flags & FL_NT, 0);
	expect("no back link", seen.back, 0);
	check(busy(SEL_TSS) && !busy(SEL_TASK), "busy bits after both jumps");
	expect("TR", tr(), SEL_TSS);

	group("task gate");
	gdt[SEL_GATE / 8] = (u64)SEL_TASK << 16 | (u64)(0x80 | GATE_TASK) << 40;
	task_reset(task_iret);
	CALL_TASK(SEL_GATE);
	expect("CALL", seen.count, 1);
	task_reset(task_jump);
	JUMP_TASK(SEL_GATE);
	expect("JMP", seen.count, 1);
}

static void state(void)
{
	ulong a = 0x11, b = 0x22, c = 0x33, d = 0x44;

	group("state");
	task_reset(task_iret);
	asm volatile("lcall %4, $0" : "+a"(a), "+b"(b), "+c"(c), "+d"(d)
		: "i"(SEL_TASK) : "memory", "cc");
	check(a == 0x11 && b == 0x22 && c == 0x33 && d == 0x44,
		"registers come back: %lx %lx %lx %lx", a, b, c, d);
	ldt[0] = descriptor(0, 0xfffff, 0x93, 0xc);
	gdt_set(SEL_LDT, descriptor((ulong)ldt, sizeof(ldt) - 1, 0x82, 0));
	task_reset(task_iret);
	task.ldt = SEL_LDT;
	task.ds = 4;
	CALL_TASK(SEL_TASK);
	expect("LDTR of the task", seen.ldtr, SEL_LDT);
	expect("DS from its LDT", seen.ds, 4);
	{
		u16 l;

		asm volatile("sldt %0" : "=m"(l));
		expect("LDTR comes back", l, 0);
	}
}

/* ---- 16-bit TSS: code below 64 KiB, results at 0x6000 ---- */

#define R	((volatile u16 *)0x6000)
extern u8 task16_entry[];
REAL_CODE(
	"task16_entry:\n"
	"	mov %ax, 0x6000; mov %sp, 0x6002; pushf; pop %ax; mov %ax, 0x6004; str %ax; "
	"mov %ax, 0x6006\n"
	"	mov %ss, 0x6008; mov %fs, 0x600a; mov %bx, 0x600c\n"
	"	iret\n"
	"	jmp task16_entry\n");

static void tasks16(void)
{
	ulong a = 0x11110011, b = 0x22220022, sp1, sp2;

	group("16-bit TSS");
	memset(&task16, 0, sizeof(task16));
	task16.ip = (ulong)task16_entry;
	task16.flags = 2;
	task16.sp = 0x7000;
	task16.ax = 0x1616;
	task16.bx = 0xb16b;
	task16.cs = SEL_KCODE16;
	task16.ss = task16.ds = task16.es = SEL_KDATA16;
	set_tss(SEL_TASK16, &task16, sizeof(task16) - 1, 1);
	asm volatile("mov %4, %%fs; mov %%esp, %2; lcall %5, $0; mov %%esp, %3"
		: "+a"(a), "+b"(b), "=&S"(sp1), "=D"(sp2) : "d"(SEL_KDATA),
		"i"(SEL_TASK16) : "memory", "cc");
	expect("AX", R[0], 0x1616);
	expect("SP", R[1], 0x7000);
	expect("NT", R[2] & FL_NT, FL_NT);
	expect("TR", R[3], SEL_TASK16);
	expect("SS", R[4], SEL_KDATA16);
	expect("FS is null", R[5], 0);
	expect("BX", R[6], 0xb16b);
	expect("back link", task16.back, SEL_TSS);
	check(a == 0x11110011 && b == 0x22220022 && sp1 == sp2, "32-bit registers come back");
	expect("TR after IRET", tr(), SEL_TSS);
	expect_fault("limit below 0x2b", TS, SEL_TASK16, ({
		set_tss(SEL_TASK16, &task16, 0x2a, 1); CALL_TASK(SEL_TASK16); }));
	asm volatile("mov %0, %%fs" :: "r"(0));
}

/* ---- gates in the IDT ---- */

static u64 task_gate(u16 sel)
{
	return (u64)sel << 16 | (u64)(0x80 | GATE_TASK) << 40;
}

static void idt_gates(void)
{
	group("task gate in the IDT");
	idt[0x60] = task_gate(SEL_TASK);
	task_reset(task_iret);
	asm volatile("int $0x60" ::: "memory");
	expect("int n", seen.count, 1);
	expect("NT", seen.flags & FL_NT, FL_NT);
	expect("back link", seen.back, SEL_TSS);
	check(busy(SEL_TSS) && !busy(SEL_TASK), "busy bits after IRET");
	idt[0x60] = task_gate(SEL_TASK) & ~BIT(47);
	expect_fault("gate not present", NP, 0x60 * 8 + 2, asm volatile("int $0x60"));
	idt[0x60] = task_gate(SEL_KDATA);
	expect_fault("gate to a data segment", GP, SEL_KDATA, asm volatile("int $0x60"));
	idt[0x60] = task_gate(SEL_TSS);
	expect_fault("gate to a busy TSS", GP, SEL_TSS, asm volatile("int $0x60"));
	idt_default(0x60);

	task_reset(task_error);
	idt[GP] = task_gate(SEL_TASK);
	/* The task steps over the MOV. */
	asm volatile("mov %0, %%eax; movl $1f, mark; 1: mov %%eax, %%fs" :: "i"(0x7ff8) : "eax",
		"memory");
	idt_default(GP);
	expect("exception", seen.count, 1);
	expect("error code on the new stack", seen.eax, 0x7ff8);
	expect("4 bytes of it", seen.esp, (ulong)task_stack + sizeof(task_stack) - 4);
	expect("saved EIP is the faulting one", tss.eip, mark + 2);	/* stepped over */
}

/* ---- before the switch: the old task's faults ---- */

static void early_faults(void)
{
	group("faults in the old task");
	task_reset(task_iret);
	set_tss(SEL_TASK, &task, 0x66, 9);
	expect_fault("limit below 0x67", TS, SEL_TASK, CALL_TASK(SEL_TASK));
	set_tss(SEL_TASK, &task, 0x67, 9);
	gdt[SEL_TASK / 8] &= ~BIT(47);
	expect_fault("not present", NP, SEL_TASK, CALL_TASK(SEL_TASK));
	set_tss(SEL_TASK, &task, 0x67, 11);
	expect_fault("busy", GP, SEL_TASK, JUMP_TASK(SEL_TASK));
	gdt[SEL_GATE / 8] = task_gate(0);
	expect_fault("gate with a null TSS", GP, 0, CALL_TASK(SEL_GATE));
	gdt[SEL_GATE / 8] = task_gate(4);
	expect_fault("gate to the LDT", GP, 4, CALL_TASK(SEL_GATE));
	tss.back = SEL_TASK;
	set_tss(SEL_TASK, &task, 0x67, 9);
	expect_fault("IRET to a TSS that is not busy", TS, SEL_TASK, ({
		write_flags(FL_NT | 2); asm volatile("iret"); }));
	tss.back = 0x7ff8;
	expect_fault("IRET behind the GDT", TS, 0x7ff8,
		({ write_flags(FL_NT | 2); asm volatile("iret"); }));
	write_flags(2);
	tss.back = 0;
	expect("TR", tr(), SEL_TSS);
}

/* ---- behind the commit: the new task's faults, caught by a task of its own ---- */

static volatile ulong caught_error, caught_back, caught_eip;
static volatile unsigned caught;

void catcher_body(ulong error);
void catcher_body(ulong error)
{
	caught++;
	caught_error = error;
	caught_back = catcher.back;
	caught_eip = task.eip;
}

asm(".text\n"
"catcher_entry:\n"
"	call catcher_body; add $4, %esp\n"
"	pushf; andl $~0x4000, (%esp); popf\n"
"	ljmp $0x40, $0\n"
"	jmp catcher_entry\n");

static void catcher_reset(void)
{
	memset(&catcher, 0, offsetof(struct tss, int_map));
	catcher.eip = (ulong)catcher_entry;
	catcher.eflags = 2;
	catcher.esp = (ulong)catcher_stack + sizeof(catcher_stack);
	catcher.cs = SEL_KCODE;
	catcher.ss = catcher.ds = catcher.es = SEL_KDATA;
	catcher.cr3 = read_cr3();
	set_tss(SEL_CATCHER, &catcher, 0x67, 9);
	caught = 0;
}

static void expect_caught(const char *name, int vector, ulong error)
{
	catcher_reset();
	idt[vector] = task_gate(SEL_CATCHER);
	JUMP_TASK(SEL_TASK);
	idt_default(vector);
	if (caught != 1 || caught_error != error)
		check(false, "%s: %u faults, error %lx, want %lx", name, caught, caught_error,
			error);
	else
		check(caught_back == SEL_TASK && caught_eip == (ulong)task_jump,
			"%s: in the new task (%lx, %lx)", name, caught_back, caught_eip);
}

static void late_faults(void)
{
	static const struct {
		const char *name;
		u16 offset, sel;
		int vector;
		ulong error;
	} t[] = {
#define F(reg) offsetof(struct tss, reg)
		{ "null CS", F(cs), 0, TS, 0 },
		{ "CS of data", F(cs), SEL_KDATA, TS, SEL_KDATA },
		{ "CS behind the GDT", F(cs), 0x7ff8, TS, 0x7ff8 },
		{ "CS with another RPL", F(cs), SEL_KCODE | 3, TS, SEL_KCODE },
		{ "null SS", F(ss), 0, TS, 0 },
		{ "SS of code", F(ss), SEL_KCODE, TS, SEL_KCODE },
		{ "SS of another level", F(ss), SEL_UDATA, TS, SEL_UDATA & ~3 },
		{ "SS not present", F(ss), SEL_ABSENT, SS, SEL_ABSENT },
		{ "DS of a system segment", F(ds), SEL_TSS, TS, SEL_TSS },
		{ "DS behind the GDT", F(ds), 0x7ff8, TS, 0x7ff8 },
		{ "ES not present", F(es), SEL_ABSENT, NP, SEL_ABSENT },
		{ "FS in no LDT", F(fs), 0x0c, TS, 0x0c },
		{ "LDT of data", F(ldt), SEL_KDATA, TS, SEL_KDATA },
		{ "LDT in the LDT", F(ldt), 0x0c, TS, 0x0c },
#undef F
	};
	unsigned i;

	group("faults in the new task");
	gdt_set(SEL_ABSENT, descriptor(0, 0xfffff, 0x13, 0xc));
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		task_reset(task_jump);
		*(u16 *)((char *)&task + t[i].offset) = t[i].sel;
		expect_caught(t[i].name, t[i].vector, t[i].error);
	}
	gdt_set(SEL_ABSENT, descriptor(0, 0xfffff, 0x1b, 0xc));
	task_reset(task_jump);
	task.cs = SEL_ABSENT;
	expect_caught("CS not present", NP, SEL_ABSENT);
	gdt_set(SEL_ABSENT, descriptor(0, 0xfff, 0x9b, 0x4));
	task_reset(task_jump);
	task.cs = SEL_ABSENT;
	expect_caught("EIP over the limit", GP, 0);
}

/* A #DF whose handler needs a stack of its own: SP is bad. */
static void double_fault(void)
{
	group("double fault");
	task_reset(task_jump);
	task.esp = 0x1000;
	task.ss = SEL_ABSENT;
	/* too short for any push at 0x1000 */
	gdt_set(SEL_ABSENT, descriptor(0, 0xff, 0x93, 0x4));
	expect_caught("no stack for the handler", DF, 0);
}

/* ---- the trap bit, CR3 ---- */

static volatile ulong trap_ip, trap_dr6;
static volatile unsigned traps;

static void on_trap(struct trap_frame *f)
{
	traps++;
	trap_ip = f->ip;
	trap_dr6 = read_dr6();
	write_dr6(0);
}

static void trap_bit(void)
{
	group("T bit");
	trap_handle(DB, on_trap);
	write_dr6(0);
	task_reset(task_iret);
	task.trap = 1;
	CALL_TASK(SEL_TASK);
	expect("one #DB", traps, 1);
	expect("before the first instruction", trap_ip, (ulong)task_iret);
	expect("DR6.BT", trap_dr6 & 0xe00f, 0x8000);
	expect("the task ran", seen.count, 1);
	trap_handle(DB, NULL);
}

static u32 pd1[1024] PAGE_ALIGNED, pd2[1024] PAGE_ALIGNED;

static volatile ulong read_there;

void read_body(void);
void read_body(void)
{
	read_there = *(volatile u32 *)0x1000000;
}
extern u8 task_read[];
asm("task_read: call read_body; iret; jmp task_read\n");

static void paging(void)
{
	unsigned i;

	group("CR3");
	for (i = 0; i < 1024; i++)
		pd1[i] = pd2[i] = i << 22 | 0x83;
	*(volatile u32 *)0x1000000 = 0x11111111;
	*(volatile u32 *)0x1400000 = 0x22222222;
	pd2[4] = pd1[5];
	write_cr4(read_cr4() | CR4_PSE);
	write_cr3((ulong)pd1);
	write_cr0(read_cr0() | CR0_PG);
	task_reset(task_read);
	task.cr3 = (ulong)pd2;
	tss.cr3 = (ulong)pd1;		/* read on the way back, never written */
	CALL_TASK(SEL_TASK);
	expect("the task's own", read_there, 0x22222222);
	expect("back", *(volatile u32 *)0x1000000, 0x11111111);
	expect("CR3", read_cr3(), (ulong)pd1);
	expect("CR3 of a TSS is not written", task.cr3, (ulong)pd2);
	write_cr0(read_cr0() & ~CR0_PG);
}

void guest_main(void)
{
	calls();
	state();
	tasks16();
	idt_gates();
	early_faults();
	/* TCG loses the new task's EIP when a fault comes during the switch, and knows no T bit. */
	if (cpuid(0x40000000, 0).ebx == 0x54474354) {
		skip("faults in the new task", "on TCG");
	} else {
		late_faults();
		double_fault();
		trap_bit();
	}
	paging();
}
