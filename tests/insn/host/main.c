/*
 * Runs the host comparison (host.h): first every row by itself, then random mixtures of all.
 *
 *	host-compare [--seed N] [--insns N] [--row NAME] [--one N]
 *
 * --one repeats the sequence of the number that a failure printed. A failure prints that number,
 * the first instruction after which the two sides differ, and what differs. Flags that the manuals
 * leave undefined are those of the table's rows (f_undef); other freedoms of the manuals are named
 * where gen.c avoids them.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/insn/host/host.h"

static const char *const reg_name[16] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
};

/* One comparison: the two sides' results and the start that both had. */
struct trial {
	struct sequence q;
	struct state start, host, guest;
	u8 memory[DATA_SIZE], host_memory[DATA_SIZE];
};

static struct trial t;
static u8 covered[65536];
static u64 n_insns, n_sequences, n_faults[32], n_flaky;
static const char *only_row;

/* ---- one comparison ------------------------------------------------------------------------ */

static int run_both(void)
{
	t.host = t.guest = t.start;
	memcpy((void *)AREA_DATA, t.memory, DATA_SIZE);
	native_go(&t.host);
	memcpy(t.host_memory, (void *)AREA_DATA, DATA_SIZE);
	memcpy((void *)AREA_DATA, t.memory, DATA_SIZE);
	return guest_go(&t.guest);
}

static u64 compared_gprs(void)
{
	return t.q.bits == 32 ? 0xff : 0xffff;
}

/* DIV, IDIV and AAM leave all flags undefined, also when they fault. SDM 2A DIV */
static u64 compared_flags(void)
{
	return t.host.vector == VEC_DE ? FLAGS_COMPARED & ~RFLAGS_ARITH : FLAGS_COMPARED;
}

static bool pointers_equal(const struct state *h, const struct state *g)
{
	return h->x.fx.fip == g->x.fx.fip && h->x.fx.fdp == g->x.fx.fdp && h->x.fx.fop == g->x.fx.fop;
}

/* The x87 pointers are there to be seen only while an error is pending (AMD). */
static bool states_equal(void)
{
	const struct state *h = &t.host, *g = &t.guest;
	u64 mask = t.q.bits == 32 ? 0xffffffff : ~0ULL;

	for (unsigned int k = 0; k < 16; k++)
		if ((compared_gprs() >> k & 1) && (h->r[k] ^ g->r[k]) & mask)
			return false;
	if ((h->x.fx.fsw & FSW_ES) && !pointers_equal(h, g))
		return false;
	return h->rip == g->rip && !((h->rflags ^ g->rflags) & compared_flags()) &&
	       h->vector == g->vector &&
	       (h->vector == VEC_MF || h->vector == VEC_XM || h->error == g->error) &&
	       (h->vector != VEC_PF || h->cr2 == g->cr2) && h->x.fx.fcw == g->x.fx.fcw &&
	       h->x.fx.fsw == g->x.fx.fsw && h->x.fx.ftw == g->x.fx.ftw &&
	       h->x.fx.mxcsr == g->x.fx.mxcsr &&
	       !memcmp(h->x.fx.st, g->x.fx.st, sizeof(h->x.fx.st)) &&
	       xstate_equal(h, g, t.q.bits == 32 ? 8 : 16);
}

static bool memory_equal(void)
{
	return !memcmp(t.host_memory, (void *)AREA_DATA, DATA_SIZE);
}

static bool equal(void)
{
	return states_equal() && memory_equal();
}

/* ---- reporting ----------------------------------------------------------------------------- */

static void hex(void *arg, const char *name, unsigned int k, const u8 *a, const u8 *b,
	unsigned int n)
{
	if (!memcmp(a, b, n))
		return;
	printf("  %s%u\n    host  ", name, k);
	for (unsigned int j = n; j--;)
		printf("%02x", a[j]);
	printf("\n    guest ");
	for (unsigned int j = n; j--;)
		printf("%02x", b[j]);
	printf("\n");
}

static void show_word(const char *name, u64 h, u64 g, u64 mask)
{
	if ((h ^ g) & mask)
		printf("  %-7s host %016llx guest %016llx\n", name, (unsigned long long)h,
			(unsigned long long)g);
}

static void show_difference(void)
{
	const struct state *h = &t.host, *g = &t.guest;
	const u8 *gm = (const u8 *)AREA_DATA;

	for (unsigned int k = 0; k < 16; k++)
		if (compared_gprs() >> k & 1)
			show_word(
				reg_name[k], h->r[k], g->r[k], t.q.bits == 32 ? 0xffffffff : ~0ULL);
	show_word("rip", h->rip, g->rip, ~0ULL);
	show_word("rflags", h->rflags, g->rflags, compared_flags());
	show_word("vector", h->vector, g->vector, ~0ULL);
	show_word("error", h->error, g->error, ~0ULL);
	show_word("cr2", h->cr2, g->cr2, h->vector == VEC_PF ? ~0ULL : 0);
	show_word("fcw", h->x.fx.fcw, g->x.fx.fcw, ~0ULL);
	show_word("fsw", h->x.fx.fsw, g->x.fx.fsw, ~0ULL);
	if (h->x.fx.fsw & FSW_ES) {
		show_word("fip", h->x.fx.fip, g->x.fx.fip, ~0ULL);
		show_word("fdp", h->x.fx.fdp, g->x.fx.fdp, ~0ULL);
		show_word("fop", h->x.fx.fop, g->x.fx.fop, ~0ULL);
	}
	show_word("ftw", h->x.fx.ftw, g->x.fx.ftw, ~0ULL);
	show_word("mxcsr", h->x.fx.mxcsr, g->x.fx.mxcsr, ~0ULL);
	for (unsigned int k = 0; k < 8; k++)
		hex(NULL, "st", k, h->x.fx.st[k], g->x.fx.st[k], 16);
	xstate_differences(h, g, t.q.bits == 32 ? 8 : 16, hex, NULL);
	for (unsigned int k = 0; k < DATA_SIZE; k++)
		if (t.host_memory[k] != gm[k])
			printf("  [%lx] host %02x guest %02x (was %02x)\n", AREA_DATA + k,
				t.host_memory[k], gm[k], t.memory[k]);
}

static void show_insn(unsigned int k)
{
	u64 at = t.q.insn[k].addr, end = k + 1 < t.q.n ? t.q.insn[k + 1].addr : t.q.end;

	printf("  %lx: ", (unsigned long)at);
	for (; at < end; at++)
		printf("%02x ", *(u8 *)at);
	printf(" %s\n", t.q.insn[k].row >= ROW_SKIPPED ? "(preparation)"
						       : opcode_row(t.q.insn[k].row)->name);
}

/* Both sides on the first k instructions. */
static bool cut_equal(unsigned int k)
{
	u8 *p = (u8 *)(k < t.q.n ? t.q.insn[k].addr : t.q.end), old = *p;
	bool same;

	*p = 0xcc;
	same = run_both() == 0 && equal();
	*p = old;
	return same;
}

static void show_before(unsigned int k)
{
	cut_equal(k);
	printf("  before:");
	for (unsigned int j = 0; j < 16; j++)
		printf("%s%s %llx", j % 4 ? " " : "\n    ", reg_name[j],
			(unsigned long long)t.host.r[j]);
	for (unsigned int j = 0; j < 8; j++)
		printf("%sk%u %llx", j % 4 ? " " : "\n    ", j, (unsigned long long)t.host.k[j]);
	printf("\n    rflags %llx mxcsr %x fcw %x fsw %x ftw %x\n",
		(unsigned long long)t.host.rflags, t.host.x.fx.mxcsr, t.host.x.fx.fcw,
		t.host.x.fx.fsw, t.host.x.fx.ftw);
}

/* Finds the first instruction after which the sides differ. */
static void reduce(void)
{
	for (unsigned int k = 1; k <= t.q.n; k++) {
		if (k < t.q.n && t.q.insn[k].row == ROW_SKIPPED)
			continue;
		if (cut_equal(k))
			continue;
		printf("%u-bit; differs after:\n", t.q.bits);
		for (unsigned int j = k > 4 ? k - 4 : 0; j < k; j++)
			show_insn(j);
		show_difference();
		show_before(k - 1);
		return;
	}
	printf("differs only as a whole\n");
	run_both();
	show_difference();
}

/* ---- the run ------------------------------------------------------------------------------- */

static void count(void)
{
	n_sequences++;
	if (t.host.vector < 32)
		n_faults[t.host.vector]++;
	for (unsigned int k = 0; k < t.q.n && t.q.insn[k].addr < t.host.rip; k++) {
		n_insns++;
		if (t.q.insn[k].row < ROW_SKIPPED)
			covered[t.q.insn[k].row] = 1;
	}
}

/*
 * bits 0: chosen at random. A difference must come again: the host's FIP and FDP do not survive a
 * switch to another process while no x87 error is pending (AMD), and then FNSTENV shows it.
 */
static bool compare(u64 seed, unsigned int bits, unsigned int n, u32 only)
{
	struct random r = { seed * 0x2545f4914f6cdd1dULL };

	if (!bits)
		bits = rnd_chance(&r, 65) ? 64 : 32;
	gen_sequence(&t.q, &r, bits, n, only);
	gen_memory(&r);
	gen_state(&t.start, &r, &t.q);
	memcpy(t.memory, (void *)AREA_DATA, DATA_SIZE);
	for (int k = 0; k < 4; k++) {
		if (run_both()) {
			printf("seed %llu: the guest stopped\n", (unsigned long long)seed);
			return false;
		}
		if (equal()) {
			n_flaky += k > 0;
			count();
			return true;
		}
	}
	printf("\nseed %llu bits %u row %d:\n", (unsigned long long)seed, bits, (int)only);
	reduce();
	return false;
}

static bool name_matches(const char *name)
{
	return !only_row || !strcmp(only_row, name);
}

/* Each row alone, a few times; the CPU's own #UD tells which rows it lacks. Returns how many rows
 * differ. */
static unsigned int run_rows(u64 seed)
{
	unsigned int bad = 0, n = gen_rows();
	u32 missing[256], n_missing = 0;

	for (unsigned int k = 0; k < n; k++) {
		u32 row = gen_row_at(k);
		bool ok = true;

		if (!name_matches(opcode_row(row)->name))
			continue;
		for (unsigned int j = 0; j < (only_row ? 200 : 12) && ok; j++)
			ok = compare((seed << 32) + k * 1000 + j, j & 1 ? 64 : 32, 1 + j, row);
		bad += !ok;
		if (!ok)
			printf("row %x %s\n", row, opcode_row(row)->name);
		if (!covered[row] && t.host.vector == VEC_UD && n_missing < ARRAY_SIZE(missing))
			missing[n_missing++] = row;
	}
	while (n_missing)
		gen_drop_row(missing[--n_missing]);
	return bad;
}

static unsigned int run_mixed(u64 seed, u64 insns)
{
	unsigned int bad = 0;

	for (u64 k = 0; n_insns < insns && bad < 10; k++)
		bad += !compare((seed << 32) + 1000000000 + k, 0, 120, ROW_PREP);
	return bad;
}

static bool report(void)
{
	unsigned int have = 0, all = 0;

	for (unsigned int k = 0; k < gen_rows(); k++) {
		u32 row = gen_row_at(k);

		all++;
		have += covered[row];
		if (!covered[row])
			printf("not covered: %x %s\n", row, opcode_row(row)->name);
	}
	printf("%llu instructions, %llu sequences, %u of %u rows (%.2f %%), %llu reruns\n",
		(unsigned long long)n_insns, (unsigned long long)n_sequences, have, all,
		100.0 * have / all, (unsigned long long)n_flaky);
	printf("ends:");
	for (unsigned int k = 0; k < 32; k++)
		if (n_faults[k])
			printf(" %u:%llu", k, (unsigned long long)n_faults[k]);
	printf("\n");
	return have * 100ULL >= all * 99ULL;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' }, { "insns", required_argument, NULL, 'n' },
		{ "row", required_argument, NULL, 'r' }, { "one", required_argument, NULL, '1' },
		{ 0 },
	};
	u64 seed = (u64)time(NULL), insns = 20000000, one = 0;
	unsigned int bad;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'n': insns = strtoull(optarg, NULL, 0); break;
		case 'r': only_row = optarg; break;
		case '1': one = strtoull(optarg, NULL, 0); break;
		default: return 2;
		}
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	gen_setup();
	if (native_setup() || guest_setup()) {
		printf("setup failed\n");
		return 1;
	}
	bad = run_rows(seed);
	if (one)
		return !compare(one, 0, 120, ROW_PREP);
	if (only_row)
		return !!bad;
	if (!bad)
		bad = run_mixed(seed, insns);
	return !report() || bad;
}
