//! The kernel's command line (`bootparam(7)`): words, quotes, and what is left for init.

use arrayvec::ArrayVec;

/// Longest command line that is looked at, as arm64 Linux has it.
pub const MAX_LEN: usize = 2048;
/// Most words that are passed on to init, of arguments and of environment each.
const MAX_INIT: usize = 32;

/// The words of a command line. A double quote makes spaces part of a word and is not part of it
/// when it encloses the word or the value whole.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    core::iter::from_fn(move || {
        while let Some((b, tail)) = rest.split_first() {
            if !b.is_ascii_whitespace() {
                break;
            }
            rest = tail;
        }
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest
            .iter()
            .position(|b| {
                quoted ^= *b == b'"';
                b.is_ascii_whitespace() && !quoted
            })
            .unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail;
        Some(unquote(word))
    })
}

fn unquote(s: &[u8]) -> &[u8] {
    s.strip_prefix(b"\"").and_then(|s| s.strip_suffix(b"\"")).unwrap_or(s)
}

/// `name=value` of a word; a word without `=` has no value.
pub fn split(word: &[u8]) -> (&[u8], Option<&[u8]>) {
    match word.iter().position(|b| *b == b'=') {
        Some(at) => {
            let (name, value) = word.split_at(at);
            (name, Some(unquote(value.get(1..).unwrap_or(&[]))))
        }
        None => (word, None),
    }
}

/// What the kernel itself takes from the command line.
#[derive(Debug)]
pub struct Options<'a> {
    /// `rdinit=`
    pub rdinit: Option<&'a [u8]>,
    /// `init=`
    pub init: Option<&'a [u8]>,
    /// `quiet`: only errors reach the console.
    pub quiet: bool,
    /// `loglevel=`
    pub loglevel: Option<u8>,
    /// `ignore_loglevel`
    pub ignore_loglevel: bool,
    /// `maxcpus=`, `nr_cpus=`, `nosmp`
    pub max_cpus: Option<usize>,
    /// `panic=`: seconds until a restart; negative restarts at once.
    pub panic: i64,
    /// `randomize_kstack_offset=`: frames of system calls move; on without it, as in Debian's kernel.
    pub randomize_stacks: bool,
    /// Every `console=`, in order; the last is /dev/console.
    pub consoles: ArrayVec<&'a [u8], 8>,
    /// `earlycon` (with or without a device).
    pub earlycon: bool,
    /// Words that nobody knows, and all words behind `--`: init's arguments.
    pub init_args: ArrayVec<&'a [u8], MAX_INIT>,
    /// Unknown `NAME=value` words: init's environment.
    pub init_env: ArrayVec<&'a [u8], MAX_INIT>,
}

fn number(v: Option<&[u8]>) -> Option<i64> {
    core::str::from_utf8(v?).ok()?.parse().ok()
}

/// A yes or no as `kstrtobool` reads it: by the first letter, or the second of on and off.
fn boolean(v: Option<&[u8]>) -> Option<bool> {
    match *v? {
        [b'y' | b'Y' | b't' | b'T' | b'1', ..] | [b'o' | b'O', b'n' | b'N', ..] => Some(true),
        [b'n' | b'N' | b'f' | b'F' | b'0', ..] | [b'o' | b'O', b'f' | b'F', ..] => Some(false),
        _ => None,
    }
}

/// Reads the command line.
pub fn parse(line: &[u8]) -> Options<'_> {
    let line = line.get(..MAX_LEN).unwrap_or(line);
    let mut o = Options {
        rdinit: None,
        init: None,
        quiet: false,
        loglevel: None,
        ignore_loglevel: false,
        max_cpus: None,
        panic: 0,
        randomize_stacks: true,
        consoles: ArrayVec::new(),
        earlycon: false,
        init_args: ArrayVec::new(),
        init_env: ArrayVec::new(),
    };
    let mut for_init = false;
    for word in words(line) {
        if for_init {
            // What does not fit is dropped, as on Linux.
            let _ = o.init_args.try_push(word);
            continue;
        }
        let (name, value) = split(word);
        match name {
            b"--" => for_init = true,
            b"rdinit" => o.rdinit = value,
            b"init" => o.init = value,
            b"quiet" => o.quiet = true,
            b"debug" => o.loglevel = Some(8),
            b"loglevel" => o.loglevel = number(value).and_then(|n| u8::try_from(n).ok()),
            b"ignore_loglevel" => o.ignore_loglevel = true,
            b"maxcpus" | b"nr_cpus" => o.max_cpus = number(value).and_then(|n| usize::try_from(n).ok()),
            b"nosmp" => o.max_cpus = Some(1),
            b"panic" => o.panic = number(value).unwrap_or(0),
            b"earlycon" => o.earlycon = true,
            b"randomize_kstack_offset" => o.randomize_stacks = boolean(value).unwrap_or(o.randomize_stacks),
            b"console" => {
                if let Some(v) = value {
                    let _ = o.consoles.try_push(v);
                }
            }
            // Known to Linux, without meaning here: not init's business.
            b"root" | b"rootfstype" | b"rootflags" | b"ro" | b"rw" | b"rootwait" | b"nokaslr" | b"mitigations"
            | b"net.ifnames" => {}
            // A dot marks a module's option, which never goes to init.
            _ if name.contains(&b'.') => {}
            _ if value.is_some() => {
                let _ = o.init_env.try_push(word);
            }
            _ => {
                let _ = o.init_args.try_push(word);
            }
        }
    }
    o
}

impl Options<'_> {
    /// Messages below this level reach the console.
    pub fn console_level(&self) -> u8 {
        match (self.ignore_loglevel, self.loglevel) {
            (true, _) => 8,
            (_, Some(level)) => level,
            _ if self.quiet => 4,
            _ => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_go_to_init_as_arguments_and_environment() {
        let o = parse(b"console=ttyAMA0 single FOO=bar quiet -- -x quiet module.opt=1");
        assert_eq!(o.init_args.as_slice(), [&b"single"[..], b"-x", b"quiet", b"module.opt=1"]);
        assert_eq!(o.init_env.as_slice(), [&b"FOO=bar"[..]]);
        assert_eq!(o.consoles.as_slice(), [&b"ttyAMA0"[..]]);
        assert_eq!(o.console_level(), 4);
    }

    #[test]
    fn quotes_keep_spaces_together() {
        let all: Vec<_> = words(b"  a \"b c\" d=\"e f\"  g").collect();
        assert_eq!(all, [&b"a"[..], b"b c", b"d=\"e f\"", b"g"]);
        assert_eq!(split(b"d=\"e f\""), (&b"d"[..], Some(&b"e f"[..])));
    }

    #[test]
    fn numbers_that_are_none_are_ignored() {
        let o = parse(b"loglevel=x maxcpus=-1 panic=");
        assert_eq!((o.loglevel, o.max_cpus, o.panic), (None, None, 0));
        assert_eq!(parse(b"loglevel=3 quiet").console_level(), 3);
    }

    #[test]
    fn stack_offsets_are_random_unless_switched_off() {
        let on = |line: &[u8]| parse(line).randomize_stacks;
        assert!(on(b"") && on(b"randomize_kstack_offset=on") && on(b"randomize_kstack_offset=1"));
        assert!(!on(b"randomize_kstack_offset=off") && !on(b"randomize_kstack_offset=0") && !on(b"randomize_kstack_offset=n"));
        assert!(on(b"randomize_kstack_offset=") && on(b"randomize_kstack_offset"), "no value, no change");
    }

    #[test]
    fn a_line_of_any_bytes_is_no_trouble() {
        parse(&[0xff; 5000]);
        parse(b"\"\"\" = == \"=");
    }
}
