/*
 * memcpy and its kin for code that keeps guest state in the vector registers: general registers and
 * string instructions only (this file is compiled with -mgeneral-regs-only). Up to 16 bytes two
 * overlapping moves do, up to 256 a loop of eight-byte moves; REP MOVSB starts slower than either
 * and is the fastest beyond, on every CPU with ERMS.
 */
#include "hypervisor/os/os.h"

#define REP_MIN 256

struct word64 { u64 v; } __attribute__((packed, may_alias));
struct word32 { u32 v; } __attribute__((packed, may_alias));
struct word16 { u16 v; } __attribute__((packed, may_alias));

#define LOAD(type, p)		(((const struct type *)(p))->v)
#define STORE(type, p, x)	(((struct type *)(p))->v = (x))

/* All loads come before the first store, so it serves memmove too. n <= 16. */
static inline void copy_small(u8 *d, const u8 *s, size_t n)
{
	if (n >= 8) {
		u64 a = LOAD(word64, s), b = LOAD(word64, s + n - 8);

		STORE(word64, d, a);
		STORE(word64, d + n - 8, b);
	} else if (n >= 4) {
		u32 a = LOAD(word32, s), b = LOAD(word32, s + n - 4);

		STORE(word32, d, a);
		STORE(word32, d + n - 4, b);
	} else if (n >= 2) {
		u16 a = LOAD(word16, s), b = LOAD(word16, s + n - 2);

		STORE(word16, d, a);
		STORE(word16, d + n - 2, b);
	} else if (n) {
		*d = *s;
	}
}

/* Upwards; n > 16. The last eight bytes are loaded before they can be overwritten. */
static inline void copy_words(u8 *d, const u8 *s, size_t n)
{
	u64 tail = LOAD(word64, s + n - 8);
	size_t i;

	for (i = 0; i < n - 8; i += 8)
		STORE(word64, d + i, LOAD(word64, s + i));
	STORE(word64, d + n - 8, tail);
}

/* Downwards, for overlap with dst above src; n > 16. */
static inline void copy_words_down(u8 *d, const u8 *s, size_t n)
{
	u64 head = LOAD(word64, s);
	size_t i;

	for (i = n; i > 8; i -= 8)
		STORE(word64, d + i - 8, LOAD(word64, s + i - 8));
	STORE(word64, d, head);
}

static inline void rep_movsb(void *d, const void *s, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
}

void *memcpy(void *dst, const void *src, size_t n)
{
	if (n <= 16)
		copy_small(dst, src, n);
	else if (n < REP_MIN)
		copy_words(dst, src, n);
	else
		rep_movsb(dst, src, n);
	return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
	if ((size_t)((u8 *)dst - (const u8 *)src) >= n)
		return memcpy(dst, src, n);
	if (n <= 16)
		copy_small(dst, src, n);
	else
		copy_words_down(dst, src, n);
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	u64 word = (u8)c * 0x0101010101010101ULL;
	u8 *d = dst;
	size_t i;

	if (n >= REP_MIN) {
		void *p = dst;

		__asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
	} else if (n >= 8) {
		for (i = 0; i < n - 8; i += 8)
			STORE(word64, d + i, word);
		STORE(word64, d + n - 8, word);
	} else {
		for (i = 0; i < n; i++)
			((volatile u8 *)d)[i] = (u8)c;
	}
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *p = a, *q = b;

	for (; n >= 8 && LOAD(word64, p) == LOAD(word64, q); n -= 8, p += 8, q += 8)
		;
	for (; n && *p == *q; n--, p++, q++)
		;
	return n ? *p - *q : 0;
}
