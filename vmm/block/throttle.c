/* Leaky buckets: see throttle.h. */
#include "vmm/block/throttle.h"

#define NS 1000000000.0

static bool bucket_counts(enum throttle_bucket i, bool write)
{
	enum throttle_bucket kind = i % (THROTTLE_IOPS - THROTTLE_BPS);

	return kind == THROTTLE_BPS || (kind == THROTTLE_BPS_WRITE) == write;
}

/* What fits above the average before requests must wait. */
static double bucket_size(const struct throttle_limit *l)
{
	if (!l->burst)
		return l->average / 10.0;
	return (double)l->burst * (l->burst_seconds ?: 1);
}

bool throttle_wanted(const struct block_throttle *config)
{
	for (int i = 0; i < THROTTLE_BUCKETS; i++)
		if (config->limit[i].average)
			return true;
	return false;
}

void throttle_init(struct throttle *t, const struct block_throttle *config, u64 now)
{
	*t = (struct throttle){ .config = *config, .time = now };
}

static void throttle_leak(struct throttle *t, u64 now)
{
	double seconds = (now - t->time) / NS;

	t->time = now;
	for (int i = 0; i < THROTTLE_BUCKETS; i++) {
		t->level[i] -= t->config.limit[i].average * seconds;
		t->level[i] = MAX(t->level[i], 0.0);
		t->burst_level[i] -= t->config.limit[i].burst * seconds;
		t->burst_level[i] = MAX(t->burst_level[i], 0.0);
	}
}

u64 throttle_wait(struct throttle *t, bool write, u64 now)
{
	double longest = 0;

	throttle_leak(t, now);
	for (int i = 0; i < THROTTLE_BUCKETS; i++) {
		const struct throttle_limit *l = &t->config.limit[i];
		double over = t->level[i] - bucket_size(l);
		double fast = t->burst_level[i] - l->burst / 10.0;

		if (!l->average || !bucket_counts(i, write))
			continue;
		if (over > 0)
			longest = MAX(longest, over / l->average);
		if (l->burst && l->burst_seconds > 1 && fast > 0)
			longest = MAX(longest, fast / l->burst);
	}
	return longest > 0 ? (u64)(longest * NS) + 1 : 0;
}

void throttle_account(struct throttle *t, bool write, u64 bytes)
{
	for (int i = 0; i < THROTTLE_BUCKETS; i++)
		if (t->config.limit[i].average && bucket_counts(i, write)) {
			t->level[i] += i < THROTTLE_IOPS ? (double)bytes : 1;
			t->burst_level[i] += i < THROTTLE_IOPS ? (double)bytes : 1;
		}
}
