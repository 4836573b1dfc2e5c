//! The log line for a worker that has ended as asked: how it ended, and how many connections it cut off.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::finished::{Finished, MAX_COUNTED};
use crate::dispatch::link::Link;
use crate::process::crew;

/// How a worker that was asked to end did so, for people. A process that ends by the signal that asks it to has done
/// nothing wrong.
pub(super) fn describe(status: &io::Result<ExitStatus>, cut_off: Option<u64>) -> String {
    let ended = match status {
        Ok(status) if status.success() => "ended as asked (exit code 0)".to_owned(),
        Ok(status) if status.signal() == Some(libc::SIGTERM) => "ended as asked (SIGTERM)".to_owned(),
        Ok(status) if status.signal() == Some(libc::SIGINT) => "ended as asked (SIGINT)".to_owned(),
        other => crew::describe(other),
    };
    match cut_off {
        None => ended,
        Some(0) => format!("{ended}, no connection cut off"),
        Some(1) => format!("{ended}, 1 connection cut off"),
        Some(most) if most >= MAX_COUNTED as u64 => format!("{ended}, {MAX_COUNTED} connections or more cut off"),
        Some(some) => format!("{ended}, {some} connections cut off"),
    }
}

/// How many connections a worker took with it, as far as it is known. `None` where it does not report them and the
/// kernel was not asked, or where it ended by itself and its last word may be old.
pub(super) fn cut_off(link: &Link, finished: &Finished, status: &io::Result<ExitStatus>) -> Option<u64> {
    let by_signal = status.as_ref().is_ok_and(|status| status.signal().is_some());
    let ending = link.open().filter(|_| by_signal).map(u64::from);
    ending.or_else(|| finished.held_by(link.worker).map(|held| held as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_was_asked_for_does_not_read_like_a_crash() {
        let ending = |raw, cut_off| describe(&Ok(ExitStatus::from_raw(raw)), cut_off);
        assert_eq!(ending(0, None), "ended as asked (exit code 0)");
        assert_eq!(ending(libc::SIGTERM, Some(0)), "ended as asked (SIGTERM), no connection cut off");
        assert_eq!(ending(libc::SIGINT, Some(1)), "ended as asked (SIGINT), 1 connection cut off");
        assert_eq!(ending(libc::SIGKILL, Some(7)), "signal SIGKILL, 7 connections cut off");
        assert_eq!(ending(libc::SIGKILL, Some(1000)), "signal SIGKILL, 1000 connections or more cut off");
        assert_eq!(ending(7 << 8, None), "exit code 7");
    }
}
