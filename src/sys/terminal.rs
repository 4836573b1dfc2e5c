//! The terminal that this process was started from.

use std::fs::{self, File};
use std::io;

use nix::sys::termios::{LocalFlags, tcgetattr};

/// Whether this process is to end with its terminal.
#[derive(Debug)]
pub struct Terminal {
    binds: bool,
}

impl Terminal {
    /// To be asked before SIGHUP is handled: with `nohup` (SIGHUP is ignored) a process outlives its terminal.
    pub fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self { binds: is_there() && !ignores_hangup(&status) }
    }

    /// Whether the terminal stops processes in the background that write to it (`stty tostop`), by SIGTTOU. One that
    /// handles that signal, for whatever else, would be made to try again for ever.
    pub fn stops_writers() -> bool {
        tcgetattr(io::stderr()).is_ok_and(|terminal| terminal.local_flags.contains(LocalFlags::TOSTOP))
    }

    /// Whether there was a terminal that this process is to end with, and it has been closed: that is what a SIGHUP
    /// means
    /// then; otherwise another process sent it for another purpose.
    pub fn is_gone(&self) -> bool {
        self.binds && !is_there()
    }
}

/// Whether this process has a controlling terminal: without one it does not open (tty(4)).
fn is_there() -> bool {
    opens(File::open("/dev/tty"))
}

/// A failure to open it for lack of descriptors gives no information about the terminal.
fn opens(outcome: io::Result<File>) -> bool {
    outcome
        .map_or_else(|error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)), |_| true)
}

/// Whether the first signal is in the set of those that are ignored (proc_pid_status(5)).
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_cannot_be_opened_for_want_of_descriptors_is_not_gone() {
        let fails = |errno| opens(Err(io::Error::from_raw_os_error(errno)));
        assert!(fails(libc::EMFILE) && fails(libc::ENFILE) && fails(libc::ENOMEM));
        assert!(!fails(libc::ENXIO) && !fails(libc::EIO) && !fails(libc::ENOENT));
        assert!(opens(File::open("/dev/null")));
    }

    #[test]
    fn what_is_ignored_is_read_from_the_mask() {
        for (mask, ignores) in [("0000000000000001", true), ("0000000000001003", true), ("0000000000001002", false)] {
            let status = format!("Name:\thaft\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0\n");
            assert_eq!(ignores_hangup(&status), ignores, "{mask}");
        }
        assert!(!ignores_hangup(""));
    }
}
