//! The random generator behind /dev/urandom, getrandom(2), AT_RANDOM and address randomisation.
//!
//! ChaCha20 with fast key erasure: every request takes its bytes from a fresh stream whose first
//! 32 bytes replace the key at once, so that a later look at the state tells nothing about what was
//! given out (Bernstein, "Fast-key-erasure random-number generators", 2017). Up to 32 bytes cost one
//! block. What is fed in is mixed by encrypting: the new key is a block under (old key xor input), 32 bytes of input a step.
//!
//! Seeding: the boot loader's rng-seed, credited as it claims; beside it jitter of the counter,
//! sampled at boot and with each request, is mixed in and credited one bit a sample at most. Until
//! 256 bits are credited the generator is not "seeded"; /dev/urandom gives bytes all the same,
//! getrandom(2) waits or says EAGAIN.

use crate::class;
use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use sched::WaitQueue;
use sync::{
    SpinLock,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

struct State {
    key: [u8; 32],
    /// Bits of entropy credited so far, up to `ENOUGH`.
    bits: u32,
}

const ENOUGH: u32 = 256;

static STATE: SpinLock<State> = SpinLock::new(State { key: [0; 32], bits: 0 }, &class::RANDOM);
static SEEDED: AtomicBool = AtomicBool::new(false);
static WAITERS: WaitQueue = WaitQueue::new();

/// Mixes `data` in and credits `bits` of entropy. Any context.
pub fn feed(data: &[u8], bits: u32) {
    let mut s = STATE.lock_irq();
    for chunk in data.chunks(32) {
        for (k, b) in s.key.iter_mut().zip(chunk) {
            *k ^= b;
        }
        s.key = stir(&s.key);
    }
    s.bits = s.bits.saturating_add(bits).min(ENOUGH);
    let seeded = s.bits >= ENOUGH;
    drop(s);
    if seeded && !SEEDED.swap(true, Release) {
        WAITERS.wake_all();
    }
}

/// Mixes in when things happen: the counter's low bits at an unpredictable event.
pub fn feed_event(what: u64) {
    let now = arch::clock::counter();
    feed(&(now ^ what.rotate_left(32)).to_le_bytes(), 1);
}

/// Whether enough entropy came in.
pub fn is_seeded() -> bool {
    SEEDED.load(Acquire)
}

/// Where to wait for [`is_seeded`].
pub fn waiters() -> &'static WaitQueue {
    &WAITERS
}

/// The key stream of a key that is used once.
fn stream(key: &[u8; 32]) -> ChaCha20 {
    ChaCha20::new(key.into(), &[0; 12].into())
}

/// A key that tells nothing of the one it was made of.
fn stir(key: &[u8; 32]) -> [u8; 32] {
    let mut new = [0; 32];
    stream(key).apply_keystream(&mut new);
    new
}

/// Fills `out`. Any context.
pub fn fill(out: &mut [u8]) {
    let now = arch::clock::counter().to_le_bytes();
    let mut block = [0; 64];
    let mut cipher = {
        let mut s = STATE.lock_irq();
        for (k, b) in s.key.iter_mut().zip(now) {
            *k ^= b;
        }
        let mut cipher = stream(&s.key);
        cipher.apply_keystream(&mut block);
        if let Some((key, _)) = block.split_first_chunk::<32>() {
            s.key = *key;
        }
        cipher
    };
    let (_, spare) = block.split_at(32);
    let (first, rest) = out.split_at_mut(out.len().min(spare.len()));
    for (to, from) in first.iter_mut().zip(spare) {
        *to = *from;
    }
    if !rest.is_empty() {
        rest.fill(0);
        cipher.apply_keystream(rest);
    }
}

/// A random number.
pub fn next_u64() -> u64 {
    let mut b = [0; 8];
    fill(&mut b);
    u64::from_le_bytes(b)
}

/// Samples the jitter of the counter against memory accesses, for machines whose boot loader gives
/// no seed. Credits one bit for each sample whose difference to its neighbours is not constant.
pub fn feed_jitter(samples: u32) {
    let mut last = arch::clock::counter();
    let mut last_delta = 0u64;
    let mut pool = [0u8; 32];
    for i in 0..samples {
        // Work whose time depends on caches and on what else the machine does.
        pool = stir(&pool);
        let now = arch::clock::counter();
        let delta = now.wrapping_sub(last);
        let varied = delta != last_delta;
        (last, last_delta) = (now, delta);
        for (p, b) in pool.iter_mut().zip(now.to_le_bytes()) {
            *p ^= b;
        }
        if i % 8 == 7 {
            feed(&pool, u32::from(varied));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_differs_between_requests_and_fills_every_length() {
        let (mut a, mut b) = ([0u8; 100], [0u8; 100]);
        fill(&mut a);
        fill(&mut b);
        assert_ne!(a, b);
        let mut one = [0u8; 1];
        let distinct = (0..200).map(|_| { fill(&mut one); one[0] }).collect::<std::collections::BTreeSet<_>>();
        assert!(distinct.len() > 50);
    }

    #[test]
    fn is_seeded_only_after_256_bits() {
        feed(b"seed", 0);
        if !is_seeded() {
            feed(&[1; 32], 255);
        }
        feed(&[2; 32], 256);
        assert!(is_seeded());
    }
}
