/* Chooses the hypervisor under test, and what the tests share. Usage: api-test [soft|host|softkvm
 * [test's name]]; softkvm: by system calls like the host's, but it is ours (under softkvm). */
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
	{ "softkvm", host_open, host_ioctl, host_mmap, host_close },
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

int main(int argc, char **argv)
{
	int failed = 0;
	int fd;

	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(apis); i++)
		if (!strcmp(argv[1], apis[i].name))
			api = &apis[i];
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
	failed += test_irqfd();
	failed += test_ioeventfd();
	failed += test_split();
	failed += test_coalesced();
	failed += test_vapic();
	failed += test_smm();
	failed += test_user_msrs();
	failed += test_ring();
	failed += test_tsc();
	failed += test_pv();
	failed += test_hyperv();
	failed += test_features();
	failed += test_pointers();
	failed += test_gone();
	failed += test_io_memory();
	failed += test_mwait();
	failed += test_halt_poll();
	failed += test_user_writes();
	failed += test_pmu();
	failed += test_pmu_intel();
	failed += test_cmci();
	failed += test_cr8();
	failed += test_old_pit();
	failed += test_cpuid_fault();
	failed += test_xstate();
	return failed != 0;
}
