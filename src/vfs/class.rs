//! Which place each of the VFS's locks has in the lock order.
//!
//! Sleeping locks, outer to inner: `position` and `seq_file` (they are held over a whole read, so
//! outside of whatever a generated file asks) → `namespace` → `rename` → `inode` (parent before
//! child; two parents ancestor first). Spin locks: `mounts` → `dentry` → `attr` → the leaf tables.

use sync::LockClass;

/// Changes of the mount tree (Linux's `namespace_sem`).
pub static NAMESPACE: LockClass = LockClass::new("vfs.namespace", 200);
/// A file position (`f_pos_lock`): held across the read or write.
pub static POSITION: LockClass = LockClass::new("vfs.position", 50);
/// Seekable state of a generated file.
pub static SEQ_FILE: LockClass = LockClass::new("vfs.seq_file", 51);
/// Renames between directories (`s_vfs_rename_mutex`).
pub static RENAME: LockClass = LockClass::new("vfs.rename", 210);
/// The first directory of an operation.
pub static INODE: LockClass = LockClass::new("vfs.inode", 220);

/// Spin: the table of mounts and its namespaces' lists.
pub static MOUNTS: LockClass = LockClass::new("vfs.mounts", 1100);
/// Spin: where a mount hangs.
pub static MOUNT_POINT: LockClass = LockClass::new("vfs.mount_point", 1110);
/// Spin: root and working directory.
pub static FS_CONTEXT: LockClass = LockClass::new("vfs.fs_context", 1105);
/// Spin: descriptors of a process.
pub static FD_TABLE: LockClass = LockClass::new("vfs.fd_table", 1060);
/// Spin: one rename at a time changes places.
pub static RENAME_SEQ: LockClass = LockClass::new("vfs.rename_seq", 1115);
/// Spin: a bucket of the dentry cache, and where a dentry hangs.
pub static DENTRY: LockClass = LockClass::new("vfs.dentry", 1120);
/// Spin: times and other attributes of an inode.
pub static ATTR: LockClass = LockClass::new("vfs.attr", 1140);
/// Spin: owner of an open file, error state.
pub static FILE: LockClass = LockClass::new("vfs.file", 1145);
/// Spin: record locks of an inode.
pub static FILE_LOCKS: LockClass = LockClass::new("vfs.file_locks", 1150);
/// Spin: who watches an inode.
pub static MARKS: LockClass = LockClass::new("vfs.marks", 1142);
/// Spin: the watched inodes of a super block.
pub static MARKED: LockClass = LockClass::new("vfs.marked", 1143);
/// Spin: registries (file systems, character devices, device nodes, /proc files).
pub static REGISTRY: LockClass = LockClass::new("vfs.registry", 1160);
/// Spin: the random generator's state.
pub static RANDOM: LockClass = LockClass::new("vfs.random", 1170);
/// Spin: who is told when an open file is closed.
pub static WATCHERS: LockClass = LockClass::new("vfs.watchers", 1146);
