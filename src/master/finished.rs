//! Old workers that have nothing left to finish, and do not end by themselves.
//!
//! A Node program whose servers are closed lives on as long as it has a timer or a connection of its own (to a
//! database, say), long after its last client has gone. It does not report that, so haft asks the kernel which
//! connections it holds; that takes a while, and is done beside the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::addr::ListenAddr;
use crate::config::DrainSignal;
use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::process::crew::Processes;
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

    /// Asks the kernel about old Node workers that have left, if it is time to. Must be called within a `LocalSet`.
    pub(super) fn look(&mut self, service: &Service, crew: &Processes, now: Instant) {
        if service.dispatch.node.is_none() || self.asked.is_none_or(|asked| now < asked + ASK_EVERY) {
            return;
        }
        let old = service.dispatch.links().filter(|link| link.has_ended());
        let old = old.filter(|link| service.pool.is_leaving(link.worker));
        let asked: Vec<(WorkerId, u32)> = old.filter_map(|link| Some((link.worker, crew.pid(link.worker)?))).collect();
        if asked.is_empty() || self.uncountable {
            return;
        }
        self.asked = None;
        let (ports, answers) = (self.ports.clone(), self.answers.clone());
        tokio::task::spawn_local(async move {
            let look = move || {
                let held = |pid| connections_held(pid, MAX_COUNTED, |at| ports.contains(&at.port())).ok();
                asked.into_iter().map(|(worker, pid)| (worker, held(pid))).collect::<HeldCounts>()
            };
            // The receiver lives as long as the master.
            answers.send(tokio::task::spawn_blocking(look).await.unwrap_or_default()).ok();
        });
    }

    /// Takes in the kernel's answer. Yields the workers that have no client left and do not end, and are to be asked to.
    pub(super) fn found(&mut self, answer: HeldCounts, service: &Service) -> Vec<WorkerId> {
        self.asked = Some(Instant::now());
        let before = std::mem::take(&mut self.found);
        self.held = answer.iter().filter_map(|(worker, held)| Some((*worker, (*held)?))).collect();
        for (worker, held) in answer {
            let times = if held == Some(0) { before.get(&worker).unwrap_or(&0) + 1 } else { 0 };
            self.found.insert(worker, times);
        }
        let enough = self.found.iter().filter(|(_, times)| **times >= ENOUGH_ANSWERS).map(|(worker, _)| *worker);
        // A program that has handled a signal once may have no handler any more, and works on.
        let may_be_asked =
            |worker: &WorkerId| service.drain_signal != DrainSignal::None && !service.pool.was_signalled(*worker);
        enough.filter(may_be_asked).collect()
    }
}
