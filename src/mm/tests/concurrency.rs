//! One address space, several threads at once: faults beside mapping, protecting and forking.
//!
//! Four simulated CPUs under the real scheduler, so that mutexes sleep and RCU has its threads.
//! Memory is reached as `/proc/PID/mem` reaches it: through faults and the page tables.

use std::sync::{
    Barrier, Once,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    mpsc,
};
use std::time::Duration;

use abi::{CpuId, CpuMask, Errno, PhysAddr, UserAddr};
use arch::sim;
use kalloc::KArc;
use mm::{Limits, AddressSpace, Advice, Fixed, MapFlags, MapRequest, Prot};

const CPUS: usize = 4;
const PAGE: u64 = 4096;
const BASE: u64 = 0x20_0000_0000;

struct TestKernel;
impl arch::Kernel for TestKernel {
    fn syscall(&self, _: &mut arch::UserRegs) {}
    fn user_fault(&self, _: &mut arch::UserRegs, _: arch::PageFault) {}
    fn kernel_user_copy_fault(&self, _: arch::PageFault) -> bool {
        false
    }
    fn user_exception(&self, _: &mut arch::UserRegs, _: arch::UserException) {}
    fn interrupt(&self) {}
    fn exit_work(&self, _: &mut arch::UserRegs, _: u32) {}
    fn preempt_schedule(&self) {
        sched::preempt_schedule();
    }
}

struct NoIpi;
impl sched::Ipi for NoIpi {
    fn reschedule(&self, _: CpuId) {}
    fn call(&self, _: CpuId) {}
}

fn machine() {
    static START: Once = Once::new();
    START.call_once(|| {
        let (ready, wait) = mpsc::channel();
        std::thread::spawn(move || {
            // Not on the test's thread, which would keep a CPU's number.
            let start = PhysAddr(0x4000_0000);
            sim::ensure_phys_arena(start, 64 << 20);
            let banks = [frames::PhysRange::new(start, PhysAddr(start.0 + (64 << 20)))];
            // The first page stands for the kernel's root table.
            let reserved = [frames::PhysRange::new(start, PhysAddr(start.0 + PAGE))];
            frames::init(&banks, &reserved).unwrap();
            sim::set_counter(1_000_000_000);
            arch::set_kernel(&TestKernel);
            time::init();
            sched::set_ipi(&NoIpi);
            let started = Barrier::new(CPUS);
            let ready = std::sync::Mutex::new(ready);
            sim::run_on_cpus(CPUS, |_| {
                started.wait();
                sched::init_boot_cpu().unwrap();
                if started.wait().is_leader() {
                    for cpu in 0..CPUS as u32 {
                        sched::start_rcu_thread(CpuId(cpu)).unwrap();
                    }
                    ready.lock().unwrap().send(()).unwrap();
                }
                sched::idle_loop()
            });
        });
        wait.recv_timeout(Duration::from_secs(20)).unwrap();
    });
}

/// Runs each closure in a kernel thread on a CPU of its own, until all have ended.
fn together(work: Vec<Box<dyn FnOnce() + Send>>) {
    machine();
    let (done, all) = mpsc::channel();
    let n = work.len();
    for (i, f) in work.into_iter().enumerate() {
        let done = done.clone();
        let spec = sched::ThreadSpec {
            name: *b"mm_test\0\0\0\0\0\0\0\0\0",
            nice: 0,
            affinity: CpuMask::of(CpuId((i % CPUS) as u32)),
            payload: None,
            user_space: None,
            stack: frames::vmalloc::alloc_stack().unwrap(),
        };
        let thread = sched::create_kernel(spec, move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            done.send(outcome.is_ok()).unwrap();
        })
        .unwrap();
        sched::start(&thread);
    }
    for _ in 0..n {
        assert!(all.recv_timeout(Duration::from_secs(120)).expect("a thread hangs"), "a thread failed");
    }
}

fn map(space: &AddressSpace, page: u64, pages: u64, prot: Prot, flags: MapFlags) -> abi::Result {
    space
        .map(MapRequest {
            addr: Some(UserAddr(BASE + page * PAGE)),
            fixed: Fixed::Replace,
            len: pages * PAGE,
            prot,
            flags,
            ..Default::default()
        })
        .map(drop)
}

fn write(space: &AddressSpace, page: u64, value: u8) -> abi::Result {
    space.write_remote(UserAddr(BASE + page * PAGE), &[value]).map(drop)
}

fn read(space: &AddressSpace, page: u64) -> abi::Result<u8> {
    let mut byte = [0];
    space.read_remote(UserAddr(BASE + page * PAGE), &mut byte).map(|_| byte[0])
}

#[test]
fn threads_that_fault_keep_their_pages_while_others_change_the_map() {
    machine();
    let space = AddressSpace::new().unwrap();
    // Two quiet areas with one writer each, and a noisy one between them.
    map(&space, 0, 64, Prot::RW, MapFlags::empty()).unwrap();
    map(&space, 100, 64, Prot::RW, MapFlags::empty()).unwrap();
    let stop = KArc::try_new(AtomicBool::new(false)).unwrap();
    let left = KArc::try_new(AtomicUsize::new(2)).unwrap();
    let mut work: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for first in [0u64, 100] {
        let (space, stop, left) = (space.clone(), stop.clone(), left.clone());
        work.push(Box::new(move || {
            for round in 1..60u8 {
                for page in first..first + 64 {
                    assert_eq!(write(&space, page, round), Ok(()));
                }
                for page in first..first + 64 {
                    assert_eq!(read(&space, page), Ok(round), "page {page}");
                }
                if round % 8 == 0 {
                    space.advise(UserAddr(BASE + first * PAGE), 64 * PAGE, Advice::DontNeed).unwrap();
                    assert_eq!(read(&space, first), Ok(0));
                }
                sched::yield_now();
            }
            if left.fetch_sub(1, SeqCst) == 1 {
                stop.store(true, SeqCst);
            }
        }));
    }
    // Splits and joins the quiet areas' neighbourhood, and replaces what lies between.
    let (s, halt) = (space.clone(), stop.clone());
    work.push(Box::new(move || {
        let mut n = 0u64;
        while !halt.load(SeqCst) {
            n += 1;
            map(&s, 64, 36, Prot::RW, MapFlags::empty()).unwrap();
            let _ = write(&s, 64 + n % 36, 1);
            s.protect(UserAddr(BASE + (70 + n % 10) * PAGE), 5 * PAGE, Prot::R, &Limits::UNLIMITED).unwrap();
            match write(&s, 72 + n % 10, 2) {
                Ok(()) | Err(Errno::EFAULT) => {}
                other => panic!("{other:?}"),
            }
            s.unmap(UserAddr(BASE + 64 * PAGE), 36 * PAGE).unwrap();
            sched::yield_now();
        }
    }));
    // Forks, and looks at a copy that nobody else changes.
    let (s, halt) = (space.clone(), stop.clone());
    work.push(Box::new(move || {
        while !halt.load(SeqCst) {
            let child = s.fork().unwrap();
            let before: Vec<_> = (0..8).map(|p| read(&child, p)).collect();
            for _ in 0..4 {
                sched::yield_now();
            }
            let after: Vec<_> = (0..8).map(|p| read(&child, p)).collect();
            assert_eq!(before, after, "the parent's stores reach the child");
            write(&child, 3, 200).unwrap();
            assert_eq!(read(&child, 3), Ok(200));
        }
    }));
    together(work);
    assert_eq!(space.stats().areas, 2);
    assert_eq!(space.stats().rss.total(), 128);
}

#[test]
fn threads_that_fault_on_one_page_agree_on_it() {
    machine();
    for _ in 0..20 {
        let space = AddressSpace::new().unwrap();
        map(&space, 0, 16, Prot::RW, MapFlags::empty()).unwrap();
        let mut work: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for me in 0..CPUS as u64 {
            let space = space.clone();
            work.push(Box::new(move || {
                for page in 0..16 {
                    let mine = UserAddr(BASE + page * PAGE + me);
                    space.write_remote(mine, &[me as u8 + 1]).unwrap();
                }
            }));
        }
        together(work);
        for page in 0..16 {
            let mut bytes = [0; CPUS];
            space.read_remote(UserAddr(BASE + page * PAGE), &mut bytes).unwrap();
            assert_eq!(bytes, [1, 2, 3, 4], "page {page}");
        }
        assert_eq!(space.stats().rss.anon, 16);
    }
}
