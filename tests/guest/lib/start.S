/*
 * Entry of a test guest: the PVH boot protocol (32-bit protected mode, paging off, flat segments).
 * Built for 64 bits it maps the first 4 GiB one to one and enters long mode; for 32 bits paging
 * stays off.
 */
#include "layout.h"

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 8, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.balign 4
	.long guest_start, 0

	.section .text.start, "ax"
	.code32
	.globl guest_start
guest_start:
	cli
	cld
	lgdt	boot_gdtr
	ljmp	$SEL_KCODE32, $1f
1:	mov	$SEL_KDATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$guest_stack_top, %esp
	push	$0
	popf
	mov	%ebx, pvh_start_info
#ifdef __x86_64__
	/* 2 MiB pages: four page directories behind one PDPT. */
	mov	$boot_pd, %edi
	mov	$0x83, %eax
	xor	%edx, %edx
	mov	$2048, %ecx
2:	mov	%eax, (%edi)
	mov	%edx, 4(%edi)
	add	$0x200000, %eax
	adc	$0, %edx
	add	$8, %edi
	loop	2b
	/* 4..8 MiB belongs to user mode too. */
	orl	$4, boot_pd + 16
	orl	$4, boot_pd + 24
	movl	$boot_pdpt + 7, boot_pml4
	movl	$boot_pd + 0x0007, boot_pdpt
	movl	$boot_pd + 0x1007, boot_pdpt + 8
	movl	$boot_pd + 0x2007, boot_pdpt + 16
	movl	$boot_pd + 0x3007, boot_pdpt + 24
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	$0x20, %eax		/* CR4.PAE */
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x901, %eax		/* EFER: SCE, LME, NXE */
	wrmsr
	mov	$0x80000011, %eax	/* CR0: PG, ET, PE */
	mov	%eax, %cr0
	ljmp	$SEL_KCODE, $3f
	.code64
3:	mov	$guest_stack_top, %rsp
	xor	%ebp, %ebp
	call	guest_enter
#else
	mov	$0x11, %eax
	mov	%eax, %cr0
	xor	%eax, %eax
	mov	%eax, %cr4
	xor	%ebp, %ebp
	call	guest_enter
#endif
4:	hlt
	jmp	4b

	.section .data
	.balign 8
boot_gdtr:
	.word	GDT_ENTRIES * 8 - 1
#ifdef __x86_64__
	.quad	gdt
#else
	.long	gdt, 0
#endif
	.globl gdt, pvh_start_info
pvh_start_info:
	.long	0, 0
	.balign 16
gdt:
	.quad	0
#ifdef __x86_64__
	.quad	0x00af9b000000ffff	/* KCODE: 64-bit */
#else
	.quad	0x00cf9b000000ffff	/* KCODE: 32-bit */
#endif
	.quad	0x00cf93000000ffff	/* KDATA */
	.quad	0x00cffb000000ffff	/* UCODE32 */
	.quad	0x00cff3000000ffff	/* UDATA */
	.quad	0x00affb000000ffff	/* UCODE64 */
	.quad	0x00cff3000000ffff	/* UDATA2 */
	.quad	0x00cf9b000000ffff	/* KCODE32 */
	.quad	0, 0			/* TSS */
	.quad	0x00009b000000ffff	/* KCODE16, base 0 */
	.quad	0x000093000000ffff	/* KDATA16, base 0 */
	.fill	GDT_ENTRIES - 12, 8, 0

	.section .bss
	.balign 4096
	.globl boot_pml4, boot_pdpt, boot_pd, guest_stack, guest_stack_top
#ifdef __x86_64__
boot_pml4:	.skip 4096
boot_pdpt:	.skip 4096
boot_pd:	.skip 4 * 4096
#endif
guest_stack:	.skip 32768
guest_stack_top:
	.globl trap_stack_top, ist_stack_top
	.skip 16384
trap_stack_top:
	.skip 16384
ist_stack_top:

	.section .note.GNU-stack, "", @progbits
