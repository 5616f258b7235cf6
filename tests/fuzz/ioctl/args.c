/*
 * Arguments: what a careful client gives, nearly that, and anything else.
 *
 * One thing the fuzzer must not do: give addresses at which the hypervisor or a guest may rightly write into memory
 * that is not the fuzzer's to lose. So addresses inside structures are led to the scratch area or the guests' memory,
 * last of all (arg_tame).
 */
#include <string.h>

#include "hypervisor/api/api.h"
#include "hypervisor/api/qkvm.h"
#include "tests/fuzz/ioctl/fuzz.h"

/* ---- choices ---------------------------------------------------------------------------------- */

void choices_init(struct choices *c, const u8 *data, size_t n, u64 seed)
{
	*c = (struct choices){ .data = data, .left = n, .rng = seed * 0x9e3779b97f4a7c15ULL | 1 };
	for (size_t i = 0; i < n; i++)
		c->rng = (c->rng ^ data[i]) * 0x100000001b3ULL | 1;
}

/* xorshift64* behind the input's bytes */
static u64 next(struct choices *c)
{
	if (c->left >= 2) {
		u64 v = c->data[0] | (u64)c->data[1] << 8;

		c->data += 2;
		c->left -= 2;
		return v;
	}
	c->rng ^= c->rng >> 12;
	c->rng ^= c->rng << 25;
	c->rng ^= c->rng >> 27;
	return (c->rng * 2685821657736338717ULL) >> 16;
}

u32 below(struct choices *c, u32 n)
{
	return (u32)(next(c) % n);
}

bool chance(struct choices *c, u32 percent)
{
	return below(c, 100) < percent;
}

u64 value(struct choices *c)
{
	switch (below(c, 8)) {
	case 0: return BIT(below(c, 64));
	case 1: return ~0ULL << below(c, 64);
	case 2: return (u64)below(c, 512) << 12;
	case 3: return next(c) << 32 ^ next(c) << 16 ^ next(c);
	case 4: return below(c, 65536);
	default: return below(c, 8);
	}
}

/* ---- structures ------------------------------------------------------------------------------- */

static void make_region(struct worker *w, void *p)
{
	*(struct kvm_userspace_memory_region *)p = (struct kvm_userspace_memory_region){
		.slot = below(&w->c, 4),
		.flags = below(&w->c, 4),
		.guest_phys_addr = (u64)below(&w->c, 4) * (AREA_RAM / 2),
		.memory_size = chance(&w->c, 30) ? 0 : AREA_RAM / 2,
		.userspace_addr = (u64)w->memory->area + below(&w->c, 3) * (AREA_RAM / 2),
	};
}

static void make_msrs(struct worker *w, void *p)
{
	static const u32 index[] = { 0x10, 0x1b, 0x3a, 0x3b, 0x8b, 0x174, 0x175, 0x176, 0x179, 0x17a, 0x1a0, 0x1d9, 0x200,
		0x250, 0x277, 0x2ff, 0x400, 0x480, 0x6e0, 0x802, 0x80b, 0x830, 0x832, 0xda0, 0x11, 0x12, 0x40000000,
		0x40000001, 0x40000020, 0x40000073, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d06,
		0xc0000080, 0xc0000081, 0xc0000082, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0010015 };
	struct kvm_msrs *m = p;

	m->nmsrs = below(&w->c, 6);
	for (u32 i = 0; i < m->nmsrs; i++) {
		m->entries[i].index = chance(&w->c, 90) ? index[below(&w->c, ARRAY_SIZE(index))] : (u32)value(&w->c);
		m->entries[i].data = value(&w->c);
	}
}

static void make_cpuid(struct worker *w, void *p)
{
	struct kvm_cpuid2 *c = p;

	c->nent = 128;
	if (qkvm_ioctl(w->pool->sys, KVM_GET_SUPPORTED_CPUID, (unsigned long)c) < 0)
		c->nent = 0;
	for (u32 n = c->nent ? below(&w->c, 4) : 0; n; n--)
		((u32 *)&c->entries[below(&w->c, c->nent)])[below(&w->c, 10)] = (u32)value(&w->c);
}

static void make_routing(struct worker *w, void *p)
{
	struct kvm_irq_routing *r = p;

	r->nr = below(&w->c, 8);
	r->flags = 0;
	for (u32 i = 0; i < r->nr; i++) {
		struct kvm_irq_routing_entry *e = &r->entries[i];

		memset(e, 0, sizeof(*e));
		e->gsi = below(&w->c, 30);
		e->type = 1 + below(&w->c, 5);
		e->u.msi.address_lo = chance(&w->c, 50) ? below(&w->c, 4) : 0xfee00000 + below(&w->c, 0x10000);
		e->u.msi.address_hi = below(&w->c, 30);
		e->u.msi.data = (u32)value(&w->c);
	}
}

static void make_signal_mask(struct worker *w, void *p)
{
	struct kvm_signal_mask *m = p;
	u64 set = chance(&w->c, 50) ? 0 : value(&w->c);

	m->len = 8;
	memcpy(m->sigset, &set, sizeof(set));
}

static void make_regs(struct worker *w, void *p)
{
	u64 *r = p;

	for (u32 i = 0; i < 16; i++)
		r[i] = value(&w->c);
	*(struct kvm_regs *)p = (struct kvm_regs){ .rax = r[0], .rbx = r[1], .rcx = below(&w->c, 64), .rdx = r[3],
		.rsi = r[4], .rdi = chance(&w->c, 50) ? 0x5000 : r[5], .rsp = 0x7000, .r8 = r[6], .r9 = r[7],
		.rip = 0x1000 + 0x400 * below(&w->c, 4), .rflags = 2 | (chance(&w->c, 20) ? value(&w->c) : 0) };
}

static struct kvm_segment flat(u16 selector, u8 type, bool wide)
{
	return (struct kvm_segment){ .selector = selector, .limit = 0xffffffff, .type = type, .present = 1, .s = 1,
		.db = !wide, .l = wide, .g = 1 };
}

static void make_sregs(struct worker *w, void *p)
{
	struct kvm_sregs *s = p;
	u32 mode = below(&w->c, 4);

	s->cr0 = mode ? 0x31 | (mode > 1 ? 0x80000000u : 0) : 0x10;
	s->cr3 = mode == 2 ? 0xa000 : 0x8000;
	s->cr4 = mode == 3 ? 0x620 : 0x610;
	s->efer = mode == 3 ? 0x501 : 0;
	s->gdt = (struct kvm_dtable){ .base = 0x800, .limit = 0x2f };
	s->idt = (struct kvm_dtable){ .base = 0, .limit = 0x1ff };
	s->cs = mode ? flat(mode == 3 ? 24 : 8, 11, mode == 3) : (struct kvm_segment){ .limit = 0xffff, .type = 3,
		.present = 1, .s = 1 };
	s->ds = s->es = s->fs = s->gs = s->ss = mode ? flat(16, 3, false) : s->cs;
	s->tr = (struct kvm_segment){ .base = 0xe00, .limit = 0x67, .selector = 0x20, .type = 11, .present = 1 };
	s->ldt = (struct kvm_segment){ .unusable = 1 };
}

void arg_mode(struct worker *w, int vcpu)
{
	struct kvm_sregs s;
	struct kvm_regs r;

	make_regs(w, &r);
	if (qkvm_ioctl(vcpu, KVM_GET_SREGS, (unsigned long)&s) < 0)
		return;
	make_sregs(w, &s);
	qkvm_ioctl(vcpu, KVM_SET_SREGS, (unsigned long)&s);
	qkvm_ioctl(vcpu, KVM_SET_REGS, (unsigned long)&r);
}

static void make_debug(struct worker *w, void *p)
{
	struct kvm_guest_debug *d = p;

	d->control = chance(&w->c, 30) ? 0 : KVM_GUESTDBG_ENABLE | (u32)below(&w->c, 4) << 16 | below(&w->c, 4);
	for (u32 i = 0; i < 8; i++)
		d->arch.debugreg[i] = i < 4 ? 0x1000 + below(&w->c, 64) : i == 7 ? 0x400 + value(&w->c) % 0x100 : 0;
}

static void make_cap(struct worker *w, void *p)
{
	static const u32 caps[] = { KVM_CAP_DISABLE_QUIRKS, KVM_CAP_X2APIC_API, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X86_DISABLE_EXITS, KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_USER_SPACE_MSR,
		KVM_CAP_DIRTY_LOG_RING, KVM_CAP_HYPERV_SYNIC, KVM_CAP_HYPERV_SYNIC2, KVM_CAP_MAX_VCPU_ID,
		KVM_CAP_X86_TRIPLE_FAULT_EVENT, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_HYPERV_ENFORCE_CPUID,
		KVM_CAP_EXIT_HYPERCALL, KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_CAP_X86_BUS_LOCK_EXIT };
	struct kvm_enable_cap *e = p;

	memset(e, 0, sizeof(*e));
	e->cap = chance(&w->c, 70) ? caps[below(&w->c, ARRAY_SIZE(caps))] : below(&w->c, 240);
	e->args[0] = chance(&w->c, 50) ? below(&w->c, 4) : value(&w->c);
	e->args[1] = chance(&w->c, 80) ? 0 : value(&w->c);
}

static void make_irqfd(struct worker *w, void *p)
{
	*(struct kvm_irqfd *)p = (struct kvm_irqfd){ .fd = (u32)w->pool->event[below(&w->c, 2)],
		.gsi = below(&w->c, 26), .flags = below(&w->c, 4), .resamplefd = (u32)w->pool->event[below(&w->c, 2)] };
}

static void make_ioeventfd(struct worker *w, void *p)
{
	*(struct kvm_ioeventfd *)p = (struct kvm_ioeventfd){ .fd = w->pool->event[below(&w->c, 2)],
		.addr = chance(&w->c, 50) ? 0x80 : 0x300000, .len = BIT(below(&w->c, 5)) >> 1, .flags = below(&w->c, 8),
		.datamatch = value(&w->c) };
}

static void make_line(struct worker *w, void *p)
{
	*(struct kvm_irq_level *)p = (struct kvm_irq_level){ .irq = below(&w->c, 26), .level = below(&w->c, 2) };
}

static void make_events(struct worker *w, void *p)
{
	struct kvm_vcpu_events *e = p;

	e->flags &= 0x1f;
	e->exception.injected = below(&w->c, 2);
	e->exception.nr = (u8)below(&w->c, 34);
	e->interrupt.injected = (u8)below(&w->c, 2);
	e->interrupt.nr = (u8)value(&w->c);
	e->nmi.pending = (u8)below(&w->c, 2);
}

/* Mostly what the CPUs may have; any byte of the components. */
static void make_xcrs(struct worker *w, void *p)
{
	static const u8 likely[] = { 1, 3, 7, 0xe7, 0xe7, 0xe3, 0x67 };

	*(struct kvm_xcrs *)p = (struct kvm_xcrs){ .nr_xcrs = 1 };
	((struct kvm_xcrs *)p)->xcrs[0].value =
		chance(&w->c, 90) ? likely[below(&w->c, sizeof(likely))] : value(&w->c);
}

static void make_xsave(struct worker *w, void *p)
{
	u64 *words = p, *header = words + 64;

	for (u32 n = below(&w->c, 60); n; n--)
		words[20 + below(&w->c, sizeof(struct kvm_xsave) / 8 - 20)] = value(&w->c);
	memset(header, 0, 64);
	header[0] = chance(&w->c, 90) ? below(&w->c, 256) & 0xe7 : value(&w->c);
	((u32 *)p)[6] = chance(&w->c, 90) ? 0x1f80 : (u32)value(&w->c);
	if (chance(&w->c, 5))
		header[below(&w->c, 8)] = value(&w->c);
}

static void make_dirty_log(struct worker *w, void *p)
{
	*(struct kvm_dirty_log *)p = (struct kvm_dirty_log){ .slot = below(&w->c, 4) };
}

static void make_clear_log(struct worker *w, void *p)
{
	*(struct kvm_clear_dirty_log *)p = (struct kvm_clear_dirty_log){ .slot = below(&w->c, 4),
		.num_pages = 64 * below(&w->c, 6), .first_page = 64 * below(&w->c, 4) };
}

static const struct {
	u32 request;
	void (*make)(struct worker *w, void *p);
} makers[] = {
	{ (u32)KVM_SET_USER_MEMORY_REGION, make_region }, { (u32)KVM_SET_MSRS, make_msrs }, { (u32)KVM_GET_MSRS, make_msrs },
	{ (u32)KVM_SET_CPUID2, make_cpuid }, { (u32)KVM_SET_GSI_ROUTING, make_routing },
	{ (u32)KVM_SET_SIGNAL_MASK, make_signal_mask }, { (u32)KVM_SET_REGS, make_regs },
	{ (u32)KVM_SET_SREGS, make_sregs }, { (u32)KVM_SET_GUEST_DEBUG, make_debug }, { (u32)KVM_ENABLE_CAP, make_cap },
	{ (u32)KVM_IRQFD, make_irqfd }, { (u32)KVM_IOEVENTFD, make_ioeventfd }, { (u32)KVM_IRQ_LINE, make_line },
	{ (u32)KVM_IRQ_LINE_STATUS, make_line }, { (u32)KVM_SET_VCPU_EVENTS, make_events },
	{ (u32)KVM_SET_XCRS, make_xcrs }, { (u32)KVM_SET_XSAVE, make_xsave },
	{ (u32)KVM_GET_DIRTY_LOG, make_dirty_log }, { (u32)KVM_CLEAR_DIRTY_LOG, make_clear_log },
};

#define STAGE_AT	(40u << 10)
#define STAGE_SIZE	6144u	/* the longest list made here */

/* ---- places ----------------------------------------------------------------------------------- */

static void fill(struct worker *w, u8 *p, u32 size)
{
	u32 words = (size + 40) / 4;

	switch (below(&w->c, 5)) {
	case 0:		/* what the last call left here */
		break;
	case 1:
		memset(p, 0, 4 * words);
		break;
	case 2:
		for (u32 i = 0; i < words && i < 200; i++) {
			u32 v = (u32)value(&w->c);

			memcpy(p + 4 * i, &v, sizeof(v));
		}
		break;
	default:
		break;
	}
	for (u32 n = below(&w->c, 4); n; n--) {
		u64 v = value(&w->c);

		memcpy(p + below(&w->c, words) * 4, &v, chance(&w->c, 50) ? 4 : 1);
	}
}

static void tame_address(struct worker *w, u64 *addr, u64 to, u64 room)
{
	if (*addr - to >= room)
		*addr = to + *addr % room;
}

/* p: in the scratch area, with room for the structure. */
static void arg_tame(struct worker *w, u32 request, void *p)
{
	struct kvm_userspace_memory_region mem;
	u64 scratch = (u64)w->scratch, area = (u64)w->memory->area, at;
	size_t where = 0;

	switch (request) {
	case (u32)KVM_SET_USER_MEMORY_REGION:
		memcpy(&mem, p, sizeof(mem));
		if (mem.userspace_addr - area > AREA_SIZE)
			mem.userspace_addr = area + (mem.userspace_addr & 0xfff);
		if (mem.memory_size > AREA_SIZE - (mem.userspace_addr - area))
			mem.memory_size = (AREA_SIZE - (mem.userspace_addr - area)) & ~0xfffULL;
		memcpy(p, &mem, sizeof(mem));
		return;
	case (u32)KVM_GET_DIRTY_LOG:
		where = offsetof(struct kvm_dirty_log, dirty_bitmap);
		break;
	case (u32)KVM_CLEAR_DIRTY_LOG:
		where = offsetof(struct kvm_clear_dirty_log, dirty_bitmap);
		break;
	case (u32)KVM_SET_DEVICE_ATTR: case (u32)KVM_GET_DEVICE_ATTR: case (u32)KVM_HAS_DEVICE_ATTR:
		where = offsetof(struct kvm_device_attr, addr);
		break;
	default:
		return;
	}
	memcpy(&at, (u8 *)p + where, sizeof(at));
	/* Bitmaps of the largest slot fit behind the middle. */
	tame_address(w, &at, scratch + SCRATCH_SIZE / 2, 64);
	memcpy((u8 *)p + where, &at, sizeof(at));
}

static u64 arg_number(struct worker *w, u32 request)
{
	if (request == KVM_RUN || request == KVM_CREATE_IRQCHIP)
		return chance(&w->c, 95) ? 0 : value(&w->c);
	if (request == KVM_CREATE_VCPU)
		return chance(&w->c, 90) ? below(&w->c, 4) : value(&w->c);
	return chance(&w->c, 50) ? below(&w->c, 4) : value(&w->c);
}

static u64 arg_nowhere(struct worker *w)
{
	const u64 places[] = { 0, 1, 0x10000, 0x7ffffffff000, 0x7fffffffe800, 0x8000000000000000, ~0ULL,
		(u64)w->scratch + SCRATCH_SIZE, (u64)w->scratch + SCRATCH_SIZE + 4096,
		(u64)w->memory->area + AREA_RAM };

	return places[below(&w->c, ARRAY_SIZE(places))];
}

/* A few places, each shared by requests of one size: what a GET writes there the SET takes. */
static u8 *arg_place(struct worker *w, u32 size)
{
	u32 off = size % 8 * 4096;

	if (chance(&w->c, 5))
		off += below(&w->c, 64);
	if (chance(&w->c, 3))
		return w->scratch + SCRATCH_SIZE - below(&w->c, 2 * size + 1);
	return w->scratch + off;
}

/* As a careful client would; p may be misaligned. False: nothing is known of this request. */
static bool arg_structured(struct worker *w, u32 request, u8 *p)
{
	u8 *stage = w->scratch + STAGE_AT;

	for (u32 i = 0; i < ARRAY_SIZE(makers); i++) {
		if (makers[i].request != request)
			continue;
		memcpy(stage, p, STAGE_SIZE);
		makers[i].make(w, stage);
		memcpy(p, stage, STAGE_SIZE);
		return true;
	}
	return false;
}

u64 arg_make(struct worker *w, const struct ioctl_row *row)
{
	u32 size = MAX(row->in, row->out), request = (u32)row->request;
	bool made = false;
	u8 *p;

	if (!size && request != (u32)KVM_SET_SIGNAL_MASK)
		return arg_number(w, request);
	if (chance(&w->c, 5))
		return arg_nowhere(w);
	p = arg_place(w, size);
	if (p + size + 8192 > w->scratch + SCRATCH_SIZE) {
		if (p + size <= w->scratch + SCRATCH_SIZE)
			arg_tame(w, request, p);
		return (u64)p;
	}
	if (chance(&w->c, 90))
		made = arg_structured(w, request, p);
	if (!made || chance(&w->c, 20))
		fill(w, p, size);
	arg_tame(w, request, p);
	return (u64)p;
}
