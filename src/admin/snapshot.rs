//! The master as it was at one instant. Plain data: the master fills it, the pages render it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::alarm_status::AlarmStatus;
use super::routing::{RoutingFigures, as_map};
use super::usage::{ProcessFigures, ReportedUsage, seconds};
use crate::histogram::Histogram;
use crate::rooms::RoomsTotals;

/// Everything the admin pages know, read at one instant.
///
/// In a list of reasons each reason appears once. List a reason that can occur while its count is still zero:
/// Prometheus cannot see the first increase of a series that was not there before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// haft's version.
    pub version: String,
    /// What this haft is called.
    pub name: String,
    /// The master's process id.
    pub pid: u32,
    /// When the master started, read from the clock once: it must not change from one snapshot to the next.
    #[serde(rename = "started_unix_time", serialize_with = "unix_time")]
    pub started: SystemTime,
    /// How long the master has been running (by the monotonic clock).
    #[serde(rename = "uptime_seconds", serialize_with = "seconds")]
    pub uptime: Duration,
    /// Where clients connect, as actually bound.
    pub listen: Vec<String>,
    /// What sticks to a slot (`ip`, `session`, `query:room,ip`, `none`).
    pub affinity: String,
    /// What assigns connections (`handover`, `kernel`).
    pub dispatch: String,
    /// For people: what the numbers leave out.
    pub note: Option<&'static str>,
    /// Whether the last lines of workers' standard output are kept, as those of standard error are.
    pub keeps_stdout: bool,
    /// Whether the master has been asked to stop.
    pub stopping: bool,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections acknowledged by a worker, per slot: the place in the list is the slot.
    pub delivered: Vec<u64>,
    /// Connections closed without having reached a worker, by reason.
    #[serde(serialize_with = "as_map")]
    pub refused: Vec<(&'static str, u64)>,
    /// Connections accepted and neither delivered nor refused: held, or sent and not yet acknowledged.
    pub in_flight: u64,
    /// Of `in_flight`, those that wait for a worker.
    pub held: u64,
    /// Connections sent again because their worker died before it had received them.
    pub redelivered_unread: u64,
    /// Connections sent again because their worker died after it had received and before it had acknowledged them.
    pub redelivered_unacknowledged: u64,
    /// Connections that a worker gave back.
    pub returned: u64,
    /// What decided where connections went, and what was learnt for it.
    pub routing: RoutingFigures,
    /// Connections taken out of the accept queue of a slot that no worker served, and handed to another.
    pub rescued: u64,
    /// How often a group of listeners that a worker had changed was put right, by what was wrong (`--dispatch kernel`).
    #[serde(serialize_with = "as_map")]
    pub listener_repairs: Vec<(&'static str, u64)>,
    /// Calls of accept(2) that gave no connection, by reason (waiting queues that were empty not counted).
    #[serde(serialize_with = "as_map")]
    pub accept_errors: Vec<(&'static str, u64)>,
    /// From accept to acknowledgement, of every delivered connection.
    pub hand_over: Histogram,
    /// What the master's own process uses. [`super::Control::figures`] fills it.
    pub process: Option<ProcessFigures>,
    /// Descriptors that the master has open.
    pub descriptors_open: u64,
    /// Descriptors that the master may have open (the soft RLIMIT_NOFILE).
    pub descriptors_limit: u64,
    /// The newest generation: how many reloads have begun.
    pub generation: u32,
    /// The reload that is under way, or else the last one.
    pub reload: Option<ReloadStatus>,
    /// Reloads that replaced every worker.
    pub reloads_done: u64,
    /// Reloads that stopped before that.
    pub reloads_failed: u64,
    /// How often a worker was found to be hung.
    pub hung: u64,
    /// How often such a worker was killed for it.
    pub hang_kills: u64,
    /// Messages of Node programs (`process.send`) that have no receiver here.
    pub node_messages: u64,
    /// Messages between Node workers that were dropped, because they were too long or too many.
    pub node_messages_dropped: u64,
    /// What was sent between workers for the clients of each other (rooms).
    pub rooms: RoomsTotals,
    /// What Node workers wanted to listen on and may not, or was too much.
    pub node_listens_refused: u64,
    /// What Node programs do that cannot be sticky, or only in part, by kind: how often workers did it.
    #[serde(serialize_with = "as_map")]
    pub node_troubles: Vec<(&'static str, u64)>,
    /// How often a name that a Node worker reported was not remembered, because it has too many.
    pub node_names_forgotten: u64,
    /// Lines of haft's own log that were dropped, because standard error was not read or could not be written.
    pub log_lines_dropped: u64,
    /// Lines of haft's own log that were suppressed, because there were too many of one kind.
    pub log_lines_suppressed: u64,
    /// What goes wrong for a while, each kind once.
    pub alarms: Vec<AlarmStatus>,
    /// What was asked of control. [`super::Control::snapshot`] fills it, whatever the master's answer.
    pub control: ControlCounts,
    /// One entry per slot, in the order of slots.
    pub slots: Vec<SlotStatus>,
    /// One entry per worker that finishes what it has: after a reload, or because its slot is no more.
    pub draining: Vec<DrainingWorker>,
    /// The books of each slot there ever was, in the order of slots.
    pub balance: Vec<SlotBalance>,
}

/// A worker that takes no new clients, and finishes what it has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrainingWorker {
    /// The slot that it filled.
    pub slot: usize,
    /// The worker's number.
    pub worker: u64,
    /// Its process id, while it has one.
    pub pid: Option<u32>,
    /// How many reloads came before it.
    pub generation: u64,
    /// How long it has been running.
    #[serde(rename = "uptime_seconds", serialize_with = "seconds")]
    pub uptime: Duration,
    /// Connections sent to it and not yet acknowledged: part of its slot's `in_flight`.
    pub in_flight: u64,
    /// Connections of its sessions that wait for it: part of its slot's `held`.
    pub held: u64,
    /// Connections that it reports, if it does.
    pub open: Option<u64>,
    /// Sessions that it has, as far as they are known, if sessions stick.
    pub sessions: Option<u64>,
}

/// What became of the connections that were assigned to a slot. `assigned = delivered + refused + moved + in_flight +
/// held`.
///
/// A connection whose first request has not come is in no slot's books: it is counted by [`RoutingFigures::peeking`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SlotBalance {
    /// The slot's number.
    pub slot: usize,
    /// Connections assigned to it; one that comes from another slot's queue is counted again.
    pub assigned: u64,
    /// Of these, those that a worker of the slot has acknowledged.
    pub delivered: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those that were assigned to another slot since.
    pub moved: u64,
    /// Those sent to a worker of the slot, whichever it is, and not yet acknowledged.
    pub in_flight: u64,
    /// Those that wait for the slot's worker, or for one that filled it before.
    pub held: u64,
}

impl SlotBalance {
    /// Whether no connection of the slot has been lost sight of.
    pub fn is_balanced(&self) -> bool {
        self.assigned == self.delivered + self.refused + self.moved + self.in_flight + self.held
    }
}

/// A reload, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadStatus {
    /// How far.
    pub state: ReloadState,
    /// For people, one line: what it is doing, or how it ended and why.
    pub description: String,
    /// When it came to this state, in seconds since 1970.
    pub unix_time: u64,
}

/// How far a reload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadState {
    /// Slots are being given new workers.
    UnderWay,
    /// Every slot has its new worker.
    Done,
    /// It was stopped; what had not been replaced stayed.
    Failed,
}

/// What was asked of control since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ControlCounts {
    /// Changes that the master has taken on, by what they were.
    #[serde(serialize_with = "as_map")]
    pub requests: Vec<(&'static str, u64)>,
    /// Attempts by callers that may not, by reason.
    #[serde(serialize_with = "as_map")]
    pub refused: Vec<(&'static str, u64)>,
    /// Connections of the admin listener that were closed before their time, by reason.
    #[serde(serialize_with = "as_map")]
    pub closed: Vec<(&'static str, u64)>,
}

/// A slot and the worker that fills it now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlotStatus {
    /// The slot's number, from 0.
    pub slot: usize,
    /// Where its worker is in its life: the one that takes connections, not those that only finish what they have.
    pub state: WorkerStage,
    /// Whether the operator has drained it: it gets no new connections.
    pub drained: bool,
    /// Whether it is to get a new worker, or is getting it: an operator has asked for that, or the old one is too large
    /// or too old.
    pub restarting: bool,
    /// Whether its worker counts as hung: new connections go to other slots.
    pub hung: bool,
    /// Whether its worker, a Node program, has closed all of its servers: new connections go to other slots.
    pub listens_on_nothing: bool,
    /// Whether its workers ended too often: it gets none until an operator restarts it.
    pub kept_out: bool,
    /// Former workers of this slot that finish what they have.
    pub draining_workers: usize,
    /// How many reloads came before this worker.
    pub generation: u64,
    /// The worker's number, counted over all slots: no two workers of one master have the same.
    pub worker: u64,
    /// The worker's process id, while it has one.
    pub pid: Option<u32>,
    /// How long this worker has been running; zero if there is none.
    #[serde(rename = "uptime_seconds", serialize_with = "seconds")]
    pub uptime: Duration,
    /// Connections sent to this slot's workers and not yet acknowledged, those sent to a former worker too.
    pub in_flight: u64,
    /// Connections that wait for this slot's workers; not part of the slot's `in_flight`.
    pub held: u64,
    /// Connections acknowledged by this slot's workers: the slot's place in [`Snapshot::delivered`].
    pub delivered: u64,
    /// Connections that wait in the kernel for this slot's worker to accept them, where it has listeners of its own.
    pub accept_queue: Option<u64>,
    /// Connections that the worker reports, if it does.
    pub open: Option<u64>,
    /// Sessions that the worker has, as far as they are known, if sessions stick.
    pub sessions: Option<u64>,
    /// What the worker's process uses. [`super::Control::figures`] fills it.
    pub process: Option<ProcessFigures>,
    /// Time on a CPU of all workers that the slot has had. [`super::Control::figures`] completes it.
    #[serde(rename = "cpu_seconds", serialize_with = "seconds")]
    pub cpu: Duration,
    /// What the slot's workers report of themselves (docs/scoreboard.md). [`super::Control::figures`] fills it.
    pub reported: Option<ReportedUsage>,
    /// How often a worker of this slot was replaced because it had ended by itself.
    pub respawned: u64,
    /// How often the slot got a worker in place of another, by why.
    #[serde(serialize_with = "as_map")]
    pub replaced: Vec<(&'static str, u64)>,
    /// Health checks of this slot's workers, by what came of them.
    #[serde(serialize_with = "as_map")]
    pub health_checks: Vec<(&'static str, u64)>,
    /// Ends of this slot's workers, by reason.
    #[serde(serialize_with = "as_map")]
    pub deaths_by_reason: Vec<(String, u64)>,
    /// How the last worker of this slot that ended did so.
    pub last_exit: Option<ExitStatus>,
    /// Lines that its workers wrote and that were dropped, because haft's output was not read.
    pub output_lines_dropped: u64,
    /// How often the output of its workers was left alone for a moment, because they wrote too much.
    pub output_pauses: u64,
}

/// Where a slot's worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStage {
    /// It runs and is not ready yet.
    Starting,
    /// It takes connections.
    Ready,
    /// It finishes what it has.
    Draining,
    /// There is none.
    Gone,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExitStatus {
    /// For people: `exit code 1`, `signal SIGKILL`.
    pub description: String,
    /// When, in seconds since 1970.
    pub unix_time: u64,
}

impl Snapshot {
    /// Whether `accepted = delivered + refused + in flight`, in all and slot by slot: no connection has been lost sight
    /// of.
    pub fn is_balanced(&self) -> bool {
        let delivered: u64 = self.delivered.iter().sum();
        let refused: u64 = self.refused.iter().map(|(_, count)| count).sum();
        let somewhere: u64 = self.balance.iter().map(|slot| slot.in_flight + slot.held).sum();
        self.accepted == delivered + refused + self.in_flight
            && self.in_flight == somewhere + self.routing.peeking + self.routing.at_the_gate
            && self.balance.iter().all(SlotBalance::is_balanced)
    }

    /// Whether a new connection would find a worker: at least one slot takes clients, and the master is not stopping,
    /// nor lacks other hosts that it must have.
    pub fn is_ready(&self) -> bool {
        !self.stopping && !self.lacks_link() && self.slots.iter().any(SlotStatus::takes_clients)
    }
}

impl Snapshot {
    /// Whether the link to other hosts is broken that haft is not ready without.
    pub fn lacks_link(&self) -> bool {
        self.rooms.is_required && !self.rooms.is_linked
    }
}

impl SlotStatus {
    /// Whether a new client is served here: its worker is ready, does not hang and
    /// listens, and the slot is not drained.
    pub fn takes_clients(&self) -> bool {
        self.state == WorkerStage::Ready && !self.hung && !self.drained && !self.listens_on_nothing
    }
}

impl WorkerStage {
    /// Every state, in the order of a worker's life.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Draining, Self::Gone];

    /// The state's name, as the pages show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

fn unix_time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(seconds_since_1970(*time))
}

/// A clock that stands before 1970 counts as 1970.
pub(super) fn seconds_since_1970(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn the_conservation_law_holds_until_one_connection_is_lost_sight_of() {
        assert!(example::snapshot().is_balanced());
        let spoilers: [fn(&mut Snapshot); 4] =
            [|s| s.accepted += 1, |s| s.delivered[1] += 1, |s| s.refused[0].1 += 1, |s| s.in_flight -= 1];
        for spoil in spoilers {
            let mut snapshot = example::snapshot();
            spoil(&mut snapshot);
            assert!(!snapshot.is_balanced(), "{snapshot:?}");
        }
    }

    #[test]
    fn one_ready_slot_is_enough_unless_the_master_stops() {
        let mut snapshot = example::snapshot();
        assert!(snapshot.is_ready());
        snapshot.stopping = true;
        assert!(!snapshot.is_ready());
        snapshot.stopping = false;
        for state in [WorkerStage::Starting, WorkerStage::Draining, WorkerStage::Gone] {
            snapshot.slots.iter_mut().for_each(|slot| slot.state = state);
            assert!(!snapshot.is_ready(), "{state:?}");
        }
        snapshot.slots.clear();
        assert!(!snapshot.is_ready());
    }

    #[test]
    fn the_json_names_states_as_the_metrics_do_and_gives_seconds() {
        let json = serde_json::to_value(example::snapshot()).expect("json");
        assert_eq!(json["uptime_seconds"], 3600.5);
        assert_eq!(json["started_unix_time"], 1_700_000_000.25);
        assert_eq!(json["refused"]["hold-timeout"], 3);
        assert_eq!(json["accept_errors"]["emfile"], 1);
        assert_eq!(json["delivered"], serde_json::json!([70, 20]));
        assert_eq!(json["hand_over"]["count"], 90);
        assert_eq!(json["slots"][1]["deaths_by_reason"]["signal SIGKILL"], 2);
        assert_eq!(json["slots"][1]["last_exit"]["unix_time"], 1_700_003_000);
        assert_eq!(json["generation"], 2);
        assert_eq!(json["reload"]["state"], "under_way");
        assert_eq!(json["reload"]["unix_time"], 1_700_003_500);
        assert_eq!(json["control"]["refused"]["no_token"], 13);
        let slot = &json["slots"][1];
        assert_eq!((&slot["drained"], &slot["hung"]), (&true.into(), &false.into()));
        assert_eq!(json["slots"][0]["draining_workers"], 3);
        assert!(json["slots"][1]["pid"].is_null());
        for state in WorkerStage::ALL {
            assert_eq!(serde_json::to_value(state).expect("json"), state.name());
        }
    }

    #[test]
    fn a_clock_before_1970_is_not_an_error() {
        assert_eq!(seconds_since_1970(UNIX_EPOCH - Duration::from_secs(5)), 0.0);
    }
}
