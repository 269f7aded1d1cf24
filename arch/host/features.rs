//! CPU features: the simulated CPU is a plain Armv8.0 one.

use abi::CpuId;

#[path = "../common/feature_list.rs"]
mod feature_list;
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
pub fn finalise() {}

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
    fn every_feature_stands_at_its_own_number() {
        assert!(Feature::ALL.iter().enumerate().all(|(i, f)| *f as usize == i));
    }
}
