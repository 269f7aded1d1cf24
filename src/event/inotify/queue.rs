//! The events of an inotify instance, as a read gives them (`struct inotify_event`).

use abi::{Errno, Result, raw::general as g};
use collections::{ArcList, Link};
use kalloc::{KArc, KBytes};
use vfs::IoSink;

/// Bytes of `struct inotify_event` without its name; the name is padded to multiples of it.
const HEAD: usize = 16;

/// An event that waits to be read.
pub(super) struct Queued {
    link: Link,
    wd: i32,
    mask: u32,
    cookie: u32,
    name: KBytes,
}

collections::link_field!(QueuedLink: Queued => link);

impl Queued {
    fn try_new(wd: i32, mask: u32, cookie: u32, name: &[u8]) -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self { link: Link::new(), wd, mask, cookie, name: KBytes::try_from_slice(name)? })?)
    }

    /// Bytes of the name in the event: with at least one NUL, if there is a name.
    fn name_room(&self) -> usize {
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEAD) }
    }

    fn size(&self) -> usize {
        HEAD + self.name_room()
    }

    /// Copies the event out. EFAULT.
    pub(super) fn write(&self, dst: &mut IoSink<'_>) -> Result<usize> {
        let mut head = [0; HEAD];
        let words = [self.wd as u32, self.mask, self.cookie, self.name_room() as u32];
        for (to, word) in head.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        dst.write_all(&head)?;
        if !self.name.is_empty() {
            dst.write_all(&self.name)?;
            let padding = self.name_room() - self.name.len();
            if dst.write_zeros(padding)? < padding {
                return Err(Errno::EFAULT);
            }
        }
        Ok(self.size())
    }
}

/// The queue; at most `most` events, and one that says that there were more.
pub(super) struct Queue {
    list: ArcList<QueuedLink>,
    most: u64,
    bytes: usize,
    /// Queued when there is no room or no memory for an event.
    overflow: KArc<Queued>,
}

impl Queue {
    pub(super) fn new(most: u64) -> Result<Self> {
        let overflow = Queued::try_new(-1, g::IN_Q_OVERFLOW, 0, &[])?;
        Ok(Self { list: ArcList::new(), most, bytes: 0, overflow })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes that a read could get (FIONREAD).
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn append(&mut self, event: KArc<Queued>) -> bool {
        let size = event.size();
        let added = self.list.push_back(event).is_ok();
        if added {
            self.bytes += size;
        }
        added
    }

    /// Adds an event unless it is the same as the last one. False: nothing was added.
    pub(super) fn push(&mut self, wd: i32, mask: u32, cookie: u32, name: &[u8]) -> bool {
        if self.list.back().is_some_and(|e| e.mask & g::IN_IGNORED == 0 && e.mask == mask && e.wd == wd && *e.name == *name) {
            return false;
        }
        let full = self.list.len() as u64 >= self.most;
        let event = if full { None } else { Queued::try_new(wd, mask, cookie, name).ok() };
        // On the list already, the overflow is not added again.
        let event = event.unwrap_or_else(|| self.overflow.clone());
        self.append(event)
    }

    /// Takes the first event, if a buffer of `room` bytes has room for it; EINVAL if not.
    pub(super) fn pop(&mut self, room: usize) -> Result<Option<KArc<Queued>>> {
        let Some(size) = self.list.front().map(Queued::size) else { return Ok(None) };
        if size > room {
            return Err(Errno::EINVAL);
        }
        self.bytes -= size;
        Ok(self.list.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(q: &mut Queue) -> Vec<(i32, u32, Vec<u8>)> {
        core::iter::from_fn(|| q.pop(1000).unwrap().map(|e| (e.wd, e.mask, e.name.to_vec()))).collect()
    }

    #[test]
    fn equal_neighbours_become_one_but_ignored_never() {
        let mut q = Queue::new(100).unwrap();
        assert!(q.push(1, g::IN_MODIFY, 0, b""));
        assert!(!q.push(1, g::IN_MODIFY, 7, b""), "the cookie is not looked at");
        assert!(q.push(1, g::IN_MODIFY, 0, b"a"));
        assert!(q.push(1, g::IN_MODIFY, 0, b""));
        assert!(q.push(1, g::IN_IGNORED, 0, b""));
        assert!(q.push(1, g::IN_IGNORED, 0, b""));
        assert_eq!(q.bytes(), 6 * 16);
        assert_eq!(all(&mut q).len(), 5);
        assert_eq!(q.bytes(), 0);
    }

    #[test]
    fn beyond_the_limit_one_event_says_that_there_were_more() {
        let mut q = Queue::new(2).unwrap();
        assert!(q.push(1, 1, 0, b"") && q.push(1, 2, 0, b""));
        assert!(q.push(1, 4, 0, b""));
        assert!(!q.push(1, 8, 0, b""));
        assert_eq!(all(&mut q), [(1, 1, vec![]), (1, 2, vec![]), (-1, g::IN_Q_OVERFLOW, vec![])]);
        assert!(q.push(1, 8, 0, b""));
        kalloc::fail_nth(1);
        assert!(q.push(1, 16, 0, b""), "no memory is an overflow, too");
        kalloc::disarm();
        assert_eq!(all(&mut q), [(1, 8, vec![]), (-1, g::IN_Q_OVERFLOW, vec![])]);
    }

    #[test]
    fn names_are_padded_to_whole_heads() {
        let mut q = Queue::new(9).unwrap();
        for (name, size) in [(&b""[..], 16), (b"a", 32), (b"fifteen bytes..", 32), (b"sixteen bytes...", 48)] {
            q.push(3, g::IN_CREATE, 5, name);
            assert_eq!(q.bytes(), size);
            assert!(matches!(q.pop(size - 1), Err(Errno::EINVAL)));
            let event = q.pop(size).unwrap().unwrap();
            let mut buf = vec![9; size];
            assert_eq!(event.write(&mut IoSink::kernel(&mut buf)), Ok(size));
            assert_eq!(buf[..12], [3, 0, 0, 0, 0, 1, 0, 0, 5, 0, 0, 0]);
            assert_eq!(&buf[16..16 + name.len()], name);
            assert!(buf[16 + name.len()..].iter().all(|b| *b == 0));
        }
    }
}
