/*
 * The guest's kernel for system sequences: it writes down what happens, repairs what it can, and
 * else goes on at VAR_RESUME. It needs nothing from the registers that the program left behind.
 */
#include "layout.h"

	.section .rodata
	.code64
	.globl	kernel_start, kernel_syscall, kernel_end

	.balign	16
kernel_start:
vector = 0
	.rept	256
	.balign	16
	.if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
	.else
	pushq	$0
	.endif
	pushq	$vector
	jmp	common
vector = vector + 1
	.endr

/* As a software interrupt to VECTOR_RESUME. */
kernel_syscall:
	mov	%rsp, VAR_SAVED
	mov	$STACK_IST, %esp
	pushq	$KSEL_DATA
	pushq	VAR_SAVED
	push	%r11
	pushq	$KSEL_CODE
	push	%rcx
	pushq	$0
	pushq	$VECTOR_RESUME

#define F_VECTOR	32(%rsp)
#define F_ERROR		40(%rsp)
#define F_RIP		48(%rsp)
#define F_CS		56(%rsp)
#define F_RFLAGS	64(%rsp)
#define F_RSP		72(%rsp)
#define F_SS		80(%rsp)
#define TF		0x100
#define RF		0x10000
#define NT		0x4000
#define AC		0x40000
#define ARITH		0x8d5

common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	mov	VAR_INDEX, %ebx
	incl	VAR_INDEX
	and	$63, %ebx
	shl	$6, %ebx
	add	$AT_LOG, %ebx
	mov	F_VECTOR, %rcx
	mov	%rcx, (%rbx)
	mov	F_ERROR, %rax
	mov	%rax, 8(%rbx)
	mov	F_RIP, %rax
	mov	%rax, 16(%rbx)
	mov	F_CS, %rax
	mov	%rax, 24(%rbx)
	mov	F_RFLAGS, %rax
	mov	%rax, 32(%rbx)
	mov	F_RSP, %rax
	mov	%rax, 40(%rbx)
	mov	F_SS, %rax
	mov	%rax, 48(%rbx)
	mov	%cr2, %rax
	mov	%rax, 56(%rbx)
	/* The code pages are there twice, 8000 apart. */
	mov	F_RIP, %rax
	sub	$(BASE + 0x40000), %rax
	cmp	$0xc000, %rax
	jae	defined
	and	$0x3fff, %eax
	btl	%eax, AT_UNDEFINED
	jnc	defined
	andl	$~ARITH, 32(%rbx)
	andl	$~ARITH, F_RFLAGS
defined:
	decl	VAR_BUDGET
	jz	end

	test	%ecx, %ecx
	jz	divide
	cmp	$1, %ecx
	je	debug
	cmp	$2, %ecx
	je	back
	cmp	$3, %ecx
	je	back
	cmp	$4, %ecx
	je	back
	cmp	$7, %ecx
	je	no_fpu
	cmp	$14, %ecx
	je	page_fault
	cmp	$VECTOR_END, %ecx
	je	end
	cmp	$VECTOR_RESUME, %ecx
	je	resume
	cmp	$32, %ecx
	jb	resume

back:
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

/* The arithmetic flags are undefined: SDM 2A DIV. */
divide:
	andl	$~ARITH, 32(%rbx)
	andl	$~ARITH, F_RFLAGS
resume:
	mov	VAR_RESUME, %eax
	mov	%rax, F_RIP
	movzwl	VAR_SEL, %eax
	mov	%rax, F_CS
	movzwl	VAR_SEL + 2, %eax
	mov	%rax, F_SS
	mov	VAR_RSP, %eax
	mov	%rax, F_RSP
	andl	$~(TF | RF | NT | AC), F_RFLAGS
	jmp	back

/* Some steps, then none. An instruction breakpoint needs RF to get on. */
debug:
	mov	%dr6, %rax
	mov	%rax, 8(%rbx)
	mov	$0xffff0ff0, %eax
	mov	%rax, %dr6
	orl	$RF, F_RFLAGS
	decl	VAR_STEPS
	jnz	back
	movl	$STEPS, VAR_STEPS
	andl	$~TF, F_RFLAGS
	mov	$0x400, %eax
	mov	%rax, %dr7
	jmp	back

no_fpu:
	clts
	jmp	back

/* Pages that only wait to be asked for; any other is a fault like others. */
page_fault:
	mov	%cr2, %rax
	mov	%rax, %rdx
	sub	$AT_LAZY, %rax
	cmp	$(AT_LAZY_END - AT_LAZY), %rax
	jae	resume
	testl	$1, F_ERROR
	jnz	resume
	sub	$BASE, %rdx
	shr	$12, %edx
	orl	$7, AT_PT(, %rdx, 8)
	orl	$7, AT_PT_B(, %rdx, 8)
	mov	%cr2, %rax
	invlpg	(%rax)
	jmp	back

end:
	out	%al, $PORT_END
	hlt
kernel_end:

	.section .note.GNU-stack, "", @progbits
