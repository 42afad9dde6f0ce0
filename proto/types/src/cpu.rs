//! Whether programs that began on one processor find on another what they may be using.

use std::collections::BTreeSet;

/// Flags that are the kernel's or a hypervisor's affair: no program can be using what they name.
const NOT_FOR_PROGRAMS: &str = "
    acc_power acpi amd_dcm amd_lbr_pmc_freeze amd_lbr_v2 amd_ppin aperfmperf apic arat
    arch_capabilities arch_lbr arch_perfmon art avic bpext bts bus_lock_detect cat_l2 cat_l3 cdp_l2
    cdp_l3 cmp_legacy constant_tsc core_perfctr cpb cppc cpuid cpuid_fault cqm cqm_llc
    cqm_mbm_local cqm_mbm_total cqm_occup_llc cr8_legacy dca de debug_swap decodeassists ds_cpl
    dtes64 dtherm dts ept ept_ad epb est extapic extd_apicid flexpriority flush_l1d flushbyasid hfi
    ht hw_pstate hwp hwp_act_window hwp_epp hwp_notify hwp_pkg_req hypervisor ibpb ibrs
    ibrs_enhanced ibs ida intel_ppin intel_pt invpcid invpcid_single la57 lbrv mba mca mce md_clear
    monitor msr mtrr nonstop_tsc nonstop_tsc_s3 nopl npt nrip_save nx osvw pae pat pausefilter pbe
    pcid pconfig pdcm pdpe1gb pebs perfctr_core perfctr_llc perfctr_nb perfmon_v2 pfthreshold pge
    pln pse pse36 pti pts ptsc rapl rdt_a rep_good ring3mwait rrsba_ctrl sdbg sev sev_es sev_snp
    skinit smap smca sme smep smx spec_ctrl split_lock_detect ss ssbd stibp succor svm svm_lock tm
    tm2 tme topoext tpr_shadow tsc_adjust tsc_deadline_timer tsc_known_freq tsc_reliable tsc_scale
    v_spec_ctrl v_vmsave_vmload vgif virt_ssbd vmcb_clean vme vmmcall vmscape vmx vnmi vpid x2apic
    x2avic xtopology xtpr";

/// What a container may be using on a host of `from` and will not find on one of `to`, in order.
/// Nothing when one of them does not say what it has.
pub fn missing_cpu_flags(from: &BTreeSet<String>, to: &BTreeSet<String>) -> Vec<String> {
    if to.is_empty() {
        return Vec::new();
    }
    let others: BTreeSet<&str> = NOT_FOR_PROGRAMS.split_whitespace().collect();
    let missing = from.difference(to);
    missing
        .filter(|flag| !others.contains(flag.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lesser_processor_is_one_that_lacks_what_programs_use() {
        let flags = |text: &str| -> BTreeSet<String> {
            text.split_whitespace().map(str::to_owned).collect()
        };
        let (great, small) = (flags("sse2 avx avx512f vmx arat"), flags("sse2 avx svm"));
        assert_eq!(missing_cpu_flags(&great, &small), ["avx512f"]);
        assert!(missing_cpu_flags(&small, &great).is_empty());
        // One that does not say what it has.
        assert!(missing_cpu_flags(&great, &BTreeSet::new()).is_empty());
        assert!(missing_cpu_flags(&BTreeSet::new(), &great).is_empty());
    }
}
