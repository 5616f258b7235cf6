/*
 * Segment registers and descriptors: LAR, LSL, VERR, VERW, ARPL, LDT, limits, expand-down, accessed
 * bits. SDM 3A 3.4, 5.2 to 5.6, 5.10; SDM 2.
 */
#include "guest.h"

#ifdef __x86_64__
#define REG64	1
#else
#define REG64	0
#endif

#define SEL(n)	(SEL_FREE + 8 * (n))

/* ---- questions about descriptors ---- */

static bool lar(u16 sel, u32 *val)
{
	bool ok;
	u32 v = 0x5555aaaa;

	asm volatile("lar %2, %1" : "=@ccz"(ok), "+r"(v) : "r"((u32)sel));
	*val = v;
	return ok;
}

static bool lsl(u16 sel, u32 *val)
{
	bool ok;
	u32 v = 0x5555aaaa;

	asm volatile("lsl %2, %1" : "=@ccz"(ok), "+r"(v) : "r"((u32)sel));
	*val = v;
	return ok;
}

static bool verr(u16 sel)
{
	bool ok;

	asm volatile("verr %w1" : "=@ccz"(ok) : "r"((u32)sel));
	return ok;
}

static bool verw(u16 sel)
{
	bool ok;

	asm volatile("verw %w1" : "=@ccz"(ok) : "r"((u32)sel));
	return ok;
}

static void system_types(void)
{
	const u32 lar_ok = REG64 ? BIT(2) | BIT(9) | BIT(11) | BIT(12) :
		BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(9) | BIT(11) | BIT(12);
	const u32 lsl_ok = REG64 ? BIT(2) | BIT(9) | BIT(11) :
		BIT(1) | BIT(2) | BIT(3) | BIT(9) | BIT(11);
	u32 val;
	int t;

	group("system descriptors");
	sweep("lar, lsl, verr, verw of each type");
	gdt_set(SEL(1), 0);
	for (t = 0; t < 16; t++) {
		gdt_set(SEL(0), descriptor(0x1234, 0x5678, 0xe0 | t, 1));
		sweep_check(lar(SEL(0), &val) == !!(lar_ok & BIT(t)), "lar of type %d", t);
		sweep_check(val == (lar_ok & BIT(t) ? 0x10e000u | (u32)t << 8 : 0x5555aaaa),
			"lar of type %d: %x", t, val);
		sweep_check(lsl(SEL(0), &val) == !!(lsl_ok & BIT(t)), "lsl of type %d", t);
		sweep_check(val == (lsl_ok & BIT(t) ? 0x5678 : 0x5555aaaa), "lsl of type %d: %x",
			t, val);
		sweep_check(!verr(SEL(0)), "verr of type %d", t);
		sweep_check(!verw(SEL(0)), "verw of type %d", t);
	}
	sweep_end();
	gdt_set(SEL(0), 0);
}

static void segment_types(void)
{
	u32 val;
	int t;

	group("segment descriptors");
	sweep("lar, lsl, verr, verw of each type");
	for (t = 0; t < 16; t++) {
		bool code = t & 8, rw = t & 2, ok;

		/* not present, which does not matter */
		gdt_set(SEL(0), descriptor(0, 0xabcde, 0x10 | t, 0xd));
		ok = lar(SEL(0), &val);
		sweep_check(ok && val == (0xd01000u | (u32)t << 8), "lar of type %d: %x", t, val);
		ok = lsl(SEL(0), &val);
		sweep_check(ok && val == 0xabcdefff, "lsl of type %d: %x", t, val);
		sweep_check(verr(SEL(0)) == (!code || rw), "verr of type %d", t);
		sweep_check(verw(SEL(0)) == (!code && rw), "verw of type %d", t);
		sweep_check(lar(SEL(0) | 3, &val) == ((t & 12) == 12),
			"lar of type %d with RPL 3", t);
		sweep_check(verr(SEL(0) | 1) == ((t & 14) == 14), "verr of type %d with RPL 1", t);
	}
	sweep_end();
	check(!lar(0, &val) && !lsl(3, &val) && !verr(0) && !verw(2), "null selectors");
	check(!lar(0x7ff8, &val) && !lsl(0x7ff8, &val) && !verr(0x7ff8), "behind the GDT");
	check(!lar(0x0c, &val) && !verw(0x0c), "LDT without one");
	asm volatile("lsl %w1, %w0" : "=r"(val) : "r"((u32)SEL_KDATA), "0"(0x77770000));
	expect("lsl r16", val, 0x7777ffff);
	gdt_set(SEL(0), 0);
}

USER_TEXT static ulong user_lar(ulong sel)
{
	u32 v = 0x1111;

	asm volatile("lar %1, %0" : "+r"(v) : "r"((u32)sel));
	return v;
}

static void user_view(void)
{
	group("lar at CPL 3");
	user_call(user_lar, SEL_KDATA);
	expect("of DPL 0", fault.f.ax, 0x1111);
	user_call(user_lar, SEL_UDATA);
	expect("of DPL 3", fault.f.ax, 0xc0f300);
}

#if !REG64
static void arpls(void)
{
	u32 a;
	bool z;
	static u16 mem;

	group("arpl");
	asm volatile("arpl %w2, %w1" : "=@ccz"(z), "=r"(a) : "r"(3), "1"(0xaaaa0010));
	check(z && a == 0xaaaa0013, "raises the RPL: %x", a);
	asm volatile("arpl %w2, %w1" : "=@ccz"(z), "=r"(a) : "r"(1), "1"(0x12));
	check(!z && a == 0x12, "leaves a higher one: %x", a);
	mem = 0x20;
	asm volatile("arpl %w2, %1" : "=@ccz"(z), "+m"(mem) : "r"(0xfff2));
	check(z && mem == 0x22, "in memory: %x", mem);
}
#endif

/* ---- the LDT ---- */

static u64 ldt[4] = { 0 };

static void ldts(void)
{
	u16 sel;

	group("LDT");
	ldt[0] = descriptor(0, 0xfffff, 0x93, 0xc);
	ldt[1] = descriptor((u32)(ulong)&ldt, 0xfffff, 0x92, 0xc);
	gdt_set(SEL(0), descriptor((u32)(ulong)ldt, 3 * 8 - 1, 0x82, 0));
	gdt_set(SEL(1), 0);
	expect_ok("lldt", asm volatile("lldt %w0" :: "r"((u32)SEL(0))));
	asm volatile("sldt %0" : "=m"(sel));
	expect("sldt", sel, SEL(0));
	expect_ok("entry 0 with TI", asm volatile("mov %0, %%fs" :: "r"(4)));
	expect_ok("entry 1", asm volatile("mov %0, %%fs" :: "r"(0x0c)));
	expect("accessed bit set in memory", ldt[1] >> 40 & 0xff, 0x93);
	{
		u32 v;

		asm volatile("mov %%fs:8, %0" : "=r"(v));
		expect("access through it", v, (u32)ldt[1]);
	}
	expect_fault("behind the limit", GP, 0x1c, asm volatile("mov %0, %%fs" :: "r"(0x1c)));
	expect_fault("an empty entry", GP, 0x14, asm volatile("mov %0, %%fs" :: "r"(0x14)));
	expect_fault("lldt of an LDT entry", GP, 0x0c, asm volatile("lldt %w0" :: "r"(0x0c)));
	gdt_set(SEL(2), descriptor(0, 0xff, 0x02, 0));
	expect_fault("lldt, not present", NP, SEL(2), asm volatile("lldt %w0" :: "r"((u32)SEL(2))));
#if REG64
	gdt_set(SEL(2), descriptor(0, 0xff, 0x82, 0));
	gdt_set(SEL(3), 0x00010000);
	expect_fault("lldt, non-canonical base", GP, SEL(2),
		asm volatile("lldt %w0" :: "r"((u32)SEL(2))));
	gdt_set(SEL(3), 0);
#endif
	asm volatile("mov %0, %%fs; lldt %w0" :: "r"(0));
	expect_fault("gone", GP, 4, asm volatile("mov %0, %%fs" :: "r"(4)));
}

/* ---- limits ---- */

#if !REG64
static u8 arena[0x3000] PAGE_ALIGNED;

#define FS_READ(size, reg, off) asm volatile("mov" size " %%fs:(%0), %%" reg :: "r"(off) : "eax")
#define FS_WRITE(size, reg, off) asm volatile("mov" size " %%" reg ", %%fs:(%0)" \
	:: "r"(off) : "memory")
#define FS_LOAD(sel) asm volatile("mov %0, %%fs" :: "r"(sel) : "memory")

static void limits(void)
{
	u32 base = (u32)arena;

	group("limits");
	gdt_set(SEL(0), descriptor(base, 0xfff, 0x92, 0x4));
	FS_LOAD(SEL(0));
	expect("accessed bit", gdt[SEL(0) / 8] >> 40 & 1, 1);
	expect_ok("last byte", FS_READ("b", "al", 0xfff));
	expect_ok("last dword", FS_READ("l", "eax", 0xffc));
	expect_fault("dword over the limit", GP, 0, FS_READ("l", "eax", 0xffd));
	expect_fault("behind the limit", GP, 0, FS_READ("b", "al", 0x1000));
	expect_fault("write over the limit", GP, 0, FS_WRITE("w", "ax", 0xfff));
	expect_fault("offset -1", GP, 0, FS_READ("b", "al", -1));
	expect_fault("wrap around", GP, 0, FS_READ("l", "eax", -2));
	gdt_set(SEL(0), descriptor(base, 0, 0x92, 0xc));
	FS_LOAD(SEL(0));
	expect_ok("page granularity", FS_READ("l", "eax", 0xffc));
	expect_fault("page granularity, behind", GP, 0, FS_READ("b", "al", 0x1000));
	gdt_set(SEL(0), descriptor(base, 0x0fff, 0x96, 0x4));
	FS_LOAD(SEL(0));
	expect_fault("expand-down: at the limit", GP, 0, FS_READ("b", "al", 0xfff));
	expect_ok("expand-down: above", FS_READ("b", "al", 0x1000));
	expect_fault("expand-down: across", GP, 0, FS_READ("w", "ax", 0xfff));
	gdt_set(SEL(0), descriptor(base, 0x0fff, 0x96, 0x0));
	FS_LOAD(SEL(0));
	expect_ok("expand-down, 16 bits: up to 64 KiB", FS_READ("b", "al", 0xffff));
	expect_fault("expand-down, 16 bits: over it", GP, 0, FS_READ("b", "al", 0x10000));
	expect_fault("expand-down, 16 bits: across", GP, 0, FS_READ("w", "ax", 0xffff));
	gdt_set(SEL(0), descriptor(base, 0xfff, 0x90, 0x4));
	FS_LOAD(SEL(0));
	expect_ok("read-only: read", FS_READ("b", "al", 0));
	expect_fault("read-only: write", GP, 0, FS_WRITE("b", "al", 0));
	gdt_set(SEL(0), descriptor(base, 0xfff, 0x9a, 0x4));
	FS_LOAD(SEL(0));
	expect_ok("code in a data register: read", FS_READ("b", "al", 0));
	expect_fault("code in a data register: write", GP, 0, FS_WRITE("b", "al", 0));
	expect_fault("write through CS", GP, 0, asm volatile("movb $0, %%cs:%0" : "=m"(arena[0])));
	FS_LOAD(0);
}

/* Loads do not happen half: the register keeps its old segment after a fault. */
static void atomic_loads(void)
{
	struct { u32 off; u16 sel; } __attribute__((packed)) p = { 0x1234, 0x7ff8 };
	u32 reg = 7, fs;

	group("loads that fault");
	FS_LOAD(SEL_UDATA);
	expect_fault("lfs", GP, 0x7ff8, asm volatile("lfs %1, %0" : "+r"(reg) : "m"(p)));
	asm volatile("mov %%fs, %0" : "=r"(fs));
	expect("FS", fs, SEL_UDATA);
	p.sel = SEL_KDATA;
	asm volatile("lfs %1, %0" : "=r"(reg) : "m"(p));
	asm volatile("mov %%fs, %0" : "=r"(fs));
	expect("lfs: offset", reg, 0x1234);
	expect("lfs: selector", fs, SEL_KDATA);
	FS_LOAD(0);
}

/*
 * In user mode, since at CPL 0 the handler would have no stack. arg: the SS selector, and ESP above
 * it.
 */
USER_TEXT static ulong user_push(ulong arg)
{
	asm volatile("mov %w0, %%ss; mov %1, %%esp; push %%eax; ud2" :: "r"(arg & 0xffff),
		"r"(arg >> 16) : "memory");
	return 0;
}

static void stacks(void)
{
	u32 sel = SEL(0) | 3;

	group("stack limits");
	gdt_set(SEL(0), descriptor((u32)arena, 0xfff, 0xf2, 0x4));
	expect_vector("push below the limit", user_call(user_push, sel | 0x1000 << 16), UD, 0);
	expect("ESP after it", fault.f.sp, 0xffc);
	expect_vector("push over the limit", user_call(user_push, sel | 0x1002 << 16), SS, 0);
	expect("ESP stays", fault.f.sp, 0x1002);
	expect_vector("push at ESP 0", user_call(user_push, sel), SS, 0);
	gdt_set(SEL(0), descriptor((u32)arena, 0x1fff, 0xf2, 0));
	expect_vector("push on a 16-bit stack", user_call(user_push, sel | 0x1000 << 16), UD, 0);
	expect("SP after it", fault.f.sp & 0xffff, 0xffc);
	gdt_set(SEL(0), descriptor((u32)arena, 0xfff, 0xf6, 0x4));
	expect_vector("expand-down stack", user_call(user_push, sel | 0x1004 << 16), UD, 0);
	expect_vector("expand-down stack, at the limit",
		user_call(user_push, sel | 0x1002 << 16), SS, 0);
}
#endif

/* ---- FS and GS base in 64-bit mode ---- */

#if REG64
/* LGS with REX.W: AMD's processors have 16:32 pointers only, as APM 3 has it of far CALL; Intel's 16:64. */
static void wide_pointer(void)
{
	static const struct { u32 off; u16 sel32, high, sel64; } __attribute__((packed)) p = {
		0x12345678, SEL_KDATA, 0x55aa, SEL_UDATA };
	bool amd = cpuid(0, 0).ecx == 0x444d4163;	/* ...cAMD */
	u64 reg = ~0ul;
	u32 gs;

	group("LGS with REX.W");
	asm volatile(".byte 0x48, 0x0f, 0xb5, 0x06; mov %%gs, %1" : "+a"(reg), "=r"(gs) : "S"(&p), "m"(p));
	expect("offset", reg, amd ? 0x12345678 : 0x12345678 | (u64)SEL_KDATA << 32 | 0x55aaul << 48);
	expect("selector", gs, amd ? SEL_KDATA : SEL_UDATA);
	asm volatile("mov %0, %%gs" :: "r"(0));
}

static void bases(void)
{
	static u64 cell = 0x1122334455667788;
	u64 v, old;
	u32 sel;

	group("bases");
	wrmsr(MSR_FS_BASE, (u64)&cell - 0x1000);
	asm volatile("mov %%fs:0x1000, %0" : "=r"(v));
	expect("FS base", v, cell);
	asm volatile("mov %0, %%fs" :: "r"(SEL_KDATA));
	expect("a load of FS sets the base from the descriptor", rdmsr(MSR_FS_BASE), 0);
	expect_fault("non-canonical FS base", GP, 0, wrmsr(MSR_FS_BASE, 1ul << 47));
	expect_fault("non-canonical kernel GS base", GP, 0, wrmsr(MSR_KERNEL_GS_BASE, 1ul << 63));
	wrmsr(MSR_GS_BASE, 0x1111);
	wrmsr(MSR_KERNEL_GS_BASE, 0x2222);
	asm volatile("swapgs");
	expect("swapgs: GS", rdmsr(MSR_GS_BASE), 0x2222);
	expect("swapgs: kernel GS", rdmsr(MSR_KERNEL_GS_BASE), 0x1111);
	old = read_cr4();
	write_cr4(old & ~CR4_FSGSBASE);
	expect_fault("rdfsbase without CR4.FSGSBASE", UD, 0, asm volatile("rdfsbase %0" : "=r"(v)));
	if (cpuid(7, 0).ebx & 1) {
		write_cr4(old | CR4_FSGSBASE);
		asm volatile("wrgsbase %1; rdgsbase %0" : "=r"(v) : "r"((u64)&cell));
		expect("wrgsbase, rdgsbase", v, (u64)&cell);
		asm volatile("mov %%gs:0, %0" : "=r"(v));
		expect("access", v, cell);
		asm volatile("wrfsbase %k0" :: "r"(0xffffffff80001000));
		expect("wrfsbase r32", rdmsr(MSR_FS_BASE), 0x80001000);
		asm volatile("rdfsbase %k0" : "=r"(v) : "0"(~0ul));
		expect("rdfsbase r32", v, 0x80001000);
		expect_fault("wrfsbase non-canonical", GP, 0,
			asm volatile("wrfsbase %0" :: "r"(1ul << 48)));
	}
	write_cr4(old);
	asm volatile("mov %%gs, %0" : "=r"(sel));
	asm volatile("mov %0, %%fs; mov %0, %%gs" :: "r"(0));
	expect_fault("read at address -1", PF, 0, asm volatile("mov (%1), %0" : "=r"(v) : "r"(-1l)));
	expect("CR2", fault.cr2, -1ul);
	/* Other segments have no base and no limit. */
	gdt_set(SEL(0), descriptor(0x1000, 0xf, 0x92, 0x4));
	asm volatile("mov %0, %%es" :: "r"(SEL(0)));
	asm volatile("mov %%es:%1, %0" : "=r"(v) : "m"(cell));
	expect("ES base is ignored", v, cell);
	asm volatile("mov %0, %%es" :: "r"(SEL_KDATA));
}

static void table_registers(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) r, old, bad = { 0xff, 1ul << 47 };

	group("table registers");
	asm volatile("sgdt %0" : "=m"(old));
	expect("GDT base", old.base, (u64)gdt);
	expect_fault("lgdt non-canonical", GP, 0, asm volatile("lgdt %0" :: "m"(bad)));
	expect_fault("lidt non-canonical", GP, 0, asm volatile("lidt %0" :: "m"(bad)));
	asm volatile("sgdt %0" : "=m"(r));
	expect("and nothing changed", r.base, old.base);
}
#endif

void guest_main(void)
{
	system_types();
	segment_types();
	user_view();
	ldts();
#if REG64
	bases();
	wide_pointer();
	table_registers();
#else
	arpls();
	limits();
	atomic_loads();
	stacks();
#endif
}
