/*
 * Decoder test: random byte strings, in each code size, decoded by ours and by Zydis; lengths and
 * operands must be equal but for the known disagreements, and the strings must reach the opcode
 * table's rows.
 *
 *	decode-zydis [strings per code size [seed]]
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/insn/decode/decode.h"

#define JOB_STRINGS 250000ULL
#define MAX_REPORTS 200
#define THREADS	    2

static struct {
	pthread_mutex_t lock;
	u64 strings, seed, next_job, jobs;
	u64 failures, valid, explained[64];
	char seen[MAX_REPORTS][200]; /* one report for each kind of failure */
	unsigned int nr_seen;
	u8 *covered;
} test = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const unsigned int code_sizes[] = {2, 4, 8};

static void report_print(const struct comparison *c)
{
	printf("%u-bit:", c->code * 8);
	for (unsigned int i = 0; i < 16; i++)
		printf(" %02x", c->bytes[i]);
	printf("\n\t%s: %s\n", c->row ? c->row->name : "-", c->diff);
}

/* The first of each kind is shown: row, Zydis's mnemonic and text. */
static void failure_note(const struct comparison *c)
{
	char key[200];

	snprintf(key, sizeof(key), "%s/%s/%.12s", c->row ? c->row->name : "-",
		c->zydis_ok ? ZydisMnemonicGetString(c->zi.mnemonic) : "-", c->diff);
	pthread_mutex_lock(&test.lock);
	test.failures++;
	for (unsigned int i = 0; i < test.nr_seen; i++)
		if (!strcmp(test.seen[i], key))
			goto out;
	if (test.nr_seen < MAX_REPORTS) {
		strcpy(test.seen[test.nr_seen++], key);
		report_print(c);
	}
out:
	pthread_mutex_unlock(&test.lock);
}

static void job_run(u64 job, struct comparison *c, u64 *valid, u64 *explained)
{
	u64 rng = (test.seed + job) * 0x9e3779b97f4a7c15ULL | 1;

	c->code = code_sizes[job % ARRAY_SIZE(code_sizes)];
	for (u64 n = 0; n < JOB_STRINGS; n++) {
		int k;

		generate(&rng, c->code, c->bytes);
		if (compare(c) && (c->result != DECODE_OK || compare_attributes(c))) {
			*valid += c->result == DECODE_OK;
			if (c->result == DECODE_OK)
				test.covered[c->insn.row] = 1;
			continue;
		}
		k = known_match(c);
		if (k < 0)
			failure_note(c);
		else
			explained[k]++;
		if (k >= 0 && c->result == DECODE_OK)
			test.covered[c->insn.row] = 1;
	}
}

static void *worker(void *arg)
{
	struct comparison c;
	u64 valid = 0, explained[64] = {0};

	for (;;) {
		u64 job = __atomic_fetch_add(&test.next_job, 1, __ATOMIC_RELAXED);

		if (job >= test.jobs)
			break;
		job_run(job, &c, &valid, explained);
	}
	pthread_mutex_lock(&test.lock);
	test.valid += valid;
	for (unsigned int k = 0; k < known_count(); k++)
		test.explained[k] += explained[k];
	pthread_mutex_unlock(&test.lock);
	return arg;
}

/* True if at least 99 % of the rows were decoded. */
static bool coverage_print(void)
{
	unsigned int rows = 0, hit = 0;

	for (unsigned int i = 0; i < opcode_rows(); i++) {
		struct opcode_where w;

		if (!opcode_row(i))
			continue;
		rows++;
		hit += test.covered[i];
		if (!test.covered[i] && opcode_where(i, &w))
			printf("row not reached: %s (map %u, opcode %02x, prefix %u, /%d)\n",
				opcode_row(i)->name, w.map, w.opcode, w.pfx, w.ext);
		else if (!test.covered[i])
			printf("row that no opcode leads to: %s (%#x)\n", opcode_row(i)->name, i);
	}
	printf("coverage: %u of %u rows\n", hit, rows);
	return hit * 100 >= rows * 99;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	bool covered;

	test.strings = argc > 1 ? strtoull(argv[1], NULL, 0) : 10000000;
	test.seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	test.covered = calloc(opcode_rows(), 1);
	if (!test.covered)
		return 1;
	test.jobs = ARRAY_SIZE(code_sizes) * ((test.strings + JOB_STRINGS - 1) / JOB_STRINGS);
	printf("seed %" PRIu64 ", %" PRIu64 " strings in each of 16, 32 and 64 bits\n", test.seed,
		test.strings);
	for (unsigned int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, worker, NULL))
			return 1;
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	covered = coverage_print();
	for (unsigned int k = 0; k < known_count(); k++)
		printf("known: %8" PRIu64 " %s\n", test.explained[k], known_reason(k));
	printf("%" PRIu64 " valid in both, %" PRIu64 " failures\n", test.valid, test.failures);
	free(test.covered);
	return test.failures || !covered;
}
