/*
 * How a handler that cannot go on leaves: straight back to the loop that called it.
 *
 * The loop saves its place in v->unwind with __builtin_setjmp; faults and exits jump there, past
 * every frame between. So a handler holds no lock and no resource when it may unwind (but for
 * vcpu_exclusive_begin, which ends here), and whatever it changed before stays changed.
 *
 * Guest memory that user space unmapped or made read-only faults wherever it is touched: os_fault_catch()
 * leads such faults here, and the vCPU leaves with -EFAULT from KVM_RUN, as in the kernel.
 *
 * vcpu_guarded() puts a second place on top, for code that must see each unwinding (event
 * delivery). __builtin_longjmp needs a frame other than setjmp's, hence the separate functions,
 * never inlined.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/x86/system.h"

__attribute__((noinline)) void vcpu_unwind(struct vcpu *v, enum unwind why)
{
	v->unwind_reason = why;
	if (unlikely(v->exclusive))
		vcpu_exclusive_end(v);
	__builtin_longjmp(v->unwind, 1);
}

/* Vectors that push an error code: #DF #TS #NP #SS #GP #PF #AC. SDM 3A table 6-1 */
static bool vector_has_error(u8 vector)
{
	return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

void vcpu_raise(struct vcpu *v, u8 vector, u32 error)
{
	v->event = (struct event) {
		.type = EV_FAULT,
		.vector = vector,
		.has_error = vector_has_error(vector),
		.error = error,
	};
	vcpu_unwind(v, UNWIND_EVENT);
}

void vcpu_raise_pf(struct vcpu *v, u64 linear, u32 error)
{
	v->event = (struct event) {
		.type = EV_FAULT,
		.vector = VEC_PF,
		.has_error = true,
		.error = error,
		.payload = linear,
	};
	vcpu_unwind(v, UNWIND_EVENT);
}

/* All that must survive the jump lives in memory: the compiler may keep nothing else across it. */
__attribute__((noinline)) static enum unwind guarded_call(struct vcpu *volatile v,
	void (*volatile fn)(struct vcpu *v))
{
	if (__builtin_setjmp(v->unwind))
		return v->unwind_reason;
	fn(v);
	return UNWIND_NONE;
}

enum unwind vcpu_guarded(struct vcpu *v, void (*fn)(struct vcpu *v))
{
	const struct os_fault_catch *before = os_fault_catch(&v->memory_catch);
	void *saved[ARRAY_SIZE(v->unwind)];
	enum unwind why;

	memcpy(saved, v->unwind, sizeof(saved));
	why = guarded_call(v, fn);
	memcpy(v->unwind, saved, sizeof(saved));
	os_fault_catch(before);
	return why;
}

/* ---- memory that went away ----------------------------------------------------------------- */

static bool memory_owns(void *arg, u64 addr)
{
	const struct vcpu *v = arg;
	const struct memslots *all = v->vm->slots;
	u32 i;

	for (i = 0; i < all->n; i++)
		if (addr - all->slot[i].hva < all->slot[i].size)
			return true;
	return false;
}

void vcpu_memory_lost(struct vcpu *v)
{
	code_unlock(v);
	v->memory_lost = true;
	vcpu_unwind(v, UNWIND_EXIT);
}

static __noreturn_ void memory_land(void *arg)
{
	vcpu_memory_lost(arg);
}

void vcpu_memory_catch(struct vcpu *v)
{
	v->memory_catch = (struct os_fault_catch){ memory_owns, memory_land, v };
}
