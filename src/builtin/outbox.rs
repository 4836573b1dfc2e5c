//! What belongs to a polling session for as long as it lives: whether it has begun, whether it is being polled, and what
//! waits for its next poll, counted in bytes.
//!
//! The engine keeps packets for a session that is not polled, and does not expose how many bytes they are. So after
//! each request they are taken out of it and kept here, and what the chat sends meanwhile is noted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use haft_worker::scoreboard::Scoreboard;
use socketioxide::socket::Sid;
use tokio::sync::watch;

use super::answers::SEPARATOR;
use super::budget::{Excess, HeldBytes, MemoryBudget};
use super::counted::CountedSession;
use super::engine::Engine;
use super::wire::lock;

/// Of an answer that is shorter than this part of a session's share it is known that it left nothing in the engine.
const SHORT: usize = 8;

/// The polling sessions of this worker. The engine keeps each [`PollingOutbox`] with the request that opened its session, so a
/// session that has ended is not in here.
pub(super) struct Outboxes {
    engine: Engine,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) scoreboard: Scoreboard,
    of: Mutex<HashMap<Sid, Weak<PollingOutbox>>>,
}

impl Outboxes {
    /// For the sessions of this engine.
    pub(super) fn new(engine: Engine, budget: Arc<MemoryBudget>, scoreboard: Scoreboard) -> Arc<Self> {
        Arc::new(Self { engine, budget, scoreboard, of: Mutex::default() })
    }

    /// Gives a new session its outbox.
    pub(super) fn enter(&self, sid: Sid, outbox: &Arc<PollingOutbox>) {
        if outbox.sid.set(sid).is_ok() {
            outbox.counted.set(CountedSession::new(&self.scoreboard, false)).ok();
            lock(&self.of).insert(sid, Arc::downgrade(outbox));
        }
    }

    /// The outbox of a session that began over polling.
    pub(super) fn of(&self, sid: Sid) -> Option<Arc<PollingOutbox>> {
        let outbox = lock(&self.of).get(&sid).cloned();
        outbox?.upgrade()
    }
}

/// One session that began over polling.
pub(super) struct PollingOutbox {
    sid: OnceLock<Sid>,
    counted: OnceLock<CountedSession>,
    all: Arc<Outboxes>,
    settled: watch::Sender<bool>,
    polls: AtomicUsize,
    posting: AtomicBool,
    moved: AtomicBool,
    ended: AtomicBool,
    waiting: Mutex<WaitingPackets>,
}

/// What waits for the next poll.
struct WaitingPackets {
    /// Taken out of the engine.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// Bytes that were given to the engine meanwhile.
    owed: usize,
    hold: HeldBytes,
}

impl WaitingPackets {
    fn count(&mut self) -> Result<(), Excess> {
        self.hold.set(self.kept_bytes + self.owed)
    }
}

impl PollingOutbox {
    /// For a session that is about to be opened.
    pub(super) fn new(all: &Arc<Outboxes>) -> Self {
        let waiting = WaitingPackets { kept: Vec::new(), kept_bytes: 0, owed: 0, hold: all.budget.hold() };
        Self {
            sid: OnceLock::new(),
            counted: OnceLock::new(),
            all: Arc::clone(all),
            settled: watch::Sender::new(false),
            polls: AtomicUsize::new(0),
            posting: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            waiting: Mutex::new(waiting),
        }
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

    /// Keeps packets that were taken from the engine, to be sent before all others. Returns whether there was room; if
    /// not, the session has been ended.
    pub(super) fn keep(&self, packets: Bytes) -> bool {
        let kept = {
            let mut waiting = lock(&self.waiting);
            waiting.kept_bytes += packets.len();
            waiting.kept.push(packets);
            waiting.count()
        };
        self.ended_by(kept)
    }

    /// Takes what was kept, as one payload.
    pub(super) fn take(&self) -> Option<Bytes> {
        let mut waiting = lock(&self.waiting);
        waiting.kept_bytes = 0;
        // Less than before is always allowed.
        let _ = waiting.count();
        let kept = std::mem::take(&mut waiting.kept);
        (!kept.is_empty()).then(|| joined(kept))
    }

    /// Takes what waits in the engine, if nothing polls it. Returns whether there was room for it.
    pub(super) fn gather(&self) -> bool {
        let Some(sid) = self.sid.get() else { return true };
        if self.polls.load(Ordering::Acquire) > 0 || self.moved() {
            return true;
        }
        lock(&self.waiting).owed = 0;
        // While a session moves to a WebSocket the engine answers with a noop, again and again.
        while let Some(packets) = self.all.engine.queued(*sid).filter(|packets| **packets != *b"6") {
            if !self.keep(packets) {
                return false;
            }
        }
        true
    }

    /// Notes that the session is sent `bytes` by another. If that is too much the session is ended.
    pub(super) fn owe(&self, bytes: usize) {
        if self.moved() {
            return;
        }
        let owed = {
            let mut waiting = lock(&self.waiting);
            waiting.owed += bytes;
            waiting.count()
        };
        self.ended_by(owed);
    }

    /// The session is polled until the returned guard is dropped.
    pub(super) fn polled(self: &Arc<Self>) -> Polled {
        self.polls.fetch_add(1, Ordering::AcqRel);
        Polled(Arc::clone(self))
    }

    /// Notes that a poll was answered with `bytes`.
    pub(super) fn answered(&self, bytes: usize) {
        let mut waiting = lock(&self.waiting);
        let whole = bytes < self.all.budget.each / SHORT;
        waiting.owed = if whole { 0 } else { waiting.owed.saturating_sub(bytes) };
        let _ = waiting.count();
    }

    /// Claims the session's one POST; `None` while another is under way.
    pub(super) fn post(self: &Arc<Self>) -> Option<Posting> {
        let free = !self.posting.swap(true, Ordering::AcqRel);
        free.then(|| Posting(Arc::clone(self)))
    }

    /// Whether the session is on a WebSocket now.
    pub(super) fn moved(&self) -> bool {
        self.moved.load(Ordering::Acquire)
    }

    /// Whether it was ended for what waited.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Notes that it is on a WebSocket now. Returns what was kept, as frames.
    pub(super) fn moves(&self) -> BytesMut {
        self.moved.store(true, Ordering::Release);
        self.counted.get().iter().for_each(|counted| counted.moves());
        lock(&self.waiting).owed = 0;
        let mut frames = BytesMut::new();
        for packet in self.take().iter().flat_map(|kept| kept.split(|byte| *byte == SEPARATOR)) {
            match packet {
                [b'b', data @ ..] => frame(&mut frames, 0x82, &BASE64_STANDARD.decode(data).unwrap_or_default()),
                b"6" => {}
                packet => frame(&mut frames, 0x81, packet),
            }
        }
        frames
    }

    fn ended_by(&self, result: Result<(), Excess>) -> bool {
        let (Err(excess), Some(sid)) = (result, self.sid.get()) else { return result.is_ok() };
        let over = {
            let mut waiting = lock(&self.waiting);
            (waiting.kept, waiting.kept_bytes, waiting.owed) = (Vec::new(), 0, 0);
            let _ = waiting.count();
            self.ended.swap(true, Ordering::AcqRel)
        };
        if over {
            return false;
        }
        self.all.budget.close(excess);
        self.all.engine.close(*sid);
        false
    }
}

impl Drop for PollingOutbox {
    fn drop(&mut self) {
        if let Some(sid) = self.sid.get() {
            lock(&self.all.of).remove(sid);
        }
    }
}

/// One payload of many. Each is given back once it is copied, so that they are not held twice.
fn joined(kept: Vec<Bytes>) -> Bytes {
    let length = kept.iter().map(|packets| packets.len() + 1).sum::<usize>() - 1;
    let mut payload = BytesMut::with_capacity(length);
    for packets in kept {
        if !payload.is_empty() {
            payload.put_u8(SEPARATOR);
        }
        payload.put_slice(&packets);
    }
    payload.freeze()
}

/// A poll that is under way until this is dropped.
pub(super) struct Polled(Arc<PollingOutbox>);

impl Drop for Polled {
    fn drop(&mut self) {
        self.0.polls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A POST that is under way until this is dropped.
pub(super) struct Posting(Arc<PollingOutbox>);

impl Drop for Posting {
    fn drop(&mut self) {
        self.0.posting.store(false, Ordering::Release);
    }
}

/// A whole frame as a server sends it (RFC 6455, 5.2).
fn frame(frames: &mut BytesMut, first: u8, payload: &[u8]) {
    frames.put_u8(first);
    match payload.len() {
        length @ 0..=125 => frames.put_u8(length as u8),
        length @ 126..=0xffff => {
            frames.put_u8(126);
            frames.put_u16(length as u16);
        }
        length => {
            frames.put_u8(127);
            frames.put_u64(length as u64);
        }
    }
    frames.put_slice(payload);
}
