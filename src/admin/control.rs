//! How the admin pages speak with the master's loop: a request, and the way its answer goes back.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::audit::Audit;
use super::change::{Change, ControlError, Denied};
use super::figures::{self, FiguresSource};
use super::snapshot::Snapshot;
use crate::handover::trace::{Filter, Following, TooManyFollowers};

/// How many requests may wait for the master; the next one waits for its place.
const QUEUE: usize = 32;

/// What the master is asked.
///
/// The asker may have left meanwhile ([`oneshot::Sender::is_closed`]): then nothing need be sent, and nothing should be
/// changed, since the caller has had the answer that the master is late.
#[derive(Debug)]
pub enum ControlRequest {
    /// The state of this instant, and where more is to be had of the workers.
    Snapshot(oneshot::Sender<(Snapshot, Vec<FiguresSource>)>),
    /// To follow what becomes of connections.
    Trace(Filter, oneshot::Sender<Result<Following, TooManyFollowers>>),
    /// The last lines of workers.
    Logs(LinesWanted, oneshot::Sender<Vec<LogLine>>),
    /// Whether the tag of a session id was made with this haft's key.
    Session(String, oneshot::Sender<bool>),
    /// To change something, asked by a caller that may. Answered at once, not when the change is complete, with one
    /// line for the operator.
    Change(Change, oneshot::Sender<Result<String, Denied>>),
}

/// Which lines of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinesWanted {
    /// Those with a higher number.
    pub after: u64,
    /// Of this slot. None: of all.
    pub slot: Option<usize>,
}

/// A line that a worker wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Its number, in the order in which haft read them.
    pub number: u64,
    /// When haft read it, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The slot of the worker.
    pub slot: usize,
    /// Without its end.
    pub text: String,
}

/// A handle to the master's loop, for other threads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    requests: mpsc::Sender<ControlRequest>,
    pub(super) audit: Arc<Audit>,
}

/// A handle, and the end that the master's loop serves. Requests come one at a time, and the master answers each
/// between two steps of its own: that is what makes an answer one consistent instant.
pub fn channel() -> (Control, mpsc::Receiver<ControlRequest>) {
    let (requests, received) = mpsc::channel(QUEUE);
    (Control { requests, audit: Arc::default() }, received)
}

impl Control {
    /// The master's state at one instant, with what was asked of its control until then.
    ///
    /// # Errors
    ///
    /// [`ControlError::Stopped`] if the master's loop is gone. Waits without bound for a loop that is there.
    pub async fn snapshot(&self) -> Result<Snapshot, ControlError> {
        Ok(self.ask_for_snapshot().await?.0)
    }

    /// The same, with what workers report of themselves and what their processes use: read beside the master's loop, a
    /// moment later.
    ///
    /// # Errors
    ///
    /// As [`Control::snapshot`].
    pub async fn figures(&self) -> Result<Snapshot, ControlError> {
        let (snapshot, sources) = self.ask_for_snapshot().await?;
        let bare = snapshot.clone();
        Ok(tokio::task::spawn_blocking(move || figures::fill(snapshot, sources)).await.unwrap_or(bare))
    }

    /// The same as JSON, in one line.
    ///
    /// # Errors
    ///
    /// As [`Control::snapshot`].
    pub(super) async fn status(&self) -> Result<Vec<u8>, ControlError> {
        let now = self.figures().await?;
        let json = tokio::task::spawn_blocking(move || serde_json::to_vec(&now).unwrap_or_default()).await;
        json.map_err(|_| ControlError::Stopped)
    }

    async fn ask_for_snapshot(&self) -> Result<(Snapshot, Vec<FiguresSource>), ControlError> {
        let (snapshot, sources) = self.ask(ControlRequest::Snapshot).await?;
        Ok((Snapshot { control: self.audit.counts(), ..snapshot }, sources))
    }

    /// What becomes of connections from now on.
    ///
    /// # Errors
    ///
    /// As [`Control::snapshot`].
    pub(super) async fn trace(&self, filter: Filter) -> Result<Result<Following, TooManyFollowers>, ControlError> {
        self.ask(|reply| ControlRequest::Trace(filter, reply)).await
    }

    /// The last lines of workers.
    ///
    /// # Errors
    ///
    /// As [`Control::snapshot`].
    pub async fn logs(&self, wanted: LinesWanted) -> Result<Vec<LogLine>, ControlError> {
        self.ask(|reply| ControlRequest::Logs(wanted, reply)).await
    }

    /// Whether the tag of a session id was made with this haft's key.
    ///
    /// # Errors
    ///
    /// As [`Control::snapshot`].
    pub(super) async fn has_signed(&self, sid: &str) -> Result<bool, ControlError> {
        self.ask(|reply| ControlRequest::Session(sid.to_owned(), reply)).await
    }

    /// Asks for a change, for a caller that has been found to be allowed to.
    ///
    /// # Errors
    ///
    /// As [`Control::snapshot`]; within the answer, why the master did not do it.
    pub async fn change(&self, change: Change) -> Result<Result<String, Denied>, ControlError> {
        self.ask(|reply| ControlRequest::Change(change, reply)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> ControlRequest) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| ControlError::Stopped)?;
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
            reply.send((example::snapshot(), Vec::new())).expect("the asker waits");
        });
        assert_eq!(asked, Ok(Snapshot { control: Audit::default().counts(), ..example::snapshot() }));
        let denied = Denied::Busy("a reload is under way".to_owned());
        let (asked, ()) = tokio::join!(control.change(Change::Scale { workers: 3 }), async {
            let Some(ControlRequest::Change(change, reply)) = requests.recv().await else { panic!("no request") };
            assert_eq!(change, Change::Scale { workers: 3 });
            reply.send(Err(denied.clone())).expect("the asker waits");
        });
        assert_eq!(asked, Ok(Err(denied)));
    }

    #[tokio::test]
    async fn a_master_that_ends_before_or_after_it_is_asked_is_an_error_not_a_wait() {
        let (control, mut requests) = channel();
        let (asked, ()) = tokio::join!(control.snapshot(), async { drop(requests.recv().await) });
        assert_eq!(asked, Err(ControlError::Stopped));
        drop(requests);
        assert_eq!(control.snapshot().await, Err(ControlError::Stopped));
        assert_eq!(control.change(Change::Reload).await, Err(ControlError::Stopped));
    }
}
