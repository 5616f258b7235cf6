/* Selectors and sizes that the assembler sees too. */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#define GDT_ENTRIES	128

/* The order suits SYSCALL (STAR) and SYSENTER (SDM 3A 5.8.7, 5.8.8). */
#define SEL_KCODE	0x08
#define SEL_KDATA	0x10
#define SEL_UCODE32	0x1b
#define SEL_UDATA	0x23
#define SEL_UCODE64	0x2b
#define SEL_UDATA2	0x33
#define SEL_KCODE32	0x38
#define SEL_TSS		0x40
#define SEL_KCODE16	0x50
#define SEL_KDATA16	0x58
#define SEL_FREE	0x60	/* from here on the GDT belongs to the test */

#ifdef __x86_64__
#define SEL_UCODE	SEL_UCODE64
#else
#define SEL_UCODE	SEL_UCODE32
#endif

#define VEC_USER_RETURN	0x80

#endif
