//! The end of a master that was told to stop: closing the doors behind those who came, handing them over, and then
//! letting the workers finish.

use std::time::Instant;

use super::error::While;
use super::{Master, MasterError, Phase};
use crate::lifecycle::pool::Event;

/// Most turns at each listener before it is closed for good: past what a queue holds by default (4096), those who still
/// come are too many to be waited for.
const MOST_LAST_TURNS: u32 = 128;

impl Master {
    /// The operator wants an end: closes the doors behind those who came; asked twice, ends at once.
    pub(super) fn stop(&mut self, why: &str) -> Result<(), MasterError> {
        if matches!(self.phase, Phase::Flushing(_) | Phase::Stopping) {
            tracing::warn!("{why} again: ending now");
            self.phase = Phase::Stopping;
            self.let_go_of_queues();
            self.supervisor.crew.remains.kill();
            return self.observe(Event::StopNow);
        }
        let within = humantime::format_duration(self.changes.config.drain_timeout);
        tracing::info!("{why}: accepting stops, the workers finish within {within} (once more: ends at once)");
        if self.phase == Phase::Serving && !self.doors.is_paused() && !self.over_budget {
            // Whoever waits in the kernel's queue would be reset when the listener is closed.
            let tokens: Vec<u64> = self.doors.listeners().map(|(number, _)| number.into()).collect();
            tokens.into_iter().try_for_each(|token| self.accept_the_last(token))?;
        }
        self.cut_reload_short();
        self.phase = Phase::Flushing(Instant::now() + self.changes.config.hold_timeout);
        self.doors.close(&self.poller).doing("closing the listeners")?;
        self.end_peeking(Instant::now());
        self.close_queues()?;
        self.service.send(Instant::now());
        self.perform()?;
        self.stop_when_flushed(Instant::now())
    }

    /// Takes all that wait at a listener, as many turns as that takes.
    fn accept_the_last(&mut self, token: u64) -> Result<(), MasterError> {
        for _ in 0..MOST_LAST_TURNS {
            let before = self.service.dispatch.ledger.accepted();
            self.accept(token)?;
            if self.service.dispatch.ledger.accepted() == before {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn stop_when_flushed(&mut self, now: Instant) -> Result<(), MasterError> {
        match self.phase {
            Phase::Flushing(until)
                if (self.service.dispatch.held() == 0 && self.queues_are_empty()) || now >= until =>
            {
                self.phase = Phase::Stopping;
                self.let_go_of_queues();
                self.observe(Event::Stop)
            }
            _ => Ok(()),
        }
    }
}
