//! The table: one line a call. `@regs` in front of the handler means that it gets the registers too.
//!
//! docs/syscalls.md is generated from these lines (scripts/syscalls-doc).

use crate::{
    Handler,
    args::{DirFd, FromWord, IntoReturn, UserPath},
    attrs, clone, dirs, events, fds, futexes, ids, io, memory, mounts, poll, prctl, processes, scheduling, signals, sockets, splice, system,
    times, tracing,
};
use abi::{UserAddr, raw::general as nr};
use arch::user::UserPtr;
use vfs::Fd;

/// Slots of the table; numbers beyond are ENOSYS.
const SIZE: usize = 512;
const _: () = assert!(SIZE.is_power_of_two(), "find relies on it");

/// The handler of a number. A number beyond the table selects nothing, on a wrong path neither.
#[inline]
pub(crate) fn find(number: u32) -> Option<Handler> {
    let number = number as usize;
    if number >= SIZE {
        return None;
    }
    *TABLE.get(arch::cpu::index_nospec(number, SIZE) & (SIZE - 1))?
}

macro_rules! calls {
    ($($number:ident => $(@$regs:ident)? $module:ident :: $function:ident ( $($arg:ty),* $(,)? ),)*) => {
        #[expect(clippy::indexing_slicing, reason = "filled while compiling: a number too large is a compile error")]
        static TABLE: [Option<Handler>; SIZE] = {
            let mut table: [Option<Handler>; SIZE] = [None; SIZE];
            $(table[nr::$number as usize] = Some(|task, regs| {
                let mut words = regs.x.into_iter();
                let _ = &mut words;
                call!(task, regs, words, $(@$regs)? $module::$function($($arg),*))
            });)*
            table
        };

        /// Number and name of every call.
        pub(crate) static NAMES: &[(u32, &str)] = &[$((nr::$number, stringify!($number)),)*];
    };
}

/// Converts the words, calls the handler, converts the result.
macro_rules! call {
    ($task:ident, $regs:ident, $words:ident, $module:ident::$function:ident($($arg:ty),*)) => {
        $module::$function($task, $(<$arg>::from_word($words.next().unwrap_or(0))?),*).map(IntoReturn::into_return)
    };
    ($task:ident, $regs:ident, $words:ident, @regs $module:ident::$function:ident($($arg:ty),*)) => {
        $module::$function($task, $regs, $(<$arg>::from_word($words.next().unwrap_or(0))?),*).map(IntoReturn::into_return)
    };
}

calls! {
    __NR_openat => fds::openat(DirFd, UserPath, u32, u32),
    __NR_openat2 => fds::openat2(DirFd, UserPath, UserAddr, usize),
    __NR_close => fds::close(i32),
    __NR_memfd_create => fds::memfd_create(UserAddr, u32),
    __NR_close_range => fds::close_range(u32, u32, u32),
    __NR_dup => fds::dup(Fd),
    __NR_dup3 => fds::dup3(i32, i32, u32),
    __NR_fcntl => fds::fcntl(Fd, u32, u64),
    __NR_flock => fds::flock(Fd, u32),
    __NR_pipe2 => fds::pipe2(UserPtr<[i32; 2]>, u32),
    __NR_ioctl => fds::ioctl(Fd, u32, u64),
    __NR_read => io::read(Fd, UserAddr, usize),
    __NR_write => io::write(Fd, UserAddr, usize),
    __NR_readv => io::readv(Fd, UserAddr, u64),
    __NR_writev => io::writev(Fd, UserAddr, u64),
    __NR_pread64 => io::pread64(Fd, UserAddr, usize, i64),
    __NR_pwrite64 => io::pwrite64(Fd, UserAddr, usize, i64),
    __NR_preadv => io::preadv(Fd, UserAddr, u64, i64),
    __NR_pwritev => io::pwritev(Fd, UserAddr, u64, i64),
    __NR_preadv2 => io::preadv2(Fd, UserAddr, u64, i64, u64, u32),
    __NR_pwritev2 => io::pwritev2(Fd, UserAddr, u64, i64, u64, u32),
    __NR_readahead => io::readahead(Fd, i64, usize),
    __NR_sync_file_range => io::sync_file_range(Fd, i64, i64, u32),
    __NR_splice => splice::splice(i32, UserPtr<i64>, i32, UserPtr<i64>, usize, u32),
    __NR_tee => splice::tee(i32, i32, usize, u32),
    __NR_vmsplice => splice::vmsplice(i32, UserAddr, u64, u32),
    __NR_sendfile => splice::sendfile(i32, i32, UserPtr<i64>, usize),
    __NR_copy_file_range => splice::copy_file_range(i32, UserPtr<i64>, i32, UserPtr<i64>, usize, u32),
    __NR_lseek => io::lseek(Fd, i64, u32),
    __NR_fsync => io::fsync(Fd),
    __NR_fdatasync => io::fdatasync(Fd),
    __NR_sync => io::sync(),
    __NR_syncfs => io::syncfs(Fd),
    __NR_fallocate => io::fallocate(Fd, u32, i64, i64),
    __NR_ftruncate => io::ftruncate(Fd, i64),
    __NR_truncate => io::truncate(UserPath, i64),
    __NR_fadvise64 => io::fadvise64(Fd, i64, i64, u32),
    __NR_getdents64 => dirs::getdents64(Fd, UserAddr, u32),
    __NR_mkdirat => dirs::mkdirat(DirFd, UserPath, u32),
    __NR_mknodat => dirs::mknodat(DirFd, UserPath, u32, u32),
    __NR_unlinkat => dirs::unlinkat(DirFd, UserPath, u32),
    __NR_renameat => dirs::renameat(DirFd, UserPath, DirFd, UserPath),
    __NR_renameat2 => dirs::renameat2(DirFd, UserPath, DirFd, UserPath, u32),
    __NR_linkat => dirs::linkat(DirFd, UserPath, DirFd, UserPath, u32),
    __NR_symlinkat => dirs::symlinkat(UserPath, DirFd, UserPath),
    __NR_readlinkat => dirs::readlinkat(DirFd, UserPath, UserAddr, i32),
    __NR_chdir => dirs::chdir(UserPath),
    __NR_fchdir => dirs::fchdir(Fd),
    __NR_chroot => dirs::chroot(UserPath),
    __NR_getcwd => dirs::getcwd(UserAddr, usize),
    __NR_umask => dirs::umask(u32),
    __NR_newfstatat => attrs::newfstatat(DirFd, UserPath, UserPtr<arch::user::Stat>, u32),
    __NR_fstat => attrs::fstat(Fd, UserPtr<arch::user::Stat>),
    __NR_statx => attrs::statx(DirFd, UserPath, u32, u32, UserPtr<nr::statx>),
    __NR_faccessat => attrs::faccessat(DirFd, UserPath, u32),
    __NR_faccessat2 => attrs::faccessat2(DirFd, UserPath, u32, u32),
    __NR_fchmod => attrs::fchmod(Fd, u32),
    __NR_fchmodat => attrs::fchmodat(DirFd, UserPath, u32),
    __NR_fchown => attrs::fchown(Fd, u32, u32),
    __NR_fchownat => attrs::fchownat(DirFd, UserPath, u32, u32, u32),
    __NR_utimensat => attrs::utimensat(DirFd, UserPath, UserPtr<[nr::__kernel_timespec; 2]>, u32),
    __NR_statfs => attrs::statfs(UserPath, UserPtr<nr::statfs>),
    __NR_fstatfs => attrs::fstatfs(Fd, UserPtr<nr::statfs>),
    __NR_setxattr => attrs::setxattr(UserPath, UserPath, UserAddr, usize, u32),
    __NR_lsetxattr => attrs::lsetxattr(UserPath, UserPath, UserAddr, usize, u32),
    __NR_fsetxattr => attrs::fsetxattr(Fd, UserPath, UserAddr, usize, u32),
    __NR_getxattr => attrs::getxattr(UserPath, UserPath, UserAddr, usize),
    __NR_lgetxattr => attrs::lgetxattr(UserPath, UserPath, UserAddr, usize),
    __NR_fgetxattr => attrs::fgetxattr(Fd, UserPath, UserAddr, usize),
    __NR_listxattr => attrs::listxattr(UserPath, UserAddr, usize),
    __NR_llistxattr => attrs::llistxattr(UserPath, UserAddr, usize),
    __NR_flistxattr => attrs::flistxattr(Fd, UserAddr, usize),
    __NR_removexattr => attrs::removexattr(UserPath, UserPath),
    __NR_lremovexattr => attrs::lremovexattr(UserPath, UserPath),
    __NR_fremovexattr => attrs::fremovexattr(Fd, UserPath),
    __NR_mount => mounts::mount(UserAddr, UserPath, UserAddr, u64, UserAddr),
    __NR_umount2 => mounts::umount2(UserPath, u32),
    __NR_pivot_root => mounts::pivot_root(UserPath, UserPath),
    __NR_ppoll => poll::ppoll(UserPtr<nr::pollfd>, u32, UserPtr<nr::__kernel_timespec>, UserPtr<u64>, usize),
    __NR_pselect6 => poll::pselect6(i32, UserAddr, UserAddr, UserAddr, UserPtr<nr::__kernel_timespec>, UserPtr<arch::user::SigsetArg>),
    __NR_eventfd2 => events::eventfd2(u32, u32),
    __NR_signalfd4 => events::signalfd4(i32, UserPtr<u64>, usize, u32),
    __NR_timerfd_create => events::timerfd_create(u32, u32),
    __NR_timerfd_settime => events::timerfd_settime(i32, u32, UserPtr<[nr::__kernel_timespec; 2]>, UserPtr<[nr::__kernel_timespec; 2]>),
    __NR_timerfd_gettime => events::timerfd_gettime(Fd, UserPtr<[nr::__kernel_timespec; 2]>),
    __NR_inotify_init1 => events::inotify_init1(u32),
    __NR_inotify_add_watch => events::inotify_add_watch(i32, UserPath, u32),
    __NR_inotify_rm_watch => events::inotify_rm_watch(i32, i32),
    __NR_epoll_create1 => events::epoll_create1(u32),
    __NR_epoll_ctl => events::epoll_ctl(i32, u32, i32, UserPtr<[u64; 2]>),
    __NR_epoll_pwait => events::epoll_pwait(i32, UserAddr, i32, i32, UserPtr<u64>, usize),
    __NR_epoll_pwait2 => events::epoll_pwait2(i32, UserAddr, i32, UserPtr<nr::__kernel_timespec>, UserPtr<u64>, usize),
    __NR_socket => sockets::socket(u32, u32, u32),
    __NR_socketpair => sockets::socketpair(u32, u32, u32, UserPtr<[i32; 2]>),
    __NR_bind => sockets::bind(i32, UserAddr, i32),
    __NR_listen => sockets::listen(i32, u32),
    __NR_accept => sockets::accept(i32, UserAddr, UserPtr<i32>),
    __NR_accept4 => sockets::accept4(i32, UserAddr, UserPtr<i32>, u32),
    __NR_connect => sockets::connect(i32, UserAddr, i32),
    __NR_getsockname => sockets::getsockname(i32, UserAddr, UserPtr<i32>),
    __NR_getpeername => sockets::getpeername(i32, UserAddr, UserPtr<i32>),
    __NR_sendto => sockets::sendto(i32, UserAddr, usize, u32, UserAddr, i32),
    __NR_recvfrom => sockets::recvfrom(i32, UserAddr, usize, u32, UserAddr, UserPtr<i32>),
    __NR_setsockopt => sockets::setsockopt(i32, u32, u32, UserAddr, i32),
    __NR_getsockopt => sockets::getsockopt(i32, u32, u32, UserAddr, UserPtr<i32>),
    __NR_shutdown => sockets::shutdown(i32, u32),
    __NR_sendmsg => sockets::sendmsg(i32, UserAddr, u32),
    __NR_recvmsg => sockets::recvmsg(i32, UserAddr, u32),
    __NR_sendmmsg => sockets::sendmmsg(i32, UserAddr, u32, u32),
    __NR_recvmmsg => sockets::recvmmsg(i32, UserAddr, u32, u32, UserPtr<nr::__kernel_timespec>),
    __NR_mmap => memory::mmap(UserAddr, u64, u32, u32, i32, u64),
    __NR_munmap => memory::munmap(UserAddr, u64),
    __NR_mprotect => memory::mprotect(UserAddr, u64, u32),
    __NR_mremap => memory::mremap(UserAddr, u64, u64, u32, UserAddr),
    __NR_madvise => memory::madvise(UserAddr, u64, u32),
    __NR_mincore => memory::mincore(UserAddr, u64, UserAddr),
    __NR_msync => memory::msync(UserAddr, u64, u32),
    __NR_mlock => memory::mlock(UserAddr, u64),
    __NR_munlock => memory::munlock(UserAddr, u64),
    __NR_mlock2 => memory::mlock2(UserAddr, u64, u32),
    __NR_mlockall => memory::mlockall(u32),
    __NR_munlockall => memory::munlockall(),
    __NR_brk => memory::brk(UserAddr),
    __NR_clone => @regs clone::clone(u64, u64, UserAddr, u64, UserAddr),
    __NR_clone3 => @regs clone::clone3(UserAddr, usize),
    __NR_pidfd_open => clone::pidfd_open(i32, u32),
    __NR_pidfd_send_signal => clone::pidfd_send_signal(i32, u32, UserPtr<[u8; 128]>, u32),
    __NR_pidfd_getfd => clone::pidfd_getfd(i32, u32, u32),
    __NR_execve => @regs processes::execve(UserPath, UserAddr, UserAddr),
    __NR_execveat => @regs processes::execveat(DirFd, UserPath, UserAddr, UserAddr, u32),
    __NR_exit => @regs processes::exit(u32),
    __NR_exit_group => @regs processes::exit_group(u32),
    __NR_wait4 => processes::wait4(i32, UserPtr<u32>, u32, UserPtr<nr::rusage>),
    __NR_personality => processes::personality(u32),
    __NR_waitid => processes::waitid(u32, i32, UserAddr, u32, UserPtr<nr::rusage>),
    __NR_ptrace => tracing::ptrace(u64, i64, u64, u64),
    __NR_process_vm_readv => tracing::process_vm_readv(i32, UserAddr, u64, UserAddr, u64, u64),
    __NR_process_vm_writev => tracing::process_vm_writev(i32, UserAddr, u64, UserAddr, u64, u64),
    __NR_getpid => processes::getpid(),
    __NR_getppid => processes::getppid(),
    __NR_gettid => processes::gettid(),
    __NR_setsid => processes::setsid(),
    __NR_getsid => processes::getsid(i32),
    __NR_setpgid => processes::setpgid(i32, i32),
    __NR_getpgid => processes::getpgid(i32),
    __NR_set_tid_address => processes::set_tid_address(UserAddr),
    __NR_set_robust_list => processes::set_robust_list(UserAddr, usize),
    __NR_get_robust_list => processes::get_robust_list(i32, UserPtr<u64>, UserPtr<u64>),
    __NR_prctl => prctl::prctl(u32, u64, u64, u64, u64),
    __NR_seccomp => prctl::seccomp(u32, u32, UserAddr),
    __NR_capget => prctl::capget(UserAddr, UserAddr),
    __NR_capset => prctl::capset(UserAddr, UserAddr),
    __NR_unshare => prctl::unshare(u32),
    __NR_setns => prctl::setns(Fd, u32),
    __NR_kcmp => prctl::kcmp(i32, i32, u32, u32, u32),
    __NR_ioprio_set => prctl::ioprio_set(u32, i32, u32),
    __NR_ioprio_get => prctl::ioprio_get(u32, i32),
    __NR_getrlimit => processes::getrlimit(u32, UserPtr<[u64; 2]>),
    __NR_setrlimit => processes::setrlimit(u32, UserPtr<[u64; 2]>),
    __NR_prlimit64 => processes::prlimit64(i32, u32, UserPtr<[u64; 2]>, UserPtr<[u64; 2]>),
    __NR_getrusage => processes::getrusage(i32, UserPtr<nr::rusage>),
    __NR_getpriority => processes::getpriority(u32, i32),
    __NR_setpriority => processes::setpriority(u32, i32, i32),
    __NR_sched_yield => processes::sched_yield(),
    __NR_sched_getaffinity => processes::sched_getaffinity(i32, u32, UserAddr),
    __NR_sched_setaffinity => processes::sched_setaffinity(i32, u32, UserAddr),
    __NR_sched_setscheduler => scheduling::sched_setscheduler(i32, i32, UserPtr<u32>),
    __NR_sched_getscheduler => scheduling::sched_getscheduler(i32),
    __NR_sched_setparam => scheduling::sched_setparam(i32, UserPtr<u32>),
    __NR_sched_getparam => scheduling::sched_getparam(i32, UserPtr<u32>),
    __NR_sched_setattr => scheduling::sched_setattr(i32, UserAddr, u32),
    __NR_sched_getattr => scheduling::sched_getattr(i32, UserAddr, u32, u32),
    __NR_sched_get_priority_max => scheduling::sched_get_priority_max(u32),
    __NR_sched_get_priority_min => scheduling::sched_get_priority_min(u32),
    __NR_sched_rr_get_interval => scheduling::sched_rr_get_interval(i32, UserPtr<nr::__kernel_timespec>),
    __NR_membarrier => scheduling::membarrier(u32, u32, i32),
    __NR_rseq => scheduling::rseq(UserAddr, u32, u32, u32),
    __NR_kill => signals::kill(i32, u32),
    __NR_tkill => signals::tkill(i32, u32),
    __NR_tgkill => signals::tgkill(i32, i32, u32),
    __NR_rt_sigaction => signals::rt_sigaction(u32, UserPtr<[u64; 4]>, UserPtr<[u64; 4]>, usize),
    __NR_rt_sigprocmask => signals::rt_sigprocmask(u32, UserPtr<u64>, UserPtr<u64>, usize),
    __NR_rt_sigpending => signals::rt_sigpending(UserPtr<u64>, usize),
    __NR_rt_sigsuspend => signals::rt_sigsuspend(UserPtr<u64>, usize),
    __NR_rt_sigtimedwait => signals::rt_sigtimedwait(UserPtr<u64>, UserPtr<[u8; 128]>, UserPtr<nr::__kernel_timespec>, usize),
    __NR_rt_sigqueueinfo => signals::rt_sigqueueinfo(i32, u32, UserAddr),
    __NR_rt_tgsigqueueinfo => signals::rt_tgsigqueueinfo(i32, i32, u32, UserAddr),
    __NR_rt_sigreturn => @regs signals::rt_sigreturn(),
    __NR_sigaltstack => @regs signals::sigaltstack(UserPtr<[u64; 3]>, UserPtr<[u64; 3]>),
    __NR_restart_syscall => signals::restart_syscall(),
    __NR_clock_gettime => times::clock_gettime(i32, UserPtr<nr::__kernel_timespec>),
    __NR_clock_settime => times::clock_settime(i32, UserPtr<nr::__kernel_timespec>),
    __NR_clock_getres => times::clock_getres(i32, UserPtr<nr::__kernel_timespec>),
    __NR_clock_nanosleep => times::clock_nanosleep(i32, u32, UserPtr<nr::__kernel_timespec>, UserPtr<nr::__kernel_timespec>),
    __NR_timer_create => times::timer_create(i32, UserPtr<[u64; 8]>, UserPtr<u32>),
    __NR_timer_settime => times::timer_settime(u32, u32, UserPtr<[nr::__kernel_timespec; 2]>, UserPtr<[nr::__kernel_timespec; 2]>),
    __NR_timer_gettime => times::timer_gettime(u32, UserPtr<[nr::__kernel_timespec; 2]>),
    __NR_timer_getoverrun => times::timer_getoverrun(u32),
    __NR_timer_delete => times::timer_delete(u32),
    __NR_setitimer => times::setitimer(u32, UserPtr<nr::itimerval>, UserPtr<nr::itimerval>),
    __NR_getitimer => times::getitimer(u32, UserPtr<nr::itimerval>),
    __NR_nanosleep => times::nanosleep(UserPtr<nr::__kernel_timespec>, UserPtr<nr::__kernel_timespec>),
    __NR_gettimeofday => times::gettimeofday(UserPtr<nr::timeval>, UserPtr<[i32; 2]>),
    __NR_settimeofday => times::settimeofday(UserPtr<nr::timeval>, UserPtr<[i32; 2]>),
    __NR_times => times::times(UserPtr<[u64; 4]>),
    __NR_getuid => ids::getuid(),
    __NR_geteuid => ids::geteuid(),
    __NR_getgid => ids::getgid(),
    __NR_getegid => ids::getegid(),
    __NR_getresuid => ids::getresuid(UserPtr<u32>, UserPtr<u32>, UserPtr<u32>),
    __NR_getresgid => ids::getresgid(UserPtr<u32>, UserPtr<u32>, UserPtr<u32>),
    __NR_setuid => ids::setuid(u32),
    __NR_setgid => ids::setgid(u32),
    __NR_setreuid => ids::setreuid(u32, u32),
    __NR_setregid => ids::setregid(u32, u32),
    __NR_setresuid => ids::setresuid(u32, u32, u32),
    __NR_setresgid => ids::setresgid(u32, u32, u32),
    __NR_setfsuid => ids::setfsuid(u32),
    __NR_setfsgid => ids::setfsgid(u32),
    __NR_getgroups => ids::getgroups(i32, UserAddr),
    __NR_setgroups => ids::setgroups(i32, UserAddr),
    __NR_futex => futexes::futex(UserAddr, u32, u32, u64, UserAddr, u32),
    __NR_vhangup => system::vhangup(),
    __NR_futex_waitv => futexes::futex_waitv(UserAddr, u32, u32, u64, u32),
    __NR_uname => system::uname(UserAddr),
    __NR_sethostname => system::sethostname(UserAddr, i32),
    __NR_setdomainname => system::setdomainname(UserAddr, i32),
    __NR_sysinfo => system::sysinfo(UserPtr<arch::user::SysInfo>),
    __NR_reboot => system::reboot(u32, u32, u32, UserAddr),
    __NR_getrandom => system::getrandom(UserAddr, usize, u32),
    __NR_syslog => system::syslog(i32, UserAddr, i32),
    __NR_getcpu => system::getcpu(UserPtr<u32>, UserPtr<u32>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_line_have_no_handler() {
        for n in (0..1000).chain([9999, u32::MAX]) {
            assert_eq!(find(n).is_some(), NAMES.iter().any(|(number, _)| *number == n), "{n}");
        }
    }

    #[test]
    fn every_line_is_in_the_table_once() {
        let mut numbers: Vec<u32> = NAMES.iter().map(|(n, _)| *n).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), NAMES.len());
        assert!(numbers.iter().all(|n| find(*n).is_some()));
    }
}
