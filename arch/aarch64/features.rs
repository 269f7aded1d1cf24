//! What the CPUs can do: read on each, sanitised over all, told to programs.
//!
//! Programs see, through HWCAPs and through emulated reads of the ID registers, the lowest value of
//! each field over all CPUs, and only fields whose use needs nothing from the kernel that it does not
//! give: no SVE, SME, MTE, pointer authentication. (Linux's Documentation/arch/arm64:
//! cpu-feature-registers.rst, elf_hwcaps.rst.)

use crate::regs::read_sysreg;
use crate::{cpu, percpu};
use aarch64_cpu::asm::{barrier, sev};
use aarch64_cpu::registers::{
    ID_AA64ISAR0_EL1, ID_AA64ISAR1_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1,
    ID_AA64PFR1_EL1, MIDR_EL1, MPIDR_EL1, SCTLR_EL1,
};
use abi::raw::ptrace as h;
use abi::{CpuId, MAX_CPUS};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tock_registers::interfaces::{Readable, Writeable};

#[path = "../common/errata.rs"]
mod errata;
#[path = "../common/feature_list.rs"]
mod feature_list;
pub use errata::*;
pub use feature_list::*;

/// The registers that are kept of each CPU.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Reg {
    Midr,
    Revidr,
    Ctr,
    Dczid,
    Pfr0,
    Pfr1,
    Isar0,
    Isar1,
    Isar2,
    Mmfr0,
    Mmfr1,
    Mmfr2,
}

const REGS: usize = Reg::Mmfr2 as usize + 1;

struct IdRegs([AtomicU64; REGS]);

static CPUS: [IdRegs; MAX_CPUS] = [const { IdRegs([const { AtomicU64::new(0) }; REGS]) }; MAX_CPUS];

/// The sanitised registers.
static SYSTEM: IdRegs = IdRegs([const { AtomicU64::new(0) }; REGS]);

/// Bit n: `Feature::ALL[n]`.
static FEATURES: AtomicU64 = AtomicU64::new(0);
static FINAL: AtomicBool = AtomicBool::new(false);

impl IdRegs {
    fn get(&self, reg: Reg) -> u64 {
        self.0.get(reg as usize).map_or(0, |r| r.load(Ordering::Relaxed))
    }
    fn set(&self, reg: Reg, value: u64) {
        if let Some(r) = self.0.get(reg as usize) {
            r.store(value, Ordering::Relaxed);
        }
    }
}

fn read(reg: Reg) -> u64 {
    match reg {
        Reg::Midr => MIDR_EL1.get(),
        Reg::Revidr => read_sysreg!("revidr_el1"),
        Reg::Ctr => read_sysreg!("ctr_el0"),
        Reg::Dczid => read_sysreg!("dczid_el0"),
        Reg::Pfr0 => ID_AA64PFR0_EL1.get(),
        Reg::Pfr1 => ID_AA64PFR1_EL1.get(),
        Reg::Isar0 => ID_AA64ISAR0_EL1.get(),
        Reg::Isar1 => ID_AA64ISAR1_EL1.get(),
        Reg::Isar2 => read_sysreg!("S3_0_C0_C6_2"),
        Reg::Mmfr0 => ID_AA64MMFR0_EL1.get(),
        Reg::Mmfr1 => ID_AA64MMFR1_EL1.get(),
        Reg::Mmfr2 => ID_AA64MMFR2_EL1.get(),
    }
}

const ALL_REGS: [Reg; REGS] = [
    Reg::Midr,
    Reg::Revidr,
    Reg::Ctr,
    Reg::Dczid,
    Reg::Pfr0,
    Reg::Pfr1,
    Reg::Isar0,
    Reg::Isar1,
    Reg::Isar2,
    Reg::Mmfr0,
    Reg::Mmfr1,
    Reg::Mmfr2,
];

/// SCTLR_EL1.BT0 and BT1: with them PACIASP is no landing pad for a branch through any register
/// but X16 and X17, at EL0 and EL1 (Arm ARM D24.2.130). Marked binaries are made for that.
const SCTLR_BT: u64 = 3 << 35;

/// Records this CPU's registers.
fn record() {
    let cpu = cpu::id();
    if field(read(Reg::Pfr1), 0) >= 1 {
        SCTLR_EL1.set(SCTLR_EL1.get() | SCTLR_BT);
        barrier::isb(barrier::SY);
    }
    if let Some(regs) = CPUS.get(cpu.index()) {
        for reg in ALL_REGS {
            regs.set(reg, read(reg));
        }
    }
    if let Some(block) = percpu::block_of(cpu) {
        block.mpidr.store(MPIDR_EL1.get(), Ordering::Relaxed);
    }
}

/// The boot CPU's features are the system's until others come.
pub(crate) fn init_boot_cpu() {
    record();
    sanitise();
}

/// Records a secondary; whether it can run what was decided for the CPUs before it.
pub(crate) fn join_secondary() -> bool {
    record();
    let own = CPUS.get(cpu::id().index());
    let reg = |r| own.map_or(0, |regs| regs.get(r));
    // Physical addresses that it cannot reach may hold its tables.
    if reg(Reg::Mmfr0) & 0xf < SYSTEM.get(Reg::Mmfr0) & 0xf {
        return false;
    }
    // After patching, it must have all that was patched in.
    !FINAL.load(Ordering::Acquire) || {
        let all = FEATURES.load(Ordering::Relaxed);
        features_of(&reg) & all == all
    }
}

const fn field(reg: u64, shift: u32) -> u64 {
    reg >> shift & 0xf
}

/// The features that a set of registers has.
fn features_of(reg: &dyn Fn(Reg) -> u64) -> u64 {
    let have = |f: Feature| match f {
        Feature::Lse => field(reg(Reg::Isar0), 20) >= 2,
        Feature::Pan => field(reg(Reg::Mmfr1), 20) >= 1,
        Feature::HwAccessFlag => field(reg(Reg::Mmfr1), 0) >= 1,
        Feature::HwDirty => field(reg(Reg::Mmfr1), 0) >= 2,
        Feature::Uao => field(reg(Reg::Mmfr2), 4) >= 1,
        Feature::Dpb => field(reg(Reg::Isar1), 0) >= 1,
        Feature::CacheIdc => reg(Reg::Ctr) & 1 << 28 != 0,
        Feature::CacheDic => reg(Reg::Ctr) & 1 << 29 != 0,
        Feature::Asid16 => field(reg(Reg::Mmfr0), 4) == 2,
        Feature::TlbRange => field(reg(Reg::Isar0), 56) >= 2,
        Feature::Rng => field(reg(Reg::Isar0), 60) >= 1,
        Feature::Cnp => field(reg(Reg::Mmfr2), 0) >= 1,
        Feature::Sb => field(reg(Reg::Isar1), 36) >= 1,
        Feature::Ssbs => field(reg(Reg::Pfr1), 4) >= 2,
        Feature::Bti => field(reg(Reg::Pfr1), 0) >= 1,
    };
    Feature::ALL.iter().filter(|f| have(**f)).fold(0, |bits, f| bits | 1 << *f as u64)
}

/// The lowest value of each field of a register; FP and ASIMD count 0xf as "none".
fn lowest(a: u64, b: u64, reg: Reg) -> u64 {
    let mut out = 0;
    for shift in (0..64).step_by(4) {
        let (x, y) = (field(a, shift), field(b, shift));
        let signed = matches!(reg, Reg::Pfr0) && (shift == 16 || shift == 20)
            || matches!(reg, Reg::Mmfr0) && (shift == 24 || shift == 28);
        let low = if signed && (x == 0xf || y == 0xf) { 0xf } else { x.min(y) };
        out |= low << shift;
    }
    out
}

/// What holds of both CTR_EL0: the smaller line sizes (DminLine, IminLine), the coherence bits (IDC,
/// DIC) that both have, and physically tagged instruction caches (L1Ip = 0b11) only if both are.
fn common_ctr(a: u64, b: u64) -> u64 {
    const BOTH: u64 = 3 << 28 | 3 << 14;
    const LEAST: u64 = 0xf << 16 | 0xf;
    let least = |shift: u32| field(a, shift).min(field(b, shift)) << shift;
    a & !(BOTH | LEAST) | a & b & BOTH | least(16) | least(0)
}

fn sanitise() {
    for reg in ALL_REGS {
        let mut values =
            cpu::online().iter().filter_map(|c| CPUS.get(c.index())).map(|regs| regs.get(reg));
        let first = values.next().unwrap_or(0);
        let value = match reg {
            Reg::Midr | Reg::Revidr => first,
            Reg::Ctr => values.fold(first, common_ctr),
            Reg::Dczid => first,
            _ => values.fold(first, |a, b| lowest(a, b, reg)),
        };
        SYSTEM.set(reg, value);
    }
    FEATURES.store(features_of(&|r| SYSTEM.get(r)), Ordering::Release);
    let repeat = cpu::online().iter().any(|c| errata_of(cpuinfo(c).midr).any(|e| e.remedy == Remedy::RepeatTlbi));
    crate::mmu::REPEAT_TLBI.store(repeat, Ordering::Release);
}

/// To be called once, when all CPUs that will come have been started: sanitises over them, patches
/// the alternatives and lets the secondaries go on, which have waited for it. How many instructions
/// were patched.
pub fn finalise() -> usize {
    sanitise();
    let patched = crate::alternatives::apply();
    FINAL.store(true, Ordering::Release);
    // Wakes the secondaries, which wait for FINAL.
    barrier::dsb(barrier::ISHST);
    sev();
    patched
}

pub(crate) fn is_final() -> bool {
    FINAL.load(Ordering::Acquire)
}

/// Whether all CPUs have the feature.
#[inline]
pub fn has(feature: Feature) -> bool {
    FEATURES.load(Ordering::Relaxed) & 1 << feature as u64 != 0
}

const ISAR0_VISIBLE: u64 = 0xf0ff_ffff_f0ff_fff0; // all but TME and TLB
const ISAR1_VISIBLE: u64 = 0x00ff_f0ff_00ff_f00f; // no pointer authentication, SPECRES, LS64
const ISAR2_VISIBLE: u64 = 0xf << 4; // RPRES
const PFR0_VISIBLE: u64 = 0xf << 16 | 0xf << 20 | 0xf << 48; // FP, ASIMD, DIT
const PFR1_VISIBLE: u64 = 0xf; // BT
const MMFR1_VISIBLE: u64 = 0xf << 44; // AFP
const MMFR2_VISIBLE: u64 = 0xf << 32; // AT

/// The value that a program reads from a register of the ID space (op0 3, op1 0, CRn 0); `None`
/// when it is not one that is emulated.
pub(crate) fn emulated_id_register(crm: u32, op2: u32) -> Option<u64> {
    let system = |reg| SYSTEM.get(reg);
    Some(match (crm, op2) {
        (0, 0) => cpuinfo(cpu::id()).midr,
        (0, 5) => 1 << 31,
        (0, 6) => CPUS.get(cpu::id().index()).map_or(0, |regs| regs.get(Reg::Revidr)),
        (4, 1) => system(Reg::Pfr1) & PFR1_VISIBLE,
        (4, 0) => system(Reg::Pfr0) & PFR0_VISIBLE | 0x11, // EL0 and EL1 are AArch64 only
        (5, 0) => 6,                                      // Armv8 debug, nothing else
        (6, 0) => system(Reg::Isar0) & ISAR0_VISIBLE,
        (6, 1) => system(Reg::Isar1) & ISAR1_VISIBLE,
        (6, 2) => system(Reg::Isar2) & ISAR2_VISIBLE,
        (7, 0) => 0xff00_0000, // no granule is told
        (7, 1) => system(Reg::Mmfr1) & MMFR1_VISIBLE,
        (7, 2) => system(Reg::Mmfr2) & MMFR2_VISIBLE,
        (2..=7, _) => 0,
        _ => return None,
    })
}

/// One line of the HWCAP tables: register, shift of the field, lowest value, bit.
type Cap = (Reg, u32, u64, u32);

const CAPS: [Cap; 25] = [
    (Reg::Isar0, 4, 1, h::HWCAP_AES),
    (Reg::Isar0, 4, 2, h::HWCAP_PMULL),
    (Reg::Isar0, 8, 1, h::HWCAP_SHA1),
    (Reg::Isar0, 12, 1, h::HWCAP_SHA2),
    (Reg::Isar0, 12, 2, h::HWCAP_SHA512),
    (Reg::Isar0, 16, 1, h::HWCAP_CRC32),
    (Reg::Isar0, 20, 2, h::HWCAP_ATOMICS),
    (Reg::Isar0, 28, 1, h::HWCAP_ASIMDRDM),
    (Reg::Isar0, 32, 1, h::HWCAP_SHA3),
    (Reg::Isar0, 36, 1, h::HWCAP_SM3),
    (Reg::Isar0, 40, 1, h::HWCAP_SM4),
    (Reg::Isar0, 44, 1, h::HWCAP_ASIMDDP),
    (Reg::Isar0, 48, 1, h::HWCAP_ASIMDFHM),
    (Reg::Isar0, 52, 1, h::HWCAP_FLAGM),
    (Reg::Pfr0, 48, 1, h::HWCAP_DIT),
    (Reg::Isar1, 0, 1, h::HWCAP_DCPOP),
    (Reg::Isar1, 12, 1, h::HWCAP_JSCVT),
    (Reg::Isar1, 16, 1, h::HWCAP_FCMA),
    (Reg::Isar1, 20, 1, h::HWCAP_LRCPC),
    (Reg::Isar1, 20, 2, h::HWCAP_ILRCPC),
    (Reg::Isar1, 36, 1, h::HWCAP_SB),
    (Reg::Mmfr2, 32, 1, h::HWCAP_USCAT),
    // FP and ASIMD: 0xf is "none", which `hwcap` excludes.
    (Reg::Pfr0, 16, 0, h::HWCAP_FP),
    (Reg::Pfr0, 20, 0, h::HWCAP_ASIMD),
    (Reg::Pfr0, 16, 1, h::HWCAP_FPHP),
];

const CAPS2: [Cap; 10] = [
    (Reg::Isar1, 0, 2, h::HWCAP2_DCPODP),
    (Reg::Isar0, 52, 2, h::HWCAP2_FLAGM2),
    (Reg::Isar1, 32, 1, h::HWCAP2_FRINT),
    (Reg::Isar1, 52, 1, h::HWCAP2_I8MM),
    (Reg::Isar1, 44, 1, h::HWCAP2_BF16),
    (Reg::Isar1, 48, 1, h::HWCAP2_DGH),
    (Reg::Isar0, 60, 1, h::HWCAP2_RNG),
    (Reg::Pfr1, 0, 1, h::HWCAP2_BTI),
    (Reg::Mmfr1, 44, 1, h::HWCAP2_AFP),
    (Reg::Isar2, 4, 1, h::HWCAP2_RPRES),
];

fn caps(table: &[Cap]) -> u64 {
    table.iter().fold(0, |bits, (reg, shift, least, bit)| {
        let value = field(SYSTEM.get(*reg), *shift);
        let none = matches!(reg, Reg::Pfr0) && value == 0xf;
        if !none && value >= *least { bits | u64::from(*bit) } else { bits }
    })
}

/// AT_HWCAP: after `finalise`.
pub fn hwcap() -> u64 {
    let mut bits = caps(&CAPS) | u64::from(h::HWCAP_CPUID);
    let asimd = field(SYSTEM.get(Reg::Pfr0), 20);
    if asimd == 1 {
        bits |= u64::from(h::HWCAP_ASIMDHP);
    }
    bits
}

/// AT_HWCAP2: after `finalise`.
pub fn hwcap2() -> u64 {
    caps(&CAPS2)
}

/// What /proc/cpuinfo tells about a CPU.
pub fn cpuinfo(cpu: CpuId) -> CpuInfo {
    CpuInfo::from_midr(CPUS.get(cpu.index()).map_or(0, |regs| regs.get(Reg::Midr)))
}

/// CTR_EL0 of the boot CPU, with what maintenance needs as it holds for all CPUs (`common_ctr`).
pub fn ctr() -> u64 {
    SYSTEM.get(Reg::Ctr)
}

/// DCZID_EL0 of the boot CPU.
pub fn dczid() -> u64 {
    SYSTEM.get(Reg::Dczid)
}
