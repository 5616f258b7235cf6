/* Two threads that want the same lock, and the same cache line. */
#include <pthread.h>

#include "work.h"

enum { THREADS = 2, TURNS = 2000000, SHARED = 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static u64 shared[SHARED], counter;

static void *turns(void *unused)
{
	u64 local = 1;

	(void)unused;
	for (int i = 0; i < TURNS; i++) {
		pthread_mutex_lock(&lock);
		for (int k = 0; k < SHARED; k++)
			shared[k] += k;
		pthread_mutex_unlock(&lock);
		for (int k = 0; k < SHARED; k++)
			local = local * 3 + k;
		__atomic_fetch_add(&counter, (local & 1) | 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static u64 threads_run(void)
{
	pthread_t id[THREADS];

	for (int i = 0; i < THREADS; i++) {
		if (pthread_create(&id[i], NULL, turns, NULL))
			die("pthread_create");
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(id[i], NULL);
	return hash_bytes(counter, shared, sizeof(shared));
}

const struct workload thread_workloads[] = {
	{"threads", NULL, threads_run},
	{NULL, NULL, NULL},
};
