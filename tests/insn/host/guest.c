/*
 * The vCPU side. The guest has nothing but tables: every exception enters a stub at CPL 0 that does
 * an OUT, which comes back to us. We take the state from the registers and from the frame on the
 * guest's stack, put a new one there, and let the stub's IRET start it.
 */
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hypervisor/api/qkvm.h"
#include "hypervisor/x86/regs.h"
#include "tests/insn/host/host.h"

#define PML4	(AREA_BASE + 0x0000)
#define PDPT	(AREA_BASE + 0x1000)
#define PD	(AREA_BASE + 0x2000)
#define PT	(AREA_BASE + 0x3000)
#define GDT	(AREA_BASE + 0x4000)
#define IDT	(AREA_BASE + 0x5000)
#define TSS	(AREA_BASE + 0x6000)
#define STACK	(AREA_BASE + 0x8000)		/* top */
#define STUBS	(AREA_BASE + 0x9000)
#define STUB_SIZE 16

#define SEL_KCODE	0x10
#define SEL_TSS		0x40

#define PTE_P	1ULL
#define PTE_W	2ULL
#define PTE_U	4ULL

/* What a stub leaves on the stack. */
struct frame {
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

static int sys_fd, vm_fd, vcpu_fd;
static struct kvm_run *run;

static void put64(u64 addr, u64 val)
{
	memcpy((void *)addr, &val, 8);
}

static void map_pages(u64 addr, u64 size, u64 bits)
{
	for (u64 a = addr; a < addr + size; a += 4096)
		put64(PT + (a >> 12 & 511) * 8, a | bits);
}

static void make_tables(void)
{
	u64 table = PTE_P | PTE_W | PTE_U;

	put64(PML4, PDPT | table);
	put64(PDPT, PD | table);
	put64(PD + (AREA_BASE >> 21 & 511) * 8, PT | table);
	map_pages(AREA_BASE, 0x10000, PTE_P | PTE_W);
	map_pages(AREA_CODE, CODE_SIZE, PTE_P | PTE_U);
	map_pages(AREA_CONST, CONST_SIZE, table);
	map_pages(AREA_DATA, DATA_SIZE, table);
	put64(GDT + SEL_KCODE, 0x00af9b000000ffff);
	put64(GDT + (SEL_CODE32 & ~7), 0x00cffb000000ffff);
	put64(GDT + (SEL_DATA & ~7), 0x00cff3000000ffff);
	put64(GDT + (SEL_CODE64 & ~7), 0x00affb000000ffff);
	put64(TSS + 4, STACK);		/* RSP0 */
}

static bool vector_has_error(unsigned int n)
{
	return n == VEC_DF || (n >= VEC_TS && n <= VEC_PF) || n == VEC_AC;
}

/* A 64-bit interrupt gate; vectors 3 and 4 may be reached by INT3 and INTO. SDM 3A 6.14.1 */
static void make_gate(unsigned int n, u64 target)
{
	u64 type = 0x8e | (n == VEC_BP || n == VEC_OF ? 0x60 : 0);

	put64(IDT + n * 16, (target & 0xffff) | (u64)SEL_KCODE << 16 | type << 40 |
				    (target >> 16 & 0xffff) << 48);
	put64(IDT + n * 16 + 8, target >> 32);
}

static void make_stub(unsigned int n)
{
	u8 *p = (u8 *)STUBS + n * STUB_SIZE;

	if (!vector_has_error(n)) {
		*p++ = 0x6a;			/* push 0 */
		*p++ = 0;
	}
	*p++ = 0x6a;				/* push n */
	*p++ = n;
	/* out 80, al; add rsp, 16; iretq */
	memcpy(p, (u8[]){ 0xe6, 0x80, 0x48, 0x83, 0xc4, 0x10, 0x48, 0xcf }, 8);
	make_gate(n, STUBS + n * STUB_SIZE);
}

static struct kvm_segment flat(u16 sel, u8 type, u8 dpl, bool l)
{
	return (struct kvm_segment){.selector = sel,
		.limit = 0xffffffff,
		.type = type,
		.present = 1,
		.dpl = dpl,
		.s = 1,
		.l = l,
		.db = !l,
		.g = 1};
}

static int set_sregs(void)
{
	struct kvm_sregs s;
	int ret = (int)qkvm_ioctl(vcpu_fd, KVM_GET_SREGS, (unsigned long)&s);

	if (ret)
		return ret;
	s.cs = flat(SEL_KCODE, 11, 0, true);
	s.ss = (struct kvm_segment){ .unusable = 1, .dpl = 0 };
	s.ds = s.es = s.fs = s.gs = s.ldt = (struct kvm_segment){ .unusable = 1 };
	s.tr = (struct kvm_segment){
		.base = TSS, .limit = 0x67, .selector = SEL_TSS, .type = 11, .present = 1};
	s.gdt.base = GDT;
	s.gdt.limit = 0x4f;
	s.idt.base = IDT;
	s.idt.limit = 0x1ff;
	s.cr3 = PML4;
	s.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	s.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	return (int)qkvm_ioctl(vcpu_fd, KVM_SET_SREGS, (unsigned long)&s);
}

static int set_cpuid(void)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 128 * sizeof(c->entries[0]));
	int ret;

	if (!c)
		return -1;
	c->nent = 128;
	ret = (int)qkvm_ioctl(sys_fd, KVM_GET_SUPPORTED_CPUID, (unsigned long)c);
	if (!ret)
		ret = (int)qkvm_ioctl(vcpu_fd, KVM_SET_CPUID2, (unsigned long)c);
	free(c);
	return ret;
}

static int set_xcr0(void)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = xstate_components } } };

	return (int)qkvm_ioctl(vcpu_fd, KVM_SET_XCRS, (unsigned long)&x);
}

static int run_to_stub(void)
{
	long ret = qkvm_ioctl(vcpu_fd, KVM_RUN, 0);

	if (ret || run->exit_reason != KVM_EXIT_IO) {
		fprintf(stderr, "guest: KVM_RUN gave %ld, exit %u suberror %u\n", ret,
			run->exit_reason, run->internal.suberror);
		return -1;
	}
	return 0;
}

/* Begins as after an INT3: in its stub, with a frame on the stack. */
static int start(void)
{
	struct kvm_regs r = { .rip = STUBS + VEC_BP * STUB_SIZE, .rsp = STACK - 40, .rflags = 2 };
	int ret = (int)qkvm_ioctl(vcpu_fd, KVM_SET_REGS, (unsigned long)&r);

	return ret ? ret : run_to_stub();
}

int guest_setup(void)
{
	struct kvm_userspace_memory_region m = {
		.guest_phys_addr = AREA_BASE, .memory_size = AREA_SIZE, .userspace_addr = AREA_BASE,
	};
	void *p;

	make_tables();
	for (unsigned int n = 0; n < 32; n++)
		make_stub(n);
	sys_fd = qkvm_open();
	vm_fd = (int)qkvm_ioctl(sys_fd, KVM_CREATE_VM, 0);
	if (vm_fd < 0 || qkvm_ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, (unsigned long)&m))
		return -1;
	vcpu_fd = (int)qkvm_ioctl(vm_fd, KVM_CREATE_VCPU, 0);
	if (vcpu_fd < 0)
		return -1;
	if (qkvm_mmap(vcpu_fd, (unsigned long)qkvm_ioctl(sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0), &p))
		return -1;
	run = p;
	/* No sequence touches these: the host side has no such pages either. */
	mprotect((void *)(AREA_DATA - 4096), 4096, PROT_NONE);
	mprotect((void *)(AREA_DATA + DATA_SIZE), 4096, PROT_NONE);
	if (set_cpuid() || set_sregs() || set_xcr0())
		return -1;
	return start();
}

static const size_t reg_of[16] = {
#define R(x) offsetof(struct kvm_regs, x)
	R(rax), R(rcx), R(rdx), R(rbx), R(rsp), R(rbp), R(rsi), R(rdi),
	R(r8), R(r9), R(r10), R(r11), R(r12), R(r13), R(r14), R(r15),
#undef R
};

static u64 *reg(struct kvm_regs *r, unsigned int k)
{
	return (u64 *)((char *)r + reg_of[k]);
}

static struct frame *guest_frame(const struct kvm_regs *r)
{
	return (struct frame *)r->rsp;
}

/*
 * The host wrote the code area. Decoded code is checked against memory whenever a page is looked up
 * anew, as after a change of the system registers.
 */
static int refresh_code(void)
{
	struct kvm_sregs s;
	int ret = (int)qkvm_ioctl(vcpu_fd, KVM_GET_SREGS, (unsigned long)&s);

	return ret ? ret : (int)qkvm_ioctl(vcpu_fd, KVM_SET_SREGS, (unsigned long)&s);
}

static int put_state(const struct state *s)
{
	static struct kvm_xsave x;
	struct kvm_regs r;
	struct frame *f;

	if (refresh_code())
		return -1;
	qkvm_ioctl(vcpu_fd, KVM_GET_REGS, (unsigned long)&r);
	f = guest_frame(&r);
	f->rip = s->rip;
	f->cs = s->cs;
	f->rflags = s->rflags | 0x202;
	f->rsp = s->r[R_RSP];
	f->ss = SEL_DATA;
	for (unsigned int k = 0; k < 16; k++)
		if (k != R_RSP)
			*reg(&r, k) = s->r[k];
	memcpy(&x, &s->x, sizeof(s->x));
	xstate_put(&x, s);
	if (qkvm_ioctl(vcpu_fd, KVM_SET_REGS, (unsigned long)&r))
		return -1;
	return (int)qkvm_ioctl(vcpu_fd, KVM_SET_XSAVE, (unsigned long)&x);
}

static int take_state(struct state *s)
{
	static struct kvm_xsave x;
	struct kvm_sregs sr;
	struct kvm_regs r;
	const struct frame *f;

	if (qkvm_ioctl(vcpu_fd, KVM_GET_REGS, (unsigned long)&r) ||
	    qkvm_ioctl(vcpu_fd, KVM_GET_XSAVE, (unsigned long)&x))
		return -1;
	f = guest_frame(&r);
	for (unsigned int k = 0; k < 16; k++)
		s->r[k] = *reg(&r, k);
	s->r[R_RSP] = f->rsp;
	s->rip = f->rip;
	s->rflags = f->rflags;
	s->cs = (u16)f->cs;
	s->vector = (u32)f->vector;
	s->error = (u32)f->error;
	xstate_get(&x, s);
	s->cr2 = 0;
	if (s->vector != VEC_PF)
		return 0;
	if (qkvm_ioctl(vcpu_fd, KVM_GET_SREGS, (unsigned long)&sr))
		return -1;
	s->cr2 = sr.cr2;
	return 0;
}

int guest_go(struct state *s)
{
	if (put_state(s) || run_to_stub())
		return -1;
	return take_state(s);
}
