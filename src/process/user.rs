//! How many threads a user has (`getrlimit(2)`, RLIMIT_NPROC), and how many there are in all
//! (`kernel.threads-max`).
//!
//! A thread counts from before it is seen until it is reaped, for the real user of its credentials.

use abi::{Result, Uid, raw::general::FUTEX_TID_MASK};
use collections::OrdMap;
use kalloc::{KArc, KWeak};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU64, Ordering},
};
use vfs::sysctl::Number;

static USERS_CLASS: LockClass = LockClass::new("process.users", 1043);

static USERS: SpinLock<OrdMap<Uid, KWeak<User>>> = SpinLock::new(OrdMap::new(), &USERS_CLASS);

static THREADS: AtomicU64 = AtomicU64::new(0);
/// More threads than a futex word can name would be of no use.
const MOST_THREADS: i64 = FUTEX_TID_MASK as i64;
/// `kernel.threads-max`.
pub(crate) static THREADS_MAX: Number = Number::new(MOST_THREADS, 1, MOST_THREADS);

/// Someone to whom threads are counted.
pub(crate) struct User {
    uid: Uid,
    threads: AtomicU64,
}

impl User {
    /// The user with this id.
    pub fn find(uid: Uid) -> Result<KArc<Self>> {
        // Found without an allocation where it can be: most calls are for a user who is there.
        if let Some(user) = USERS.lock().get(&uid).and_then(KWeak::upgrade) {
            return Ok(user);
        }
        let node = OrdMap::<Uid, KWeak<User>>::reserve_node()?;
        let new = KArc::try_new(Self { uid, threads: AtomicU64::new(0) })?;
        let mut users = USERS.lock();
        let user = match users.get(&uid).and_then(KWeak::upgrade) {
            Some(user) => user,
            None => {
                let gone = users.insert_reserved(node, uid, KArc::downgrade(&new));
                drop(users);
                drop(gone);
                return Ok(new);
            }
        };
        drop(users);
        Ok(user)
    }

    pub fn threads(&self) -> u64 {
        self.threads.load(Ordering::Relaxed)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut users = USERS.lock();
        // A new user of the same id may have taken the place already.
        let gone = match users.get(&self.uid) {
            Some(weak) if weak.strong_count() == 0 => users.remove(&self.uid),
            _ => None,
        };
        drop(users);
        drop(gone);
    }
}

/// A thread as it is counted.
pub(crate) struct Counted(KArc<User>);

impl Counted {
    pub fn new(user: KArc<User>) -> Self {
        user.threads.fetch_add(1, Ordering::Relaxed);
        THREADS.fetch_add(1, Ordering::Relaxed);
        Self(user)
    }
    pub fn user(&self) -> &KArc<User> {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.threads.fetch_sub(1, Ordering::Relaxed);
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many threads there are, zombies included.
pub fn threads() -> u64 {
    THREADS.load(Ordering::Relaxed)
}

/// `kernel.threads-max`.
pub fn threads_max() -> u64 {
    THREADS_MAX.get().unsigned_abs()
}

/// At boot, by the size of memory.
pub(crate) fn set_threads_max(max: u64) -> Result {
    THREADS_MAX.set(i64::try_from(max).unwrap_or(i64::MAX).clamp(1, MOST_THREADS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_for_their_user_until_they_go() {
        let user = User::find(4711).unwrap();
        let (a, b) = (Counted::new(user.clone()), Counted::new(User::find(4711).unwrap()));
        assert_eq!(user.threads(), 2);
        drop(a);
        assert_eq!(b.user().threads(), 1);
        drop(b);
        assert_eq!(user.threads(), 0);
    }

    #[test]
    fn a_user_without_threads_is_forgotten() {
        drop(User::find(4712).unwrap());
        assert!(USERS.lock().get(&4712).is_none());
        for n in 1..3 {
            kalloc::fail_nth(n);
            assert!(User::find(4713).is_err());
            kalloc::disarm();
        }
        assert!(USERS.lock().get(&4713).is_none());
    }
}
