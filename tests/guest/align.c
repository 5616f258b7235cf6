/*
 * Alignment checks: #AC for data references at CPL 3 with CR0.AM and RFLAGS.AC set, and for nothing
 * else. SDM 3A 6.15 (#AC, table 6-7), 2.5 (AM); APM 2 8.2.18. Vectors are checked for 16 bytes, as AMD
 * does; where an instruction has a rule of its own (MOVAPS), #GP comes first.
 *
 * The flag is set by POPF right before the instruction, and by IRET.
 */
#include "guest.h"

#ifdef __x86_64__
#define AX "%rax"
#define BX "%rbx"
#define CX "%rcx"
#define DI "%rdi"
#define SI "%rsi"
#define SP "%rsp"
#define FP "%rbp"
#define W "q"
#define WORD 8
#define BEGIN	""
#define END	""
#else
#define AX "%eax"
#define BX "%ebx"
#define CX "%ecx"
#define DI "%edi"
#define SI "%esi"
#define SP "%esp"
#define FP "%ebp"
#define W "l"
#define WORD 4
#define BEGIN	"push %esi; push %edi; mov 12(%esp), %edi\n"
#define END	"pop %edi; pop %esi\n"
#endif

/* Name, alignment (1: any address does), what comes of a wrong one, code that reaches (DI). */
#define INTEGER(P) \
	P(mov8, 1, AC, "movb (" DI "), %al") \
	P(mov16, 2, AC, "movw (" DI "), %ax") \
	P(mov32, 4, AC, "movl (" DI "), %eax") \
	P(store8, 1, AC, "movb %al, (" DI ")") \
	P(store16, 2, AC, "movw %ax, (" DI ")") \
	P(store32, 4, AC, "movl %eax, (" DI ")") \
	P(store_imm, 4, AC, "movl $1, (" DI ")") \
	P(add32, 4, AC, "addl %eax, (" DI ")") \
	P(adc16, 2, AC, "adcw (" DI "), %ax") \
	P(not32, 4, AC, "notl (" DI ")") \
	P(test32, 4, AC, "testl $1, (" DI ")") \
	P(shl32, 4, AC, "shll $3, (" DI ")") \
	P(shld32, 4, AC, "shldl $3, %eax, (" DI ")") \
	P(imul32, 4, AC, "imull (" DI "), %eax") \
	P(mul16, 2, AC, "mulw (" DI ")") \
	P(movzx16, 2, AC, "movzwl (" DI "), %eax") \
	P(movsx8, 1, AC, "movsbl (" DI "), %eax") \
	P(bt16, 2, AC, "btw $1, (" DI ")") \
	P(bts32, 4, AC, "btsl $1, (" DI ")") \
	P(cmov32, 4, AC, "cmovnel (" DI "), %eax") \
	P(set8, 1, AC, "setne (" DI ")") \
	P(bsf32, 4, AC, "bsfl (" DI "), %eax") \
	P(lea, 1, AC, "lea (" DI "), " AX) \
	P(xchg8, 1, AC, "xchgb %al, (" DI ")") \
	P(xchg32, 4, AC, "xchgl %eax, (" DI ")") \
	P(lock_add16, 2, AC, "lock addw $1, (" DI ")") \
	P(lock_add32, 4, AC, "lock addl $1, (" DI ")") \
	P(lock_bts32, 4, AC, "lock btsl $1, (" DI ")") \
	P(lock_xadd32, 4, AC, "lock xaddl %eax, (" DI ")") \
	P(lock_cmpxchg32, 4, AC, "lock cmpxchgl %ecx, (" DI ")") \
	P(lock_cmpxchg8b, 8, AC, "push " BX "; lock cmpxchg8b (" DI "); pop " BX) \
	P(push_mem, WORD, AC, "push" W " (" DI "); pop " AX) \
	P(pop_mem, WORD, AC, "push " AX "; pop" W " (" DI ")") \
	P(lods8, 1, AC, "lodsb") \
	P(lods32, 4, AC, "lodsl") \
	P(stos16, 2, AC, "stosw") \
	P(stos32, 4, AC, "stosl") \
	P(scas32, 4, AC, "scasl") \
	P(movs8, 1, AC, "lea aligned_bytes, " SI "; movsb") \
	P(movs16, 2, AC, "lea aligned_bytes, " SI "; movsw") \
	P(movs32_to, 4, AC, "lea aligned_bytes, " SI "; movsl") \
	P(movs32_from, 4, AC, "lea aligned_bytes, " DI "; movsl") \
	P(cmps32, 4, AC, "lea aligned_bytes, " SI "; cmpsl") \
	P(rep_movs32, 4, AC, "lea aligned_bytes, " SI "; mov $3, %ecx; rep movsl") \
	P(rep_stos32, 4, AC, "mov $3, %ecx; rep stosl") \
	P(rep_stos8, 1, AC, "mov $3, %ecx; rep stosb") \
	P(rep_none, 1, AC, "xor %ecx, %ecx; rep movsl")

#define STACK(P) \
	P(push, WORD, AC, "mov " SP ", " SI "; lea 64(" DI "), " SP "; push " AX "; mov " SI ", " SP) \
	P(push16, 2, AC, "mov " SP ", " SI "; lea 64(" DI "), " SP "; pushw %ax; mov " SI ", " SP) \
	P(pop, WORD, AC, "mov " SP ", " SI "; mov " DI ", " SP "; pop " AX "; mov " SI ", " SP) \
	P(pushf, WORD, AC, "mov " SP ", " SI "; lea 64(" DI "), " SP "; pushf; mov " SI ", " SP) \
	P(call, WORD, AC, "mov " SP ", " SI "; lea 64(" DI "), " SP "; call 8f; 8: mov " SI ", " SP) \
	P(enter, WORD, AC, "mov " FP ", " CX "; mov " SP ", " SI "; lea 64(" DI "), " SP "; enter $16, $0;" \
		"mov " SI ", " SP "; mov " CX ", " FP) \
	P(leave, WORD, AC, "mov " FP ", " CX "; mov " SP ", " SI "; mov " DI ", " FP "; leave;" \
		"mov " SI ", " SP "; mov " CX ", " FP)

#define X87(P) \
	P(flds, 4, AC, "flds (" DI "); fstp %st") \
	P(fldl, 8, AC, "fldl (" DI "); fstp %st") \
	P(fldt, 8, AC, "fldt (" DI "); fstp %st") \
	P(fstps, 4, AC, "fldz; fstps (" DI ")") \
	P(fistp64, 8, AC, "fldz; fistpll (" DI ")") \
	P(fild16, 2, AC, "filds (" DI "); fstp %st") \
	P(fnstcw, 2, AC, "fnstcw (" DI ")") \
	P(fnstsw, 2, AC, "fnstsw (" DI ")")

#define VECTOR(P) \
	P(movss, 4, AC, "movss (" DI "), %xmm0") \
	P(movsd, 8, AC, "movsd (" DI "), %xmm0") \
	P(movss_store, 4, AC, "movss %xmm0, (" DI ")") \
	P(movhps, 8, AC, "movhps (" DI "), %xmm0") \
	P(addss, 4, AC, "addss (" DI "), %xmm0") \
	P(movups, 16, AC, "movups (" DI "), %xmm0") \
	P(movups_store, 16, AC, "movups %xmm0, (" DI ")") \
	P(movdqu, 16, AC, "movdqu (" DI "), %xmm0") \
	P(lddqu, 16, AC, "lddqu (" DI "), %xmm0") \
	P(movaps, 16, GP, "movaps (" DI "), %xmm0") \
	P(movdqa_store, 16, GP, "movdqa %xmm0, (" DI ")") \
	P(movntdq, 16, GP, "movntdq %xmm0, (" DI ")") \
	P(paddb, 16, GP, "paddb (" DI "), %xmm0") \
	P(pinsrw, 2, AC, "pinsrw $1, (" DI "), %xmm0") \
	P(movq_mmx, 8, AC, "movq (" DI "), %mm0; emms") \
	P(ldmxcsr, 4, AC, "movl $0x1f80, (" DI "); ldmxcsr (" DI ")") \
	P(stmxcsr, 4, AC, "stmxcsr (" DI ")") \
	P(prefetch, 1, AC, "prefetcht0 (" DI ")") \
	P(clflush, 1, AC, "clflush (" DI ")")

#define AVX(P) \
	P(vpcmpeqw, 16, AC, "vpcmpeqw (" DI "), %xmm1, %xmm0") \
	P(vpaddb_ymm, 16, AC, "vpaddb (" DI "), %ymm1, %ymm0") \
	P(vmovups_ymm, 16, AC, "vmovups (" DI "), %ymm0") \
	P(vmovups_ymm_store, 16, AC, "vmovups %ymm0, (" DI ")") \
	P(vmovaps, 16, GP, "vmovaps (" DI "), %xmm0") \
	P(vmovaps_ymm, 32, GP, "vmovaps (" DI "), %ymm0") \
	P(vmovss, 4, AC, "vmovss (" DI "), %xmm0") \
	P(vbroadcastsd, 8, AC, "vbroadcastsd (" DI "), %ymm0") \
	P(vmaskmovps, 1, AC, "vpcmpeqd %xmm1, %xmm1, %xmm1; vmaskmovps (" DI "), %xmm1, %xmm0")

#ifdef __x86_64__
#define WIDE(P) \
	P(mov64, 8, AC, "movq (%rdi), %rax") \
	P(store64, 8, AC, "movq %rax, (%rdi)") \
	P(add64, 8, AC, "addq %rax, (%rdi)") \
	P(lock_add64, 8, AC, "lock addq $1, (%rdi)") \
	P(lock_cmpxchg64, 8, AC, "lock cmpxchgq %rcx, (%rdi)") \
	P(movsxd, 4, AC, "movslq (%rdi), %rax") \
	P(lods64, 8, AC, "lodsq") \
	P(rep_movs64, 8, AC, "lea aligned_bytes, %rsi; mov $3, %ecx; rep movsq")
#else
#define WIDE(P) \
	P(pusha, 4, AC, "mov %esp, %esi; lea 64(%edi), %esp; pusha; mov %esi, %esp") \
	P(bound, 4, AC, "xor %eax, %eax; movl $0, (%edi); bound %eax, (%edi)")
#endif

#define EACH_PROBE(P) INTEGER(P) STACK(P) X87(P) VECTOR(P) AVX(P) WIDE(P)

u8 user_bytes[256] USER_DATA __attribute__((aligned(64)));
u8 aligned_bytes[64] USER_DATA __attribute__((aligned(64)));

#define STUB(name, align, vector, code) extern u8 probe_##name[];
EACH_PROBE(STUB)
#undef STUB

/* AC on, the code, AC off: all of it with the stack as it should be. */
#define STUB(name, align, vector, code) \
	"probe_" #name ": " BEGIN "	mov " DI ", " SI "\n	pushf\n	orl $0x40000, (" SP ")\n	popf\n" \
	code "\n	pushf\n	andl $~0x40000, (" SP ")\n	popf\n" END "	ret\n"
asm(".pushsection .user.text, \"ax\"\n" EACH_PROBE(STUB) ".popsection\n");
#undef STUB

#define AVX_FIRST	probe_vpcmpeqw
#define AVX_LAST	probe_vmaskmovps

static const struct probe {
	const char *name;
	u8 *code;
	u8 align, vector;
} probes[] = {
#define STUB(name, align, vector, code) { #name, probe_##name, align, vector },
	EACH_PROBE(STUB)
#undef STUB
};

static bool have_avx(void)
{
	return cpuid(1, 0).ecx & BIT(28);
}

static void avx_on(void)
{
	write_cr4(read_cr4() | CR4_OSXSAVE);
	asm volatile("xsetbv" :: "c"(0), "a"(7), "d"(0));
}

static bool runs_here(const struct probe *p)
{
	return have_avx() || p->code < AVX_FIRST || p->code > AVX_LAST;
}

static int run_user(const struct probe *p, unsigned int off)
{
	memset(user_bytes, 0, sizeof(user_bytes));
	return user_call((ulong (*)(ulong))p->code, (ulong)user_bytes + off);
}

static void at_each_offset(const struct probe *p, bool checked)
{
	for (unsigned int off = 0; off < 64; off++) {
		int want = off & (p->align - 1u) && (checked || p->vector == GP) ? p->vector : NONE;
		int got = run_user(p, off);

		sweep_check(got == want, "%s at offset %u: vector %d, want %d", p->name, off, got, want);
		if (got == AC)
			sweep_check(!fault.f.error, "%s: error code %lx", p->name, fault.f.error);
	}
}

static void each_probe(const char *name, bool checked)
{
	sweep(name);
	for (unsigned int k = 0; k < ARRAY_SIZE(probes); k++)
		if (runs_here(&probes[k]))
			at_each_offset(&probes[k], checked);
	sweep_end();
}

/* Nothing of an instruction happens that is refused. */
static void check_no_effect(void)
{
	extern u8 probe_rep_stos32[], probe_lock_add32[];

	group("refused");
	memset(user_bytes, 0x11, sizeof(user_bytes));
	user_call((ulong (*)(ulong))probe_lock_add32, (ulong)user_bytes + 1);
	expect("memory is as it was", *(u32 *)(user_bytes + 1), 0x11111111);
	memset(user_bytes, 0x11, sizeof(user_bytes));
	user_call((ulong (*)(ulong))probe_rep_stos32, (ulong)user_bytes + 1);
	expect("a string, too", *(u32 *)(user_bytes + 1), 0x11111111);
	expect("its count", fault.f.cx, 3);
	expect("AC goes on the stack", fault.f.flags & FL_AC, FL_AC);
	expect("and is clear in the handler", read_flags() & FL_AC, 0);
	group(NULL);
}

/* The kernel's own: AC there says something else. */
static void check_supervisor(void)
{
	int got;

	group("");
	sweep("at CPL 0");
	for (unsigned int k = 0; k < ARRAY_SIZE(probes); k++) {
		if (!runs_here(&probes[k]) || probes[k].vector == GP)
			continue;
		got = catch(((ulong (*)(ulong))probes[k].code)((ulong)user_bytes + 1));
		sweep_check(got == NONE, "%s: vector %d", probes[k].name, got);
	}
	sweep_end();
}

/* What the processor reads and writes for itself: descriptors, the TSS, the frame of an interrupt. */
ulong user_segments(ulong);
asm(".pushsection .user.text, \"ax\"\n"
	"user_segments:	pushf\n	orl $0x40000, (" SP ")\n	popf\n"
	"	mov %ds, %eax\n	mov %eax, %es\n	int3\n"
	"	pushf\n	andl $~0x40000, (" SP ")\n	popf\n	ret\n"
	".popsection\n");

static unsigned int n_int3;

static void on_int3(struct trap_frame *f)
{
	n_int3 += !!(f->flags & FL_AC);
}

static u8 other_gdt[sizeof(gdt) + 8];

static void gdt_load(const void *base)
{
	struct { u16 limit; ulong base; } __attribute__((packed)) r = { sizeof(gdt) - 1, (ulong)base };

	asm volatile("lgdt %0" :: "m"(r) : "memory");
}

static void check_implicit(void)
{
	group("implicit");
	memcpy(other_gdt + 3, gdt, sizeof(gdt));
	gdt_load(other_gdt + 3);
	trap_handle(BP, on_int3);
#ifndef __x86_64__
	tss.esp0 -= 2;
#endif
	expect_vector("descriptors and frames anywhere", user_call(user_segments, 0), NONE, 0);
#ifndef __x86_64__
	tss.esp0 += 2;
#endif
	trap_handle(BP, NULL);
	expect("and the interrupt came", n_int3, 1);
	gdt_load(gdt);
}

/* IRET brings AC along. */
USER_TEXT static ulong user_load(ulong at)
{
	return *(volatile u32 *)at;
}

static void check_iret(void)
{
	group("iret");
	write_flags(read_flags() | FL_AC);
	expect_vector("with AC", user_call(user_load, (ulong)user_bytes + 1), AC, 0);
	write_flags(read_flags() & ~FL_AC);
	expect_vector("and without", user_call(user_load, (ulong)user_bytes + 1), NONE, 0);
}

/* POPF whose own operand lies in two pages: what follows is checked as behind any other. */
u8 two_pages[8192] USER_DATA __attribute__((aligned(4096)));
ulong user_popf_far(ulong);
asm(".pushsection .user.text, \"ax\"\n"
	"user_popf_far: " BEGIN "	pushf\n	pop " AX "\n	or $0x40000, %eax\n	mov " SP ", " CX "\n"
	"	mov $two_pages + 0x1000 - 2, " SP "\n	mov " AX ", (" SP ")\n	popf\n"
	"	movl (" DI "), %edx\n	mov " CX ", " SP "\n"
	"	pushf\n	andl $~0x40000, (" SP ")\n	popf\n" END "	ret\n"
	".popsection\n");

static void check_popf(void)
{
	group("popf");
	for (unsigned int k = 0; k < 3; k++)
		expect_vector("from two pages", user_call(user_popf_far, (ulong)user_bytes + 1), AC, 0);
}

void guest_main(void)
{
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	if (have_avx())
		avx_on();
	asm volatile("fninit");
	each_probe("without AM", false);
	write_cr0(read_cr0() | CR0_AM);
	each_probe("with AM", true);
	each_probe("and again", true);
	check_no_effect();
	check_supervisor();
	check_implicit();
	check_iret();
	check_popf();
	write_cr0(read_cr0() & ~CR0_AM);
	group("");
	each_probe("AM off again", false);
	finish();
}
