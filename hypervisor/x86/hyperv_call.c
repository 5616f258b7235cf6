/*
 * Hyper-V's hypercalls: flush translations, send interrupts, long spin wait here; messages, events
 * without a descriptor and the debugger's calls by user space. TLFS 3 (calling convention), 4 (what a
 * set of virtual processors is), appendix A.
 *
 * Input lies in guest memory, or for "fast" calls in RDX and R8, for some in XMM0 to XMM5 as well.
 */
#include "hypervisor/x86/hyperv.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

/* TLFS appendix B */
enum hv_status {
	HV_OK			= 0,
	HV_INVALID_CODE		= 2,
	HV_INVALID_INPUT	= 3,
	HV_INVALID_ALIGNMENT	= 4,
	HV_INVALID_PARAMETER	= 5,
	HV_ACCESS_DENIED	= 6,
	HV_OPERATION_DENIED	= 8,
	HV_INVALID_PORT		= 17,
};
#define STATUS_EXIT	(~0ULL)		/* user space has the answer */

/* The control word. TLFS 3.7 */
#define CALL_FAST	BIT(16)
#define CALL_VAR(c)	((u16)((c) >> 17 & 0x3ff))	/* variable header, 8-byte units */
#define CALL_REPS(c)	((u16)((c) >> 32 & 0xfff))
#define CALL_START(c)	((u16)((c) >> 48 & 0xfff))
#define CALL_RESERVED	(MASK(31, 27) | MASK(47, 44) | MASK(63, 60))
#define REPS_DONE(n)	((u64)(n) << 32)
#define XMM_HALVES	12u

#define FLUSH_ALL_VPS	BIT(0)
#define SET_SPARSE	0u
#define SET_ALL		1u
#define SET_BANKS	((MAX_VCPUS + 63) / 64)	/* that can have a VP of ours */
#define IPI_FIRST	0x10u
#define IPI_LAST	0xffu
#define SYNDBG_BY_CALLS	BIT(2)			/* HV_SYNDBG_OPTIONS */
#define EVENT_FLAG	MASK(47, 32)		/* "flag number" of a signal */
#define EVENT_ID	MASK(23, 0)

struct call {
	u64 control, in, out;
	u16 code, var, reps, start;
	bool fast;
	u64 xmm[XMM_HALVES];
};

/* Which virtual processors: all, or those in the banks. */
struct vp_set {
	bool all;
	u64 valid;		/* bit n: bank n is given */
	u64 bank[SET_BANKS];	/* by number */
};

/* ---- input -------------------------------------------------------------------------------------- */

static u64 reg_pair(const struct vcpu *v, unsigned int high, unsigned int low)
{
	return v->r[high] << 32 | (u32)v->r[low];
}

static void call_read(const struct vcpu *v, struct call *c)
{
	bool wide = vcpu_64bit(v);

	c->control = wide ? v->r[R_RCX] : reg_pair(v, R_RDX, R_RAX);
	c->in = wide ? v->r[R_RDX] : reg_pair(v, R_RBX, R_RCX);
	c->out = wide ? v->r[R_R8] : reg_pair(v, R_RDI, R_RSI);
	c->code = (u16)c->control;
	c->fast = c->control & CALL_FAST;
	c->var = CALL_VAR(c->control);
	c->reps = CALL_REPS(c->control);
	c->start = CALL_START(c->control);
}

static bool takes_xmm(u16 code)
{
	switch (code) {
	case HV_CALL_FLUSH_SPACE:
	case HV_CALL_FLUSH_LIST:
	case HV_CALL_FLUSH_SPACE_EX:
	case HV_CALL_FLUSH_LIST_EX:
	case HV_CALL_SEND_IPI_EX:
		return true;
	default:
		return false;
	}
}

/* The vector state has been saved by whoever called us. */
static void xmm_read(struct vcpu *v, struct call *c)
{
	if (v->hv->enforce && !(v->hv->cpuid.features_edx & HV_F_XMM_INPUT))
		raise_ud(v);
	memcpy(c->xmm, v->fpu->image.fx.xmm, sizeof(c->xmm));
}

/*
 * The banks that follow the input's fixed part: at byte "at" of it in memory, or behind "used" halves
 * of XMM registers. False: more than there is room for, or no memory.
 */
static bool banks_read(struct vcpu *v, const struct call *c, u32 at, u32 used, struct vp_set *set)
{
	u64 given[SET_BANKS], valid = set->valid;
	u32 n = MIN(c->var, SET_BANKS), k;

	if (c->var > 64 || (c->fast && c->var > XMM_HALVES - used))
		return false;
	if (c->fast)
		memcpy(given, &c->xmm[used], n * sizeof(u64));
	else if (vm_read_guest(v->vm, c->in + at, given, n * sizeof(u64)))
		return false;
	for (k = 0; k < n; k++, valid &= valid - 1)
		if ((u32)__builtin_ctzll(valid) < SET_BANKS)
			set->bank[__builtin_ctzll(valid)] = given[k];
	return true;
}

static bool set_has(const struct vp_set *set, const struct vcpu *v)
{
	u32 index = hv_index(v);

	return set->all || (index < 64 * SET_BANKS && set->bank[index / 64] >> index % 64 & 1);
}

/* ---- translations ------------------------------------------------------------------------------- */

static bool flush_done(const struct vcpu *t)
{
	return !__atomic_load_n(&t->in_guest, __ATOMIC_SEQ_CST) ||
	       !(__atomic_load_n(&t->requests, __ATOMIC_SEQ_CST) & BIT(REQ_TLB_FLUSH));
}

#define WAIT_SPINS	50	/* as in core/code_page.c */

/* Others may wait for us meanwhile: for this very thing, or for code. */
static void flush_wait(struct vcpu *v, const struct vcpu *t)
{
	u32 spins = 0;

	while (!flush_done(t)) {
		code_protect_serve(v);
		if (__atomic_fetch_and(&v->requests, ~(u32)BIT(REQ_TLB_FLUSH), __ATOMIC_SEQ_CST) &
		    BIT(REQ_TLB_FLUSH))
			mmu_flush_all(v);
		if (++spins % WAIT_SPINS)
			__asm__ volatile("pause");
		else
			os_yield();
	}
}

/* When the call returns, nobody uses an old translation any more. Everything is flushed: TLFS 9.4.2 */
static void flush_vps(struct vcpu *v, const struct vp_set *set)
{
	u32 n = load_acquire(&v->vm->nr_vcpus), i;

	for (i = 0; i < n; i++)
		if (v->vm->vcpus[i] != v && set_has(set, v->vm->vcpus[i]))
			vcpu_request_lazy(v->vm->vcpus[i], REQ_TLB_FLUSH);
	if (set_has(set, v))
		mmu_flush_all(v);
	for (i = 0; i < n; i++)
		if (v->vm->vcpus[i] != v && set_has(set, v->vm->vcpus[i]))
			flush_wait(v, v->vm->vcpus[i]);
}

/* Address space, flags, processor mask. */
static u64 call_flush(struct vcpu *v, const struct call *c)
{
	u64 in[3] = { c->in, c->out, c->xmm[0] };
	struct vp_set set;

	if (!c->fast && vm_read_guest(v->vm, c->in, in, sizeof(in)))
		return HV_INVALID_INPUT;
	memset(&set, 0, sizeof(set));
	set.bank[0] = in[2];
	/* Windows Server 2012 means all by an empty mask. */
	set.all = in[1] & FLUSH_ALL_VPS || !in[2];
	flush_vps(v, &set);
	return HV_OK | REPS_DONE(c->reps);
}

/* Address space, flags, then a set: format, valid banks, banks. */
static u64 call_flush_ex(struct vcpu *v, const struct call *c)
{
	u64 in[4] = { c->in, c->out, c->xmm[0], c->xmm[1] };
	struct vp_set set;

	if (!c->fast && vm_read_guest(v->vm, c->in, in, sizeof(in)))
		return HV_INVALID_INPUT;
	if (c->var != bits_set(in[3]))
		return HV_INVALID_INPUT;
	memset(&set, 0, sizeof(set));
	set.valid = in[3];
	set.all = in[2] != SET_SPARSE;
	if (!set.all && c->var && !banks_read(v, c, sizeof(in), 2, &set))
		return HV_INVALID_INPUT;
	if (set.all || c->var)
		flush_vps(v, &set);
	return HV_OK | REPS_DONE(c->reps);
}

/* ---- interrupts --------------------------------------------------------------------------------- */

static u64 send_ipis(struct vcpu *v, u32 vector, const struct vp_set *set)
{
	u32 n = load_acquire(&v->vm->nr_vcpus);

	if (vector < IPI_FIRST || vector > IPI_LAST)
		return HV_INVALID_INPUT;
	for (u32 i = 0; i < n; i++) {
		struct vcpu *t = v->vm->vcpus[i];

		if (t->lapic && set_has(set, t))
			lapic_accept_vector(t->lapic, (u8)vector, false);
	}
	return HV_OK;
}

/* Vector, processor mask. */
static u64 call_ipi(struct vcpu *v, const struct call *c)
{
	u64 in[2] = { c->in, c->out };
	struct vp_set set;

	if (!c->fast && vm_read_guest(v->vm, c->in, in, sizeof(in)))
		return HV_INVALID_INPUT;
	if (c->fast && in[0] >> 32)
		return HV_INVALID_INPUT;
	memset(&set, 0, sizeof(set));
	set.bank[0] = in[1];
	return send_ipis(v, (u32)in[0], &set);
}

/* Vector, then a set. */
static u64 call_ipi_ex(struct vcpu *v, const struct call *c)
{
	u64 in[3] = { c->in, c->out, c->xmm[0] };
	struct vp_set set;

	if (!c->fast && vm_read_guest(v->vm, c->in, in, sizeof(in)))
		return HV_INVALID_INPUT;
	if (c->var != bits_set(in[2]))
		return HV_INVALID_INPUT;
	memset(&set, 0, sizeof(set));
	set.valid = in[2];
	set.all = in[1] == SET_ALL;
	if (!set.all && !c->var)
		return HV_OK;
	if (!set.all && !banks_read(v, c, sizeof(in), 1, &set))
		return HV_INVALID_INPUT;
	return send_ipis(v, (u32)in[0], &set);
}

/* ---- what user space serves --------------------------------------------------------------------- */

static u64 to_user(struct vcpu *v, const struct call *c)
{
	struct kvm_hyperv_exit *e = &v->run->hyperv;

	v->run->exit_reason = KVM_EXIT_HYPERV;
	e->type = KVM_EXIT_HYPERV_HCALL;
	e->u.hcall.input = c->control;
	e->u.hcall.params[0] = c->in;
	e->u.hcall.params[1] = c->out;
	return STATUS_EXIT;
}

static u64 call_post_message(struct vcpu *v, const struct call *c)
{
	return v->hv->synic ? to_user(v, c) : HV_INVALID_INPUT;
}

static bool connection_signal(struct hv_vm *hv, u64 id)
{
	const struct hv_connection *c;

	os_mutex_lock(&hv->lock);
	for (c = hv->connections; c && c->id != id; c = c->next)
		;
	if (c)
		os_eventfd_signal(c->event);
	os_mutex_unlock(&hv->lock);
	return c;
}

/* A connection without a descriptor may be one that user space knows. */
static u64 call_signal_event(struct vcpu *v, struct call *c)
{
	if (!c->fast) {
		if (c->in & 7 || vm_read_guest(v->vm, c->in, &c->in, sizeof(c->in)))
			return HV_INVALID_ALIGNMENT;
	}
	if (!(c->in & EVENT_FLAG)) {
		if (c->in & ~EVENT_ID)
			return HV_INVALID_INPUT;
		if (connection_signal(v->vm->hv, c->in))
			return HV_OK;
	}
	return call_post_message(v, c);
}

static u64 call_debug(struct vcpu *v, const struct call *c)
{
	if (c->fast && c->code != HV_CALL_RESET_DEBUG)
		return HV_INVALID_PARAMETER;
	if (!(v->hv->cpuid.syndbg_eax & HV_D_KERNEL))
		return HV_INVALID_CODE;
	if (!(v->vm->hv->syndbg.options & SYNDBG_BY_CALLS))
		return HV_OPERATION_DENIED;
	return to_user(v, c);
}

/* ---- which -------------------------------------------------------------------------------------- */

/* Repeated calls do all at once, from the start; others have no repetitions. */
static bool form_valid(const struct call *c)
{
	bool reps = c->reps || c->start;

	switch (c->code) {
	case HV_CALL_FLUSH_LIST:
		return !c->var && c->reps && !c->start;
	case HV_CALL_FLUSH_LIST_EX:
		return c->reps && !c->start;
	case HV_CALL_FLUSH_SPACE_EX:
	case HV_CALL_SEND_IPI_EX:
		return !reps;
	case HV_CALL_FLUSH_SPACE:
	case HV_CALL_SEND_IPI:
	case HV_CALL_LONG_SPIN:
	case HV_CALL_POST_MESSAGE:
	case HV_CALL_SIGNAL_EVENT:
		return !reps && !c->var;
	default:
		return true;
	}
}

static u64 call_dispatch(struct vcpu *v, struct call *c)
{
	switch (c->code) {
	case HV_CALL_FLUSH_SPACE:
	case HV_CALL_FLUSH_LIST:
		return call_flush(v, c);
	case HV_CALL_FLUSH_SPACE_EX:
	case HV_CALL_FLUSH_LIST_EX:
		return call_flush_ex(v, c);
	case HV_CALL_SEND_IPI:
		return v->lapic ? call_ipi(v, c) : HV_INVALID_INPUT;
	case HV_CALL_SEND_IPI_EX:
		return v->lapic ? call_ipi_ex(v, c) : HV_INVALID_INPUT;
	case HV_CALL_LONG_SPIN:
		pv_yield(v);
		return HV_OK;
	case HV_CALL_POST_MESSAGE:
		return call_post_message(v, c);
	case HV_CALL_SIGNAL_EVENT:
		return call_signal_event(v, c);
	case HV_CALL_POST_DEBUG:
	case HV_CALL_RETRIEVE_DEBUG:
	case HV_CALL_RESET_DEBUG:
		return call_debug(v, c);
	default:
		return HV_INVALID_CODE;
	}
}

static u64 call_run(struct vcpu *v, struct call *c)
{
	if (!hv_call_allowed(v->hv, c->code))
		return HV_ACCESS_DENIED;
	if (c->control & CALL_RESERVED)
		return HV_INVALID_INPUT;
	if (c->fast && takes_xmm(c->code))
		xmm_read(v, c);
	return form_valid(c) ? call_dispatch(v, c) : HV_INVALID_INPUT;
}

void hv_call_result(struct vcpu *v, u64 result)
{
	if (vcpu_64bit(v)) {
		v->r[R_RAX] = result;
		return;
	}
	v->r[R_RDX] = result >> 32;
	v->r[R_RAX] = (u32)result;
}

/* #UD outside of CPL 0 and in real mode. TLFS 3.4 */
void hv_hypercall(struct vcpu *v, u8 len)
{
	struct call c;
	u64 result;

	if (v->cpl != 0 || !vcpu_protected(v))
		raise_ud(v);
	memset(&c, 0, sizeof(c));
	call_read(v, &c);
	result = call_run(v, &c);
	if (result == STATUS_EXIT) {
		v->hv->call_len = len;
		vcpu_unwind(v, UNWIND_EXIT);
	}
	hv_call_result(v, result);
}
