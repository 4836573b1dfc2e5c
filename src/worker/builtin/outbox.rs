//! What belongs to a polling session for as long as it lives: whether it has begun, and what was taken from the engine
//! for it and waits for its next poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;
use socketioxide::socket::Sid;
use tokio::sync::watch;

use super::door::SEPARATOR;
use super::drain::lock;

/// The polling sessions of this worker. The engine keeps each [`Outbox`] with the request that opened its session, so a
/// session that has ended is not in here.
#[derive(Debug, Default)]
pub(super) struct Outboxes(Mutex<HashMap<Sid, Weak<Outbox>>>);

impl Outboxes {
    /// Gives a new session its outbox.
    pub(super) fn enter(&self, sid: Sid, outbox: &Arc<Outbox>) {
        if outbox.sid.set(sid).is_ok() {
            lock(&self.0).insert(sid, Arc::downgrade(outbox));
        }
    }

    /// The outbox of a session that began over polling.
    pub(super) fn of(&self, sid: Sid) -> Option<Arc<Outbox>> {
        let outbox = lock(&self.0).get(&sid).cloned();
        outbox?.upgrade()
    }
}

/// One session that began over polling.
#[derive(Debug)]
pub(super) struct Outbox {
    sid: OnceLock<Sid>,
    all: Arc<Outboxes>,
    settled: watch::Sender<bool>,
    kept: Mutex<Vec<Bytes>>,
}

impl Outbox {
    /// For a session that is about to be opened.
    pub(super) fn new(all: Arc<Outboxes>) -> Self {
        Self { sid: OnceLock::new(), all, settled: watch::Sender::new(false), kept: Mutex::default() }
    }

    /// Lets the requests of the session go on.
    pub(super) fn settle(&self) {
        self.settled.send_replace(true);
    }

    /// Resolves once the session may be polled.
    pub(super) async fn settled(&self) {
        // The sender lives as long as `self`.
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// Keeps packets that were taken from the engine, to be sent before all others.
    pub(super) fn keep(&self, packets: Bytes) {
        lock(&self.kept).push(packets);
    }

    /// Takes what was kept, as one payload.
    pub(super) fn take(&self) -> Option<Bytes> {
        let kept = std::mem::take(&mut *lock(&self.kept));
        (!kept.is_empty()).then(|| kept.join(&SEPARATOR).into())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if let Some(sid) = self.sid.get() {
            lock(&self.all.0).remove(sid);
        }
    }
}
