//! Faults as signals: which signal, si_code and si_addr.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

cases![faults:
    unmapped_is_maperr, read_only_is_accerr, none_is_accerr, execute_data_is_accerr, beyond_file_is_adrerr,
    jump_to_zero_is_maperr, kernel_address_is_maperr, unaligned_jump_is_adraln, undefined_is_illopc,
    privileged_is_illopc, breakpoint_is_trap, handler_may_repair_and_return, blocked_fault_kills, ignored_fault_kills,
    null_write_in_handler_kills, classes_of_exceptions_are_told_apart,
];

static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(signal: i32, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gave a siginfo; the case ends here.
    unsafe {
        let report = [signal as i64, i64::from((*info).si_code), (*info).si_addr() as i64];
        libc::write(REPORT.load(SeqCst), report.as_ptr().cast(), 24);
        _exit(0)
    }
}

static REPORT: AtomicI32 = AtomicI32::new(-1);

/// Runs what faults; gives (signal, si_code, si_addr).
fn fault(body: impl FnOnce()) -> Result<(i32, i32, usize), Stop> {
    let (reader, writer) = new_pipe(0)?;
    let ended = child(|| {
        REPORT.store(writer, SeqCst);
        for signal in [SIGSEGV, SIGBUS, SIGILL, SIGTRAP] {
            handle(signal, note, 0);
        }
        body();
        1
    });
    close_fd(writer);
    eq!(ended, Status::Exited(0));
    let data = read_to_end(reader);
    eq!(data.len(), 24);
    let word = |i: usize| i64::from_le_bytes(std::array::from_fn(|j| data[8 * i + j]));
    Ok((word(0) as i32, word(1) as i32, word(2) as usize))
}

fn load(at: usize) -> u8 {
    // SAFETY: meant to fault.
    unsafe { (at as *const u8).read_volatile() }
}

fn store(at: usize) {
    // SAFETY: meant to fault.
    unsafe { (at as *mut u8).write_volatile(1) }
}

fn jump(at: usize) {
    // SAFETY: meant to fault.
    unsafe { core::arch::asm!("blr {}", in(reg) at, clobber_abi("C")) }
}

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const ILL_ILLOPC: i32 = 1;
const TRAP_BRKPT: i32 = 1;

fn unmapped_is_maperr() -> Outcome {
    let at = ok!(map(PAGE, RW)) as usize;
    ok!(unmap(at as *mut u8, PAGE));
    eq!(fault(|| { load(at + 123); })?, (SIGSEGV, SEGV_MAPERR, at + 123));
    eq!(fault(|| store(at + 5))?, (SIGSEGV, SEGV_MAPERR, at + 5));
    Ok(())
}

fn read_only_is_accerr() -> Outcome {
    let at = ok!(map(PAGE, PROT_READ)) as usize;
    load(at);
    eq!(fault(|| store(at + 7))?, (SIGSEGV, SEGV_ACCERR, at + 7));
    Ok(())
}

fn none_is_accerr() -> Outcome {
    let at = ok!(map(PAGE, PROT_NONE)) as usize;
    eq!(fault(|| { load(at); })?, (SIGSEGV, SEGV_ACCERR, at));
    Ok(())
}

fn execute_data_is_accerr() -> Outcome {
    let at = ok!(map(PAGE, RW)) as usize;
    store(at);
    eq!(fault(|| jump(at))?, (SIGSEGV, SEGV_ACCERR, at));
    Ok(())
}

fn beyond_file_is_adrerr() -> Outcome {
    make("f", b"x")?;
    let fd = ok!(open_file("f", O_RDWR, 0));
    let at = ok!(map_with(2 * PAGE, RW, MAP_SHARED, fd)) as usize;
    eq!(fault(|| { load(at + PAGE + 9); })?, (SIGBUS, BUS_ADRERR, at + PAGE + 9));
    Ok(())
}

fn jump_to_zero_is_maperr() -> Outcome {
    eq!(fault(|| jump(0))?, (SIGSEGV, SEGV_MAPERR, 0));
    Ok(())
}

fn kernel_address_is_maperr() -> Outcome {
    for at in [0xffff_8000_0000_0000, 0xffff_ffff_ffff_f000, 0xffff_0000_0000_0000, 1 << 60] {
        let (signal, code, _) = fault(|| { load(at); })?;
        eq!((signal, code), (SIGSEGV, SEGV_MAPERR));
        let (signal, code, _) = fault(|| store(at))?;
        eq!((signal, code), (SIGSEGV, SEGV_MAPERR));
        let (signal, code, _) = fault(|| jump(at))?;
        eq!((signal, code), (SIGSEGV, SEGV_MAPERR));
    }
    Ok(())
}

fn unaligned_jump_is_adraln() -> Outcome {
    let at = ok!(map(PAGE, PROT_READ | PROT_EXEC)) as usize;
    eq!(fault(|| jump(at + 2))?, (SIGBUS, BUS_ADRALN, at + 2));
    Ok(())
}

fn undefined_is_illopc() -> Outcome {
    let (signal, code, at) = fault(|| unsafe { core::arch::asm!("udf #0") })?;
    eq!((signal, code), (SIGILL, ILL_ILLOPC));
    check!(at != 0);
    Ok(())
}

fn privileged_is_illopc() -> Outcome {
    let (signal, code, _) = fault(|| unsafe { core::arch::asm!("msr vbar_el1, xzr") })?;
    eq!((signal, code), (SIGILL, ILL_ILLOPC));
    Ok(())
}

fn breakpoint_is_trap() -> Outcome {
    let (signal, code, _) = fault(|| unsafe { core::arch::asm!("brk #7") })?;
    eq!((signal, code), (SIGTRAP, TRAP_BRKPT));
    Ok(())
}

fn classes_of_exceptions_are_told_apart() -> Outcome {
    let readable = ok!(map(PAGE, PROT_READ)) as usize;
    let (signal, code, at) = fault(|| _ = load(16))?;
    eq!((signal, code, at), (SIGSEGV, SEGV_MAPERR, 16));
    let (signal, code, at) = fault(|| store(readable + 8))?;
    eq!((signal, code, at), (SIGSEGV, SEGV_ACCERR, readable + 8));
    let (signal, code, at) = fault(|| jump(readable))?;
    eq!((signal, code, at), (SIGSEGV, SEGV_ACCERR, readable));
    let odd = classes_of_exceptions_are_told_apart as *const () as usize + 2;
    let (signal, code, at) = fault(|| jump(odd))?;
    eq!((signal, code, at), (SIGBUS, BUS_ADRALN, odd));
    let (signal, code, _) = fault(|| unsafe { core::arch::asm!("udf #0") })?;
    eq!((signal, code), (SIGILL, ILL_ILLOPC));
    let (signal, code, _) = fault(|| unsafe { core::arch::asm!("brk #0") })?;
    eq!((signal, code), (SIGTRAP, TRAP_BRKPT));
    // A register of the kernel's, and one of those that are emulated.
    let (signal, code, _) = fault(|| unsafe { core::arch::asm!("mrs x9, ttbr0_el1", out("x9") _) })?;
    eq!((signal, code), (SIGILL, ILL_ILLOPC));
    let (main, features): (u64, u64);
    // SAFETY: reads that the kernel emulates, and waits that end.
    unsafe {
        core::arch::asm!("mrs {}, midr_el1", out(reg) main);
        core::arch::asm!("mrs {}, id_aa64pfr0_el1", out(reg) features);
        core::arch::asm!("mov x9, #1", "cmp x9, #2", "wfi", "wfe", "mov {}, x9", out(reg) _, out("x9") _);
    }
    check!(main >> 24 & 0xff != 0);
    eq!(features & 0xff, 0x11);
    // SVC is a call, whatever its number says.
    let mut result = 0u64;
    // SAFETY: getpid.
    unsafe { core::arch::asm!("svc #77", in("x8") SYS_getpid, inout("x0") result) };
    eq!(result, u64::from(std::process::id()));
    Ok(())
}

extern "C" fn repair(_: i32, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gave a siginfo; the page belongs to the case.
    unsafe {
        CODE.fetch_add(1, SeqCst);
        let page = (*info).si_addr() as usize & !(PAGE - 1);
        ADDRESS.store(page, SeqCst);
        mprotect(page as *mut c_void, PAGE, RW);
    }
}

fn handler_may_repair_and_return() -> Outcome {
    let at = ok!(map(PAGE, PROT_NONE)) as usize;
    ok!(handle(SIGSEGV, repair, 0));
    store(at + 5);
    eq!(load(at + 5), 1);
    eq!(CODE.load(SeqCst), 1);
    eq!(ADDRESS.load(SeqCst), at);
    Ok(())
}

fn blocked_fault_kills() -> Outcome {
    let ended = child(|| {
        handle(SIGSEGV, note, 0);
        let mut set = zero::<sigset_t>();
        unsafe {
            sigfillset(&mut set);
            sigprocmask(SIG_SETMASK, &set, std::ptr::null_mut());
        }
        load(8) as i32
    });
    eq!(ended, Status::Killed(SIGSEGV));
    Ok(())
}

fn ignored_fault_kills() -> Outcome {
    let ended = child(|| {
        set_disposition(SIGSEGV, SIG_IGN);
        load(8) as i32
    });
    eq!(ended, Status::Killed(SIGSEGV));
    Ok(())
}

extern "C" fn fault_again(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    store(8);
}

fn null_write_in_handler_kills() -> Outcome {
    let ended = child(|| {
        handle(SIGSEGV, fault_again, 0);
        store(16);
        0
    });
    eq!(ended, Status::Killed(SIGSEGV));
    Ok(())
}
