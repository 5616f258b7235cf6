/* The choice of a hypervisor: see accel.h. */
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/kvm/accel.h"

static const char *const accel_names[] = {
	[ACCEL_AUTO] = "auto", [ACCEL_SOFT] = "soft", [ACCEL_KVM] = "kvm",
};

static const char *const reason_names[] = {
	[ACCEL_REASON_OK] = "kvm-ok",
	[ACCEL_REASON_ABSENT] = "kvm-absent",
	[ACCEL_REASON_PERMISSION] = "kvm-permission",
	[ACCEL_REASON_API_VERSION] = "kvm-api-version",
	[ACCEL_REASON_MISSING_CAP] = "kvm-missing-cap",
	[ACCEL_REASON_NO_VMX_SVM] = "kvm-no-vmx-svm",
	[ACCEL_REASON_FORCED] = "forced",
};

static const char *const engine_names[] = { "dbt", "interp" };

/* What this VMM cannot do without. */
static const struct { int cap; const char *name; } accel_caps[] = {
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
	{ KVM_CAP_PIT2, "KVM_CAP_PIT2" },
	{ KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2" },
	{ KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
	{ KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
	{ KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
};

int accel_parse(const char *name, enum accel *accel)
{
	for (size_t i = 0; i < ARRAY_SIZE(accel_names); i++) {
		if (strcmp(name, accel_names[i]) == 0) {
			*accel = i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *accel_reason_name(enum accel_reason reason)
{
	return reason_names[reason];
}

bool accel_engine_known(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(engine_names); i++)
		if (strcmp(name, engine_names[i]) == 0)
			return true;
	return false;
}

int accel_set_engine(const char *name)
{
	if (!accel_engine_known(name))
		return -EINVAL;
	return setenv("QUMRA_ENGINE", name, 1) ? -errno : 0;
}

int accel_set_code_cache(unsigned long long bytes)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", bytes);
	return setenv("QUMRA_CODE_CACHE", text, 1) ? -errno : 0;
}

/* SDM 3C 24.6, APM 2 15.4: the CPU's own word, whatever the kernel says. */
static bool cpu_has_virt(void)
{
	unsigned int a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && (c & BIT(5)))
		return true;
	return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & BIT(2));
}

static enum accel_reason probe_open(int error, char *detail, size_t size)
{
	if (error == -EACCES || error == -EPERM) {
		snprintf(detail, size, "/dev/kvm may not be opened: %s", strerror(-error));
		return ACCEL_REASON_PERMISSION;
	}
	if (error == -ENOENT)
		snprintf(detail, size, "there is no /dev/kvm");
	else
		snprintf(detail, size, "/dev/kvm does not open: %s", strerror(-error));
	return ACCEL_REASON_ABSENT;
}

/* Everything but the CPU. */
static enum accel_reason probe_api(
	const struct kvm_backend *backend, int fd, char *detail, size_t size)
{
	long version = backend->ioctl(fd, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION) {
		snprintf(detail, size, "/dev/kvm speaks API version %ld, not %d", version,
			KVM_API_VERSION);
		return ACCEL_REASON_API_VERSION;
	}
	for (size_t i = 0; i < ARRAY_SIZE(accel_caps); i++) {
		if (backend->ioctl(fd, KVM_CHECK_EXTENSION, accel_caps[i].cap) > 0)
			continue;
		snprintf(detail, size, "/dev/kvm lacks %s", accel_caps[i].name);
		return ACCEL_REASON_MISSING_CAP;
	}
	return ACCEL_REASON_OK;
}

enum accel_reason accel_probe(
	const struct kvm_backend *backend, bool has_virt, char *detail, size_t size)
{
	enum accel_reason reason;
	int fd = backend->open();

	if (fd < 0)
		return probe_open(fd, detail, size);
	reason = probe_api(backend, fd, detail, size);
	backend->close(fd);
	if (reason != ACCEL_REASON_OK)
		return reason;
	if (!has_virt) {
		snprintf(detail, size, "/dev/kvm is there, but this CPU has neither VMX nor SVM, "
			 "so it would emulate every instruction");
		return ACCEL_REASON_NO_VMX_SVM;
	}
	snprintf(detail, size, "/dev/kvm on a CPU with hardware virtualization");
	return ACCEL_REASON_OK;
}

int accel_choose(enum accel wanted, struct accel_choice *choice, struct error *err)
{
	*choice =
		(struct accel_choice){.backend = &kvm_backend_soft, .reason = ACCEL_REASON_FORCED};
	if (wanted == ACCEL_SOFT) {
		snprintf(choice->detail, sizeof(choice->detail), "--accel soft");
		return 0;
	}
	choice->reason = accel_probe(&kvm_backend_host, cpu_has_virt(), choice->detail,
				     sizeof(choice->detail));
	if (choice->reason == ACCEL_REASON_OK)
		choice->backend = &kvm_backend_host;
	if (wanted == ACCEL_AUTO || choice->reason == ACCEL_REASON_OK)
		return 0;
	/* Slow is allowed when asked for by name; unusable is not. */
	if (choice->reason != ACCEL_REASON_NO_VMX_SVM)
		return error_set(err, ENODEV, "--accel kvm: %s (%s)", choice->detail,
				 accel_reason_name(choice->reason));
	choice->backend = &kvm_backend_host;
	choice->reason = ACCEL_REASON_FORCED;
	snprintf(choice->detail, sizeof(choice->detail),
		 "--accel kvm; this CPU has neither VMX nor SVM: expect it to be slow");
	return 0;
}
