/* Real mode and 16-bit protected mode. SDM 3A chapter 20, 3A 9.9. */
#include "guest.h"
#include "chips.h"

/* Results are left here by 16-bit code; IVT handlers note their vector, the saved IP and SP. */
#define R	((volatile u16 *)0x6000)
#define RL	((volatile u32 *)0x6000)

/*
 * A handler for each vector V: notes it with the frame's IP, CS, FLAGS at 0x6080, and returns to the
 * address at 0x6090.
 */
REAL_CODE(
	".macro handler v\n"
	".globl real_vector_\\v\n"
	"real_vector_\\v:\n"
	"	movw $\\v, 0x6080\n"
	"	jmp real_note\n"
	".endm\n"
	"handler 0\n handler 1\n handler 3\n handler 4\n handler 5\n handler 6\n handler 12\n handler 13\n"
	"handler 0x40\n"
	"real_note:\n"
	"	push %bp\n"
	"	mov %sp, %bp\n"
	"	mov %sp, 0x6088\n"
	"	mov 2(%bp), %ax\n"
	"	mov %ax, 0x6082\n"
	"	mov 4(%bp), %ax\n"
	"	mov %ax, 0x6084\n"
	"	mov 6(%bp), %ax\n"
	"	mov %ax, 0x6086\n"
	"	andw $0xfeff, 6(%bp)\n"
	"	pushf\n"
	"	pop 0x608a\n"
	"	mov 0x6090, %ax\n"
	"	mov %ax, 2(%bp)\n"
	"	pop %bp\n"
	"	iret\n");
#define NOTE_VECTOR	(R[0x40])
#define NOTE_IP		(R[0x41])
#define NOTE_CS		(R[0x42])
#define NOTE_FLAGS	(R[0x43])
#define NOTE_SP		(R[0x44])
#define NOTE_INSIDE	(R[0x45])
void real_vector_0(void), real_vector_1(void), real_vector_3(void), real_vector_4(void), real_vector_5(void),
     real_vector_6(void), real_vector_12(void), real_vector_13(void), real_vector_0x40(void);

/* Bodies that fault once: name(), and name_at is where. */
#define FAULTING(name, insn) \
	void real_##name(void); \
	extern u8 real_##name##_at[]; \
	REAL_CODE(".globl real_" #name ", real_" #name "_at\n" \
		"real_" #name ":\n" \
		"	movw $real_" #name "_end, 0x6090\n" \
		"	" insn "\n" \
		"real_" #name "_end:\n" \
		"	ret\n");
#define HERE(name) "\nreal_" #name "_at: "
FAULTING(ud, HERE(ud) "ud2")
FAULTING(de, "xor %bx, %bx; mov $5, %ax;" HERE(de) "div %bl")
FAULTING(limit, "mov $0xffff, %bx;" HERE(limit) "mov (%bx), %ax")
FAULTING(stack_limit, "mov $0xffff, %bp;" HERE(stack_limit) "mov (%bp), %ax; xor %bp, %bp")
FAULTING(far_offset, "mov $0x10000, %ebx;" HERE(far_offset) "mov (%ebx), %al")
FAULTING(int3, "int3; " HERE(int3))
FAULTING(int40, "mov $0x0ed7, %ax; push %ax; popf; sti; int $0x40; " HERE(int40) "cli")
FAULTING(into, "mov $0x7f, %al; add $1, %al; into; " HERE(into))
FAULTING(bound, "movl $0x00090003, 0x6100; mov $2, %ax;" HERE(bound) "bound %ax, 0x6100")
FAULTING(lldt, HERE(lldt) "lldt %ax")
FAULTING(str, HERE(str) "str %ax")
FAULTING(lar, HERE(lar) "lar %ax, %ax")
FAULTING(verr, HERE(verr) "verr %ax")
FAULTING(arpl, HERE(arpl) ".byte 0x63, 0xc0")
FAULTING(jump_out, "mov $0x17010, %eax;" HERE(jump_out) "jmpl *%eax")
FAULTING(lock_nop, HERE(lock_nop) ".byte 0xf0, 0x90")
FAULTING(trap, "pushf; pop %ax; or $0x100, %ax; push %ax; popf; nop; " HERE(trap) "nop")

static void faulting(const char *name, void (*fn)(void), int vector, const void *at)
{
	NOTE_VECTOR = 0xffff;
	real_call(fn);
	if (NOTE_VECTOR != vector || NOTE_IP != (ulong)at || NOTE_CS)
		check(false, "%s: vector %d at %x:%x, want %d at %x", name, NOTE_VECTOR, NOTE_CS, NOTE_IP, vector,
		      (u32)(ulong)at);
	else
		check(true, "%s", name);
}

static void faults(void)
{
	group("real mode");
	real_vector(0, real_vector_0);
	real_vector(1, real_vector_1);
	real_vector(3, real_vector_3);
	real_vector(4, real_vector_4);
	real_vector(5, real_vector_5);
	real_vector(6, real_vector_6);
	real_vector(12, real_vector_12);
	real_vector(13, real_vector_13);
	real_vector(0x40, real_vector_0x40);
	faulting("ud2", real_ud, 6, real_ud_at);
	faulting("div by zero", real_de, 0, real_de_at);
	faulting("word at 0xffff", real_limit, 13, real_limit_at);
	faulting("word at SS:0xffff", real_stack_limit, 12, real_stack_limit_at);
	faulting("offset 0x10000", real_far_offset, 13, real_far_offset_at);
	faulting("int3", real_int3, 3, real_int3_at);
	faulting("into", real_into, 4, real_into_at);
	faulting("bound", real_bound, 5, real_bound_at);
	faulting("lldt", real_lldt, 6, real_lldt_at);
	faulting("str", real_str, 6, real_str_at);
	faulting("lar", real_lar, 6, real_lar_at);
	faulting("verr", real_verr, 6, real_verr_at);
	faulting("arpl", real_arpl, 6, real_arpl_at);
	faulting("lock nop", real_lock_nop, 6, real_lock_nop_at);
	faulting("single-step", real_trap, 1, real_trap_at);
	faulting("int $0x40", real_int40, 0x40, real_int40_at);
	expect("flags pushed by int", NOTE_FLAGS & 0xed5, 0x0ed5 & 0xfff);
	expect("IF and TF inside", NOTE_INSIDE & 0x300, 0);
	expect("6 bytes pushed", NOTE_SP, 0x7000 - 2 - 6 - 2);
}

void real_work(void);
extern u8 real_work_far[], real_work_word[];
REAL_CODE(
	".globl real_work, real_work_far\n"
	"real_work:\n"
	/* segment arithmetic: the byte at 0xffff:0x10 is the one at 0x100000 */
	"	mov $0xffff, %ax; mov %ax, %es; mov %es:0x10, %al; mov %al, 0x6000\n"
	"	mov $0x600, %ax; mov %ax, %es; movw $0x1234, %es:2\n"			/* 0x6002 */
	/* far call and return, with parameters dropped */
	"	mov %sp, %si; push $0x5555; push $0x6666; lcall $0x100, $(real_work_far - 0x1000)\n"
	"	sub %sp, %si; mov %si, 0x6004; mov %dx, 0x6006\n"
	/* 32-bit operands on a 16-bit stack */
	"	pushl $0x12345678; pop %ax; pop %dx; mov %ax, 0x6008; mov %dx, 0x600a\n"
	"	mov $0x11112222, %ecx; pushal; add $24, %sp; popl 0x600c; add $4, %sp\n"	/* ECX */
	/* enter and leave */
	"	mov %sp, %si; mov $0x7777, %bp; enter $8, $0; mov %si, %ax; sub %sp, %ax; mov %ax, 0x6010\n"
	"	leave; mov %bp, 0x6012; sub %sp, %si; mov %si, 0x6014\n"
	/* loop counts CX, or ECX by prefix; strings use SI, DI, CX */
	"	mov $0xabcd0003, %ecx; xor %ax, %ax\n"
	"1:	inc %ax; loop 1b; mov %ax, 0x6016; mov %ecx, 0x6018\n"
	"	mov $0xeeee6200, %edi; mov $0x5a, %al; mov $0xdddd0004, %ecx; xor %bx, %bx; mov %bx, %es\n"
	"	rep stosb; mov %edi, 0x601c; mov %ecx, 0x6020; mov 0x6200, %eax; mov %eax, 0x6024\n"
	/* 32-bit addressing with scale */
	"	mov $0x3000, %ebx; mov $0x0d00, %esi; mov 0x0000(%ebx, %esi, 4), %ax; mov %ax, 0x6028\n"
	/* SP wraps at 64 KiB */
	"	mov %esp, %ebp; mov $0, %sp; push $0x4321; mov %sp, 0x602a; pop %ax; mov %ax, 0x602c\n"
	"	mov %esp, 0x6030; mov %ebp, %esp\n"
	/* smsw, sidt */
	"	smsw %ax; mov %ax, 0x6034; sidtl 0x6036\n"
	/* self-pop of segment registers */
	"	push $0x600; pop %fs; mov %fs:2, %ax; mov %ax, 0x603c; mov %fs, 0x603e\n"
	/* lds, les */
	"	movl $0x06000002, 0x6050; les 0x6050, %di; mov %es:(%di), %ax; mov %ax, 0x6040; mov %es, 0x6042\n"
	/* xlat, with a segment override */
	"	mov $0x6000, %bx; mov $3, %al; xlat; mov %al, 0x6044\n"
	"	xor %ax, %ax; mov %ax, %es; mov %ax, %fs; xor %ebp, %ebp\n"
	"	ret\n"
	"real_work_far:\n"
	"	mov %sp, %bp; mov 4(%bp), %dx; lret $4\n");

static void work(void)
{
	int i;

	for (i = 0; i < 0x80; i++)
		R[i] = 0;
	*(volatile u16 *)(0x3000 + 0xd00 * 4) = 0x7e7e;
	real_call(real_work);
	expect("0xffff:0x10 is 1 MiB", R[0] & 0xff, *(u8 *)0x100000);
	expect("segment times 16", R[1], 0x1234);
	expect("far return drops parameters", R[2], 0);
	expect("far call's parameter", R[3], 0x6666);
	expect("push of 32 bits", RL[2], 0x12345678);
	expect("pushal", RL[3], 0x11112222);
	expect("enter 8", R[8], 10);
	expect("leave: BP", R[9], 0x7777);
	expect("leave: SP", R[10], 0);
	expect("loop count", R[11], 3);
	expect("loop leaves the upper half of ECX", RL[6], 0xabcd0000);
	expect("rep stosb: EDI", RL[7], 0xeeee6204);
	expect("rep stosb: ECX", RL[8], 0xdddd0000);
	expect("rep stosb: memory", RL[9], 0x5a5a5a5a);
	expect("32-bit address", R[0x14], 0x7e7e);
	expect("push at SP 0", R[0x15], 0xfffe);
	expect("its value", R[0x16], 0x4321);
	expect("upper half of ESP is kept", RL[0xc], 0);
	expect("smsw", R[0x1a] & 1, 0);
	expect("sidt limit", R[0x1b], 0x3ff);
	expect("pop fs", R[0x1e], 0x1234);
	expect("fs", R[0x1f], 0x600);
	expect("les", R[0x20], 0x1234);
	expect("les segment", R[0x21], 0x600);
	expect("xlat", R[0x22] & 0xff, 0x12);
}

void real_unreal(void);
REAL_CODE(
	".globl real_unreal\n"
	"real_unreal:\n"
	"	mov $0x100000, %ebx; mov %fs:(%ebx), %eax; mov %eax, 0x6000; mov (%ebx), %eax; mov %eax, 0x6004\n"
	"	ret\n");

void real_hlt(void), real_irq(void);
REAL_CODE(
	".globl real_hlt, real_irq\n"
	"real_hlt: movw $0, 0x6000\n"
	"1:	sti; hlt; cli; cmpw $3, 0x6000; jb 1b\n"
	"	ret\n"
	"real_irq: push %ax; incw %cs:0x6000; mov $0x20, %al; outb %al, $0x20; pop %ax; iret\n");

static void unreal(void)
{
	real_call_unreal(real_unreal);
	expect("limits stay when CR0.PE is cleared", RL[0], *(u32 *)0x100000);
	expect("in DS too", RL[1], *(u32 *)0x100000);
	real_vector(0x20, real_irq);
	pit_set(0, 2, 5000);
	pic_mask(0xfffe);
	real_call(real_hlt);
	pic_mask(0xffff);
	/* More, where a busy host was late and several came at once. */
	check(R[0] >= 3 && R[0] < 1000, "hlt woken by the PIT, three times: %u", R[0]);
}

/* ---- 16-bit protected mode ---- */
void prot16_work(void);
extern u8 prot16_far[];
REAL_CODE(
	".globl prot16_work\n"
	"prot16_work:\n"
	"	mov %cs, 0x6000; mov $0x1234abcd, %eax; mov %eax, 0x6004\n"
	"	mov $0x77770000, %ebp; mov %esp, %esi; mov %bp, %sp; push %ax; mov %sp, 0x6008; mov %esi, %esp\n"
	"	smsw %ax; mov %ax, 0x600a\n"
	"	lcall $0x50, $prot16_far\n"
	"	pushf; pop %ax; mov %ax, 0x600e\n"
	"	mov $0x58, %bx; lar %bx, %ax; mov %ax, 0x6010; lsl %bx, %eax; mov %eax, 0x6014\n"
	"	sldt %eax; mov %eax, 0x6018; str %ax; mov %ax, 0x601c\n"
	"	ret\n"
	"prot16_far: mov %sp, %bp; mov 2(%bp), %ax; mov %ax, 0x600c; lret\n");

static void prot16(void)
{
	int i;

	group("16-bit protected mode");
	for (i = 0; i < 0x80; i++)
		R[i] = 0;
	data16_call(prot16_work);
	expect("CS", R[0], SEL_KCODE16);
	expect("32-bit operand", RL[1], 0x1234abcd);
	expect("SP wraps at 64 KiB", R[4], 0xfffe);
	expect("smsw", R[5] & 1, 1);
	expect("far call pushes CS", R[6], SEL_KCODE16);
	expect("lar", R[8] & 0xff00, 0x9300);
	expect("lsl", RL[5], 0xffff);
	expect("str", R[0xe], SEL_TSS);
}

/* ---- over and over ---- */
static void back_and_forth(void)
{
	int i;

	group("mode switches");
	sweep("real mode and back");
	for (i = 0; i < 100; i++) {
		R[0] = 0;
		real_call_unreal(real_unreal);
		sweep_check(RL[0] == *(u32 *)0x100000, "round %d", i);
	}
	sweep_end();
}

void guest_main(void)
{
	faults();
	work();
	unreal();
	prot16();
	back_and_forth();
	group("real mode");
	*(volatile u8 *)0x7010 = *(volatile u8 *)0x17010 = 0xc3;		/* who does not check lands here */
	faulting("jump to 0x17010", real_jump_out, 13, real_jump_out_at);
}
