/*
 * Code that random bytes are written into while other CPUs run it, by a CPU and by a device. What
 * runs it is in user mode: the kernel's memory must stay what it is.
 */
#include "hostile.h"

#define USER_CODE	0x600000ul	/* in the user's 4 MiB */
#define USER_CODE_SIZE	0x4000ul
#define APS		3
#define SEL_AP_TSS(n)	(SEL_FREE + (n) * 16)

static u8 ap_stack[APS][4096] PAGE_ALIGNED;
static u8 ap_trap_stack[APS][8192] PAGE_ALIGNED;
static struct { struct tss t; } ap_tss[APS];
static u8 kernel_canary[65536] PAGE_ALIGNED;
static volatile u32 aps, ap_traps;
static u64 ap_random;

static u64 random_register(void)
{
	static const u64 some[] = { USER_CODE, USER_CODE + 0x1000, USER_CODE + 0x3ff8, 0x500000, 0x7ff000,
		0x100000, 0x200040000000, ~0ul, 0x7fffffffffff, 0x10000, 0xfee00000, ROM_SLOT,
		SPARE_SLOT, NOTHING_THERE };

	return some[random64(&ap_random) % ARRAY_SIZE(some)] + random64(&ap_random) % 64;
}

/* The next run at CPL 3, from the trap that ended the last. */
static void ap_trap(struct trap_frame *f)
{
	ulong *r = &f->r15;
	unsigned k;

	ap_traps++;
	for (k = 0; k < 15; k++)
		r[k] = random_register();
	f->cs = SEL_UCODE;
	f->ss = SEL_UDATA;
	f->sp = random64(&ap_random) % 4 ? USER_CODE + random64(&ap_random) % 0x8000 : random_register();
	f->ip = USER_CODE + random64(&ap_random) % USER_CODE_SIZE;
	f->flags = 2 | (random64(&ap_random) & (FL_DF | FL_AC | FL_CF | FL_ZF | FL_NT));
}

static void any_trap(struct trap_frame *f)
{
	if ((ulong)f >= (ulong)ap_trap_stack && (ulong)f < (ulong)ap_trap_stack + sizeof(ap_trap_stack)) {
		ap_trap(f);
		return;
	}
	print("FAIL trap %lu(%lx) at %lx:%lx, flags %lx, SP %lx, CR2 %lx, frame %lx\n", f->vector,
		f->error, f->cs, f->ip, f->flags, f->sp, read_cr2(), (ulong)f);
	guest_exit(0x12);
}

/* Where another CPU begins: a TSS of its own, then as if a trap had come. */
static void ap_begin(ulong n)
{
	struct tss *t = &ap_tss[n].t;

	t->rsp[0] = (ulong)ap_trap_stack[n] + sizeof(ap_trap_stack[n]);
	t->iomap = 104;
	gdt_set(SEL_AP_TSS(n), descriptor((ulong)t, 103, 0x89, 0));
	asm volatile("ltr %w0" :: "r"(SEL_AP_TSS(n)) : "memory");
	__atomic_fetch_add(&aps, 1, __ATOMIC_SEQ_CST);
	asm volatile("mov %0, %%rsp; ud2" :: "r"(t->rsp[0]) : "memory");
}

static bool canary_whole(void)
{
	unsigned k;

	for (k = 0; k < sizeof(kernel_canary); k++)
		if (kernel_canary[k] != (u8)(k * 7))
			return false;
	return true;
}

static void begin(void)
{
	unsigned k;

	for (k = 0; k < 32; k++)
		trap_handle(k, any_trap);
	trap_handle(VEC_USER_RETURN, any_trap);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SCE);	/* SYSCALL would be the way in */
	for (k = 0; k < sizeof(kernel_canary); k++)
		kernel_canary[k] = k * 7;
	for (k = 0; k < APS; k++)
		host_call(HOST_START_CPU, (ulong)ap_begin, (ulong)ap_stack[k] + 4096 - 8, k);
	host_call(HOST_DMA, USER_CODE, USER_CODE_SIZE, 0);
}

void guest_main(void)
{
	volatile u8 *code = (volatile u8 *)USER_CODE;
	u64 s = inl(HOST_PORT + 4) + 1;
	unsigned k;

	group("race");
	ap_random = s;
	for (k = 0; k < USER_CODE_SIZE; k++)
		code[k] = random64(&s);
	begin();
	sweep("random bytes written into running code");
	while (!time_over()) {
		for (k = 0; k < 20000; k++)
			code[random64(&s) % USER_CODE_SIZE] = random64(&s);
		sweep_check(canary_whole(), "the kernel's memory changed");
	}
	host_call(HOST_QUIET, 0, 0, 0);
	sweep_check(aps > 0, "no CPU started");
	sweep_check(ap_traps > 100, "%u traps", ap_traps);
	sweep_check(canary_whole(), "the kernel's memory changed");
	sweep_end();
	print("%u traps on %u CPUs\n", ap_traps, aps);
}
