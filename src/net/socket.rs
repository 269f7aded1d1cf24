//! What every socket has: the file, messages, and how a call waits.

use crate::options::Options;
use abi::{Errno, Mode, Nanos, Result, UserAddr, raw::general as g, raw::ioctl, raw::net as n};
use arch::user::UserPtr;
use core::{any::Any, fmt};
use kalloc::{KArc, KString, KVec, kbox_dyn};
use sync::Once;
use vfs::{
    Credentials, FileOps, IoSink, IoSource, Lookup, OpenFile, PollEvents, PollTable, anon,
    splice::{self, Pages},
};

/// Longest address of any family (`struct sockaddr_storage`).
pub const MAX_ADDRESS: usize = 128;

/// An address as the program sees it, with its family in front.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; MAX_ADDRESS],
    len: usize,
}

impl Name {
    /// EINVAL when too long.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut name = Self { bytes: [0; MAX_ADDRESS], len: bytes.len() };
        name.bytes.get_mut(..bytes.len()).ok_or(Errno::EINVAL)?.copy_from_slice(bytes);
        Ok(name)
    }
    /// With the family.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// A process as its peers see it (`struct ucred`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ids {
    /// Process id.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

static CALLER: Once<fn() -> Ids> = Once::new();

/// Registers who knows the calling process; once.
pub fn set_caller(f: fn() -> Ids) {
    CALLER.call_once(|| f);
}

/// The calling process.
pub fn caller() -> Ids {
    CALLER.get().map_or(Ids::default(), |f| f())
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Not at all.
    pub nonblocking: bool,
    /// At most so long (SO_RCVTIMEO, SO_SNDTIMEO).
    pub timeout: Option<Nanos>,
}

impl Wait {
    /// The end of the wait; EAGAIN for those that must not.
    pub fn deadline(self) -> Result<Option<Nanos>> {
        if self.nonblocking || self.timeout == Some(Nanos::ZERO) {
            return Err(Errno::EAGAIN);
        }
        Ok(self.timeout.map(|t| time::monotonic().saturating_add(t)))
    }
    /// What a signal makes of the call: with a timeout it is not restarted (signal(7)).
    pub fn interrupted(self) -> Errno {
        if self.timeout.is_some() { Errno::EINTR } else { Errno::ERESTARTSYS }
    }
}

/// What goes with a message beside its bytes.
#[derive(Default)]
pub struct Control {
    /// SCM_CREDENTIALS, as the sender wrote them and may.
    pub ids: Option<Ids>,
    /// SCM_RIGHTS.
    pub rights: Option<crate::Rights>,
}

/// A message to send.
pub struct Outgoing<'a> {
    /// MSG_* flags.
    pub flags: u32,
    /// Whether it may wait.
    pub wait: Wait,
    /// To whom, if not to the peer.
    pub to: Option<&'a [u8]>,
    /// For names of files.
    pub cx: Option<&'a Lookup<'a>>,
    /// What goes with it.
    pub control: Control,
}

/// A message that was received.
#[derive(Default)]
pub struct Received {
    /// What the call returns.
    pub len: usize,
    /// MSG_TRUNC, MSG_EOR.
    pub flags: u32,
    /// Who sent it, where that is told.
    pub name: Option<KArc<Name>>,
    /// SCM_CREDENTIALS, if asked for.
    pub ids: Option<Ids>,
    /// SCM_RIGHTS.
    pub files: KVec<KArc<OpenFile>>,
}

/// What a family does. Every default is the error of a family without the operation.
#[allow(unused_variables)]
pub trait SocketOps: Send + Sync {
    /// Options and state of every socket.
    fn common(&self) -> &Common;
    /// `bind(2)`.
    fn bind(&self, cx: &Lookup<'_>, address: &[u8]) -> Result {
        Err(Errno::EOPNOTSUPP)
    }
    /// `listen(2)`.
    fn listen(&self, backlog: u32) -> Result {
        Err(Errno::EOPNOTSUPP)
    }
    /// `connect(2)`.
    fn connect(&self, cx: &Lookup<'_>, address: &[u8], wait: Wait) -> Result {
        Err(Errno::EOPNOTSUPP)
    }
    /// `accept(2)`.
    fn accept(&self, wait: Wait) -> Result<KArc<dyn SocketOps>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `getsockname(2)`, or with `peer` `getpeername(2)`.
    fn name(&self, peer: bool) -> Result<Name>;
    /// `sendmsg(2)`.
    fn send(&self, message: Outgoing<'_>, src: &mut IoSource<'_>) -> Result<usize>;
    /// `recvmsg(2)`.
    fn receive(&self, dst: &mut IoSink<'_>, flags: u32, wait: Wait) -> Result<Received>;
    /// `shutdown(2)`.
    fn shutdown(&self, how: u32) -> Result;
    /// `poll(2)`.
    fn poll(&self, table: &mut PollTable<'_>) -> PollEvents;
    /// Bytes that can be read (FIONREAD). EINVAL.
    fn unread(&self) -> Result<usize>;
    /// Whether the socket waits for connections.
    fn is_listening(&self) -> bool {
        false
    }
    /// Who the peer is (SO_PEERCRED).
    fn peer_ids(&self) -> Option<Ids> {
        None
    }
    /// Room for a line of fdinfo.
    fn fdinfo(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
    /// The file is there now: its inode's number.
    fn attached(&self, ino: u64) {}
    /// The last descriptor is gone.
    fn release(&self);
    /// The type behind the trait.
    fn as_any(&self) -> &dyn Any;
}

/// Options and state of every socket.
pub struct Common {
    /// AF_*.
    pub family: u32,
    /// SOCK_*.
    pub kind: u32,
    /// IPPROTO_* or 0.
    pub protocol: u32,
    /// SOL_SOCKET.
    pub options: Options,
}

/// A socket as an open file.
pub struct SocketFile(pub KArc<dyn SocketOps>);

fn wait_of(f: &OpenFile, timeout: Option<Nanos>) -> Wait {
    Wait { nonblocking: f.is_nonblocking(), timeout }
}

impl FileOps for SocketFile {
    fn splice_read(&self, f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
        splice::read_copied(f, pos, len, pages)
    }
    fn can_splice_write(&self) -> bool {
        true
    }
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let wait = wait_of(f, self.0.common().options.receive_timeout());
        Ok(self.0.receive(dst, 0, wait)?.len)
    }
    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        let wait = wait_of(f, self.0.common().options.send_timeout());
        let flags = if self.0.common().kind == n::SOCK_SEQPACKET { n::MSG_EOR } else { 0 };
        self.0.send(Outgoing { flags, wait, to: None, cx: None, control: Control::default() }, src)
    }
    fn can_seek(&self) -> bool {
        false
    }
    fn can_poll(&self) -> bool {
        true
    }
    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        self.0.poll(table)
    }
    fn ioctl(&self, _f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        let value = match cmd {
            ioctl::FIONREAD => self.0.unread()?,
            ioctl::TIOCOUTQ => self.0.common().options.budget.used(),
            _ => return Err(Errno::ENOTTY),
        };
        UserPtr::<i32>::new(UserAddr(arg)).write(i32::try_from(value).unwrap_or(i32::MAX))?;
        Ok(0)
    }
    fn fdinfo(&self, _f: &OpenFile, out: &mut dyn fmt::Write) -> fmt::Result {
        self.0.fdinfo(out)
    }
    fn release(&self, _f: &OpenFile) {
        self.0.release();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The socket behind an open file. ENOTSOCK.
pub fn of(f: &OpenFile) -> Result<&KArc<dyn SocketOps>> {
    Ok(&f.ops_as::<SocketFile>().ok_or(Errno::ENOTSOCK)?.0)
}

/// The open file of a new socket. `flags`: O_NONBLOCK.
pub fn file(socket: KArc<dyn SocketOps>, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    // Until there is a file nobody else releases the socket.
    let made = make_file(&socket, flags, cred);
    if made.is_err() {
        socket.release();
    }
    made
}

fn make_file(socket: &KArc<dyn SocketOps>, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    let inode = anon::inode(Mode(g::S_IFSOCK | 0o777), cred.fsuid, cred.fsgid)?;
    socket.attached(inode.ino);
    let mut name = KString::new();
    fmt::write(&mut name, format_args!("socket:[{}]", inode.ino)).map_err(|_| Errno::ENOMEM)?;
    let ops = kbox_dyn!(SocketFile(socket.clone()) => dyn FileOps)?;
    OpenFile::anonymous(name.as_bytes(), inode, ops, g::O_RDWR | flags & g::O_NONBLOCK, cred)
}
