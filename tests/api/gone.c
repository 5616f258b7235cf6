/*
 * Guest memory that user space takes away under hot code, by another thread and between runs:
 * KVM_RUN is -EFAULT with the state before an instruction, which is done when the memory is there
 * again. So each program leaves the registers and the memory that it leaves undisturbed.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/api/api.h"

#define PAGE		4096u
#define DATA_GPA	0x100000u	/* a slot of its own, of a file */
#define DATA_PAGES	8u		/* the last two are the stack's */
#define DATA_SIZE	(DATA_PAGES * PAGE)
#define FAULTS		40u		/* for each program and way; ... */
#define FAULTS_BY_THREAD 16u
#define TRIES		15u		/* ... but in so many runs, ... */
#define TRIES_FOR_ONE	300u		/* ... where there was one at all: the host may be busy */
#define TURNS		8u		/* of each program's outer loop; or so long: */
#define RUN_NS		10000000

/* ---- programs: RSI is the data, RBP the outer loop's count ---- */

/* All arithmetic flags are part of what is summed up in R14. */
#define FLAGS_TO_SUM \
	"	pushfq\n" \
	"	pop	%rax\n" \
	"	and	$0x8d5, %eax\n" \
	"	imul	$0x01000193, %r14, %r14\n" \
	"	add	%rax, %r14\n"

#define PROGRAM(name, body) \
	extern const u8 program_##name[], program_##name##_end[]; \
	__asm__(".pushsection .rodata\n" \
		".hidden program_" #name ", program_" #name "_end\n" \
		".globl program_" #name ", program_" #name "_end\n" \
		"program_" #name ":\n" \
		"100:\n" body \
		"	dec	%ebp\n" \
		"	jnz	100b\n" \
		"	hlt\n" \
		"program_" #name "_end:\n" \
		".popsection")

/* A loop whose checks are gone in later turns, across pages. */
PROGRAM(loads,
	"	xor	%ecx, %ecx\n"
	"1:	add	(%rsi,%rcx,8), %r14\n"
	"	xor	16(%rsi,%rcx,8), %r14\n"
	"	inc	%rcx\n"
	"	cmp	$3000, %rcx\n"
	"	jb	1b\n"
	"	mov	%rsi, %rdx\n"
	"	lea	0x5000(%rsi), %rdi\n"
	"2:	mov	(%rdx), %rax\n"
	"	add	%rax, %r14\n"
	"	add	$40, %rdx\n"
	"	cmp	%rdi, %rdx\n"
	"	jb	2b\n");

PROGRAM(stores,
	"	xor	%ecx, %ecx\n"
	"1:	mov	%r14, (%rsi,%rcx,8)\n"
	"	add	%rcx, 8(%rsi,%rcx,8)\n"
	"	lea	1(%r14,%r14,2), %r14\n"
	"	inc	%rcx\n"
	"	cmp	$2500, %rcx\n"
	"	jb	1b\n"
	"	lea	0x4ff8(%rsi), %rdx\n"
	"2:	movb	$7, (%rdx)\n"
	"	addl	$3, 4(%rdx)\n"
	"	sub	$24, %rdx\n"
	"	cmp	%rsi, %rdx\n"
	"	ja	2b\n"
	"	mov	%rsi, %rdi\n"
	"	mov	$2000, %ecx\n"
	"3:	lea	1(%r14,%r14,4), %r14\n"
	"	mov	%r14, %rdx\n"
	"	shr	$7, %rdx\n"		/* flags that stay in RAX */
	"	mov	%rcx, (%rdi)\n"
	"	movl	$5, 0x1004(%rdi)\n"
	"	adc	$0, %r14\n"
	"	add	$8, %rdi\n"
	"	dec	%ecx\n"
	"	jnz	3b\n");

/* Read, changed and written once each: a second time would show. */
PROGRAM(changes,
	"	xor	%ecx, %ecx\n"
	"1:	incl	(%rsi,%rcx)\n"
	"	mov	%r14, %rax\n"
	"	lock	xadd %rax, 0x1000(%rsi,%rcx)\n"
	"	add	%rax, %r14\n"
	"	xchg	%r14, 0x2000(%rsi,%rcx)\n"
	"	mov	%r14, %rax\n"
	"	lock	cmpxchg %rcx, 0x3000(%rsi,%rcx)\n"
	"	setz	%dl\n"
	"	movzbl	%dl, %edx\n"
	"	lea	(%rax,%rdx), %r14\n"
	"	notq	8(%rsi,%rcx)\n"
	"	shlq	$3, 0x1008(%rsi,%rcx)\n"
	"	rcrl	$1, 0x2008(%rsi,%rcx)\n"
	FLAGS_TO_SUM
	"	add	$16, %ecx\n"
	"	cmp	$0xff0, %ecx\n"
	"	jb	1b\n");

/* Calls across two pages of stack, and what else pushes and pops. */
PROGRAM(stack,
	"	mov	$300, %ecx\n"
	"	call	3f\n"
	"	mov	%ecx, (%rsi)\n"
	"	lea	6f(%rip), %rax\n"
	"	mov	%rax, 0x1000(%rsi)\n"
	"	mov	$50, %ecx\n"
	"1:	push	(%rsi)\n"
	"	push	$-5\n"
	"	pop	%rax\n"
	"	pop	%rdx\n"
	"	add	%rax, %r14\n"
	"	add	%rdx, %r14\n"
	"	call	*0x1000(%rsi)\n"
	"	jmp	*0x1008(%rsi)\n"
	"4:	push	%rbp\n"
	"	mov	%rsp, %rbp\n"
	"	push	%r14\n"
	"	leave\n"
	"	dec	%ecx\n"
	"	jnz	1b\n"
	"	jmp	5f\n"
	"6:	lea	4b(%rip), %rax\n"
	"	mov	%rax, 0x1008(%rsi)\n"
	"	push	%rcx\n"
	"	call	7f\n"
	"	pop	%rcx\n"
	"	ret\n"
	"7:	pushq	$3\n"
	"	pop	%rax\n"
	"	add	%rax, %r14\n"
	"	push	%r14\n"
	"	add	$8, %rsp\n"
	"	ret\n"
	"3:	add	%rcx, %r14\n"
	"	dec	%ecx\n"
	"	jz	8f\n"
	"	push	%rcx\n"
	"	call	3b\n"
	"	pop	%rcx\n"
	"	add	%rcx, %r14\n"
	"8:	ret\n"
	"5:\n");

/* What uses the stack or jumps, each by a page that nothing else touches meanwhile. */
PROGRAM(frames,
	"	lea	3f(%rip), %rax\n"
	"	mov	%rax, 0x5000(%rsi)\n"
	"	lea	2f(%rip), %rax\n"
	"	mov	%rax, 0x4000(%rsi)\n"
	"	mov	%rbp, 0x3000(%rsi)\n"
	"	movq	$0x8d7, 0x2000(%rsi)\n"
	"	mov	%rsp, %rbx\n"
	"	mov	$40, %ecx\n"
	"1:	lea	0x2000(%rsi), %rsp\n"
	"	popfq\n"
	"	adc	$0, %r14\n"
	"	lea	0x4000(%rsi), %rsp\n"
	"	ret\n"
	"2:	lea	0x3000(%rsi), %rbp\n"
	"	leave\n"
	"	add	%rsp, %r14\n"
	"	lea	0x1ff8(%rsi), %rsp\n"
	"	push	$-5\n"
	"	jmp	*0x5000(%rsi)\n"
	"3:	mov	%rbx, %rsp\n"
	"	dec	%ecx\n"
	"	jnz	1b\n");

/* Accesses that share a check, and flags that live across them. */
PROGRAM(groups,
	"	mov	$400, %ecx\n"
	"	mov	%rsi, %rdi\n"
	"1:	cmp	%r14, 8(%rdi)\n"
	"	mov	16(%rdi), %rax\n"
	"	mov	0x1000(%rdi), %rdx\n"
	"	adc	%rax, 24(%rdi)\n"
	"	adc	%rdx, 0x1008(%rdi)\n"
	"	mov	%ecx, 32(%rdi)\n"
	FLAGS_TO_SUM
	"	add	%r14, %r8\n"
	"	mov	0x2000(%rdi), %r9\n"
	"	mov	%r8, 0x2008(%rdi)\n"
	FLAGS_TO_SUM
	"	sub	%r8, %r9\n"
	"	mov	%r9, 0x3000(%rdi)\n"
	"	mov	0x1010(%rdi), %rdx\n"
	"	adc	$0, %rdx\n"
	"	mov	%rdx, 0x3008(%rdi)\n"
	"	and	%r9, %rdx\n"
	"	mov	0x4000(%rdi), %rbx\n"
	"	setp	%al\n"
	"	mov	%al, 40(%rdi)\n"
	"	test	%rbx, %rbx\n"
	"	mov	%rbx, 0x2010(%rdi)\n"
	"	js	2f\n"
	"	inc	%rbx\n"
	"2:	mov	%rbx, 0x4000(%rdi)\n"
	FLAGS_TO_SUM
	"	add	$8, %rdi\n"
	"	dec	%ecx\n"
	"	jnz	1b\n");

/* R10, R11 and R15 borrow other registers; flags are lost where a turn begins. */
PROGRAM(homes,
	"	xor	%r10d, %r10d\n"
	"	mov	%rsi, %r11\n"
	"	mov	%r14, %r15\n"
	"1:	mov	(%r11), %rax\n"
	"	add	%rax, %r15\n"
	"	add	%r15, 0x2000(%r11)\n"
	"	mov	(%rsi,%r10), %rdx\n"
	"	xor	%rdx, %r15\n"
	"	mov	%r15, 0x1000(%rsi,%r10)\n"
	"	add	$8, %r11\n"
	"	add	$8, %r10\n"
	"	cmp	$0x3000, %r10\n"
	"	jb	1b\n"
	"	add	%r15, %r14\n"
	"	xor	%r11d, %r11d\n"
	"2:	add	%r15, %r10\n"
	"	mov	%r10, (%rsi,%r11,8)\n"
	"	lea	1(%r11), %r11\n"
	"	cmp	%r11, 0x5000(%rsi)\n"
	"	adc	$0, %r14\n"
	"	cmp	$2000, %r11\n"
	"	jne	2b\n");

PROGRAM(vectors,
	"	xor	%ecx, %ecx\n"
	"	movq	%r14, %xmm1\n"
	"	pxor	%xmm2, %xmm2\n"
	"1:	movdqu	(%rsi,%rcx), %xmm0\n"
	"	paddq	0x1000(%rsi,%rcx), %xmm0\n"
	"	pxor	%xmm0, %xmm1\n"
	"	movdqa	%xmm1, 0x2000(%rsi,%rcx)\n"
	"	movups	%xmm0, 0x3008(%rsi,%rcx)\n"
	"	addpd	0x4000(%rsi,%rcx), %xmm2\n"
	"	ucomisd	8(%rsi,%rcx), %xmm2\n"
	"	mov	(%rsi,%rcx), %rdx\n"
	FLAGS_TO_SUM
	"	movss	4(%rsi,%rcx), %xmm3\n"
	"	movhps	%xmm1, (%rsi,%rcx)\n"
	"	add	$16, %ecx\n"
	"	cmp	$0xfe0, %ecx\n"
	"	jb	1b\n"
	"	movq	%xmm1, %rax\n"
	"	add	%rax, %r14\n"
	"	fninit\n"
	"	mov	%rsi, %rdi\n"
	"	mov	$300, %ecx\n"
	"2:	fildl	(%rdi)\n"
	"	fiaddl	0x1000(%rdi)\n"
	"	fldl	0x2000(%rdi)\n"
	"	fstpl	0x3000(%rdi)\n"
	"	fistpll	0x4000(%rdi)\n"
	"	fnstsw	0x4010(%rdi)\n"
	"	mov	0x4000(%rdi), %rax\n"
	"	add	%rax, %r14\n"
	"	add	$12, %rdi\n"
	"	dec	%ecx\n"
	"	jnz	2b\n");

/* What has its operands in fixed registers, and kernels' instructions. */
PROGRAM(fixed,
	"	mov	%rsi, %r8\n"
	"	mov	$200, %r9d\n"
	"1:	mov	%r14, %rax\n"
	"	mulq	(%r8)\n"
	"	add	%rdx, %rax\n"
	"	mov	%rax, %rbx\n"
	"	movq	$0x1003, 0x1000(%r8)\n"
	"	xor	%edx, %edx\n"
	"	divq	0x1000(%r8)\n"
	"	add	%rdx, %r14\n"
	"	mov	%r14, %rcx\n"
	"	and	$0x7fff, %ecx\n"
	"	btcq	%rcx, 0x2000(%rsi)\n"
	"	adc	$0, %r14\n"
	"	bt	%rcx, 0x1000(%rsi)\n"
	"	adc	$0, %r14\n"
	"	mov	%r14, %rax\n"
	"	cqto\n"
	"	lea	0x3000(%rsi), %rdi\n"
	"	lock	cmpxchg16b (%rdi)\n"
	FLAGS_TO_SUM
	"	cmp	%r14, %rbx\n"
	"	pushfq\n"
	"	add	%r14, (%rsp)\n"
	"	sub	%r14, (%rsp)\n"
	"	popfq\n"
	FLAGS_TO_SUM
	"	mov	%ds, 0x4000(%r8)\n"
	"	mov	%cr0, %rax\n"
	"	add	%rax, %r14\n"
	"	add	$8, %r8\n"
	"	dec	%r9d\n"
	"	jnz	1b\n");

PROGRAM(strings,
	"	mov	$100, %r9d\n"
	"1:	lea	(%rsi,%r9,8), %rdi\n"
	"	mov	%r14, %rax\n"
	"	mov	$300, %ecx\n"
	"	rep	stosq\n"
	"	lea	0x1000(%rsi,%r9), %rdi\n"
	"	push	%rsi\n"
	"	lea	(%rsi,%r9), %rsi\n"
	"	mov	$600, %ecx\n"
	"	rep	movsl\n"
	"	movsq\n"
	"	stosb\n"
	"	mov	%rsi, %rax\n"
	"	pop	%rsi\n"
	"	sub	%rsi, %rax\n"
	"	add	%rax, %r14\n"
	"	add	0x1000(%rsi,%r9,4), %r14\n"
	"	lea	0x2000(%rsi), %rdi\n"
	"	mov	$1000, %ecx\n"
	"	repne	scasb\n"
	"	add	%rcx, %r14\n"
	"	dec	%r9d\n"
	"	jnz	1b\n");

static const struct program {
	const char *name;
	const u8 *code, *end;
} programs[] = {
#define EACH(name) { #name, program_##name, program_##name##_end }
	EACH(loads), EACH(stores), EACH(changes), EACH(stack), EACH(frames), EACH(groups), EACH(homes),
	EACH(vectors), EACH(fixed), EACH(strings),
#undef EACH
};

/* ---- the machine ---- */

struct data {
	struct machine m;
	int file;
	u8 *at;
	const struct program *program;
	struct kvm_regs regs;		/* what it leaves undisturbed ... */
	u8 bytes[DATA_SIZE];		/* ... and in memory */
	u8 kept[DATA_SIZE];
	u32 faults, wanted, seed, turns;
};

static u32 chance(struct data *d)
{
	d->seed = d->seed * 1103515245 + 12345;
	return d->seed >> 16;
}

static void data_new(struct data *d)
{
	struct kvm_userspace_memory_region mem = { .slot = 1, .guest_phys_addr = DATA_GPA,
		.memory_size = DATA_SIZE };
	struct kvm_sregs s;

	machine_new(&d->m, PLAIN);
	paged_mode(&d->m);
	s = get_sregs(d->m.vcpu);
	s.cr4 |= 0x600;		/* OSFXSR, OSXMMEXCPT */
	assert_int_equal(call(d->m.vcpu, KVM_SET_SREGS, &s), 0);
	d->file = memfd_create("data", MFD_CLOEXEC);
	assert_true(d->file >= 0);
	assert_int_equal(ftruncate(d->file, DATA_SIZE), 0);
	d->at = mmap(NULL, DATA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, d->file, 0);
	assert_true(d->at != MAP_FAILED);
	mem.userspace_addr = (u64)d->at;
	assert_int_equal(call(d->m.vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
}

static void data_free(struct data *d)
{
	machine_free(&d->m);
	munmap(d->at, DATA_SIZE);
	close(d->file);
}

static void program_begin(struct data *d)
{
	const struct program *p = d->program;
	struct kvm_regs r = { .rip = CODE_AT, .rflags = 2, .rsi = DATA_GPA, .rbp = d->turns,
		.rsp = DATA_GPA + DATA_SIZE - 16, .r8 = 1, .r9 = 2, .rax = 3, .rbx = 4, .rdx = 5 };

	memcpy(d->m.ram + CODE_AT, p->code, (size_t)(p->end - p->code));
	for (u32 i = 0; i < DATA_SIZE; i++)
		d->at[i] = (u8)(i * 7 ^ i >> 5);
	set_regs(d->m.vcpu, &r);
}

static void program_ended(struct data *d)
{
	struct kvm_regs r = get_regs(d->m.vcpu);

	if (memcmp(&r, &d->regs, sizeof(r)) || memcmp(d->at, d->bytes, DATA_SIZE))
		fail_msg("%s: another end, R14 %llx for %llx, after %u faults", d->program->name,
			r.r14, d->regs.r14, d->faults);
}

/* ---- taking away and giving back ---- */

enum way { WAY_NONE, WAY_READ, WAY_UNMAP, WAY_TRUNCATE, WAYS };

static void take(struct data *d, enum way way, u32 page)
{
	u8 *at = d->at + page * PAGE;

	switch (way) {
	case WAY_UNMAP:
		assert_int_equal(munmap(at, PAGE), 0);
		break;
	case WAY_TRUNCATE:
		memcpy(d->kept, d->at, DATA_SIZE);
		assert_int_equal(ftruncate(d->file, page * PAGE), 0);
		break;
	default:
		assert_int_equal(mprotect(at, PAGE, way == WAY_READ ? PROT_READ : PROT_NONE), 0);
		break;
	}
}

static void give(struct data *d, enum way way, u32 page)
{
	u8 *at = d->at + page * PAGE;

	switch (way) {
	case WAY_UNMAP:
		assert_true(mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, d->file,
			page * PAGE) == at);
		break;
	case WAY_TRUNCATE:
		assert_int_equal(ftruncate(d->file, DATA_SIZE), 0);
		memcpy(at, d->kept + page * PAGE, DATA_SIZE - page * PAGE);
		break;
	default:
		assert_int_equal(mprotect(at, PAGE, PROT_READ | PROT_WRITE), 0);
		break;
	}
}

/* False: it halted. The state is all that there is: what is read is written again. */
static bool run_on(struct data *d)
{
	long ret = call_num(d->m.vcpu, KVM_RUN, 0);
	struct kvm_regs r = get_regs(d->m.vcpu);

	if (ret == 0) {
		assert_int_equal(d->m.run->exit_reason, KVM_EXIT_HLT);
		return false;
	}
	assert_int_equal(ret, -EFAULT);
	d->faults++;
	if (r.rip < CODE_AT || r.rip >= CODE_AT + (u64)(d->program->end - d->program->code))
		fail_msg("%s: at %llx", d->program->name, r.rip);
	assert_true((r.rflags & ~0x8d5ull) == 2);
	assert_true(r.rsp >= DATA_GPA && r.rsp < DATA_GPA + DATA_SIZE);
	set_regs(d->m.vcpu, &r);
	return true;
}

/* ---- between runs: the next access that finds its page gone ---- */

static void program_starved(struct data *d, enum way way)
{
	u32 page;

	do {
		page = chance(d) % DATA_PAGES;
		take(d, way, page);
		if (!run_on(d)) {
			give(d, way, page);
			return;
		}
		give(d, way, page);
	} while (d->faults < d->wanted);
	run_to_halt(&d->m);
}

/* ---- by another thread: in the midst of loops ---- */

struct taker {
	struct data *d;
	enum way way;
	u32 page, seed;
	bool ready, gone, stop;	/* atomic */
};

static s64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void wait_us(u32 us)
{
	s64 start = now_ns();

	while (now_ns() - start < us * 1000)
		sched_yield();
}

static void *taker_main(void *arg)
{
	struct taker *t = arg;

	__atomic_store_n(&t->ready, true, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&t->stop, __ATOMIC_SEQ_CST)) {
		if (__atomic_load_n(&t->gone, __ATOMIC_SEQ_CST)) {
			sched_yield();
			continue;
		}
		t->seed = t->seed * 1103515245 + 12345;
		t->page = (t->seed >> 16) % DATA_PAGES;
		wait_us(t->seed >> 20 & 63);
		take(t->d, t->way, t->page);
		__atomic_store_n(&t->gone, true, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void taker_give(struct taker *t)
{
	if (!__atomic_load_n(&t->gone, __ATOMIC_SEQ_CST))
		return;
	give(t->d, t->way, t->page);
	__atomic_store_n(&t->gone, false, __ATOMIC_SEQ_CST);
}

static void program_robbed(struct data *d, enum way way)
{
	struct taker t = { .d = d, .way = way, .seed = chance(d) };
	pthread_t thread;
	bool more = true;

	assert_int_equal(pthread_create(&thread, NULL, taker_main, &t), 0);
	while (!__atomic_load_n(&t.ready, __ATOMIC_SEQ_CST))
		sched_yield();
	while (more && d->faults < d->wanted) {
		more = run_on(d);
		/* The fault may come before the thread has said which page. */
		while (more && !__atomic_load_n(&t.gone, __ATOMIC_SEQ_CST))
			sched_yield();
		taker_give(&t);
	}
	__atomic_store_n(&t.stop, true, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	taker_give(&t);
	if (more)
		run_to_halt(&d->m);
}

/* ---- all ---- */

static s64 run_ns(struct data *d)
{
	s64 start;

	program_begin(d);
	start = now_ns();
	run_to_halt(&d->m);
	return now_ns() - start;
}

static void undisturbed(struct data *d, bool longer)
{
	d->turns = TURNS;
	run_ns(d);
	if (longer)	/* now that it is translated */
		d->turns = (u32)(RUN_NS / (run_ns(d) / TURNS + 1)) + 1;
	run_ns(d);
	d->regs = get_regs(d->m.vcpu);
	memcpy(d->bytes, d->at, DATA_SIZE);
}

/* The page may be one that nothing uses, or only reads. */
static void disturbed(struct data *d, void (*run)(struct data *d, enum way way), enum way way)
{
	u32 tries = TRIES;

	d->faults = 0;
	for (u32 k = 0; k < tries && d->faults < d->wanted; k++) {
		program_begin(d);
		run(d, way);
		program_ended(d);
		tries = d->faults || way == WAY_READ ? TRIES : TRIES_FOR_ONE;
	}
	if (!d->faults && way != WAY_READ)
		fail_msg("%s: no fault", d->program->name);
}

static void each_program(struct data *d, void (*run)(struct data *d, enum way way), u32 ways,
	bool longer)
{
	for (u32 k = 0; k < ARRAY_SIZE(programs); k++) {
		d->program = &programs[k];
		undisturbed(d, longer);
		for (u32 way = 0; way < ways; way++)
			disturbed(d, run, way);
	}
}

static void rob(u32 seed, u32 wanted, u32 ways, bool by_thread)
{
	static struct data d;

	skip_on_emulated_host("memory that is gone is an emulation failure");
	d = (struct data){ .seed = seed, .wanted = wanted };
	data_new(&d);
	each_program(&d, by_thread ? program_robbed : program_starved, ways, by_thread);
	data_free(&d);
}

static void test_between_runs(void **state)
{
	rob(1, FAULTS, WAYS, false);
}

/* Not by truncation: what the guest writes meanwhile would be lost. */
static void test_by_a_thread(void **state)
{
	rob(2, FAULTS_BY_THREAD, WAY_TRUNCATE, true);
}

/* The instruction behind STI is still to come: no interrupt before it. SDM 2B STI */
static void test_behind_sti(void **state)
{
	/* again: sti; inc dword [rsi]; cli; dec ebp; jnz again; mov ebp, 7; out 0x10, al; jmp again */
	static const u8 code[] = { 0xfb, 0xff, 0x06, 0xfa, 0xff, 0xcd, 0x75, 0xf9, 0xbd, 7, 0, 0, 0,
		0xe6, 0x10, 0xeb, 0xef };
	const struct program p = { "sti", code, code + sizeof(code) };
	struct kvm_vcpu_events e;
	static struct data d;

	skip_on_emulated_host("memory that is gone is an emulation failure");
	d = (struct data){ .program = &p, .turns = 1000 };
	data_new(&d);
	program_begin(&d);
	*(u32 *)d.at = 0;
	run_until(&d.m, KVM_EXIT_IO);
	take(&d, WAY_NONE, 0);
	assert_int_equal(call_num(d.m.vcpu, KVM_RUN, 0), -EFAULT);
	assert_int_equal(get_regs(d.m.vcpu).rip, CODE_AT + 1);
	assert_int_equal(call(d.m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	assert_int_equal(e.interrupt.shadow, KVM_X86_SHADOW_INT_STI);
	give(&d, WAY_NONE, 0);
	run_until(&d.m, KVM_EXIT_IO);
	assert_int_equal(*(u32 *)d.at, d.turns + 7);
	data_free(&d);
}

int test_gone(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_behind_sti),
		cmocka_unit_test(test_between_runs),
		cmocka_unit_test(test_by_a_thread),
	};

	return cmocka_run_group_tests_name("gone", tests, NULL, NULL);
}
