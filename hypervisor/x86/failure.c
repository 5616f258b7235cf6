/*
 * What cannot be run at all: KVM_EXIT_INTERNAL_ERROR with KVM_INTERNAL_ERROR_EMULATION. Linux
 * Documentation/virt/kvm/api.rst 5, 7.27.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

#define INSN_MAX	15u
#define DATA_FLAGS	1	/* u64s of internal.data that the flags take */
#define DATA_INSN	2	/* and size and bytes of the instruction */

_Static_assert(sizeof(((struct kvm_run *)0)->emulation_failure.insn_bytes) == INSN_MAX, "ABI");

/* Bytes at RIP that can be read, up to n. */
static unsigned int insn_bytes(struct vcpu *v, u8 *out, unsigned int n)
{
	u64 la = v->ebase[SEG_CS] + v->r[R_RIP], gpa;
	unsigned int k;

	for (k = 0; k < n; k++)
		if (mmu_translate(v, la + k, &gpa) ||
			vm_read_guest(v->vm, v->mem_space | gpa, &out[k], 1))
			break;
	return k;
}

void emulation_failed(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	u8 code[INSN_MAX];
	unsigned int n;

	fpu_put(v);
	n = insn_bytes(v, code, INSN_MAX);
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
	run->emulation_failure.flags = 0;
	run->emulation_failure.ndata = DATA_FLAGS;
	if (n) {
		run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
		run->emulation_failure.ndata = DATA_FLAGS + DATA_INSN;
		run->emulation_failure.insn_size = (u8)n;
		memset(run->emulation_failure.insn_bytes, 0x90, INSN_MAX);
		memcpy(run->emulation_failure.insn_bytes, code, n);
	}
	vcpu_unwind(v, UNWIND_EXIT);
}
