/* Chooses the hypervisor under test, and what the tests share. Usage: api-test [soft|host [test's
 * name]] */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/api/qkvm.h"
#include "tests/api/api.h"

static int host_open(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static long host_ioctl(int fd, unsigned long request, unsigned long arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

static int host_mmap(int fd, unsigned long size, void **addr)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*addr = p;
	return 0;
}

static int host_close(int fd)
{
	return close(fd) < 0 ? -errno : 0;
}

static const struct api apis[] = {
	{ "soft", qkvm_open, qkvm_ioctl, qkvm_mmap, qkvm_close },
	{ "host", host_open, host_ioctl, host_mmap, host_close },
};
const struct api *api = &apis[0];

bool api_is_host(void)
{
	return api == &apis[1];
}

/* A /dev/kvm on a CPU without VMX or SVM emulates more than it runs, and differs from KVM
 * elsewhere. */
static bool host_is_emulated(void)
{
	u32 a, b, c, d, ext;

	__cpuid(1, a, b, c, d);
	__cpuid(0x80000001, a, b, ext, d);
	return api_is_host() && !(c & BIT(5)) && !(ext & BIT(2));
}

void skip_on_emulated_host(const char *difference)
{
	if (!host_is_emulated())
		return;
	print_message("the host's KVM: %s\n", difference);
	skip();
}

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

void real_mode(int vcpu, u64 rip)
{
	struct kvm_regs r = { .rip = rip, .rsp = 0x8000, .rflags = 2 };
	struct kvm_sregs s = get_sregs(vcpu);
	struct kvm_segment *seg[] = { &s.cs, &s.ds, &s.es, &s.fs, &s.gs, &s.ss };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(seg); i++) {
		seg[i]->base = 0;
		seg[i]->selector = 0;
	}
	assert_int_equal(call(vcpu, KVM_SET_SREGS, &s), 0);
	set_regs(vcpu, &r);
}

void machine_new(struct machine *m, int irqchip)
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
	if (irqchip == WITH_IRQCHIP)
		assert_int_equal(call_num(m->vm, KVM_CREATE_IRQCHIP, 0), 0);
	m->vcpu = vcpu_new(m->vm, 0, &m->run);
	real_mode(m->vcpu, CODE_AT);
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

int main(int argc, char **argv)
{
	int failed = 0;
	int fd;

	if (argc > 1 && !strcmp(argv[1], "host"))
		api = &apis[1];
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	fd = api->open();
	if (fd < 0) {
		printf("SKIP: cannot open the %s hypervisor: %s\n", api->name, strerror(-fd));
		return 77;
	}
	api->close(fd);
	failed += test_system();
	failed += test_memory();
	failed += test_regs();
	failed += test_run();
	failed += test_events();
	failed += test_chips();
	failed += test_threads();
	return failed != 0;
}
