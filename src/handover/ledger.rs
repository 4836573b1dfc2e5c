//! What became of the connections. `accepted = delivered + refused + in flight` holds at every moment.
//!
//! The outcome of each one is logged under a target of its own (`--log-level info,haft::ledger=trace`), so that it can
//! be compared with what clients have seen.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::trace::{DeliveryOutcome, Trace};
use crate::connection::{ClientConnection, RejectReason};
use crate::histogram::Histogram;
use crate::ids::WorkerId;
use crate::peek::SourceKind;
use crate::route::Slot;
use crate::sys::closing;

/// The target of the log's lines about single connections.
const TARGET: &str = "haft::ledger";

/// What decided which worker a connection goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RouteReason {
    /// The client's address.
    Address,
    /// The session that it named.
    Session,
    /// The session that it named, whose worker is gone: no worker knows it.
    LostSession,
    /// It opens a session: the worker with the fewest.
    RecentSessions,
    /// The worker with the least on its way.
    Load,
    /// A parameter of the query.
    Query,
    /// A cookie.
    Cookie,
    /// A header.
    Header,
    /// A segment of the path.
    Path,
    /// It is haft's own, to see whether the worker answers.
    HealthCheck,
}

impl RouteReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Address,
        Self::Session,
        Self::LostSession,
        Self::RecentSessions,
        Self::Load,
        Self::Query,
        Self::Cookie,
        Self::Header,
        Self::Path,
        Self::HealthCheck,
    ];

    /// A value that stands there.
    pub fn by_value(kind: SourceKind) -> Self {
        match kind {
            SourceKind::Query => Self::Query,
            SourceKind::Cookie => Self::Cookie,
            SourceKind::Header => Self::Header,
            SourceKind::Path => Self::Path,
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Session => "session",
            Self::LostSession => "lost_session",
            Self::RecentSessions => "opening",
            Self::Load => "load",
            Self::Query => SourceKind::Query.word(),
            Self::Cookie => SourceKind::Cookie.word(),
            Self::Header => SourceKind::Header.word(),
            Self::Path => SourceKind::Path.word(),
            Self::HealthCheck => "health_check",
        }
    }
}

/// What became of the connections of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotBook {
    /// Connections that were assigned to it, each as often as it came from elsewhere.
    pub assigned: u64,
    /// Of these, those that its workers have taken.
    pub delivered: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those that were assigned to another slot since.
    pub moved: u64,
}

/// The counters of the master. Only its functions settle a connection.
#[derive(Debug)]
pub struct Ledger {
    accepted: u64,
    delivered: Vec<u64>,
    /// Of each slot: what was assigned to it, and of that what was refused, and what was assigned to another one since.
    assigned: Vec<u64>,
    refused_of: Vec<u64>,
    moved: Vec<u64>,
    refused: [u64; RejectReason::ALL.len()],
    hand_over: Histogram,
    /// Our copies of what was delivered.
    closing: Vec<OwnedFd>,
    /// What decided where connections went, in the order of [`RouteReason::ALL`].
    pub routed: [u64; RouteReason::ALL.len()],
    /// Sent again after their worker died without having received them.
    pub redelivered_unread: u64,
    /// Sent again after their worker died having received but not acknowledged them.
    pub redelivered_unacknowledged: u64,
    /// Given back by a worker that could not take them.
    pub returned: u64,
    /// Taken out of the accept queue of a slot that no worker served, for another one.
    pub rescued: u64,
    /// Times that a worker was found hung.
    pub hung: u64,
    /// Workers killed because they hung.
    pub hang_kills: u64,
    /// Connections that went away before they were accepted.
    pub aborted: u64,
    /// Times that accept found no descriptor left.
    pub exhausted: u64,
    /// The followers of connections.
    pub trace: Trace,
}

impl Ledger {
    /// A ledger for so many slots.
    pub fn new(slots: usize) -> Self {
        Self {
            accepted: 0,
            delivered: vec![0; slots],
            assigned: vec![0; slots],
            refused_of: vec![0; slots],
            moved: vec![0; slots],
            refused: [0; RejectReason::ALL.len()],
            hand_over: Histogram::new(),
            closing: Vec::new(),
            routed: [0; RouteReason::ALL.len()],
            redelivered_unread: 0,
            redelivered_unacknowledged: 0,
            returned: 0,
            rescued: 0,
            hung: 0,
            hang_kills: 0,
            aborted: 0,
            exhausted: 0,
            trace: Trace::default(),
        }
    }

    /// There are so many slots, or were.
    pub fn resize(&mut self, slots: usize) {
        let ever = slots.max(self.delivered.len());
        for counts in [&mut self.delivered, &mut self.assigned, &mut self.refused_of, &mut self.moved] {
            counts.resize(ever, 0);
        }
    }

    /// A connection came.
    pub fn accept(&mut self) {
        self.accepted += 1;
    }

    /// It waits for this slot's worker now.
    pub fn assign(&mut self, connection: &mut ClientConnection, slot: Slot) {
        let before = connection.assigned.replace(slot);
        if before == Some(slot) {
            return;
        }
        self.assigned[slot.index()] += 1;
        if let Some(before) = before {
            self.moved[before.index()] += 1;
        }
    }

    /// Its worker has taken it.
    pub fn deliver(&mut self, connection: ClientConnection, slot: Slot, worker: WorkerId, now: Instant) {
        self.delivered[slot.index()] += 1;
        let client = &connection.client;
        tracing::trace!(target: TARGET, %client, %slot, worker = worker.0, "delivered a connection");
        let took = now.saturating_duration_since(connection.accepted);
        self.hand_over.observe(took);
        if self.trace.is_on() {
            self.trace.publish(&connection, took, DeliveryOutcome::Delivered(worker));
        }
        self.closing.extend(connection.delivered());
    }

    /// Closes our copies of what was delivered. To be called once the messages of workers have been handled: until then
    /// their clients may not see the end of a connection that was closed. All at once, since what came together has
    /// neighbouring numbers, though not with one worker.
    pub fn close_delivered(&mut self) {
        closing::close_all(&mut self.closing);
    }

    /// No worker can take it.
    pub fn refuse(&mut self, connection: ClientConnection, refusal: RejectReason) {
        self.refused[refusal as usize] += 1;
        if let Some(slot) = connection.assigned {
            self.refused_of[slot.index()] += 1;
        }
        let client = &connection.client;
        tracing::debug!(target: TARGET, %client, reason = refusal.name(), "refused a connection");
        if self.trace.is_on() {
            self.trace.publish(&connection, connection.accepted.elapsed(), DeliveryOutcome::Refused(refusal));
        }
        match refusal {
            RejectReason::NoDescriptor => connection.refuse_unsent(),
            _ => connection.refuse(),
        }
    }

    /// Connections accepted and neither delivered nor refused, by the books.
    pub fn outstanding(&self) -> u64 {
        self.accepted - self.delivered.iter().sum::<u64>() - self.refused.iter().sum::<u64>()
    }

    /// Connections accepted and connections delivered, added up: how much has happened.
    pub fn events(&self) -> u64 {
        self.accepted + self.delivered.iter().sum::<u64>()
    }

    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Connections delivered, by slot.
    pub fn delivered(&self) -> &[u64] {
        &self.delivered
    }

    /// What became of the connections that were assigned to each slot.
    pub fn by_slot(&self) -> impl Iterator<Item = SlotBook> {
        let counts = self.assigned.iter().zip(&self.delivered).zip(&self.refused_of).zip(&self.moved);
        counts.map(|(((assigned, delivered), refused), moved)| SlotBook {
            assigned: *assigned,
            delivered: *delivered,
            refused: *refused,
            moved: *moved,
        })
    }

    /// Connections refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (RejectReason, u64)> {
        RejectReason::ALL.into_iter().zip(self.refused)
    }

    /// Time from accept to acknowledgement.
    pub fn hand_over(&self) -> &Histogram {
        &self.hand_over
    }
}
