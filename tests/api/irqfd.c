/*
 * KVM_IRQFD: what a signal does, resampling, how it is refused, and what becomes of its eventfds
 * and of the VM.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/api/handlers.h"

#define DEASSIGN	KVM_IRQFD_FLAG_DEASSIGN
#define RESAMPLE	KVM_IRQFD_FLAG_RESAMPLE

static long irqfd(int vm, int fd, u32 gsi, u32 flags)
{
	struct kvm_irqfd args = { .fd = fd, .gsi = gsi, .flags = flags };

	return call(vm, KVM_IRQFD, &args);
}

static long irqfd_resampled(int vm, int fd, u32 gsi, int resamplefd)
{
	struct kvm_irqfd args = {
		.fd = fd, .gsi = gsi, .flags = RESAMPLE, .resamplefd = resamplefd,
	};

	return call(vm, KVM_IRQFD, &args);
}

/* A machine that reports interrupts, MSI and PIC alike. */
static void lab_new(struct machine *m)
{
	machine_new(m, WITH_IRQCHIP);
	apic_on(m, LINT0_EXTINT);
	pic_on(m, 0);
	handlers_install(m);
}

static void lab_new_polling(struct machine *m)
{
	lab_new(m);
	handlers_install_polling(m);
}

/* ---- signals --------------------------------------------------------------------------------- */

/* By the PIC's line and by a message; the counter is taken. */
static void test_signal(void **state)
{
	int line = new_eventfd(), msi = new_eventfd();
	struct machine m;

	lab_new(&m);
	assert_int_equal(irqfd(m.vm, line, 3, 0), 0);
	for (int i = 0; i < 20; i++) {
		signal_eventfd(line);
		assert_int_equal(next_report(&m), 0x23);
		assert_int_equal(take_eventfd(line), 0);
	}
	route_msi(&m, 40, 0x61);
	assert_int_equal(irqfd(m.vm, msi, 40, 0), 0);
	for (int i = 0; i < 20; i++) {
		signal_eventfd(msi);
		assert_int_equal(next_report(&m), 0x61);
		assert_int_equal(take_eventfd(msi), 0);
	}
	machine_free(&m);
	close(line);
	close(msi);
}

/* One that was signalled before it became an irqfd. */
static void test_pending(void **state)
{
	int fd = new_eventfd();
	struct machine m;

	lab_new(&m);
	route_msi(&m, 40, 0x61);
	signal_eventfd(fd);
	assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
	assert_int_equal(next_report(&m), 0x61);
	machine_free(&m);
	close(fd);
}

/* Large counts are one interrupt; nothing comes of nothing. */
static void test_counts(void **state)
{
	u64 count = 0x123456789;
	int fd = new_eventfd();
	struct machine m;

	lab_new_polling(&m);
	route_msi(&m, 40, 0x61);
	assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
	expect_quiet(&m);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(write(fd, &count, 8), 8);
		assert_int_equal(next_report(&m), 0x61);
		expect_quiet(&m);
	}
	machine_free(&m);
	close(fd);
}

static void test_several_for_one(void **state)
{
	int fd[5];
	struct machine m;

	lab_new(&m);
	route_msi(&m, 40, 0x61);
	for (int i = 0; i < 5; i++) {
		fd[i] = new_eventfd();
		assert_int_equal(irqfd(m.vm, fd[i], 40, 0), 0);
	}
	for (int i = 0; i < 20; i++) {
		signal_eventfd(fd[i % 5]);
		assert_int_equal(next_report(&m), 0x61);
	}
	machine_free(&m);
	for (int i = 0; i < 5; i++)
		close(fd[i]);
}

/* The GSI's route counts at the time of the signal. */
static void test_routes_change(void **state)
{
	int fd = new_eventfd();
	struct machine m;

	lab_new_polling(&m);
	assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
	signal_eventfd(fd);
	expect_quiet(&m);
	for (u32 v = 0x60; v < 0x70; v++) {
		route_msi(&m, 40, v);
		signal_eventfd(fd);
		assert_int_equal(next_report(&m), v);
	}
	route_msi(&m, 41, 0x61);
	signal_eventfd(fd);
	expect_quiet(&m);
	/* Any number will do for a GSI that leads nowhere. */
	assert_int_equal(irqfd(m.vm, fd, 40, DEASSIGN), 0);
	assert_int_equal(irqfd(m.vm, fd, 0x7fffffff, 0), 0);
	signal_eventfd(fd);
	expect_quiet(&m);
	machine_free(&m);
	close(fd);
}

/* ---- resampling ------------------------------------------------------------------------------ */

#define LEVEL_LINE 5

/* Level-triggered: the line stays up until EOI, which lowers it and tells all who share it. */
static void test_resample(void **state)
{
	int fd[2] = { new_eventfd(), new_eventfd() };
	int ack[2] = { new_eventfd(), new_eventfd() };
	struct machine m;

	lab_new_polling(&m);
	pic_on(&m, BIT(LEVEL_LINE));
	for (int i = 0; i < 2; i++)
		assert_int_equal(irqfd_resampled(m.vm, fd[i], LEVEL_LINE, ack[i]), 0);
	for (int i = 0; i < 10; i++) {
		signal_eventfd(fd[i & 1]);
		assert_int_equal(next_report(&m), 0x20 + LEVEL_LINE);
		assert_int_equal(take_eventfd(ack[0]), 1);
		assert_int_equal(take_eventfd(ack[1]), 1);
		expect_quiet(&m);
	}
	assert_int_equal(irqfd(m.vm, fd[0], LEVEL_LINE, DEASSIGN), 0);
	signal_eventfd(fd[1]);
	assert_int_equal(next_report(&m), 0x20 + LEVEL_LINE);
	assert_int_equal(take_eventfd(ack[0]), 0);
	assert_int_equal(take_eventfd(ack[1]), 1);
	machine_free(&m);
	for (int i = 0; i < 2; i++) {
		close(fd[i]);
		close(ack[i]);
	}
}

/* The IOAPIC's, level-triggered and not: the local APIC's EOI counts. */
static void test_resample_ioapic(void **state)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	int fd = new_eventfd(), ack = new_eventfd();
	struct machine m;

	lab_new_polling(&m);
	apic_on(&m, LINT0_MASKED);
	for (u32 trig = 0; trig < 2; trig++) {
		assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &chip), 0);
		chip.chip.ioapic.redirtbl[20].bits = 0x71 + trig;
		chip.chip.ioapic.redirtbl[20].fields.trig_mode = trig;
		assert_int_equal(call(m.vm, KVM_SET_IRQCHIP, &chip), 0);
		assert_int_equal(irqfd_resampled(m.vm, fd, 20, ack), 0);
		for (int i = 0; i < 5; i++) {
			signal_eventfd(fd);
			assert_int_equal(next_report(&m), 0x71 + trig);
			assert_int_equal(take_eventfd(ack), 1);
			expect_quiet(&m);
		}
		assert_int_equal(irqfd(m.vm, fd, 20, DEASSIGN), 0);
	}
	machine_free(&m);
	close(fd);
	close(ack);
}

/* The eventfd to tell may have lost its number; one may be the other. */
static void test_resample_descriptor(void **state)
{
	int fd = new_eventfd(), ack = new_eventfd(), kept = dup(ack);
	struct machine m;

	lab_new(&m);
	pic_on(&m, BIT(LEVEL_LINE));
	assert_int_equal(irqfd_resampled(m.vm, fd, LEVEL_LINE, ack), 0);
	close(ack);
	signal_eventfd(fd);
	assert_int_equal(next_report(&m), 0x20 + LEVEL_LINE);
	assert_int_equal(take_eventfd(kept), 1);
	machine_free(&m);
	close(fd);
	close(kept);
}

/* Deassigning lowers the line that it held: the last one of those that share it. */
static void test_resample_lowers(void **state)
{
	struct kvm_irqchip pic = { .chip_id = KVM_IRQCHIP_PIC_MASTER };
	int fd[2] = { new_eventfd(), new_eventfd() }, ack = new_eventfd();
	struct machine m;

	machine_new(&m, WITH_IRQCHIP);
	pic_on(&m, BIT(LEVEL_LINE));
	for (int i = 0; i < 2; i++)
		assert_int_equal(irqfd_resampled(m.vm, fd[i], LEVEL_LINE, ack), 0);
	signal_eventfd(fd[0]);
	do {
		assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &pic), 0);
	} while (!(pic.chip.pic.irr & BIT(LEVEL_LINE)));
	assert_int_equal(irqfd(m.vm, fd[0], LEVEL_LINE, DEASSIGN), 0);
	assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &pic), 0);
	assert_true(pic.chip.pic.irr & BIT(LEVEL_LINE));
	assert_int_equal(irqfd(m.vm, fd[1], LEVEL_LINE, DEASSIGN), 0);
	assert_int_equal(call(m.vm, KVM_GET_IRQCHIP, &pic), 0);
	assert_false(pic.chip.pic.irr & BIT(LEVEL_LINE));
	assert_int_equal(take_eventfd(ack), 0);
	machine_free(&m);
	close(fd[0]);
	close(fd[1]);
	close(ack);
}

/* ---- how it is refused ----------------------------------------------------------------------- */

static void test_refusals(void **state)
{
	int fd = new_eventfd(), other = dup(fd), ack = new_eventfd(), closed = dup(fd), pipes[2];
	struct machine m;

	assert_int_equal(pipe(pipes), 0);
	machine_new(&m, PLAIN);
	assert_int_equal(irqfd(m.vm, fd, 1, 0), -EINVAL);
	assert_int_equal(irqfd(m.vm, fd, 1, DEASSIGN), 0);
	assert_int_equal(irqfd(m.vm, pipes[0], 1, DEASSIGN), -EINVAL);
	machine_free(&m);
	machine_new(&m, WITH_IRQCHIP);
	close(closed);
	assert_int_equal(irqfd(m.vm, fd, 1, BIT(2)), -EINVAL);
	assert_int_equal(irqfd(m.vm, closed, 1, 0), -EBADF);
	assert_int_equal(irqfd(m.vm, closed, 1, DEASSIGN), -EBADF);
	assert_int_equal(irqfd(m.vm, -1, 1, 0), -EBADF);
	assert_int_equal(irqfd(m.vm, pipes[0], 1, 0), -EINVAL);
	assert_int_equal(irqfd(m.vm, m.vm, 1, 0), -EINVAL);
	assert_int_equal(irqfd_resampled(m.vm, fd, 1, closed), -EBADF);
	assert_int_equal(irqfd_resampled(m.vm, fd, 1, pipes[1]), -EINVAL);
	/* One eventfd is one irqfd, by whatever descriptor and for whatever GSI. */
	assert_int_equal(irqfd(m.vm, fd, 1, 0), 0);
	assert_int_equal(irqfd(m.vm, fd, 1, 0), -EBUSY);
	assert_int_equal(irqfd(m.vm, fd, 2, 0), -EBUSY);
	assert_int_equal(irqfd(m.vm, other, 2, 0), -EBUSY);
	assert_int_equal(irqfd_resampled(m.vm, fd, 1, ack), -EBUSY);
	assert_int_equal(irqfd_resampled(m.vm, ack, 1, fd), 0);
	/* What is not there is gone. */
	assert_int_equal(irqfd(m.vm, fd, 2, DEASSIGN), 0);
	assert_int_equal(irqfd(m.vm, fd, 1, 0), -EBUSY);
	assert_int_equal(irqfd(m.vm, other, 1, DEASSIGN), 0);
	assert_int_equal(irqfd(m.vm, fd, 1, DEASSIGN), 0);
	assert_int_equal(irqfd(m.vm, other, 1, 0), 0);
	assert_int_equal(call(m.vm, KVM_IRQFD, NULL), -EFAULT);
	machine_free(&m);
	close(fd);
	close(other);
	close(ack);
	close(pipes[0]);
	close(pipes[1]);
}

static void test_deassign(void **state)
{
	int fd = new_eventfd();
	struct machine m;

	lab_new_polling(&m);
	route_msi(&m, 40, 0x61);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
		signal_eventfd(fd);
		assert_int_equal(next_report(&m), 0x61);
		assert_int_equal(irqfd(m.vm, fd, 40, DEASSIGN), 0);
		signal_eventfd(fd);
		expect_quiet(&m);
		assert_int_equal(take_eventfd(fd), 1);
	}
	machine_free(&m);
	close(fd);
}

/* ---- the eventfd and its descriptors --------------------------------------------------------- */

/* It is the eventfd that matters, not the number: that may be closed, or be another file. */
static void test_descriptor(void **state)
{
	int fd = new_eventfd(), other = dup(fd), pipes[2];
	struct machine m;
	char text[8];

	lab_new_polling(&m);
	route_msi(&m, 40, 0x61);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(write(pipes[1], "12345678", 8), 8);
	assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
	assert_int_equal(dup2(pipes[0], fd), fd);
	signal_eventfd(other);
	assert_int_equal(next_report(&m), 0x61);
	expect_quiet(&m);
	assert_int_equal(read(pipes[0], text, 8), 8);
	close(fd);
	signal_eventfd(other);
	assert_int_equal(next_report(&m), 0x61);
	/* The number again, for another eventfd that is an irqfd too. */
	assert_int_equal(eventfd(0, EFD_NONBLOCK), fd);
	assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
	signal_eventfd(fd);
	assert_int_equal(next_report(&m), 0x61);
	assert_int_equal(take_eventfd(fd), 0);
	assert_int_equal(irqfd(m.vm, other, 40, DEASSIGN), 0);
	signal_eventfd(other);
	expect_quiet(&m);
	signal_eventfd(fd);
	assert_int_equal(next_report(&m), 0x61);
	/* And the first one back there. */
	assert_int_equal(irqfd(m.vm, fd, 40, DEASSIGN), 0);
	take_eventfd(other);
	assert_int_equal(dup2(other, fd), fd);
	assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
	signal_eventfd(other);
	assert_int_equal(next_report(&m), 0x61);
	machine_free(&m);
	close(fd);
	close(other);
	close(pipes[0]);
	close(pipes[1]);
}

/* Closed, it is no irqfd any more: the next eventfd is another one, whatever numbers it gets. */
static void test_closed(void **state)
{
	int ack = new_eventfd(), fd;
	struct machine m;

	lab_new(&m);
	route_msi(&m, 40, 0x61);
	for (int i = 0; i < 200; i++) {
		fd = new_eventfd();
		assert_int_equal(i & 1 ? irqfd_resampled(m.vm, fd, 40, ack)
				       : irqfd(m.vm, fd, 40, 0), 0);
		signal_eventfd(fd);
		assert_int_equal(next_report(&m), 0x61);
		close(fd);
	}
	machine_free(&m);
	close(ack);
}

/* More of them than most programs have; no number but the program's own is used up. */
#define MANY 1000

static void test_many(void **state)
{
	static int fd[MANY];
	struct rlimit old, few;
	struct machine m;
	u32 i, n;

	lab_new(&m);
	route_msi(&m, 40, 0x61);
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = MANY;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (n = 0; n < MANY; n++) {
		fd[n] = eventfd(0, EFD_NONBLOCK);
		if (fd[n] < 0)
			break;
		assert_int_equal(irqfd(m.vm, fd[n], 40, 0), 0);
	}
	assert_true(n > MANY - 100);
	for (i = 0; i < n; i++) {
		signal_eventfd(fd[i * 7 % n]);
		assert_int_equal(next_report(&m), 0x61);
		assert_int_equal(take_eventfd(fd[i * 7 % n]), 0);
	}
	for (i = 0; i < n; i++) {
		if (i & 1)
			assert_int_equal(irqfd(m.vm, fd[i], 40, DEASSIGN), 0);
		close(fd[i]);
	}
	setrlimit(RLIMIT_NOFILE, &old);
	machine_free(&m);
}

/* ---- the VM's end ---------------------------------------------------------------------------- */

static int threads_now(void)
{
	DIR *dir = opendir("/proc/self/task");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* With the VM's descriptor the irqfds end, though the vCPU's keeps the VM; no thread is left. */
static void test_vm_closed(void **state)
{
	int fd = new_eventfd(), threads;
	struct machine m;

	/* What is started once for all is started now. */
	lab_new_polling(&m);
	run_until(&m, KVM_EXIT_IO);
	machine_free(&m);
	threads = threads_now();
	/* The kernel takes its time to close a VM. */
	for (int i = 0; i < (api_is_host() ? 4 : 50); i++) {
		lab_new_polling(&m);
		route_msi(&m, 40, 0x61);
		assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
		signal_eventfd(fd);
		if (i & 1)
			assert_int_equal(next_report(&m), 0x61);
		assert_int_equal(api->close(m.vm), 0);
		/* A thread that was joined may be listed for a moment. */
		while (!api_is_host() && threads_now() != threads)
			sched_yield();
		take_eventfd(fd);
		if (i & 1) {
			signal_eventfd(fd);
			run_until(&m, KVM_EXIT_IO);
			assert_int_equal(m.run->io.port, POLL_PORT);
			assert_int_equal(take_eventfd(fd), 1);
		}
		munmap(m.run, RUN_SIZE);
		assert_int_equal(api->close(m.vcpu), 0);
		assert_int_equal(api->close(m.sys), 0);
		munmap(m.ram, RAM_SIZE);
	}
	close(fd);
}

/* A child has the descriptors but not the VM: what it does to them leaves the parent's alone. */
static void test_fork(void **state)
{
	int fd = new_eventfd(), status;
	struct machine m;
	pid_t pid;

	lab_new_polling(&m);
	route_msi(&m, 40, 0x61);
	assert_int_equal(irqfd(m.vm, fd, 40, 0), 0);
	for (int i = 0; i < 4; i++) {
		pid = fork();
		if (pid == 0) {
			alarm(20);
			if (i & 1 && irqfd(m.vm, fd, 40, DEASSIGN) == 0x1234)
				_exit(1);
			if (i & 2)
				close(fd);
			if (i & 2 && api_is_host())
				api->close(m.vm);
			_exit(0);
		}
		assert_true(pid > 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		expect_quiet(&m);
		signal_eventfd(fd);
		assert_int_equal(next_report(&m), 0x61);
		assert_int_equal(take_eventfd(fd), 0);
	}
	machine_free(&m);
	close(fd);
}

int test_irqfd(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signal),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_several_for_one),
		cmocka_unit_test(test_routes_change),
		cmocka_unit_test(test_resample),
		cmocka_unit_test(test_resample_ioapic),
		cmocka_unit_test(test_resample_descriptor),
		cmocka_unit_test(test_resample_lowers),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_deassign),
		cmocka_unit_test(test_descriptor),
		cmocka_unit_test(test_closed),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_vm_closed),
		cmocka_unit_test(test_fork),
	};

	return cmocka_run_group_tests_name("irqfd", tests, NULL, NULL);
}
