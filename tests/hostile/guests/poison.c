/*
 * Flags and control words that would hurt whoever runs next: the guest sets them all and then
 * forces each kind of exit. The test's host looks at its own thread after each.
 */
#include "hostile.h"

#define PLACE	TEST_VA

static u8 *frame;
static u32 mxcsr;
static u16 fcw;

enum { EXIT_OUT, EXIT_IN, EXIT_OUTS, EXIT_MMIO_READ, EXIT_MMIO_WRITE, EXIT_MMIO_WIDE, EXIT_MMIO_X87,
	EXIT_CPUID, EXIT_FAULT, EXIT_TICK, EXIT_ROM, EXIT_UD, NR_EXITS };

static void leave(unsigned how)
{
	ulong n = 200000, d = PLACE;

	switch (how) {
	case EXIT_OUT:
		asm volatile("outb %%al, $0x80" ::: "memory");
		break;
	case EXIT_IN:
		asm volatile("inl %%dx, %%eax" :: "d"(0x500) : "rax", "memory");
		break;
	case EXIT_OUTS:
		asm volatile("outsb" : "+S"(d) : "d"(0x80) : "memory");
		break;
	case EXIT_MMIO_READ:
		load64(NOTHING_THERE + 8);
		break;
	case EXIT_MMIO_WRITE:
		store64(NOTHING_THERE + 16, 1);
		break;
	case EXIT_MMIO_WIDE:
		asm volatile("movups (%0), %%xmm3; movups %%xmm3, 64(%0)" :: "r"(NOTHING_THERE)
			: "memory");
		break;
	case EXIT_MMIO_X87:
		asm volatile("fstpl (%0)" :: "r"(NOTHING_THERE) : "memory");
		break;
	case EXIT_CPUID:
		asm volatile("cpuid" :: "a"(0) : "rbx", "rcx", "rdx", "memory");
		break;
	case EXIT_FAULT:
		asm volatile("mov (%0), %%al" :: "r"(TEST_VA + 0x40000000ul) : "rax", "memory");
		break;
	case EXIT_TICK:
		asm volatile("1: dec %0; jnz 1b" : "+r"(n) :: "cc");
		break;
	case EXIT_ROM:
		store64(ROM_SLOT, 1);
		break;
	case EXIT_UD:
		asm volatile("ud2");
		break;
	}
}

/* With these bits in RFLAGS, all exceptions unmasked, and a full x87 stack. */
static void poisoned(ulong flags, unsigned how)
{
	mxcsr = how & 1 ? 0 : 0xe040;		/* DAZ, FTZ, rounding to zero */
	fcw = how & 2 ? 0 : 0xc00;
	asm volatile("fninit; fld1; fldpi; fld1; fld1; fldpi; fldz; fld1; fldpi; fldcw %0; ldmxcsr %1"
		:: "m"(fcw), "m"(mxcsr) : "memory");
	write_flags(2 | flags);
	leave(how);
}

static void all_flags(void)
{
	static const ulong flags[] = { 0, FL_DF, FL_AC, FL_NT, FL_DF | FL_AC | FL_NT | FL_ID | FL_IOPL,
		FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF | FL_DF };
	unsigned how, k, n;

	for (how = 0; how < NR_EXITS; how++) {
		sweep("an exit");
		for (n = 0; n < 3; n++)
			for (k = 0; k < ARRAY_SIZE(flags); k++) {
				int v = catch(poisoned(flags[k], how)), after;

				after = catch(asm volatile("fnclex; fninit; ldmxcsr %0"
					:: "m"((u32){ 0x1f80 })));
				write_flags(2);
				sweep_check(v == (how == EXIT_FAULT ? PF : how == EXIT_UD ? UD : NONE),
					"exit %u, flags %lx: %d", how, flags[k], v);
				sweep_check(after == NONE, "clean-up: %d", after);
			}
		sweep_end();
	}
}

/* Exceptions of the units themselves, unmasked, in the midst of it. */
static void unit_faults(void)
{
	unsigned n;

	sweep("#XM and #MF");
	for (n = 0; n < 50; n++) {
		mxcsr = 0;
		fcw = 0;
		write_flags(2 | FL_DF);
		sweep_check(catch(asm volatile("ldmxcsr %0; xorps %%xmm0, %%xmm0; divss %%xmm0, %%xmm0"
			:: "m"(mxcsr))) == XM, "0/0");
		write_flags(2);
		mxcsr = 0x1f80;
		asm volatile("ldmxcsr %0" :: "m"(mxcsr));
		sweep_check(catch(asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fwait"
			:: "m"(fcw))) == MF, "1/0");
		outb(0x80, 0);
		asm volatile("fnclex; fninit");
		sweep_check(catch(asm volatile("movaps (%0), %%xmm0" :: "r"(PLACE + 1))) == GP,
			"misaligned");
		sweep_check(catch(asm volatile("div %b0" :: "r"(0), "a"(1) : "cc")) == DE, "division");
	}
	sweep_end();
}

USER_TEXT static ulong user_flags(ulong flags)
{
	asm volatile("push %0; popf" :: "r"(flags) : "memory", "cc");
	return 0;
}

/* TF and AC in user mode: each ends in a trap, and nothing of it stays. */
static void user_traps(void)
{
	unsigned n;

	write_cr0(read_cr0() | CR0_AM);
	sweep("TF and AC in user mode");
	for (n = 0; n < 30; n++) {
		sweep_check(user_call(user_flags, 2 | FL_TF) == DB, "TF");
		outb(0x80, 0);
		user_call(user_flags, 2 | FL_AC);
		outb(0x80, 0);
		user_call(user_flags, 2 | FL_AC | FL_DF | FL_NT | FL_ID);
		outb(0x80, 0);
		write_flags(2);
	}
	sweep_end();
}

/* The debug registers are the guest's. */
static void debug_registers(void)
{
	static u64 watched;
	unsigned n;

	sweep("breakpoints");
	write_dr0((ulong)&watched);
	for (n = 0; n < 30; n++) {
		write_dr7(0x700 | 1 | 3 << 16 | 3 << 18);
		sweep_check(catch(store64((ulong)&watched, n)) == DB, "a watched store");
		outb(0x80, 0);
		write_dr7(0x400);
		sweep_check(catch(store64((ulong)&watched, n)) == NONE, "off");
	}
	sweep_end();
}

void guest_main(void)
{
	frame = page_alloc();
	page_map(PLACE, (ulong)frame, PTE_P | PTE_W);
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	write_cr0(read_cr0() | CR0_NE | CR0_MP);
	group("poison");
	all_flags();
	unit_faults();
	user_traps();
	debug_registers();
}
