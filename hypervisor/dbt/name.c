/*
 * Names of fragments for profilers (os_code_name): the privilege and the linear address that a
 * fragment was translated for, such as "guest kernel ffffffff81000040". docs/profiling.md
 */
#include "hypervisor/dbt/dbt.h"

static u32 name_put(char *p, const char *s)
{
	u32 n = 0;

	for (; s[n]; n++)
		p[n] = s[n];
	return n;
}

u32 hex_put(char *p, u64 value, u32 digits)
{
	for (u32 i = 0; i < digits; i++)
		p[i] = "0123456789abcdef"[value >> (4 * (digits - 1 - i)) & 15];
	return digits;
}

void fragment_name(struct vcpu *v, u32 frag, u64 la)
{
	const struct dbt *d = dbt_of(v);
	const struct fragment *f = &d->frag[frag];
	char name[40];
	u32 n;

	n = name_put(name, v->cpl == 3 ? "guest user " : "guest kernel ");
	n += hex_put(name + n, la, v->code_bytes == 8 ? 16 : 8);
	name[n] = 0;
	os_code_name(code_rx(d, f->start), f->size, name);
}
