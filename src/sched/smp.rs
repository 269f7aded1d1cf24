//! How one CPU gets another to do something: reschedule, or call a function.
//!
//! A call is put into the other CPU's box and announced by an interrupt. The box has a few places;
//! a caller that finds it full waits, with interrupts on, so that two CPUs may call each other.

use abi::{CpuId, CpuMask, Result};
use kalloc::KArc;
use sync::{
    LockClass, Once, PerCpu, PreemptGuard, SpinLock,
    atomic::{AtomicU32, Ordering},
    per_cpu,
};

static CALLS: LockClass = LockClass::new("cross_calls", 1710);

/// How interrupts are sent to other CPUs; the interrupt controller's business.
pub trait Ipi: Sync {
    /// Makes the CPU pass the end of an interrupt, where it looks whether to reschedule.
    fn reschedule(&self, cpu: CpuId);
    /// Makes the CPU call [`run_calls`].
    fn call(&self, cpu: CpuId);
}

static IPI: Once<&'static dyn Ipi> = Once::new();

/// Says how interrupts are sent; once, before a second CPU schedules.
pub fn set_ipi(ipi: &'static dyn Ipi) {
    IPI.call_once(|| ipi);
}

/// The scheduler of `cpu` has something new; its thread's flag is set.
pub(crate) fn send_reschedule(cpu: CpuId) {
    if let Some(ipi) = IPI.get() {
        ipi.reschedule(cpu);
    }
}

/// Makes a CPU that idles look for work.
pub(crate) fn send_reschedule_to_idle(cpu: CpuId) {
    crate::cpu::reschedule_cpu(cpu);
}

/// What another CPU is to call.
trait Call: Send + Sync {
    fn run(&self, cpu: CpuId);
}

struct Closure<F> {
    f: F,
    /// CPUs that have not called it yet.
    left: AtomicU32,
}

impl<F: Fn(CpuId) + Send + Sync> Call for Closure<F> {
    fn run(&self, cpu: CpuId) {
        (self.f)(cpu);
        // Pairs with the acquire in `call_on`.
        self.left.fetch_sub(1, Ordering::Release);
    }
}

/// Places in a CPU's box.
const PLACES: usize = 8;
type Places = [Option<KArc<dyn Call>>; PLACES];

static BOXES: PerCpu<SpinLock<Places>> = per_cpu!(SpinLock::new([const { None }; PLACES], &CALLS));

/// Calls `f` on each CPU of `mask` that schedules, with interrupts off, and waits until all have.
/// Interrupts must be on; in a thread. Fails without memory, and then has called nothing.
pub fn call_on(mask: CpuMask, f: impl Fn(CpuId) + Send + Sync + 'static) -> Result {
    let here = PreemptGuard::new();
    let cpu = here.cpu();
    let mask = mask.and(crate::cpu::active());
    let others = mask.without(cpu);
    let closure = KArc::try_new(Closure { f, left: AtomicU32::new(mask.count()) })?;
    for other in others.iter() {
        let call: KArc<dyn Call> = kalloc::karc_as!(closure.clone() => dyn Call);
        post(other, call);
        if let Some(ipi) = IPI.get() {
            ipi.call(other);
        }
    }
    if mask.contains(cpu) {
        let irq = sync::IrqGuard::new();
        closure.run(irq.cpu());
    }
    while closure.left.load(Ordering::Acquire) != 0 {
        arch::cpu::relax();
    }
    Ok(())
}

fn post(cpu: CpuId, call: KArc<dyn Call>) {
    loop {
        {
            let mut places = BOXES.get(cpu).lock_irq();
            if let Some(free) = places.iter_mut().find(|p| p.is_none()) {
                *free = Some(call);
                return;
            }
        }
        arch::cpu::relax();
    }
}

/// Calls what other CPUs posted for this one. From the call interrupt.
pub fn run_calls() {
    let irq = sync::IrqGuard::new();
    let cpu = irq.cpu();
    loop {
        let next = BOXES.get(cpu).lock_irq().iter_mut().find_map(Option::take);
        match next {
            Some(call) => call.run(cpu),
            None => return,
        }
    }
}
