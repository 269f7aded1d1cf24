//! The words in which others speak to the memory manager: requests, protections, outcomes.

use abi::{DevNum, Errno, Result, UserAddr, raw::general as g};
use core::fmt;
use kalloc::KArc;

use sync::atomic::{AtomicU64, Ordering};

use crate::PageCache;

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// A number for a page cache or an address space that no other one of either kind ever has.
pub(crate) fn next_serial() -> u64 {
    NEXT_SERIAL.fetch_add(1, Ordering::Relaxed)
}

bitflags::bitflags! {
    /// What a mapping allows (`mmap(2)`, PROT_*).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Prot: u32 {
        /// PROT_READ
        const R = g::PROT_READ;
        /// PROT_WRITE
        const W = g::PROT_WRITE;
        /// PROT_EXEC
        const X = g::PROT_EXEC;
        /// PROT_BTI: an indirect branch into it must meet a landing pad. Where CPUs have it
        /// (FEAT_BTI), and with `X` only.
        const BTI = 0x10;
    }
}

impl Prot {
    /// Read and write: the usual data mapping.
    pub const RW: Self = Self::R.union(Self::W);
    /// Read and execute: the usual text mapping.
    pub const RX: Self = Self::R.union(Self::X);
}

bitflags::bitflags! {
    /// Kind and state of a mapping: what `mmap` asks for plus what `madvise` sets later.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MapFlags: u32 {
        /// Stores reach the backing object (MAP_SHARED).
        const SHARED = 1 << 0;
        /// Grows towards lower addresses on faults below it (MAP_GROWSDOWN).
        const GROWSDOWN = 1 << 1;
        /// The main stack: named `[stack]`, counted against RLIMIT_STACK.
        const STACK = 1 << 2;
        /// Not charged to the commit account (MAP_NORESERVE).
        const NORESERVE = 1 << 3;
        /// Counted as locked (MAP_LOCKED); pages are populated at once and never reclaimed.
        const LOCKED = 1 << 4;
        /// Fault everything in before `map` returns (MAP_POPULATE).
        const POPULATE = 1 << 5;
        /// A child of fork does not get it (MADV_DONTFORK).
        const DONTFORK = 1 << 6;
        /// A child of fork finds zeros (MADV_WIPEONFORK).
        const WIPEONFORK = 1 << 7;
        /// Access pattern advice (MADV_RANDOM).
        const RANDOM = 1 << 8;
        /// Access pattern advice (MADV_SEQUENTIAL).
        const SEQUENTIAL = 1 << 9;
        /// `mprotect` may never add PROT_WRITE (a shared mapping of a file open for reading only).
        const NO_WRITE = 1 << 10;
        /// `mprotect` may never add PROT_EXEC (a file on a noexec mount).
        const NO_EXEC = 1 << 11;
        /// Charged to the commit account (internal).
        const ACCOUNTED = 1 << 12;
        /// Not in core dumps (MADV_DONTDUMP).
        const DONTDUMP = 1 << 13;
        /// Beside LOCKED: pages come by faults, as ever, and then stay (MLOCK_ONFAULT).
        const LOCKONFAULT = 1 << 14;
    }
}

/// How the address of a request binds (`mmap(2)`, MAP_FIXED and MAP_FIXED_NOREPLACE).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fixed {
    /// A hint.
    #[default]
    No,
    /// Exactly there; what was there goes.
    Replace,
    /// Exactly there; EEXIST when something is there.
    NoReplace,
}

/// The resource limits that address-space calls obey, in bytes (`getrlimit(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// RLIMIT_AS
    pub as_: u64,
    /// RLIMIT_DATA
    pub data: u64,
    /// RLIMIT_STACK
    pub stack: u64,
    /// RLIMIT_MEMLOCK; no limit for who has CAP_IPC_LOCK.
    pub memlock: u64,
    /// The lowest address that may be mapped; 0 for who has CAP_SYS_RAWIO.
    pub lowest: u64,
}

impl Limits {
    /// No limit at all.
    pub const UNLIMITED: Self = Self { as_: u64::MAX, data: u64::MAX, stack: u64::MAX, memlock: u64::MAX, lowest: 0 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::UNLIMITED
    }
}

/// What a mapping shows.
#[derive(Default)]
pub enum Backing {
    /// Zeros, private or (with [`MapFlags::SHARED`]) shared with children.
    #[default]
    Anonymous,
    /// A file from `offset` on (a multiple of the page size).
    File {
        /// The open file as its file system lets it be mapped.
        file: KArc<dyn MappedFile>,
        /// Byte offset of the mapping's first page.
        offset: u64,
    },
}

/// A request for [`AddressSpace::map`](crate::AddressSpace::map).
#[derive(Default)]
pub struct MapRequest {
    /// Where, or a hint where; `None` lets the kernel choose.
    pub addr: Option<UserAddr>,
    /// How `addr` binds.
    pub fixed: Fixed,
    /// Bytes; rounded up to pages.
    pub len: u64,
    /// Protection.
    pub prot: Prot,
    /// Kind.
    pub flags: MapFlags,
    /// Contents.
    pub backing: Backing,
    /// The caller's limits.
    pub limits: Limits,
}

/// A file as the memory manager sees it: implemented by the VFS, one object per open file.
pub trait MappedFile: Send + Sync {
    /// The page cache whose pages the mapping shows.
    fn cache(&self) -> &KArc<PageCache>;
    /// Whether a mapping of this protection and sharing is allowed (EACCES, EPERM, ENODEV).
    fn may_map(&self, prot: Prot, shared: bool) -> Result;
    /// Flags that every mapping of this file carries: NO_WRITE for a shared mapping of a file that
    /// is not open for writing, NO_EXEC on a noexec mount.
    fn forced_flags(&self, shared: bool) -> MapFlags {
        let _ = shared;
        MapFlags::empty()
    }
    /// The path as `/proc/PID/maps` shows it.
    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result;
    /// A number that mappings of the same open file share: two that continue each other are one
    /// area then. 0: this mapping continues no other.
    fn open_file(&self) -> usize {
        0
    }
    /// Device and inode number, for `/proc/PID/maps`.
    fn identity(&self) -> (DevNum, u64);
    /// A mapping was made or read through: access time.
    fn accessed(&self) {}
    /// A shared mapping is about to be written through: modification time, EROFS, ENOSPC.
    fn page_written(&self, index: u64) -> Result {
        let _ = index;
        Ok(())
    }
    /// A mapping came (+1) or went (-1); `writable` when it is shared and may be written.
    fn mapping_count(&self, delta: isize, writable: bool) {
        let _ = (delta, writable);
    }
    /// For devices that map memory of their own: the frame number to map at page `index`.
    fn device_page(&self, index: u64) -> Option<abi::Pfn> {
        let _ = index;
        None
    }
}

/// What became of a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultOutcome {
    /// The access can be repeated and will succeed.
    Resolved,
    /// Repeat the access; something was in the way (a fatal signal may be waiting).
    Retry,
    /// SIGSEGV with this `si_code`.
    Segv {
        /// SEGV_MAPERR or SEGV_ACCERR.
        code: i32,
    },
    /// SIGBUS, BUS_ADRERR: beyond the end of the file, or it could not be read.
    BusAdrErr,
    /// No memory, and the OOM killer found nothing to kill.
    OutOfMemory,
    /// The thread is being killed.
    Killed,
}

/// `si_code` of a SIGSEGV for an address that nothing maps (`sigaction(2)`).
pub const SEGV_MAPERR: i32 = g::SEGV_MAPERR as i32;
/// `si_code` of a SIGSEGV for an access that the mapping forbids.
pub const SEGV_ACCERR: i32 = g::SEGV_ACCERR as i32;

impl FaultOutcome {
    /// An address that nothing maps.
    pub const MAPERR: Self = Self::Segv { code: SEGV_MAPERR };
    /// An access that the mapping forbids.
    pub const ACCERR: Self = Self::Segv { code: SEGV_ACCERR };
}

/// Advice for [`AddressSpace::advise`](crate::AddressSpace::advise) (`madvise(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are madvise(2)'s
pub enum Advice {
    Normal,
    Random,
    Sequential,
    WillNeed,
    DontNeed,
    Free,
    DontFork,
    DoFork,
    WipeOnFork,
    KeepOnFork,
    DontDump,
    DoDump,
    Cold,
    PageOut,
    PopulateRead,
    PopulateWrite,
}

impl Advice {
    /// The advice of a system call argument; EINVAL for numbers that a Linux without the feature
    /// (KSM, huge pages, memory failure injection) refuses too.
    pub fn from_raw(n: u32) -> Result<Self> {
        Ok(match n {
            g::MADV_NORMAL => Self::Normal,
            g::MADV_RANDOM => Self::Random,
            g::MADV_SEQUENTIAL => Self::Sequential,
            g::MADV_WILLNEED => Self::WillNeed,
            g::MADV_DONTNEED => Self::DontNeed,
            g::MADV_FREE => Self::Free,
            g::MADV_DONTFORK => Self::DontFork,
            g::MADV_DOFORK => Self::DoFork,
            g::MADV_WIPEONFORK => Self::WipeOnFork,
            g::MADV_KEEPONFORK => Self::KeepOnFork,
            g::MADV_DONTDUMP => Self::DontDump,
            g::MADV_DODUMP => Self::DoDump,
            g::MADV_COLD => Self::Cold,
            g::MADV_PAGEOUT => Self::PageOut,
            g::MADV_POPULATE_READ => Self::PopulateRead,
            g::MADV_POPULATE_WRITE => Self::PopulateWrite,
            _ => return Err(Errno::EINVAL),
        })
    }
}

bitflags::bitflags! {
    /// Flags of `mremap(2)`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RemapFlags: u32 {
        /// The mapping may move.
        const MAYMOVE = g::MREMAP_MAYMOVE;
        /// It moves to exactly the given address.
        const FIXED = g::MREMAP_FIXED;
        /// The old mapping stays, empty.
        const DONTUNMAP = g::MREMAP_DONTUNMAP;
    }
}

/// A request for [`AddressSpace::remap`](crate::AddressSpace::remap).
#[derive(Clone, Copy, Debug)]
pub struct RemapRequest {
    /// Start of the old mapping.
    pub old: UserAddr,
    /// Its length in bytes.
    pub old_len: u64,
    /// Its new length.
    pub new_len: u64,
    /// Flags.
    pub flags: RemapFlags,
    /// Target of MREMAP_FIXED, hint of MREMAP_DONTUNMAP.
    pub new: UserAddr,
    /// The caller's limits.
    pub limits: Limits,
}

/// Where exec put things: what `/proc/PID/stat`, `auxv` readers and `prctl(PR_SET_MM)` know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the names are proc(5)'s
pub struct Layout {
    pub start_code: UserAddr,
    pub end_code: UserAddr,
    pub start_data: UserAddr,
    pub end_data: UserAddr,
    pub start_brk: UserAddr,
    pub start_stack: UserAddr,
    pub arg_start: UserAddr,
    pub arg_end: UserAddr,
    pub env_start: UserAddr,
    pub env_end: UserAddr,
    /// Top of the area from which `mmap` places downwards (randomised by exec); zero: a default.
    pub mmap_base: UserAddr,
    /// `mmap` places upwards from `mmap_base` instead.
    pub bottom_up: bool,
}

/// The unwritable half of a limit: turns "limit exceeded" into its errno.
pub(crate) fn require(ok: bool, errno: Errno) -> Result {
    if ok { Ok(()) } else { Err(errno) }
}
