/* Runs each test in a process of its own. Usage: softkvm-client [NAME...] */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/softkvm/client.h"

const unsigned char code_forever[6] = { 0xff, 0x06, 0x00, 0x05, 0xeb, 0xfa };
const unsigned char code_halt[5] = { 0xff, 0x06, 0x00, 0x05, 0xf4 };

void guest_restart(struct guest *g)
{
	struct kvm_regs regs = { .rip = CODE_AT, .rsp = 0x8000, .rflags = 2 };

	CHECK(ioctl(g->vcpu, KVM_SET_REGS, &regs) == 0);
}

static void guest_memory(struct guest *g, const void *code, size_t size)
{
	struct kvm_userspace_memory_region region = { .memory_size = RAM_SIZE };

	g->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(g->ram != MAP_FAILED);
	region.userspace_addr = (uintptr_t)g->ram;
	CHECK(ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
	memcpy(g->ram + CODE_AT, code, size);
}

static void guest_make(struct guest *g, const void *code, size_t size, bool irqchip)
{
	struct kvm_sregs sregs;

	g->sys = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(g->sys >= 0);
	CHECK(ioctl(g->sys, KVM_GET_API_VERSION, 0) == KVM_API_VERSION);
	g->vm = ioctl(g->sys, KVM_CREATE_VM, 0);
	CHECK(g->vm >= 0);
	CHECK(!irqchip || ioctl(g->vm, KVM_CREATE_IRQCHIP, 0) == 0);
	guest_memory(g, code, size);
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	CHECK(g->vcpu >= 0);
	g->run_size = (size_t)ioctl(g->sys, KVM_GET_VCPU_MMAP_SIZE, 0);
	g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	CHECK(g->run != MAP_FAILED);
	CHECK(ioctl(g->vcpu, KVM_GET_SREGS, &sregs) == 0);
	sregs.cs.base = sregs.cs.selector = 0;
	CHECK(ioctl(g->vcpu, KVM_SET_SREGS, &sregs) == 0);
	guest_restart(g);
}

void guest_new(struct guest *g, const void *code, size_t size)
{
	guest_make(g, code, size, false);
}

void guest_new_irqchip(struct guest *g, const void *code, size_t size)
{
	guest_make(g, code, size, true);
}

void guest_free(struct guest *g)
{
	CHECK(munmap(g->run, g->run_size) == 0);
	CHECK(close(g->vcpu) == 0);
	CHECK(close(g->vm) == 0);
	CHECK(close(g->sys) == 0);
	CHECK(munmap(g->ram, RAM_SIZE) == 0);
}

int guest_run(struct guest *g)
{
	return ioctl(g->vcpu, KVM_RUN, 0) < 0 ? -errno : 0;
}

static bool test_passes(const struct client_test *t)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		alarm(60);
		t->fn();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	printf("%s %s (status %#x)\n", status ? "FAIL" : "ok", t->name, (unsigned int)status);
	fflush(stdout);
	return !status;
}

static bool is_chosen(const char *name, int argc, char *argv[])
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc == 1;
}

int main(int argc, char *argv[])
{
	static const struct client_test *const all[] = { file_tests, signal_tests, process_tests,
							  cancel_tests };
	int failed = 0, run = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		for (const struct client_test *t = all[i]; t->name; t++) {
			if (!is_chosen(t->name, argc, argv))
				continue;
			failed += !test_passes(t);
			run++;
		}
	}
	printf("%d tests, %d failed\n", run, failed);
	return failed || !run;
}
