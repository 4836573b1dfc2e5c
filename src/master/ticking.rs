//! What the master does because time has passed.

use std::time::Instant;

use super::arrivals::connection;
use super::error::Context;
use super::{Master, MasterError};
use crate::connection::RejectReason;

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
}
