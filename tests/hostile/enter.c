/* The state of the host's thread around KVM_RUN. System V AMD64 ABI 3.2.1, 3.2.3. */
#include <asm/prctl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hypervisor/x86/regs.h"
#include "tests/hostile/hostile.h"

struct enter_regs {
	u64 rsp_before, rsp_after;
	u64 kept[6];	/* RBX, RBP, R12 to R15 */
	u64 rflags;
};

/* What a function must leave as it was, and what a vCPU thread has besides. */
struct thread_state {
	u64 fs, gs, signals;
	u32 mxcsr;
	u16 fcw, ftw;
	u16 ds, es, ss, cs, fs_sel, gs_sel;
	void *altstack;
};

long enter_guarded(int fd, unsigned long request, unsigned long arg, struct enter_regs *out,
	enter_fn *fn);

/* FNSTENV's image. SDM 1 8.1.10 */
struct x87_env {
	u32 fcw, fsw, ftw, rest[4];
};

static void x87_state(struct thread_state *s)
{
	struct x87_env env;

	/* Masks all exceptions, so it is loaded again. */
	__asm__ volatile("fnstenv %0\n\tfldenv %0" : "+m"(env));
	s->fcw = (u16)env.fcw;
	s->ftw = (u16)env.ftw;
}

static u64 base_get(int code)
{
	unsigned long v = 0;

	syscall(SYS_arch_prctl, code, &v);
	return v;
}

static void thread_state(struct thread_state *s)
{
	stack_t alt;

	memset(s, 0, sizeof(*s));
	s->fs = base_get(ARCH_GET_FS);
	s->gs = base_get(ARCH_GET_GS);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &s->signals, 8);
	__asm__ volatile("stmxcsr %0" : "=m"(s->mxcsr));
	s->mxcsr &= ~0x3fu;	/* exception flags belong to everyone */
	x87_state(s);
	__asm__ volatile("mov %%ds, %0" : "=r"(s->ds));
	__asm__ volatile("mov %%es, %0" : "=r"(s->es));
	__asm__ volatile("mov %%ss, %0" : "=r"(s->ss));
	__asm__ volatile("mov %%cs, %0" : "=r"(s->cs));
	__asm__ volatile("mov %%fs, %0" : "=r"(s->fs_sel));
	__asm__ volatile("mov %%gs, %0" : "=r"(s->gs_sel));
	sigaltstack(NULL, &alt);
	s->altstack = alt.ss_sp;
}

static void compare_regs(const struct enter_regs *r)
{
	unsigned int k;

	if (r->rsp_before != r->rsp_after)
		fail("the host's stack pointer moved by %lld",
			(long long)(r->rsp_after - r->rsp_before));
	for (k = 0; k < ARRAY_SIZE(r->kept); k++)
		if (r->kept[k] != 0xc0ffee0000000b0cULL + ((u64)(k + 1) << 4))
			fail("a register that a call keeps (%u) is %llx", k,
				(unsigned long long)r->kept[k]);
	if (r->rflags & (RFLAGS_DF | RFLAGS_AC | RFLAGS_TF | RFLAGS_NT))
		fail("the host's RFLAGS are %llx", (unsigned long long)r->rflags);
}

static void compare_state(const struct thread_state *a, const struct thread_state *b)
{
	if (a->fs != b->fs || a->gs != b->gs)
		fail("FS base %llx, was %llx; GS base %llx, was %llx", (unsigned long long)b->fs,
			(unsigned long long)a->fs, (unsigned long long)b->gs,
			(unsigned long long)a->gs);
	if (a->mxcsr != b->mxcsr)
		fail("MXCSR %x, was %x", b->mxcsr, a->mxcsr);
	if (a->fcw != b->fcw || b->ftw != 0xffff)
		fail("x87 control word %x, was %x; tag word %x", b->fcw, a->fcw, b->ftw);
	if (a->signals != b->signals)
		fail("signal mask %llx, was %llx", (unsigned long long)b->signals,
			(unsigned long long)a->signals);
	if (memcmp(a, b, sizeof(*a)))
		fail("a segment register or the signal stack changed");
}

long enter_checked(int vcpu, enter_fn *fn)
{
	struct thread_state before, after;
	struct enter_regs regs;
	long ret;

	thread_state(&before);
	ret = enter_guarded(vcpu, KVM_RUN, 0, &regs, fn);
	compare_regs(&regs);
	thread_state(&after);
	compare_state(&before, &after);
	return ret;
}
