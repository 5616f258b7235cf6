/* Single instructions in a flat machine (flat.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/api/flat.h"

/* What a shutdown has left. */
static void no_exception(int vcpu)
{
	struct kvm_vcpu_events e;

	assert_int_equal(call(vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	e.exception.injected = 0;
	e.exception.pending = 0;
	assert_int_equal(call(vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
}

/* Any exception is a shutdown. */
static void no_handlers(int vcpu)
{
	struct kvm_sregs s;

	flat_mode(vcpu);
	s = get_sregs(vcpu);
	s.idt.limit = 0;
	assert_int_equal(call(vcpu, KVM_SET_SREGS, &s), 0);
}

u32 flat_go_on(struct machine *m, struct kvm_regs *r)
{
	assert_int_equal(call_num(m->vcpu, KVM_RUN, 0), 0);
	*r = get_regs(m->vcpu);
	if (m->run->exit_reason == KVM_EXIT_IO)
		assert_int_equal(m->run->io.port, 0x10);
	return m->run->exit_reason;
}

u32 flat_insn(struct machine *m, const u8 *insn, size_t size, struct kvm_regs *r)
{
	static const u8 out[] = { 0xe6, 0x10 };

	memcpy(m->ram + CODE_AT, insn, size);
	memcpy(m->ram + CODE_AT + size, out, sizeof(out));
	no_exception(m->vcpu);
	no_handlers(m->vcpu);
	r->rip = CODE_AT;
	r->rsp = 0x8000;
	r->rflags = 2;
	set_regs(m->vcpu, r);
	return flat_go_on(m, r);
}

u32 flat_wrmsr(struct machine *m, u32 index, u64 val)
{
	static const u8 insn[] = { 0x0f, 0x30 };
	struct kvm_regs r = { .rcx = index, .rax = (u32)val, .rdx = val >> 32 };

	return flat_insn(m, insn, sizeof(insn), &r);
}

u32 flat_rdmsr(struct machine *m, u32 index, u64 *val)
{
	static const u8 insn[] = { 0x0f, 0x32 };
	struct kvm_regs r = { .rcx = index };
	u32 ret = flat_insn(m, insn, sizeof(insn), &r);

	*val = (u32)r.rax | r.rdx << 32;
	return ret;
}

s32 flat_hypercall(struct machine *m, u32 nr, u32 b, u32 c, u32 d, u32 s)
{
	static const u8 insn[] = { 0x0f, 0x01, 0xc1 };
	struct kvm_regs r = { .rax = nr, .rbx = b, .rcx = c, .rdx = d, .rsi = s };

	assert_int_equal(flat_insn(m, insn, sizeof(insn), &r), KVM_EXIT_IO);
	return (s32)r.rax;
}

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry e;
};

long msr_put(int vcpu, u32 index, u64 val)
{
	struct one_msr m = { .head.nmsrs = 1, .e = { .index = index, .data = val } };

	return call(vcpu, KVM_SET_MSRS, &m);
}

long msr_get(int vcpu, u32 index, u64 *val)
{
	struct one_msr m = { .head.nmsrs = 1, .e = { .index = index } };
	long ret = call(vcpu, KVM_GET_MSRS, &m);

	*val = m.e.data;
	return ret;
}

static struct kvm_cpuid2 *cpuid_get(int fd, unsigned long request)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	c->nent = 256;
	assert_int_equal(call(fd, request, c), 0);
	return c;
}

void cpuid_with(struct machine *m, u32 at, bool hyperv)
{
	struct kvm_cpuid2 *c = cpuid_get(m->sys, KVM_GET_SUPPORTED_CPUID), *hv;
	u32 i;

	for (i = 0; i < c->nent; i++)
		if (c->entries[i].function >> 8 == 0x400000)
			c->entries[i].function += at;
	if (hyperv) {
		hv = cpuid_get(m->sys, KVM_GET_SUPPORTED_HV_CPUID);
		memcpy(c->entries + c->nent, hv->entries, hv->nent * sizeof(hv->entries[0]));
		c->nent += hv->nent;
		free(hv);
	}
	assert_int_equal(call(m->vcpu, KVM_SET_CPUID2, c), 0);
	free(c);
}

bool lapic_requested(int vcpu, u8 vector)
{
	struct kvm_lapic_state s;

	assert_int_equal(call(vcpu, KVM_GET_LAPIC, &s), 0);
	return s.regs[0x200 + (vector >> 5) * 16 + (vector >> 3 & 3)] >> (vector & 7) & 1;
}

void lapic_enable(int vcpu)
{
	struct kvm_lapic_state s;

	assert_int_equal(call(vcpu, KVM_GET_LAPIC, &s), 0);
	s.regs[0xf1] |= 1;
	assert_int_equal(call(vcpu, KVM_SET_LAPIC, &s), 0);
}
