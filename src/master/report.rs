//! What the master tells of itself, read at one instant.

use std::time::{Instant, SystemTime};

use super::{Master, Phase};
use crate::admin::{ControlCounts, ControlRequest, Denied, ExitStatus, SlotState as Shown, SlotStatus, Snapshot};
use crate::config::{Affinity, Config};
use crate::lifecycle::pool::SlotState;
use crate::route::Slot;
use crate::sys::descriptors;

/// What does not change while the master lives.
#[derive(Debug)]
pub struct About {
    affinity: Affinity,
    descriptor_limit: u64,
    started: (SystemTime, Instant),
}

impl About {
    pub(super) fn new(config: &Config, descriptor_limit: u64) -> Self {
        Self { affinity: config.affinity, descriptor_limit, started: (SystemTime::now(), Instant::now()) }
    }
}

impl Master {
    /// Answers a request from the admin listener.
    pub(super) fn answer(&self, request: ControlRequest) {
        match request {
            // Whoever asked may be gone.
            ControlRequest::Snapshot(reply) => drop(reply.send(self.snapshot())),
            ControlRequest::Change(_, reply) => drop(reply.send(Err(Denied::Busy("not available".to_owned())))),
        }
    }

    /// One line of totals.
    pub(super) fn summary(&self) -> String {
        let ledger = &self.dispatch.ledger;
        format!(
            "accepted {}, delivered {}, refused {}",
            ledger.accepted(),
            ledger.delivered().iter().sum::<u64>(),
            ledger.refused().map(|(_, count)| count).sum::<u64>()
        )
    }

    fn snapshot(&self) -> Snapshot {
        let ledger = &self.dispatch.ledger;
        let (started, since) = self.about.started;
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started,
            uptime: since.elapsed(),
            listen: self.doors.listeners().map(|(_, listener)| listener.addr().to_string()).collect(),
            affinity: self.about.affinity.to_string(),
            stopping: matches!(self.phase, Phase::Flushing(_) | Phase::Stopping),
            accepted: ledger.accepted(),
            delivered: ledger.delivered().to_vec(),
            refused: ledger.refused().map(|(refusal, count)| (refusal.name(), count)).collect(),
            // Counted one by one, not derived from the other figures: so the books can be checked.
            in_flight: (self.dispatch.held() + self.dispatch.in_flight()) as u64,
            held: self.dispatch.held() as u64,
            redelivered_unread: ledger.redelivered_unread,
            redelivered_unacknowledged: ledger.redelivered_unacknowledged,
            returned: ledger.returned,
            accept_errors: vec![("aborted", ledger.aborted), ("no_descriptor", ledger.exhausted)],
            hand_over: ledger.hand_over().clone(),
            descriptors_open: descriptors::open_count().unwrap_or(0),
            descriptors_limit: self.about.descriptor_limit,
            generation: 0,
            reload: None,
            reloads_done: 0,
            reloads_failed: 0,
            hung: 0,
            hang_kills: 0,
            node_messages: self.dispatch.node.as_ref().map_or(0, |desk| desk.messages),
            node_messages_dropped: self.dispatch.node.as_ref().map_or(0, |desk| desk.dropped),
            control: ControlCounts::default(),
            slots: self.dispatch.slots().map(|slot| self.slot_status(slot)).collect(),
        }
    }

    fn slot_status(&self, slot: Slot) -> SlotStatus {
        let supervisor = &self.supervisor;
        let worker = supervisor.pool.worker(slot, supervisor.now());
        let link = worker.and_then(|(id, ..)| self.dispatch.links().find(|link| link.worker == id));
        let history = &supervisor.history[slot.index()];
        SlotStatus {
            slot: slot.index(),
            state: match supervisor.pool.state(slot) {
                SlotState::Starting => Shown::Starting,
                SlotState::Ready => Shown::Ready,
                SlotState::Draining => Shown::Draining,
                SlotState::Gone => Shown::Gone,
            },
            drained: false,
            hung: false,
            draining_workers: 0,
            generation: worker.map_or(0, |(_, generation, _)| generation.into()),
            worker: worker.map_or(0, |(id, ..)| id.0),
            pid: worker.and_then(|(id, ..)| supervisor.crew.pid(id)),
            uptime: worker.map_or_else(Default::default, |(.., uptime)| uptime),
            in_flight: link.map_or(0, |link| link.in_flight() as u64),
            held: self.dispatch.held_for(slot) as u64,
            delivered: self.dispatch.ledger.delivered()[slot.index()],
            open: link.and_then(|link| link.open()).map(u64::from),
            respawned: history.starts.saturating_sub(1),
            deaths_by_reason: history.deaths.iter().map(|(reason, count)| (reason.clone(), *count)).collect(),
            last_exit: history
                .last_exit
                .as_ref()
                .map(|(description, unix_time)| ExitStatus { description: description.clone(), unix_time: *unix_time }),
        }
    }
}
