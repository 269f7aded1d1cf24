//! The settings of a terminal (`termios(3)`) and their forms in user memory.

use abi::raw::general as g;

/// Control characters in `c_cc`.
pub const NCC: usize = g::NCCS as usize;

/// Bytes of `struct termios`, which TCGETS moves.
pub const TERMIOS_SIZE: usize = size_of::<g::termios>();
/// Bytes of `struct termios2`, which TCGETS2 moves.
pub const TERMIOS2_SIZE: usize = size_of::<g::termios2>();

const _: () = assert!(TERMIOS_SIZE == 36 && TERMIOS2_SIZE == 44);

/// The settings of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Termios {
    /// Input modes.
    pub iflag: u32,
    /// Output modes.
    pub oflag: u32,
    /// Control modes.
    pub cflag: u32,
    /// Local modes.
    pub lflag: u32,
    /// Line discipline.
    pub line: u8,
    /// Control characters.
    pub cc: [u8; NCC],
    /// Input speed in bits per second.
    pub ispeed: u32,
    /// Output speed in bits per second.
    pub ospeed: u32,
}

/// The settings in which Linux starts a terminal (its `tty_std_termios`, with a serial line's
/// control modes): ^C ^\ DEL ^U ^D, VTIME 0, VMIN 1, ^Q ^S ^Z, no EOL, ^R ^O ^W ^V, no EOL2.
pub const INITIAL: Termios = Termios {
    iflag: g::ICRNL | g::IXON,
    oflag: g::OPOST | g::ONLCR,
    cflag: g::B115200 | g::CS8 | g::CREAD | g::HUPCL | g::CLOCAL,
    lflag: g::ISIG | g::ICANON | g::ECHO | g::ECHOE | g::ECHOK | g::ECHOCTL | g::ECHOKE | g::IEXTEN,
    line: 0,
    cc: [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0],
    ispeed: 115_200,
    ospeed: 115_200,
};

/// Speeds by their number in `c_cflag` (B50 is 1); those beyond B38400 have CBAUDEX (4096) set.
const SPEEDS: [(u32, u32); 31] = [
    (0, 0),
    (1, 50),
    (2, 75),
    (3, 110),
    (4, 134),
    (5, 150),
    (6, 200),
    (7, 300),
    (8, 600),
    (9, 1200),
    (10, 1800),
    (11, 2400),
    (12, 4800),
    (13, 9600),
    (14, 19_200),
    (15, 38_400),
    (4097, 57_600),
    (4098, 115_200),
    (4099, 230_400),
    (4100, 460_800),
    (4101, 500_000),
    (4102, 576_000),
    (4103, 921_600),
    (4104, 1_000_000),
    (4105, 1_152_000),
    (4106, 1_500_000),
    (4107, 2_000_000),
    (4108, 2_500_000),
    (4109, 3_000_000),
    (4110, 3_500_000),
    (4111, 4_000_000),
];

impl Termios {
    /// Input mode set?
    pub fn i(&self, flag: u32) -> bool {
        self.iflag & flag != 0
    }
    /// Output mode set?
    pub fn o(&self, flag: u32) -> bool {
        self.oflag & flag != 0
    }
    /// Local mode set?
    pub fn l(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }
    /// Control character `index` (`VINTR`, ...).
    pub fn cc(&self, index: u32) -> u8 {
        self.cc.get(index as usize).copied().unwrap_or(0)
    }
    /// Whether `c` is the control character `index`, and that is not switched off.
    pub fn is_cc(&self, c: u8, index: u32) -> bool {
        c != 0 && self.cc(index) == c
    }

    /// As `struct termios2`; its start is `struct termios`.
    pub fn to_bytes(&self) -> [u8; TERMIOS2_SIZE] {
        let mut out = [0; TERMIOS2_SIZE];
        let words = [(0, self.iflag), (4, self.oflag), (8, self.cflag), (12, self.lflag), (36, self.ispeed), (40, self.ospeed)];
        for (at, word) in words {
            put(&mut out, at, &word.to_le_bytes());
        }
        put(&mut out, 16, &[self.line]);
        put(&mut out, 17, &self.cc);
        out
    }

    /// From `struct termios` (36 bytes; the speeds are then those of `c_cflag`, or `old`'s when
    /// that says BOTHER) or `struct termios2` (44 bytes).
    pub fn from_bytes(bytes: &[u8], old: &Termios) -> Option<Self> {
        let word = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|w| u32::from_le_bytes(*w));
        let cflag = word(8)?;
        let mut t = Self {
            iflag: word(0)?,
            oflag: word(4)?,
            cflag,
            lflag: word(12)?,
            line: *bytes.get(16)?,
            cc: *bytes.get(17..)?.first_chunk()?,
            ispeed: old.ispeed,
            ospeed: old.ospeed,
        };
        let stated = (word(36), word(40));
        let coded = SPEEDS.iter().find(|(code, _)| *code == cflag & g::CBAUD).map(|(_, speed)| *speed);
        match (coded, stated) {
            (Some(speed), _) => (t.ispeed, t.ospeed) = (speed, speed),
            (None, (Some(ispeed), Some(ospeed))) => (t.ispeed, t.ospeed) = (ispeed, ospeed),
            (None, _) => {}
        }
        Some(t)
    }

    /// The `c_cflag` bits for a speed: a code, or BOTHER.
    pub fn speed_bits(speed: u32) -> u32 {
        SPEEDS.iter().find(|(_, s)| *s == speed).map_or(g::BOTHER, |(code, _)| *code)
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = out.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_in_both_forms() {
        let bytes = INITIAL.to_bytes();
        assert_eq!(Termios::from_bytes(&bytes, &INITIAL), Some(INITIAL));
        assert_eq!(Termios::from_bytes(&bytes[..TERMIOS_SIZE], &INITIAL), Some(INITIAL));
        assert_eq!(Termios::from_bytes(&bytes[..TERMIOS_SIZE - 1], &INITIAL), None);
    }

    #[test]
    fn control_characters_stand_at_linux_indices() {
        let expected = [
            (g::VINTR, 3),
            (g::VQUIT, 28),
            (g::VERASE, 127),
            (g::VKILL, 21),
            (g::VEOF, 4),
            (g::VTIME, 0),
            (g::VMIN, 1),
            (g::VSTART, 17),
            (g::VSTOP, 19),
            (g::VSUSP, 26),
            (g::VREPRINT, 18),
            (g::VWERASE, 23),
            (g::VLNEXT, 22),
            (g::VEOL, 0),
            (g::VEOL2, 0),
        ];
        for (index, c) in expected {
            assert_eq!(INITIAL.cc(index), c, "index {index}");
        }
        assert!(!INITIAL.is_cc(0, g::VEOL));
    }

    #[test]
    fn speed_follows_the_code_unless_bother() {
        let mut t = INITIAL;
        t.cflag = t.cflag & !g::CBAUD | g::B9600;
        assert_eq!(Termios::from_bytes(&t.to_bytes(), &INITIAL).unwrap().ospeed, 9600);
        t.cflag = t.cflag & !g::CBAUD | g::BOTHER;
        t.ospeed = 12_345;
        assert_eq!(Termios::from_bytes(&t.to_bytes(), &INITIAL).unwrap().ospeed, 12_345);
        assert_eq!(Termios::from_bytes(&t.to_bytes()[..TERMIOS_SIZE], &INITIAL).unwrap().ospeed, 115_200);
    }
}
