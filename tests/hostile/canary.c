/*
 * Canaries. All areas map one small piece of memory, so that one comparison finds a write to any of
 * them; a search of guest memory for its pattern finds what was read. With --closed they are
 * inaccessible instead: then a speculative look is no harm, but any access is a fault, which
 * nothing in the hypervisor survives.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

#define NEAR		(4UL << 20)	/* on each side of guest RAM */
#define MARK		0x5ec2e7c0deULL	/* the upper five bytes of each word */
#define HEAP_BLOCKS	64
#define HEAP_SIZE	4000

static int canary_fd;
static u64 *canary;
static u64 *heap[HEAP_BLOCKS];

static u64 pattern(size_t k)
{
	return MARK << 24 | ((k * 0x9e3779b1u) & 0xffffff);
}

bool canary_value(u64 val)
{
	return val >> 24 == MARK;
}

/* False if something else lies there: then that place is guarded by what it is. */
static bool place(u64 at, bool must)
{
	int prot = options.closed ? PROT_NONE : PROT_READ | PROT_WRITE;
	void *p = mmap((void *)at, CANARY_SIZE, prot, MAP_SHARED | MAP_FIXED_NOREPLACE, canary_fd,
		0);

	if (p != MAP_FAILED && p != (void *)at) {
		munmap(p, CANARY_SIZE);
		p = MAP_FAILED;
	}
	if (p == MAP_FAILED && must)
		fail("no canary at %llx: %s", (unsigned long long)at, strerror(errno));
	return p != MAP_FAILED;
}

static void fill(u64 from, u64 to, bool must)
{
	for (; from + CANARY_SIZE <= to; from += CANARY_SIZE)
		place(from, must);
}

void *canary_replace(u64 at, size_t size)
{
	void *p = mmap((void *)at, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (p != (void *)at)
		fail("no memory at %llx", (unsigned long long)at);
	return p;
}

void canary_restore(u64 at, size_t size)
{
	munmap((void *)at, size);
	fill(at, at + size, true);
}

void canary_setup(void)
{
	size_t k, j;

	canary_fd = memfd_create("canary", MFD_CLOEXEC);
	if (canary_fd < 0 || ftruncate(canary_fd, CANARY_SIZE))
		fail("memfd: %s", strerror(errno));
	canary = mmap(NULL, CANARY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, canary_fd, 0);
	if (canary == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	for (k = 0; k < CANARY_SIZE / 8; k++)
		canary[k] = pattern(k);
	fill(LOW_FIRST, LOW_END, false);
	fill(RAM_HOST - NEAR, RAM_HOST + RAM_MAX + NEAR, true);
	fill((u32)RAM_HOST, (u32)RAM_HOST + RAM_MAX, false);
	fill(RAM_HOST - BIT(32), RAM_HOST - BIT(32) + RAM_MAX, false);
	fill(RAM_HOST + BIT(32), RAM_HOST + BIT(32) + RAM_MAX, false);
	fill(HIGH_GUEST, HIGH_GUEST + NEAR, false);
	fill(0x7fff0000 - NEAR / 2, 0x7fff0000, false);	/* around 2^31 */
	for (k = 0; k < HEAP_BLOCKS; k++) {
		heap[k] = malloc(HEAP_SIZE);
		for (j = 0; heap[k] && j < HEAP_SIZE / 8; j++)
			heap[k][j] = pattern(j + k);
	}
}

void canary_check(void)
{
	size_t k, j;

	for (k = 0; k < CANARY_SIZE / 8; k++)
		if (canary[k] != pattern(k))
			fail("canary word %zx is %llx", k, (unsigned long long)canary[k]);
	for (k = 0; k < HEAP_BLOCKS; k++)
		for (j = 0; heap[k] && j < HEAP_SIZE / 8; j++)
			if (heap[k][j] != pattern(j + k))
				fail("heap canary %zu, word %zu is %llx", k, j,
					(unsigned long long)heap[k][j]);
}

void canary_search(const void *ram, size_t size)
{
	static const u8 mark[] = { 0xde, 0xc0, 0xe7, 0xc2, 0x5e };
	const u8 *p = memmem(ram, size, mark, sizeof(mark));

	if (p)
		fail("host memory was read: its canary is at %zx of the guest's",
			(size_t)(p - (const u8 *)ram));
}

/* ---- the process's own mappings ------------------------------------------------------------ */

#define MAPS_MAX 512

static struct { u64 from, to; } maps[MAPS_MAX];
static unsigned int n_maps;

static void maps_walk(void (*fn)(u64 from, u64 to, const char *rights, const char *line))
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	char line[512], rights[8];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3)
			fn(from, to, rights, line);
	if (f)
		fclose(f);
}

static void map_note(u64 from, u64 to, const char *rights, const char *line)
{
	if (n_maps == MAPS_MAX || !strchr(rights, 'r') || strstr(line, "canary"))
		return;
	if (from >= RAM_HOST && from < RAM_HOST + RAM_MAX)
		return;
	maps[n_maps].from = from;
	maps[n_maps++].to = to;
}

void host_addresses_read(void)
{
	n_maps = 0;
	maps_walk(map_note);
}

u64 host_address(struct random *r)
{
	unsigned int k;
	u64 size;

	if (!n_maps)
		return rnd(r);
	k = below(r, n_maps);
	size = maps[k].to - maps[k].from;
	return maps[k].from + (chance(r, 50) ? rnd(r) % size : below(r, 64) * 64 % size);
}

static void map_check(u64 from, u64 to, const char *rights, const char *line)
{
	if (rights[1] == 'w' && rights[2] == 'x')
		fail("a mapping is writable and executable: %s", line);
}

void maps_check(void)
{
	maps_walk(map_check);
}
