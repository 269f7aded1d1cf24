//! What a terminal needs of the device below it: a serial line, or the other end of a
//! pseudo-terminal.

use crate::Termios;
use abi::Result;

/// The device of a terminal. No method sleeps or calls back into the terminal.
pub trait TtyDriver: Send + Sync {
    /// The first open: switch the receiver on. Called with the terminal's state locked: it neither
    /// sleeps nor calls the terminal.
    fn open(&self) -> Result;
    /// The last close. As `open`.
    fn close(&self);
    /// Queues bytes to be sent; how many fitted. The terminal is told by
    /// [`Tty::output_ready`](crate::Tty::output_ready) when there is room again.
    fn write(&self, bytes: &[u8]) -> usize;
    /// How many bytes `write` would take.
    fn write_room(&self) -> usize;
    /// Queued bytes that are not sent yet; not 0 while the last one is on the wire.
    fn unsent(&self) -> usize;
    /// Discards what is queued.
    fn flush(&self);
    /// Stops sending what is queued.
    fn stop(&self);
    /// Goes on sending.
    fn start(&self);
    /// Sends one byte before all that is queued, even when stopped (flow control).
    fn send_now(&self, c: u8);
    /// Follows a change of the settings; corrects in `new` what it cannot do.
    fn set_termios(&self, new: &mut Termios, old: &Termios);
    /// Holds the line low, or lets it go.
    fn set_break(&self, on: bool);
    /// Whether there is a line that could be held low.
    fn has_break(&self) -> bool {
        true
    }
    /// Every open of the terminal asks. EIO for what cannot be opened now.
    fn may_open(&self) -> Result {
        Ok(())
    }
    /// Whether the other end of a pseudo-terminal is closed: a read that waits ends with EIO.
    fn is_gone(&self) -> bool {
        false
    }
    /// The line discipline has taken received bytes: there is room for more.
    fn input_taken(&self) {}
    /// What was received and not read was discarded.
    fn input_flushed(&self) {}
}
