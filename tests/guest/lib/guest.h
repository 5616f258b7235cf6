/*
 * What a test guest stands on: registers, ports, printing, checks, and faults caught as values.
 *
 * A guest defines guest_main(). It runs at CPL 0 with interrupts off, all interrupt controllers masked,
 * its own GDT, IDT and TSS loaded; 64-bit guests run on identity page tables for the first 4 GiB.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;
typedef unsigned long ulong;

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define BIT(n)		(1ULL << (n))
#define noinline	__attribute__((__noinline__))
/* Code and data that CPL 3 may reach. */
#define USER_TEXT	__attribute__((section(".user.text"), __noinline__, __noclone__))
#define USER_DATA	__attribute__((section(".user.data")))
#define PAGE_ALIGNED	__attribute__((aligned(4096)))

enum { DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8, TS = 10, NP = 11,
       SS = 12, GP = 13, PF = 14, MF = 16, AC = 17, XM = 19, NONE = -1 };

#define CR0_PE	BIT(0)
#define CR0_MP	BIT(1)
#define CR0_EM	BIT(2)
#define CR0_TS	BIT(3)
#define CR0_NE	BIT(5)
#define CR0_WP	BIT(16)
#define CR0_AM	BIT(18)
#define CR0_NW	BIT(29)
#define CR0_CD	BIT(30)
#define CR0_PG	(1UL << 31)
#define CR4_VME	BIT(0)
#define CR4_PVI	BIT(1)
#define CR4_TSD	BIT(2)
#define CR4_DE	BIT(3)
#define CR4_PSE	BIT(4)
#define CR4_PAE	BIT(5)
#define CR4_PGE	BIT(7)
#define CR4_PCE	BIT(8)
#define CR4_OSFXSR	BIT(9)
#define CR4_OSXMMEXCPT	BIT(10)
#define CR4_UMIP	BIT(11)
#define CR4_FSGSBASE	BIT(16)
#define CR4_PCIDE	BIT(17)
#define CR4_OSXSAVE	BIT(18)
#define CR4_SMEP	BIT(20)
#define CR4_SMAP	BIT(21)
#define EFER_SCE	BIT(0)
#define EFER_LME	BIT(8)
#define EFER_LMA	BIT(10)
#define EFER_NXE	BIT(11)
#define FL_CF	BIT(0)
#define FL_PF	BIT(2)
#define FL_AF	BIT(4)
#define FL_ZF	BIT(6)
#define FL_SF	BIT(7)
#define FL_TF	BIT(8)
#define FL_IF	BIT(9)
#define FL_DF	BIT(10)
#define FL_OF	BIT(11)
#define FL_IOPL	(3UL << 12)
#define FL_NT	BIT(14)
#define FL_RF	BIT(16)
#define FL_VM	BIT(17)
#define FL_AC	BIT(18)
#define FL_VIF	BIT(19)
#define FL_VIP	BIT(20)
#define FL_ID	BIT(21)

#define MSR_TSC		0x10
#define MSR_APIC_BASE	0x1b
#define MSR_SYSENTER_CS	0x174
#define MSR_SYSENTER_ESP	0x175
#define MSR_SYSENTER_EIP	0x176
#define MSR_PAT		0x277
#define MSR_TSC_DEADLINE	0x6e0
#define MSR_EFER	0xc0000080
#define MSR_STAR	0xc0000081
#define MSR_LSTAR	0xc0000082
#define MSR_CSTAR	0xc0000083
#define MSR_SFMASK	0xc0000084
#define MSR_FS_BASE	0xc0000100
#define MSR_GS_BASE	0xc0000101
#define MSR_KERNEL_GS_BASE	0xc0000102
#define MSR_TSC_AUX	0xc0000103

/* ---- registers and ports ------------------------------------------------------------------------ */

#define REG_ACCESSORS(name, reg) \
	static inline ulong read_##name(void) \
	{ ulong v; asm volatile("mov %%" reg ", %0" : "=r"(v) :: "memory"); return v; } \
	static inline void write_##name(ulong v) \
	{ asm volatile("mov %0, %%" reg :: "r"(v) : "memory"); }
REG_ACCESSORS(cr0, "cr0")
REG_ACCESSORS(cr2, "cr2")
REG_ACCESSORS(cr3, "cr3")
REG_ACCESSORS(cr4, "cr4")
REG_ACCESSORS(dr0, "dr0")
REG_ACCESSORS(dr1, "dr1")
REG_ACCESSORS(dr2, "dr2")
REG_ACCESSORS(dr3, "dr3")
REG_ACCESSORS(dr6, "dr6")
REG_ACCESSORS(dr7, "dr7")

static inline ulong read_flags(void)
{
	ulong v;

	asm volatile("pushf; pop %0" : "=r"(v) :: "memory");
	return v;
}

static inline void write_flags(ulong v)
{
	asm volatile("push %0; popf" :: "r"(v) : "memory", "cc");
}

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return (u64)hi << 32 | lo;
}

static inline void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" :: "a"((u32)v), "d"((u32)(v >> 32)), "c"(msr) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) :: "memory");
	return (u64)hi << 32 | lo;
}

struct cpuid { u32 eax, ebx, ecx, edx; };

static inline struct cpuid cpuid(u32 leaf, u32 sub)
{
	struct cpuid r;

	asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(sub));
	return r;
}

static inline void outb(u16 port, u8 v) { asm volatile("outb %0, %1" :: "a"(v), "Nd"(port) : "memory"); }
static inline void outw(u16 port, u16 v) { asm volatile("outw %0, %1" :: "a"(v), "Nd"(port) : "memory"); }
static inline void outl(u16 port, u32 v) { asm volatile("outl %0, %1" :: "a"(v), "Nd"(port) : "memory"); }
static inline u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u16 inw(u16 port) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u32 inl(u16 port) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }

static inline void cli(void) { asm volatile("cli" ::: "memory"); }
static inline void sti(void) { asm volatile("sti; nop" ::: "memory"); }
static inline void sti_hlt_cli(void) { asm volatile("sti; hlt; cli" ::: "memory"); }
static inline void invlpg(const void *p) { asm volatile("invlpg (%0)" :: "r"(p) : "memory"); }
static inline void pause_cpu(void) { asm volatile("pause" ::: "memory"); }

/* ---- printing and verdicts ------------------------------------------------------------------------ */

void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void print_char(char c);

/* Names of the checks that follow begin with this. */
void group(const char *name);
bool check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool expect(const char *name, u64 got, u64 want);
void skip(const char *name, const char *why);
/* Many small checks under one name: the first few failures are printed, the end prints the verdict. */
void sweep(const char *name);
bool sweep_check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sweep_end(void);
/* Prints the summary and leaves through port 0xf4. */
void finish(void) __attribute__((noreturn));
void guest_exit(u8 v) __attribute__((noreturn));

/* ---- traps ------------------------------------------------------------------------------------------ */

struct trap_frame {
#ifdef __x86_64__
	ulong r15, r14, r13, r12, r11, r10, r9, r8;
	ulong di, si, bp, bx, dx, cx, ax;
#else
	ulong gs, fs, es, ds;
	ulong di, si, bp, bx, dx, cx, ax;
#endif
	ulong vector, error;
	ulong ip, cs, flags, sp, ss;	/* 32-bit: sp and ss only when the trap came from CPL 3 */
#ifndef __x86_64__
	ulong v86_es, v86_ds, v86_fs, v86_gs;
#endif
};

/* The last trap that a catch() caught, or the last user_call(). */
struct fault {
	int vector;
	struct trap_frame f;
	ulong cr2, frame_at;
};
extern struct fault fault;

struct catch_point { ulong ip, sp, saved[6], flags; struct catch_point *outer; };
int catch_set(struct catch_point *) __attribute__((returns_twice));
extern struct catch_point *catch_top;

/* Runs the statement; gives the vector that ended it, or NONE. */
#define catch(stmt) ({ \
	struct catch_point catch_here_; \
	catch_here_.outer = catch_top; \
	fault.vector = NONE; \
	if (!catch_set(&catch_here_)) { \
		asm volatile("" ::: "memory"); \
		catch_top = &catch_here_; \
		stmt; \
		asm volatile("" ::: "memory"); \
	} \
	catch_top = catch_here_.outer; \
	fault.vector; })

/* Checks the vector and, for those that have one, the error code. */
bool expect_vector(const char *name, int got, int vector, ulong error);
#define expect_fault(name, vector, error, stmt) expect_vector(name, catch(stmt), vector, error)
#define expect_ok(name, stmt) expect_vector(name, catch(stmt), NONE, 0)

/* Inline assembly that notes where the trap should point: at the instruction, or behind it. */
#ifdef __x86_64__
#define WORD_SUFFIX	"q"
#else
#define WORD_SUFFIX	"l"
#endif
#define AT(insn)	"mov" WORD_SUFFIX " $771f, mark\n771: " insn "\n"
#define AFTER(insn)	"mov" WORD_SUFFIX " $771f, mark\n" insn "\n771:\n"
extern volatile ulong mark;
/* As expect_fault(), and the saved instruction pointer equals the mark. */
#define expect_fault_at(name, vector, error, stmt) \
	expect_vector_at(name, catch(stmt), vector, error)
bool expect_vector_at(const char *name, int got, int vector, ulong error);

/* fn(arg) at CPL 3. NONE when it returned (fault.f.ax is its value), else the vector that it raised. */
int user_call(ulong (*fn)(ulong), ulong arg);

/* A handler sees the frame, may change it, and returns into it. NULL: back to catching. */
typedef void (*trap_handler)(struct trap_frame *f);
void trap_handle(int vector, trap_handler h);

/* Gate types, SDM 3A table 3-2 */
enum { GATE_TASK = 5, GATE_CALL16 = 4, GATE_INT16 = 6, GATE_TRAP16 = 7, GATE_CALL32 = 12,
       GATE_INT = 14, GATE_TRAP = 15 };
void idt_set(int vector, u16 sel, ulong target, int type, int dpl, int ist);
void idt_default(int vector);
void idt_load(u16 limit);
ulong trap_stub(int vector);
extern u64 gdt[GDT_ENTRIES];
extern u64 idt[512];
extern u8 trap_stack_top[], ist_stack_top[], user_stack_top[], guest_stack_top[];

/* Descriptor bits, as in the low byte of the type and the high nibble of flags. */
u64 descriptor(u32 base, u32 limit, u8 type, u8 flags);
static inline void gdt_set(u16 sel, u64 d) { gdt[sel / 8] = d; }

struct tss {
#ifdef __x86_64__
	u32 reserved0;
	u64 rsp[3], reserved1, ist[7], reserved2;
	u16 reserved3, iomap;
	u8 bitmap[8193];
} __attribute__((packed));
#else
	u16 back, r0; u32 esp0; u16 ss0, r1; u32 esp1; u16 ss1, r2; u32 esp2; u16 ss2, r3;
	u32 cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u16 es, r4, cs, r5, ss, r6, ds, r7, fs, r8, gs, r9, ldt, r10, trap, iomap;
	u8 int_map[32];
	u8 bitmap[8193];
} __attribute__((packed));
#endif
extern struct tss tss;
void tss_load(void);

#ifndef __x86_64__
/*
 * 16-bit code lives in section .real (linked at 0x8000). real_call() runs it in real mode, with all
 * segments 0 and SP at 0x7000; data16_call() in 16-bit protected mode, with segments of base 0.
 * Real mode's own vectors are at 0: real_vector() sets one.
 */
void real_call(void (*fn)(void));
void real_call_unreal(void (*fn)(void));	/* DS, ES and FS keep limits of 4 GiB */
void data16_call(void (*fn)(void));
static inline void real_vector(int v, void (*fn)(void)) { *(volatile u32 *)(v * 4) = (ulong)fn; }
#define REAL_CODE(body) asm(".pushsection .real, \"awx\"\n.code16\n" body "\n.code32\n.popsection\n")
#endif

/* The guest itself. */
void guest_main(void);

void *memset(void *d, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
