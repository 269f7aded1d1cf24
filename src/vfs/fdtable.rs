//! The descriptors of a process.
//!
//! Looking a descriptor up takes no lock: the array is found under RCU, and its slots count a
//! handle only if the file still lives. Changes hold a spin lock; a reader that finds nothing asks
//! again under it, since an array that has just been outgrown is empty.
//!
//! The lowest free number is found in a bitmap; a number can be *reserved* before its file exists,
//! so that a call that creates something knows first that it will find room for it.
//!
//! A file that is taken out is handed to the caller, who drops it outside the spin lock: closing
//! may sleep.

use crate::{OpenFile, class};
use abi::{Errno, Result};
use kalloc::{ArcSlot, KArc, KVec, RcuArc};
use sync::{
    SpinLock,
    atomic::{AtomicU64, Ordering::Relaxed},
    rcu,
};

/// A file descriptor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct Fd(pub u32);

impl Fd {
    /// From a system call's argument. EBADF when negative.
    #[inline]
    pub fn from_raw(n: i32) -> Result<Self> {
        u32::try_from(n).map(Self).map_err(|_| Errno::EBADF)
    }
    fn index(self) -> usize {
        self.0 as usize
    }
}

type Slots = KVec<ArcSlot<OpenFile>>;

#[derive(Default)]
struct Inner {
    /// In use or reserved.
    used: KVec<u64>,
    cloexec: KVec<u64>,
    /// Numbers that there is room for.
    capacity: usize,
    /// No free number below this one.
    lowest: usize,
}

/// The descriptors of a process.
pub struct FdTable {
    /// Owner of the record locks that are taken through this table (`fcntl(2)`).
    locker: u64,
    slots: RcuArc<Slots>,
    inner: SpinLock<Inner>,
}

/// A number that is taken but has no file yet; dropping it frees the number.
pub struct Reservation<'a> {
    table: &'a FdTable,
    fd: Fd,
    empty: bool,
}

impl Inner {
    fn is_used(&self, i: usize) -> bool {
        self.used.get(i / 64).is_some_and(|w| w >> (i % 64) & 1 != 0)
    }
    fn set(words: &mut KVec<u64>, i: usize, on: bool) {
        if let Some(w) = words.get_mut(i / 64) {
            if on {
                *w |= 1 << (i % 64);
            } else {
                *w &= !(1 << (i % 64));
            }
        }
    }

    /// The lowest free number from `min` on; may be beyond the present size.
    fn find_free(&self, min: usize) -> usize {
        let from = min.max(self.lowest);
        let mut word = from / 64;
        let mut mask = u64::MAX << (from % 64);
        while let Some(w) = self.used.get(word) {
            let free = !w & mask;
            if free != 0 {
                return word * 64 + free.trailing_zeros() as usize;
            }
            mask = u64::MAX;
            word += 1;
        }
        from.max(word * 64)
    }

    fn free_number(&mut self, i: usize) {
        Self::set(&mut self.used, i, false);
        Self::set(&mut self.cloexec, i, false);
        self.lowest = self.lowest.min(i);
    }
}

fn empty_slots(n: usize) -> Result<Slots> {
    let mut v = KVec::try_with_capacity(n)?;
    for _ in 0..n {
        let _ = v.push_within_capacity(ArcSlot::new(None));
    }
    Ok(v)
}

fn next_locker() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

impl FdTable {
    /// Identity of the table, which owns its users' record locks.
    pub fn locker(&self) -> u64 {
        self.locker
    }

    /// A table without descriptors.
    pub fn new() -> Result<KArc<Self>> {
        let inner = SpinLock::new(Inner::default(), &class::FD_TABLE);
        Ok(KArc::try_new(Self { locker: next_locker(), slots: RcuArc::new(None), inner })?)
    }

    /// The file of `fd`. EBADF.
    #[inline]
    pub fn get(&self, fd: Fd) -> Result<KArc<OpenFile>> {
        {
            let g = rcu::read_lock();
            let slot = self.slots.load(&g).and_then(|s| s.get(fd.index()));
            if let Some(f) = slot.and_then(|s| s.get_in(&g)) {
                return Ok(f);
            }
        }
        let _lock = self.inner.lock();
        self.get_locked(fd).ok_or(Errno::EBADF)
    }

    fn get_locked(&self, fd: Fd) -> Option<KArc<OpenFile>> {
        let g = rcu::read_lock();
        self.slots.load(&g)?.get(fd.index())?.get_in(&g)
    }

    /// Exchanges the file of a number that there is room for. The lock is held.
    fn swap_locked(&self, fd: Fd, file: Option<KArc<OpenFile>>) -> Option<KArc<OpenFile>> {
        let g = rcu::read_lock();
        self.slots.load(&g)?.get(fd.index())?.swap(file)
    }

    /// Room for number `i`. The lock is held.
    fn grow(&self, t: &mut Inner, i: usize) -> Result {
        if i < t.capacity {
            return Ok(());
        }
        // Doubling keeps the number of copies small; whole words keep the bitmaps simple.
        let n = i.saturating_add(1).max(t.capacity.saturating_mul(2)).max(64).next_multiple_of(64);
        let new = KArc::try_new(empty_slots(n)?)?;
        t.used.try_resize(n / 64, 0)?;
        t.cloexec.try_resize(n / 64, 0)?;
        let old = self.slots.get();
        if let Some(old) = &old {
            for (to, from) in new.iter().zip(old.iter()) {
                to.swap(from.get());
            }
        }
        self.slots.store(Some(new));
        // The old array must not keep files open until its readers are gone.
        for from in old.iter().flat_map(|o| o.iter()) {
            drop(from.take());
        }
        t.capacity = n;
        Ok(())
    }

    fn take_number(&self, t: &mut Inner, cloexec: bool, min: usize, limit: usize) -> Result<usize> {
        let i = t.find_free(min);
        if i >= limit {
            return Err(Errno::EMFILE);
        }
        self.grow(t, i)?;
        Inner::set(&mut t.used, i, true);
        Inner::set(&mut t.cloexec, i, cloexec);
        if min <= t.lowest {
            t.lowest = i + 1;
        }
        Ok(i)
    }

    fn remove(&self, t: &mut Inner, fd: Fd) -> Result<KArc<OpenFile>> {
        let file = self.swap_locked(fd, None).ok_or(Errno::EBADF)?;
        t.free_number(fd.index());
        Ok(file)
    }

    /// The file of `fd` for a call that an O_PATH descriptor does not allow. EBADF.
    #[inline]
    pub fn get_file(&self, fd: Fd) -> Result<KArc<OpenFile>> {
        let f = self.get(fd)?;
        if f.is_path_only() { Err(Errno::EBADF) } else { Ok(f) }
    }

    /// Takes the lowest free number from `min` on, below `limit` (RLIMIT_NOFILE). EMFILE.
    pub fn reserve(&self, cloexec: bool, min: u32, limit: u64) -> Result<Reservation<'_>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(1 << 30);
        let i = self.take_number(&mut self.inner.lock(), cloexec, min as usize, limit)?;
        Ok(Reservation { table: self, fd: Fd(i as u32), empty: true })
    }

    /// Gives `file` the lowest free number from `min` on. EMFILE.
    pub fn install(&self, file: KArc<OpenFile>, cloexec: bool, min: u32, limit: u64) -> Result<Fd> {
        Ok(self.reserve(cloexec, min, limit)?.install(file))
    }

    /// `fcntl(F_DUPFD)`: EINVAL when `min` is not below the limit.
    pub fn dup(&self, fd: Fd, cloexec: bool, min: u32, limit: u64) -> Result<Fd> {
        let file = self.get(fd)?;
        if u64::from(min) >= limit && min > 0 {
            return Err(Errno::EINVAL);
        }
        self.install(file, cloexec, min, limit)
    }

    /// `dup2(2)` and `dup3(2)` with different numbers: `to` becomes another descriptor of `from`'s
    /// file. What `to` was is closed; its error is lost, as on Linux. EBADF; EBUSY while another
    /// thread opens a file with that number.
    pub fn dup_to(&self, from: Fd, to: Fd, cloexec: bool, limit: u64) -> Result {
        if u64::from(to.0) >= limit {
            return Err(Errno::EBADF);
        }
        let old = {
            let mut t = self.inner.lock();
            let file = self.get_locked(from).ok_or(Errno::EBADF)?;
            self.grow(&mut t, to.index())?;
            if t.is_used(to.index()) && self.get_locked(to).is_none() {
                return Err(Errno::EBUSY);
            }
            let old = self.swap_locked(to, Some(file));
            Inner::set(&mut t.used, to.index(), true);
            Inner::set(&mut t.cloexec, to.index(), cloexec);
            if t.lowest == to.index() {
                t.lowest += 1;
            }
            old
        };
        if let Some(f) = old {
            let _lost = f.closing(self.locker);
        }
        Ok(())
    }

    /// `close(2)`: the table's record locks on the file go too. EBADF, or the file's error
    /// on closing: the descriptor is gone in any case.
    pub fn close(&self, fd: Fd) -> Result {
        let file = self.remove(&mut self.inner.lock(), fd)?;
        file.closing(self.locker)
    }

    /// `close_range(2)`: closes, or with `only_mark` sets close-on-exec of, `first` to `last`.
    pub fn close_range(&self, first: u32, last: u32, only_mark: bool) {
        let mut i = first;
        while i <= last {
            let file = {
                let mut t = self.inner.lock();
                if i as usize >= t.capacity {
                    break;
                }
                if only_mark {
                    if t.is_used(i as usize) {
                        Inner::set(&mut t.cloexec, i as usize, true);
                    }
                    None
                } else {
                    self.remove(&mut t, Fd(i)).ok()
                }
            };
            if let Some(f) = file {
                let _lost = f.closing(self.locker);
            }
            match i.checked_add(1) {
                Some(n) => i = n,
                None => break,
            }
        }
    }

    /// Closes what is marked close-on-exec.
    pub fn close_on_exec(&self) {
        loop {
            let file = {
                let mut t = self.inner.lock();
                let Some(word) = t.cloexec.iter().position(|&w| w != 0) else { break };
                let bit = t.cloexec.get(word).map_or(0, |w| w.trailing_zeros() as usize);
                let i = word * 64 + bit;
                match self.remove(&mut t, Fd(i as u32)) {
                    Ok(f) => f,
                    Err(_) => {
                        Inner::set(&mut t.cloexec, i, false);
                        continue;
                    }
                }
            };
            let _lost = file.closing(self.locker);
        }
    }

    /// Whether `fd` is closed on exec. EBADF.
    pub fn is_cloexec(&self, fd: Fd) -> Result<bool> {
        let t = self.inner.lock();
        if self.get_locked(fd).is_none() {
            return Err(Errno::EBADF);
        }
        Ok(t.cloexec.get(fd.index() / 64).is_some_and(|w| w >> (fd.0 % 64) & 1 != 0))
    }

    /// Sets whether `fd` is closed on exec. EBADF.
    pub fn set_cloexec(&self, fd: Fd, on: bool) -> Result {
        let mut t = self.inner.lock();
        if self.get_locked(fd).is_none() {
            return Err(Errno::EBADF);
        }
        Inner::set(&mut t.cloexec, fd.index(), on);
        Ok(())
    }

    /// A copy with descriptors of the same files (fork without CLONE_FILES, unshare).
    pub fn copy(&self) -> Result<KArc<Self>> {
        loop {
            // Memory is found without the lock.
            let n = self.inner.lock().capacity;
            let slots = empty_slots(n)?;
            let mut new = Inner { capacity: n, ..Inner::default() };
            new.used.try_resize(n / 64, 0)?;
            new.cloexec.try_resize(n / 64, 0)?;
            {
                let t = self.inner.lock();
                if t.capacity != n {
                    continue;
                }
                let g = rcu::read_lock();
                let old = self.slots.load(&g);
                for (w, (to, from)) in new.used.iter_mut().zip(t.used.iter()).enumerate() {
                    let mut left = *from;
                    while left != 0 {
                        let i = w * 64 + left.trailing_zeros() as usize;
                        left &= left - 1;
                        // A reserved number has no file and is not copied.
                        if let Some(f) = old.and_then(|o| o.get(i)).and_then(|s| s.get_in(&g)) {
                            let _empty = slots.get(i).and_then(|s| s.swap(Some(f)));
                            *to |= 1 << (i % 64);
                        }
                    }
                }
                for (w, (to, from)) in new.cloexec.iter_mut().zip(t.cloexec.iter()).enumerate() {
                    *to = from & new.used.get(w).copied().unwrap_or(0);
                }
            }
            let inner = SpinLock::new(new, &class::FD_TABLE);
            return Ok(KArc::try_new(Self { locker: next_locker(), slots: RcuArc::new(Some(KArc::try_new(slots)?)), inner })?);
        }
    }

    /// The first open descriptor from `from` on: for /proc/PID/fd.
    pub fn next(&self, from: Fd) -> Option<(Fd, KArc<OpenFile>)> {
        let g = rcu::read_lock();
        let rest = self.slots.load(&g)?.get(from.index()..)?;
        rest.iter().enumerate().find_map(|(i, s)| s.get_in(&g).map(|f| (Fd(from.0.saturating_add(i as u32)), f)))
    }

    /// Numbers that the table has room for (FDSize in /proc/PID/status).
    pub fn size(&self) -> usize {
        self.inner.lock().capacity
    }
}

impl Reservation<'_> {
    /// The number.
    pub fn fd(&self) -> Fd {
        self.fd
    }
    /// Puts the file there.
    pub fn install(mut self, file: KArc<OpenFile>) -> Fd {
        let fd = self.fd;
        self.empty = false;
        let _none = {
            let _lock = self.table.inner.lock();
            self.table.swap_locked(fd, Some(file))
        };
        fd
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.empty {
            self.table.inner.lock().free_number(self.fd.index());
        }
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        // Files close now and here, not after a grace period.
        if let Some(slots) = self.slots.get() {
            for file in slots.iter().filter_map(|s| s.take()) {
                let _lost = file.closing(self.locker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Credentials, FileOps, anon};
    use abi::Mode;
    use kalloc::kbox_dyn;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    struct Marked(u32);
    impl FileOps for Marked {
        fn as_any(&self) -> &dyn core::any::Any {
            self
        }
    }

    fn file(mark: u32) -> KArc<OpenFile> {
        let inode = anon::inode(Mode(abi::raw::general::S_IFREG | 0o600), 0, 0).unwrap();
        let cred = KArc::try_new(Credentials::root()).unwrap();
        let ops = kbox_dyn!(Marked(mark) => dyn FileOps).unwrap();
        OpenFile::anonymous(b"test", inode, ops, 0, &cred).unwrap()
    }
    fn mark(f: &OpenFile) -> u32 {
        f.ops_as::<Marked>().unwrap().0
    }

    #[derive(Clone, Debug)]
    enum Op {
        Install(u32, bool),
        Close(u32),
        DupTo(u32, u32, bool),
        Reserve(u32),
        Mark(u32, bool),
        Copy,
        Exec,
    }

    const LIMIT: u64 = 200;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_table_behaves_as_a_map_with_the_lowest_free_number(ops in prop::collection::vec(prop_oneof![
            4 => (0u32..80, any::<bool>()).prop_map(|(m, c)| Op::Install(m, c)),
            3 => (0u32..120).prop_map(Op::Close),
            2 => (0u32..80, 0u32..220, any::<bool>()).prop_map(|(a, b, c)| Op::DupTo(a, b, c)),
            1 => (0u32..80).prop_map(Op::Reserve),
            1 => (0u32..80, any::<bool>()).prop_map(|(a, c)| Op::Mark(a, c)),
            1 => Just(Op::Copy),
            1 => Just(Op::Exec),
        ], 1..120)) {
            let mut table = FdTable::new().unwrap();
            let mut model: BTreeMap<u32, (u32, bool)> = BTreeMap::new();
            for (n, op) in ops.into_iter().enumerate() {
                let n = n as u32;
                match op {
                    Op::Install(min, cloexec) => {
                        let free = (min..).find(|i| !model.contains_key(i)).unwrap();
                        prop_assert_eq!(table.install(file(n), cloexec, min, LIMIT), Ok(Fd(free)));
                        model.insert(free, (n, cloexec));
                    }
                    Op::Close(fd) => {
                        prop_assert_eq!(table.close(Fd(fd)).is_ok(), model.remove(&fd).is_some());
                    }
                    Op::DupTo(from, to, cloexec) if from != to => {
                        let known = model.get(&from).copied().filter(|_| u64::from(to) < LIMIT);
                        prop_assert_eq!(table.dup_to(Fd(from), Fd(to), cloexec, LIMIT).is_ok(), known.is_some());
                        if let Some((m, _)) = known {
                            model.insert(to, (m, cloexec));
                        }
                    }
                    Op::DupTo(..) => {}
                    Op::Reserve(min) => {
                        let r = table.reserve(true, min, LIMIT).unwrap();
                        prop_assert!(!model.contains_key(&r.fd().0));
                        prop_assert!(table.get(r.fd()).is_err());
                    }
                    Op::Mark(fd, on) => {
                        prop_assert_eq!(table.set_cloexec(Fd(fd), on).is_ok(), model.contains_key(&fd));
                        if let Some(e) = model.get_mut(&fd) {
                            e.1 = on;
                        }
                    }
                    Op::Copy => table = table.copy().unwrap(),
                    Op::Exec => {
                        table.close_on_exec();
                        model.retain(|_, (_, cloexec)| !*cloexec);
                    }
                }
                let mut at = Fd(0);
                let mut seen = BTreeMap::new();
                while let Some((fd, f)) = table.next(at) {
                    seen.insert(fd.0, (mark(&f), table.is_cloexec(fd).unwrap()));
                    at = Fd(fd.0 + 1);
                }
                prop_assert_eq!(&seen, &model);
            }
        }
    }

    #[test]
    fn the_limit_is_emfile() {
        let t = FdTable::new().unwrap();
        for _ in 0..3 {
            t.install(file(0), false, 0, 3).unwrap();
        }
        assert_eq!(t.install(file(0), false, 0, 3), Err(Errno::EMFILE));
        assert_eq!(t.dup(Fd(0), false, 3, 3), Err(Errno::EINVAL));
    }

    #[test]
    fn closing_releases_the_file_at_once_also_after_growth() {
        struct Tell(std::sync::Arc<std::sync::atomic::AtomicU32>);
        impl FileOps for Tell {
            fn release(&self, _f: &OpenFile) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            fn as_any(&self) -> &dyn core::any::Any {
                self
            }
        }
        let released = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let t = FdTable::new().unwrap();
        let inode = anon::inode(Mode(abi::raw::general::S_IFREG | 0o600), 0, 0).unwrap();
        let cred = KArc::try_new(Credentials::root()).unwrap();
        let ops = kbox_dyn!(Tell(released.clone()) => dyn FileOps).unwrap();
        let f = OpenFile::anonymous(b"t", inode, ops, 0, &cred).unwrap();
        t.install(f, false, 0, 1024).unwrap();
        t.install(file(1), false, 500, 1024).unwrap();
        let copy = t.copy().unwrap();
        t.close(Fd(0)).unwrap();
        assert_eq!(released.load(std::sync::atomic::Ordering::SeqCst), 0);
        drop(copy);
        assert_eq!(released.load(std::sync::atomic::Ordering::SeqCst), 1);
    }

    #[test]
    fn readers_see_a_file_or_ebadf_while_others_open_and_close() {
        let t = FdTable::new().unwrap();
        t.install(file(7), false, 0, 1 << 20).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        assert_eq!(mark(&t.get(Fd(0)).unwrap()), 7, "never lost while the table grows");
                        if let Ok(f) = t.get(Fd(1)) {
                            assert_eq!(mark(&f), 9);
                        }
                    }
                });
            }
            for i in 0..300u32 {
                t.install(file(9), false, 1, 1 << 20).unwrap();
                if i % 30 == 0 {
                    t.install(file(3), false, 64 << (i / 30), 1 << 20).unwrap();
                }
                t.close(Fd(1)).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
