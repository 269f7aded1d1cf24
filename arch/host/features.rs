//! CPU features: the simulated CPU is a plain Armv8.0 one.

use abi::CpuId;

#[path = "../common/errata.rs"]
mod errata;
#[path = "../common/feature_list.rs"]
mod feature_list;
pub use errata::*;
pub use feature_list::*;

/// Whether all CPUs have the feature.
pub fn has(_: Feature) -> bool {
    false
}

/// AT_HWCAP.
pub fn hwcap() -> u64 {
    0b11 // HWCAP_FP, HWCAP_ASIMD: the generated constants exist for arm64 only
}

/// AT_HWCAP2.
pub fn hwcap2() -> u64 {
    0
}

/// Sanitises and patches.
pub fn finalise() -> usize {
    0
}

/// What /proc/cpuinfo tells about a CPU.
pub fn cpuinfo(cpu: CpuId) -> CpuInfo {
    CpuInfo::from_midr(crate::cpu::midr(cpu))
}

/// CTR_EL0: lines of 64 bytes.
pub fn ctr() -> u64 {
    0x8444_c004
}

/// DCZID_EL0: blocks of 64 bytes.
pub fn dczid() -> u64 {
    4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_line_has_linuxs_words_in_linuxs_order() {
        assert!(hwcap_names().eq(["fp", "asimd"]));
    }

    #[test]
    fn errata_are_those_of_the_design_and_its_revision() {
        let of = |midr| errata_of(midr).map(|e| e.name).collect::<Vec<_>>();
        assert_eq!(of(0x410f_d083), ["1319367", "1742098"], "Cortex-A72 r0p3");
        assert!(of(0x413f_d0b0).contains(&"1286807") && of(0x413f_d0b1).contains(&"1463225"), "Cortex-A76 r3p0, r3p1");
        assert_eq!(of(0x414f_d0b1), [""; 0], "Cortex-A76 r4p1");
        assert_eq!(of(0x410f_d034), ["843419", "845719"], "Cortex-A53 r0p4");
        assert_eq!(of(0x420f_d083), [""; 0], "another implementer");
    }

    #[test]
    fn every_feature_stands_at_its_own_number() {
        assert!(Feature::ALL.iter().enumerate().all(|(i, f)| *f as usize == i));
    }
}
