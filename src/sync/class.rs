//! What a lock class is: the name and the place in the lock order that all locks of a kind share.

/// A kind of lock. Every lock names one; the class, not the lock, has a place in the lock order.
///
/// Outer locks have lower ranks: while a lock of rank `r` is held, only ranks above `r` may be
/// taken, or the same class through `lock_nested` with an ascending subclass. The ranks in use
/// are listed in docs/locking.md.
pub struct LockClass {
    name: &'static str,
    rank: u16,
    #[cfg(all(debug_assertions, not(loom)))]
    pub(crate) usage: crate::lockdep::Usage,
}

impl LockClass {
    /// A class; it must be a `static`, since its address is its identity.
    pub const fn new(name: &'static str, rank: u16) -> Self {
        Self {
            name,
            rank,
            #[cfg(all(debug_assertions, not(loom)))]
            usage: crate::lockdep::Usage::new(),
        }
    }

    /// The name that reports show.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The place in the lock order.
    pub const fn rank(&self) -> u16 {
        self.rank
    }
}
