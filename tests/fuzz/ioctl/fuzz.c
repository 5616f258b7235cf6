/*
 * A careless or hostile client of the KVM API: ioctls of all descriptors with arguments of all kinds from three
 * threads at once, on the same VMs and vCPUs, whose descriptors are closed at any time, with guests that compute, and
 * memory that comes and goes under them.
 *
 * What must hold: nothing but an errno comes of it. No crash (run it under ASan and UBSan), no call that does not
 * come back when it is told to (a watch says which one), no descriptor left when all are closed.
 *
 * Each row of the API's tables is tried without being named here; args.c knows more of some.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/api/api.h"
#include "hypervisor/api/qkvm.h"
#include "tests/fuzz/ioctl/fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define CALLS		60	/* of each thread for each input */
#define TICK_US		500
#define HANG_TICKS	(60 * 1000000 / TICK_US)
#define RUN_SIZE	(3 * 4096)

static struct memory memory;
static struct pool pool;
static struct worker workers[NR_THREADS];

static void fail(const char *what, const char *which)
{
	fprintf(stderr, "ioctl-fuzz: %s%s%s\n", what, which ? ": " : "", which ? which : "");
	abort();
}

/* ---- descriptors ------------------------------------------------------------------------------ */

/* Any slot; mostly one that is in use. */
static int slot_get(struct worker *w, int *slot, u32 n)
{
	u32 at = below(&w->c, n);
	int fd = load_acquire(&slot[at]);

	if (chance(&w->c, 3))
		return fd;
	for (u32 i = 0; i < n && fd < 0; i++)
		fd = load_acquire(&slot[(at + i) % n]);
	return fd;
}

/* Into a free slot; there is none: closed again. */
static bool slot_put(int *slot, u32 n, int fd)
{
	for (u32 i = 0; i < n; i++) {
		int none = -1;

		if (__atomic_compare_exchange_n(&slot[i], &none, fd, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return true;
	}
	qkvm_close(fd);
	return false;
}

static void slot_close(int *slot)
{
	int fd = __atomic_exchange_n(slot, -1, __ATOMIC_ACQ_REL);

	if (fd >= 0)
		qkvm_close(fd);
}

/* A mapping outlives its descriptor, as a client may have it. */
static void vcpu_map(int fd)
{
	u32 n = __atomic_fetch_add(&pool.nr_maps, 1, __ATOMIC_ACQ_REL);
	void *p;

	if (n < NR_MAPS && !qkvm_mmap(fd, RUN_SIZE, &p))
		store_release(&pool.map[n], (struct kvm_run *)p);
}

static void vcpu_take(struct worker *w, int fd)
{
	vcpu_map(fd);
	if (chance(&w->c, 70))
		arg_mode(w, fd);
	slot_put(pool.vcpu, NR_VCPUS, fd);
}

/* What a request returned, when it returns descriptors. */
static void take_descriptor(struct worker *w, u32 request, long ret)
{
	char text[256];

	if (request == (u32)KVM_CREATE_VM)
		slot_put(pool.vm, NR_VMS, (int)ret);
	else if (request == (u32)KVM_CREATE_VCPU)
		vcpu_take(w, (int)ret);
	else if (request == (u32)KVM_GET_STATS_FD) {
		ret = read((int)ret, text, sizeof(text)) < 0 ? ret : ret;
		if (qkvm_close((int)ret) == -EBADF)
			close((int)ret);
	}
}

/* ---- what came of it -------------------------------------------------------------------------- */

#define MAX_ROWS	256
#define MAX_EXITS	64

static struct row_count {
	const struct ioctl_row *row;
	u64 good, bad;
} counts[MAX_ROWS];
static u64 exits[MAX_EXITS];

static void count(const struct ioctl_row *row, long ret)
{
	for (u32 i = 0; i < MAX_ROWS; i++) {
		const struct ioctl_row *none = NULL;

		if (load_acquire(&counts[i].row) != row && !__atomic_compare_exchange_n(&counts[i].row, &none, row,
				false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) && none != row)
			continue;
		__atomic_fetch_add(ret < 0 ? &counts[i].bad : &counts[i].good, 1, __ATOMIC_RELAXED);
		return;
	}
}

void fuzz_report(void)
{
	for (u32 i = 0; i < MAX_ROWS && counts[i].row; i++)
		printf("%-32s %8llu good %8llu bad\n", counts[i].row->name, (unsigned long long)counts[i].good,
			(unsigned long long)counts[i].bad);
	for (u32 i = 0; i < MAX_EXITS; i++)
		if (exits[i])
			printf("exit %-27u %8llu\n", i, (unsigned long long)exits[i]);
}

/* ---- what a thread does ----------------------------------------------------------------------- */

static struct kvm_run *some_map(struct worker *w)
{
	return load_acquire(&pool.map[below(&w->c, MAX(1u, MIN(pool.nr_maps, (u32)NR_MAPS)))]);
}

/* The client's side of struct kvm_run, and what is none of its business. */
static void poke_run(struct worker *w)
{
	struct kvm_run *run = some_map(w);
	u64 v = value(&w->c);

	if (!run)
		return;
	switch (below(&w->c, 6)) {
	case 0: run->immediate_exit = (u8)v; break;
	case 1: run->request_interrupt_window = (u8)v; break;
	case 2: run->kvm_dirty_regs = v & 7; break;
	case 3: run->kvm_valid_regs = v & 7; break;
	case 4: memcpy((u8 *)run + below(&w->c, 2400), &v, sizeof(v)); break;
	default: memcpy((u8 *)run + below(&w->c, RUN_SIZE - 8), &v, sizeof(v));
	}
}

static long do_ioctl(struct worker *w, int fd, const struct ioctl_row *row)
{
	u64 arg = arg_make(w, row);
	long ret;

	w->doing = row->name;
	ret = qkvm_ioctl(fd, row->request, arg);
	w->doing = NULL;
	w->calls++;
	if (ret < -4095)
		fail("no errno", row->name);
	if (ret >= 0)
		take_descriptor(w, (u32)row->request, ret);
	return ret;
}

/* A row of a table, that is: one that outlives the call. */
static void do_row(struct worker *w, int fd, const struct ioctl_row *row)
{
	count(row, do_ioctl(w, fd, row));
}

static const struct ioctl_row *some_row(struct worker *w, const struct ioctl_class *class)
{
	return &class->rows[below(&w->c, class->n)];
}

static void call_wild(struct worker *w, int fd)
{
	struct ioctl_row row = { .name = "a number that is no request", .in = below(&w->c, 512) };

	row.request = chance(&w->c, 50) ? (0xaeu << 8 | below(&w->c, 256)) : value(&w->c);
	if (chance(&w->c, 70))
		row.request |= (unsigned long)below(&w->c, 4) << 30 | (unsigned long)row.in << 16;
	/* Their arguments hold addresses. */
	if (_IOC_NR(row.request) == _IOC_NR(KVM_SET_USER_MEMORY_REGION) ||
	    _IOC_NR(row.request) == _IOC_NR(KVM_GET_DIRTY_LOG) ||
	    _IOC_NR(row.request) == _IOC_NR(KVM_CLEAR_DIRTY_LOG) ||
	    (_IOC_NR(row.request) & ~3u) == (_IOC_NR(KVM_CREATE_DEVICE) & ~3u))
		return;
	do_ioctl(w, fd, &row);
}

static void run_vcpu(struct worker *w)
{
	static const struct ioctl_row row = { (unsigned int)KVM_RUN, "KVM_RUN", 0, 0, NULL };
	struct kvm_run *run = some_map(w);

	if (run && chance(&w->c, 80))
		run->immediate_exit = 0;
	count(&row, do_ioctl(w, slot_get(w, pool.vcpu, NR_VCPUS), &row));
	if (run && run->exit_reason < MAX_EXITS)
		__atomic_fetch_add(&exits[run->exit_reason], 1, __ATOMIC_RELAXED);
}

static void step(struct worker *w)
{
	u32 what = below(&w->c, 100);

	if (what < 30)
		run_vcpu(w);
	else if (what < 60)
		do_row(w, slot_get(w, pool.vcpu, NR_VCPUS), some_row(w, &vcpu_ioctls));
	else if (what < 80)
		do_row(w, slot_get(w, pool.vm, NR_VMS), some_row(w, &vm_ioctls));
	else if (what < 84)
		do_row(w, pool.sys, some_row(w, &system_ioctls));
	else if (what < 86)
		call_wild(w, chance(&w->c, 50) ? slot_get(w, pool.vm, NR_VMS) : slot_get(w, pool.vcpu, NR_VCPUS));
	else if (what == 86)
		slot_close(&pool.vcpu[below(&w->c, NR_VCPUS)]);
	else if (what == 87 && chance(&w->c, 50))
		slot_close(&pool.vm[below(&w->c, NR_VMS)]);
	else if (what < 94)
		memory_disturb(w->memory, &w->c);
	else
		poke_run(w);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	for (u32 i = 0; i < CALLS; i++)
		step(w);
	w->done = true;
	return NULL;
}

/* ---- the watch -------------------------------------------------------------------------------- */

static void on_signal(int sig)
{
}

static bool all_done(void)
{
	for (u32 i = 0; i < NR_THREADS; i++)
		if (!workers[i].done)
			return false;
	return true;
}

static void kick(struct worker *w)
{
	if (!w->done)
		pthread_kill(w->thread, SIGUSR1);
}

/* As a client gets its vCPU threads out: immediate_exit, and a signal. One that does not come is stuck. */
static void watch(void)
{
	u64 calls[NR_THREADS] = { 0 };
	u32 same[NR_THREADS] = { 0 };

	for (u32 tick = 0; !all_done(); tick++) {
		usleep(TICK_US);
		for (u32 i = 0; i < NR_MAPS; i++) {
			struct kvm_run *run = load_acquire(&pool.map[i]);

			if (run && (tick & 1))
				run->immediate_exit = 1;
		}
		for (u32 i = 0; i < NR_THREADS; i++) {
			struct worker *w = &workers[i];

			if (tick & 1)
				kick(w);
			same[i] = w->calls == calls[i] ? same[i] + 1 : 0;
			calls[i] = w->calls;
			if (same[i] > HANG_TICKS)
				fail("does not come back", w->doing ? w->doing : "something else");
		}
	}
}

/* ---- one input -------------------------------------------------------------------------------- */

static void machine_make(struct choices *c)
{
	struct kvm_userspace_memory_region mem = { .memory_size = AREA_RAM / 2, .userspace_addr = (u64)memory.area,
		.flags = chance(c, 50) ? KVM_MEM_LOG_DIRTY_PAGES : 0 };
	u32 vcpus = 1 + below(c, 2);
	int vm;

	pool = (struct pool){ .sys = qkvm_open(), .event = { eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK) } };
	memset(pool.vm, 0xff, sizeof(pool.vm));
	memset(pool.vcpu, 0xff, sizeof(pool.vcpu));
	memory_program(&memory, c);
	vm = (int)qkvm_ioctl(pool.sys, KVM_CREATE_VM, 0);
	if (pool.sys < 0 || vm < 0)
		fail("no VM", NULL);
	pool.vm[0] = vm;
	qkvm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, (unsigned long)&mem);
	if (chance(c, 60))
		qkvm_ioctl(vm, KVM_CREATE_IRQCHIP, 0);
	workers[0].c = *c;
	for (u32 i = 0; i < vcpus; i++) {
		int fd = (int)qkvm_ioctl(vm, KVM_CREATE_VCPU, i);

		if (fd < 0)
			fail("no vCPU", NULL);
		vcpu_take(&workers[0], fd);
	}
}

static void machine_free(void)
{
	for (u32 i = 0; i < NR_VCPUS; i++)
		slot_close(&pool.vcpu[i]);
	for (u32 i = 0; i < NR_VMS; i++)
		slot_close(&pool.vm[i]);
	for (u32 i = 0; i < NR_MAPS; i++)
		if (pool.map[i])
			munmap(pool.map[i], RUN_SIZE);
	qkvm_close(pool.sys);
	close(pool.event[0]);
	close(pool.event[1]);
	memory_restore(&memory);
}

static void *scratch_new(void)
{
	u8 *p = mmap(NULL, SCRATCH_SIZE + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(p + SCRATCH_SIZE, 4096, PROT_NONE) ||
	    mprotect(p + SCRATCH_SIZE + 4096, 4096, PROT_READ))
		fail("no memory", NULL);
	return p;
}

static void prepare(void)
{
	struct sigaction act = { .sa_handler = on_signal };

	if (memory.area)
		return;
	sigaction(SIGUSR1, &act, NULL);
	memory_init(&memory);
	for (u32 i = 0; i < NR_THREADS; i++)
		workers[i] = (struct worker){ .pool = &pool, .memory = &memory, .scratch = scratch_new() };
}

static u32 descriptors_open(void)
{
	DIR *d = opendir("/proc/self/fd");
	u32 n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	size_t part = size / (NR_THREADS + 1);
	struct choices c;
	u32 before;

	prepare();
	before = descriptors_open();
	choices_init(&c, data, part, 99);
	machine_make(&c);
	for (u32 i = 0; i < NR_THREADS; i++) {
		choices_init(&workers[i].c, data + (i + 1) * part, part, i);
		memset(workers[i].scratch, 0, SCRATCH_SIZE);
		workers[i].done = false;
	}
	for (u32 i = 0; i < NR_THREADS; i++)
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			fail("no thread", NULL);
	watch();
	for (u32 i = 0; i < NR_THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	machine_free();
	if (descriptors_open() > before)
		fail("a descriptor is left", NULL);
	return 0;
}
