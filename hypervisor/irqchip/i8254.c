/*
 * The 8254 programmable interval timer and port 61h. Intel 82C54 data sheet (231244),
 * 82371AB 4.2.6.
 *
 * A counter is not stepped: what it reads and drives is computed from the time since it was
 * started. Channel 0's rising output is IRQ 0, made by an alarm. When the guest is late, ticks are
 * kept and delivered one for each acknowledgement, as KVM does (KVM_REINJECT_CONTROL turns that
 * off). A new count starts at once, also in modes 2 and 3, where the chip would end its period
 * first.
 */
#include "hypervisor/irqchip/chips.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/muldiv.h"

#define PIT_HZ		1193182u
#define NS_PER_SEC	1000000000u
#define PIT_PORT	0x40
#define PIT_CONTROL	3
#define PORT_61		0x61
#define PORT_61_GATE2	BIT(0)
#define PORT_61_SPEAKER	BIT(1)
#define PORT_61_OUT2	BIT(5)

#define PIT_MIN_TICKS	239u	/* 200 us, KVM's min_timer_period_us: periodic modes of channel 0 */
#define PIT_MAX_BACKLOG	1000u	/* ticks kept for a guest that is late */

/* Read/write modes of the control word. 82C54 figure 7 */
enum { PIT_LATCH, PIT_LSB, PIT_MSB, PIT_WORD, PIT_WORD_HIGH };

#define PIT_MODE_BLANK	0xFF	/* in saved state */

struct pit_channel {
	u32 count;		/* initial count, 1 to 10000h (BCD: 10000) */
	u8 mode;		/* 0 to 5 */
	u8 access;		/* PIT_LSB, PIT_MSB, PIT_WORD */
	bool bcd, gate;
	bool loaded;		/* a count came since the mode was set */
	bool blank;		/* no control word yet: KVM's mode FFh */
	bool triggered;		/* modes 1 and 5: the gate has risen since */
	bool running;		/* counting since `start`; else stopped after `held` ticks */
	u64 start;		/* ns */
	u64 held;
	u8 read_next, write_next;	/* PIT_LSB, PIT_MSB, PIT_WORD (low byte), PIT_WORD_HIGH */
	u8 write_low;
	u16 latched;
	u8 latch;		/* what to read of `latched`, as read_next; PIT_LATCH: nothing */
	bool status_latched;
	u8 status;
};

struct pit {
	struct io_device ports, speaker;
	struct irqchip *ic;
	struct pit_channel ch[3];
	bool speaker_on;
	u32 flags;		/* KVM_PIT_FLAGS_HPET_LEGACY: channel 0 is off */
	struct os_timer timer;
	u64 deadline;		/* 0: channel 0 makes no interrupt */
	u64 fired;		/* its rising edges since `start` */
	bool reinject, acked;
	u32 pending;		/* ticks not acknowledged */
};

/* ---- counting -------------------------------------------------------------------------------- */

static u64 ns_to_ticks(u64 ns)
{
	return mul_div(ns, PIT_HZ, NS_PER_SEC);
}

/* Rounded up: the tick is over then. */
static u64 ticks_to_ns(u64 ticks)
{
	return mul_div_up(ticks, NS_PER_SEC, PIT_HZ);
}

/* Ticks counted since the start. */
static u64 channel_ticks(const struct pit_channel *c)
{
	u64 now;

	if (!c->running)
		return c->held;
	now = os_clock_ns();
	return c->held + (now > c->start ? ns_to_ticks(now - c->start) : 0);
}

static void channel_pause(struct pit_channel *c)
{
	c->held = channel_ticks(c);
	c->running = false;
}

static void channel_resume(struct pit_channel *c)
{
	c->start = os_clock_ns();
	c->running = true;
}

static void channel_restart(struct pit_channel *c)
{
	c->held = 0;
	channel_resume(c);
}

static bool mode_periodic(const struct pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Modes 1 and 5 wait for the gate to rise. */
static bool mode_gated(const struct pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

/* Mode 3: the output is high for the first half, the longer one of an odd count. */
static u32 square_high(const struct pit_channel *c)
{
	return (c->count + 1) / 2;
}

static u32 channel_value(const struct pit_channel *c)
{
	u32 wrap = c->bcd ? 10000 : 0x10000;
	u64 t = channel_ticks(c);
	u32 at;

	if (!c->loaded || (mode_gated(c) && !c->triggered))
		return c->count % wrap;
	switch (c->mode) {
	case 2:
		return (c->count - (u32)(t % c->count)) % wrap;
	case 3:	/* steps of two from an even number, once in each half */
		at = (u32)(t % c->count);
		if (at >= square_high(c))
			at -= square_high(c);
		return ((c->count & ~1u) - 2 * at) % wrap;
	default:
		return (c->count + wrap - (u32)(t % wrap)) % wrap;
	}
}

static u16 channel_read_counter(const struct pit_channel *c)
{
	u32 val = channel_value(c);

	if (!c->bcd)
		return (u16)val;
	return (u16)(val % 10 | val / 10 % 10 << 4 | val / 100 % 10 << 8 | val / 1000 % 10 << 12);
}

/* 82C54 "Mode Definitions" */
static bool channel_out(const struct pit_channel *c)
{
	u64 t = channel_ticks(c);

	if (!c->loaded)
		return c->mode != 0;
	switch (c->mode) {
	case 0:
		return t >= c->count;
	case 1:
		return !c->triggered || t >= c->count;
	case 2:
		return !c->gate || t % c->count != c->count - 1;
	case 3:
		return !c->gate || t % c->count < square_high(c);
	case 4:
		return t != c->count;
	default:
		return !c->triggered || t != c->count;
	}
}

/* ---- channel 0's interrupt ------------------------------------------------------------------- */

static bool pit_ticking(const struct pit *p)
{
	const struct pit_channel *c = &p->ch[0];

	return c->loaded && c->running && !mode_gated(c) && !(p->flags & KVM_PIT_FLAGS_HPET_LEGACY);
}

/* When rising edge n (from 1) comes, in ticks from the start. */
static u64 pit_edge(const struct pit_channel *c, u64 n)
{
	if (mode_periodic(c))
		return n * MAX(c->count, PIT_MIN_TICKS);
	return c->mode == 4 ? c->count + 1ull : c->count;
}

static void pit_arm(struct pit *p)
{
	struct pit_channel *c = &p->ch[0];

	p->deadline = 0;
	if (!pit_ticking(p) || (p->fired && !mode_periodic(c)))
		return;
	p->deadline =
		c->start + ticks_to_ns(pit_edge(c, p->fired + 1) - MIN(c->held, pit_edge(c, 1)));
	os_timer_arm(&p->timer, p->deadline);
}

static void pit_restart(struct pit *p)
{
	p->fired = 0;
	pit_arm(p);
}

static void pit_pulse(struct pit *p)
{
	/* One that no chip took will not be acknowledged either. */
	p->acked = routing_set_line(p->ic, IRQ_SOURCE_PIT, 0, 1) <= 0;
	routing_set_line(p->ic, IRQ_SOURCE_PIT, 0, 0);
	lapic_watchdog_nmi(p->ic->vm);
}

static void pit_tick(struct pit *p, u64 n)
{
	if (!p->reinject) {
		pit_pulse(p);
		return;
	}
	p->pending = (u32)MIN(p->pending + n, PIT_MAX_BACKLOG);
	if (p->acked)
		pit_pulse(p);
}

static void pit_alarm(void *arg)
{
	struct pit *p = arg;
	struct pit_channel *c = &p->ch[0];
	u64 n = 1;

	os_mutex_lock(&p->ic->lock);
	/* An alarm of an earlier programming is early or unwanted now. */
	if (!p->deadline || os_clock_ns() < p->deadline)
		goto out;
	if (mode_periodic(c)) {
		n = channel_ticks(c) / pit_edge(c, 1) - p->fired;
		n = MAX(n, 1);
	}
	p->fired += n;
	pit_arm(p);
	pit_tick(p, n);
out:
	os_mutex_unlock(&p->ic->lock);
}

void pit_acked(struct irqchip *ic)
{
	struct pit *p = ic->pit;

	if (!p || p->acked)
		return;
	p->acked = true;
	if (p->pending)
		p->pending--;
	if (p->reinject && p->pending)
		pit_pulse(p);
}

/* Ticks from before it was listened to are of no interest. */
static void pit_reset_reinject(struct pit *p)
{
	p->pending = 0;
	p->acked = true;
}

void pit_unmasked(struct irqchip *ic)
{
	if (ic->pit)
		pit_reset_reinject(ic->pit);
}

bool pit_wants_ack(const struct irqchip *ic)
{
	return ic->pit && ic->pit->reinject;
}

/* ---- programming ----------------------------------------------------------------------------- */

static u32 count_from_register(const struct pit_channel *c, u16 val)
{
	u32 dec;

	if (!c->bcd)
		return val ? val : 0x10000;
	dec = (val >> 12) * 1000u + (val >> 8 & 15) * 100u + (val >> 4 & 15) * 10u + (val & 15);
	return dec ? dec : 10000;
}

static void pit_load(struct pit *p, unsigned int n, u16 val)
{
	struct pit_channel *c = &p->ch[n];

	c->count = count_from_register(c, val);
	if (mode_gated(c) && c->loaded && c->triggered)
		return;		/* takes effect with the next trigger */
	c->loaded = true;
	channel_restart(c);
	if (!c->gate || mode_gated(c))
		c->running = false;
	if (n == 0)
		pit_restart(p);
}

static void pit_write_counter(struct pit *p, unsigned int n, u8 val)
{
	struct pit_channel *c = &p->ch[n];

	switch (c->write_next) {
	case PIT_LSB:
		pit_load(p, n, val);
		break;
	case PIT_MSB:
		pit_load(p, n, (u16)(val << 8));
		break;
	case PIT_WORD:
		c->write_low = val;
		c->write_next = PIT_WORD_HIGH;
		/* 82C54 "Mode 0": the first byte stops the counter, output low. */
		if (c->mode == 0) {
			channel_pause(c);
			c->loaded = false;
		}
		break;
	default:
		c->write_next = PIT_WORD;
		pit_load(p, n, (u16)(val << 8 | c->write_low));
	}
}

static void channel_latch(struct pit_channel *c)
{
	if (c->latch)
		return;
	c->latched = channel_read_counter(c);
	c->latch = c->access;
}

/* 82C54 figure 12 */
static void channel_latch_status(struct pit_channel *c)
{
	if (c->status_latched)
		return;
	c->status = (u8)(channel_out(c) << 7 | !c->loaded << 6 | c->access << 4 | c->mode << 1 |
			 c->bcd);
	c->status_latched = true;
}

static void pit_read_back(struct pit *p, u8 val)
{
	for (unsigned int n = 0; n < 3; n++) {
		if (!(val & 2 << n))
			continue;
		if (!(val & BIT(5)))
			channel_latch(&p->ch[n]);
		if (!(val & BIT(4)))
			channel_latch_status(&p->ch[n]);
	}
}

static void pit_set_mode(struct pit *p, unsigned int n, u8 val)
{
	struct pit_channel *c = &p->ch[n];
	u8 mode = val >> 1 & 7;

	c->access = val >> 4 & 3;
	c->read_next = c->write_next = c->access;
	c->mode = mode > 5 ? mode - 4 : mode;
	c->bcd = val & 1;
	c->blank = false;
	c->latch = PIT_LATCH;
	c->status_latched = false;
	c->loaded = false;
	c->triggered = false;
	c->running = false;
	c->held = 0;
	if (n == 0)
		pit_restart(p);
}

static void pit_write_control(struct pit *p, u8 val)
{
	unsigned int n = val >> 6;

	if (n == 3)
		pit_read_back(p, val);
	else if ((val >> 4 & 3) == PIT_LATCH)
		channel_latch(&p->ch[n]);
	else
		pit_set_mode(p, n, val);
}

static u8 channel_read_latched(struct pit_channel *c)
{
	switch (c->latch) {
	case PIT_LSB:
		c->latch = PIT_LATCH;
		return (u8)c->latched;
	case PIT_WORD:
		c->latch = PIT_WORD_HIGH;
		return (u8)c->latched;
	default:
		c->latch = PIT_LATCH;
		return (u8)(c->latched >> 8);
	}
}

static u8 channel_read_live(struct pit_channel *c)
{
	u16 val = channel_read_counter(c);

	switch (c->read_next) {
	case PIT_LSB:
		return (u8)val;
	case PIT_WORD:
		c->read_next = PIT_WORD_HIGH;
		return (u8)val;
	case PIT_WORD_HIGH:
		c->read_next = PIT_WORD;
		return (u8)(val >> 8);
	default:
		return (u8)(val >> 8);
	}
}

static u8 channel_read(struct pit_channel *c)
{
	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	return c->latch ? channel_read_latched(c) : channel_read_live(c);
}

/* 82C54 figure 21: gate pin operations */
static void channel_set_gate(struct pit_channel *c, bool gate)
{
	bool rise = gate && !c->gate, fall = !gate && c->gate;

	c->gate = gate;
	if (!c->loaded)
		return;
	if (fall && !mode_gated(c))
		channel_pause(c);
	if (!rise)
		return;
	if (mode_gated(c))
		c->triggered = true;
	if (mode_gated(c) || mode_periodic(c))
		channel_restart(c);
	else
		channel_resume(c);
}

/* ---- ports ----------------------------------------------------------------------------------- */

static int pit_read(struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, void *data)
{
	struct pit *p = container_of(d, struct pit, ports);
	u8 *out = data;

	os_mutex_lock(&p->ic->lock);
	for (unsigned int i = 0; i < len; i++) {
		u64 n = addr + i - PIT_PORT;

		out[i] = n < 3 ? channel_read(&p->ch[n]) : 0;
	}
	os_mutex_unlock(&p->ic->lock);
	return 0;
}

static int pit_write(
	struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, const void *data)
{
	struct pit *p = container_of(d, struct pit, ports);
	const u8 *in = data;

	os_mutex_lock(&p->ic->lock);
	for (unsigned int i = 0; i < len; i++) {
		u64 n = addr + i - PIT_PORT;

		if (n < 3)
			pit_write_counter(p, (unsigned int)n, in[i]);
		else if (n == PIT_CONTROL)
			pit_write_control(p, in[i]);
	}
	os_mutex_unlock(&p->ic->lock);
	return 0;
}

/* 82371AB 4.2.6.1. Bit 4 toggles with each refresh: 16 us, about what software expects. */
static int speaker_read(struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, void *data)
{
	struct pit *p = container_of(d, struct pit, speaker);
	u8 val;

	os_mutex_lock(&p->ic->lock);
	val = (u8)(p->ch[2].gate | p->speaker_on << 1 | (os_clock_ns() >> 14 & 1) << 4 |
		   channel_out(&p->ch[2]) << 5);
	os_mutex_unlock(&p->ic->lock);
	memset(data, 0xff, len);
	memcpy(data, &val, 1);
	return 0;
}

static int speaker_write(
	struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, const void *data)
{
	struct pit *p = container_of(d, struct pit, speaker);
	u8 val;

	memcpy(&val, data, 1);
	os_mutex_lock(&p->ic->lock);
	p->speaker_on = val & PORT_61_SPEAKER;
	channel_set_gate(&p->ch[2], val & PORT_61_GATE2);
	os_mutex_unlock(&p->ic->lock);
	return 0;
}

static const struct io_device_ops pit_ops = { .read = pit_read, .write = pit_write };
static const struct io_device_ops speaker_ops = { .read = speaker_read, .write = speaker_write };

/* ---- lifetime -------------------------------------------------------------------------------- */

static void pit_reset(struct pit *p)
{
	for (unsigned int n = 0; n < 3; n++) {
		struct pit_channel *c = &p->ch[n];

		c->mode = 3;	/* undefined at power-up; KVM's choice */
		c->blank = true;
		c->gate = n != 2;
		c->count = 0x10000;
		c->access = c->read_next = c->write_next = PIT_WORD;
	}
	pit_reset_reinject(p);
}

static void pit_unregister(struct pit *p)
{
	bus_unregister(p->ic->vm, BUS_PIO, &p->ports);
	bus_unregister(p->ic->vm, BUS_PIO, &p->speaker);
}

int irqchip_create_pit(struct vm *vm, const struct kvm_pit_config *cfg)
{
	struct irqchip *ic = vm->irqchip;
	struct pit *p;
	int err;

	if (!irqchip_has_pic(vm))
		return -ENOENT;
	if (ic->pit)
		return -EEXIST;
	p = os_alloc(sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->ic = ic;
	p->ports.ops = &pit_ops;
	p->speaker.ops = &speaker_ops;
	p->reinject = true;
	pit_reset(p);
	os_timer_init(&p->timer, pit_alarm, p);
	err = bus_register(vm, BUS_PIO, PIT_PORT, 4, &p->ports);
	if (!err && cfg->flags & KVM_PIT_SPEAKER_DUMMY)
		err = bus_register(vm, BUS_PIO, PORT_61, 1, &p->speaker);
	if (err)
		goto out;
	os_mutex_lock(&ic->lock);
	ic->pit = p;
	ioapic_update_handled(ic);
	os_mutex_unlock(&ic->lock);
	return 0;
out:
	pit_unregister(p);
	os_timer_destroy(&p->timer);
	os_free(p);
	return err;
}

void pit_destroy(struct irqchip *ic)
{
	struct pit *p = ic->pit;

	if (!p)
		return;
	os_timer_cancel(&p->timer);
	os_timer_destroy(&p->timer);
	pit_unregister(p);
	ic->pit = NULL;
	os_free(p);
}

/* ---- saved state ----------------------------------------------------------------------------- */

_Static_assert(sizeof(struct kvm_pit_channel_state) == 24, "KVM's layout");

static void channel_get(const struct pit_channel *c, struct kvm_pit_channel_state *s)
{
	*s = (struct kvm_pit_channel_state){
		.count = c->count,
		.latched_count = c->latched,
		.count_latched = c->latch,
		.status_latched = c->status_latched,
		.status = c->status,
		.read_state = c->read_next,
		.write_state = c->write_next,
		.write_latch = c->write_low,
		.rw_mode = c->access,
		.mode = c->blank ? PIT_MODE_BLANK : c->mode,
		.bcd = c->bcd,
		.gate = c->gate,
		.count_load_time = (s64)c->start,
	};
}

/* A saved counter starts anew, as in KVM: load times mean nothing on another host. */
static void channel_set(struct pit_channel *c, const struct kvm_pit_channel_state *s)
{
	*c = (struct pit_channel){
		.count = s->count && s->count <= 0x10000 ? s->count : 0x10000,
		.latched = s->latched_count,
		.latch = MIN(s->count_latched, PIT_WORD_HIGH),
		.status_latched = s->status_latched,
		.status = s->status,
		.read_next = s->read_state & 7,
		.write_next = s->write_state & 7,
		.write_low = s->write_latch,
		.access = s->rw_mode & 3,
		.mode = MIN(s->mode, 5),
		.blank = s->mode == PIT_MODE_BLANK,
		.bcd = s->bcd,
		.gate = s->gate,
		.loaded = s->mode != PIT_MODE_BLANK,
	};
	if (c->blank)
		c->mode = 3;
	channel_resume(c);
	if (!c->gate || mode_gated(c) || c->blank)
		c->running = false;
}

int pit_get(struct vm *vm, struct kvm_pit_state2 *ps)
{
	struct irqchip *ic = vm->irqchip;

	if (!ic || !ic->pit)
		return -ENXIO;
	memset(ps, 0, sizeof(*ps));
	os_mutex_lock(&ic->lock);
	for (unsigned int n = 0; n < 3; n++)
		channel_get(&ic->pit->ch[n], &ps->channels[n]);
	ps->flags = ic->pit->flags & KVM_PIT_FLAGS_HPET_LEGACY;
	if (ic->pit->speaker_on)
		ps->flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	os_mutex_unlock(&ic->lock);
	return 0;
}

int pit_set(struct vm *vm, const struct kvm_pit_state2 *ps)
{
	struct irqchip *ic = vm->irqchip;
	struct pit *p;

	if (!ic || !ic->pit)
		return -ENXIO;
	os_mutex_lock(&ic->lock);
	p = ic->pit;
	p->flags = ps->flags & KVM_PIT_FLAGS_HPET_LEGACY;
	p->speaker_on = ps->flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	for (unsigned int n = 0; n < 3; n++)
		channel_set(&p->ch[n], &ps->channels[n]);
	pit_reset_reinject(p);
	pit_restart(p);
	os_mutex_unlock(&ic->lock);
	return 0;
}

int pit_reinject(struct vm *vm, bool reinject)
{
	struct irqchip *ic = vm->irqchip;

	if (!ic || !ic->pit)
		return -ENXIO;
	os_mutex_lock(&ic->lock);
	ic->pit->reinject = reinject;
	pit_reset_reinject(ic->pit);
	ioapic_update_handled(ic);
	os_mutex_unlock(&ic->lock);
	return 0;
}
