//! The lists from which reclaim will choose: every page of a cache and every anonymous page is on
//! one, new pages in front.
//!
//! One set of lists per CPU, so that faults on different CPUs take no common lock; a page remembers
//! in its `private` word whose lists it went to. The lists hold no reference: a page leaves them
//! before its last reference goes (an anonymous page with its last mapping, a cached one when it
//! leaves its cache).
//!
//! Context: any but interrupts; under page-table locks.

use abi::MAX_CPUS;
use frames::{Counter, Frame, FrameFlags, FrameList};
use sync::{PerCpu, PreemptGuard, SpinLock, per_cpu};

use crate::locks;

/// Which of a CPU's lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// Anonymous and shared memory: goes to swap.
    Anon,
    /// Pages of files: can be dropped or written back.
    File,
}

struct Lists {
    anon: FrameList,
    file: FrameList,
}

static LISTS: PerCpu<SpinLock<Lists>> =
    per_cpu!(SpinLock::new(Lists { anon: FrameList::new(), file: FrameList::new() }, &locks::LRU));

/// Puts a page on this CPU's list.
pub(crate) fn add(frame: &'static Frame, which: Which) {
    let cpu = PreemptGuard::new();
    let cpu = cpu.cpu();
    let mut lists = LISTS.get(cpu).lock();
    let (list, counter) = match which {
        Which::Anon => (&mut lists.anon, Counter::InactiveAnon),
        Which::File => (&mut lists.file, Counter::InactiveFile),
    };
    if list.push_front(frame) {
        frame.set_private(u64::from(cpu.0));
        frame.set(FrameFlags::LRU);
        frames::count(counter, 1);
    }
}

/// Takes a page off its list.
pub(crate) fn remove(frame: &'static Frame) {
    if !frame.test(FrameFlags::LRU) {
        return;
    }
    let cpu = abi::CpuId(frame.private() as u32 % MAX_CPUS as u32);
    let mut lists = LISTS.get(cpu).lock();
    if lists.anon.remove(frame) {
        frames::count(Counter::InactiveAnon, -1);
    } else if lists.file.remove(frame) {
        frames::count(Counter::InactiveFile, -1);
    }
    frame.clear(FrameFlags::LRU);
}
