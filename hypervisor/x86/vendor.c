/*
 * Which vendor's processor the guest sees: CPUID leaf 0 as user space set it (usually the host's).
 */
#include "hypervisor/x86/system.h"

/* "AuthenticAMD" and "HygonGenuine" (which makes AMD's design), as EBX says them. */
#define VENDOR_AMD_EBX		0x68747541u
#define VENDOR_HYGON_EBX	0x6f677948u

bool vcpu_amd(const struct vcpu *v)
{
	u32 n = 0, ebx;

	while (n < v->cpuid_n && v->cpuid[n].function != 0)
		n++;
	ebx = n < v->cpuid_n ? v->cpuid[n].ebx : 0;
	return ebx == VENDOR_AMD_EBX || ebx == VENDOR_HYGON_EBX;
}
