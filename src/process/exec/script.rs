//! The `#!` line (`execve(2)`, "Interpreter scripts").

use super::formats::{Binary, Format, Loaded};
use crate::task::Task;
use abi::{Errno, Result};
use kalloc::KVec;

/// Scripts.
pub(super) struct Script;

impl Format for Script {
    fn load(&self, task: &Task, binary: &mut Binary) -> Result<Loaded> {
        let Some(line) = parse(binary.head())? else { return Err(Errno::ENOEXEC) };
        if binary.inaccessible {
            // The interpreter would be told a name that it cannot open (execveat(2), BUGS).
            return Err(Errno::ENOENT);
        }
        let (interpreter, argument) = (KVec::try_from_slice(line.interpreter)?, line.argument.map(KVec::try_from_slice).transpose()?);
        // The interpreter, its one argument, the script's name, and the arguments behind argv[0].
        let front = [Some(interpreter.as_slice()), argument.as_deref(), Some(binary.interp.as_slice())];
        binary.arguments.args.prepend(&front, true)?;
        let file = super::open_exec(task, &interpreter)?;
        binary.interpret_with(kalloc::KArc::try_new(file)?, &interpreter)?;
        Ok(Loaded::Interpreter)
    }
}

/// What a script's first line asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub interpreter: &'a [u8],
    /// Everything behind it, as one argument.
    pub argument: Option<&'a [u8]>,
}

fn is_blank(b: &u8) -> bool {
    matches!(b, b' ' | b'\t')
}

fn trim(mut s: &[u8]) -> &[u8] {
    while let Some((b, rest)) = s.split_first().filter(|(b, _)| is_blank(b)) {
        let _ = b;
        s = rest;
    }
    while let Some((_, rest)) = s.split_last().filter(|(b, _)| is_blank(b)) {
        s = rest;
    }
    s
}

/// The line, or `None` when the file does not start with `#!`. ENOEXEC when no interpreter is
/// named, or its name does not fit into the file's first 256 bytes.
pub fn parse(head: &[u8]) -> Result<Option<Line<'_>>> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let end = rest.iter().position(|b| *b == b'\n' || *b == 0);
    // Without an end in sight, the last of the bytes does not count: a NUL stands for it.
    let seen = end.unwrap_or(rest.len().min(super::HEAD_SIZE - 3));
    let line = trim(rest.get(..seen).unwrap_or(rest));
    let split = line.iter().position(is_blank);
    if line.is_empty() || end.is_none() && split.is_none() && head.len() >= super::HEAD_SIZE {
        return Err(Errno::ENOEXEC);
    }
    let (interpreter, argument) = line.split_at(split.unwrap_or(line.len()));
    let argument = trim(argument);
    Ok(Some(Line { interpreter, argument: (!argument.is_empty()).then_some(argument) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_behind_the_interpreter_is_one_argument() {
        let line = parse(b"#! /usr/bin/env  -S a b \nrest").unwrap().unwrap();
        assert_eq!(line, Line { interpreter: b"/usr/bin/env", argument: Some(b"-S a b") });
        assert_eq!(parse(b"#!/bin/sh\n").unwrap().unwrap().argument, None);
        assert_eq!(parse(b"#!/bin/sh").unwrap().unwrap().interpreter, b"/bin/sh");
    }

    #[test]
    fn other_files_are_no_scripts_and_empty_lines_do_not_run() {
        assert_eq!(parse(b"\x7fELF"), Ok(None));
        assert_eq!(parse(b"#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b"#!   \t\n"), Err(Errno::ENOEXEC));
        let mut long = [b'x'; 256];
        long[..2].copy_from_slice(b"#!");
        assert_eq!(parse(&long), Err(Errno::ENOEXEC));
    }
}
