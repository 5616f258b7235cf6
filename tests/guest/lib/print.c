/* COM1 output and the verdicts that the runner reads. */
#include <stdarg.h>

#include "guest.h"

#define COM1 0x3f8

void print_char(char c)
{
	if (c == '\n')
		print_char('\r');
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, c);
}

static void print_string(const char *s)
{
	while (*s)
		print_char(*s++);
}

static void print_number(u64 v, unsigned base, int width, char pad)
{
	char buf[24];
	int n = 0;

	do {
		/* 32-bit guests have no 64-bit division: decimals are 32 bits wide. */
		unsigned d = base == 16 ? v & 15 : (u32)v % 10;

		buf[n++] = "0123456789abcdef"[d];
		v = base == 16 ? v >> 4 : (u32)v / 10;
	} while (v);
	for (; width > n; width--)
		print_char(pad);
	while (n)
		print_char(buf[--n]);
}

static void vprint(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		int width = 0, longs = 0;
		char pad = ' ';
		u64 v;

		if (*fmt != '%') {
			print_char(*fmt);
			continue;
		}
		fmt++;
		if (*fmt == '0')
			pad = *fmt++;
		while (*fmt >= '0' && *fmt <= '9')
			width = width * 10 + *fmt++ - '0';
		for (; *fmt == 'l'; fmt++)
			longs++;
		if (*fmt == 's') {
			print_string(va_arg(ap, const char *));
			continue;
		}
		if (*fmt == '%' || *fmt == 'c') {
			print_char(*fmt == 'c' ? va_arg(ap, int) : '%');
			continue;
		}
		if (longs == 2)
			v = va_arg(ap, u64);
		else if (longs)
			v = va_arg(ap, ulong);
		else
			v = va_arg(ap, u32);
		if (*fmt == 'd' && (s32)v < 0) {
			print_char('-');
			v = -(s32)v;
		}
		print_number(v, *fmt == 'x' ? 16 : 10, width, pad);
	}
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
}

static const char *group_name = "";
static u32 passed, failed;

void group(const char *name)
{
	group_name = name;
}

static void verdict(bool ok)
{
	if (ok)
		passed++;
	else
		failed++;
	print("%s %s%s", ok ? "PASS" : "FAIL", group_name, *group_name ? ": " : "");
}

bool check(bool ok, const char *fmt, ...)
{
	va_list ap;

	verdict(ok);
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	print("\n");
	return ok;
}

bool expect(const char *name, u64 got, u64 want)
{
	verdict(got == want);
	print("%s", name);
	if (got != want)
		print(": got %llx, want %llx", (unsigned long long)got, (unsigned long long)want);
	print("\n");
	return got == want;
}

static const char *vector_name(int v)
{
	static const char *const names[] = { "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF",
		"9", "#TS", "#NP", "#SS", "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM" };

	if (v == NONE)
		return "no fault";
	return (unsigned)v < ARRAY_SIZE(names) ? names[v] : "a vector";
}

static bool has_error(int v)
{
	return v == DF || (v >= TS && v <= PF) || v == AC;
}

bool expect_vector(const char *name, int got, int vector, ulong error)
{
	bool ok = got == vector && (!has_error(vector) || fault.f.error == error);

	verdict(ok);
	print("%s", name);
	if (!ok) {
		print(": got %s %d(%lx) at %lx", vector_name(got), got, fault.f.error, fault.f.ip);
		print(", want %s(%lx)", vector_name(vector), error);
		if (got == PF)
			print(", CR2 %lx", fault.cr2);
	}
	print("\n");
	return ok;
}

void skip(const char *name, const char *why)
{
	print("SKIP %s%s%s: %s\n", group_name, *group_name ? ": " : "", name, why);
}

static const char *sweep_name;
static u32 sweep_total, sweep_bad;

void sweep(const char *name)
{
	sweep_name = name;
	sweep_total = sweep_bad = 0;
}

bool sweep_check(bool ok, const char *fmt, ...)
{
	va_list ap;

	sweep_total++;
	if (ok)
		return true;
	if (++sweep_bad <= 8) {
		print("  %s: ", sweep_name);
		va_start(ap, fmt);
		vprint(fmt, ap);
		va_end(ap);
		print("\n");
	}
	return false;
}

void sweep_end(void)
{
	verdict(!sweep_bad && sweep_total);
	if (sweep_bad || !sweep_total)
		print("%s: %u of %u wrong\n", sweep_name, sweep_bad, sweep_total);
	else
		print("%s (%u combinations)\n", sweep_name, sweep_total);
}

void guest_exit(u8 v)
{
	outl(0xf4, v);
	for (;;)
		asm volatile("cli; hlt");
}

void finish(void)
{
	print("DONE %u passed, %u failed\n", passed, failed);
	guest_exit(failed ? 0x11 : 0x10);
}
