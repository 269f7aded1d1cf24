//! Character devices: which driver has which numbers.

use crate::{Credentials, FileOps, Inode, Path, class};
use abi::{DevNum, Errno, Result};
use core::ops::Range;
use kalloc::{KArc, KBox, KVec};
use sync::SpinLock;

/// A driver that opens its devices.
pub trait CharDevice: Send + Sync {
    /// What an open of the device does. ENXIO for a minor that does not exist.
    fn open(&self, inode: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>>;
    /// As [`open`](Self::open), for a device to which the place of its node matters (/dev/ptmx).
    fn open_at(&self, path: &Path, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        self.open(path.inode()?, flags, cred)
    }
}

struct Entry {
    major: u32,
    minors: Range<u32>,
    name: &'static str,
    device: KArc<dyn CharDevice>,
}

static DEVICES: SpinLock<KVec<Entry>> = SpinLock::new(KVec::new(), &class::REGISTRY);

/// Registers a driver for `minors` of `major`. EBUSY when some of them are taken.
pub fn register(major: u32, minors: Range<u32>, name: &'static str, device: KArc<dyn CharDevice>) -> Result {
    let mut d = DEVICES.lock();
    if d.iter().any(|e| e.major == major && e.minors.start < minors.end && minors.start < e.minors.end) {
        return Err(Errno::EBUSY);
    }
    Ok(d.try_push(Entry { major, minors, name, device })?)
}

/// Opens the device that the node at `path` stands for. ENXIO without a driver.
pub(crate) fn open(path: &Path, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
    let DevNum { major, minor } = path.inode()?.rdev;
    let device = {
        let d = DEVICES.lock();
        d.iter().find(|e| e.major == major && e.minors.contains(&minor)).map(|e| e.device.clone())
    };
    device.ok_or(Errno::ENXIO)?.open_at(path, flags, cred)
}

/// Calls `f` with major number and name of every driver (/proc/devices).
pub fn for_each(mut f: impl FnMut(u32, &'static str)) {
    let mut i = 0;
    while let Some((major, name)) = { DEVICES.lock().get(i).map(|e| (e.major, e.name)) } {
        f(major, name);
        i += 1;
    }
}
