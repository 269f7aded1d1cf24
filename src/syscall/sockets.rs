//! Sockets (`socket(2)`, `bind(2)`, `accept(2)`, `sendmsg(2)`, `recvmsg(2)`, `getsockopt(2)`).

use crate::io;
use abi::{Errno, Nanos, Result, UserAddr, raw::general as g, raw::net as n};
use arch::user::{UserPtr, UserSlice};
use kalloc::{KArc, KVec};
use net::{Control, Ids, Name, Outgoing, Received, Rights, SocketOps, Wait};
use process::{SigInfo, Signal, Task};
use vfs::{Cap, Fd, IoSink, IoSource, Lookup, OpenFile};

/// Longest address (`struct sockaddr_storage`).
const MAX_ADDRESS: usize = 128;
/// `struct cmsghdr`, and how the data behind it is aligned.
const CMSG_HEADER: usize = 16;
const CMSG_ALIGN: usize = 8;
/// net.core.somaxconn.
const MAX_BACKLOG: u32 = 4096;
/// UIO_MAXIOV.
const MAX_IOV: u64 = 1024;
/// Bytes of `struct msghdr` and `struct mmsghdr`.
const MSGHDR: u64 = 56;
const MMSGHDR: u64 = 64;
const TYPE_MASK: u32 = 0xf;
const CLOEXEC: u32 = g::O_CLOEXEC;
const NONBLOCK: u32 = g::O_NONBLOCK;

/// A socket by its descriptor. EBADF, ENOTSOCK.
struct Handle(KArc<OpenFile>);

impl Handle {
    fn get(task: &Task, fd: i32) -> Result<Self> {
        let file = task.files()?.get_file(Fd::from_raw(fd)?)?;
        net::of(&file)?;
        Ok(Self(file))
    }
    fn socket(&self) -> Result<&KArc<dyn SocketOps>> {
        net::of(&self.0)
    }
    fn wait(&self, flags: u32, timeout: Option<Nanos>) -> Wait {
        Wait { nonblocking: flags & n::MSG_DONTWAIT != 0 || self.0.is_nonblocking(), timeout }
    }
}

fn nofile(task: &Task) -> u64 {
    task.process().limit(g::RLIMIT_NOFILE)
}

/// Runs `f` with what names of files are looked up with.
fn with_cx<R>(task: &Task, f: impl FnOnce(&Lookup<'_>) -> Result<R>) -> Result<R> {
    let (fs, cred) = (task.fs()?, task.cred()?);
    f(&Lookup { fs: &fs, cred: &cred })
}

/// An address in kernel memory.
struct Address {
    bytes: [u8; MAX_ADDRESS],
    len: usize,
}

impl Address {
    /// EINVAL for a length out of range; EFAULT.
    fn read(at: UserAddr, len: i32) -> Result<Self> {
        let len = usize::try_from(len).ok().filter(|&l| l <= MAX_ADDRESS).ok_or(Errno::EINVAL)?;
        let mut a = Self { bytes: [0; MAX_ADDRESS], len };
        if len > 0 {
            UserSlice::new(at, len).read_into(a.bytes.get_mut(..len).ok_or(Errno::EINVAL)?)?;
        }
        Ok(a)
    }
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// Writes as much of an address as there is room for, and its length.
fn write_address(name: &[u8], at: UserAddr, len: UserPtr<i32>) -> Result {
    let room = usize::try_from(len.read()?).map_err(|_| Errno::EINVAL)?;
    let n = room.min(name.len());
    UserSlice::new(at, n).write_from(name.get(..n).unwrap_or(&[]))?;
    len.write(name.len() as i32)
}

/// Type and flags of a new socket. EINVAL.
fn split_type(kind: u32) -> Result<(u32, u32)> {
    let flags = kind & !TYPE_MASK;
    if flags & !(CLOEXEC | NONBLOCK) != 0 { Err(Errno::EINVAL) } else { Ok((kind & TYPE_MASK, flags)) }
}

pub fn socket(task: &Task, family: u32, kind: u32, protocol: u32) -> Result<Fd> {
    let (kind, flags) = split_type(kind)?;
    let socket = net::create(&task.ns()?.net, family, kind, protocol)?;
    let file = net::file(socket, flags, &task.cred()?)?;
    task.files()?.install(file, flags & CLOEXEC != 0, 0, nofile(task))
}

pub fn socketpair(task: &Task, family: u32, kind: u32, protocol: u32, out: UserPtr<[i32; 2]>) -> Result {
    let (kind, flags) = split_type(kind)?;
    let files = task.files()?;
    let cloexec = flags & CLOEXEC != 0;
    let a = files.reserve(cloexec, 0, nofile(task))?;
    let b = files.reserve(cloexec, 0, nofile(task))?;
    out.write([a.fd().0 as i32, b.fd().0 as i32])?;
    let (ns, cred) = (task.ns()?, task.cred()?);
    let one = net::file(net::create(&ns.net, family, kind, protocol)?, flags, &cred)?;
    let other = net::file(net::create(&ns.net, family, kind, protocol)?, flags, &cred)?;
    net::pair(&**net::of(&one)?, &**net::of(&other)?)?;
    a.install(one);
    b.install(other);
    Ok(())
}

pub fn bind(task: &Task, fd: i32, at: UserAddr, len: i32) -> Result {
    let s = Handle::get(task, fd)?;
    let address = Address::read(at, len)?;
    with_cx(task, |cx| s.socket()?.bind(cx, address.as_bytes()))
}

pub fn listen(task: &Task, fd: i32, backlog: u32) -> Result {
    Handle::get(task, fd)?.socket()?.listen(backlog.min(MAX_BACKLOG))
}

pub fn connect(task: &Task, fd: i32, at: UserAddr, len: i32) -> Result {
    let s = Handle::get(task, fd)?;
    let address = Address::read(at, len)?;
    let socket = s.socket()?;
    let wait = s.wait(0, socket.common().options.send_timeout());
    with_cx(task, |cx| socket.connect(cx, address.as_bytes(), wait))
}

pub fn accept4(task: &Task, fd: i32, at: UserAddr, len: UserPtr<i32>, flags: u32) -> Result<Fd> {
    if flags & !(CLOEXEC | NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let s = Handle::get(task, fd)?;
    let files = task.files()?;
    let slot = files.reserve(flags & CLOEXEC != 0, 0, nofile(task))?;
    let socket = s.socket()?;
    let new = socket.accept(s.wait(0, socket.common().options.receive_timeout()))?;
    let file = net::file(new, flags, &task.cred()?)?;
    if !at.is_null() {
        let name = net::of(&file)?.name(true).map_err(|_| Errno::ECONNABORTED)?;
        write_address(name.as_bytes(), at, len)?;
    }
    Ok(slot.install(file))
}

pub fn accept(task: &Task, fd: i32, at: UserAddr, len: UserPtr<i32>) -> Result<Fd> {
    accept4(task, fd, at, len, 0)
}

pub fn getsockname(task: &Task, fd: i32, at: UserAddr, len: UserPtr<i32>) -> Result {
    let name: Name = Handle::get(task, fd)?.socket()?.name(false)?;
    write_address(name.as_bytes(), at, len)
}

pub fn getpeername(task: &Task, fd: i32, at: UserAddr, len: UserPtr<i32>) -> Result {
    let name: Name = Handle::get(task, fd)?.socket()?.name(true)?;
    write_address(name.as_bytes(), at, len)
}

pub fn shutdown(task: &Task, fd: i32, how: u32) -> Result {
    Handle::get(task, fd)?.socket()?.shutdown(how)
}

pub fn setsockopt(task: &Task, fd: i32, level: u32, option: u32, at: UserAddr, len: i32) -> Result {
    let s = Handle::get(task, fd)?;
    if len < 0 {
        return Err(Errno::EINVAL);
    }
    if level != n::SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let cred = task.cred()?;
    net::set_option(&**s.socket()?, option, at, len, &cred)
}

pub fn getsockopt(task: &Task, fd: i32, level: u32, option: u32, at: UserAddr, len: UserPtr<i32>) -> Result {
    let s = Handle::get(task, fd)?;
    if level != n::SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    net::get_option(&**s.socket()?, option, at, len)
}

/// What `send` has in common: SIGPIPE for a stream that is closed, unless it is not wanted.
fn send(task: &Task, s: &Handle, flags: u32, to: Option<&[u8]>, control: Control, src: &mut IoSource<'_>) -> Result<usize> {
    let socket = s.socket()?;
    let wait = s.wait(flags, socket.common().options.send_timeout());
    let result = match to {
        Some(_) => with_cx(task, |cx| socket.send(Outgoing { flags, wait, to, cx: Some(cx), control }, src)),
        None => socket.send(Outgoing { flags, wait, to, cx: None, control }, src),
    };
    if result == Err(Errno::EPIPE) && flags & n::MSG_NOSIGNAL == 0 && socket.common().kind == n::SOCK_STREAM {
        task.raise(SigInfo::kernel(Signal::PIPE));
    }
    result
}

pub fn sendto(task: &Task, fd: i32, buf: UserAddr, len: usize, flags: u32, at: UserAddr, address_len: i32) -> Result<usize> {
    let piece = io::slice(buf, len)?;
    let s = Handle::get(task, fd)?;
    let address = if at.is_null() { None } else { Some(Address::read(at, address_len)?) };
    send(task, &s, flags, address.as_ref().map(Address::as_bytes), Control::default(), &mut IoSource::user(piece))
}

/// `struct msghdr`.
struct Header {
    name: UserAddr,
    name_len: u32,
    pieces: KVec<UserSlice>,
    control: UserAddr,
    control_len: usize,
}

impl Header {
    /// EFAULT, EINVAL, EMSGSIZE.
    fn read(at: UserAddr) -> Result<Self> {
        let [name, name_len, iov, count, control, control_len, _] = UserPtr::<[u64; 7]>::new(at).read()?;
        let name_len = name_len as u32;
        if name_len > i32::MAX as u32 {
            return Err(Errno::EINVAL);
        }
        if count > MAX_IOV {
            return Err(Errno::EMSGSIZE);
        }
        Ok(Self {
            name: UserAddr(name),
            name_len: if name == 0 { 0 } else { name_len.min(MAX_ADDRESS as u32) },
            pieces: io::vector(UserAddr(iov), count)?,
            control: UserAddr(control),
            control_len: if control == 0 { 0 } else { usize::try_from(control_len).unwrap_or(usize::MAX) },
        })
    }
}

/// The files that a message is to carry. EBADF, EINVAL.
fn add_files(task: &Task, data: &[u8], into: &mut KVec<KArc<OpenFile>>) -> Result {
    let numbers = data.chunks_exact(4).filter_map(|c| Some(i32::from_ne_bytes(c.try_into().ok()?)));
    if into.len() + data.len() / 4 > net::SCM_MAX_FD {
        return Err(Errno::EINVAL);
    }
    for fd in numbers {
        into.try_push(task.file(Fd::from_raw(fd)?)?)?;
    }
    Ok(())
}

/// Whether the caller may say that it has these ids (`unix(7)`, SCM_CREDENTIALS). EPERM.
fn check_ids(task: &Task, ids: Ids) -> Result {
    let cred = task.cred()?;
    let pid = ids.pid == task.process().id() || cred.capable(Cap::SYS_ADMIN);
    let uid = [cred.uid, cred.euid, cred.suid].contains(&ids.uid) || cred.capable(Cap::SETUID);
    let gid = [cred.gid, cred.egid, cred.sgid].contains(&ids.gid) || cred.capable(Cap::SETGID);
    if pid && uid && gid { Ok(()) } else { Err(Errno::EPERM) }
}

/// Reads what goes with a message (`cmsg(3)`). EINVAL, EBADF, EPERM, ETOOMANYREFS, ENOBUFS.
fn read_control(task: &Task, at: UserAddr, len: usize) -> Result<Control> {
    let mut control = Control::default();
    if len == 0 {
        return Ok(control);
    }
    if len > i32::MAX as usize {
        return Err(Errno::ENOBUFS);
    }
    // Linux's limit for what one message may have beside its bytes (net.core.optmem_max).
    if len > 20_480 {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = KVec::try_from_elem(0u8, len)?;
    UserSlice::new(at, len).read_into(&mut bytes)?;
    let mut files = KVec::new();
    let mut rest: &[u8] = &bytes;
    while rest.len() >= CMSG_HEADER {
        let (header, _) = rest.split_at(CMSG_HEADER);
        let word = |i: usize| header.get(i..i + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let size = (u64::from(word(4)) << 32 | u64::from(word(0))) as usize;
        if size < CMSG_HEADER || size > rest.len() {
            return Err(Errno::EINVAL);
        }
        let data = rest.get(CMSG_HEADER..size).unwrap_or(&[]);
        if word(8) == n::SOL_SOCKET {
            match word(12) {
                n::SCM_RIGHTS => add_files(task, data, &mut files)?,
                n::SCM_CREDENTIALS => {
                    let [pid, uid, gid] = match data {
                        [a, b, c, d, e, f, g, h, i, j, k, l] => [[*a, *b, *c, *d], [*e, *f, *g, *h], [*i, *j, *k, *l]].map(u32::from_ne_bytes),
                        _ => return Err(Errno::EINVAL),
                    };
                    let ids = Ids { pid, uid, gid };
                    check_ids(task, ids)?;
                    control.ids = Some(ids);
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        rest = rest.get(size.next_multiple_of(CMSG_ALIGN)..).unwrap_or(&[]);
    }
    if !files.is_empty() {
        let cred = task.cred()?;
        let free = cred.capable(Cap::SYS_RESOURCE) || cred.capable(Cap::SYS_ADMIN);
        control.rights = Some(Rights::new(files, cred.uid, (!free).then(|| nofile(task)))?);
    }
    Ok(control)
}

fn send_message(task: &Task, s: &Handle, at: UserAddr, flags: u32) -> Result<usize> {
    let header = Header::read(at)?;
    let address = if header.name.is_null() || header.name_len == 0 { None } else { Some(Address::read(header.name, header.name_len as i32)?) };
    let control = read_control(task, header.control, header.control_len)?;
    send(task, s, flags, address.as_ref().map(Address::as_bytes), control, &mut IoSource::user_vec(&header.pieces))
}

pub fn sendmsg(task: &Task, fd: i32, message: UserAddr, flags: u32) -> Result<usize> {
    send_message(task, &Handle::get(task, fd)?, message, flags)
}

pub fn sendmmsg(task: &Task, fd: i32, messages: UserAddr, count: u32, flags: u32) -> Result<usize> {
    let s = Handle::get(task, fd)?;
    let mut done = 0;
    for i in 0..u64::from(count).min(MAX_IOV) {
        let at = messages.add(i * MMSGHDR);
        let sent = send_message(task, &s, at, flags).and_then(|n| UserPtr::<u32>::new(at.add(MSGHDR)).write(n as u32));
        match sent {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

fn receive(s: &Handle, flags: u32, dst: &mut IoSink<'_>) -> Result<Received> {
    let socket = s.socket()?;
    socket.receive(dst, flags, s.wait(flags, socket.common().options.receive_timeout()))
}

pub fn recvfrom(task: &Task, fd: i32, buf: UserAddr, len: usize, flags: u32, at: UserAddr, address_len: UserPtr<i32>) -> Result<usize> {
    let piece = io::slice(buf, len)?;
    let s = Handle::get(task, fd)?;
    let got = receive(&s, flags, &mut IoSink::user(piece))?;
    if !at.is_null() {
        write_address(got.name.as_ref().map_or(&[], |n| n.as_bytes()), at, address_len)?;
    }
    Ok(got.len)
}

/// Where control messages go.
struct ControlOut {
    at: UserAddr,
    room: usize,
    used: usize,
    truncated: bool,
}

impl ControlOut {
    fn header(&self, len: usize, kind: u32) -> Result {
        let words = [len as u64, u64::from(kind) << 32 | u64::from(n::SOL_SOCKET)];
        UserPtr::<[u64; 2]>::new(self.at.add(self.used as u64)).write(words)
    }
    fn advance(&mut self, len: usize) {
        self.used = (self.used + len.next_multiple_of(CMSG_ALIGN)).min(self.room);
    }

    /// A message of `data`, cut off where the room ends.
    fn put(&mut self, kind: u32, data: &[u8]) -> Result {
        let left = self.room - self.used;
        if left < CMSG_HEADER {
            self.truncated = true;
            return Ok(());
        }
        let mut len = CMSG_HEADER + data.len();
        if len > left {
            self.truncated = true;
            len = left;
        }
        self.header(len, kind)?;
        let data = data.get(..len - CMSG_HEADER).unwrap_or(&[]);
        UserSlice::new(self.at.add((self.used + CMSG_HEADER) as u64), data.len()).write_from(data)?;
        self.advance(len);
        Ok(())
    }

    /// Gives the caller descriptors of the files, as many as there is room for.
    fn put_files(&mut self, task: &Task, files: KVec<KArc<OpenFile>>, cloexec: bool) -> Result {
        if files.is_empty() {
            return Ok(());
        }
        let left = self.room - self.used;
        let most = left.saturating_sub(CMSG_HEADER) / 4;
        let (all, table) = (files.len(), task.files()?);
        let mut done = 0;
        for file in files.into_iter().take(most) {
            let Ok(slot) = table.reserve(cloexec, 0, nofile(task)) else { break };
            let at = self.at.add((self.used + CMSG_HEADER + 4 * done) as u64);
            if UserPtr::<i32>::new(at).write(slot.fd().0 as i32).is_err() {
                break;
            }
            slot.install(file);
            done += 1;
        }
        if done > 0 {
            let len = CMSG_HEADER + 4 * done;
            self.header(len, n::SCM_RIGHTS)?;
            self.advance(len);
        }
        self.truncated |= done < all;
        Ok(())
    }
}

fn receive_message(task: &Task, s: &Handle, at: UserAddr, flags: u32) -> Result<usize> {
    let header = Header::read(at)?;
    let got = receive(s, flags, &mut IoSink::user_vec(&header.pieces))?;
    let mut out = ControlOut { at: header.control, room: header.control_len, used: 0, truncated: false };
    if let Some(ids) = got.ids {
        let mut bytes = [0; 12];
        for (to, word) in bytes.chunks_mut(4).zip([ids.pid, ids.uid, ids.gid]) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        out.put(n::SCM_CREDENTIALS, &bytes)?;
    }
    out.put_files(task, got.files, flags & n::MSG_CMSG_CLOEXEC != 0)?;
    if !header.name.is_null() {
        let name = got.name.as_ref().map_or(&[][..], |n| n.as_bytes());
        let len = name.len().min(header.name_len as usize);
        UserSlice::new(header.name, len).write_from(name.get(..len).unwrap_or(&[]))?;
        UserPtr::<u32>::new(at.add(8)).write(name.len() as u32)?;
    }
    let truncated = if out.truncated { n::MSG_CTRUNC } else { 0 };
    UserPtr::<u32>::new(at.add(48)).write(got.flags | truncated | flags & n::MSG_CMSG_CLOEXEC)?;
    UserPtr::<u64>::new(at.add(40)).write(out.used as u64)?;
    Ok(got.len)
}

pub fn recvmsg(task: &Task, fd: i32, message: UserAddr, flags: u32) -> Result<usize> {
    receive_message(task, &Handle::get(task, fd)?, message, flags)
}

/// `linux/socket.h`, which linux-raw-sys leaves out: wait for the first message only.
const MSG_WAITFORONE: u32 = 0x1_0000;

pub fn recvmmsg(task: &Task, fd: i32, messages: UserAddr, count: u32, flags: u32, timeout: UserPtr<g::__kernel_timespec>) -> Result<usize> {
    let until = crate::poll::deadline(timeout)?;
    let s = Handle::get(task, fd)?;
    let mut flags = flags;
    let mut done = 0;
    for i in 0..u64::from(count).min(MAX_IOV) {
        let at = messages.add(i * MMSGHDR);
        let got = receive_message(task, &s, at, flags & !MSG_WAITFORONE)
            .and_then(|n| UserPtr::<u32>::new(at.add(MSGHDR)).write(n as u32));
        match got {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        if flags & MSG_WAITFORONE != 0 {
            flags |= n::MSG_DONTWAIT;
        }
        // The time is looked at after each message only (recvmmsg(2), BUGS).
        if until.is_some_and(|until| time::monotonic() >= until) {
            break;
        }
    }
    Ok(done)
}
