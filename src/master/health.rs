//! Asks workers whether they answer, also those that no client comes to.
//!
//! The connection is made over the loopback beside the loop, and handed to the worker as any other. What follows from the
//! answer is the service's to decide.

mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::probe::{Verdict, WorkersEnd};
use super::intake::Intake;
use super::queues::KernelQueues;
use super::stopping::Phase;
use crate::addr::EndAddr;
use crate::config::{Config, HealthCheck};
use crate::connection::ClientConnection;
use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::listen::kernel::Kernel;
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

    /// Asks the workers, if it is time to. Must be called within a `LocalSet`.
    pub(super) fn ask_workers(&mut self, service: &Service, config: &Config, now: Instant) {
        let Some(check) = config.care.health.clone() else { return };
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        self.due = Some(now + check.interval);
        // One that was not asked by its slot's next worker would be asked in vain.
        let timeout = check.timeout.min(config.hold_timeout.max(Duration::from_secs(1)));
        let check = HealthCheck { timeout, ..check };
        for (slot, worker) in service.pool.to_ask().collect::<Vec<_>>() {
            // What was handed over and not taken would add up.
            let (dispatch, pool) = (&service.dispatch, &service.pool);
            let waits = dispatch
                .link(worker)
                .is_none_or(|link| !link.own.is_empty() || (pool.is_unhealthy(worker) && link.in_flight() > 0));
            if !waits && self.asked.insert(worker) {
                self.ask(slot, worker, check.clone());
            }
        }
    }

    fn ask(&self, slot: Slot, worker: WorkerId, check: HealthCheck) {
        let findings = self.findings.clone();
        tokio::task::spawn_local(async move {
            // The receiver lives as long as the master.
            let hand_over = |end| drop(findings.send(Finding::Connected(worker, end)));
            let verdict = probe::check(check.path.as_str(), check.timeout, hand_over).await;
            findings.send(Finding::Over(slot, worker, verdict)).ok();
        });
    }

    /// Takes in what a check has come to.
    pub(super) fn found(&mut self, finding: Finding, service: &mut Service, ways: Ways<'_>, phase: Phase) {
        let now = Instant::now();
        match finding {
            Finding::Connected(worker, end) => hand_over(worker, end, service, ways, now),
            Finding::Over(slot, worker, verdict) => {
                self.asked.remove(&worker);
                let checks = self.checks.entry(slot).or_default();
                match &verdict {
                    Verdict::Healthy => checks.passed += 1,
                    Verdict::Unhealthy(_) => checks.failed += 1,
                    Verdict::Unknown(_) => {}
                }
                self.judge(worker, &verdict, (phase, service), now);
            }
        }
    }

    fn judge(&mut self, worker: WorkerId, verdict: &Verdict, (phase, service): (Phase, &mut Service), now: Instant) {
        let is_broken = matches!(verdict, Verdict::Unknown(_));
        let was_broken = std::mem::replace(&mut self.is_broken, is_broken);
        match verdict {
            _ if phase != Phase::Serving => {}
            Verdict::Healthy => service.note_healthy(worker, now),
            Verdict::Unhealthy(why) => service.note_unhealthy(worker, why, now),
            Verdict::Unknown(why) if !was_broken => tracing::warn!("a health check is inconclusive: {why}"),
            Verdict::Unknown(_) => {}
        }
    }

    /// Forgets what depends on the configuration before.
    pub(super) fn reconfigure(&mut self, service: &mut Service, config: &Config, now: Instant) {
        self.due = None;
        if config.care.health.is_none() {
            // No check would ever take it back.
            for (_, worker) in service.pool.to_ask().collect::<Vec<_>>() {
                service.note_healthy(worker, now);
            }
        }
    }
}

/// The ways by which connections come to workers.
type Ways<'a> = (&'a Intake, &'a KernelQueues);

/// Gives the worker a connection of ours, at a server that it has.
fn hand_over(
    worker: WorkerId,
    (descriptor, client, local): WorkersEnd,
    service: &mut Service,
    (intake, queues): Ways<'_>,
    now: Instant,
) {
    let groups = queues.kernel().into_iter().flat_map(Kernel::places).map(|(place, _)| place.number);
    let mut listeners = intake.doors.listeners().map(|(number, _)| number).chain(groups);
    let Some(listener) = listeners.find(|number| service.dispatch.has_server(worker, *number)) else { return };
    let (client, local) = (EndAddr::from_ip(client), EndAddr::from_ip(local));
    service.dispatch.admit_check(worker, |dispatch| {
        ClientConnection::new(descriptor, listener, (client, local), dispatch.key(&client), now)
    });
    service.send(now);
}
