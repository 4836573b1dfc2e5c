//! How a process ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// How a process ended, for people: `exit code 1`, `signal SIGKILL`.
pub fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal().map(Signal::try_from)) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(Ok(signal))) => format!("signal {signal}"),
            _ => status.to_string(),
        },
        Err(error) => format!("unknown ({error})"),
    }
}

/// Whether SIGKILL ended it.
pub fn was_killed(status: &io::Result<ExitStatus>) -> bool {
    status.as_ref().is_ok_and(|status| status.signal() == Some(Signal::SIGKILL as i32))
}
