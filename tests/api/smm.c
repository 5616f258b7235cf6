/* System management mode: KVM_SMI, its address space, the save area, RSM. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/api/api.h"

#define SMRAM_AT	0x30000
#define SMRAM_SIZE	0x20000
#define AREA_AT		0x8000	/* of the offsets in the documents, from SMBASE */
#define CPUS_SPACE(n)	((n) << 16)
#define OUT_PORT	0xe0

struct smm_machine {
	struct machine m;
	u8 *smram;	/* in SMM only */
};

static void slot(struct machine *m, u32 id, u64 gpa, u64 size, void *mem)
{
	struct kvm_userspace_memory_region r = {
		.slot = id, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (u64)mem,
	};

	assert_int_equal(call(m->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
}

static void require_smm(int sys)
{
	if (call_num(sys, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) > 0)
		return;
	print_message("no KVM_CAP_X86_SMM\n");
	skip();
}

static void smm_new(struct smm_machine *s, int irqchip)
{
	int fd = api->open();

	require_smm(fd);
	api->close(fd);
	machine_new(&s->m, irqchip);
	s->smram = mmap(NULL, SMRAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(s->smram != MAP_FAILED);
	slot(&s->m, CPUS_SPACE(1), 0, RAM_SIZE, s->m.ram);
	slot(&s->m, CPUS_SPACE(1) | 1, SMRAM_AT, SMRAM_SIZE, s->smram);
}

static void smm_free(struct smm_machine *s)
{
	machine_free(&s->m);
	munmap(s->smram, SMRAM_SIZE);
}

/* out 0xe0, al; rsm, for a given SMBASE */
static void handler(struct smm_machine *s, u32 smbase)
{
	memcpy(s->smram + smbase - SMRAM_AT + 0x8000, "\xe6\xe0\x0f\xaa", 4);
}

static void *area(struct smm_machine *s, u32 off)
{
	return s->smram + AREA_AT + off;
}

static u64 area64(struct smm_machine *s, u32 off)
{
	u64 val;

	memcpy(&val, area(s, off), sizeof(val));
	return val;
}

static u32 area32(struct smm_machine *s, u32 off)
{
	return (u32)area64(s, off);
}

static void area_set(struct smm_machine *s, u32 off, const void *val, size_t size)
{
	memcpy(area(s, off), val, size);
}

static void smi(struct smm_machine *s)
{
	assert_int_equal(call_num(s->m.vcpu, KVM_SMI, 0), 0);
}

static void run_to_handler(struct smm_machine *s)
{
	run_until(&s->m, KVM_EXIT_IO);
	assert_int_equal(s->m.run->io.port, OUT_PORT);
	assert_int_equal(s->m.run->flags & KVM_RUN_X86_SMM, KVM_RUN_X86_SMM);
}

static void run_back(struct smm_machine *s)
{
	run_to_halt(&s->m);
	assert_int_equal(s->m.run->flags & KVM_RUN_X86_SMM, 0);
}

static struct kvm_vcpu_events get_events(struct smm_machine *s)
{
	struct kvm_vcpu_events e;

	assert_int_equal(call(s->m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	return e;
}

static long set_events(struct smm_machine *s, const struct kvm_vcpu_events *e)
{
	return call(s->m.vcpu, KVM_SET_VCPU_EVENTS, e);
}

static void supported_cpuid(struct machine *m)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	assert_non_null(c);
	c->nent = 256;
	assert_int_equal(call(m->sys, KVM_GET_SUPPORTED_CPUID, c), 0);
	assert_int_equal(call(m->vcpu, KVM_SET_CPUID2, c), 0);
	free(c);
}

/* inc bx; hlt; jmp back: a program that notices when its registers change. */
#define PROGRAM(m) CODE(m, 0x43, 0xf4, 0xeb, 0xfc)

static void test_handler_state(void **state)
{
	struct kvm_vcpu_events e;
	struct smm_machine s;
	struct kvm_sregs sr;

	smm_new(&s, PLAIN);
	handler(&s, SMRAM_AT);
	PROGRAM(&s.m);
	run_to_halt(&s.m);
	e = get_events(&s);
	assert_int_equal(e.smi.smm | e.smi.pending | e.nmi.masked, 0);
	smi(&s);
	assert_int_equal(get_events(&s).smi.pending, 1);
	run_to_handler(&s);
	sr = get_sregs(s.m.vcpu);
	assert_int_equal(sr.cs.base, SMRAM_AT);
	assert_int_equal(sr.cs.selector, SMRAM_AT >> 4);
	assert_int_equal(sr.cs.limit, 0xffffffff);
	assert_int_equal(sr.ds.base, 0);
	assert_int_equal(sr.ss.limit, 0xffffffff);
	assert_int_equal(sr.cr4 | sr.efer | sr.idt.limit, 0);
	assert_int_equal(get_regs(s.m.vcpu).rflags, 2);
	e = get_events(&s);
	assert_int_equal(e.smi.smm, 1);
	assert_int_equal(e.smi.pending, 0);
	assert_int_equal(e.smi.smm_inside_nmi, 0);
	assert_int_equal(e.nmi.masked, 1);
	run_back(&s);
	e = get_events(&s);
	assert_int_equal(e.smi.smm | e.nmi.masked, 0);
	assert_int_equal(get_regs(s.m.vcpu).rbx, 2);
	assert_int_equal(get_regs(s.m.vcpu).rip, CODE_AT + 2);
	assert_int_equal(get_sregs(s.m.vcpu).cs.base, 0);
	assert_int_equal(get_msr(s.m.vcpu, 0x34), 1);
	smm_free(&s);
}

/* Without long mode: APM's legacy area. */
static void test_area_32(void **state)
{
	struct kvm_dtable gdt = { .base = 0x1234, .limit = 0x77 };
	struct kvm_sregs sr, after;
	struct smm_machine s;
	struct kvm_regs r;
	u32 bx = 0x40;

	smm_new(&s, PLAIN);
	handler(&s, SMRAM_AT);
	PROGRAM(&s.m);
	sr = get_sregs(s.m.vcpu);
	sr.gdt = gdt;
	sr.fs.base = 0x1000;
	sr.fs.selector = 0x100;
	assert_int_equal(call(s.m.vcpu, KVM_SET_SREGS, &sr), 0);
	r = get_regs(s.m.vcpu);
	r.rax = 0x11111111; r.rcx = 0x22222222; r.rdx = 0x33333333; r.rbx = 0x44444444;
	r.rbp = 0x66666666; r.rsi = 0x77777777; r.rdi = 0x88888888;
	set_regs(s.m.vcpu, &r);
	smi(&s);
	run_to_handler(&s);
	assert_int_equal(area32(&s, 0x7efc), 0x20000);
	assert_int_equal(area32(&s, 0x7ef8), SMRAM_AT);
	assert_int_equal(area32(&s, 0x7ffc), sr.cr0);
	assert_int_equal(area32(&s, 0x7ff4), 2);
	assert_int_equal(area32(&s, 0x7ff0), CODE_AT);
	assert_int_equal(area32(&s, 0x7fd0), 0x11111111);
	assert_int_equal(area32(&s, 0x7fd4), 0x22222222);
	assert_int_equal(area32(&s, 0x7fd8), 0x33333333);
	assert_int_equal(area32(&s, 0x7fdc), 0x44444444);
	assert_int_equal(area32(&s, 0x7fe0), 0x8000);
	assert_int_equal(area32(&s, 0x7fe4), 0x66666666);
	assert_int_equal(area32(&s, 0x7fe8), 0x77777777);
	assert_int_equal(area32(&s, 0x7fec), 0x88888888);
	assert_int_equal(area32(&s, 0x7f74), 0x1234);
	assert_int_equal(area32(&s, 0x7f70), 0x77);
	assert_int_equal(area32(&s, 0x7fb8), 0x100);	/* FS: selector, attributes, limit, base */
	assert_int_equal(area32(&s, 0x7f38), 0x9300);
	assert_int_equal(area32(&s, 0x7f3c), 0xffff);
	assert_int_equal(area32(&s, 0x7f40), 0x1000);
	area_set(&s, 0x7fdc, &bx, 4);
	run_back(&s);
	assert_int_equal(get_regs(s.m.vcpu).rbx, 0x41);
	assert_int_equal(get_regs(s.m.vcpu).rdi, 0x88888888);
	after = get_sregs(s.m.vcpu);
	assert_memory_equal(&after.fs, &sr.fs, sizeof(sr.fs));
	assert_memory_equal(&after.tr, &sr.tr, sizeof(sr.tr));
	assert_int_equal(after.gdt.base, 0x1234);
	smm_free(&s);
}

#define P(n)	((n) * 0x1000)

/* 64-bit mode with the first 2 MiB mapped one to one. */
static void long_mode(struct machine *m)
{
	struct kvm_segment code = { .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1,
		.s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1,
		.s = 1, .db = 1, .g = 1 };
	struct kvm_sregs sr = get_sregs(m->vcpu);

	*(u64 *)(m->ram + P(4)) = P(5) | 3;
	*(u64 *)(m->ram + P(5)) = P(6) | 3;
	*(u64 *)(m->ram + P(6)) = 0x83;
	sr.cs = code;
	sr.ds = sr.es = sr.ss = sr.fs = sr.gs = data;
	sr.gs.base = 0xffff888812345678;
	sr.cr0 = 0x80000031;
	sr.cr3 = P(4);
	sr.cr4 = 0x20;
	sr.efer = 0x500;
	assert_int_equal(call(m->vcpu, KVM_SET_SREGS, &sr), 0);
}

static void test_area_64(void **state)
{
	struct kvm_sregs before, after;
	struct smm_machine s;
	struct kvm_regs r;
	u64 r15 = 0x123456789abcdef0;

	smm_new(&s, PLAIN);
	supported_cpuid(&s.m);
	handler(&s, SMRAM_AT);
	CODE(&s.m, 0x49, 0xff, 0xc7, 0xf4);	/* inc r15; hlt */
	long_mode(&s.m);
	r = get_regs(s.m.vcpu);
	r.rax = 0xaaaaaaaa11111111;
	r.r8 = 0x8888888899999999;
	set_regs(s.m.vcpu, &r);
	before = get_sregs(s.m.vcpu);
	smi(&s);
	run_to_handler(&s);
	assert_int_equal(get_sregs(s.m.vcpu).efer, 0);
	assert_int_equal(get_sregs(s.m.vcpu).cr0 & 0x80000001, 0);
	assert_int_equal(area32(&s, 0x7efc), 0x20064);
	assert_int_equal(area32(&s, 0x7f00), SMRAM_AT);
	assert_int_equal(area64(&s, 0x7ff8), 0xaaaaaaaa11111111);
	assert_int_equal(area64(&s, 0x7fd8), 0x8000);
	assert_int_equal(area64(&s, 0x7fb8), 0x8888888899999999);
	assert_int_equal(area64(&s, 0x7f78), CODE_AT);
	assert_int_equal(area64(&s, 0x7f58), 0x80000031);
	assert_int_equal(area64(&s, 0x7f50), P(4));
	assert_int_equal(area64(&s, 0x7f48), 0x20);
	assert_int_equal(area64(&s, 0x7ed0), 0x500);
	assert_int_equal(area32(&s, 0x7e10), 0xa09b0008);	/* CS: selector, attributes */
	assert_int_equal(area64(&s, 0x7e58), 0xffff888812345678);
	area_set(&s, 0x7f80, &r15, 8);
	run_back(&s);
	assert_int_equal(get_regs(s.m.vcpu).r15, r15 + 1);
	after = get_sregs(s.m.vcpu);
	assert_memory_equal(&after.cs, &before.cs, sizeof(before.cs));
	assert_memory_equal(&after.gs, &before.gs, sizeof(before.gs));
	assert_memory_equal(&after.cr0, &before.cr0, 6 * sizeof(u64));
	smm_free(&s);
}

/* One address, two memories: data and code. */
static void test_address_spaces(void **state)
{
	struct smm_machine s;
	u8 *other = mmap(NULL, P(1), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int i;

	smm_new(&s, PLAIN);
	slot(&s.m, 7, 0x38000, P(1), other);
	/* Code at 3000:8000 in both. Outside: inc bx; hlt; jmp back. Inside: add bx, 0x10; rsm */
	memcpy(other, "\x43\xf4\xeb\xfc", 4);
	memcpy(s.smram + 0x8000, "\x80\x06\x00\x60\x10\x0f\xaa", 7);	/* add byte [0x6000], 16; rsm */
	real_mode(s.m.vcpu, 0x8000);
	{
		struct kvm_sregs sr = get_sregs(s.m.vcpu);

		sr.cs.base = SMRAM_AT;
		sr.cs.selector = SMRAM_AT >> 4;
		assert_int_equal(call(s.m.vcpu, KVM_SET_SREGS, &sr), 0);
	}
	for (i = 1; i < 8; i++) {
		smi(&s);
		run_back(&s);
		assert_int_equal(s.m.ram[0x6000], i * 16);
		assert_int_equal(get_regs(s.m.vcpu).rbx, i);
	}
	/* SMRAM is nothing to those outside. */
	CODE(&s.m, 0xb8, 0x00, 0x30, 0x8e, 0xd8, 0xa0, 0x00, 0x00, 0xf4); /* mov al, [3000:0] */
	run_until(&s.m, KVM_EXIT_MMIO);
	assert_int_equal(s.m.run->mmio.phys_addr, SMRAM_AT);
	smm_free(&s);
	munmap(other, P(1));
}

/* The same for code that is translated: long mode outside, flat protected mode inside. */
static void test_translated_code(void **state)
{
	struct smm_machine s;
	u8 *other = mmap(NULL, P(1), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_regs r;
	int i;

	smm_new(&s, PLAIN);
	supported_cpuid(&s.m);
	slot(&s.m, 7, 0x39000, P(1), other);
	handler(&s, SMRAM_AT);
	/* Outside: inc rbx; hlt; jmp back. Inside: add byte [0x7000], 16; out 0xe1, al; rsm */
	memcpy(other, "\x48\xff\xc3\xf4\xeb\xfa", 6);
	memcpy(s.smram + 0x9000, "\x80\x05\x00\x70\x00\x00\x10\xe6\xe1\x0f\xaa", 11);
	CODE(&s.m, 0xf4);
	long_mode(&s.m);
	r = get_regs(s.m.vcpu);
	r.rip = 0x39000;
	set_regs(s.m.vcpu, &r);
	for (i = 1; i < 8; i++) {
		run_back(&s);
		smi(&s);
		run_to_handler(&s);
		flat_mode(s.m.vcpu);
		r = get_regs(s.m.vcpu);
		r.rip = 0x39000;
		set_regs(s.m.vcpu, &r);
		run_until(&s.m, KVM_EXIT_IO);
		assert_int_equal(s.m.run->io.port, 0xe1);
		assert_int_equal(s.m.ram[0x7000], i * 16);
	}
	run_back(&s);
	assert_int_equal(get_regs(s.m.vcpu).rbx, 8);
	assert_int_equal(get_regs(s.m.vcpu).rip, 0x39004);
	smm_free(&s);
	munmap(other, P(1));
}

/* A device inside SMM is at the same address, and user space learns whose access it is. */
static void test_mmio_inside(void **state)
{
	struct smm_machine s;

	smm_new(&s, PLAIN);
	/* mov ax, 0xd000; mov ds, ax; mov [4], al; rsm */
	memcpy(s.smram + 0x8000, "\xb8\x00\xd0\x8e\xd8\xa2\x04\x00\x0f\xaa", 10);
	PROGRAM(&s.m);
	smi(&s);
	run_until(&s.m, KVM_EXIT_MMIO);
	assert_int_equal(s.m.run->mmio.phys_addr, 0xd0004);
	assert_int_equal(s.m.run->flags & KVM_RUN_X86_SMM, KVM_RUN_X86_SMM);
	run_back(&s);
	smm_free(&s);
}

static void test_slot_arguments(void **state)
{
	struct kvm_userspace_memory_region r = {
		.slot = CPUS_SPACE(2), .guest_phys_addr = 0x100000, .memory_size = P(1),
	};
	struct kvm_dirty_log log = { .slot = CPUS_SPACE(2) };
	struct smm_machine s;
	u64 bits = 0;

	smm_new(&s, PLAIN);
	assert_int_equal(call_num(s.m.vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE), 2);
	r.userspace_addr = (u64)s.smram;
	assert_int_equal(call(s.m.vm, KVM_SET_USER_MEMORY_REGION, &r), -EINVAL);
	assert_int_equal(call(s.m.vm, KVM_GET_DIRTY_LOG, &log), -EINVAL);
	/* Overlap counts within one space. */
	r.slot = CPUS_SPACE(1) | 5;
	r.guest_phys_addr = SMRAM_AT;
	assert_int_equal(call(s.m.vm, KVM_SET_USER_MEMORY_REGION, &r), -EEXIST);
	r.slot = 5;
	assert_int_equal(call(s.m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	/* The state is logged where it goes. */
	slot(&s.m, CPUS_SPACE(1) | 1, 0, 0, NULL);
	r.slot = CPUS_SPACE(1) | 1;
	r.flags = KVM_MEM_LOG_DIRTY_PAGES;
	r.memory_size = SMRAM_SIZE;
	assert_int_equal(call(s.m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	handler(&s, SMRAM_AT);
	PROGRAM(&s.m);
	smi(&s);
	run_to_handler(&s);
	log.slot = CPUS_SPACE(1) | 1;
	log.dirty_bitmap = &bits;
	assert_int_equal(call(s.m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	assert_int_equal(bits, BIT(15));
	smm_free(&s);
}

static void test_smbase(void **state)
{
	const u32 base = SMRAM_AT + 0x10000;
	struct smm_machine s;

	smm_new(&s, PLAIN);
	handler(&s, SMRAM_AT);
	handler(&s, base);
	PROGRAM(&s.m);
	assert_int_equal(get_msr(s.m.vcpu, 0x9e), SMRAM_AT);
	smi(&s);
	run_to_handler(&s);
	area_set(&s, 0x7ef8, &base, 4);
	run_back(&s);
	assert_int_equal(get_msr(s.m.vcpu, 0x9e), base);
	smi(&s);
	run_to_handler(&s);
	assert_int_equal(get_sregs(s.m.vcpu).cs.base, base);
	run_back(&s);
	assert_int_equal(get_regs(s.m.vcpu).rbx, 2);
	smm_free(&s);
}

/* A second SMI and an NMI wait for RSM; the SMI goes first. */
static void test_blocking(void **state)
{
	struct smm_machine s;

	smm_new(&s, PLAIN);
	handler(&s, SMRAM_AT);
	PROGRAM(&s.m);
	*(u32 *)(s.m.ram + 2 * 4) = 0x1800;
	memcpy(s.m.ram + 0x1800, "\xb0\x77\xf4\xcf", 4);	/* mov al, 0x77; hlt; iret */
	smi(&s);
	run_to_handler(&s);
	smi(&s);
	assert_int_equal(call_num(s.m.vcpu, KVM_NMI, 0), 0);
	run_to_handler(&s);
	assert_int_equal(area32(&s, 0x7ff0), CODE_AT);
	run_back(&s);
	assert_int_equal(get_regs(s.m.vcpu).rip, 0x1803);
	/* Inside the NMI's handler: NMIs stay blocked behind RSM. */
	smi(&s);
	run_to_handler(&s);
	assert_int_equal(get_events(&s).smi.smm_inside_nmi, 1);
	assert_int_equal(call_num(s.m.vcpu, KVM_NMI, 0), 0);
	s.m.ram[0x1803] = 0xf4;
	run_back(&s);
	assert_int_equal(get_regs(s.m.vcpu).rip, 0x1804);
	assert_int_equal(get_events(&s).nmi.masked, 1);
	assert_int_equal(get_events(&s).nmi.pending, 1);
	smm_free(&s);
}

/* User space moves a vCPU into the mode and out. */
static void test_set_events(void **state)
{
	struct kvm_vcpu_events e;
	struct smm_machine s;

	smm_new(&s, PLAIN);
	handler(&s, SMRAM_AT);
	PROGRAM(&s.m);
	smi(&s);
	run_to_handler(&s);
	e = get_events(&s);
	e.smi.smm = 0;
	assert_int_equal(set_events(&s, &e), 0);
	CODE(&s.m, 0xf4);
	run_back(&s);
	e = get_events(&s);
	e.smi.pending = 1;
	assert_int_equal(set_events(&s, &e), 0);
	run_to_handler(&s);
	e = get_events(&s);
	e.smi.smm_inside_nmi = 1;
	assert_int_equal(set_events(&s, &e), 0);
	assert_int_equal(get_events(&s).smi.smm_inside_nmi, 1);
	smm_free(&s);
}

static void test_init_latched(void **state)
{
	struct kvm_mp_state mp = { KVM_MP_STATE_INIT_RECEIVED };
	struct kvm_vcpu_events e;
	struct smm_machine s;

	smm_new(&s, WITH_IRQCHIP);
	handler(&s, SMRAM_AT);
	CODE(&s.m, 0x43, 0xe6, 0xe1, 0xeb, 0xfb);	/* inc bx; out 0xe1, al; jmp back */
	smi(&s);
	run_to_handler(&s);
	assert_int_equal(call(s.m.vcpu, KVM_SET_MP_STATE, &mp), -EINVAL);
	e = get_events(&s);
	assert_int_equal(e.smi.latched_init, 0);
	e.smi.latched_init = 1;
	assert_int_equal(set_events(&s, &e), 0);
	assert_int_equal(get_events(&s).smi.latched_init, 1);
	/* Taken as soon as RSM is over: the boot processor begins at its reset vector. */
	slot(&s.m, 9, 0xfffff000, P(1), s.smram + P(1));
	memcpy(s.smram + P(1) + 0xff0, "\xe6\xe2", 2);
	run_until(&s.m, KVM_EXIT_IO);
	assert_int_equal(s.m.run->io.port, 0xe2);
	assert_int_equal(get_events(&s).smi.latched_init, 0);
	assert_int_equal(get_events(&s).smi.smm, 0);
	/* SMBASE outlives INIT. */
	assert_int_equal(get_msr(s.m.vcpu, 0x9e), SMRAM_AT);
	smm_free(&s);
}

/* The APIC's SMI, which also ends HLT; execution goes on behind it. */
static void test_message(void **state)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x200 };
	struct kvm_mp_state halted = { KVM_MP_STATE_HALTED };
	struct smm_machine s;

	smm_new(&s, WITH_IRQCHIP);
	handler(&s, SMRAM_AT);
	CODE(&s.m, 0xf4, 0xe6, 0xe1);	/* hlt; out 0xe1, al */
	real_mode(s.m.vcpu, CODE_AT + 1);
	assert_int_equal(call(s.m.vcpu, KVM_SET_MP_STATE, &halted), 0);
	assert_int_equal(call(s.m.vm, KVM_SIGNAL_MSI, &msi), 1);
	run_to_handler(&s);
	assert_int_equal(area32(&s, 0x7ff0), CODE_AT + 1);
	run_until(&s.m, KVM_EXIT_IO);
	assert_int_equal(s.m.run->io.port, 0xe1);
	smm_free(&s);
}

static void test_rsm_outside(void **state)
{
	struct smm_machine s;

	smm_new(&s, PLAIN);
	*(u32 *)(s.m.ram + 6 * 4) = 0x1800;
	s.m.ram[0x1800] = 0xf4;
	CODE(&s.m, 0x0f, 0xaa);
	run_to_halt(&s.m);
	assert_int_equal(get_regs(s.m.vcpu).rip, 0x1801);
	smm_free(&s);
}

/* What RSM cannot load ends the processor. */
static void test_bad_state(void **state)
{
	static const struct { u32 at, val; } bad[] = {
		{ 0x7ffc, 0x80000000 },	/* CR0: PG without PE */
		{ 0x7ffc, 0x20000010 },	/* NW without CD */
		{ 0x7f14, 0x80000000 },	/* CR4: what does not exist */
	};
	struct smm_machine s;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		smm_new(&s, PLAIN);
		handler(&s, SMRAM_AT);
		PROGRAM(&s.m);
		smi(&s);
		run_to_handler(&s);
		area_set(&s, bad[i].at, &bad[i].val, 4);
		run_until(&s.m, KVM_EXIT_SHUTDOWN);
		assert_int_equal(s.m.run->flags & KVM_RUN_X86_SMM, 0);
		smm_free(&s);
	}
}

int test_smm(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handler_state),
		cmocka_unit_test(test_area_32),
		cmocka_unit_test(test_area_64),
		cmocka_unit_test(test_address_spaces),
		cmocka_unit_test(test_translated_code),
		cmocka_unit_test(test_mmio_inside),
		cmocka_unit_test(test_slot_arguments),
		cmocka_unit_test(test_smbase),
		cmocka_unit_test(test_blocking),
		cmocka_unit_test(test_set_events),
		cmocka_unit_test(test_init_latched),
		cmocka_unit_test(test_message),
		cmocka_unit_test(test_rsm_outside),
		cmocka_unit_test(test_bad_state),
	};

	return cmocka_run_group_tests_name("smm", tests, NULL, NULL);
}
