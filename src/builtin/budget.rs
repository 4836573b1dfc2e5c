//! How many bytes clients can make this worker hold: for each connection, and in all.
//!
//! Counted is what waits for a client to read it, what a client has begun to send, and what was taken from the engine
//! for a poll that has not come. What exceeds a bound is closed, counted by its reason, and logged from time to time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haft_worker::scoreboard::{Field, Scoreboard};
use tokio::time::Instant;

use super::wire::lock;

/// What one connection may hold, in messages of the greatest size.
const MESSAGES_EACH: usize = 4;

/// What all connections of a worker may hold together, in messages of the greatest size.
const MESSAGES_IN_ALL: usize = 256;

/// A limit of messages below this is for small messages: the bounds are as for messages of this size, in bytes.
const LEAST_MESSAGE: usize = 128 * 1024;

/// The part of a connection's share that is left to the libraries: what the HTTP library has read and not understood yet,
/// what it is about to write, an encoder's state, and what the WebSocket library reads at once.
const FOR_LIBRARIES: usize = 192 * 1024;

/// At most one line in this time is written about what was closed.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Why something was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// One connection or session held too much.
    Connection,
    /// The worker holds too much, and this connection wanted more.
    Worker,
    /// A client has read nothing for as long as a whole heartbeat may take.
    Stalled,
}

impl Excess {
    fn reason(self) -> &'static str {
        match self {
            Self::Connection => "it held more than one connection may",
            Self::Worker => "all connections together held more than the worker may",
            Self::Stalled => "it read nothing for the time of a heartbeat",
        }
    }

    fn field(self) -> Field {
        match self {
            Self::Connection => Field::ClosedMemoryConnection,
            Self::Worker => Field::ClosedMemoryWorker,
            Self::Stalled => Field::ClosedMemoryStalled,
        }
    }
}

/// The bounds of one worker, and what it holds.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    /// Bytes for one connection, without [`FOR_LIBRARIES`].
    pub(super) each: usize,
    share: usize,
    all: usize,
    held: AtomicUsize,
    /// Where it is counted what was closed.
    scoreboard: Scoreboard,
    logged: Mutex<Option<Instant>>,
}

impl MemoryBudget {
    /// Bounds for messages of up to `max_payload` bytes.
    pub(super) fn new(max_payload: usize, scoreboard: Scoreboard) -> Arc<Self> {
        let message = max_payload.max(LEAST_MESSAGE);
        Arc::new(Self {
            each: message.saturating_mul(MESSAGES_EACH) - FOR_LIBRARIES,
            share: message.saturating_mul(MESSAGES_EACH),
            all: message.saturating_mul(MESSAGES_IN_ALL),
            held: AtomicUsize::new(0),
            scoreboard,
            logged: Mutex::default(),
        })
    }

    /// The share of one connection, with nothing in it.
    pub(super) fn hold(self: &Arc<Self>) -> HeldBytes {
        HeldBytes { budget: Arc::clone(self), bytes: 0 }
    }

    /// Bytes that are held now.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many were closed for this reason.
    pub(super) fn closed(&self, excess: Excess) -> u64 {
        self.scoreboard.get(excess.field()).unwrap_or(0)
    }

    /// Counts one that is closed, and logs it unless one was logged recently.
    pub(super) fn close(&self, excess: Excess) {
        self.scoreboard.add(excess.field(), 1);
        let mut logged = lock(&self.logged);
        let now = Instant::now();
        if logged.is_some_and(|logged| now < logged + TELL_EVERY) {
            return;
        }
        *logged = Some(now);
        drop(logged);
        tracing::warn!(
            reason = excess.reason(),
            over_their_bound = self.closed(Excess::Connection),
            over_the_workers = self.closed(Excess::Worker),
            stalled = self.closed(Excess::Stalled),
            "closed a connection for the memory it held (the bounds are {} and {} bytes, {MESSAGES_EACH} and \
             {MESSAGES_IN_ALL} times --max-payload)",
            self.share,
            self.all,
        );
    }
}

/// The bytes that one connection holds; they are given back when it is dropped.
#[derive(Debug)]
pub(super) struct HeldBytes {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl HeldBytes {
    /// Notes that the connection now holds `bytes`.
    ///
    /// # Errors
    /// That is too much. It is not counted as closed yet, and what it held before is noted still.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Excess> {
        let held = &self.budget.held;
        if bytes <= self.bytes {
            held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return Ok(());
        }
        if bytes > self.budget.each {
            return Err(Excess::Connection);
        }
        let more = bytes - self.bytes;
        if held.fetch_add(more, Ordering::Relaxed) + more > self.budget.all {
            held.fetch_sub(more, Ordering::Relaxed);
            return Err(Excess::Worker);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// The budget that this share is part of.
    pub(super) fn budget(&self) -> &Arc<MemoryBudget> {
        &self.budget
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 200_000;

    #[test]
    fn one_may_hold_four_messages_and_all_together_256() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        let mut first = budget.hold();
        assert_eq!(first.set(4 * MESSAGE - FOR_LIBRARIES), Ok(()));
        assert_eq!(first.set(4 * MESSAGE - FOR_LIBRARIES + 1), Err(Excess::Connection));
        let mut others: Vec<_> = (0..252).map(|_| budget.hold()).collect();
        assert!(others.iter_mut().all(|hold| hold.set(MESSAGE).is_ok()));
        let mut rest = budget.hold();
        assert_eq!(rest.set(FOR_LIBRARIES), Ok(()));
        let mut last = budget.hold();
        assert_eq!(last.set(1), Err(Excess::Worker));
        assert_eq!(first.set(1), Ok(()), "less is always allowed");
        assert_eq!(last.set(1), Ok(()));
        drop((first, others, rest, last));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn small_messages_do_not_make_small_bounds() {
        let mut hold = MemoryBudget::new(1, Scoreboard::default()).hold();
        assert_eq!(hold.set(4 * LEAST_MESSAGE - FOR_LIBRARIES), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_closed_is_counted_and_seldom_logged() {
        let budget = MemoryBudget::new(MESSAGE, Scoreboard::default());
        for _ in 0..1000 {
            budget.close(Excess::Connection);
        }
        budget.close(Excess::Stalled);
        assert_eq!([Excess::Connection, Excess::Worker, Excess::Stalled].map(|why| budget.closed(why)), [1000, 0, 1]);
    }
}
