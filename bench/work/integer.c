/* Integer workloads: loops, sorting, hashing, an interpreter, recursion, and chains of loads. */
#include <stdlib.h>
#include <string.h>

#include "work.h"

enum {
	SIEVE_SIZE = 1 << 20, SIEVE_ROUNDS = 20,
	SORT_COUNT = 1 << 20,
	SHA_SIZE = 1 << 20, SHA_ROUNDS = 14,
	FIB_N = 38,
	NEAR_SIZE = 256 << 10, NEAR_STEPS = 20000000,
	FAR_SIZE = 64 << 20, FAR_STEPS = 1000000,
};

static unsigned char *composite;

static void sieve_setup(void)
{
	composite = buffer_make(SIEVE_SIZE);
}

static u64 sieve_run(void)
{
	u64 primes = 0;

	for (int round = 0; round < SIEVE_ROUNDS; round++) {
		memset(composite, 0, SIEVE_SIZE);
		for (u32 i = 2; i < SIEVE_SIZE; i++) {
			if (composite[i])
				continue;
			primes++;
			for (u32 j = i * 2; j < SIEVE_SIZE; j += i)
				composite[j] = 1;
		}
	}
	return primes;
}

static u32 *numbers;

static void quicksort_setup(void)
{
	u64 state = 12345;

	numbers = buffer_make(SORT_COUNT * sizeof(u32));
	for (u32 i = 0; i < SORT_COUNT; i++)
		numbers[i] = random_next(&state) >> 20;
}

static void quicksort(u32 *a, long low, long high)
{
	while (low < high) {
		u32 pivot = a[(low + high) / 2], swap;
		long i = low, j = high;

		while (i <= j) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i > j)
				break;
			swap = a[i];
			a[i++] = a[j];
			a[j--] = swap;
		}
		quicksort(a, low, j);
		low = i;
	}
}

static u64 quicksort_run(void)
{
	quicksort(numbers, 0, SORT_COUNT - 1);
	return hash_bytes(0, numbers, 4096) + numbers[SORT_COUNT / 2];
}

/* SHA-256 (FIPS 180-4) of whole blocks. Its constants, bits of roots of primes, are computed. */
static u32 sha_k[64], sha_h[8];
static unsigned char *sha_text;

/* The first 32 bits behind the point of n's root of the given degree, by bisection. */
static u32 root_fraction(u32 n, int degree)
{
	u64 low = 0, high = 1ull << 40;

	while (high - low > 1) {
		u64 mid = (low + high) / 2;
		/* mid is root * 2^32: its power against n * 2^(32 * degree), 120 bits at most. */
		unsigned __int128 power = (unsigned __int128)mid * mid;
		unsigned __int128 goal = (unsigned __int128)n << 64;

		if (degree == 3) {
			power *= mid;
			goal <<= 32;
		}
		if (power > goal)
			high = mid;
		else
			low = mid;
	}
	return low;
}

static void sha_setup(void)
{
	u32 found = 0;

	for (u32 n = 2; found < 64; n++) {
		u32 d = 2;

		while (d * d <= n && n % d)
			d++;
		if (d * d <= n)
			continue;
		sha_k[found] = root_fraction(n, 3);
		if (found < 8)
			sha_h[found] = root_fraction(n, 2);
		found++;
	}
	sha_text = buffer_make(SHA_SIZE);
	for (u32 i = 0; i < SHA_SIZE; i++)
		sha_text[i] = i * i >> 3;
}

static inline u32 ror(u32 x, int n)
{
	return x >> n | x << (32 - n);
}

static void sha_block(u32 *h, const unsigned char *block)
{
	u32 w[64], v[8];

	for (int i = 0; i < 16; i++)
		w[i] = (u32)block[i * 4] << 24 | block[i * 4 + 1] << 16 | block[i * 4 + 2] << 8 |
		       block[i * 4 + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(v, h, sizeof(v));
	for (int i = 0; i < 64; i++) {
		u32 a = v[7] + (ror(v[4], 6) ^ ror(v[4], 11) ^ ror(v[4], 25)) +
			((v[4] & v[5]) ^ (~v[4] & v[6])) + sha_k[i] + w[i];
		u32 b = (ror(v[0], 2) ^ ror(v[0], 13) ^ ror(v[0], 22)) +
			((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

		memmove(v + 1, v, 7 * sizeof(u32));
		v[4] += a;
		v[0] = a + b;
	}
	for (int i = 0; i < 8; i++)
		h[i] += v[i];
}

static u64 sha_run(void)
{
	u32 h[8];

	memcpy(h, sha_h, sizeof(h));
	for (int round = 0; round < SHA_ROUNDS; round++) {
		for (u32 i = 0; i < SHA_SIZE; i += 64)
			sha_block(h, sha_text + i);
	}
	return (u64)h[0] << 32 | h[7];
}

/* A register machine's bytecode: greatest common divisors by subtraction, and a sum over them. */
enum op { OP_SET, OP_ADD, OP_SUB, OP_LESS, OP_JUMP, OP_JUMP_IF, OP_XOR, OP_SHIFT, OP_END };

struct code {
	unsigned char op, a, b, c;
	int value;
};

static const struct code program[] = {
	{OP_SET, 0, 0, 0, 0},			/*  0: sum = 0 */
	{OP_SET, 1, 0, 0, 1},			/*  1: i = 1 */
	{OP_SET, 2, 0, 0, 120000},		/*  2: end */
	{OP_SET, 7, 0, 0, 1},			/*  3: one */
	{OP_SET, 8, 0, 0, 720},			/*  4: a constant */
	{OP_SET, 3, 0, 0, 0},			/*  5: x = 0 */
	{OP_ADD, 3, 3, 1, 0},			/*  6: x += i */
	{OP_SET, 4, 0, 0, 0},			/*  7: y = 0 */
	{OP_ADD, 4, 4, 8, 0},			/*  8: y += constant */
	{OP_LESS, 5, 3, 4, 0},			/*  9: x < y? */
	{OP_JUMP_IF, 5, 0, 0, 14},		/* 10 */
	{OP_LESS, 5, 4, 3, 0},			/* 11: y < x? */
	{OP_JUMP_IF, 5, 0, 0, 16},		/* 12 */
	{OP_JUMP, 0, 0, 0, 18},			/* 13: equal */
	{OP_SUB, 4, 4, 3, 0},			/* 14: y -= x */
	{OP_JUMP, 0, 0, 0, 9},			/* 15 */
	{OP_SUB, 3, 3, 4, 0},			/* 16: x -= y */
	{OP_JUMP, 0, 0, 0, 9},			/* 17 */
	{OP_SHIFT, 6, 0, 0, 3},			/* 18: t = sum << 3 */
	{OP_XOR, 0, 6, 3, 0},			/* 19: sum = t ^ x */
	{OP_ADD, 1, 1, 7, 0},			/* 20: i++ */
	{OP_LESS, 5, 1, 2, 0},			/* 21 */
	{OP_JUMP_IF, 5, 0, 0, 5},		/* 22 */
	{OP_END, 0, 0, 0, 0},			/* 23 */
};

static u64 bytecode_run(void)
{
	const struct code *code = program;	/* through a pointer, so that nothing is folded */
	u64 r[9] = {0}, steps = 0;

	for (const struct code *i = code;; steps++) {
		switch ((enum op)i->op) {
		case OP_SET: r[i->a] = i->value; i++; break;
		case OP_ADD: r[i->a] = r[i->b] + r[i->c]; i++; break;
		case OP_SUB: r[i->a] = r[i->b] - r[i->c]; i++; break;
		case OP_LESS: r[i->a] = r[i->b] < r[i->c]; i++; break;
		case OP_JUMP: i = code + i->value; break;
		case OP_JUMP_IF: i = r[i->a] ? code + i->value : i + 1; break;
		case OP_XOR: r[i->a] = r[i->b] ^ r[i->c]; i++; break;
		case OP_SHIFT: r[i->a] = r[i->b] << i->value; i++; break;
		case OP_END: return r[0] ^ steps;
		}
	}
}

static __attribute__((noinline, noclone)) u64 fibonacci(u32 n)
{
	if (n < 2)
		return n;
	/* Not a loop: both calls stay calls. */
	u64 a = fibonacci(n - 1);

	asm volatile("" : "+r"(a));
	return a + fibonacci(n - 2);
}

static u64 recursion_run(void)
{
	return fibonacci(FIB_N);
}

/* A cycle through all 64-byte lines of a buffer in a random order (Sattolo's shuffle). */
static void **chain;

static void chain_make(size_t size)
{
	size_t lines = size / 64;
	u32 *order = malloc(lines * sizeof(u32));
	char *bytes = buffer_make(size);
	u64 state = 4242;

	for (size_t i = 0; i < lines; i++)
		order[i] = i;
	for (size_t i = lines - 1; i; i--) {
		size_t j = random_next(&state) % i;
		u32 swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
	for (size_t i = 0; i < lines; i++)
		*(void **)(bytes + (size_t)order[i] * 64) = bytes + (size_t)order[(i + 1) % lines] * 64;
	chain = (void **)bytes;
	free(order);
}

static u64 chain_walk(u32 steps)
{
	void **p = chain;

	while (steps--)
		p = *p;
	return (char *)p - (char *)chain;
}

static void near_setup(void)
{
	chain_make(NEAR_SIZE);
}

static u64 near_run(void)
{
	return chain_walk(NEAR_STEPS);
}

static void far_setup(void)
{
	chain_make(FAR_SIZE);
}

static u64 far_run(void)
{
	return chain_walk(FAR_STEPS);
}

const struct workload integer_workloads[] = {
	{"sieve", sieve_setup, sieve_run},
	{"quicksort", quicksort_setup, quicksort_run},
	{"sha256-c", sha_setup, sha_run},
	{"bytecode", NULL, bytecode_run},
	{"recursion", NULL, recursion_run},
	{"chase-cache", near_setup, near_run},
	{"chase-memory", far_setup, far_run},
	{NULL, NULL, NULL},
};
