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

static void opens_kvm(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR);

	if (!is_kvm(fd))
		fprintf(stderr, "open %s\n", path);
	CHECK(is_kvm(fd));
	CHECK(close(fd) == 0);
	CHECK(access(path, R_OK | W_OK) == 0);
	CHECK(stat(path, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(10, 232));
	CHECK(fstatat(AT_FDCWD, path, &st, 0) == 0 && S_ISCHR(st.st_mode));
}

/* One file by many names. */
static void test_names(void)
{
	char folder[] = "/tmp/softkvm-names-XXXXXX";
	struct stat st;
	int fd;

	opens_kvm("/dev/./kvm");
	opens_kvm("//dev/kvm");
	opens_kvm("/./dev///.//kvm");
	opens_kvm("/dev/../dev/kvm");
	CHECK(chdir("/dev") == 0);
	opens_kvm("kvm");
	opens_kvm("./kvm");
	fd = openat(AT_FDCWD, "kvm", O_RDWR);
	CHECK(is_kvm(fd));
	CHECK(chdir("/") == 0);
	opens_kvm("dev/kvm");
	CHECK_FAILS(open("kvm", O_RDWR), ENOENT);
	CHECK(mkdtemp(folder) && chdir(folder) == 0);
	CHECK(symlink("/dev/kvm", "absolute") == 0 && symlink("absolute", "twice") == 0);
	CHECK(symlink("/dev", "devices") == 0 && symlink("devices/kvm", "relative") == 0);
	CHECK(symlink("kvm", "nowhere") == 0 && symlink("round", "round") == 0);
	opens_kvm("absolute");
	opens_kvm("twice");
	opens_kvm("relative");
	opens_kvm("devices/kvm");
	CHECK(lstat("absolute", &st) == 0 && S_ISLNK(st.st_mode));
	CHECK(lstat("devices/kvm", &st) == 0 && S_ISCHR(st.st_mode));
	fd = open("devices/kvm", O_RDWR | O_NOFOLLOW);
	CHECK(is_kvm(fd) && !close(fd));
	fd = open("twice", O_RDWR | O_CREAT, 0600);
	CHECK(is_kvm(fd) && !close(fd));
	CHECK_FAILS(open("nowhere", O_RDWR), ENOENT);
	CHECK_FAILS(open("round", O_RDWR), ELOOP);
	CHECK_FAILS(open("absolute", O_RDWR | O_NOFOLLOW), ELOOP);
	CHECK_FAILS(open("kvm", O_RDWR), ENOENT);
	CHECK(!unlink("absolute") && !unlink("twice") && !unlink("devices") && !unlink("relative"));
	CHECK(!unlink("nowhere") && !unlink("round") && !rmdir(folder));
}

/* What any file takes, and what files of this kind refuse. */
static void test_any_file(void)
{
	struct guest g;
	int on = 1, off = 0;

	guest_new(&g, code_halt, sizeof(code_halt));
	for (int i = 0; i < 3; i++) {
		int fd = i == 0 ? g.sys : i == 1 ? g.vm : g.vcpu;

		CHECK(ioctl(fd, FIONCLEX) == 0 && fcntl(fd, F_GETFD) == 0);
		CHECK(ioctl(fd, FIOCLEX) == 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
		CHECK(ioctl(fd, FIONBIO, &on) == 0 && fcntl(fd, F_GETFL) & O_NONBLOCK);
		CHECK(ioctl(fd, FIONBIO, &off) == 0 && !(fcntl(fd, F_GETFL) & O_NONBLOCK));
		CHECK(ioctl(fd, FIOASYNC, &off) == 0);
		CHECK_FAILS(ioctl(fd, FIOASYNC, &on), ENOTTY);
		CHECK_FAILS(write(fd, &on, sizeof(on)), EINVAL);
		CHECK(lseek(fd, 100, SEEK_SET) == 0 && lseek(fd, 0, SEEK_END) == 0);
		CHECK_FAILS(lseek(fd, 0, 77), EINVAL);
	}
	CHECK(guest_run(&g) == 0 && guest_count(&g) == 1);
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
	{ "open", test_open }, { "names", test_names },
	{ "any-file", test_any_file }, { "looks", test_looks }, { "copies", test_copies },
	{ "maps", test_maps }, { "waits", test_waits }, { "many", test_many }, { 0 },
};
