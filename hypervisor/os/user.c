/*
 * The seam's view of memory that is not ours: what ioctl arguments point to, and guest memory. User
 * space may have unmapped it or made it read-only, so each access may fault.
 *
 * Copies are made by one routine whose instructions are entered as a code area (native.c): a fault
 * ends the call. Accesses by other code, the engines' that run guests, are caught by
 * os_fault_catch(): the signal handler makes the thread go on in land().
 */
#include <errno.h>
#include <pthread.h>
#include <ucontext.h>

#include "hypervisor/os/native.h"
#include "hypervisor/os/os.h"

#define USER_FIRST	4096ULL
#define USER_END	0x7ffffffff000ULL
#define EFLAGS_DF	0x400
#define EFLAGS_AC	0x40000
#define RED_ZONE	128
#define TRAP_PF		14

/* 0, or what native_area_fault() returns for it. */
int user_copy(void *dst, const void *src, size_t n);
extern const u8 user_copy_end[];

__asm__(".pushsection .text\n"
	".hidden user_copy, user_copy_end\n"
	".globl user_copy, user_copy_end\n"
	".type user_copy, @function\n"
	"user_copy:\n\t"
	"mov %rdx, %rcx\n\t"
	"rep movsb\n\t"
	"xor %eax, %eax\n\t"
	"ret\n"
	"user_copy_end:\n"
	".size user_copy, . - user_copy\n"
	".popsection");

static bool ready;	/* atomic */

static __cold_ int copy_prepare(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int ret = 0;

	pthread_mutex_lock(&lock);
	if (!ready)
		ret = native_area_add((const void *)user_copy,
			(size_t)(user_copy_end - (const u8 *)user_copy), NULL);
	if (!ret)
		store_release(&ready, true);
	pthread_mutex_unlock(&lock);
	return ret;
}

int os_copy(void *dst, const void *src, size_t n)
{
	int ret = unlikely(!load_acquire(&ready)) ? copy_prepare() : 0;

	if (ret)
		return ret;
	return user_copy(dst, src, n) ? -EFAULT : 0;
}

bool os_user_range(u64 addr, u64 n)
{
	return n <= USER_END && addr <= USER_END - n;
}

static bool user_bad(u64 addr, size_t n)
{
	return n && (addr < USER_FIRST || !os_user_range(addr, n));
}

/* By another clock than that of the entries into guest code: those fault in the ordinary course of
 * things, and a thread may have blocked signals since its last ioctl. */
static void user_guard(void)
{
	static __thread u64 last __attribute__((tls_model("initial-exec")));

	chain_guard(&last);
}

int os_user_read(void *dst, u64 addr, size_t n)
{
	if (user_bad(addr, n))
		return -EFAULT;
	user_guard();
	return os_copy(dst, (const void *)addr, n);
}

int os_user_write(u64 addr, const void *src, size_t n)
{
	if (user_bad(addr, n))
		return -EFAULT;
	user_guard();
	return os_copy((void *)addr, src, n);
}

/* ---- catching ------------------------------------------------------------------------------ */

static __thread const struct os_fault_catch *current __attribute__((tls_model("initial-exec")));

const struct os_fault_catch *os_fault_catch(const struct os_fault_catch *c)
{
	const struct os_fault_catch *before = current;

	current = c;
	return before;
}

/* The interrupted code is left as by a call that does not return. */
bool native_fault_caught(u64 address, void *ctx)
{
	greg_t *r = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	const struct os_fault_catch *c = current;

	if (!c || r[REG_TRAPNO] != TRAP_PF || !c->owns(c->arg, address))
		return false;
	r[REG_RSP] = ((r[REG_RSP] - RED_ZONE) & ~15LL) - 8;
	r[REG_EFL] &= ~(greg_t)(EFLAGS_DF | EFLAGS_AC);
	r[REG_RDI] = (greg_t)c->arg;
	r[REG_RIP] = (greg_t)c->land;
	return true;
}
