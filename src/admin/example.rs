//! A snapshot for tests: two slots, one of them without a worker, and every number different from the others.

use std::time::{Duration, UNIX_EPOCH};

use super::usage::{ProcessFigures, ReportedUsage};
use super::{
    AlarmStatus, ControlCounts, CriterionFigures, DrainingWorker, ExitStatus, ReloadState, ReloadStatus,
    RoutingFigures, SlotBalance, SlotStatus, Snapshot, WorkerStage,
};
use crate::histogram::Histogram;
use crate::rooms::RoomsTotals;

use haft_worker::protocol::scoreboard::Field;

/// 100 accepted = 70 + 20 delivered + 3 + 2 refused + 5 in flight.
pub(super) fn snapshot() -> Snapshot {
    let mut hand_over = Histogram::new();
    for connection in 0..90 {
        hand_over.observe(Duration::from_micros(15 + connection));
    }
    Snapshot {
        version: "1.2.3".to_owned(),
        name: "example-3000".to_owned(),
        pid: 4711,
        started: UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        uptime: Duration::from_millis(3_600_500),
        listen: vec![":3000".to_owned()],
        affinity: "ip".to_owned(),
        dispatch: "handover".to_owned(),
        note: None,
        keeps_stdout: true,
        stopping: false,
        accepted: 100,
        delivered: vec![70, 20],
        refused: vec![("hold-timeout", 3), ("no-worker", 2)],
        in_flight: 5,
        held: 4,
        redelivered_unread: 6,
        redelivered_unacknowledged: 7,
        returned: 8,
        routing: routing(),
        rescued: 20,
        listener_repairs: vec![("shut", 28), ("steering", 0)],
        accept_errors: vec![("emfile", 1), ("aborted", 9)],
        hand_over,
        process: Some(process(3)),
        descriptors_open: 31,
        descriptors_limit: 65_536,
        generation: 2,
        reload: Some(ReloadStatus {
            state: ReloadState::UnderWay,
            description: "slot 1 of 2".to_owned(),
            unix_time: 1_700_003_500,
        }),
        reloads_done: 14,
        reloads_failed: 15,
        hung: 16,
        hang_kills: 17,
        node_messages: 18,
        node_messages_dropped: 19,
        rooms: rooms(),
        node_listens_refused: 20,
        node_troubles: vec![("exclusive", 48), ("late_server", 0)],
        node_names_forgotten: 21,
        log_lines_dropped: 32,
        log_lines_suppressed: 33,
        alarms: alarms(),
        control: ControlCounts {
            requests: vec![("reload", 12), ("scale", 0)],
            refused: vec![("no_token", 13), ("foreign_uid", 0)],
            closed: vec![("pushed_out", 29), ("too_slow", 0)],
        },
        slots: vec![ready_slot(), gone_slot()],
        draining: vec![draining_worker()],
        balance: balance(),
    }
}

fn routing() -> RoutingFigures {
    RoutingFigures {
        routed: vec![("address", 0), ("session", 21)],
        unattributed: 28,
        peeking: 2,
        at_the_gate: 0,
        traces: 52,
        delayed: 31,
        given_up: vec![("timeout", 23)],
        proxy_headers: vec![("taken", 24), ("malformed", 0)],
        client_ip_headers: vec![("taken", 0), ("malformed", 25)],
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        other_hosts: 44,
        criteria: vec![criterion()],
    }
}

fn alarms() -> Vec<AlarmStatus> {
    let line = Some("slot 1 gets all".to_owned());
    vec![
        AlarmStatus { alarm: "skew", active: true, raised: 48, unix_time: Some(1_700_003_400), line },
        AlarmStatus { alarm: "restarts", active: false, raised: 49, unix_time: None, line: None },
    ]
}

fn rooms() -> RoomsTotals {
    RoomsTotals {
        members: 41,
        hosts: 46,
        is_linked: true,
        is_required: false,
        link_breaks: 47,
        messages: 42,
        deliveries: 43,
        bytes: 44,
        dropped: [("unread", 45), ("left", 0)].into(),
    }
}

fn ready_slot() -> SlotStatus {
    SlotStatus {
        slot: 0,
        state: WorkerStage::Ready,
        drained: false,
        restarting: true,
        hung: false,
        listens_on_nothing: false,
        kept_out: false,
        draining_workers: 3,
        generation: 0,
        worker: 1,
        pid: Some(4712),
        uptime: Duration::from_secs(3600),
        in_flight: 1,
        held: 0,
        delivered: 70,
        accept_queue: Some(27),
        open: Some(11),
        sessions: Some(26),
        process: Some(process(4)),
        cpu: Duration::from_secs(51),
        reported: Some(reported()),
        respawned: 0,
        replaced: vec![("ended", 0), ("memory", 48)],
        health_checks: vec![("passed", 49), ("failed", 50)],
        deaths_by_reason: Vec::new(),
        last_exit: None,
        output_lines_dropped: 34,
        output_pauses: 35,
    }
}

fn gone_slot() -> SlotStatus {
    SlotStatus {
        slot: 1,
        state: WorkerStage::Gone,
        drained: true,
        restarting: false,
        hung: false,
        listens_on_nothing: false,
        kept_out: true,
        draining_workers: 0,
        generation: 0,
        worker: 4,
        pid: None,
        uptime: Duration::ZERO,
        in_flight: 0,
        held: 2,
        delivered: 20,
        accept_queue: None,
        open: None,
        sessions: None,
        process: None,
        cpu: Duration::ZERO,
        reported: None,
        respawned: 3,
        replaced: vec![("ended", 3), ("memory", 0)],
        health_checks: vec![("passed", 0), ("failed", 0)],
        deaths_by_reason: vec![("signal SIGKILL".to_owned(), 2), ("a \"quoted\"\nline\\".to_owned(), 1)],
        last_exit: Some(ExitStatus { description: "signal SIGKILL".to_owned(), unix_time: 1_700_003_000 }),
        output_lines_dropped: 0,
        output_pauses: 0,
    }
}

fn draining_worker() -> DrainingWorker {
    DrainingWorker {
        slot: 0,
        worker: 3,
        pid: Some(4713),
        generation: 1,
        uptime: Duration::from_secs(60),
        in_flight: 1,
        held: 0,
        open: Some(30),
        sessions: Some(31),
    }
}

/// Two wait for their first request, beside these.
fn balance() -> Vec<SlotBalance> {
    vec![
        SlotBalance { slot: 0, assigned: 74, delivered: 70, refused: 2, moved: 1, in_flight: 1, held: 0 },
        SlotBalance { slot: 1, assigned: 23, delivered: 20, refused: 1, moved: 0, in_flight: 0, held: 2 },
    ]
}

fn criterion() -> CriterionFigures {
    let outcomes = vec![("decided", 41), ("absent", 42), ("too_long", 43)];
    CriterionFigures { criterion: "query:a \"room\"".to_owned(), outcomes }
}

fn process(number: u64) -> ProcessFigures {
    ProcessFigures {
        resident_bytes: number << 20,
        cpu: Duration::from_millis(number * 500),
        threads: number,
        descriptors: Some(number * 10),
    }
}

/// Every figure, and each another: 100, 101 ...
fn reported() -> ReportedUsage {
    let figures = (100..).zip(Field::ALL).map(|(figure, field)| (field.name(), figure)).collect();
    ReportedUsage { age: Duration::from_millis(500), figures }
}
