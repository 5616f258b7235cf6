/* One virtual machine of one engine (machine.h), through the in-process KVM API. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hypervisor/api/api.h"
#include "hypervisor/api/qkvm.h"
#include "tests/insn/sequences/machine.h"

#define PTE_P	1ULL
#define PTE_W	2ULL
#define PTE_U	4ULL
#define PTE_NX	BIT(63)

extern const u8 kernel_start[], kernel_syscall[], kernel_end[];

struct machine *machine_running;

/* What a stop leaves on the stack. */
struct frame {
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

/* ---- memory ---------------------------------------------------------------------------------- */

static u8 *clean_image;

static void put64(u64 addr, u64 val)
{
	memcpy(clean_image + (addr - BASE), &val, 8);
}

static void map_pages(u64 table, u64 addr, u64 to, u64 size, u64 bits)
{
	for (u64 off = 0; off < size; off += 4096)
		put64(table + (addr + off - BASE) / 4096 * 8, (to + off) | bits);
}

static void map_space(u64 pt)
{
	const u64 user = PTE_P | PTE_W | PTE_U;

	map_pages(pt, BASE, BASE, 0x14000, PTE_P | PTE_W);
	map_pages(pt, AT_VAR, AT_VAR, 4096, user);
	map_pages(pt, AREA_CODE, AREA_CODE, CODE_SIZE, user);
	map_pages(pt, AT_ALIAS, AREA_CODE, CODE_SIZE, user);
	map_pages(pt, AREA_CONST, AREA_CONST, CONST_SIZE, user | PTE_NX);
	map_pages(pt, AREA_DATA, AREA_DATA, DATA_SIZE, user | PTE_NX);
	map_pages(pt, AT_CONTROL, AT_CONTROL, 4096, user | PTE_NX);
	map_pages(pt, AT_MMIO - 4096, AT_MMIO - 4096, 4096, user | PTE_NX);
	map_pages(pt, AT_MMIO, GPA_MMIO, 2 * 4096, user);
	map_pages(pt, AT_KDATA - 4096, AT_KDATA - 4096, 4096, user | PTE_NX);
	map_pages(pt, AT_KDATA, AT_KDATA, 4096, PTE_P | PTE_W | PTE_NX);
	map_pages(pt, AT_RO - 4096, AT_RO - 4096, 4096, user | PTE_NX);
	map_pages(pt, AT_RO, AT_RO, 4096, PTE_P | PTE_U | PTE_NX);
	map_pages(pt, AT_LAZY - 4096, AT_LAZY - 4096, 4096, user | PTE_NX);
	map_pages(pt, AT_LAZY, AT_LAZY, AT_LAZY_END - AT_LAZY, 0);
	map_pages(pt, AT_WINDOW, AT_FRAMES, 2 * 4096, user | PTE_NX);
}

static void link_tables(u64 pml4, u64 pdpt, u64 pd, u64 pt)
{
	const u64 table = PTE_P | PTE_W | PTE_U;

	put64(pml4, pdpt | table);
	put64(pdpt, pd | table);
	put64(pd + ((u64)BASE >> 21 & 511) * 8, pt | table);
	map_space(pt);
}

static void make_gdt(void)
{
	put64(AT_GDT + KSEL_CODE32, 0x00cf9b000000ffff);
	put64(AT_GDT + KSEL_CODE, 0x00af9b000000ffff);
	put64(AT_GDT + KSEL_DATA, 0x00cf93000000ffff);
	put64(AT_GDT + (SEL_CODE32 & ~7), 0x00cffb000000ffff);
	put64(AT_GDT + (SEL_DATA & ~7), 0x00cff3000000ffff);
	put64(AT_GDT + (SEL_CODE64 & ~7), 0x00affb000000ffff);
	put64(AT_TSS + 4, STACK_0);
	put64(AT_TSS + 0x24, STACK_IST);	/* IST1 */
	put64(AT_TSS + 0x64, 0x68ULL << 16);	/* no I/O map */
}

/* A 64-bit interrupt gate. SDM 3A 6.14.1 */
static void make_gate(u64 idt, unsigned int n, u64 target, bool open)
{
	put64(idt + n * 16, (target & 0xffff) | (u64)KSEL_CODE << 16 | 1ULL << 32 |
				    (u64)(open ? 0xee : 0x8e) << 40 | (target >> 16) << 48);
	put64(idt + n * 16 + 8, target >> 32);
}

static bool vector_has_error(unsigned int n)
{
	return n == VEC_DF || (n >= VEC_TS && n <= VEC_PF) || n == VEC_AC;
}

static void make_stop(unsigned int n)
{
	u8 *p = clean_image + (AT_STOP - BASE) + n * STOP_SIZE;

	if (!vector_has_error(n)) {
		*p++ = 0x6a;			/* push 0 */
		*p++ = 0;
	}
	*p++ = 0x6a;				/* push n */
	*p++ = (u8)n;
	*p++ = 0xe6;				/* out PORT_STOP, al */
	*p = PORT_STOP;
	make_gate(AT_STOP_IDT, n, AT_STOP + n * STOP_SIZE, n == VEC_BP || n == VEC_OF);
}

static bool gate_open(unsigned int n)
{
	return n == VEC_BP || n == VEC_OF || n == VECTOR_RESUME || n == VECTOR_END || n >= 0xf0;
}

static int make_image(void)
{
	clean_image = calloc(1, RAM_SIZE);
	if (!clean_image || (size_t)(kernel_end - kernel_start) > KERNEL_SIZE)
		return -ENOMEM;
	link_tables(AT_PML4, AT_PDPT, AT_PD, AT_PT);
	link_tables(AT_PML4_B, AT_PDPT_B, AT_PD_B, AT_PT_B);
	/* The other space: data pages 1 and 2 exchanged, the window's pages as well. */
	map_pages(AT_PT_B, AREA_DATA + 0x1000, AREA_DATA + 0x2000, 4096, 7 | PTE_NX);
	map_pages(AT_PT_B, AREA_DATA + 0x2000, AREA_DATA + 0x1000, 4096, 7 | PTE_NX);
	map_pages(AT_PT_B, AT_WINDOW, AT_FRAMES + 4096, 4096, 7 | PTE_NX);
	map_pages(AT_PT_B, AT_WINDOW + 4096, AT_FRAMES, 4096, 7 | PTE_NX);
	make_gdt();
	memcpy(clean_image + (AT_KERNEL - BASE), kernel_start,
		(size_t)(kernel_end - kernel_start));
	for (unsigned int n = 0; n < 256; n++)
		make_gate(AT_IDT, n, AT_KERNEL + n * 16, gate_open(n));
	for (unsigned int n = 0; n < 32; n++)
		make_stop(n);
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

long machine_call(const struct machine *m, unsigned long request, void *arg)
{
	return qkvm_ioctl(m->vcpu, request, (unsigned long)arg);
}

static struct kvm_segment flat(u16 sel)
{
	bool code = sel == KSEL_CODE || sel == KSEL_CODE32 || sel == SEL_CODE32 || sel == SEL_CODE64;
	bool wide = sel == KSEL_CODE || sel == SEL_CODE64;

	if (!sel)
		return (struct kvm_segment){ .unusable = 1 };
	return (struct kvm_segment){ .selector = sel, .limit = 0xffffffff, .type = code ? 11 : 3,
		.present = 1, .dpl = sel & 3, .s = 1, .l = wide, .db = !wide, .g = 1 };
}

static int make_sregs(struct machine *m)
{
	struct kvm_sregs *s = &m->sregs;
	long ret = machine_call(m, KVM_GET_SREGS, s);

	if (ret)
		return (int)ret;
	s->cs = flat(KSEL_CODE);
	s->ss = flat(KSEL_DATA);
	s->ds = s->es = s->fs = s->gs = s->ldt = flat(0);
	s->tr = (struct kvm_segment){ .base = AT_TSS, .limit = 0x67, .selector = KSEL_TSS,
		.type = 11, .present = 1 };
	s->gdt.base = AT_GDT;
	s->gdt.limit = 0x4f;
	s->idt.limit = 0xfff;
	s->cr3 = AT_PML4;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_AM | CR0_PG;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	return 0;
}

static int set_cpuid(const struct machine *m)
{
	static struct { struct kvm_cpuid2 h; struct kvm_cpuid_entry2 e[128]; } c;
	long ret;

	c.h.nent = 128;
	ret = qkvm_ioctl(m->sys, KVM_GET_SUPPORTED_CPUID, (unsigned long)&c);
	return (int)(ret ? ret : machine_call(m, KVM_SET_CPUID2, &c));
}

static void hold_nothing(void *obj)
{
}

static int make_vcpu(struct machine *m)
{
	void *p;
	int ret;

	m->vcpu = (int)qkvm_ioctl(m->vm, KVM_CREATE_VCPU, 0);
	if (m->vcpu < 0)
		return m->vcpu;
	m->inside = ((struct handle *)os_fd_object(m->vcpu, hold_nothing))->vcpu;
	ret = qkvm_mmap(m->vcpu, VCPU_MMAP_SIZE, &p);
	if (ret)
		return ret;
	m->run = p;
	ret = set_cpuid(m);
	return ret ? ret : make_sregs(m);
}

static int make_vm(struct machine *m)
{
	struct kvm_userspace_memory_region slot = { .guest_phys_addr = BASE,
		.memory_size = RAM_SIZE, .userspace_addr = (u64)m->ram };
	long ret;

	setenv("QUMRA_ENGINE", m->engine, 1);
	m->sys = qkvm_open();
	m->vm = (int)qkvm_ioctl(m->sys, KVM_CREATE_VM, 0);
	if (m->vm < 0)
		return m->vm;
	ret = qkvm_ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, (unsigned long)&slot);
	return (int)(ret ? ret : make_vcpu(m));
}

int machine_new(struct machine *m, const char *engine)
{
	int ret = clean_image ? 0 : make_image();

	if (ret)
		return ret;
	m->engine = engine;
	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->ram == MAP_FAILED)
		return -ENOMEM;
	ret = make_vm(m);
	if (!ret)
		machine_set_clean(m);
	if (ret)
		fprintf(stderr, "engine %s: %s\n", engine, strerror(-ret));
	return ret;
}

u64 machine_insns(const struct machine *m)
{
	return m->inside->stat.insns;
}

/* ---- state ----------------------------------------------------------------------------------- */

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

static int set_msrs(const struct machine *m)
{
	static const struct { u32 index; u64 data; } values[] = {
		{ 0xc0000081, (u64)KSEL_CODE << 32 | 0x23ULL << 48 },	/* STAR */
		{ 0xc0000083, 0 },					/* CSTAR */
		{ 0xc0000084, 0x47700 },				/* SFMASK */
		{ 0xc0000102, 0x80 },					/* KERNEL_GS_BASE */
		{ 0xc0000103, 0x1234 },					/* TSC_AUX */
		{ 0x174, 0 },						/* SYSENTER_CS */
	};
	struct { struct kvm_msrs h; struct kvm_msr_entry e[ARRAY_SIZE(values) + 1]; } x = { 0 };
	const u64 entry = AT_KERNEL + (u64)(kernel_syscall - kernel_start);

	for (size_t k = 0; k < ARRAY_SIZE(values); k++)
		x.h.entries[k] = (struct kvm_msr_entry){
			.index = values[k].index, .data = values[k].data ? values[k].data :
			values[k].index == 0xc0000083 ? entry : 0 };
	x.h.entries[ARRAY_SIZE(values)] = (struct kvm_msr_entry){ .index = 0xc0000082, .data = entry };
	x.h.nmsrs = ARRAY_SIZE(values) + 1;
	return machine_call(m, KVM_SET_MSRS, &x) == x.h.nmsrs ? 0 : -EINVAL;
}

/* All that a program can have changed beside registers. */
static int set_rest(const struct machine *m)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = xstate_components } } };
	struct kvm_debugregs d = { .dr6 = DR6_FIXED, .dr7 = DR7_FIXED };
	struct kvm_vcpu_events e;
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };

	machine_call(m, KVM_GET_VCPU_EVENTS, &e);
	memset(&e, 0, sizeof(e));
	e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	if (machine_call(m, KVM_SET_XCRS, &x) || machine_call(m, KVM_SET_DEBUGREGS, &d) ||
	    machine_call(m, KVM_SET_VCPU_EVENTS, &e) || machine_call(m, KVM_SET_MP_STATE, &mp))
		return -EINVAL;
	return set_msrs(m);
}

void machine_set_clean(struct machine *m)
{
	memcpy(m->ram, clean_image, RAM_SIZE);
	m->clean = !set_rest(m);
}

int machine_start(struct machine *m, const struct start *how, const struct state *s)
{
	static struct kvm_xsave x;
	struct kvm_sregs sr = m->sregs;
	struct kvm_regs r = { .rip = s->rip, .rflags = s->rflags };

	sr.cs = flat(how->cs);
	sr.ss = flat(how->ss);
	sr.fs.base = how->fs_base;
	sr.gs.base = how->gs_base;
	sr.idt.base = how->idt;
	sr.cr0 |= how->cr0;
	sr.cr4 |= how->cr4;
	sr.cr3 = how->cr3;
	for (unsigned int k = 0; k < 16; k++)
		*reg(&r, k) = s->r[k];
	memcpy(&x, &s->x, sizeof(s->x));
	xstate_put(&x, s);
	if (how->idt == AT_IDT)
		m->clean = false;
	if (machine_call(m, KVM_SET_SREGS, &sr) || machine_call(m, KVM_SET_REGS, &r) ||
	    machine_call(m, KVM_SET_XSAVE, &x))
		return -EINVAL;
	m->run->request_interrupt_window = 0;
	m->run->cr8 = 0;
	return 0;
}

long machine_run(struct machine *m)
{
	long ret;

	m->late = false;
	m->ticks = 0;
	machine_running = m;
	ret = qkvm_ioctl(m->vcpu, KVM_RUN, 0);
	machine_running = NULL;
	m->run->immediate_exit = 0;
	return m->late && ret == -EINTR ? 0 : ret;
}

static int take_regs(const struct machine *m, struct state *s)
{
	static struct kvm_xsave x;
	struct kvm_regs r;

	if (machine_call(m, KVM_GET_REGS, &r) || machine_call(m, KVM_GET_XSAVE, &x))
		return -EINVAL;
	for (unsigned int k = 0; k < 16; k++)
		s->r[k] = *reg(&r, k);
	s->rip = r.rip;
	s->rflags = r.rflags;
	xstate_get(&x, s);
	s->vector = s->error = 0;
	s->cr2 = 0;
	return 0;
}

int machine_state(const struct machine *m, struct state *s, struct kvm_sregs *sr)
{
	int ret = take_regs(m, s);

	if (ret || machine_call(m, KVM_GET_SREGS, sr))
		return -EINVAL;
	s->cs = sr->cs.selector;
	s->cr2 = sr->cr2;
	return 0;
}

int machine_stopped_state(const struct machine *m, struct state *s)
{
	const struct frame *f;
	struct kvm_sregs sr;

	if (take_regs(m, s))
		return -EINVAL;
	f = machine_at(m, s->r[R_RSP]);
	s->r[R_RSP] = f->rsp;
	s->rip = f->rip;
	s->rflags = f->rflags;
	s->cs = (u16)f->cs;
	s->vector = (u32)f->vector;
	s->error = (u32)f->error;
	if (s->vector != VEC_PF)
		return 0;
	if (machine_call(m, KVM_GET_SREGS, &sr))
		return -EINVAL;
	s->cr2 = sr.cr2;
	return 0;
}
