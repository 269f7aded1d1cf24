#![cfg_attr(not(test), no_std)]
//! The virtual file system: names, mounts, inodes, open files, descriptors, and the rules that hold
//! for every file whatever its file system is.
//!
//! Who reads this for the first time follows one `open` and `read`: [`namei`] (path to dentry),
//! [`open`] (permission, creation), [`file`] (the open file), [`generic`] (data in the page cache).
//!
//! # Who calls whom
//! System calls come in with a [`Lookup`] (root, working directory, credentials): nothing here asks
//! for "current". File systems implement [`FileSystem`], [`SuperOps`], [`InodeOps`], [`FileOps`];
//! drivers register with [`chardev`] and [`devnodes`]; rooms put their files into
//! [`proc_registry`]. Signals are not sent here: EPIPE and EFBIG are what the process layer turns
//! into SIGPIPE and SIGXFSZ.
//!
//! # Lock order
//! Listed with the ranks in `class.rs`. In short: mount tree, position of the file, rename,
//! directory (parent before child), file; then spin locks. User memory may be copied with any of
//! the sleeping locks held, since the address space's locks are further in.
//!
//! # Context
//! Everything may sleep unless it says otherwise. The fast walk and descriptor look-ups run under
//! RCU with preemption off.

pub mod anon;
pub mod attr;
pub mod chardev;
mod class;
pub mod cred;
pub mod dcache;
mod dentry;
pub mod devnodes;
pub mod fdtable;
pub mod file;
pub mod generic;
pub mod inode;
pub mod locks;
pub mod mount;
pub mod namei;
pub mod notify;
pub mod open;
pub mod ops;
pub mod path;
pub mod permission;
pub mod poll;
pub mod proc_registry;
pub mod pseudo;
pub mod quota;
pub mod random;
pub mod seal;
pub mod splice;
mod stamp;
pub mod superblock;
pub mod sysctl;
mod watch;

pub use attr::{
    Kstat, SetAttr, SetTime, access, chmod, chown, ftruncate, get_xattr, list_xattr, remove_xattr, set_xattr, stat,
    stat_inode, statfs, truncate, utimens,
};
pub use cred::{Cap, Caps, Credentials};
pub use dentry::Dentry;
pub use fdtable::{Fd, FdTable, Reservation};
pub use file::{Emit, FileOps, OpenFile, Owner, SETFL_FLAGS, emit_dots, generic_seek};
pub use inode::{
    I_APPEND, I_DEAD, I_IMMUTABLE, I_NOATIME, I_PRIVATE, Inode, InodeOps, Link, NewInode, Rename, SuperOps, Times,
};
pub use mm::io::{IoSink, IoSource};
pub use mount::{Mount, MountArgs, MountNamespace, MountRef, mount, mount_kernel, pivot_root, umount};
pub use namei::{Lookup, LookupFlags, NAME_MAX, PATH_MAX, lookup};
pub use open::{Executable, FifoOpener, OPEN_FLAGS, OpenHow, memory_file, open, open_exec, open_found, set_fifo_opener, set_memory_files};
pub use ops::{link, mkdir, mknod, mksocket, readlink, rename, rmdir, symlink, unlink};
pub use path::{FsContext, Path, PathText, Roots, chdir, chroot, d_path, getcwd};
pub use permission::{MAY_EXEC, MAY_READ, MAY_WRITE, init_owner};
pub use poll::{PollEvents, PollFd, PollTable, poll_files};
pub use stamp::Time;
pub use watch::{FileWatch, FileWatcher};
pub use superblock::{FileSystem, MountRequest, Statfs, SuperBlock, find_filesystem, options, register_filesystem};
