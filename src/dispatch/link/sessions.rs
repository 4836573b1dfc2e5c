//! The sessions of a worker: whether they can be identified, how many there are, and how it goes on with them once it
//! is replaced.

use std::time::{Duration, Instant};

use super::{DialectLink, Link, LinkError};
use crate::node::link::StartupPhase;
use crate::route::burden;

/// A worker that was replaced, and goes on with the sessions that it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lingering {
    until: Instant,
    /// How long it has to finish after that.
    within: Duration,
}

impl Link {
    /// Whether the worker names its sessions one by one, by messages.
    pub fn names_sessions(&self) -> bool {
        matches!(&self.end, DialectLink::Node(end) if end.reported().names_sessions())
    }

    /// Whether the worker names its sessions, so that they can be found again.
    pub fn reports_sessions(&self) -> bool {
        match &self.end {
            DialectLink::Haft(end) => end.tags(),
            DialectLink::Node(end) => end.reported().reports_sessions(),
            DialectLink::ListenFds(_) => false,
        }
    }

    /// Whether connections of the worker's own sessions may be sent to it, even if it does not fill its slot: then it
    /// can go on with them once it is replaced, and it becomes known when none is left.
    pub fn takes_sessions(&self) -> bool {
        let is_ready = match &self.end {
            DialectLink::Haft(end) => end.is_ready(),
            DialectLink::Node(end) => end.life() == StartupPhase::Ready,
            DialectLink::ListenFds(_) => false,
        };
        is_ready && !self.finishes && !self.ended && self.reports_sessions()
    }

    /// Whether the worker ends its sessions at DRAIN. A program of Node does by haft's preload; without
    /// it, it only takes no more connections then, and its sessions can but be cut off.
    pub fn ends_sessions(&self) -> bool {
        match &self.end {
            DialectLink::Haft(_) => true,
            DialectLink::Node(end) => end.reported().tags(),
            DialectLink::ListenFds(_) => false,
        }
    }

    /// How many sessions the worker reports. In haft's own dialect its connections count instead, which is much the same.
    pub fn reported_sessions(&self) -> u64 {
        match &self.end {
            DialectLink::Haft(end) => u64::from(end.open().unwrap_or(0)) + self.outbox.in_flight() as u64,
            DialectLink::Node(end) => end.reported().sessions(),
            DialectLink::ListenFds(_) => 0,
        }
    }

    /// The estimated number of sessions: those reported, and those sent to it lately, since its reports are late.
    pub fn sessions(&self, now: Instant) -> u64 {
        self.reported_sessions() + self.opening.lately(now)
    }

    /// What a new session is weighed against.
    pub fn burden(&self, now: Instant) -> u64 {
        burden(self.sessions(now), self.reported_load.connections, self.reported_load.weight)
    }

    /// A session is about to be opened there.
    pub fn opening(&mut self, now: Instant) {
        self.opening.note(now);
    }

    /// Sends LINGER: the worker was replaced; see [`crate::dispatch::Dispatch::linger`].
    pub fn linger(&mut self, until: Instant, within: Duration, now: Instant) -> Result<(), LinkError> {
        self.lingers = Some(Lingering { until, within });
        match &mut self.end {
            DialectLink::Haft(end) => self.obstacle = end.linger(until.saturating_duration_since(now))?,
            DialectLink::Node(end) if end.reported().tags() => end.linger(until.saturating_duration_since(now)),
            // The names that it sends show it.
            DialectLink::Node(_) => {}
            // It never can.
            DialectLink::ListenFds(_) => {}
        }
        Ok(())
    }

    /// The worker finishes of its own will.
    pub fn leaves(&mut self) {
        self.finishes = true;
    }

    /// How long the worker has to finish, if it lingers and its time for that is over (`always`: or not). Returns it
    /// once.
    pub fn lingered(&mut self, always: bool, now: Instant) -> Option<Duration> {
        let has_none = self.names_sessions() && self.outbox.in_flight() == 0 && self.sessions(now) == 0;
        let is_over = |lingering: &mut Lingering| always || has_none || now >= lingering.until;
        let Lingering { until, within } = self.lingers.take_if(is_over)?;
        Some(until.saturating_duration_since(now) + within)
    }
}
