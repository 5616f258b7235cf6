/* The way from 32-bit protected mode to real mode and 16-bit protected mode, and back. SDM 3A 9.9. */
#include "layout.h"

#ifndef __x86_64__
	.text
	.code32
	.globl real_call, real_call_unreal, data16_call
real_call:
	mov	$SEL_KDATA16, %eax
	jmp	1f
real_call_unreal:
	mov	$SEL_KDATA, %eax
1:	mov	4(%esp), %ecx
	push	%ebx
	push	%ebp
	push	%esi
	push	%edi
	mov	%ecx, %ebx
	mov	%esp, saved_esp
	sidt	saved_idtr
	lidt	real_idtr
	ljmp	$SEL_KCODE16, $real_enter

data16_call:
	mov	4(%esp), %ecx
	push	%ebx
	push	%ebp
	push	%esi
	push	%edi
	mov	%ecx, %ebx
	mov	%esp, saved_esp
	sidt	saved_idtr
	ljmp	$SEL_KCODE16, $data16_enter

back:
	mov	$SEL_KDATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	saved_esp, %esp
	lidt	saved_idtr
	cld
	pop	%edi
	pop	%esi
	pop	%ebp
	pop	%ebx
	ret

	.data
	.balign 4
saved_esp:	.long 0
saved_idtr:	.word 0, 0, 0, 0
real_idtr:	.word 0x3ff, 0, 0, 0

	.section .real, "awx"
	.code16
real_enter:
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %fs
	mov	$SEL_KDATA16, %ax
	mov	%ax, %gs
	mov	%ax, %ss
	mov	%cr0, %eax
	and	$~1, %al
	mov	%eax, %cr0
	ljmp	$0, $1f
1:	xor	%eax, %eax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %fs
	mov	%ax, %gs
	mov	%ax, %ss
	mov	$0x7000, %esp
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%ebp, %ebp
	xor	%esi, %esi
	xor	%edi, %edi
	call	*%bx
	cli
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$SEL_KCODE, $back

data16_enter:
	mov	$SEL_KDATA16, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$0x7000, %esp
	call	*%bx
	ljmpl	$SEL_KCODE, $back
	.code32
#endif
	.section .note.GNU-stack, "", @progbits
