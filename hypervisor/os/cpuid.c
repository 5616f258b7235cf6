/*
 * The host's CPUID. It does not change while we run, and under a hypervisor each use of the
 * instruction is an exit (5 us measured): each leaf is asked once in a process.
 */
#include "hypervisor/os/os.h"

#define NR_KNOWN 64

struct known {
	u32 leaf, sub, r[4];
};

static struct known known[NR_KNOWN];
static u32 nr_known;		/* store_release when an entry is complete */
static struct os_mutex lock;	/* of additions */

static void ask(u32 leaf, u32 sub, u32 r[4])
{
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) :
		"a"(leaf), "c"(sub));
}

static const struct known *find(u32 leaf, u32 sub)
{
	u32 n = load_acquire(&nr_known);

	for (const struct known *k = known; k < known + n; k++)
		if (k->leaf == leaf && k->sub == sub)
			return k;
	return NULL;
}

static void add(u32 leaf, u32 sub, const u32 r[4])
{
	struct known *k;

	os_mutex_lock(&lock);
	if (nr_known < NR_KNOWN && !find(leaf, sub)) {
		k = &known[nr_known];
		k->leaf = leaf;
		k->sub = sub;
		memcpy(k->r, r, sizeof(k->r));
		store_release(&nr_known, nr_known + 1);
	}
	os_mutex_unlock(&lock);
}

void os_cpuid(u32 leaf, u32 sub, u32 r[4])
{
	const struct known *k = find(leaf, sub);

	if (k) {
		memcpy(r, k->r, sizeof(k->r));
		return;
	}
	ask(leaf, sub, r);
	add(leaf, sub, r);
}
