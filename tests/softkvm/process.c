/* fork(2), vfork(2), exec, and threads that come and go. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/softkvm/client.h"

static int child_status(pid_t pid)
{
	int status = -1;

	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

/* A child has the parent's descriptors, but its VMs are the parent's; it may make its own. */
static void in_child(const struct guest *parents)
{
	struct kvm_regs regs;
	struct guest g;

	CHECK_FAILS(ioctl(parents->vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), EIO);
	CHECK_FAILS(ioctl(parents->vcpu, KVM_GET_REGS, &regs), EIO);
	CHECK_FAILS(ioctl(parents->vcpu, KVM_RUN, 0), EIO);
	CHECK(ioctl(parents->sys, KVM_GET_API_VERSION, 0) == KVM_API_VERSION);
	guest_new(&g, code_halt, sizeof(code_halt));
	CHECK(guest_run(&g) == 0 && guest_count(&g) == 1);
	guest_free(&g);
	CHECK(close(parents->vcpu) == 0 && close(parents->vm) == 0 && close(parents->sys) == 0);
	CHECK_FAILS(ioctl(parents->vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), EBADF);
}

static void *run_for_ever(void *arg)
{
	struct guest *g = arg;

	while (guest_run(g) != -EINTR)
		;
	return NULL;
}

static void handler(int sig)
{
}

static void test_fork(void)
{
	struct guest g, busy;
	pthread_t thread;

	/* One vCPU computes on while the process forks. */
	guest_new(&busy, code_forever, sizeof(code_forever));
	CHECK(pthread_create(&thread, NULL, run_for_ever, &busy) == 0);
	guest_new(&g, code_halt, sizeof(code_halt));
	for (int i = 1; i <= 10; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			alarm(20);
			in_child(&g);
			_exit(0);
		}
		CHECK(child_status(pid) == 0);
		guest_restart(&g);
		CHECK(guest_run(&g) == 0 && guest_count(&g) == i);
	}
	busy.run->immediate_exit = 1;
	signal(SIGUSR1, handler);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	guest_free(&g);
	guest_free(&busy);
}

/* A child of vfork has descriptors and signal actions of its own, on the parent's memory. */
static void test_vfork(void)
{
	struct sigaction old;
	struct guest g;
	pid_t pid;

	guest_new(&g, code_halt, sizeof(code_halt));
	signal(SIGUSR1, handler);
	pid = vfork();
	if (pid == 0) {
		close(g.vcpu);
		dup2(0, g.vm);
		close_range((unsigned int)g.sys, ~0u, 0);
		signal(SIGUSR1, SIG_DFL);
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	CHECK(child_status(pid) == 0);
	CHECK(guest_run(&g) == 0 && guest_count(&g) == 1);
	CHECK(ioctl(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
	CHECK(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == handler);
	guest_free(&g);
}

static void *thread_main(void *arg)
{
	struct guest *g = arg;

	guest_restart(g);
	CHECK(guest_run(g) == 0 && g->run->exit_reason == KVM_EXIT_HLT);
	return NULL;
}

/* One vCPU, run by many threads one after the other; many at once. */
static void test_threads(void)
{
	struct guest g[8];
	pthread_t thread[8];

	for (int i = 0; i < 8; i++)
		guest_new(&g[i], code_halt, sizeof(code_halt));
	for (int round = 1; round <= 50; round++) {
		for (int i = 0; i < 8; i++)
			CHECK(pthread_create(&thread[i], NULL, thread_main, &g[i]) == 0);
		for (int i = 0; i < 8; i++)
			CHECK(pthread_join(thread[i], NULL) == 0 && guest_count(&g[i]) == round);
	}
	for (int i = 0; i < 8; i++)
		guest_free(&g[i]);
}

/* A program that this one starts has /dev/kvm as well. */
static void test_exec(void)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int fd = open("/dev/kvm", O_RDWR);
	pid_t pid;

	CHECK(n > 0 && fd >= 0);
	self[n] = 0;
	pid = fork();
	if (pid == 0) {
		execl(self, self, "open", "copies", NULL);
		_exit(1);
	}
	CHECK(child_status(pid) == 0);
}

const struct client_test process_tests[] = {
	{ "fork", test_fork }, { "vfork", test_vfork }, { "threads", test_threads },
	{ "exec", test_exec }, { 0 },
};
