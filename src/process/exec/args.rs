//! Arguments and environment on their way from the caller's memory to the new stack.

use abi::{Errno, Result, UserAddr};
use arch::user::{UserPtr, copy_str_from_user};
use kalloc::KVec;

/// Longest single string, with its NUL (`execve(2)`: MAX_ARG_STRLEN, 32 pages).
const MAX_STRING: usize = 32 * abi::PAGE_SIZE;
/// Most strings in a list (MAX_ARG_STRINGS is far above what memory allows).
const MAX_STRINGS: usize = 0x7fff_ffff;

/// A list of NUL-terminated strings in one buffer.
#[derive(Default)]
pub struct Strings {
    bytes: KVec<u8>,
    ends: KVec<u32>,
}

impl Strings {
    pub const fn new() -> Self {
        Self { bytes: KVec::new(), ends: KVec::new() }
    }
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    /// All strings with their NULs, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// Adds a string (without NUL).
    pub fn push(&mut self, s: &[u8]) -> Result {
        self.bytes.try_reserve(s.len() + 1)?;
        self.ends.try_reserve(1)?;
        self.bytes.try_extend_from_slice(s)?;
        self.end()
    }
    fn end(&mut self) -> Result {
        self.bytes.try_push(0)?;
        let end = u32::try_from(self.bytes.len()).map_err(|_| Errno::E2BIG)?;
        Ok(self.ends.try_push(end)?)
    }
    /// Offsets of the strings' first bytes.
    pub fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        core::iter::once(0).chain(self.ends.iter().map(|e| *e as usize)).take(self.ends.len())
    }
    /// The first string, without NUL.
    pub fn first(&self) -> Option<&[u8]> {
        let end = *self.ends.first()? as usize;
        self.bytes.get(..end.checked_sub(1)?)
    }
    /// Puts `front` before the strings; `instead` says whether the first one goes for them.
    pub fn prepend(&mut self, front: &[Option<&[u8]>], instead: bool) -> Result {
        let mut new = Self::new();
        for s in front.iter().flatten() {
            new.push(s)?;
        }
        let gone = usize::from(instead);
        let skip = if instead { self.ends.first().map_or(0, |e| *e as usize) } else { 0 };
        let shift = new.bytes.len();
        new.bytes.try_extend_from_slice(self.bytes.get(skip..).unwrap_or(&[]))?;
        for end in self.ends.iter().skip(gone) {
            let moved = *end as usize - skip + shift;
            new.ends.try_push(u32::try_from(moved).map_err(|_| Errno::E2BIG)?)?;
        }
        *self = new;
        Ok(())
    }

    /// Reads the strings that a NULL-terminated user array points to; `budget` is what all strings
    /// and pointers may take (E2BIG beyond it). `dying` ends the copy: a killed caller should not
    /// have to wait for megabytes of arguments that nobody will see.
    fn read(list: UserAddr, budget: &mut usize, dying: &dyn Fn() -> bool) -> Result<Self> {
        let mut out = Self::new();
        if list.is_null() {
            return Ok(out);
        }
        for i in 0..MAX_STRINGS {
            if dying() {
                return Err(Errno::ERESTARTNOHAND);
            }
            let at = list.checked_add(i as u64 * 8).ok_or(Errno::EFAULT)?;
            let s = UserAddr(UserPtr::<u64>::new(at).read()?);
            if s.is_null() {
                return Ok(out);
            }
            *budget = budget.checked_sub(8).ok_or(Errno::E2BIG)?;
            out.read_string(s, budget, dying)?;
        }
        Err(Errno::E2BIG)
    }

    fn read_string(&mut self, mut from: UserAddr, budget: &mut usize, dying: &dyn Fn() -> bool) -> Result {
        let mut left = MAX_STRING;
        let mut chunk = [0u8; 1024];
        loop {
            // Each piece may fault, and wait for what backs its page.
            if dying() {
                return Err(Errno::ERESTARTNOHAND);
            }
            let n = copy_str_from_user(&mut chunk, from).map_err(|_| Errno::EFAULT)?;
            let piece = chunk.get(..n).ok_or(Errno::EFAULT)?;
            *budget = budget.checked_sub(n).ok_or(Errno::E2BIG)?;
            self.bytes.try_extend_from_slice(piece)?;
            if n < chunk.len() {
                *budget = budget.checked_sub(1).ok_or(Errno::E2BIG)?;
                return self.end();
            }
            left = left.checked_sub(n).filter(|l| *l > 0).ok_or(Errno::E2BIG)?;
            from = from.checked_add(n as u64).ok_or(Errno::EFAULT)?;
        }
    }
}

/// What a program is started with.
#[derive(Default)]
pub struct Arguments {
    pub args: Strings,
    pub env: Strings,
}

impl Arguments {
    /// From the caller's memory. The strings and pointers together may take a quarter of the stack
    /// limit, at most 6 MiB and at least 128 KiB (`execve(2)`). E2BIG, EFAULT; a fatal signal ends
    /// the copy.
    pub fn from_user(argv: UserAddr, envp: UserAddr, stack_limit: u64) -> Result<Self> {
        Self::read(argv, envp, stack_limit, &|| sched::current().head().test_flag(arch::thread::FATAL_PENDING))
    }

    fn read(argv: UserAddr, envp: UserAddr, stack_limit: u64, dying: &dyn Fn() -> bool) -> Result<Self> {
        let mut budget = (stack_limit / 4).clamp(32 * abi::PAGE_SIZE as u64, 6 << 20) as usize;
        Ok(Self { args: Strings::read(argv, &mut budget, dying)?, env: Strings::read(envp, &mut budget, dying)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_the_first_string_keeps_the_rest() {
        let mut s = Strings::new();
        for w in ["./script", "a", "bc"] {
            s.push(w.as_bytes()).unwrap();
        }
        s.prepend(&[Some(b"/bin/sh"), None, Some(b"./script")], true).unwrap();
        assert_eq!(s.bytes(), b"/bin/sh\0./script\0a\0bc\0");
        assert_eq!(s.starts().collect::<Vec<_>>(), [0, 8, 17, 19]);
        s.prepend(&[Some(b"qemu")], false).unwrap();
        assert_eq!(s.bytes(), b"qemu\0/bin/sh\0./script\0a\0bc\0");
        assert_eq!(s.starts().collect::<Vec<_>>(), [0, 5, 13, 22, 24]);
    }

    #[test]
    fn a_fatal_signal_ends_the_copy_of_the_arguments() {
        use arch::sim;
        sim::run_on_cpus(1, |_| {
            let mut words = vec![0u8; 24];
            let list = 0x1_0000u64;
            words[..8].copy_from_slice(&(list + 16).to_le_bytes());
            sim::map_user(UserAddr(list), words.len());
            sim::write_user(UserAddr(list), &words);
            let list = UserAddr(list);
            let done = Arguments::read(list, UserAddr(0), 8 << 20, &|| false).unwrap();
            assert_eq!((done.args.len(), done.env.len()), (1, 0));
            let looks = core::cell::Cell::new(0);
            let killed = Arguments::read(list, UserAddr(0), 8 << 20, &|| looks.replace(looks.get() + 1) > 0);
            assert_eq!(killed.map(|_| ()), Err(Errno::ERESTARTNOHAND));
        });
    }
}
