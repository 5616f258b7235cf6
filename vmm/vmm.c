/* Putting a virtual machine together, running it, taking it apart: see vmm.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "lib/log.h"
#include "vmm/control/control.h"
#include "vmm/firmware/boot.h"
#include "vmm/machine/chip_state.h"
#include "vmm/vmm.h"

/* ---- ends and requests (under the lock, any thread) ------------------------------------------ */

/* QEMU's words for it (ShutdownCause), and whether the guest wanted it. */
static const struct end_cause {
	const char *name;
	bool guest;
} end_causes[] = {
	[VMM_POWERED_OFF] = { "guest-shutdown", true },
	[VMM_CRASHED] = { "guest-panic", true }, [VMM_FAILED] = { "host-error", false },
	[VMM_EXITED] = { "guest-shutdown", true }, [VMM_QUIT] = { "host-qmp-quit", false },
	[VMM_SIGNAL] = { "host-signal", false },
};

static void vmm_event_reset(struct vmm *vmm, const char *name)
{
	control_event_cause(vmm->socket, name, vmm->reset_cause,
		strcmp(vmm->reset_cause, "guest-reset") == 0);
}

void vmm_end(struct vmm *vmm, enum vmm_end end, int status, const char *text)
{
	if (vmm->ended)
		return;
	if (end == VMM_REBOOTED)
		vmm_event_reset(vmm, "SHUTDOWN");
	else
		control_event_cause(vmm->socket, "SHUTDOWN", end_causes[end].name, end_causes[end].guest);
	vmm->ended = true;
	vmm->outcome.end = end;
	vmm->outcome.status = status;
	snprintf(vmm->outcome.text, sizeof(vmm->outcome.text), "%s", text);
	cpu_control_pause(&vmm->control, vmm->cpu, vmm->cpus);
	loop_stop(&vmm->loop);
}

void vmm_request_reset(struct vmm *vmm, const char *cause)
{
	vmm->reset_cause = cause;
	if (vmm->config.no_reboot) {
		if (vmm->panicked || vmm->panic_on_console)
			vmm_end(vmm, VMM_CRASHED, 0, "the guest rebooted after a kernel panic");
		else
			vmm_end(vmm, VMM_REBOOTED, 0, "");
		return;
	}
	/* The CPUs stand still from here on; the main thread does the rest. */
	vmm->reset_due = true;
	cpu_control_pause(&vmm->control, vmm->cpu, vmm->cpus);
	loop_wake(&vmm->loop);
}

static void vmm_on_panic(struct vmm *vmm)
{
	if (!vmm->panicked)
		control_event_panic(vmm->socket);
	vmm->panicked = true;
}

static void vmm_on_request(void *arg, enum machine_request what, int status)
{
	struct vmm *vmm = arg;

	switch (what) {
	case MACHINE_POWER_OFF:
		vmm_end(vmm, VMM_POWERED_OFF, 0, "");
		break;
	case MACHINE_RESET:
		vmm_request_reset(vmm, "guest-reset");
		break;
	case MACHINE_PANIC:
		vmm_on_panic(vmm);
		break;
	case MACHINE_EXIT:
		vmm_end(vmm, VMM_EXITED, status, "");
		break;
	}
}

static void vmm_on_fault(void *arg, enum cpu_fault fault, const char *text)
{
	vmm_end(arg, fault == CPU_FAULT_TRIPLE ? VMM_CRASHED : VMM_FAILED, 0, text);
}

static void vmm_on_quit(void *arg)
{
	vmm_end(arg, VMM_QUIT, 0, "");
}

static void vmm_screenshot(void *arg, char *text, size_t size)
{
	struct vmm *vmm = arg;

	screen_screenshot(vmm->screen, text, size);
}

/*
 * Stock initial RAM disks have no pvpanic driver, so a panic's message on the console counts, too:
 * for the exit status of a reboot and for nothing else, as any program can print it. The event is
 * the device's.
 */
static void vmm_on_output(void *arg, const u8 *data, size_t n)
{
	static const char message[] = "Kernel panic - not syncing";
	struct vmm *vmm = arg;

	for (size_t i = 0; i < n; i++) {
		/* The first character comes only once in it, so a mismatch starts over. */
		if (data[i] == message[vmm->panic_seen])
			vmm->panic_seen++;
		else
			vmm->panic_seen = data[i] == message[0];
		if (vmm->panic_seen == sizeof(message) - 1) {
			vmm->panic_on_console = true;
			vmm->panic_seen = 0;
		}
	}
}

/* ---- signals --------------------------------------------------------------------------------- */

/* From a script: a line says that the picture is there. */
static void vmm_on_picture_signal(struct vmm *vmm)
{
	char text[512];

	screen_screenshot(vmm->screen, text, sizeof(text));
	log_line("%s", text);
}

static void vmm_on_signal(void *arg, u32 events)
{
	struct vmm *vmm = arg;
	struct signalfd_siginfo si;

	(void)events;
	while (read(vmm->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCONT)
			terminal_renew(&vmm->serial.terminal);
		else if (si.ssi_signo == SIGUSR1)
			vmm_on_picture_signal(vmm);
		else if (si.ssi_signo == SIGUSR2)
			virtio_board_measure(vmm->virtio);
		else
			vmm_end(vmm, VMM_SIGNAL, si.ssi_signo, "");
	}
}

static int vmm_signals_init(struct vmm *vmm, struct error *err)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT, SIGUSR2 };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	if (vmm->config.screen.screenshot)
		sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	vmm->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (vmm->signal_fd < 0)
		return error_set(err, errno, "signalfd: %s", strerror(errno));
	vmm->signal_watch = loop_add(&vmm->loop, vmm->signal_fd, EPOLLIN, vmm_on_signal, vmm);
	if (vmm->signal_watch < 0)
		return error_set(err, -vmm->signal_watch, "cannot watch for signals");
	return guest_cpu_signals_init(err);
}

/* ---- reset ----------------------------------------------------------------------------------- */

/* What firmware does: tables and kernel into memory. */
static int vmm_load(struct vmm *vmm, struct boot_entry *entry, struct error *err)
{
	const struct image *initrd = vmm->config.initrd ? &vmm->initrd : NULL;
	int ret;

	if (vmm->config.firmware) {
		*entry = (struct boot_entry){ .mode = BOOT_FIRMWARE };
		return 0;
	}
	ret = machine_write_tables(&vmm->config.machine, &vmm->memory, &vmm->config.topology, err);
	if (ret < 0)
		return ret;
	ret = virtio_write_tables(&vmm->config.virtio, &vmm->memory);
	if (ret < 0)
		return error_set(err, -ret, "there is no room for the virtio devices' table");
	return boot_load(&vmm->kernel, initrd, vmm->cmdline, &vmm->memory, entry, err);
}

/* All CPUs are parked. They take the new state on their own threads when they go on. */
static int vmm_reset(struct vmm *vmm, struct error *err)
{
	struct boot_entry entry;
	int ret = chips_set(&vmm->kvm, vmm->chips, err);

	if (ret == 0) {
		vmm->machine.ops->reset(vmm->machine.self);
		virtio_board_reset(vmm->virtio);
		irq_router_renew(&vmm->irqs);
		ret = vmm_load(vmm, &entry, err);
	}
	if (ret < 0)
		return ret;
	vmm->panicked = vmm->panic_on_console = false;
	for (unsigned i = 0; i < vmm->cpus; i++)
		vmm->cpu[i].boot = entry;
	cpu_control_reset(&vmm->control, vmm->cpu, vmm->cpus);
	return 0;
}

static void vmm_on_wake(void *arg)
{
	struct vmm *vmm = arg;
	struct error err = ERROR_INIT;

	if (!vmm->reset_due || vmm->ended)
		return;
	cpu_control_wait_parked(&vmm->control, vmm->cpus);
	/* A fault may have come in while we waited. */
	if (vmm->ended)
		return;
	vmm->reset_due = false;
	if (vmm_reset(vmm, &err) < 0) {
		vmm_end(vmm, VMM_FAILED, 0, err.text);
		return;
	}
	vmm_event_reset(vmm, "RESET");
	if (!vmm->stopped)
		cpu_control_resume(&vmm->control);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int vmm_open_firmware(struct vmm *vmm, struct error *err)
{
	vmm->firmware = calloc(1, sizeof(*vmm->firmware));
	if (!vmm->firmware)
		return error_set(err, ENOMEM, "out of memory");
	return firmware_open(
		vmm->firmware, vmm->config.firmware, vmm->config.firmware_vars, err);
}

static void vmm_close_firmware(struct vmm *vmm)
{
	if (vmm->firmware)
		firmware_close(vmm->firmware);
	free(vmm->firmware);
	vmm->firmware = NULL;
}

static int vmm_open_images(struct vmm *vmm, struct error *err)
{
	const struct vmm_config *c = &vmm->config;
	int ret = c->kernel ? image_open(&vmm->kernel, c->kernel, err) : 0;

	if (ret == 0 && c->firmware)
		ret = vmm_open_firmware(vmm, err);
	if (ret == 0 && vmm->config.initrd)
		ret = image_open(&vmm->initrd, vmm->config.initrd, err);
	return ret;
}

static int vmm_map_firmware(struct vmm *vmm, struct error *err)
{
	const struct vmm_config *c = &vmm->config;
	const struct firmware_config config = {
		.memory = &vmm->memory,
		.machine = &c->machine,
		.cpus = &c->topology,
		.kernel = c->kernel ? &vmm->kernel : NULL,
		.initrd = c->initrd ? &vmm->initrd : NULL,
		.cmdline = c->cmdline,
		.serial_console = true,
		.screen = screen_has_vga(&c->screen),
	};

	return c->firmware ? firmware_map(vmm->firmware, &vmm->kvm, &config, err) : 0;
}

static int vmm_create_machine(struct vmm *vmm, struct error *err)
{
	const struct vmm_config *c = &vmm->config;
	int ret;

	if ((ret = kvm_open(&vmm->kvm, c->backend, err)) < 0 ||
	    (ret = kvm_create_vm(&vmm->kvm, err)) < 0 ||
	    (ret = guest_memory_register(&vmm->memory, &vmm->kvm, c->firmware, err)) < 0 ||
	    (ret = vmm_map_firmware(vmm, err)) < 0)
		return ret;
	return chips_create(&vmm->kvm, err);
}

/* It cannot fail for a VM that has an i8254. */
static void vmm_set_pit(void *arg, bool on)
{
	struct vmm *vmm = arg;

	chips_set_pit_line(&vmm->kvm, on);
}

static struct board_config vmm_board_config(struct vmm *vmm)
{
	return (struct board_config){
		.serial = &vmm->serial,
		.timers = &vmm->loop.timers,
		.memory = &vmm->memory,
		.events = {.request = vmm_on_request, .arg = vmm},
		.set_irq = irq_router_set_line,
		.irq_arg = &vmm->irqs,
		.msi = &irq_router_msi_ops,
		.msi_arg = &vmm->irqs,
		.debug_exit = vmm->config.debug_exit,
	};
}

static int vmm_create_pc(struct vmm *vmm, struct error *err)
{
	const struct pc_config config = {
		.board = vmm_board_config(vmm),
		.set_pam = vmm->firmware ? shadow_set_pam : NULL,
		.pam_arg = vmm->firmware ? &vmm->firmware->shadow : NULL,
		.input = screen_wanted(&vmm->config.screen) ? &vmm->input : NULL,
		.vmgenid = &vmm->config.machine.vmgenid,
		.root_ports = vmm->config.machine.root_ports,
		.hpet = vmm->config.machine.hpet,
		.set_pit = vmm_set_pit,
		.pit_arg = vmm,
		.firmware_log = !vmm->config.firmware || vmm->config.firmware_log,
	};
	int ret = pc_init(&vmm->pc, &config);

	if (ret < 0)
		return error_set(err, -ret, "the machine's I/O map is inconsistent");
	return vmm->config.firmware ? firmware_attach(vmm->firmware, &vmm->pc, err) : 0;
}

static int vmm_create_microvm(struct vmm *vmm, struct error *err)
{
	const struct microvm_config config = {
		.board = vmm_board_config(vmm),
		.options = &vmm->config.machine,
	};
	int ret = microvm_init(&vmm->microvm, &config);

	return ret < 0 ? error_set(err, -ret, "the machine's I/O map is inconsistent") : 0;
}

static int vmm_create_devices(struct vmm *vmm, struct error *err)
{
	const struct chardev_events events = {
		.quit = vmm_on_quit, .output = vmm_on_output, .screenshot = vmm_screenshot,
		.arg = vmm};
	int ret;

	irq_router_init(&vmm->irqs, &vmm->kvm);
	ret = chardev_open(&vmm->serial, "--serial ", vmm->config.serial, &vmm->loop, &events, err);
	if (ret < 0)
		return ret;
	return vmm->config.machine.kind == MACHINE_MICROVM ? vmm_create_microvm(vmm, err)
							   : vmm_create_pc(vmm, err);
}

static int vmm_set_boot_order(struct vmm *vmm, struct error *err)
{
	struct boot_order order = { 0 };

	virtio_board_boot_order(vmm->virtio, &order);
	return vmm->firmware ? firmware_set_boot_order(vmm->firmware, &order, err) : 0;
}

static void vmm_attach_screen(struct vmm *vmm)
{
	if (!vmm->screen)
		return;
	pthread_mutex_lock(&vmm->lock);
	virtio_board_attach_screen(vmm->virtio, screen_display(vmm->screen), &vmm->input);
	pthread_mutex_unlock(&vmm->lock);
}

static int vmm_create_virtio(struct vmm *vmm, struct error *err)
{
	const struct virtio_env env = {
		.kvm = &vmm->kvm, .mem = &vmm->memory, .machine = &vmm->machine, .loop = &vmm->loop,
		.cpus = topology_cpus(&vmm->config.topology), .firmware = vmm->firmware };
	int ret = virtio_board_create(&vmm->virtio, &vmm->config.virtio, &env, err);

	if (ret < 0)
		return ret;
	vmm_attach_screen(vmm);
	return vmm_set_boot_order(vmm, err);
}

static int vmm_create_screen(struct vmm *vmm, struct error *err)
{
	const struct screen_env env = {
		.kvm = &vmm->kvm, .pc = &vmm->pc, .timers = &vmm->loop.timers, .lock = &vmm->lock,
		.input = &vmm->input, .bios = vmm->firmware && !vmm->firmware->vars };

	return screen_create(&vmm->screen, &vmm->config.screen, &env, err);
}

static int vmm_create_cpu(struct vmm *vmm, unsigned index, struct error *err)
{
	struct guest_cpu *cpu = &vmm->cpu[index];

	*cpu = (struct guest_cpu){
		.kvm = &vmm->kvm,
		.index = index,
		.topology = &vmm->config.topology,
		.fd = -1,
		.control = &vmm->control,
		.pio = vmm->machine.pio,
		.mmio = vmm->machine.mmio,
		.events = {.machine = {.request = vmm_on_request, .arg = vmm},
			.fault = vmm_on_fault,
			.arg = vmm},
	};
	vmm->cpus = index + 1;
	return guest_cpu_create(cpu, err);
}

static int vmm_create_hypervisor_side(struct vmm *vmm, struct error *err)
{
	int ret = vmm_create_machine(vmm, err);

	for (unsigned i = 0; i < topology_cpus(&vmm->config.topology) && ret == 0; i++)
		ret = vmm_create_cpu(vmm, i, err);
	if (ret == 0)
		ret = chips_get(&vmm->kvm, &vmm->chips, err);
	if (ret < 0 || vmm->config.machine.kind != MACHINE_MICROVM)
		return ret;
	/* Linux does not look at them on hardware-reduced ACPI, and they begin with everything open. */
	chips_mask_pics(vmm->chips);
	return chips_set(&vmm->kvm, vmm->chips, err);
}

/* The first load runs beside the making of the VM: each takes some milliseconds. */
struct vmm_loader {
	struct vmm *vmm;
	pthread_t thread;
	struct boot_entry entry;
	struct error err;
	int ret;
};

static void *vmm_loader_run(void *arg)
{
	struct vmm_loader *l = arg;

	l->ret = vmm_load(l->vmm, &l->entry, &l->err);
	return NULL;
}

static int vmm_create_and_load(struct vmm *vmm, struct boot_entry *entry, struct error *err)
{
	struct vmm_loader l = { .vmm = vmm };
	int ret = pthread_create(&l.thread, NULL, vmm_loader_run, &l);

	if (ret)
		return error_set(err, ret, "cannot start a thread: %s", strerror(ret));
	ret = vmm_create_hypervisor_side(vmm, err);
	pthread_join(l.thread, NULL);
	if (ret == 0 && l.ret < 0)
		*err = l.err;
	*entry = l.entry;
	return ret < 0 ? ret : l.ret;
}

static int vmm_create_memory(struct vmm *vmm, struct error *err)
{
	const struct vmm_config *c = &vmm->config;
	struct memory_backing b = { 0 };

	if (c->backing)
		b = *c->backing;
	if (virtio_options_shared(&c->virtio)) {
		if (b.file && !b.share)
			return error_usage(err, "--memory: vhost-user devices need share=on with a file");
		b.share = true;
	}
	return guest_memory_create(&vmm->memory, c->memory, &b, err);
}

static int vmm_create_all(struct vmm *vmm, struct error *err)
{
	struct boot_entry entry;
	int ret;

	if ((ret = loop_init(&vmm->loop, &vmm->lock, err)) < 0 ||
		(ret = vmm_signals_init(vmm, err)) < 0 || (ret = vmm_open_images(vmm, err)) < 0 ||
		(ret = vmm_create_memory(vmm, err)) < 0 ||
		(ret = vmm_create_and_load(vmm, &entry, err)) < 0)
		return ret;
	for (unsigned i = 0; i < vmm->cpus; i++) {
		vmm->cpu[i].boot = entry;
		if ((ret = guest_cpu_reset(&vmm->cpu[i], err)) < 0)
			return ret;
	}
	/* Last: it may change the terminal. */
	ret = vmm_create_devices(vmm, err);
	if (ret == 0)
		ret = vmm_create_screen(vmm, err);
	if (ret == 0)
		ret = vmm_create_virtio(vmm, err);
	return ret < 0 ? ret : control_create(&vmm->socket, vmm->config.control, vmm, err);
}

int vmm_create(struct vmm *vmm, const struct vmm_config *config, struct error *err)
{
	int ret;

	*vmm = (struct vmm){ .config = *config, .signal_fd = -1, .signal_watch = -1 };
	vmm->machine = config->machine.kind == MACHINE_MICROVM ? microvm_machine(&vmm->microvm)
							       : pc_machine(&vmm->pc);
	vmm->kernel.fd = vmm->initrd.fd = -1;
	vmm->kvm.fd = vmm->kvm.vm_fd = -1;
	pthread_mutex_init(&vmm->lock, NULL);
	cpu_control_init(&vmm->control, &vmm->lock);
	vmm->cmdline = virtio_kernel_cmdline(&config->virtio, config->cmdline);
	if (!vmm->cmdline)
		return error_set(err, ENOMEM, "out of memory");
	ret = vmm_create_all(vmm, err);
	if (ret < 0)
		vmm_destroy(vmm);
	return ret;
}

/* Joins the CPU threads; one that does not come back in time is left behind. */
static bool vmm_stop_cpus(struct vmm *vmm)
{
	struct timespec until;
	bool all = true;

	pthread_mutex_lock(&vmm->lock);
	cpu_control_stop(&vmm->control, vmm->cpu, vmm->cpus);
	pthread_mutex_unlock(&vmm->lock);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 2;
	for (unsigned i = 0; i < vmm->cpus; i++) {
		if (!vmm->cpu[i].started)
			continue;
		if (pthread_timedjoin_np(vmm->cpu[i].thread, NULL, &until) != 0)
			all = false;
		else
			vmm->cpu[i].started = false;
	}
	return all;
}

int vmm_run(struct vmm *vmm, struct error *err)
{
	int ret = 0;

	for (unsigned i = 0; i < vmm->cpus && ret == 0; i++)
		ret = guest_cpu_start(&vmm->cpu[i], err);
	if (ret == 0)
		ret = loop_run(&vmm->loop, vmm_on_wake, vmm, err);
	vmm_stop_cpus(vmm);
	pthread_mutex_lock(&vmm->lock);
	screen_finish(vmm->screen);
	vmm->machine.ops->flush(vmm->machine.self);
	chardev_flush(&vmm->serial, 2000);
	pthread_mutex_unlock(&vmm->lock);
	return ret;
}

bool vmm_destroy(struct vmm *vmm)
{
	bool running = !vmm_stop_cpus(vmm);

	/* Always: it gives the terminal back. */
	chardev_destroy(&vmm->serial);
	if (running)
		return false;
	for (unsigned i = 0; i < vmm->cpus; i++)
		guest_cpu_destroy(&vmm->cpu[i]);
	control_destroy(vmm->socket);
	vmm->socket = NULL;
	screen_destroy(vmm->screen);
	vmm->screen = NULL;
	/* Before the hypervisor that its eventfds are wired to. */
	virtio_board_destroy(vmm->virtio);
	vmm->virtio = NULL;
	kvm_close(&vmm->kvm);
	guest_memory_destroy(&vmm->memory);
	irq_router_destroy(&vmm->irqs);
	vmm_close_firmware(vmm);
	vmm->machine.ops->destroy(vmm->machine.self);
	image_close(&vmm->kernel);
	image_close(&vmm->initrd);
	if (vmm->signal_fd >= 0)
		close(vmm->signal_fd);
	loop_destroy(&vmm->loop);
	free(vmm->chips);
	free(vmm->cmdline);
	vmm->chips = NULL;
	vmm->cmdline = NULL;
	return true;
}
