//! Learning that the worker is to linger or to finish, and when it has; telling when no session is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;

/// How long a worker that lingers still opens sessions, and at least lingers: a connection that was on its way when it
/// was asked to has had its turn by then.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// Shows a worker when to finish, and when all its connections have ended. Cheap to clone.
///
/// # Lingering
///
/// With session affinity a worker that is replaced by a reload is not asked to finish at once: no new session is sent
/// to it, but the clients of those it has find it, until the last has left or the time is over. That is for workers
/// that tag their sessions (`Incoming::tags`); others are asked to finish as ever.
///
/// A session of Socket.IO is more than a connection: between two polls it has none. So only the program knows when no
/// session is left, and it counts them: [`Drain::session`] as each begins, held until it ends. When the worker lingers
/// and none is held any more, the master is informed, and asks it to finish. A program that counts none is asked at
/// once.
///
/// Once it is asked to finish, no connection comes any more: a session that polls on a new connection each time is then
/// lost without a word. [`Drain::goodbyes`] ends sessions one by one, and begins before that.
#[derive(Debug, Clone)]
pub struct Drain {
    deadline: watch::Receiver<Option<Deadline>>,
    linger: watch::Receiver<Option<Linger>>,
    pub(super) pace: watch::Receiver<Option<Pace>>,
    open: watch::Receiver<usize>,
    sessions: Arc<watch::Sender<usize>>,
    /// Whether a session was ever counted.
    counted: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

/// When the worker was asked to linger, and when it is asked to finish at the latest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linger {
    #[cfg(feature = "tags")]
    pub(super) since: Instant,
    until: Instant,
}

/// The side that asks. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct DrainSource {
    deadline: watch::Sender<Option<Deadline>>,
    linger: watch::Sender<Option<Linger>>,
    pace: watch::Sender<Option<Pace>>,
    open: Arc<watch::Sender<usize>>,
    sessions: Arc<watch::Sender<usize>>,
    counted: Arc<AtomicBool>,
}

/// Counts one as long as it lives.
#[derive(Debug)]
struct CountGuard(Arc<watch::Sender<usize>>);

/// Counts one open connection as long as it lives.
#[derive(Debug)]
pub(super) struct OpenGuard(#[expect(dead_code, reason = "held for what it does when dropped")] CountGuard);

/// One session, as long as this is held. Clones are the same session: it has ended when the last of them is dropped.
#[derive(Debug, Clone)]
#[must_use = "a session ends when this is dropped"]
pub struct SessionGuard(#[expect(dead_code, reason = "held for what it does when dropped")] Arc<CountGuard>);

impl CountGuard {
    fn one_of(all: &Arc<watch::Sender<usize>>) -> Self {
        all.send_modify(|count| *count += 1);
        Self(Arc::clone(all))
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl DrainSource {
    pub(super) fn new() -> Self {
        let zero = || Arc::new(watch::Sender::new(0));
        let (deadline, linger) = (watch::Sender::new(None), watch::Sender::new(None));
        let pace = watch::Sender::new(None);
        Self { deadline, linger, pace, open: zero(), sessions: zero(), counted: Arc::default() }
    }

    pub(super) fn subscribe(&self) -> Drain {
        Drain {
            deadline: self.deadline.subscribe(),
            linger: self.linger.subscribe(),
            pace: self.pace.subscribe(),
            open: self.open.subscribe(),
            sessions: Arc::clone(&self.sessions),
            counted: Arc::clone(&self.counted),
        }
    }

    /// The worker is to finish within this time; `None`: at once, nothing will come any more. Of several times the one
    /// that is over first holds.
    pub(super) fn request(&self, within: Option<Duration>) {
        self.finish(within, Pace::of_draining(within.unwrap_or_default()));
    }

    /// The worker is to finish, without a master; within this time, if the master gave one.
    pub(super) fn master_gone(&self, within: Option<Duration>) {
        self.finish(within, Pace::without_master(within.unwrap_or_default()));
    }

    fn finish(&self, within: Option<Duration>, pace: Pace) {
        let deadline = Deadline(within.map(|within| Instant::now() + within));
        let holds = self.deadline.send_if_modified(|current| {
            let sooner = match (*current, deadline) {
                (None, _) => true,
                (Some(Deadline(Some(current))), Deadline(Some(new))) => new < current,
                (Some(Deadline(None)), Deadline(new)) => new.is_some(),
                (Some(Deadline(Some(_))), Deadline(None)) => false,
            };
            if sooner {
                *current = Some(deadline);
            }
            sooner
        });
        if holds {
            self.pace.send_replace(Some(pace));
        }
    }

    /// The worker is to keep its sessions, and is asked to finish within this time.
    pub(super) fn linger(&self, within: Duration) {
        let now = Instant::now();
        self.linger.send_replace(Some(Linger {
            #[cfg(feature = "tags")]
            since: now,
            until: now + within,
        }));
        self.pace.send_replace(Some(Pace::of_lingering(within)));
    }

    pub(super) fn opened(&self) -> OpenGuard {
        OpenGuard(CountGuard::one_of(&self.open))
    }

    pub(super) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Resolves when no session is held, `at` at the earliest. Cancel safe.
    pub(super) async fn no_session_from(&self, at: Instant) {
        let mut sessions = self.sessions.subscribe();
        loop {
            // The sender lives as long as `self`.
            sessions.wait_for(|sessions| *sessions == 0).await.ok();
            tokio::time::sleep_until(at).await;
            if *sessions.borrow() == 0 {
                return;
            }
        }
    }
}

impl Drain {
    /// Resolves when the worker is to finish: the master asked for it, or is gone. Yields how long the worker has until
    /// it is made to end; `None` when the master is gone and had set no time for which the worker may outlive it.
    pub async fn requested(&mut self) -> Option<Duration> {
        // An error means that the Incoming was dropped: no connection will come any more either.
        let deadline = self.deadline.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
        deadline.and_then(|Deadline(at)| at).map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Resolves when the time is over that the worker has to finish. The master may shorten it after
    /// [`Drain::requested`] has resolved (an operator presses Ctrl-C during a reload).
    pub async fn expired(&mut self) {
        while let Ok(Some(Deadline(at))) = self.deadline.wait_for(Option::is_some).await.map(|deadline| *deadline) {
            self.deadline.mark_unchanged();
            tokio::select! {
                Ok(()) = self.deadline.changed() => {}
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => return,
                else => break,
            }
        }
        std::future::pending().await
    }

    /// As [`Drain::requested`], for `axum::serve(..).with_graceful_shutdown(..)`.
    pub async fn requested_only(mut self) {
        self.requested().await;
    }

    /// Resolves when the worker is to linger. Yields how long it may: then it is asked to finish at the latest. `None`
    /// when that cannot come any more, the [`super::Incoming`] having been dropped.
    pub async fn lingering(&mut self) -> Option<Duration> {
        let linger = self.linger.wait_for(Option::is_some).await.ok().and_then(|linger| *linger);
        linger.map(|linger| linger.until.saturating_duration_since(Instant::now()))
    }

    #[cfg(feature = "tags")]
    pub(super) fn lingers(&self) -> Option<Linger> {
        *self.linger.borrow()
    }

    /// How many connections are open.
    pub(super) fn open_connections(&self) -> usize {
        *self.open.borrow()
    }

    /// Whether a session was ever counted.
    pub(super) fn counts_sessions(&self) -> bool {
        self.counted.load(Ordering::Relaxed)
    }

    /// How many sessions are counted now.
    pub(super) fn sessions(&self) -> usize {
        *self.sessions.borrow()
    }

    /// Counts a session that has begun, until what this returns is dropped.
    pub fn session(&self) -> SessionGuard {
        self.counted.store(true, Ordering::Relaxed);
        SessionGuard(Arc::new(CountGuard::one_of(&self.sessions)))
    }

    /// Resolves when every connection that was yielded as a [`super::Stream`] has been dropped, upgraded ones
    /// (WebSockets) too.
    ///
    /// Only the program ends them: what it keeps open, or a client that does not close, holds this up. Put a limit
    /// around it; `examples/socketio.rs` shows one.
    pub async fn finished(mut self) {
        // An error means that the Incoming and all streams were dropped.
        self.open.wait_for(|open| *open == 0).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock stands still but for what is waited for, so an hour is long enough for anything and takes no time.
    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn no_session_is_left_when_the_last_clone_of_each_is_gone_and_the_time_has_come() {
        let source = Arc::new(DrainSource::new());
        let drain = source.subscribe();
        let (one, two) = (drain.session(), drain.session());
        let also_two = two.clone();
        let (waiting, at) = (Arc::clone(&source), Instant::now() + 3 * HOUR);
        let idle = tokio::spawn(async move { waiting.no_session_from(at).await });
        drop((one, two));
        tokio::time::sleep(HOUR).await;
        drop(also_two);
        tokio::time::sleep(HOUR).await;
        assert!(!idle.is_finished(), "too early");
        let three = drain.clone().session();
        tokio::time::sleep(2 * HOUR).await;
        assert!(!idle.is_finished(), "one began in the meantime");
        drop(three);
        idle.await.expect("task");
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_comes_with_its_time_and_is_no_request_to_finish() {
        let source = DrainSource::new();
        let mut drain = source.subscribe();
        source.linger(HOUR);
        assert_eq!(drain.lingering().await, Some(HOUR));
        tokio::time::timeout(HOUR / 2, drain.requested()).await.expect_err("not yet");
        assert_eq!(drain.lingering().await, Some(HOUR / 2));
        source.request(Some(HOUR));
        assert_eq!(drain.requested().await, Some(HOUR));
        let mut never = DrainSource::new().subscribe();
        assert_eq!(never.lingering().await, None);
    }
}
