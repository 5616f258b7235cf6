/*
 * Guest memory as an instruction sees it: segment, linear address, TLB, host memory.
 *
 * The inline functions are the hit path; all else (miss, page crossing, MMIO, code pages, limits,
 * watchpoints, non-canonical addresses) goes to mem_slow_*(), which may unwind with a fault or an
 * exit and then never returns. A handler makes every access before it changes architectural state.
 *
 * Two kinds: seg accesses (an instruction's operand: mem_*) take a segment and an offset and use
 * the current privilege; sys accesses (descriptor tables, TSS, IDT: sys_*) take a linear address
 * and are supervisor accesses whatever the CPL. SDM 3A 4.6.1 ("implicit supervisor-mode accesses")
 */
#ifndef QUMRA_HYPERVISOR_X86_MEM_H
#define QUMRA_HYPERVISOR_X86_MEM_H

#include "hypervisor/x86/vcpu.h"

struct memslot;

/* Which rights an access has. User is 1 so that index & 1 says "user". */
enum mmu_index {
	MMU_KERNEL,		/* supervisor; user pages allowed (no SMAP, or RFLAGS.AC) */
	MMU_USER,
	MMU_KERNEL_SMAP,	/* supervisor; user pages fault */
};
_Static_assert(MMU_KERNEL_SMAP + 1 == NR_TLB_INDEXES, "a column of tags each");

/* v->tlb_never: a bit that no tag which is in use has. */
#define TLB_NEVER	2u

enum mem_access { MEM_READ, MEM_WRITE, MEM_EXEC };

/* x86/mem.c. size 1, 2, 4, 8 (read/write) or any up to 64 (ptr and copies). */
u64 mem_slow_read(struct vcpu *v, unsigned int seg, u64 off, unsigned int size);
void mem_slow_write(struct vcpu *v, unsigned int seg, u64 off, unsigned int size, u64 val);

/*
 * A write access by pointer, for read-modify-write and for wide operands. Returns the host address
 * of the operand when it is plain memory within one page, after all checks; NULL when it is not
 * (MMIO, page crossing, code page): then use mem_rmw_begin; or mem_copy_in and mem_copy_out, after
 * mem_probe for both.
 */
void *mem_slow_ptr(struct vcpu *v, unsigned int seg, u64 off, unsigned int size,
	enum mem_access acc);
/*
 * Where mem_ptr gave NULL or was not asked: the operand of a read-modify-write, to be changed
 * between begin and end at the address returned, by one host instruction with LOCK. On memory
 * inside a page that is the operand itself, so atomicity is the host's (pages with code are such
 * memory). Otherwise it is a copy that end writes back; with lock, all other vCPUs stand still
 * meanwhile if it lies across two pages of memory. Locked accesses to devices are not atomic. size
 * up to 16.
 */
struct mem_rmw {
	u64 copy[2] __attribute__((aligned(16)));
	u64 la, gpa;
	const struct memslot *slot;	/* the operand lies on a page with code */
	unsigned int size, first;
	bool copied;
	bool bus_lock;		/* KVM_EXIT_X86_BUS_LOCK is to follow */
};
void *mem_rmw_begin(struct vcpu *v, struct mem_rmw *m, unsigned int seg, u64 off, unsigned int size,
	bool lock);
void mem_rmw_end(struct vcpu *v, struct mem_rmw *m);

/* A device, or nothing at all, answers at this byte, which can be read. */
bool mem_is_io(struct vcpu *v, unsigned int seg, u64 off);
/* Faults now if any of the bytes cannot be accessed; no other effect. */
void mem_probe(struct vcpu *v, unsigned int seg, u64 off, unsigned int size, enum mem_access acc);
/* Of n elements from off up, all in one page, the first of which can be accessed: n, if all are plain
 * memory inside the segment, else 1. */
u64 mem_plain_run(struct vcpu *v, unsigned int seg, u64 off, unsigned int size, u64 n,
	enum mem_access acc);
void mem_copy_in(struct vcpu *v, unsigned int seg, u64 off, void *buf, unsigned int size);
void mem_copy_out(struct vcpu *v, unsigned int seg, u64 off, const void *buf, unsigned int size);

/* Limit, type and canonical checks of a segmented access; returns the linear address. */
u64 mem_linear(struct vcpu *v, unsigned int seg, u64 off, unsigned int size, enum mem_access acc);

/* Supervisor accesses by linear address. */
u64 sys_read(struct vcpu *v, u64 la, unsigned int size);
void sys_write(struct vcpu *v, u64 la, unsigned int size, u64 val);

/*
 * The offset of an operand's later part: outside 64-bit mode it wraps at 4 GiB, and the fast ways here
 * would find what lies above.
 */
static inline u64 mem_wrap(const struct vcpu *v, u64 off)
{
	return vcpu_64bit(v) ? off : (u32)off;
}

/* In bytes, of the entry where la's page would be. */
static inline u64 tlb_offset(u64 la)
{
	return la >> 12 << 6 & (TLB_ENTRIES - 1) << 6;
}

static inline struct tlb_entry *tlb_entry(struct vcpu *v, u64 la)
{
	return (struct tlb_entry *)((u8 *)v->space->tlb + tlb_offset(la));
}

/* True if [la, la + size) stays in one page. */
static inline bool mem_in_page(u64 la, unsigned int size)
{
	return (la & 0xfff) <= 0x1000 - size;
}

/*
 * Host address of a plain-memory operand on a TLB hit, else NULL (without any fault). One compare
 * does it all: the entry is that of the first byte's page, the tag must be that of the last byte's.
 */
static __always_inline_ void *mem_hit(struct vcpu *v, unsigned int seg, u64 off, unsigned int size,
	bool write)
{
	u64 la = v->hit_base[seg] + off;
	u64 tag = *(u64 *)(v->tlb_hit + tlb_offset(la) + 8 * write);
	void *p;

	if (unlikely(tag != ((la + size - 1) & ~0xfffULL)))
		return NULL;
	p = (void *)(la + tlb_entry(v, la)->addend);
	if (!p)
		__builtin_unreachable();
	return p;
}

/*
 * Guest operands lie at any address; each access is one instruction, so that what the CPU makes
 * atomic is.
 */
typedef volatile u16 mem_u16 __attribute__((aligned(1), may_alias));
typedef volatile u32 mem_u32 __attribute__((aligned(1), may_alias));
typedef volatile u64 mem_u64 __attribute__((aligned(1), may_alias));

/* One access by the host, whatever the alignment. */
typedef volatile u16 u16_any __attribute__((aligned(1)));
typedef volatile u32 u32_any __attribute__((aligned(1)));
typedef volatile u64 u64_any __attribute__((aligned(1)));

static __always_inline_ u64 mem_load(const void *p, unsigned int size)
{
	switch (size) {
	case 1: return *(const volatile u8 *)p;
	case 2: return *(const u16_any *)p;
	case 4: return *(const u32_any *)p;
	default: return *(const u64_any *)p;
	}
}

static __always_inline_ void mem_store(void *p, unsigned int size, u64 val)
{
	switch (size) {
	case 1: *(volatile u8 *)p = (u8)val; break;
	case 2: *(u16_any *)p = (u16)val; break;
	case 4: *(u32_any *)p = (u32)val; break;
	default: *(u64_any *)p = val; break;
	}
}

/* Zero-extended. */
static __always_inline_ u64 mem_read(struct vcpu *v, unsigned int seg, u64 off, unsigned int size)
{
	void *p = mem_hit(v, seg, off, size, false);

	return likely(p) ? mem_load(p, size) : mem_slow_read(v, seg, off, size);
}

static __always_inline_ void mem_write(struct vcpu *v, unsigned int seg, u64 off, unsigned int size,
	u64 val)
{
	void *p = mem_hit(v, seg, off, size, true);

	if (likely(p))
		mem_store(p, size, val);
	else
		mem_slow_write(v, seg, off, size, val);
}

static __always_inline_ void *mem_ptr(struct vcpu *v, unsigned int seg, u64 off, unsigned int size,
	enum mem_access acc)
{
	void *p = mem_hit(v, seg, off, size, acc == MEM_WRITE);

	return likely(p) ? p : mem_slow_ptr(v, seg, off, size, acc);
}

#endif
