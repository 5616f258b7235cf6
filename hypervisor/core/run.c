/*
 * KVM_RUN: the loop that a vCPU's thread spends its life in.
 *
 * Every step answers 1 (go on), 0 (exit to user space, v->run says why) or -errno. One turn: serve
 * requests, then either sleep, or bring the next event into the guest and let the engine run until
 * something needs the loop again. Linux Documentation/virt/kvm/api.rst 4.10 and section 5.
 */
#include <linux/errno.h>

#include "hypervisor/core/halt.h"
#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/hyperv.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/smm.h"
#include "hypervisor/x86/system.h"

static int run_exit(struct vcpu *v, u32 reason)
{
	v->run->exit_reason = reason;
	return 0;
}

/* ---- requests ----------------------------------------------------------------------------- */

static int serve_event(struct vcpu *v)
{
	if (v->lapic)
		lapic_accept_events(v);
	return 1;
}

static int serve_tlb_flush(struct vcpu *v)
{
	mmu_flush_all(v);
	return 1;
}

static int serve_code_flush(struct vcpu *v)
{
	v->engine->flush_code(v);
	return 1;
}

static int serve_protect_code(struct vcpu *v)
{
	code_protect_serve(v);
	return 1;
}

/*
 * The engine gets a step of one instruction: against another vCPU that writes over the code all the
 * time, translating it anew might never come to the point of running it.
 */
static int serve_code_stale(struct vcpu *v)
{
	v->engine->code_check(v);
	v->kick = 1;
	return 1;
}

static int serve_clock_update(struct vcpu *v)
{
	kvmclock_update(v);
	return 1;
}

static int serve_triple_fault(struct vcpu *v)
{
	return run_exit(v, KVM_EXIT_SHUTDOWN);
}

static int serve_apic_timer(struct vcpu *v)
{
	lapic_timer_expired(v);
	return 1;
}

static int serve_hyperv(struct vcpu *v)
{
	return hv_serve(v);
}

static int serve_vm_dead(struct vcpu *v)
{
	return -EIO;
}

static int serve_pause(struct vcpu *v)
{
	vcpu_leave(v);
	vcpu_enter(v);
	return 1;
}

static int serve_ioapic_eoi(struct vcpu *v)
{
	int vector = irqchip_user_eoi(v);

	if (vector < 0)
		return 1;
	v->run->eoi.vector = (u8)vector;
	return run_exit(v, KVM_EXIT_IOAPIC_EOI);
}

static int serve_tpr_access(struct vcpu *v)
{
	return run_exit(v, KVM_EXIT_TPR_ACCESS);
}

static int serve_set_tpr(struct vcpu *v)
{
	return run_exit(v, KVM_EXIT_SET_TPR);
}

static int serve_bus_lock(struct vcpu *v)
{
	return run_exit(v, KVM_EXIT_X86_BUS_LOCK);
}

static int serve_pmu(struct vcpu *v)
{
	pmu_serve(v);
	return 1;
}

static int serve_nothing(struct vcpu *v)
{
	return 1;
}

static int (*const serve[])(struct vcpu *v) = {
	[REQ_EVENT] = serve_event,
	[REQ_TLB_FLUSH] = serve_tlb_flush,
	[REQ_CODE_FLUSH] = serve_code_flush,
	[REQ_TLB_PROTECT_CODE] = serve_protect_code,
	[REQ_CODE_STALE] = serve_code_stale,
	[REQ_CLOCK_UPDATE] = serve_clock_update,
	[REQ_TRIPLE_FAULT] = serve_triple_fault,
	[REQ_APIC_TIMER] = serve_apic_timer,
	[REQ_EXIT] = serve_nothing,
	[REQ_VM_DEAD] = serve_vm_dead,
	[REQ_PAUSE] = serve_pause,
	[REQ_PMU] = serve_pmu,
	[REQ_IOAPIC_EOI] = serve_ioapic_eoi,
	[REQ_TPR_ACCESS] = serve_tpr_access,
	[REQ_HYPERV] = serve_hyperv,
	[REQ_SET_TPR] = serve_set_tpr,
	[REQ_BUS_LOCK] = serve_bus_lock,
};

static int run_requests(struct vcpu *v)
{
	u32 bits;
	int ret = 1;

	/* First kick, then the bits: see core/request.c. */
	__atomic_exchange_n(&v->kick, 0, __ATOMIC_SEQ_CST);
	while (ret > 0 && (bits = __atomic_load_n(&v->requests, __ATOMIC_SEQ_CST))) {
		int req = __builtin_ctz(bits);

		__atomic_fetch_and(&v->requests, ~(u32)BIT(req), __ATOMIC_SEQ_CST);
		ret = serve[req](v);
	}
	return ret;
}

/* ---- code that user space writes ----------------------------------------------------------- */

/*
 * What follows an exit may be code that user space has just written, and so may what follows an interrupt
 * that it sent: each page is compared before it runs again (core/code_page.h, 4.), and what leads to code
 * is found anew. For firmware that polls that is a microsecond or three, for a kernel under load a
 * millisecond: a request to a disk whose driver leaves took 229 us and not 48. So there is a budget of a
 * hundredth of the time, some of it in advance, and what a look costs is charged as it shows: by what
 * was found anew since. A look that finds something was worth it, and makes room for others.
 */
#define LOOK_SHARE	100u
#define LOOK_NS		1000u	/* of each */
#define FILL_NS		500u	/* of each entry of the tables that is filled again, by estimate, */
#define FILLS_MAX	2000u	/* but for more than these: the guest's own doing */
#define LOOK_ADVANCE_MS	500u
/* So few since the last look, as in firmware that polls: the next costs 0.1 us (Zen 4), and is free. */
#define LOOK_SMALL	8u

static u64 look_price(u64 ns)
{
	return ns * LOOK_SHARE * os_tsc_khz() / 1000000;
}

/* What was filled since the last time, as far as the last look is the reason. */
static void look_charge(struct vcpu *v, u64 fills)
{
	u64 n = MIN(fills - v->look_fills, v->look_fills_left);

	v->look_fills = fills;
	v->look_fills_left -= n;
	if (n)
		v->look_paid += look_price(n * FILL_NS);
}

/*
 * Where pages are few, they are compared whatever the budget says: that drops nothing, and takes from 10 ns
 * to 1.5 us (a chunk each, four pages full of code), at an exit of half a microsecond.
 */
static bool look_due(struct vcpu *v)
{
	u64 fills = v->stat.jump_fills + v->stat.cell_fills, paid = v->look_paid, now, advance;
	bool few = code_entered_few(v);

	look_charge(v, fills);
	if (fills - v->look_mark <= LOOK_SMALL) {
		v->look_paid = paid;
	} else if (!few) {
		now = tsc_host();
		advance = (u64)LOOK_ADVANCE_MS * os_tsc_khz();
		if (v->look_paid > now)
			return false;
		v->look_paid = MAX(v->look_paid, now - MIN(now, advance)) + look_price(LOOK_NS);
	}
	v->look_mark = fills;
	v->look_fills_left = few ? 0 : FILLS_MAX;
	return true;
}

/* Pages are compared now where they are few, else when they are entered again. */
static void look_now(struct vcpu *v)
{
	v->look_again = false;
	os_code_guard();
	if (code_check_entered(v))
		return;
	code_forget_entered(v);
	v->engine->code_look(v);
}

/* Behind an exit. Its user space may write until KVM_RUN comes again. */
static void look_at_code(struct vcpu *v)
{
	if (!look_due(v))
		return;
	v->look_again = code_entered_few(v);
	if (!v->look_again)
		look_now(v);
}

/* KVM_RUN begins. Others may learn from this vCPU of what was written while it was out. */
static void others_look(struct vcpu *v)
{
	if (READ_ONCE(v->vm->nr_vcpus) > 1)
		vm_user_wrote(v->vm);
}

/* Before an interrupt of whatever kind: it may say that DMA is done. */
static void irq_look_at_code(struct vcpu *v)
{
	u64 wrote = load_acquire(&v->vm->user_wrote);

	if (wrote == v->user_wrote_seen || !look_due(v))
		return;
	v->user_wrote_seen = wrote;
	look_now(v);
}

/* ---- what comes next ---------------------------------------------------------------------- */

/* An instruction waits for, or has used, answers of user space: it must finish before any event. */
static bool io_unfinished(const struct vcpu *v)
{
	return v->io.done || v->io.waiting;
}

static bool irq_unmasked(const struct vcpu *v)
{
	return (v->rflags & RFLAGS_IF) && !v->irq_shadow && v->event.type == EV_NONE;
}

bool vcpu_irq_allowed(const struct vcpu *v)
{
	return irq_unmasked(v) && !io_unfinished(v);
}

bool vcpu_nmi_allowed(const struct vcpu *v)
{
	return !v->nmi_blocked && !v->irq_shadow && v->event.type == EV_NONE && !io_unfinished(v);
}

static bool smi_allowed(const struct vcpu *v)
{
	return !v->smm && !v->irq_shadow && v->event.type == EV_NONE && !io_unfinished(v);
}

/* A debugger steps through code with interrupts on, and wants to see none. */
static bool irqs_blocked(const struct vcpu *v)
{
	return v->guest_debug & KVM_GUESTDBG_BLOCKIRQ;
}

static bool irq_pending(struct vcpu *v)
{
	if (irqs_blocked(v))
		return false;
	return v->extint_pending || (v->vm->irqchip && irqchip_has_interrupt(v));
}

/* Is there room for another interrupt of user space's own controller, and a way to the guest? */
static bool irq_window_possible(const struct vcpu *v)
{
	return !v->extint_pending && (!v->lapic || irqchip_user_pic_ready(v));
}

static bool irq_window_wanted(const struct vcpu *v)
{
	return v->run->request_interrupt_window && !irqchip_has_pic(v->vm) &&
	       irq_window_possible(v);
}

/* The vector to deliver, taken from whoever raised it; -1: it went away. */
static int irq_take(struct vcpu *v)
{
	if (!v->extint_pending)
		return irqchip_ack_interrupt(v);
	v->extint_pending = false;
	return v->extint_vector;
}

/* Without paging: see run_forgets(). */
static void irq_queue(struct vcpu *v, int vector)
{
	if (!(v->cr0 & CR0_PG))
		mmu_flush_all(v);
	else
		irq_look_at_code(v);
	event_queue(v, EV_EXTINT, vector, false, 0);
}

/*
 * SDM 3A 6.9: SMI, then NMI, then interrupts. In SMM the latter two are blocked at first. Interrupts
 * are looked for first: an NMI that was sent before one is then seen with it.
 */
static void inject_select(struct vcpu *v)
{
	bool irq;

	if (irqs_blocked(v))
		return;
	irq = irq_pending(v);
	if (irq)
		lapic_accept_nmi(v);
	if (v->smi_pending && smi_allowed(v))
		smm_enter(v);
	if (v->nmi_pending && vcpu_nmi_allowed(v)) {
		v->nmi_pending--;
		event_queue(v, EV_NMI, VEC_NMI, false, 0);
	} else if (irq && vcpu_irq_allowed(v)) {
		int vector = irq_take(v);

		if (vector >= 0)
			irq_queue(v, vector);
	}
}

/*
 * What could not go in now: the engine comes back for an interrupt when IF and shadows allow it,
 * and after one instruction for an SMI or NMI that only waits for that instruction. (One that waits for
 * IRET: event_unmasked.)
 */
static void run_defer(struct vcpu *v)
{
	v->irq_wanted = irq_window_wanted(v) || irq_pending(v);
	if (!irqs_blocked(v) &&
	    ((v->nmi_pending && !v->nmi_blocked) || (v->smi_pending && !v->smm)))
		v->kick = 1;
}

/* v->run is filled in, or the guest's memory is gone. */
static int run_left(struct vcpu *v)
{
	int ret = v->memory_lost ? -EFAULT : 0;

	v->memory_lost = false;
	return ret;
}

/* Brings the event on its way, or the one chosen now, into the guest. */
static int run_inject(struct vcpu *v)
{
	enum unwind why = UNWIND_NONE;

	if (v->event.type == EV_NONE)
		inject_select(v);
	if (v->event.type != EV_NONE)
		why = event_deliver(v);
	if (why == UNWIND_SHUTDOWN)
		return run_exit(v, KVM_EXIT_SHUTDOWN);
	if (why == UNWIND_EXIT)
		return run_left(v);
	run_defer(v);
	return 1;
}

/* User space's own interrupt controller asked to be told when the guest can take an interrupt. */
static int run_window(struct vcpu *v)
{
	if (irq_window_wanted(v) && vcpu_irq_allowed(v))
		return run_exit(v, KVM_EXIT_IRQ_WINDOW_OPEN);
	return 1;
}

bool vcpu_event_waits(struct vcpu *v)
{
	return (v->smi_pending && smi_allowed(v)) ||
	       (v->nmi_pending && vcpu_nmi_allowed(v)) || (irq_pending(v) && vcpu_irq_allowed(v)) ||
	       v->event.type != EV_NONE || pv_unhalted(&v->pv);
}

/* ---- running ------------------------------------------------------------------------------ */

static enum unwind engine_counted(struct vcpu *v)
{
	enum unwind why;

	v->pmu.running = true;
	if (unlikely(v->pmu.active))
		pmu_enter(v);
	why = v->engine->run(v);
	v->pmu.running = false;
	if (unlikely(v->pmu.since))
		pmu_leave(v);
	return why;
}

static enum unwind engine_run(struct vcpu *v)
{
	enum unwind why;

	if (!v->lapic)
		return engine_counted(v);
	vapic_enter(v);
	why = engine_counted(v);
	vapic_leave(v);
	return why;
}

static int run_engine(struct vcpu *v)
{
	int ret = run_inject(v);
	enum unwind why;

	/* An event that is still there: its delivery made room for requests. */
	if (ret <= 0 || v->event.type != EV_NONE)
		return ret;
	v->ran = true;
	os_code_guard();
	vm_watch(v->vm);
	why = engine_run(v);
	lapic_pv_eoi_sync(v);
	switch (why) {
	case UNWIND_EXIT:
		return run_left(v);
	case UNWIND_SHUTDOWN:
		return run_exit(v, KVM_EXIT_SHUTDOWN);
	case UNWIND_NONE:
	case UNWIND_EVENT:
	case UNWIND_RESTART:
		break;
	}
	return v->halted && v->event.type == EV_NONE ? vcpu_halt(v) : 1;
}

static bool run_stopped(const struct vcpu *v)
{
	return v->run->immediate_exit || os_run_caught() ||
	       (v->signal_mask_set && (os_signals_pending() & ~v->signal_mask));
}

/* The instruction that user space has just answered is completed even if the vCPU is to run no
 * further: its registers are then worth saving. */
static int run_finish_io(struct vcpu *v)
{
	int ret = 1;

	if (io_unfinished(v))
		ret = run_requests(v);
	if (ret > 0 && io_unfinished(v)) {
		v->kick = 1;
		ret = run_engine(v);
	}
	return ret > 0 ? -EINTR : ret;
}

static int run_interrupted(struct vcpu *v)
{
	int ret = run_finish_io(v);

	if (ret == -EINTR)
		v->run->exit_reason = KVM_EXIT_INTR;
	return ret;
}

/* It writes into the guest's memory. That may be gone: then it is left at that. */
static void run_pv(struct vcpu *v, void (*fn)(struct vcpu *v))
{
	if (vcpu_guarded(v, fn) != UNWIND_NONE)
		v->memory_lost = false;
}

static int run_loop(struct vcpu *v)
{
	bool unborn = v->mp_state == KVM_MP_STATE_UNINITIALIZED;
	int ret;

	do {
		if (run_stopped(v))
			return run_interrupted(v);
		if (dirty_ring_full(v)) {
			ret = run_exit(v, KVM_EXIT_DIRTY_RING_FULL);
			break;
		}
		ret = run_requests(v);
		/* One that was caught since: its kick may just have been cleared. */
		if (ret > 0 && os_run_caught())
			return run_interrupted(v);
		if (ret > 0 && unlikely(v->pv.watch))
			run_pv(v, pv_run);
		if (ret > 0)
			ret = run_window(v);
		if (ret > 0 && unlikely(unborn) && vcpu_born(v))
			ret = -EAGAIN;
		if (ret > 0)
			ret = v->mp_state == KVM_MP_STATE_RUNNABLE ? run_engine(v) : vcpu_wait(v);
	} while (ret > 0);
	return ret;
}

static u64 *exit_counter(struct vcpu_stat *s, u32 reason)
{
	switch (reason) {
	case KVM_EXIT_IO: return &s->io_exits;
	case KVM_EXIT_MMIO: return &s->mmio_exits;
	case KVM_EXIT_HLT: return &s->halt_exits;
	case KVM_EXIT_IRQ_WINDOW_OPEN: return &s->irq_window_exits;
	case KVM_EXIT_DEBUG: return &s->debug_exits;
	default: return &s->other_exits;
	}
}

static void run_count(struct vcpu *v, int ret)
{
	u64 *reason = &v->stat.other_exits;

	if (!ret)
		reason = exit_counter(&v->stat, v->run->exit_reason);
	else if (ret == -EINTR)
		reason = &v->stat.signal_exits;
	v->stat.exits++;
	++*reason;
}

/* The fields of struct kvm_run that describe the vCPU at each exit. What is injected while user
 * space answers an access waits for the instruction's end. */
static void run_publish(struct vcpu *v, int ret)
{
	struct kvm_run *run = v->run;

	run->flags = v->smm ? KVM_RUN_X86_SMM : 0;
	if (!ret && run->exit_reason == KVM_EXIT_X86_BUS_LOCK)
		run->flags |= KVM_RUN_X86_BUS_LOCK;
	run->if_flag = !!(v->rflags & RFLAGS_IF);
	run->cr8 = cr_read(v, 8);
	run->apic_base = v->msr.apic_base;
	run->ready_for_interrupt_injection =
		irqchip_has_pic(v->vm) || (irq_unmasked(v) && irq_window_possible(v));
}

/*
 * KVM_SET_SIGNAL_MASK: what it blocks waits until KVM_RUN is over. What it lets in need not be let
 * in, as it only has to end KVM_RUN: a timer looks for it.
 */
static u64 signals_hold(struct vcpu *v)
{
	os_timer_arm(&v->signal_poll, os_clock_ns() + SIGNAL_POLL_NS);
	return os_signals_hold(v->signal_mask);
}

static void signals_restore(struct vcpu *v, u64 mask)
{
	os_signals_block(mask);
	os_timer_cancel(&v->signal_poll);
}

/*
 * While the vCPU is out, user space may write to code unseen. Code is compared with what it was
 * where a page is entered through a fresh translation (core/code_page.h, 4.), so there have to be
 * fresh ones where a debugger, or who runs pieces of code one by one, goes on (regs_set(), too); and
 * without paging, where a boot loader's disk accesses bring code and nothing ever ends a translation.
 * Behind other exits, and signals, only what leads to code is dropped: look_at_code(). With PIC and
 * APICs of user space, which sends signals and sees each HLT, all of it was half of a guest's time.
 */
static bool run_forgets(const struct vcpu *v, int ret)
{
	u32 why = v->run->exit_reason;

	if (!(v->cr0 & CR0_PG))
		return true;
	return ret == 0 && (why == KVM_EXIT_DEBUG || why == KVM_EXIT_SHUTDOWN ||
		why == KVM_EXIT_SYSTEM_EVENT);
}

int vcpu_run(struct vcpu *v)
{
	bool masked = v->signal_mask_set;
	u64 mask = 0;
	int ret;

	if (!v->lapic) {
		if (v->run->cr8 & ~0xfULL)
			return -EINVAL;
		v->cr8 = v->run->cr8;
	}
	others_look(v);
	if (v->look_again)
		look_now(v);
	io_complete(v);
	if (unlikely(v->hv))
		hv_complete(v);
	if (unlikely(v->pv.watch))
		run_pv(v, pv_enter);
	if (masked)
		mask = signals_hold(v);
	os_run_set(v);
	ret = v->run->immediate_exit ? run_finish_io(v) : run_loop(v);
	os_run_set(NULL);
	if (run_forgets(v, ret))
		vcpu_request(v, REQ_TLB_FLUSH);
	else
		look_at_code(v);
	if (masked)
		signals_restore(v, mask);
	run_publish(v, ret);
	run_count(v, ret);
	vcpu_stats_publish(v);
	return ret;
}
