//! Old workers that have nothing left to finish, and do not end by themselves.
//!
//! A Node program whose servers are closed lives on as long as it has a timer or a connection of its own (to a
//! database, say), long after its last client has gone. It does not report that, so haft asks the kernel which
//! connections it holds; that takes a while, and is done beside the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Master, MasterError};
use crate::addr::ListenAddr;
use crate::config::DrainSignal;
use crate::ids::WorkerId;
use crate::pool::Event;
use crate::sys::process::connections_held;

/// How often the kernel is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// One answer alone may be wrong: the kernel's table is not read in one instant.
const ENOUGH_ANSWERS: u32 = 2;

/// Most connections that are counted of one worker.
pub(super) const MAX_COUNTED: usize = 1000;

/// How many connections each of those holds that were asked about, up to [`MAX_COUNTED`]; `None` if it cannot be known.
pub(super) type HeldCounts = Vec<(WorkerId, Option<usize>)>;

/// The questions to the kernel.
#[derive(Debug)]
pub struct Finished {
    answers: mpsc::UnboundedSender<HeldCounts>,
    /// When the kernel was asked last; nothing while it has not answered.
    asked: Option<Instant>,
    /// How often in a row each worker was found without a connection.
    found: BTreeMap<WorkerId, u32>,
    /// How many connections each worker held in the last answer.
    held: BTreeMap<WorkerId, usize>,
    /// All ports there ever were for clients.
    ports: BTreeSet<u16>,
    /// There may be clients that cannot be counted: those of a Unix socket.
    uncountable: bool,
}

impl Finished {
    /// No worker yet; answers come out of the receiver.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<HeldCounts>) {
        let (answers, receiver) = mpsc::unbounded_channel();
        let asked = Some(Instant::now());
        let (found, held, ports) = Default::default();
        (Self { answers, asked, found, held, ports, uncountable: false }, receiver)
    }

    /// How many connections the worker held when the kernel was last asked, up to [`MAX_COUNTED`].
    pub(super) fn held_by(&self, worker: WorkerId) -> Option<usize> {
        self.held.get(&worker).copied()
    }

    /// Clients may connect here from now on, which is logged.
    pub fn opened(&mut self, listener: &ListenAddr) {
        tracing::info!("listening on {}", listener.url());
        match listener {
            ListenAddr::DualStack(port) => drop(self.ports.insert(*port)),
            ListenAddr::Ip(addr) => drop(self.ports.insert(addr.port())),
            ListenAddr::Unix(_) => self.uncountable = true,
        }
    }
}

impl Master {
    /// Asks the kernel about old Node workers that have left, if it is time to. Must be called within a `LocalSet`.
    pub(super) fn look_for_finished(&mut self, now: Instant) {
        if self.service.dispatch.node.is_none() || self.finished.asked.is_none_or(|asked| now < asked + ASK_EVERY) {
            return;
        }
        let old = self.service.dispatch.links().filter(|link| link.has_ended());
        let old = old.filter(|link| self.service.pool.is_leaving(link.worker));
        let asked: Vec<(WorkerId, u32)> =
            old.filter_map(|link| Some((link.worker, self.supervisor.crew.pid(link.worker)?))).collect();
        if asked.is_empty() || self.finished.uncountable {
            return;
        }
        self.finished.asked = None;
        let (ports, answers) = (self.finished.ports.clone(), self.finished.answers.clone());
        tokio::task::spawn_local(async move {
            let look = move || {
                let held = |pid| connections_held(pid, MAX_COUNTED, |at| ports.contains(&at.port())).ok();
                asked.into_iter().map(|(worker, pid)| (worker, held(pid))).collect::<HeldCounts>()
            };
            // The receiver lives as long as the master.
            answers.send(tokio::task::spawn_blocking(look).await.unwrap_or_default()).ok();
        });
    }

    /// Takes in the kernel's answer.
    pub(super) fn found_finished(&mut self, answer: HeldCounts) -> Result<(), MasterError> {
        self.finished.asked = Some(Instant::now());
        let before = std::mem::take(&mut self.finished.found);
        self.finished.held = answer.iter().filter_map(|(worker, held)| Some((*worker, (*held)?))).collect();
        for (worker, held) in answer {
            let times = if held == Some(0) { before.get(&worker).unwrap_or(&0) + 1 } else { 0 };
            if times >= ENOUGH_ANSWERS {
                self.has_finished(worker)?;
            }
            self.finished.found.insert(worker, times);
        }
        Ok(())
    }

    /// A worker has no client left and does not end. A program that learns by a signal that it is to finish gets that,
    /// once, and then has its time for what it does at it.
    fn has_finished(&mut self, worker: WorkerId) -> Result<(), MasterError> {
        let (choice, interrupted) = (self.service.drain_signal, self.service.pool.is_interrupted());
        // A program that has handled it once may have no handler any more, and works on.
        if choice == DrainSignal::None || self.service.pool.was_signalled(worker) {
            return Ok(());
        }
        let link = self.service.dispatch.link(worker);
        if link.and_then(|link| link.drain_signal(choice, interrupted)).is_some() {
            self.signal_to_finish(worker, Instant::now());
            return Ok(());
        }
        tracing::debug!(worker = worker.0, "the worker has no client left and does not end: SIGTERM");
        self.observe(Event::Finished(worker))
    }
}
