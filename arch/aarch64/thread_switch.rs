//! Switching threads, and how a new one starts. For the thread-switch crate of the scheduler.

use crate::percpu;
use crate::thread::{Context, FOREIGN_FP, ThreadHead};
use crate::{UserRegs, debug, fp, irq};
use aarch64_cpu::asm::barrier;
use core::fmt::Write;
use core::sync::atomic::{AtomicUsize, Ordering};

core::arch::global_asm!(
    include_str!("switch.S"),
    CTX = const core::mem::offset_of!(ThreadHead, ctx),
    CURRENT = const core::mem::offset_of!(percpu::CpuBlock, current),
    THREAD_STARTED = sym thread_started,
    ENTER_USER = sym enter_user,
);

unsafe extern "C" {
    fn linnet_switch(prev: *const ThreadHead, next: *const ThreadHead);
    fn linnet_thread_start();
}

static FINISH_HOOK: AtomicUsize = AtomicUsize::new(0);

/// Registers what a thread that runs for the first time calls before its entry, with interrupts
/// off: the scheduler's completion of the switch.
pub fn set_finish_hook(hook: extern "C" fn()) {
    FINISH_HOOK.store(hook as usize, Ordering::Release);
}

/// Continues with `next`; returns when some CPU switches back to `prev`.
///
/// # Safety
/// `prev` is the current thread; `next` does not run anywhere, its context is complete and its
/// stack mapped; both stay allocated; interrupts are off.
#[inline]
pub unsafe fn switch(prev: &ThreadHead, next: &ThreadHead) {
    check_stack(prev);
    let cpu = percpu::this();
    if prev.user.load(Ordering::Relaxed) {
        prev.tpidr_el0.store(crate::thread::read_tls_register(), Ordering::Relaxed);
        fp::switch_out(prev);
        debug::switch_out(prev);
    }
    if next.user.load(Ordering::Relaxed) {
        crate::thread::write_tls_register(next.tpidr_el0.load(Ordering::Relaxed));
        fp::switch_in(next, cpu);
        debug::switch_in(next);
    }
    next.cpu.store(cpu.id.load(Ordering::Relaxed), Ordering::Relaxed);
    // What `prev` has begun (maintenance of TLBs and caches, its program's too, device accesses) is
    // waited for by the CPU that issued it only, and `prev` may execute its own DSB on another.
    barrier::dsb(barrier::SY);
    // SAFETY: the caller's contract.
    unsafe { linnet_switch(prev, next) };
}

/// The word at the lowest address of each kernel stack.
const STACK_END: u64 = 0x57ac_6e9d_57ac_6e9d;

fn stack_end(head: &ThreadHead) -> Option<*mut u64> {
    let base = head.stack_base.load(Ordering::Relaxed);
    (base != 0).then_some(base as *mut u64)
}

/// Marks the end of a stack that nobody has come near yet.
pub(crate) fn mark_stack(head: &ThreadHead) {
    if let Some(end) = stack_end(head) {
        // SAFETY: the lowest word of the thread's stack, which nothing else uses.
        unsafe { end.write_volatile(STACK_END) };
    }
}

/// A thread that has written over the end of its stack may have written over anything: it does not
/// get to run again.
#[inline]
fn check_stack(head: &ThreadHead) {
    // SAFETY: the lowest word of a stack that is mapped while its thread exists.
    if stack_end(head).is_some_and(|end| unsafe { end.read_volatile() } != STACK_END) {
        crate::panic::fatal(|out| {
            let _ = writeln!(out, "kernel stack overflow: the end of the stack of thread {head:p} is overwritten");
            let _ = writeln!(out, "Call trace:");
            crate::backtrace::print_current(out);
        });
    }
}

fn start(head: &ThreadHead, x19: u64, x20: u64) {
    mark_stack(head);
    let sp = user_regs(head) as u64;
    let lr = linnet_thread_start as *const () as u64;
    let ctx: *mut Context = head.ctx.get();
    // SAFETY: the thread has not started: nobody else touches its context.
    unsafe { (*ctx).start(sp, lr, x19, x20) };
}

/// Makes `head` start at `entry(arg)` when it is first switched to, interrupts on. Its stack is
/// known (`set_stack`). An entry that returns goes on to EL0 with the registers at the stack's top.
pub fn prepare_kernel_stack(head: &ThreadHead, entry: extern "C" fn(usize), arg: usize) {
    // SAFETY: the thread has not started: its stack is unused.
    unsafe { user_regs(head).write(UserRegs::default()) };
    start(head, entry as usize as u64, arg as u64);
}

/// Makes `head` return to EL0 with `regs` when it is first switched to: the child of a fork.
pub fn prepare_user_return(head: &ThreadHead, regs: &UserRegs) {
    // SAFETY: the thread has not started: its stack is unused.
    unsafe { user_regs(head).write(*regs) };
    head.user.store(true, Ordering::Relaxed);
    start(head, 0, 0);
}

/// Where the user registers of a thread are: at the top of its stack.
pub fn user_regs(head: &ThreadHead) -> *mut UserRegs {
    let top = head.stack_top.load(Ordering::Relaxed);
    (top - size_of::<UserRegs>() as u64) as *mut UserRegs
}

extern "C" fn thread_started() {
    let hook = FINISH_HOOK.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: only `set_finish_hook` stores here, always a function of this type.
        unsafe { core::mem::transmute::<usize, extern "C" fn()>(hook)() };
    }
    irq::enable();
}

extern "C" fn enter_user() {
    let head = crate::thread::current();
    if !head.user.swap(true, Ordering::Relaxed) {
        // First time at EL0: nothing of the program is in the registers yet.
        crate::thread::write_tls_register(head.tpidr_el0.load(Ordering::Relaxed));
        head.set_flag(FOREIGN_FP);
    }
}
