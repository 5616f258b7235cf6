/*
 * Tests in child processes: signal actions are the process's, and our handler is installed once in
 * it. A failed check ends the child with status 1.
 */
#ifndef QUMRA_TESTS_API_CHILD_H
#define QUMRA_TESTS_API_CHILD_H

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/api/api.h"

#define CHECK(cond) do { \
	if (!(cond)) { \
		fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #cond); \
		_exit(1); \
	} \
} while (0)

static inline int child_status(void (*fn)(void))
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		alarm(60);
		fn();
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

#define EXPECT_FINE(fn)		assert_int_equal(child_status(fn), 0)
#define EXPECT_SIGNAL(fn, sig) do { \
	int status_ = child_status(fn); \
	assert_true(WIFSIGNALED(status_)); \
	assert_int_equal(WTERMSIG(status_), sig); \
} while (0)

#endif
