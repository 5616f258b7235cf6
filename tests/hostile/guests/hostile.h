/* What the hostile guests share: the host's commands, frames, and code written at run time. */
#ifndef HOSTILE_GUEST_H
#define HOSTILE_GUEST_H

#include "paging.h"
#include "host.h"

static inline void host_call(u32 command, ulong b, ulong c, ulong d)
{
	asm volatile("outl %0, %w1" :: "a"(command), "d"(HOST_PORT), "b"(b), "c"(c), "S"(d)
		: "memory", "cc");
}

static inline bool time_over(void)
{
	return inl(HOST_PORT) & 1;
}

#ifdef __x86_64__
/* An address inside the host's mapping of this guest's memory. */
static inline u64 host_pointer(void)
{
	return (u64)inl(HOST_PORT + 12) << 32 | inl(HOST_PORT + 8);
}
#endif

/* SplitMix64 */
static inline u64 random64(u64 *s)
{
	u64 z = (*s += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* mov $v, %eax; ret */
static inline void put_return(void *at, u32 v)
{
	volatile u8 *p = at;

	p[0] = 0xb8;
	p[1] = v;
	p[2] = v >> 8;
	p[3] = v >> 16;
	p[4] = v >> 24;
	p[5] = 0xc3;
}

static inline ulong call_at(ulong at)
{
	ulong v;

	asm volatile("call *%1" : "=a"(v) : "r"(at) : "memory", "rcx", "rdx", "rsi", "rdi", "cc");
	return v;
}

static inline u64 load64(ulong at)
{
	return *(volatile u64 *)at;
}

static inline void store64(ulong at, u64 v)
{
	*(volatile u64 *)at = v;
}

#endif
