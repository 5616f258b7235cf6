/*
 * What leaving a guest costs, in nanoseconds: a line for each kind of exit, "name least median". It knows
 * nothing but the KVM API, by system calls: under softkvm that is ours, else the host's /dev/kvm.
 *
 *	exits [--rounds N] [--ms N] [--only NAME]
 *
 * A round of each kind lasts about --ms milliseconds; least and median are over the rounds. What two threads do
 * (irqfd, sleep, IPI) needs two CPUs.
 */
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "exits.h"

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#define RAM_SIZE	0x40000
#define NR_CPUS		2
#define GSI		5
#define MAX_ROUNDS	100
#define SECONDS_MAX	20

struct cpu {
	int fd;
	struct kvm_run *run;
	pthread_t thread;
};

static int vm_fd, irq_fd, event_fd;
/* As an operating system has it. A KVM without hardware may not know pages of 4 MiB. */
static bool paging;
static u8 *ram;
static struct cpu cpus[NR_CPUS];

extern const u8 guest_begin[], guest_end[];

static u64 now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

static long must(long ret, const char *what)
{
	if (ret < 0)
		err(1, "%s", what);
	return ret;
}

#define CALL(fd, request, arg) must(ioctl(fd, request, arg), #request)

/* ---- the machine --------------------------------------------------------------------------- */

static struct kvm_segment flat(u8 selector, u8 type)
{
	return (struct kvm_segment){ .selector = selector, .limit = 0xffffffff, .type = type, .present = 1,
		.s = 1, .db = 1, .g = 1 };
}

static u32 guest_address(const u8 *at)
{
	return (u32)(GUEST_CODE + (at - guest_begin));
}

static void cpu_point(struct cpu *c, const u8 *entry, u64 count)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_regs r = { .rip = guest_address(entry), .rcx = count, .rflags = 2,
		.rsp = STACK_TOP + (c == &cpus[1] ? 0x1000 : 0) };

	CALL(c->fd, KVM_SET_REGS, &r);
	CALL(c->fd, KVM_SET_MP_STATE, &runnable);
}

static void cpu_modes(struct cpu *c)
{
	struct kvm_sregs s;

	CALL(c->fd, KVM_GET_SREGS, &s);
	s.cs = flat(8, 11);
	s.ds = s.es = s.fs = s.gs = s.ss = flat(16, 3);
	s.cr0 = 0x31;
	if (paging) {
		s.cr0 |= 0x80000000;
		s.cr3 = PAGES_AT;
		s.cr4 = 0x10;
	}
	s.gdt = (struct kvm_dtable){ .base = GDT_AT, .limit = 23 };
	s.idt = (struct kvm_dtable){ .base = IDT_AT, .limit = 256 * 8 - 1 };
	CALL(c->fd, KVM_SET_SREGS, &s);
}

/* Enabled by software. */
static void cpu_lapic(struct cpu *c)
{
	struct kvm_lapic_state l;

	CALL(c->fd, KVM_GET_LAPIC, &l);
	memcpy(l.regs + 0xf0, &(u32){ 0x1ff }, 4);
	CALL(c->fd, KVM_SET_LAPIC, &l);
}

/* x87 and AVX unused, as in most programs: at reset the x87 unit is not in the state that FNINIT gives. */
static void cpu_vectors(struct cpu *c)
{
	static struct kvm_xsave x;

	CALL(c->fd, KVM_GET_XSAVE, &x);
	x.region[512 / 4] = 2;
	CALL(c->fd, KVM_SET_XSAVE, &x);
}

static void cpu_make(struct cpu *c, int sys, int id)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entry[100]; } cpuid = { .head.nent = 100 };
	long size = CALL(sys, KVM_GET_VCPU_MMAP_SIZE, 0);

	c->fd = (int)CALL(vm_fd, KVM_CREATE_VCPU, id);
	c->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->run == MAP_FAILED)
		err(1, "mmap");
	CALL(sys, KVM_GET_SUPPORTED_CPUID, &cpuid);
	CALL(c->fd, KVM_SET_CPUID2, &cpuid);
	cpu_modes(c);
	cpu_lapic(c);
	cpu_vectors(c);
}

static void tables_make(void)
{
	static const u64 gdt[] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff };
	extern const u8 guest_handler[];
	u64 at = guest_address(guest_handler);
	u64 gate = (at & 0xffff) | 8ull << 16 | 0x8eull << 40 | at >> 16 << 48;

	for (u32 n = 0; n < 1024; n++)		/* 4 MiB each, itself */
		memcpy(ram + PAGES_AT + n * 4, &(u32){ n << 22 | 0x83 }, 4);
	memcpy(ram + GDT_AT, gdt, sizeof(gdt));
	memcpy(ram + IDT_AT + VECTOR * 8, &gate, 8);
	memcpy(ram + GUEST_CODE, guest_begin, (size_t)(guest_end - guest_begin));
}

static void eventfds_make(void)
{
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry e; } routes = { .head.nr = 1,
		.e = { .gsi = GSI, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = LAPIC, .data = VECTOR } } };
	struct kvm_irqfd irq = { .gsi = GSI };
	struct kvm_ioeventfd port = { .addr = PORT_EVENT, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO };
	struct kvm_ioeventfd device = { .addr = EVENT_DEVICE, .len = 4 };

	irq_fd = (int)must(eventfd(0, EFD_NONBLOCK), "eventfd");
	event_fd = (int)must(eventfd(0, EFD_NONBLOCK), "eventfd");
	CALL(vm_fd, KVM_SET_GSI_ROUTING, &routes);
	irq.fd = (u32)irq_fd;
	CALL(vm_fd, KVM_IRQFD, &irq);
	port.fd = device.fd = event_fd;
	CALL(vm_fd, KVM_IOEVENTFD, &port);
	CALL(vm_fd, KVM_IOEVENTFD, &device);
}

static void machine_make(void)
{
	struct kvm_userspace_memory_region mem = { .memory_size = RAM_SIZE };
	int sys = (int)must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");

	vm_fd = (int)CALL(sys, KVM_CREATE_VM, 0);
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		err(1, "mmap");
	mem.userspace_addr = (u64)ram;
	CALL(vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000);
	CALL(vm_fd, KVM_SET_USER_MEMORY_REGION, &mem);
	CALL(vm_fd, KVM_CREATE_IRQCHIP, 0);
	tables_make();
	for (int i = 0; i < NR_CPUS; i++)
		cpu_make(&cpus[i], sys, i);
	eventfds_make();
}

/* ---- running ------------------------------------------------------------------------------- */

static bool is_done(const struct kvm_run *run)
{
	return run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_DONE;
}

/* To the end of its entry. Other exits are what is measured: they are only counted. */
static void cpu_run(struct cpu *c)
{
	do {
		if (ioctl(c->fd, KVM_RUN, 0) < 0)
			err(1, "KVM_RUN");
		if (c->run->exit_reason != KVM_EXIT_IO && c->run->exit_reason != KVM_EXIT_MMIO)
			errx(1, "exit %u", c->run->exit_reason);
	} while (!is_done(c->run));
	/* The OUT is complete when KVM_RUN begins again, and that has to be before registers are set. */
	c->run->immediate_exit = 1;
	ioctl(c->fd, KVM_RUN, 0);
	c->run->immediate_exit = 0;
}

static void *cpu_main(void *arg)
{
	cpu_run(arg);
	return NULL;
}

static void cpu_start(struct cpu *c, const u8 *entry)
{
	cpu_point(c, entry, 0);
	if (pthread_create(&c->thread, NULL, cpu_main, c))
		errx(1, "no thread");
}

static volatile u32 *word(u32 at)
{
	return (volatile u32 *)(ram + at);
}

/* ---- what is measured: the time that n times took ------------------------------------------ */

struct kind {
	const char *name;
	u64 (*measure)(const struct kind *k, u64 n);
	const u8 *entry, *other;
};

static u64 measure_loop(const struct kind *k, u64 n)
{
	u64 start;

	cpu_point(&cpus[0], k->entry, n);
	start = now();
	cpu_run(&cpus[0]);
	return now() - start;
}

/* A KVM_RUN that does nothing: what the call itself costs. */
static u64 measure_call(const struct kind *k, u64 n)
{
	u64 start;

	(void)k;
	cpus[0].run->immediate_exit = 1;
	start = now();
	for (u64 i = 0; i < n; i++)
		ioctl(cpus[0].fd, KVM_RUN, 0);
	start = now() - start;
	cpus[0].run->immediate_exit = 0;
	return start;
}

/* The other CPU spins or sleeps; each of ours is one interrupt until its handler has counted. */
static u64 measure_ipi(const struct kind *k, u64 n)
{
	u64 took;

	*word(STOP) = 0;
	cpu_start(&cpus[1], k->other);
	took = measure_loop(k, n);
	pthread_join(cpus[1].thread, NULL);
	return took;
}

static u64 interrupt_once(void)
{
	const u64 one = 1;
	u32 seen = *word(COUNTER);
	u64 start = now();

	if (write(irq_fd, &one, 8) != 8)
		err(1, "irqfd");
	while (*word(COUNTER) == seen)
		__builtin_ia32_pause();
	return now() - start;
}

/* From write(2) to the guest's handler. Between two the guest has time to come back to where it waits. */
static u64 measure_irqfd(const struct kind *k, u64 n)
{
	const u64 one = 1;
	u64 took = 0, until;

	*word(STOP) = 0;
	cpu_start(&cpus[0], k->entry);
	interrupt_once();
	for (u64 i = 0; i < n; i++) {
		for (until = now() + 20000; now() < until; )
			__builtin_ia32_pause();
		took += interrupt_once();
	}
	/* One that spins may see that before the interrupt, and takes it in the next round. */
	*word(STOP) = 1;
	if (write(irq_fd, &one, 8) != 8)
		err(1, "irqfd");
	pthread_join(cpus[0].thread, NULL);
	return took;
}

#define GUEST(name) extern const u8 guest_##name[];
GUEST(pio_out_user) GUEST(pio_in_user) GUEST(mmio_write_user) GUEST(mmio_read_user)
GUEST(pio_out_kernel) GUEST(pio_in_kernel) GUEST(mmio_write_kernel) GUEST(mmio_read_kernel) GUEST(mmio_ioapic)
GUEST(ioeventfd_pio) GUEST(ioeventfd_mmio) GUEST(cpuid) GUEST(rdmsr) GUEST(self_ipi) GUEST(ipi) GUEST(spin)
GUEST(sleep)

static const struct kind kinds[] = {
	{ "call", measure_call, NULL, NULL },
	{ "pio-out-user", measure_loop, guest_pio_out_user, NULL },
	{ "pio-in-user", measure_loop, guest_pio_in_user, NULL },
	{ "mmio-write-user", measure_loop, guest_mmio_write_user, NULL },
	{ "mmio-read-user", measure_loop, guest_mmio_read_user, NULL },
	{ "pio-out-pic", measure_loop, guest_pio_out_kernel, NULL },
	{ "pio-in-pic", measure_loop, guest_pio_in_kernel, NULL },
	{ "mmio-write-lapic", measure_loop, guest_mmio_write_kernel, NULL },
	{ "mmio-read-lapic", measure_loop, guest_mmio_read_kernel, NULL },
	{ "mmio-read-ioapic", measure_loop, guest_mmio_ioapic, NULL },
	{ "ioeventfd-pio", measure_loop, guest_ioeventfd_pio, NULL },
	{ "ioeventfd-mmio", measure_loop, guest_ioeventfd_mmio, NULL },
	{ "cpuid", measure_loop, guest_cpuid, NULL },
	{ "rdmsr", measure_loop, guest_rdmsr, NULL },
	{ "self-ipi", measure_loop, guest_self_ipi, NULL },
	{ "ipi", measure_ipi, guest_ipi, guest_spin },
	{ "ipi-halted", measure_ipi, guest_ipi, guest_sleep },
	{ "irqfd", measure_irqfd, guest_spin, NULL },
	{ "irqfd-halted", measure_irqfd, guest_sleep, NULL },
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* How many last about that long. */
static u64 calibrate(const struct kind *k, u64 ns)
{
	u64 n = 10, took;

	k->measure(k, n);
	for (; (took = k->measure(k, n)) < ns / 8; n *= 4)
		;
	n = n * ns / took;
	return n ? n : 1;
}

static void kind_measure(const struct kind *k, int rounds, u64 ns)
{
	double times[MAX_ROUNDS];
	u64 n;

	machine_make();
	n = calibrate(k, ns);
	for (int i = 0; i < rounds; i++)
		times[i] = (double)k->measure(k, n) / (double)n;
	qsort(times, (size_t)rounds, sizeof(times[0]), by_value);
	printf("%s %.1f %.1f\n", k->name, times[0], times[rounds / 2]);
	fflush(stdout);
}

/* In a process with a machine of its own: a KVM that cannot do one kind shall still do the next. */
static void kind_try(const struct kind *k, int rounds, u64 ns)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		alarm(SECONDS_MAX);
		kind_measure(k, rounds, ns);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		err(1, "fork");
	if (status)
		printf("%s failed\n", k->name);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "rounds", required_argument, NULL, 'r' }, { "ms", required_argument, NULL, 'm' },
		{ "only", required_argument, NULL, 'o' }, { "paging", no_argument, NULL, 'p' }, { 0 },
	};
	const char *only = NULL;
	int rounds = 11, ms = 10, c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'r': rounds = atoi(optarg); break;
		case 'm': ms = atoi(optarg); break;
		case 'o': only = optarg; break;
		case 'p': paging = true; break;
		default: return 2;
		}
	}
	if (rounds < 1 || rounds > MAX_ROUNDS || ms < 1)
		errx(2, "--rounds is 1 to %d, --ms at least 1", MAX_ROUNDS);
	for (const struct kind *k = kinds; k < kinds + NR_KINDS; k++)
		if (!only || !strcmp(only, k->name))
			kind_try(k, rounds, (u64)ms * 1000000);
	return 0;
}
