//! Errors of CPU designs that concern Linnet, by revision, and what it does about each: for the log at
//! boot, and for code that must know. Sources: Arm's Software Developer Errata Notices.

/// What is done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// On all CPUs, whether they need it or not.
    Always,
    /// By the linker.
    Linker,
    /// Nothing: it needs something that Linnet does not do.
    NotConcerned,
    /// TLB invalidations are issued twice on machines with such a CPU.
    RepeatTlbi,
}

/// An error of revisions of a design.
#[derive(Clone, Copy, Debug)]
pub struct Erratum {
    /// Arm's numbers.
    pub name: &'static str,
    /// Part number of the design (MIDR_EL1), implementer Arm.
    part: u16,
    /// First and last revision that have it: variant and revision as in r1p2.
    revisions: ((u8, u8), (u8, u8)),
    /// What is done.
    pub remedy: Remedy,
    /// In words.
    pub note: &'static str,
}

const ARM: u8 = 0x41;
const CORTEX_A53: u16 = 0xd03;
const CORTEX_A72: u16 = 0xd08;
const CORTEX_A76: u16 = 0xd0b;
const ANY: ((u8, u8), (u8, u8)) = ((0, 0), (0xf, 0xf));

/// All that are known to concern the CPUs that Linnet is run on.
pub const ERRATA: &[Erratum] = &[
    Erratum {
        name: "819472, 824069, 826319, 827319",
        part: CORTEX_A53,
        revisions: ((0, 0), (0, 2)),
        remedy: Remedy::Always,
        note: "cache cleaning also invalidates",
    },
    Erratum {
        name: "843419",
        part: CORTEX_A53,
        revisions: ((0, 0), (0, 4)),
        remedy: Remedy::Linker,
        note: "the kernel is linked without the sequence",
    },
    Erratum {
        name: "845719",
        part: CORTEX_A53,
        revisions: ((0, 0), (0, 4)),
        remedy: Remedy::NotConcerned,
        note: "no 32-bit programs are run",
    },
    Erratum {
        name: "1319367",
        part: CORTEX_A72,
        revisions: ANY,
        remedy: Remedy::NotConcerned,
        note: "no virtual machines are run",
    },
    Erratum {
        name: "1742098",
        part: CORTEX_A72,
        revisions: ANY,
        remedy: Remedy::NotConcerned,
        note: "no 32-bit programs are run",
    },
    Erratum {
        name: "1286807",
        part: CORTEX_A76,
        revisions: ((0, 0), (3, 0)),
        remedy: Remedy::RepeatTlbi,
        note: "TLB invalidations are repeated",
    },
    Erratum {
        name: "1418040",
        part: CORTEX_A76,
        revisions: ((0, 0), (3, 1)),
        remedy: Remedy::NotConcerned,
        note: "no 32-bit programs are run",
    },
    Erratum {
        name: "1463225",
        part: CORTEX_A76,
        revisions: ((0, 0), (3, 1)),
        remedy: Remedy::NotConcerned,
        note: "system calls are not single-stepped in the kernel",
    },
];

/// Those that a CPU with this main id register has.
pub fn errata_of(midr: u64) -> impl Iterator<Item = &'static Erratum> {
    let cpu = super::CpuInfo::from_midr(midr);
    let revision = (cpu.variant, cpu.revision);
    ERRATA.iter().filter(move |e| {
        let (first, last) = e.revisions;
        cpu.implementer == ARM && cpu.part == e.part && first <= revision && revision <= last
    })
}
