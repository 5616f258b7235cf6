/*
 * The x87 unit seen by system software: its environment's memory formats, error reporting both
 * ways, CR0.TS, EM and MP, SSE's gates, and operands that are not plain memory. SDM 1 chapter 8,
 * 3A 2.5 and 23.18.
 */
#include "chips.h"

static u8 area[512] __attribute__((aligned(64)));
static const double huge = 1e300;

#define ENV16(n)	(((u16 *)area)[n])
#define ENV32(n)	(((u32 *)area)[n])

/* A memory instruction with known pointers: FLD m32, preceded by nothing. */
#define KNOWN_INSN(label) "fninit; " label ": flds one_and_half_copy\n"
float one_and_half_copy = 1.5f;
extern u8 x87_at[];

static void environment(void)
{
	group("environment, protected mode");
	memset(area, 0, sizeof(area));
	asm volatile(KNOWN_INSN("x87_at") "fnstenv (%0)" :: "r"(area) : "memory");
	expect("control word", ENV32(0), 0xffff037f);
	expect("status word", ENV32(1), 0xffff3800);
	expect("tag word", ENV32(2), 0xffff3fff);
	expect("instruction pointer", ENV32(3), (u32)(ulong)x87_at);
	expect("opcode", ENV32(4) >> 16 & 0x700, 0x100);
	expect("data pointer", ENV32(5), (u32)(ulong)&one_and_half_copy);
	asm volatile("fninit; fldz; fld1; fldl %1; fdiv %%st(1); .byte 0x66; fnstenv (%0)"
		:: "r"(area), "m"(huge) : "memory");
	expect("16 bits: control word", ENV16(0), 0x37f);
	expect("16 bits: tags: zero, valid, valid", ENV16(2), 0x43ff);
	asm volatile("fninit; fld1; fnstenv (%0); fldz; fldz; fldenv (%0); fnstcw 64(%0); fnstsw 66(%0)"
		:: "r"(area) : "memory");
	expect("FNSTENV masks, FLDENV brings back", ENV16(32), 0x37f);
	expect("TOP comes back", ENV16(33) >> 11 & 7, 7);
	asm volatile("fninit; fldpi; fld1; fnsave (%0); fnstsw 128(%0); frstor (%0); fstpl 136(%0); fstpl 144(%0)"
		:: "r"(area) : "memory");
	expect("FNSAVE initializes", ENV16(64), 0);
	expect("FRSTOR: ST0", *(u64 *)(area + 136), 0x3ff0000000000000);
	expect("FRSTOR: ST1", *(u64 *)(area + 144), 0x400921fb54442d18);
}

#ifndef __x86_64__
void real_env(void), data16_env(void);
extern u8 real_env_at[], data16_env_at[];
#define BODY16(name) REAL_CODE(".globl " name ", " name "_at\n" name ":\n fninit\n" name "_at: flds 0x6100\n" \
	"fnstenvs 0x6120\n fnstenvl 0x6140\n ret\n")
BODY16("real_env");
BODY16("data16_env");

static void environment16(void)
{
	volatile u16 *w = (u16 *)0x6120;
	volatile u32 *d = (u32 *)0x6140;

	group("environment, real mode");
	*(volatile float *)0x6100 = 1.5f;
	real_call(real_env);
	expect("16 bits: instruction pointer", w[3], (u32)real_env_at & 0xffff);
	expect("16 bits: its upper bits and the opcode", w[4], 0x106);
	expect("16 bits: data pointer", w[5], 0x6100);
	expect("32 bits: instruction pointer", d[3] & 0xffff, (u32)real_env_at & 0xffff);
	expect("32 bits: opcode", d[4], 0x106);
	expect("32 bits: data pointer", d[5] & 0xffff, 0x6100);
	group("environment, 16-bit protected mode");
	data16_call(data16_env);
	expect("instruction pointer", w[3], (u32)data16_env_at & 0xffff);
	expect("code selector", w[4], SEL_KCODE16);
	expect("data pointer", w[5], 0x6100);
	expect("data selector", w[6], SEL_KDATA16);
}
#endif

/* Two pages, and an operand that lies in both. */
static u8 pages[3 * 4096] __attribute__((aligned(4096)));
#define STRADDLING	(pages + 2 * 4096 - 4)

/* A division by zero in a page of its own. */
void far_divide(void);
extern u8 far_fdiv_at[], pointers_fadd_at[], pointers_slow_at[];
static double zero;
asm(".text; .balign 4096; .globl far_divide, far_fdiv_at\n"
	"far_divide: fldl four\n" "far_fdiv_at: fdivl zero_copy\n ret\n .balign 4096\n"
	".data\n four: .double 4\n zero_copy: .double 0\n .text\n");
extern u8 zero_copy[];

/* The data's in the upper half. */
static void expect_pointers(const char *name, const void *ip, const void *dp)
{
	asm volatile("fnstenv (%0)" :: "r"(area) : "memory");
	expect(name, (u64)ENV32(5) << 32 | ENV32(3), (u64)(ulong)dp << 32 | (u32)(ulong)ip);
}

/* What the last instruction was must be seen wherever it was, and whatever came between. */
static void pointers(void)
{
	u16 unmasked = 0x37b, cw, fs;

	group("pointers");
	asm volatile("fninit; fldl %0; fldl %0; pointers_fadd_at: fadd %%st(1)" :: "m"(zero));
	expect_pointers("a register form keeps the data's", pointers_fadd_at, &zero);
	asm volatile("fninit; fldl %1; pointers_slow_at: fldl (%2); fnstcw %0; fnclex"
		: "=m"(cw) : "m"(zero), "r"(STRADDLING) : "memory");
	expect_pointers("an operand in two pages, control instructions behind", pointers_slow_at, STRADDLING);
	asm volatile("fninit");
	far_divide();
	expect_pointers("in another page", far_fdiv_at, zero_copy);
	asm volatile("fninit; fldcw %0" :: "m"(unmasked));
	far_divide();
	expect_fault("the error of an instruction in another page", MF, 0, asm volatile("fld1"));
	expect_pointers("after it", far_fdiv_at, zero_copy);
	asm volatile("mov %%fs, %0" : "=r"(fs));
	asm volatile("fninit; mov %0, %%fs; fldl %1; fldl %%fs:(%2); fstp %%st(0); mov %3, %%fs"
		:: "r"(SEL_UDATA), "m"(zero), "r"(area), "r"((u32)fs));
	asm volatile("fnstenv (%0)" :: "r"(area) : "memory");
	expect("data selector", ENV32(6) & 0xffff, SEL_UDATA);
	expect("code selector", ENV32(4) & 0xffff, SEL_KCODE);
	asm volatile("fninit");
	expect_pointers("FNINIT", NULL, NULL);
}

static void unmask_and_divide(void)
{
	u16 cw = 0x37b;		/* #Z unmasked */

	asm volatile("fninit; fldcw %0; fldz; fld1; fdiv %%st(1)" :: "m"(cw));
}

static void errors(void)
{
	u16 sw;

	group("x87 errors");
	unmask_and_divide();
	expect_fault("at the next waiting instruction", MF, 0, asm volatile("fld1"));
	expect_fault("and again", MF, 0, asm volatile("fld1"));
	expect_fault("at FWAIT", MF, 0, asm volatile("fwait"));
	expect_fault("at FLDENV", MF, 0, asm volatile("fldenv (%0)" :: "r"(area) : "memory"));
	expect_fault("at an MMX instruction", MF, 0, asm volatile("movd %eax, %mm0"));
	asm volatile("fnstsw %0" : "=a"(sw));
	expect("ES, B and ZE", sw & 0x80ff, 0x8084);
	expect_ok("FNSTENV masks", asm volatile("fnstenv (%0)" :: "r"(area) : "memory"));
	expect_ok("so no more", asm volatile("fld1"));
	unmask_and_divide();
	expect_ok("FNCLEX clears", asm volatile("fnclex; fld1"));
	unmask_and_divide();
	expect_ok("FNINIT too", asm volatile("fninit; fld1"));
}

static void errors_by_irq(void)
{
	int i;

	group("x87 errors as IRQ 13");
	irq_reset();
	irq_expect(PIC_BASE + 13, EOI_PIC);
	pic_mask((u16)~(BIT(13) | BIT(2)));
	write_cr0(read_cr0() & ~CR0_NE);
	unmask_and_divide();
	trap_handle(PIC_BASE + 13, NULL);
	i = catch(asm volatile("sti; nop; fld1; cli"));
	cli();
	expect_vector("the interrupt comes before the waiting instruction", i, PIC_BASE + 13, 0);
	asm volatile("fnclex");
	outb(0xf0, 0);
	pic_eoi(13);
	write_cr0(read_cr0() | CR0_NE);
	pic_mask(0xffff);
	asm volatile("fninit");
}

static void simd_errors(void)
{
	static u32 unmasked = 0x1f80 & ~BIT(9), plain = 0x1f80, bad = 0x10000;

	group("SIMD errors");
	asm volatile("ldmxcsr %0; xorps %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; psrld $31, %%xmm1; cvtdq2ps %%xmm1, %%xmm1"
		:: "m"(unmasked));
	expect_fault("#XM", XM, 0, asm volatile("divps %xmm0, %xmm1"));
	write_cr4(read_cr4() & ~CR4_OSXMMEXCPT);
	expect_fault("#UD without OSXMMEXCPT", UD, 0, asm volatile("divps %xmm0, %xmm1"));
	write_cr4(read_cr4() | CR4_OSXMMEXCPT);
	asm volatile("ldmxcsr %0" :: "m"(plain));
	expect_fault("reserved MXCSR bits", GP, 0, asm volatile("ldmxcsr %0" :: "m"(bad)));
}

static void gates(void)
{
	ulong cr0 = (read_cr0() | CR0_MP) & ~(CR0_EM | CR0_TS), cr4 = read_cr4();

	group("CR0 and CR4 gates");
	write_cr0(cr0 | CR0_TS);
	expect_fault("x87 under TS", NM, 0, asm volatile("fld1"));
	expect_fault("FNINIT under TS", NM, 0, asm volatile("fninit"));
	expect_fault("FWAIT under MP and TS", NM, 0, asm volatile("fwait"));
	expect_fault("MMX under TS", NM, 0, asm volatile("emms"));
	expect_fault("SSE under TS", NM, 0, asm volatile("xorps %xmm0, %xmm0"));
	expect_fault("LDMXCSR under TS", NM, 0, asm volatile("stmxcsr (%0)" :: "r"(area) : "memory"));
	write_cr0((cr0 | CR0_TS) & ~CR0_MP);
	expect_ok("FWAIT under TS alone", asm volatile("fwait"));
	write_cr0(cr0 | CR0_EM);
	expect_fault("x87 under EM", NM, 0, asm volatile("fld1"));
	expect_fault("FNSTSW under EM", NM, 0, asm volatile("fnstsw %%ax" ::: "eax"));
	expect_ok("FWAIT under EM", asm volatile("fwait"));
	expect_fault("MMX under EM", UD, 0, asm volatile("movd %eax, %mm0"));
	expect_fault("SSE under EM", UD, 0, asm volatile("xorps %xmm0, %xmm0"));
	expect_ok("PREFETCH, SFENCE do not mind", asm volatile("sfence; prefetchnta area"));
	write_cr0(cr0);
	write_cr4(cr4 & ~CR4_OSFXSR);
	expect_fault("SSE without OSFXSR", UD, 0, asm volatile("xorps %xmm0, %xmm0"));
	expect_fault("MXCSR without OSFXSR", UD, 0, asm volatile("stmxcsr (%0)" :: "r"(area) : "memory"));
	expect_ok("MMX without OSFXSR", asm volatile("movd %eax, %mm0; emms"));
	expect_ok("POPCNT and CRC32 need nothing", asm volatile("popcnt %%eax, %%eax; crc32b %%al, %%eax" ::: "eax"));
	write_cr4(cr4);
}

/* Physical addresses that no memory and no device of the machine answers. */
#define NOWHERE	0xd0000000ul

/* These leave the hypervisor in the middle of an instruction, which must still happen once. */
static void devices(void)
{
	u16 sw;

	group("operands in device memory");
	asm volatile("fninit; fld1; fldpi; fstpl (%1); fnstsw %0" : "=a"(sw) : "r"(NOWHERE) : "memory");
	expect("FSTP m64 pops once", sw >> 11 & 7, 7);
	asm volatile("fninit; fld1; fldpi; fstpt (%1); fnstsw %0" : "=a"(sw) : "r"(NOWHERE + 2) : "memory");
	expect("FSTP m80 pops once", sw >> 11 & 7, 7);
	asm volatile("fninit; fld1; fisttpl (%1); fnstsw %0" : "=a"(sw) : "r"(NOWHERE) : "memory");
	expect("FISTTP pops once", sw >> 11 & 7, 0);
	asm volatile("fninit; fildl (%1); fnstsw %0" : "=a"(sw) : "r"(NOWHERE) : "memory");
	expect("FILD pushes once", sw >> 11 & 7, 7);
	asm volatile("fistpl (%0)" :: "r"(area) : "memory");
	expect("of what the bus floats to", ENV32(0), 0xffffffff);
	asm volatile("pxor %%xmm0, %%xmm0; movdqu (%0), %%xmm0; movdqu %%xmm0, (%1)" :: "r"(NOWHERE + 5), "r"(area)
		: "memory");
	expect("MOVDQU", *(u64 *)(area + 8), -1ull);
	expect_ok("a store", asm volatile("movdqu %%xmm0, (%0); movups %%xmm0, 3(%0)" :: "r"(NOWHERE) : "memory"));
	asm volatile("fninit; fnsave (%1); fld1; frstor (%1); fnstcw (%0)" :: "r"(area), "r"(NOWHERE) : "memory");
	expect("FRSTOR of ones: reserved bits of the control word", ENV16(0), 0x1f7f);
	asm volatile("fnclex; fninit");
	lapic_write(LAPIC_TPR, 0);
	asm volatile("movd %0, %%xmm0; movss %%xmm0, (%1)" :: "r"(0x50), "r"(0xfee00000ul + LAPIC_TPR) : "memory");
	expect("a local APIC register by MOVSS", lapic_read(LAPIC_TPR), 0x50);
	asm volatile("fninit; fildl %1; fistpl (%0)" :: "r"(0xfee00000ul + LAPIC_TPR), "m"((int){ 0x30 }) : "memory");
	expect("and by FISTP", lapic_read(LAPIC_TPR), 0x30);
	lapic_write(LAPIC_TPR, 0);
}

static u32 xgetbv(u32 index)
{
	u32 lo, hi;

	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
	return lo;
}

/* XGETBV with ECX = 1: what is not in its initial state. */
static void in_use(void)
{
	group("XINUSE");
	if (!(cpuid(1, 0).ecx & BIT(28)) || !(cpuid(0xd, 1).eax & BIT(2))) {
		skip("XINUSE", "not in CPUID");
		return;
	}
	write_cr4(read_cr4() | CR4_OSXSAVE);
	asm volatile("xsetbv" :: "a"(7), "d"(0), "c"(0));
	asm volatile("vzeroall; vpcmpeqd %xmm0, %xmm0, %xmm0");
	expect("AVX after VZEROALL", xgetbv(1) & 4, 0);
	asm volatile("vpcmpeqd %ymm0, %ymm0, %ymm0");
	expect("AVX with an upper half", xgetbv(1) & 4, 4);
	asm volatile("vzeroupper; xsetbv" :: "a"(3), "d"(0), "c"(0));
}

/* Vector stores into code that has run. */
static void code(void)
{
	static u8 text[4096] __attribute__((aligned(4096)));
	ulong (*fn)(void) = (ulong (*)(void))(ulong)text;
	u8 image[16] __attribute__((aligned(16)));
	u32 i;

	group("");
	sweep("code written by MOVDQA and FISTP is the code that runs");
	for (i = 0; i < 40; i++) {
		memset(image, 0x90, 16);
		image[5] = 0xb8;		/* mov eax, i */
		memcpy(image + 6, &i, 4);
		image[10] = 0xc3;
		asm volatile("movdqa (%0), %%xmm2; movdqa %%xmm2, (%1)" :: "r"(image), "r"(text + 64 * (i & 3)) : "memory");
		fn = (ulong (*)(void))(ulong)(text + 64 * (i & 3));
		sweep_check(fn() == i, "round %u", i);
		asm volatile("fninit; fildl %0; fistpl (%1)" :: "m"((int){ i + 1000 }), "r"(text + 64 * (i & 3) + 6)
			: "memory");
		sweep_check(fn() == i + 1000, "round %u after FISTP", i);
	}
	sweep_end();
}

void guest_main(void)
{
	chips_quiet();
	write_cr0((read_cr0() | CR0_MP | CR0_NE) & ~CR0_EM & ~CR0_TS);
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	environment();
#ifndef __x86_64__
	environment16();
#endif
	pointers();
	errors();
	errors_by_irq();
	simd_errors();
	gates();
	devices();
	in_use();
	code();
}
