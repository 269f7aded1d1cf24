//! The second half of the boot, in PID 1's thread: file systems, drivers, the initial RAM disk, and
//! the first program.

use super::{Text, initrd::Initrd};
use abi::Result;
use arch::boot::PhysRange;
use boot::cmdline;
use kalloc::KArc;
use process::init::InitOptions;
use sync::{LockClass, SpinLock};
use vfs::{Credentials, FsContext, Lookup, OpenHow, Path};

static HANDOVER: LockClass = LockClass::new("start.handover", 1099);

/// What the boot CPU leaves for PID 1's thread.
static INITRD: SpinLock<Option<PhysRange>> = SpinLock::new(None, &HANDOVER);
static ROOT: SpinLock<Option<Path>> = SpinLock::new(None, &HANDOVER);

/// Makes PID 1 and kthreadd and starts both.
pub(crate) fn spawn(initrd: Option<PhysRange>) -> Result {
    *INITRD.lock() = initrd;
    vfs_init()?;
    let rootfs = tmpfs::new_rootfs()?;
    let (mounts, root) = vfs::MountNamespace::new(&rootfs, b"rootfs")?;
    *ROOT.lock() = Some(root.clone());
    let fs = FsContext::new(root, 0o022)?;
    process::prepare()?;
    mm::commit::init(process::limits::may_use_reserve);
    let max_threads = frames::stats().total / 16;
    let init = process::init::create(mounts, fs, max_threads, main)?;
    sched::set_kthread_register(|thread| {
        if let Err(e) = process::kthread::register(thread) {
            log::warn!("kernel thread without a pid: {e}");
        }
    });
    let _kthreadd = sched::kthread::start_kthreadd()?;
    sched::start(&init);
    Ok(())
}

fn vfs_init() -> Result {
    tmpfs::init()?;
    procfs::init()?;
    ipc::init()?;
    event::init()?;
    net::init()?;
    Ok(())
}

/// PID 1, still in the kernel.
fn main() {
    let tree = device::dt::tree();
    let line = tree.and_then(|t| t.chosen().bootargs()).unwrap_or(b"");
    let options = cmdline::parse(line);
    for cpu in arch::cpu::online().iter() {
        if let Err(e) = sched::start_rcu_thread(cpu) {
            log::error!("CPU{}: no RCU thread: {e}", cpu.0);
        }
    }
    tty::console::parse(line);
    tty::set_job_control(&process::JobControl);
    if let Err(e) = devtmpfs::init() {
        log::error!("devtmpfs: {e}");
    }
    if let Err(e) = tty::init() {
        log::error!("tty: {e}");
    }
    if let Err(e) = devpts::init() {
        log::error!("devpts: {e}");
    }
    if let Some(tree) = tree {
        let probed = device::driver::probe_all(tree, &[&pl011::DRIVER, &pl031::DRIVER]);
        log::debug!("devices: {} ready, {} left alone", probed.ready, probed.failed);
    }
    tty::console::finish();
    if let Err(e) = process::proc::register() {
        log::error!("proc: {e}");
    }
    unpack();
    let console = open_console();
    let init = InitOptions {
        rdinit: options.rdinit,
        init: options.init,
        args: &options.init_args,
        env: &options.init_env,
    };
    match process::init::start_user(console, &init) {
        Ok(regs) => {
            sched::enter_user(&regs);
        }
        Err(e) if options.init.is_some() => {
            let path = Text(options.init.unwrap_or_default());
            arch::panic::stop(format_args!("Requested init {path} failed (error -{}).", e.code()))
        }
        Err(_) => arch::panic::stop(format_args!(
            "No working init found. Try passing init= option to the kernel. The initrd has none of \
             /init, /sbin/init, /etc/init, /bin/init, /bin/sh that could be run."
        )),
    }
}

/// Unpacks the initial RAM disk into the root and frees its memory.
fn unpack() {
    let Some(root) = ROOT.lock().clone() else { return };
    let Some(range) = INITRD.lock().take() else {
        log::warn!("no initrd: the root file system is empty (pass one with -initrd)");
        return;
    };
    log::info!("Unpacking initramfs ({}K)...", range.len() >> 10);
    let result = match Initrd::new(range) {
        Ok(mut input) => initramfs::unpack(&mut input, &root),
        Err(e) => {
            log::error!("initrd: {}", abi::Errno::from(e));
            return;
        }
    };
    match result {
        Ok(done) => log::info!("initramfs: {} entries, {}K", done.entries, done.bytes >> 10),
        Err(e) => log::error!("Initramfs unpacking failed: {e}"),
    }
    // What the unpacker did not reach, too.
    frames::free_reserved(range);
    log::info!("Freeing initrd memory: {}K", range.len() >> 10);
}

/// The standard files of PID 1.
fn open_console() -> Option<KArc<vfs::OpenFile>> {
    let root = ROOT.lock().clone()?;
    let fs = FsContext::new(root, 0o022).ok()?;
    let cred = KArc::try_new(Credentials::root()).ok()?;
    let how = OpenHow::flags(abi::raw::general::O_RDWR);
    let cx = Lookup { fs: &fs, cred: &cred };
    match vfs::open(&cx, None, b"/dev/console", how) {
        Ok(file) => Some(file),
        Err(e) => {
            log::debug!("{}: {e}", Text(b"/dev/console"));
            None
        }
    }
}
