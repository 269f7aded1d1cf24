//! Device numbers and file modes in the forms that `stat(2)` and `mknod(2)` use.

use linux_raw_sys::general as g;

/// A device number: major (12 bits) and minor (20 bits), as Linux has them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, PartialOrd, Ord)]
pub struct DevNum {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl DevNum {
    /// A device number from its parts.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
    /// The encoding of `st_rdev` and `mknod` (the kernel's `new_encode_dev`).
    pub const fn encode(self) -> u32 {
        (self.minor & 0xff) | (self.major & 0xfff) << 8 | (self.minor & !0xff) << 12
    }
    /// The inverse of [`encode`](Self::encode).
    pub const fn decode(v: u32) -> Self {
        Self { major: v >> 8 & 0xfff, minor: (v & 0xff) | (v >> 12 & 0xf_ff00) }
    }
}

/// A file mode: type and permission bits together, as in `st_mode` (`inode(7)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Mode(pub u32);

impl Mode {
    /// The bits that `chmod` may change: permissions, set-id and sticky.
    pub const PERMISSIONS: u32 = 0o7777;

    /// The file type bits, one of `S_IFREG`, `S_IFDIR`, ...
    pub const fn file_type(self) -> u32 {
        self.0 & g::S_IFMT
    }
    /// Permission, set-id and sticky bits.
    pub const fn permissions(self) -> u32 {
        self.0 & Self::PERMISSIONS
    }
    /// Whether this is a directory.
    pub const fn is_dir(self) -> bool {
        self.file_type() == g::S_IFDIR
    }
    /// Whether this is a regular file.
    pub const fn is_file(self) -> bool {
        self.file_type() == g::S_IFREG
    }
    /// Whether this is a symbolic link.
    pub const fn is_symlink(self) -> bool {
        self.file_type() == g::S_IFLNK
    }
    /// Whether this is a character device.
    pub const fn is_char_device(self) -> bool {
        self.file_type() == g::S_IFCHR
    }
    /// Whether this is a block device.
    pub const fn is_block_device(self) -> bool {
        self.file_type() == g::S_IFBLK
    }
    /// Whether this is a FIFO.
    pub const fn is_fifo(self) -> bool {
        self.file_type() == g::S_IFIFO
    }
    /// Whether this is a socket.
    pub const fn is_socket(self) -> bool {
        self.file_type() == g::S_IFSOCK
    }
    /// The same file type with other permission bits.
    pub const fn with_permissions(self, bits: u32) -> Self {
        Self(self.0 & !Self::PERMISSIONS | bits & Self::PERMISSIONS)
    }
    /// The `d_type` of a directory entry of this type (`getdents64(2)`).
    pub const fn dirent_type(self) -> u8 {
        (self.file_type() >> 12) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_number_encoding_round_trips_large_minors() {
        for (major, minor) in [(0, 0), (1, 3), (204, 64), (4095, 0xf_ffff), (8, 257)] {
            let d = DevNum::new(major, minor);
            assert_eq!(DevNum::decode(d.encode()), d);
        }
        assert_eq!(DevNum::new(5, 1).encode(), 0x501);
    }
}
