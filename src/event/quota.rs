//! How many watches of a kind each user has: what keeps one user from filling the memory with
//! them (/proc/sys/fs/epoll/max_user_watches, /proc/sys/fs/inotify).

use abi::{Errno, Result, Uid};
use collections::OrdMap;
use sync::{LockClass, SpinLock};

static QUOTA: LockClass = LockClass::new("event.quota", 1063);

/// What is counted for each user.
pub(crate) struct Quota {
    users: SpinLock<OrdMap<Uid, u64>>,
}

/// One of a user's; dropping it gives it back.
pub(crate) struct Charge {
    quota: &'static Quota,
    uid: Uid,
}

impl Quota {
    pub(crate) const fn new() -> Self {
        Self { users: SpinLock::new(OrdMap::new(), &QUOTA) }
    }

    /// Counts one more for `uid`. `full` when that would be more than `limit`; ENOMEM.
    pub(crate) fn charge(&'static self, uid: Uid, limit: u64, full: Errno) -> Result<Charge> {
        let mut users = self.users.lock();
        match users.get_mut(&uid) {
            Some(n) if *n >= limit => return Err(full),
            Some(n) => *n += 1,
            None if limit == 0 => return Err(full),
            None => {
                drop(users);
                let node = OrdMap::reserve_node()?;
                users = self.users.lock();
                match users.get_mut(&uid) {
                    Some(n) => *n += 1,
                    None => {
                        users.insert_reserved(node, uid, 1);
                    }
                }
            }
        }
        Ok(Charge { quota: self, uid })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut users = self.quota.users.lock();
        let empty = users.get_mut(&self.uid).is_some_and(|n| {
            *n -= 1;
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
}
