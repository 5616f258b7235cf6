#include <stdlib.h>
#include <string.h>

#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/hyperv.h"
#include "tests/unit/x86/machine.h"

static struct memslot slot_make(struct machine *m, u32 id, u64 gpa, u64 size, u8 *mem)
{
	return (struct memslot) {
		.id = id, .gpa = gpa, .size = size, .hva = (u64)mem,
		.code = calloc(size / 4096, sizeof(struct code_page)),
	};
}

struct machine *machine_create(void)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct memslots *s = calloc(1, sizeof(*s) + 2 * sizeof(s->slot[0]));

	m->ram = aligned_alloc(4096, RAM_SIZE);
	m->rom = aligned_alloc(4096, ROM_SIZE);
	memset(m->ram, 0, RAM_SIZE);
	memset(m->rom, 0, ROM_SIZE);
	s->n = 2;
	s->slot[0] = slot_make(m, 0, 0, RAM_SIZE, m->ram);
	s->slot[1] = slot_make(m, 1, ROM_BASE, ROM_SIZE, m->rom);
	s->slot[1].flags = KVM_MEM_READONLY;
	m->vm.slots = s;
	os_mutex_init(&m->vm.lock);
	assert_int_equal(hv_vm_create(&m->vm), 0);
	m->v = aligned_alloc(4096, ALIGN_UP(sizeof(*m->v), 4096UL));
	memset(m->v, 0, sizeof(*m->v));
	m->v->vm = &m->vm;
	m->v->spaces = os_pages_alloc(SPACES_SIZE);
	m->vm.vcpus[0] = m->v;
	m->vm.nr_vcpus = 1;
	m->v->run = aligned_alloc(4096, 3 * 4096);
	memset(m->v->run, 0, 3 * 4096);
	m->v->fpu = aligned_alloc(64, ALIGN_UP(sizeof(*m->v->fpu), 64UL));
	memset(m->v->fpu, 0, sizeof(*m->v->fpu));
	m->v->fpu->host_xcr0 = fpu_host_xcr0();
	xsave_layout_read(&m->v->fpu->layout, m->v->fpu->host_xcr0);
	mmu_init(m->v);
	machine_reset(m);
	return m;
}

void machine_destroy(struct machine *m)
{
	hv_vcpu_destroy(m->v);
	pv_destroy(m->v);
	hv_vm_destroy(&m->vm);
	free(m->vm.slots->slot[0].code);
	free(m->vm.slots->slot[1].code);
	free(m->vm.slots);
	free(m->v->run);
	free(m->v->fpu);
	os_pages_free(m->v->spaces, SPACES_SIZE);
	free(m->v);
	free(m->ram);
	free(m->rom);
	free(m);
}

void machine_reset(struct machine *m)
{
	struct kvm_cpuid_entry2 e[128];
	int n = cpuid_supported(e, 128);

	assert_in_range(n, 1, 128);
	assert_int_equal(cpuid_set(m->v, e, n), 0);
	vcpu_reset(m->v, false);
	memset(m->ram, 0, RAM_SIZE);
	m->vm.slots->slot[0].dirty = NULL;
}

void machine_feature(struct machine *m, enum cpu_feature f, bool on)
{
	if (on)
		m->v->guest_features[f >> 6] |= BIT(f & 63);
	else
		m->v->guest_features[f >> 6] &= ~BIT(f & 63);
}

static void segments_flat(struct vcpu *v, unsigned int cpl, u32 cs_width)
{
	const u32 data = SEG_P | SEG_S | SEG_TYPE_RW | SEG_TYPE_A | SEG_G | SEG_DB |
		cpl << SEG_DPL_SHIFT;
	unsigned int s;

	for (s = SEG_ES; s <= SEG_GS; s++)
		v->seg[s] = (struct segment) {
			.limit = ~0u, .attr = data, .sel = (u16)(0x10 | cpl),
		};
	v->seg[SEG_CS].attr = (data & ~SEG_DB) | SEG_TYPE_CODE | cs_width;
	v->seg[SEG_CS].sel = (u16)(0x8 | cpl);
}

void machine_protected(struct machine *m, unsigned int cpl)
{
	m->v->cr0 = CR0_PE | CR0_ET;
	m->v->efer = 0;
	segments_flat(m->v, cpl, SEG_DB);
	vcpu_update_mode(m->v);
}

void machine_long(struct machine *m, unsigned int cpl, u64 root)
{
	struct vcpu *v = m->v;

	v->cr0 = CR0_PE | CR0_ET | CR0_PG | CR0_WP;
	v->cr4 |= CR4_PAE;
	v->cr3 = root;
	v->efer = EFER_LME | EFER_LMA | EFER_NX | EFER_SCE;
	segments_flat(v, cpl, SEG_L);
	mmu_flush_all(v);
	vcpu_update_mode(v);
}

/* ---- accesses, caught ---- */

static struct {
	unsigned int seg, size, nr;
	u64 off, val;
} arg;

static void do_read(struct vcpu *v) { arg.val = mem_read(v, arg.seg, arg.off, arg.size); }
static void do_write(struct vcpu *v) { mem_write(v, arg.seg, arg.off, arg.size, arg.val); }
static void do_sys_read(struct vcpu *v) { arg.val = sys_read(v, arg.off, arg.size); }
static void do_cr_write(struct vcpu *v) { cr_write(v, arg.nr, arg.val); }

static enum unwind run_caught(struct machine *m, void (*fn)(struct vcpu *v))
{
	m->v->event = (struct event) { .type = EV_NONE };
	return vcpu_guarded(m->v, fn);
}

enum unwind try_read(struct machine *m, unsigned int seg, u64 off, unsigned int size, u64 *val)
{
	enum unwind why;

	arg.seg = seg;
	arg.off = off;
	arg.size = size;
	why = run_caught(m, do_read);
	if (why == UNWIND_NONE)
		*val = arg.val;
	return why;
}

enum unwind try_write(struct machine *m, unsigned int seg, u64 off, unsigned int size, u64 val)
{
	arg.seg = seg;
	arg.off = off;
	arg.size = size;
	arg.val = val;
	return run_caught(m, do_write);
}

enum unwind try_sys_read(struct machine *m, u64 la, unsigned int size, u64 *val)
{
	enum unwind why;

	arg.off = la;
	arg.size = size;
	why = run_caught(m, do_sys_read);
	if (why == UNWIND_NONE)
		*val = arg.val;
	return why;
}

enum unwind try_cr_write(struct machine *m, unsigned int nr, u64 val)
{
	arg.nr = nr;
	arg.val = val;
	return run_caught(m, do_cr_write);
}
