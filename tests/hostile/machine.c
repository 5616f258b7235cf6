/* A machine among canaries, and the watch over its vCPUs: a kick always gets one out. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#include "hypervisor/api/qkvm.h"
#include "tests/hostile/hostile.h"

#define STUCK_MS	10000		/* a kick that does nothing for so long is a failure */

static struct hvcpu *volatile watched[VCPUS_MAX];
static unsigned int tick_us;

/* SplitMix64 */
u64 rnd(struct random *r)
{
	u64 z = (r->s += 0x9e3779b97f4a7c15ULL);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

u64 now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000 + (u64)t.tv_nsec / 1000000;
}

long kvm_call(int fd, unsigned long request, void *arg)
{
	return qkvm_ioctl(fd, request, (unsigned long)arg);
}

long kvm_must(long r, const char *what)
{
	if (r < 0)
		fail("%s: %s", what, strerror((int)-r));
	return r;
}

/* ---- slots --------------------------------------------------------------------------------- */

void slot_set(struct machine *m, unsigned int slot, u64 gpa, u64 size, void *host, u32 flags)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (u64)host,
	};

	kvm_must(kvm_call(m->vm, KVM_SET_USER_MEMORY_REGION, &r), "KVM_SET_USER_MEMORY_REGION");
}

/* ---- vCPUs --------------------------------------------------------------------------------- */

static void set_cpuid(struct machine *m, struct hvcpu *c)
{
	struct { struct kvm_cpuid2 h; struct kvm_cpuid_entry2 e[128]; } id;

	memset(&id, 0, sizeof(id));
	id.h.nent = 128;
	kvm_must(kvm_call(m->sys, KVM_GET_SUPPORTED_CPUID, &id), "KVM_GET_SUPPORTED_CPUID");
	kvm_must(kvm_call(c->fd, KVM_SET_CPUID2, &id), "KVM_SET_CPUID2");
}

static void cpu_new(struct machine *m, unsigned int n, bool irqchip)
{
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	struct hvcpu *c = &m->cpu[n];
	void *run;

	c->m = m;
	c->fd = (int)kvm_must(qkvm_ioctl(m->vm, KVM_CREATE_VCPU, n), "KVM_CREATE_VCPU");
	kvm_must(qkvm_mmap(c->fd, RUN_SIZE, &run), "mmap");
	c->run = run;
	set_cpuid(m, c);
	if (irqchip)
		kvm_must(kvm_call(c->fd, KVM_SET_MP_STATE, &runnable), "KVM_SET_MP_STATE");
	watched[n] = c;
}

void machine_new(struct machine *m, size_t ram_size, unsigned int cpus, bool irqchip)
{
	unsigned int n;

	memset(m, 0, sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
	m->status = -1;
	m->ram_size = ram_size;
	m->ram = canary_replace(RAM_AT, ram_size);
	m->rom = canary_replace(ROM_AT, ROM_SIZE);
	for (n = 0; n < ROM_SIZE; n++)
		m->rom[n] = n % 4096 == 4095 ? 0xc3 : 0x90;	/* NOPs, RET */
	m->spare[0] = canary_replace(SPARE_AT, SPARE_SIZE);
	m->spare[1] = canary_replace(SPARE_AT + (2 << 20), SPARE_SIZE);
	m->sys = (int)kvm_must(qkvm_open(), "open");
	m->vm = (int)kvm_must(qkvm_ioctl(m->sys, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	slot_set(m, SLOT_RAM, 0, ram_size, m->ram, 0);
	slot_set(m, SLOT_ROM, ROM_GPA, ROM_SIZE, m->rom, KVM_MEM_READONLY);
	slot_set(m, SLOT_SPARE, SPARE_GPA, SPARE_SIZE, m->spare[0], 0);
	if (irqchip)
		kvm_must(qkvm_ioctl(m->vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	for (n = 0; n < cpus; n++)
		cpu_new(m, n, irqchip);
	m->n_cpus = cpus;
}

void machine_free(struct machine *m)
{
	unsigned int n;

	for (n = 0; n < m->n_cpus; n++) {
		watched[n] = NULL;
		munmap(m->cpu[n].run, RUN_SIZE);
		kvm_must(qkvm_close(m->cpu[n].fd), "close");
	}
	kvm_must(qkvm_close(m->vm), "close");
	kvm_must(qkvm_close(m->sys), "close");
	canary_restore(RAM_AT, m->ram_size);
	canary_restore(ROM_AT, ROM_SIZE);
	canary_restore(SPARE_AT, SPARE_SIZE);
	canary_restore(SPARE_AT + (2 << 20), SPARE_SIZE);
	pthread_mutex_destroy(&m->lock);
}

/* ---- the tick ------------------------------------------------------------------------------ */

static u64 cpu_ns(pthread_t thread)
{
	struct timespec t;
	clockid_t clock;

	if (pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &t))
		return 0;
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

/* Does it go round, sleep, or not get a CPU? */
static void fail_stuck(const struct hvcpu *c)
{
	fail("a vCPU does not come out; its thread ran for %llu ms",
		(unsigned long long)(cpu_ns(c->thread) - c->cpu_ns) / 1000000);
}

/*
 * Runs on any thread. Only asks: a vCPU on another thread gets no signal, so it must find the
 * request by itself.
 */
static void on_tick(int sig)
{
	unsigned int n;

	for (n = 0; n < VCPUS_MAX; n++) {
		struct hvcpu *c = watched[n];

		if (!c || !c->inside)
			continue;
		c->run->immediate_exit = 1;
		if (!pthread_equal(c->thread, pthread_self()) && !(c->ticks & 15))
			pthread_kill(c->thread, SIGUSR1);
		if (++c->ticks > (int)(STUCK_MS * 1000 / tick_us))
			fail_stuck(c);
	}
}

static void on_poke(int sig)
{
}

void ticks_start(unsigned int us)
{
	struct itimerval t = { { 0, us }, { 0, us } };
	struct sigaction sa = { .sa_handler = on_tick, .sa_flags = SA_RESTART };

	tick_us = us;
	sigaction(SIGALRM, &sa, NULL);
	sa.sa_handler = on_poke;
	sa.sa_flags = 0;
	sigaction(SIGUSR1, &sa, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
}

long cpu_run(struct hvcpu *c)
{
	long r;

	c->thread = pthread_self();
	c->ticks = 0;
	c->cpu_ns = cpu_ns(c->thread);
	c->inside = 1;
	r = enter_checked(c->fd, qkvm_ioctl);
	c->inside = 0;
	c->run->immediate_exit = 0;
	if (r != 0 && r != -EINTR)
		fail("KVM_RUN: %s", strerror((int)-r));
	return r;
}

/* The spare slot is deleted, and made again with the other memory, as fast as it goes. */
void *slot_churn(void *arg)
{
	struct machine *m = arg;
	unsigned int n;

	for (n = 1; m->churn; n++) {
		slot_set(m, SLOT_SPARE, SPARE_GPA, 0, NULL, 0);
		slot_set(m, SLOT_SPARE, SPARE_GPA, SPARE_SIZE, m->spare[n & 1], 0);
	}
	return NULL;
}
