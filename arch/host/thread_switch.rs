//! Switching threads: every kernel thread is a host thread, and exactly one of those that share a
//! CPU holds its baton.

use crate::UserRegs;
use crate::sim::{self, Cpu};
use crate::thread::ThreadHead;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

type Baton = Arc<(Mutex<Option<(Cpu, bool)>>, Condvar)>;
type Start = (extern "C" fn(usize), usize);

/// What a thread that does not run waits for.
pub struct Context {
    baton: OnceLock<Baton>,
    start: Mutex<Option<Start>>,
    regs: OnceLock<Box<RegsCell>>,
}

struct RegsCell(std::cell::UnsafeCell<UserRegs>);

// SAFETY: a plain cell, reached only through the raw pointer that `user_regs` gives out.
unsafe impl Sync for RegsCell {}

impl Context {
    pub(crate) const fn new() -> Self {
        Self { baton: OnceLock::new(), start: Mutex::new(None), regs: OnceLock::new() }
    }

    fn baton(&self) -> Baton {
        self.baton.get_or_init(Baton::default).clone()
    }
}

static FINISH_HOOK: AtomicUsize = AtomicUsize::new(0);

/// Registers what a thread that runs for the first time calls before its entry, with interrupts
/// off: the scheduler's completion of the switch.
pub fn set_finish_hook(hook: extern "C" fn()) {
    FINISH_HOOK.store(hook as usize, Ordering::SeqCst);
}

fn finish() {
    let hook = FINISH_HOOK.load(Ordering::SeqCst);
    if hook != 0 {
        // SAFETY: only `set_finish_hook` stores here, always a function of this type.
        unsafe { std::mem::transmute::<usize, extern "C" fn()>(hook)() };
    }
}

fn context(head: &ThreadHead) -> &Context {
    // SAFETY: every field of the host's context is synchronised by itself.
    unsafe { &*head.ctx.get() }
}

/// Continues with `next`; returns when some CPU switches back to `prev`.
///
/// # Safety
/// As on the target: `prev` is the current thread, `next` does not run and stays allocated,
/// interrupts are off. The caller's borrow of `next` outlives the switch.
pub unsafe fn switch(prev: &ThreadHead, next: &ThreadHead) {
    // SAFETY: the contract: threads live as long as they can run, which the caller guarantees.
    let next: &'static ThreadHead = unsafe { &*std::ptr::from_ref(next) };
    let cpu = sim::take_cpu();
    next.cpu.store(cpu.0.id.0, Ordering::Relaxed);
    let mine = context(prev).baton();
    let start = context(next).start.lock().unwrap_or_else(|e| e.into_inner()).take();
    match start {
        Some((entry, arg)) => {
            std::thread::spawn(move || {
                sim::put_cpu(cpu);
                sim::set_current(next);
                finish();
                crate::irq::enable();
                entry(arg);
            });
        }
        None => {
            let baton = context(next).baton();
            *baton.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(cpu);
            baton.1.notify_one();
        }
    }
    let mut slot = mine.0.lock().unwrap_or_else(|e| e.into_inner());
    loop {
        if let Some(cpu) = slot.take() {
            drop(slot);
            sim::put_cpu(cpu);
            return;
        }
        slot = mine.1.wait(slot).unwrap_or_else(|e| e.into_inner());
    }
}

/// Makes `head` start at `entry(arg)` when it is first switched to; an entry that returns ends
/// the host thread (on the target it goes on to user space).
pub fn prepare_kernel_stack(head: &ThreadHead, entry: extern "C" fn(usize), arg: usize) {
    *context(head).start.lock().unwrap_or_else(|e| e.into_inner()) = Some((entry, arg));
}

/// Makes `head` return to user space with `regs`; on the host its thread just ends there.
pub fn prepare_user_return(head: &ThreadHead, regs: &UserRegs) {
    extern "C" fn nothing(_: usize) {}
    // SAFETY: a valid, unshared cell: the thread has not started.
    unsafe { user_regs(head).write(*regs) };
    prepare_kernel_stack(head, nothing, 0);
}

/// The user registers of a thread.
pub fn user_regs(head: &ThreadHead) -> *mut UserRegs {
    let cell = context(head).regs.get_or_init(|| Box::new(RegsCell(UserRegs::default().into())));
    NonNull::from(&cell.0).as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cpu, thread};
    use std::sync::atomic::AtomicU32;

    #[test]
    fn two_threads_alternate_on_one_cpu() {
        static STEPS: AtomicU32 = AtomicU32::new(0);
        static MAIN: OnceLock<&'static ThreadHead> = OnceLock::new();
        static OTHER: ThreadHead = ThreadHead::new();
        extern "C" fn entry(arg: usize) {
            assert_eq!(arg, 7);
            let me = thread::current();
            loop {
                STEPS.fetch_add(1, Ordering::SeqCst);
                // SAFETY: `me` is current, the main thread waits in its own switch.
                unsafe { switch(me, MAIN.get().expect("set before the first switch")) };
            }
        }
        let me = thread::current();
        MAIN.get_or_init(|| me);
        let id = cpu::id();
        prepare_kernel_stack(&OTHER, entry, 7);
        for n in 1..=3 {
            // SAFETY: `me` is current, the other thread waits in its own switch.
            unsafe { switch(me, &OTHER) };
            assert_eq!(STEPS.load(Ordering::SeqCst), n);
            assert_eq!(cpu::id(), id);
        }
    }
}
