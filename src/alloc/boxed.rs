//! `KBox`: one owner of one value on the heap.

use crate::{AllocError, TryClone, raw};
use core::{
    alloc::Layout,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    pin::Pin,
    ptr::NonNull,
};

/// An owned value on the heap.
pub struct KBox<T: ?Sized> {
    ptr: NonNull<T>,
    _owns: PhantomData<T>,
}

// SAFETY: a KBox owns its value alone (invariant 1), so it moves between threads as the value does.
unsafe impl<T: ?Sized + Send> Send for KBox<T> {}
// SAFETY: `&KBox<T>` gives no more than `&T`.
unsafe impl<T: ?Sized + Sync> Sync for KBox<T> {}

impl<T> KBox<T> {
    /// Moves `value` to the heap.
    pub fn try_new(value: T) -> Result<Self, AllocError> {
        let ptr = raw::allocate(Layout::new::<T>())?.cast::<T>();
        // SAFETY: fresh memory of T's layout.
        unsafe { ptr.write(value) };
        Ok(Self { ptr, _owns: PhantomData })
    }

    /// The default value, built where it will be: for types too large for the stack (as far as
    /// the optimiser goes along).
    #[inline(always)]
    pub fn try_new_default() -> Result<Self, AllocError>
    where
        T: Default,
    {
        let ptr = raw::allocate(Layout::new::<T>())?.cast::<T>();
        // SAFETY: fresh memory of T's layout.
        unsafe { ptr.as_ptr().write(T::default()) };
        Ok(Self { ptr, _owns: PhantomData })
    }

    /// A `T` whose bytes are all zero, without a copy of it on the stack.
    ///
    /// # Safety
    /// All-zero bytes are a valid `T`.
    pub unsafe fn try_new_zeroed() -> Result<Self, AllocError> {
        let ptr = raw::allocate(Layout::new::<T>())?.cast::<T>();
        // SAFETY: fresh memory of T's layout; the caller vouches for zero.
        unsafe { ptr.as_ptr().write_bytes(0, 1) };
        Ok(Self { ptr, _owns: PhantomData })
    }

    /// As [`try_new`](Self::try_new), pinned.
    pub fn try_pin(value: T) -> Result<Pin<Self>, AllocError> {
        Self::try_new(value).map(Self::into_pin)
    }

    /// The value, moved out.
    pub fn into_inner(self) -> T {
        let ptr = Self::into_raw(self);
        // SAFETY: into_raw gave up ownership of a live value; its memory goes back unread after this.
        unsafe {
            let value = ptr.read();
            raw::deallocate(NonNull::new_unchecked(ptr.cast()), Layout::new::<T>());
            value
        }
    }
}

impl<T: ?Sized> KBox<T> {
    /// Gives up ownership; [`from_raw`](Self::from_raw) takes it back.
    pub fn into_raw(this: Self) -> *mut T {
        ManuallyDrop::new(this).ptr.as_ptr()
    }

    /// # Safety
    /// `ptr` came from [`into_raw`](Self::into_raw), and this is the only use of that ownership.
    pub unsafe fn from_raw(ptr: *mut T) -> Self {
        // SAFETY: into_raw's pointers are not null.
        Self { ptr: unsafe { NonNull::new_unchecked(ptr) }, _owns: PhantomData }
    }

    /// The value for the rest of the kernel's life.
    pub fn leak<'a>(this: Self) -> &'a mut T
    where
        T: 'a,
    {
        // SAFETY: ownership is given up for good, so the reference is the only way to the value.
        unsafe { &mut *Self::into_raw(this) }
    }

    /// A boxed value does not move: pinning needs nothing more.
    pub fn into_pin(this: Self) -> Pin<Self> {
        // SAFETY: the value stays at its heap address until drop, which the pinned KBox runs.
        unsafe { Pin::new_unchecked(this) }
    }

    /// The address of the value.
    pub fn as_ptr(this: &Self) -> *const T {
        this.ptr.as_ptr()
    }
}

impl KBox<dyn core::any::Any + Send> {
    /// The box as one of `U`, or the box back.
    pub fn downcast<U: core::any::Any>(self) -> Result<KBox<U>, Self> {
        if (*self).is::<U>() {
            // SAFETY: the value is a U, which has the same address and layout.
            Ok(unsafe { KBox::from_raw(Self::into_raw(self).cast()) })
        } else {
            Err(self)
        }
    }
}

impl<T: ?Sized> Drop for KBox<T> {
    fn drop(&mut self) {
        // SAFETY: invariant 1: the value is alive, owned by this box alone, of this layout.
        unsafe {
            let layout = Layout::for_value(self.ptr.as_ref());
            self.ptr.as_ptr().drop_in_place();
            raw::deallocate(self.ptr.cast(), layout);
        }
    }
}

impl<T: ?Sized> Deref for KBox<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: invariant 1.
        unsafe { self.ptr.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for KBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: invariant 1, and `&mut self` is exclusive.
        unsafe { self.ptr.as_mut() }
    }
}

// SAFETY: `as_sized_ptr` is the owned pointer itself and `replace_ptr` puts the same address, now
// with metadata, in its place; ownership moves along.
unsafe impl<T, U: ?Sized> unsize::CoerciblePtr<U> for KBox<T> {
    type Pointee = T;
    type Output = KBox<U>;
    fn as_sized_ptr(&mut self) -> *mut T {
        self.ptr.as_ptr()
    }
    unsafe fn replace_ptr(self, new: *mut U) -> KBox<U> {
        let _given_up = ManuallyDrop::new(self);
        // SAFETY: the trait's contract: `new` is our own pointer, unsized.
        unsafe { KBox::from_raw(new) }
    }
}

impl<T: TryClone> TryClone for KBox<T> {
    fn try_clone(&self) -> Result<Self, AllocError> {
        Self::try_new((**self).try_clone()?)
    }
}

impl<T: ?Sized> AsRef<T> for KBox<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> AsMut<T> for KBox<T> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for KBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for KBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + PartialEq> PartialEq for KBox<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl<T: ?Sized + Eq> Eq for KBox<T> {}

impl<T: ?Sized + PartialOrd> PartialOrd for KBox<T> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        (**self).partial_cmp(&**other)
    }
}
impl<T: ?Sized + Ord> Ord for KBox<T> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl<T: ?Sized + Hash> Hash for KBox<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<I: ?Sized + Iterator> Iterator for KBox<I> {
    type Item = I::Item;
    fn next(&mut self) -> Option<I::Item> {
        (**self).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CoerceUnsize, Coercion};
    use core::{any::Any, cell::Cell};

    struct CountDrop<'a>(&'a Cell<u32>);
    impl Drop for CountDrop<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn drops_its_value_once_also_through_a_trait_object() {
        trait Probe {
            fn drops(&self) -> u32;
        }
        impl Probe for CountDrop<'_> {
            fn drops(&self) -> u32 {
                self.0.get()
            }
        }
        let count = Cell::new(0);
        {
            let b: KBox<dyn Probe + '_> =
                KBox::try_new(CountDrop(&count)).unwrap().unsize(Coercion!(to dyn Probe));
            assert_eq!(b.drops(), 0);
        }
        assert_eq!(count.get(), 1);
        drop(KBox::try_new(CountDrop(&count)).unwrap().into_inner());
        assert_eq!(count.get(), 2);
    }

    #[test]
    fn zero_sized_values_need_no_memory() {
        crate::fail_nth(1);
        let b = KBox::try_new(());
        assert!(crate::disarm(), "no allocation happened");
        assert!(b.is_ok());
    }

    #[test]
    fn an_injected_failure_is_an_error() {
        crate::fail_nth(2);
        assert!(KBox::try_new(1u32).is_ok());
        assert_eq!(KBox::try_new(2u32).err(), Some(AllocError));
        assert!(!crate::disarm());
        assert!(KBox::try_new(3u32).is_ok());
    }

    #[test]
    fn downcast_gives_the_value_or_the_box_back() {
        let b: KBox<dyn Any + Send> = crate::kbox_dyn!(7u32 => dyn Any + Send).unwrap();
        let b = b.downcast::<u64>().err().unwrap();
        assert_eq!(*b.downcast::<u32>().ok().unwrap(), 7);
    }
}
