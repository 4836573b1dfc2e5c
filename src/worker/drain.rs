//! Learning that the worker is to finish, and when it has.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Tells a worker when to finish, and when all its connections have ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    deadline: watch::Receiver<Option<Deadline>>,
    open: watch::Receiver<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

/// The side that tells.
#[derive(Debug)]
pub(super) struct DrainSource {
    deadline: watch::Sender<Option<Deadline>>,
    open: Arc<watch::Sender<usize>>,
}

/// Counts one open connection as long as it lives.
#[derive(Debug)]
pub(super) struct OpenGuard(Arc<watch::Sender<usize>>);

impl DrainSource {
    pub(super) fn new() -> Self {
        Self { deadline: watch::Sender::new(None), open: Arc::new(watch::Sender::new(0)) }
    }

    pub(super) fn subscribe(&self) -> Drain {
        Drain { deadline: self.deadline.subscribe(), open: self.open.subscribe() }
    }

    /// The worker is to finish; `None` when there is no master to say within which time.
    pub(super) fn request(&self, within: Option<Duration>) {
        let deadline = Deadline(within.map(|within| Instant::now() + within));
        self.deadline.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(deadline);
            }
            first
        });
    }

    pub(super) fn opened(&self) -> OpenGuard {
        self.open.send_modify(|open| *open += 1);
        OpenGuard(Arc::clone(&self.open))
    }

    pub(super) fn open(&self) -> usize {
        *self.open.borrow()
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Drain {
    /// Resolves when the worker is to finish: the master said so, or is gone. Yields how long the worker has until it
    /// is made to end; `None` when the master is gone: then SIGTERM comes when the drain time is over.
    pub async fn requested(&mut self) -> Option<Duration> {
        // An error means that the Incoming was dropped: no connection will come any more either.
        let deadline = self.deadline.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
        deadline.and_then(|Deadline(at)| at).map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// As [`Drain::requested`], for `axum::serve(..).with_graceful_shutdown(..)`.
    pub async fn requested_only(mut self) {
        self.requested().await;
    }

    /// Resolves when every connection that was yielded as a [`super::Stream`] has been dropped, upgraded ones
    /// (WebSockets) too.
    ///
    /// Nobody ends them but the program: what it keeps open, or a client that does not close, holds this up. Put a limit
    /// around it; `examples/socketio.rs` shows one.
    pub async fn finished(mut self) {
        // An error means that the Incoming and all streams were dropped.
        self.open.wait_for(|open| *open == 0).await.ok();
    }
}
