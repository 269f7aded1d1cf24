//! Which thread runs, and how another one takes its place.

use arch::{UserRegs, thread::ThreadHead, thread_switch};
use core::{
    any::TypeId,
    cell::{Cell, UnsafeCell},
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr,
};
use frames::vmalloc::KernelStack;
use kalloc::{AllocError, KArc, KWeak};
use sync::{
    Once, PerCpu,
    atomic::{AtomicPtr, Ordering},
    per_cpu,
};

/// What the scheduler makes of a thread.
pub trait Kind: Sized + Send + Sync + 'static {
    /// What a thread that is left sends along with its `Runnable`.
    type Baggage: Send;

    /// The first thing that a new thread does: interrupts and preemption off. Preemption is
    /// turned on once afterwards.
    fn first_run(last: Last<Self>, baggage: Self::Baggage);

    /// What a kernel thread does. When it returns, the thread goes on in user space with the
    /// registers that [`enter_user`] set.
    fn main(thread: Current<Self>);
}

/// A thread: the part that the CPU's entry code knows, its stack, and what the scheduler keeps.
#[repr(C)]
pub struct ThreadOf<T: Kind> {
    head: ThreadHead,
    /// Taken out by `Finished::reap` alone; otherwise nobody looks.
    stack: UnsafeCell<Option<KernelStack>>,
    body: T,
}

// SAFETY: `stack` is only touched through a `Finished`, of which a thread has one at most; head
// and body are Sync by themselves.
unsafe impl<T: Kind> Sync for ThreadOf<T> {}

impl<T: Kind> ThreadOf<T> {
    /// What the CPU's entry code knows of the thread.
    #[inline]
    pub fn head(&self) -> &ThreadHead {
        &self.head
    }
}

impl<T: Kind> Deref for ThreadOf<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.body
    }
}

/// The thread that runs this code. It lives as long as the code runs, so the handle needs no
/// count; it cannot leave the thread.
pub struct Current<T: Kind> {
    thread: &'static ThreadOf<T>,
    _not_send: PhantomData<*mut ()>,
}

impl<T: Kind> Clone for Current<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Kind> Copy for Current<T> {}

impl<T: Kind> Deref for Current<T> {
    type Target = ThreadOf<T>;
    #[inline]
    fn deref(&self) -> &ThreadOf<T> {
        self.thread
    }
}

impl<T: Kind> Current<T> {
    /// A counted handle.
    pub fn to_arc(self) -> KArc<ThreadOf<T>> {
        // SAFETY: every ThreadOf is made in a KArc, and the CPU holds a strong count (invariant 2).
        unsafe { KArc::clone_from_ptr(self.thread) }
    }
}

/// The thread that runs here. Only after [`adopt`] on the boot CPU.
#[inline]
pub fn current<T: Kind>() -> Current<T> {
    debug_assert!(KIND.get() == Some(&TypeId::of::<T>()), "no thread of this kind was made");
    let head: *const ThreadHead = arch::thread::current();
    // SAFETY: invariant 1: the head is the first field of a ThreadOf<T> (repr(C)), alive while it
    // runs, and so while the handle, which is neither Send nor Sync, can be used.
    Current { thread: unsafe { &*head.cast::<ThreadOf<T>>() }, _not_send: PhantomData }
}

/// The right to run a thread that does not run.
pub struct Runnable<T: Kind> {
    thread: KArc<ThreadOf<T>>,
}

impl<T: Kind> Runnable<T> {
    /// The thread.
    #[inline]
    pub fn thread(&self) -> &KArc<ThreadOf<T>> {
        &self.thread
    }

    /// Says which CPU the thread belongs to.
    #[inline]
    pub fn set_cpu(&self, cpu: abi::CpuId) {
        self.thread.head.cpu.store(cpu.0, Ordering::Relaxed);
    }

    /// Gives the right to a CPU that is about to be started with this head as its first thread.
    pub fn into_first_thread(self) -> &'static ThreadHead {
        // SAFETY: the count is given up for good: the thread stays.
        unsafe { &(*KArc::into_raw(self.into_thread())).head }
    }

    #[inline]
    fn into_thread(self) -> KArc<ThreadOf<T>> {
        let this = ManuallyDrop::new(self);
        // SAFETY: read once, and `this` is not dropped.
        unsafe { ptr::read(&this.thread) }
    }
}

/// Holds the right to run one particular thread while that does not run: an idle thread.
pub struct RunnableSlot<T: Kind> {
    /// Null, or the count of the `Runnable` that the slot owns.
    thread: AtomicPtr<ThreadOf<T>>,
}

impl<T: Kind> RunnableSlot<T> {
    /// An empty slot.
    pub const fn new() -> Self {
        Self { thread: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Leaves the right here. A right that is here already stays for ever, with its thread.
    #[inline]
    pub fn put(&self, runnable: Runnable<T>) {
        // Release: pairs with the acquire in `take`.
        self.thread.store(KArc::into_raw(runnable.into_thread()).cast_mut(), Ordering::Release);
    }

    /// Takes the right.
    #[inline]
    pub fn take(&self) -> Option<Runnable<T>> {
        let thread = self.thread.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: the slot owned the count, and the swap gave it to us alone.
        (!thread.is_null()).then(|| Runnable { thread: unsafe { KArc::from_raw(thread) } })
    }
}

impl<T: Kind> Default for RunnableSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What is left of a thread that will not run again.
pub struct Finished<T: Kind> {
    thread: KArc<ThreadOf<T>>,
}

impl<T: Kind> Finished<T> {
    /// The thread, and its stack, which nobody uses any more.
    pub fn reap(self) -> (KArc<ThreadOf<T>>, Option<KernelStack>) {
        // SAFETY: the only Finished of this thread, consumed here; nobody else touches `stack`.
        let stack = unsafe { (*self.thread.stack.get()).take() };
        (self.thread, stack)
    }
}

/// The thread that ran on this CPU until now.
pub enum Last<T: Kind> {
    /// It can go on.
    Runnable(Runnable<T>),
    /// It is done.
    Finished(Finished<T>),
}

/// What the thread that is left leaves for the one that comes.
struct Parcel<T: Kind> {
    last: Last<T>,
    baggage: T::Baggage,
}

/// Where the parcel of the switch in progress lies.
struct Handover(Cell<*mut ()>);

// SAFETY: invariant 4: only its own CPU touches it, with interrupts off.
unsafe impl Sync for Handover {}
// SAFETY: a plain pointer, never followed but by `receive`.
unsafe impl Send for Handover {}

static HANDOVER: PerCpu<Handover> = per_cpu!(Handover(Cell::new(ptr::null_mut())));

/// The `T` of every `ThreadOf` (invariant 1).
static KIND: Once<TypeId> = Once::new();

/// Leaves the current thread and continues with `next`; returns when this thread is switched to
/// again, maybe on another CPU, with what was left there. Interrupts are off at return.
#[inline]
pub fn switch_to<T: Kind>(next: Runnable<T>, baggage: T::Baggage) -> (Last<T>, T::Baggage) {
    arch::irq::disable();
    // SAFETY: invariant 2: the CPU's count on the current thread, taken back once.
    let last = Last::Runnable(Runnable { thread: unsafe { KArc::from_raw(current::<T>().thread) } });
    let mut parcel = ManuallyDrop::new(Parcel { last, baggage });
    swap_threads(next, &mut parcel);
    receive()
}

/// Leaves the current thread for good.
pub fn switch_away<T: Kind>(next: Runnable<T>, baggage: T::Baggage) -> ! {
    arch::irq::disable();
    // SAFETY: as in `switch_to`.
    let last = Last::Finished(Finished { thread: unsafe { KArc::from_raw(current::<T>().thread) } });
    let mut parcel = ManuallyDrop::new(Parcel { last, baggage });
    swap_threads(next, &mut parcel);
    // No Runnable of this thread exists, so nobody switches here.
    loop {
        arch::cpu::relax();
    }
}

#[inline]
fn swap_threads<T: Kind>(next: Runnable<T>, parcel: &mut ManuallyDrop<Parcel<T>>) {
    let prev = arch::thread::current();
    HANDOVER.this_unpinned().0.set(ptr::from_mut(parcel).cast());
    let next = KArc::into_raw(next.into_thread());
    // SAFETY: `prev` is current. `next` does not run, since its right was consumed, and the
    // count just given up keeps it alive while it does. Interrupts are off.
    unsafe { thread_switch::switch(prev, &(*next).head) };
}

/// Takes the parcel of the switch that brought the current thread here.
#[inline]
fn receive<T: Kind>() -> (Last<T>, T::Baggage) {
    let at = HANDOVER.this_unpinned().0.replace(ptr::null_mut()).cast::<ManuallyDrop<Parcel<T>>>();
    // SAFETY: invariants 3 and 4: written by `swap_threads` on this CPU just now, read once; the
    // writer never drops it.
    let parcel = ManuallyDrop::into_inner(unsafe { ptr::read(at) });
    (parcel.last, parcel.baggage)
}

/// What arch calls on a thread's first run, before its entry: interrupts off.
extern "C" fn first_run<T: Kind>() {
    let (last, baggage) = receive::<T>();
    T::first_run(last, baggage);
    arch::preempt::enable_no_resched();
}

/// Entry of kernel threads.
extern "C" fn kernel_main<T: Kind>(_: usize) {
    T::main(current());
}

fn create<T: Kind>(
    stack: Option<KernelStack>,
    make: impl FnOnce(&KWeak<ThreadOf<T>>) -> Result<T, AllocError>,
) -> Result<Runnable<T>, AllocError> {
    let kind = KIND.call_once(|| {
        thread_switch::set_finish_hook(first_run::<T>);
        TypeId::of::<T>()
    });
    if *kind != TypeId::of::<T>() {
        return Err(AllocError);
    }
    let thread = KArc::try_new_cyclic_fallible(|weak| {
        let head = ThreadHead::new();
        if let Some(stack) = &stack {
            head.set_stack(stack.base().0, stack.top().0);
        }
        // Preemption is off until the end of `first_run`.
        head.preempt_count.store(1, Ordering::Relaxed);
        Ok::<_, AllocError>(ThreadOf { head, body: make(weak)?, stack: UnsafeCell::new(stack) })
    })?;
    Ok(Runnable { thread })
}

/// A thread that runs `T::main` on this stack.
pub fn create_kernel<T: Kind>(
    stack: KernelStack,
    make: impl FnOnce(&KWeak<ThreadOf<T>>) -> Result<T, AllocError>,
) -> Result<Runnable<T>, AllocError> {
    let runnable = create(Some(stack), make)?;
    thread_switch::prepare_kernel_stack(runnable.thread.head(), kernel_main::<T>, 0);
    Ok(runnable)
}

/// A thread that returns to user space with `regs` right after its first switch.
pub fn create_user<T: Kind>(
    stack: KernelStack,
    regs: &UserRegs,
    make: impl FnOnce(&KWeak<ThreadOf<T>>) -> Result<T, AllocError>,
) -> Result<Runnable<T>, AllocError> {
    let runnable = create(Some(stack), make)?;
    thread_switch::prepare_user_return(runnable.thread.head(), regs);
    Ok(runnable)
}

/// Makes this code, which runs on the boot CPU's first stack, a thread: `make`'s. It keeps the
/// preempt count and the flags of the head that stood in for it so far.
pub fn adopt<T: Kind>(
    make: impl FnOnce(&KWeak<ThreadOf<T>>) -> Result<T, AllocError>,
) -> Result<Current<T>, AllocError> {
    let thread = create(None, make)?.into_thread();
    let before = arch::thread::current();
    let head = &thread.head;
    head.set_stack(before.stack_base.load(Ordering::Relaxed), before.stack_top.load(Ordering::Relaxed));
    head.cpu.store(before.cpu.load(Ordering::Relaxed), Ordering::Relaxed);
    head.preempt_count.store(before.preempt_count.load(Ordering::Relaxed), Ordering::Relaxed);
    // SAFETY: the CPU owns the count from here on (invariant 2); an idle thread never ends.
    let thread: &'static ThreadOf<T> = unsafe { &*KArc::into_raw(thread) };
    arch::thread::set_current(&thread.head);
    Ok(Current { thread, _not_send: PhantomData })
}

/// Sets the registers with which the current kernel thread goes on in user space when its `main`
/// returns. `false`, and nothing done, for a thread that is a user thread already.
pub fn enter_user<T: Kind>(regs: &UserRegs) -> bool {
    let current = current::<T>();
    if current.head.user.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: a thread that never was in user space has no entry frame, so nothing else refers to
    // the registers' place at the top of its stack.
    unsafe { thread_switch::user_regs(&current.head).write(*regs) };
    true
}
