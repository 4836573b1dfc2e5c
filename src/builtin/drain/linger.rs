//! Lingering: another worker has taken this one's place, and its sessions go on here until the last has ended.

use std::sync::Arc;
use std::time::Duration;

use socketioxide::socket::Sid;
use tokio::time::interval;

use super::{Conn, DrainPhase, Registry, SWEEP_FROM, lock};

/// How often a lingering worker checks whether a session is left: there is no event for one that ended by its
/// heartbeat.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Registry {
    /// Whether a session may begin on this connection. While the worker lingers one may only with the connection's first
    /// request: that was on its way to this worker when another took its place. Any later one comes on a connection
    /// that was kept open, and can as well come on a new one.
    pub(in super::super) fn opens_sessions(&self, conn: &Conn) -> bool {
        match *self.phase.borrow() {
            DrainPhase::Open => true,
            DrainPhase::Lingering => !*conn.asked.borrow(),
            DrainPhase::Draining | DrainPhase::Forced => false,
        }
    }

    /// Notes that a session has begun over polling. `alive` is asked now and then which of those noted before are left.
    pub(in super::super) fn began(&self, sid: Sid, alive: impl Fn(Sid) -> bool) {
        let mut inner = lock(&self.inner);
        inner.began.push(sid);
        if inner.began.len() < inner.sweep_began_at.max(SWEEP_FROM) {
            return;
        }
        // A closure may need this lock.
        let mut began = std::mem::take(&mut inner.began);
        drop(inner);
        began.retain(|sid| alive(*sid));
        let mut inner = lock(&self.inner);
        inner.sweep_began_at = began.len() * 2;
        inner.began.append(&mut began);
    }

    /// Whether a session is there or about to begin: one over polling, with a connection or without, a WebSocket, or a
    /// connection that has asked nothing yet. Or one has ended by a goodbye just now.
    fn has_session(&self, alive: impl Fn(Sid) -> bool) -> bool {
        let of_conn = |conn: &Arc<Conn>| conn.websocket().is_some() || !*conn.asked.borrow();
        {
            let inner = lock(&self.inner);
            if inner.parted.is_crossed() || inner.conns.values().any(of_conn) {
                return true;
            }
        }
        loop {
            let last = lock(&self.inner).began.last().copied();
            match last {
                None => return false,
                Some(sid) if alive(sid) => return true,
                Some(sid) => {
                    let began = &mut lock(&self.inner).began;
                    let at = began.iter().rposition(|other| *other == sid);
                    at.map(|at| began.swap_remove(at));
                }
            }
        }
    }

    /// Lets sessions go on but not begin, and closes connections that no session needs. Returns once no session is left.
    pub(in super::super) async fn linger(&self, alive: impl Fn(Sid) -> bool) {
        self.advance(DrainPhase::Lingering);
        let mut look = interval(LOOK_EVERY);
        loop {
            look.tick().await;
            if !self.has_session(&alive) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use tokio::time::sleep;

    use super::*;
    use crate::builtin::wire::WsLife;

    /// Sessions that an engine knows.
    type Known = Arc<Mutex<HashSet<Sid>>>;

    fn lingers(registry: &Arc<Registry>, known: &Known) -> tokio::task::JoinHandle<()> {
        let (registry, known) = (Arc::clone(registry), Arc::clone(known));
        tokio::spawn(async move { registry.linger(|sid| lock(&known).contains(&sid)).await })
    }

    /// The clock stands still but for what is waited for, so an hour is long enough for anything and takes no time.
    async fn an_hour() {
        sleep(Duration::from_secs(3600)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_or_may_become_a_session_is_waited_for() {
        let (registry, known) = (Registry::new(), Known::default());
        let sid = Sid::new();
        lock(&known).insert(sid);
        registry.began(sid, |_| true);
        let silent = registry.open();
        let (websocket, (life, guard)) = (registry.open(), WsLife::begin());
        websocket.0.becomes(life);
        websocket.0.asked();
        let idle = registry.open();
        idle.0.asked();

        let lingering = lingers(&registry, &known);
        an_hour().await;
        assert!(!lingering.is_finished());
        idle.0.finished().await;
        assert!(!registry.opens_sessions(&idle.0) && registry.opens_sessions(&silent.0));
        silent.0.asked();
        assert!(!registry.opens_sessions(&silent.0));
        silent.0.finished().await;
        an_hour().await;
        assert!(!lingering.is_finished(), "a WebSocket and a session over polling");
        drop((websocket, guard));
        an_hour().await;
        assert!(!lingering.is_finished(), "a session over polling, without a connection");
        lock(&known).clear();
        lingering.await.expect("task");
        assert!(!registry.draining(), "that is for the master to say");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_crossed_the_last_goodbye_is_waited_for() {
        let registry = Registry::new();
        let (sid, start) = (Sid::new(), tokio::time::Instant::now());
        registry.parted(sid);
        registry.linger(|_| false).await;
        assert!(start.elapsed() >= Duration::from_secs(5) && registry.has_parted(sid));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_stay_while_a_session_needs_them() {
        let (registry, known) = (Registry::new(), Known::default());
        let open = registry.open();
        let gate = open.0.carries(Sid::new(), |_| true);
        open.0.asked();
        let lingering = lingers(&registry, &known);
        let conn = Arc::clone(&open.0);
        let closing = tokio::spawn(async move { conn.finished().await });
        an_hour().await;
        assert!(lingering.is_finished() && !closing.is_finished());
        gate.over();
        closing.await.expect("task");
    }

    #[test]
    fn sessions_that_have_ended_are_not_remembered_for_ever() {
        let registry = Registry::new();
        let lasting: Vec<_> = (0..100).map(|_| Sid::new()).collect();
        let known: HashSet<Sid> = lasting.iter().copied().collect();
        for sid in lasting.into_iter().chain((0..10_000).map(|_| Sid::new())) {
            registry.began(sid, |sid| known.contains(&sid));
            assert!(lock(&registry.inner).began.len() <= 2 * known.len());
        }
        assert!(registry.has_session(|sid| known.contains(&sid)));
        assert!(!registry.has_session(|_| false));
        assert!(lock(&registry.inner).began.is_empty());
    }
}
