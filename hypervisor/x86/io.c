/*
 * Accesses to ports and to physical addresses without memory. In-kernel devices answer at once; all
 * else goes to user space: the instruction unwinds, and runs again from its start when KVM_RUN is
 * called with the answer (struct io_log in x86/vcpu.h).
 *
 * Accesses to in-kernel devices are recorded as well, so that an instruction which makes several
 * does none of them twice. Linux Documentation/virt/kvm/api.rst 5 (KVM_EXIT_IO, KVM_EXIT_MMIO).
 *
 * The vector registers stay the guest's all the time: what serves accesses calls nothing of the seam
 * but what keeps them (os.h), and the engine saves them on its way to user space.
 */
#include <linux/errno.h>
#include <linux/kvm_para.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/mem.h"
#include "hypervisor/x86/system.h"

#define RUN_PIO_OFFSET	4096	/* of the data page in the vCPU's mapping */

_Static_assert(sizeof(struct kvm_run) <= RUN_PIO_OFFSET, "the data page comes after it");

/* ---- the log --------------------------------------------------------------------------------- */

static bool same_access(const struct io_fragment *a, const struct io_fragment *b)
{
	return a->addr == b->addr && a->len == b->len && a->write == b->write && a->pio == b->pio &&
		a->msr == b->msr && a->hypercall == b->hypercall;
}

/* The answer of an access that this instruction made before, or NULL. */
static const struct io_fragment *log_replay(struct vcpu *v, const struct io_fragment *want)
{
	struct io_log *log = &v->io;
	const struct io_fragment *f = &log->frag[log->next];

	if (log->next >= log->done)
		return NULL;
	if (!same_access(f, want)) {
		/* Another vCPU changed what the instruction reads: from here on it is a new one. */
		log->done = log->next;
		return NULL;
	}
	log->next++;
	v->boundary = true;
	return f;
}

/*
 * One instruction made more accesses than the log holds. Only XSAVE and its like to device
 * registers does; KVM's emulator gives up there too.
 */
static __noreturn_ void log_full(struct vcpu *v)
{
	v->io.done = 0;
	v->io.next = 0;
	emulation_failed(v);
}

static void log_check_room(struct vcpu *v)
{
	if (v->io.done >= IO_FRAGMENTS)
		log_full(v);
}

/* An in-kernel device has served it. */
static void log_served(struct vcpu *v, const struct io_fragment *f)
{
	v->io.frag[v->io.done++] = *f;
	v->io.next = v->io.done;
	v->boundary = true;	/* the log is for this instruction alone */
}

/* User space is to serve it: v->run is filled in. */
static __noreturn_ void log_wait(struct vcpu *v, const struct io_fragment *f)
{
	v->io.frag[v->io.done] = *f;
	v->io.waiting = true;
	v->io.next = 0;
	vcpu_unwind(v, UNWIND_EXIT);
}

/* Where user space put the answer. */
static const void *run_data(const struct vcpu *v, const struct io_fragment *f)
{
	if (f->msr)
		return &v->run->msr.data;
	if (f->hypercall)
		return &v->run->hypercall.ret;
	return f->pio ? (const char *)v->run + RUN_PIO_OFFSET : (const char *)v->run->mmio.data;
}

void io_complete(struct vcpu *v)
{
	struct io_fragment *f = &v->io.frag[v->io.done];

	if (!v->io.waiting)
		return;
	f->failed = f->msr && v->run->msr.error;
	if (!f->write)
		memcpy(f->data, run_data(v, f), f->len);
	if (!f->write && f->pio)
		memcpy(v->io_batch.data, run_data(v, f), v->io_batch.count * f->len);
	v->io.waiting = false;
	v->io.done++;
	v->io.next = 0;
}

/* ---- exits ----------------------------------------------------------------------------------- */

/* count elements, of which a write's are in data. */
static __noreturn_ void exit_pio(struct vcpu *v, const struct io_fragment *f, u32 count,
	const void *data)
{
	struct kvm_run *run = v->run;

	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = f->write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
	run->io.size = f->len;
	run->io.port = (u16)f->addr;
	run->io.count = count;
	run->io.data_offset = RUN_PIO_OFFSET;
	if (f->write)
		memcpy((char *)run + RUN_PIO_OFFSET, data, count * f->len);
	else
		memset((char *)run + RUN_PIO_OFFSET, 0, count * f->len);
	v->io_batch.count = count;
	log_wait(v, f);
}

static __noreturn_ void exit_mmio(struct vcpu *v, const struct io_fragment *f)
{
	struct kvm_run *run = v->run;

	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = f->addr;
	run->mmio.len = f->len;
	run->mmio.is_write = f->write;
	memcpy(run->mmio.data, f->data, sizeof(f->data));
	log_wait(v, f);
}

/* An ioeventfd takes the write. */
static bool io_signals(const struct vcpu *v, enum bus_kind bus, const struct io_fragment *f)
{
	const struct ioeventfds *t = v->vm->ioeventfds;

	return t && f->write && ioeventfd_match(t, bus, f->addr, f->len, f->data);
}

/* ---- ports ----------------------------------------------------------------------------------- */

/* f->data: in for writes, out for reads. */
static void pio_access(struct vcpu *v, struct io_fragment *f)
{
	const struct io_fragment *old = log_replay(v, f);
	int err;

	if (old) {
		memcpy(f->data, old->data, sizeof(f->data));
		return;
	}
	log_check_room(v);
	v->stat.pio++;
	if (io_signals(v, BUS_PIO, f)) {
		log_served(v, f);
		return;
	}
	err = f->write ? bus_write(v, BUS_PIO, f->addr, f->len, f->data) :
			 bus_read(v, BUS_PIO, f->addr, f->len, f->data);
	if (err)
		exit_pio(v, f, 1, f->data);
	log_served(v, f);
}

u32 pio_read(struct vcpu *v, u16 port, unsigned int size)
{
	struct io_fragment f = { .addr = port, .len = (u8)size, .pio = true };
	u32 val = 0;

	pio_access(v, &f);
	memcpy(&val, f.data, size);
	return val;
}

void pio_write(struct vcpu *v, u16 port, unsigned int size, u32 val)
{
	struct io_fragment f = { .addr = port, .len = (u8)size, .write = true, .pio = true };

	memcpy(f.data, &val, size);
	pio_access(v, &f);
}

/* ---- several elements of INS or OUTS ---- */

u32 pio_batch_known(const struct vcpu *v, u16 port, unsigned int size, bool write)
{
	struct io_fragment want = {
		.addr = port, .len = (u8)size, .write = write, .pio = true,
	};

	if (v->io.next >= v->io.done || !same_access(&v->io.frag[v->io.next], &want))
		return 0;
	return v->io_batch.count;
}

/*
 * n elements at buf. What a device of ours takes is one element; user space gets all that are there
 * by one exit. Returns how many were moved.
 */
static u32 pio_batch(struct vcpu *v, struct io_fragment *f, u32 n, u8 *buf)
{
	const struct io_fragment *old = log_replay(v, f);
	int err;

	if (old) {
		n = MIN(n, v->io_batch.count);
		if (!f->write)
			memcpy(buf, v->io_batch.data, n * f->len);
		return n;
	}
	log_check_room(v);
	v->stat.pio++;
	if (f->write)
		memcpy(f->data, buf, f->len);
	if (io_signals(v, BUS_PIO, f)) {
		log_served(v, f);
		v->io_batch.count = 1;
		return 1;
	}
	err = f->write ? bus_write(v, BUS_PIO, f->addr, f->len, f->data) :
			 bus_read(v, BUS_PIO, f->addr, f->len, f->data);
	/* An ioeventfd that did not take this element may take a later one, by its value. */
	if (err)
		exit_pio(v, f, f->write && v->vm->ioeventfds ? 1 : n, buf);
	log_served(v, f);
	v->io_batch.count = 1;
	memcpy(v->io_batch.data, f->data, f->len);
	memcpy(buf, f->data, f->len);
	return 1;
}

u32 pio_read_batch(struct vcpu *v, u16 port, unsigned int size, u32 n, void *buf)
{
	struct io_fragment f = { .addr = port, .len = (u8)size, .pio = true };

	return pio_batch(v, &f, n, buf);
}

u32 pio_write_batch(struct vcpu *v, u16 port, unsigned int size, u32 n, void *buf)
{
	struct io_fragment f = { .addr = port, .len = (u8)size, .write = true, .pio = true };

	return pio_batch(v, &f, n, buf);
}

#define TSS_IOMAP_FIELD	102	/* I/O map base address, 64-bit TSS too. SDM 3A figure 8-2 */

static bool tss_has_iomap(const struct segment *tr)
{
	unsigned int type = tr->attr & SEG_TYPE;

	return !(tr->attr & SEG_UNUSABLE) && (type == 9 || type == 11) &&
	       tr->limit >= TSS_IOMAP_FIELD + 1;
}

/* SDM 1 19.5.2: two bytes are read, whatever the access; past the limit counts as set. */
static bool iomap_allows(struct vcpu *v, u16 port, unsigned int size)
{
	const struct segment *tr = &v->seg[SEG_TR];
	u32 at, bits;

	if (!tss_has_iomap(tr))
		return false;
	at = (u32)sys_read(v, tr->base + TSS_IOMAP_FIELD, 2) + port / 8;
	if (at + 1 > tr->limit)
		return false;
	bits = (u32)sys_read(v, tr->base + at, 2) >> (port & 7);
	return !(bits & ((1u << size) - 1));
}

void io_check(struct vcpu *v, u16 port, unsigned int size)
{
	u64 iopl = (v->rflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT;

	if (!vcpu_protected(v) || (!vcpu_v86(v) && v->cpl <= iopl))
		return;
	if (!iomap_allows(v, port, size))
		raise_gp(v, 0);
}

/* ---- physical addresses ---------------------------------------------------------------------- */

static int mmio_in_kernel(struct vcpu *v, struct io_fragment *f)
{
	u32 off = f->addr & 0xfff;

	if (!lapic_owns(v, f->addr))
		return f->write ? bus_write(v, BUS_MMIO, f->addr, f->len, f->data) :
				  bus_read(v, BUS_MMIO, f->addr, f->len, f->data);
	if (f->write)
		lapic_mmio_write(v, off, f->len, f->data);
	else
		lapic_mmio_read(v, off, f->len, f->data);
	return 0;
}

static void mmio_access(struct vcpu *v, struct io_fragment *f)
{
	const struct io_fragment *old = log_replay(v, f);

	if (old) {
		memcpy(f->data, old->data, sizeof(f->data));
		return;
	}
	log_check_room(v);
	v->stat.mmio++;
	if (!lapic_owns(v, f->addr) && io_signals(v, BUS_MMIO, f)) {
		log_served(v, f);
		return;
	}
	if (mmio_in_kernel(v, f))
		exit_mmio(v, f);
	log_served(v, f);
}

void mmio_read(struct vcpu *v, u64 gpa, void *buf, unsigned int size)
{
	gpa &= GPA_ADDRESS;
	for (unsigned int at = 0; at < size; at += 8) {
		struct io_fragment f = { .addr = gpa + at, .len = (u8)MIN(size - at, 8) };

		mmio_access(v, &f);
		memcpy((char *)buf + at, f.data, f.len);
	}
}

void mmio_write(struct vcpu *v, u64 gpa, const void *buf, unsigned int size)
{
	gpa &= GPA_ADDRESS;
	for (unsigned int at = 0; at < size; at += 8) {
		struct io_fragment f = {
			.addr = gpa + at, .len = (u8)MIN(size - at, 8), .write = true};

		memcpy(f.data, (const char *)buf + at, f.len);
		mmio_access(v, &f);
	}
}

/* ---- MSRs ------------------------------------------------------------------------------------ */

static struct io_fragment msr_fragment(u32 index, bool write, u64 val)
{
	struct io_fragment f = { .addr = index, .len = 8, .write = write, .msr = true };

	memcpy(f.data, &val, sizeof(val));
	return f;
}

bool io_msr_answered(struct vcpu *v, u32 index, bool write, u64 *val)
{
	struct io_fragment f;
	const struct io_fragment *old;

	if (likely(!v->io.done))
		return false;
	f = msr_fragment(index, write, *val);
	old = log_replay(v, &f);
	if (!old)
		return false;
	if (old->failed)
		raise_gp(v, 0);
	memcpy(val, old->data, sizeof(*val));
	return true;
}

void io_msr_exit(struct vcpu *v, u32 index, bool write, u64 val, u32 reason)
{
	struct io_fragment f = msr_fragment(index, write, val);
	struct kvm_run *run = v->run;

	fpu_put(v);
	log_check_room(v);
	run->exit_reason = write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
	run->msr.error = 0;
	memset(run->msr.pad, 0, sizeof(run->msr.pad));
	run->msr.reason = reason;
	run->msr.index = index;
	run->msr.data = val;
	log_wait(v, &f);
}

/* ---- hypercalls ------------------------------------------------------------------------------ */

static u64 hypercall_arg(const struct vcpu *v, unsigned int reg, bool wide)
{
	return wide ? v->r[reg] : (u32)v->r[reg];
}

/* KVM_HC_MAP_GPA_RANGE, the only one that user space can ask for. */
s64 io_map_gpa_range(struct vcpu *v, bool wide)
{
	struct io_fragment f = { .addr = KVM_HC_MAP_GPA_RANGE, .len = 8, .hypercall = true };
	u64 gpa = hypercall_arg(v, R_RBX, wide), pages = hypercall_arg(v, R_RCX, wide);
	const struct io_fragment *old;
	struct kvm_run *run = v->run;
	s64 ret;

	if (!(v->vm->hypercall_exits & BIT(KVM_HC_MAP_GPA_RANGE)))
		return -KVM_ENOSYS;
	if (gpa & 0xfff || !pages || (gpa >> 12) + pages <= gpa >> 12)
		return -KVM_EINVAL;
	old = log_replay(v, &f);
	if (old) {
		memcpy(&ret, old->data, sizeof(ret));
		return ret;
	}
	fpu_put(v);
	log_check_room(v);
	run->exit_reason = KVM_EXIT_HYPERCALL;
	memset(&run->hypercall, 0, sizeof(run->hypercall));
	run->hypercall.nr = KVM_HC_MAP_GPA_RANGE;
	run->hypercall.args[0] = gpa;
	run->hypercall.args[1] = pages;
	run->hypercall.args[2] = hypercall_arg(v, R_RDX, wide);
	run->hypercall.longmode = wide;
	log_wait(v, &f);
}
