/* Pages that come, go, are copied, shared and taken away under others' feet; threads. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "stress.h"

/* ---- mappings -------------------------------------------------------------------------------- */

#define AREA (256 << 10)

static void *map_anonymous(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t k = 0; k < n; k += 64)
		if (p[k])
			return false;
	return true;
}

static bool pages_round(uint8_t *p, uint64_t seed)
{
	size_t from = mix(seed) % (AREA / 4096) * 4096, n = AREA - from;

	fill(p, AREA, seed);
	if (madvise(p + from, n, MADV_DONTNEED))
		return wrong("madvise");
	if (!filled(p, from, seed))
		return wrong("a page before the dropped ones changed");
	if (!all_zero(p + from, n))
		return wrong("a dropped page is not zero");
	if (mprotect(p, AREA, PROT_READ) || mprotect(p, AREA, PROT_READ | PROT_WRITE))
		return wrong("mprotect");
	fill(p + from, n, seed + 1);
	return filled(p, from, seed) && filled(p + from, n, seed + 1) ? true :
		wrong("after mprotect");
}

bool round_pages(uint64_t seed)
{
	uint8_t *p = map_anonymous(AREA), *q;
	bool ok = true;

	if (!p)
		return true;
	for (unsigned int k = 0; ok && k < 10; k++)
		ok = pages_round(p, seed + k);
	/* The same pages at another address. */
	fill(p, AREA, seed);
	q = mremap(p, AREA, 2 * AREA, MREMAP_MAYMOVE);
	if (q == MAP_FAILED) {
		munmap(p, AREA);
		return ok;
	}
	if (!filled(q, AREA, seed) || !all_zero(q + AREA, AREA))
		ok = wrong("moved pages");
	munmap(q, 2 * AREA);
	return ok;
}

/* ---- pressure -------------------------------------------------------------------------------- */

/* A good part of what is free, in pieces, some of them huge pages, each checked before it goes. */
bool round_pressure(uint64_t seed)
{
	struct sysinfo info;
	size_t piece = 1 << 20, n;
	uint8_t *p[64];
	bool ok = true;

	sysinfo(&info);
	n = info.freeram * info.mem_unit / piece * 4 / 10;
	n = n > 64 ? 64 : n;
	for (size_t k = 0; k < n; k++) {
		p[k] = map_anonymous(piece);
		if (!p[k]) {
			n = k;
			break;
		}
		if (mix(seed + k) & 1)
			madvise(p[k], piece, MADV_HUGEPAGE);
		fill(p[k], piece, seed + k);
		if (mix(seed + k) & 2)
			madvise(p[k], piece, MADV_COLD);
	}
	for (size_t k = 0; k < n; k++) {
		if (ok && !filled(p[k], piece, seed + k))
			ok = wrong("piece %zu of %zu", k, n);
		munmap(p[k], piece);
	}
	return ok;
}

/* ---- files in memory -------------------------------------------------------------------------- */

#define FILE_SIZE (512 << 10)

bool round_tmpfs(uint64_t seed)
{
	char name[64], gone[80];
	uint8_t *p, *buf = malloc(FILE_SIZE);
	bool ok = true;
	int fd;

	snprintf(name, sizeof(name), "/tmp/f%d", getpid());
	snprintf(gone, sizeof(gone), "%s-moved", name);
	fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (!buf || fd < 0 || ftruncate(fd, FILE_SIZE)) {
		free(buf);
		return fd < 0 ? wrong("open: %d", errno) : true;
	}
	p = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED) {
		fill(p, FILE_SIZE, seed);
		if (pread(fd, buf, FILE_SIZE, 0) != FILE_SIZE || !filled(buf, FILE_SIZE, seed))
			ok = wrong("what was mapped is not read");
		fill(buf, FILE_SIZE, seed + 1);
		if (pwrite(fd, buf, FILE_SIZE, 0) != FILE_SIZE)
			fprintf(stderr, "tmpfs is full\n");
		else if (!filled(p, FILE_SIZE, seed + 1))
			ok = wrong("what was written is not mapped");
		munmap(p, FILE_SIZE);
	}
	if (rename(name, gone) || unlink(gone))
		ok = wrong("rename, unlink: %d", errno);
	close(fd);
	free(buf);
	return ok;
}

/* ---- threads --------------------------------------------------------------------------------- */

#define THREADS	4
#define TURNS	3000

struct shared {
	pthread_mutex_t mutex;
	uint64_t locked, added, swapped;
	unsigned __int128 wide __attribute__((aligned(16)));
	/* Two halves that must always agree: across a page's end, locked instructions too. */
	uint32_t *across;
	uint32_t ticket, serving, in_spin;
};

static void spin_turn(struct shared *s)
{
	uint32_t mine = __atomic_fetch_add(&s->ticket, 1, __ATOMIC_ACQUIRE);

	while (__atomic_load_n(&s->serving, __ATOMIC_ACQUIRE) != mine)
		__builtin_ia32_pause();
	s->in_spin++;
	__atomic_store_n(&s->serving, mine + 1, __ATOMIC_RELEASE);
}

static void wide_add(unsigned __int128 *p)
{
	uint64_t *w = (uint64_t *)p;
	uint64_t lo = w[0], hi = w[1];
	bool done = false;

	while (!done) {
		uint64_t nlo = lo + 1, nhi = hi + (nlo == 0) + 3;

		__asm__ volatile("lock cmpxchg16b %1"
				 : "=@ccz"(done), "+m"(*p), "+a"(lo), "+d"(hi)
				 : "b"(nlo), "c"(nhi)
				 : "memory");
	}
}

static void *thread_main(void *arg)
{
	struct shared *s = arg;

	for (unsigned int k = 0; k < TURNS; k++) {
		__atomic_fetch_add(&s->added, k, __ATOMIC_RELAXED);
		wide_add(&s->wide);
		__asm__ volatile("lock incl %0" : "+m"(*s->across) : : "cc");
		if (k % 8 == 0) {
			pthread_mutex_lock(&s->mutex);
			s->locked = s->locked * 3 + 1;
			s->swapped++;
			pthread_mutex_unlock(&s->mutex);
		}
		if (k % 64 == 0)
			spin_turn(s);
	}
	return NULL;
}

bool round_threads(uint64_t seed)
{
	uint8_t *pages = map_anonymous(8192);
	struct shared s = { .mutex = PTHREAD_MUTEX_INITIALIZER,
		.across = (uint32_t *)(pages + 4096 - 64 + seed % 16 * 4) };
	pthread_t t[THREADS];
	unsigned int n = 0;
	uint64_t locked = 0;
	bool ok = true;

	if (!pages)
		return true;
	while (n < THREADS && !pthread_create(&t[n], NULL, thread_main, &s))
		n++;
	for (unsigned int k = 0; k < n; k++)
		pthread_join(t[k], NULL);
	for (unsigned int k = 0; k < n * ((TURNS + 7) / 8); k++)
		locked = locked * 3 + 1;
	if (s.added != (uint64_t)n * TURNS * (TURNS - 1) / 2 || s.locked != locked)
		ok = wrong("added %llu, locked %llu", (unsigned long long)s.added,
			(unsigned long long)s.locked);
	if ((uint64_t)s.wide != (uint64_t)n * TURNS || (uint64_t)(s.wide >> 64) != 3ULL * n * TURNS)
		ok = wrong("cmpxchg16b");
	if (*s.across != n * TURNS || s.in_spin != n * ((TURNS + 63) / 64))
		ok = wrong("lock inc %u, tickets %u", *s.across, s.in_spin);
	munmap(pages, 8192);
	return ok;
}

/* ---- translations that must go ----------------------------------------------------------------- */

/*
 * One thread writes a counter into a page while another takes the right to write away: from when
 * mprotect() is back no store may arrive. SDM 3A 4.10.5
 */
struct victim {
	volatile uint64_t *page;
	volatile bool stop;
	volatile uint64_t stores;
};

static __thread sigjmp_buf victim_jump;

static void on_victim_fault(int sig, siginfo_t *info, void *context)
{
	siglongjmp(victim_jump, 1);
}

static void *victim_main(void *arg)
{
	struct victim *v = arg;

	while (!v->stop) {
		if (sigsetjmp(victim_jump, 1)) {
			sched_yield();
			continue;
		}
		for (unsigned int k = 0; k < 1000 && !v->stop; k++) {
			*v->page = *v->page + 1;
			v->stores++;
		}
	}
	return NULL;
}

bool round_shootdown(uint64_t seed)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct victim v = { .page = map_anonymous(4096) };
	pthread_t t;
	bool ok = true;

	if (!v.page)
		return true;
	sa.sa_sigaction = on_victim_fault;
	sigaction(SIGSEGV, &sa, NULL);
	if (pthread_create(&t, NULL, victim_main, &v))
		return true;
	for (unsigned int k = 0; ok && k < 30; k++) {
		uint64_t before;

		for (uint64_t from = v.stores, turns = 0; v.stores == from && turns < 100; turns++)
			sched_yield();
		mprotect((void *)v.page, 4096, PROT_READ);
		before = *v.page;
		for (volatile unsigned int j = 0; j < 1000 + seed % 1000; j++)
			;
		if (*v.page != before)
			ok = wrong("a store after the page became read-only");
		mprotect((void *)v.page, 4096, PROT_READ | PROT_WRITE);
	}
	v.stop = true;
	pthread_join(t, NULL);
	munmap((void *)v.page, 4096);
	signal(SIGSEGV, SIG_DFL);
	return ok;
}
