/* Interrupt stubs, the way back to a catch(), and the ways into user mode. */
#include "layout.h"

#ifdef __x86_64__
#define WORD 8
	.macro save_all
	push %rax; push %rcx; push %rdx; push %rbx; push %rbp; push %rsi; push %rdi
	push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15
	.endm
	.macro restore_all
	pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8
	pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax
	.endm
	.code64
#else
#define WORD 4
	.macro save_all
	push %eax; push %ecx; push %edx; push %ebx; push %ebp; push %esi; push %edi
	push %ds; push %es; push %fs; push %gs
	mov $SEL_KDATA, %eax; mov %eax, %ds; mov %eax, %es
	.endm
	.macro restore_all
	pop %gs; pop %fs; pop %es; pop %ds
	pop %edi; pop %esi; pop %ebp; pop %ebx; pop %edx; pop %ecx; pop %eax
	.endm
	.code32
#endif

	.text
	.globl trap_stubs
	.balign 16
trap_stubs:
vector = 0
	.rept 256
	.balign 16
	.if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
	.else
	push	$0
	.endif
	push	$vector
	jmp	trap_common
vector = vector + 1
	.endr

trap_common:
	save_all
	cld
#ifdef __x86_64__
	mov	%rsp, %rdi
	mov	%rsp, %rbx
	and	$-16, %rsp
	call	trap_dispatch
	mov	%rbx, %rsp
	restore_all
	add	$16, %rsp
	iretq
#else
	mov	%esp, %ebx
	push	%esp
	call	trap_dispatch
	mov	%ebx, %esp
	restore_all
	add	$8, %esp
	iret
#endif

/* int catch_set(struct catch_point *): 0, and later 1 when catch_land() comes back here. */
	.globl catch_set, catch_land
#ifdef __x86_64__
catch_set:
	mov	(%rsp), %rax
	mov	%rax, (%rdi)
	lea	8(%rsp), %rax
	mov	%rax, 8(%rdi)
	mov	%rbx, 16(%rdi)
	mov	%rbp, 24(%rdi)
	mov	%r12, 32(%rdi)
	mov	%r13, 40(%rdi)
	mov	%r14, 48(%rdi)
	mov	%r15, 56(%rdi)
	pushf
	pop	64(%rdi)
	xor	%eax, %eax
	ret
catch_land:
	mov	$SEL_KDATA, %eax
	mov	%eax, %ss
	mov	8(%rdi), %rsp
	mov	%eax, %ds
	mov	%eax, %es
	mov	16(%rdi), %rbx
	mov	24(%rdi), %rbp
	mov	32(%rdi), %r12
	mov	40(%rdi), %r13
	mov	48(%rdi), %r14
	mov	56(%rdi), %r15
	push	(%rdi)
	push	64(%rdi)
	popf
	mov	$1, %eax
	ret
#else
catch_set:
	mov	4(%esp), %ecx
	mov	(%esp), %eax
	mov	%eax, (%ecx)
	lea	4(%esp), %eax
	mov	%eax, 4(%ecx)
	mov	%ebx, 8(%ecx)
	mov	%ebp, 12(%ecx)
	mov	%esi, 16(%ecx)
	mov	%edi, 20(%ecx)
	pushf
	pop	32(%ecx)
	xor	%eax, %eax
	ret
catch_land:
	mov	4(%esp), %ecx
	mov	$SEL_KDATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	4(%ecx), %esp
	mov	8(%ecx), %ebx
	mov	12(%ecx), %ebp
	mov	16(%ecx), %esi
	mov	20(%ecx), %edi
	push	(%ecx)
	push	32(%ecx)
	popf
	mov	$1, %eax
	ret
#endif

/* void user_enter(fn, arg, cs): fn(arg) at CPL 3; its return is INT 0x80. */
	.globl user_enter
#ifdef __x86_64__
user_enter:
	mov	$SEL_UDATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	$user_stack_top - 64, %r8
	lea	user_return(%rip), %rax
	pushf				/* EFLAGS.AC lets the store pass under SMAP */
	pushf
	orl	$0x40000, (%rsp)
	popf
	mov	%rax, (%r8)
	popf
	push	$SEL_UDATA
	push	%r8
	pushf
	push	%rdx
	push	%rdi
	mov	%rsi, %rdi
	iretq
#else
user_enter:
	mov	4(%esp), %ecx
	mov	8(%esp), %edx
	mov	12(%esp), %ebx
	mov	$SEL_UDATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	$user_stack_top - 64, %esi
	pushf				/* EFLAGS.AC lets the stores pass under SMAP */
	pushf
	orl	$0x40000, (%esp)
	popf
	movl	$user_return, (%esi)
	mov	%edx, 4(%esi)
	popf
	push	$SEL_UDATA
	push	%esi
	pushf
	push	%ebx
	push	%ecx
	iret
#endif

	.section .user.text, "awx"
	.globl user_return
user_return:
	int	$VEC_USER_RETURN
	ud2

	.section .note.GNU-stack, "", @progbits
