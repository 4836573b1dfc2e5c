//! Reading the configuration again. A file system that stalls, a pipe that nothing writes to, or a file that takes long to
//! parse costs a refused reload, not the service.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
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
    thread: Option<JoinHandle<()>>,
}

impl Rereading {
    pub fn new(reread: Reread) -> Self {
        Self { reread, thread: None }
    }

    /// The configuration as it is now.
    ///
    /// # Errors
    /// It is wrong, or was not read in time. As long as that lasts, no other attempt is made.
    pub fn read(&mut self, passed: &[PassedAddr]) -> Result<Config, String> {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Err(format!("{STALLED} (an earlier reload waits for it still)"));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let (reread, passed) = (self.reread, passed.to_vec());
        // Nothing is received after the time is over.
        let read = move || _ = sender.send(reread(&passed));
        let thread = thread::Builder::new().name("haft-reread".to_owned()).spawn(read);
        self.thread = Some(thread.map_err(|error| format!("the configuration cannot be read now: {error}"))?);
        receiver.recv_timeout(MAX_WAIT).unwrap_or_else(|_| Err(STALLED.to_owned()))
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
            let error = loop {
                match rereading.read(&[]) {
                    // The thread of the one before has sent its answer, and may not have ended.
                    Err(error) if error.contains("an earlier reload") => thread::yield_now(),
                    outcome => break outcome.err(),
                }
            };
            assert_eq!(error.as_deref(), Some("no file"));
        }
    }
}
