/* What the tests of disk images share: a directory, requests that wait, a model in memory, qemu-img. */
#ifndef QUMRA_TESTS_BLOCK_FIXTURE_H
#define QUMRA_TESTS_BLOCK_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "vmm/block/block.h"

/* A group's fixture: a directory of its own for this process. */
int dir_make(void **state);
int dir_remove(void **state);
/* The path of a file in it; valid until the 16th next call. */
const char *in_dir(const char *name);

/* Runs a shell command in the directory; its exit status. What it prints goes to standard error. */
int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, must succeed. */
#define must(...) assert_int_equal(shell(__VA_ARGS__), 0)

void put_file(const char *name, const void *data, size_t size);

/* Opens, or fails the test with the line. */
struct block *open_block(const struct block_options *o);
/* Must fail, with a line that has text in it. */
void refuse_block(const struct block_options *o, const char *text);

/* One request, until it is done; its result. */
int do_op(struct block *b, enum block_op op, u64 offset, void *buf, u64 bytes);
int do_zero(struct block *b, u64 offset, u64 bytes, bool unmap);
int do_flush(struct block *b);

/* The next number of a sequence that a seed gives. */
u64 next_random(u64 *seed);

#endif
