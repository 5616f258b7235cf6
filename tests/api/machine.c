/* The small machine of these tests (api.h). */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/api/api.h"

int vcpu_new(int vm, int id, struct kvm_run **run)
{
	int fd = call_num(vm, KVM_CREATE_VCPU, id);
	void *p;

	assert_true(fd >= 0);
	assert_int_equal(api->mmap(fd, RUN_SIZE, &p), 0);
	*run = p;
	return fd;
}

struct kvm_regs get_regs(int vcpu)
{
	struct kvm_regs r;

	assert_int_equal(call(vcpu, KVM_GET_REGS, &r), 0);
	return r;
}

void set_regs(int vcpu, const struct kvm_regs *r)
{
	assert_int_equal(call(vcpu, KVM_SET_REGS, r), 0);
}

struct kvm_sregs get_sregs(int vcpu)
{
	struct kvm_sregs s;

	assert_int_equal(call(vcpu, KVM_GET_SREGS, &s), 0);
	return s;
}

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry e;
};

u64 get_msr(int vcpu, u32 index)
{
	struct one_msr m = { .head.nmsrs = 1, .e.index = index };

	assert_int_equal(call(vcpu, KVM_GET_MSRS, &m), 1);
	return m.e.data;
}

long set_msr(int vcpu, u32 index, u64 val)
{
	struct one_msr m = { .head.nmsrs = 1, .e = { .index = index, .data = val } };

	return call(vcpu, KVM_SET_MSRS, &m);
}

void enable_cap(int fd, u32 cap, u64 arg)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg } };

	assert_int_equal(call(fd, KVM_ENABLE_CAP, &c), 0);
}

void require_cap(struct machine *m, u32 cap)
{
	if (call_num(m->vm, KVM_CHECK_EXTENSION, cap) > 0)
		return;
	machine_free(m);
	print_message("no capability %u\n", cap);
	skip();
}

void real_mode(int vcpu, u64 rip)
{
	struct kvm_regs r = { .rip = rip, .rsp = 0x8000, .rflags = 2 };
	struct kvm_sregs s = get_sregs(vcpu);
	const struct kvm_segment real = { .limit = 0xffff, .type = 3, .present = 1, .s = 1 };
	struct kvm_segment *seg[] = { &s.cs, &s.ds, &s.es, &s.fs, &s.gs, &s.ss };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(seg); i++) {
		/* What flat_mode() made of them; a test's own limits stay. */
		if (s.cr0 & 1)
			*seg[i] = real;
		if (s.cr0 & 1 && seg[i] == &s.cs)
			s.cs.type = 11;
		seg[i]->base = 0;
		seg[i]->selector = 0;
	}
	s.cr0 &= ~1ULL;
	assert_int_equal(call(vcpu, KVM_SET_SREGS, &s), 0);
	set_regs(vcpu, &r);
}

void flat_mode(int vcpu)
{
	const struct kvm_segment code = { .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1,
		.s = 1, .db = 1, .g = 1 };
	const struct kvm_segment data = { .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1,
		.s = 1, .db = 1, .g = 1 };
	struct kvm_sregs s = get_sregs(vcpu);

	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 |= 1;
	assert_int_equal(call(vcpu, KVM_SET_SREGS, &s), 0);
}

/* KVM_CREATE_IRQCHIP, KVM_CAP_SPLIT_IRQCHIP or neither. */
static void chips_new(int vm, int irqchip, u64 pins)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { pins } };

	if (irqchip == WITH_IRQCHIP)
		assert_int_equal(call_num(vm, KVM_CREATE_IRQCHIP, 0), 0);
	else if (irqchip == SPLIT_IRQCHIP)
		assert_int_equal(call(vm, KVM_ENABLE_CAP, &split), 0);
}

static void machine_make(struct machine *m, int irqchip, u64 pins)
{
	struct kvm_userspace_memory_region mem = { .memory_size = RAM_SIZE };

	m->sys = api->open();
	assert_true(m->sys >= 0);
	m->vm = call_num(m->sys, KVM_CREATE_VM, 0);
	assert_true(m->vm >= 0);
	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(m->ram != MAP_FAILED);
	mem.userspace_addr = (u64)m->ram;
	assert_int_equal(call_num(m->vm, KVM_SET_TSS_ADDR, 0xfffbd000), 0);
	assert_int_equal(call(m->vm, KVM_SET_USER_MEMORY_REGION, &mem), 0);
	chips_new(m->vm, irqchip, pins);
	m->vcpu = vcpu_new(m->vm, 0, &m->run);
	real_mode(m->vcpu, CODE_AT);
}

void machine_new(struct machine *m, int irqchip)
{
	machine_make(m, irqchip, 0);
}

void machine_new_split(struct machine *m, u64 pins)
{
	machine_make(m, SPLIT_IRQCHIP, pins);
}

void machine_free(struct machine *m)
{
	munmap(m->run, RUN_SIZE);
	assert_int_equal(api->close(m->vcpu), 0);
	assert_int_equal(api->close(m->vm), 0);
	assert_int_equal(api->close(m->sys), 0);
	munmap(m->ram, RAM_SIZE);
}

void machine_code(struct machine *m, const void *code, size_t size)
{
	memcpy(m->ram + CODE_AT, code, size);
	real_mode(m->vcpu, CODE_AT);
}

void run_to_halt(struct machine *m)
{
	run_until(m, KVM_EXIT_HLT);
}

u64 stat_of(int fd, const char *name)
{
	struct kvm_stats_header h;
	struct { struct kvm_stats_desc d; char name[48]; } d;
	u64 val;
	u32 i;

	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	for (i = 0; i < h.num_desc; i++) {
		assert_int_equal(pread(fd, &d, sizeof(d), h.desc_offset + i * sizeof(d)), sizeof(d));
		if (strcmp(d.name, name))
			continue;
		assert_int_equal(pread(fd, &val, 8, h.data_offset + d.d.offset), 8);
		return val;
	}
	fail_msg("no %s", name);
	return 0;
}
