//! The image of the vDSO, which `vdso.S` lays out.

core::arch::global_asm!(include_str!("vdso.S"));

unsafe extern "C" {
    static linnet_vdso: u8;
    static linnet_vdso_end: u8;
    static linnet_vdso_sigreturn: u8;
}

/// The shared object, to be mapped page by page behind its page of data.
pub fn image() -> &'static [u8] {
    let (start, end) = (&raw const linnet_vdso, &raw const linnet_vdso_end);
    // SAFETY: both labels stand in one section of constants, the second behind the first.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// Where in the image the code is that signal handlers return to.
pub fn sigreturn_offset() -> u64 {
    let (start, code) = (&raw const linnet_vdso, &raw const linnet_vdso_sigreturn);
    (code.addr() - start.addr()) as u64
}
