/*
 * The MSRs that exist. Registers of real processors that Linux touches without asking first, and
 * that have no meaning here, read as a constant and drop writes, as under KVM. SDM 4; APM 2
 * appendix A; the processor programming reference of AMD family 19h for C001_xxxx.
 */
#include "hypervisor/x86/msr_row.h"

#define FIELD(f)	offsetof(struct vcpu, f)
#define ANY		(~0ULL)
#define HYPERV(name_, first_, count_, flags_) \
	{ name_, first_, count_, .flags = MSR_HYPERV | (flags_), .get = msr_get_hv, \
		.set = msr_set_hv }

/* IA32_ARCH_CAPABILITIES: see cpuid_table.c on bits that say "not affected". */
#define ARCH_RDCL_NO	BIT(0)
#define ARCH_SKIP_L1DF	BIT(3)
#define ARCH_SSB_NO	BIT(4)
#define ARCH_MDS_NO	BIT(5)
#define ARCH_PSCHANGE_NO BIT(6)
#define ARCH_TAA_NO	BIT(8)
#define ARCH_SBDR_NO	BIT(13)
#define ARCH_FBSDP_NO	BIT(14)
#define ARCH_PSDP_NO	BIT(15)
#define ARCH_BHI_NO	BIT(20)
#define ARCH_PBRSB_NO	BIT(24)
#define ARCH_GDS_NO	BIT(26)
#define ARCH_RFDS_NO	BIT(27)
/*
 * True of translated code on any host: guest rights are compared before the access (RDCL), the
 * guest's page tables are not walked by the CPU (L1D, PSCHANGE), there is no TSX (TAA), no VM exit
 * (PBRSB). The others are properties of a CPU that user code cannot ask: user space that knows its
 * host may claim them.
 */
#define ARCH_HERE	(ARCH_RDCL_NO | ARCH_SKIP_L1DF | ARCH_PSCHANGE_NO | ARCH_TAA_NO | \
			 ARCH_PBRSB_NO)
#define ARCH_OF_HOST	(ARCH_SSB_NO | ARCH_MDS_NO | ARCH_SBDR_NO | ARCH_FBSDP_NO | ARCH_PSDP_NO | \
			 ARCH_BHI_NO | ARCH_GDS_NO | ARCH_RFDS_NO)

#define PAT_RESET	0x0007040600070406ULL	/* SDM 3A 11.12.4 */
#define FEAT_CTL_LOCKED	BIT(0)
#define MISC_FAST_STRING BIT(0)
#define DEBUGCTL_WRITABLE (BIT(0) | BIT(1))	/* LBR, BTF */
#define PERF_STATUS	(1000 | 4ULL << 40)	/* a bus ratio that old kernels divide by */
#define DE_LFENCE	BIT(1)			/* LFENCE is serializing */
#define HWCR_TSC_P0	BIT(24)			/* the TSC counts at P0's frequency */
#define HWCR_WRITABLE	(BIT(3) | BIT(6) | BIT(8) | BIT(18) | HWCR_TSC_P0 | BIT(30))
#define SYSCFG_WRITABLE	(~BIT(23))		/* not memory encryption */
#define OSVW_LENGTH	4			/* errata known, none present */

const struct msr_row msr_rows[] = {
	{ "TSC", 0x10, 1, .flags = MSR_SAVE, .feature = F_TSC, .get = msr_get_tsc,
		.set = msr_set_tsc },
	{ "KVM_WALL_CLOCK", 0x11, 1, .field = FIELD(msr.kvm_wall_clock), .flags = MSR_SAVE | MSR_PV,
		.get = msr_get_pv, .set = msr_set_pv },
	{ "KVM_SYSTEM_TIME", 0x12, 1, .field = FIELD(msr.kvm_system_time), .flags = MSR_SAVE | MSR_PV,
		.get = msr_get_pv, .set = msr_set_pv },
	{ "PLATFORM_ID", 0x17, 1, .flags = MSR_READONLY },
	{ "APIC_BASE", 0x1b, 1, .get = msr_get_apic_base, .set = msr_set_apic_base },
	{ "EBL_CR_POWERON", 0x2a, 1, .flags = MSR_IGNORE },
	{ "SMI_COUNT", 0x34, 1, .field = FIELD(msr.smi_count), .flags = MSR_SAVE | MSR_READONLY,
		.writable = ANY },
	{ "FEAT_CTL", 0x3a, 1, .field = FIELD(msr.feat_ctl), .flags = MSR_SAVE | MSR_READONLY,
		.writable = ANY, .reset = FEAT_CTL_LOCKED },
	{ "TSC_ADJUST", 0x3b, 1, .field = FIELD(msr.tsc_adjust), .flags = MSR_SAVE,
		.feature = F_TSC_ADJUST, .set = msr_set_tsc_adjust },
	{ "UCODE_WRITE", 0x79, 1, .flags = MSR_IGNORE },
	{ "UCODE_REV", 0x8b, 1, .field = FIELD(msr.bios_sign_id),
		.flags = MSR_SAVE | MSR_FEATURE | MSR_IGNORE, .writable = ANY,
		.get = msr_get_microcode },
	{ "SMBASE", 0x9e, 1, .field = FIELD(msr.smbase), .flags = MSR_SAVE | MSR_HOST_ONLY,
		.writable = ANY, .reset = 0x30000 },
	{ "PERFCTR", MSR_PERFCTR0, PMU_INTEL_GP, .flags = MSR_SAVE | MSR_PMU, .get = pmu_get_gp,
		.set = pmu_set_gp },
	{ "PLATFORM_INFO", 0xce, 1, .field = FIELD(msr.platform_info),
		.flags = MSR_SAVE | MSR_READONLY, .reset = PLATFORM_CPUID_FAULT,
		.set = msr_set_platform_info },
	{ "MTRRCAP", 0xfe, 1, .flags = MSR_READONLY, .feature = F_MTRR,
		.reset = MTRR_VARIABLE | MTRRCAP_FIXED | MTRRCAP_WC },
	{ "ARCH_CAPABILITIES", 0x10a, 1, .field = FIELD(msr.arch_capabilities),
		.flags = MSR_SAVE | MSR_FEATURE | MSR_READONLY, .feature = F_ARCHCAP,
		.writable = ARCH_HERE | ARCH_OF_HOST, .reset = ARCH_HERE },
	{ "MISC_FEATURES_ENABLES", 0x140, 1, .field = FIELD(msr.misc_features), .flags = MSR_SAVE,
		.set = msr_set_misc_features },
	{ "SYSENTER_CS", 0x174, 1, .field = FIELD(msr.sysenter_cs), .flags = MSR_SAVE,
		.feature = F_SEP, .writable = ANY },
	{ "SYSENTER_ESP", 0x175, 1, .field = FIELD(msr.sysenter_esp), .flags = MSR_SAVE,
		.feature = F_SEP, .set = msr_set_address },
	{ "SYSENTER_EIP", 0x176, 1, .field = FIELD(msr.sysenter_eip), .flags = MSR_SAVE,
		.feature = F_SEP, .set = msr_set_address },
	{ "MCG_CAP", 0x179, 1, .field = FIELD(msr.mcg_cap), .flags = MSR_READONLY,
		.feature = F_MCE, .reset = MCE_DEFAULT_CAP },
	{ "MCG_STATUS", 0x17a, 1, .field = FIELD(msr.mcg_status), .flags = MSR_SAVE,
		.feature = F_MCE, .writable = ANY },
	{ "MCG_CTL", 0x17b, 1, .field = FIELD(msr.mcg_ctl), .flags = MSR_SAVE, .feature = F_MCE,
		.set = mce_set_ctl },
	{ "PERFEVTSEL", MSR_PERFEVTSEL0, PMU_INTEL_GP, .flags = MSR_SAVE | MSR_PMU,
		.get = pmu_get_select, .set = pmu_set_select },
	{ "PERF_STATUS", 0x198, 1, .flags = MSR_READONLY, .reset = PERF_STATUS },
	{ "MISC_ENABLE", 0x1a0, 1, .field = FIELD(msr.misc_enable), .flags = MSR_SAVE,
		.set = msr_set_misc_enable, .reset = MISC_FAST_STRING | MISC_NO_BTS | MISC_NO_PEBS },
	{ "DEBUGCTL", 0x1d9, 1, .field = FIELD(msr.debugctl), .flags = MSR_SAVE,
		.writable = DEBUGCTL_WRITABLE },
	{ "LAST_BRANCH", 0x1db, 4, .flags = MSR_READONLY },
	{ "POWER_CTL", 0x1fc, 1, .field = FIELD(msr.power_ctl), .flags = MSR_SAVE,
		.writable = ANY },
	{ "MTRR_PHYS", 0x200, 2 * MTRR_VARIABLE, .flags = MSR_SAVE, .feature = F_MTRR,
		.get = mtrr_get_variable, .set = mtrr_set_variable },
	{ "MTRR_FIX64K", 0x250, 1, .field = FIELD(msr.mtrr_fix[0]), .flags = MSR_SAVE,
		.feature = F_MTRR, .set = mtrr_set_fixed },
	{ "MTRR_FIX16K", 0x258, 2, .field = FIELD(msr.mtrr_fix[1]), .flags = MSR_SAVE,
		.feature = F_MTRR, .set = mtrr_set_fixed },
	{ "MTRR_FIX4K", 0x268, 8, .field = FIELD(msr.mtrr_fix[3]), .flags = MSR_SAVE,
		.feature = F_MTRR, .set = mtrr_set_fixed },
	{ "PAT", 0x277, 1, .field = FIELD(msr.pat), .flags = MSR_SAVE, .feature = F_PAT,
		.reset = PAT_RESET, .set = pat_set },
	{ "MC_CTL2", MSR_MC_CTL2, MCE_MAX_BANKS, .field = FIELD(msr.mc_ctl2), .feature = F_MCE,
		.get = mce_get_ctl2, .set = mce_set_ctl2 },
	{ "MTRR_DEF_TYPE", 0x2ff, 1, .field = FIELD(msr.mtrr_def_type), .flags = MSR_SAVE,
		.feature = F_MTRR, .set = mtrr_set_default },
	{ "FIXED_CTR", MSR_FIXED_CTR0, PMU_NR_FIXED, .flags = MSR_SAVE | MSR_PMU,
		.get = pmu_get_fixed, .set = pmu_set_fixed },
	{ "PERF_CAPABILITIES", 0x345, 1, .field = FIELD(msr.perf_capabilities),
		.flags = MSR_SAVE | MSR_FEATURE | MSR_READONLY, .feature = F_PDCM,
		.reset = PERF_CAP_FW_WRITES, .set = pmu_set_capabilities },
	{ "PERF_GLOBAL", 0x38d, 4, .flags = MSR_SAVE | MSR_PMU, .get = pmu_get_global,
		.set = pmu_set_global },
	{ "MC", 0x400, 4 * 32, .feature = F_MCE, .get = mce_get_bank, .set = mce_set_bank },
	{ "PMC", MSR_PMC0, PMU_INTEL_GP, .flags = MSR_PMU, .get = pmu_get_gp, .set = pmu_set_full },
	{ "TSC_DEADLINE", 0x6e0, 1, .flags = MSR_SAVE, .feature = F_TSCDEADLINE,
		.get = msr_get_deadline, .set = msr_set_deadline },
	{ "X2APIC", 0x800, 0x100, .feature = F_X2APIC, .get = msr_get_x2apic,
		.set = msr_set_x2apic },
	{ "XSS", 0xda0, 1, .flags = MSR_SAVE, .feature = F_XSAVES, .get = msr_get_xss,
		.set = msr_set_xss },
	HYPERV("HV_GUEST_OS_ID", 0x40000000, 4, MSR_SAVE),
	HYPERV("HV_VP_RUNTIME", 0x40000010, 1, MSR_SAVE),
	HYPERV("HV_TIME", 0x40000020, 4, MSR_SAVE),
	HYPERV("HV_APIC", 0x40000070, 3, 0),
	HYPERV("HV_VP_ASSIST", 0x40000073, 1, MSR_SAVE),
	HYPERV("HV_SCONTROL", 0x40000080, 1, MSR_SAVE),
	HYPERV("HV_SYNIC", 0x40000081, 4, 0),
	HYPERV("HV_SINT", 0x40000090, 16, 0),
	HYPERV("HV_STIMER0", 0x400000b0, 1, MSR_SAVE),
	HYPERV("HV_STIMERS", 0x400000b1, 7, 0),
	HYPERV("HV_SYNDBG", 0x400000f1, 5, MSR_SAVE),
	HYPERV("HV_SYNDBG_OPT", 0x400000ff, 1, MSR_SAVE),
	HYPERV("HV_CRASH", 0x40000100, 6, MSR_SAVE),
	HYPERV("HV_REENLIGHTEN", 0x40000106, 3, MSR_SAVE),
	{ "KVM_WALL_CLOCK_NEW", 0x4b564d00, 1, .field = FIELD(msr.kvm_wall_clock),
		.flags = MSR_SAVE | MSR_PV, .get = msr_get_pv, .set = msr_set_pv },
	{ "KVM_SYSTEM_TIME_NEW", 0x4b564d01, 1, .field = FIELD(msr.kvm_system_time),
		.flags = MSR_SAVE | MSR_PV, .get = msr_get_pv, .set = msr_set_pv },
	{ "KVM_ASYNC_PF_EN", 0x4b564d02, 1, .field = FIELD(msr.kvm_async_pf_en),
		.flags = MSR_SAVE | MSR_PV, .get = msr_get_pv, .set = msr_set_pv },
	{ "KVM_STEAL_TIME", 0x4b564d03, 1, .field = FIELD(msr.kvm_steal_time),
		.flags = MSR_SAVE | MSR_PV, .get = msr_get_pv, .set = msr_set_pv },
	{ "KVM_PV_EOI_EN", 0x4b564d04, 1, .field = FIELD(msr.kvm_pv_eoi), .flags = MSR_SAVE | MSR_PV,
		.get = msr_get_pv, .set = msr_set_pv },
	{ "KVM_POLL_CONTROL", 0x4b564d05, 1, .field = FIELD(msr.kvm_poll_control),
		.flags = MSR_SAVE | MSR_PV, .reset = 1, .get = msr_get_pv, .set = msr_set_pv },
	{ "KVM_ASYNC_PF_INT", 0x4b564d06, 1, .field = FIELD(msr.kvm_async_pf_int),
		.flags = MSR_SAVE | MSR_PV, .get = msr_get_pv, .set = msr_set_pv },
	{ "KVM_ASYNC_PF_ACK", 0x4b564d07, 1, .flags = MSR_SAVE | MSR_PV, .get = msr_get_pv,
		.set = msr_set_pv },
	{ "EFER", 0xc0000080, 1, .flags = MSR_SAVE, .get = msr_get_efer, .set = msr_set_efer },
	{ "STAR", 0xc0000081, 1, .field = FIELD(msr.star), .flags = MSR_SAVE, .feature = F_SYSCALL,
		.writable = ANY },
	{ "LSTAR", 0xc0000082, 1, .field = FIELD(msr.lstar), .flags = MSR_SAVE, .feature = F_LM,
		.set = msr_set_address },
	{ "CSTAR", 0xc0000083, 1, .field = FIELD(msr.cstar), .flags = MSR_SAVE, .feature = F_LM,
		.set = msr_set_address },
	{ "SFMASK", 0xc0000084, 1, .field = FIELD(msr.sfmask), .flags = MSR_SAVE, .feature = F_LM,
		.writable = ANY },
	{ "FS_BASE", 0xc0000100, 1, .feature = F_LM, .get = msr_get_fs_base,
		.set = msr_set_fs_base },
	{ "GS_BASE", 0xc0000101, 1, .feature = F_LM, .get = msr_get_gs_base,
		.set = msr_set_gs_base },
	{ "KERNEL_GS_BASE", 0xc0000102, 1, .field = FIELD(msr.kernel_gs_base), .flags = MSR_SAVE,
		.feature = F_LM, .set = msr_set_address },
	{ "TSC_AUX", 0xc0000103, 1, .field = FIELD(msr.tsc_aux), .flags = MSR_SAVE,
		.feature = F_RDTSCP, .writable = MASK(31, 0) },
	{ "K7_EVNTSEL_PERFCTR", 0xc0010000, 8, .flags = MSR_SAVE, .get = pmu_get_k7,
		.set = pmu_set_k7 },
	{ "SYSCFG", 0xc0010010, 1, .field = FIELD(msr.syscfg), .flags = MSR_SAVE,
		.writable = SYSCFG_WRITABLE },
	{ "HWCR", 0xc0010015, 1, .field = FIELD(msr.hwcr), .flags = MSR_SAVE,
		.writable = HWCR_WRITABLE, .reset = HWCR_TSC_P0 },
	{ "IORR", 0xc0010016, 4, .flags = MSR_IGNORE },
	{ "TOP_MEM", 0xc001001a, 1, .flags = MSR_IGNORE },
	{ "TOP_MEM2", 0xc001001d, 1, .flags = MSR_IGNORE },
	{ "NB_CFG", 0xc001001f, 1, .field = FIELD(msr.nb_cfg), .writable = ANY },
	{ "PATCH_LOADER", 0xc0010020, 1, .flags = MSR_IGNORE },
	{ "INT_PENDING", 0xc0010055, 1, .flags = MSR_IGNORE },
	{ "MMIO_CONF_BASE", 0xc0010058, 1, .flags = MSR_IGNORE },
	{ "SMM_TSEG", 0xc0010112, 2, .flags = MSR_IGNORE },
	{ "VM_CR", 0xc0010114, 1, .flags = MSR_IGNORE },
	{ "VM_HSAVE_PA", 0xc0010117, 1, .field = FIELD(msr.vm_hsave_pa), .flags = MSR_SAVE,
		.feature = F_SVM, .writable = MASK(51, 12) },
	{ "OSVW_ID_LENGTH", 0xc0010140, 1, .flags = MSR_READONLY, .feature = F_OSVW,
		.reset = OSVW_LENGTH },
	{ "OSVW_STATUS", 0xc0010141, 1, .flags = MSR_READONLY, .feature = F_OSVW },
	{ "PERF_CTL_CTR", 0xc0010200, 12, .flags = MSR_SAVE, .feature = F_PERFCTR_CORE,
		.get = pmu_get_core, .set = pmu_set_core },
	{ "LS_IC_DC_TW_CFG", 0xc0011020, 4, .flags = MSR_IGNORE },
	{ "DE_CFG", 0xc0011029, 1, .field = FIELD(msr.de_cfg),
		.flags = MSR_SAVE | MSR_FEATURE | MSR_IGNORE, .writable = DE_LFENCE,
		.reset = DE_LFENCE },
	{ "BU_CFG2", 0xc001102a, 1, .flags = MSR_IGNORE },
};

const unsigned int nr_msr_rows = ARRAY_SIZE(msr_rows);
