/*
 * The guest of bench/exits/exits.c: 32-bit flat code, where a page is itself or there is no paging,
 * copied to GUEST_CODE. ECX: how many times; OUT to PORT_DONE ends each. Data and devices at fixed
 * addresses.
 */
#include "exits.h"

	.section .rodata
	.code32
	.globl guest_begin, guest_end
	.balign 16
guest_begin:

#define ENTRY(name) .globl guest_##name; .balign 64; guest_##name:
#define DONE out %al, $PORT_DONE

/* Body, ECX times. */
#define LOOP(name, ...) ENTRY(name) 1: __VA_ARGS__; dec %ecx; jnz 1b; DONE

LOOP(pio_out_user, out %al, $PORT_USER)
LOOP(pio_in_user, in $PORT_USER, %al)
LOOP(mmio_write_user, movl %eax, USER_DEVICE)
LOOP(mmio_read_user, movl USER_DEVICE, %eax)
LOOP(pio_in_kernel, in $0x21, %al)
LOOP(pio_out_kernel, out %al, $0x21)
LOOP(mmio_read_kernel, movl LAPIC + 0x80, %eax)
LOOP(mmio_write_kernel, movl %edx, LAPIC + 0x80)
LOOP(mmio_ioapic, movl IOAPIC, %eax)
LOOP(ioeventfd_pio, out %al, $PORT_EVENT)
LOOP(ioeventfd_mmio, movl %eax, EVENT_DEVICE)

ENTRY(cpuid)
	mov	%ecx, %esi
1:	xor	%eax, %eax
	xor	%ecx, %ecx
	cpuid
	dec	%esi
	jnz	1b
	DONE

ENTRY(rdmsr)
	mov	%ecx, %esi
	mov	$0x1b, %ecx
1:	rdmsr
	dec	%esi
	jnz	1b
	DONE

/* Interrupts to itself: the ICR's shorthand. */
ENTRY(self_ipi)
	sti
1:	mov	COUNTER, %eax
	movl	$0x40000 | VECTOR, LAPIC + 0x300
2:	cmp	COUNTER, %eax
	je	2b
	dec	%ecx
	jnz	1b
	DONE

/* To the other CPU, and on when its handler has counted. */
ENTRY(ipi)
	movl	$1 << 24, LAPIC + 0x310
1:	mov	COUNTER, %eax
	movl	$VECTOR, LAPIC + 0x300
2:	cmp	COUNTER, %eax
	je	2b
	dec	%ecx
	jnz	1b
	movl	$1, STOP
	movl	$VECTOR, LAPIC + 0x300
	DONE

ENTRY(spin)
	sti
1:	cmpl	$0, STOP
	je	1b
	DONE

ENTRY(sleep)
1:	sti
	hlt
	cmpl	$0, STOP
	je	1b
	DONE

/* What an interrupt of VECTOR does. */
ENTRY(handler)
	incl	COUNTER
	movl	$0, LAPIC + 0xb0
	iret

guest_end:
	.section .note.GNU-stack, "", @progbits
