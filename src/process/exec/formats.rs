//! The binary formats, and the program on its way through them.
//!
//! A [`Binary`] is what exec was asked to run together with what became of it so far. The formats
//! look at it in the order of [`FORMATS`]: one answers with a finished [`Image`], names another file
//! to go on with (an interpreter), or says ENOEXEC, upon which the next one looks. Nothing here is
//! past the point of no return: every error leaves the caller as it was.

use super::{
    HEAD_SIZE, NewCredentials, Program,
    args::Arguments,
    load::{self, Image},
    misc, script,
};
use crate::task::Task;
use abi::{Errno, Result};
use kalloc::{KArc, KVec};
use sync::atomic::{AtomicBool, Ordering};
use vfs::{Executable, OpenFile};

/// How many interpreters may name each other.
const MAX_INTERPRETERS: usize = 5;

/// A program that is being started (Linux's `linux_binprm`).
pub(super) struct Binary {
    head: [u8; HEAD_SIZE],
    len: usize,
    /// What is to be loaded: the file that was asked for, or the interpreter that it led to.
    pub file: KArc<Executable>,
    /// The name by which `file` was reached: what an interpreter is told, and where an extension
    /// is looked for.
    pub interp: KVec<u8>,
    /// The name as it was given: AT_EXECFN, and `comm` from its last component.
    pub filename: KVec<u8>,
    pub arguments: Arguments,
    /// The name leads through a descriptor that the new program will not have: no interpreter
    /// could open it.
    pub inaccessible: bool,
    /// A file that the interpreter gets open (AT_EXECFD): it need not be able to read it by name.
    pub passed: Option<KArc<Executable>>,
    /// Ids and capabilities are those of `passed`, not of the interpreter.
    pub passed_gives_rights: bool,
    /// argv[0] stands behind the two names that the interpreter gets (AT_FLAGS says so).
    pub kept_argv0: bool,
}

/// What a format made of the file.
pub(super) enum Loaded {
    /// An address space that is ready to run, and whom it runs as.
    Ready(Image, NewCredentials),
    /// The binary now names an interpreter: look again.
    Interpreter,
}

/// A kind of executable file.
pub(super) trait Format: Sync {
    /// ENOEXEC: the file is of another kind.
    fn load(&self, task: &Task, binary: &mut Binary) -> Result<Loaded>;
}

/// All formats, in the order in which they look: what the administrator registered comes first.
static FORMATS: [&dyn Format; 3] = [&misc::Misc, &script::Script, &load::Elf];

impl Binary {
    pub fn new(program: Program, mut arguments: Arguments) -> Result<Self> {
        if arguments.args.is_empty() {
            // Linux since 5.18: a program never sees an empty argument list.
            arguments.args.push(b"")?;
            static TOLD: AtomicBool = AtomicBool::new(false);
            if !TOLD.swap(true, Ordering::Relaxed) {
                let name = core::str::from_utf8(&program.name).unwrap_or("?");
                log::warn!("process launched '{name}' with NULL argv: empty string added");
            }
        }
        Ok(Self {
            head: [0; HEAD_SIZE],
            len: 0,
            file: KArc::try_new(program.file)?,
            interp: KVec::try_from_slice(&program.name)?,
            filename: program.name,
            arguments,
            inaccessible: program.inaccessible,
            passed: None,
            passed_gives_rights: false,
            kept_argv0: false,
        })
    }

    /// The first bytes of the file.
    pub fn head(&self) -> &[u8] {
        self.head.get(..self.len).unwrap_or(&[])
    }

    /// The file whose mode decides the new ids.
    pub fn rights_file(&self) -> &OpenFile {
        match &self.passed {
            Some(passed) if self.passed_gives_rights => &passed.file,
            _ => &self.file.file,
        }
    }

    /// Goes on with `file`, which was reached by `name`.
    pub fn interpret_with(&mut self, file: KArc<Executable>, name: &[u8]) -> Result {
        self.interp = KVec::try_from_slice(name)?;
        self.file = file;
        Ok(())
    }

    fn read_head(&mut self) -> Result {
        self.head = [0; HEAD_SIZE];
        self.len = super::read(&self.file.file, &mut self.head, 0)?;
        Ok(())
    }
}

/// Takes the binary through the formats to an image that can run. ENOEXEC: no format knows it.
/// ELOOP: too many interpreters.
pub(super) fn load(task: &Task, binary: &mut Binary) -> Result<(Image, NewCredentials)> {
    for _ in 0..=MAX_INTERPRETERS {
        binary.read_head()?;
        if let Loaded::Ready(image, cred) = ask_formats(task, binary)? {
            return Ok((image, cred));
        }
    }
    Err(Errno::ELOOP)
}

fn ask_formats(task: &Task, binary: &mut Binary) -> Result<Loaded> {
    for format in FORMATS {
        match format.load(task, binary) {
            Err(Errno::ENOEXEC) => {}
            answer => return answer,
        }
    }
    Err(Errno::ENOEXEC)
}
