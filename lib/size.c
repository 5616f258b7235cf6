/* Reading and writing sizes: see size.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/size.h"

static const char size_units[] = "KMGT";

static int size_shift(char unit)
{
	const char *p;

	if (unit >= 'a' && unit <= 'z')
		unit -= 'a' - 'A';
	p = unit ? strchr(size_units, unit) : NULL;
	return p ? 10 * (int)(p - size_units + 1) : -1;
}

int size_parse(const char *text, u64 *size)
{
	u64 n = 0;
	int shift;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *text - '0', &n))
			return -ERANGE;
	if (!*text) {
		*size = n;
		return 0;
	}
	shift = size_shift(*text);
	if (shift < 0)
		return -EINVAL;
	/* "512M", "512MB" and "512MiB" all say the same. */
	text++;
	if (*text && strcmp(text, "B") != 0 && strcmp(text, "iB") != 0)
		return -EINVAL;
	if (n > UINT64_MAX >> shift)
		return -ERANGE;
	*size = n << shift;
	return 0;
}

const char *size_format(u64 size, char buf[SIZE_TEXT_MAX])
{
	int unit = -1;

	while (size && !(size & 1023) && unit < 3) {
		size >>= 10;
		unit++;
	}
	if (unit < 0)
		snprintf(buf, SIZE_TEXT_MAX, "%" PRIu64 " bytes", size);
	else
		snprintf(buf, SIZE_TEXT_MAX, "%" PRIu64 " %ciB", size, size_units[unit]);
	return buf;
}
