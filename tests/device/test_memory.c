/* What guest RAM is made of: anonymous memory, memfds, files, huge pages. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/device/fixture.h"
#include "vmm/memory/guest_memory.h"

#define SIZE (8ULL << 20)

static struct guest_memory mem;
static struct error err;

static int create(const struct memory_backing *b, u64 size)
{
	err = (struct error)ERROR_INIT;
	return guest_memory_create(&mem, size, b, &err);
}

static void check_refused(const struct memory_backing *b, int errnum, const char *reason)
{
	int ret = create(b, SIZE);

	assert_int_equal(ret, -errnum);
	if (!strstr(err.text, reason))
		fail_msg("\"%s\" does not say \"%s\"", err.text, reason);
	assert_null(mem.map);
	assert_int_equal(mem.fd, -1);
}

/* Descriptors that are open, to see that none stays. */
static unsigned descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static u64 resident(void)
{
	return guest_memory_resident(&mem);
}

static void test_anonymous(void **state)
{
	const struct memory_backing prealloc = { .prealloc = true };

	(void)state;
	assert_int_equal(create(NULL, SIZE), 0);
	assert_int_equal(mem.fd, -1);
	assert_int_equal((uintptr_t)mem.start & ((2 << 20) - 1), 0);
	assert_int_equal(resident(), 0);
	memset(guest_memory_at(&mem, 0x100000, 4096), 1, 4096);
	assert_true(resident() > 0);
	guest_memory_destroy(&mem);
	assert_int_equal(create(&prealloc, SIZE), 0);
	assert_int_equal(resident(), SIZE);
	assert_int_equal(*(u8 *)guest_memory_at(&mem, 0x700000, 1), 0);
	guest_memory_destroy(&mem);
}

/* Another mapping of the descriptor sees what the guest writes, at the same offset, and the other way round. */
static void test_memfd(void **state)
{
	const struct memory_backing share = { .share = true };
	unsigned before = descriptors();
	u8 *other;

	(void)state;
	assert_int_equal(create(&share, SIZE), 0);
	assert_true(mem.shared && mem.fd >= 0);
	assert_int_equal(fcntl(mem.fd, F_GETFD), FD_CLOEXEC);
	other = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, mem.fd, 0);
	assert_ptr_not_equal(other, MAP_FAILED);
	memcpy(guest_memory_at(&mem, 0x123456, 5), "hello", 5);
	assert_memory_equal(other + 0x123456, "hello", 5);
	other[0x7FFFFF] = 7;
	assert_int_equal(*(u8 *)guest_memory_at(&mem, 0x7FFFFF, 1), 7);
	/* What is given back is gone for both. */
	guest_memory_discard(guest_memory_at(&mem, 0x123000, 4096), 4096);
	assert_int_equal(other[0x123456], 0);
	munmap(other, SIZE);
	guest_memory_destroy(&mem);
	assert_int_equal(descriptors(), before);
}

static void test_file(void **state)
{
	char path[] = "/tmp/test-memory-XXXXXX";
	const struct memory_backing share = { .file = path, .share = true }, copy = { .file = path };
	unsigned before = descriptors();
	struct guest_memory first;
	struct stat st;
	char text[8];
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	/* Only who shares makes it as large as it has to be. */
	check_refused(&copy, EINVAL, "has 0 bytes; memory has 8388608");
	assert_int_equal(create(&share, SIZE), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	memcpy(guest_memory_at(&mem, 0x5000, 4), "kept", 4);
	first = mem;
	check_refused(&copy, EBUSY, "in use by another machine");
	check_refused(&share, EBUSY, "in use by another machine");
	guest_memory_destroy(&first);
	/* It begins as what the file has; the file stays as it is. Several may. */
	assert_int_equal(create(&copy, SIZE), 0);
	first = mem;
	assert_int_equal(create(&copy, SIZE), 0);
	assert_memory_equal(guest_memory_at(&mem, 0x5000, 4), "kept", 4);
	memcpy(guest_memory_at(&mem, 0x5000, 4), "lost", 4);
	assert_memory_equal(guest_memory_at(&first, 0x5000, 4), "kept", 4);
	guest_memory_destroy(&mem);
	guest_memory_destroy(&first);
	assert_int_equal(pread(fd, text, 4, 0x5000), 4);
	assert_memory_equal(text, "kept", 4);
	assert_int_equal(ftruncate(fd, SIZE - 1), 0);
	check_refused(&share, EINVAL, "has 8388607 bytes");
	close(fd);
	unlink(path);
	check_refused(&copy, ENOENT, "No such file");
	check_refused(&(struct memory_backing){ .file = "/tmp" }, EINVAL, "not a regular file");
	assert_int_equal(descriptors(), before);
}

#define POOLS "/sys/kernel/mm/hugepages"

static long pool(const char *size, const char *what)
{
	char path[128];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), POOLS "/hugepages-%skB/%s", size, what);
	f = fopen(path, "re");
	if (f && fscanf(f, "%ld", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

static void pool_set(long pages)
{
	FILE *f = fopen(POOLS "/hugepages-2048kB/nr_hugepages", "we");

	if (!f)
		return;		/* not root's, or a host without them */
	fprintf(f, "%ld\n", pages);
	fclose(f);
}

/* They are what RAM is made of, at once; where there are too few a line says how many lack. */
static void check_huge(struct memory_backing *b, long free_pages)
{
	for (unsigned i = 0; i < 4; i++) {
		b->share = i & 1;
		b->prealloc = i & 2;
		if (free_pages < 4) {
			check_refused(b, ENOMEM, free_pages < 0 ? "has no huge pages" : "free huge pages of 2 MiB, and 4");
			continue;
		}
		assert_int_equal(create(b, SIZE), 0);
		assert_int_equal(pool("2048", "free_hugepages") - pool("2048", "resv_hugepages"), free_pages - 4);
		memset(guest_memory_at(&mem, 0x100000, 0x700000), 1, 0x700000);
		assert_int_equal(pool("2048", "free_hugepages"), free_pages - 4);
		guest_memory_destroy(&mem);
		assert_int_equal(pool("2048", "free_hugepages"), free_pages);
	}
}

/* Root fills the host's pool for it. The lock: tests/cli does the same. */
static void test_huge(void **state)
{
	struct memory_backing b = { .huge = 2 << 20 };
	int lock = open(POOLS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long pages, free_pages;
	unsigned before = descriptors();

	(void)state;
	assert_int_equal(memory_backing_check(&b, SIZE, &err), 0);
	err = (struct error)ERROR_INIT;
	assert_int_equal(memory_backing_check(&b, SIZE + 4096, &err), -EINVAL);
	assert_non_null(strstr(err.text, "multiple of huge pages of 2 MiB"));
	b.file = "x";
	err = (struct error)ERROR_INIT;
	assert_int_equal(memory_backing_check(&b, SIZE, &err), -EINVAL);
	assert_non_null(strstr(err.text, "does not go with file"));
	b.file = NULL;
	if (lock >= 0)
		flock(lock, LOCK_EX);
	pages = pool("2048", "nr_hugepages");
	check_huge(&b, pool("2048", "free_hugepages"));
	pool_set(pages + 4);
	free_pages = pool("2048", "free_hugepages");
	check_huge(&b, free_pages);
	pool_set(pages);
	assert_int_equal(descriptors(), before);
	if (lock >= 0)
		close(lock);
	if (free_pages < 4)
		print_message("the host has no huge pages: only their lack was tested\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_anonymous),
		cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_huge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
