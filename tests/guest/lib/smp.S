/* Where a started CPU begins: copied to 0x9000, real mode to long mode, then ap_main(). */
#include "layout.h"

#ifdef __x86_64__
#define AP_AT(label) (0x9000 + label - ap_code)

	.section .rodata
	.globl ap_code, ap_code_end
	.code16
ap_code:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	AP_AT(ap_gdtr)
	mov	%cr0, %eax
	and	$0x9fffffff, %eax	/* CD and NW off */
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$SEL_KCODE32, $AP_AT(1f)
	.code32
1:	mov	$SEL_KDATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0x20, %eax		/* CR4.PAE */
	mov	%eax, %cr4
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x901, %eax		/* EFER: SCE, LME, NXE */
	wrmsr
	mov	$0x80000031, %eax	/* CR0: PG, NE, ET, PE */
	mov	%eax, %cr0
	ljmp	$SEL_KCODE, $ap_long
	.balign 8
ap_gdtr:
	.word	GDT_ENTRIES * 8 - 1
	.long	gdt
ap_code_end:

	.text
	.code64
ap_long:
	mov	$1, %eax
	lock xadd %eax, ap_ticket
	inc	%eax
	shl	$14, %eax
	lea	ap_stacks(%rax), %rsp
	xor	%ebp, %ebp
	call	ap_main
1:	hlt
	jmp	1b

	.section .bss
	.balign 4096
ap_stacks:	.skip 8 * 16384
ap_ticket:	.long 0
#endif
	.section .note.GNU-stack, "", @progbits
