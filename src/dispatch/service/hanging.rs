//! Workers that acknowledge nothing although they should, and those that do so again.

use std::time::{Duration, Instant};

use super::Service;
use crate::ids::WorkerId;
use crate::pool::{Availability, Event};

impl Service {
    pub(super) fn look_for_hung(&mut self, now: Instant) {
        let Some(most) = self.hang_timeout else { return };
        let suspects = self.dispatch.links().filter(|link| link.silence(now) >= most).map(|link| link.worker);
        let suspects = suspects.filter(|worker| !self.pool.is_silent(*worker)).collect::<Vec<_>>();
        for worker in suspects {
            // It may have spoken, and we have not listened yet.
            self.read_channel(worker, now);
            let Some(link) = self.dispatch.link(worker).filter(|link| link.silence(now) >= most) else { continue };
            let (slot, in_flight) = (link.slot, link.in_flight());
            if self.pool.standing(slot) != Availability::Serving(worker) {
                // It goes anyway, or is left alone.
                continue;
            }
            let kill = self.pool.kills_hung();
            self.dispatch.ledger.hung += 1;
            self.dispatch.ledger.hang_kills += u64::from(kill);
            // Where the kernel assigns it was asked to say something, since clients wait for it.
            let what = if in_flight > 0 { "acknowledged nothing" } else { "not answered" };
            tracing::error!(
                %slot, worker = worker.0, in_flight,
                "the worker has {what} for {}: it hangs; {}",
                humantime::format_duration(most),
                if kill { "it is killed and replaced" } else { "new clients go to other slots" }
            );
            self.observe(Event::Hung(worker), now);
        }
    }

    /// The worker does not answer the health check, or with this status.
    pub fn note_unhealthy(&mut self, worker: WorkerId, why: &str, now: Instant) {
        let Some(slot) = self.dispatch.link(worker).map(|link| link.slot) else { return };
        if self.pool.is_unhealthy(worker) || !self.pool.to_ask().any(|(_, id)| id == worker) {
            return;
        }
        let kill = self.pool.kills_hung();
        self.dispatch.ledger.hung += 1;
        self.dispatch.ledger.hang_kills += u64::from(kill);
        tracing::error!(
            %slot, worker = worker.0,
            "the worker fails its health check: {why}; {}",
            if kill { "it is killed and replaced" } else { "new clients go to other slots, if there are any that pass" }
        );
        self.observe(Event::Unhealthy(worker), now);
    }

    /// The worker answers the health check.
    pub fn note_healthy(&mut self, worker: WorkerId, now: Instant) {
        let Some(slot) = self.dispatch.link(worker).map(|link| link.slot) else { return };
        if self.pool.is_unhealthy(worker) {
            tracing::info!(%slot, worker = worker.0, "the worker passes its health check again");
            self.observe(Event::Healthy(worker), now);
        }
    }

    pub(super) fn look_for_recovery(&mut self, worker: WorkerId, now: Instant) {
        if !self.pool.is_silent(worker) {
            return;
        }
        // It may have been found hung by another configuration.
        let most = self.hang_timeout.unwrap_or(Duration::MAX);
        let Some(link) = self.dispatch.link(worker).filter(|link| link.silence(now) < most) else { return };
        tracing::info!(slot = %link.slot, worker = worker.0, "the worker acknowledges again");
        self.observe(Event::Recovered(worker), now);
    }
}
