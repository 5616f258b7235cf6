/*
 * The machine of the sequences: 2 MiB of linear addresses from AREA_BASE, mapped to themselves but
 * where it says otherwise. The first pages, up to the code, are the guest's system; on the host
 * side (user-mode programs only) they do not exist.
 */
#ifndef QUMRA_TESTS_INSN_SEQUENCES_LAYOUT_H
#define QUMRA_TESTS_INSN_SEQUENCES_LAYOUT_H

#define BASE		0x10000000
#define RAM_SIZE	0x100000

#define AT_PML4		(BASE + 0x0000)
#define AT_PDPT		(BASE + 0x1000)
#define AT_PD		(BASE + 0x2000)
#define AT_PT		(BASE + 0x3000)
#define AT_GDT		(BASE + 0x4000)
#define AT_IDT		(BASE + 0x5000)
#define AT_TSS		(BASE + 0x6000)
#define STACK_IST	(BASE + 0x8000)	/* tops */
#define STACK_0		(BASE + 0x8800)
#define AT_KERNEL	(BASE + 0x9000)	/* kernel.S */
#define KERNEL_SIZE	0x3000
#define AT_LOG		(BASE + 0xc000)	/* what the kernel saw: 64 entries of 64 bytes */
#define AT_VAR		(BASE + 0xd000)	/* user may write */
/* Another address space: the data pages are in another order, the window elsewhere. */
#define AT_PML4_B	(BASE + 0xe000)
#define AT_PDPT_B	(BASE + 0xf000)
#define AT_PD_B		(BASE + 0x10000)
#define AT_PT_B		(BASE + 0x11000)
/* For user-mode programs: every vector ends the program. */
#define AT_STOP_IDT	(BASE + 0x12000)
#define AT_STOP		(BASE + 0x13000)
#define STOP_SIZE	16

/* Code, const and data: tests/insn/host/host.h. */
#define AT_ALIAS	(BASE + 0x48000)	/* the code pages again */
#define AT_CONTROL	(BASE + 0x70000)	/* counters, jump tables */
#define AT_MMIO		(BASE + 0x80000)	/* two pages of nobody's memory */
#define GPA_MMIO	0xe0000000
#define AT_KDATA	(BASE + 0x88000)	/* supervisor only */
#define AT_RO		(BASE + 0x8a000)
#define AT_LAZY		(BASE + 0x8c000)	/* three pages: the #PF handler maps them */
#define AT_LAZY_END	(BASE + 0x8f000)
#define AT_WINDOW	(BASE + 0x90000)	/* two pages that are mapped to and fro */
#define AT_FRAMES	(BASE + 0xa0000)	/* for them */

/* Variables. */
#define VAR_RESUME	(AT_VAR + 0x00)	/* where a fault goes on */
#define VAR_SEL		(AT_VAR + 0x08)	/* with CS, SS << 16 */
#define VAR_RSP		(AT_VAR + 0x10)
#define VAR_STEPS	(AT_VAR + 0x18)	/* debug exceptions until the handler ends them */
#define VAR_BUDGET	(AT_VAR + 0x20)	/* events until the program is ended */
#define VAR_INDEX	(AT_VAR + 0x28)	/* of the log */
#define VAR_SAVED	(AT_VAR + 0x30)
#define STEPS		6
/*
 * A bit for each byte of code: flags are undefined before the instruction there. Whoever looks at
 * them then (a trap, an interrupt) must not tell.
 */
#define AT_UNDEFINED	(AT_VAR + 0x800)

#define KSEL_CODE32	0x08
#define KSEL_CODE	0x10
#define KSEL_DATA	0x18
#define KSEL_TSS	0x40

#define VECTOR_RESUME	0x81	/* INT: go on at VAR_RESUME in the mode of VAR_SEL */
#define VECTOR_END	0x82
#define PORT_STOP	0x80
#define PORT_END	0x81

#endif
