/* Fixed-width integers by their kernel names, and the few macros that every layer uses. */
#ifndef QUMRA_LIB_TYPES_H
#define QUMRA_LIB_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef unsigned __int128 u128;

#define BIT(n)			(1ULL << (n))
#define MASK(hi, lo)		((~0ULL >> (63 - (hi))) & (~0ULL << (lo)))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)		((a) < (b) ? (a) : (b))
#define MAX(a, b)		((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, a)		(((x) + (a) - 1) & ~((typeof(x))(a) - 1))
#define ALIGN_DOWN(x, a)	((x) & ~((typeof(x))(a) - 1))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))

/* How many. (The builtin needs an instruction or a function that not every layer may use.) */
static inline unsigned int bits_set(u64 word)
{
	unsigned int n = 0;

	for (; word; word &= word - 1)
		n++;
	return n;
}

#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)
#define __always_inline_	inline __attribute__((always_inline))
#define __noreturn_		__attribute__((noreturn))
#define __cold_			__attribute__((cold, noinline))
#define __printf_(f, a)		__attribute__((format(printf, f, a)))

/* Relaxed, acquire and release accesses to a word that several threads see. */
#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v)	__atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
#define load_acquire(p)		__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_release(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELEASE)

#endif
