/* Descriptors and names. */
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "tests/softkvm/client.h"

static bool is_kvm(int fd)
{
	return fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION;
}

static void test_open(void)
{
	int fd, dir = open("/dev", O_RDONLY | O_DIRECTORY);

	fd = open("/dev/kvm", O_RDWR);
	CHECK(is_kvm(fd) && fcntl(fd, F_GETFD) == 0);
	CHECK(close(fd) == 0);
	CHECK_FAILS(ioctl(fd, KVM_GET_API_VERSION, 0), EBADF);
	fd = open("/dev//kvm", O_RDWR | O_CLOEXEC);
	CHECK(is_kvm(fd) && fcntl(fd, F_GETFD) == FD_CLOEXEC);
	close(fd);
	fd = openat(AT_FDCWD, "/dev/kvm", O_RDWR);
	CHECK(is_kvm(fd));
	close(fd);
	fd = openat(dir, "kvm", O_RDWR);
	CHECK(is_kvm(fd));
	close(fd);
	CHECK_FAILS(open("/dev/kvm", O_RDWR | O_DIRECTORY), ENOTDIR);
	CHECK_FAILS(open("/dev/kvm", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	CHECK_FAILS(open("/dev/kvmx", O_RDWR), ENOENT);
	/* A number that was one of KVM's is an ordinary one again. */
	fd = open("/dev/null", O_RDWR);
	CHECK_FAILS(ioctl(fd, KVM_GET_API_VERSION, 0), ENOTTY);
}

static void test_looks(void)
{
	struct stat st;
	struct statx stx;
	int fd = open("/dev/kvm", O_RDWR);

	CHECK(access("/dev/kvm", R_OK | W_OK) == 0);
	CHECK(faccessat(AT_FDCWD, "/dev/kvm", R_OK, 0) == 0);
	CHECK(stat("/dev/kvm", &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(10, 232));
	CHECK(lstat("/dev/kvm", &st) == 0 && S_ISCHR(st.st_mode));
	CHECK(fstatat(AT_FDCWD, "/dev/kvm", &st, 0) == 0 && S_ISCHR(st.st_mode));
	CHECK(fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(10, 232));
	CHECK(statx(AT_FDCWD, "/dev/kvm", 0, STATX_TYPE, &stx) == 0 && S_ISCHR(stx.stx_mode));
	CHECK(stx.stx_rdev_major == 10 && stx.stx_rdev_minor == 232);
}

/* All numbers of one file are one file; it ends with the last. */
static void test_copies(void)
{
	struct guest g;
	int copy[5], null = open("/dev/null", O_RDWR);

	guest_new(&g, code_halt, sizeof(code_halt));
	copy[0] = dup(g.vcpu);
	copy[1] = fcntl(g.vcpu, F_DUPFD_CLOEXEC, 100);
	copy[2] = dup2(g.vcpu, 200);
	copy[3] = dup3(g.vcpu, 201, O_CLOEXEC);
	copy[4] = fcntl(copy[3], F_DUPFD, 150);
	CHECK(copy[1] >= 100 && copy[2] == 200 && copy[3] == 201 && copy[4] >= 150);
	CHECK(close(g.vcpu) == 0);
	CHECK_FAILS(ioctl(g.vcpu, KVM_RUN, 0), EBADF);
	for (int i = 0; i < 5; i++) {
		g.vcpu = copy[i];
		guest_restart(&g);
		CHECK(guest_run(&g) == 0 && g.run->exit_reason == KVM_EXIT_HLT);
	}
	CHECK(guest_count(&g) == 5);
	/* Replaced by another file, which has its number from now on. */
	CHECK(dup2(null, 200) == 200);
	CHECK_FAILS(ioctl(200, KVM_RUN, 0), ENOTTY);
	CHECK(dup2(g.vm, 201) == 201 && ioctl(201, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
	CHECK_FAILS(dup2(999, g.vcpu), EBADF);
	guest_restart(&g);
	CHECK(guest_run(&g) == 0 && guest_count(&g) == 6);
	CHECK(close_range((unsigned int)g.vcpu, (unsigned int)g.vcpu, 0) == 0);
	CHECK_FAILS(ioctl(g.vcpu, KVM_RUN, 0), EBADF);
}

static void test_maps(void)
{
	struct guest g;
	void *other;

	guest_new(&g, code_halt, sizeof(code_halt));
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, g.sys, 0) == MAP_FAILED && errno == ENODEV);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, g.vm, 0) == MAP_FAILED && errno == ENODEV);
	other = mmap(NULL, 4096, PROT_READ, MAP_SHARED, g.vcpu, 0);
	CHECK(other != MAP_FAILED);
	g.run->exit_reason = 77;
	CHECK(((struct kvm_run *)other)->exit_reason == 77);
	/* The mapping stays when the descriptor goes. */
	CHECK(close(g.vcpu) == 0);
	CHECK(((struct kvm_run *)other)->exit_reason == 77);
}

static void test_waits(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct pollfd p = { .events = POLLIN | POLLOUT };
	struct guest g;
	char byte;
	int ep = epoll_create1(0);

	guest_new(&g, code_halt, sizeof(code_halt));
	p.fd = g.vm;
	CHECK(poll(&p, 1, 0) == 1 && p.revents == (POLLIN | POLLOUT));
	CHECK_FAILS(epoll_ctl(ep, EPOLL_CTL_ADD, g.vcpu, &ev), EPERM);
	CHECK_FAILS(read(g.vm, &byte, 1), EINVAL);
}

/* More VMs than anyone has, made and ended. */
static void test_many(void)
{
	struct guest g[40];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 40; i++)
			guest_new(&g[i], code_halt, sizeof(code_halt));
		for (int i = 39; i >= 0; i--) {
			CHECK(guest_run(&g[i]) == 0 && guest_count(&g[i]) == 1);
			guest_free(&g[i]);
		}
	}
}

const struct client_test file_tests[] = {
	{ "open", test_open }, { "looks", test_looks }, { "copies", test_copies },
	{ "maps", test_maps }, { "waits", test_waits }, { "many", test_many }, { 0 },
};
