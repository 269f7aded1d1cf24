//! From register words to typed arguments and back.

use abi::{Errno, Result, UserAddr};
use arch::user::{UserPtr, copy_str_from_user};
use kalloc::KBytes;
use vfs::Fd;

/// An argument that can be made of a register word. Narrow types take the low bits, as the ABI
/// leaves the upper half of a register undefined for them (AAPCS64 6.8.2).
pub trait FromWord: Sized {
    fn from_word(word: u64) -> Result<Self>;
}

macro_rules! integers {
    ($($t:ty)*) => { $(
        impl FromWord for $t {
            #[inline]
            fn from_word(word: u64) -> Result<Self> { Ok(word as $t) }
        }
    )* };
}
integers!(u32 i32 u64 i64 usize);

impl FromWord for UserAddr {
    #[inline]
    fn from_word(word: u64) -> Result<Self> {
        Ok(Self(word))
    }
}

impl<T> FromWord for UserPtr<T> {
    #[inline]
    fn from_word(word: u64) -> Result<Self> {
        Ok(Self::new(UserAddr(word)))
    }
}

/// A descriptor; a negative number is EBADF at once.
impl FromWord for Fd {
    #[inline]
    fn from_word(word: u64) -> Result<Self> {
        Self::from_raw(word as i32)
    }
}

/// Where a path starts: a descriptor, or the working directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirFd(pub i32);

impl FromWord for DirFd {
    fn from_word(word: u64) -> Result<Self> {
        Ok(Self(word as i32))
    }
}

/// A path in user memory.
#[derive(Clone, Copy, Debug)]
pub struct UserPath(pub UserAddr);

impl FromWord for UserPath {
    fn from_word(word: u64) -> Result<Self> {
        Ok(Self(UserAddr(word)))
    }
}

/// Bytes that a short path may take without the heap.
const SHORT: usize = 120;
/// PATH_MAX, with the NUL.
const PATH_MAX: usize = 4096;

/// A path that was copied from user memory.
pub struct PathBuf {
    short: [u8; SHORT],
    long: KBytes,
    len: usize,
}

impl PathBuf {
    pub fn as_bytes(&self) -> &[u8] {
        if self.long.is_empty() { self.short.get(..self.len).unwrap_or(&[]) } else { &self.long }
    }
}

impl UserPath {
    /// Copies the path. EFAULT; ENAMETOOLONG beyond 4095 bytes; ENOMEM.
    pub fn read(self) -> Result<PathBuf> {
        let mut path = PathBuf { short: [0; SHORT], long: KBytes::new(), len: 0 };
        path.len = copy_str_from_user(&mut path.short, self.0).map_err(|_| Errno::EFAULT)?;
        if path.len < SHORT {
            return Ok(path);
        }
        let mut long = KBytes::try_from_elem(0, PATH_MAX)?;
        let n = copy_str_from_user(&mut long, self.0).map_err(|_| Errno::EFAULT)?;
        if n >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        long.truncate(n);
        path.long = long;
        Ok(path)
    }
}

/// What a handler returns, as x0 shows it.
pub trait IntoReturn {
    fn into_return(self) -> u64;
}

impl IntoReturn for () {
    fn into_return(self) -> u64 {
        0
    }
}
impl IntoReturn for u64 {
    fn into_return(self) -> u64 {
        self
    }
}
impl IntoReturn for u32 {
    fn into_return(self) -> u64 {
        self.into()
    }
}
impl IntoReturn for usize {
    fn into_return(self) -> u64 {
        self as u64
    }
}
impl IntoReturn for Fd {
    fn into_return(self) -> u64 {
        self.0.into()
    }
}
impl IntoReturn for UserAddr {
    fn into_return(self) -> u64 {
        self.0
    }
}
