//! The simulated machine: which host thread is which CPU, and what a test can set.

use crate::thread::ThreadHead;
use abi::{CpuId, CpuMask, MAX_CPUS, PhysAddr, UserAddr};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What the CPUs of one test share.
pub struct Machine {
    pub(crate) counter: AtomicU64,
    pub(crate) online: AtomicU64,
    pub(crate) user: Mutex<UserMemory>,
    pub(crate) tlb_flushes: AtomicU64,
    pub(crate) user_root: AtomicU64,
}

impl Machine {
    fn new(online: CpuMask) -> Arc<Self> {
        Arc::new(Self {
            counter: AtomicU64::new(0),
            online: AtomicU64::new(online.0),
            user: Mutex::new(UserMemory::default()),
            tlb_flushes: AtomicU64::new(0),
            user_root: AtomicU64::new(0),
        })
    }
}

/// The part of a CPU that moves with it from host thread to host thread.
#[derive(Clone)]
pub(crate) struct Cpu {
    pub(crate) id: CpuId,
    pub(crate) machine: Arc<Machine>,
    pub(crate) irqs_on: bool,
    pub(crate) deadline: Option<u64>,
}

struct Slot(RefCell<Option<Cpu>>, Cell<bool>);

impl Drop for Slot {
    fn drop(&mut self) {
        if self.1.get()
            && let Some(cpu) = self.0.get_mut().take()
        {
            release(CpuMask::of(cpu.id));
        }
    }
}

thread_local! {
    /// This host thread's CPU, and whether its number came from the pool of single threads.
    static CPU: Slot = const { Slot(RefCell::new(None), Cell::new(false)) };
    static CURRENT: Cell<Option<&'static ThreadHead>> = const { Cell::new(None) };
}

/// CPU numbers in use, and those that a `run_on_cpus` waits for.
static IDS: Mutex<(CpuMask, CpuMask)> = Mutex::new((CpuMask::EMPTY, CpuMask::EMPTY));
static ID_FREED: Condvar = Condvar::new();

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

fn release(mask: CpuMask) {
    lock(&IDS).0.0 &= !mask.0;
    ID_FREED.notify_all();
}

/// A number for a thread that nobody made a CPU: the lowest that is free.
fn take_any() -> CpuId {
    let mut ids = lock(&IDS);
    loop {
        let free = !(ids.0.0 | ids.1.0);
        if free != 0 {
            let id = CpuId(free.trailing_zeros());
            ids.0 = ids.0.with(id);
            return id;
        }
        ids = ID_FREED.wait(ids).unwrap_or_else(|e| e.into_inner());
    }
}

fn take_first(n: usize) {
    let want = CpuMask::first(n);
    let mut ids = lock(&IDS);
    loop {
        // One waiter at a time may reserve; the others queue behind it.
        if ids.1.is_empty() {
            if ids.0.and(want).is_empty() {
                ids.0.0 |= want.0;
                return;
            }
            ids.1 = want;
            while !ids.0.and(want).is_empty() {
                ids = ID_FREED.wait(ids).unwrap_or_else(|e| e.into_inner());
            }
            ids.1 = CpuMask::EMPTY;
            ids.0.0 |= want.0;
            ID_FREED.notify_all();
            return;
        }
        ids = ID_FREED.wait(ids).unwrap_or_else(|e| e.into_inner());
    }
}

pub(crate) fn with_cpu<R>(f: impl FnOnce(&mut Cpu) -> R) -> R {
    CPU.with(|slot| {
        let mut cpu = slot.0.borrow_mut();
        let cpu = cpu.get_or_insert_with(|| {
            let id = take_any();
            slot.1.set(true);
            Cpu { id, machine: Machine::new(CpuMask::of(id)), irqs_on: true, deadline: None }
        });
        f(cpu)
    })
}

/// Gives up this thread's CPU (to hand it to another host thread).
pub(crate) fn take_cpu() -> (Cpu, bool) {
    with_cpu(|_| ());
    CPU.with(|slot| {
        let cpu = slot.0.borrow_mut().take().unwrap_or_else(|| unreachable!());
        (cpu, slot.1.replace(false))
    })
}

/// Becomes the CPU that another host thread gave up.
pub(crate) fn put_cpu((cpu, pooled): (Cpu, bool)) {
    CPU.with(|slot| {
        *slot.0.borrow_mut() = Some(cpu);
        slot.1.set(pooled);
    });
}

pub(crate) fn current() -> &'static ThreadHead {
    CURRENT.with(|c| match c.get() {
        Some(head) => head,
        None => {
            let head: &'static ThreadHead = Box::leak(Box::default());
            head.cpu.store(with_cpu(|cpu| cpu.id.0), Ordering::Relaxed);
            c.set(Some(head));
            head
        }
    })
}

/// Makes `head` the thread that runs on this CPU.
pub fn set_current(head: &'static ThreadHead) {
    head.cpu.store(with_cpu(|cpu| cpu.id.0), Ordering::Relaxed);
    CURRENT.with(|c| c.set(Some(head)));
}

/// Runs `f` on CPUs 0 to `n - 1`, each a host thread of its own, and returns when all have ended.
/// A panic on one of them is passed on. They share the caller's machine (counter, user memory).
/// Only one such run is active in a process for overlapping numbers: the call waits its turn, and
/// gives up the caller's own CPU number meanwhile.
pub fn run_on_cpus(n: usize, f: impl Fn(CpuId) + Sync) {
    assert!(n > 0 && n <= MAX_CPUS, "1 to {MAX_CPUS} CPUs");
    let (mine, pooled) = take_cpu();
    if pooled {
        release(CpuMask::of(mine.id));
    }
    take_first(n);
    let machine = mine.machine.clone();
    let before = machine.online.swap(CpuMask::first(n).0, Ordering::SeqCst);
    let outcome = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..n as u32)
            .map(|i| {
                let machine = machine.clone();
                let f = &f;
                scope.spawn(move || {
                    put_cpu((Cpu { id: CpuId(i), machine, irqs_on: true, deadline: None }, false));
                    f(CpuId(i));
                })
            })
            .collect();
        handles.into_iter().map(|h| h.join()).fold(Ok(()), Result::and)
    });
    machine.online.store(before, Ordering::SeqCst);
    release(CpuMask::first(n));
    // The caller may come back as another CPU; its machine stays.
    let id = take_any();
    machine.online.store(CpuMask::of(id).0, Ordering::SeqCst);
    put_cpu((Cpu { id, ..mine }, true));
    if let Some(head) = CURRENT.with(Cell::get) {
        head.cpu.store(id.0, Ordering::Relaxed);
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A handle on this thread's machine, for [`join_machine`] on another host thread.
pub fn machine() -> Arc<Machine> {
    with_cpu(|cpu| cpu.machine.clone())
}

/// Makes this host thread a CPU of `machine`.
pub fn join_machine(machine: &Arc<Machine>) {
    with_cpu(|cpu| {
        machine.online.fetch_or(CpuMask::of(cpu.id).0, Ordering::SeqCst);
        cpu.machine = machine.clone();
    });
}

/// Sets the virtual counter of this machine.
pub fn set_counter(value: u64) {
    with_cpu(|cpu| cpu.machine.counter.store(value, Ordering::SeqCst));
}

/// Advances the virtual counter of this machine.
pub fn advance_counter(by: u64) {
    with_cpu(|cpu| cpu.machine.counter.fetch_add(by, Ordering::SeqCst));
}

/// The deadline that this CPU's timer is set to.
pub fn deadline() -> Option<u64> {
    with_cpu(|cpu| cpu.deadline)
}

/// Runs `f` as an interrupt handler of this CPU: interrupts off, count raised.
pub fn interrupt<R>(f: impl FnOnce() -> R) -> R {
    let flags = crate::irq::save_and_disable();
    crate::preempt::enter_interrupt();
    let r = f();
    crate::preempt::leave_interrupt();
    crate::irq::restore(flags);
    r
}

/// How many TLB flush operations this machine has seen.
pub fn tlb_flushes() -> u64 {
    with_cpu(|cpu| cpu.machine.tlb_flushes.load(Ordering::SeqCst))
}

/// The user table that `mmu::set_user_table` set last: root and ASID (zero: the empty table).
pub fn user_table() -> (PhysAddr, u16) {
    let v = with_cpu(|cpu| cpu.machine.user_root.load(Ordering::SeqCst));
    (PhysAddr(v & crate::mmu::pte::ADDR_MASK), (v >> 48) as u16)
}

static ARENA_PTR: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static ARENA_PHYS: AtomicU64 = AtomicU64::new(0);
static ARENA_LEN: AtomicUsize = AtomicUsize::new(0);

/// Says which host memory stands for the physical addresses from `phys` on. One arena for the
/// whole process; it must stay allocated.
///
/// # Safety
/// `base` is valid for reads and writes of `len` bytes until the process ends.
pub unsafe fn set_phys_arena(base: *mut u8, phys: PhysAddr, len: usize) {
    ARENA_PHYS.store(phys.0, Ordering::SeqCst);
    ARENA_LEN.store(len, Ordering::SeqCst);
    ARENA_PTR.store(base, Ordering::SeqCst);
}

/// Allocates an arena of `len` bytes (rounded up to pages, aligned to 2 MiB) at `phys`, once per
/// process: a later call changes nothing. Safe for tests that share a process.
pub fn ensure_phys_arena(phys: PhysAddr, len: usize) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let layout = std::alloc::Layout::from_size_align(len.next_multiple_of(4096), 2 << 20);
        let layout = layout.unwrap_or_else(|_| unreachable!());
        // SAFETY: the size is not zero (a test that asks for nothing gets a page).
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!base.is_null(), "no memory for the arena");
        // SAFETY: just allocated, never freed.
        unsafe { set_phys_arena(base, phys, layout.size()) };
    });
}

pub(crate) fn arena() -> (*mut u8, u64, usize) {
    let ptr = ARENA_PTR.load(Ordering::SeqCst);
    (ptr, ARENA_PHYS.load(Ordering::SeqCst), ARENA_LEN.load(Ordering::SeqCst))
}

/// User memory: byte ranges that do not overlap, by start address.
#[derive(Default)]
pub(crate) struct UserMemory {
    ranges: BTreeMap<u64, Vec<u8>>,
}

impl UserMemory {
    /// The bytes from `addr` to the end of the range that contains it.
    pub(crate) fn at(&mut self, addr: u64) -> Option<&mut [u8]> {
        let (start, bytes) = self.ranges.range_mut(..=addr).next_back()?;
        bytes.get_mut((addr - start) as usize..).filter(|b| !b.is_empty())
    }
}

/// Maps `len` zero bytes at `addr` for user copies of this machine.
pub fn map_user(addr: UserAddr, len: usize) {
    let machine = machine();
    lock(&machine.user).ranges.insert(addr.0, Vec::from_iter(std::iter::repeat_n(0, len)));
}

/// Removes the range that starts at `addr`.
pub fn unmap_user(addr: UserAddr) {
    let machine = machine();
    lock(&machine.user).ranges.remove(&addr.0);
}

/// Puts bytes into mapped user memory, as the program would.
pub fn write_user(addr: UserAddr, bytes: &[u8]) {
    assert!(crate::user::copy_to_user(addr, bytes).is_ok(), "write_user outside map_user");
}

/// Reads mapped user memory, as the program would.
pub fn read_user(addr: UserAddr, len: usize) -> Vec<u8> {
    let mut v = Vec::from_iter(std::iter::repeat_n(0, len));
    assert!(crate::user::copy_from_user(&mut v, addr).is_ok(), "read_user outside map_user");
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cpu, irq, preempt};
    use std::sync::atomic::AtomicU32;

    #[test]
    fn each_simulated_cpu_has_its_own_number_and_state() {
        let seen = AtomicU64::new(0);
        run_on_cpus(4, |id| {
            assert_eq!(cpu::id(), id);
            assert_eq!(cpu::count(), 4);
            seen.fetch_or(1 << id.0, Ordering::SeqCst);
            let flags = irq::save_and_disable();
            preempt::disable();
            assert!(!irq::enabled());
            assert_eq!(preempt::count(), 1);
            preempt::enable();
            irq::restore(flags);
            assert!(irq::enabled());
        });
        assert_eq!(seen.load(Ordering::SeqCst), 0b1111);
    }

    #[test]
    fn runs_of_two_tests_at_once_do_not_share_numbers() {
        let busy = [const { AtomicU32::new(0) }; 4];
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    cpu::id();
                    run_on_cpus(4, |id| {
                        assert_eq!(busy[id.index()].fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        busy[id.index()].fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
    }

    #[test]
    fn an_interrupt_raises_the_hardirq_count_and_turns_interrupts_off() {
        assert!(!preempt::in_interrupt());
        interrupt(|| {
            assert!(preempt::in_interrupt());
            assert!(!irq::enabled());
        });
        assert!(!preempt::in_interrupt() && irq::enabled());
    }

    #[test]
    fn the_counter_belongs_to_the_machine() {
        set_counter(100);
        run_on_cpus(2, |_| assert_eq!(crate::clock::counter(), 100));
        advance_counter(5);
        assert_eq!(crate::clock::counter(), 105);
    }
}
