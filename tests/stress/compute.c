/* Computations with a result that does not depend on when and where they run. */
#include <math.h>
#include <string.h>
#include <immintrin.h>

#include "stress.h"

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

uint64_t sum(const void *p, size_t n)
{
	const uint64_t *w = p;
	uint64_t s = n;

	for (size_t k = 0; k < n / 8; k++)
		s = (s ^ w[k]) * 0x100000001b3 + k;
	return s;
}

void fill(void *p, size_t n, uint64_t seed)
{
	uint64_t *w = p;

	for (size_t k = 0; k < n / 8; k++)
		w[k] = seed * 0x9e3779b97f4a7c15 + k;
}

bool filled(const void *p, size_t n, uint64_t seed)
{
	const uint64_t *w = p;

	for (size_t k = 0; k < n / 8; k++)
		if (w[k] != seed * 0x9e3779b97f4a7c15 + k)
			return false;
	return true;
}

static int compare(const uint32_t *a, const uint32_t *b)
{
	return (*a > *b) - (*a < *b);
}

/* Quicksort with an indirect call for each comparison. */
static void sort(uint32_t *a, int lo, int hi, int (*cmp)(const uint32_t *, const uint32_t *))
{
	while (lo < hi) {
		uint32_t pivot = a[(lo + hi) / 2];
		int i = lo, j = hi;

		while (i <= j) {
			while (cmp(&a[i], &pivot) < 0)
				i++;
			while (cmp(&a[j], &pivot) > 0)
				j--;
			if (i <= j) {
				uint32_t t = a[i];

				a[i++] = a[j];
				a[j--] = t;
			}
		}
		sort(a, lo, j, cmp);
		lo = i;
	}
}

uint64_t compute_integer(uint64_t seed)
{
	uint32_t a[4096];
	uint64_t bits = 0;

	for (size_t k = 0; k < 4096; k++)
		a[k] = (uint32_t)mix(seed + k);
	sort(a, 0, 4095, compare);
	for (size_t k = 1; k < 4096; k++) {
		bits += (uint64_t)__builtin_popcountll(a[k] * seed) + (a[k] << (k & 31)) +
			a[k] % (k + 1);
		if (a[k - 1] > a[k])
			return 0;
	}
	return sum(a, sizeof(a)) ^ bits;
}

uint64_t compute_float(uint64_t seed)
{
	double x = 1 + (double)(seed & 1023) / 1024, y = 0.5, s = 0;
	uint64_t r;

	for (int k = 1; k < 1000; k++) {
		x = x * 1.0000001 + y / k;
		y = sqrt(x * x + y) - x * 0.5;
		s += x / (1 + y * y) - (double)(float)x;
	}
	memcpy(&r, &s, 8);
	return r;
}

uint64_t compute_x87(uint64_t seed)
{
	long double x = 1 + (long double)(seed & 4095) / 4096, s = 0;
	uint64_t r[2] = { 0 };

	for (int k = 1; k < 100; k++) {
		x = x / 3 + 1 / (x + k);
		s += x * x;
		__asm__("fsin" : "+t"(x));
		__asm__("fsqrt" : "=t"(s) : "0"(s * s));
	}
	memcpy(r, &s, 10);
	return r[0] ^ r[1];
}

uint64_t compute_vector(uint64_t seed)
{
	__m128i a = _mm_set_epi64x((int64_t)mix(seed), (int64_t)mix(seed + 1));
	__m128i b = _mm_set1_epi32((int)seed | 1);
	__m128 f = _mm_set_ps(1, 2, 3, 4), g = _mm_set1_ps(1.0001f);
	uint64_t r[4];

	for (int k = 0; k < 400; k++) {
		a = _mm_add_epi64(_mm_mul_epu32(a, b), _mm_shuffle_epi32(a, 0x4e));
		b = _mm_xor_si128(b, _mm_srli_epi32(a, 3));
		f = _mm_add_ps(_mm_mul_ps(f, g), _mm_rcp_ps(_mm_set1_ps(2)));
		f = _mm_sqrt_ps(f);
	}
	_mm_storeu_si128((__m128i *)r, a);
	_mm_storeu_ps((float *)(r + 2), f);
	return r[0] ^ r[1] ^ r[2] ^ r[3];
}

uint64_t compute_all(void)
{
	uint64_t s = 0;

	for (uint64_t seed = 0; seed < 8; seed++)
		s = mix(s ^ compute_integer(seed) ^ compute_float(seed) ^ compute_x87(seed) ^
			compute_vector(seed));
	return s;
}

/* All registers of all units are in use while other workers take the CPU away. */
bool round_compute(uint64_t seed)
{
	uint64_t first[4] = { compute_integer(seed), compute_float(seed), compute_x87(seed),
		compute_vector(seed) };

	for (int k = 0; k < 5; k++)
		if (compute_integer(seed) != first[0] || compute_float(seed) != first[1] ||
		    compute_x87(seed) != first[2] || compute_vector(seed) != first[3])
			return wrong("another result in turn %d", k);
	return true;
}
