//! Execution domains (`personality(2)`): flags by which programs of other systems, and debuggers,
//! ask for other habits of the kernel.
//!
//! A thread has one, inherited by its children and kept by exec, except for what exec of a set-id
//! file takes away. What has an effect: [`Personality::ADDR_NO_RANDOMIZE`], `ADDR_COMPAT_LAYOUT` and
//! `MMAP_PAGE_ZERO` in exec, `READ_IMPLIES_EXEC` in mmap and mprotect, `UNAME26` in uname,
//! `STICKY_TIMEOUTS` in select. The other flags are kept and told, as on Linux.

use crate::task::Task;
use abi::{Errno, Result};
use sync::atomic::Ordering;

bitflags::bitflags! {
    /// The flags of a personality.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Personality: u32 {
        /// uname shows a release 2.6.x.
        const UNAME26 = 0x0002_0000;
        /// exec puts everything at its usual place.
        const ADDR_NO_RANDOMIZE = 0x0004_0000;
        /// exec maps a page of zeros at address 0.
        const MMAP_PAGE_ZERO = 0x0010_0000;
        /// mmap places upwards.
        const ADDR_COMPAT_LAYOUT = 0x0020_0000;
        /// What may be read may be executed.
        const READ_IMPLIES_EXEC = 0x0040_0000;
        /// select and its like leave their timeout as it was.
        const STICKY_TIMEOUTS = 0x0400_0000;
        /// The domain (low byte) and flags that have no effect.
        const _ = !0;
    }
}

/// The domain of 32-bit programs (PER_LINUX32), in the low byte.
const LINUX32: u32 = 8;

impl Personality {
    /// What a set-id program does not take over from its caller (PER_CLEAR_ON_SETID).
    pub(crate) const UNSAFE: Self =
        Self::READ_IMPLIES_EXEC.union(Self::ADDR_NO_RANDOMIZE).union(Self::ADDR_COMPAT_LAYOUT).union(Self::MMAP_PAGE_ZERO);
}

impl Task {
    /// The thread's personality.
    pub fn personality(&self) -> Personality {
        Personality::from_bits_retain(self.personality.load(Ordering::Relaxed))
    }
    pub(crate) fn set_personality(&self, p: Personality) {
        self.personality.store(p.bits(), Ordering::Relaxed);
    }
}

/// `personality(2)`: the personality before; all ones changes nothing. EINVAL: programs of 32 bits
/// cannot run here.
pub fn personality(task: &Task, new: u32) -> Result<u32> {
    let old = task.personality().bits();
    if new != u32::MAX {
        if new & 0xff == LINUX32 {
            return Err(Errno::EINVAL);
        }
        task.set_personality(Personality::from_bits_retain(new));
    }
    Ok(old)
}
