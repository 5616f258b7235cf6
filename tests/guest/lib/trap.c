/* Descriptor tables, and what becomes of a trap. SDM 3A 6.10-6.14. */
#include "guest.h"
#include "chips.h"

struct fault fault;
struct catch_point *catch_top;
u64 idt[512] PAGE_ALIGNED;
struct tss tss;
volatile ulong mark;
static trap_handler handlers[256];

extern u8 trap_stubs[], real_start[], real_load[], real_size[];
void catch_land(struct catch_point *) __attribute__((noreturn));
void user_enter(ulong (*fn)(ulong), ulong arg, ulong cs);
void trap_dispatch(struct trap_frame *f);
void guest_enter(void);

void trap_handle(int vector, trap_handler h)
{
	handlers[vector] = h;
}

void trap_dispatch(struct trap_frame *f)
{
	if (handlers[f->vector]) {
		handlers[f->vector](f);
		return;
	}
	memcpy(&fault.f, f, sizeof(*f));
	fault.cr2 = read_cr2();
	fault.frame_at = (ulong)f;
	fault.vector = f->vector;
	if (catch_top)
		catch_land(catch_top);
	print("FAIL unexpected trap %lu(%lx) at %lx:%lx flags %lx sp %lx CR2 %lx\n", f->vector, f->error,
	      f->cs, f->ip, f->flags, f->sp, fault.cr2);
	guest_exit(0x12);
}

int user_call(ulong (*fn)(ulong), ulong arg)
{
	int v = catch(user_enter(fn, arg, SEL_UCODE));

	if (v == VEC_USER_RETURN)
		v = fault.vector = NONE;
	return v;
}

bool expect_vector_at(const char *name, int got, int vector, ulong error)
{
	if (got == vector && fault.f.ip != mark)
		return check(false, "%s: saved IP %lx, want %lx", name, fault.f.ip, mark);
	return expect_vector(name, got, vector, error);
}

u64 descriptor(u32 base, u32 limit, u8 type, u8 flags)
{
	return (u64)(base >> 24) << 56 | (u64)(flags & 15) << 52 | (u64)(limit >> 16 & 15) << 48 |
	       (u64)type << 40 | (u64)(base & 0xffffff) << 16 | (limit & 0xffff);
}

ulong trap_stub(int vector)
{
	return (ulong)trap_stubs + vector * 16;
}

void idt_set(int vector, u16 sel, ulong target, int type, int dpl, int ist)
{
	u64 low = (target & 0xffff) | (u64)sel << 16 | (u64)(ist & 7) << 32 |
		  (u64)(0x80 | dpl << 5 | type) << 40 | (u64)(target >> 16 & 0xffff) << 48;

#ifdef __x86_64__
	idt[vector * 2] = low;
	idt[vector * 2 + 1] = target >> 32;
#else
	idt[vector] = low;
#endif
}

void idt_default(int vector)
{
	int dpl = vector == BP || vector == OF || vector == VEC_USER_RETURN ? 3 : 0;

	idt_set(vector, SEL_KCODE, trap_stub(vector), GATE_INT, dpl, 0);
}

void idt_load(u16 limit)
{
	struct { u16 limit; ulong base; } __attribute__((packed)) r = { limit, (ulong)idt };

	asm volatile("lidt %0" :: "m"(r) : "memory");
}

void tss_load(void)
{
	gdt_set(SEL_TSS, descriptor((ulong)&tss, sizeof(tss) - 1, 0x89, 0));
	asm volatile("ltr %w0" :: "r"(SEL_TSS) : "memory");
}

void guest_enter(void)
{
	int i;

	for (i = 0; i < 256; i++)
		idt_default(i);
#ifdef __x86_64__
	idt_load(256 * 16 - 1);
	tss.rsp[0] = (ulong)trap_stack_top;
	tss.ist[0] = (ulong)ist_stack_top;
#else
	idt_load(256 * 8 - 1);
	tss.ss0 = SEL_KDATA;
	tss.esp0 = (ulong)trap_stack_top;
#endif
	tss.iomap = offsetof(struct tss, bitmap);
	memset(tss.bitmap, 0xff, sizeof(tss.bitmap));
	tss_load();
	write_cr0(read_cr0() | CR0_NE);
	chips_quiet();
	memcpy(real_start, real_load, (ulong)real_size);
	guest_main();
	finish();
}

void *memset(void *d, int c, size_t n)
{
	void *p = d;

	asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
	return d;
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *p = d;

	asm volatile("rep movsb" : "+D"(p), "+S"(s), "+c"(n) :: "memory");
	return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}
