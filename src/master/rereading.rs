//! Reading the configuration again. A file system that stalls, a pipe that nothing writes to, or a file that takes long to
//! parse costs a refused reload, not the service.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use crate::addr::PassedAddr;
use crate::config::Config;

/// Reads the flags and the file again.
pub type Reread = fn(&[PassedAddr]) -> Result<Config, String>;

/// How long the master waits for it. It takes two milliseconds where nothing stalls.
const MAX_WAIT: Duration = Duration::from_secs(1);

const STALLED: &str =
    "the configuration could not be read in time: is a file of it a pipe, or on a file system that stalls?";

/// Reads the configuration on a thread of its own, one at a time.
#[derive(Debug)]
pub(super) struct Rereading {
    reread: Reread,
    /// The outcome that was not waited for to its end.
    late: Option<Receiver<Result<Config, String>>>,
}

impl Rereading {
    pub fn new(reread: Reread) -> Self {
        Self { reread, late: None }
    }

    /// The configuration as it is now.
    ///
    /// # Errors
    /// It is wrong, or was not read in time. As long as that lasts, no other attempt is made.
    pub fn read(&mut self, passed: &[PassedAddr]) -> Result<Config, String> {
        if self.late.as_ref().is_some_and(|late| late.try_recv() == Err(TryRecvError::Empty)) {
            return Err(format!("{STALLED} (an earlier reload waits for it still)"));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let (reread, passed) = (self.reread, passed.to_vec());
        // It is received even if it is late.
        let read = move || _ = sender.send(reread(&passed));
        let thread = thread::Builder::new().name("haft-reread".to_owned()).spawn(read);
        thread.map_err(|error| format!("the configuration cannot be read now: {error}"))?;
        let outcome = receiver.recv_timeout(MAX_WAIT);
        self.late = (outcome == Err(RecvTimeoutError::Timeout)).then_some(receiver);
        outcome.unwrap_or_else(|_| Err(STALLED.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(_: &[PassedAddr]) -> Result<Config, String> {
        Err("no file".to_owned())
    }

    fn stalled(_: &[PassedAddr]) -> Result<Config, String> {
        loop {
            thread::park();
        }
    }

    #[test]
    fn one_that_stalls_is_refused_and_so_is_the_next_meanwhile() {
        let mut rereading = Rereading::new(stalled);
        assert_eq!(rereading.read(&[]).err().as_deref(), Some(STALLED));
        rereading.reread = wrong;
        assert!(rereading.read(&[]).is_err_and(|error| error.contains("an earlier reload")));
    }

    #[test]
    fn what_is_wrong_is_reported_each_time() {
        let mut rereading = Rereading::new(wrong);
        for _ in 0..2 {
            let error = rereading.read(&[]).err();
            assert_eq!(error.as_deref(), Some("no file"));
        }
    }
}
