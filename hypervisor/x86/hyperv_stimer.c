/*
 * Synthetic timers: four a vCPU, one-shot or periodic in reference time, that post a message or, in
 * direct mode, raise a vector. TLFS 12.3.
 *
 * A timer's alarm only requests a look (hv_stimers_run, on the vCPU's thread), which compares with
 * reference time; an alarm for an earlier setting, or one that the clocks' drift made early, is
 * harmless. A message whose slot is taken is posted when the guest has freed it; a periodic timer's is
 * dropped instead.
 */
#include "hypervisor/x86/hyperv.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/lapic.h"

#define STIMER_ENABLE		BIT(0)
#define STIMER_PERIODIC		BIT(1)
#define STIMER_AUTO_ENABLE	BIT(3)
#define STIMER_DIRECT		BIT(12)
#define STIMER_VECTOR(c)	((u8)((c) >> 4))
#define STIMER_SINT(c)		((u32)((c) >> 16 & 0xf))

#define MESSAGE_TIMER_EXPIRED	0x80000010u
#define NS_PER_UNIT		100u

static void stimer_fired(void *arg)
{
	struct hv_stimer *t = arg;

	__atomic_fetch_or(&t->vcpu->hv->stimer_pending, BIT(t->index), __ATOMIC_ACQ_REL);
	hv_request(t->vcpu, HV_DO_STIMER);
}

void hv_stimer_init(struct vcpu *v, struct hv_vcpu *hv)
{
	for (u32 i = 0; i < HV_STIMERS; i++) {
		hv->stimer[i].vcpu = v;
		hv->stimer[i].index = i;
		os_timer_init(&hv->stimer[i].os, stimer_fired, &hv->stimer[i]);
	}
}

void hv_stimer_destroy(struct hv_vcpu *hv)
{
	for (u32 i = 0; i < HV_STIMERS; i++)
		os_timer_destroy(&hv->stimer[i].os);
}

/* ---- running ------------------------------------------------------------------------------------ */

static void stimer_stop(struct hv_stimer *t)
{
	os_timer_cancel(&t->os);
	__atomic_fetch_and(&t->vcpu->hv->stimer_pending, ~BIT(t->index), __ATOMIC_ACQ_REL);
	t->undelivered = false;
	t->expires = 0;
}

static void stimer_arm(struct hv_stimer *t, u64 units)
{
	u64 now = os_clock_ns();
	u64 room = OS_FOREVER - now;

	os_timer_arm(&t->os, units >= room / NS_PER_UNIT ? OS_FOREVER : now + units * NS_PER_UNIT);
}

/* Periods that nobody saw are skipped. */
static void periodic_start(struct hv_stimer *t, u64 now)
{
	if (!t->expires)
		t->expires = now + t->count;
	else if (now >= t->expires)
		t->expires = now + t->count - (now - t->expires) % t->count;
	stimer_arm(t, t->expires - now);
}

/* TLFS 12.3.4: a one-shot timer whose time is over expires at once. */
static void stimer_start(struct hv_stimer *t)
{
	u64 now = hv_time(t->vcpu->vm);

	if (t->config & STIMER_PERIODIC) {
		periodic_start(t, now);
		return;
	}
	t->expires = t->count;
	if (now >= t->count)
		stimer_fired(t);
	else
		stimer_arm(t, t->count - now);
}

static int post_expiry(struct hv_stimer *t)
{
	struct hv_message m;

	memset(&m, 0, sizeof(m));
	m.type = MESSAGE_TIMER_EXPIRED;
	m.size = sizeof(m.timer);
	m.timer.index = t->index;
	m.timer.expiration = t->expires;
	m.timer.delivery = hv_time(t->vcpu->vm);
	return hv_message_post(t->vcpu, STIMER_SINT(t->config), &m, t->config & STIMER_PERIODIC);
}

static int raise_vector(const struct hv_stimer *t)
{
	struct lapic *l = t->vcpu->lapic;

	return !l || lapic_accept_vector(l, STIMER_VECTOR(t->config), false) ? 0 : -EAGAIN;
}

static void stimer_expire(struct hv_stimer *t)
{
	int ret = t->config & STIMER_DIRECT ? raise_vector(t) : post_expiry(t);

	t->undelivered = ret;
	if (!ret && !(t->config & STIMER_PERIODIC))
		t->config &= ~STIMER_ENABLE;
}

static void stimer_run(struct hv_stimer *t)
{
	if (!(t->config & STIMER_ENABLE))
		return;
	if (t->expires && hv_time(t->vcpu->vm) >= t->expires)
		stimer_expire(t);
	if (!(t->config & STIMER_ENABLE) || !t->count)
		stimer_stop(t);
	else if (!t->undelivered)
		stimer_start(t);
}

void hv_stimers_run(struct vcpu *v)
{
	u32 pending = __atomic_exchange_n(&v->hv->stimer_pending, 0, __ATOMIC_ACQ_REL);

	for (u32 i = 0; i < HV_STIMERS; i++)
		if (pending & BIT(i))
			stimer_run(&v->hv->stimer[i]);
}

/* Once more for those that wait for it. */
void hv_stimer_slot_free(struct vcpu *v, u32 sint)
{
	for (u32 i = 0; i < HV_STIMERS; i++) {
		struct hv_stimer *t = &v->hv->stimer[i];

		if (t->undelivered && t->config & STIMER_ENABLE && !(t->config & STIMER_DIRECT) &&
		    STIMER_SINT(t->config) == sint)
			stimer_fired(t);
	}
}

/* ---- registers ---------------------------------------------------------------------------------- */

/* TLFS 12.3.2: SINT 0 is for no timer, but what was off may be set up so. */
static int set_config(struct hv_stimer *t, u64 val, bool host)
{
	const struct hv_vcpu *hv = t->vcpu->hv;

	if (val & STIMER_DIRECT && !host && hv->enforce &&
	    !(hv->cpuid.features_edx & HV_F_STIMER_DIRECT))
		return -EINVAL;
	stimer_stop(t);
	if (t->config & STIMER_ENABLE && !(val & STIMER_DIRECT) && !STIMER_SINT(val))
		val &= ~STIMER_ENABLE;
	t->config = val;
	return 0;
}

static int set_count(struct hv_stimer *t, u64 val, bool host)
{
	stimer_stop(t);
	t->count = val;
	if (!host && !val)
		t->config &= ~STIMER_ENABLE;
	else if (!host && t->config & STIMER_AUTO_ENABLE)
		t->config |= STIMER_ENABLE;
	return 0;
}

static struct hv_stimer *stimer_of(struct vcpu *v, u32 index)
{
	return &v->hv->stimer[(index - HV_STIMER0_CONFIG) / 2];
}

static bool is_count(u32 index)
{
	return (index - HV_STIMER0_CONFIG) & 1;
}

int hv_stimer_write(struct vcpu *v, u32 index, u64 val, bool host)
{
	struct hv_stimer *t = stimer_of(v, index);
	int ret;

	if (!v->hv->synic && (!host || val))
		return -EINVAL;
	ret = is_count(index) ? set_count(t, val, host) : set_config(t, val, host);
	if (!ret && t->config & STIMER_ENABLE)
		stimer_fired(t);
	return ret;
}

u64 hv_stimer_read(struct vcpu *v, u32 index)
{
	const struct hv_stimer *t = stimer_of(v, index);

	return is_count(index) ? t->count : t->config;
}
