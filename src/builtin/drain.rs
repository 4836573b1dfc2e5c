//! Finishing cleanly: what is open in this process, and how it is ended.
//!
//! Socket.IO sessions are the difficulty. A polling session lives on no particular connection, so its connections must
//! stay open until the session itself has got its goodbye; and if all clients got theirs together, they would all
//! reconnect in the same second.

mod linger;
mod parted;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use haft_worker::Drain;
use socketioxide::socket::Sid;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use self::parted::Parted;
use super::wire::{WsLife, lock};

/// How long a client may take to close after its goodbye before its connection is cut off.
const GRACE: Duration = Duration::from_secs(5);

/// How long a connection stays after the session that it carried has ended: a message may be under way on it, which would be
/// answered by a reset. A client of Socket.IO waits longer than this before it comes back.
const CROSSING: Duration = Duration::from_millis(250);

/// How many sessions one connection may name before dead ones are looked for (a reverse proxy that keeps its
/// connections open carries many).
const SWEEP_FROM: usize = 64;

/// How far the whole process is in ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DrainPhase {
    Open,
    /// No session begins, those there are go on.
    Lingering,
    /// They are ended.
    Draining,
    Forced,
}

/// Everything that is open: connections, and the polling sessions they carry.
#[derive(Debug)]
pub(super) struct Registry {
    inner: Mutex<Inner>,
    phase: watch::Sender<DrainPhase>,
    /// Every session that is to end has got its goodbye.
    all_sent: watch::Sender<bool>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    conns: HashMap<u64, Arc<Conn>>,
    sessions: HashMap<Sid, Weak<SessionGate>>,
    /// Sessions that began over polling, if they are to be known without a connection. Some may have ended.
    began: Vec<Sid>,
    sweep_began_at: usize,
    parted: Parted,
}

impl Registry {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            phase: watch::Sender::new(DrainPhase::Open),
            all_sent: watch::Sender::new(false),
            count: watch::Sender::new(0),
        })
    }

    /// Enters a connection; it leaves when the returned guard is dropped.
    pub(super) fn open(self: &Arc<Self>) -> OpenConn {
        let mut inner = lock(&self.inner);
        let id = inner.next;
        inner.next += 1;
        let conn = Arc::new(Conn {
            id,
            registry: Arc::clone(self),
            asked: watch::Sender::new(false),
            gates: Mutex::default(),
            websocket: Mutex::default(),
        });
        inner.conns.insert(id, Arc::clone(&conn));
        drop(inner);
        self.count.send_modify(|count| *count += 1);
        OpenConn(conn)
    }

    /// Connections that are open, WebSockets counted.
    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Whether the end has begun: no new session is opened then.
    pub(super) fn draining(&self) -> bool {
        *self.phase.borrow() >= DrainPhase::Draining
    }

    /// Lets no session begin, closes connections that no session needs, and cuts off those that stay after all have got
    /// their goodbye ([`Registry::say_goodbye`]). Returns once nothing is open.
    pub(super) async fn close(&self) {
        self.advance(DrainPhase::Draining);
        let (mut count, mut all_sent) = (self.count.subscribe(), self.all_sent.subscribe());
        let forced = async {
            // The registry holds the senders, so waiting cannot fail.
            let _ = all_sent.wait_for(|all| *all).await;
            sleep(GRACE).await;
            self.force();
            // What is left has only to notice.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = count.wait_for(|count| *count == 0) => {}
            () = forced => {}
        }
    }

    /// Sends each session and each WebSocket its goodbye when `drain` schedules it. Sessions without a goodbye go on as
    /// before. Never returns: a session gets its goodbye with its next poll, and pending goodbyes end with this future.
    pub(super) async fn say_goodbye(self: &Arc<Self>, mut drain: Drain, alive: impl Fn(Sid) -> bool) {
        let mut sent = Vec::new();
        let end = |end: Closable| {
            end.begin();
            sent.push(end);
        };
        drain.goodbyes(|| self.open_ends(&alive), end).await;
        self.all_sent.send_replace(true);
        std::future::pending().await
    }

    /// The polling session has been ended by a goodbye.
    pub(super) fn parted(&self, sid: Sid) {
        lock(&self.inner).parted.enter(sid);
    }

    /// Whether the session has just been ended by a goodbye.
    pub(super) fn has_parted(&self, sid: Sid) -> bool {
        lock(&self.inner).parted.has(sid)
    }

    fn advance(&self, to: DrainPhase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            if later {
                *phase = to;
            }
            later
        });
    }

    fn open_ends(self: &Arc<Self>, alive: impl Fn(Sid) -> bool) -> Vec<Closable> {
        let began = lock(&self.inner).began.clone();
        // One that is between two polls has no connection that would hold its gate.
        let _gates: Vec<_> =
            began.into_iter().filter(|sid| alive(*sid)).map(|sid| SessionGate::of(self, sid)).collect();
        let (gates, websockets) = self.all();
        let sessions = gates.into_iter().filter(|gate| gate.is(SessionPhase::Live)).map(Closable::Session);
        sessions.chain(websockets.into_iter().filter(|life| life.is_open()).map(Closable::WebSocket)).collect()
    }

    /// Every polling session and every WebSocket. (A gate must not be dropped under the lock: it takes it itself.)
    fn all(&self) -> (Vec<Arc<SessionGate>>, Vec<Arc<WsLife>>) {
        let inner = lock(&self.inner);
        let gates = inner.sessions.values().filter_map(Weak::upgrade).collect();
        (gates, inner.conns.values().filter_map(|conn| conn.websocket()).collect())
    }

    /// Cuts off sessions that did not close after their goodbye.
    fn force(&self) {
        self.advance(DrainPhase::Forced);
        let (gates, websockets) = self.all();
        tracing::debug!(
            sessions = gates.len(),
            websockets = websockets.len(),
            "cutting off sessions and WebSockets that did not close in time"
        );
        gates.iter().for_each(|gate| gate.over());
        websockets.iter().for_each(|life| life.abort());
    }
}

/// Something that is ended on its own.
enum Closable {
    Session(Arc<SessionGate>),
    WebSocket(Arc<WsLife>),
}

impl Closable {
    fn begin(&self) {
        match self {
            Self::Session(gate) => gate.end(),
            Self::WebSocket(life) => life.end(),
        }
    }
}

/// One TCP connection.
#[derive(Debug)]
pub(super) struct Conn {
    id: u64,
    registry: Arc<Registry>,
    asked: watch::Sender<bool>,
    gates: Mutex<Gates>,
    websocket: Mutex<Option<Arc<WsLife>>>,
}

#[derive(Debug, Default)]
struct Gates {
    of: HashMap<Sid, Arc<SessionGate>>,
    sweep_at: usize,
}

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub(super) struct OpenConn(pub(super) Arc<Conn>);

impl Drop for OpenConn {
    fn drop(&mut self) {
        let registry = &self.0.registry;
        lock(&registry.inner).conns.remove(&self.0.id);
        registry.count.send_modify(|count| *count -= 1);
    }
}

impl Conn {
    /// Notes that this connection carries requests of the polling session `sid`. `alive` is asked now and then which
    /// of the sessions named before still exist.
    pub(super) fn carries(&self, sid: Sid, alive: impl Fn(Sid) -> bool) -> Arc<SessionGate> {
        let mut gates = lock(&self.gates);
        if let Some(gate) = gates.of.get(&sid) {
            return Arc::clone(gate);
        }
        if gates.of.len() >= gates.sweep_at.max(SWEEP_FROM) {
            gates.of.retain(|sid, gate| !gate.is(SessionPhase::Over) && alive(*sid));
            gates.sweep_at = gates.of.len() * 2;
        }
        let gate = SessionGate::of(&self.registry, sid);
        gates.of.insert(sid, Arc::clone(&gate));
        gate
    }

    /// Notes that the session `sid` does not exist (any more).
    pub(super) fn forget(&self, sid: Sid) {
        let gate = lock(&self.gates).of.remove(&sid);
        if let Some(gate) = gate {
            gate.over();
        }
    }

    /// Notes that this connection became a WebSocket.
    pub(super) fn becomes(&self, life: Arc<WsLife>) {
        *lock(&self.websocket) = Some(life);
    }

    /// What it became, if it was upgraded.
    pub(super) fn websocket(&self) -> Option<Arc<WsLife>> {
        lock(&self.websocket).clone()
    }

    /// Notes that a request has arrived, its session (if any) being noted already.
    pub(super) fn asked(&self) {
        self.asked.send_if_modified(|asked| !std::mem::replace(asked, true));
    }

    /// Resolves when the end has begun, a first request has been seen (a connection that has just been handed over
    /// still gets its answer) and no live session needs this connection.
    pub(super) async fn finished(&self) {
        let mut phase = self.registry.phase.subscribe();
        let mut asked = self.asked.subscribe();
        // Neither can fail: both senders live as long as `self`.
        let _ = phase.wait_for(|phase| *phase != DrainPhase::Open).await;
        tokio::select! {
            _ = asked.wait_for(|asked| *asked) => {}
            _ = phase.wait_for(|phase| *phase == DrainPhase::Forced) => {}
        }
        let mut carried = false;
        loop {
            let live = lock(&self.gates).of.values().find(|gate| !gate.is(SessionPhase::Over)).cloned();
            match live {
                Some(gate) => {
                    gate.until(SessionPhase::Over).await;
                    carried = true;
                }
                None if std::mem::take(&mut carried) => tokio::select! {
                    () = sleep(CROSSING) => {}
                    _ = phase.wait_for(|phase| *phase == DrainPhase::Forced) => {}
                },
                None => return,
            }
        }
    }
}

/// The polling life of one session: what its requests must know about its end or its upgrade.
#[derive(Debug)]
pub(super) struct SessionGate {
    sid: Sid,
    registry: Weak<Registry>,
    life: watch::Sender<SessionPhase>,
    /// Wakes a poll that should return empty-handed, so that the client can upgrade.
    pub(super) release: Notify,
    probing: Mutex<bool>,
}

/// How far a polling session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SessionPhase {
    /// Polling.
    Live,
    /// Its next (or pending) poll is answered with a close.
    Ending,
    /// Closed, or moved to a WebSocket.
    Over,
}

impl SessionGate {
    fn of(registry: &Arc<Registry>, sid: Sid) -> Arc<Self> {
        let mut inner = lock(&registry.inner);
        if let Some(gate) = inner.sessions.get(&sid).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::new(Self {
            sid,
            registry: Arc::downgrade(registry),
            life: watch::Sender::new(SessionPhase::Live),
            release: Notify::new(),
            probing: Mutex::new(false),
        });
        inner.sessions.insert(sid, Arc::downgrade(&gate));
        gate
    }

    /// The session's id.
    pub(super) fn sid(&self) -> Sid {
        self.sid
    }

    pub(super) fn is(&self, life: SessionPhase) -> bool {
        *self.life.borrow() == life
    }

    /// Resolves once the session is exactly at `life`.
    pub(super) async fn until(&self, life: SessionPhase) {
        // The sender lives as long as `self`.
        let _ = self.life.subscribe().wait_for(|now| *now == life).await;
    }

    /// Resolves once the session is no longer live.
    pub(super) async fn until_not_live(&self) {
        let _ = self.life.subscribe().wait_for(|now| *now != SessionPhase::Live).await;
    }

    fn end(&self) {
        self.advance(SessionPhase::Ending);
    }

    /// Notes that the session needs its HTTP connections no more.
    pub(super) fn over(&self) {
        self.advance(SessionPhase::Over);
    }

    fn advance(&self, to: SessionPhase) {
        self.life.send_if_modified(|life| {
            let later = *life < to;
            if later {
                *life = to;
            }
            later
        });
    }

    /// Claims the session's one upgrade attempt; `None` while another is under way.
    pub(super) fn probe(self: &Arc<Self>) -> Option<Probing> {
        let mut probing = lock(&self.probing);
        let free = !std::mem::replace(&mut *probing, true);
        free.then(|| Probing(Arc::clone(self)))
    }
}

impl Drop for SessionGate {
    fn drop(&mut self) {
        let Some(registry) = self.registry.upgrade() else { return };
        let mut inner = lock(&registry.inner);
        if inner.sessions.get(&self.sid).is_some_and(|gate| gate.strong_count() == 0) {
            inner.sessions.remove(&self.sid);
        }
    }
}

/// An upgrade attempt that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Probing(pub(super) Arc<SessionGate>);

impl Drop for Probing {
    fn drop(&mut self) {
        *lock(&self.0.probing) = false;
    }
}
