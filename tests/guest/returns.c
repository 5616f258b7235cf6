/*
 * Near calls and returns that do not pair: whoever predicts where a RET leads, or remembers what lay
 * there, must still go where the stack says, to the code that is there now, in the present mode.
 * SDM 2 CALL, RET; SDM 3A 4.10.4, 8.1.3. Everything is done at CPL 0 and at CPL 3.
 */
#include "paging.h"

#ifdef __x86_64__
#define AX "%rax"
#define DX "%rdx"
#define DI "%rdi"
#define SP "%rsp"
#define W "8"
#else
#define AX "%eax"
#define DX "%edx"
#define DI "%edi"
#define SP "%esp"
#define W "4"
#endif

#define SERVICE		0x57
#define SERVICE_INSN	"int $0x57"

/* What the kernel does for code at either level, in the midst of a call. */
static void (*service)(struct trap_frame *f);

static void service_trap(struct trap_frame *f)
{
	if (service)
		service(f);
}

static bool at_user;

/* fn(arg) at the level under test. */
static ulong run(ulong (*fn)(ulong), ulong arg)
{
	if (!at_user)
		return fn(arg);
	if (user_call(fn, arg) != NONE)
		return ~0ul - (ulong)fault.vector;
	return fault.f.ax;
}

/* ---- stacks --------------------------------------------------------------------------------------- */

ulong outer_sp USER_DATA, other_sp USER_DATA, stack_high USER_DATA, counter USER_DATA;

extern u8 deep[], jump[], skip_two[], plus_two[], swap[], pops[], side[], coroutine[];
asm(".pushsection .user.text, \"ax\"\n"
	/* AX := the sum of 1 to DI, a level for each */
	"deep:	test " DI ", " DI "\n	jz 1f\n	push " DI "\n	dec " DI "\n	call deep\n"
	"	pop " DX "\n	add " DX ", " AX "\n	ret\n"
	"1:	xor %eax, %eax\n	ret\n"
	/* DI levels down, and all of them back at once */
	"jump:	mov " SP ", outer_sp\n"
	"1:	test " DI ", " DI "\n	jz 2f\n	dec " DI "\n	call 1b\n	ud2\n"
	"2:	mov outer_sp, " SP "\n	mov $0x77, %eax\n	ret\n"
	/* returns behind the two bytes that follow the call */
	"skip_two: add" WORD_SUFFIX " $2, (" SP ")\n	ret\n"
	"plus_two: mov $1, %eax\n	call skip_two\n	ud2\n	inc %eax\n	ret\n"
	/* the other stack */
	"swap:	xchg " SP ", other_sp\n	ret\n"
	"coroutine: inc" WORD_SUFFIX " counter\n	call swap\n	incl counter\n	call side\n	jmp coroutine\n"
	"side:	call 1f\n1:	call 2f\n	pop " DX "\n	ret\n2:	ret\n"
	/* takes two arguments off the stack */
	"pops:	mov " W "(" SP "), " AX "\n	add 2*" W "(" SP "), " AX "\n	ret $2*" W "\n"
	".popsection\n");

USER_TEXT static ulong go_deep(ulong n)
{
	ulong v;

	asm volatile("mov %%esp, %%ebx\n	mov stack_high, %%esp\n	call deep\n	mov %%ebx, %%esp"
		: "=a"(v), "+D"(n) : : "bx", "dx", "memory", "cc");
	return v;
}

USER_TEXT static ulong go_jump(ulong rounds)
{
	ulong v = 0, i, n, level;

	for (i = 0; i < rounds; i++) {
		level = i % 50;
		asm volatile("call jump" : "=a"(n), "+D"(level) : : "memory", "cc");
		v += n == 0x77;
	}
	return v;
}

/* PUSH and RET in place of a jump, and CALL in place of a push: alone and inside of calls. */
USER_TEXT static ulong go_unpaired(ulong rounds)
{
	ulong v = 0, n;

	while (rounds--) {
		asm volatile("xor %%eax, %%eax\n"
			"	call 3f\n	inc %%eax\n	jmp 9f\n"
			"3:	push $4f\n	ret\n	ud2\n"
			"4:	inc %%eax\n	call 5f\n	ud2\n"
			"5:	add $" W ", %" SP "\n	call 6f\n	inc %%eax\n	ret\n"
			"6:	inc %%eax\n	ret\n"
			"9:" : "=a"(n) : : "memory", "cc");
		v += n == 4;
	}
	return v;
}

USER_TEXT static ulong go_skip(ulong rounds)
{
	ulong v = 0, n;

	while (rounds--) {
		asm volatile("call plus_two" : "=a"(n) : : "memory", "cc");
		v += n == 2;
	}
	return v;
}

USER_TEXT static ulong go_coroutine(ulong rounds)
{
	ulong *top = (ulong *)stack_high;

	counter = 0;
	*--top = (ulong)coroutine;
	other_sp = (ulong)top;
	while (rounds--)
		asm volatile("call swap\n	call side" : : : "dx", "memory", "cc");
	return counter;
}

USER_TEXT static ulong go_pops(ulong rounds)
{
	ulong v = 0, n;

	while (rounds--) {
		asm volatile("push $30\n	push $12\n	call pops" : "=a"(n) : : "memory", "cc");
		v += n == 42;
	}
	return v;
}

/* A service, such as the kernel's handler that calls and returns itself, between call and return. */
USER_TEXT static ulong go_service(ulong rounds)
{
	ulong v = 0, n;

	while (rounds--) {
		asm volatile("	xor %%eax, %%eax\n	call 1f\n	inc %%eax\n	jmp 9f\n"
			"1:	call 2f\n	inc %%eax\n	ret\n"
			"2:	" SERVICE_INSN "\n	inc %%eax\n	ret\n"
			"9:" : "=a"(n) : : "memory", "cc");
		v += n == 3;
	}
	return v;
}

static void service_calls(struct trap_frame *f)
{
	static u32 n;

	counter += go_pops(n++ & 3);
}

static void stacks(void)
{
	static const ulong depths[] = { 1, 15, 16, 17, 31, 33, 63, 64, 65, 500, 1000, 1023, 1024, 1025, 1100,
		3000, 100000, 1000000 };
	u32 i, k;

	sweep("recursion of every depth");
	for (k = 0; k < 2; k++)
		for (i = 0; i < ARRAY_SIZE(depths); i++)
			sweep_check((u32)run(go_deep, depths[i]) == (u32)((u64)depths[i] * (depths[i] + 1) / 2),
				"%lu levels", depths[i]);
	sweep_end();
	expect("out of many levels at once", run(go_jump, 50000), 50000);
	expect("a return without a call, a call without a return", run(go_unpaired, 50000), 50000);
	expect("return addresses that the callee moves", run(go_skip, 20000), 20000);
	expect("two stacks that take turns", run(go_coroutine, 20000), 39999);
	expect("returns that take arguments along", run(go_pops, 20000), 20000);
	service = service_calls;
	expect("calls of the kernel in between", run(go_service, 3000), 3000);
	service = NULL;
}

/* ---- faults ------------------------------------------------------------------------------------------ */

#ifdef __x86_64__
static ulong hole_sp;
ulong ret_at USER_DATA;
#define AT_USER(insn)	"movq $771f, ret_at\n771: " insn "\n"

USER_TEXT static ulong ret_to(ulong target)
{
	asm volatile("mov %%rsp, outer_sp\n	call 1f\n	ud2\n"
		"1:	push %0\n	mov %%rsp, other_sp\n" AT_USER("ret") : : "r"(target) : "memory");
	return 0;
}

USER_TEXT static ulong ret_imm_to(ulong target)
{
	asm volatile("call 1f\n	ud2\n1:	push %0\n	mov %%rsp, other_sp\n" AT_USER("ret $16") : : "r"(target) : "memory");
	return 0;
}

USER_TEXT static ulong ret_on(ulong sp)
{
	asm volatile("call 1f\n	ud2\n1:	mov %0, %%rsp\n	mov %%rsp, other_sp\n" AT_USER("ret") : : "r"(sp) : "memory");
	return 0;
}

USER_TEXT static ulong call_on(ulong sp)
{
	asm volatile("call 1f\n	ud2\n1:	mov %0, %%rsp\n	mov %%rsp, other_sp\n" AT_USER("call deep") : : "r"(sp) : "memory");
	return 0;
}

USER_TEXT static ulong call_reg_on(ulong sp)
{
	asm volatile("lea deep, %%rax\n	mov %0, %%rsp\n	mov %%rsp, other_sp\n" AT_USER("call *%%rax") : : "r"(sp) : "memory", "rax");
	return 0;
}

static int vector_of(ulong (*fn)(ulong), ulong arg)
{
	int v = at_user ? user_call(fn, arg) : catch(fn(arg));

	mark = ret_at;
	return v;
}

static void faults(void)
{
	ulong level = at_user ? PF_U : 0;
	u32 k;

	/* The second time the code around is known. */
	for (k = 0; k < 2; k++) {
		expect_vector_at("ret to a non-canonical address", vector_of(ret_to, 0x800000000000), GP, 0);
		expect("leaves the stack pointer", fault.f.sp, other_sp);
		expect_vector_at("ret $16 to one", vector_of(ret_imm_to, 1ul << 63), GP, 0);
		expect("leaves the stack pointer", fault.f.sp, other_sp);
		expect_vector("ret to where nothing is", vector_of(ret_to, TEST_VA + 0x10ff000), PF, level +
			(rdmsr(MSR_EFER) & EFER_NXE ? PF_I : 0));
		expect("at the target", fault.f.ip, TEST_VA + 0x10ff000);
		expect("the stack pointer has moved", fault.f.sp, other_sp + 8);
	}
	if (!at_user)
		return;
	for (k = 0; k < 2; k++) {
		expect_vector_at("ret from no stack", vector_of(ret_on, hole_sp), PF, PF_U);
		expect("where it was", fault.f.sp, hole_sp);
		expect_vector_at("call on no stack", vector_of(call_on, hole_sp), PF, PF_U | PF_W);
		expect("where it was", fault.f.sp, hole_sp);
		expect_vector_at("call of a register", vector_of(call_reg_on, hole_sp), PF, PF_U | PF_W);
		expect("where it was", fault.f.sp, hole_sp);
	}
}

/* ---- what lies at the return address ----------------------------------------------------------------- */

#define CODE_VA		(TEST_VA + 0x1000000)

/* 0: call 1f; mov $value, %eax; ret; 1: jmp *%rbx    32: call *%rbx; mov $value, %eax; ret */
static void put_caller(u8 *p, u32 value)
{
	static const u8 direct[] = { 0xe8, 6, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xc3, 0xff, 0xe3 };
	static const u8 indirect[] = { 0xff, 0xd3, 0xb8, 0, 0, 0, 0, 0xc3 };

	memcpy(p, direct, sizeof(direct));
	memcpy(p + 32, indirect, sizeof(indirect));
	*(u32 *)(p + 6) = *(u32 *)(p + 35) = value;
}

extern u8 do_service[], do_interrupt[], do_store[], do_nothing[], system_call[];
asm(".pushsection .user.text, \"ax\"\n"
	"do_nothing: ret\n"
	"do_interrupt: " SERVICE_INSN "\n	ret\n"
	"do_store: mov %ecx, 6(%rdx)\n	mov %ecx, 35(%rdx)\n	ret\n"
	/* by SYSCALL, or by a call in the kernel itself */
	"do_service: push %rcx\n	push %r11\n	mov %cs, %eax\n	test $3, %al\n	jz 1f\n"
	"	syscall\n	jmp 2f\n"
	"1:	push %rdx\n	sub $8, %rsp\n	call service_call\n	add $8, %rsp\n	pop %rdx\n"
	"2:	pop %r11\n	pop %rcx\n	ret\n"
	".popsection\n"
	"system_call: mov %rsp, system_sp\n	mov $trap_stack_top - 8192, %rsp\n"
	"	push %rcx\n	push %r11\n	push %rdx\n	push %rbx\n	call service_call\n"
	"	pop %rbx\n	pop %rdx\n	pop %r11\n	pop %rcx\n	mov system_sp, %rsp\n	sysretq\n");

ulong system_sp;
__attribute__((used)) void service_call(void);
void service_call(void)
{
	if (service)
		service(NULL);
}

struct caller { ulong at; u8 *callee; ulong page; u32 value; };
struct caller caller USER_DATA;

USER_TEXT static ulong through_caller(ulong at)
{
	ulong v;

	asm volatile("call *%1" : "=a"(v) : "r"(at), "b"(caller.callee), "d"(caller.page), "c"(caller.value)
		: "memory", "cc");
	return v;
}

static ulong call_by(ulong at, void *callee, ulong page, u32 value)
{
	caller = (struct caller){ .callee = callee, .page = page, .value = value };
	return run(through_caller, at);
}

static u8 *frame[2];

static void rewritten(void)
{
	u32 i;

	put_caller(frame[0], 0);
	page_map(CODE_VA, (ulong)frame[0], PTE_P | PTE_W | PTE_U);
	page_map(CODE_VA + 0x1000, (ulong)frame[0], PTE_P | PTE_W | PTE_U);
	sweep("the caller is rewritten before it is returned to");
	for (i = 1; i < 300; i++) {
		sweep_check(call_by(CODE_VA, do_store, CODE_VA, i) == i, "direct, round %u", i);
		sweep_check(call_by(CODE_VA + 32, do_store, CODE_VA, 1000 + i) == 1000 + i, "indirect, round %u", i);
		sweep_check(call_by(CODE_VA, do_store, CODE_VA + 0x1000, 2000 + i) == 2000 + i, "by an alias, round %u", i);
		sweep_check(call_by(CODE_VA + (i & 1 ? 32 : 0), do_nothing, 0, 0) == 2000 + i, "left alone, round %u", i);
	}
	sweep_end();
}

static void set_leaf(ulong pa, u64 flags)
{
	*page_entry(CODE_VA, 1) = pa | flags;
}

static u32 turn;
static void other_frame(struct trap_frame *f)
{
	set_leaf((ulong)frame[++turn & 1], PTE_P | PTE_W | PTE_U);
	invlpg((void *)CODE_VA);
}

static void other_frame_cr3(struct trap_frame *f)
{
	set_leaf((ulong)frame[++turn & 1], PTE_P | PTE_W | PTE_U);
	tlb_flush();
}

static void remapped(const char *name, void (*by)(struct trap_frame *f))
{
	static u8 *const callee[] = { do_nothing, do_service, do_interrupt };
	u32 i;
	ulong v;

	put_caller(frame[0], 0xa0);
	put_caller(frame[1], 0xa1);
	turn = 0;
	set_leaf((ulong)frame[0], PTE_P | PTE_W | PTE_U);
	invlpg((void *)CODE_VA);
	service = by;
	sweep(name);
	for (i = 0; i < 300; i++) {
		v = call_by(CODE_VA + (i & 2 ? 32 : 0), callee[i / 4 % 3], 0, 0);
		sweep_check(v == 0xa0 + (turn & 1), "round %u: %lx", i, v);
	}
	sweep_end();
	service = NULL;
}

static void page_gone(struct trap_frame *f)
{
	set_leaf(0, 0);
	invlpg((void *)CODE_VA);
}

static void page_nx(struct trap_frame *f)
{
	set_leaf((ulong)frame[0], PTE_P | PTE_U | PTE_NX);
	invlpg((void *)CODE_VA);
}

static void gone(const char *name, void (*by)(struct trap_frame *f), ulong error)
{
	u32 k;

	for (k = 0; k < 3; k++) {
		service = NULL;
		set_leaf((ulong)frame[0], PTE_P | PTE_W | PTE_U);
		invlpg((void *)CODE_VA);
		caller = (struct caller){ .callee = do_service };
		run(through_caller, CODE_VA);
		service = by;
		expect_vector(name, vector_of(through_caller, CODE_VA), PF, error | (at_user ? PF_U : 0));
		expect("at the return address", fault.f.ip, CODE_VA + 5);
	}
	service = NULL;
}

/* ---- other address spaces ------------------------------------------------------------------------------ */

extern u64 boot_pml4[512];
static ulong root[2];

static void roots_make(void)
{
	u64 *table = page_alloc();
	ulong va = CODE_VA;
	int l;

	memcpy(table, boot_pml4, 4096);
	root[0] = read_cr3() & PTE_ADDR;
	root[1] = (ulong)table;
	for (l = 4; l > 1; l--) {
		u64 *next = page_alloc();

		table[va >> (3 + 9 * l) & 511] = (ulong)next | PTE_P | PTE_W | PTE_U;
		table = next;
	}
	table[va >> 12 & 511] = (ulong)frame[1] | PTE_P | PTE_W | PTE_U;
}

static u64 cr3_bits[2];
static void other_root(struct trap_frame *f)
{
	turn++;
	write_cr3(root[turn & 1] | cr3_bits[turn & 1]);
}

static void spaces(void)
{
	remapped("returned to in another address space", other_root);
	write_cr3(root[0]);
	if (!(cpuid(1, 0).ecx & BIT(17))) {
		skip("returned to under another PCID", "no PCID");
		return;
	}
	write_cr4(read_cr4() | CR4_PCIDE);
	cr3_bits[0] = 1 | 1ul << 63;
	cr3_bits[1] = 2 | 1ul << 63;
	write_cr3(root[0] | 1);
	write_cr3(root[1] | 2);
	write_cr3(root[0] | cr3_bits[0]);
	remapped("returned to under another PCID", other_root);
	cr3_bits[0] = cr3_bits[1] = 0;
	write_cr3(root[0]);
	write_cr4(read_cr4() & ~CR4_PCIDE);
	tlb_flush();
}

/* ---- another mode ---------------------------------------------------------------------------------- */

/* At the return address: INC RAX in 64-bit mode; DEC EAX, INC EAX in compatibility mode. */
extern u8 to_compat[];
asm(".pushsection .user.text, \"ax\"\n"
	"to_compat: mov $5, %eax\n	test %rdi, %rdi\n	call 1f\n	.byte 0x48, 0xff, 0xc0\n	int $0x80\n"
	"1:	jz 2f\n	lea 2f, %rdx\n	push $0x1b\n	push %rdx\n	lretq\n"
	"2:	ret\n"
	".popsection\n");

static void modes(void)
{
	u32 k;

	for (k = 0; k < 3; k++) {
		expect("64-bit code", run((ulong (*)(ulong))to_compat, 0), 6);
		expect("called in 64-bit mode, returned to in compatibility mode", run((ulong (*)(ulong))to_compat, 1), 5);
	}
}

/* The kernel returns to an address that user code has called from. */
ulong resume USER_DATA, level_seen USER_DATA;
extern u8 ask_level[], ask_back[];
asm(".pushsection .user.text, \"ax\"\n"
	"ask_level: call do_service\n"
	"ask_back: mov %cs, %eax\n	and $3, %eax\n	cmpq $0, resume\n	jne 1f\n	ret\n"
	"1:	jmp *resume\n"
	".popsection\n");

static void return_to_user(struct trap_frame *f)
{
	asm volatile("movq $1f, resume\n	push $ask_back\n	ret\n1:	movq $0, resume" : "=a"(level_seen) : : "memory", "cc");
}

static void levels(void)
{
	u32 k;

	service = return_to_user;
	for (k = 0; k < 3; k++) {
		level_seen = 99;
		expect("user code, called from the kernel, goes on", run((ulong (*)(ulong))ask_level, 0), at_user ? 3 : 0);
		expect("and ran at the kernel's level there", level_seen, 0);
	}
	service = NULL;
}

static void pages(void)
{
	spaces();
	rewritten();
	remapped("remapped and INVLPG before it is returned to", other_frame);
	remapped("remapped and CR3 before it is returned to", other_frame_cr3);
	put_caller(frame[0], 0xa0);
	gone("returned to a page that went away", page_gone, rdmsr(MSR_EFER) & EFER_NXE ? PF_I : 0);
	gone("returned to a page that is not to be executed", page_nx, PF_P | PF_I);
	set_leaf((ulong)frame[0], PTE_P | PTE_W | PTE_U);
	invlpg((void *)CODE_VA);
	levels();
}

static void setup(void)
{
	ulong va;

	wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_KCODE << 32);
	wrmsr(MSR_LSTAR, (ulong)system_call);
	wrmsr(MSR_SFMASK, FL_IF | FL_DF | FL_TF);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);

	for (va = 0x2000000; va < 0x3000000; va += 0x200000) {
		*page_entry(va, 2) |= PTE_U;
		invlpg((void *)va);
	}
	frame[0] = page_alloc();
	frame[1] = page_alloc();
	hole_sp = TEST_VA + 0x10fe800;
	page_map(CODE_VA, (ulong)frame[0], PTE_P | PTE_W | PTE_U);
	roots_make();
}
#else
static void setup(void) { }
static void faults(void) { }
static void pages(void) { }
static void modes(void) { }
#endif

void guest_main(void)
{
	idt_set(SERVICE, SEL_KCODE, trap_stub(SERVICE), GATE_INT, 3, 0);
	trap_handle(SERVICE, service_trap);
	stack_high = 0x2fff000;
	setup();
	for (at_user = false; ; at_user = true) {
		group(at_user ? "CPL 3" : "CPL 0");
		pages();
		stacks();
		faults();
		if (at_user)
			break;
	}
	modes();
}
