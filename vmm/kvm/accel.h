/*
 * Which hypervisor a VM runs on. `auto` takes /dev/kvm only where it runs a stock guest at speed;
 * the choice and its reason are always told in one line, never a silent fallback.
 */
#ifndef QUMRA_VMM_KVM_ACCEL_H
#define QUMRA_VMM_KVM_ACCEL_H

#include "vmm/kvm/kvm.h"

enum accel { ACCEL_AUTO, ACCEL_SOFT, ACCEL_KVM };

/* Scripts test for these names: they are stable. */
enum accel_reason {
	ACCEL_REASON_OK,		/* kvm-ok */
	ACCEL_REASON_ABSENT,		/* kvm-absent */
	ACCEL_REASON_PERMISSION,	/* kvm-permission */
	ACCEL_REASON_API_VERSION,	/* kvm-api-version */
	ACCEL_REASON_MISSING_CAP,	/* kvm-missing-cap */
	ACCEL_REASON_NO_VMX_SVM,	/* kvm-no-vmx-svm */
	ACCEL_REASON_FORCED,		/* forced */
};

struct accel_choice {
	const struct kvm_backend *backend;
	enum accel_reason reason;
	char detail[200];
};

/* "auto", "soft" or "kvm": 0 and *accel, or -EINVAL. */
int accel_parse(const char *name, enum accel *accel);
const char *accel_reason_name(enum accel_reason reason);

/* Decides. Fails only for ACCEL_KVM without a usable /dev/kvm. */
int accel_choose(enum accel wanted, struct accel_choice *choice, struct error *err);

/*
 * What `auto` makes of a host; has_virt: the CPU has VMX or SVM. It sees the host through backend
 * only, so that tests can play any.
 */
enum accel_reason accel_probe(const struct kvm_backend *backend, bool has_virt, char *detail,
			      size_t detail_size);

bool accel_engine_known(const char *name);
/* The software engine, by name: "dbt", "interp". 0, or -EINVAL. For hypervisors opened later. */
int accel_set_engine(const char *name);
/* Bytes of code cache for each CPU of it. 0 or -errno. For hypervisors opened later. */
int accel_set_code_cache(unsigned long long bytes);

#endif
