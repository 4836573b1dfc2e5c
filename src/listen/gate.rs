//! The gate: which connections come in at once, which wait for their turn, and which are refused, by the limits for clients.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::offenders::Offenders;

use crate::addr::EndAddr;
use crate::config::{Config, Limits, OverLimit};
use crate::connection::waits::{SourceCounts, Waits};
use crate::connection::{ClientConnection, RejectReason};
use crate::peek::TrustedProxies;
use crate::route::{Buckets, Source, TokenBucket};

/// The part of all connections that may be held that may wait here: with those whose first request is waited for, it stays
/// below where accepting goes on after a pause.
const SHARE: u64 = 16;

/// What becomes of a connection at the gate.
#[derive(Debug)]
pub enum Passage {
    /// It comes in.
    In(ClientConnection),
    /// It waits for its turn.
    Waits,
    /// It is to be refused.
    Refused(ClientConnection, RejectReason),
}

/// The limits, and what waits because of them.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    /// Peers that name their client in a proxy header.
    proxies: TrustedProxies,
    patience: Duration,
    per_client: Option<Buckets>,
    overall: Option<TokenBucket>,
    counts: SourceCounts,
    line: VecDeque<InLine>,
    most: usize,
    began: Instant,
    seed: u64,
    offenders: Offenders,
    /// Connections that have waited here.
    pub delayed: u64,
}

#[derive(Debug)]
struct InLine {
    connection: ClientConnection,
    source: Source,
    due: Instant,
}

impl Gate {
    /// No client has come. `held`: how many connections may be held in all; `seed` is random.
    pub fn new(config: &Config, held: u64, seed: u64, now: Instant) -> Self {
        let mut gate = Self {
            limits: Limits::default(),
            proxies: TrustedProxies::default(),
            patience: config.hold_timeout,
            per_client: None,
            overall: None,
            counts: SourceCounts::default(),
            line: VecDeque::new(),
            most: usize::try_from((held / SHARE).max(1)).unwrap_or(usize::MAX),
            began: now,
            seed,
            offenders: Offenders::new(),
            delayed: 0,
        };
        gate.reconfigure(config);
        gate
    }

    /// Another configuration from now on. A rate that has changed begins with full buckets.
    pub fn reconfigure(&mut self, config: &Config) {
        let limits = config.limits.clone();
        if limits.rate_per_client != self.limits.rate_per_client {
            self.per_client = limits.rate_per_client.map(|rate| Buckets::new(rate.pace(), self.seed));
        }
        if limits.rate != self.limits.rate {
            self.overall = limits.rate.map(|rate| TokenBucket::new(rate.pace()));
        }
        (self.limits, self.proxies, self.patience) = (limits, config.proxies.trusted.clone(), config.hold_timeout);
    }

    /// How many wait here.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// How many connections may be accepted now, by the rate for all: the others wait in the kernel's queue.
    pub fn room(&self, now: Instant) -> usize {
        match &self.overall {
            Some(bucket) if self.limits.over == OverLimit::Wait => bucket.available(now - self.began),
            _ => usize::MAX,
        }
    }

    /// The master stops: all that have come to the kernel's queue are taken.
    pub fn lift(&mut self) {
        self.overall = None;
    }

    /// Whether something is to be done without an event.
    pub fn depends_on_time(&self) -> bool {
        !self.line.is_empty() || self.offenders.has_pending()
    }

    /// A connection has been accepted. If a proxy is to name the client, the client's own limits apply once it has.
    pub fn arrived(&mut self, connection: ClientConnection, now: Instant) -> Passage {
        let peer = connection.client;
        if !self.limits.allow.is_empty() && !self.limits.allow.contains(&peer) || self.limits.deny.contains(&peer) {
            self.offenders.note(source_of(&peer));
            return Passage::Refused(connection, RejectReason::Denied);
        }
        let time = now - self.began;
        if self.overall.as_mut().is_some_and(|bucket| bucket.take(time).is_err()) {
            self.offenders.note(source_of(&peer));
            return Passage::Refused(connection, RejectReason::OverLimit);
        }
        if self.proxies.contains(&peer) { Passage::In(connection) } else { self.known(connection, now) }
    }

    /// The client of a connection is known.
    pub fn known(&mut self, mut connection: ClientConnection, now: Instant) -> Passage {
        let Some(source) = source_of(&connection.client).filter(|_| !connection.unattributed) else {
            return Passage::In(connection);
        };
        let waits = self.limits.over == OverLimit::Wait;
        let mut is_full = false;
        if let Some(most) = self.limits.waiting_per_client {
            is_full = self.counts.of(source) >= most;
            if is_full && !(waits && self.line.len() < self.most && self.in_line(source) < most) {
                return self.refused(connection, source);
            }
        }
        let patience = if waits && self.line.len() < self.most { self.patience } else { Duration::ZERO };
        let taken = self.per_client.as_mut().map(|buckets| buckets.take(source, now - self.began, patience));
        let Ok(wait) = taken.unwrap_or(Ok(Duration::ZERO)) else {
            return self.refused(connection, source);
        };
        if self.limits.waiting_per_client.is_some() {
            connection.waits = Some(Waits::new(&self.counts, source));
        }
        if wait.is_zero() && !is_full {
            return Passage::In(connection);
        }
        self.offenders.note_delayed(source);
        self.delayed += 1;
        self.line.push_back(InLine { connection, source, due: now + wait });
        Passage::Waits
    }

    fn refused(&mut self, connection: ClientConnection, source: Source) -> Passage {
        self.offenders.note(Some(source));
        Passage::Refused(connection, RejectReason::OverLimit)
    }

    fn in_line(&self, source: Source) -> usize {
        self.line.iter().filter(|it| it.source == source).count()
    }

    /// Takes out those whose turn has come, and those that have waited for too long. Logs the clients over a limit.
    pub fn release(&mut self, now: Instant) -> Vec<Passage> {
        self.offenders.log(now);
        let mut in_line: HashMap<Source, usize> = HashMap::new();
        self.line.iter().for_each(|it| *in_line.entry(it.source).or_default() += 1);
        let mut released = Vec::new();
        for it in std::mem::take(&mut self.line) {
            let lined = in_line.entry(it.source).or_default();
            let inside = self.counts.of(it.source).saturating_sub(*lined);
            let has_room = self.limits.waiting_per_client.is_none_or(|most| inside < most);
            // A place in the rate is waited for as long as it was promised.
            if it.due <= now && has_room {
                *lined -= 1;
                released.push(Passage::In(it.connection));
            } else if now >= it.connection.accepted.max(it.due) + self.patience {
                *lined -= 1;
                self.offenders.note(Some(it.source));
                released.push(Passage::Refused(it.connection, RejectReason::OverLimit));
            } else {
                self.line.push_back(it);
            }
        }
        released
    }

    /// Takes all out: the master stops.
    pub fn end(&mut self) -> impl Iterator<Item = ClientConnection> {
        std::mem::take(&mut self.line).into_iter().map(|it| it.connection)
    }
}

fn source_of(client: &EndAddr) -> Option<Source> {
    client.ip().map(|client| Source::of(client.ip()))
}
