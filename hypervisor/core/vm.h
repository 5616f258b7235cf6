/*
 * A virtual machine: memory slots, vCPUs, the interrupt chips, and buses that find the device
 * behind an address.
 *
 * Lifetime: the VM lives while its own descriptor or one of its vCPUs' is open (refs).
 * Locking order: vm->lock, then vm->stop_lock; vcpu->mutex never inside them; irqchip->lock,
 * vm->code_lock and vm->dirty_lock are leaves. A vCPU thread in the engine (v->in_guest) reads
 * vm->slots, vm->bus and vm->ioeventfds without a lock: whoever replaces one of them first stops
 * all vCPUs (vm_stop_vcpus), so slot pointers are good until the thread next leaves the engine. It
 * may wait for another vCPU to serve a request or to leave (code_cover), serving its own meanwhile,
 * but for stop_lock only after vcpu_leave().
 */
#ifndef QUMRA_HYPERVISOR_CORE_VM_H
#define QUMRA_HYPERVISOR_CORE_VM_H

#include "hypervisor/core/code_page.h"
#include "hypervisor/x86/vcpu.h"

struct msr_filter;

#define MAX_VCPUS	64
#define MAX_VCPU_IDS	256
#define MAX_SLOTS	512	/* in each address space */

/*
 * Address spaces of guest physical memory (KVM_CAP_MULTI_ADDRESS_SPACE): 1 is what a vCPU in SMM
 * sees. Inside the hypervisor a guest physical address has its space's number above the address, so
 * slots, translations and code of the two never meet; v->mem_space is what the vCPU's own have.
 * Whatever goes to a device or to user space is cut to the address.
 */
#define NR_MEM_SPACES	2
#define MEM_SPACE_SHIFT	52
#define GPA_ADDRESS	MASK(MEM_SPACE_SHIFT - 1, 0)
static inline u64 mem_space(u32 n)
{
	return (u64)n << MEM_SPACE_SHIFT;
}

struct memslot {
	u32 id;			/* bits 31:16 address space */
	u32 flags;		/* KVM_MEM_* */
	u64 gpa, size;		/* bytes, page-aligned; gpa with mem_space() */
	u64 hva;		/* user space's memory */
	u64 *dirty;		/* bitmap, one bit a page, or NULL; set atomically */
	struct code_page *code;	/* one a page (os_pages_alloc: untouched ones cost nothing) */
};

/* Sorted by gpa, none overlapping; immutable once published in vm->slots. */
struct memslots {
	u32 n;
	struct memslot slot[];
};

/* The slot that holds gpa, or NULL. */
const struct memslot *memslot_find(const struct vm *vm, u64 gpa);
static inline void *memslot_host(const struct memslot *s, u64 gpa)
{
	return (void *)(s->hva + (gpa - s->gpa));
}
static inline struct code_page *memslot_code(const struct memslot *s, u64 gpa)
{
	return &s->code[(gpa - s->gpa) >> 12];
}
/* After a write to guest memory by the hypervisor (v: for this vCPU, or NULL) or the guest's first
 * write since the log was cleared. */
void memslot_mark_dirty(struct vm *vm, struct vcpu *v, const struct memslot *s, u64 gpa);

/* Guest physical memory by the hypervisor itself (clock page, PTEs). 0 or -EFAULT. Marks dirty. */
int vm_read_guest(struct vm *vm, u64 gpa, void *buf, size_t n);
int vm_write_guest(struct vm *vm, u64 gpa, const void *buf, size_t n);

/* ---- I/O buses: in-kernel devices and ioeventfds ------------------------------------------ */

struct io_device;
struct io_device_ops {
	/* len 1, 2, 4, 8. 0: done; -EOPNOTSUPP: not mine after all (goes on to user space). */
	int (*read)(struct vcpu *v, struct io_device *d, u64 addr, unsigned int len, void *data);
	int (*write)(struct vcpu *v, struct io_device *d, u64 addr, unsigned int len,
		     const void *data);
};
struct io_device {
	const struct io_device_ops *ops;
};
enum bus_kind { BUS_PIO, BUS_MMIO, NR_BUSES };
#define MAX_IO_RANGES 1000	/* KVM's limit, for each bus */
/*
 * Ranges may overlap: each device in whose range the whole access lies is asked until one serves
 * it. vm->lock held, or the VM not yet in use, for both. -EINVAL (empty, or past the end of
 * addresses), -ENOSPC, -ENOMEM.
 */
int bus_register(struct vm *vm, enum bus_kind bus, u64 addr, u64 len, struct io_device *dev);
void bus_unregister(struct vm *vm, enum bus_kind bus, struct io_device *dev);
/* 0: a device served it; -EOPNOTSUPP: none did. */
int bus_read(struct vcpu *v, enum bus_kind bus, u64 addr, unsigned int len, void *data);
int bus_write(struct vcpu *v, enum bus_kind bus, u64 addr, unsigned int len, const void *data);

/* KVM_IOEVENTFD (core/ioeventfd.c). vm->lock held. 0 or -errno. */
int ioeventfd_set(struct vm *vm, const struct kvm_ioeventfd *args);
void ioeventfds_free(struct vm *vm);
/* A write that an ioeventfd takes: true, and it is signalled. Registers kept. */
struct ioeventfds;
bool ioeventfd_match(const struct ioeventfds *t, enum bus_kind bus, u64 addr, unsigned int len,
	const void *data);

/*
 * KVM_IRQFD (core/irqfd.c). vm->lock held. 0 or -errno. irqfds_free: the VM's descriptor is closed;
 * the VM may live on.
 */
int irqfd_set(struct vm *vm, const struct kvm_irqfd *args);
void irqfds_free(struct vm *vm);

/* Writes that wait in a ring for user space (core/coalesced.c). vm->lock held. 0 or -errno. */
struct coalesced {
	struct os_mutex lock;	/* of the ring; a leaf */
	struct kvm_coalesced_mmio_ring *ring;	/* a page that user space maps, too */
	struct coalesced_zone *zones;
};
int coalesced_init(struct vm *vm);
void coalesced_free(struct vm *vm);
int coalesced_register(struct vm *vm, const struct kvm_coalesced_mmio_zone *zone);
int coalesced_unregister(struct vm *vm, const struct kvm_coalesced_mmio_zone *zone);

/* ---- the VM ------------------------------------------------------------------------------- */

struct vm {
	struct os_mutex lock;
	u32 refs;		/* atomic */
	u32 dead;		/* an internal error stopped it, atomic: every ioctl answers -EIO */
	int fd;
	struct memslots *slots;
	struct vcpu *vcpus[MAX_VCPUS];	/* by index; an entry appears once and stays */
	u32 nr_vcpus;		/* store_release when an entry appears */
	struct irqchip *irqchip;	/* NULL until KVM_CREATE_IRQCHIP (irqchip/irqchip.h) */
	/* Replaced as a whole, with the vCPUs stopped; NULL: nothing there. */
	struct io_bus *bus[NR_BUSES];
	struct ioeventfds *ioeventfds;
	struct irqfds *irqfds;		/* NULL until KVM_IRQFD */
	struct coalesced coalesced;
	u64 tss_addr, identity_map_addr;
	u32 bsp_id;
	u32 max_vcpu_ids;	/* KVM_CAP_MAX_VCPU_ID; 0: not limited yet */
	u32 mmu_pages;		/* KVM_SET_NR_MMU_PAGES; 0: not set */
	u32 disabled_quirks;
	bool split_irqchip, x2apic_32bit_ids;
	bool x2apic_exact;	/* KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK */
	s64 clock_offset; /* kvmclock = host monotonic ns + clock_offset; see kvmclock_now() */
	struct clock_ref { u64 tsc, ns; u32 state; } clock_ref;	/* x86/kvmclock.c */
	u64 wall_seq;
	struct os_mutex stop_lock;	/* of whoever has stopped the vCPUs */
	u32 stopped;		/* no vCPU may enter; under stop_lock, atomic */
	u32 stop_depth;		/* of vm_stop_vcpus; under lock */
	struct os_mutex code_lock;	/* core/code_page.h */
	u64 user_wrote;		/* host TSC when user space may last have written; atomic */
	struct os_timer watch;	/* core/request.c */
	u32 watching;		/* it is armed; atomic */
	/*
	 * KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: KVM_GET_DIRTY_LOG clears nothing; with INITIALLY_SET,
	 * logs begin with all pages dirty.
	 */
	u32 dirty_manual;
	u32 dirty_ring_bytes;	/* of each vCPU's ring; fixed when the first vCPU is made */
	struct os_mutex dirty_lock;	/* core/dirty_ring.c */
	struct msr_filter *msr_filter;	/* x86/msr_filter.c; NULL: all is allowed */
	struct pmu_filter *pmu_filter;	/* x86/pmu.h; NULL: all is allowed */
	bool pmu_disabled;	/* KVM_CAP_PMU_CAPABILITY */
	u32 user_msr_mask;	/* KVM_MSR_EXIT_REASON_*: RDMSR, WRMSR that go to user space */
	u32 tsc_khz;		/* of new vCPUs; 0: the host's */
	u32 watch_ticks;	/* the watch's own */
	struct hv_vm *hv;	/* x86/hyperv.h */
	struct vm_stat stat;	/* under lock, but stops: under stop_lock */
	struct stats_file stats;
	bool exception_payload;	/* KVM_CAP_EXCEPTION_PAYLOAD */
	bool triple_fault_event;	/* KVM_CAP_X86_TRIPLE_FAULT_EVENT */
	bool platform_info_denied;	/* KVM_CAP_MSR_PLATFORM_INFO, the other way round */
	u32 hypercall_exits;	/* KVM_CAP_EXIT_HYPERCALL: bits by number */
	u32 halt_poll_ns;	/* KVM_CAP_HALT_POLL: the longest; 0: never */
	u32 disabled_exits;	/* KVM_X86_DISABLE_EXITS_* */
	bool bus_lock_exits;	/* KVM_CAP_X86_BUS_LOCK_EXIT; set once, atomic */
	const struct cpu_engine_ops *engine;
};

/* The new VM has one reference. 0 or -errno. */
int vm_create(struct vm **vm);
void vm_get(struct vm *vm);
void vm_put(struct vm *vm);	/* the last one destroys it and its vCPUs */

/*
 * User space may have written to guest memory, and a vCPU is about to learn of it: said before the
 * interrupt is sent. No lock; registers kept.
 */
void vm_user_wrote(struct vm *vm);

/* KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG. vm->lock held. 0 or
 * -errno. */
int memslot_set(struct vm *vm, const struct kvm_userspace_memory_region *mem);
void memslots_free(struct vm *vm);
int dirty_get(struct vm *vm, const struct kvm_dirty_log *log);
int dirty_clear(struct vm *vm, const struct kvm_clear_dirty_log *log);
/* core/dirty_ring.c: KVM_CAP_DIRTY_LOG_RING, KVM_RESET_DIRTY_RINGS (how many entries); vm->lock
 * held. */
int dirty_ring_enable(struct vm *vm, u64 bytes);
int dirty_ring_reset(struct vm *vm);
void dirty_ring_init(struct vcpu *v);
/* False: all rings are full. */
bool dirty_ring_push(struct vm *vm, struct vcpu *v, u32 slot, u64 page);
bool dirty_ring_full(const struct vcpu *v);	/* user space must look first */
void dirty_ring_make_room(struct vcpu *v);	/* unwinds to be in that case soon */
const struct memslot *memslot_by_id(const struct vm *vm, u32 id);
bool memslot_id_valid(u32 id);
static inline size_t dirty_bytes(u64 size)
{
	return ALIGN_UP(size >> 12, 64ULL) / 8;
}
void vm_request_all(struct vm *vm, int req);
/* Counters to where KVM_GET_STATS_FD's descriptors read them, if there are any. Any thread. */
void vcpu_stats_publish(const struct vcpu *v);
void vm_stats_publish(const struct vm *vm);
void stats_free(struct stats_file *s);	/* api/stats.c */

/* Bytes of v->run's mapping: struct kvm_run, the page of PIO data, the coalesced MMIO ring. */
#define VCPU_MMAP_SIZE	(3 * 4096)
#define COALESCED_PAGE	2	/* KVM_COALESCED_MMIO_PAGE_OFFSET: the VM's, in each vCPU's mapping */
/* With dirty rings, these follow further up. */
#define DIRTY_PAGE	4096u
#define DIRTY_RING_OFFSET (KVM_DIRTY_LOG_PAGE_OFFSET * 4096UL)
#define DIRTY_RING_MAX	(65536u * (u32)sizeof(struct kvm_dirty_gfn))
static inline size_t vcpu_mmap_bytes(const struct vm *vm)
{
	return vm->dirty_ring_bytes ? DIRTY_RING_OFFSET + vm->dirty_ring_bytes : VCPU_MMAP_SIZE;
}
/*
 * Makes vCPU id, which takes the mapping run over on success; vcpu_publish() makes it one of the
 * VM's. vm->lock held for both. 0 or -errno.
 */
int vcpu_create(struct vm *vm, u32 id, struct kvm_run *run, struct vcpu **v);
void vcpu_publish(struct vcpu *v);
void vcpu_destroy(struct vcpu *v);

/*
 * Between the two, v->in_guest is set: slot pointers stay good and vm_stop_vcpus() waits for this
 * thread. vcpu_enter sleeps while the VM is stopped. With v->mutex, never with vm->lock held.
 */
void vcpu_enter(struct vcpu *v);
void vcpu_leave(struct vcpu *v);

/*
 * Engines need not look at v->run->immediate_exit, which user space sets without telling us: while
 * a vCPU runs guest code a timer looks for it once a millisecond and kicks.
 */
void vm_watch_init(struct vm *vm);
void vm_watch_start(struct vm *vm);
static inline void vm_watch(struct vm *vm)
{
	if (unlikely(!READ_ONCE(vm->watching)))
		vm_watch_start(vm);
}

/* Signals that KVM_SET_SIGNAL_MASK lets in stay blocked for the thread, so nothing announces
 * them. */
#define SIGNAL_POLL_NS	1000000ULL

/* KVM_RUN, with v->mutex and entered. 0: see v->run->exit_reason; -errno. */
int vcpu_run(struct vcpu *v);
/* Could an external interrupt, an NMI be delivered before the next instruction? */
bool vcpu_irq_allowed(const struct vcpu *v);
bool vcpu_nmi_allowed(const struct vcpu *v);

/* Returns with no vCPU thread in guest code, and none able to enter until vm_start_vcpus. vm->lock
 * held. Never from a vCPU thread in the engine. */
void vm_stop_vcpus(struct vm *vm);
void vm_start_vcpus(struct vm *vm);
/*
 * The same for a vCPU thread in the engine, in the middle of an instruction that has changed
 * nothing yet: all other vCPUs stand still in between. v itself leaves meanwhile, so begin may
 * unwind with UNWIND_RESTART (memory slots changed), and the TLB must be asked anew. Unwinding ends
 * it. For what cannot be atomic otherwise: some 10 us, and more where host CPUs are short.
 */
void vcpu_exclusive_begin(struct vcpu *v);
void vcpu_exclusive_end(struct vcpu *v);
/* An assertion about this VM failed: log, mark it dead, kick all its vCPUs out. */
void vm_kill(struct vm *vm, const char *why);

/* ---- CPU engines
 * --------------------------------------------------------------------------------- */

struct cpu_engine_ops {
	const char *name;
	int (*vcpu_create)(struct vcpu *v);
	void (*vcpu_destroy)(struct vcpu *v);
	/*
	 * Runs guest code until v->kick or v->run->immediate_exit, an event, or an exit. At least
	 * one instruction is executed before either is looked at: a caller who sets v->kick first
	 * gets the shortest step. Called with v->in_guest set, no event pending for the guest
	 * (v->event.type == EV_NONE), and comes back with fpu_put done:
	 * UNWIND_NONE: kicked; UNWIND_EVENT: v->event holds a fault or soft event; UNWIND_EXIT:
	 * v->run is filled in; UNWIND_SHUTDOWN. A halt is v->halted with UNWIND_NONE.
	 */
	enum unwind (*run)(struct vcpu *v);
	void (*flush_code)(struct vcpu *v);	/* all decoded or translated code of this vCPU */
	/*
	 * Linear addresses in s lead elsewhere now: all of them but those of global pages (global:
	 * of these too), or those of one page. NULL: the engine keeps nothing by linear address
	 * beside insn/code.h.
	 */
	void (*space_drop)(struct vcpu *v, struct space *s, bool global);
	void (*space_drop_page)(struct vcpu *v, struct space *s, u64 la);
	/* The decoded code in this page (guest physical) went stale, on this vCPU's thread. */
	void (*code_stale)(struct vcpu *v, u64 gpa);
	/* Before code of any page runs again, code_check_page(). Outside of guest code. */
	void (*code_look)(struct vcpu *v);
	/*
	 * Other vCPUs made code stale that this one has used: drop what is of an old generation
	 * (code_page_gen). At a boundary, on this vCPU's thread. NULL: each block's generation is
	 * compared before it runs.
	 */
	void (*code_check)(struct vcpu *v);
};
extern const struct cpu_engine_ops interp_engine, dbt_engine;
const struct cpu_engine_ops *engine_by_name(const char *name);	/* NULL: unknown */

#endif
