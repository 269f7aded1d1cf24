//! How much of a kind each user has: what keeps one user from filling the memory with watches or
//! pipes (/proc/sys/fs/epoll/max_user_watches, /proc/sys/fs/inotify, /proc/sys/fs/pipe-user-pages-soft).

use abi::{Errno, Result, Uid};
use collections::OrdMap;
use sync::{LockClass, SpinLock};

static QUOTA: LockClass = LockClass::new("vfs.quota", 1243);

/// What is counted for each user.
pub struct Quota {
    users: SpinLock<OrdMap<Uid, u64>>,
}

/// A part of a user's; dropping it gives it back.
pub struct Charge {
    quota: &'static Quota,
    uid: Uid,
    amount: u64,
}

impl Quota {
    /// Nobody has anything.
    pub const fn new() -> Self {
        Self { users: SpinLock::new(OrdMap::new(), &QUOTA) }
    }

    /// Counts one more for `uid`. `full` when that would be more than `limit`; ENOMEM.
    pub fn charge(&'static self, uid: Uid, limit: u64, full: Errno) -> Result<Charge> {
        self.charge_many(uid, 1, limit, full)
    }

    /// Counts `amount` more for `uid`. `full` when that would be more than `limit`; ENOMEM.
    pub fn charge_many(&'static self, uid: Uid, amount: u64, limit: u64, full: Errno) -> Result<Charge> {
        let mut users = self.users.lock();
        match users.get_mut(&uid) {
            Some(n) if n.saturating_add(amount) > limit => return Err(full),
            Some(n) => *n += amount,
            None if amount > limit => return Err(full),
            None => {
                drop(users);
                let node = OrdMap::reserve_node()?;
                users = self.users.lock();
                match users.get_mut(&uid) {
                    Some(n) => *n += amount,
                    None => {
                        users.insert_reserved(node, uid, amount);
                    }
                }
            }
        }
        Ok(Charge { quota: self, uid, amount })
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self::new()
    }
}

impl Charge {
    /// Changes the part to `amount`, whatever the limits are; what the user has in all then.
    pub fn change(&mut self, amount: u64) -> u64 {
        let mut users = self.quota.users.lock();
        let total = users.get_mut(&self.uid).map_or(0, |n| {
            *n = n.saturating_sub(self.amount).saturating_add(amount);
            *n
        });
        self.amount = amount;
        total
    }

    /// The part.
    pub fn amount(&self) -> u64 {
        self.amount
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut users = self.quota.users.lock();
        let empty = users.get_mut(&self.uid).is_some_and(|n| {
            *n = n.saturating_sub(self.amount);
            *n == 0
        });
        let gone = if empty { users.remove_node(&self.uid) } else { None };
        drop(users);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_limit_of_its_own() {
        static Q: Quota = Quota::new();
        let a = Q.charge(1, 2, Errno::ENOSPC).unwrap();
        let _b = Q.charge(1, 2, Errno::ENOSPC).unwrap();
        assert_eq!(Q.charge(1, 2, Errno::ENOSPC).err(), Some(Errno::ENOSPC));
        let other = Q.charge(2, 2, Errno::ENOSPC).unwrap();
        drop(a);
        assert!(Q.charge(1, 2, Errno::ENOSPC).is_ok());
        drop(other);
        assert!(Q.users.lock().get(&2).is_none());
    }

    #[test]
    fn a_part_that_changes_changes_the_sum() {
        static Q: Quota = Quota::new();
        let mut a = Q.charge_many(1, 16, 16, Errno::ENFILE).unwrap();
        assert_eq!(Q.charge_many(1, 1, 16, Errno::ENFILE).err(), Some(Errno::ENFILE));
        assert_eq!(a.change(2), 2);
        let b = Q.charge_many(1, 14, 16, Errno::ENFILE).unwrap();
        assert_eq!(a.change(3), 17);
        drop((a, b));
        assert!(Q.users.lock().get(&1).is_none());
    }
}
