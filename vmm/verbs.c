/* What a person wants of a machine that runs: see vmm.h. */
#include "vmm/control/control.h"
#include "vmm/vmm.h"

void vmm_quit(struct vmm *vmm)
{
	vmm_end(vmm, VMM_QUIT, 0, "");
}

static void devices_each(struct vmm *vmm, bool pause)
{
	struct device dev;

	for (unsigned i = 0; virtio_board_device(vmm->virtio, i, &dev); i++)
		if (dev.ops && pause)
			dev.ops->pause(dev.self);
		else if (dev.ops)
			dev.ops->resume(dev.self);
}

void vmm_stop(struct vmm *vmm)
{
	if (vmm->stopped || vmm->ended)
		return;
	vmm->stopped = true;
	cpu_control_pause(&vmm->control, vmm->cpu, vmm->cpus);
	cpu_control_wait_parked(&vmm->control, vmm->cpus);
	/* The guest's watchdogs are told that time went by without it. (-EINVAL: it has no such clock.) */
	for (unsigned i = 0; i < vmm->cpus; i++)
		kvm_ioctl_num(&vmm->kvm, vmm->cpu[i].fd, KVM_KVMCLOCK_CTRL, 0);
	vmm->machine.ops->pause(vmm->machine.self);
	devices_each(vmm, true);
	control_event(vmm->socket, "STOP");
}

void vmm_cont(struct vmm *vmm)
{
	if (!vmm->stopped || vmm->ended)
		return;
	vmm->stopped = false;
	vmm->machine.ops->resume(vmm->machine.self);
	devices_each(vmm, false);
	/* A reset that is due goes on by itself. */
	if (!vmm->reset_due)
		cpu_control_resume(&vmm->control);
	control_event(vmm->socket, "RESUME");
}

void vmm_press_power(struct vmm *vmm)
{
	if (vmm->config.machine.kind == MACHINE_MICROVM)
		ged_power_button(&vmm->microvm.ged);
	else
		acpi_pm_power_button(&vmm->pc.pm);
	control_event(vmm->socket, "POWERDOWN");
}

void vmm_inject_nmi(struct vmm *vmm)
{
	for (unsigned i = 0; i < vmm->cpus; i++)
		guest_cpu_nmi(&vmm->cpu[i]);
}

const char *vmm_state_name(const struct vmm *vmm)
{
	return vmm->ended ? "shutdown" : vmm->stopped ? "paused" : "running";
}
