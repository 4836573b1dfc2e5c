//! How the admin pages speak with the master's loop: a request, and the way its answer goes back.

use tokio::sync::{mpsc, oneshot};

/// How many requests may wait for the master; the next one waits for its place.
const QUEUE: usize = 32;

/// What the master is asked.
///
/// What changes the master's state (reload, scale, drain) becomes one variant each, sent only for a caller who has been
/// found to be allowed to; what is here now only reads.
#[derive(Debug)]
pub enum ControlRequest {
    /// The state of this instant. The asker may have left meanwhile ([`oneshot::Sender::is_closed`]): then nothing need be
    /// sent.
    Snapshot(oneshot::Sender<super::Snapshot>),
}

/// Why the master gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Its loop has ended, or ended with the request unanswered.
    #[error("the master has stopped")]
    Stopped,
    /// Its loop is there and did not answer within the time allowed.
    #[error("the master did not answer in time")]
    Late,
}

/// A handle to the master's loop, for those who want something of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    requests: mpsc::Sender<ControlRequest>,
}

/// A handle, and the end that the master's loop serves. Requests come one at a time, and the master answers each between
/// two steps of its own: that is what makes an answer one consistent instant.
pub fn channel() -> (Control, mpsc::Receiver<ControlRequest>) {
    let (requests, received) = mpsc::channel(QUEUE);
    (Control { requests }, received)
}

impl Control {
    /// The master's state at one instant.
    ///
    /// # Errors
    ///
    /// [`ControlError::Stopped`] if the master's loop is gone. Waits without bound for a loop that is there.
    pub async fn snapshot(&self) -> Result<super::Snapshot, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(ControlRequest::Snapshot(reply)).await.map_err(|_| ControlError::Stopped)?;
        answer.await.map_err(|_| ControlError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[tokio::test]
    async fn an_answer_reaches_its_asker() {
        let (control, mut requests) = channel();
        let (asked, ()) = tokio::join!(control.snapshot(), async {
            let Some(ControlRequest::Snapshot(reply)) = requests.recv().await else { panic!("no request") };
            reply.send(example::snapshot()).expect("the asker waits");
        });
        assert_eq!(asked, Ok(example::snapshot()));
    }

    #[tokio::test]
    async fn a_master_that_ends_before_or_after_it_is_asked_is_an_error_not_a_wait() {
        let (control, mut requests) = channel();
        let (asked, ()) = tokio::join!(control.snapshot(), async { drop(requests.recv().await) });
        assert_eq!(asked, Err(ControlError::Stopped));
        drop(requests);
        assert_eq!(control.snapshot().await, Err(ControlError::Stopped));
    }
}
