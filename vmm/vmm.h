/*
 * One virtual machine: hypervisor, memory, CPUs, devices and event loop put together. A process may
 * hold several.
 */
#ifndef QUMRA_VMM_VMM_H
#define QUMRA_VMM_VMM_H

#include <pthread.h>

#include "vmm/chardev/chardev.h"
#include "vmm/cpus/guest_cpu.h"
#include "vmm/display/screen.h"
#include "vmm/firmware/firmware.h"
#include "vmm/firmware/image.h"
#include "vmm/kvm/accel.h"
#include "vmm/loop/loop.h"
#include "vmm/machine/irq_router.h"
#include "vmm/machine/microvm.h"
#include "vmm/machine/pc.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/virtio/board.h"

struct control;

struct vmm_config {
	const struct kvm_backend *backend;
	const char *firmware;	/* NULL: the kernel is loaded directly */
	const char *firmware_vars;	/* file of UEFI's variables, or NULL */
	const char *kernel;	/* may be NULL with firmware */
	const char *initrd;	/* NULL: none */
	const char *cmdline;
	const char *serial;	/* as chardev_open() takes it */
	u64 memory;
	const struct memory_backing *backing;	/* NULL: the default */
	struct cpu_topology topology;
	struct machine_options machine;
	bool no_reboot, debug_exit;
	bool firmware_log;	/* what firmware says on its debug port goes to standard error */
	struct virtio_options virtio;
	struct screen_options screen;
	const char *control;	/* path of the control socket, or NULL */
};

/* How it ended. */
enum vmm_end {
	VMM_POWERED_OFF,
	VMM_REBOOTED,	/* under no_reboot */
	VMM_CRASHED,	/* triple fault, or a reboot after a panic */
	VMM_FAILED,	/* not the guest's doing */
	VMM_EXITED,	/* debug exit: status says */
	VMM_QUIT,	/* the person left */
	VMM_SIGNAL,	/* status is the signal */
};

struct vmm_outcome {
	enum vmm_end end;
	int status;
	char text[512];	/* a line for the person, or empty */
};

struct vmm {
	struct vmm_config config;
	pthread_mutex_t lock;	/* the machine's: devices, chardevs, loop, control */
	struct kvm kvm;
	struct guest_memory memory;
	struct image kernel, initrd;
	struct chardev serial;
	struct loop loop;
	struct irq_router irqs;
	struct firmware *firmware;	/* NULL without one */
	union {
		struct pc pc;
		struct microvm microvm;
	};
	struct machine machine;	/* whichever of the two it is */
	struct virtio_board *virtio;
	struct input input;
	struct screen *screen;	/* NULL without one */
	char *cmdline;		/* the kernel's: config's and what devices add */
	struct cpu_control control;
	struct guest_cpu cpu[CPUS_MAX];
	unsigned cpus;		/* created */
	struct chip_state *chips; /* interrupt controllers and i8254 as they were at power-on */
	int signal_fd, signal_watch;
	/* Since the last reset: the guest told pvpanic; its console showed a panic's message. */
	bool panicked, panic_on_console;
	unsigned panic_seen;	/* characters of the panic message seen in a row on the console */
	bool reset_due;
	const char *reset_cause;	/* QEMU's ShutdownCause of the next reset */
	bool stopped;		/* by vmm_stop() */
	struct control *socket;	/* NULL without one */
	bool ended;
	struct vmm_outcome outcome;
};

/*
 * Blocks the signals that end a VM in the calling thread, for a signalfd. On failure everything is
 * undone but for that. The vmm must not move afterwards.
 */
int vmm_create(struct vmm *vmm, const struct vmm_config *config, struct error *err);
/* Runs until the end, which vmm->outcome tells. */
int vmm_run(struct vmm *vmm, struct error *err);
/*
 * What a person wants of it while it runs: under the lock, in the loop's thread. vmm_stop() returns when CPUs
 * and devices stand still.
 */
void vmm_quit(struct vmm *vmm);
void vmm_stop(struct vmm *vmm);
void vmm_cont(struct vmm *vmm);
void vmm_press_power(struct vmm *vmm);
void vmm_inject_nmi(struct vmm *vmm);
/* "running", "paused", "shutdown", as QEMU has it. */
const char *vmm_state_name(const struct vmm *vmm);

/* Under the lock, any thread. cause: QEMU's ShutdownCause. */
void vmm_end(struct vmm *vmm, enum vmm_end end, int status, const char *text);
void vmm_request_reset(struct vmm *vmm, const char *cause);

/* False: a CPU is stuck inside the hypervisor. *vmm must stay what it is until the program ends. */
bool vmm_destroy(struct vmm *vmm);

#endif
