//! Barriers on all CPUs that run a program, so that its fast paths need none (`membarrier(2)`).
//!
//! An interrupt on a CPU is a full barrier for what runs there, and the return from it synchronises
//! the instruction stream (Arm ARM D1.3.4, context synchronisation events). A CPU that runs something
//! else passes a barrier when it switches to the program.

use crate::{rseq, task::Task};
use abi::{CpuId, CpuMask, Errno, Result, raw::general as g};
use sync::atomic::{Ordering, fence};

const GLOBAL: u32 = g::membarrier_cmd::MEMBARRIER_CMD_GLOBAL as u32;
const GLOBAL_EXPEDITED: u32 = g::membarrier_cmd::MEMBARRIER_CMD_GLOBAL_EXPEDITED as u32;
const REGISTER_GLOBAL: u32 = g::membarrier_cmd::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED as u32;
const PRIVATE: u32 = g::membarrier_cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED as u32;
const REGISTER_PRIVATE: u32 = g::membarrier_cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u32;
const SYNC_CORE: u32 = g::membarrier_cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE as u32;
const REGISTER_SYNC_CORE: u32 = g::membarrier_cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE as u32;
const RSEQ: u32 = g::membarrier_cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ as u32;
const REGISTER_RSEQ: u32 = g::membarrier_cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ as u32;
const ALL: u32 = GLOBAL
    | GLOBAL_EXPEDITED
    | REGISTER_GLOBAL
    | PRIVATE
    | REGISTER_PRIVATE
    | SYNC_CORE
    | REGISTER_SYNC_CORE
    | RSEQ
    | REGISTER_RSEQ;
/// MEMBARRIER_CMD_FLAG_CPU.
const FLAG_CPU: u32 = 1;

/// `membarrier(2)`. EINVAL; EPERM for a private command that the program did not register for.
pub fn membarrier(task: &Task, command: u32, flags: u32, cpu: i32) -> Result<u32> {
    let on_cpu = command == RSEQ && flags == FLAG_CPU;
    if flags != 0 && !on_cpu {
        return Err(Errno::EINVAL);
    }
    let memory = task.memory().ok_or(Errno::EINVAL)?;
    let registered = |need: u32| if memory.membarrier.load(Ordering::Relaxed) & need != 0 { Ok(()) } else { Err(Errno::EPERM) };
    match command {
        0 => return Ok(ALL),
        GLOBAL => sync::rcu::synchronize(),
        GLOBAL_EXPEDITED => everywhere(CpuMask(u64::MAX), false)?,
        REGISTER_GLOBAL | REGISTER_PRIVATE | REGISTER_SYNC_CORE | REGISTER_RSEQ => {
            memory.membarrier.fetch_or(command, Ordering::Relaxed);
        }
        PRIVATE => {
            registered(REGISTER_PRIVATE)?;
            everywhere(CpuMask(u64::MAX), false)?;
        }
        SYNC_CORE => {
            registered(REGISTER_SYNC_CORE)?;
            everywhere(CpuMask(u64::MAX), false)?;
        }
        RSEQ => {
            registered(REGISTER_RSEQ)?;
            let mask = match (on_cpu, u32::try_from(cpu)) {
                (false, _) | (true, Err(_)) => CpuMask(u64::MAX),
                (true, Ok(n)) if n < 64 => CpuMask::of(CpuId(n)),
                // Nobody runs on a CPU that does not exist.
                (true, Ok(_)) => return Ok(0),
            };
            everywhere(mask, true)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// A full barrier on every CPU of the mask; with `sequences`, what runs there leaves its sequence.
fn everywhere(mask: CpuMask, sequences: bool) -> Result {
    fence(Ordering::SeqCst);
    sched::smp::call_on(mask, move |_| {
        fence(Ordering::SeqCst);
        if sequences {
            rseq::interrupt_current();
        }
    })
}
