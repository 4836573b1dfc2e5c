//! What goes wrong for a while: each kind is one line with the likely reason and the cure, logged at most once an hour,
//! and shown as long as it lasts.
//!
//! The master gives a [`Sample`] of its counters every few seconds; nothing here is called for a connection. No clock and no
//! system call: time is an argument.

mod watch;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use crate::connection::RejectReason;

pub use self::watch::{Alarms, LOOK_EVERY, Sample, SlotSample};

/// A kind of alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// One slot gets at least twice the mean of the connections.
    Skew,
    /// Nearly all clients have one address, that of a proxy.
    OneAddress,
    /// A slot has lost its worker again and again.
    Restarts,
    /// A worker's event loop is late.
    LoopDelay,
    /// Connections are refused without an operator's request for it.
    Refusals,
    /// Few descriptors are left.
    Descriptors,
    /// The kernel's queue of connections is short, or nearly full.
    AcceptQueue,
}

impl Alarm {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Skew,
        Self::OneAddress,
        Self::Restarts,
        Self::LoopDelay,
        Self::Refusals,
        Self::Descriptors,
        Self::AcceptQueue,
    ];

    /// Its name in metrics and in `/status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skew => "skew",
            Self::OneAddress => "one_address",
            Self::Restarts => "restarts",
            Self::LoopDelay => "loop_delay",
            Self::Refusals => "refusals",
            Self::Descriptors => "descriptors",
            Self::AcceptQueue => "accept_queue",
        }
    }
}

/// What is wrong, with all that its line contains.
#[derive(Debug, Clone, PartialEq)]
pub enum AlarmCause {
    /// [`Alarm::Skew`].
    Skew {
        /// The slot that gets the most.
        slot: usize,
        /// How many times the mean.
        times: f64,
        /// The address of most clients, if most have one.
        address: Option<IpAddr>,
        /// `--affinity`, unless clients stick by their address alone.
        affinity: Option<String>,
    },
    /// [`Alarm::OneAddress`]: its line.
    OneAddress(String),
    /// [`Alarm::Restarts`].
    Restarts {
        /// The slot.
        slot: usize,
        /// How its last worker ended.
        last: String,
    },
    /// [`Alarm::LoopDelay`].
    LoopDelay {
        /// The slot whose worker is the latest.
        slot: usize,
        /// By how much it is late.
        delay: Duration,
        /// How many slots lag.
        slots: usize,
    },
    /// [`Alarm::Refusals`].
    Refusals {
        /// How many since the look before.
        count: u64,
        /// Why most of them.
        reason: RejectReason,
    },
    /// [`Alarm::Descriptors`].
    Descriptors {
        /// Descriptors that are open.
        open: u64,
        /// How many may be.
        limit: u64,
    },
    /// [`Alarm::AcceptQueue`].
    AcceptQueue {
        /// The listener.
        listener: String,
        /// How many wait.
        waiting: usize,
        /// How many may.
        length: usize,
        /// How many were asked for (`--backlog`).
        wanted: usize,
    },
}

impl AlarmCause {
    /// Its kind.
    pub const fn alarm(&self) -> Alarm {
        match self {
            Self::Skew { .. } => Alarm::Skew,
            Self::OneAddress(_) => Alarm::OneAddress,
            Self::Restarts { .. } => Alarm::Restarts,
            Self::LoopDelay { .. } => Alarm::LoopDelay,
            Self::Refusals { .. } => Alarm::Refusals,
            Self::Descriptors { .. } => Alarm::Descriptors,
            Self::AcceptQueue { .. } => Alarm::AcceptQueue,
        }
    }

    /// One line for the operator: what is so, the likely reason, the cure.
    pub fn line(&self) -> String {
        match self {
            Self::Skew { slot, times, address, affinity } => {
                format!("slot {slot} gets {times:.1} times the mean: {}", skew(*address, affinity.as_deref()))
            }
            Self::OneAddress(line) => line.clone(),
            Self::Restarts { slot, last } if last.contains("out of memory") => format!(
                "slot {slot} has lost its worker again and again, the last for want of memory: have fewer workers, or raise \
                 the limit of the control group"
            ),
            Self::Restarts { slot, last } => format!(
                "slot {slot} has lost its worker again and again (the last: {last}): `haft logs {slot}` shows what its \
                 workers wrote"
            ),
            Self::LoopDelay { slot, delay, slots } => format!(
                "the event loop of slot {slot}{} has been late for 30 seconds, now by {} ms: the program computes or waits \
                 without yielding; move that off the loop, or have more workers",
                if *slots > 1 { format!(" and of {} more", slots - 1) } else { String::new() },
                delay.as_millis()
            ),
            Self::Refusals { count, reason } => {
                format!("connections are refused: {count}, most of them for {}; {}", reason.name(), cure(*reason))
            }
            Self::Descriptors { open, limit } => format!(
                "{open} of {limit} descriptors are open, past the limit accepting pauses: raise it (LimitNOFILE= in a \
                 systemd unit, ulimit -n in a shell)"
            ),
            Self::AcceptQueue { listener, waiting, length, wanted } if length < wanted => format!(
                "{waiting} connections wait in the kernel's queue of {listener}, which has room for {length} and not for \
                 --backlog {wanted}: net.core.somaxconn is low, raise it (sysctl -w net.core.somaxconn={wanted})"
            ),
            Self::AcceptQueue { listener, waiting, length, .. } => format!(
                "{waiting} of {length} connections wait in the kernel's queue of {listener}, past that clients must try \
                 again: clients come faster than workers take them, have more workers, or a larger --backlog and \
                 net.core.somaxconn"
            ),
        }
    }
}

fn skew(address: Option<IpAddr>, affinity: Option<&str>) -> String {
    match (address, affinity) {
        (Some(address), None) => format!(
            "most clients have the address {address}, of a NAT or of a proxy. --affinity session spreads them; a proxy can \
             tell them apart (--client-ip-header, --proxy-protocol)"
        ),
        (None, None) => {
            "many of its clients share an address (a NAT, a proxy). --affinity session spreads them; a proxy can \
             tell them apart (--client-ip-header, --proxy-protocol)"
                .to_owned()
        }
        (_, Some(affinity)) => format!(
            "with --affinity {affinity} many connections have one value, or one client connects again and again; \
             `haft why` shows where a client goes"
        ),
    }
}

/// What helps against refusals. Those that the operator has asked for are no alarm.
fn cure(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::NoWorker => {
            "no worker was ready with room; `haft status` shows which start, hang or take nothing. Have more workers, or a \
             longer --hold-timeout"
        }
        RejectReason::QueueFull => "too many waited for each slot already: have more workers",
        RejectReason::NoDescriptor => "no descriptor was left: raise the limit (LimitNOFILE=, ulimit -n)",
        RejectReason::NoRequest => {
            "their clients sent no request within --peek-timeout, or too many of one client waited"
        }
        RejectReason::Unattributed => {
            "a trusted proxy did not name its client: have it send what haft is configured to accept"
        }
        RejectReason::Stopping | RejectReason::Denied | RejectReason::OverLimit => "as haft was asked to",
    }
}
