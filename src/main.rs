#![no_std]
#![no_main]
//! Linnet: the composition. Every room is made and connected here, in the order of the boot; only
//! this crate names drivers and file systems.
//!
//! The boot CPU enters [`linnet_main`] from the assembly at the kernel's final address, on the boot
//! stack, with interrupts off. It sets memory, time, the scheduler and interrupts up, starts the
//! other CPUs and PID 1, and becomes the idle thread of CPU 0. The rest of the boot ([`start::user`])
//! runs in PID 1's thread, where it may sleep.

mod kernel;
mod start;

use abi::CpuId;

/// From the boot assembly: see the crate's head.
#[unsafe(no_mangle)]
extern "C" fn linnet_main() -> ! {
    start::console::early();
    let tree = start::tree();
    let options = boot::cmdline::parse(tree.chosen().bootargs().unwrap_or(b""));
    start::console::levels(&options);
    start::banner(&tree);
    let map = start::memory(&tree);

    time::init();
    arch::set_kernel(&kernel::LINNET);
    process::task::set_syscalls(syscall::dispatch);
    start::power(&tree);
    start::or_stop("scheduler", sched::init_boot_cpu());
    start::or_stop("interrupt stacks", start::stacks::give(CpuId::BOOT));
    start::or_stop("interrupt controller", gic::init(&tree));
    start::console::panic_hooks();
    start::or_stop("timer", start::interrupts(&tree));
    arch::irq::enable();

    start::cpus(&tree, &options);
    start::seed_random(&tree);
    start::stacks::randomize(&options);
    start::or_stop("PID 1", start::user::spawn(map.initrd));
    sched::idle_loop()
}

/// Where a secondary CPU arrives, on its idle thread, with interrupts off.
extern "C" fn secondary_main(cpu: CpuId) -> ! {
    if let Err(e) = device::irq::init_cpu(cpu) {
        log::error!("CPU{}: no interrupts: {e}", cpu.0);
    }
    sched::init_secondary(cpu);
    sched::idle_loop()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    arch::panic::report(info)
}

