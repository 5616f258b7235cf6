/* Addresses of networks where nobody said one. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/device/fixture.h"
#include "vmm/virtio/defaults.h"

static u64 mac_of(const struct nic_options *nic)
{
	static struct virtio_options o;
	u64 mac = 0;

	memset(&o, 0, sizeof(o));
	o.nics = 1;
	o.nic[0] = *nic;
	virtio_nic_macs(&o);
	memcpy(&mac, o.nic[0].mac, 6);
	return mac;
}

static u64 tap(const char *name)
{
	return mac_of(&(struct nic_options){ .kind = NET_TAP, .tap = name });
}

static u64 back_end(const char *path)
{
	return mac_of(&(struct nic_options){ .kind = NET_VHOST, .socket = path });
}

/* Two random ones may be the same once in 16 million times, so it is asked often. */
static bool differs(const char *name)
{
	for (unsigned i = 0; i < 4; i++)
		if (tap(name) != tap(name))
			return true;
	return false;
}

/* In a mount namespace of its own, as that file is the host's. 0: stays, 1: differs, 2: cannot tell. */
static int with_machine_id(const char *text)
{
	char path[] = "/tmp/test-id-XXXXXX";
	int fd = mkstemp(path), status;
	pid_t pid = fork();

	if (pid == 0) {
		if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || unshare(CLONE_NEWNS) < 0 ||
		    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount(path, "/etc/machine-id", NULL, MS_BIND, NULL) < 0)
			_exit(2);
		_exit(differs("tap0"));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(fd);
	unlink(path);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_machine_id(void **state)
{
	(void)state;
	if (with_machine_id("") == 2)
		skip();
	assert_int_equal(with_machine_id(""), 1);
	assert_int_equal(with_machine_id("uninitialized\n"), 1);
	assert_int_equal(with_machine_id("0123456789abcdef0123456789abcde\n"), 1);
	assert_int_equal(with_machine_id("0123456789abcdef0123456789abcdeg\n"), 1);
	assert_int_equal(with_machine_id("0123456789abcdef0123456789abcdef\n"), 0);
	assert_int_equal(with_machine_id("0123456789abcdef0123456789abcdef"), 0);
}

static void test_pattern(void **state)
{
	(void)state;
	assert_true(differs("vm%d"));
	if (differs("tap0"))
		skip();		/* no machine-id */
	assert_true(tap("tap0") != tap("tap1"));
}

/* A socket is the same one by each of its paths. */
static void test_socket(void **state)
{
	char a[] = "/tmp/test-mac-XXXXXX", b[] = "/tmp/test-mac-XXXXXX", path[64], was[4096];
	u64 relative;

	(void)state;
	assert_non_null(getcwd(was, sizeof(was)));
	assert_non_null(mkdtemp(a));
	assert_non_null(mkdtemp(b));
	assert_int_equal(chdir(a), 0);
	relative = back_end("net");
	snprintf(path, sizeof(path), "%s/net", a);
	if (!differs("tap0")) {
		assert_true(relative == back_end(path));
		assert_true(relative == back_end("./net"));
		assert_true(relative != back_end("net2"));
	}
	assert_int_equal(chdir(b), 0);
	assert_true(relative != back_end("net"));
	assert_int_equal(chdir(was), 0);
	rmdir(a);
	rmdir(b);
}

/* No two cards of one machine have one address, whoever comes first. */
static void test_two(void **state)
{
	static const u8 second[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x57 };
	static const u8 third[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x58 };
	static struct virtio_options o;

	(void)state;
	o.nics = 3;
	memcpy(o.nic[0].mac, second, 6);
	virtio_nic_macs(&o);
	assert_memory_equal(o.nic[0].mac, second, 6);
	assert_memory_equal(o.nic[1].mac, third, 6);
	assert_int_equal(o.nic[2].mac[5], 0x59);
	memset(&o, 0, sizeof(o));
	o.nics = 2;
	memcpy(o.nic[1].mac, ((const u8 [6]){ 0x52, 0x54, 0, 0x12, 0x34, 0x56 }), 6);
	virtio_nic_macs(&o);
	assert_memory_equal(o.nic[0].mac, second, 6);
	/* The same interface twice: the kernel refuses that, or it is one with more queues. */
	memset(&o, 0, sizeof(o));
	o.nics = 2;
	for (unsigned i = 0; i < 2; i++)
		o.nic[i] = (struct nic_options){ .kind = NET_TAP, .tap = "tap0" };
	virtio_nic_macs(&o);
	assert_memory_not_equal(o.nic[0].mac, o.nic[1].mac, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_machine_id),
		cmocka_unit_test(test_pattern),
		cmocka_unit_test(test_socket),
		cmocka_unit_test(test_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
