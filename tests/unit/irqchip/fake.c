#include "fake.h"

#include <errno.h>

#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/system.h"

u64 fake_now;
unsigned int fake_arms;

/* ---- the seam -------------------------------------------------------------------------------- */

void *os_alloc(size_t size)
{
	return calloc(1, size);
}

void os_free(void *p)
{
	free(p);
}

/* Leaf locks: taking one twice is an error of ours. */
void os_mutex_init(struct os_mutex *m)
{
	m->state = 0;
}

void os_mutex_destroy(struct os_mutex *m)
{
	assert_int_equal(m->state, 0);
}

void os_mutex_lock(struct os_mutex *m)
{
	assert_int_equal(m->state, 0);
	m->state = 1;
}

void os_mutex_unlock(struct os_mutex *m)
{
	assert_int_equal(m->state, 1);
	m->state = 0;
}

u64 os_clock_ns(void)
{
	return fake_now;
}

/* ---- timers ---------------------------------------------------------------------------------- */

struct fake_timer {
	void (*fn)(void *arg);
	void *arg;
	u64 deadline;
	u64 armed;
};

static struct os_timer *timers[16];

static struct fake_timer *fake_timer(struct os_timer *t)
{
	return (struct fake_timer *)t->opaque;
}

void os_timer_init(struct os_timer *t, void (*fn)(void *arg), void *arg)
{
	*fake_timer(t) = (struct fake_timer){ .fn = fn, .arg = arg };
	for (unsigned int i = 0; i < ARRAY_SIZE(timers); i++)
		if (!timers[i]) {
			timers[i] = t;
			return;
		}
	fail_msg("too many timers");
}

void os_timer_arm(struct os_timer *t, u64 deadline_ns)
{
	fake_timer(t)->deadline = deadline_ns;
	fake_timer(t)->armed = 1;
	fake_arms++;
}

void os_timer_cancel(struct os_timer *t)
{
	fake_timer(t)->armed = 0;
}

void os_timer_destroy(struct os_timer *t)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(timers); i++)
		if (timers[i] == t)
			timers[i] = NULL;
}

static struct fake_timer *timer_next(u64 until)
{
	struct fake_timer *best = NULL;

	for (unsigned int i = 0; i < ARRAY_SIZE(timers); i++) {
		struct fake_timer *t = timers[i] ? fake_timer(timers[i]) : NULL;

		if (t && t->armed && t->deadline <= until &&
			(!best || t->deadline < best->deadline))
			best = t;
	}
	return best;
}

bool fake_armed(u64 deadline)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(timers); i++)
		if (timers[i] && fake_timer(timers[i])->armed &&
			fake_timer(timers[i])->deadline == deadline)
			return true;
	return false;
}

void fake_advance(struct machine *m, u64 ns)
{
	u64 until = fake_now + ns;
	struct fake_timer *t;

	while ((t = timer_next(until))) {
		fake_now = MAX(fake_now, t->deadline);
		t->armed = 0;
		t->fn(t->arg);
		fake_serve(m);
	}
	fake_now = until;
}

/* ---- eventfds: no test has one ------------------------------------------------------------- */

int os_eventfd_get(int fd, struct os_eventfd **e)
{
	return -EBADF;
}

void os_eventfd_put(struct os_eventfd *e)
{
}

void os_eventfd_signal(const struct os_eventfd *e)
{
}

/* ---- guest memory: none ------------------------------------------------------------------------ */

__attribute__((weak)) int vm_read_guest(struct vm *vm, u64 gpa, void *buf, size_t n)
{
	return -EFAULT;
}

__attribute__((weak)) int vm_write_guest(struct vm *vm, u64 gpa, const void *buf, size_t n)
{
	return -EFAULT;
}

/* ---- vCPUs ----------------------------------------------------------------------------------- */

void vcpu_request(struct vcpu *v, int req)
{
	v->requests |= BIT(req);
}

void fake_serve(struct machine *m)
{
	for (unsigned int i = 0; i < m->vm.nr_vcpus; i++) {
		struct vcpu *v = m->cpu[i];
		u32 requests = v->requests;

		v->requests = 0;
		if (requests & BIT(REQ_APIC_TIMER))
			lapic_timer_expired(v);
		if (requests & BIT(REQ_EVENT))
			lapic_accept_events(v);
	}
}

u64 tsc_read(struct vcpu *v)
{
	return fake_now * FAKE_TSC_PER_NS + v->tsc_offset;
}

u64 tsc_deadline_ns(struct vcpu *v, u64 tsc)
{
	return (tsc - v->tsc_offset + FAKE_TSC_PER_NS - 1) / FAKE_TSC_PER_NS;
}

void event_nmi(struct vcpu *v, u32 n)
{
	v->nmi_pending = (u8)MIN(v->nmi_pending + n, 2u);
}

void vcpu_reset(struct vcpu *v, bool init)
{
	struct machine *m = container_of(v->vm, struct machine, vm);

	m->resets += !init;
	m->inits += init;
	lapic_reset(v, init);
}

void segment_set_real(struct vcpu *v, enum segreg s, u16 sel)
{
	v->seg[s].sel = sel;
	v->seg[s].base = (u64)sel << 4;
}

void vcpu_update_mode(struct vcpu *v)
{
}

void cpuid_update(struct vcpu *v)
{
}

void fpu_save(struct vcpu *v)
{
	v->fpu_live = false;
}

void vm_stop_vcpus(struct vm *vm)
{
}

void vm_start_vcpus(struct vm *vm)
{
}

/* ---- the machine ----------------------------------------------------------------------------- */

struct machine *machine_new(unsigned int n)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };

	fake_now = 1000000000;
	assert_int_equal(irqchip_create(&m->vm), 0);
	assert_int_equal(irqchip_create_pit(&m->vm, &pit), 0);
	for (unsigned int i = 0; i < n; i++) {
		struct vcpu *v = calloc(1, sizeof(*v));

		v->vm = &m->vm;
		v->id = v->index = i;
		v->mmu.maxphyaddr_mask = ~MASK(39, 0);
		v->guest_features[F_X2APIC >> 6] |= BIT(F_X2APIC & 63);
		v->guest_features[F_TSCDEADLINE >> 6] |= BIT(F_TSCDEADLINE & 63);
		v->mp_state = i ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE;
		assert_int_equal(lapic_create(v), 0);
		m->cpu[i] = m->vm.vcpus[i] = v;
		m->vm.nr_vcpus = i + 1;
		apic_enable(v);
	}
	return m;
}

void machine_free(struct machine *m)
{
	irqchip_destroy(&m->vm);
	assert_null(m->vm.bus[BUS_PIO]);
	assert_null(m->vm.bus[BUS_MMIO]);
	for (unsigned int i = 0; i < m->vm.nr_vcpus; i++) {
		lapic_destroy(m->cpu[i]);
		free(m->cpu[i]);
	}
	free(m);
}

int machine_setup(void **state)
{
	*state = machine_new(1);
	return 0;
}

int machine_setup_smp(void **state)
{
	*state = machine_new(4);
	return 0;
}

int machine_teardown(void **state)
{
	machine_free(*state);
	return 0;
}

u8 in8(struct machine *m, u16 port)
{
	u8 val = 0;

	assert_int_equal(bus_read(m->cpu[0], BUS_PIO, port, 1, &val), 0);
	return val;
}

void out8(struct machine *m, u16 port, u8 val)
{
	assert_int_equal(bus_write(m->cpu[0], BUS_PIO, port, 1, &val), 0);
}

u32 io_read(struct machine *m, u8 reg)
{
	u32 select = reg, val = 0;

	assert_int_equal(bus_write(m->cpu[0], BUS_MMIO, IOAPIC_BASE, 4, &select), 0);
	assert_int_equal(bus_read(m->cpu[0], BUS_MMIO, IOAPIC_BASE + 0x10, 4, &val), 0);
	return val;
}

void io_write(struct machine *m, u8 reg, u32 val)
{
	u32 select = reg;

	assert_int_equal(bus_write(m->cpu[0], BUS_MMIO, IOAPIC_BASE, 4, &select), 0);
	assert_int_equal(bus_write(m->cpu[0], BUS_MMIO, IOAPIC_BASE + 0x10, 4, &val), 0);
}

void io_entry(struct machine *m, unsigned int pin, u64 entry)
{
	io_write(m, (u8)(0x11 + 2 * pin), (u32)(entry >> 32));
	io_write(m, (u8)(0x10 + 2 * pin), (u32)entry);
}

u32 apic_read(struct vcpu *v, unsigned int nr)
{
	u32 val = 0;

	lapic_mmio_read(v, nr << 4, 4, &val);
	return val;
}

void apic_write(struct vcpu *v, unsigned int nr, u32 val)
{
	lapic_mmio_write(v, nr << 4, 4, &val);
}

void apic_enable(struct vcpu *v)
{
	apic_write(v, LR_SVR, 0x1ff);
	apic_write(v, LR_LVT_LINT0, LVT_MASKED);
}

int line(struct machine *m, u32 gsi, int level)
{
	int delivered = -2;

	assert_int_equal(irqchip_line(&m->vm, IRQ_SOURCE_USER, gsi, level, &delivered), 0);
	return delivered;
}

int take(struct vcpu *v)
{
	bool there = irqchip_has_interrupt(v);
	int vector = irqchip_ack_interrupt(v);

	assert_int_equal(there, vector >= 0);
	return vector;
}
