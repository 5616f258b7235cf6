/*
 * The synthetic interrupt controller: sixteen sources (SINT) a vCPU, each with a slot in the message
 * page and flags in the event page. TLFS 11. The hypervisor posts timer messages itself; all others,
 * and events, user space writes into those pages and then raises the SINT (KVM_IRQ_ROUTING_HV_SINT).
 */
#include "hypervisor/x86/hyperv.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/chips.h"
#include "hypervisor/irqchip/lapic.h"

#define SYNIC_VERSION	1u
#define FIRST_VECTOR	16u
#define MESSAGE_SLOT	256u
#define MESSAGE_PENDING	1u

void hv_synic_init(struct hv_vcpu *hv)
{
	hv->version = SYNIC_VERSION;
	for (unsigned int i = 0; i < HV_SINTS; i++) {
		hv->sint[i] = HV_SINT_MASKED;
		hv->gsi[i] = -1;
	}
}

/* ---- sources ------------------------------------------------------------------------------------ */

/* -1: masked. */
static int sint_vector(const struct hv_vcpu *hv, u32 sint)
{
	u64 val = READ_ONCE(hv->sint[sint]);

	return val & HV_SINT_MASKED ? -1 : (int)(val & HV_SINT_VECTOR);
}

static bool vector_used(const struct hv_vcpu *hv, u8 vector, u64 with)
{
	for (u32 i = 0; i < HV_SINTS; i++)
		if (sint_vector(hv, i) == vector && (READ_ONCE(hv->sint[i]) & with) == with)
			return true;
	return false;
}

bool hv_auto_eoi(const struct vcpu *v, u8 vector)
{
	return vector_used(v->hv, vector, HV_SINT_AUTO_EOI);
}

bool hv_wants_ack(const struct vcpu *v, u8 vector)
{
	return vector_used(v->hv, vector, 0);
}

static int sint_deliver(const struct vcpu *v, u32 sint)
{
	int vector = sint_vector(v->hv, sint);

	if (vector < 0)
		return -ENOENT;
	return lapic_accept_vector(v->lapic, (u8)vector, false);
}

/* Its vCPU, if that has a controller in use. */
static struct vcpu *synic_find(const struct vm *vm, u32 vp_index)
{
	struct vcpu *v = hv_vcpu_by_index(vm, vp_index);
	const struct hv_vcpu *hv = v ? load_acquire(&v->hv) : NULL;

	return hv && READ_ONCE(hv->synic) ? v : NULL;
}

int hv_sint_raise(struct vm *vm, u32 vp_index, u32 sint)
{
	const struct vcpu *v = synic_find(vm, vp_index);

	return v && sint < HV_SINTS ? sint_deliver(v, sint) : -EINVAL;
}

void hv_sint_set_gsi(struct vm *vm, u32 vp_index, u32 sint, u32 gsi)
{
	struct vcpu *v = synic_find(vm, vp_index);

	if (v && sint < HV_SINTS)
		WRITE_ONCE(v->hv->gsi[sint], (s32)gsi);
}

/* The guest has ended an interrupt of this SINT, or freed message slots. */
static void sint_acked(struct vcpu *v, u32 sint)
{
	s32 gsi = READ_ONCE(v->hv->gsi[sint]);

	hv_stimer_slot_free(v, sint);
	if (gsi >= 0 && v->vm->irqchip)
		irqchip_gsi_acked(v->vm, (u32)gsi);
}

void hv_acked(struct vcpu *v, u8 vector)
{
	for (u32 i = 0; i < HV_SINTS; i++)
		if (sint_vector(v->hv, i) == vector)
			sint_acked(v, i);
}

/* ---- messages ----------------------------------------------------------------------------------- */

/* The guest tells by EOM when it has made room. */
static int slot_taken(struct vcpu *v, u64 slot, bool drop)
{
	const u8 flags = MESSAGE_PENDING;

	if (drop)
		return 0;
	if (vm_write_guest(v->vm, slot + offsetof(struct hv_message, flags), &flags, sizeof(flags)))
		return -EFAULT;
	return -EAGAIN;
}

int hv_message_post(struct vcpu *v, u32 sint, const struct hv_message *m, bool drop)
{
	u64 slot = (v->hv->message_page & HV_PAGE_ADDRESS) + sint * MESSAGE_SLOT;
	u32 type;
	int ret;

	if (!(v->hv->message_page & HV_PAGE_ENABLE))
		return -ENOENT;
	if (vm_read_guest(v->vm, slot, &type, sizeof(type)))
		return -EFAULT;
	if (type)
		return slot_taken(v, slot, drop);
	if (vm_write_guest(v->vm, slot, m, sizeof(*m)))
		return -EFAULT;
	ret = sint_deliver(v, sint);
	if (ret < 0)
		return ret;
	return ret ? 0 : -EFAULT;
}

/* ---- registers ---------------------------------------------------------------------------------- */

static void synic_exit(struct vcpu *v, u32 index)
{
	struct hv_vcpu *hv = v->hv;

	memset(&hv->exit, 0, sizeof(hv->exit));
	hv->exit.type = KVM_EXIT_HYPERV_SYNIC;
	hv->exit.u.synic.msr = index;
	hv->exit.u.synic.control = hv->control;
	hv->exit.u.synic.evt_page = hv->event_page;
	hv->exit.u.synic.msg_page = hv->message_page;
	hv_request_now(v, HV_DO_EXIT);
}

static int page_clear(struct vm *vm, u64 gpa)
{
	static const u8 zeros[512];

	for (unsigned int at = 0; at < 4096; at += sizeof(zeros))
		if (vm_write_guest(vm, gpa + at, zeros, sizeof(zeros)))
			return -EINVAL;
	return 0;
}

static int set_page(struct vcpu *v, u64 *page, u64 val, bool host)
{
	if (val & HV_PAGE_ENABLE && !host && !v->hv->keep_pages &&
	    page_clear(v->vm, val & HV_PAGE_ADDRESS))
		return -EINVAL;
	*page = val;
	return 0;
}

/* TLFS 11.8.4. A masked one may have any vector: Hyper-V itself writes 0x10000 as a guest. */
static int set_sint(struct hv_vcpu *hv, u32 sint, u64 val, bool host)
{
	if ((val & HV_SINT_VECTOR) < FIRST_VECTOR && !host && !(val & HV_SINT_MASKED))
		return -EINVAL;
	WRITE_ONCE(hv->sint[sint], val);
	return 0;
}

static int synic_set(struct vcpu *v, u32 index, u64 val, bool host)
{
	struct hv_vcpu *hv = v->hv;

	switch (index) {
	case HV_SCONTROL:
		hv->control = val;
		return 0;
	case HV_SIEFP:
		return set_page(v, &hv->event_page, val, host);
	case HV_SIMP:
		return set_page(v, &hv->message_page, val, host);
	case HV_SVERSION:
		if (host)
			hv->version = val;
		return host ? 0 : -EINVAL;
	case HV_EOM:
		for (u32 i = 0; hv->synic && i < HV_SINTS; i++)
			sint_acked(v, i);
		return 0;
	default:
		return set_sint(hv, index - HV_SINT0, val, host);
	}
}

int hv_synic_write(struct vcpu *v, u32 index, u64 val, bool host)
{
	int ret;

	if (!v->hv->synic && (!host || val))
		return -EINVAL;
	ret = synic_set(v, index, val, host);
	if (!ret && !host && (index == HV_SCONTROL || index == HV_SIEFP || index == HV_SIMP))
		synic_exit(v, index);
	return ret;
}

u64 hv_synic_read(const struct vcpu *v, u32 index)
{
	const struct hv_vcpu *hv = v->hv;

	switch (index) {
	case HV_SCONTROL: return hv->control;
	case HV_SVERSION: return hv->version;
	case HV_SIEFP: return hv->event_page;
	case HV_SIMP: return hv->message_page;
	case HV_EOM: return 0;
	default: return hv->sint[index - HV_SINT0];
	}
}
