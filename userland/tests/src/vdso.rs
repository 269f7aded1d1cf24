//! The shared object that the kernel puts into every program (`vdso(7)`): its form, its clocks, and the
//! code that signal handlers return to.

use crate::check::*;
use crate::elf::{Probe, fixed};
use libc::*;

cases![vdso:
    is_a_shared_object_with_versions, data_stand_before_the_code, place_differs_from_run_to_run, clocks_agree_with_the_call,
    other_clocks_go_to_the_call, resolutions_agree_with_the_call, time_of_day_agrees_with_the_call, setting_the_clock_shows_at_once,
    readers_never_see_half_a_change, handlers_return_through_it, frames_are_described,
];

/// What the dynamic section of the object says, with addresses as they are in memory.
struct Object {
    base: usize,
    symbols: Vec<(String, String, usize)>,
    soname: String,
    frames: usize,
}

fn word<T: Copy>(at: usize) -> T {
    // SAFETY: the cases read within the object that the kernel mapped.
    unsafe { (at as *const T).read_unaligned() }
}

fn text(at: usize) -> String {
    // SAFETY: a string table of the object; its strings end in NUL.
    unsafe { std::ffi::CStr::from_ptr(at as *const c_char) }.to_string_lossy().into_owned()
}

fn object() -> Result<Object, Stop> {
    // SAFETY: reads what the kernel left on the stack.
    let base = unsafe { getauxval(AT_SYSINFO_EHDR) } as usize;
    check!(base != 0 && base % PAGE == 0);
    check!(word::<[u8; 6]>(base) == *b"\x7fELF\x02\x01");
    eq!(word::<u16>(base + 16), ET_DYN);
    eq!(word::<u16>(base + 18), EM_AARCH64);
    let (mut dynamic, mut frames, mut loads) = (0, 0, 0);
    for index in 0..usize::from(word::<u16>(base + 56)) {
        let header = base + word::<u64>(base + 32) as usize + index * 56;
        match word::<u32>(header) {
            PT_LOAD => {
                loads += 1;
                eq!((word::<u64>(header + 8), word::<u64>(header + 16), word::<u32>(header + 4)), (0, 0, PF_R | PF_X));
            }
            PT_DYNAMIC => dynamic = base + word::<u64>(header + 16) as usize,
            PT_GNU_EH_FRAME => frames = base + word::<u64>(header + 16) as usize,
            _ => {}
        }
    }
    eq!(loads, 1);
    check!(dynamic != 0);
    let mut entries = std::collections::HashMap::new();
    let mut at = dynamic;
    while word::<u64>(at) != 0 {
        entries.insert(word::<u64>(at), word::<u64>(at + 8) as usize);
        at += 16;
    }
    let Some(((((hash, strings), symbols), versym), verdef)) =
        entries.get(&4).zip(entries.get(&5)).zip(entries.get(&6)).zip(entries.get(&0x6fff_fff0)).zip(entries.get(&0x6fff_fffc))
    else {
        fail!("the dynamic section lacks something: {entries:?}")
    };
    let strings = base + strings;
    let mut versions = std::collections::HashMap::new();
    let mut def = base + verdef;
    loop {
        let aux = def + word::<u32>(def + 12) as usize;
        versions.insert(word::<u16>(def + 4), text(strings + word::<u32>(aux) as usize));
        match word::<u32>(def + 16) {
            0 => break,
            next => def += next as usize,
        }
    }
    // The number of chains is that of the symbols.
    let count = word::<u32>(base + hash + 4) as usize;
    let symbols = (1..count).map(|index| {
        let symbol = base + symbols + index * 24;
        let version = versions.get(&(word::<u16>(base + versym + index * 2) & 0x7fff)).cloned().unwrap_or_default();
        (text(strings + word::<u32>(symbol) as usize), version, base + word::<u64>(symbol + 8) as usize)
    });
    let soname = entries.get(&14).map(|at| text(strings + at)).unwrap_or_default();
    Ok(Object { base, symbols: symbols.collect(), soname, frames })
}

impl Object {
    fn symbol(&self, name: &str) -> Result<usize, Stop> {
        match self.symbols.iter().find(|symbol| symbol.0 == name && symbol.1 == "LINUX_2.6.39") {
            Some(symbol) => Ok(symbol.2),
            None => fail!("no {name} of version LINUX_2.6.39 among {:?}", self.symbols),
        }
    }
}

type GetTime = extern "C" fn(i32, *mut timespec) -> i32;

fn get_time(name: &str) -> Result<GetTime, Stop> {
    // SAFETY: the symbol is a function of this type (vdso(7)).
    Ok(unsafe { std::mem::transmute::<usize, GetTime>(object()?.symbol(name)?) })
}

fn by_call(number: c_long, id: i32) -> (c_long, i64, i64) {
    let mut at = zero::<timespec>();
    // SAFETY: `at` is live.
    let done = unsafe { syscall(number, id, &mut at) };
    (done, at.tv_sec, at.tv_nsec)
}

fn is_a_shared_object_with_versions() -> Outcome {
    let object = object()?;
    eq!(object.soname.as_str(), "linux-vdso.so.1");
    for name in ["__kernel_clock_gettime", "__kernel_gettimeofday", "__kernel_clock_getres", "__kernel_rt_sigreturn"] {
        check!(object.symbol(name)? > object.base);
    }
    Ok(())
}

fn data_stand_before_the_code() -> Outcome {
    let base = object()?.base;
    let maps = String::from_utf8_lossy(&content("/proc/self/maps")?).into_owned();
    let find = |name: &str| maps.lines().find(|line| line.ends_with(name)).unwrap_or("").to_string();
    let (data, code) = (find("[vvar]"), find("[vdso]"));
    check!(code.starts_with(&format!("{base:08x}-")) && code.contains(" r-xp "));
    check!(data.contains(&format!("-{base:08x} r--p ")));
    Ok(())
}

fn place_differs_from_run_to_run() -> Outcome {
    fixed().install("p")?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let probe = Probe::start("./p", &["p"], &[], 0)?;
        seen.push(probe.aux(AT_SYSINFO_EHDR)?);
        probe.finish()?;
    }
    seen.sort_unstable();
    seen.dedup();
    check!(seen.len() > 2);
    Ok(())
}

const TAI: i32 = 11;

fn clocks_agree_with_the_call() -> Outcome {
    let get = get_time("__kernel_clock_gettime")?;
    for id in [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, TAI] {
        for _ in 0..200 {
            let before = by_call(SYS_clock_gettime, id);
            let mut at = zero::<timespec>();
            eq!(get(id, &mut at), 0);
            let after = by_call(SYS_clock_gettime, id);
            check!((0..1_000_000_000).contains(&at.tv_nsec));
            let now = (0, at.tv_sec, at.tv_nsec);
            if !(before <= now && now <= after) {
                fail!("clock {id}: {before:?} {now:?} {after:?}");
            }
        }
    }
    Ok(())
}

fn other_clocks_go_to_the_call() -> Outcome {
    let get = get_time("__kernel_clock_gettime")?;
    let mut at = zero::<timespec>();
    for id in [CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID] {
        eq!(get(id, &mut at), 0);
        let after = by_call(SYS_clock_gettime, id);
        check!((0, at.tv_sec, at.tv_nsec) <= after);
    }
    // The kernel's own return value.
    for id in [12, 16, 1 << 20, i32::MAX] {
        eq!(get(id, &mut at), -EINVAL);
    }
    Ok(())
}

fn resolutions_agree_with_the_call() -> Outcome {
    let get = get_time("__kernel_clock_getres")?;
    for id in [0, 1, 4, 5, 6, 7, TAI, 2, 3] {
        let mut at = zero::<timespec>();
        eq!(get(id, &mut at), 0);
        eq!((id, 0, at.tv_sec, at.tv_nsec), { let want = by_call(SYS_clock_getres, id); (id, want.0, want.1, want.2) });
        eq!(get(id, std::ptr::null_mut()), 0);
    }
    eq!(get(16, std::ptr::null_mut()), -EINVAL);
    Ok(())
}

fn time_of_day_agrees_with_the_call() -> Outcome {
    type GetTimeOfDay = extern "C" fn(*mut timeval, *mut [i32; 2]) -> i32;
    // SAFETY: the symbol is a function of this type (vdso(7)).
    let get = unsafe { std::mem::transmute::<usize, GetTimeOfDay>(object()?.symbol("__kernel_gettimeofday")?) };
    for _ in 0..200 {
        let (_, sec, nsec) = by_call(SYS_clock_gettime, CLOCK_REALTIME);
        let (mut at, mut zone) = (zero::<timeval>(), [7, 7]);
        eq!(get(&mut at, &mut zone), 0);
        let after = by_call(SYS_clock_gettime, CLOCK_REALTIME);
        check!((sec, nsec / 1000) <= (at.tv_sec, at.tv_usec) && (at.tv_sec, at.tv_usec) <= (after.1, after.2 / 1000));
        eq!(zone, [0, 0]);
    }
    eq!(get(std::ptr::null_mut(), std::ptr::null_mut()), 0);
    Ok(())
}

fn set_clock(seconds: i64) -> i32 {
    let at = timespec { tv_sec: seconds, tv_nsec: 0 };
    // SAFETY: `at` is live.
    unsafe { clock_settime(CLOCK_REALTIME, &at) }
}

fn setting_the_clock_shows_at_once() -> Outcome {
    let get = get_time("__kernel_clock_gettime")?;
    let (_, start, _) = by_call(SYS_clock_gettime, CLOCK_REALTIME);
    let seconds = |id| {
        let mut at = zero::<timespec>();
        get(id, &mut at);
        at.tv_sec
    };
    let monotonic = seconds(CLOCK_MONOTONIC);
    for ahead in [100_000, 5_000, 300_000] {
        ok!(set_clock(start + ahead));
        check!((start + ahead..start + ahead + 30).contains(&seconds(CLOCK_REALTIME)));
        // At most a step behind.
        check!((start + ahead - 1..start + ahead + 30).contains(&seconds(CLOCK_REALTIME_COARSE)));
        check!((monotonic..monotonic + 30).contains(&seconds(CLOCK_MONOTONIC)));
    }
    ok!(set_clock(start));
    check!((start..start + 30).contains(&seconds(CLOCK_REALTIME)));
    Ok(())
}

fn readers_never_see_half_a_change() -> Outcome {
    let get = get_time("__kernel_clock_gettime")?;
    let (_, start, _) = by_call(SYS_clock_gettime, CLOCK_REALTIME);
    let far = start + 1_000_000_000;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = done.clone();
    let writer = std::thread::spawn(move || {
        for turn in 0..3000 {
            set_clock(if turn % 2 == 0 { far } else { start });
        }
        set_clock(start);
        flag.store(true, std::sync::atomic::Ordering::Release);
    });
    let mut last = 0;
    let mut wrong = None;
    while !done.load(std::sync::atomic::Ordering::Acquire) {
        let (mut real, mut monotonic) = (zero::<timespec>(), zero::<timespec>());
        get(CLOCK_REALTIME, &mut real);
        get(CLOCK_MONOTONIC, &mut monotonic);
        let good = (start..start + 60).contains(&real.tv_sec) || (far..far + 60).contains(&real.tv_sec);
        let now = monotonic.tv_sec * 1_000_000_000 + monotonic.tv_nsec;
        if !good || now < last {
            wrong = Some((real.tv_sec, last, now));
        }
        last = now;
    }
    let _ = writer.join();
    eq!(wrong, None);
    Ok(())
}

// A handler that keeps the address it returns to.
core::arch::global_asm!(
    ".pushsection .text.linnet_keep_return, \"ax\"",
    "linnet_keep_return:",
    "adrp x9, linnet_kept",
    "str x30, [x9, :lo12:linnet_kept]",
    "ret",
    ".popsection",
    ".pushsection .bss.linnet_kept, \"aw\", @nobits",
    ".balign 8",
    "linnet_kept: .zero 8",
    ".popsection",
);

unsafe extern "C" {
    fn linnet_keep_return(signal: i32, info: *mut siginfo_t, context: *mut c_void);
    static linnet_kept: usize;
}

fn handlers_return_through_it() -> Outcome {
    // What sigaction(2) of the C library passes on arm64: no restorer.
    let action = [linnet_keep_return as *const () as usize, SA_SIGINFO as usize, 0, 0];
    ok!(syscall(SYS_rt_sigaction, SIGUSR1, action.as_ptr(), 0, 8));
    ok!(raise(SIGUSR1));
    // SAFETY: written by the handler, which has returned.
    let returned_to = unsafe { (&raw const linnet_kept).read_volatile() };
    eq!(returned_to, object()?.symbol("__kernel_rt_sigreturn")?);
    // mov x8, #139; svc #0: what debuggers know the frame by.
    eq!(word::<[u32; 2]>(returned_to), [0xd280_1168, 0xd400_0001]);
    Ok(())
}

fn frames_are_described() -> Outcome {
    let object = object()?;
    if object.frames == 0 {
        return Err(Stop::Skip("no table of frames".into()));
    }
    // Version 1; addresses relative to where they stand, to the table's start; counts of four bytes.
    eq!(word::<[u8; 4]>(object.frames), [1, 0x1b, 0x03, 0x3b]);
    let count = word::<u32>(object.frames + 8) as usize;
    let entry = |index: usize| {
        let at = object.frames + 12 + index * 8;
        let relative = |at: usize| object.frames.wrapping_add(word::<i32>(at) as usize);
        (relative(at), relative(at + 4))
    };
    check!((1..count).all(|index| entry(index - 1).0 < entry(index).0));
    for name in ["__kernel_rt_sigreturn", "__kernel_clock_gettime", "__kernel_gettimeofday", "__kernel_clock_getres"] {
        let code = object.symbol(name)?;
        // Unwinders look one byte before the address to which a handler returns.
        let asked = if name == "__kernel_rt_sigreturn" { code - 1 } else { code };
        let Some((start, fde)) = (0..count).map(entry).rfind(|entry| entry.0 <= asked) else { fail!("{name} is not described") };
        let length = word::<u32>(fde + 12) as usize;
        check!(asked < start + length);
        eq!((fde + 8).wrapping_add(word::<i32>(fde + 8) as usize), start);
        let cie = fde + 4 - word::<u32>(fde + 4) as usize;
        eq!(text(cie + 9).contains('S'), name == "__kernel_rt_sigreturn");
    }
    Ok(())
}
