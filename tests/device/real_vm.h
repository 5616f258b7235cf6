/*
 * A VM of our hypervisor with RAM and a vCPU in real mode whose DS lies where a test wants it: whether an
 * access there reaches RAM, a slot, an eventfd or a device is then the hypervisor's word, not a mock's.
 */
#ifndef QUMRA_TESTS_DEVICE_REAL_VM_H
#define QUMRA_TESTS_DEVICE_REAL_VM_H

#include "tests/device/fixture.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine/io_map.h"
#include "vmm/memory/guest_memory.h"

#define REAL_VM_RAM	(24ULL << 20)
#define REAL_VM_CODE	0x1000

struct real_vm {
	struct kvm kvm;
	struct guest_memory mem;
	int cpu;
	struct kvm_run *run;
};

static inline void real_vm_init(struct real_vm *vm)
{
	/* inc word [0]; hlt */
	static const u8 code[] = { 0xFF, 0x06, 0x00, 0x00, 0xF4 };
	struct error err = ERROR_INIT;
	void *run;

	assert_int_equal(kvm_open(&vm->kvm, &kvm_backend_soft, &err), 0);
	assert_int_equal(kvm_create_vm(&vm->kvm, &err), 0);
	assert_int_equal(guest_memory_create(&vm->mem, REAL_VM_RAM, NULL, &err), 0);
	assert_int_equal(guest_memory_register(&vm->mem, &vm->kvm, false, &err), 0);
	vm->cpu = kvm_ioctl_num(&vm->kvm, vm->kvm.vm_fd, KVM_CREATE_VCPU, 0);
	assert_true(vm->cpu >= 0);
	assert_int_equal(vm->kvm.backend->mmap(vm->cpu, vm->kvm.run_size, &run), 0);
	vm->run = run;
	memcpy(guest_memory_at(&vm->mem, REAL_VM_CODE, sizeof(code)), code, sizeof(code));
}

static inline void real_vm_destroy(struct real_vm *vm)
{
	vm->kvm.backend->close(vm->cpu);
	kvm_close(&vm->kvm);
	guest_memory_destroy(&vm->mem);
}

static inline u16 *real_vm_ram(struct real_vm *vm, u64 gpa)
{
	u16 *word = guest_memory_at(&vm->mem, gpa, 2);

	assert_non_null(word);
	return word;
}

/* The guest adds one to the word there. How many accesses came to mmio's devices. */
static inline unsigned real_vm_increment(struct real_vm *vm, const struct io_map *mmio, u64 gpa)
{
	const struct kvm *k = &vm->kvm;
	struct kvm_regs regs = { .rip = REAL_VM_CODE, .rflags = 2 };
	struct kvm_sregs sregs;
	unsigned exits = 0;

	assert_int_equal(kvm_ioctl(k, vm->cpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = sregs.cs.selector = 0;
	sregs.ds.base = gpa;
	sregs.ds.limit = ~0u;
	sregs.ds.g = 1;
	assert_int_equal(kvm_ioctl(k, vm->cpu, KVM_SET_SREGS, &sregs), 0);
	assert_int_equal(kvm_ioctl(k, vm->cpu, KVM_SET_REGS, &regs), 0);
	while (assert_int_equal(kvm_ioctl_num(k, vm->cpu, KVM_RUN, 0), 0), vm->run->exit_reason == KVM_EXIT_MMIO) {
		exits++;
		if (vm->run->mmio.is_write)
			io_map_write(mmio, vm->run->mmio.phys_addr, vm->run->mmio.data, vm->run->mmio.len);
		else
			io_map_read(mmio, vm->run->mmio.phys_addr, vm->run->mmio.data, vm->run->mmio.len);
	}
	assert_int_equal(vm->run->exit_reason, KVM_EXIT_HLT);
	return exits;
}

#endif
