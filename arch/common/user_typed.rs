//! User memory with types: `UserPtr`, `UserSlice` and the plain data that may cross the border.
//!
//! Everything here is built on the four raw copies of the architecture, which check the range.

use super::{Uncopied, raw_copy_from_user, raw_copy_to_user};
use abi::raw::{general as g, system as s};
use abi::{Errno, Result, UserAddr};
use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, size_of, size_of_val};

/// Plain data: every byte pattern is a value, and no byte is padding.
///
/// # Safety
/// The type must be as just said; the copies rely on it in both directions (a padding byte would
/// tell kernel memory to a program).
pub unsafe trait Pod: Copy {}

macro_rules! pod_numbers {
    ($($t:ty),*) => { $(
        // SAFETY: an integer or a raw pointer: any bytes are a value, none are padding.
        unsafe impl Pod for $t {}
    )* };
}
pod_numbers!(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, usize, isize, *mut c_void);

// SAFETY: elements follow each other without gaps.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// Implements `Pod` for a structure after checking that it has no padding and that all its
/// fields are plain data. The pattern names every field, so a field cannot be forgotten.
macro_rules! pod_struct {
    ($($t:path { $($f:ident),* $(,)? })*) => { $(
        const _: () = {
            const fn plain<T: Pod>(v: &T) -> usize { size_of_val(v) }
            // SAFETY: zero bytes are a value of each field, as `plain` demands.
            let $t { $($f),* } = unsafe { core::mem::zeroed::<$t>() };
            assert!(0 $(+ plain(&$f))* == size_of::<$t>(), "the structure has padding");
        };
        // SAFETY: the check above: plain fields, and no byte beyond them.
        unsafe impl Pod for $t {}
    )* };
}

/// `siginfo_t` with its padding spelled out: `fields` start where `_sifields` does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigInfo {
    /// Signal number.
    pub si_signo: i32,
    /// Error number, mostly zero.
    pub si_errno: i32,
    /// Where the signal comes from (`SI_*`, `ILL_*`, ...).
    pub si_code: i32,
    /// Always zero.
    pub pad: u32,
    /// The union, as words of the size of its alignment.
    pub fields: [u64; 14],
}

/// `struct sigaction` as `rt_sigaction(2)` moves it, handlers as addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigAction {
    /// `SIG_DFL`, `SIG_IGN` or the handler's address.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to, with `SA_RESTORER`.
    pub restorer: u64,
    /// Signals blocked while the handler runs.
    pub mask: u64,
}

/// `stack_t` with its padding spelled out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigStack {
    /// Lowest address.
    pub ss_sp: u64,
    /// `SS_*`.
    pub ss_flags: i32,
    /// Zero.
    pub pad: u32,
    /// Bytes.
    pub ss_size: u64,
}

/// `struct flock` with its padding spelled out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flock {
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub l_type: i16,
    /// `SEEK_*`.
    pub l_whence: i16,
    /// Zero.
    pub pad: u32,
    /// First byte.
    pub l_start: i64,
    /// Length, zero for "to the end".
    pub l_len: i64,
    /// Who holds the lock.
    pub l_pid: i32,
    /// Zero.
    pub pad2: u32,
}

/// `struct sysinfo` with its padding spelled out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SysInfo {
    /// Seconds since boot.
    pub uptime: i64,
    /// Load averages, scaled by 65536.
    pub loads: [u64; 3],
    /// Memory in `mem_unit`s.
    pub totalram: u64,
    /// Free memory.
    pub freeram: u64,
    /// Shared memory.
    pub sharedram: u64,
    /// Buffers.
    pub bufferram: u64,
    /// Swap space.
    pub totalswap: u64,
    /// Free swap space.
    pub freeswap: u64,
    /// Threads.
    pub procs: u16,
    /// Zero.
    pub pad: [u16; 3],
    /// Zero on 64-bit machines.
    pub totalhigh: u64,
    /// Zero on 64-bit machines.
    pub freehigh: u64,
    /// Bytes in a unit.
    pub mem_unit: u32,
    /// Zero.
    pub pad2: u32,
}

/// `struct tms` of `times(2)`, which no header of the kernel's user interface spells out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tms {
    /// Own user time in ticks.
    pub tms_utime: i64,
    /// Own system time.
    pub tms_stime: i64,
    /// User time of waited-for children.
    pub tms_cutime: i64,
    /// System time of waited-for children.
    pub tms_cstime: i64,
}

/// `struct stat` as arm64 has it (asm-generic); the generated one follows the machine that
/// compiles, so host tests would see another layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Device.
    pub st_dev: u64,
    /// Inode number.
    pub st_ino: u64,
    /// Type and permissions.
    pub st_mode: u32,
    /// Hard links.
    pub st_nlink: u32,
    /// Owner.
    pub st_uid: u32,
    /// Group.
    pub st_gid: u32,
    /// Device that a special file stands for.
    pub st_rdev: u64,
    /// Zero.
    pub pad1: u64,
    /// Bytes.
    pub st_size: i64,
    /// Preferred size of a transfer.
    pub st_blksize: i32,
    /// Zero.
    pub pad2: i32,
    /// Blocks of 512 bytes.
    pub st_blocks: i64,
    /// Last access, seconds.
    pub st_atime: i64,
    /// Nanoseconds.
    pub st_atime_nsec: u64,
    /// Last modification, seconds.
    pub st_mtime: i64,
    /// Nanoseconds.
    pub st_mtime_nsec: u64,
    /// Last change, seconds.
    pub st_ctime: i64,
    /// Nanoseconds.
    pub st_ctime_nsec: u64,
    /// Zero.
    pub unused: [u32; 2],
}

/// The last argument of `pselect6(2)`: a signal mask and its size.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigsetArg {
    /// Address of the mask.
    pub mask: u64,
    /// Its size in bytes.
    pub size: u64,
}

const _: () = {
    assert!(size_of::<SigInfo>() == size_of::<g::siginfo_t>());
    assert!(size_of::<SigAction>() == size_of::<g::kernel_sigaction>());
    assert!(size_of::<SigStack>() == size_of::<g::stack_t>());
    assert!(size_of::<Flock>() == size_of::<g::flock>());
    assert!(size_of::<SysInfo>() == size_of::<s::sysinfo>());
    assert!(size_of::<Stat>() == 128);
    #[cfg(target_arch = "aarch64")]
    assert!(size_of::<Stat>() == size_of::<g::stat>());
};

pod_struct! {
    SigInfo { si_signo, si_errno, si_code, pad, fields }
    SigAction { handler, flags, restorer, mask }
    SigStack { ss_sp, ss_flags, pad, ss_size }
    Flock { l_type, l_whence, pad, l_start, l_len, l_pid, pad2 }
    SysInfo {
        uptime, loads, totalram, freeram, sharedram, bufferram, totalswap, freeswap, procs, pad,
        totalhigh, freehigh, mem_unit, pad2,
    }
    Tms { tms_utime, tms_stime, tms_cutime, tms_cstime }
    SigsetArg { mask, size }
    Stat {
        st_dev, st_ino, st_mode, st_nlink, st_uid, st_gid, st_rdev, pad1, st_size, st_blksize,
        pad2, st_blocks, st_atime, st_atime_nsec, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec,
        unused,
    }
    g::statx_timestamp { tv_sec, tv_nsec, __reserved }
    g::statx {
        stx_mask, stx_blksize, stx_attributes, stx_nlink, stx_uid, stx_gid, stx_mode, __spare0,
        stx_ino, stx_size, stx_blocks, stx_attributes_mask, stx_atime, stx_btime, stx_ctime,
        stx_mtime, stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor, stx_mnt_id,
        stx_dio_mem_align, stx_dio_offset_align, stx_subvol, stx_atomic_write_unit_min,
        stx_atomic_write_unit_max, stx_atomic_write_segments_max, stx_dio_read_offset_align,
        stx_atomic_write_unit_max_opt, __spare2, __spare3,
    }
    g::__kernel_timespec { tv_sec, tv_nsec }
    g::timespec { tv_sec, tv_nsec }
    g::timeval { tv_sec, tv_usec }
    g::__kernel_old_timeval { tv_sec, tv_usec }
    g::timezone { tz_minuteswest, tz_dsttime }
    g::itimerval { it_interval, it_value }
    g::itimerspec { it_interval, it_value }
    g::__kernel_itimerspec { it_interval, it_value }
    g::rusage {
        ru_utime, ru_stime, ru_maxrss, ru_ixrss, ru_idrss, ru_isrss, ru_minflt, ru_majflt,
        ru_nswap, ru_inblock, ru_oublock, ru_msgsnd, ru_msgrcv, ru_nsignals, ru_nvcsw, ru_nivcsw,
    }
    g::rlimit { rlim_cur, rlim_max }
    g::rlimit64 { rlim_cur, rlim_max }
    g::kernel_sigset_t { sig }
    g::iovec { iov_base, iov_len }
    g::pollfd { fd, events, revents }
    g::winsize { ws_row, ws_col, ws_xpixel, ws_ypixel }
    g::termios { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc }
    g::termios2 { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc, c_ispeed, c_ospeed }
    g::__kernel_fsid_t { val }
    g::statfs {
        f_type, f_bsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_fsid, f_namelen,
        f_frsize, f_flags, f_spare,
    }
    g::__kernel_fd_set { fds_bits }
    g::clone_args {
        flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup,
    }
    g::open_how { flags, mode, resolve }
    g::f_owner_ex { type_, pid }
    g::__user_cap_header_struct { version, pid }
    g::__user_cap_data_struct { effective, permitted, inheritable }
    s::new_utsname { sysname, nodename, release, version, machine, domainname }
}

/// A value of zero bytes, for structures with fields that are filled one by one.
pub fn zeroed<T: Pod>() -> T {
    // SAFETY: any bytes are a `T` (Pod).
    unsafe { core::mem::zeroed() }
}

/// A user address of a `T`: a claim of the program, checked at every access.
pub struct UserPtr<T> {
    addr: UserAddr,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> core::fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "UserPtr({:#x})", self.addr)
    }
}

impl<T> UserPtr<T> {
    /// A pointer as the program gave it.
    pub const fn new(addr: UserAddr) -> Self {
        Self { addr, kind: PhantomData }
    }

    /// The address.
    pub const fn addr(self) -> UserAddr {
        self.addr
    }

    /// Whether the program passed NULL.
    pub const fn is_null(self) -> bool {
        self.addr.is_null()
    }

    /// The pointer `n` elements further on (wrapping: an access checks the range).
    pub const fn add(self, n: usize) -> Self {
        Self::new(self.addr.add((n as u64).wrapping_mul(size_of::<T>() as u64)))
    }

    /// The same address for another type.
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.addr)
    }

    /// `None` for NULL, for arguments that may be left out.
    pub const fn non_null(self) -> Option<Self> {
        if self.is_null() { None } else { Some(self) }
    }
}

impl<T: Pod> UserPtr<T> {
    /// Reads the value; EFAULT when the program cannot. May sleep.
    #[inline]
    pub fn read(self) -> Result<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `value` has room for `size_of::<T>()` bytes.
        let left = unsafe { raw_copy_from_user(value.as_mut_ptr().cast(), self.addr, size_of::<T>()) };
        if left != 0 {
            return Err(Errno::EFAULT);
        }
        // SAFETY: all bytes were written, and any bytes are a `T` (Pod).
        Ok(unsafe { value.assume_init() })
    }

    /// Writes the value; EFAULT when the program cannot. May sleep.
    #[inline]
    pub fn write(self, value: T) -> Result {
        // SAFETY: `value` is `size_of::<T>()` initialised bytes (Pod: no padding).
        let left = unsafe { raw_copy_to_user(self.addr, (&raw const value).cast(), size_of::<T>()) };
        if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Reads `out.len()` consecutive values; EFAULT when the program cannot. May sleep.
    pub fn read_slice(self, out: &mut [T]) -> Result {
        // SAFETY: `out` has room for its own size, and any bytes are a `T` (Pod).
        let left = unsafe { raw_copy_from_user(out.as_mut_ptr().cast(), self.addr, size_of_val(out)) };
        if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Writes consecutive values; EFAULT when the program cannot. May sleep.
    pub fn write_slice(self, values: &[T]) -> Result {
        // SAFETY: `values` is that many initialised bytes (Pod: no padding).
        let left = unsafe { raw_copy_to_user(self.addr, values.as_ptr().cast(), size_of_val(values)) };
        if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
    }
}

/// A range of user bytes: a claim of the program, checked at every access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserSlice {
    addr: UserAddr,
    len: usize,
}

impl UserSlice {
    /// A range as the program gave it.
    pub const fn new(addr: UserAddr, len: usize) -> Self {
        Self { addr, len }
    }

    /// Its start.
    pub const fn addr(&self) -> UserAddr {
        self.addr
    }

    /// Its length in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part of `len` bytes from `offset`, cut off at the end.
    pub const fn sub(&self, offset: usize, len: usize) -> Self {
        let offset = if offset < self.len { offset } else { self.len };
        let rest = self.len - offset;
        Self { addr: self.addr.add(offset as u64), len: if len < rest { len } else { rest } }
    }

    /// Fills `buf` from the start of the range. EFAULT when the program cannot read that much,
    /// or when `buf` is longer than the range. May sleep.
    pub fn read_into(&self, buf: &mut [u8]) -> Result {
        if self.read_partial(buf) == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Writes `buf` to the start of the range. EFAULT as for `read_into`. May sleep.
    pub fn write_from(&self, buf: &[u8]) -> Result {
        if self.write_partial(buf) == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Reads up to a fault, the end of `buf` or the end of the range; the number of bytes read.
    pub fn read_partial(&self, buf: &mut [u8]) -> usize {
        let want = buf.len().min(self.len);
        let part = buf.get_mut(..want).unwrap_or_default();
        let left = super::copy_from_user(part, self.addr).err().unwrap_or(Uncopied(0)).0;
        want.saturating_sub(left)
    }

    /// Writes up to a fault, the end of `buf` or the end of the range; the number of bytes written.
    pub fn write_partial(&self, buf: &[u8]) -> usize {
        let want = buf.len().min(self.len);
        let part = buf.get(..want).unwrap_or_default();
        let left = super::copy_to_user(self.addr, part).err().unwrap_or(Uncopied(0)).0;
        want.saturating_sub(left)
    }

    /// Zeroes the range; EFAULT when the program cannot write there. May sleep.
    pub fn clear(&self) -> Result {
        super::clear_user(self.addr, self.len).map_err(|_| Errno::EFAULT)
    }
}
