/*
 * A program that knows /dev/kvm and nothing of Qumra: what it expects is what the kernel does. Under
 * softkvm and on a host's own KVM the same must hold.
 */
#ifndef QUMRA_TESTS_SOFTKVM_CLIENT_H
#define QUMRA_TESTS_SOFTKVM_CLIENT_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/kvm.h>

#define CHECK(cond) do { \
	if (!(cond)) { \
		fprintf(stderr, "%s:%d: %s (errno %d)\n", __func__, __LINE__, #cond, errno); \
		_exit(1); \
	} \
} while (0)
#define CHECK_FAILS(call, error) do { \
	errno = 0; \
	CHECK((call) == -1 && errno == (error)); \
} while (0)

#define RAM_SIZE	0x10000
#define CODE_AT		0x1000
#define COUNT_AT	0x500

struct guest {
	int sys, vm, vcpu;
	struct kvm_run *run;
	unsigned char *ram;
	size_t run_size;
};

/* One vCPU in real mode, the code at CODE_AT. */
void guest_new(struct guest *g, const void *code, size_t size);
void guest_new_irqchip(struct guest *g, const void *code, size_t size);
void guest_free(struct guest *g);
void guest_restart(struct guest *g);
/* KVM_RUN: 0, or -errno. */
int guest_run(struct guest *g);
static inline uint16_t guest_count(const struct guest *g)
{
	return *(volatile uint16_t *)(g->ram + COUNT_AT);
}

/* again: inc word [COUNT_AT]; jmp again */
extern const unsigned char code_forever[6];
/* inc word [COUNT_AT]; hlt */
extern const unsigned char code_halt[5];

struct client_test {
	const char *name;
	void (*fn)(void);
};
extern const struct client_test file_tests[], signal_tests[], process_tests[], cancel_tests[];

#endif
