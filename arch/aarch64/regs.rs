//! System registers that `aarch64-cpu` does not name, and the barriers.

/// Reads a system register by its assembler name.
macro_rules! read_sysreg {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading these registers has no side effect; the caller names one that EL1 has.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value,
                             options(nomem, nostack, preserves_flags))
        };
        value
    }};
}

/// Writes a system register by its assembler name.
///
/// # Safety
/// As for the register.
macro_rules! write_sysreg {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags))
    }};
}

pub(crate) use {read_sysreg, write_sysreg};
