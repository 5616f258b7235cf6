/*
 * A system call of Linux without the C library, which may use vector registers on its way (os.h:
 * "registers kept"). Returns what the kernel does: -errno on failure.
 */
#ifndef QUMRA_HYPERVISOR_OS_SYSCALL_H
#define QUMRA_HYPERVISOR_OS_SYSCALL_H

static inline long sys6(long nr, unsigned long a, unsigned long b, unsigned long c,
	unsigned long d, unsigned long e, unsigned long f)
{
	register unsigned long r10 __asm__("r10") = d;
	register unsigned long r8 __asm__("r8") = e;
	register unsigned long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#endif
