//! From announced devices to nodes: by the VFS's own calls on a private mount of the instance.

use abi::{Errno, Result, raw::general as g};
use kalloc::KArc;
use vfs::{
    Credentials, FsContext, Lookup, Mount, Path, SuperBlock,
    devnodes::{DevNode, NodeSink},
};

pub(crate) struct Nodes {
    fs: KArc<FsContext>,
    cred: KArc<Credentials>,
}

impl Nodes {
    pub(crate) fn new(sb: &KArc<SuperBlock>) -> Result<Self> {
        let mount = Mount::internal(sb)?;
        let dentry = mount.root.clone();
        Ok(Self { fs: FsContext::new(Path { mount, dentry }, 0)?, cred: KArc::try_new(Credentials::root())? })
    }
}

impl NodeSink for Nodes {
    fn added(&self, node: &DevNode) -> Result {
        let cx = Lookup { fs: &self.fs, cred: &self.cred };
        let name = node.name.as_slice();
        for (at, _) in name.iter().enumerate().filter(|&(_, &b)| b == b'/') {
            match vfs::mkdir(&cx, None, name.get(..at).unwrap_or(name), 0o755) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
            }
        }
        let kind = if node.is_block { g::S_IFBLK } else { g::S_IFCHR };
        match vfs::mknod(&cx, None, name, kind | node.mode & 0o777, node.dev) {
            // Somebody has put a node there by hand.
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    fn removed(&self, name: &[u8]) {
        let cx = Lookup { fs: &self.fs, cred: &self.cred };
        // Nothing is lost when it is gone already.
        let _ = vfs::unlink(&cx, None, name);
    }
}
