//! What EL0 sees of the CPU: registers over a system call, ID registers, HWCAPs, cache operations.

use crate::check::*;
use libc::*;

cases![cpu:
    general_registers_survive_a_call, vector_registers_survive_a_call, flags_and_tls_survive_a_call,
    vector_registers_survive_preemption, id_registers_are_readable, id_registers_agree_with_hwcaps, midr_is_readable,
    cache_line_sizes, dc_zva_zeroes, cache_maintenance_is_allowed, counter_frequency, upper_argument_bits_of_pointers,
    fpcr_and_fpsr_are_per_thread, system_registers_are_not_writable, unaligned_access_works, new_process_has_clean_registers,
];

fn general_registers_survive_a_call() -> Outcome {
    let mut after = [0u64; 31];
    // SAFETY: saves and restores what the compiler may not lose (x19, x29, the frame), and sets
    // every other register before a system call.
    unsafe {
        core::arch::asm!(
            "stp x19, x29, [sp, #-32]!",
            "str x1, [sp, #16]",
            "mov x1, #101", "mov x2, #102", "mov x3, #103", "mov x4, #104", "mov x5, #105", "mov x6, #106", "mov x7, #107",
            "mov x9, #109", "mov x10, #110", "mov x11, #111", "mov x12, #112", "mov x13, #113", "mov x14, #114", "mov x15, #115",
            "mov x16, #116", "mov x17, #117", "mov x18, #118", "mov x19, #119", "mov x20, #120", "mov x21, #121", "mov x22, #122",
            "mov x23, #123", "mov x24, #124", "mov x25, #125", "mov x26, #126", "mov x27, #127", "mov x28, #128", "mov x29, #129",
            "mov x30, #130",
            "mov x8, {getpid}",
            "svc #0",
            "ldr x0, [sp, #16]",
            "stp x1, x2, [x0, #8]", "stp x3, x4, [x0, #24]", "stp x5, x6, [x0, #40]", "str x7, [x0, #56]", "str x8, [x0, #64]",
            "stp x9, x10, [x0, #72]", "stp x11, x12, [x0, #88]", "stp x13, x14, [x0, #104]", "stp x15, x16, [x0, #120]",
            "stp x17, x18, [x0, #136]", "stp x19, x20, [x0, #152]", "stp x21, x22, [x0, #168]", "stp x23, x24, [x0, #184]",
            "stp x25, x26, [x0, #200]", "stp x27, x28, [x0, #216]", "stp x29, x30, [x0, #232]",
            "ldp x19, x29, [sp], #32",
            getpid = const SYS_getpid,
            inout("x1") after.as_mut_ptr() => _, out("x0") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _,
            out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _, out("x18") _, out("x20") _, out("x21") _, out("x22") _, out("x23") _, out("x24") _,
            out("x25") _, out("x26") _, out("x27") _, out("x28") _, out("x30") _,
        );
    }
    for (i, value) in after.iter().enumerate().skip(1) {
        let want = if i == 8 { SYS_getpid as u64 } else { 100 + i as u64 };
        if *value != want {
            fail!("x{i} is {value}, not {want}");
        }
    }
    Ok(())
}

macro_rules! vectors {
    ($before:expr, $middle:literal, $after:expr, $($operands:tt)*) => {
        // SAFETY: `before` and `after` are 512 bytes each; all vector registers are declared.
        unsafe {
            core::arch::asm!(
                "ldp q0, q1, [{b}]", "ldp q2, q3, [{b}, #32]", "ldp q4, q5, [{b}, #64]", "ldp q6, q7, [{b}, #96]",
                "ldp q8, q9, [{b}, #128]", "ldp q10, q11, [{b}, #160]", "ldp q12, q13, [{b}, #192]", "ldp q14, q15, [{b}, #224]",
                "ldp q16, q17, [{b}, #256]", "ldp q18, q19, [{b}, #288]", "ldp q20, q21, [{b}, #320]", "ldp q22, q23, [{b}, #352]",
                "ldp q24, q25, [{b}, #384]", "ldp q26, q27, [{b}, #416]", "ldp q28, q29, [{b}, #448]", "ldp q30, q31, [{b}, #480]",
                $middle,
                "stp q0, q1, [{a}]", "stp q2, q3, [{a}, #32]", "stp q4, q5, [{a}, #64]", "stp q6, q7, [{a}, #96]",
                "stp q8, q9, [{a}, #128]", "stp q10, q11, [{a}, #160]", "stp q12, q13, [{a}, #192]", "stp q14, q15, [{a}, #224]",
                "stp q16, q17, [{a}, #256]", "stp q18, q19, [{a}, #288]", "stp q20, q21, [{a}, #320]", "stp q22, q23, [{a}, #352]",
                "stp q24, q25, [{a}, #384]", "stp q26, q27, [{a}, #416]", "stp q28, q29, [{a}, #448]", "stp q30, q31, [{a}, #480]",
                b = in(reg) $before.as_ptr(), a = in(reg) $after.as_mut_ptr(), $($operands)*
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _, out("v8") _,
                out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _,
                out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _,
                out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            );
        }
    };
}

fn pattern(seed: u64) -> [u64; 64] {
    std::array::from_fn(|i| (seed << 32 | i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn vector_registers_survive_a_call() -> Outcome {
    let before = pattern(1);
    let mut after = [0u64; 64];
    vectors!(before, "svc #0", after, in("x8") SYS_sched_yield as u64, out("x0") _,);
    check!(before == after);
    Ok(())
}

fn vector_registers_survive_preemption() -> Outcome {
    // More children than CPUs, each with values of its own, over a loop longer than a time slice.
    let pids: Vec<i32> = (0..12)
        .map(|seed| {
            fork_child(|| {
                let before = pattern(seed);
                for _ in 0..20 {
                    let mut after = [0u64; 64];
                    vectors!(before, "2: subs {n}, {n}, #1\n b.ne 2b", after, n = inout(reg) 2_000_000u64 => _,);
                    if before != after {
                        return 1;
                    }
                }
                0
            })
        })
        .collect();
    for pid in pids {
        eq!(wait_for(pid), Status::Exited(0));
    }
    Ok(())
}

fn flags_and_tls_survive_a_call() -> Outcome {
    let (before, after, flags): (u64, u64, u64);
    // SAFETY: reads TPIDR_EL0 and NZCV around a system call.
    unsafe {
        core::arch::asm!(
            "mrs {b}, tpidr_el0", "mov {f}, #0xa0000000", "msr nzcv, {f}", "svc #0", "mrs {f}, nzcv", "mrs {a}, tpidr_el0",
            b = out(reg) before, a = out(reg) after, f = out(reg) flags, in("x8") SYS_getpid as u64, out("x0") _,
        );
    }
    eq!(before, after);
    eq!(flags & 0xf000_0000, 0xa000_0000);
    Ok(())
}

macro_rules! register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: a read that the kernel allows or emulates.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value) };
        value
    }};
}

fn id_registers_are_readable() -> Outcome {
    let features = register!("ID_AA64PFR0_EL1");
    // EL0 and EL1 in AArch64; nothing of EL2 and EL3 is shown.
    eq!(features & 0xff, 0x11);
    eq!(features & 0xff00, 0);
    register!("ID_AA64ISAR0_EL1");
    register!("ID_AA64ISAR1_EL1");
    register!("ID_AA64MMFR0_EL1");
    register!("ID_AA64MMFR1_EL1");
    register!("ID_AA64MMFR2_EL1");
    register!("ID_AA64PFR1_EL1");
    register!("ID_AA64DFR0_EL1");
    // Registers of that space that no architecture names yet read as zero.
    eq!(register!("S3_0_C0_C7_7"), 0);
    Ok(())
}

fn id_registers_agree_with_hwcaps() -> Outcome {
    let have = unsafe { getauxval(AT_HWCAP) };
    let instructions = register!("ID_AA64ISAR0_EL1");
    let atomics = instructions >> 20 & 0xf >= 2;
    eq!(have & HWCAP_ATOMICS != 0, atomics);
    eq!(have & HWCAP_CRC32 != 0, instructions >> 16 & 0xf >= 1);
    eq!(have & HWCAP_AES != 0, instructions >> 4 & 0xf >= 1);
    check!(have & HWCAP_FP != 0 && have & HWCAP_ASIMD != 0);
    check!(have & HWCAP_CPUID != 0);
    Ok(())
}

fn midr_is_readable() -> Outcome {
    let main = register!("MIDR_EL1");
    check!(main != 0);
    let info = String::from_utf8_lossy(&content("/proc/cpuinfo")?).into_owned();
    check!(info.contains(&format!("CPU part\t: 0x{:03x}", main >> 4 & 0xfff)));
    check!(register!("MPIDR_EL1") & 1 << 31 != 0);
    eq!(register!("REVIDR_EL1") >> 32, 0);
    Ok(())
}

fn cache_line_sizes() -> Outcome {
    let lines = register!("CTR_EL0");
    check!((4..=9).contains(&(lines & 0xf)));
    check!((4..=9).contains(&(lines >> 16 & 0xf)));
    Ok(())
}

fn dc_zva_zeroes() -> Outcome {
    let size = register!("DCZID_EL0");
    eq!(size & 0x10, 0);
    let bytes = 4usize << (size & 0xf);
    let at = ok!(map(2 * PAGE, RW));
    // SAFETY: the pages are the case's own.
    unsafe {
        std::ptr::write_bytes(at, 0xff, 2 * PAGE);
        core::arch::asm!("dc zva, {}", in(reg) at.add(PAGE));
        check!((0..bytes).all(|i| at.add(PAGE + i).read_volatile() == 0));
        eq!(at.add(PAGE + bytes).read_volatile(), 0xff);
        eq!(at.add(PAGE - 1).read_volatile(), 0xff);
    }
    // To fresh memory it is a write like any other.
    let fresh = ok!(map(PAGE, RW));
    unsafe { core::arch::asm!("dc zva, {}", in(reg) fresh) };
    Ok(())
}

fn cache_maintenance_is_allowed() -> Outcome {
    let at = ok!(map(PAGE, RW));
    // SAFETY: maintenance by address that SCTLR_EL1.UCI allows; the page is present.
    unsafe {
        at.write_volatile(1);
        core::arch::asm!("dc cvac, {0}", "dc cvau, {0}", "dc civac, {0}", "ic ivau, {0}", "dsb ish", "isb", in(reg) at);
    }
    Ok(())
}

fn counter_frequency() -> Outcome {
    let frequency = register!("cntfrq_el0");
    let (start, before) = (register!("cntvct_el0"), now());
    while now() - before < 50_000_000 {}
    let (ticks, elapsed) = (register!("cntvct_el0") - start, now() - before);
    let nanoseconds = ticks as u128 * 1_000_000_000 / u128::from(frequency);
    check!(nanoseconds.abs_diff(u128::from(elapsed)) < 20_000_000);
    Ok(())
}

fn upper_argument_bits_of_pointers() -> Outcome {
    // A file descriptor is an int: the upper half of its register does not count.
    let (_reader, writer) = new_pipe(0)?;
    eq!(ok!(syscall(SYS_write, writer as i64 | 0x5555_0000_0000, c"x".as_ptr(), 1)), 1);
    Ok(())
}

fn fpcr_and_fpsr_are_per_thread() -> Outcome {
    let rounding = 0x00c0_0000u64;
    // SAFETY: the rounding mode is put back.
    unsafe { core::arch::asm!("msr fpcr, {}", in(reg) rounding) };
    let other = std::thread::spawn(|| register!("fpcr")).join().unwrap_or(1);
    std::thread::yield_now();
    let here = register!("fpcr");
    unsafe { core::arch::asm!("msr fpcr, xzr") };
    eq!(here, rounding);
    // A new thread starts with its creator's.
    eq!(other, rounding);
    Ok(())
}

fn system_registers_are_not_writable() -> Outcome {
    macro_rules! illegal {
        ($($text:literal)*) => {
            // SAFETY: the child dies of it.
            $( eq!(child(|| { unsafe { core::arch::asm!($text, out("x0") _) }; 0 }), Status::Killed(SIGILL)); )*
        };
    }
    illegal!("msr ttbr0_el1, xzr" "msr sctlr_el1, xzr" "mrs x0, sctlr_el1" "mrs x0, ttbr1_el1" "mrs x0, vbar_el1" "msr daifset, #2"
             "tlbi vmalle1" "eret" "hvc #0" "smc #0" "wfi\nudf #0" "msr tpidr_el1, x0" "mrs x0, elr_el1" "mrs x0, cntp_ctl_el0"
             "msr cntkctl_el1, xzr" "mrs x0, pmccntr_el0" "at s1e1r, x0" "ic iallu");
    Ok(())
}

fn unaligned_access_works() -> Outcome {
    let at = ok!(map(2 * PAGE, RW));
    // SAFETY: inside the two pages, over their border.
    unsafe {
        let odd = at.add(PAGE - 3).cast::<u64>();
        odd.write_unaligned(0x0123_4567_89ab_cdef);
        eq!(odd.read_unaligned(), 0x0123_4567_89ab_cdef);
    }
    Ok(())
}

fn new_process_has_clean_registers() -> Outcome {
    // A fresh image starts with zero in its vector registers' status; the helper checks what the
    // loader left it. fork must copy the vector registers of its caller instead.
    let before = pattern(5);
    let mut after = [0u64; 64];
    let pid: u64;
    vectors!(before, "svc #0", after, in("x8") SYS_clone as u64, inout("x0") SIGCHLD as u64 => pid, in("x1") 0u64, in("x2") 0u64, in("x3") 0u64, in("x4") 0u64,);
    if pid == 0 {
        unsafe { _exit((before != after) as i32) };
    }
    eq!(wait_for(pid as i32), Status::Exited(0));
    check!(before == after);
    Ok(())
}
