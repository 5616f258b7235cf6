/* Code areas and their host faults, and the base of GS: what engines ask of the seam (os.h). */
#include <asm/prctl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "hypervisor/os/os.h"
#include "tests/api/child.h"

/* ---- code areas ---------------------------------------------------------------------------- */

/*
 * void probe(struct probe *p): gives all registers and flags values of their own, runs the
 * instruction at probe_fault, and at probe_resume stores them all in p->out.
 */
struct probe {
	u64 out[16];		/* by number; [4]: RSP less that of the call */
	u64 flags, rsp, bad;
	u32 mxcsr_in, mxcsr_clean;
	double zero;
	u8 odd[64];
};
extern const u8 probe_start[], probe_fault[], probe_resume[], probe_end[];
#define PROBE_FLAGS	0x8d5	/* OF SF ZF AF PF CF */
__asm__(".pushsection .rodata\n"
	"probe_start:\n\t"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n\t"
	"push %rdi\n\t"				/* found again by RSP */
	"mov %rsp, 136(%rdi)\n\t"
	"ldmxcsr 152(%rdi)\n\t"
	"pushq $0x8d5\n\tpopfq\n\t"
	"mov $0x100, %eax; mov $0x101, %ecx; mov $0x102, %edx; mov $0x103, %ebx\n\t"
	"mov $0x105, %ebp; mov $0x106, %esi; mov $0x108, %r8d; mov $0x109, %r9d\n\t"
	"mov $0x10a, %r10d; mov $0x10b, %r11d; mov $0x10c, %r12d; mov $0x10d, %r13d\n\t"
	"mov $0x10e, %r14d; mov $0x10f, %r15d\n"
	"probe_fault:\n\t"
	".fill 16, 1, 0x90\n"			/* filled in */
	"probe_resume:\n\t"
	"mov %rdi, -200(%rsp)\n\t"
	"mov (%rsp), %rdi\n\t"
	"mov %rax, (%rdi)\n\t"
	"pushfq; popq 128(%rdi)\n\t"
	"mov %rcx, 8(%rdi); mov %rdx, 16(%rdi); mov %rbx, 24(%rdi)\n\t"
	"mov %rsp, 32(%rdi); mov %rbp, 40(%rdi); mov %rsi, 48(%rdi)\n\t"
	"mov -200(%rsp), %rax; mov %rax, 56(%rdi)\n\t"
	"mov %r8, 64(%rdi); mov %r9, 72(%rdi); mov %r10, 80(%rdi); mov %r11, 88(%rdi)\n\t"
	"mov %r12, 96(%rdi); mov %r13, 104(%rdi); mov %r14, 112(%rdi); mov %r15, 120(%rdi)\n\t"
	"stmxcsr 152(%rdi)\n\t"
	"ldmxcsr 156(%rdi)\n\t"
	"fninit; cld\n\t"
	"pop %rdi; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n\t"
	"ret\n"
	"probe_end:\n"
	".popsection");
_Static_assert(offsetof(struct probe, flags) == 128 && offsetof(struct probe, rsp) == 136, "asm");
_Static_assert(offsetof(struct probe, bad) == 144 && offsetof(struct probe, zero) == 160, "asm");
_Static_assert(offsetof(struct probe, mxcsr_in) == 152 && offsetof(struct probe, odd) == 168, "asm");

/* RDI is the probe. */
static const struct faulting {
	u8 len, code[12];
	u8 vector;
	u32 mxcsr;	/* before, and exception flags after */
	u32 mxcsr_flags;
} faulting[] = {
	{ 2, { 0x0f, 0x0b }, 6, 0x1f80, 0 },				/* ud2 */
	{ 4, { 0xf7, 0x77, 0x20, 0x90 }, 0, 0x1f80, 0 },		/* div dword [rdi + 32] */
	{ 1, { 0xf4 }, 13, 0x1f80, 0 },					/* hlt */
	{ 7, { 0x0f, 0x28, 0x87, 0xa9, 0, 0, 0 }, 13, 0x1f80, 0 },	/* movaps xmm0, [rdi + 169] */
	{ 5, { 0x8b, 0x04, 0x25, 0, 0 }, 14, 0x1f80, 0 },		/* mov eax, [0] */
	/* divsd xmm0, [rdi + 160]; xmm0 is 1.0 */
	{ 8, { 0xf2, 0x0f, 0x5e, 0x87, 0xa0, 0, 0, 0 }, 19, 0x1d80 | 0x4000, 4 },
};

static void run_probe(const struct faulting *f, bool late)
{
	u64 rip = 0, vector = ~0ULL;
	struct os_code_fault fault = { .rip = &rip, .vector = &vector };
	struct probe p = { .mxcsr_in = f->mxcsr, .mxcsr_clean = 0x1f80 };
	size_t size = probe_end - probe_start, at = probe_fault - probe_start;
	size_t resume = probe_resume - probe_start;
	void *rw, *rx;
	double one = 1.0;

	/* Somewhere outside the area, when it is known before. */
	if (!late) {
		u8 *copy = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(copy != MAP_FAILED);
		memcpy(copy, probe_start, size);
		CHECK(mprotect(copy, 4096, PROT_READ | PROT_EXEC) == 0);
		fault.resume = (u64)copy + resume;
	}
	CHECK(os_code_alloc(4096, &rw, &rx, &fault) == 0);
	memset(&fault, 0xff, sizeof(fault));
	if (late)
		os_code_set_resume(rx, (u64)rx + resume);
	memcpy(rw, probe_start, size);
	memset((u8 *)rw + at, 0xcc, resume - at);
	memcpy((u8 *)rw + at, f->code, 12);
	if (f->vector == 14)
		memset((u8 *)rw + at + 3, 0, 4);
	__asm__ volatile("movsd %0, %%xmm0" : : "m"(one) : "xmm0");
	__asm__ volatile("call *%1"
		: "+D"((u64){ (u64)&p }) : "r"(rx)
		: "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "cc", "memory");
	CHECK(rip == (u64)rx + at);
	CHECK(vector == f->vector);
	for (unsigned int n = 0; n < 16; n++) {
		if (n == 4)
			CHECK(p.out[n] == p.rsp);
		else
			CHECK(p.out[n] == (n == 7 ? (u64)&p : 0x100 + n));
	}
	CHECK((p.flags & (PROBE_FLAGS | 0x400)) == PROBE_FLAGS);
	CHECK(p.mxcsr_in == (f->mxcsr | f->mxcsr_flags));
	os_code_free(rw, rx, 4096);
}

static void area_resumes(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(faulting); i++) {
		run_probe(&faulting[i], false);
		run_probe(&faulting[i], true);
	}
}

static void test_area_resumes(void **state)
{
	EXPECT_FINE(area_resumes);
}

/* Without a record the call ends with 1 + vector; the x87 unit's pending error is #MF. */
static void area_returns(void)
{
	static const struct { u8 code[16]; u64 ret; } calls[] = {
		{ { 0xb8, 7, 0, 0, 0, 0x0f, 0x0b, 0xcc }, 1 + 6 },
		{ { 0x31, 0xc9, 0xf7, 0xf1, 0xcc }, 1 + 0 },	/* xor ecx, ecx; div ecx */
		/* fninit; push 0x37b; fldcw [rsp]; pop rax; fld1; fldz; fdivp; fwait: ends at #MF */
		{ { 0xdb, 0xe3, 0xd9, 0x2f, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b, 0xcc }, 1 + 16 },
	};
	u16 divide_unmasked = 0x37b;
	void *rw, *rx;

	CHECK(os_code_alloc(4096, &rw, &rx, NULL) == 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(calls); i++) {
		memcpy(rw, calls[i].code, 16);
		CHECK(((u64 (*)(u16 *))rx)(&divide_unmasked) == calls[i].ret);
		__asm__ volatile("fninit");
	}
	os_code_free(rw, rx, 4096);
}

static void test_area_returns(void **state)
{
	EXPECT_FINE(area_returns);
}

/* A fault just outside an area, or in one that was freed, is the program's. */
static void area_freed(void)
{
	void *rw, *rx;

	CHECK(os_code_alloc(4096, &rw, &rx, NULL) == 0);
	signal(SIGSEGV, SIG_DFL);
	os_code_free(rw, rx, 4096);
	((void (*)(void))rx)();
}

static void test_area_freed(void **state)
{
	EXPECT_SIGNAL(area_freed, SIGSEGV);
}

/* ---- the GS base --------------------------------------------------------------------------- */

static void gs_base(void)
{
	u64 word = 0x1122334455667788, before = os_gs_get(), loaded, asked;

	os_gs_set((u64)&word);
	__asm__ volatile("mov %%gs:0, %0" : "=r"(loaded));
	CHECK(loaded == word && os_gs_get() == (u64)&word);
	CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &asked) == 0 && asked == (u64)&word);
	os_gs_set(before);
	CHECK(os_gs_get() == before);
}

static void gs_base_slow(void)
{
	setenv("QUMRA_NO_FSGSBASE", "1", 1);
	CHECK(!os_gs_fast());
	gs_base();
}

static void test_gs_base(void **state)
{
	EXPECT_FINE(gs_base);
	EXPECT_FINE(gs_base_slow);
}

/* ---- names for profilers ------------------------------------------------------------------- */

#define NAMERS		4
#define NAMES_EACH	5000

static void *namer(void *arg)
{
	u64 n = (u64)arg;
	char name[32];

	for (u32 i = 0; i < NAMES_EACH; i++) {
		snprintf(name, sizeof(name), "code %llu %u\nx", (unsigned long long)n, i);
		os_code_name(0x7f0000000000 + n * 0x1000000 + i * 16, i, name);
	}
	return NULL;
}

/* Leaves by exit(), as programs do: nothing may be lost. */
static void give_names(void)
{
	pthread_t thread[NAMERS];
	void *rw, *rx;

	CHECK(!os_code_named());
	setenv("QUMRA_PERF_MAP", "1", 1);
	CHECK(os_code_alloc(4096, &rw, &rx, NULL) == 0);
	CHECK(os_code_named());
	for (u64 n = 0; n < NAMERS; n++)
		CHECK(pthread_create(&thread[n], NULL, namer, (void *)n) == 0);
	for (u64 n = 0; n < NAMERS; n++)
		pthread_join(thread[n], NULL);
	exit(0);
}

static void check_line(const char *line, u32 next[NAMERS])
{
	unsigned long long start, thread;
	char again[80];
	u32 size, i;

	assert_int_equal(sscanf(line, "%llx %x code %llu %u\n", &start, &size, &thread, &i), 4);
	snprintf(again, sizeof(again), "%llx %x code %llu %u\n", start, size, thread, i);
	assert_string_equal(line, again);
	assert_true(thread < NAMERS);
	assert_int_equal(i, next[thread]++);
	assert_int_equal(size, i);
	assert_int_equal(start, 0x7f0000000000 + thread * 0x1000000 + i * 16);
}

static void test_names(void **state)
{
	u32 next[NAMERS] = { 0 };
	char path[64], line[300];
	int status;
	pid_t pid = fork();
	FILE *f;

	if (pid == 0)
		give_names();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", pid);
	f = fopen(path, "r");
	assert_non_null(f);
	unlink(path);
	while (fgets(line, sizeof(line), f))
		check_line(line, next);
	fclose(f);
	for (int n = 0; n < NAMERS; n++)
		assert_int_equal(next[n], NAMES_EACH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_area_resumes),
		cmocka_unit_test(test_area_returns),
		cmocka_unit_test(test_area_freed),
		cmocka_unit_test(test_gs_base),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
