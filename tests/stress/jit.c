/* Code that is made, run, changed and run again, also by another address and on another CPU. */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

#define CODE_SIZE	8192
#define STEPS		60

/* One step: an operation on RAX with a 32-bit immediate. */
struct step {
	uint8_t op;
	uint32_t imm;
};

static uint64_t sx(uint32_t imm)
{
	return (uint64_t)(int64_t)(int32_t)imm;
}

static uint64_t op_add(uint64_t x, uint32_t imm) { return x + sx(imm); }
static uint64_t op_sub(uint64_t x, uint32_t imm) { return x - sx(imm); }
static uint64_t op_xor(uint64_t x, uint32_t imm) { return x ^ sx(imm); }
static uint64_t op_imul(uint64_t x, uint32_t imm) { return x * sx(imm); }
static uint64_t op_or(uint64_t x, uint32_t imm) { return x | sx(imm); }

static const struct op {
	uint8_t bytes[3];
	uint8_t n;
	uint64_t (*model)(uint64_t x, uint32_t imm);
} ops[] = {
	{ { 0x48, 0x05 }, 2, op_add }, { { 0x48, 0x2d }, 2, op_sub }, { { 0x48, 0x35 }, 2, op_xor },
	{ { 0x48, 0x69, 0xc0 }, 3, op_imul }, { { 0x48, 0x0d }, 2, op_or },
};
#define N_OPS (sizeof(ops) / sizeof(ops[0]))

typedef uint64_t code_fn(uint64_t x);

static void choose(struct step *s, uint64_t seed)
{
	for (unsigned int k = 0; k < STEPS; k++) {
		s[k].op = (uint8_t)(mix(seed + k) % N_OPS);
		s[k].imm = (uint32_t)mix(seed ^ k << 20) | 1;
	}
}

static uint64_t model(const struct step *s, uint64_t x)
{
	for (unsigned int k = 0; k < STEPS; k++)
		x = ops[s[k].op].model(x, s[k].imm);
	return x;
}

/* mov rax, rdi; steps; ret. place[k]: where the immediate of step k is. */
static void emit(uint8_t *p, const struct step *s, uint8_t **place)
{
	memcpy(p, "\x48\x89\xf8", 3);
	p += 3;
	for (unsigned int k = 0; k < STEPS; k++) {
		const struct op *o = &ops[s[k].op];

		memcpy(p, o->bytes, o->n);
		p += o->n;
		place[k] = p;
		memcpy(p, &s[k].imm, 4);
		p += 4;
	}
	*p = 0xc3;
}

static bool check(code_fn *f, const struct step *s, uint64_t x, const char *when)
{
	uint64_t got = f(x), want = model(s, x);

	if (got != want)
		return wrong("%s: %llx, not %llx", when, (unsigned long long)got,
			(unsigned long long)want);
	return true;
}

/* ---- in one place ---------------------------------------------------------------------------- */

static bool rewrite(uint8_t *at, uint64_t seed)
{
	struct step s[STEPS];
	uint8_t *place[STEPS];
	code_fn *f = (code_fn *)at;

	choose(s, seed);
	emit(at, s, place);
	if (!check(f, s, seed, "new code"))
		return false;
	for (unsigned int k = 0; k < 40; k++) {
		unsigned int n = (unsigned int)(mix(seed + k) % STEPS);

		s[n].imm += k * 77777;
		memcpy(place[n], &s[n].imm, 4);
		if (!check(f, s, seed + k, "changed code"))
			return false;
	}
	return true;
}

bool round_jit(uint64_t seed)
{
	uint8_t *p = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok = p != MAP_FAILED;

	/* Somewhere, so that instructions lie in two pages now and then. */
	for (unsigned int k = 0; ok && k < 10; k++)
		ok = rewrite(p + mix(seed ^ k) % (CODE_SIZE - STEPS * 7 - 8), seed + k);
	if (p != MAP_FAILED)
		munmap(p, CODE_SIZE);
	return ok;
}

/* ---- written and run at different addresses --------------------------------------------------- */

/* Written through one mapping (or by write(2)), run through another that can never be written. */
bool round_jit_alias(uint64_t seed)
{
	int fd = memfd_create("jit", 0);
	struct step s[STEPS];
	uint8_t *place[STEPS], *w, *x, copy[4096];
	bool ok = true;

	if (fd < 0 || ftruncate(fd, 4096))
		return wrong("no memfd");
	w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	x = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	for (unsigned int k = 0; ok && k < 30; k++) {
		choose(s, seed + k);
		if (k & 1) {
			emit(w, s, place);
		} else {
			emit(copy, s, place);
			if (pwrite(fd, copy, sizeof(copy), 0) != sizeof(copy))
				ok = wrong("pwrite");
		}
		ok = ok && check((code_fn *)x, s, seed + k, k & 1 ? "alias" : "write(2)");
		/* Another page at the same address. */
		if (ok && k % 7 == 0) {
			munmap(x, 4096);
			x = mmap(x, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
			ok = check((code_fn *)x, s, seed, "mapped again");
		}
	}
	munmap(w, 4096);
	munmap(x, 4096);
	close(fd);
	return ok;
}

/* ---- changed on another CPU ------------------------------------------------------------------- */

/*
 * A thread calls code of the form mov eax, imm32; ret while another changes the aligned immediate:
 * the caller must see values in the order they were written, and the newest after a handshake with
 * a serializing instruction. SDM 3A 8.1.3
 */
struct cross {
	uint8_t *code;
	volatile uint32_t written, stop;
	volatile bool bad;
};

static void *cross_caller(void *arg)
{
	struct cross *c = arg;
	uint32_t (*f)(void) = (uint32_t (*)(void))(c->code + 3);
	uint32_t last = 0;

	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
		uint32_t before = __atomic_load_n(&c->written, __ATOMIC_ACQUIRE), got, a, d;

		a = 0;
		__asm__ volatile("cpuid" : "+a"(a), "=d"(d) : : "rbx", "rcx", "memory");
		got = f();
		if (got < last || got < before)
			c->bad = true;
		last = got;
	}
	return NULL;
}

bool round_jit_threads(uint64_t seed)
{
	struct cross c = { 0 };
	pthread_t thread;
	bool ok = true;

	c.code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	if (c.code == MAP_FAILED)
		return true;
	memcpy(c.code, "\x90\x90\x90\xb8\0\0\0\0\xc3", 9);
	if (pthread_create(&thread, NULL, cross_caller, &c))
		ok = false;
	for (uint32_t k = 1; ok && k < 3000; k++) {
		__atomic_store_n((uint32_t *)(c.code + 4), k, __ATOMIC_SEQ_CST);
		__atomic_store_n(&c.written, k, __ATOMIC_RELEASE);
		for (volatile unsigned int j = 0; j < (seed + k) % 200; j++)
			;
	}
	__atomic_store_n(&c.stop, 1, __ATOMIC_RELEASE);
	if (ok)
		pthread_join(thread, NULL);
	munmap(c.code, 4096);
	return c.bad ? wrong("old code ran after it was changed") : true;
}
