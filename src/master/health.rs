//! Asks workers whether they answer, also those that no client comes to.
//!
//! The connection is made over the loopback beside the loop, and handed to the worker as any other. What follows from the
//! answer is the service's to decide.

mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::probe::{Verdict, WorkersEnd};
use super::{Master, MasterError, Phase};
use crate::addr::EndAddr;
use crate::config::HealthCheck;
use crate::connection::ClientConnection;
use crate::ids::WorkerId;
use crate::route::Slot;

/// What a check has come to.
#[derive(Debug)]
pub(super) enum Finding {
    /// There is a connection for the worker.
    Connected(WorkerId, WorkersEnd),
    /// It is over.
    Over(Slot, WorkerId, Verdict),
}

/// How often the workers of a slot have answered, and have not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Checks {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

/// The health checks.
#[derive(Debug)]
pub(super) struct Health {
    findings: mpsc::UnboundedSender<Finding>,
    due: Option<Instant>,
    /// Workers that have not answered the last one yet.
    asked: BTreeSet<WorkerId>,
    /// What came of those that are over.
    pub(super) checks: BTreeMap<Slot, Checks>,
    /// It was logged that checks cannot be made.
    is_broken: bool,
}

impl Health {
    /// No check yet; what comes of them comes out of the receiver.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Finding>) {
        let (findings, receiver) = mpsc::unbounded_channel();
        let (asked, checks) = Default::default();
        (Self { findings, due: None, asked, checks, is_broken: false }, receiver)
    }
}

impl Master {
    /// Asks the workers, if it is time to. Must be called within a `LocalSet`.
    pub(super) fn ask_workers(&mut self, now: Instant) {
        let Some(check) = self.changes.config.care.health.clone() else { return };
        if self.phase != Phase::Serving || self.care.health.due.is_some_and(|due| now < due) {
            return;
        }
        self.care.health.due = Some(now + check.interval);
        // One that was not asked by its slot's next worker would be asked in vain.
        let timeout = check.timeout.min(self.changes.config.hold_timeout.max(Duration::from_secs(1)));
        let check = HealthCheck { timeout, ..check };
        for (slot, worker) in self.service.pool.to_ask().collect::<Vec<_>>() {
            // What was handed over and not taken would add up.
            let (dispatch, pool) = (&mut self.service.dispatch, &self.service.pool);
            let waits = dispatch
                .link(worker)
                .is_none_or(|link| !link.own.is_empty() || (pool.is_unhealthy(worker) && link.in_flight() > 0));
            if !waits && self.care.health.asked.insert(worker) {
                self.ask(slot, worker, check.clone());
            }
        }
    }

    fn ask(&self, slot: Slot, worker: WorkerId, check: HealthCheck) {
        let findings = self.care.health.findings.clone();
        tokio::task::spawn_local(async move {
            // The receiver lives as long as the master.
            let hand_over = |end| drop(findings.send(Finding::Connected(worker, end)));
            let verdict = probe::check(check.path.as_str(), check.timeout, hand_over).await;
            findings.send(Finding::Over(slot, worker, verdict)).ok();
        });
    }

    /// Takes in what a check has come to.
    pub(super) fn found_health(&mut self, finding: Finding) -> Result<(), MasterError> {
        let now = Instant::now();
        match finding {
            Finding::Connected(worker, end) => self.hand_over_check(worker, end, now),
            Finding::Over(slot, worker, verdict) => {
                self.care.health.asked.remove(&worker);
                let checks = self.care.health.checks.entry(slot).or_default();
                match &verdict {
                    Verdict::Healthy => checks.passed += 1,
                    Verdict::Unhealthy(_) => checks.failed += 1,
                    Verdict::Unknown(_) => {}
                }
                self.judge(worker, &verdict, now);
            }
        }
        self.perform()
    }

    fn judge(&mut self, worker: WorkerId, verdict: &Verdict, now: Instant) {
        let is_broken = matches!(verdict, Verdict::Unknown(_));
        let was_broken = std::mem::replace(&mut self.care.health.is_broken, is_broken);
        match verdict {
            _ if self.phase != Phase::Serving => {}
            Verdict::Healthy => self.service.note_healthy(worker, now),
            Verdict::Unhealthy(why) => self.service.note_unhealthy(worker, why, now),
            Verdict::Unknown(why) if !was_broken => tracing::warn!("a health check is inconclusive: {why}"),
            Verdict::Unknown(_) => {}
        }
    }

    /// Gives the worker a connection of ours, at a server that it has.
    fn hand_over_check(&mut self, worker: WorkerId, (descriptor, client, local): WorkersEnd, now: Instant) {
        let groups = self.kernel.iter().flat_map(|kernel| kernel.places()).map(|(place, _)| place.number);
        let mut listeners = self.doors.listeners().map(|(number, _)| number).chain(groups);
        let Some(listener) = listeners.find(|number| self.service.dispatch.has_server(worker, *number)) else { return };
        let (client, local) = (EndAddr::from_ip(client), EndAddr::from_ip(local));
        self.service.dispatch.admit_check(worker, |dispatch| {
            ClientConnection::new(descriptor, listener, (client, local), dispatch.key(&client), now)
        });
        self.service.send(now);
    }

    /// Forgets what depends on the configuration before.
    pub(super) fn health_changed(&mut self, now: Instant) {
        self.care.health.due = None;
        if self.changes.config.care.health.is_none() {
            // No check would ever take it back.
            for (_, worker) in self.service.pool.to_ask().collect::<Vec<_>>() {
                self.service.note_healthy(worker, now);
            }
        }
    }
}
