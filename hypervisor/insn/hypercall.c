/*
 * VMCALL and VMMCALL. APM 3 VMMCALL, SDM 3C VMCALL; the calls: Linux
 * Documentation/virt/kvm/x86/hypercalls.rst (x86/pv_call.c), Hyper-V's TLFS (x86/hyperv_call.c).
 *
 * Each vendor's processor has one of the two. KVM lets a guest use the other as well: it writes the
 * vendor's own over it and goes on, unless user space has disabled KVM_X86_QUIRK_FIX_HYPERCALL_INSN;
 * then it is an invalid opcode. Unlike KVM, which passes the page fault of that write on to the
 * guest, we leave read-only code as it is, and the call works.
 */
#include <linux/errno.h>
#include <linux/kvm_para.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/insn/exec.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/hyperv.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

#define VMCALL_LAST	0xc1
#define VMMCALL_LAST	0xd9

/* 0F 01 C1 against 0F 01 D9: the last byte, where it may be written. */
static void insn_fix(struct vcpu *v, const struct insn *i, u8 last)
{
	u64 la = v->ebase[SEG_CS] + v->r[R_RIP] + i->len - 1;
	const struct memslot *s;
	struct mmu_map map;
	u32 error;

	if (!vcpu_64bit(v))
		la = (u32)la;
	if (v->cpl != 0 || mmu_walk(v, la, MEM_WRITE, MMU_KERNEL_SMAP, &map, &error))
		return;
	s = memslot_find(v->vm, map.gpa);
	if (s && !(s->flags & KVM_MEM_READONLY))
		sys_write(v, la, 1, last);
}

static void insn_check(struct vcpu *v, const struct insn *i, bool native, u8 last)
{
	if (likely(native))
		return;
	if (v->vm->disabled_quirks & KVM_X86_QUIRK_FIX_HYPERCALL_INSN)
		raise_ud(v);
	insn_fix(v, i, last);
}

static void hypercall(struct vcpu *v, const struct insn *i)
{
	unsigned int size = vcpu_64bit(v) ? 8 : 4;
	s64 ret = -KVM_EPERM;

	fpu_put(v);
	if (hv_calls_enabled(v)) {
		hv_hypercall(v, i->len);
		return;
	}
	if (v->cpl == 0)
		ret = pv_hypercall(v);
	gpr_set(v, R_RAX * 8, size, (u64)ret);
}

void exec_vmcall(struct vcpu *v, const struct insn *i)
{
	insn_check(v, i, !vcpu_amd(v), VMMCALL_LAST);
	hypercall(v, i);
}

void exec_vmmcall(struct vcpu *v, const struct insn *i)
{
	insn_check(v, i, vcpu_amd(v), VMCALL_LAST);
	hypercall(v, i);
}
