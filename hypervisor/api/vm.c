/* ioctls of a VM's descriptor. Linux Documentation/virt/kvm/api.rst section 4, rows of type
 * "vm". */
#include "hypervisor/api/api.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/hyperv.h"
#include "hypervisor/x86/system.h"

_Static_assert(sizeof(struct kvm_userspace_memory_region) == 32, "ABI");
_Static_assert(sizeof(struct kvm_irqchip) == 520, "ABI");
_Static_assert(sizeof(struct kvm_pit_state2) == 112, "ABI");

/* ---- memory ------------------------------------------------------------------------------- */

static long vm_set_memory_region(struct call *c)
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = memslot_set(c->vm, c->data);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

static long vm_get_dirty_log(struct call *c)
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = dirty_get(c->vm, c->data);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

static long vm_clear_dirty_log(struct call *c)
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = dirty_clear(c->vm, c->data);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

static long vm_reset_dirty_rings(struct call *c)
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = dirty_ring_reset(c->vm);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

/*
 * How many pages shadow page tables may take. There are none here, so any number is kept to; it is
 * remembered, as on a KVM with nested paging.
 */
#define MMU_PAGES_MIN		64
#define MMU_PAGES_PER_MILLE	20

static long vm_set_nr_mmu_pages(struct call *c)
{
	if ((u32)c->arg < MMU_PAGES_MIN)
		return -EINVAL;
	WRITE_ONCE(c->vm->mmu_pages, (u32)c->arg);
	return 0;
}

static long vm_get_nr_mmu_pages(struct call *c)
{
	u64 pages = 0;
	u32 i;

	if (READ_ONCE(c->vm->mmu_pages))
		return READ_ONCE(c->vm->mmu_pages);
	os_mutex_lock(&c->vm->lock);
	for (i = 0; i < c->vm->slots->n; i++)
		pages += c->vm->slots->slot[i].size >> 12;
	os_mutex_unlock(&c->vm->lock);
	return MAX((u32)(pages * MMU_PAGES_PER_MILLE / 1000), MMU_PAGES_MIN);
}

/* Both name pages that VT-x needs in the guest's memory; nothing of ours lives there. */
static long vm_set_tss_addr(struct call *c)
{
	/* Three pages below 4 GiB. */
	if (c->arg > 0xffffd000)
		return -EINVAL;
	c->vm->tss_addr = c->arg;
	return 0;
}

static long vm_set_identity_map_addr(struct call *c)
{
	const u64 *addr = c->data;
	long ret = -EINVAL;

	os_mutex_lock(&c->vm->lock);
	if (!c->vm->nr_vcpus) {
		c->vm->identity_map_addr = *addr ? *addr : 0xfffbc000;
		ret = 0;
	}
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

/* ---- vCPUs -------------------------------------------------------------------------------- */

static long vm_set_boot_cpu_id(struct call *c)
{
	long ret = -EBUSY;

	os_mutex_lock(&c->vm->lock);
	if (!c->vm->nr_vcpus) {
		c->vm->bsp_id = c->arg;
		ret = 0;
	}
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

/* "kvm-vcpu:" and the id. */
static void vcpu_name(char name[32], u32 id)
{
	static const char prefix[] = "kvm-vcpu:";
	char digits[10];
	size_t n = 0, at = sizeof(prefix) - 1;

	memcpy(name, prefix, sizeof(prefix));
	do {
		digits[n++] = '0' + id % 10;
		id /= 10;
	} while (id);
	while (n)
		name[at++] = digits[--n];
	name[at] = 0;
}

/* The descriptor comes first, as it owns the memory of struct kvm_run. */
static long create_vcpu_locked(struct vm *vm, u32 id)
{
	struct handle *h;
	struct vcpu *v;
	char name[32];
	void *run;
	int fd, ret;

	vcpu_name(name, id);
	fd = handle_open(HANDLE_VCPU, name, vm, vcpu_mmap_bytes(vm), &run, &h);
	if (fd < 0)
		return fd;
	ret = vcpu_create(vm, id, run, &v);
	if (ret) {
		os_fd_unmap(run, vcpu_mmap_bytes(vm));
		handle_close(fd);
		return ret;
	}
	v->fd = fd;
	vcpu_publish(v);
	store_release(&h->vcpu, v);
	return fd;
}

static long vm_create_vcpu(struct call *c)
{
	long ret = -EINVAL;

	os_mutex_lock(&c->vm->lock);
	if (!c->vm->max_vcpu_ids)
		c->vm->max_vcpu_ids = MAX_VCPU_IDS;
	if (c->arg < c->vm->max_vcpu_ids)
		ret = create_vcpu_locked(c->vm, c->arg);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

/* ---- interrupt chips ---------------------------------------------------------------------- */

static long create_irqchip_locked(struct vm *vm)
{
	if (vm->irqchip)
		return -EEXIST;
	/* Their local APICs are made with them. */
	if (vm->nr_vcpus)
		return -EINVAL;
	return irqchip_create(vm);
}

static long vm_create_irqchip(struct call *c)
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = create_irqchip_locked(c->vm);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

static long create_pit(struct vm *vm, const struct kvm_pit_config *cfg)
{
	long ret = -ENOENT;

	os_mutex_lock(&vm->lock);
	vm_stop_vcpus(vm);
	if (vm->irqchip)
		ret = irqchip_create_pit(vm, cfg);
	vm_start_vcpus(vm);
	os_mutex_unlock(&vm->lock);
	return ret;
}

static long vm_create_pit2(struct call *c)
{
	return create_pit(c->vm, c->data);
}

static long vm_create_pit(struct call *c)
{
	struct kvm_pit_config cfg = { .flags = KVM_PIT_SPEAKER_DUMMY };

	return create_pit(c->vm, &cfg);
}

static long vm_get_pit2(struct call *c)
{
	return c->vm->irqchip ? pit_get(c->vm, c->data) : -ENXIO;
}

static long vm_set_pit2(struct call *c)
{
	return c->vm->irqchip ? pit_set(c->vm, c->data) : -ENXIO;
}

/* The old pair: all but the flags, which stay. */
static long vm_get_pit(struct call *c)
{
	struct kvm_pit_state2 ps;
	int ret = c->vm->irqchip ? pit_get(c->vm, &ps) : -ENXIO;

	if (!ret)
		memcpy(c->data, ps.channels, sizeof(struct kvm_pit_state));
	return ret;
}

static long vm_set_pit(struct call *c)
{
	struct kvm_pit_state2 ps;
	int ret = c->vm->irqchip ? pit_get(c->vm, &ps) : -ENXIO;

	if (ret)
		return ret;
	memcpy(ps.channels, c->data, sizeof(ps.channels));
	return pit_set(c->vm, &ps);
}

static long vm_reinject_control(struct call *c)
{
	const struct kvm_reinject_control *control = c->data;

	return c->vm->irqchip ? pit_reinject(c->vm, control->pit_reinject) : -ENXIO;
}

static long vm_irq_line_status(struct call *c)
{
	struct kvm_irq_level *line = c->data;
	int status = 0, ret;

	if (!c->vm->irqchip)
		return -ENXIO;
	vm_user_wrote(c->vm);
	ret = irqchip_line(c->vm, 0, line->irq, line->level != 0, &status);
	line->status = status;
	return ret;
}

static long vm_irq_line(struct call *c)
{
	return vm_irq_line_status(c);
}

static long vm_get_irqchip(struct call *c)
{
	return c->vm->irqchip ? irqchip_get(c->vm, c->data) : -ENXIO;
}

static long vm_set_irqchip(struct call *c)
{
	return c->vm->irqchip ? irqchip_set(c->vm, c->data) : -ENXIO;
}

static long vm_signal_msi(struct call *c)
{
	if (!c->vm->irqchip)
		return -EINVAL;
	vm_user_wrote(c->vm);
	return irqchip_signal_msi(c->vm, c->data);
}

static long vm_set_gsi_routing(struct call *c)
{
	const struct kvm_irq_routing *head = c->data;
	struct kvm_irq_routing_entry *e;
	size_t size = head->nr * sizeof(*e);
	long ret;

	if (!c->vm->irqchip || head->nr > MAX_IRQ_ROUTES || head->flags)
		return -EINVAL;
	e = os_alloc(size);
	if (!e)
		return -ENOMEM;
	ret = os_user_read(e, c->arg + sizeof(*head), size);
	if (!ret)
		ret = irqchip_set_routing(c->vm, e, head->nr);
	os_free(e);
	return ret;
}

/* ---- clock -------------------------------------------------------------------------------- */

static long vm_get_clock(struct call *c)
{
	struct kvm_clock_data *d = c->data;

	d->clock = kvmclock_now(c->vm);
	d->realtime = os_wall_ns();
	d->host_tsc = tsc_host();
	d->flags = CLOCK_FLAGS;
	return 0;
}

static long vm_set_clock(struct call *c)
{
	const struct kvm_clock_data *d = c->data;
	u64 clock = d->clock, wall = os_wall_ns();

	/* Only one counts, but what KVM_GET_CLOCK gave may come back as it is. */
	if (d->flags & ~CLOCK_FLAGS)
		return -EINVAL;
	/* Time that passed since the value was taken, on this machine or on another. */
	if ((d->flags & KVM_CLOCK_REALTIME) && wall > d->realtime)
		clock += wall - d->realtime;
	os_mutex_lock(&c->vm->lock);
	vm_stop_vcpus(c->vm);
	c->vm->clock_offset += clock - kvmclock_now(c->vm);
	hv_clock_changed(c->vm);
	vm_request_all(c->vm, REQ_CLOCK_UPDATE);
	vm_start_vcpus(c->vm);
	os_mutex_unlock(&c->vm->lock);
	return 0;
}

/* ---- the rest ----------------------------------------------------------------------------- */

static long vm_check_extension(struct call *c)
{
	return capability_value(c->arg);
}

static long vm_enable_cap(struct call *c)
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = capability_enable(c->vm, c->data);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

/* Of vCPUs made from now on. */
static long vm_set_tsc_khz(struct call *c)
{
	u32 khz = (u32)c->arg;

	if (khz >= TSC_KHZ_MAX)
		return -EINVAL;
	WRITE_ONCE(c->vm->tsc_khz, khz);
	return 0;
}

static long vm_get_tsc_khz(struct call *c)
{
	u32 khz = READ_ONCE(c->vm->tsc_khz);

	return khz ? khz : os_tsc_khz();
}

static const struct ioctl_row rows[] = {
	ROW(KVM_IRQ_LINE, vm_irq_line),
	ROW(KVM_IRQ_LINE_STATUS, vm_irq_line_status),
	ROW(KVM_SIGNAL_MSI, vm_signal_msi),
	ROW(KVM_CHECK_EXTENSION, vm_check_extension),
	ROW(KVM_CREATE_VCPU, vm_create_vcpu),
	ROW(KVM_GET_DIRTY_LOG, vm_get_dirty_log),
	ROW(KVM_SET_USER_MEMORY_REGION, vm_set_memory_region),
	ROW(KVM_SET_NR_MMU_PAGES, vm_set_nr_mmu_pages),
	ROW(KVM_GET_NR_MMU_PAGES, vm_get_nr_mmu_pages),
	ROW(KVM_SET_TSS_ADDR, vm_set_tss_addr),
	ROW(KVM_SET_IDENTITY_MAP_ADDR, vm_set_identity_map_addr),
	ROW(KVM_CREATE_IRQCHIP, vm_create_irqchip),
	ROW(KVM_GET_IRQCHIP, vm_get_irqchip),
	ROW_DIR(KVM_SET_IRQCHIP, sizeof(struct kvm_irqchip), 0, vm_set_irqchip),
	ROW(KVM_CREATE_PIT, vm_create_pit),
	ROW(KVM_SET_GSI_ROUTING, vm_set_gsi_routing),
	ROW_DIR(KVM_REINJECT_CONTROL, sizeof(struct kvm_reinject_control), 0, vm_reinject_control),
	ROW(KVM_CREATE_PIT2, vm_create_pit2),
	ROW(KVM_SET_BOOT_CPU_ID, vm_set_boot_cpu_id),
	ROW(KVM_SET_CLOCK, vm_set_clock),
	ROW(KVM_GET_CLOCK, vm_get_clock),
	ROW(KVM_GET_PIT, vm_get_pit),
	ROW_DIR(KVM_SET_PIT, sizeof(struct kvm_pit_state), 0, vm_set_pit),
	ROW(KVM_GET_PIT2, vm_get_pit2),
	ROW(KVM_SET_PIT2, vm_set_pit2),
	ROW(KVM_GET_TSC_KHZ, vm_get_tsc_khz),
	ROW(KVM_ENABLE_CAP, vm_enable_cap),
	ROW(KVM_IRQFD, vm_irqfd),
	ROW(KVM_IOEVENTFD, vm_ioeventfd),
	ROW(KVM_REGISTER_COALESCED_MMIO, vm_register_coalesced_mmio),
	ROW(KVM_UNREGISTER_COALESCED_MMIO, vm_unregister_coalesced_mmio),
	ROW(KVM_CREATE_DEVICE, vm_create_device),
	ROW(KVM_X86_SET_MSR_FILTER, vm_set_msr_filter),
	ROW(KVM_SET_PMU_EVENT_FILTER, vm_set_pmu_event_filter),
	ROW(KVM_RESET_DIRTY_RINGS, vm_reset_dirty_rings),
	ROW(KVM_SET_TSC_KHZ, vm_set_tsc_khz),
	ROW(KVM_HYPERV_EVENTFD, vm_hyperv_eventfd),
	ROW(KVM_GET_STATS_FD, vm_get_stats_fd),
	ROW_DIR(KVM_CLEAR_DIRTY_LOG, sizeof(struct kvm_clear_dirty_log), 0, vm_clear_dirty_log),
};

const struct ioctl_class vm_ioctls = { .rows = rows, .n = ARRAY_SIZE(rows), .unknown = -ENOTTY };
