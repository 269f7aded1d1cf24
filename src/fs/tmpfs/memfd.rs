//! Files without a name in any directory (`memfd_create(2)`), and seals (`fcntl(2)`).
//!
//! They live in an instance without limits that is mounted nowhere, and go with the last descriptor
//! or mapping.

use crate::{Account, Attributes, Content, Options, new_inode, new_super};
use abi::{DevNum, Errno, Mode, Result, raw::general as g};
use kalloc::{KArc, KBytes};
use sync::Once;
use vfs::{Credentials, Mount, MountRef, OpenFile, seal};

struct Hidden {
    mount: MountRef,
    account: KArc<Account>,
}

fn hidden() -> Result<&'static Hidden> {
    static HIDDEN: Once<Hidden> = Once::new();
    HIDDEN.try_call_once(|| {
        let account = KArc::try_new(Account::new(0, 0))?;
        let options = Options { pages: Some(0), inodes: Some(0), ..Options::default() };
        let mount = Mount::internal(&new_super("tmpfs", 0, options)?)?;
        Ok(Hidden { mount, account })
    })
}

/// A file that shows as `/memfd:NAME (deleted)`; `sealable`: seals can be added to it.
pub(crate) fn create(name: &[u8], sealable: bool, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    let hidden = hidden()?;
    let mut shown = KBytes::new();
    shown.try_extend_from_slice(b"/memfd:")?;
    shown.try_extend_from_slice(name)?;
    let attributes = Attributes { mode: Mode(g::S_IFREG | 0o777), uid: cred.fsuid, gid: cred.fsgid, rdev: DevNum::default(), nlink: 0 };
    let inode = new_inode(&hidden.mount.sb, &hidden.account, attributes, Content::File)?;
    if sealable {
        inode.seals.begin(0);
    }
    OpenFile::unnamed(hidden.mount.clone(), shown.as_slice(), &inode, g::O_RDWR | g::O_LARGEFILE, cred)
}

/// `fcntl(F_ADD_SEALS)`. EPERM: not open for writing, or F_SEAL_SEAL; EINVAL; EBUSY.
pub(crate) fn add_seals(f: &OpenFile, seals: u64) -> Result<u64> {
    let seals = u32::try_from(seals).map_err(|_| Errno::EINVAL)?;
    if !f.may_write() {
        return Err(Errno::EPERM);
    }
    let cache = f.inode.cache.as_ref().ok_or(Errno::EINVAL)?;
    let _lock = f.inode.lock.write();
    // Pages that a pipe holds, or a call on its way, may still be written to.
    f.inode.seals.add(seals, || seal::soon(|| !cache.is_pinned()))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfs::{IoSink, IoSource};

    fn file(sealable: bool) -> KArc<OpenFile> {
        crate::tests::memory();
        create(b"x", sealable, &KArc::try_new(Credentials::root()).unwrap()).unwrap()
    }
    fn put(f: &OpenFile, at: u64, data: &[u8]) -> Result<usize> {
        f.write_at(&mut IoSource::kernel(data), at, u64::MAX)
    }

    #[test]
    fn without_permission_to_seal_there_is_one_seal_that_says_so() {
        let f = file(false);
        assert_eq!(f.inode.seals.get(), Ok(g::F_SEAL_SEAL));
        assert_eq!(add_seals(&f, u64::from(g::F_SEAL_GROW)), Err(Errno::EPERM));
        let f = file(true);
        assert_eq!(f.inode.seals.get(), Ok(0));
        assert_eq!(add_seals(&f, 1 << 32), Err(Errno::EINVAL));
        assert_eq!(add_seals(&f, 32), Err(Errno::EINVAL));
    }

    #[test]
    fn seals_stop_what_they_name() {
        let f = file(true);
        put(&f, 0, &[7; 5000]).unwrap();
        add_seals(&f, u64::from(g::F_SEAL_GROW | g::F_SEAL_SHRINK)).unwrap();
        assert_eq!(put(&f, 4090, &[1; 910]), Ok(910));
        assert_eq!(put(&f, 4090, &[1; 911]), Ok(6));
        assert_eq!(put(&f, 5000, &[1]), Err(Errno::EPERM));
        let cred = Credentials::root();
        assert_eq!(vfs::ftruncate(&f, &cred, 4999, u64::MAX), Err(Errno::EPERM));
        assert_eq!(vfs::ftruncate(&f, &cred, 5001, u64::MAX), Err(Errno::EPERM));
        assert_eq!(f.fallocate(0, 0, 5001, u64::MAX), Err(Errno::EPERM));
        assert_eq!(f.fallocate(0, 0, 5000, u64::MAX), Ok(()));
        add_seals(&f, u64::from(g::F_SEAL_WRITE)).unwrap();
        assert_eq!(put(&f, 0, &[1]), Err(Errno::EPERM));
        assert_eq!(f.fallocate(g::FALLOC_FL_PUNCH_HOLE | g::FALLOC_FL_KEEP_SIZE, 0, 4096, u64::MAX), Err(Errno::EPERM));
        let mut b = [0];
        assert_eq!((f.read_at(&mut IoSink::kernel(&mut b), 0), b), (Ok(1), [7]));
    }

    #[test]
    fn a_page_that_somebody_holds_keeps_the_write_seal_off() {
        let f = file(true);
        put(&f, 0, &[7; 10]).unwrap();
        let cache = f.inode.cache.as_ref().unwrap();
        assert!(!cache.is_pinned());
        let page = cache.page(0, mm::Get::Lookup).unwrap();
        assert!(cache.is_pinned());
        drop(page);
        assert!(!cache.is_pinned());
    }

    #[test]
    fn the_contents_go_with_the_last_open_file() {
        let f = file(false);
        put(&f, 0, &[7; 10]).unwrap();
        let again = vfs::open_found(f.path.clone(), g::O_RDONLY, &f.cred).unwrap();
        drop(f);
        let mut b = [0];
        assert_eq!((again.read_at(&mut IoSink::kernel(&mut b), 0), b), (Ok(1), [7]));
    }
}
