/* The guests' memory: what is in it, and what happens to it while they run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz/ioctl/fuzz.h"

#define PAGE	4096u

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	abort();
}

static void area_map(struct memory *m)
{
	void *p = mmap(m->area, AREA_RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, m->fd, 0);

	must(p == m->area, "mmap");
}

void memory_init(struct memory *m)
{
	m->fd = memfd_create("fuzz-ram", MFD_CLOEXEC);
	must(m->fd >= 0 && !ftruncate(m->fd, AREA_RAM), "memfd");
	m->area = mmap(NULL, AREA_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	m->alias = mmap(NULL, AREA_RAM, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	must(m->area != MAP_FAILED && m->alias != MAP_FAILED, "mmap");
	area_map(m);
}

void memory_restore(struct memory *m)
{
	area_map(m);
}

/* Each ends where the next may begin. */
static const struct {
	u8 n, code[15];
} snippets[] = {
	{ 1, { 0xf4 } }, { 1, { 0x90 } }, { 1, { 0xfb } }, { 1, { 0xfa } }, { 1, { 0xcc } },
	{ 2, { 0xcd, 0x21 } }, { 2, { 0xe6, 0x80 } }, { 2, { 0xe4, 0x61 } }, { 1, { 0xee } }, { 1, { 0xec } },
	{ 2, { 0xf3, 0x6c } }, { 2, { 0xf3, 0x6e } }, { 2, { 0xf3, 0xa4 } }, { 2, { 0xf3, 0xab } },
	{ 2, { 0x0f, 0xa2 } }, { 2, { 0x0f, 0x30 } }, { 2, { 0x0f, 0x32 } }, { 2, { 0x0f, 0x31 } },
	{ 3, { 0x0f, 0x01, 0xc1 } }, { 3, { 0x0f, 0x01, 0xd9 } }, { 2, { 0x0f, 0x0b } }, { 3, { 0x0f, 0x22, 0xd8 } },
	{ 3, { 0x0f, 0x20, 0xc0 } }, { 3, { 0x0f, 0x22, 0xc0 } }, { 2, { 0xeb, 0xf0 } }, { 2, { 0x75, 0xf0 } },
	{ 2, { 0xe2, 0xf8 } }, { 2, { 0x88, 0x07 } }, { 2, { 0x8a, 0x06 } }, { 3, { 0xf0, 0xff, 0x07 } },
	{ 2, { 0xff, 0x07 } }, { 2, { 0x89, 0x03 } }, { 2, { 0x8b, 0x03 } }, { 1, { 0xcf } }, { 1, { 0x50 } },
	{ 1, { 0x58 } }, { 1, { 0xc3 } }, { 5, { 0xb8, 0x00, 0x10, 0x00, 0x00 } }, { 5, { 0xbf, 0x00, 0x00, 0xe0, 0xfe } },
	{ 5, { 0xbf, 0x00, 0x50, 0x00, 0x00 } }, { 5, { 0xbe, 0x00, 0x00, 0x30, 0x00 } }, { 5, { 0xb9, 0x10, 0x08, 0x00, 0x00 } },
	{ 5, { 0xb9, 0x00, 0x01, 0x4d, 0x4b } }, { 4, { 0x0f, 0x28, 0x07, 0x90 } }, { 3, { 0x0f, 0x11, 0x07 } },
	{ 2, { 0xdd, 0x07 } }, { 2, { 0xdd, 0x1f } }, { 2, { 0xf7, 0xf1 } }, { 3, { 0x0f, 0x01, 0x3f } }, { 2, { 0x0f, 0xaa } },
};

static void code_put(u8 *at, size_t size, struct choices *c)
{
	size_t n = 0;

	while (n + sizeof(snippets[0].code) < size) {
		u32 k = below(c, ARRAY_SIZE(snippets) + 4);

		if (k >= ARRAY_SIZE(snippets)) {
			at[n++] = (u8)value(c);
			continue;
		}
		memcpy(at + n, snippets[k].code, snippets[k].n);
		n += snippets[k].n;
	}
}

/* Flat descriptors at 800h, gates to the code at 0, tables that map 1 GiB onto itself at 8000h. */
void memory_program(struct memory *m, struct choices *c)
{
	static const u64 gdt[] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff,
		0x00cffb000000ffff, 0x00cff3000000ffff };
	u64 *pages = (u64 *)(m->alias + 0x8000);

	memset(m->alias, 0, 0x10000);
	memcpy(m->alias + 0x800, gdt, sizeof(gdt));
	for (u32 i = 0; i < 64; i++) {
		u64 gate = (0x1000 + 16 * i) | 8ULL << 16 | 0x8eULL << 40;

		memcpy(m->alias + 8 * i, &gate, sizeof(gate));
	}
	pages[0] = 0x9007;
	pages[512] = 0xa007;
	for (u32 i = 0; i < 512; i++)
		pages[1024 + i] = (u64)i << 21 | 0x87;
	for (u32 i = 0; i < 4; i++)
		code_put(m->alias + 0x1000 + 0x400 * i, 64 + below(c, 128), c);
}

void memory_disturb(struct memory *m, struct choices *c)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };
	u32 page = below(c, 3) ? below(c, 16) : below(c, AREA_RAM / PAGE);
	u32 n = 1 + below(c, 8);
	u8 *at = m->area + page * PAGE;

	n = MIN(n, AREA_RAM / PAGE - page);
	switch (below(c, 8)) {
	case 0: case 1: case 2:
		mprotect(at, n * PAGE, prots[below(c, ARRAY_SIZE(prots))]);
		break;
	case 3:
		mmap(at, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	case 4:	/* SIGBUS: beyond the file's end */
		mmap(at, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, m->fd, AREA_RAM);
		break;
	case 5:
		madvise(at, n * PAGE, MADV_DONTNEED);
		break;
	case 6:
		code_put(m->alias + 0x1000 + 0x400 * below(c, 4), 64, c);
		break;
	default:
		memory_restore(m);
	}
}
