/* A vCPU's thread: see guest_cpu.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"
#include "vmm/cpus/cpu_state.h"
#include "vmm/cpus/guest_cpu.h"

#define KICK_SIGNAL (SIGRTMIN + 3)

/* ---- control --------------------------------------------------------------------------------- */

void cpu_control_init(struct cpu_control *c, pthread_mutex_t *lock)
{
	*c = (struct cpu_control){ .lock = lock };
	pthread_cond_init(&c->changed, NULL);
}

void guest_cpu_kick(struct guest_cpu *cpu)
{
	store_release(&cpu->attention, 1);
	/* The flag catches a thread about to enter KVM_RUN, the signal one that is inside. */
	if (!cpu->started)
		return;
	WRITE_ONCE(cpu->run->immediate_exit, 1);
	pthread_kill(cpu->thread, KICK_SIGNAL);
}

/* KVM_NMI waits for the CPU's KVM_RUN to end, so its own thread does it. */
void guest_cpu_nmi(struct guest_cpu *cpu)
{
	cpu->nmi_due = true;
	guest_cpu_kick(cpu);
}

static void cpu_control_alert(struct cpu_control *c, struct guest_cpu *cpus, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		guest_cpu_kick(&cpus[i]);
	pthread_cond_broadcast(&c->changed);
}

void cpu_control_pause(struct cpu_control *c, struct guest_cpu *cpus, unsigned n)
{
	c->pause = true;
	cpu_control_alert(c, cpus, n);
}

void cpu_control_wait_parked(struct cpu_control *c, unsigned n)
{
	while (c->parked < n)
		pthread_cond_wait(&c->changed, c->lock);
}

void cpu_control_reset(struct cpu_control *c, struct guest_cpu *cpus, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		cpus[i].needs_reset = true;
	c->resets_due = n;
}

void cpu_control_resume(struct cpu_control *c)
{
	c->pause = false;
	pthread_cond_broadcast(&c->changed);
}

void cpu_control_stop(struct cpu_control *c, struct guest_cpu *cpus, unsigned n)
{
	c->stop = true;
	cpu_control_alert(c, cpus, n);
}

/* ---- exits ----------------------------------------------------------------------------------- */

static const char *const exit_names[CPU_EXITS_MAX] = {
	[KVM_EXIT_UNKNOWN] = "unknown",
	[KVM_EXIT_IO] = "io",
	[KVM_EXIT_HYPERCALL] = "hypercall",
	[KVM_EXIT_DEBUG] = "debug",
	[KVM_EXIT_HLT] = "hlt",
	[KVM_EXIT_MMIO] = "mmio",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "irq-window",
	[KVM_EXIT_SHUTDOWN] = "shutdown",
	[KVM_EXIT_FAIL_ENTRY] = "fail-entry",
	[KVM_EXIT_INTR] = "intr",
	[KVM_EXIT_SET_TPR] = "set-tpr",
	[KVM_EXIT_INTERNAL_ERROR] = "internal-error",
	[KVM_EXIT_SYSTEM_EVENT] = "system-event",
	[KVM_EXIT_IOAPIC_EOI] = "ioapic-eoi",
};

const char *guest_cpu_exit_name(unsigned reason)
{
	return reason < CPU_EXITS_MAX ? exit_names[reason] : NULL;
}

void guest_cpu_describe(const struct guest_cpu *cpu, char *buf, size_t size)
{
	struct kvm_regs r = { 0 };
	struct kvm_sregs s = { 0 };

	kvm_ioctl(cpu->kvm, cpu->fd, KVM_GET_REGS, &r);
	kvm_ioctl(cpu->kvm, cpu->fd, KVM_GET_SREGS, &s);
	snprintf(buf, size,
		"cs:rip %#x:%#llx rsp %#llx rflags %#llx cr0 %#llx cr2 %#llx cr3 %#llx cr4 %#llx "
		"efer %#llx idt %#llx+%#x",
		s.cs.selector, r.rip, r.rsp, r.rflags, s.cr0, s.cr2, s.cr3, s.cr4, s.efer,
		s.idt.base, s.idt.limit);
}

static void cpu_fault(struct guest_cpu *cpu, enum cpu_fault fault, const char *what)
{
	char regs[300], text[500];

	guest_cpu_describe(cpu, regs, sizeof(regs));
	snprintf(text, sizeof(text), "CPU %u: %s; %s", cpu->index, what, regs);
	cpu->faulted = true;
	store_release(&cpu->attention, 1);
	cpu->events.fault(cpu->events.arg, fault, text);
}

static void cpu_exit_io(struct guest_cpu *cpu)
{
	struct kvm_run *run = cpu->run;
	u8 *data = (u8 *)run + run->io.data_offset;

	for (u32 i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			io_map_write(cpu->pio, run->io.port, data, run->io.size);
		else
			io_map_read(cpu->pio, run->io.port, data, run->io.size);
	}
}

static void cpu_exit_mmio(struct guest_cpu *cpu)
{
	struct kvm_run *run = cpu->run;

	if (run->mmio.is_write)
		io_map_write(cpu->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		io_map_read(cpu->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

static void cpu_exit_internal_error(struct guest_cpu *cpu)
{
	const struct kvm_run *run = cpu->run;
	char what[200];
	int n = snprintf(what, sizeof(what), "the hypervisor gave up, internal error %u",
		run->internal.suberror);

	for (u32 i = 0; i < run->internal.ndata && i < 4 && n < (int)sizeof(what); i++)
		n += snprintf(what + n, sizeof(what) - n, " %#llx", run->internal.data[i]);
	cpu_fault(cpu, CPU_FAULT_HYPERVISOR, what);
}

static void cpu_exit_fail_entry(struct guest_cpu *cpu)
{
	char what[100];

	snprintf(what, sizeof(what), "the host CPU refuses to enter the guest, reason %#llx",
		 (unsigned long long)cpu->run->fail_entry.hardware_entry_failure_reason);
	cpu_fault(cpu, CPU_FAULT_HYPERVISOR, what);
}

static void cpu_exit_system_event(struct guest_cpu *cpu)
{
	const struct machine_events *m = &cpu->events.machine;

	switch (cpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		m->request(m->arg, MACHINE_POWER_OFF, 0);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		m->request(m->arg, MACHINE_RESET, 0);
		break;
	case KVM_SYSTEM_EVENT_CRASH:
		m->request(m->arg, MACHINE_PANIC, 0);
		break;
	}
}

/* Under the lock. */
static void cpu_exit(struct guest_cpu *cpu)
{
	u32 reason = cpu->run->exit_reason;
	char what[64];

	cpu->exits[MIN(reason, CPU_EXITS_MAX - 1u)]++;
	switch (reason) {
	case KVM_EXIT_IO:
		cpu_exit_io(cpu);
		break;
	case KVM_EXIT_MMIO:
		cpu_exit_mmio(cpu);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
	case KVM_EXIT_IOAPIC_EOI:
		break;
	case KVM_EXIT_SHUTDOWN:
		cpu_fault(cpu, CPU_FAULT_TRIPLE, "triple fault");
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		cpu_exit_system_event(cpu);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		cpu_exit_internal_error(cpu);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		cpu_exit_fail_entry(cpu);
		break;
	default:
		snprintf(what, sizeof(what), "unexpected exit %u from the hypervisor", reason);
		cpu_fault(cpu, CPU_FAULT_HYPERVISOR, what);
	}
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Lets the hypervisor finish the instruction whose access was just served, and serves what else it
 * asks for: state is whole only then. */
static void cpu_complete(struct guest_cpu *cpu)
{
	WRITE_ONCE(cpu->run->immediate_exit, 1);
	while (!cpu->faulted && kvm_ioctl_num(cpu->kvm, cpu->fd, KVM_RUN, 0) == 0)
		cpu_exit(cpu);
}

/* No CPU runs before all have their new state: the first would send INIT and SIPI to the others. */
static void cpu_take_reset(struct guest_cpu *cpu)
{
	struct error err = ERROR_INIT;

	cpu->needs_reset = false;
	if (guest_cpu_reset(cpu, &err) < 0)
		cpu_fault(cpu, CPU_FAULT_HYPERVISOR, err.text);
	cpu->control->resets_due--;
	pthread_cond_broadcast(&cpu->control->changed);
}

static void cpu_park(struct guest_cpu *cpu)
{
	struct cpu_control *c = cpu->control;

	cpu_complete(cpu);
	c->parked++;
	pthread_cond_broadcast(&c->changed);
	while (!c->stop) {
		if (cpu->needs_reset && !c->pause)
			cpu_take_reset(cpu);
		else if (c->pause || c->resets_due || cpu->faulted)
			pthread_cond_wait(&c->changed, c->lock);
		else
			break;
	}
	c->parked--;
}

/* Before each KVM_RUN: false when the thread is to end. */
static bool cpu_checkpoint(struct guest_cpu *cpu)
{
	struct cpu_control *c = cpu->control;
	bool go_on;

	if (likely(!load_acquire(&cpu->attention)))
		return true;
	pthread_mutex_lock(c->lock);
	if (!c->stop && (c->pause || c->resets_due || cpu->faulted))
		cpu_park(cpu);
	if (cpu->nmi_due && !c->stop)
		kvm_ioctl_num(cpu->kvm, cpu->fd, KVM_NMI, 0);
	cpu->nmi_due = false;
	WRITE_ONCE(cpu->run->immediate_exit, 0);
	store_release(&cpu->attention, 0);
	go_on = !c->stop;
	pthread_mutex_unlock(c->lock);
	return go_on;
}

static void cpu_run_failed(struct guest_cpu *cpu, long ret)
{
	char what[100];

	snprintf(what, sizeof(what), "KVM_RUN: %s", strerror(-ret));
	cpu_fault(cpu, CPU_FAULT_HYPERVISOR, what);
}

static u64 thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (u64)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void *cpu_thread(void *arg)
{
	struct guest_cpu *cpu = arg;
	sigset_t set;
	long ret;

	pthread_setname_np(pthread_self(), "qumra-cpu");
	sigemptyset(&set);
	sigaddset(&set, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	WRITE_ONCE(cpu->thread_id, gettid());
	WRITE_ONCE(cpu->first_run_ns, clock_monotonic_ns());
	while (cpu_checkpoint(cpu)) {
		ret = kvm_ioctl_num(cpu->kvm, cpu->fd, KVM_RUN, 0);
		if (ret == -EINTR || ret == -EAGAIN)
			continue;
		pthread_mutex_lock(cpu->control->lock);
		if (ret < 0)
			cpu_run_failed(cpu, ret);
		else
			cpu_exit(cpu);
		pthread_mutex_unlock(cpu->control->lock);
	}
	cpu->cpu_ns = thread_cpu_ns();
	return NULL;
}

static void kick_handler(int sig)
{
	(void)sig;	/* its only purpose is to interrupt KVM_RUN */
}

int guest_cpu_signals_init(struct error *err)
{
	struct sigaction sa = { .sa_handler = kick_handler };

	if (sigaction(KICK_SIGNAL, &sa, NULL) < 0)
		return error_set(err, errno, "cannot set a signal handler: %s", strerror(errno));
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

int guest_cpu_create(struct guest_cpu *cpu, struct error *err)
{
	void *run;
	unsigned id = topology_apic_id(cpu->topology, cpu->index);
	long fd = kvm_ioctl_num(cpu->kvm, cpu->kvm->vm_fd, KVM_CREATE_VCPU, id);
	int ret;

	cpu->fd = fd;
	if (fd < 0)
		return error_set(err, -fd, "cannot create CPU %u: %s", cpu->index, strerror(-fd));
	ret = cpu->kvm->backend->mmap(cpu->fd, cpu->kvm->run_size, &run);
	if (ret < 0)
		return error_set(err, -ret, "cannot map CPU %u: %s", cpu->index, strerror(-ret));
	cpu->run = run;
	ret = cpu_cpuid_set(cpu->kvm, cpu->fd, cpu->topology, cpu->index, err);
	if (ret < 0)
		return ret;
	return cpu_state_get(cpu->kvm, cpu->fd, &cpu->power_on, err);
}

int guest_cpu_reset(struct guest_cpu *cpu, struct error *err)
{
	int ret = cpu_state_set(cpu->kvm, cpu->fd, cpu->power_on, err);

	if (ret < 0)
		return ret;
	if (cpu->boot.mode != BOOT_FIRMWARE)
		cpu_state_set_firmware(cpu->kvm, cpu->fd);
	/* The others wait for INIT and SIPI, as the power-on state has them. */
	if (cpu->index == 0 && cpu->boot.mode != BOOT_FIRMWARE)
		ret = cpu_state_set_boot(cpu->kvm, cpu->fd, &cpu->boot, err);
	if (ret == 0)
		cpu->faulted = false;
	return ret;
}

int guest_cpu_start(struct guest_cpu *cpu, struct error *err)
{
	int ret = pthread_create(&cpu->thread, NULL, cpu_thread, cpu);

	if (ret)
		return error_set(err, ret, "cannot start a CPU's thread: %s", strerror(ret));
	cpu->started = true;
	return 0;
}

void guest_cpu_destroy(struct guest_cpu *cpu)
{
	if (cpu->run)
		munmap(cpu->run, cpu->kvm->run_size);
	if (cpu->fd >= 0 && cpu->kvm)
		cpu->kvm->backend->close(cpu->fd);
	free(cpu->power_on);
	cpu->run = NULL;
	cpu->power_on = NULL;
	cpu->fd = -1;
}
