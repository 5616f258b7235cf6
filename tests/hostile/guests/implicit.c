/*
 * Instructions whose operands are implied, or that read or write the state of the thread that runs
 * them: what they touch must be the guest's.
 */
#include "hostile.h"

#define PLACE	TEST_VA
#define NONE_AT	(TEST_VA + 0x40000000ul)

static u8 *frame;

/* Each of them once with its address in the page, at the host's memory, and nowhere. */
#define TRY(what, want_bad, text, ...) do { \
	int v_ = catch(asm volatile(text :: __VA_ARGS__, "a"(0x11), "c"(8), "d"(0) \
		: "memory", "cc")); \
	sweep_check(v_ == (want_bad), "%s: %d", what, v_); } while (0)

static void bytes_by_mask(void)
{
	ulong host = host_pointer();

	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	sweep("implied addresses");
	asm volatile(".byte 0x66, 0x0f, 0x76, 0xc0");		/* pcmpeqd %xmm0, %xmm0 */
	TRY("maskmovdqu", NONE, ".byte 0x66, 0x0f, 0xf7, 0xc0", "D"(PLACE + 0x100));
	sweep_check(load64(PLACE + 0x100) == ~0ul && load64(PLACE + 0x108) == ~0ul, "maskmovdqu");
	TRY("maskmovdqu to the host", PF, ".byte 0x66, 0x0f, 0xf7, 0xc0", "D"(host));
	TRY("maskmovdqu to nothing", PF, ".byte 0x66, 0x0f, 0xf7, 0xc0", "D"(NONE_AT));
	TRY("maskmovdqu over the end", PF, ".byte 0x66, 0x0f, 0xf7, 0xc0", "D"(PLACE + 0xff8));
	sweep_check(load64(PLACE + 0xff8) == 0, "half of it was written");
	TRY("maskmovq", NONE, ".byte 0x0f, 0x76, 0xc0, 0x0f, 0xf7, 0xc0, 0x0f, 0x77",
		"D"(PLACE + 0x200));
	TRY("maskmovq to the host", PF, ".byte 0x0f, 0x76, 0xc0, 0x0f, 0xf7, 0xc0", "D"(host));
	asm volatile("emms");
	sweep_end();
}

static void lines(void)
{
	ulong host = host_pointer(), at;

	if (cpuid(0x80000008, 0).ebx & BIT(0)) {
		sweep("CLZERO");
		memset(frame, 0x33, 4096);
		asm volatile(".byte 0x0f, 0x01, 0xfc" :: "a"(PLACE + 0x99) : "memory");
		for (at = 0; at < 4096; at++)
			sweep_check(frame[at] == (at / 64 == 2 ? 0 : 0x33), "at %lx", at);
		sweep_check(catch(asm volatile(".byte 0x0f, 0x01, 0xfc" :: "a"(host) : "memory"))
			== PF, "the host's memory");
		sweep_end();
	}
	sweep("cache lines");
	sweep_check(catch(asm volatile("clflush (%0)" :: "r"(PLACE) : "memory")) == NONE, "clflush");
	sweep_check(catch(asm volatile("clflush (%0)" :: "r"(host) : "memory")) == PF,
		"clflush of the host's");
	/* Prefetches and NOPs never fault, and reach nothing. */
	sweep_check(catch(asm volatile("prefetcht0 (%0)" :: "r"(host))) == NONE, "prefetch");
	sweep_check(catch(asm volatile("prefetchw (%0)" :: "r"(1ul << 63))) == NONE, "prefetchw");
	sweep_check(catch(asm volatile("nopl %%gs:(%0)" :: "r"(host))) == NONE, "nop");
	sweep_end();
}

/* Not ours to give: on a host that has them, they must still not exist. */
static void absent(void)
{
	sweep("instructions that are not there");
	TRY("movdir64b", UD, ".byte 0x66, 0x0f, 0x38, 0xf8, 0x07", "D"(PLACE));
	TRY("movdiri", UD, ".byte 0x0f, 0x38, 0xf9, 0x07", "D"(PLACE));
	TRY("enqcmd", UD, ".byte 0xf2, 0x0f, 0x38, 0xf8, 0x07", "D"(PLACE));
	TRY("enqcmds", UD, ".byte 0xf3, 0x0f, 0x38, 0xf8, 0x07", "D"(PLACE));
	TRY("wrss", UD, ".byte 0x48, 0x0f, 0x38, 0xf6, 0x07", "D"(PLACE));
	TRY("wruss", UD, ".byte 0x66, 0x48, 0x0f, 0x38, 0xf5, 0x07", "D"(PLACE));
	TRY("incssp", UD, ".byte 0xf3, 0x48, 0x0f, 0xae, 0xe8", "D"(PLACE));
	TRY("rstorssp", UD, ".byte 0xf3, 0x0f, 0x01, 0x2f", "D"(PLACE));
	TRY("umonitor", UD, ".byte 0xf3, 0x0f, 0xae, 0xf7", "D"(PLACE));
	TRY("umwait", UD, ".byte 0xf2, 0x0f, 0xae, 0xf0", "D"(PLACE));
	TRY("tpause", UD, ".byte 0x66, 0x0f, 0xae, 0xf0", "D"(PLACE));
	TRY("ptwrite", UD, ".byte 0xf3, 0x0f, 0xae, 0xe0", "D"(PLACE));
	TRY("xbegin", UD, ".byte 0xc7, 0xf8, 0, 0, 0, 0", "D"(PLACE));
	TRY("xend", UD, ".byte 0x0f, 0x01, 0xd5", "D"(PLACE));
	TRY("xtest", UD, ".byte 0x0f, 0x01, 0xd6", "D"(PLACE));
	TRY("xabort", UD, ".byte 0xc6, 0xf8, 0x01", "D"(PLACE));
	TRY("rdpkru", UD, ".byte 0x0f, 0x01, 0xee", "D"(PLACE));
	TRY("wrpkru", UD, ".byte 0x0f, 0x01, 0xef", "D"(PLACE));
	TRY("enclu", UD, ".byte 0x0f, 0x01, 0xd7", "D"(PLACE));
	TRY("rdpru", UD, ".byte 0x0f, 0x01, 0xfd", "D"(PLACE));
	TRY("monitorx", UD, ".byte 0x0f, 0x01, 0xfa", "D"(PLACE));
	TRY("mwaitx", UD, ".byte 0x0f, 0x01, 0xfb", "D"(PLACE));
	TRY("invlpgb", UD, ".byte 0x0f, 0x01, 0xfe", "D"(PLACE));
	TRY("serialize", UD, ".byte 0x0f, 0x01, 0xe8", "D"(PLACE));
	TRY("senduipi", UD, ".byte 0xf3, 0x0f, 0xc7, 0xf0", "D"(PLACE));
	TRY("vmrun", UD, ".byte 0x0f, 0x01, 0xd8", "D"(PLACE));
	TRY("vmload", UD, ".byte 0x0f, 0x01, 0xda", "D"(PLACE));
	TRY("clgi", UD, ".byte 0x0f, 0x01, 0xdd", "D"(PLACE));
	TRY("llwpcb", UD, ".byte 0x8f, 0xe9, 0x78, 0x12, 0xc0", "D"(PLACE));
	TRY("evex", UD, ".byte 0x62, 0xf1, 0x7c, 0x48, 0x11, 0x07", "D"(PLACE));
	sweep_end();
}

static void own_state(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) r = { 0, 0 };
	ulong v, g;
	u16 sel;

	group("the guest's own");
	asm volatile("sgdt %0" : "=m"(r));
	expect("GDT", r.base, (ulong)gdt);
	asm volatile("sidt %0" : "=m"(r));
	expect("IDT", r.base, (ulong)idt);
	asm volatile("str %0" : "=r"(sel));
	expect("TR", sel, SEL_TSS);
	asm volatile("sldt %0" : "=r"(sel));
	expect("LDTR", sel, 0);
	asm volatile("smsw %0" : "=r"(v));
	expect("CR0 by SMSW", v & 0xffff, read_cr0() & 0xffff);
	asm volatile("mov %%gs, %0" : "=r"(sel));
	expect("GS", sel, 0);
	asm volatile("mov %%ss, %0" : "=r"(sel));
	expect("SS", sel, SEL_KDATA);
	asm volatile("mov %%cs, %0" : "=r"(sel));
	expect("CS", sel, SEL_KCODE);
	asm volatile("lar %1, %0" : "=r"(v) : "r"((ulong)SEL_KCODE) : "cc");
	expect("LAR", v & 0xff00, 0x9b00);
	write_cr4(read_cr4() | CR4_FSGSBASE);
	wrmsr(MSR_GS_BASE, PLACE);
	wrmsr(MSR_FS_BASE, PLACE + 8);
	store64(PLACE, 0x6565);
	store64(PLACE + 8, 0xf5f5);
	asm volatile("rdgsbase %0" : "=r"(g));
	expect("RDGSBASE", g, PLACE);
	asm volatile("mov %%gs:0, %0" : "=r"(v));
	expect("by GS", v, 0x6565);
	asm volatile("mov %%fs:0, %0" : "=r"(v));
	expect("by FS", v, 0xf5f5);
	asm volatile("wrgsbase %0; mov %%gs:0, %1" : : "r"(PLACE + 8), "r"(v));
	asm volatile("mov %%gs:0, %0" : "=r"(v));
	expect("WRGSBASE", v, 0xf5f5);
	asm volatile("wrgsbase %0" :: "r"(0ul));
	asm volatile("mov %%gs:(%1), %0" : "=r"(v) : "r"(PLACE));
	expect("by GS with base 0", v, 0x6565);
	sweep("GS is not the host's");
	for (g = 0; g < 0x4000; g += 8) {
		asm volatile("wrgsbase %0" :: "r"(PLACE + 0x40000000 - g));
		sweep_check(catch(asm volatile("mov %%gs:(%1), %0" : "=r"(v) : "r"(g))) == PF, "%lx", g);
	}
	asm volatile("wrgsbase %0" :: "r"(0ul));
	sweep_end();
	/* x87's pointers are the guest's addresses. */
	memset(frame, 0, 512);
	asm volatile("fninit; fld1; fxsave64 (%0)" :: "r"(PLACE) : "memory");
	v = load64(PLACE + 8);
	check(v < 0x400000, "x87 instruction pointer %lx", v);
	asm volatile("fninit");
}

static void strings(void)
{
	ulong host = host_pointer(), d, s, c;

	sweep("string instructions");
#define STRING(text, di, si, cx) ({ d = (di); s = (si); c = (cx); \
	catch(asm volatile(text : "+D"(d), "+S"(s), "+c"(c) : "a"(0) : "memory", "cc")); })
	sweep_check(STRING("rep movsb", PLACE, host, 100) == PF, "from the host");
	sweep_check(STRING("rep movsb", host, PLACE, 100) == PF, "to the host");
	sweep_check(STRING("rep stosq", host, 0, 100) == PF, "stos to the host");
	sweep_check(STRING("rep stosb", PLACE + 0x800, 0, ~0ul) == PF && fault.cr2 == PLACE + 0x1000,
		"without end: CR2 %lx", fault.cr2);
	sweep_check(STRING("rep movsq", PLACE + 0xffc, PLACE, 4) == PF, "over the end");
	sweep_check(STRING("std; rep stosb; cld", PLACE + 0x7ff, 0, ~0ul) == PF &&
		fault.cr2 == PLACE - 1, "downwards: CR2 %lx", fault.cr2);
	write_flags(2);
	sweep_check(STRING("repne scasb", PLACE + 0xff0, 0, 8) == NONE, "scas");
	sweep_check(STRING("repe cmpsb", host, PLACE, 8) == PF, "cmps");
	sweep_check(STRING("addr32 rep stosb", host, 0, 4) != PF || fault.cr2 <= 0xffffffff,
		"32-bit addresses: CR2 %lx", fault.cr2);
	sweep_check(STRING("rep movsb %%gs:(%%rsi), (%%rdi)", PLACE, PLACE + 0x100, 16) == NONE, "gs");
	sweep_check(STRING("rep movsb %%fs:(%%rsi), (%%rdi)", PLACE, PLACE + 0x100, 0) == NONE,
		"no element");
	sweep_check(STRING("rep stosb", host, 0, 0) == NONE, "none to the host");
	sweep_check(STRING("lodsb", 0, host, 0) == PF, "lods");
	sweep_check(STRING("outsb", 0, host, 0) == PF, "outs");
	sweep_end();
	sweep("XLAT");
	sweep_check(catch(asm volatile("xlat" :: "a"(0), "b"(host))) == PF, "the host's memory");
	sweep_check(catch(asm volatile("xlat" :: "a"(1), "b"(~0ul))) == NONE, "around the top");
	sweep_end();
}

void guest_main(void)
{
	frame = page_alloc();
	page_map(PLACE, (ulong)frame, PTE_P | PTE_W);
	group("implicit");
	bytes_by_mask();
	lines();
	absent();
	strings();
	own_state();
}
