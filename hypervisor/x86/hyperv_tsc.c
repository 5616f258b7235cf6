/*
 * Hyper-V's reference time, in units of 100 ns: a counter (MSR) and a page from which the guest
 * computes it from its TSC. TLFS 12.4, 12.7.
 *
 * Both are kvmclock's time, so KVM_SET_CLOCK moves them. While the page is valid the counter follows
 * it: the two may never disagree. A guest that has asked for TSC emulation after a migration
 * (HV_TSC_EMULATION) relies on the page's content until it has adapted, so it stays then.
 */
#include "hypervisor/x86/hyperv.h"

#include "hypervisor/x86/muldiv.h"
#include "hypervisor/x86/system.h"

enum { TSC_UNSET, TSC_GUEST_CHANGED, TSC_HOST_CHANGED, TSC_SET, TSC_BROKEN };

#define NS_PER_UNIT	100u

static u64 mul_shr64(u64 a, u64 b)
{
	return (u64)((u128)a * b >> 64);
}

/* The page is for the first vCPU's TSC; it is valid only while all have one offset. */
u64 hv_time(struct vm *vm)
{
	const struct hv_vm *hv = vm->hv;

	if (READ_ONCE(hv->tsc_state) != TSC_SET)
		return kvmclock_now(vm) / NS_PER_UNIT;
	return mul_shr64(tsc_read(vm->vcpus[0]), hv->tsc.scale) + (u64)hv->tsc.offset;
}

/*
 * kvmclock: ns = ((tsc - stamp) << shift) * mul >> 32, plus base. So scale = mul << (32 + shift) / 100,
 * which must fit 64 bits.
 */
static bool page_compute(struct vm *vm, struct hv_tsc_page *page)
{
	struct kvmclock_params p;
	u128 scale;

	if (!kvmclock_params(vm->vcpus[0], &p) || 32 + p.shift < 0)
		return false;
	scale = (u128)p.mul << (32 + p.shift);
	if (scale >> 64 >= NS_PER_UNIT)
		return false;
	page->scale = mul_div(1ULL << (32 + p.shift), p.mul, NS_PER_UNIT);
	/* A clock that was set back is negative where its reference was taken. */
	page->offset = (s64)p.base / (s64)NS_PER_UNIT - (s64)mul_shr64(p.stamp, page->scale);
	return true;
}

static u64 page_at(const struct hv_vm *hv)
{
	return hv->tsc_msr & HV_PAGE_ADDRESS;
}

static int sequence_write(struct vm *vm, u32 sequence)
{
	vm->hv->tsc.sequence = sequence;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vm_write_guest(vm, page_at(vm->hv), &sequence, sizeof(sequence));
}

/* Sequence zero while the rest is written. False: no memory there, or no stable clock. */
static bool page_write(struct vm *vm)
{
	struct hv_vm *hv = vm->hv;
	u64 at = page_at(hv);
	u32 sequence;

	if (vm_read_guest(vm, at, &sequence, sizeof(sequence)))
		return false;
	if (sequence && hv->tsc_state == TSC_HOST_CHANGED && hv->tsc_emulation)
		return !vm_read_guest(vm, at, &hv->tsc, sizeof(hv->tsc));
	if (sequence_write(vm, 0) || !page_compute(vm, &hv->tsc))
		return false;
	if (vm_write_guest(vm, at, &hv->tsc, sizeof(hv->tsc)))
		return false;
	sequence++;
	return !sequence_write(vm, sequence == 0 || sequence == ~0u ? 1 : sequence);
}

static void page_update_locked(struct vm *vm)
{
	struct hv_vm *hv = vm->hv;

	if (hv->tsc_state == TSC_GUEST_CHANGED || hv->tsc_state == TSC_HOST_CHANGED)
		WRITE_ONCE(hv->tsc_state, page_write(vm) ? TSC_SET : TSC_BROKEN);
}

void hv_tsc_page_update(struct vm *vm)
{
	struct hv_vm *hv = vm->hv;

	if (READ_ONCE(hv->tsc_state) != TSC_GUEST_CHANGED &&
	    READ_ONCE(hv->tsc_state) != TSC_HOST_CHANGED)
		return;
	os_mutex_lock(&hv->lock);
	page_update_locked(vm);
	os_mutex_unlock(&hv->lock);
}

void hv_tsc_msr_write(struct vcpu *v, u64 val, bool host)
{
	struct hv_vm *hv = v->vm->hv;

	hv->tsc_msr = val;
	if (!(val & HV_PAGE_ENABLE)) {
		WRITE_ONCE(hv->tsc_state, TSC_UNSET);
		return;
	}
	WRITE_ONCE(hv->tsc_state, host ? TSC_HOST_CHANGED : TSC_GUEST_CHANGED);
	/* User space may not have filled the memory in yet. */
	if (host)
		vcpu_request(v, REQ_CLOCK_UPDATE);
	else
		page_update_locked(v->vm);
}

void hv_clock_changed(struct vm *vm)
{
	struct hv_vm *hv = vm->hv;
	bool update = false;

	if (READ_ONCE(hv->tsc_state) == TSC_UNSET)
		return;
	os_mutex_lock(&hv->lock);
	if (hv->tsc_state == TSC_SET && !hv->tsc_emulation) {
		WRITE_ONCE(hv->tsc_state, TSC_HOST_CHANGED);
		update = true;
	}
	os_mutex_unlock(&hv->lock);
	if (update)
		vm_request_all(vm, REQ_CLOCK_UPDATE);
}
