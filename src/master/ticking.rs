//! What the master does because time has passed.

use std::time::Instant;

use super::arrivals::connection;
use super::error::Context;
use super::{Master, MasterError, Phase};
use crate::connection::RejectReason;
use crate::pool::SlotState;
use crate::sys::resident;

impl Master {
    /// Whether something happens without an event.
    pub(super) fn depends_on_time(&self) -> bool {
        self.service.depends_on_time()
            || self.peeking.len() > 0
            || self.gate.depends_on_time()
            || self.over_rate
            || self.doors.is_paused()
            || self.reap_again
            || !self.supervisor.crew.remains.is_empty()
            || self.awaits_closing
            || self.stop.is_some()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self) -> Result<(), MasterError> {
        let now = Instant::now();
        if self.doors.is_paused() {
            let dispatch = &mut self.service.dispatch;
            let resumed = self.doors.resume(now, &self.poller, |arrival| {
                let connection = connection(dispatch, arrival, now);
                dispatch.ledger.accept();
                dispatch.ledger.refuse(connection, RejectReason::NoDescriptor);
            });
            resumed.context("accepting connections")?;
        }
        self.look_after_orphans(now);
        self.release_from_gate(now);
        self.expire_peeking(now);
        self.service.tick(now);
        self.perform()?;
        self.look_for_finished(now);
        self.keep_budget()?;
        self.stop_when_flushed(now)
    }

    /// Does what every few seconds is enough for.
    pub(super) fn look_around(&mut self, now: Instant) {
        self.look_for_alarms(now);
        self.settle();
    }

    /// Once the start or a reload is over, forgets the code that it took. In a thread: it reads `/proc`.
    fn settle(&mut self) {
        let (pool, mut slots) = (&self.service.pool, self.service.dispatch.slots());
        let is_busy = self.phase != Phase::Serving || pool.is_reloading();
        if self.is_settled || is_busy || slots.any(|slot| pool.state(slot) == SlotState::Starting) {
            return;
        }
        self.is_settled = true;
        tokio::task::spawn_blocking(|| {
            if let Err(error) = resident::forget_unused_code() {
                tracing::debug!(%error, "the code that the start took stays in memory");
            }
        });
    }
}
