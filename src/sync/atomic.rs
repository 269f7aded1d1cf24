//! Where atomics come from: `core` in the kernel and in ordinary tests, `loom` under `--cfg loom`.
//!
//! Every crate takes its atomics, fences and spin hints from here, so that one switch puts all
//! lock-free code under the model checker.
//!
//! Loom's atomics have no const constructor. The types here make them on first use, so statics
//! compile under loom too. Two rules follow for models: start them through `model`, which
//! gives statics a fresh value in each run; and touch an atomic once before threads share it (loom
//! panics with "causality violation" otherwise).

#[cfg(not(loom))]
pub use arch::cpu::relax as spin_loop;
#[cfg(not(loom))]
pub use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering, compiler_fence, fence,
};

#[cfg(loom)]
pub use lazy::*;

#[cfg(loom)]
#[allow(clippy::disallowed_types)] // models run on the developer's machine, with std
mod lazy {
    extern crate std;

    use core::sync::atomic::{AtomicPtr as RealPtr, AtomicUsize as RealUsize, Ordering::SeqCst};
    pub use core::sync::atomic::{Ordering, compiler_fence};
    pub use loom::sync::atomic::fence;
    use std::{boxed::Box, sync::Mutex};

    /// Number of the model's run; atomics of an earlier one are made anew.
    static RUN: RealUsize = RealUsize::new(0);

    /// Runs `f` under loom in every order with up to `preemptions` switches at inconvenient points.
    pub fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            RUN.fetch_add(1, SeqCst);
            f();
        });
    }

    /// Lets the other threads of the model run.
    pub fn spin_loop() {
        loom::thread::yield_now();
    }

    /// Loom's object of this run, made on first use. Runs leak it: a few words each.
    struct Made<T: 'static>(Mutex<Option<(usize, &'static T)>>);

    impl<T> Made<T> {
        const fn new() -> Self {
            Self(Mutex::new(None))
        }

        fn get(&self, make: impl FnOnce() -> T) -> &'static T {
            let run = RUN.load(SeqCst);
            let mut made = self.0.lock().unwrap_or_else(|e| e.into_inner());
            match *made {
                Some((of, object)) if of == run => object,
                _ => {
                    let object: &'static T = Box::leak(Box::new(make()));
                    *made = Some((run, object));
                    object
                }
            }
        }
    }

    macro_rules! common_ops {
        ($value:ty) => {
            /// As in core.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                self.get().load(order)
            }
            /// As in core.
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                self.get().store(value, order)
            }
            /// As in core.
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.get().swap(value, order)
            }
            /// As in core.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                ok: Ordering,
                fail: Ordering,
            ) -> Result<$value, $value> {
                self.get().compare_exchange(old, new, ok, fail)
            }
            /// As in core, but it never fails for nothing.
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                ok: Ordering,
                fail: Ordering,
            ) -> Result<$value, $value> {
                self.get().compare_exchange(old, new, ok, fail)
            }
            /// As in core.
            #[track_caller]
            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                f: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.get().fetch_update(set, fetch, f)
            }
        };
    }

    macro_rules! fetch_ops {
        ($value:ty: $($op:ident)*) => {$(
            /// As in core.
            #[track_caller]
            pub fn $op(&self, value: $value, order: Ordering) -> $value {
                self.get().$op(value, order)
            }
        )*};
    }

    macro_rules! atomics {
        ($($name:ident $value:ty: $($op:ident)*;)*) => {$(
            /// Loom's atomic, made on first use.
            pub struct $name {
                init: $value,
                made: Made<loom::sync::atomic::$name>,
            }

            impl $name {
                /// With this value.
                pub const fn new(init: $value) -> Self {
                    Self { init, made: Made::new() }
                }
                fn get(&self) -> &'static loom::sync::atomic::$name {
                    self.made.get(|| loom::sync::atomic::$name::new(self.init))
                }
                common_ops! { $value }
                fetch_ops! { $value: $($op)* }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new(Default::default())
                }
            }
        )*};
    }

    atomics! {
        AtomicI32 i32: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min;
        AtomicI64 i64: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min;
        AtomicIsize isize: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min;
        AtomicU8 u8: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min;
        AtomicU16 u16: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min;
        AtomicU32 u32: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min;
        AtomicU64 u64: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min;
        AtomicUsize usize: fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max fetch_min;
        AtomicBool bool: fetch_and fetch_or fetch_xor;
    }

    /// Loom's atomic pointer, made on first use.
    pub struct AtomicPtr<T: 'static> {
        init: RealPtr<T>,
        made: Made<loom::sync::atomic::AtomicPtr<T>>,
    }

    impl<T> AtomicPtr<T> {
        /// With this value.
        pub const fn new(init: *mut T) -> Self {
            Self { init: RealPtr::new(init), made: Made::new() }
        }
        fn get(&self) -> &'static loom::sync::atomic::AtomicPtr<T> {
            self.made.get(|| loom::sync::atomic::AtomicPtr::new(self.init.load(SeqCst)))
        }
        common_ops! { *mut T }
    }
}
