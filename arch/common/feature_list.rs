//! The CPU features that the kernel switches by, and what is told about a CPU.

/// Something that a CPU may have and that the kernel uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Feature {
    /// Atomic instructions of Armv8.1 (FEAT_LSE).
    Lse,
    /// Privileged access never (FEAT_PAN).
    Pan,
    /// Hardware update of the access flag (FEAT_HAFDBS).
    HwAccessFlag,
    /// Hardware update of the dirty state (FEAT_HAFDBS).
    HwDirty,
    /// User-access override (FEAT_UAO).
    Uao,
    /// Cache clean to the point of persistence (FEAT_DPB).
    Dpb,
    /// Data cache needs no cleaning to PoU for instruction fetch (CTR_EL0.IDC).
    CacheIdc,
    /// Instruction cache needs no invalidation (CTR_EL0.DIC).
    CacheDic,
    /// 16-bit ASIDs.
    Asid16,
    /// TLB maintenance by range (FEAT_TLBIRANGE).
    TlbRange,
    /// Self-hosted random numbers (FEAT_RNG).
    Rng,
    /// Common-not-private translations (FEAT_TTCNP).
    Cnp,
    /// Speculation barrier (FEAT_SB).
    Sb,
    /// Speculative store bypass control in PSTATE (FEAT_SSBS2).
    Ssbs,
    /// Branch target identification (FEAT_BTI).
    Bti,
}

impl Feature {
    /// How many there are.
    pub const COUNT: usize = Self::Bti as usize + 1;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Lse,
        Self::Pan,
        Self::HwAccessFlag,
        Self::HwDirty,
        Self::Uao,
        Self::Dpb,
        Self::CacheIdc,
        Self::CacheDic,
        Self::Asid16,
        Self::TlbRange,
        Self::Rng,
        Self::Cnp,
        Self::Sb,
        Self::Ssbs,
        Self::Bti,
    ];

    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lse => "LSE atomics",
            Self::Pan => "PAN",
            Self::HwAccessFlag => "hardware access flag",
            Self::HwDirty => "hardware dirty state",
            Self::Uao => "UAO",
            Self::Dpb => "DC CVAP",
            Self::CacheIdc => "IDC",
            Self::CacheDic => "DIC",
            Self::Asid16 => "16-bit ASIDs",
            Self::TlbRange => "TLB range maintenance",
            Self::Rng => "RNDR",
            Self::Cnp => "CNP",
            Self::Sb => "SB",
            Self::Ssbs => "SSBS",
            Self::Bti => "BTI",
        }
    }
}

/// What /proc/cpuinfo tells about a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CpuInfo {
    /// MIDR_EL1 as it is.
    pub midr: u64,
    /// Who designed it: 0x41 is Arm.
    pub implementer: u8,
    /// Major revision.
    pub variant: u8,
    /// Which design.
    pub part: u16,
    /// Minor revision.
    pub revision: u8,
}

impl CpuInfo {
    /// Takes a main id register apart (Arm ARM D24.2.122).
    pub const fn from_midr(midr: u64) -> Self {
        Self {
            midr,
            implementer: (midr >> 24) as u8,
            variant: (midr >> 20 & 0xf) as u8,
            part: (midr >> 4 & 0xfff) as u16,
            revision: (midr & 0xf) as u8,
        }
    }
}

/// Names of the AT_HWCAP bits from 0 on, as /proc/cpuinfo lists them.
const HWCAP_NAMES: [&str; 32] = [
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid",
    "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve", "asimdfhm",
    "dit", "uscat", "ilrcpc", "flagm", "ssbs", "sb", "paca", "pacg",
];

/// Names of the AT_HWCAP2 bits from 0 on.
const HWCAP2_NAMES: [&str; 22] = [
    "dcpodp", "sve2", "sveaes", "svepmull", "svebitperm", "svesha3", "svesm4", "flagm2", "frint", "svei8mm",
    "svef32mm", "svef64mm", "svebf16", "i8mm", "bf16", "dgh", "rng", "bti", "mte", "ecv", "afp", "rpres",
];

/// The words of the `Features` line of /proc/cpuinfo.
pub fn hwcap_names() -> impl Iterator<Item = &'static str> {
    let pick = |names: &'static [&'static str], bits: u64| {
        names.iter().enumerate().filter(move |(i, _)| bits >> i & 1 != 0).map(|(_, name)| *name)
    };
    pick(&HWCAP_NAMES, super::hwcap()).chain(pick(&HWCAP2_NAMES, super::hwcap2()))
}
