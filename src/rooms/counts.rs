//! What the relay has done, to be read while it goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Why a message did not arrive somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Too much waited for a member that does not read.
    Unread,
    /// The member that it was for has left.
    Left,
    /// Its sender could not send it: too much waited, or it was too long.
    Unsent,
    /// It was for other hosts, and could not be published.
    Redis,
    /// Another host has published it for all members, and it did not arrive here.
    Missed,
    /// Its sender, a member of another host, is not known here.
    Unknown,
    /// It was published where emitters do, and is not of one.
    Emitter,
}

impl DropReason {
    const ALL: [Self; 7] =
        [Self::Unread, Self::Left, Self::Unsent, Self::Redis, Self::Missed, Self::Unknown, Self::Emitter];

    fn name(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Left => "left",
            Self::Unsent => "unsent",
            Self::Redis => "redis",
            Self::Missed => "missed",
            Self::Unknown => "unknown",
            Self::Emitter => "emitter",
        }
    }
}

/// The relay's counters.
#[derive(Debug, Default)]
pub struct RoomsCounters {
    members: AtomicU64,
    hosts: AtomicU64,
    is_linked: AtomicBool,
    breaks: AtomicU64,
    messages: AtomicU64,
    deliveries: AtomicU64,
    bytes: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

/// Their values at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RoomsTotals {
    /// Members that are there now.
    pub members: u64,
    /// Other hosts that share these rooms now.
    pub hosts: u64,
    /// Whether there is a link to other hosts, and it holds.
    pub is_linked: bool,
    /// Whether haft is not ready without it.
    pub is_required: bool,
    /// How often that link broke.
    pub link_breaks: u64,
    /// Messages that members have sent.
    pub messages: u64,
    /// Messages put down for a member: one that goes to three counts three times.
    pub deliveries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What did not arrive, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl RoomsCounters {
    /// The values now.
    pub fn totals(&self) -> RoomsTotals {
        RoomsTotals {
            members: self.members.load(Relaxed),
            hosts: self.hosts.load(Relaxed),
            is_linked: self.is_linked.load(Relaxed),
            is_required: false,
            link_breaks: self.breaks.load(Relaxed),
            messages: self.messages.load(Relaxed),
            deliveries: self.deliveries.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            dropped: DropReason::ALL.map(|why| (why.name(), self.dropped[why as usize].load(Relaxed))).into(),
        }
    }

    pub(super) fn set_members(&self, members: usize) {
        self.members.store(members as u64, Relaxed);
    }

    pub(super) fn set_hosts(&self, hosts: usize) {
        self.hosts.store(hosts as u64, Relaxed);
    }

    /// Yields what was before.
    pub(super) fn set_linked(&self, is_linked: bool) -> bool {
        let before = self.is_linked.swap(is_linked, Relaxed);
        if before && !is_linked {
            self.breaks.fetch_add(1, Relaxed);
        }
        before
    }

    pub(super) fn message(&self) {
        self.messages.fetch_add(1, Relaxed);
    }

    pub(super) fn delivery(&self, bytes: usize) {
        self.deliveries.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn dropped(&self, why: DropReason, count: u64) {
        self.dropped[why as usize].fetch_add(count, Relaxed);
    }
}
